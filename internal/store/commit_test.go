package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/triggerd/triggerd/internal/event"
)

// hold keeps the committer busy until the returned function is called, so that what comes meanwhile shares the next
// transaction.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		left <- s.Update(func(*Tx) error { close(entered); <-leave; return nil })
	}()
	<-entered
	return func() {
		close(leave)
		if err := <-left; err != nil {
			t.Error(err)
		}
	}
}

// together runs operations in one shared transaction, in order, and returns their answers.
func together(t *testing.T, s *Store, fns ...func(*Tx) error) []error {
	t.Helper()
	release := hold(t, s)
	ops := make([]*op, len(fns))
	for i, fn := range fns {
		ops[i] = &op{fn: fn, done: make(chan error, 1)}
		s.ops <- ops[i]
	}
	release()
	errs := make([]error, len(fns))
	for i, o := range ops {
		errs[i] = <-o.done
	}
	return errs
}

func TestWritersShareATransaction(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	before := s.db.Stats()
	count := func(tx *Tx) error { tx.Count("n", 1); return nil }
	fns := make([]func(*Tx) error, 500)
	for i := range fns {
		fns[i] = count
	}
	for i, err := range together(t, s, fns...) {
		if err != nil {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
	stats := s.db.Stats()
	if d := stats.Sub(&before); d.TxStats.GetWrite() > 20 {
		t.Errorf("500 operations cost %d page writes, want those of two transactions", d.TxStats.GetWrite())
	}
	if n := s.Counters()["n"]; n != 500 {
		t.Errorf("counted %d, want 500", n)
	}
}

func TestARefusedOperationLeavesNothingAndHarmsNobody(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	refusal := errors.New("no")
	ran := 0
	errs := together(t, s,
		func(tx *Tx) error { ran++; tx.Count("good", 1); return tx.PutFeed(&Feed{FolderID: "a"}) },
		func(tx *Tx) error {
			tx.Count("bad", 1)
			for _, err := range []error{
				tx.PutFeed(&Feed{FolderID: "bad"}),
				tx.AppendEvent(&event.Event{ID: "bad", Watch: "w", Mailbox: "m", Data: []byte("{}")}),
				tx.PutSubscription(&Subscription{ID: "bad"}),
			} {
				if err != nil {
					t.Error(err)
				}
			}
			return refusal
		},
		func(tx *Tx) error {
			tx.Count("good", 1)
			return tx.AppendEvent(&event.Event{ID: "good", Watch: "w", Mailbox: "m", Data: []byte("{}")})
		},
		func(*Tx) error { return refusal },
	)
	for i, want := range []error{nil, refusal, nil, refusal} {
		if !errors.Is(errs[i], want) {
			t.Errorf("operation %d: %v, want %v", i, errs[i], want)
		}
	}
	if ran != 3 {
		t.Errorf("the first operation ran %d times, want once for each attempt", ran)
	}
	for range 2 { // in memory, and after a restart
		c := s.Counters()
		if c["good"] != 2 || c["bad"] != 0 || len(s.Feeds()) != 1 || s.Feeds()[0].FolderID != "a" || len(s.Subscriptions()) != 0 {
			t.Errorf("counters %v, feeds %v, subscriptions %v: want only what was not refused", c, s.Feeds(), s.Subscriptions())
		}
		rows, err := s.Outbox(0, 1<<20)
		if err != nil || len(rows) != 1 || rows[0].Event.ID != "good" || rows[0].Event.Sequence != 1 {
			t.Errorf("outbox %+v, %v, want the good event with sequence 1", rows, err)
		}
		stop(t, s)
		s = start(t, dir, Options{})
	}
}

func TestUpdateContextGivesUpAtItsDeadline(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	release := hold(t, s)
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, late)
	defer cancel()
	if err := s.UpdateContext(ctx, func(tx *Tx) error { tx.Count("late", 1); return nil }); !errors.Is(err, late) {
		t.Errorf("UpdateContext = %v, want the context's cause", err)
	}
	release()
	update(t, s, func(*Tx) error { return nil })
	if n := s.Counters()["late"]; n > 1 {
		t.Errorf("the write was made %d times", n)
	}
	// A queue that is full does not hold the caller either.
	release = hold(t, s)
	defer release()
	for range cap(s.ops) {
		s.ops <- &op{fn: func(*Tx) error { return nil }, done: make(chan error, 1)}
	}
	if err := s.UpdateContext(ctx, func(*Tx) error { return nil }); !errors.Is(err, late) {
		t.Errorf("UpdateContext on a full queue = %v, want the context's cause", err)
	}
}

func TestCloseCommitsWhatWaits(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	release := hold(t, s)
	o := &op{fn: func(tx *Tx) error { tx.Count("waiting", 1); return nil }, done: make(chan error, 1)}
	s.ops <- o
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	release()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if err := <-o.done; err != nil {
		t.Errorf("the waiting operation: %v", err)
	}
	if err := s.Update(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Update after Close = %v, want ErrClosed", err)
	}
	if n := start(t, dir, Options{}).Counters()["waiting"]; n != 1 {
		t.Errorf("counted %d after reopening, want 1", n)
	}
}

func TestCountersAndNumbersGoOnAfterReopening(t *testing.T) {
	dir := t.TempDir()
	for round := uint64(1); round <= 3; round++ {
		s := start(t, dir, Options{})
		update(t, s, func(tx *Tx) error {
			tx.Count("rounds", 1)
			tx.Count("rounds", 1)
			f := Feed{FolderID: fmt.Sprint(round)}
			if err := tx.PutFeed(&f); err != nil {
				return err
			}
			if f.Num != uint32(round) {
				t.Errorf("feed %d got number %d", round, f.Num)
			}
			e := event.Event{Watch: "w", Mailbox: "m", Data: []byte("{}")}
			if err := tx.AppendEvent(&e); err != nil {
				return err
			}
			if e.Sequence != round || e.Epoch != s.Epoch() {
				t.Errorf("event %d got sequence %d and epoch %q", round, e.Sequence, e.Epoch)
			}
			return nil
		})
		if n := s.Counters()["rounds"]; n != 2*round {
			t.Errorf("round %d: counted %d", round, n)
		}
		stop(t, s)
	}
}

// A full disk, or a database at its allowed size, refuses the writer, and what is there can still be read; once there
// is room, writing goes on.
func TestAFullDatabaseRefusesAndHeals(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{MaxSize: 40 << 20})
	big := strings.Repeat("x", 1<<20)
	kept := 0
	var err error
	for ; kept < 100 && err == nil; kept++ {
		err = s.Update(func(tx *Tx) error { return tx.PutSubscription(&Subscription{ID: fmt.Sprint(kept), Resource: big}) })
	}
	kept--
	if !errors.Is(err, bolterrors.ErrMaxSizeReached) || kept < 5 {
		t.Fatalf("after %d MiB: %v, want ErrMaxSizeReached", kept, err)
	}
	if err := s.Accept(t.Context(), []Notification{{Feed: 1, Item: big[:60000]}, {Feed: 1, Item: "a"}}, nil); err == nil {
		law(t, s) // it may still fit into a free page
	}
	if got := len(s.Subscriptions()); got != kept {
		t.Errorf("%d subscriptions in memory, want the %d that were committed", got, kept)
	}
	update(t, s, func(tx *Tx) error {
		for i := range kept {
			if err := tx.DeleteSubscription(fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	update(t, s, func(tx *Tx) error { return tx.PutSubscription(&Subscription{ID: "again", Resource: big}) })
	stop(t, s)
	s = start(t, dir, Options{MaxSize: 40 << 20})
	if sub, ok := s.Subscription("again"); !ok || sub.Resource != big || len(s.Subscriptions()) != 1 {
		t.Errorf("after reopening: %d subscriptions, found %v", len(s.Subscriptions()), ok)
	}
}

// After an error that leaves the file's content unknown, nothing is acknowledged any more and Run says why.
func TestNothingIsWrittenAfterTheFileCannotBeTrusted(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	accept(t, s, Notification{Feed: 1, Item: "before"})
	restore := breakFile(t, s.Path())
	if err := s.Accept(t.Context(), []Notification{{Feed: 1, Item: "during"}}, nil); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("Accept = %v, want EBADF", err)
	}
	restore()
	if err := s.Accept(t.Context(), []Notification{{Feed: 1, Item: "after"}}, nil); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Accept after the fault = %v, want the same error although the file works again", err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, syscall.EBADF) || !strings.Contains(err.Error(), "cannot be trusted") {
		t.Errorf("Run = %v, want why the storage cannot be trusted", err)
	}
	stop(t, s)
	s = start(t, dir, Options{})
	law(t, s)
	if s.Pending() != 1 {
		t.Errorf("%d pending, want the one that was acknowledged", s.Pending())
	}
}

// breakFile puts a read-only descriptor in the place of the database's, until restore is called.
func breakFile(t *testing.T, path string) (restore func()) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err != nil || to != path {
			continue
		}
		var fd int
		fmt.Sscan(e.Name(), &fd)
		whole, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		r, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		err = syscall.Dup3(int(r.Fd()), fd, syscall.O_CLOEXEC)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := syscall.Dup3(whole, fd, syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			syscall.Close(whole)
		}
	}
	t.Fatalf("%s is not open", path)
	return nil
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestAPanicInAnOperationEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	out, err := child(t, "panic", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a bug in an operation") {
		t.Fatalf("the process said %q (%v), want it to die of the panic", out, err)
	}
	if c := start(t, dir, Options{}).Counters(); c["before"] != 1 || c["during"] != 0 {
		t.Errorf("counters %v, want what was committed before and nothing of the panicking operation", c)
	}
}

