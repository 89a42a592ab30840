package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"triggerd": main, "browse": browse})
}

// TestScripts types the commands as a user would. Each script has free ports and no settings of the machine's.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"EMULATOR", "PUBLIC", "ADMIN", "NATS"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, l.Addr().String())
				defer l.Close() // when all are chosen, so that no two are the same
			}
			env.Setenv("TRIGGERD_CONFIG", filepath.Join(env.WorkDir, "triggerd.yaml"))
			env.Setenv("TRIGGERD_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TRIGGERD_LISTEN", env.Getenv("PUBLIC"))
			env.Setenv("TRIGGERD_PUBLIC_URL", "http://"+env.Getenv("PUBLIC"))
			env.Setenv("TRIGGERD_ADMIN_LISTEN", env.Getenv("ADMIN"))
			env.Setenv("TRIGGERD_NATS_LISTEN", env.Getenv("NATS"))
			env.Setenv("TMPDIR", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor, "envsubst": substitute, "exits": exits, "eventually": eventually, "hangup": hangUp,
		},
	})
}

// hangUp sends SIGHUP to the background command whose first argument is given: hangup run.
func hangUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hangup COMMAND")
	}
	for _, c := range ts.BackgroundCmds() {
		if len(c.Args) > 1 && c.Args[1] == args[0] {
			ts.Check(c.Process.Signal(syscall.SIGHUP))
			return
		}
	}
	ts.Fatalf("no `triggerd %s` in the background", args[0])
}

// waitFor waits until an address answers, by HTTP 200 for a URL: waitfor http://host/path, or waitfor host:port.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor ADDRESS")
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if strings.HasPrefix(args[0], "http://") {
			if resp, err := http.Get(args[0]); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
			continue
		}
		if c, err := net.Dial("tcp", args[0]); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("%s does not answer", args[0])
}

// substitute puts the script's variables into a file.
func substitute(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		text := os.Expand(ts.ReadFile(path), ts.Getenv)
		ts.Check(os.WriteFile(path, []byte(text), 0o600))
	}
}

// exits checks an exit code: exits CODE COMMAND ARGS.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// eventually repeats a command until it succeeds: eventually COMMAND ARGS.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: eventually COMMAND...")
	}
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%v", err)
}
