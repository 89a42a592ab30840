// Package auth gets access tokens for Graph from Entra ID: for an app that signs in as itself (App), and for one that
// reads for a user who signed in (User). It speaks the protocol and nothing else: what must be kept is handed to a Vault.
package auth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	// refreshBefore is how long before its end a token is replaced. x/oauth2's own ten seconds are short for a request
	// that takes a minute.
	refreshBefore = 5 * time.Minute
	// lastMoment is how long before its end a token is still given out when no other is to be had.
	lastMoment = 10 * time.Second

	lookEvery = 10 * time.Second // at a credential that was refused: was it replaced?

	freshTries = 12 // failures in a row until a federated credential that Entra does not know is not merely new
)

// AppOptions describe an app registration that signs in as itself.
type AppOptions struct {
	Login      string            // authority, for example https://login.microsoftonline.com
	Tenant     string            // directory id or domain; common does not work without a user
	ClientID   string            // application id
	Credential Credential        //
	Scope      string            // <graph root>/.default (C-3)
	TokenURL   string            // of a server that is not Entra; empty: Entra's
	Transport  http.RoundTripper // nil: the network
	Log        zerolog.Logger
}

// App is a source of app-only tokens. It is safe for concurrent use: any number of callers cause one request at a time.
type App struct {
	log        zerolog.Logger
	fetch      func(ctx context.Context) (*reply, error)
	credential Credential
	busy       chan struct{} // who holds its one place asks the login endpoint

	// replacements limits how often a token that Graph refuses is replaced, three times and then every 30 s: Entra locks
	// out a client in a loop (50196).
	replacements *rate.Limiter

	mu       sync.Mutex // guards what follows; never held across a request
	token    *token
	refused  string // a token that Graph did not accept
	failure  *Error // of the last sign-in; nil when it went well
	tries    int    // failures in a row
	retryAt  time.Time
	version  string // of the credential that was refused
	lookedAt time.Time
}

// token is an access token that was issued.
type token struct {
	access   string
	issuedAt time.Time
	expiry   time.Time
}

// NewApp makes a source. Nothing is requested yet.
func NewApp(o AppOptions) *App {
	a := newApp(o.Credential, o.Log)
	client, tokenURL := loginClient(o.Transport), o.TokenURL
	if tokenURL == "" {
		tokenURL = o.Login + "/" + o.Tenant + "/oauth2/v2.0/token" // C-3
	}
	a.fetch = func(ctx context.Context) (*reply, error) {
		return exchange(ctx, client, tokenURL, url.Values{
			"grant_type": {"client_credentials"}, "client_id": {o.ClientID}, "scope": {o.Scope},
		}, o.Credential)
	}
	return a
}

func newApp(c Credential, log zerolog.Logger) *App {
	return &App{log: log, credential: c, busy: make(chan struct{}, 1), replacements: rate.NewLimiter(rate.Every(30*time.Second), 3)}
}

// Token returns a token that is good for some minutes, fetching one when needed. After a failed sign-in the next one
// waits its time; until then callers get the token that still lives, else the same error.
func (a *App) Token(ctx context.Context) (string, error) {
	if t, ok := a.usable(refreshBefore); ok {
		return t, nil
	}
	select {
	case a.busy <- struct{}{}:
	default:
		if t, ok := a.usable(lastMoment); ok {
			return t, nil // somebody fetches the next one, this one still lives
		}
		select {
		case a.busy <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	defer func() { <-a.busy }()
	if t, ok := a.usable(refreshBefore); ok {
		return t, nil // fetched while we waited
	}
	err := a.refresh(ctx)
	if t, ok := a.usable(lastMoment); ok {
		return t, nil
	}
	if err == nil {
		err = &Error{Class: Retry, Hint: "the token that was issued has expired already: is this machine's clock right?"}
	}
	return "", err
}

// Refused tells that Graph refused a token: it is not given out again. Claims are for users; an app declares no
// capability for them.
func (a *App) Refused(token, _ string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != nil && a.token.access == token {
		a.refused = token
	}
}

// Expiry is when the app's certificate ends; zero when it has none.
func (a *App) Expiry() time.Time { return a.credential.Expiry() }

// State tells why the last sign-in failed, as an *Error; nil when it went well or there was none yet.
func (a *App) State() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure == nil {
		return nil
	}
	return a.failure
}

// usable returns the token if it lives for longer than margin.
func (a *App) usable(margin time.Duration) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token == nil || a.token.access == a.refused {
		return "", false
	}
	return a.token.access, a.token.lives(margin)
}

// lives reports whether the token is good for longer than margin, or than a quarter of its life where that is short.
func (t *token) lives(margin time.Duration) bool {
	return time.Until(t.expiry) > min(margin, t.expiry.Sub(t.issuedAt)/4)
}

// refresh signs in, unless a failure forbids it for now.
func (a *App) refresh(ctx context.Context) error {
	now := time.Now()
	if err := a.held(now); err != nil {
		return err
	}
	if wait := a.looping(now); wait > 0 {
		return &Error{Class: Retry, Hint: "Graph refuses tokens that were just issued", RetryAfter: wait}
	}
	version, err := a.credential.version()
	if err != nil {
		return a.failed(now, &Error{Class: Operator, Code: "credential", Hint: err.Error()}, "")
	}
	got, err := a.fetch(ctx)
	if err == nil {
		a.succeeded(&token{got.AccessToken, now, time.Now().Add(got.ExpiresIn)})
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err // the caller went away: that says nothing of the login endpoint
	}
	return a.failed(now, e.forApp(), version)
}

// held returns the last failure while its time has not passed. A refused credential that was replaced is tried at once.
func (a *App) held(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure == nil || !now.Before(a.retryAt) {
		return nil
	}
	if a.failure.Class == Operator && now.Sub(a.lookedAt) >= lookEvery {
		a.lookedAt = now
		if v, err := a.credential.version(); err == nil && v != a.version {
			return nil
		}
	}
	return a.failure
}

// looping tells how long to wait when tokens are fetched and refused again and again; 0: go on.
func (a *App) looping(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == "" || a.token == nil || a.token.access != a.refused {
		return 0
	}
	r := a.replacements.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

func (a *App) succeeded(t *token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		a.log.Info().Int("attempt", a.tries+1).Msg("signed in again")
	}
	a.token, a.failure, a.tries, a.retryAt = t, nil, 0, time.Time{}
	a.log.Debug().Time("expires_at", t.expiry.UTC()).Msg("token issued")
}

// failed plans the next attempt. It returns e.
func (a *App) failed(now time.Time, e *Error, version string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	if e.AADSTS == 70021 && a.tries <= freshTries {
		e.Class = Retry // a federated credential is not known for minutes after it was made
	}
	wait := e.wait(a.tries)
	a.failure, a.retryAt, a.version, a.lookedAt = e, now.Add(wait), version, now
	a.log.Warn().Err(e).Int("attempt", a.tries).Dur("wait", wait).Msg("sign-in failed")
	return e
}

// wait is how long to leave the endpoint alone after the nth failure in a row: a little and ever longer where it mends
// itself, a quarter of an hour up to an hour where somebody must act.
func (e *Error) wait(n int) time.Duration {
	switch {
	case e.Code == "credential":
		return lookEvery // a file of ours, nobody is bothered
	case e.Class == Operator:
		return max(min(15*time.Minute<<min(n-1, 8), time.Hour), e.RetryAfter)
	}
	limit := min(time.Second<<min(n, 16), 5*time.Minute)
	return max(time.Second, rand.N(limit), e.RetryAfter)
}
