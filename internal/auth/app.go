// Package auth gets access tokens for Graph from Entra ID: for an app that signs in as itself, with a client secret.
package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// refreshBefore is how long before its end a token is replaced; x/oauth2's own ten seconds are short for a request
	// that takes a minute.
	refreshBefore = 5 * time.Minute
	tokenTimeout  = 30 * time.Second
)

// AppOptions describe an app registration that signs in as itself.
type AppOptions struct {
	Login     string                 // authority, e.g. https://login.microsoftonline.com
	Tenant    string                 // directory id; common does not work without a user
	ClientID  string                 // application id
	Secret    func() (string, error) // read anew for every sign-in, so that a rotated one is taken up
	Scope     string                 // <graph root>/.default (C-3)
	Transport http.RoundTripper      // nil: the network
	Log       zerolog.Logger
}

// App is a source of app-only tokens. Safe for concurrent use: any number of callers cause one request.
type App struct {
	opts AppOptions

	mu      sync.Mutex // held during a request, so that there is one at a time
	token   *oauth2.Token
	bad     string // a token that Graph refused
	failure error
	tries   int
	retryAt time.Time
}

// NewApp makes a source. Nothing is requested yet.
func NewApp(o AppOptions) *App { return &App{opts: o} }

// Token returns a token that is good for a while, fetching one when needed. After a failure the next request waits its
// time and callers get the same error until then; a token that still lives is given out meanwhile.
func (a *App) Token(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.usable(now, refreshBefore) {
		return a.token.AccessToken, nil
	}
	if !now.Before(a.retryAt) {
		a.fetch(ctx, now)
	}
	if a.usable(now, 10*time.Second) {
		return a.token.AccessToken, nil
	}
	if a.failure == nil {
		return "", errors.New("sign-in gave a token that has expired already: is this machine's clock right?")
	}
	return "", a.failure
}

func (a *App) usable(now time.Time, margin time.Duration) bool {
	if a.token == nil || a.token.AccessToken == a.bad {
		return false
	}
	life := a.token.Expiry.Sub(now)
	return a.token.Expiry.IsZero() || life > min(margin, a.lifetime()/4)
}

// lifetime is how long the token was meant to live, for labs with tokens of minutes.
func (a *App) lifetime() time.Duration {
	if a.token.ExpiresIn > 0 {
		return time.Duration(a.token.ExpiresIn) * time.Second
	}
	return time.Hour
}

// Invalidate says that Graph refused a token.
func (a *App) Invalidate(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != nil && a.token.AccessToken == token {
		a.bad = token
	}
}

// State tells whether the last sign-in went well; nil before the first one.
func (a *App) State() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

func (a *App) fetch(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeoutCause(ctx, tokenTimeout, fmt.Errorf("no answer from the login endpoint within %v", tokenTimeout))
	defer cancel()
	token, err := a.request(ctx)
	if err == nil {
		a.token, a.failure, a.tries, a.retryAt = token, nil, 0, time.Time{}
		return
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		a.failure = err // the caller went away: that says nothing about the endpoint
		return
	}
	a.tries++
	e := classify(err)
	a.failure, a.retryAt = e, now.Add(e.wait(a.tries))
	a.opts.Log.Warn().Err(e).Int("attempt", a.tries).Dur("wait", a.retryAt.Sub(now)).Msg("sign-in failed")
}

func (a *App) request(ctx context.Context) (*oauth2.Token, error) {
	secret, err := a.opts.Secret()
	if err != nil {
		return nil, &Error{Class: Operator, Hint: err.Error()}
	}
	conf := clientcredentials.Config{
		ClientID: a.opts.ClientID, ClientSecret: secret,
		TokenURL:  a.opts.Login + "/" + a.opts.Tenant + "/oauth2/v2.0/token",
		Scopes:    []string{a.opts.Scope},
		AuthStyle: oauth2.AuthStyleInParams, // detection would send two requests
	}
	client := &http.Client{
		Transport:     a.opts.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes nowhere else
	}
	return conf.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
}

// wait is how long to leave the endpoint alone after the nth failure in a row.
func (e *Error) wait(n int) time.Duration {
	base, limit := time.Second, 5*time.Minute
	if e.Class == Operator {
		base, limit = 15*time.Second, time.Hour // somebody must act; look from time to time whether they did
	}
	d := min(base<<min(n-1, 12), limit)
	return max(d/2+rand.N(d/2+1), e.RetryAfter)
}
