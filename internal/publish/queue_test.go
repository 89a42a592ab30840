package publish

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/triggerd/triggerd/internal/store"
)

// Whatever fails, each partition gives its rows in order, one at a time.
func TestQueueKeepsOrderWithinAPartition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	q := newQueue()
	boxes := mailboxes(5)
	added, given := map[string]uint64{}, map[string]uint64{}
	out := map[string]*partition{}
	seq := uint64(0)
	for step := range 20_000 {
		switch r.IntN(3) {
		case 0:
			if step < 15_000 {
				m := boxes[r.IntN(len(boxes))]
				seq++
				added[m]++
				row := store.OutboxRow{Seq: seq, Size: 10, Event: *newEvent(m, 0)}
				row.Event.Sequence = added[m]
				q.add(row)
			}
		case 1:
			if part := q.next(); part != nil {
				if out[part.key] != nil {
					t.Fatalf("%s is out twice", part.key)
				}
				out[part.key] = part
			}
		default:
			for key, part := range out {
				delete(out, key)
				e := part.rows[0].Event
				if e.Sequence != given[e.Mailbox]+1 {
					t.Fatalf("%s gives %d after %d", key, e.Sequence, given[e.Mailbox])
				}
				if r.IntN(4) == 0 {
					q.again(part)
				} else {
					given[e.Mailbox]++
					q.done(part)
				}
				break
			}
		}
	}
	for _, part := range out {
		q.again(part)
	}
	for part := q.next(); part != nil; part = q.next() {
		given[part.rows[0].Event.Mailbox]++
		q.done(part)
	}
	for m, n := range added {
		if given[m] != n {
			t.Errorf("%s: %d of %d came out", m, given[m], n)
		}
	}
	if q.bytes != 0 || len(q.parts) != 0 || q.after != seq {
		t.Errorf("left: %d bytes, %d partitions, after %d of %d", q.bytes, len(q.parts), q.after, seq)
	}
}

func TestAckBookWritesEachAckAndKeepsWhatFailed(t *testing.T) {
	var mu sync.Mutex
	written := map[uint64]int{}
	batches := 0
	began, gate := make(chan struct{}), make(chan struct{})
	var failures []error
	book := newAckBook(func(acks []store.Ack) error {
		mu.Lock()
		defer mu.Unlock()
		if batches++; batches == 1 {
			mu.Unlock()
			close(began)
			<-gate // more gather meanwhile
			mu.Lock()
			return errors.New("disk full")
		}
		for _, a := range acks {
			written[a.Seq]++
		}
		return nil
	}, func() {}, func(err error) { failures = append(failures, err) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	book.add(store.Ack{Seq: 1})
	wg.Go(func() { book.run(ctx) })
	<-began
	for seq := uint64(2); seq <= 100; seq++ {
		book.add(store.Ack{Seq: seq})
	}
	if got := book.open(); got != 100 {
		t.Errorf("%d open, want 100", got)
	}
	close(gate)
	cancel() // does not wait for the retry
	wg.Wait()
	if len(written) != 100 || len(failures) != 1 || book.open() != 0 {
		t.Errorf("%d written, %d failures, %d open, want 100, 1, 0", len(written), len(failures), book.open())
	}
	if batches > 4 {
		t.Errorf("%d transactions for 100 acks that waited together", batches)
	}
}
