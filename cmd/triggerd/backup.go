package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

func backupCommand() *cobra.Command {
	var recipients, files []string
	var force bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Writes a consistent snapshot of the state, while the daemon runs",
		Long: "Writes everything that triggerd must remember as of one moment into FILE, - for the standard output: through the daemon where one runs,\n" +
			"else from the state directory. Sign-ins are in it as they are at rest, sealed; keep the state key elsewhere. What it says of mail\n" +
			"(subjects, addresses) is not: encrypt it with --recipient.",
		Example: "  triggerd backup /var/backups/triggerd.bak\n  triggerd backup - | ssh vault 'cat > triggerd.bak'\n" +
			"  triggerd backup --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p triggerd.bak.age",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			to, err := readRecipients(recipients, files)
			if err != nil {
				return usage(err)
			}
			if args[0] == "-" {
				_, err := takeBackup(cmd, set, cmd.OutOrStdout(), to)
				return err
			}
			if _, err := os.Stat(args[0]); err == nil && !force {
				return usage(fmt.Errorf("%s is there already: name another file, or add --force", args[0]))
			}
			n, err := writeBackup(cmd, set, args[0], to)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, read again and whole\n", args[0], size(n))
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&recipients, "recipient", "r", nil, "encrypt to an age public key; may be repeated")
	cmd.Flags().StringArrayVarP(&files, "recipients-file", "R", nil, "encrypt to the age public keys in a file; may be repeated")
	cmd.Flags().BoolVar(&force, "force", false, "write over a file that is there")
	return cmd
}

func readRecipients(keys, files []string) (out []age.Recipient, err error) {
	for _, k := range keys {
		r, err := age.ParseX25519Recipient(k)
		if err != nil {
			return nil, fmt.Errorf("--recipient: %w: write the public key that age-keygen prints", err)
		}
		out = append(out, r)
	}
	for _, name := range files {
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		rs, err := age.ParseRecipients(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, rs...)
	}
	return out, nil
}

// writeBackup writes a backup beside its place and moves it there when it is whole; nothing is left of one that fails.
func writeBackup(cmd *cobra.Command, set config.Settings, name string, to []age.Recipient) (n int64, err error) {
	partial := name + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed
		return 0, err
	}
	f, err := os.OpenFile(filepath.Clean(partial), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(partial))
		}
	}()
	n, err = takeBackup(cmd, set, f, to)
	if err == nil && len(to) == 0 {
		err = readAgain(f)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return n, os.Rename(partial, name)
}

func readAgain(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := store.CheckBackup(f); err != nil {
		return fmt.Errorf("%s: what was written cannot be read again: %w", f.Name(), err)
	}
	return nil
}

// takeBackup copies a snapshot to w, through the daemon where one runs, and says how many bytes it has in clear.
func takeBackup(cmd *cobra.Command, set config.Settings, w io.Writer, to []age.Recipient) (n int64, err error) {
	out := w
	if len(to) > 0 {
		sealed, err := age.Encrypt(w, to...)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, sealed.Close()) }()
		out = sealed
	}
	bar := &progress{to: cmd.ErrOrStderr(), shown: isTerminal(cmd.ErrOrStderr())}
	defer bar.end()
	client, err := adminClient(set)
	if err != nil {
		return 0, err
	}
	from, total, err := client.Stream(cmd.Context(), "/api/v1/backup")
	if errors.Is(err, status.ErrNoDaemon) {
		err = withState(set, func(st *store.Store) error {
			return st.Backup(io.MultiWriter(out, bar), func(n int64) { bar.total = n })
		})
		if err == nil && bar.done == 0 {
			err = fmt.Errorf("there is no state in %s: is TRIGGERD_STATE_DIR right?", set.StateDir)
		}
		return bar.done, err
	}
	if err != nil {
		return 0, err
	}
	defer from.Close()
	bar.total = total
	n, err = io.Copy(io.MultiWriter(out, bar), from)
	if err == nil && n < total {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return n, fmt.Errorf("copy the state: %w", err)
	}
	return n, nil
}

