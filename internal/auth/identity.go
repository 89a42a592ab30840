package auth

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// endpoints are what a login server says of itself.
type endpoints struct {
	Issuer    string `json:"issuer"` // Entra's of common holds {tenantid}
	Authorize string `json:"authorization_endpoint"`
	Token     string `json:"token_endpoint"`
	Device    string `json:"device_authorization_endpoint"`
	Keys      string `json:"jwks_uri"`
}

// discovery reads the metadata of the cloud's login server, once a day.
type discovery struct {
	client                  *http.Client
	login, tenant, document string

	mu     sync.Mutex
	known  endpoints
	readAt time.Time
}

// forRefresh gives the token endpoint. Entra's is known without asking.
func (d *discovery) forRefresh(ctx context.Context) (endpoints, error) {
	if d.document == "" {
		return endpoints{Token: d.login + "/" + d.tenant + "/oauth2/v2.0/token"}, nil
	}
	return d.all(ctx)
}

// all reads the metadata. Every endpoint must be at the host that was asked: nobody leads a secret elsewhere.
func (d *discovery) all(ctx context.Context) (endpoints, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.readAt.IsZero() && time.Since(d.readAt) < 24*time.Hour {
		return d.known, nil
	}
	address := d.document
	if address == "" {
		address = d.login + "/" + d.tenant + "/v2.0/.well-known/openid-configuration" // C-19
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tokenTimeout, fmt.Errorf("no answer within %v", tokenTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return endpoints{}, &Error{Class: Operator, Hint: "the login endpoint has no usable URL"}
	}
	status, header, body, err := send(ctx, d.client, req)
	switch {
	case err != nil:
		return endpoints{}, &Error{Class: Retry, Err: err}
	case status != http.StatusOK:
		return endpoints{}, refusal(status, header, body, time.Now())
	}
	var m endpoints
	if json.Unmarshal(body, &m) != nil {
		return endpoints{}, &Error{Class: Retry, Err: errors.New("the login endpoint's metadata cannot be read")}
	}
	if err := m.check(address); err != nil {
		return endpoints{}, &Error{Class: Operator, Hint: err.Error()}
	}
	d.known, d.readAt = m, time.Now()
	return m, nil
}

// check refuses metadata that lead away from where they were read.
func (m *endpoints) check(address string) error {
	home, err := url.Parse(address)
	if err != nil || m.Issuer == "" {
		return errors.New("the login endpoint's metadata are not OpenID Connect's")
	}
	for name, link := range map[string]string{"authorization": m.Authorize, "token": m.Token, "keys": m.Keys, "device": m.Device} {
		u, err := url.Parse(link)
		if link == "" && name == "device" {
			continue
		}
		if err != nil || u.Scheme != home.Scheme || !strings.EqualFold(u.Host, home.Host) || u.User != nil {
			return fmt.Errorf("the login endpoint's metadata lead to another host for %s: compare the cloud's login URL", name)
		}
	}
	return nil
}

// identity is who signed in.
type identity struct{ tenantID, objectID, username string }

// algorithms of id tokens: never none, never one with a shared secret.
var algorithms = []string{oidc.RS256, oidc.PS256, oidc.ES256}

// verify checks an id token: signature by the cloud's keys, audience, time, issuer, nonce. Its errors hold nothing of it.
func (m *endpoints) verify(ctx context.Context, client *http.Client, raw, clientID, nonce string) (who identity, err error) {
	if raw == "" {
		return who, errors.New("the login endpoint gave no id token: is `openid` among the app's permissions?")
	}
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(context.WithoutCancel(ctx), client), m.Keys)
	verifier := oidc.NewVerifier(m.Issuer, keys, &oidc.Config{ClientID: clientID, SkipIssuerCheck: true, SupportedSigningAlgs: algorithms})
	token, err := verifier.Verify(oidc.ClientContext(ctx, client), raw)
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired {
		return who, errors.New("the id token has expired already: is this machine's clock right?")
	}
	if err != nil {
		return who, errors.New("the id token is not the login endpoint's for this app: compare cloud and client_id")
	}
	var claims struct {
		TID      string `json:"tid"`
		OID      string `json:"oid"`
		Username string `json:"preferred_username"`
	}
	if err := token.Claims(&claims); err != nil {
		return who, errors.New("the id token cannot be read")
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1 {
		return who, fmt.Errorf("%w: the id token belongs to another sign-in", ErrState)
	}
	if want := strings.ReplaceAll(m.Issuer, "{tenantid}", claims.TID); token.Issuer != want {
		return who, errors.New("the id token was issued elsewhere: compare cloud and tenant")
	}
	// Servers that are not Entra have neither tid nor oid.
	who = identity{claims.TID, claims.OID, claims.Username}
	if who.tenantID == "" {
		who.tenantID = token.Issuer
	}
	if who.objectID == "" {
		who.objectID = token.Subject
	}
	return who, nil
}

// bind refuses another user or tenant than the recorded or the configured ones. Addresses are not shown.
func (who identity) bind(g Grant, tenant string) error {
	switch {
	case isGUID(tenant) && !strings.EqualFold(tenant, who.tenantID):
		return fmt.Errorf("%w than the configured one: sign in with an account of that tenant, or compare `tenant`", ErrOtherTenant)
	case g.ObjectID == "":
		return nil
	case !strings.EqualFold(g.TenantID, who.tenantID):
		return fmt.Errorf("%w than at the first sign-in: make another connection for it", ErrOtherTenant)
	case !strings.EqualFold(g.ObjectID, who.objectID):
		return fmt.Errorf("%w than the one who signed in first: sign in as that user, or make another connection", ErrOtherUser)
	}
	return nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}
