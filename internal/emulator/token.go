package emulator

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// tokenRefusal is an error of the token endpoint. Clients act on the error, not on the number in the text.
type tokenRefusal struct {
	status      int
	code        string // the OAuth error
	number      int    // AADSTS
	description string
}

// serveToken is POST /{tenant}/oauth2/v2.0/token.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, op: "token"}
	s.mu.Lock()
	s.strict.requests[q.op]++
	s.checkWait(q)
	s.mu.Unlock()
	f := s.faultFor(q.op, r)
	s.slow(r)
	if f != nil && !f.After && !f.Truncate {
		s.spoil(w, r, q, f)
		return
	}
	a := s.token(r)
	switch {
	case f == nil:
		s.write(w, r, a)
	case f.Truncate:
		s.truncate(w, r, a)
	default:
		s.spoil(w, r, q, f)
	}
}

func (s *Server) token(r *http.Request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/oauth2/v2.0/token")
	body, refused := s.exchange(tenant, r)
	if refused != nil {
		return s.tokenError(*refused)
	}
	return tokenAnswer(http.StatusOK, body)
}

// readForm reads what was posted.
func readForm(r *http.Request) (url.Values, *tokenRefusal) {
	if mediaType(r.Header.Get("Content-Type")) != "application/x-www-form-urlencoded" {
		return url.Values{}, nil
	}
	body, err := readBody(r)
	if err == nil {
		var form url.Values
		if form, err = url.ParseQuery(string(body)); err == nil {
			return form, nil
		}
	}
	return nil, &tokenRefusal{400, "invalid_request", 9000410, "Malformed request body."}
}

