package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// stall is how long a unit waits after the store refused.
const stall = 10 * time.Second

// task is one step on one unit. The unit is busy, so that nobody else changes its records.
type task struct {
	*Room
	u       *unit
	g       Graph // nil when the connection is not configured any more
	step    Step
	want    *Want // nil when nobody wants it
	records []store.Subscription
	listing *listing
	notices []store.Lifecycle
}

// work does what is due on a unit, step by step.
func (r *Room) work(ctx context.Context, u *unit) {
	r.mu.Lock()
	u.queued, u.busy = false, true
	doubt := u.doubtSeq
	r.mu.Unlock()
	for range 4 {
		t := r.prepare(u)
		if t.step.Do == Keep || ctx.Err() != nil {
			break
		}
		if err := t.do(ctx); err != nil {
			r.report(err)
			r.mu.Lock()
			u.stalled = clock().Add(stall)
			r.mu.Unlock()
			break
		}
	}
	r.mu.Lock()
	u.busy = false
	again := len(u.notices) > 0 // which may have been answered
	if c := r.connections[u.key.connection]; c != nil {
		u.endedSeq = c.started
		if u.doubtSeq != doubt {
			c.distrust(u) // a list that was begun meanwhile is not compared with this unit, so it settles nothing
		}
		again = again || c.needsList(clock())
	}
	r.mu.Unlock()
	if again {
		r.Wake()
	}
}

// prepare decides anew, since time has passed in the queue.
func (r *Room) prepare(u *unit) task {
	now := clock()
	ready := r.public.ready(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view(u, ready, nil)
	t := task{Room: r, u: u, g: r.opts.Graphs[u.key.connection], records: v.records, want: u.want, listing: u.listing}
	t.notices = slices.Clone(u.notices)
	t.step = v.next(r.opts.Policy, now)
	return t
}

// do does the step. An error is one of the storage; Graph's are dealt with.
func (t task) do(ctx context.Context) error {
	sub := t.record(t.step.Sub)
	switch t.step.Do {
	case Create:
		return t.create(ctx)
	case Renew:
		return t.renew(ctx, sub)
	case Recreate:
		t.log.Warn().Uint32("feed", sub.Feed).Str("subscription", sub.ID).Time("expires_at", sub.ExpiresAt).Str("reason", t.step.Reason).
			Msg("subscription is gone")
		return t.bury(sub, t.step.Reason)
	case Remove:
		return t.remove(ctx, sub)
	case Adopt:
		sub.Feed = t.want.Feed
		if err := t.save(t.u, news{}, sub); err != nil {
			return err
		}
		t.opts.CatchUp(t.want.Feed, "subscription adopted")
	case Reconcile:
		return t.reconcile(ctx)
	}
	return nil
}

// record is the record with that id; nil when there is none.
func (t task) record(id string) *store.Subscription {
	for i := range t.records {
		if t.records[i].ID == id {
			return &t.records[i]
		}
	}
	return nil
}

// news is what is committed together with a record.
type news struct {
	count  string // counter; empty: none
	event  string // name of the event that tells it; empty: it is not told
	reason string
}

// save commits a record of a unit with its news.
func (r *Room) save(u *unit, n news, sub *store.Subscription) error {
	old, known := r.st.Subscription(sub.ID)
	var told []event.Event
	if n.event != "" {
		told = r.tell(sub, sub.Feed, n.event, n.reason)
	}
	err := r.st.Update(func(tx *store.Tx) error {
		if n.count != "" {
			tx.Count(n.count, 1)
		}
		for i := range told {
			if err := tx.AppendEvent(&told[i]); err != nil {
				return err
			}
		}
		return tx.PutSubscription(sub)
	})
	if err != nil {
		return fmt.Errorf("store subscription %s: %w", sub.ID, err)
	}
	if known {
		r.calendar.move(&old, sub)
		return nil
	}
	r.calendar.move(nil, sub)
	r.mu.Lock()
	defer r.mu.Unlock()
	u.subs = append(u.subs, sub.ID)
	return nil
}

// tell makes the events that say what happened to a subscription just now.
func (r *Room) tell(sub *store.Subscription, feed uint32, name, reason string) []event.Event {
	return r.opts.Tell(feed, name, clock(), event.SubscriptionData{
		Connection: sub.Connection, ID: sub.ID, ExpiresAt: sub.ExpiresAt, RenewAt: sub.RenewAt, Failures: sub.Failures, Reason: reason,
	})
}

// bury notes that a subscription is no more.
func (t task) bury(sub *store.Subscription, reason string) error {
	sub.RemovedAt, sub.LastError = clock(), reason
	if err := t.save(t.u, news{"subscriptions_removed", event.Removed, reason}, sub); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.u.reason, t.u.replace = reason, ""
	return nil
}

// remove deletes a subscription at Graph. One that is not there is as good as deleted.
func (t task) remove(ctx context.Context, sub *store.Subscription) error {
	log := t.log.With().Str("connection", sub.Connection).Uint32("feed", sub.Feed).Str("subscription", sub.ID).Str("reason", t.step.Reason).Logger()
	if t.g == nil {
		log.Warn().Msg("connection is not configured any more; subscription is left to expire")
		return t.bury(sub, t.step.Reason)
	}
	err := t.delete(ctx, sub.ID)
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		wait := t.postpone(err)
		log.Warn().Err(err).Dur("wait", wait).Msg("subscription not deleted")
		return nil
	}
	if err := t.bury(sub, t.step.Reason); err != nil {
		return err
	}
	log.Info().Msg("subscription deleted")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.u.failures, t.u.notBefore = 0, time.Time{}
	return nil
}

