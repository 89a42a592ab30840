package emulator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// DefaultPublicClientID is the app for users that needs no secret, unless Options say otherwise.
const DefaultPublicClientID = "9d3f6f0e-52e1-4a35-9a0d-3e0a0c5a4b11"

// personalTenant is the tenant of personal Microsoft accounts.
const personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// Lifetimes of what a sign-in is made of.
const (
	codeLife     = 10 * time.Minute
	deviceLife   = 15 * time.Minute
	devicePoll   = 5 * time.Second
	refreshLife  = 90 * 24 * time.Hour
	maxAssertion = 10 * time.Minute
)

// tokenInfo is what an access token is good for.
type tokenInfo struct {
	expires  time.Time
	app      bool
	user     *user           // who signed in; nil for an app
	scopes   map[string]bool // delegated: short names in lower case
	answered bool            // was asked for with the claims of a challenge
}

// signIns are everything that sign-ins of users leave behind. Guarded by Server.mu.
type signIns struct {
	codes        map[string]*code
	refresh      map[string]*refreshToken
	devices      map[string]*device
	consented    map[string]bool // client + "/" + user id + "/" + scope; user id "*": by an administrator
	assertions   map[string]time.Time
	certificates []*x509.Certificate
	issuers      []*rsa.PublicKey // of federated tokens
}

func newSignIns() signIns {
	return signIns{
		codes: map[string]*code{}, refresh: map[string]*refreshToken{}, devices: map[string]*device{}, consented: map[string]bool{},
		assertions: map[string]time.Time{},
	}
}

// grant is what a user agreed to.
type grant struct {
	client string
	user   *user
	scopes []string // as asked for
	nonce  string
}

// code is an authorization code.
type code struct {
	grant
	redirect, challenge string
	expires             time.Time
	used                []string // refresh tokens it gave; a second use revokes them
	spent               bool
}

type refreshToken struct {
	grant
	expires  time.Time
	replaced bool
	family   *family
}

// family are the refresh tokens that came from one sign-in.
type family struct{ revoked bool }

// TrustCertificate registers a certificate for the confidential app.
func (s *Server) TrustCertificate(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signIns.certificates = append(s.signIns.certificates, c)
}

// TrustIssuer makes tokens of another issuer, signed with RS256, good for the confidential app (workload identity).
func (s *Server) TrustIssuer(key *rsa.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signIns.issuers = append(s.signIns.issuers, key)
}

// Revoke ends every sign-in of a user, as an administrator does: refresh tokens are refused with 50173, Graph takes none
// of the access tokens any more, and removes the subscriptions that were made with them (L-13).
func (s *Server) Revoke(address string) error {
	subs, err := s.revoke(address)
	for _, id := range subs {
		s.RemoveSubscription(id, true)
	}
	return err
}

func (s *Server) revoke(address string) (subs []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byName[strings.ToLower(address)]
	if u == nil {
		return nil, errNoUser
	}
	for _, sub := range s.live() {
		if sub.owner == u {
			subs = append(subs, sub.id)
		}
	}
	for _, t := range s.signIns.refresh {
		if t.user == u {
			t.family.revoked = true
		}
	}
	for token, info := range s.tokens {
		if info.user == u {
			delete(s.tokens, token)
		}
	}
	return subs, nil
}

// AddPersonalUser makes a mailbox of a personal Microsoft account (C-6).
func (s *Server) AddPersonalUser(address string) User {
	out := s.AddUser(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[out.ID].personal = true
	return out
}

// Challenge makes Graph demand new claims of a user's tokens (continuous access evaluation): those it has are refused
// until one was asked for with the claims.
func (s *Server) Challenge(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byName[strings.ToLower(address)]
	if u == nil {
		return errNoUser
	}
	b, err := json.Marshal(map[string]any{"access_token": map[string]any{"nbf": map[string]any{"essential": true, "value": itoa(int(time.Now().Unix()))}}})
	if err != nil {
		return err
	}
	u.challenge = string(b)
	for _, info := range s.tokens {
		if info.user == u {
			info.answered = false
		}
	}
	return nil
}

// RequireInteraction makes refreshes of a user end in interaction_required (50076), until the user signs in again.
func (s *Server) RequireInteraction(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byName[strings.ToLower(address)]
	if u == nil {
		return errNoUser
	}
	u.interaction = true
	return nil
}

// Share lets another user read a mailbox, as Full Access does.
func (s *Server) Share(mailbox, with string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, u := s.byName[strings.ToLower(mailbox)], s.byName[strings.ToLower(with)]
	if m == nil || u == nil {
		return errNoUser
	}
	if m.sharedWith == nil {
		m.sharedWith = map[*user]bool{}
	}
	m.sharedWith[u] = true
	return nil
}

// Secrets are the access and refresh tokens that are good now, for tests that look whether one got out.
func (s *Server) Secrets() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tokens {
		out = append(out, t)
	}
	for t := range s.signIns.refresh {
		out = append(out, t)
	}
	return out
}

