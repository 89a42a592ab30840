package emulator

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// pages are plain: no script, labels for everything.
var pages = template.Must(template.New("pages").Parse(`
{{define "head"}}<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
label,button,input,select{font:inherit}button{margin:1rem .5rem 0 0;padding:.3rem 1rem}li{font-family:ui-monospace,monospace}</style></head>
<body><main><h1>{{.Title}}</h1>{{end}}
{{define "foot"}}</main></body></html>{{end}}
{{define "authorize"}}{{template "head" .}}
<p>App <code>{{.Client}}</code> asks for:</p><ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
<form method="post">
<p><label for="user">Sign in as</label> <select id="user" name="user">{{range .Users}}<option{{if eq . $.Hint}} selected{{end}}>{{.}}</option>{{end}}</select></p>
<button name="answer" value="accept">Accept</button><button name="answer" value="decline">Decline</button>
<button name="answer" value="admin">Consent for the whole organization</button>
</form>{{template "foot"}}{{end}}
{{define "device"}}{{template "head" .}}
<form method="post">
<p><label for="code">Code</label> <input id="code" name="code" value="{{.Code}}" autocomplete="off" required></p>
<p><label for="user">Sign in as</label> <select id="user" name="user">{{range .Users}}<option>{{.}}</option>{{end}}</select></p>
<button name="answer" value="accept">Accept</button><button name="answer" value="decline">Decline</button>
</form>{{template "foot"}}{{end}}
{{define "admin"}}{{template "head" .}}
<p>App <code>{{.Client}}</code> asks for, in the whole organization:</p><ul>{{range .Scopes}}<li>{{.}}</li>{{end}}</ul>
<form method="post"><button name="answer" value="accept">Accept</button><button name="answer" value="decline">Decline</button></form>{{template "foot"}}{{end}}
{{define "message"}}{{template "head" .}}<p>{{.Text}}</p>{{template "foot"}}{{end}}`))

// page is what a page shows.
type page struct {
	Title, Client, Hint, Code, Text string
	Scopes, Users                   []string
}

func (s *Server) render(w http.ResponseWriter, status int, name string, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action *")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, p); err != nil {
		s.opts.Log.Debug().Err(err).Msg("page not sent")
	}
}

// refusePage shows what Entra shows when it cannot even send the browser back.
func (s *Server) refusePage(w http.ResponseWriter, t *tokenRefusal) {
	s.render(w, t.status, "message", page{Title: "Sign-in refused", Text: "AADSTS" + itoa(t.number) + ": " + t.description})
}

// authorization is a request to sign in that was understood.
type authorization struct {
	grant
	redirect, state, challenge string
}

// serveAuthorize is GET and POST /{tenant}/oauth2/v2.0/authorize: a page on which one of the users signs in and consents.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request, tenant string) {
	a, refused := s.understand(r.URL.Query(), tenant)
	if refused != nil {
		s.refusePage(w, refused)
		return
	}
	if r.Method == http.MethodGet {
		s.render(w, http.StatusOK, "authorize", page{
			Title: "Sign in to the emulator", Client: a.client, Scopes: a.scopes, Users: s.addresses(), Hint: r.URL.Query().Get("login_hint"),
		})
		return
	}
	if err := r.ParseForm(); err != nil || r.Method != http.MethodPost {
		s.refusePage(w, &tokenRefusal{400, "invalid_request", 9000410, "Malformed request."})
		return
	}
	http.Redirect(w, r, s.signIn(a, tenant, r.PostForm.Get("user"), r.PostForm.Get("answer")), http.StatusFound)
}

