package auth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// Grant is what a delegated connection must not lose. It holds secrets: whoever keeps it seals it.
type Grant struct {
	TenantID  string    `json:"tenant_id"` // tid of the first sign-in
	ObjectID  string    `json:"object_id"` // oid of the first sign-in
	Username  string    `json:"username"`  // for the operator's eyes
	Scopes    []string  `json:"scopes"`    // granted: short names in lower case, for example "mail.read"
	Refresh   string    `json:"refresh"`
	Previous  string    `json:"previous,omitempty"` // the refresh token before, until this one has worked
	Access    string    `json:"access"`
	ExpiresAt time.Time `json:"expires_at"` // of Access

	SignedInAt  time.Time `json:"signed_in_at"`
	RefreshedAt time.Time `json:"refreshed_at"`
	Claims      string    `json:"claims,omitempty"` // a challenge that the next authorization must answer (JSON)
}

// Vault keeps the grant of one connection. It is safe for concurrent use.
type Vault interface {
	Load() (Grant, error) // the zero Grant when nobody has signed in yet
	Save(Grant) error     // has committed durably when it returns nil
}

// UserOptions describe an app registration that reads for a user.
type UserOptions struct {
	Login, Tenant, ClientID string
	Credential              Credential // nil: a public client
	Graph                   string     // root without version: what scopes begin with outside the global cloud
	Scopes                  []string   // needed and extra, for example Mail.Read
	Vault                   Vault
	Metadata                string            // discovery document of a server that is not Entra; empty: Entra's
	Prompt                  string            // of the authorization request; empty: as fits
	Spacing                 time.Duration     // between refreshes, after some in a row; default 30 s
	Transport               http.RoundTripper // nil: the network
	Changed                 func()            // the state may have changed; never blocks; nil is fine
	Log                     zerolog.Logger
}

// probeEvery is how often a grant that was refused is tried again: it may have been unblocked elsewhere.
const probeEvery = time.Hour

// User is a source of tokens of a user who signed in. It is safe for concurrent use: any number of callers cause one
// refresh at a time.
type User struct {
	opts       UserOptions
	client     *http.Client
	discovered discovery
	busy       chan struct{} // who holds its one place uses the refresh token

	// refreshes limits how often the refresh token is used: Entra locks out a client in a loop (50196).
	refreshes *rate.Limiter

	unsaved *Grant // was issued and could not be stored yet; owned by who holds busy

	mu        sync.Mutex // guards what follows; never held across a request or a commit
	loaded    bool       // public is known
	public    Grant      // the grant without its secrets
	token     *token
	refused   string // a token that Graph did not accept
	challenge string // of claims, that came with the refusal
	failure   *Error
	tries     int
	retryAt   time.Time
	version   string // of the credential that was refused
	lookedAt  time.Time
}

