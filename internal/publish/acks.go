package publish

import (
	"context"
	"sync"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

const (
	maxUncommitted = 8192 // PubAcks not in the outbox yet; publishing pauses above
	commitRetry    = time.Second
)

// ackBook collects PubAcks and writes those that wait in one transaction, while publishing goes on.
type ackBook struct {
	write func([]store.Ack) error
	fail  func(error) // told of every failed write
	wrote func()      // told of every write that worked

	mu      sync.Mutex
	waiting []store.Ack
	writing int
	kick    chan struct{} // capacity 1
}

func newAckBook(write func([]store.Ack) error, wrote func(), fail func(error)) *ackBook {
	return &ackBook{write: write, wrote: wrote, fail: fail, kick: make(chan struct{}, 1)}
}

func (b *ackBook) add(a store.Ack) {
	b.mu.Lock()
	b.waiting = append(b.waiting, a)
	b.mu.Unlock()
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// open is how many acks are not written.
func (b *ackBook) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting) + b.writing
}

// run writes until ctx is done, and then once more.
func (b *ackBook) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			b.flush()
			return
		case <-b.kick:
		}
		for !b.flush() {
			if !sleep(ctx, commitRetry) {
				break
			}
		}
	}
}

// flush writes what waits, and reports whether nothing had to stay. An error may mean that it was written after all,
// which does not matter: acknowledging twice is the same as once.
func (b *ackBook) flush() bool {
	b.mu.Lock()
	batch := b.waiting
	b.waiting, b.writing = nil, len(batch)
	b.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	err := b.write(batch)
	b.mu.Lock()
	if b.writing = 0; err != nil {
		b.waiting = append(batch, b.waiting...)
	}
	b.mu.Unlock()
	if err != nil {
		b.fail(err)
		return false
	}
	b.wrote()
	return true
}
