package connections

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/auth"
	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

const (
	// lookTimeout bounds one look: the login endpoint has half a minute for an answer, and perhaps two to give.
	lookTimeout = 90 * time.Second
	// expiresSoon is when a credential's end begins to be a warning.
	expiresSoon = 30 * 24 * time.Hour
	// retell is how often the log repeats that a person is needed.
	retell = 6 * time.Hour
)

// Status is what is known of a connection.
type Status struct {
	Name, Cloud, Auth   string
	State               State
	Reason, Remedy      string
	Since               time.Time // of the state
	Paused              bool      // nothing is asked of Graph until somebody has acted
	User                string    // who signed in; for the operator's eyes
	TenantID            string
	Missing             []string // permissions that are needed and not granted
	SignedInAt          time.Time
	RefreshedAt         time.Time
	CredentialExpiresAt time.Time // of a certificate; zero: not known
}

// keeper looks after one connection.
type keeper struct {
	room   *Room
	conf   config.Connection
	needs  config.Needs
	source Source
	user   *auth.User // nil: app-only
	wake   chan struct{}
	log    zerolog.Logger
	paused atomic.Pointer[string]

	look   sync.Mutex // one look at a time
	mu     sync.Mutex // guards what follows
	now    verdict
	since  time.Time
	toldAt time.Time // when the log last said that a person is needed
	warned time.Time // for which expiry of the credential the log has warned
}

// poke makes the keeper look at once. It never blocks.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run looks every Options.Every, and when poked, until ctx is done.
func (k *keeper) run(ctx context.Context) error {
	tick := time.NewTicker(k.room.opts.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := k.settle(ctx); err != nil && ctx.Err() == nil {
			k.log.Error().Err(err).Msg("state of the connection not stored; the next look tries again")
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-k.wake:
		}
	}
	return nil
}

// settle finds out how the connection is, and makes it known where that has changed. An error is one of the storage.
func (k *keeper) settle(ctx context.Context) error {
	k.look.Lock()
	defer k.look.Unlock()
	rec, _ := k.room.st.Connection(k.conf.Name)
	asked, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := k.ask(asked, &rec)
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		if e, ok := errors.AsType[*auth.Error](k.source.State()); ok {
			err = e
		}
	}
	var missing []string
	if k.user != nil {
		missing = k.user.Missing()
		rec, _ = k.room.st.Connection(k.conf.Name) // a refresh may have changed it
	}
	v := judge(k.conf.Name, k.user != nil, len(rec.Sealed) > 0, err, missing)
	if _, live := errors.AsType[*auth.Error](k.source.State()); err == nil && live {
		// A token still lives although the last sign-in failed: what is to come is said early.
		if early := judge(k.conf.Name, k.user != nil, true, k.source.State(), missing); early.person() {
			v = early
		}
	}
	k.warnExpiry()
	k.mu.Lock()
	if k.now.person() && !v.person() && v.state != OK {
		v = k.now // an endpoint that is away for a while does not spare the person, who would be told twice
	}
	k.mu.Unlock()
	return k.become(v, err != nil && v.person(), &rec)
}

// ask gets a token, and keeps a delegated grant alive.
func (k *keeper) ask(ctx context.Context, rec *store.Connection) error {
	if _, err := k.source.Token(ctx); err != nil {
		return err
	}
	if k.user == nil || time.Since(rec.RefreshedAt) < k.refreshEvery() {
		return nil
	}
	return k.user.Refresh(ctx)
}

// refreshEvery is between 18 and 22 hours, the same for a connection always: a grant that is used daily never dies of
// idleness (90 days), and many connections do not refresh together.
func (k *keeper) refreshEvery() time.Duration {
	h := fnv.New64a()
	h.Write([]byte(k.conf.Name))
	return 18*time.Hour + time.Duration(h.Sum64()%uint64(4*time.Hour))
}