// NewUser makes a source. Nothing is requested yet.
func NewUser(o UserOptions) *User {
	if o.Spacing == 0 {
		o.Spacing = 30 * time.Second
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Credential == nil {
		o.Credential = noCredential{}
	}
	u := &User{opts: o, client: loginClient(o.Transport), busy: make(chan struct{}, 1), refreshes: rate.NewLimiter(rate.Every(o.Spacing), 3)}
	u.discovered = discovery{client: u.client, login: o.Login, tenant: o.Tenant, document: o.Metadata}
	return u
}

// Token returns a token that is good for some minutes, refreshing when needed. While a person is needed callers get the
// token that still lives, else the error that says so.
func (u *User) Token(ctx context.Context) (string, error) {
	if t, ok := u.usable(refreshBefore); ok {
		return t, nil
	}
	select {
	case u.busy <- struct{}{}:
	default:
		if t, ok := u.usable(lastMoment); ok {
			return t, nil // somebody fetches the next one, this one still lives
		}
		if err := u.enter(ctx); err != nil {
			return "", err
		}
	}
	defer u.leave()
	if t, ok := u.usable(refreshBefore); ok {
		return t, nil // fetched while we waited
	}
	err := u.refresh(ctx, false)
	if t, ok := u.usable(lastMoment); ok {
		return t, nil
	}
	if err == nil {
		err = &Error{Class: Retry, Hint: "the token that was issued has expired already: is this machine's clock right?"}
	}
	return "", err
}

// Refresh uses the refresh token now, whatever life is left: a grant that is used never dies of idleness.
func (u *User) Refresh(ctx context.Context) error {
	if err := u.enter(ctx); err != nil {
		return err
	}
	defer u.leave()
	return u.refresh(ctx, true)
}

func (u *User) enter(ctx context.Context) error {
	select {
	case u.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (u *User) leave() { <-u.busy }

// Refused tells that Graph refused a token, and which claims it wants (JSON; empty: none): the token is not given out
// again.
func (u *User) Refused(token, claims string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.token != nil && u.token.access == token {
		u.refused, u.challenge = token, claims
	}
}

// State tells why there is no new token, as an *Error; nil when all went well or nothing was tried yet.
func (u *User) State() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failure == nil {
		return nil
	}
	return u.failure
}

// Expiry is when the app's certificate ends; zero when it has none.
func (u *User) Expiry() time.Time { return u.opts.Credential.Expiry() }

// Grant returns what is known of the sign-in, without its secrets.
func (u *User) Grant() (Grant, error) {
	u.mu.Lock()
	known, g := u.loaded, u.public
	u.mu.Unlock()
	if known {
		return g, nil
	}
	g, err := u.opts.Vault.Load()
	if err != nil {
		return Grant{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.loaded {
		u.know(g)
	}
	return u.public, nil
}

// know keeps what may be shown of a grant. mu is held.
func (u *User) know(g Grant) {
	g.Refresh, g.Previous, g.Access = "", "", ""
	u.public, u.loaded = g, true
}

// Missing names the permissions that are needed and were not granted; none before the first sign-in.
func (u *User) Missing() []string {
	g, err := u.Grant()
	if err != nil || g.ObjectID == "" {
		return nil
	}
	return missingScopes(u.opts.Scopes, g.Scopes)
}

// usable returns the token if it lives for longer than margin.
func (u *User) usable(margin time.Duration) (string, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.token == nil || u.token.access == u.refused {
		return "", false
	}
	return u.token.access, u.token.lives(margin)
}

// refresh gets the next token, unless a failure forbids it for now. What was issued is committed before it is used.
// busy is held.
func (u *User) refresh(ctx context.Context, force bool) error {
	now := time.Now()
	if err := u.held(now); err != nil {
		return err
	}
	if u.unsaved != nil {
		return u.commit(*u.unsaved)
	}
	g, err := u.opts.Vault.Load()
	if err != nil {
		return u.failed(&Error{Class: Operator, Code: "vault", Err: err}, "")
	}
	if g.Refresh == "" {
		return u.failed(&Error{Class: Reauth, Hint: "nobody has signed in yet"}, "")
	}
	if !force && u.adoptLiving(g) {
		return nil
	}
	if wait := u.spaced(now); wait > 0 {
		return &Error{Class: Retry, Hint: "tokens were asked for too often", RetryAfter: wait}
	}
	version, err := u.opts.Credential.version()
	if err != nil {
		return u.failed(&Error{Class: Operator, Code: "credential", Hint: err.Error()}, "")
	}
	got, err := u.use(ctx, g)
	if err == nil {
		return u.commit(g.next(got, now))
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err // the caller went away
	}
	u.keepClaims(g, e)
	return u.failed(e, version)
}

// adoptLiving takes over the stored access token after a restart, or what another process was given.
func (u *User) adoptLiving(g Grant) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := &token{g.Access, g.RefreshedAt, g.ExpiresAt}
	if g.Access == "" || g.Access == u.refused || !t.lives(refreshBefore) || u.token != nil && u.token.access == g.Access {
		return false
	}
	u.token = t
	u.know(g)
	u.succeeded()
	return true
}

// spaced tells how long to wait when the refresh token was used too often; 0: go on.
func (u *User) spaced(now time.Time) time.Duration {
	r := u.refreshes.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// use asks with the refresh token, and with the one before when that is refused: perhaps the newer one never became
// valid. On servers where reuse revokes, nothing is lost that was not lost already.
func (u *User) use(ctx context.Context, g Grant) (*reply, error) {
	m, err := u.discovered.forRefresh(ctx)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	claims := withCapability(u.challenge)
	u.mu.Unlock()
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {u.opts.ClientID}, "scope": {u.scope()}, "claims": {claims}, "refresh_token": {g.Refresh},
	}
	got, err := exchange(ctx, u.client, m.Token, form, u.opts.Credential)
	e, ok := errors.AsType[*Error](err)
	if ok && u.asksTooMuch(g, e) {
		form.Set("scope", u.grantedScope(g))
		got, err = exchange(ctx, u.client, m.Token, form, u.opts.Credential)
		e, ok = errors.AsType[*Error](err)
	}
	if !ok || e.Code != "invalid_grant" || e.Class != Reauth || g.Previous == "" {
		return got, err
	}
	form.Set("refresh_token", g.Previous)
	if got, perr := exchange(ctx, u.client, m.Token, form, u.opts.Credential); perr == nil {
		return got, nil
	}
	return nil, err
}

// asksTooMuch reports whether a refusal may be for permissions that were not granted: all of a request is refused for one
// of them (RFC 6749, section 6; at Entra 65001). They are asked for all the same, for an administrator may have consented
// meanwhile; those that were granted go on without them.
func (u *User) asksTooMuch(g Grant, e *Error) bool {
	return len(missingScopes(u.opts.Scopes, g.Scopes)) > 0 && (e.Code == "invalid_scope" || e.NeedsConsent())
}

// grantedScope is what is asked for without the permissions that were not granted.
func (u *User) grantedScope(g Grant) string {
	granted := slices.DeleteFunc(slices.Clone(u.opts.Scopes), func(s string) bool { return len(missingScopes([]string{s}, g.Scopes)) > 0 })
	return strings.Join(scopeList(u.opts.Graph, granted), " ")
}

// next is the grant after a refresh.
func (g Grant) next(got *reply, now time.Time) Grant {
	if got.RefreshToken != "" && got.RefreshToken != g.Refresh {
		g.Previous, g.Refresh = g.Refresh, got.RefreshToken
	}
	if got.Scope != "" {
		g.Scopes = shortScopes(got.Scope)
	}
	g.Access, g.ExpiresAt, g.RefreshedAt, g.Claims = got.AccessToken, time.Now().Add(got.ExpiresIn).UTC(), now.UTC(), ""
	return g
}

// commit stores a grant, and only then lets its token be used. When it cannot be stored it is kept for the next attempt.
func (u *User) commit(g Grant) error {
	if err := u.opts.Vault.Save(g); err != nil {
		u.unsaved = &g
		return u.failed(&Error{Class: Retry, Code: "vault", Err: err}, "")
	}
	u.unsaved = nil
	u.mu.Lock()
	again := u.failure != nil
	u.token = &token{g.Access, g.RefreshedAt, g.ExpiresAt}
	u.know(g)
	u.succeeded()
	u.mu.Unlock()
	u.opts.Log.Debug().Time("expires_at", g.ExpiresAt).Msg("token refreshed")
	if again {
		u.opts.Log.Info().Msg("signed in again")
		u.opts.Changed()
	}
	return nil
}

// succeeded forgets failures. mu is held.
func (u *User) succeeded() {
	u.refused, u.challenge, u.failure, u.tries, u.retryAt = "", "", nil, 0, time.Time{}
}

// keepClaims remembers what the user must answer at the next sign-in.
func (u *User) keepClaims(g Grant, e *Error) {
	u.mu.Lock()
	claims := u.challenge
	u.mu.Unlock()
	if e.Claims != "" {
		claims = e.Claims
	}
	if e.Class != Reauth || claims == "" || claims == g.Claims {
		return
	}
	g.Claims = claims
	if err := u.opts.Vault.Save(g); err != nil {
		u.opts.Log.Warn().Err(err).Msg("claims for the next sign-in could not be stored")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.know(g)
}

// held returns the last failure while its time has not passed. A refused credential that was replaced is tried at once.
func (u *User) held(now time.Time) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failure == nil || !now.Before(u.retryAt) {
		return nil
	}
	if u.failure.Class == Operator && now.Sub(u.lookedAt) >= lookEvery {
		u.lookedAt = now
		if v, err := u.opts.Credential.version(); err == nil && v != u.version {
			return nil
		}
	}
	return u.failure
}

// failed plans the next attempt. It returns e.
func (u *User) failed(e *Error, version string) error {
	now := time.Now()
	u.mu.Lock()
	u.tries++
	wait := e.wait(u.tries)
	if e.Class == Reauth {
		wait = probeEvery
	}
	news := u.failure == nil || u.failure.Class != e.Class || u.failure.Code != e.Code || u.failure.AADSTS != e.AADSTS
	u.failure, u.retryAt, u.version, u.lookedAt = e, now.Add(wait), version, now
	tries := u.tries
	u.mu.Unlock()
	if news {
		u.opts.Log.Warn().Err(e).Int("attempt", tries).Dur("wait", wait).Msg("no token for the signed-in user")
		u.opts.Changed()
	}
	return e
}

// signedIn takes over the grant of a sign-in.
func (u *User) signedIn(ctx context.Context, g Grant) error {
	if err := u.enter(ctx); err != nil {
		return err
	}
	defer u.leave()
	u.unsaved = nil
	if err := u.opts.Vault.Save(g); err != nil {
		return errors.Join(errors.New("the sign-in could not be stored; nothing is lost, sign in again"), err)
	}
	u.mu.Lock()
	u.token = &token{g.Access, g.RefreshedAt, g.ExpiresAt}
	u.know(g)
	u.succeeded()
	u.mu.Unlock()
	u.opts.Log.Info().Strs("scopes", g.Scopes).Msg("user signed in")
	u.opts.Changed()
	return nil
}

// scope is what is asked for: identity, a refresh token, and the permissions with Graph's name before them.
func (u *User) scope() string { return strings.Join(scopeList(u.opts.Graph, u.opts.Scopes), " ") }

// AdminConsentURL is where an administrator consents for the whole tenant.
func (u *User) AdminConsentURL() string { return adminConsentURL(u.opts) }
