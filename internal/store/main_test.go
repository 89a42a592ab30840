package store

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// childVar names the part that this test binary plays when it is started as another process.
const childVar = "TRIGGERD_STORE_CHILD"

var children = map[string]func(dir string) error{
	"hold":     childHold,
	"restrict": childRestrict,
	"accept":   childAccept,
	"panic":    childPanic,
	"restore":  childRestore,
}

func TestMain(m *testing.M) {
	if part := os.Getenv(childVar); part != "" {
		if err := children[part](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child prepares another process that works on the state in dir.
func child(t *testing.T, part, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, dir)
	cmd.Env = append(os.Environ(), childVar+"="+part)
	return cmd
}

// childHold opens the state, says so, and keeps it until its input ends.
func childHold(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

// childRestrict opens the state without the rights of root.
func childRestrict(dir string) error {
	if os.Getuid() == 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := syscall.Setgid(nobody); err != nil {
			return err
		}
		if err := syscall.Setuid(nobody); err != nil {
			return err
		}
	}
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	return s.Close()
}

// childPanic lets one writer of several panic.
func childPanic(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	if err := s.Update(func(tx *Tx) error { tx.Count("before", 1); return nil }); err != nil {
		return err
	}
	return s.Update(func(tx *Tx) error {
		tx.Count("during", 1)
		panic("a bug in an operation")
	})
}

// start opens a state directory and closes it when the test ends.
func start(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !s.isClosed() {
			stop(t, s)
		}
	})
	return s
}

func (s *Store) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func stop(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func update(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(fn); err != nil {
		t.Fatal(err)
	}
}

// lines gives what a process prints, line by line, until it ends. A line cut short by its end is not given.
func lines(r io.Reader) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		br := bufio.NewReader(r)
		for {
			line, err := br.ReadString('\n')
			if err != nil || !yield(line[:len(line)-1]) {
				return
			}
		}
	}
}

// law checks that what was accepted is settled or pending, and that the index in memory is what the file holds.
func law(t testing.TB, s *Store) {
	t.Helper()
	c := s.Counters()
	settled := uint64(0)
	for _, o := range Outcomes {
		settled += c[counterSettled+string(o)]
	}
	if c[counterAccepted] != settled+uint64(s.Pending()) {
		t.Fatalf("accepted %d, settled %d, pending %d: the law is broken", c[counterAccepted], settled, s.Pending())
	}
	stored := 0
	err := s.View(func(tx *Tx) error {
		for _, feed := range s.PendingFeeds() {
			entries, err := tx.Pending(feed, 0)
			if err != nil {
				return err
			}
			stored += len(entries)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if stored != s.Pending() {
		t.Fatalf("%d entries are stored as pending, %d are counted", stored, s.Pending())
	}
}

func accept(t testing.TB, s *Store, notes ...Notification) {
	t.Helper()
	if err := s.Accept(t.Context(), notes, nil); err != nil {
		t.Fatal(err)
	}
}
