package subscriptions

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// breather is how long a unit rests after a creation, whatever happens to what was created.
const breather = 10 * time.Second

// newClientState makes a secret of 43 characters (S-12).
func newClientState() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// create makes a subscription and asks for a delta round, because what happened before it became live is not
// announced (N-22).
func (t task) create(ctx context.Context) error {
	secret := newClientState()
	hash := sha256.Sum256([]byte(secret))
	forget := t.st.Expect(hash, t.want.Feed) // notifications may come before the answer (W-18)
	defer forget()
	got, sent, err := t.post(ctx, secret)
	if err != nil {
		t.notCreated(ctx, err)
		return nil
	}
	sub := &store.Subscription{
		ID: got.ID, Feed: t.want.Feed, Connection: t.want.Connection, Resource: t.want.Resource, StateHash: hash,
		CreatedAt: sent, AuthorizedAt: sent, ExpiresAt: got.ExpiresAt.UTC(),
	}
	t.plan(sub, sent)
	if err := t.save(t.u, news{"subscriptions_created", event.SubscriptionCreated, ""}, sub); err != nil {
		t.disown(ctx, sub.ID)
		return err
	}
	t.mu.Lock()
	lost := t.u.lost
	t.u.failures, t.u.reason, t.u.badURL, t.u.lost = 0, "", false, false
	t.u.notBefore = clock().Add(breather)
	t.mu.Unlock()
	t.log.Info().Str("connection", sub.Connection).Uint32("feed", sub.Feed).Str("subscription", sub.ID).
		Time("expires_at", sub.ExpiresAt).Time("renew_at", sub.RenewAt).Msg("subscription created")
	if !sub.Live(clock()) {
		t.log.Error().Str("subscription", sub.ID).Time("expires_at", sub.ExpiresAt).Msg("subscription was granted until a time that is past already: the clock of this machine is wrong")
	}
	t.closeGap(sent, lost)
	return nil
}

// post sends the request, with a shorter lifetime where Graph wants that. sent is when the last one was sent: the
// lease counts from then.
func (t task) post(ctx context.Context, secret string) (got graph.Subscription, sent time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, noAnswer("create subscription"))
	defer cancel()
	for {
		wish := t.wish()
		sent = clock()
		got, err = t.g.CreateSubscription(ctx, t.want.Mailbox, graph.Subscription{
			Resource: t.want.Resource, ChangeType: t.opts.ChangeTypes, ClientState: secret,
			NotificationURL: t.notificationURL, LifecycleURL: t.lifecycleURL,
			ExpiresAt: sent.Add(wish),
		})
		if errors.Is(err, graph.ErrExpiryTooFar) && t.shorten(wish) {
			continue
		}
		if err == nil && (got.ID == "" || got.ExpiresAt.IsZero()) {
			err = errors.New("create subscription: the answer lacks id or expiry")
		}
		if err == nil {
			t.noticeGrant(got.ID, wish, got.ExpiresAt.Sub(sent))
		}
		return got, sent, err
	}
}

// noticeGrant logs that Graph granted another lifetime than was asked for (S-9, S-6).
func (r *Room) noticeGrant(id string, asked, granted time.Duration) {
	if off := asked - granted; off > time.Minute || off < -time.Minute {
		r.log.Warn().Str("subscription", id).Dur("asked", asked).Dur("granted", granted).Msg("graph granted another lifetime than was asked for; renewals follow it")
	}
}

// notCreated plans the next attempt. Where Graph may have one that nothing is known of, a list has to be seen first.
func (t task) notCreated(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the next start lists
	}
	conflict := errors.Is(err, graph.ErrConflict)
	if conflict || !definite(err) {
		t.mu.Lock()
		t.connections[t.u.key.connection].distrust(t.u)
		t.mu.Unlock()
	}
	wait := t.postpone(err)
	t.mu.Lock()
	attempt := t.u.failures
	t.mu.Unlock()
	t.log.Warn().Err(err).Str("connection", t.want.Connection).Uint32("feed", t.want.Feed).Int("attempt", attempt).Dur("wait", wait).
		Msg("subscription not created; polling meanwhile")
}

// disown deletes what was just created and could not be recorded; when that fails too, a list will find it.
func (t task) disown(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), 10*time.Second, noAnswer("delete subscription"))
	defer cancel()
	if err := t.g.DeleteSubscription(ctx, id); err != nil {
		t.log.Warn().Err(err).Str("subscription", id).Msg("subscription that could not be recorded not deleted; the next list finds it")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connections[t.u.key.connection].distrust(t.u)
}

// closeGap asks for what finds the changes that no subscription announced.
func (t task) closeGap(now time.Time, lost bool) {
	var last time.Time // when push ended
	for _, sub := range t.records {
		end := sub.ExpiresAt
		if !sub.RemovedAt.IsZero() && sub.RemovedAt.Before(end) {
			end = sub.RemovedAt
		}
		if end.After(last) {
			last = end
		}
	}
	switch {
	case lost:
		t.opts.TrueUp(t.want.Feed, "subscription created in place of one that nothing was known of")
	case !last.IsZero() && now.Sub(last) >= longGap:
		t.opts.TrueUp(t.want.Feed, fmt.Sprintf("subscription created after %v without one", now.Sub(last).Round(time.Minute)))
	default:
		t.opts.CatchUp(t.want.Feed, "subscription created")
	}
}
