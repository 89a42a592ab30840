package store

import (
	"errors"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

// park puts something into the quarantine and returns its number.
func park(t testing.TB, s *Store, q Quarantine) uint64 {
	t.Helper()
	update(t, s, func(tx *Tx) error { return tx.PutQuarantine(&q) })
	return q.Seq
}

// What is parked can be listed, shown and dropped, once for each item, and the counter follows, across a restart too.
func TestQuarantine(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	first := park(t, s, Quarantine{Feed: 1, Item: "a", Reason: "no JSON", At: now, Raw: []byte("{")})
	park(t, s, Quarantine{Feed: 2, Item: "a", Reason: "other feed", At: now})
	again := park(t, s, Quarantine{Feed: 1, Item: "a", Reason: "still no JSON", At: now.Add(time.Hour)})
	all, err := s.Quarantined()
	if err != nil || len(all) != 2 || all[0].Reason != "other feed" || all[1].Reason != "still no JSON" || s.Counters()[counterQuarantine] != 2 {
		t.Errorf("parked: %+v, %v, counted %d", all, err, s.Counters()[counterQuarantine])
	}
	if _, err := s.Parked(first); !errors.Is(err, ErrNotParked) {
		t.Errorf("the first one: %v", err)
	}
	if q, err := s.Parked(again); err != nil || q.Seq != again || !q.At.Equal(now.Add(time.Hour)) {
		t.Errorf("the second one: %+v, %v", q, err)
	}
	if err := s.RetryEvent(again); err == nil {
		t.Error("an item went into the outbox")
	}
	drop := func(seq uint64) error { return s.Update(func(tx *Tx) error { return tx.DropQuarantine(seq) }) }
	if err := errors.Join(drop(again), drop(all[0].Seq)); err != nil {
		t.Error(err)
	}
	if err := drop(again); !errors.Is(err, ErrNotParked) {
		t.Errorf("dropped twice: %v", err)
	}
	stop(t, s)
	if n := start(t, dir, Options{}).Counters()[counterQuarantine]; n != 0 {
		t.Errorf("%d are counted after a restart", n)
	}
}

// A parked event goes back with the id and the sequence that it had.
func TestAParkedEventGoesBack(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	for _, id := range []string{"one", "two", "three"} {
		update(t, s, func(tx *Tx) error {
			return tx.AppendEvent(&event.Event{ID: id, Area: event.AreaMail, Name: event.Received, Watch: "w", Mailbox: "m", Data: []byte(`{"n":1}`)})
		})
	}
	rows, err := s.Outbox(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.QuarantineOutbox(rows[1].Seq, "the broker says no", time.Now()); err != nil {
		t.Fatal(err)
	}
	all, err := s.Quarantined()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if e, ok := all[0].ParkedEvent(); !ok || e.ID != "two" || e.Sequence != 2 {
		t.Errorf("parked event %+v, %v", e, ok)
	}
	if err := s.RetryEvent(all[0].Seq); err != nil {
		t.Fatal(err)
	}
	after, err := s.Outbox(rows[2].Seq, 1<<20)
	if err != nil || len(after) != 1 || after[0].Event.ID != "two" || after[0].Event.Sequence != 2 || string(after[0].Event.Data) != `{"n":1}` {
		t.Errorf("back in the outbox: %+v, %v", after, err)
	}
	if st := s.OutboxStats(); st.Entries != 3 || s.Counters()[counterQuarantine] != 0 {
		t.Errorf("outbox %+v, parked %d", st, s.Counters()[counterQuarantine])
	}
	if err := s.RetryEvent(all[0].Seq); !errors.Is(err, ErrNotParked) {
		t.Errorf("retried twice: %v", err)
	}
}

// A row or an entry that is damaged says so, and can only be dropped.
func TestDamagedEntries(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	lost := park(t, s, Quarantine{Reason: "row is damaged"})
	torn := park(t, s, Quarantine{Feed: 1, Item: "x", Reason: "r"})
	stop(t, s)
	raw(t, s.Path(), func(tx *bolt.Tx) error { return tx.Bucket(bucketQuarantine).Put(key64(torn), []byte("torn")) })
	s = start(t, dir, Options{})
	if err := s.RetryEvent(lost); err == nil || errors.Is(err, ErrNotParked) {
		t.Errorf("an event of which nothing is left: %v", err)
	}
	q, err := s.Parked(torn)
	if err != nil || q.Reason == "r" || q.Reason == "" {
		t.Errorf("a torn entry: %+v, %v", q, err)
	}
	update(t, s, func(tx *Tx) error { return errors.Join(tx.DropQuarantine(lost), tx.DropQuarantine(torn)) })
}
