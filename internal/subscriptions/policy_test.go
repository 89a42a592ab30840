package subscriptions

import (
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

var t0 = time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)

// week is a subscription granted for 7 days at t0, to be renewed after four.
func week(change func(*store.Subscription)) *store.Subscription {
	s := &store.Subscription{ID: "s", CreatedAt: t0, AuthorizedAt: t0, ExpiresAt: t0.Add(7 * 24 * time.Hour), RenewAt: t0.Add(4 * 24 * time.Hour)}
	if change != nil {
		change(s)
	}
	return s
}

func TestPolicyNext(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name string
		sub  *store.Subscription
		now  time.Duration // after t0
		want Action
	}{
		{"none is created", nil, 0, Create},
		{"a fresh one is kept", week(nil), 0, Keep},
		{"one is kept until its renewal is due", week(nil), 4*day - time.Second, Keep},
		{"one is renewed when that is due", week(nil), 4 * day, Renew},
		{"one is renewed when that is long due, after a sleep", week(nil), 6 * day, Renew},
		{"one that expires this moment is gone", week(nil), 7 * day, Recreate},
		{"one that expired while the machine slept is gone", week(nil), 8 * day, Recreate},
		{"a failed renewal waits", week(func(s *store.Subscription) {
			s.Failures, s.TouchedAt, s.RenewAt = 3, t0.Add(5*day), t0.Add(5*day+20*time.Minute)
		}), 5*day + 10*time.Minute, Keep},
		{"shortly before the end waits no longer count", week(func(s *store.Subscription) {
			s.Failures, s.TouchedAt, s.RenewAt = 9, t0.Add(6*day+12*time.Hour), t0.Add(6*day+13*time.Hour)
		}), 6*day + 12*time.Hour + 2*time.Minute, Renew},
		{"even then there is a pause between attempts", week(func(s *store.Subscription) {
			s.Failures, s.TouchedAt, s.RenewAt = 9, t0.Add(6*day+12*time.Hour), t0.Add(6*day+13*time.Hour)
		}), 6*day + 12*time.Hour + time.Minute, Keep},
		{"a renewal planned too late is done near the end", week(func(s *store.Subscription) { s.RenewAt = t0.Add(9 * day) }), 6*day + 12*time.Hour, Renew},
		{"a clock set back does not make an emergency wait", week(func(s *store.Subscription) {
			s.TouchedAt, s.RenewAt = t0.Add(20*day), t0.Add(20*day)
		}), 6*day + 12*time.Hour, Renew},
		{"a clock set back makes nothing due", week(nil), -day, Keep},
		{"a removed one is remembered", week(func(s *store.Subscription) { s.RemovedAt = t0 }), 29 * day, Keep},
		{"a removed one is forgotten after a month", week(func(s *store.Subscription) { s.RemovedAt = t0 }), 30 * day, Forget},
		{"the lease counts from the renewal", week(func(s *store.Subscription) {
			s.RenewedAt, s.ExpiresAt, s.RenewAt = t0.Add(4*day), t0.Add(11*day), t0.Add(8*day)
		}), 7*day + 12*time.Hour, Keep},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := t0.Add(tt.now)
			got := DefaultPolicy.Next(tt.sub, now)
			if got.Do != tt.want {
				t.Fatalf("Next(%v after creation) = %s (%s), want %s", tt.now, got.Do, got.Reason, tt.want)
			}
			if got.Do == Keep && !got.At.After(now) {
				t.Errorf("Keep until %v, which is not after %v", got.At, now)
			}
			if got.Reason == "" {
				t.Error("no reason given")
			}
		})
	}
}

