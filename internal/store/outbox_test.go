package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

var outboxDay = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func openOutbox(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newOutbox holds n events of mailboxes a and b by turns, in rows 1..n.
func newOutbox(t *testing.T, n int) *Store {
	t.Helper()
	s := openOutbox(t, t.TempDir())
	t.Cleanup(func() { s.Close() })
	fillOutbox(t, s, 1, n)
	return s
}

func fillOutbox(t *testing.T, s *Store, from, n int) {
	t.Helper()
	err := s.Update(func(tx *Tx) error {
		for i := from; i < from+n; i++ {
			err := tx.AppendEvent(&event.Event{ID: fmt.Sprint("id", i), Area: event.AreaMail, Name: event.Sent, Watch: "w",
				Mailbox: string(rune('a' + i%2)), RecordedTime: outboxDay.Add(time.Duration(i) * time.Second), Data: jsontext.Value(`{}`)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// acknowledge acks rows at stream sequence row+100, at outboxDay plus row minutes.
func acknowledge(t *testing.T, s *Store, rows ...uint64) {
	t.Helper()
	var acks []Ack
	for _, seq := range rows {
		acks = append(acks, Ack{Seq: seq, ID: fmt.Sprint("id", seq), StreamSeq: seq + 100, At: outboxDay.Add(time.Duration(seq) * time.Minute)})
	}
	if err := s.Acknowledge(acks); err != nil {
		t.Fatal(err)
	}
}

func outboxSeqs(t *testing.T, s *Store, after uint64, maxBytes int) (seqs []uint64) {
	t.Helper()
	rows, err := s.Outbox(after, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

func wantSeqs(t *testing.T, s *Store, after uint64, want ...uint64) {
	t.Helper()
	if got := outboxSeqs(t, s, after, 1<<20); !slices.Equal(got, want) {
		t.Fatalf("Outbox(%d) = %v, want %v", after, got, want)
	}
}

func wantStats(t *testing.T, s *Store, entries, held int) {
	t.Helper()
	if st := s.OutboxStats(); st.Entries != entries || st.Held != held {
		t.Fatalf("outbox has %d entries and %d held, want %d and %d", st.Entries, st.Held, entries, held)
	}
}

// spoil flips a bit of one value in a bucket.
func spoil(t *testing.T, s *Store, bucket []byte, seq uint64) {
	t.Helper()
	err := s.db.Update(func(btx *bolt.Tx) error {
		b := btx.Bucket(bucket)
		v := slices.Clone(b.Get(key64(seq)))
		if v == nil {
			return fmt.Errorf("no %s %d", bucket, seq)
		}
		v[len(v)/2] ^= 1
		return b.Put(key64(seq), v)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOutboxGivesWhatIsNotAcknowledged(t *testing.T) {
	s := newOutbox(t, 6)
	wantSeqs(t, s, 0, 1, 2, 3, 4, 5, 6)
	acknowledge(t, s, 2, 3, 6)
	wantSeqs(t, s, 0, 1, 4, 5)
	wantSeqs(t, s, 1, 4, 5)
	wantSeqs(t, s, 5)
	wantSeqs(t, s, 99)
	wantStats(t, s, 3, 3)
	if got := s.OutboxStats().OldestAt; !got.Equal(outboxDay.Add(time.Second)) {
		t.Errorf("oldest is of %v, want row 1's", got)
	}
	rows, err := s.Outbox(3, 1<<20)
	if err != nil || rows[0].Event.ID != "id4" || rows[0].Event.Sequence != 2 || rows[0].Event.Epoch != s.Epoch() || rows[0].Size < 50 || rows[0].Err != nil {
		t.Errorf("row 4 is %+v, %v", rows[0], err)
	}
}

func TestOutboxIsReadInPieces(t *testing.T) {
	s := newOutbox(t, 5)
	if got := outboxSeqs(t, s, 0, 1); !slices.Equal(got, []uint64{1}) {
		t.Errorf("Outbox with room for 1 byte = %v, want one row", got)
	}
	if got := outboxSeqs(t, s, 0, 0); got != nil {
		t.Errorf("Outbox with no room = %v, want none", got)
	}
	size := 0
	rows, _ := s.Outbox(0, 1<<20)
	for _, r := range rows[:2] {
		size += r.Size
	}
	if got := outboxSeqs(t, s, 0, size); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("Outbox with room for two rows = %v", got)
	}
}

func TestOutboxChangedTellsOfNewAndReturnedRows(t *testing.T) {
	s := newOutbox(t, 0)
	changed := func() bool {
		select {
		case <-s.OutboxChanged():
			return true
		default:
			return false
		}
	}
	changed()
	fillOutbox(t, s, 1, 3)
	if !changed() || changed() {
		t.Error("one commit of three events is not one signal")
	}
	acknowledge(t, s, 1, 2)
	if changed() {
		t.Error("an ack is no news")
	}
	if _, err := s.Unacknowledge(1000); err != nil || changed() {
		t.Errorf("nothing was taken back (%v), and yet a signal", err)
	}
	if _, err := s.Unacknowledge(0); err != nil || !changed() {
		t.Errorf("no signal after acks were taken back (%v)", err)
	}
	err := s.Update(func(tx *Tx) error {
		return errors.Join(tx.AppendEvent(&event.Event{ID: "x", Watch: "w", Mailbox: "a"}), errors.New("no"))
	})
	if err == nil || changed() {
		t.Errorf("a signal of what was not committed (%v)", err)
	}
	wantStats(t, s, 3, 0)
}

func TestAcknowledgeTwiceIsOnce(t *testing.T) {
	s := newOutbox(t, 3)
	acknowledge(t, s, 1, 2)
	acknowledge(t, s, 2, 1, 1)
	wantStats(t, s, 1, 2)
	acknowledge(t, s, 77) // not in the outbox
	wantStats(t, s, 1, 2)
	if last, ok, err := s.LastHeld(); err != nil || !ok || last.Seq != 2 {
		t.Errorf("LastHeld = %+v, %v, %v, want row 2", last, ok, err)
	}
}

func TestReleaseHeld(t *testing.T) {
	s := newOutbox(t, 10)
	acknowledge(t, s, 1, 2, 3, 4, 5, 6)
	release := func(minute, limit, want int) {
		t.Helper()
		if n, err := s.ReleaseHeld(outboxDay.Add(time.Duration(minute)*time.Minute), limit); err != nil || n != want {
			t.Fatalf("ReleaseHeld(minute %d, %d) = %d, %v, want %d", minute, limit, n, err, want)
		}
	}
	release(1, 100, 0) // exactly as old is not older
	release(4, 2, 2)
	wantStats(t, s, 4, 4)
	release(4, 100, 1)
	release(4, 100, 0)
	release(100, 0, 0)
	wantStats(t, s, 4, 3)
	wantSeqs(t, s, 0, 7, 8, 9, 10)
	release(100, 100, 3)
	wantStats(t, s, 4, 0)
	if _, ok, err := s.LastHeld(); ok || err != nil {
		t.Errorf("LastHeld says %v, %v, want nothing held", ok, err)
	}
	if n, err := s.Unacknowledge(0); n != 0 || err != nil {
		t.Errorf("Unacknowledge = %d, %v: what was released came back", n, err)
	}
	wantSeqs(t, s, 0, 7, 8, 9, 10)
}

func TestReleaseHeldOfManyPages(t *testing.T) {
	const n = 5000
	s := newOutbox(t, n)
	var all []uint64
	for i := range uint64(n) {
		all = append(all, i+1)
	}
	acknowledge(t, s, all...)
	for left := n; left > 0; {
		got, err := s.ReleaseHeld(outboxDay.Add(n*2*time.Minute), 700)
		if err != nil || got != min(700, left) {
			t.Fatalf("ReleaseHeld = %d, %v with %d left", got, err, left)
		}
		left -= got
		wantStats(t, s, 0, left)
	}
}

func TestLastHeldIsTheHighestInTheStream(t *testing.T) {
	s := newOutbox(t, 3)
	at := outboxDay
	if err := s.Acknowledge([]Ack{{Seq: 1, ID: "id1", StreamSeq: 9, At: at}, {Seq: 2, ID: "id2", StreamSeq: 11, At: at}, {Seq: 3, ID: "id3", StreamSeq: 10, At: at}}); err != nil {
		t.Fatal(err)
	}
	if last, ok, err := s.LastHeld(); err != nil || !ok || last != (Ack{2, "id2", 11, at}) {
		t.Errorf("LastHeld = %+v, %v, %v, want row 2 at 11", last, ok, err)
	}
}

func TestUnacknowledgeTakesBackWhatIsAboveASequence(t *testing.T) {
	s := newOutbox(t, 8)
	acknowledge(t, s, 1, 2, 3, 4, 5, 6)
	if n, err := s.Unacknowledge(104); n != 2 || err != nil {
		t.Fatalf("Unacknowledge = %d, %v, want 2", n, err)
	}
	wantStats(t, s, 4, 4)
	wantSeqs(t, s, 0, 5, 6, 7, 8)
	if n, err := s.Unacknowledge(0); n != 4 || err != nil {
		t.Fatalf("Unacknowledge = %d, %v, want 4", n, err)
	}
	wantSeqs(t, s, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	acknowledge(t, s, 1, 2, 3)
	wantStats(t, s, 5, 3)
}

func TestQuarantinedRowLeavesTheOutbox(t *testing.T) {
	s := newOutbox(t, 3)
	if err := s.QuarantineOutbox(2, "too large", outboxDay); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, s, 0, 1, 3)
	wantStats(t, s, 2, 0)
	if err := s.QuarantineOutbox(2, "again", outboxDay); err != nil { // its outcome may have been unknown the first time
		t.Fatal(err)
	}
	wantStats(t, s, 2, 0)
	var q Quarantine
	err := s.db.View(func(btx *bolt.Tx) error { return decode(btx.Bucket(bucketQuarantine).Get(key64(1)), &q) })
	if err != nil || q.Reason != "too large" || !q.At.Equal(outboxDay) {
		t.Fatalf("quarantine holds %+v, %v", q, err)
	}
	var e event.Event
	if err := decode(seal(q.Raw), &e); err != nil || e.ID != "id2" {
		t.Errorf("quarantine keeps event %q, %v, want id2", e.ID, err)
	}
	if n := s.Counters()["quarantine_entries"]; n != 1 {
		t.Errorf("%d entries in quarantine, want 1", n)
	}
}

func TestDamagedOutboxRowIsShownAndCanBeQuarantined(t *testing.T) {
	s := newOutbox(t, 3)
	spoil(t, s, bucketOutbox, 2)
	rows, err := s.Outbox(0, 1<<20)
	if err != nil || len(rows) != 3 || rows[0].Err != nil || rows[2].Err != nil {
		t.Fatalf("Outbox = %+v, %v", rows, err)
	}
	if r := rows[1]; r.Seq != 2 || !errors.Is(r.Err, ErrDamaged) || r.Event.ID != "" {
		t.Errorf("the damaged row is %+v", r)
	}
	if err := s.QuarantineOutbox(2, "damaged", outboxDay); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, s, 0, 1, 3)
	wantStats(t, s, 2, 0)
}

func TestDamagedAckHarmsNoOther(t *testing.T) {
	s := newOutbox(t, 6)
	acknowledge(t, s, 1, 2, 3, 4, 5, 6)
	spoil(t, s, bucketAcks, 2)
	spoil(t, s, bucketAcks, 6)
	if last, ok, err := s.LastHeld(); err != nil || !ok || last.Seq != 5 {
		t.Fatalf("LastHeld = %+v, %v, %v, want row 5", last, ok, err)
	}
	if n, err := s.ReleaseHeld(outboxDay.Add(2*time.Minute), 100); n != 1 || err != nil {
		t.Fatalf("ReleaseHeld = %d, %v, want 1: the damaged ack of row 2 is as old as row 3's", n, err)
	}
	if n, err := s.ReleaseHeld(outboxDay.Add(4*time.Minute), 100); n != 2 || err != nil {
		t.Fatalf("ReleaseHeld = %d, %v, want rows 2 and 3", n, err)
	}
	wantStats(t, s, 0, 3)
	if n, err := s.Unacknowledge(104); n != 2 || err != nil {
		t.Fatalf("Unacknowledge = %d, %v, want row 5, and 6 whose place nobody knows", n, err)
	}
	wantSeqs(t, s, 0, 5, 6)
	wantStats(t, s, 2, 1)
}

func TestOutboxAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s := openOutbox(t, dir)
	fillOutbox(t, s, 1, 5)
	acknowledge(t, s, 1, 2)
	if n, err := s.ReleaseHeld(outboxDay.Add(90*time.Second), 10); n != 1 || err != nil {
		t.Fatalf("ReleaseHeld = %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openOutbox(t, dir)
	defer s.Close()
	wantStats(t, s, 3, 1)
	wantSeqs(t, s, 0, 3, 4, 5)
	fillOutbox(t, s, 6, 1)
	wantSeqs(t, s, 0, 3, 4, 5, 6)
	rows, err := s.Outbox(5, 1<<20)
	if err != nil || rows[0].Event.Sequence != 3 { // a2 a4 a6
		t.Errorf("sequence goes on with %d, %v, want 3", rows[0].Event.Sequence, err)
	}
}

// The outbox against a model of it: what the counters say is what the rows say, whatever was done in whatever order.
func TestOutboxAgainstAModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	s := newOutbox(t, 0)
	state := map[uint64]uint64{} // row → stream sequence, 0 when not acknowledged
	last, stream := uint64(0), uint64(0)
	pick := func() uint64 { return 1 + r.Uint64N(last+1) }
	for range 400 {
		switch r.IntN(5) {
		case 0, 1:
			n := 1 + r.IntN(5)
			fillOutbox(t, s, int(last)+1, n)
			for range n {
				last++
				state[last] = 0
			}
		case 2:
			seq := pick()
			stream++
			if err := s.Acknowledge([]Ack{{Seq: seq, StreamSeq: stream, At: outboxDay.Add(time.Duration(seq) * time.Minute)}}); err != nil {
				t.Fatal(err)
			}
			if _, ok := state[seq]; ok {
				state[seq] = stream
			}
		case 3:
			if after := r.Uint64N(stream + 1); r.IntN(4) == 0 {
				if _, err := s.Unacknowledge(after); err != nil {
					t.Fatal(err)
				}
				for seq, at := range state {
					if at > after {
						state[seq] = 0
					}
				}
			}
		default:
			before := pick()
			if _, err := s.ReleaseHeld(outboxDay.Add(time.Duration(before)*time.Minute), 1000); err != nil {
				t.Fatal(err)
			}
			for seq, at := range state {
				if at > 0 && seq < before {
					delete(state, seq)
				}
			}
		}
		var want []uint64
		held := 0
		for seq, at := range state {
			if at == 0 {
				want = append(want, seq)
			} else {
				held++
			}
		}
		slices.Sort(want)
		wantSeqs(t, s, 0, want...)
		wantStats(t, s, len(want), held)
	}
}
