package subscriptions

import (
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

// Action is what is to be done with a subscription.
type Action string

// The actions.
const (
	Keep      Action = "keep"      // nothing before Step.At
	Create    Action = "create"    // POST a new one
	Renew     Action = "renew"     // PATCH its expiry, which reauthorizes it too
	Recreate  Action = "recreate"  // it is gone at Graph: remember it as removed and create a new one
	Remove    Action = "remove"    // DELETE it at Graph, and remember it as removed
	Adopt     Action = "adopt"     // note that it serves another feed now
	Reconcile Action = "reconcile" // compare what Graph listed with what is stored
	Forget    Action = "forget"    // drop the record: notices about it are no longer to be expected
)

// Step is a decision.
type Step struct {
	Do     Action
	Sub    string    // id of the subscription it is about; empty for Create
	At     time.Time // for Keep: when something will have to be done, as far as is known
	Reason string    // in words
}

// Policy decides when a subscription is renewed, replaced and forgotten. Its methods are pure.
type Policy struct {
	RenewFrom, RenewTo float64       // the renewal falls between these shares of the granted lifetime
	Emergency          float64       // below this share of life left, waits no longer count
	Quiet              time.Duration // between a PATCH and an answer to reauthorizationRequired
	Check              time.Duration // between a PATCH and one that checks whether Graph has really removed a subscription
	Remember           time.Duration // how long a removed subscription is kept for late notices (L-14)
}

// DefaultPolicy is the one for production.
var DefaultPolicy = Policy{
	RenewFrom: 0.50, RenewTo: 0.66,
	Emergency: 0.10,
	Quiet:     10 * time.Minute,
	Check:     time.Minute,
	Remember:  30 * 24 * time.Hour,
}

// Next decides about one subscription by its record; nil means that there is none.
func (p Policy) Next(sub *store.Subscription, now time.Time) Step {
	switch {
	case sub == nil:
		return Step{Do: Create, Reason: "there is none"}
	case !sub.RemovedAt.IsZero():
		forgetAt := sub.RemovedAt.Add(p.Remember)
		if now.Before(forgetAt) {
			return Step{Do: Keep, Sub: sub.ID, At: forgetAt, Reason: "removed; kept for late notices"}
		}
		return Step{Do: Forget, Sub: sub.ID, Reason: "removed long ago"}
	case !now.Before(sub.ExpiresAt):
		return Step{Do: Recreate, Sub: sub.ID, Reason: "it expired"} // nobody says farewell
	}
	due, reason := sub.RenewAt, "renewal is due"
	left := sub.ExpiresAt.Sub(now)
	if life := lifetime(sub); left < time.Duration(p.Emergency*float64(life)) {
		hurry := since(sub.TouchedAt, 2*unitOf(life))
		if now.Before(sub.TouchedAt) { // the clock was set back
			hurry = now
		}
		if hurry.Before(due) {
			due, reason = hurry, "it is about to expire"
		}
	}
	if now.Before(due) {
		return Step{Do: Keep, Sub: sub.ID, At: due, Reason: "not due"}
	}
	return Step{Do: Renew, Sub: sub.ID, Reason: reason}
}

// Heed decides what a lifecycle notification accepted at a time asks of a living subscription. A PATCH that was sent
// later answers both kinds: it reauthorizes, and it tells whether the subscription is still there.
func (p Policy) Heed(sub *store.Subscription, event string, at, now time.Time) Step {
	pause := p.Quiet
	switch event {
	case reauthorizationRequired:
	case subscriptionRemoved:
		pause = p.Check // whoever forges the notice must not make us lose the living one
	default:
		return Step{Do: Keep, Sub: sub.ID, Reason: "nothing to be done to the subscription"}
	}
	if answered(sub, at) {
		return Step{Do: Keep, Sub: sub.ID, Reason: "answered"}
	}
	due := since(sub.TouchedAt, pause)
	if sub.Failures > 0 { // the renewal is being retried already
		due = sub.RenewAt
	}
	if now.Before(due) && !now.Before(sub.TouchedAt) {
		return Step{Do: Keep, Sub: sub.ID, At: due, Reason: "touched a moment ago"}
	}
	return Step{Do: Renew, Sub: sub.ID, Reason: event}
}

// answered reports whether a PATCH or POST that succeeded was sent after a notice had come.
func answered(sub *store.Subscription, at time.Time) bool { return sub.AuthorizedAt.After(at) }

// RenewWindow is when a subscription is to be renewed that was granted until expires by a request sent at sent.
func (p Policy) RenewWindow(sent, expires time.Time) (from, to time.Time) {
	life := float64(expires.Sub(sent))
	return sent.Add(time.Duration(p.RenewFrom * life)), sent.Add(time.Duration(p.RenewTo * life))
}

var (
	retries  = []time.Duration{1, 2, 5, 10, 20, 30} // units
	refusals = []time.Duration{5, 15, 30, 60}       // units, for what waiting a minute will not change
)

// RetryIn is how long to wait after the nth failure in a row (from 1) of something with that lifetime: full jitter
// under a rising bound, random being in [0,1), and never less than Graph asked for.
func (p Policy) RetryIn(n int, refused bool, life, retryAfter time.Duration, random float64) time.Duration {
	table := retries
	if refused {
		table = refusals
	}
	bound := table[min(max(n, 1), len(table))-1] * unitOf(life)
	return max(time.Duration(random*float64(bound)), retryAfter, time.Second)
}

// unitOf is the unit of waits: a minute, and less where a lifetime is shorter than 500 of them.
func unitOf(life time.Duration) time.Duration {
	return min(max(life/500, time.Second), time.Minute)
}

// lifetime is what was granted, counted from when the request was sent.
func lifetime(sub *store.Subscription) time.Duration {
	start := sub.CreatedAt
	if sub.RenewedAt.After(start) {
		start = sub.RenewedAt
	}
	return sub.ExpiresAt.Sub(start)
}

// since is t plus d, or the zero time when t is zero.
func since(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}
