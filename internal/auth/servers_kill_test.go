package auth

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// taskVariable makes this program the child of a test: it refreshes once, and is killed while it stores the answer.
const taskVariable = "TRIGGERD_TEST_REFRESH_AND_DIE"

// task is what the child is told.
type task struct {
	Vault, Metadata, Client string
	Scopes                  []string
	Commit                  bool // it is killed after the commit, else before
}

func TestMain(m *testing.M) {
	if text := os.Getenv(taskVariable); text != "" {
		refreshAndDie(text)
		os.Exit(1) // it must not come to this
	}
	os.Exit(m.Run())
}

func refreshAndDie(text string) {
	var it task
	if err := json.Unmarshal([]byte(text), &it); err != nil {
		panic(err)
	}
	u := NewUser(UserOptions{
		Tenant: "common", ClientID: it.Client, Metadata: it.Metadata, Scopes: it.Scopes, Vault: deadly{file{it.Vault}, it.Commit}, Log: zerolog.Nop(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := u.Refresh(ctx); err != nil {
		panic(err)
	}
}

// file is a Vault that outlives a process.
type file struct{ path string }

func (f file) Load() (g Grant, err error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return Grant{}, nil
	}
	if err != nil {
		return Grant{}, err
	}
	return g, json.Unmarshal(text, &g)
}

func (f file) Save(g Grant) error {
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(f.path+".new", f.path)
}

// deadly kills the process in the midst of Save.
type deadly struct {
	file
	commit bool
}

func (d deadly) Save(g Grant) error {
	if d.commit {
		if err := d.file.Save(g); err != nil {
			return err
		}
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	if err := self.Kill(); err != nil {
		return err
	}
	select {}
}

// killed runs a process that is killed (SIGKILL) between the token endpoint's answer and its use.
func killed(t *testing.T, it task) {
	t.Helper()
	text, err := json.Marshal(it)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), taskVariable+"="+string(text))
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Exited() {
		t.Fatalf("the child was not killed: %v: %s", err, out)
	}
}

// The process dies between the answer of the token endpoint and the use of the token. Where a used refresh token stays
// good, as at Entra, nothing is lost; where it does not, one sign-in is, and it is a state, not a loop.
func TestKilledBetweenAnswerAndCommit(t *testing.T) {
	for name, mode := range map[string]struct{ lenient, commit, lost bool }{
		"before the commit":                                {false, false, true},
		"before the commit, used tokens stay good":         {true, false, false},
		"after the commit":                                 {false, true, false},
		"after the commit, and used tokens stay good, too": {true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				wire, vault := &counting{lenient: mode.lenient}, file{filepath.Join(t.TempDir(), "grant")}
				s = s.behind(t, wire)
				u := s.user(vault, nil)
				s.signIn(t, u)
				if err := u.Refresh(t.Context()); err != nil { // from now on there is a previous one
					t.Fatal(err)
				}
				killed(t, task{Vault: vault.path, Metadata: s.metadata, Client: s.public, Scopes: s.scopes, Commit: mode.commit})
				if n := wire.count("refresh_token"); n != 2 {
					t.Fatalf("the child refreshed %d times", n-1)
				}
				u = s.user(vault, nil)
				end(t, vault)
				if mode.lost {
					needsPerson(t, u, wire)
					s.signIn(t, u)
				}
				s.accepts(t, accessToken(t, u))
				if err := u.Refresh(t.Context()); err != nil || u.State() != nil {
					t.Errorf("and on: %v, %v", err, u.State())
				}
			})
		})
	}
}

// end makes the stored access token useless, so that the refresh token is needed.
func end(t *testing.T, vault Vault) {
	t.Helper()
	g, err := vault.Load()
	if err != nil {
		t.Fatal(err)
	}
	g.ExpiresAt = time.Now()
	if err := vault.Save(g); err != nil {
		t.Fatal(err)
	}
}

// needsPerson fails the test unless a person is needed, and the login endpoint is spared meanwhile.
func needsPerson(t *testing.T, u *User, wire *counting) {
	t.Helper()
	for _, after := range []string{"at once", "an hour later"} {
		before := wire.count("refresh_token")
		for range 100 {
			_, err := u.Token(t.Context())
			if e, ok := errors.AsType[*Error](err); !ok || e.Class != Reauth || u.State() == nil {
				t.Fatalf("with a refresh token that was used, %s: %v", after, err)
			}
		}
		if n := wire.count("refresh_token") - before; n < 1 || n > 2 { // the newest one, and the one before it
			t.Errorf("%d requests %s: that is a loop", n, after)
		}
		u.mu.Lock()
		if left := time.Until(u.retryAt); left < probeEvery-time.Minute {
			t.Errorf("the next attempt is in %v", left)
		}
		u.retryAt = time.Time{}
		u.mu.Unlock()
	}
}
