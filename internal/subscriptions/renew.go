package subscriptions

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// renew moves the expiry by one PATCH, which reauthorizes too (R-5, L-7); /reauthorize is never used, so that the two
// cannot meet. That it is sent is committed first: whoever comes after a crash knows when it was touched.
func (t task) renew(ctx context.Context, sub *store.Subscription) error {
	before := *sub
	sub.TouchedAt = clock()
	if err := t.save(t.u, news{}, sub); err != nil {
		return err
	}
	got, sent, err := t.patch(ctx, sub.ID)
	log := t.log.With().Str("connection", sub.Connection).Uint32("feed", sub.Feed).Str("subscription", sub.ID).Logger()
	switch {
	case err == nil:
		sub.ExpiresAt, sub.RenewedAt, sub.AuthorizedAt = got.ExpiresAt.UTC(), sent, t.answering(sent)
		sub.Failures, sub.LastError = 0, ""
		sub.Renewals = latest(sub.Renewals, sent)
		t.plan(sub, sent)
		name := event.Renewed
		if t.step.Reason == reauthorizationRequired {
			name = event.Reauthorized
		}
		if err := t.save(t.u, news{"renewals_ok", name, t.step.Reason}, sub); err != nil {
			return err
		}
		log.Info().Str("reason", t.step.Reason).Dur("left", before.ExpiresAt.Sub(sent)).Time("expires_at", sub.ExpiresAt).
			Time("renew_at", sub.RenewAt).Msg("subscription renewed")
		return nil
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, graph.ErrNotFound):
		log.Warn().Time("expires_at", sub.ExpiresAt).Msg("subscription is gone at graph; making a new one")
		return t.bury(sub, "Graph had removed it")
	case t.saidRemoved(sub) && (refused(err) || errors.Is(err, graph.ErrBadRequest)):
		log.Warn().Err(err).Msg("subscription was removed by graph; making a new one")
		return t.bury(sub, "Graph removed it: "+words(err))
	}
	now := clock()
	sub.Failures++
	sub.LastError = words(err)
	wait := t.opts.Policy.RetryIn(sub.Failures, refused(err), lifetime(sub), retryAfter(err), rand.Float64())
	sub.RenewAt = now.Add(wait)
	log.Warn().Err(err).Int("attempt", sub.Failures).Dur("wait", wait).Dur("left", sub.ExpiresAt.Sub(now)).Msg("renewal failed; trying again")
	n := news{"renewals_failed", "", sub.LastError}
	if sub.Failures&(sub.Failures-1) == 0 { // the first, second, fourth, eighth...: what goes on for days is not told every minute
		n.event = event.RenewalFailed
	}
	return t.save(t.u, n, sub)
}

// keptRenewals is how many renewals of a subscription are remembered.
const keptRenewals = 20

// latest adds a time to the latest ones. The list it is given may be shared and stays as it is.
func latest(times []time.Time, t time.Time) []time.Time {
	return append(slices.Clone(times[max(0, len(times)+1-keptRenewals):]), t)
}

// patch sends the request, with a shorter lifetime where Graph wants that.
func (t task) patch(ctx context.Context, id string) (got graph.Subscription, sent time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, noAnswer("renew subscription"))
	defer cancel()
	for {
		wish := t.wish()
		sent = clock()
		got, err = t.g.RenewSubscription(ctx, id, sent.Add(wish))
		if errors.Is(err, graph.ErrExpiryTooFar) && t.shorten(wish) {
			continue
		}
		if err == nil && got.ExpiresAt.IsZero() {
			err = errors.New("renew subscription: the answer lacks the expiry")
		}
		if err == nil {
			t.noticeGrant(id, wish, got.ExpiresAt.Sub(sent))
		}
		return got, sent, err
	}
}

// answering is when the authorization counts from: later than every notice that was known when the request was sent,
// however coarse the clock is.
func (t task) answering(sent time.Time) time.Time {
	for _, n := range t.notices {
		if !sent.After(n.At) {
			sent = n.At.Add(1)
		}
	}
	return sent
}

// saidRemoved reports whether a lifecycle notification waits that says that Graph removed it.
func (t task) saidRemoved(sub *store.Subscription) bool {
	for _, n := range t.notices {
		if n.Subscription == sub.ID && n.Event == subscriptionRemoved {
			return true
		}
	}
	return false
}
