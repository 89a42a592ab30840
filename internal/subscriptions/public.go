package subscriptions

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	checkEvery    = time.Minute
	checkDeadline = 10 * time.Second // Graph's own for a validation (N-4)
	provenFor     = 5 * time.Minute  // how long a received notification proves that the public URL works
	startGrace    = 10 * time.Second // how long creations wait at the start for the listener to answer
)

// public is what is known of the public URL. Safe for concurrent use.
type public struct {
	mu        sync.Mutex
	startedAt time.Time
	busy      bool
	nextAt    time.Time
	failures  int
	checkedAt time.Time // zero until the first check has ended
	err       error     // of the last check
	provenAt  time.Time // last confirmed notification of any feed
}

// begin reports whether a check is due, and reserves it.
func (p *public) begin(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.startedAt.IsZero() {
		p.startedAt = now
	}
	late := p.nextAt.Sub(now) > checkEvery // the clock was set back
	if p.busy || now.Before(p.nextAt) && !late {
		return false
	}
	p.busy = true
	return true
}

// end notes the result of a check and reports whether the URL has healed.
func (p *public) end(now time.Time, err error) (healed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	healed = err == nil && p.err != nil
	p.busy, p.checkedAt, p.err = false, now, err
	if err == nil {
		p.failures, p.nextAt = 0, now.Add(checkEvery)
		return healed
	}
	p.nextAt = now.Add(min(checkEvery, 5*time.Second<<min(p.failures, 4)))
	p.failures++
	return false
}

func (p *public) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
}

func (p *public) prove(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at.After(p.provenAt) {
		p.provenAt = at
	}
}

// state tells whether the URL is believed to work, why not, and since when that is known.
func (p *public) state(now time.Time) (ok bool, reason string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	proven := now.Sub(p.provenAt) < provenFor
	switch {
	case p.checkedAt.IsZero() && !proven:
		return false, "the public URL has not been checked yet", time.Time{}
	case p.err == nil && !p.checkedAt.IsZero():
		return true, "", p.checkedAt
	case proven:
		return true, "", p.provenAt
	}
	return false, "the public URL " + p.err.Error(), p.checkedAt
}

// ready reports whether creations may be tried: Graph calls the URL while it is asked to create. A URL that fails its
// own check may still answer Graph (a firewall that lets nobody out and in again), so that only the start waits.
func (p *public) ready(now time.Time) bool {
	ok, _, _ := p.state(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	return ok || !now.Before(p.startedAt.Add(startGrace)) || now.Before(p.startedAt)
}

// noRedirects is hc without the habit of following redirects, which Graph is not known to have (W-30).
func noRedirects(hc *http.Client) *http.Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	own := *hc
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// askURL does what Graph does before it creates a subscription: post a validation token and want it echoed (N-3, N-4).
// The error continues "the public URL ...".
func askURL(ctx context.Context, hc *http.Client, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("is no URL")
	}
	var random [16]byte
	rand.Read(random[:])
	token := "Validation: self-check 1+1=2 Request-Id: " + hex.EncodeToString(random[:]) // what proxies like to unescape
	q := u.Query()
	q.Set("validationToken", token)
	u.RawQuery = q.Encode()
	ctx, cancel := context.WithTimeoutCause(ctx, checkDeadline, fmt.Errorf("no answer in %v", checkDeadline))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return errors.New("is no URL")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := hc.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the URL
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %d %s to a validation request", resp.StatusCode, http.StatusText(resp.StatusCode))
	case err != nil:
		return fmt.Errorf("broke off its answer: %w", err)
	case string(body) != token:
		return errors.New("answered a validation request with something else than the token: is it triggerd that answers there?")
	}
	return nil
}

// checkPublic is a job: the self-check of the public URL.
func (r *Room) checkPublic(ctx context.Context) {
	err := askURL(ctx, r.http, r.notificationURL)
	if ctx.Err() != nil {
		r.public.cancel()
		return
	}
	now := clock()
	wasOK, _, _ := r.public.state(now)
	healed := r.public.end(now, err)
	ok, reason, _ := r.public.state(now)
	switch {
	case healed:
		r.log.Info().Msg("public url answers again")
		r.retryRefusedURL()
	case wasOK && !ok:
		r.log.Warn().Str("reason", reason).Msg("public url fails its check; polling meanwhile")
	}
	r.Wake()
}

// Public tells whether the public URL is believed to work: it answered its last check, or a notification came lately.
// Otherwise reason says what is wrong; at is when that was found out, zero before the first check.
func (r *Room) Public() (ok bool, reason string, at time.Time) {
	if r.opts.PublicURL == "" {
		return false, "no public URL is configured", time.Time{}
	}
	return r.public.state(clock())
}