// exchange serves one token request: tenant, app, then what the grant asks for. mu is held.
func (s *Server) exchange(tenant string, r *http.Request) (map[string]any, *tokenRefusal) {
	if r.Method != http.MethodPost {
		return nil, &tokenRefusal{400, "invalid_request", 900561, "The endpoint only accepts POST requests. Received a " + r.Method + " request."}
	}
	if r.URL.RawQuery != "" {
		s.violation("C-3: the token request has a query; secrets belong in the body")
	}
	form, refused := readForm(r)
	if refused == nil {
		refused = s.knownTenant(tenant)
	}
	if refused != nil {
		return nil, refused
	}
	missing := func(name string) *tokenRefusal {
		return &tokenRefusal{400, "invalid_request", 900144, "The request body must contain the following parameter: '" + name + "'."}
	}
	switch grant := form.Get("grant_type"); grant {
	case "":
		return nil, missing("grant_type")
	case "client_credentials":
		return s.asApp(r, form, tenant)
	case "authorization_code", "refresh_token", deviceGrant:
	default:
		return nil, &tokenRefusal{400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '" + grant + "'."}
	}
	if _, refused := s.client(r, form, tenant); refused != nil {
		return nil, refused
	}
	answered := strings.Contains(form.Get("claims"), "nbf")
	switch form.Get("grant_type") {
	case "authorization_code":
		return s.byCode(form, answered)
	case "refresh_token":
		return s.byRefresh(form, answered)
	}
	d, refused := s.byDevice(form)
	if refused != nil {
		return nil, refused
	}
	d.user.challenge = ""
	body, _ := s.issue(&d.grant, &family{}, true, true)
	return body, nil
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// asApp is the client credentials grant. mu is held.
func (s *Server) asApp(r *http.Request, form url.Values, tenant string) (map[string]any, *tokenRefusal) {
	switch strings.ToLower(tenant) {
	case "common", "consumers":
		return nil, &tokenRefusal{400, "invalid_request", 9001023, "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."}
	}
	if confidential, refused := s.client(r, form, tenant); refused != nil {
		return nil, refused
	} else if !confidential {
		return nil, &tokenRefusal{401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	switch scope := form.Get("scope"); {
	case scope == "":
		return nil, &tokenRefusal{400, "invalid_request", 900144, "The request body must contain the following parameter: 'scope'."}
	case !strings.HasSuffix(scope, "/.default") || strings.Contains(scope, " "):
		return nil, &tokenRefusal{400, "invalid_scope", 1002012, "The provided value for scope " + scope + " is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."}
	case scope != s.opts.Root+"/.default": // C-3
		return nil, &tokenRefusal{400, "invalid_resource", 500011, "The resource principal named " + strings.TrimSuffix(scope, "/.default") + " was not found in the tenant."}
	}
	return s.appToken(), nil
}

// appToken is the answer to an app. mu is held.
func (s *Server) appToken() map[string]any {
	seconds := int(s.opts.TokenLifetime / time.Second)
	return map[string]any{
		"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds,
		"access_token": s.newToken(&tokenInfo{expires: time.Now().Add(s.opts.TokenLifetime), app: true}),
	}
}

// byCode is the authorization code grant. A code is good once: a second use revokes what the first one gave. mu is held.
func (s *Server) byCode(form url.Values, answered bool) (map[string]any, *tokenRefusal) {
	bad := func(number int, description string) (map[string]any, *tokenRefusal) {
		return nil, &tokenRefusal{400, "invalid_grant", number, description}
	}
	c := s.signIns.codes[form.Get("code")]
	switch {
	case c == nil || c.client != strings.ToLower(form.Get("client_id")):
		return bad(70000, "The provided value for the 'code' parameter is not valid.")
	case c.spent:
		for _, t := range c.used {
			if r := s.signIns.refresh[t]; r != nil {
				r.family.revoked = true
			}
		}
		return bad(54005, "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.")
	case !time.Now().Before(c.expires):
		return bad(70008, "The provided authorization code has expired.")
	case form.Get("redirect_uri") != c.redirect:
		return bad(50011, "The reply URL specified in the request does not match the one the code was issued for.")
	case !pkce(form.Get("code_verifier"), c.challenge):
		return bad(501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	c.spent = true
	c.user.challenge = ""
	body, refresh := s.issue(&c.grant, &family{}, true, answered || c.user.challenge == "")
	c.used = append(c.used, refresh)
	return body, nil
}

// byRefresh is the refresh token grant. Entra gives a new refresh token each time and lets the old one live; a strict
// server takes the old one for stolen, and revokes all that came from it. mu is held.
func (s *Server) byRefresh(form url.Values, answered bool) (map[string]any, *tokenRefusal) {
	bad := func(code string, number int, description string) (map[string]any, *tokenRefusal) {
		return nil, &tokenRefusal{400, code, number, description}
	}
	t := s.signIns.refresh[form.Get("refresh_token")]
	switch {
	case t == nil || t.client != strings.ToLower(form.Get("client_id")):
		return bad("invalid_grant", 70000, "The provided value for the 'refresh_token' parameter is not valid.")
	case t.family.revoked:
		return bad("invalid_grant", 50173, "The provided grant has expired due to it being revoked, a fresh auth token is needed.")
	case !time.Now().Before(t.expires):
		return bad("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
	case t.user.interaction:
		return bad("interaction_required", 50076, "Due to a configuration change made by your administrator, you must use multi-factor authentication.")
	case s.opts.StrictRotation && t.replaced:
		t.family.revoked = true
		return bad("invalid_grant", 70000, "The refresh token was used already.")
	}
	next := t.grant
	if scope := form.Get("scope"); scope != "" {
		scopes, refused := s.asked(scope)
		if refused != nil {
			return nil, refused
		}
		next.scopes = scopes
	}
	granted, lacking := s.consentedTo(&next)
	if len(lacking) > 0 && len(granted)+len(lacking) > 0 && !hasPermission(granted) {
		return bad("invalid_grant", 65001, "The user or administrator has not consented to use the application.")
	}
	t.replaced = true
	if answered {
		t.user.challenge = ""
	}
	body, _ := s.issue(&next, t.family, true, answered || t.user.challenge == "")
	return body, nil
}

// hasPermission reports whether a permission of Graph is among scopes.
func hasPermission(scopes []string) bool {
	for _, scope := range scopes {
		if graphScopes[strings.ToLower(scope)] {
			return true
		}
	}
	return false
}

// serveManagedIdentity is the metadata service of an Azure VM.
func (s *Server) serveManagedIdentity(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	q := r.URL.Query()
	var a answer
	switch {
	case r.Header.Get("Metadata") != "true":
		a = s.tokenError(tokenRefusal{400, "invalid_request", 0, "Required metadata header not specified"})
	case q.Get("api-version") != "2018-02-01":
		a = s.tokenError(tokenRefusal{400, "bad_request_102", 0, "Required api-version is missing"})
	case q.Get("resource") != s.opts.Root:
		a = s.tokenError(tokenRefusal{400, "invalid_resource", 500011, "The resource principal named " + q.Get("resource") + " was not found in the tenant."})
	case q.Get("client_id") != "" && !strings.EqualFold(q.Get("client_id"), s.opts.ClientID):
		a = s.tokenError(tokenRefusal{400, "invalid_request", 0, "Identity not found"})
	default:
		body := s.appToken()
		body["expires_in"] = itoa(int(s.opts.TokenLifetime / time.Second)) // as text, here
		a = tokenAnswer(http.StatusOK, body)
	}
	s.mu.Unlock()
	s.write(w, r, a)
}

func (s *Server) tokenError(t tokenRefusal) answer {
	trace, correlation := s.guid(), s.guid()
	now := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	number := json.Number(itoa(t.number))
	return tokenAnswer(t.status, map[string]any{
		"error": t.code,
		"error_description": "AADSTS" + number.String() + ": " + t.description +
			" Trace ID: " + trace + " Correlation ID: " + correlation + " Timestamp: " + now,
		"error_codes": []json.Number{number}, "timestamp": now, "trace_id": trace, "correlation_id": correlation,
	})
}

func tokenAnswer(status int, body map[string]any) answer {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers
	}
	return answer{status: status, body: b}.with("Content-Type", "application/json; charset=utf-8").with("Cache-Control", "no-store, no-cache")
}

var (
	answerTokenEmpty   = unauthenticated("Access token is empty.")
	answerTokenUnknown = unauthenticated("CompactToken parsing failed with error code: 80049217")
	answerTokenExpired = unauthenticated("Lifetime validation failed, the token is expired.")
)

func unauthenticated(message string) answer {
	return fail(http.StatusUnauthorized, "InvalidAuthenticationToken", message).
		with("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`)
}