// signingKey signs id tokens. It is made once a process, since making one takes long.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the size is right
	}
	return k
})

const signingKeyID = "emulator-1"

// issuer is a tenant's.
func (s *Server) issuer(tenant string) string { return s.opts.Root + "/" + tenant + "/v2.0" }

// tenantOf is the directory that a user's account is in.
func (s *Server) tenantOf(u *user) string {
	if u.personal {
		return personalTenant
	}
	return s.opts.Tenant
}

// idToken tells the app who signed in.
func (s *Server) idToken(g *grant) string {
	now := time.Now()
	claims := map[string]any{
		"iss": s.issuer(s.tenantOf(g.user)), "aud": g.client, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"sub": "sub-" + g.user.id, "ver": "2.0",
	}
	if slices.Contains(g.scopes, "profile") { // else neither is there
		claims["tid"], claims["oid"], claims["preferred_username"] = s.tenantOf(g.user), g.user.id, g.user.address
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // strings and numbers
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: signingKey()}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", signingKeyID))
	if err != nil {
		panic(err) // the key fits
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// serveMetadata is GET /{tenant}/v2.0/.well-known/openid-configuration.
func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request, tenant string) {
	named := tenant
	switch strings.ToLower(tenant) {
	case "common", "organizations":
		named = "{tenantid}"
	case "consumers":
		named = personalTenant
	case strings.ToLower(s.opts.Tenant), personalTenant:
	default:
		s.write(w, r, s.tokenError(tokenRefusal{400, "invalid_tenant", 90002, "Tenant '" + tenant + "' not found."}))
		return
	}
	base := s.opts.Root + "/" + tenant
	s.write(w, r, tokenAnswer(http.StatusOK, map[string]any{
		"issuer": s.issuer(named), "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
		"device_authorization_endpoint": base + "/oauth2/v2.0/devicecode", "jwks_uri": base + "/discovery/v2.0/keys",
		"response_types_supported": []string{"code"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		"subject_types_supported": []string{"pairwise"}, "scopes_supported": []string{"openid", "profile", "email", "offline_access"},
	}))
}

// serveKeys is GET /{tenant}/discovery/v2.0/keys.
func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request) {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: signingKey().Public(), KeyID: signingKeyID, Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		panic(err)
	}
	s.write(w, r, answer{status: http.StatusOK, body: b}.with("Content-Type", "application/json; charset=utf-8"))
}