// become makes a verdict known: to who asks whether the connection is paused, to the store and NATS where it is news,
// and to the log.
func (k *keeper) become(v verdict, paused bool, rec *store.Connection) error {
	now := time.Now().UTC()
	waits := ""
	if paused {
		waits = v.reason
	}
	before := *k.paused.Swap(&waits)
	news := rec.State != string(v.state)
	k.mu.Lock()
	if v.state != k.now.state {
		k.since = now
		if !news && !rec.Since.IsZero() {
			k.since = rec.Since // as it was when the daemon stopped
		}
	}
	since := k.since
	k.now = v
	tell := v.person() && (news || now.Sub(k.toldAt) > retell)
	if tell {
		k.toldAt = now
	}
	k.mu.Unlock()
	switch {
	case tell:
		k.log.Warn().Str("state", string(v.state)).Str("reason", v.reason).Str("remedy", v.remedy).Bool("paused", paused).Msg("connection needs a person")
	case news && v.state == OK:
		k.log.Info().Str("state", string(v.state)).Msg("connection is usable")
	}
	var err error
	if news {
		err = k.announce(State(rec.State), v, since)
	}
	if before != "" && !paused {
		k.room.opts.Resumed(k.conf.Name)
	}
	return err
}

// announce commits a new state together with the event that tells it. That all is well from the beginning is no news.
func (k *keeper) announce(before State, v verdict, since time.Time) error {
	tell := func(*store.Tx) error { return nil }
	if v.state != Unreachable && (before != "" || v.state != OK) {
		tenant, _ := k.room.Identity(k.conf.Name)
		s, consent := k.status(), ""
		if v.state == ConsentRequired {
			consent = k.room.AdminConsentURL(k.conf.Name)
		}
		e, err := event.NewConnectionEvent(tenant, event.ConnectionData{
			Name: k.conf.Name, Cloud: k.conf.Cloud.Name, Auth: string(k.conf.Auth), State: string(v.state), Reason: v.reason, Remedy: v.remedy,
			Since: since, Missing: s.Missing, AdminConsentURL: consent,
		})
		if err != nil {
			return err
		}
		tell = func(tx *store.Tx) error { return tx.AppendEvent(&e) }
	}
	return k.room.update(k.conf.Name, func(c *store.Connection) { c.State, c.Reason, c.Since = string(v.state), v.reason, since }, tell)
}

// warnExpiry says once for each certificate that it ends soon.
func (k *keeper) warnExpiry() {
	end := k.source.Expiry()
	if end.IsZero() || time.Until(end) > expiresSoon {
		return
	}
	k.mu.Lock()
	again := k.warned.Equal(end)
	k.warned = end
	k.mu.Unlock()
	if !again {
		k.log.Warn().Time("expires_at", end).Msg("the connection's credential expires soon: add a new one to the app registration and replace the file")
	}
}

func (k *keeper) status() Status {
	rec, _ := k.room.st.Connection(k.conf.Name)
	s := Status{
		Name: k.conf.Name, Cloud: k.conf.Cloud.Name, Auth: string(k.conf.Auth), Paused: *k.paused.Load() != "", User: rec.Username,
		SignedInAt: rec.SignedInAt, RefreshedAt: rec.RefreshedAt, CredentialExpiresAt: k.source.Expiry(),
	}
	s.TenantID, _ = k.room.Identity(k.conf.Name)
	if k.user != nil {
		s.Missing = k.user.Missing()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.State, s.Reason, s.Remedy, s.Since = k.now.state, k.now.reason, k.now.remedy, k.since
	if s.State == "" {
		s.State = Unknown
	}
	return s
}

// Look finds out now how a connection is.
func (r *Room) Look(ctx context.Context, name string) (Status, error) {
	k := r.keepers[name]
	if k == nil {
		return Status{}, fmt.Errorf("no connection is called %q", name)
	}
	err := k.settle(ctx)
	return k.status(), err
}
