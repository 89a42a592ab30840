package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/store"
)

// sealedState is a state directory with sign-ins, and the key file that opens them.
type sealedState struct {
	set config.Settings
	key string
}

var signIns = []string{"alice", "bob", "carol"}

// sealPlace is how sign-ins are sealed: Reseal opens them only where this is right.
func sealPlace(name string) (purpose string, record []byte) {
	return "connection grants v1", []byte("connections\x00" + name)
}

func newSealedState(t *testing.T) sealedState {
	t.Helper()
	dir := t.TempDir()
	s := sealedState{key: filepath.Join(dir, "state_key")}
	s.set = config.Settings{StateDir: filepath.Join(dir, "state"), StateKeyFile: s.key, AdminListen: "127.0.0.1:1"} // where nothing listens
	writeKey(t, s.key, "# made by hand\n"+seal.NewKey()+"\n")
	if err := os.Mkdir(s.set.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.withStore(t, func(st *store.Store) error {
		keys, err := seal.ReadKeys(s.key)
		if err != nil {
			return err
		}
		return st.Update(func(tx *store.Tx) error {
			for _, name := range signIns {
				purpose, record := sealPlace(name)
				if err := tx.PutConnection(&store.Connection{Name: name, Sealed: keys.Seal(purpose, record, []byte(name))}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return s
}

func (s sealedState) withStore(t *testing.T, fn func(*store.Store) error) {
	t.Helper()
	st, err := store.Open(s.set.StateDir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fn(st), st.Close()); err != nil {
		t.Fatal(err)
	}
}

// check opens every sign-in with the keys of the file, and returns how many keys there are and how many sign-ins the
// first has sealed.
func (s sealedState) check(t *testing.T) (keys, sealed int) {
	t.Helper()
	k, err := seal.ReadKeys(s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.withStore(t, func(st *store.Store) error {
		for _, name := range signIns {
			c, _ := st.Connection(name)
			purpose, record := sealPlace(name)
			if plain, err := k.Open(purpose, record, c.Sealed); err != nil || string(plain) != name {
				t.Errorf("%s: %q, %v", name, plain, err)
			}
		}
		sealed = connections.SealedBy(st)[k.IDs()[0]]
		return nil
	})
	return len(k.IDs()), sealed
}

func (s sealedState) reseal(ctx context.Context) (connections.Rekeyed, error) {
	return resealAll(ctx, s.set)
}

func writeKey(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Cut before or after any step, everything can be opened, and the next rotation ends what this one began.
func TestRotationCutAtEachStep(t *testing.T) {
	cut := errors.New("cut")
	tests := []struct {
		name         string
		before       func(t *testing.T, s sealedState)
		reseal       func(s sealedState) func(context.Context) (connections.Rekeyed, error)
		want         string
		keys, sealed int // afterwards; sealed by the first key
	}{
		{"the new file cannot be made", func(t *testing.T, s sealedState) {
			if err := os.MkdirAll(filepath.Join(s.key+".new", "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil, "cannot be written", 1, 3},
		{"killed while the new file was written", func(t *testing.T, s sealedState) { writeKey(t, s.key+".new", "AAAA") }, nil, "", 1, 3},
		{"nothing was sealed anew", nil, func(sealedState) func(context.Context) (connections.Rekeyed, error) {
			return func(context.Context) (connections.Rekeyed, error) { return connections.Rekeyed{}, cut }
		}, "cut\nnothing is lost", 2, 0},
		{"all was sealed anew, and the answer lost", nil, func(s sealedState) func(context.Context) (connections.Rekeyed, error) {
			return func(ctx context.Context) (connections.Rekeyed, error) {
				_, err := s.reseal(ctx)
				return connections.Rekeyed{}, errors.Join(err, cut)
			}
		}, "cut\nnothing is lost", 2, 3},
		{"the daemon has another key file", nil, func(sealedState) func(context.Context) (connections.Rekeyed, error) {
			return func(context.Context) (connections.Rekeyed, error) {
				return connections.Rekeyed{Records: 3, Key: "0011"}, nil
			}
		}, "key 0011 of another key file", 2, 0},
		{"the old key cannot be taken out", nil, func(s sealedState) func(context.Context) (connections.Rekeyed, error) {
			return func(ctx context.Context) (connections.Rekeyed, error) {
				out, err := s.reseal(ctx)
				return out, errors.Join(err, os.MkdirAll(filepath.Join(s.key+".new", "x"), 0o700))
			}
		}, "cannot be written", 2, 3},
		{"somebody adds a key meanwhile", nil, func(s sealedState) func(context.Context) (connections.Rekeyed, error) {
			return func(ctx context.Context) (connections.Rekeyed, error) {
				out, err := s.reseal(ctx)
				data, rerr := os.ReadFile(s.key)
				return out, errors.Join(err, rerr, os.WriteFile(s.key, append(data, seal.NewKey()...), 0o600))
			}
		}, "changed it meanwhile", 3, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSealedState(t)
			if tt.before != nil {
				tt.before(t, s)
			}
			reseal := s.reseal
			if tt.reseal != nil {
				reseal = tt.reseal(s)
			}
			_, err := rotate(t.Context(), s.key, false, reseal)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("rotate: %v, want %q", err, tt.want)
			}
			if keys, sealed := s.check(t); keys != tt.keys || sealed != tt.sealed {
				t.Errorf("%d keys, the first of which sealed %d; want %d and %d", keys, sealed, tt.keys, tt.sealed)
			}
			if err := os.RemoveAll(filepath.Join(s.key+".new", "x")); err != nil && tt.want == "cannot be written" {
				t.Fatal(err)
			}
			if r, err := rotate(t.Context(), s.key, false, s.reseal); err != nil || r.Records != 3 || *r.Kept != 0 {
				t.Errorf("once more: %+v, %v", r, err)
			}
			if keys, sealed := s.check(t); keys != 1 || sealed != 3 {
				t.Errorf("once more: %d keys, the first of which sealed %d", keys, sealed)
			}
			if left, err := filepath.Glob(s.key + "?*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// The command is killed at random instants: what is on the disk opens everything, each time.
func TestRotationKilledAtAnyInstant(t *testing.T) {
	const kills = 150
	s := newSealedState(t)
	run := func(ctx context.Context) (ended bool) {
		cmd := exec.CommandContext(ctx, "triggerd", "key", "rotate")
		cmd.Env = append(os.Environ(), "TRIGGERD_STATE_DIR="+s.set.StateDir, "TRIGGERD_STATE_KEY_FILE="+s.key, "TRIGGERD_ADMIN_LISTEN="+s.set.AdminListen,
			"GORACE=atexit_sleep_ms=0") // else the race detector waits a second at the end of each
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.Exited() && !cmd.ProcessState.Success() {
			t.Fatalf("%v: %s", err, out)
		}
		return cmd.ProcessState.Success()
	}
	begun := time.Now()
	run(t.Context())
	whole := time.Since(begun)
	random := rand.New(rand.NewPCG(3, 4))
	found := map[string]int{}
	for range kills {
		ctx, cancel := context.WithTimeout(t.Context(), whole/4+time.Duration(random.Int64N(int64(whole))))
		ended := run(ctx)
		cancel()
		keys, sealed := s.check(t)
		switch {
		case ended:
			found["ended"]++
		case keys == 1:
			found["one key"]++ // not begun, or killed after all was done
		default:
			found["several keys, "+strconv.Itoa(sealed)+" sealed anew"]++
		}
		if ended && (keys != 1 || sealed != 3) {
			t.Errorf("it ended with %d keys, the first of which sealed %d", keys, sealed)
		}
		if keys > 12 { // many kills in a row leave as many keys
			run(t.Context())
		}
	}
	t.Logf("a rotation takes %v; %d kills found %v", whole, kills, found)
	if found["ended"] == kills {
		t.Error("no rotation was killed")
	}
	if !run(t.Context()) {
		t.Error("the last one was killed")
	}
	if keys, sealed := s.check(t); keys != 1 || sealed != 3 {
		t.Errorf("at the end: %d keys, the first of which sealed %d", keys, sealed)
	}
}

// The file stays what it was to those who read it.
func TestRotationKeepsModeAndLink(t *testing.T) {
	s := newSealedState(t)
	if err := os.Chmod(s.key, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.key, link); err != nil {
		t.Fatal(err)
	}
	if _, err := rotate(t.Context(), link, false, s.reseal); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.key)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if to, err := os.Readlink(link); err != nil || to != s.key {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if keys, sealed := s.check(t); keys != 1 || sealed != 3 {
		t.Errorf("%d keys, the first of which sealed %d", keys, sealed)
	}
}

// Two rotations at once could each take out the key that the other seals with.
func TestOneRotationAtATime(t *testing.T) {
	s := newSealedState(t)
	_, err := rotate(t.Context(), s.key, false, func(ctx context.Context) (connections.Rekeyed, error) {
		if _, err := rotate(ctx, s.key, false, s.reseal); err == nil || !strings.Contains(err.Error(), "another `triggerd key rotate` is at work") {
			t.Errorf("a second one: %v", err)
		}
		return s.reseal(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.check(t)
	if _, err := rotate(t.Context(), s.key, false, s.reseal); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// A file with too many keys would keep the daemon from starting: it is never written.
func TestRotationNeverSpoilsTheKeyFile(t *testing.T) {
	s := newSealedState(t)
	for kept := 1; ; kept++ {
		r, err := rotate(t.Context(), s.key, true, s.reseal)
		if err == nil {
			if *r.Kept != kept || r.Records != 3 {
				t.Fatalf("rotation %d: %+v", kept, r)
			}
			continue
		}
		if kept < 10 || !strings.Contains(err.Error(), "left as it is") || !strings.Contains(err.Error(), "triggerd key list") {
			t.Errorf("rotation %d: %v", kept, err)
		}
		break
	}
	before, err := os.ReadFile(s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.check(t)
	if _, err := rotate(t.Context(), s.key, false, s.reseal); err == nil {
		t.Error("rotated without room")
	}
	if after, err := os.ReadFile(s.key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
}

// What is written into a credential is gone with the service, and so would be all that it sealed.
func TestACredentialIsNotWritten(t *testing.T) {
	s := newSealedState(t)
	dir := filepath.Dir(s.key)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.key, link); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for _, name := range []string{s.key, link} {
		_, err := rotate(t.Context(), name, false, s.reseal)
		if err == nil || !strings.Contains(err.Error(), "is a systemd credential") || !strings.Contains(err.Error(), "key rotate --reseal") {
			t.Errorf("rotate: %v", err)
		}
	}
	if after, err := os.ReadFile(s.key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	for path, want := range map[string]bool{
		"/run/credentials/triggerd.service/state_key": true, "/run/credentials": false, "/run/credentialsx/state_key": false, dir + "x/state_key": false, s.key: true,
	} {
		if got := isCredential(path); got != want {
			t.Errorf("isCredential(%s) = %v", path, got)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if isCredential(s.key) {
		t.Error("a file is a credential where there are none")
	}
}
