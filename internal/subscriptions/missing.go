package subscriptions

import (
	"cmp"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

// missingAfter is how long a feed may be without a subscription until somebody should know: Graph has been asked more than
// once by then.
const missingAfter = 10 * time.Minute

// Missing is a feed that wants a subscription and has none.
type Missing struct {
	Feed   uint32
	Since  time.Time
	Reason string // in words
}

// Missing lists the feeds that have wanted a subscription for ten minutes and have none, by number. One whose subscription
// lapsed is there at once: by then its renewals have failed for days.
func (r *Room) Missing() (out []Missing) {
	now := clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for feed, u := range r.byFeed {
		if last, bare := r.last(u); bare {
			since, lapsed := last.RemovedAt, !last.RemovedAt.IsZero() && !last.RemovedAt.Before(last.ExpiresAt)
			if since.Before(u.wantedAt) && !lapsed {
				since = u.wantedAt
			}
			if lapsed || !within(since, missingAfter, now) {
				out = append(out, Missing{feed, since, cmp.Or(u.reason, "none was made yet")})
			}
		}
	}
	slices.SortFunc(out, func(a, b Missing) int { return cmp.Compare(a.Feed, b.Feed) })
	return out
}

// last is the subscription of a unit that was removed last, zero if there was none; bare is false while one is in the books
// that was not. Room.mu is held.
func (r *Room) last(u *unit) (last store.Subscription, bare bool) {
	for _, id := range u.subs {
		sub, ok := r.st.Subscription(id)
		switch {
		case !ok:
		case sub.RemovedAt.IsZero():
			return sub, false
		case sub.RemovedAt.After(last.RemovedAt):
			last = sub
		}
	}
	return last, true
}