// client finds the app that asks and checks what it proves. mu is held.
func (s *Server) client(r *http.Request, form url.Values, tenant string) (confidential bool, refused *tokenRefusal) {
	bad := func(status int, code string, number int, description string) (bool, *tokenRefusal) {
		return false, &tokenRefusal{status, code, number, description}
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(pass)
	}
	proves := secret != "" || form.Get("client_assertion") != ""
	switch {
	case id == "":
		return bad(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	case strings.EqualFold(id, s.opts.PublicClientID) && proves:
		return bad(401, "invalid_client", 700025, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")
	case strings.EqualFold(id, s.opts.PublicClientID):
		return false, nil
	case !strings.EqualFold(id, s.opts.ClientID):
		return bad(400, "unauthorized_client", 700016, "Application with identifier '"+id+"' was not found in the directory. This can happen if the application has not been installed by the administrator of the tenant.")
	case form.Get("client_assertion") != "":
		return s.checkAssertion(form, tenant)
	case secret == "":
		return bad(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case secret == s.opts.ExpiredSecret && secret != "":
		return bad(401, "invalid_client", 7000222, "The provided client secret keys for app '"+id+"' are expired.")
	}
	for _, good := range []string{s.opts.ClientSecret, s.opts.SecondSecret} {
		if good != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(good)) == 1 {
			return true, nil
		}
	}
	return bad(401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.")
}

// checkAssertion checks a JWT that stands for the app: signed with a registered certificate, or by a trusted issuer. mu is
// held.
func (s *Server) checkAssertion(form url.Values, tenant string) (bool, *tokenRefusal) {
	bad := func(number int, description string) (bool, *tokenRefusal) {
		return false, &tokenRefusal{401, "invalid_client", number, description}
	}
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return bad(50027, "JWT token is invalid or malformed.")
	}
	signed, err := jose.ParseSignedCompact(form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.PS256, jose.RS256})
	if err != nil || len(signed.Signatures) != 1 {
		return bad(50027, "JWT token is invalid or malformed.")
	}
	payload, federated, found := s.verifyAssertion(signed)
	if !found {
		return bad(700027, "Client assertion failed signature validation, or the key was not found by thumbprint.")
	}
	var claims struct {
		Aud, Iss, Sub, Jti string
		Iat, Nbf, Exp      int64
	}
	if json.Unmarshal(payload, &claims) != nil {
		return bad(50027, "JWT token is invalid or malformed.")
	}
	now := time.Now()
	switch {
	case federated && claims.Aud != "api://AzureADTokenExchange":
		return bad(700212, "No matching federated identity record found for presented assertion audience.")
	case federated && claims.Exp <= now.Unix(), claims.Exp <= now.Unix(), claims.Nbf > now.Add(5*time.Minute).Unix():
		return bad(700024, "Client assertion is not within its valid time range.")
	case federated:
		return true, nil
	case claims.Aud != s.opts.Root+"/"+tenant+"/oauth2/v2.0/token":
		return bad(700023, "Client assertion audience claim does not match Realm issuer.")
	case claims.Iss != form.Get("client_id"), claims.Sub != claims.Iss:
		return bad(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
	case claims.Exp > now.Add(maxAssertion).Unix():
		return bad(700024, "Client assertion is not within its valid time range.")
	case claims.Jti == "" || !s.signIns.assertions[claims.Jti].IsZero():
		s.violation("ENTRA 3.3: a client assertion without a fresh jti")
		return bad(50027, "JWT token is invalid or malformed.")
	}
	s.signIns.assertions[claims.Jti] = now
	return true, nil
}

// verifyAssertion finds the key and checks the signature. mu is held.
func (s *Server) verifyAssertion(signed *jose.JSONWebSignature) (payload []byte, federated, ok bool) {
	head := signed.Signatures[0].Header
	text := func(name jose.HeaderKey) string { v, _ := head.ExtraHeaders[name].(string); return v }
	for _, c := range s.signIns.certificates {
		sum1, sum256 := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
		byOld := text("x5t") == base64.RawURLEncoding.EncodeToString(sum1[:])
		if text("x5t#S256") != base64.RawURLEncoding.EncodeToString(sum256[:]) && !byOld || head.Algorithm == "RS256" && !byOld {
			continue
		}
		payload, err := signed.Verify(c.PublicKey)
		return payload, false, err == nil
	}
	for _, k := range s.signIns.issuers {
		if payload, err := signed.Verify(crypto.PublicKey(k)); err == nil && head.Algorithm == "RS256" {
			return payload, true, true
		}
	}
	return nil, false, false
}

// asked checks the scopes of a sign-in: identity, and permissions of this cloud's Graph. mu is not needed.
func (s *Server) asked(scope string) (scopes []string, refused *tokenRefusal) {
	for _, one := range strings.Fields(scope) {
		name, ours := strings.CutPrefix(one, s.opts.Root+"/")
		switch {
		case slices.Contains([]string{"openid", "profile", "email", "offline_access"}, one):
			scopes = append(scopes, one)
		case strings.Contains(one, "://") && !ours:
			return nil, &tokenRefusal{400, "invalid_resource", 500011, "The resource principal named " + one + " was not found in the tenant."}
		case strings.HasSuffix(name, "ReadWrite") || strings.HasSuffix(name, ".Send"):
			s.violation("P-5: scope %s: a write permission is asked for", name)
			fallthrough
		case graphScopes[strings.ToLower(name)]:
			scopes = append(scopes, name)
		default:
			return nil, &tokenRefusal{400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid. The scope " + one + " does not exist."}
		}
	}
	if len(scopes) == 0 {
		return nil, &tokenRefusal{400, "invalid_request", 900144, "The request body must contain the following parameter: 'scope'."}
	}
	return scopes, nil
}

// graphScopes are the delegated permissions that this Graph knows.
var graphScopes = map[string]bool{
	"mail.read": true, "mail.readbasic": true, "mail.read.shared": true, "calendars.read": true, "calendars.read.shared": true, "user.read": true,
	"mail.readwrite": true, "mail.send": true, "calendars.readwrite": true, "mailboxsettings.read": true,
}

// consentedTo are the scopes that a user, or an administrator for all, agreed to. Identity needs no consent here. mu is
// held.
func (s *Server) consentedTo(g *grant) (granted, lacking []string) {
	for _, scope := range g.scopes {
		name := strings.ToLower(scope)
		if !graphScopes[name] || s.signIns.consented[g.client+"/"+g.user.id+"/"+name] || s.signIns.consented[g.client+"/*/"+name] {
			granted = append(granted, scope)
		} else {
			lacking = append(lacking, scope)
		}
	}
	return granted, lacking
}

// Consent records that a user agreed to permissions for an app; user "*" is an administrator who agrees for everybody.
func (s *Server) Consent(clientID, address string, scopes ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "*"
	if address != "*" {
		u := s.byName[strings.ToLower(address)]
		if u == nil {
			return errNoUser
		}
		id = u.id
	}
	s.consent(clientID, id, scopes)
	return nil
}

// consent records it. mu is held.
func (s *Server) consent(client, userID string, scopes []string) {
	for _, scope := range scopes {
		s.signIns.consented[strings.ToLower(client)+"/"+userID+"/"+strings.ToLower(scope)] = true
	}
}

// WithdrawConsent takes back what a user or an administrator ("*") agreed to for an app.
func (s *Server) WithdrawConsent(clientID, address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "*"
	if u := s.byName[strings.ToLower(address)]; u != nil {
		id = u.id
	} else if address != "*" {
		return errNoUser
	}
	for key := range s.signIns.consented {
		if strings.HasPrefix(key, strings.ToLower(clientID)+"/"+id+"/") {
			delete(s.signIns.consented, key)
		}
	}
	return nil
}

// issue gives out the tokens of a grant. mu is held.
func (s *Server) issue(g *grant, f *family, withID, answered bool) (body map[string]any, refresh string) {
	granted, _ := s.consentedTo(g)
	info := &tokenInfo{expires: time.Now().Add(s.opts.TokenLifetime), user: g.user, scopes: map[string]bool{}, answered: answered}
	var shown []string
	for _, scope := range granted {
		if graphScopes[strings.ToLower(scope)] {
			info.scopes[strings.ToLower(scope)] = true
			shown = append(shown, s.opts.Root+"/"+scope)
		} else if scope != "offline_access" { // which Entra does not list
			shown = append(shown, scope)
		}
	}
	seconds := int(s.opts.TokenLifetime / time.Second)
	body = map[string]any{
		"token_type": "Bearer", "scope": strings.Join(shown, " "), "expires_in": seconds, "ext_expires_in": seconds, "access_token": s.newToken(info),
	}
	if slices.Contains(g.scopes, "offline_access") {
		refresh = s.random()
		s.signIns.refresh[refresh] = &refreshToken{grant: *g, expires: time.Now().Add(refreshLife), family: f}
		body["refresh_token"] = refresh
	}
	if withID && slices.Contains(g.scopes, "openid") {
		body["id_token"] = s.idToken(g)
	}
	return body, refresh
}

// newToken makes an access token, opaque: nothing in it to be read. mu is held.
func (s *Server) newToken(info *tokenInfo) string {
	now := time.Now()
	for t, old := range s.tokens {
		if !now.Before(old.expires) {
			delete(s.tokens, t)
		}
	}
	token := s.random()
	s.tokens[token] = info
	return token
}

// random is 384 bits. mu is held.
func (s *Server) random() string {
	raw := make([]byte, 48)
	s.fill(raw)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// redirectAllowed compares a redirect URI with what is registered: Entra ignores the port of http://localhost.
func (s *Server) redirectAllowed(uri string) bool {
	if slices.Contains(s.opts.RedirectURIs, uri) || uri == s.opts.Root+"/common/oauth2/nativeclient" {
		return true
	}
	u, err := url.Parse(uri)
	return err == nil && u.Scheme == "http" && u.Hostname() == "localhost" && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
}

var errNoDevice = errors.New("no such code")
