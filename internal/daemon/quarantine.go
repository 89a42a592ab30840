package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/triggerd/triggerd/internal/delta"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

// retryWait is how long a retry is waited for, and retryLook how often it is looked at.
const (
	retryWait = 30 * time.Second
	retryLook = 50 * time.Millisecond
)

// Parked writes an entry of the quarantine for people. Feeds may be nil: then only the item's id tells whose it is.
func Parked(q *store.Quarantine, feeds []delta.FeedStatus) status.Parked {
	p := status.Parked{Seq: q.Seq, At: q.At, Kind: "item", Item: q.Item, Reason: q.Reason}
	if q.Item == "" {
		p.Kind = "event"
		if e, ok := q.ParkedEvent(); ok {
			p.Event, p.Type, p.Mailbox = e.ID, e.Type(), e.Mailbox
		}
	}
	for i := range feeds {
		if feeds[i].Feed == q.Feed && q.Item != "" {
			p.Mailbox, p.Folder = feeds[i].Mailbox, feeds[i].Folder
		}
	}
	return p
}

// quarantineHandlers serve the quarantine to the commands.
func (d *Daemon) quarantineHandlers() map[string]http.Handler {
	one := func(do func(context.Context, uint64) (any, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
			if err != nil {
				reply(w, nil, store.ErrNotParked)
				return
			}
			out, err := do(r.Context(), seq)
			reply(w, out, err)
		})
	}
	return map[string]http.Handler{
		"GET /api/v1/quarantine": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			entries, err := d.store.Quarantined()
			feeds, _ := d.now().delta.Status()
			out := make([]status.Parked, 0, len(entries))
			for i := range entries {
				out = append(out, Parked(&entries[i], feeds))
			}
			reply(w, out, err)
		}),
		"GET /api/v1/quarantine/{seq}": one(func(_ context.Context, seq uint64) (any, error) {
			q, err := d.store.Parked(seq)
			feeds, _ := d.now().delta.Status()
			p := Parked(&q, feeds)
			p.Raw = q.Raw
			return p, err
		}),
		"POST /api/v1/quarantine/{seq}/retry": one(func(ctx context.Context, seq uint64) (any, error) { return d.retry(ctx, seq) }),
		"DELETE /api/v1/quarantine/{seq}": one(func(_ context.Context, seq uint64) (any, error) {
			return struct{}{}, d.store.Update(func(tx *store.Tx) error { return tx.DropQuarantine(seq) })
		}),
	}
}

// Retried is what became of an entry that was tried again.
type Retried struct {
	Again uint64 `json:"again,omitempty"` // the entry that took its place; 0: it was processed
	Text  string `json:"text"`
}

// retry tries an entry again and waits for what becomes of it.
func (d *Daemon) retry(ctx context.Context, seq uint64) (Retried, error) {
	q, err := d.store.Parked(seq)
	if err != nil {
		return Retried{}, err
	}
	if q.Item == "" {
		return Retried{Text: "back in the outbox"}, d.store.RetryEvent(seq)
	}
	if err := d.now().delta.Retry(q); err != nil {
		return Retried{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, retryWait)
	defer cancel()
	for {
		if _, err := d.store.Parked(seq); errors.Is(err, store.ErrNotParked) {
			return d.outcome(&q)
		}
		select {
		case <-ctx.Done():
			return Retried{}, fmt.Errorf("the item was not read within %v: see the feed's error in `triggerd status`; it is tried again by itself while triggerd runs", retryWait)
		case <-time.After(retryLook):
		}
	}
}

// outcome looks whether an item was parked again.
func (d *Daemon) outcome(q *store.Quarantine) (Retried, error) {
	entries, err := d.store.Quarantined()
	for i := range entries {
		if e := &entries[i]; e.Feed == q.Feed && e.Item == q.Item {
			return Retried{Again: e.Seq, Text: "parked again: " + e.Reason}, err
		}
	}
	return Retried{Text: "processed"}, err
}