// understand checks an authorization request as far as the browser cannot be sent back.
func (s *Server) understand(q url.Values, tenant string) (a authorization, refused *tokenRefusal) {
	bad := func(code string, number int, description string) *tokenRefusal {
		return &tokenRefusal{400, code, number, description}
	}
	if refused := s.knownTenant(tenant); refused != nil {
		return a, refused
	}
	a = authorization{redirect: q.Get("redirect_uri"), state: q.Get("state"), challenge: q.Get("code_challenge")}
	a.client, a.nonce = strings.ToLower(q.Get("client_id")), q.Get("nonce")
	public := a.client == strings.ToLower(s.opts.PublicClientID)
	switch {
	case !public && a.client != strings.ToLower(s.opts.ClientID):
		return a, bad("unauthorized_client", 700016, "Application with identifier '"+a.client+"' was not found in the directory.")
	case !s.redirectAllowed(a.redirect):
		return a, bad("invalid_request", 50011, "The redirect URI '"+a.redirect+"' specified in the request does not match the redirect URIs configured for the application.")
	case q.Get("response_type") != "code":
		return a, bad("unsupported_response_type", 700054, "response_type is not enabled for the application.")
	case a.challenge != "" && q.Get("code_challenge_method") != "S256", public && a.challenge == "":
		return a, bad("invalid_request", 501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	if a.challenge == "" {
		s.mu.Lock()
		s.violation("RFC 9700: an authorization request without PKCE")
		s.mu.Unlock()
	}
	if a.state == "" {
		s.mu.Lock()
		s.violation("RFC 6749 10.12: an authorization request without state")
		s.mu.Unlock()
	}
	a.scopes, refused = s.asked(q.Get("scope"))
	return a, refused
}

// signIn is what a user does on the page. It returns where the browser goes.
func (s *Server) signIn(a authorization, tenant, address, answer string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	back := func(q url.Values) string {
		q.Set("state", a.state)
		return a.redirect + "?" + q.Encode()
	}
	fail := func(code, description string) string {
		return back(url.Values{"error": {code}, "error_description": {description}})
	}
	a.user = s.byName[strings.ToLower(address)]
	switch {
	case a.user == nil:
		return fail("access_denied", "AADSTS50034: The user account does not exist in the directory.")
	case a.user.personal && tenant != "common" && tenant != "consumers", !a.user.personal && tenant == "consumers":
		return fail("access_denied", "AADSTS50020: User account from identity provider does not exist in tenant.")
	case answer == "decline":
		return fail("access_denied", "AADSTS65004: User declined to consent to access the app.")
	case answer != "accept" && answer != "admin":
		return fail("server_error", "AADSTS90020: The answer is missing.")
	case s.opts.AdminConsentOnly && answer != "admin":
		if _, lacking := s.consentedTo(&a.grant); len(lacking) > 0 {
			return fail("access_denied", "AADSTS90094: An administrator of the organization has set a policy that prevents you from granting the app the permissions it is requesting.")
		}
	}
	if answer == "admin" {
		s.consent(a.client, "*", a.scopes)
	} else {
		s.consent(a.client, a.user.id, a.scopes)
	}
	a.user.interaction = false
	value := s.random()
	s.signIns.codes[value] = &code{grant: a.grant, redirect: a.redirect, challenge: a.challenge, expires: time.Now().Add(codeLife)}
	return back(url.Values{"code": {value}})
}

// SignIn does what a user does in the browser: opens an address of an authorization request, signs in, and accepts. It
// returns the address at which the browser ends.
func (s *Server) SignIn(authorizeURL, address, answer string) (redirected string, err error) {
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return "", err
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	a, refused := s.understand(u.Query(), tenant)
	if refused != nil {
		return "", refused
	}
	return s.signIn(a, strings.ToLower(tenant), address, answer), nil
}

// Error lets a refusal be an error of the Go API.
func (t *tokenRefusal) Error() string { return "AADSTS" + itoa(t.number) + ": " + t.description }

func (s *Server) addresses() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		out = append(out, u.address)
	}
	return out
}

// knownTenant refuses tenants that are not here, or live in another cloud.
func (s *Server) knownTenant(tenant string) *tokenRefusal {
	switch t := strings.ToLower(tenant); {
	case s.opts.OtherCloud:
		return &tokenRefusal{400, "invalid_request", 900432, "Confidential Client is not supported in Cross Cloud request."}
	case t == "common", t == "organizations", t == "consumers", t == personalTenant, t == strings.ToLower(s.opts.Tenant):
		return nil
	}
	return &tokenRefusal{400, "invalid_request", 90002, "Tenant '" + tenant + "' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."}
}

// serveAdminConsent is GET and POST /{tenant}/v2.0/adminconsent.
func (s *Server) serveAdminConsent(w http.ResponseWriter, r *http.Request, tenant string) {
	q := r.URL.Query()
	client := strings.ToLower(q.Get("client_id"))
	var scopes []string
	refused := s.knownTenant(tenant)
	switch {
	case refused != nil:
	case tenant == "common" || tenant == "consumers":
		refused = &tokenRefusal{400, "invalid_request", 90112, "Admin consent needs a tenant, or organizations."}
	case client != strings.ToLower(s.opts.ClientID) && client != strings.ToLower(s.opts.PublicClientID):
		refused = &tokenRefusal{400, "unauthorized_client", 700016, "Application with identifier '" + client + "' was not found in the directory."}
	case q.Get("redirect_uri") != "" && !s.redirectAllowed(q.Get("redirect_uri")):
		refused = &tokenRefusal{400, "invalid_request", 50011, "The redirect URI is not registered."}
	case q.Get("scope") == s.opts.Root+"/.default":
		scopes = []string{"Mail.Read (application)"}
	default:
		scopes, refused = s.asked(q.Get("scope"))
	}
	if refused != nil {
		s.refusePage(w, refused)
		return
	}
	if r.Method != http.MethodPost {
		s.render(w, http.StatusOK, "admin", page{Title: "Consent for the organization", Client: client, Scopes: scopes})
		return
	}
	back := url.Values{"admin_consent": {"True"}, "state": {q.Get("state")}}
	if err := r.ParseForm(); err != nil || r.PostForm.Get("answer") != "accept" {
		back.Set("error", "access_denied")
		back.Set("error_description", "AADSTS65004: User declined to consent to access the app.")
	} else {
		s.mu.Lock()
		s.consent(client, "*", scopes)
		s.mu.Unlock()
		back.Set("tenant", s.opts.Tenant)
		back.Set("scope", q.Get("scope"))
	}
	if q.Get("redirect_uri") == "" {
		s.render(w, http.StatusOK, "message", page{Title: "Consent", Text: "Done. This window can be closed."})
		return
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// pkce compares a verifier with its challenge.
func pkce(verifier, challenge string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}
