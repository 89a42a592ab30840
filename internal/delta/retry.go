package delta

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/store"
)

// Retry has a parked item read again by itself soon. When it can be processed now, its entry is dropped in the transaction
// that brings its events; when it cannot, a new entry takes its place. It never blocks; an error says why it cannot be
// tried.
func (r *Room) Retry(q store.Quarantine) error {
	f := r.feed(q.Feed)
	if f == nil {
		return errors.New("its folder or calendar is not watched any more: drop it")
	}
	if reason := f.mb.paused(); reason != "" {
		return fmt.Errorf("its connection waits for a person: %s", reason)
	}
	f.mu.Lock()
	if f.retry == nil {
		f.retry = map[string]store.Quarantine{}
	}
	f.retry[q.Item] = q
	f.mu.Unlock()
	f.ask("retry of what was parked", false)
	r.sched.wake(f.task, time.Now())
	return nil
}

// retries lists the parked items that are to be read again.
func (f *feed) retries() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.retry))
}

// retried are the entries of items that were read again.
func (f *feed) retried(ids []string) (entries []store.Quarantine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if q, ok := f.retry[id]; ok {
			entries = append(entries, q)
		}
	}
	return entries
}

// tried forgets retries that were made.
func (f *feed) tried(entries []store.Quarantine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range entries {
		delete(f.retry, q.Item)
	}
}

// unpark drops entries, unless somebody else has done so.
func unpark(tx *store.Tx, entries []store.Quarantine) error {
	for _, q := range entries {
		if err := tx.DropQuarantine(q.Seq); err != nil && !errors.Is(err, store.ErrNotParked) {
			return err
		}
	}
	return nil
}

// newSince is what is later than that when an item is first seen is new: for one that was parked, as of then.
func (f *feed) newSince(id string, since time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q, ok := f.retry[id]; ok {
		if parked := q.At.Add(-f.mb.room.opts.Sweep); parked.Before(since) {
			since = parked
		}
	}
	return since.Add(-changes.Slack)
}
