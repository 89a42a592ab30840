package emulator

import (
	"crypto/subtle"
	"encoding/base64"
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

// serveToken is POST /{tenant}/oauth2/v2.0/token with the client credentials grant and a secret.
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
	if refused := s.refuseToken(tenant, r); refused != nil {
		return s.tokenError(*refused)
	}
	raw := make([]byte, 48)
	s.fill(raw)
	token := base64.RawURLEncoding.EncodeToString(raw) // opaque: nothing in it to be read
	now := time.Now()
	for t, expiry := range s.tokens {
		if !now.Before(expiry) {
			delete(s.tokens, t)
		}
	}
	s.tokens[token] = now.Add(s.opts.TokenLifetime)
	seconds := int(s.opts.TokenLifetime / time.Second)
	return tokenAnswer(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
	})
}

// refuseToken checks a token request as Entra does: tenant, grant, app, secret, scope. mu is held.
func (s *Server) refuseToken(tenant string, r *http.Request) *tokenRefusal {
	bad := func(status int, code string, number int, description string) *tokenRefusal {
		return &tokenRefusal{status, code, number, description}
	}
	if r.Method != http.MethodPost {
		return bad(400, "invalid_request", 900561, "The endpoint only accepts POST requests. Received a "+r.Method+" request.")
	}
	if r.URL.RawQuery != "" {
		s.violation("C-3: the token request has a query; secrets belong in the body")
	}
	switch strings.ToLower(tenant) {
	case "common", "consumers":
		return bad(400, "invalid_request", 9001023, "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint.")
	case strings.ToLower(s.opts.Tenant):
	default:
		return bad(400, "invalid_request", 90002, "Tenant '"+tenant+"' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.")
	}
	form := url.Values{}
	if mediaType(r.Header.Get("Content-Type")) == "application/x-www-form-urlencoded" {
		body, err := readBody(r)
		if err == nil {
			form, err = url.ParseQuery(string(body))
		}
		if err != nil {
			return bad(400, "invalid_request", 9000410, "Malformed request body.")
		}
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(pass)
	}
	missing := func(name string) *tokenRefusal {
		return bad(400, "invalid_request", 900144, "The request body must contain the following parameter: '"+name+"'.")
	}
	switch grant := form.Get("grant_type"); {
	case grant == "":
		return missing("grant_type")
	case grant != "client_credentials":
		return bad(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '"+grant+"'.")
	case id == "":
		return missing("client_id")
	case !strings.EqualFold(id, s.opts.ClientID):
		return bad(400, "unauthorized_client", 700016, "Application with identifier '"+id+"' was not found in the directory. This can happen if the application has not been installed by the administrator of the tenant.")
	case secret == "":
		return bad(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case subtle.ConstantTimeCompare([]byte(secret), []byte(s.opts.ClientSecret)) != 1:
		return bad(401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.")
	}
	switch scope := form.Get("scope"); {
	case scope == "":
		return missing("scope")
	case !strings.HasSuffix(scope, "/.default") || strings.Contains(scope, " "):
		return bad(400, "invalid_scope", 1002012, "The provided value for scope "+scope+" is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.")
	case scope != s.opts.Root+"/.default": // C-3
		return bad(400, "invalid_resource", 500011, "The resource principal named "+strings.TrimSuffix(scope, "/.default")+" was not found in the tenant.")
	}
	return nil
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

// authorize checks the access token.
func (s *Server) authorize(r *http.Request) (answer, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); token == "" || !strings.EqualFold(scheme, "Bearer") {
		return answerTokenEmpty, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	expiry, known := s.tokens[token]
	switch {
	case !known:
		return answerTokenUnknown, false
	case !time.Now().Before(expiry):
		return answerTokenExpired, false
	}
	return answer{}, true
}
