package store

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

// connectionEvent is the nth event of a connection.
func connectionEvent(t testing.TB, connection, state string, n int) *event.Event {
	t.Helper()
	e, err := event.NewConnectionEvent("tenant", event.ConnectionData{
		Name: connection, Cloud: "global", Auth: "delegated", State: state, Since: outboxDay.Add(time.Duration(n) * time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &e
}

func tellConnection(t testing.TB, s *Store, connection, state string, n int) {
	t.Helper()
	update(t, s, func(tx *Tx) error { return tx.AppendEvent(connectionEvent(t, connection, state, n)) })
}

// Events of mailboxes a and b and of connection a lie in one outbox in the order they came; only those of mailboxes are
// numbered, and those of a connection between them leave no gap.
func TestEventsOfConnectionsHaveNoSequence(t *testing.T) {
	s := newOutbox(t, 2) // rows 1 and 2, of b and a
	tellConnection(t, s, "a", event.ReauthRequired, 3)
	fillOutbox(t, s, 4, 2) // a, b
	tellConnection(t, s, "a", event.ConnectionOK, 6)
	wantSeqs(t, s, 0, 1, 2, 3, 4, 5, 6)
	wantStats(t, s, 6, 0)
	rows, err := s.Outbox(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		e := r.Event
		if e.Numbered() != (e.Epoch == s.Epoch()) || !e.Numbered() && e.Epoch != "" {
			t.Errorf("row %d of %s has epoch %q", r.Seq, e.PartitionKey(), e.Epoch)
		}
		got = append(got, fmt.Sprintf("%s %s %d", e.PartitionKey(), e.Name, e.Sequence))
	}
	want := []string{"w.b sent 1", "w.a sent 1", "_.a reauth_required 0", "w.a sent 2", "w.b sent 2", "_.a ok 0"}
	if !slices.Equal(got, want) {
		t.Errorf("outbox holds %q, want %q", got, want)
	}
	if told := connectionEvent(t, "a", event.ReauthRequired, 3); rows[2].Event.ID != told.ID || string(rows[2].Event.Data) != string(told.Data) || !rows[2].Event.Time.Equal(told.Time) {
		t.Errorf("row 3 is %+v, want %+v", rows[2].Event, told)
	}
	err = s.db.View(func(btx *bolt.Tx) error {
		if raw := string(btx.Bucket(bucketOutbox).Get(key64(3))); strings.Contains(raw, `"sequence"`) || strings.Contains(raw, `"epoch"`) {
			t.Errorf("row 3 is stored as %s", raw)
		}
		if n := btx.Bucket(bucketSequences).Stats().KeyN; n != 2 {
			t.Errorf("%d sequences are counted, want those of two mailboxes", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What a caller left in an event of a connection is not what is published.
func TestAppendEventGivesConnectionsNoSequence(t *testing.T) {
	s := newOutbox(t, 0)
	e := connectionEvent(t, "a", event.Throttled, 1)
	e.Sequence, e.Epoch = 7, "made up"
	update(t, s, func(tx *Tx) error { return tx.AppendEvent(e) })
	rows, err := s.Outbox(0, 1<<20)
	if err != nil || len(rows) != 1 || rows[0].Event.Sequence != 0 || rows[0].Event.Epoch != "" {
		t.Errorf("outbox holds %+v, %v", rows, err)
	}
	if e.Sequence != 0 || e.Epoch != "" {
		t.Errorf("the caller is told sequence %d of epoch %q", e.Sequence, e.Epoch)
	}
}

func TestEventsOfConnectionsAreCountedByState(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	want := map[string]uint64{counterAppended: 6}
	for i, state := range event.ConnectionEvents {
		tellConnection(t, s, "a", state, i)
		want["events_connection_"+state] = 1
	}
	tellConnection(t, s, "b", event.ReauthRequired, 9)
	want["events_connection_reauth_required"] = 2
	if got := s.Counters(); !maps.Equal(got, want) {
		t.Errorf("counters %v, want %v", got, want)
	}
	stop(t, s)
	s = start(t, dir, Options{})
	if got := s.Counters(); !maps.Equal(got, want) {
		t.Errorf("counters after a restart %v, want %v", got, want)
	}
	law(t, s)
}

// They are held, released, taken back and kept over a restart as all others.
func TestEventsOfConnectionsLiveInTheOutboxAsOthersDo(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	tellConnection(t, s, "a", event.ReauthRequired, 1)
	fillOutbox(t, s, 2, 1)
	tellConnection(t, s, "a", event.ConnectionOK, 3)
	acknowledge(t, s, 1, 2)
	wantSeqs(t, s, 0, 3)
	wantStats(t, s, 1, 2)
	if n, err := s.Unacknowledge(100); n != 2 || err != nil {
		t.Fatalf("Unacknowledge = %d, %v, want 2", n, err)
	}
	wantSeqs(t, s, 0, 1, 2, 3)
	stop(t, s)
	s = start(t, dir, Options{})
	wantSeqs(t, s, 0, 1, 2, 3)
	fillOutbox(t, s, 4, 1) // of mailbox a, as row 2 is
	rows, err := s.Outbox(3, 1<<20)
	if err != nil || rows[0].Event.Sequence != 2 {
		t.Errorf("the mailbox goes on with %+v, %v, want sequence 2", rows[0].Event, err)
	}
	acknowledge(t, s, 1)
	if n, err := s.ReleaseHeld(outboxDay.Add(time.Hour), 10); n != 1 || err != nil {
		t.Errorf("ReleaseHeld = %d, %v, want 1", n, err)
	}
	wantStats(t, s, 3, 0)
	if err := s.QuarantineOutbox(3, "too large", outboxDay); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, s, 0, 2, 4)
}

// A state and the event that tells it are committed together or not at all.
func TestAStateAndItsEventAreOne(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	kept := Connection{Name: "a", TenantID: "tenant", UserID: "user", Username: "a@contoso.com", Scopes: []string{"mail.read"}, State: event.ConnectionOK,
		Since: outboxDay, SignedInAt: outboxDay, RefreshedAt: outboxDay, Sealed: []byte{0, 255, 1}}
	update(t, s, func(tx *Tx) error { return tx.PutConnection(&kept) })
	broken := fmt.Errorf("disk full")
	err := s.Update(func(tx *Tx) error {
		next := kept
		next.State = event.ReauthRequired
		if err := tx.PutConnection(&next); err != nil {
			return err
		}
		if err := tx.AppendEvent(connectionEvent(t, "a", next.State, 1)); err != nil {
			return err
		}
		return broken
	})
	if err == nil {
		t.Fatal("the error is lost")
	}
	for _, when := range []string{"at once", "after a restart"} {
		if c, ok := s.Connection("a"); !ok || fmt.Sprint(c) != fmt.Sprint(kept) {
			t.Errorf("%s: the connection is %+v, want %+v", when, c, kept)
		}
		wantStats(t, s, 0, 0)
		if n := s.Counters()["events_connection_reauth_required"]; n != 0 {
			t.Errorf("%s: %d events are counted", when, n)
		}
		stop(t, s)
		s = start(t, dir, Options{})
	}
	if c, ok := s.Connection("b"); ok || c.Name != "" {
		t.Errorf("a connection that nobody stored: %+v", c)
	}
	if n := len(s.Connections()); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A file of before there were sign-ins gets a place for them, and keeps all that it has.
func TestAFileOfTheFirstVersionGetsConnections(t *testing.T) {
	dir, path := used(t)
	raw(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketConnections) })
	setVersion(t, path, 1)
	for range 2 { // once by the migration, once more when there is nothing to do
		s := start(t, dir, Options{})
		if n := checkItems(t, s); n != 0 {
			t.Errorf("%d items are damaged", n)
		}
		law(t, s)
		name := strconv.Itoa(len(s.Connections()))
		update(t, s, func(tx *Tx) error { return tx.PutConnection(&Connection{Name: name, Sealed: []byte(name)}) })
		stop(t, s)
	}
	s := start(t, dir, Options{})
	for _, name := range []string{"0", "1"} {
		if c, ok := s.Connection(name); !ok || string(c.Sealed) != name {
			t.Errorf("connection %s is %+v", name, c)
		}
	}
}
