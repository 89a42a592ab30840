package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// settle settles the oldest n notifications of a feed (0 for all) with an outcome, twice over, and says how many there
// were.
func settle(t testing.TB, s *Store, feed uint32, n int, outcome Outcome) (settled int) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		entries, err := tx.Pending(feed, n)
		for range 2 { // the second time changes nothing
			for _, e := range entries {
				err = errors.Join(err, tx.Settle(e, outcome))
			}
		}
		settled = len(entries)
		return err
	})
	return settled
}

func pending(t testing.TB, s *Store, feed uint32, limit int) (entries []Entry) {
	t.Helper()
	err := s.View(func(tx *Tx) (err error) {
		entries, err = tx.Pending(feed, limit)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func itemsOf(entries []Entry) (ids []string) {
	for _, e := range entries {
		ids = append(ids, e.Item)
	}
	return ids
}

// rows counts the rows of the inbox and the bytes of the largest.
func rows(t testing.TB, s *Store) (n, largest int) {
	t.Helper()
	err := s.db.View(func(btx *bolt.Tx) error {
		return btx.Bucket(bucketInbox).ForEach(func(_, v []byte) error {
			n, largest = n+1, max(largest, len(v))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, largest
}

func numbered(feed uint32, from, to int) (notes []Notification) {
	for i := from; i < to; i++ {
		notes = append(notes, Notification{Feed: feed, Item: fmt.Sprintf("item-%03d", i), Change: "created", ChangeKey: "key", At: time.UnixMilli(int64(i)).UTC()})
	}
	return notes
}

func TestAcceptedComesBackAsItWas(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	want := []Notification{
		{Feed: 1, Item: "AAMk=", Change: "created", ChangeKey: "AACQ2fKdhq8o", At: time.UnixMilli(1_790_000_000_123).UTC()},
		{Feed: 1, Change: "unknownfuturevalue", At: time.UnixMilli(0).UTC()},
		{Feed: 1, Item: "é\x00\xff\"", At: time.UnixMilli(-5).UTC()},
		{Feed: 1, Item: strings.Repeat("x", maxString), Change: strings.Repeat("y", maxString), ChangeKey: strings.Repeat("z", maxString), At: time.UnixMilli(1).UTC()},
	}
	accept(t, s, want...)
	accept(t, s, Notification{Feed: 1<<32 - 1, Item: "other"})
	for range 2 {
		got := pending(t, s, 1, 0)
		for i, e := range got {
			if e.Notification != want[i] {
				t.Errorf("entry %d = %.80v, want %.80v", i, e.Notification, want[i])
			}
		}
		if len(got) != len(want) || !slices.Equal(s.PendingFeeds(), []uint32{1, 1<<32 - 1}) || !s.HasPending(1) || s.HasPending(2) || s.Pending() != 5 {
			t.Errorf("%d entries, feeds %v, %d in all", len(got), s.PendingFeeds(), s.Pending())
		}
		law(t, s)
		stop(t, s)
		s = start(t, dir, Options{})
	}
}

func TestPendingIsOldestFirstAndLimited(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	accept(t, s, numbered(1, 0, 3)...)
	accept(t, s, append(numbered(2, 0, 2), numbered(1, 3, 5)...)...)
	accept(t, s, numbered(1, 5, 6)...)
	all := []string{"item-000", "item-001", "item-002", "item-003", "item-004", "item-005"}
	for limit := range 8 {
		want := all[:min(limit, len(all))]
		if limit == 0 {
			want = all
		}
		if got := itemsOf(pending(t, s, 1, limit)); !slices.Equal(got, want) {
			t.Errorf("Pending(1, %d) = %v, want %v", limit, got, want)
		}
	}
	if got := pending(t, s, 3, 0); got != nil {
		t.Errorf("Pending(3) = %v, want none", got)
	}
	settle(t, s, 1, 4, Published)
	if got := itemsOf(pending(t, s, 1, 0)); !slices.Equal(got, all[4:]) {
		t.Errorf("after settling four: %v, want %v", got, all[4:])
	}
	if got := itemsOf(pending(t, s, 2, 0)); !slices.Equal(got, all[:2]) {
		t.Errorf("of the other feed: %v, want %v", got, all[:2])
	}
	law(t, s)
}

func TestSettlingTwiceCountsOnce(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	accept(t, s, numbered(1, 0, 10)...)
	before := pending(t, s, 1, 0) // kept by somebody while others settle
	settle(t, s, 1, 4, Published)
	settle(t, s, 1, 0, Duplicate)
	again := func() {
		update(t, s, func(tx *Tx) (err error) {
			for _, e := range before {
				err = errors.Join(err, tx.Settle(e, Gone))
			}
			return err
		})
		if c := s.Counters(); c["settled_published"] != 4 || c["settled_duplicate"] != 6 || c["settled_gone"] != 0 || s.Pending() != 0 {
			t.Errorf("counters = %v, pending %d; want 4 published, 6 duplicate, nothing else", c, s.Pending())
		}
		law(t, s)
	}
	again()
	if n, _ := rows(t, s); n != 0 {
		t.Errorf("%d rows are left of what is settled", n)
	}
	stop(t, s)
	s = start(t, dir, Options{})
	again()
	accept(t, s, numbered(1, 10, 11)...) // its row has not got the number of one that was settled
	again2 := pending(t, s, 1, 0)
	if len(again2) != 1 || slices.ContainsFunc(before, func(e Entry) bool { return e.row == again2[0].row }) {
		t.Errorf("a row's number was used again: %+v", again2)
	}
}

func TestSettledInOneTransactionByTwo(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	accept(t, s, numbered(1, 0, 2)...)
	entries := pending(t, s, 1, 0)
	errs := together(t, s,
		func(tx *Tx) error { return tx.Settle(entries[0], Published) },
		func(tx *Tx) error { return errors.Join(tx.Settle(entries[0], Gone), tx.Settle(entries[1], Gone)) },
		func(tx *Tx) error { // sees what the others of its transaction did
			left, err := tx.Pending(1, 0)
			if len(left) != 0 {
				t.Errorf("%d are pending after both were settled", len(left))
			}
			return err
		})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if c := s.Counters(); c["settled_published"] != 1 || c["settled_gone"] != 1 {
		t.Errorf("counters = %v, want one published and one gone", c)
	}
	law(t, s)
}

func TestLargeBatchesAreSplitIntoRows(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	var notes []Notification
	for i := range 2000 { // two feeds in every row
		notes = append(notes, Notification{Feed: uint32(1 + i%2), Item: fmt.Sprintf("%0150d", i), Change: "updated", ChangeKey: strings.Repeat("k", 30), At: time.UnixMilli(int64(i)).UTC()})
	}
	notes = append(notes, Notification{Feed: 3, Item: strings.Repeat("x", maxString)}) // larger than a row by itself
	accept(t, s, notes...)
	n, largest := rows(t, s)
	if n < 10 || n > 20 || largest > maxString+100 {
		t.Errorf("%d rows of up to %d bytes", n, largest)
	}
	settle(t, s, 3, 0, Filtered)
	if _, largest := rows(t, s); largest > maxRow {
		t.Errorf("a row of %d bytes, want at most %d", largest, maxRow)
	}
	settle(t, s, 1, 700, Published)
	law(t, s)
	stop(t, s)
	s = start(t, dir, Options{})
	law(t, s)
	if n := settle(t, s, 1, 0, Superseded); n != 300 {
		t.Errorf("%d of feed 1 were left, want 300", n)
	}
	if got := pending(t, s, 2, 0); len(got) != 1000 || got[999].Item != fmt.Sprintf("%0150d", 1999) {
		t.Errorf("%d of feed 2, want 1000 untouched", len(got))
	}
	settle(t, s, 2, 0, Gone)
	law(t, s)
	if n, _ := rows(t, s); n != 0 || s.Pending() != 0 || len(s.PendingFeeds()) != 0 {
		t.Errorf("%d rows and %d pending after all was settled", n, s.Pending())
	}
}

func TestARowIsFilledToItsLimitAndNotBeyond(t *testing.T) {
	for size := range 300 {
		notes := slices.Repeat([]Notification{{Feed: 1, Item: strings.Repeat("x", size)}}, 2100)
		total := 0
		for _, r := range encodeRows(notes) {
			if len(r.value) > maxRow {
				t.Fatalf("items of %d bytes give a row of %d", size, len(r.value))
			}
			if total += len(r.notes); total < len(notes) && len(r.value) < maxRow-recordSize(&notes[0]) {
				t.Fatalf("items of %d bytes leave a row of %d bytes with room", size, len(r.value))
			}
		}
		if total != len(notes) {
			t.Fatalf("%d of %d records in the rows", total, len(notes))
		}
	}
}

// Whatever is accepted and settled in whatever order, by operations some of which refuse, and with restarts between:
// the law holds at every moment, and every notification is settled or pending, never both, never neither.
func TestTheLawHoldsThroughEverything(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	s := start(t, dir, Options{})
	model := map[string]bool{} // item → pending
	refuse := errors.New("no")
	next := 0
	for step := range 150 {
		var fns []func(*Tx) error
		var done []func() // what the model learns when the operation was not refused
		for range 1 + rnd.IntN(4) {
			feed, refused := uint32(1+rnd.IntN(5)), rnd.IntN(4) == 0
			if rnd.IntN(2) == 0 {
				notes := numbered(feed, next, next+1+rnd.IntN(300))
				next += len(notes)
				fns = append(fns, func(tx *Tx) error {
					for _, r := range encodeRows(notes) {
						if err := tx.appendRow(r); err != nil {
							return err
						}
					}
					tx.Count(counterAccepted, uint64(len(notes)))
					if refused {
						return refuse
					}
					return nil
				})
				done = append(done, func() {
					for _, n := range notes {
						model[n.Item] = true
					}
				})
				continue
			}
			limit, outcome := 1+rnd.IntN(200), Outcomes[rnd.IntN(len(Outcomes))]
			var settled []Entry
			fns = append(fns, func(tx *Tx) (err error) {
				if settled, err = tx.Pending(feed, limit); err != nil {
					return err
				}
				for _, e := range settled {
					if err := tx.Settle(e, outcome); err != nil {
						return err
					}
				}
				if refused {
					return refuse
				}
				return nil
			})
			done = append(done, func() {
				for _, e := range settled {
					model[e.Item] = false
				}
			})
		}
		for i, err := range together(t, s, fns...) {
			if err == nil {
				done[i]()
			} else if !errors.Is(err, refuse) {
				t.Fatal(err)
			}
		}
		law(t, s)
		if step%30 == 29 {
			stop(t, s)
			s = start(t, dir, Options{})
			law(t, s)
		}
		got := map[string]bool{}
		for _, feed := range s.PendingFeeds() {
			for _, e := range pending(t, s, feed, 0) {
				if got[e.Item] || !model[e.Item] {
					t.Fatalf("step %d: %s is pending twice, or though it was settled", step, e.Item)
				}
				got[e.Item] = true
			}
		}
		want := 0
		for _, isPending := range model {
			if isPending {
				want++
			}
		}
		if len(got) != want || s.Pending() != want {
			t.Fatalf("step %d: %d can be read, %d are counted, want %d", step, len(got), s.Pending(), want)
		}
	}
}

func TestAFullInboxTakesNoMore(t *testing.T) {
	s := start(t, t.TempDir(), Options{MaxInbox: 10})
	accept(t, s, numbered(1, 0, 8)...)
	if err := s.Accept(t.Context(), numbered(1, 8, 11), nil); !errors.Is(err, ErrFull) {
		t.Errorf("Accept beyond the limit = %v, want ErrFull", err)
	}
	accept(t, s, numbered(1, 8, 10)...)
	if err := s.Accept(t.Context(), numbered(1, 10, 11), nil); !errors.Is(err, ErrFull) {
		t.Errorf("Accept into a full inbox = %v, want ErrFull", err)
	}
	if err := s.Accept(t.Context(), nil, []Lifecycle{{Subscription: "s", Event: "missed"}}); err != nil {
		t.Errorf("Accept of a lifecycle notification into a full inbox = %v", err)
	}
	settle(t, s, 1, 1, Gone)
	accept(t, s, numbered(1, 10, 11)...)
	law(t, s)
}

func TestLifecyclesStayUntilTheyAreDone(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	at := time.Unix(1_790_000_000, 0).UTC()
	if err := s.Accept(t.Context(), nil, []Lifecycle{{Subscription: "a", Event: "missed", At: at}, {Subscription: "b", Event: "subscriptionRemoved", At: at}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(t.Context(), numbered(1, 0, 1), []Lifecycle{{Subscription: "a", Event: "somethingNew", At: at}}); err != nil {
		t.Fatal(err)
	}
	read := func() (got []Lifecycle) {
		if err := s.View(func(tx *Tx) (err error) { got, err = tx.Lifecycles(); return err }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := []Lifecycle{{1, "a", "missed", at}, {2, "b", "subscriptionRemoved", at}, {3, "a", "somethingNew", at}}
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("lifecycles = %v, want %v", got, want)
	}
	stop(t, s)
	s = start(t, dir, Options{})
	for range 2 {
		update(t, s, func(tx *Tx) error { return tx.DoneLifecycle(2) })
	}
	if got := read(); !slices.Equal(got, []Lifecycle{want[0], want[2]}) {
		t.Errorf("lifecycles = %v, want the first and the last", got)
	}
	law(t, s)
}

func TestDeletingAFeedSettlesWhatWaitsForIt(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	update(t, s, func(tx *Tx) error { return errors.Join(tx.PutFeed(&Feed{}), tx.PutFeed(&Feed{})) })
	accept(t, s, append(numbered(1, 0, 5), numbered(2, 0, 3)...)...)
	update(t, s, func(tx *Tx) error { return tx.DeleteFeed(1) })
	if c := s.Counters(); c["settled_filtered"] != 5 || s.Pending() != 3 || s.HasPending(1) {
		t.Errorf("counters = %v, %d pending; want 5 filtered and 3 pending", c, s.Pending())
	}
	law(t, s)
}

func TestDamagedRecordsAreNotRead(t *testing.T) {
	row := appendRecord(appendRecord(nil, &Notification{Feed: 1, Item: "item"}), &Notification{Feed: 2, Change: "created", ChangeKey: "key"})
	whole := recordSize(&Notification{Item: "item"})
	for n := range len(row) {
		count := 0
		err := records(row[:n], func(int, int, record) { count++ })
		if complete := n == 0 || n == whole; errors.Is(err, ErrDamaged) == complete {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		if want := min(1, n/whole); count != want {
			t.Errorf("the first %d bytes hold %d records, want %d", n, count, want)
		}
	}
	binary.BigEndian.PutUint16(row[recordHead:], 0xffff) // a length beyond the end
	if err := records(row, func(int, int, record) { t.Error("a record was read") }); !errors.Is(err, ErrDamaged) {
		t.Errorf("records = %v, want ErrDamaged", err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(appendRecord(nil, &Notification{Feed: 1, Item: "i", Change: "created", At: time.UnixMilli(5)}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		var back []byte
		err := records(row, func(_, _ int, r record) {
			n := r.notification()
			rec := appendRecord(nil, &n)
			rec[0] = r[0]
			back = append(back, rec...)
		})
		if err == nil && string(back) != string(row) {
			t.Fatalf("%x was read as %x", row, back)
		}
		if err != nil && !strings.HasPrefix(string(row), string(back)) {
			t.Fatalf("%x before the damage was read as %x", row, back)
		}
	})
}

func BenchmarkSettle(b *testing.B) {
	s := start(b, b.TempDir(), Options{})
	for b.Loop() { // 10,000 of one feed, as they come after an outage
		accept(b, s, numbered(1, 0, 10_000)...)
		for settle(b, s, 1, 500, Published) > 0 {
		}
	}
	b.ReportMetric(float64(10_000*b.N)/b.Elapsed().Seconds(), "notifications/s")
}
