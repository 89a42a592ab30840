package daemon

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// A state that is lost and restored from a backup publishes what happened since, repeats what it had published with the
// same ids, and begins a new epoch.
func TestARestoredBackupLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		kept := s.deliver("kept")
		gone := s.deliver("gone")
		s.wait(settle)
		var backup bytes.Buffer
		s.must(s.d.store.Backup(&backup, func(int64) {}))
		s.deliver("since")
		s.patch(kept, emulator.Patch{IsRead: ptr(true)})
		s.wait(settle)
		s.remove(gone)
		s.wait(settle)
		before := map[string]bool{}
		for id := range s.seen {
			before[id] = true
		}
		epoch, names := s.d.store.Epoch(), s.names()

		s.kill()
		_, err := store.Restore(s.dir, bytes.NewReader(backup.Bytes()), true)
		s.must(err)
		s.events, s.seen = nil, map[string]int{}
		late := s.deliver("while it was away")
		s.start()
		s.wait(time.Hour)
		if s.d.store.Epoch() == epoch {
			t.Error("the epoch is the old one")
		}
		again := s.dropEpoch(epoch) // held when the backup was taken: whether the broker kept them is not known
		for _, e := range again {
			if !before[e.ID] {
				t.Errorf("%s of %s comes again under another id", e.Name, e.Subject)
			}
		}
		if len(again) != 2 {
			t.Errorf("%d events come again, want the two that were held", len(again))
		}
		want := []string{"received since", "read kept", "deleted gone", "received while it was away"}
		got := s.names()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("after the restore: %v, want %v; before: %v", got, want, names)
		}
		for i := range s.events {
			e := &s.events[i]
			if want := strings.HasSuffix(e.Subject, late); before[e.ID] == want {
				t.Errorf("%s of %s: known id %v", e.Name, e.Subject, before[e.ID])
			}
		}
		if subs := s.emu.Subscriptions(); len(subs) != 3 {
			t.Errorf("%d subscriptions, want 3", len(subs))
		}
		s.checkLaw() // sequences begin at 1 again, and ids come once
	})
}

// dropEpoch takes the events of an epoch out of what was published, and returns them.
func (s *sim) dropEpoch(epoch string) (out []event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = slices.DeleteFunc(s.events, func(e event.Event) bool {
		if e.Epoch == epoch {
			out = append(out, e)
		}
		return e.Epoch == epoch
	})
	return out
}

// An item that Graph cannot read is parked; a retry that fails parks it again, and one that works publishes it as if
// nothing had been.
func TestAParkedItemIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(_ *sim, o *emulator.Options) { o.DeltaLag = time.Hour })
		s.wait(settle)
		s.emu.SetFaults(func(f *emulator.Faults) {
			f.Fail = func(op string, _ *http.Request) *emulator.Fault {
				if op == "message.get" {
					return &emulator.Fault{Status: 500, Body: `{"error":{"code":"ErrorCorruptData","message":"Data is corrupt."}}`}
				}
				return nil
			}
		})
		s.deliver("odd")
		s.wait(10 * time.Minute)
		entries, err := s.d.store.Quarantined()
		s.must(err)
		if len(entries) != 1 || len(s.names()) != 0 || s.d.store.Pending() != 0 {
			t.Fatalf("parked %+v, events %v, %d pending", entries, s.names(), s.d.store.Pending())
		}
		again, err := s.d.retry(t.Context(), entries[0].Seq)
		if err != nil || again.Again == 0 || !strings.Contains(again.Text, "parked again: ") {
			t.Fatalf("a retry that cannot work: %+v, %v", again, err)
		}
		s.emu.SetFaults(func(f *emulator.Faults) { f.Fail = nil })
		done, err := s.d.retry(t.Context(), again.Again)
		if err != nil || done.Again != 0 || done.Text != "processed" {
			t.Fatalf("a retry that works: %+v, %v", done, err)
		}
		s.wait(time.Minute)
		s.want("received odd")
		if n := s.d.store.Counters()["quarantine_entries"]; n != 0 {
			t.Errorf("%d entries are counted", n)
		}
		if _, err := s.d.retry(t.Context(), again.Again); !errors.Is(err, store.ErrNotParked) {
			t.Errorf("a retry of what is not there: %v", err)
		}
		s.wait(2 * time.Hour) // delta shows it at last
		s.want("received odd")
		s.checkLaw()
		s.checkFolded()
	})
}

// A retry ends with its caller, and what was asked for is done later all the same.
func TestARetryThatCannotBeWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		id := s.deliver("mail")
		s.wait(settle)
		var q store.Quarantine
		s.must(s.d.store.Update(func(tx *store.Tx) error {
			q = store.Quarantine{Feed: 1, Item: id, Reason: "for the test", At: time.Now()}
			return tx.PutQuarantine(&q)
		}))
		s.emu.SetFaults(func(f *emulator.Faults) {
			f.Fail = func(string, *http.Request) *emulator.Fault { return &emulator.Fault{Status: 503, RetryAfter: "60"} }
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.d.retry(ctx, q.Seq); err == nil || !strings.Contains(err.Error(), "was not read within") {
			t.Errorf("while Graph is away: %v", err)
		}
		s.emu.SetFaults(func(f *emulator.Faults) { f.Fail = nil })
		s.wait(10 * time.Minute)
		if _, err := s.d.store.Parked(q.Seq); !errors.Is(err, store.ErrNotParked) {
			t.Errorf("it is still parked: %v", err)
		}
		s.must(s.d.store.Update(func(tx *store.Tx) error {
			q = store.Quarantine{Feed: 99, Item: id, Reason: "of a folder that nobody watches", At: time.Now()}
			return tx.PutQuarantine(&q)
		}))
		if _, err := s.d.retry(t.Context(), q.Seq); err == nil || !strings.Contains(err.Error(), "not watched any more") {
			t.Errorf("of an unwatched folder: %v", err)
		}
		s.want("received mail")
		s.checkLaw()
	})
}
