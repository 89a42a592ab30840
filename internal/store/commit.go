package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// maxBatch is how many operations share one transaction at the most; it bounds how long one of them waits.
const maxBatch = 2048

// op is one writer's part of a transaction.
type op struct {
	fn   func(*Tx) error
	err  error // of fn, when fn itself refused
	done chan error
}

// Update runs fn in a write transaction that it shares with other writers, and returns nil only after the transaction
// was committed and synced. When fn returns an error, none of its writes is kept and the others' are. fn may run more
// than once and must have no effect of its own but through tx.
//
// Another error means that the outcome is unknown: the writes may be there after all.
func (s *Store) Update(fn func(*Tx) error) error {
	return s.UpdateContext(context.Background(), fn)
}

// UpdateContext is Update for a caller who cannot wait: when ctx is done first it returns the context's cause, and the
// writes may still be made.
func (s *Store) UpdateContext(ctx context.Context, fn func(*Tx) error) error {
	o := &op{fn: fn, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-s.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.done:
		select {
		case err := <-o.done:
			return err
		default:
			return ErrClosed
		}
	}
}

// Ping returns nil when the committer is between two transactions, and so neither stuck nor waiting for a disk that does
// not answer; else the cause of ctx.
func (s *Store) Ping(ctx context.Context) error {
	select {
	case <-s.pulse:
		return nil
	case <-s.done:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("the database does not get on: %w", context.Cause(ctx))
	}
}

// View runs fn in a read transaction. fn must not call Update.
func (s *Store) View(fn func(*Tx) error) error {
	return s.db.View(func(btx *bolt.Tx) error { return fn(newTx(s, btx)) })
}

// Commits is how many transactions were committed in the life of the file; 0 when it is closed.
func (s *Store) Commits() (n uint64) {
	_ = s.db.View(func(btx *bolt.Tx) error {
		n = uint64(btx.ID())
		return nil
	})
	return n
}

// commitLoop is the only writer: it takes what waits, commits it in one transaction, and answers. It never waits for
// more to come, since the sync of one transaction is the time in which the next one gathers.
func (s *Store) commitLoop() {
	var broken error // after it nothing is written any more
	batch := make([]*op, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case o := <-s.ops:
			batch = append(batch, o)
		case s.pulse <- struct{}{}:
			continue
		case <-s.quit:
			for s.drain(&batch); len(batch) > 0; s.drain(&batch) {
				broken = s.commit(batch, broken)
				batch = batch[:0]
			}
			close(s.done) // not deferred: who waits must not end the process in order while a panic is ending it
			return
		}
		s.drain(&batch)
		broken = s.commit(batch, broken)
	}
}

func (s *Store) drain(batch *[]*op) {
	for len(*batch) < maxBatch {
		select {
		case o := <-s.ops:
			*batch = append(*batch, o)
		default:
			return
		}
	}
}

// errRefused makes bbolt roll back because one operation refused.
var errRefused = errors.New("refused")

// commit writes a batch and answers it. It returns the error after which the file cannot be trusted; once there is one
// (broken), it is the answer to everything.
func (s *Store) commit(batch []*op, broken error) error {
	for len(batch) > 0 && broken == nil {
		var tx *Tx
		refused := -1
		err := s.db.Update(func(btx *bolt.Tx) error {
			tx = newTx(s, btx)
			for i, o := range batch {
				if o.err = o.fn(tx); o.err != nil {
					refused = i
					return errRefused
				}
			}
			return tx.flush()
		})
		if refused >= 0 { // roll back, leave this one out, try the rest again
			batch[refused].done <- batch[refused].err
			batch = append(batch[:refused], batch[refused+1:]...)
			continue
		}
		s.note(err)
		if err == nil {
			tx.committed()
		} else if fatal(err) {
			broken = fmt.Errorf("storage cannot be trusted any more: %w", err)
			s.failed <- broken
			break
		}
		answer(batch, err)
		return nil
	}
	answer(batch, broken)
	return broken
}

// note remembers since when commits fail.
func (s *Store) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.trouble = Trouble{}
	case s.trouble.Reason == "":
		s.trouble = Trouble{err.Error(), time.Now().UTC()}
	default:
		s.trouble.Reason = err.Error()
	}
}

// Trouble is why nothing can be committed at present, and since when; zero while the last commit went well.
type Trouble struct {
	Reason string
	Since  time.Time
}

// Trouble tells whether the last commit failed.
func (s *Store) Trouble() Trouble {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.trouble
}

func answer(batch []*op, err error) {
	for _, o := range batch {
		o.done <- err
	}
}

// fatal reports whether the file can no longer be trusted after err. A full disk heals; after a failed sync the kernel
// may have dropped the pages, so that only opening anew tells what is there.
func fatal(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADF)
}