func TestPolicyHeed(t *testing.T) {
	notice := t0.Add(time.Hour)
	tests := []struct {
		name  string
		event string
		sub   *store.Subscription
		now   time.Duration // after the notice
		want  Action
	}{
		{"reauthorization is one renewal", reauthorizationRequired, week(nil), 0, Renew},
		{"not within ten minutes of another touch", reauthorizationRequired, week(func(s *store.Subscription) { s.TouchedAt = notice.Add(-time.Minute) }), 8 * time.Minute, Keep},
		{"after ten minutes of another touch", reauthorizationRequired, week(func(s *store.Subscription) { s.TouchedAt = notice.Add(-time.Minute) }), 9 * time.Minute, Renew},
		{"a touch in the future was a clock set back", reauthorizationRequired, week(func(s *store.Subscription) { s.TouchedAt = notice.Add(time.Hour) }), 0, Renew},
		{"a renewal sent later has answered", reauthorizationRequired, week(func(s *store.Subscription) { s.AuthorizedAt = notice.Add(time.Second) }), time.Hour, Keep},
		{"a failed renewal is tried again when planned", reauthorizationRequired, week(func(s *store.Subscription) {
			s.Failures, s.TouchedAt, s.RenewAt = 1, notice, notice.Add(30*time.Minute)
		}), 20 * time.Minute, Keep},
		{"a failed renewal is tried again then", reauthorizationRequired, week(func(s *store.Subscription) {
			s.Failures, s.TouchedAt, s.RenewAt = 1, notice, notice.Add(30*time.Minute)
		}), 30 * time.Minute, Renew},
		{"removal is checked by a renewal", subscriptionRemoved, week(nil), 0, Renew},
		{"removal is checked once a minute", subscriptionRemoved, week(func(s *store.Subscription) { s.TouchedAt = notice }), 59 * time.Second, Keep},
		{"missed does not touch it", missed, week(nil), 0, Keep},
		{"the unknown does not touch it", "somethingNew", week(nil), 0, Keep},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := DefaultPolicy.Heed(tt.sub, tt.event, notice, notice.Add(tt.now)); got.Do != tt.want {
				t.Errorf("Heed(%s, %v later) = %s (%s), want %s", tt.event, tt.now, got.Do, got.Reason, tt.want)
			}
		})
	}
}

func TestRetryIn(t *testing.T) {
	const life = 7 * 24 * time.Hour
	tests := []struct {
		name       string
		n          int
		refused    bool
		life       time.Duration
		retryAfter time.Duration
		random     float64
		want       time.Duration
	}{
		{"first", 1, false, life, 0, 0.5, 30 * time.Second},
		{"second", 2, false, life, 0, 0.5, time.Minute},
		{"fourth", 4, false, life, 0, 0.5, 5 * time.Minute},
		{"hundredth", 100, false, life, 0, 0.999, 30*time.Minute - 1800*time.Millisecond},
		{"never none", 1, false, life, 0, 0, time.Second},
		{"Retry-After is honoured", 1, false, life, 20 * time.Minute, 0.5, 20 * time.Minute},
		{"a short Retry-After does not shorten", 3, false, life, time.Second, 0.5, 150 * time.Second},
		{"a refusal waits longer", 1, true, life, 0, 0.5, 150 * time.Second},
		{"a refusal waits an hour at the most", 50, true, life, 0, 0.5, 30 * time.Minute},
		{"short lifetimes have short waits", 3, false, 45 * time.Minute, 0, 0.5, 13500 * time.Millisecond},
		{"a lifetime of nothing does not divide", 1, false, 0, 0, 0.5, time.Second},
		{"counting from nothing", 0, false, life, 0, 0.5, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := DefaultPolicy.RetryIn(tt.n, tt.refused, tt.life, tt.retryAfter, tt.random); got != tt.want {
				t.Errorf("RetryIn = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRetriesFitIntoWhatIsLeft(t *testing.T) {
	for _, life := range []time.Duration{45 * time.Minute, 24 * time.Hour, 4200 * time.Minute, 7 * 24 * time.Hour} {
		_, latest := DefaultPolicy.RenewWindow(t0, t0.Add(life))
		left := t0.Add(life).Sub(latest)
		n := 0
		for at := time.Duration(0); at < left; n++ {
			at += DefaultPolicy.RetryIn(n+1, false, life, 0, 0.999)
		}
		if n < 8 {
			t.Errorf("a lifetime of %v leaves room for %d attempts, want 8 or more", life, n)
		}
	}
}

func TestRenewWindow(t *testing.T) {
	from, to := DefaultPolicy.RenewWindow(t0, t0.Add(100*time.Hour))
	if from != t0.Add(50*time.Hour) || to != t0.Add(66*time.Hour) {
		t.Errorf("window %v to %v after the request", from.Sub(t0), to.Sub(t0))
	}
}
