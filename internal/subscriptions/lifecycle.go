package subscriptions

import (
	"fmt"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// catchUpEvery bounds how often lifecycle notifications, forged ones among them, cause a delta round of a feed.
const catchUpEvery = time.Minute

// settleLifecycle hands lifecycle notifications to the units that they are about, and forgets those whose consequences
// are there. They stay in the store until then, so that a crash repeats what may not have happened; doing it twice
// does no harm (L-17).
func (r *Room) settleLifecycle(now time.Time) {
	var open []store.Lifecycle
	err := r.st.View(func(tx *store.Tx) (err error) {
		open, err = tx.Lifecycles()
		return err
	})
	if err != nil {
		r.report(fmt.Errorf("read lifecycle notifications: %w", err))
	}
	done, told := r.heed(open, now)
	if len(done) == 0 {
		return
	}
	err = r.st.Update(func(tx *store.Tx) error {
		for i := range told {
			if err := tx.AppendEvent(&told[i]); err != nil {
				return err
			}
		}
		for _, seq := range done {
			if err := tx.DoneLifecycle(seq); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.report(fmt.Errorf("forget lifecycle notifications: %w", err))
	}
}

// ask is a delta round to be asked for.
type ask struct {
	feed   uint32
	reason string
}

// heed returns the notifications that are done with, after it has asked for the delta rounds that they call for, and
// the events that tell of missed notifications.
func (r *Room) heed(open []store.Lifecycle, now time.Time) (done []uint64, told []event.Event) {
	var asks []ask
	lost := map[int]store.Subscription{} // asks because of missed notifications
	r.mu.Lock()
	for _, u := range r.units {
		u.notices = nil
	}
	asked := map[*unit]bool{}
	for _, n := range open {
		n.Event = canonical(n.Event)
		sub, known := r.st.Subscription(n.Subscription)
		u := r.units[unitKey{sub.Connection, normalize(sub.Resource)}]
		if !known || u == nil || u.want == nil {
			r.log.Info().Str("subscription", n.Subscription).Str("event", n.Event).Msg("lifecycle notification for a subscription that nobody needs any more")
			done = append(done, n.Seq)
			continue
		}
		settled, reason := consequence(&sub, n)
		switch {
		case !settled:
			u.notices = append(u.notices, n)
		case reason == "":
			done = append(done, n.Seq)
		case asked[u]: // one round serves all that came before it
			done = append(done, n.Seq)
		case !within(u.caughtUpAt, catchUpEvery, now):
			r.log.Warn().Uint32("feed", u.want.Feed).Str("subscription", n.Subscription).Str("event", n.Event).Msg("lifecycle notification; looking for changes")
			asked[u], u.caughtUpAt = true, now
			if n.Event == missed {
				lost[len(asks)] = sub
			}
			asks = append(asks, ask{u.want.Feed, reason})
			done = append(done, n.Seq)
		}
	}
	r.mu.Unlock()
	for i, a := range asks {
		r.opts.CatchUp(a.feed, a.reason)
		if sub, ok := lost[i]; ok {
			told = append(told, r.tell(&sub, a.feed, event.Missed, a.reason)...)
		}
	}
	return done, told
}

// consequence reports whether what a notification asks of the subscription has been done, and why a delta round is
// due after that; empty means that none is.
func consequence(sub *store.Subscription, n store.Lifecycle) (settled bool, reason string) {
	gone := !sub.RemovedAt.IsZero()
	switch n.Event {
	case reauthorizationRequired:
		if gone {
			return true, ""
		}
		return answered(sub, n.At), "reauthorized" // L-10
	case subscriptionRemoved:
		if gone {
			return true, "" // the creation that follows asks for a round (L-12)
		}
		return answered(sub, n.At), "said to be removed, but alive"
	case missed:
		return true, "notifications were missed" // L-14
	}
	return true, "unknown lifecycle event" // L-3
}

// canonical gives a known event its usual spelling, and bounds another one.
func canonical(event string) string {
	for _, known := range []string{reauthorizationRequired, subscriptionRemoved, missed} {
		if strings.EqualFold(event, known) {
			return known
		}
	}
	return event[:min(len(event), 40)]
}
