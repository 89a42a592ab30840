package subscriptions

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// list asks Graph what a connection has and hands each unit its part. Units that were worked on meanwhile get none:
// the list may show them before or after.
func (r *Room) list(ctx context.Context, name string, c *connection) {
	r.mu.Lock()
	seq := c.started
	r.mu.Unlock()
	at := clock()
	subs, err := r.ask(ctx, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.listing = false
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		c.failures++
		c.refused = definite(err) && refused(err)
		wait := max(retryAfter(err), time.Duration((0.5+rand.Float64()/2)*float64(min(time.Minute, 5*time.Second<<min(c.failures-1, 4)))))
		c.notBefore = clock().Add(wait)
		r.log.Warn().Err(err).Str("connection", name).Int("attempt", c.failures).Dur("wait", wait).Msg("subscriptions not listed; going on with what is stored")
		return
	}
	c.done, c.listedAt, c.failures, c.refused, c.notBefore = seq, at, 0, false, time.Time{}
	r.distribute(name, seq, at, subs)
	r.Wake()
}

func (r *Room) ask(ctx context.Context, name string) ([]graph.Subscription, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, noAnswer("list subscriptions"))
	defer cancel()
	return r.opts.Graphs[name].ListSubscriptions(ctx)
}

// distribute gives each unit what the list has for it: what sends to our URL, and what we know by its id. Other
// subscriptions of the app are not ours. Room.mu is held.
func (r *Room) distribute(name string, seq int, at time.Time, subs []graph.Subscription) {
	parts := map[*unit][]graph.Subscription{}
	for _, s := range subs {
		resource := s.Resource
		rec, known := r.st.Subscription(s.ID)
		if known {
			resource = rec.Resource
		}
		if known && rec.Connection == name || !known && sameURL(s.NotificationURL, r.notificationURL) {
			u := r.unit(name, resource)
			parts[u] = append(parts[u], s)
		}
	}
	for _, u := range r.units {
		if u.key.connection != name || u.busy || u.endedSeq >= seq {
			continue
		}
		if found := parts[u]; len(found) > 0 || len(u.subs) > 0 {
			u.listing = &listing{found: found, at: at}
		}
	}
}

// reconcile compares a unit with what Graph has: one subscription that is known and as it should be stays, all others
// are deleted, since notifications of one whose clientState is unknown cannot be verified (S-45) and two would tell
// everything twice. A known one that the list lacks is renewed at once: the answer tells whether it is there.
func (t task) reconcile(ctx context.Context) error {
	keep := t.keeper()
	lost, cleared := false, keep != nil
	for i, f := range t.listing.found {
		if keep != nil && f.ID == keep.ID {
			if err := t.keep(keep, f); err != nil {
				return err
			}
			continue
		}
		if t.othersOwn(f) {
			continue
		}
		if err := t.delete(ctx, f.ID); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			t.log.Warn().Err(err).Str("connection", t.u.key.connection).Str("subscription", f.ID).Msg("superfluous subscription not deleted")
			if !definite(err) || !refused(err) { // else it is not ours to delete, and expires by itself
				t.left(t.listing.found[i:], t.postpone(err))
				return nil
			}
			continue
		}
		t.log.Info().Str("connection", t.u.key.connection).Str("subscription", f.ID).Msg("superfluous subscription deleted")
		cleared = true
		if rec := t.record(f.ID); rec == nil {
			lost = true
		} else if rec.RemovedAt.IsZero() {
			if err := t.bury(rec, "it was not as it should be"); err != nil {
				return err
			}
		}
	}
	return t.compared(cleared, lost && len(t.records) == 0)
}

// othersOwn reports whether a subscription unknown to this unit belongs to another connection of the same app, or may:
// one is being made there.
func (t task) othersOwn(f graph.Subscription) bool {
	if t.record(f.ID) != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.connections {
		if u := t.units[unitKey{name, t.u.key.resource}]; u != nil && u != t.u && u.busy {
			return true
		}
	}
	_, known := t.st.Subscription(f.ID)
	return known
}

// keeper chooses the subscription that stays: wanted, known, as it should be, and rather one that is not marked as
// removed; among these the newest. nil: none.
func (t task) keeper() (best *store.Subscription) {
	if t.want == nil {
		return nil
	}
	for _, f := range t.listing.found {
		rec := t.record(f.ID)
		if rec == nil || rec.StateHash == [32]byte{} || !sameURL(f.NotificationURL, t.notificationURL) ||
			!sameChanges(f.ChangeType, t.opts.ChangeTypes) || !t.listing.at.Before(f.ExpiresAt) ||
			f.LifecycleURL != "" && !sameURL(f.LifecycleURL, t.lifecycleURL) {
			continue
		}
		better := best == nil || rec.RemovedAt.IsZero() && !best.RemovedAt.IsZero() ||
			rec.RemovedAt.IsZero() == best.RemovedAt.IsZero() && rec.CreatedAt.After(best.CreatedAt)
		if better {
			best = rec
		}
	}
	return best
}

// keep brings the record up to what Graph says.
func (t task) keep(sub *store.Subscription, f graph.Subscription) error {
	revived := !sub.RemovedAt.IsZero()
	off := sub.ExpiresAt.Sub(f.ExpiresAt)
	if !revived && off < time.Minute && off > -time.Minute {
		return nil
	}
	sub.RemovedAt, sub.LastError = time.Time{}, ""
	sub.ExpiresAt = f.ExpiresAt.UTC()
	if off >= time.Minute || revived { // shorter than thought: the lease counts from now
		t.plan(sub, t.listing.at)
	}
	if err := t.save(t.u, news{}, sub); err != nil {
		return err
	}
	t.log.Info().Uint32("feed", sub.Feed).Str("subscription", sub.ID).Time("expires_at", sub.ExpiresAt).Bool("revived", revived).Msg("subscription adopted")
	if revived {
		t.opts.CatchUp(t.want.Feed, "subscription adopted")
	}
	return nil
}

// left keeps the part of the list that is not dealt with, for another attempt.
func (t task) left(found []graph.Subscription, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.u.listing = &listing{found: found, at: t.listing.at, retryAt: clock().Add(wait)}
}

// compared ends a comparison. What is stored as living and was not listed is due for renewal, unless it is so new that
// the list need not have had it.
func (t task) compared(cleared, lost bool) error {
	for i := range t.records {
		sub := &t.records[i]
		listed := false
		for _, f := range t.listing.found {
			listed = listed || f.ID == sub.ID
		}
		if listed || !sub.Live(t.listing.at) || within(sub.CreatedAt, settleFor, t.listing.at) {
			continue
		}
		t.log.Warn().Uint32("feed", sub.Feed).Str("subscription", sub.ID).Msg("graph does not list the subscription; asking for it")
		sub.RenewAt = t.listing.at
		if err := t.save(t.u, news{}, sub); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.u.listing = nil
	t.u.lost = t.u.lost || lost && t.u.doubtSeq == 0
	if cleared && t.u.failures <= 1 { // what stood in the way of a creation is gone; but do not run in circles
		t.u.notBefore = time.Time{}
	}
	return nil
}
