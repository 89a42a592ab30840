package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "The keys that seal sign-ins of users at rest",
		Long: "Sign-ins of users are sealed before they are stored, with the first key of TRIGGERD_STATE_KEY_FILE; every key of the file opens.\n" +
			"Keep a copy apart from the state directory and its backups: without the key its users have to sign in again.",
		Example: "  triggerd key new /etc/triggerd/state_key\n  triggerd key rotate",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keyNewCommand(), keyRotateCommand(), keyListCommand())
	for _, c := range cmd.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

func keyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "new [FILE]",
		Short:   "Makes a key and prints it, or writes a new key file that only its owner may read",
		Example: "  triggerd key new /etc/triggerd/state_key\n  triggerd key new | systemd-creds encrypt --name=state_key - /etc/triggerd/state_key.cred",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			line := seal.NewKey() + "\n"
			if len(args) == 0 {
				_, err := io.WriteString(cmd.OutOrStdout(), line)
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%s is there already, and what it seals would be lost: `triggerd key rotate` replaces the key in it", args[0])
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(f, line)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "key written to %s: name it in TRIGGERD_STATE_KEY_FILE, and keep a copy elsewhere\n", args[0])
			return nil
		},
	}
}

// rotation is what a change of keys did.
type rotation struct {
	Key     string `json:"key"`     // id of the one that seals now
	Records int    `json:"records"` // sealed anew
	Kept    int    `json:"kept"`    // older keys that stay in the file
}

func keyRotateCommand() *cobra.Command {
	var keep, reseal, asJSON bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Puts a new key first, seals everything with it, and takes the old ones out of the file",
		Long: "Puts a new key before the others in TRIGGERD_STATE_KEY_FILE, has everything sealed with it (by the daemon, if one runs), and then takes\n" +
			"the old keys out. Cut short at any point, nothing becomes unreadable: run it again.\n\n" +
			"Where the file cannot be written, as a systemd credential: put a new key before the old one in it yourself, restart triggerd, run\n" +
			"`triggerd key rotate --reseal`, and then take the old key out.",
		Example: "  triggerd key rotate\n  triggerd key rotate --reseal",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := keySettings()
			if err != nil {
				return err
			}
			r, err := rotate(cmd.Context(), set, keep, reseal)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s seals now; %d sign-ins sealed anew, %d older keys kept in the file\n", r.Key, r.Records, r.Kept)
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the old keys in the file, for backups that they sealed")
	cmd.Flags().BoolVar(&reseal, "reseal", false, "make no new key: seal everything with the first one that is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Names the keys of the file, and how many sign-ins each has sealed; triggerd must not run",
		Example: "  triggerd key list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := keySettings()
			if err != nil {
				return err
			}
			keys, err := seal.ReadKeys(set.StateKeyFile)
			if err != nil {
				return usage(err)
			}
			st, err := store.Open(set.StateDir, store.Options{})
			if err != nil {
				return err
			}
			sealed := connections.SealedBy(st)
			if err := st.Close(); err != nil {
				return err
			}
			return listKeys(cmd.OutOrStdout(), keys.IDs(), sealed, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// keyFact is a key, without it.
type keyFact struct {
	Key    string `json:"key"`
	Sealed int    `json:"sealed"` // sign-ins
	InFile bool   `json:"in_file"`
	First  bool   `json:"first,omitempty"` // seals
}

func listKeys(w io.Writer, ids []string, sealed map[string]int, asJSON bool) error {
	var facts []keyFact
	for i, id := range ids {
		facts = append(facts, keyFact{id, sealed[id], true, i == 0})
		delete(sealed, id)
	}
	for id, n := range sealed {
		facts = append(facts, keyFact{Key: id, Sealed: n})
	}
	if asJSON {
		return printJSON(w, facts)
	}
	for _, f := range facts {
		note := ""
		switch {
		case f.First:
			note = "  seals"
		case !f.InFile:
			note = "  NOT in the file: these cannot be opened"
		case f.Sealed == 0:
			note = "  may be taken out"
		}
		fmt.Fprintf(w, "%s  sealed %d%s\n", f.Key, f.Sealed, note)
	}
	return nil
}

// keySettings are the settings, with a key file.
func keySettings() (config.Settings, error) {
	set, err := config.LoadSettings()
	if err == nil && set.StateKeyFile == "" {
		err = errors.New("TRIGGERD_STATE_KEY_FILE is not set, and there is no systemd credential state_key: make a key with `triggerd key new FILE`")
	}
	return set, usage(err)
}

// rotate changes the first key. The new one is durable before anything is sealed with it, and the old ones go last.
func rotate(ctx context.Context, set config.Settings, keep, only bool) (r rotation, err error) {
	path := set.StateKeyFile
	if !only {
		if err := addKey(path); err != nil {
			return r, err
		}
	}
	done, err := resealAll(ctx, set)
	if err != nil {
		return r, fmt.Errorf("%w\nnothing is lost: %s holds the new key and the old ones; run `triggerd key rotate --reseal` again", err, path)
	}
	r = rotation{Key: done.Key, Records: done.Records}
	keys, err := seal.ReadKeys(path)
	if err != nil {
		return r, err
	}
	r.Kept = len(keys.IDs()) - 1
	if keep || only || keys.IDs()[0] != done.Key {
		return r, nil
	}
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return r, err
	}
	r.Kept = 0
	return r, replaceFile(path, seal.FirstOnly(data))
}

// addKey puts a new key before the others.
func addKey(path string) error {
	if _, err := seal.ReadKeys(path); err != nil {
		return usage(err)
	}
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	if err := replaceFile(path, seal.WithFirst(seal.NewKey(), data)); err != nil {
		return fmt.Errorf("%w\nWhere the key file cannot be written, as a systemd credential: see `triggerd key rotate --help`", err)
	}
	return nil
}

// resealAll has everything sealed with the first key of the file, by the daemon if one runs.
func resealAll(ctx context.Context, set config.Settings) (out connections.Rekeyed, err error) {
	err = status.NewClient(set.AdminListen).Call(ctx, http.MethodPost, "/api/v1/rekey", nil, &out)
	if !errors.Is(err, status.ErrNoDaemon) {
		return out, err
	}
	keys, err := seal.ReadKeys(set.StateKeyFile)
	if err != nil {
		return out, err
	}
	out.Key = keys.IDs()[0]
	if _, err := os.Stat(filepath.Join(set.StateDir, "triggerd.db")); errors.Is(err, os.ErrNotExist) {
		return out, nil // nothing was ever sealed
	}
	st, err := store.Open(set.StateDir, store.Options{})
	if err != nil {
		return out, err
	}
	out.Records, err = connections.Reseal(st, keys)
	return out, errors.Join(err, st.Close())
}

// replaceFile writes a file anew, at once and durably, with the mode and owner that it has.
func replaceFile(path string, data []byte) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // there may be nothing to remove any more
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), likeOwner(f, info), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