// delete deletes at Graph; nil when it is gone afterwards.
func (t task) delete(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, noAnswer("delete subscription"))
	defer cancel()
	if err := t.g.DeleteSubscription(ctx, id); err != nil && !errors.Is(err, graph.ErrNotFound) {
		return err
	}
	return nil
}

// postpone makes creations and removals of the unit wait after Graph refused, and says how long.
func (t task) postpone(err error) (wait time.Duration) {
	life := t.wish()
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.u
	u.failures++
	wait = t.opts.Policy.RetryIn(u.failures, refused(err), life, retryAfter(err), rand.Float64())
	u.notBefore, u.reason = clock().Add(wait), words(err)
	u.badURL = errors.Is(err, graph.ErrValidation)
	return wait
}

// retryRefusedURL lets creations that failed because Graph could not reach the public URL be tried at once: it answers
// again.
func (r *Room) retryRefusedURL() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.units {
		if u.badURL {
			u.notBefore, u.failures, u.badURL = time.Time{}, 0, false
		}
	}
}

// wish is the lifetime to be asked for.
func (t task) wish() time.Duration {
	name := t.u.key.connection
	life := t.opts.Lifetime(name)
	if life <= 0 {
		life = MaxLifetime - time.Hour
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.connections[name]; c != nil && c.cap > 0 {
		life = min(life, c.cap)
	}
	return life
}

// shorten learns that a wish was too long (S-8), and reports whether a shorter one is worth a try.
func (t task) shorten(wish time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.connections[t.u.key.connection]
	switch {
	case c == nil:
		return false
	case c.cap > 0 && c.cap < wish: // somebody else has learned it meanwhile
		return true
	case wish > olderMaxLifetime:
		c.cap = olderMaxLifetime
	case wish <= minLifetime:
		return false
	default:
		c.cap = max(wish/2, minLifetime)
	}
	t.log.Warn().Str("connection", t.u.key.connection).Dur("asked", wish).Dur("next", c.cap).Msg("graph does not grant that lifetime; asking for less")
	return true
}

// plan sets when a subscription granted by a request sent at a time is to be renewed.
func (t task) plan(sub *store.Subscription, sent time.Time) {
	from, to := t.opts.Policy.RenewWindow(sent, sub.ExpiresAt)
	sub.RenewAt = t.calendar.choose(sub.Connection, from, to).UTC()
}

func noAnswer(op string) error {
	return fmt.Errorf("%s: no answer in %v: %w", op, deadline, context.DeadlineExceeded)
}
