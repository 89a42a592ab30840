package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// childAccept accepts notifications from many goroutines and prints the items of those that were acknowledged, while
// another settles them into events, until it is killed.
func childAccept(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	var n atomic.Uint64
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	for g := range 8 {
		go func() {
			for {
				notes := make([]Notification, 1+g%3)
				text := ""
				for i := range notes {
					id := fmt.Sprintf("%d-%d", os.Getpid(), n.Add(1))
					notes[i] = Notification{Feed: uint32(1 + g%2), Item: id, Change: event.Created, ChangeKey: "k", At: time.Now()}
					text += id + "\n"
				}
				if err := s.Accept(context.Background(), notes, nil); err != nil {
					fail(err)
				}
				os.Stdout.WriteString(text)
			}
		}()
	}
	go func() {
		for {
			if err := s.Update(settleSome); err != nil {
				fail(err)
			}
		}
	}()
	return <-failed
}

func settleSome(tx *Tx) error {
	for feed := uint32(1); feed <= 2; feed++ {
		entries, err := tx.Pending(feed, 20)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := tx.AppendEvent(&event.Event{ID: e.Item, Area: event.AreaMail, Name: event.Received, Watch: "w", Mailbox: fmt.Sprint(feed), Data: []byte("{}")}); err != nil {
				return err
			}
			if err := tx.Settle(e, Published); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestKilledAtAnyInstantNothingAcknowledgedIsLost(t *testing.T) {
	const kills = 40
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	acknowledged := map[string]bool{}
	for range kills {
		cmd := child(t, "accept", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after, seen := 1+random.IntN(400), 0
		for id := range lines(out) { // what it printed before it died is read to the end
			acknowledged[id] = true
			if seen++; seen == after {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the process ended by itself: %v", err)
		}
		checkKept(t, dir, acknowledged)
	}
	t.Logf("%d kills, %d acknowledged notifications", kills, len(acknowledged))
}

// checkKept reopens the state: each acknowledged notification is either pending or has its event, never both, the
// sequences have no gap, and the law adds up.
func checkKept(t *testing.T, dir string, acknowledged map[string]bool) {
	t.Helper()
	s := start(t, dir, Options{})
	defer stop(t, s)
	law(t, s)
	found := map[string]int{}
	err := s.View(func(tx *Tx) error {
		for _, feed := range s.PendingFeeds() {
			entries, err := tx.Pending(feed, 0)
			if err != nil {
				return err
			}
			for _, e := range entries {
				found[e.Item]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Outbox(0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]uint64{}
	for _, r := range rows {
		found[r.Event.ID]++
		if last[r.Event.Mailbox]++; r.Event.Sequence != last[r.Event.Mailbox] {
			t.Fatalf("mailbox %s: sequence %d follows %d", r.Event.Mailbox, r.Event.Sequence, last[r.Event.Mailbox]-1)
		}
	}
	for id := range acknowledged {
		if found[id] != 1 {
			t.Fatalf("acknowledged %s is there %d times after reopening", id, found[id])
		}
	}
	c := s.Counters()
	if int(c[counterAccepted]) != len(found) || int(c[counterAppended]) != len(rows) || int(c[counterSettled+string(Published)]) != len(rows) || s.OutboxStats().Entries != len(rows) {
		t.Fatalf("counters %v with %d notifications and %d events", c, len(found), len(rows))
	}
	var once sync.Once
	for id, n := range found {
		if n != 1 {
			once.Do(func() { t.Errorf("%s is there %d times", id, n) })
		}
	}
}
