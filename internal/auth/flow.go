package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Why a sign-in was not taken.
var (
	ErrState       = errors.New("this is not the answer to the sign-in that was begun") // replayed, forged, or of another one
	ErrExpired     = errors.New("the sign-in took too long")
	ErrDeclined    = errors.New("the sign-in was declined")
	ErrOtherUser   = errors.New("another user signed in")
	ErrOtherTenant = errors.New("a user of another tenant signed in")
)

// flowLife is how long a browser may take; a code lives as long.
const flowLife = 10 * time.Minute

// CodeFlow is a sign-in in a browser (authorization code with PKCE). It can be finished once.
type CodeFlow struct {
	user            *User
	server          endpoints
	redirectURI     string
	state, nonce    string
	verifier, query string
	ends            time.Time
	finished        atomic.Bool
}

// AuthCode begins a sign-in in a browser that ends at redirectURI.
func (u *User) AuthCode(ctx context.Context, redirectURI string) (*CodeFlow, error) {
	server, err := u.discovered.all(ctx)
	if err != nil {
		return nil, err
	}
	g, err := u.opts.Vault.Load()
	if err != nil {
		return nil, err
	}
	f := &CodeFlow{
		user: u, server: server, redirectURI: redirectURI, state: random(), nonce: random(), verifier: oauth2.GenerateVerifier(),
		ends: time.Now().Add(flowLife),
	}
	q := url.Values{
		"client_id": {u.opts.ClientID}, "response_type": {"code"}, "response_mode": {"query"}, "redirect_uri": {redirectURI},
		"scope": {u.scope()}, "state": {f.state}, "nonce": {f.nonce}, "claims": {withCapability(g.Claims)},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(f.verifier)}, "code_challenge_method": {"S256"},
	}
	if g.Username != "" {
		q.Set("login_hint", g.Username)
	}
	if p := u.prompt(g); p != "" {
		q.Set("prompt", p)
	}
	f.query = q.Encode()
	return f, nil
}

// prompt asks for an account at first, and for consent where something was not granted.
func (u *User) prompt(g Grant) string {
	switch {
	case u.opts.Prompt != "":
		return u.opts.Prompt
	case g.ObjectID == "":
		return "select_account"
	case len(missingScopes(u.opts.Scopes, g.Scopes)) > 0:
		return "consent"
	}
	return ""
}

// random is 256 bits that nobody guesses.
func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// URL is what the user opens.
func (f *CodeFlow) URL() string { return f.server.Authorize + "?" + f.query }

// ExpiresAt is when the sign-in must be finished.
func (f *CodeFlow) ExpiresAt() time.Time { return f.ends }

// Finish takes the query of the address at which the browser ended. The grant it returns is stored, and holds no secrets.
func (f *CodeFlow) Finish(ctx context.Context, redirected url.Values) (Grant, error) {
	switch {
	case subtle.ConstantTimeCompare([]byte(redirected.Get("state")), []byte(f.state)) != 1:
		return Grant{}, fmt.Errorf("%w: begin again", ErrState)
	case f.finished.Swap(true):
		return Grant{}, fmt.Errorf("%w: it was finished already", ErrState)
	case time.Now().After(f.ends):
		return Grant{}, fmt.Errorf("%w: begin again", ErrExpired)
	case redirected.Has("error"): // before everything else: an answer may carry both
		return Grant{}, declined(redirected)
	case redirected.Has("iss") && redirected.Get("iss") != f.server.Issuer && !isTenanted(f.server.Issuer): // RFC 9207
		return Grant{}, fmt.Errorf("%w: it comes from another login endpoint", ErrState)
	case redirected.Get("code") == "":
		return Grant{}, fmt.Errorf("%w: it holds no code", ErrState)
	}
	got, err := exchange(ctx, f.user.client, f.server.Token, url.Values{
		"grant_type": {"authorization_code"}, "client_id": {f.user.opts.ClientID}, "code": {redirected.Get("code")},
		"redirect_uri": {f.redirectURI}, "code_verifier": {f.verifier}, "claims": {capable},
	}, f.user.opts.Credential)
	if err != nil {
		return Grant{}, err
	}
	return f.user.accept(ctx, f.server, got, f.nonce)
}

var (
	tenanted   = regexp.MustCompile(`\{tenantid\}`)
	aadstsText = regexp.MustCompile(`^AADSTS(\d{4,8})\b`)
)

func isTenanted(issuer string) bool { return tenanted.MatchString(issuer) }

// declined tells what an error in the redirect means, without its text.
func declined(q url.Values) error {
	e := &Error{Class: Reauth, Code: word(q.Get("error")), Suberror: word(q.Get("error_subcode"))}
	if m := aadstsText.FindStringSubmatch(q.Get("error_description")); m != nil {
		e.AADSTS, _ = strconv.Atoi(m[1])
	}
	if operatorCodes[e.Code] {
		e.Class = Operator
	}
	e.Hint = e.hint()
	if e.Code == "access_denied" && e.AADSTS == 0 {
		e.Hint = "the user, or an administrator's rule, said no"
	}
	return fmt.Errorf("%w: %w", ErrDeclined, e)
}

// accept takes what the token endpoint gave at the end of a sign-in: who it was, whether that may be, and what was
// granted.
func (u *User) accept(ctx context.Context, server endpoints, got *reply, nonce string) (Grant, error) {
	who, err := server.verify(ctx, u.client, got.IDToken, u.opts.ClientID, nonce)
	if err != nil {
		return Grant{}, err
	}
	old, err := u.opts.Vault.Load()
	if err != nil {
		return Grant{}, err
	}
	if err := who.bind(old, u.opts.Tenant); err != nil {
		return Grant{}, err
	}
	if got.RefreshToken == "" {
		return Grant{}, &Error{Class: Operator, Hint: "the login endpoint gave no refresh token: allow offline_access for the app"}
	}
	now := time.Now()
	g := Grant{TenantID: who.tenantID, ObjectID: who.objectID, Username: who.username, SignedInAt: now.UTC(), Scopes: []string{}}
	if got.Scope == "" { // RFC 6749: as asked for
		got.Scope = u.scope()
	}
	g = g.next(got, now)
	if err := u.signedIn(ctx, g); err != nil {
		return Grant{}, err
	}
	return u.Grant()
}
