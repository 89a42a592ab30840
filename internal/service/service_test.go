package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is the socket on which the service manager listens.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", addr.Name)
	return c
}

// told reads the next message.
func told(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestMessages(t *testing.T) {
	c := manager(t)
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	m.Ready("healthy\nand more")
	if got := told(t, c); got != "READY=1\nSTATUS=healthy" {
		t.Errorf("ready: %q", got)
	}
	m.Reloading()
	if got := told(t, c); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("reloading: %q", got)
	}
	m.Stopping()
	if got := told(t, c); got != "STOPPING=1" {
		t.Errorf("stopping: %q", got)
	}
}

// The watchdog is fed while the work goes on, and only then.
func TestTheWatchdogIsFedOnlyWhileAlive(t *testing.T) {
	c := manager(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	var stuck atomic.Bool
	alive := func(ctx context.Context) error {
		if !stuck.Load() {
			return nil
		}
		<-ctx.Done() // as a database does whose disk does not answer
		return errors.New("the database does not get on")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, alive, func() string { return "healthy" }) }()
	for range 3 {
		if got := told(t, c); got != "WATCHDOG=1\nSTATUS=healthy" {
			t.Errorf("alive: %q", got)
		}
	}
	stuck.Store(true)
	for told(t, c) != "STATUS=not alive: the database does not get on" {
	}
	for range 3 {
		if got := told(t, c); got != "STATUS=not alive: the database does not get on" {
			t.Errorf("stuck: %q", got)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutAManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	m, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	m.Ready("x")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := m.Run(ctx, func(context.Context) error { t.Error("asked"); return nil }, nil); err != nil {
		t.Error(err)
	}
	if l, err := Listener("webhook"); l != nil || err != nil {
		t.Error(l, err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := NewManager(); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("a watchdog that cannot be read: %v", err)
	}
}

// TestMain is also the process that sockets are passed to.
func TestMain(m *testing.M) {
	if os.Getenv("SERVICE_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	l, err := Listener("webhook")
	switch {
	case err != nil:
		fmt.Print("error: ", err)
	case l == nil:
		fmt.Print("none")
	default:
		fmt.Print("listens on ", l.Addr())
	}
}

func TestPassedSockets(t *testing.T) {
	tests := []struct{ names, want string }{
		{"webhook", "listens on 127.0.0.1:"},
		{"", "none"},
		{"triggerd.socket", `error: the service manager passed 0 stream sockets called "webhook", and others called triggerd.socket: write`},
		{"webhook:webhook", `error: the service manager passed 2 stream sockets called "webhook": write`},
		{"webhook:admin", `error: the service manager passed 1 stream sockets called "webhook", and others called admin: write`},
	}
	for _, tt := range tests {
		t.Run(tt.names, func(t *testing.T) {
			names := strings.FieldsFunc(tt.names, func(r rune) bool { return r == ':' })
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
			cmd.Env = append(os.Environ(), "SERVICE_TEST_CHILD=1", fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+tt.names)
			for range names {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				f, err := l.(*net.TCPListener).File()
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%s %v, want %s", out, err, tt.want)
			}
		})
	}
}