// A cursor that deletes skips the key after it once another writer of the same transaction has touched the page.
func TestAcksAreTakenBackInASharedTransaction(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	const n = 10
	update(t, s, func(tx *Tx) error {
		for range n + 1 {
			if err := tx.AppendEvent(&event.Event{Watch: "w", Mailbox: "m", Data: []byte("{}")}); err != nil {
				return err
			}
		}
		return nil
	})
	acks := make([]Ack, n)
	for i := range acks {
		acks[i] = Ack{Seq: uint64(i + 1), StreamSeq: uint64(100 + i), At: time.Unix(int64(i), 0)}
	}
	for _, undo := range []struct {
		name string
		fn   func() (int, error)
		left int // not acknowledged afterwards
	}{
		{"Unacknowledge", func() (int, error) { return s.Unacknowledge(0) }, n + 1},
		{"ReleaseHeld", func() (int, error) { return s.ReleaseHeld(time.Unix(1000, 0), 100) }, 1},
	} {
		if err := s.Acknowledge(acks); err != nil {
			t.Fatal(err)
		}
		release := hold(t, s)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Acknowledge(acks[:1]); err != nil {
				t.Error(err)
			}
		})
		for len(s.ops) < 1 { // the ack waits first in the queue
			runtime.Gosched()
		}
		var got int
		wg.Go(func() {
			var err error
			if got, err = undo.fn(); err != nil {
				t.Error(err)
			}
		})
		for len(s.ops) < 2 {
			runtime.Gosched()
		}
		release()
		wg.Wait()
		rows, err := s.Outbox(0, 1<<20)
		if err != nil || got != n || len(rows) != undo.left {
			t.Errorf("%s in a shared transaction took %d, %d rows are left to publish (%v), want %d and %d", undo.name, got, len(rows), err, n, undo.left)
		}
		if st := s.OutboxStats(); st.Entries != undo.left {
			t.Errorf("%s: %d entries are counted, want %d", undo.name, st.Entries, undo.left)
		}
	}
}

func TestAStringThatCannotBeStoredIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	long := strings.Repeat("x", maxString+1)
	for _, n := range []Notification{{Item: long}, {Change: long}, {ChangeKey: long}} {
		if err := s.Accept(t.Context(), []Notification{{Item: "fine"}, n}, nil); !errors.Is(err, ErrTooLong) {
			t.Errorf("Accept = %v, want ErrTooLong", err)
		}
	}
	accept(t, s, Notification{Item: long[1:]})
	if err := s.Accept(t.Context(), nil, []Lifecycle{{Subscription: "bytes \xff that are no text"}}); err != nil {
		t.Error(err)
	}
	stop(t, s)
	s = start(t, dir, Options{})
	law(t, s)
	if s.Pending() != 1 {
		t.Errorf("%d pending, want the one that was accepted", s.Pending())
	}
}
