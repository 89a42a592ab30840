package subscriptions

import (
	"time"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

const (
	grace        = 15 * time.Second // how long a feed is unwanted before its subscription is deleted
	replaceEvery = 15 * time.Minute // between replacements of a silent subscription
	settleFor    = 10 * time.Minute // how long Graph's list may not show a new subscription yet
)

// unitKey names what has at most one subscription: a resource on a connection.
type unitKey struct {
	connection string
	resource   string // normalized
}

// unit is a resource with everything that is wanted of it and known about it. One goroutine at a time works on it
// (busy), so that operations on one subscription never overlap. Guarded by Room.mu.
type unit struct {
	key  unitKey
	want *Want    // nil: not wanted any more
	subs []string // ids of its records, removed ones among them

	queued, busy bool
	endedSeq     int // of the connection's list that had been begun when work last ended

	wantedAt   time.Time // since when it is wanted
	unwantedAt time.Time // since when nobody wants it
	notBefore  time.Time // creations and removals wait for that, because Graph refused
	stalled    time.Time // everything waits for that, because the store refused
	failures   int       // of creations and removals in a row
	reason     string    // why there is no subscription, in words
	badURL     bool      // the last creation failed because Graph could not validate the public URL
	doubtSeq   int       // a list begun after the connection's doubtSeq-th must be seen before anything is created
	listing    *listing  // what Graph has, not yet compared
	lost       bool      // Graph had one that nothing is known of: state was lost

	resumedAt time.Time // when the connection was last usable again after a pause

	replace    string    // why the living one is to be replaced; empty when it is not
	replacedAt time.Time // when that was last asked for

	notices    []store.Lifecycle // not done, in order
	caughtUpAt time.Time         // when a lifecycle notification last led to a delta round
}

// listing is what Graph's list has for one unit.
type listing struct {
	found   []graph.Subscription
	at      time.Time // when the list was asked for
	retryAt time.Time // when a deletion that failed is tried again
}

// view is all that the next step of a unit depends on.
type view struct {
	*unit
	records   []store.Subscription
	mayCreate bool
	noPush    bool // no public URL: whatever is ours is removed at once
	paused    bool // the connection waits for a person: nothing is asked of Graph
}

// next decides what is to be done with a unit.
func (v view) next(p Policy, now time.Time) Step {
	step := v.decide(p, now)
	switch step.Do {
	case Create, Renew, Remove, Reconcile:
		if v.paused {
			return Step{Do: Keep, Sub: step.Sub, Reason: "the connection waits for a person"}
		}
	}
	return step
}

func (v view) decide(p Policy, now time.Time) Step {
	if now.Before(v.stalled) {
		return Step{Do: Keep, At: v.stalled, Reason: "the state could not be stored"}
	}
	waits := now.Before(v.notBefore)
	if v.listing != nil && !now.Before(v.listing.retryAt) {
		return Step{Do: Reconcile, Reason: "Graph's list is to be compared"}
	}
	sub, oldest := alive(v.records)
	if v.want == nil {
		return v.leave(sub, waits, now)
	}
	if sub == nil {
		if waits || !v.mayCreate || v.listing != nil {
			return Step{Do: Keep, At: v.notBefore, Reason: "a creation has to wait"}
		}
		return p.Next(nil, now)
	}
	if sub != oldest && !waits {
		return Step{Do: Remove, Sub: oldest.ID, Reason: "there is a newer one"}
	}
	if v.replace != "" && !waits {
		return Step{Do: Remove, Sub: sub.ID, Reason: v.replace}
	}
	if sub.Feed != v.want.Feed {
		return Step{Do: Adopt, Sub: sub.ID, Reason: "it serves another feed now"}
	}
	step := p.Next(sub, now)
	if step.Do == Keep && sub.AuthorizedAt.Before(v.resumedAt) && sub.TouchedAt.Before(v.resumedAt) {
		// The token that authorized it is dead, or Graph has removed it (L-13): one PATCH mends or tells.
		step = Step{Do: Renew, Sub: sub.ID, Reason: "the connection is usable again"}
	}
	for _, n := range v.notices {
		if step.Do == Keep && n.Subscription == sub.ID {
			step = p.Heed(sub, n.Event, n.At, now)
		}
	}
	return step
}

// leave decides about a unit that nobody wants.
func (v view) leave(sub *store.Subscription, waits bool, now time.Time) Step {
	if sub == nil {
		return Step{Do: Keep, Reason: "nothing is wanted"}
	}
	if !sub.Live(now) {
		return Step{Do: Recreate, Sub: sub.ID, Reason: "it expired"}
	}
	if waits || !v.noPush && now.Before(v.unwantedAt.Add(grace)) {
		return Step{Do: Keep, Reason: "not wanted any more; removed soon"}
	}
	return Step{Do: Remove, Sub: sub.ID, Reason: "not wanted any more"}
}

// alive returns the newest and the oldest of the records that are not marked as removed, expired ones among them; nil
// when there is none.
func alive(records []store.Subscription) (newest, oldest *store.Subscription) {
	for i := range records {
		sub := &records[i]
		if !sub.RemovedAt.IsZero() {
			continue
		}
		if newest == nil || sub.CreatedAt.After(newest.CreatedAt) {
			newest = sub
		}
		if oldest == nil || !sub.CreatedAt.After(oldest.CreatedAt) && sub != newest {
			oldest = sub
		}
	}
	return newest, oldest
}

// connection is what is known of a connection as a whole. Guarded by Room.mu.
type connection struct {
	listing   bool      // a list is under way
	started   int       // lists begun
	done      int       // number of the latest one that was answered
	doubt     int       // a list begun after that many is needed
	failures  int       // of lists in a row
	refused   bool      // the last list was answered with a refusal
	notBefore time.Time // for the next list
	listedAt  time.Time
	cap       time.Duration // the longest lifetime Graph is known to grant; 0 while nothing is known (S-8)
}

const (
	listEvery    = 24 * time.Hour // a subscription can vanish without a word (L-18), and nobody else looks for strangers
	listAttempts = 3              // so often may a list fail until things go on without it
)

// needsList reports whether Graph is to be asked what it has.
func (c *connection) needsList(now time.Time) bool {
	if c.listing || now.Before(c.notBefore) {
		return false
	}
	return c.done <= c.doubt || now.Sub(c.listedAt) >= listEvery || now.Before(c.listedAt)
}

// settled reports whether what Graph has of a unit is known well enough to create. After a lost answer there may be a
// subscription that nothing is known of, and the 409 that should tell is not reliable (S-43): a list must be seen. At
// the start things go on without one after some attempts.
func (c *connection) settled(u *unit) bool {
	return c.done > u.doubtSeq || c.refused || c.failures >= listAttempts && u.doubtSeq == 0
}

// distrust asks for a list before anything is created for a unit again.
func (c *connection) distrust(u *unit) {
	u.doubtSeq = c.started
	c.doubt = max(c.doubt, c.started)
}
