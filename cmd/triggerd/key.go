package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"

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
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keyNewCommand(), keyRotateCommand(), keyListCommand())
	for _, c := range cmd.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return cmd
}

// madeKey is a new key. The key itself is told only where it is written to no file.
type madeKey struct {
	Key    string `json:"key"` // id
	File   string `json:"file,omitempty"`
	Secret string `json:"secret,omitempty"` // a line of a key file
}

func keyNewCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "new [FILE]",
		Short:   "Makes a key and prints it, or writes a new key file that only its owner may read",
		Example: "  triggerd key new /etc/triggerd/state_key\n  triggerd key new | systemd-creds encrypt --name=state_key - /etc/credstore.encrypted/triggerd.state_key",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			line := seal.NewKey()
			keys, err := seal.ParseKeys([]byte(line))
			if err != nil {
				return err
			}
			made := madeKey{Key: keys.IDs()[0]}
			if len(args) == 0 {
				if made.Secret = line; asJSON {
					return printJSON(cmd.OutOrStdout(), made)
				}
				_, err := io.WriteString(cmd.OutOrStdout(), line+"\n")
				return err
			}
			made.File = args[0]
			if err := newKeyFile(made.File, line); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), made)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "key written to %s: name it in TRIGGERD_STATE_KEY_FILE, and keep a copy elsewhere\n", made.File)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// newKeyFile writes a key where there is no file yet. It is durable when nil is returned.
func newKeyFile(path, line string) error {
	err := createFile(path, []byte(line+"\n"), nil)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already, and what it seals would be lost: `triggerd key rotate` replaces the key in it", path)
	}
	if err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// rotation is what a change of keys did.
type rotation struct {
	Key     string `json:"key"`            // id of the one that seals now
	Records int    `json:"records"`        // sealed anew
	Kept    *int   `json:"kept,omitempty"` // older keys that stay in the file; nil: the file was not touched
}

func keyRotateCommand() *cobra.Command {
	var keep, only, asJSON bool
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
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			reseal := func(ctx context.Context) (connections.Rekeyed, error) { return resealAll(ctx, set) }
			r := rotation{}
			if only {
				var done connections.Rekeyed
				done, err = reseal(cmd.Context())
				r.Key, r.Records = done.Key, done.Records
			} else if err = needKeyFile(set); err == nil {
				r, err = rotate(cmd.Context(), set.StateKeyFile, keep, reseal)
			}
			if err != nil {
				return err
			}
			return printRotation(cmd.OutOrStdout(), r, asJSON)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the old keys in the file, for backups that they sealed")
	cmd.Flags().BoolVar(&only, "reseal", false, "make no new key and leave the file: seal everything with its first key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printRotation(w io.Writer, r rotation, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	about := "other keys may be taken out of the file"
	if r.Kept != nil {
		about = fmt.Sprintf("%d older keys kept in the file", *r.Kept)
	}
	_, err := fmt.Fprintf(w, "key %s seals now; %d sign-ins sealed anew, %s\n", r.Key, r.Records, about)
	return err
}

func keyListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Names the keys of the file, and how many sign-ins each has sealed; triggerd must not run",
		Example: "  triggerd key list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			keys, err := readKeys(set)
			if err != nil {
				return err
			}
			sealed := map[string]int{}
			err = withState(set, func(st *store.Store) error {
				sealed = connections.SealedBy(st)
				return nil
			})
			if err != nil {
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
	for _, id := range slices.Sorted(maps.Keys(sealed)) {
		facts = append(facts, keyFact{Key: id, Sealed: sealed[id]})
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

// needKeyFile is an error of usage where no key file is named.
func needKeyFile(set config.Settings) error {
	if set.StateKeyFile != "" {
		return nil
	}
	return usage(errors.New("TRIGGERD_STATE_KEY_FILE is not set, and there is no systemd credential state_key: make a key with `triggerd key new FILE`"))
}

// readKeys reads the key file, and its errors are of usage.
func readKeys(set config.Settings) (*seal.Keys, error) {
	if err := needKeyFile(set); err != nil {
		return nil, err
	}
	keys, err := seal.ReadKeys(set.StateKeyFile)
	return keys, usage(err)
}

// withState opens the state for fn, and makes none where there is none: nothing was ever sealed then.
func withState(set config.Settings, fn func(*store.Store) error) error {
	if _, err := os.Stat(filepath.Join(set.StateDir, "triggerd.db")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	st, err := store.Open(set.StateDir, store.Options{})
	if err != nil {
		return err
	}
	return errors.Join(fn(st), st.Close())
}

// rotate changes the first key of a key file. The new one is durable before anything is sealed with it, and the old ones
// go when all is sealed: cut anywhere, what is in the file opens everything. Reseal has all sealed with the file's first
// key.
func rotate(ctx context.Context, name string, keep bool, reseal func(context.Context) (connections.Rekeyed, error)) (r rotation, err error) {
	f, err := openKeyFile(name)
	if err != nil {
		return r, err
	}
	defer f.close()
	if err := f.addKey(); err != nil {
		return r, err
	}
	done, err := reseal(ctx)
	if err == nil && done.Key != f.keys.IDs()[0] {
		err = fmt.Errorf("the running triggerd seals with key %s of another key file: run this with its TRIGGERD_STATE_KEY_FILE", done.Key)
	}
	if err == nil && !keep {
		err = f.dropOld()
	}
	if err != nil {
		return r, fmt.Errorf("%w\nnothing is lost: %s holds the new key and the old ones; run `triggerd key rotate` again", err, name)
	}
	kept := len(f.keys.IDs()) - 1
	return rotation{done.Key, done.Records, &kept}, nil
}

// resealAll has everything sealed with the first key of the file: by the daemon, which knows its key file, if one runs.
func resealAll(ctx context.Context, set config.Settings) (out connections.Rekeyed, err error) {
	client, err := adminClient(set)
	if err != nil {
		return out, err
	}
	err = client.Call(ctx, http.MethodPost, "/api/v1/rekey", nil, &out)
	if !errors.Is(err, status.ErrNoDaemon) {
		return out, err
	}
	keys, err := readKeys(set)
	if err != nil {
		return out, err
	}
	out = connections.Rekeyed{Key: keys.IDs()[0]}
	err = withState(set, func(st *store.Store) error {
		out.Records, err = connections.Reseal(st, keys)
		return err
	})
	return out, err
}