func restoreCommand() *cobra.Command {
	var force bool
	var identities string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Makes a backup the state; triggerd must not run",
		Long: "Puts the state of a backup, - for the standard input, into TRIGGERD_STATE_DIR. The file is checked to its end before anything changes. At the\n" +
			"next start every folder and calendar is compared with the mailbox, and what happened since the backup is published; what was published since\n" +
			"comes again with the same ids, in a new epoch whose sequences begin at 1.",
		Example: "  systemctl stop triggerd\n  triggerd restore /var/backups/triggerd.bak\n  triggerd restore --identity key.txt triggerd.bak.age",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			if err := nobodyRuns(cmd.Context(), set); err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(filepath.Clean(args[0]))
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			plain, err := decrypt(in, identities)
			if err != nil {
				return err
			}
			return restore(cmd, set, plain, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "put the state that is there aside, under another name")
	cmd.Flags().StringVarP(&identities, "identity", "i", "", "file with the age secret key that decrypts it")
	return cmd
}

// nobodyRuns refuses while a daemon answers; the lock on its database tells of one that does not.
func nobodyRuns(ctx context.Context, set config.Settings) error {
	client, err := adminClient(set)
	if err != nil {
		return err
	}
	if rep, err := client.Status(ctx); err == nil {
		return fmt.Errorf("triggerd runs here since %s: stop it first", rep.StartedAt.Local().Format(time.DateTime))
	}
	return nil
}

// decrypt looks whether a backup is encrypted, and decrypts it then.
func decrypt(in io.Reader, identities string) (io.Reader, error) {
	const intro = "age-encryption.org/v1\n"
	r := bufio.NewReader(in)
	head, _ := r.Peek(len(intro))
	switch encrypted := bytes.Equal(head, []byte(intro)); {
	case !encrypted && identities == "":
		return r, nil
	case !encrypted:
		return nil, usage(errors.New("--identity: this backup is not encrypted: leave it out"))
	case identities == "":
		return nil, usage(errors.New("this backup is encrypted: name the file with the age secret key in --identity"))
	}
	f, err := os.Open(filepath.Clean(identities))
	if err != nil {
		return nil, usage(err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", identities, err))
	}
	return age.Decrypt(r, ids...)
}

func restore(cmd *cobra.Command, set config.Settings, backup io.Reader, force bool) error {
	if err := os.MkdirAll(set.StateDir, 0o700); err != nil {
		return err
	}
	out, err := store.Restore(set.StateDir, backup, force)
	switch {
	case errors.Is(err, store.ErrStateExists):
		return fmt.Errorf("%w: add --force to put it aside under another name", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run this as the user triggerd runs as, or give the files to that user afterwards", err)
	case err != nil:
		return err
	}
	if err := ownedByDirectory(set.StateDir, "triggerd.db", "triggerd.incarnation"); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "the state of %s is restored; %d feeds will be compared with their mailboxes, in epoch %s\n",
		out.At.Local().Format(time.DateTime), out.Feeds, out.Epoch)
	if out.Aside != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "the state that was there: %s\n", out.Aside)
	}
	return nil
}

// ownedByDirectory gives files to the owner of their directory: root restores for the user triggerd runs as.
func ownedByDirectory(dir string, names ...string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(filepath.Clean(dir), name))
		if err != nil {
			return err
		}
		if err := errors.Join(likeOwner(f, info), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// progress counts bytes, and shows on a terminal how many there are.
type progress struct {
	to          io.Writer
	shown       bool
	done, total int64
	at          time.Time
}

// Write is io.Writer's.
func (p *progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if p.shown && time.Since(p.at) > 200*time.Millisecond && p.total > 0 {
		p.at = time.Now()
		fmt.Fprintf(p.to, "\r%3d %%  %s of %s ", 100*p.done/p.total, size(p.done), size(p.total))
	}
	return len(b), nil
}

// end clears the line.
func (p *progress) end() {
	if p.shown && !p.at.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	const mib = 1 << 20
	if n < mib {
		return fmt.Sprintf("%.1f KiB", float64(n)/1024)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mib)
}
