package delta

import (
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// refer publishes accepted notifications by reference, straight from what Graph told, nothing read. Where only such
// watches follow the feed it also settles them; elsewhere the round that follows does.
func (f *feed) refer(rec store.Feed, now time.Time) error {
	w := f.wanted.Load()
	if !w.refs || !f.mb.room.st.HasPending(f.num) {
		return nil
	}
	for {
		n, err := f.referBatch(rec, w.watches, w.onlyRefs, now)
		if err != nil || !w.onlyRefs || n < referBatch {
			return err
		}
	}
}

// referBatch bounds what one transaction publishes by reference.
const referBatch = 2000

func (f *feed) referBatch(rec store.Feed, watches []changes.Watch, settle bool, now time.Time) (n int, err error) {
	mb := f.mb
	mb.apply.Lock()
	defer mb.apply.Unlock()
	naming := mb.naming()
	limit := referBatch
	if !settle {
		limit = maxPending
	}
	return n, mb.room.st.Update(func(tx *store.Tx) error {
		entries, err := tx.Pending(f.num, limit)
		if err != nil {
			return err
		}
		n = len(entries)
		known := map[string]store.Reference{}
		changed := map[string]bool{}
		for _, e := range entries {
			ref, ok := known[e.Item]
			if !ok {
				if ref, err = tx.Reference(rec.Mailbox, e.Item); err != nil {
					return err
				}
			}
			next, fresh, events := naming.Refer(ref, changes.Sighting{
				ID: e.Item, Name: e.Change, ChangeKey: e.ChangeKey, Folder: f.folder, At: e.At, Via: event.ViaPush,
			}, watches)
			known[e.Item] = next
			changed[e.Item] = changed[e.Item] || fresh
			outcome := store.Duplicate
			if fresh {
				outcome = store.Filtered
			}
			for _, ev := range events {
				outcome = store.Published
				ev.RecordedTime = now.UTC()
				if err := tx.AppendEvent(ev); err != nil {
					return err
				}
			}
			if settle {
				if err := tx.Settle(e, outcome); err != nil {
					return err
				}
			}
		}
		for id, yes := range changed {
			ref := known[id]
			if !yes {
				continue
			}
			if err := tx.PutReference(rec.Mailbox, id, &ref); err != nil {
				return err
			}
		}
		if settle && n > 0 {
			_, err = tx.UpdateFeed(f.num, func(r *store.Feed) { r.PushAt = now })
		}
		return err
	})
}
