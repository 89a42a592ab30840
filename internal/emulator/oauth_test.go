package emulator

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	ada      = "ada@contoso.com"
	redirect = "http://localhost:8400"
	verifier = "0123456789012345678901234567890123456789012"
)

// entra is an emulator with a user, and what a client does there.
type entra struct {
	*Server
	t *testing.T
}

func newEntra(t *testing.T, o Options) *entra {
	t.Helper()
	s := New(o)
	s.AddUser(ada)
	return &entra{s, t}
}

func (e *entra) post(path string, form url.Values) (int, map[string]any) {
	e.t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://graph.test"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	out := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		e.t.Fatalf("%s answers %s", path, w.Body)
	}
	return w.Code, out
}

func (e *entra) get(path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://graph.test"+path, http.NoBody)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Prefer", `IdType="ImmutableId"`)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

// authorize is the query of an authorization request.
func authorizeQuery(edit func(url.Values)) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {DefaultPublicClientID}, "redirect_uri": {redirect}, "response_type": {"code"}, "state": {"s"}, "nonce": {"n"},
		"scope":          {"openid profile offline_access http://graph.test/Mail.Read"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if edit != nil {
		edit(q)
	}
	return q
}

// code signs ada in.
func (e *entra) code(edit func(url.Values)) url.Values {
	e.t.Helper()
	back, err := e.SignIn("http://graph.test/common/oauth2/v2.0/authorize?"+authorizeQuery(edit).Encode(), ada, "accept")
	if err != nil {
		e.t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil {
		e.t.Fatal(err)
	}
	return u.Query()
}

func codeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "client_id": {DefaultPublicClientID}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}}
}

const tokenPath = "/common/oauth2/v2.0/token"

func wantRefusal(t *testing.T, what string, status int, out map[string]any, code string, number float64) {
	t.Helper()
	numbers, _ := out["error_codes"].([]any)
	if status < 400 || out["error"] != code || len(numbers) != 1 || numbers[0] != number {
		t.Errorf("%s: %d %v, want %s AADSTS%v", what, status, out, code, number)
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	e := newEntra(t, Options{})
	tests := []struct {
		name, tenant, want string
		edit               func(url.Values)
	}{
		{"an unknown app", "common", "AADSTS700016", func(q url.Values) { q.Set("client_id", "x") }},
		{"a redirect URI that is not registered", "common", "AADSTS50011", func(q url.Values) { q.Set("redirect_uri", "https://evil.example") }},
		{"localhost with a path", "common", "AADSTS50011", func(q url.Values) { q.Set("redirect_uri", "http://localhost/x") }},
		{"no PKCE from a public app", "common", "AADSTS501481", func(q url.Values) { q.Del("code_challenge") }},
		{"plain PKCE", "common", "AADSTS501481", func(q url.Values) { q.Set("code_challenge_method", "plain") }},
		{"another cloud's Graph", "common", "AADSTS500011", func(q url.Values) { q.Set("scope", "https://graph.microsoft.us/Mail.Read") }},
		{"an unknown scope", "common", "AADSTS70011", func(q url.Values) { q.Set("scope", "http://graph.test/Mail.Reed") }},
		{"no scope", "common", "AADSTS900144", func(q url.Values) { q.Del("scope") }},
		{"an unknown tenant", "fabrikam.com", "AADSTS90002", nil},
		{"an implicit grant", "common", "AADSTS700054", func(q url.Values) { q.Set("response_type", "token") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://graph.test/"+tt.tenant+"/oauth2/v2.0/authorize?"+authorizeQuery(tt.edit).Encode(), http.NoBody))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s, want %s", w.Code, w.Body, tt.want)
			}
		})
	}
	if v := e.Violations(); len(v) > 0 {
		t.Errorf("violations %v", v)
	}
}

func TestThePagesCanBeUsedByAnybody(t *testing.T) {
	e := newEntra(t, Options{})
	for path, labels := range map[string][]string{
		"/common/oauth2/v2.0/authorize?" + authorizeQuery(nil).Encode(): {`<label for="user">`, "Mail.Read", ">Accept<", ">Decline<"},
		"/devicelogin": {`<label for="code">`, `<label for="user">`},
		"/organizations/v2.0/adminconsent?client_id=" + DefaultPublicClientID + "&scope=http://graph.test/Mail.Read": {"in the whole organization"},
	} {
		w := e.get(path, "")
		for _, want := range append(labels, `<html lang="en">`, "<title>", "<h1>") {
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: %d, without %s:\n%s", path, w.Code, want, w.Body)
			}
		}
		if strings.Contains(w.Body.String(), "<script") || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s has a script, or may have one", path)
		}
	}
}

func TestCodesAreGoodOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntra(t, Options{})
		back := e.code(nil)
		if back.Get("state") != "s" {
			t.Errorf("state %q", back.Get("state"))
		}
		form := codeForm(back.Get("code"))
		form.Set("code_verifier", strings.Repeat("x", 43))
		status, out := e.post(tokenPath, form)
		wantRefusal(t, "wrong verifier", status, out, "invalid_grant", 501481)
		form = codeForm(back.Get("code"))
		form.Set("redirect_uri", "http://localhost:1")
		status, out = e.post(tokenPath, form)
		wantRefusal(t, "another redirect URI", status, out, "invalid_grant", 50011)
		form = codeForm(back.Get("code"))
		form.Set("client_secret", "x")
		status, out = e.post(tokenPath, form)
		wantRefusal(t, "a secret of a public app", status, out, "invalid_client", 700025)
		status, out = e.post(tokenPath, codeForm(back.Get("code")))
		if status != http.StatusOK || out["refresh_token"] == "" || out["id_token"] == "" || out["scope"] != "openid profile http://graph.test/Mail.Read" {
			t.Fatalf("%d %v", status, out)
		}
		refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {DefaultPublicClientID}, "refresh_token": {out["refresh_token"].(string)}}
		status, again := e.post(tokenPath, codeForm(back.Get("code")))
		wantRefusal(t, "a code used twice", status, again, "invalid_grant", 54005)
		status, out = e.post(tokenPath, refresh)
		wantRefusal(t, "what a stolen code gave", status, out, "invalid_grant", 50173)
		late := e.code(nil)
		time.Sleep(codeLife)
		status, out = e.post(tokenPath, codeForm(late.Get("code")))
		wantRefusal(t, "an old code", status, out, "invalid_grant", 70008)
	})
}

func TestRotation(t *testing.T) {
	for _, strict := range []bool{false, true} {
		e := newEntra(t, Options{StrictRotation: strict})
		_, out := e.post(tokenPath, codeForm(e.code(nil).Get("code")))
		first := out["refresh_token"].(string)
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {DefaultPublicClientID}, "refresh_token": {first}}
		status, next := e.post(tokenPath, form)
		if status != http.StatusOK || next["refresh_token"] == first {
			t.Fatalf("%d %v", status, next)
		}
		status, out = e.post(tokenPath, form)
		if !strict && status != http.StatusOK {
			t.Errorf("Entra lets the old one live: %v", out)
		}
		form.Set("refresh_token", next["refresh_token"].(string))
		if strict {
			wantRefusal(t, "reuse", status, out, "invalid_grant", 70000)
			status, out = e.post(tokenPath, form)
			wantRefusal(t, "the newer one after reuse", status, out, "invalid_grant", 50173)
		}
		form.Set("refresh_token", "x")
		status, out = e.post(tokenPath, form)
		wantRefusal(t, "an unknown one", status, out, "invalid_grant", 70000)
		form.Set("client_id", "x")
		status, out = e.post(tokenPath, form)
		wantRefusal(t, "another app", status, out, "unauthorized_client", 700016)
	}
}

func TestWhatAUserMayRead(t *testing.T) {
	e := newEntra(t, Options{})
	e.AddUser("support@contoso.com")
	sign := func(scope string) string {
		t.Helper()
		_, out := e.post(tokenPath, codeForm(e.code(func(q url.Values) { q.Set("scope", "openid profile offline_access "+scope) }).Get("code")))
		return out["access_token"].(string)
	}
	own, shared, none := sign("http://graph.test/Mail.Read"), sign("http://graph.test/Mail.Read.Shared"), sign("http://graph.test/User.Read")
	_, out := e.post("/"+DefaultTenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultClientSecret}, "scope": {"http://graph.test/.default"},
	})
	app := out["access_token"].(string)
	read := func(what, owner, token string, want int) {
		t.Helper()
		if w := e.get("/v1.0/"+owner+"/mailFolders/inbox", token); w.Code != want {
			t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, want)
		}
	}
	const other = "users/support@contoso.com"
	read("the own mailbox", "me", own, 200)
	read("the own mailbox by its address", "users/"+ada, own, 200)
	read("without Mail.Read", "me", none, 403)
	read("somebody else's with Mail.Read", other, own, 403)
	read("somebody else's that is not shared", other, shared, 403)
	if err := e.Share("support@contoso.com", ada); err != nil {
		t.Fatal(err)
	}
	read("somebody else's that is shared", other, shared, 200)
	read("the same with Mail.Read only", other, own, 403)
	read("an app", other, app, 200)
	read("an app without a user", "me", app, 400)
	if err := e.Challenge(ada); err != nil {
		t.Fatal(err)
	}
	w := e.get("/v1.0/me/mailFolders/inbox", own)
	if w.Code != 401 || !strings.Contains(w.Header().Get("WWW-Authenticate"), `error="insufficient_claims", claims="`) {
		t.Errorf("challenged: %d %v", w.Code, w.Header())
	}
	if err := e.Revoke("nobody@contoso.com"); err == nil {
		t.Error("a stranger was revoked")
	}
}

func TestWhatAUserMayReadOfCalendars(t *testing.T) {
	e := newEntra(t, Options{})
	e.AddUser("support@contoso.com")
	sign := func(scope string) string {
		t.Helper()
		_, out := e.post(tokenPath, codeForm(e.code(func(q url.Values) { q.Set("scope", "openid profile offline_access "+scope) }).Get("code")))
		return out["access_token"].(string)
	}
	own, shared := sign("http://graph.test/Calendars.Read"), sign("http://graph.test/Calendars.Read.Shared")
	mail, settings := sign("http://graph.test/Mail.Read http://graph.test/Mail.Read.Shared"), sign("http://graph.test/MailboxSettings.Read")
	id, err := e.AddMeeting("support@contoso.com", Meeting{Start: at("2000-01-05T07:00Z")})
	if err != nil {
		t.Fatal(err)
	}
	read := func(what, path, token string, want int) {
		t.Helper()
		if w := e.get("/v1.0/"+path, token); w.Code != want {
			t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, want)
		}
	}
	const other = "users/support@contoso.com"
	below := other + "/calendars/" + e.DefaultCalendarID("support@contoso.com") + "/events/" + id
	read("the own calendar", "me/calendar", own, 200)
	read("the own calendar with the shared permission", "me/calendars", shared, 200)
	read("the own calendar with Mail.Read", "me/calendar", mail, 403)
	read("the own mail with Calendars.Read", "me/messages", own, 403)
	read("the own settings", "me/mailboxSettings/timeZone", settings, 200)
	read("the own settings with Calendars.Read", "me/mailboxSettings", own, 403)
	read("somebody else's that is not shared", other+"/calendar", shared, 403)
	if err := e.Share("support@contoso.com", ada); err != nil {
		t.Fatal(err)
	}
	read("somebody else's with Calendars.Read", other+"/calendar", own, 403)
	read("somebody else's with Mail.Read.Shared", other+"/calendar", mail, 403)
	read("somebody else's that is shared", other+"/calendarView"+january, shared, 200)
	read("its delta", other+"/calendarView/delta"+january, shared, 200)
	read("an event below its calendar", below, shared, 200)
	read("the same below the mailbox", other+"/events/"+id, shared, 404) // D-36c
	read("somebody else's settings", other+"/mailboxSettings", settings, 403)
}

func TestWhoMaySubscribeToCalendars(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		other := w.AddUser("other@contoso.com")
		w.do(w.Share("other@contoso.com", mailbox))
		token := func(scopes ...string) string {
			info := &tokenInfo{user: w.users[0], scopes: map[string]bool{}, expires: time.Now().Add(time.Hour)}
			for _, s := range scopes {
				info.scopes[s] = true
			}
			w.Server.mu.Lock()
			defer w.Server.mu.Unlock()
			return w.newToken(info)
		}
		for _, c := range []struct {
			name, resource, token string
			status                int
		}{
			{"the own mailbox", "me/events", token("calendars.read"), 201},
			{"with a mail permission", "me/events", token("mail.read"), 403},
			{"with a shared permission", "me/events", token("calendars.read.shared"), 403},
			{"somebody else's", "users/" + other.ID + "/events", token("calendars.read", "calendars.read.shared"), 403},
			{"messages with a calendar permission", "me/messages", token("calendars.read"), 403},
		} {
			body := w.subscription("", "created", "resource", `"`+c.resource+`"`)
			r := w.send("POST", w.root+"/subscriptions", body, "Authorization", "Bearer "+c.token,
				"Content-Type", "application/json", "Prefer", `IdType="ImmutableId"`)
			if r.status != c.status {
				t.Errorf("%s: %d %s, want %d", c.name, r.status, r.raw, c.status)
			}
			if c.status == 403 {
				w.wantViolation("P-6, P-7: ")
			}
		}
	})
}

func TestPersonalAccounts(t *testing.T) {
	e := newEntra(t, Options{})
	e.AddPersonalUser("bob@outlook.com")
	for tenant, ok := range map[string]bool{"common": true, "consumers": true, "organizations": false, DefaultTenant: false} {
		back, err := e.SignIn("http://graph.test/"+tenant+"/oauth2/v2.0/authorize?"+authorizeQuery(nil).Encode(), "bob@outlook.com", "accept")
		if err != nil || strings.Contains(back, "code=") != ok {
			t.Errorf("%s: %s, %v", tenant, back, err)
		}
	}
	w := e.get("/common/v2.0/.well-known/openid-configuration", "")
	if !strings.Contains(w.Body.String(), `/{tenantid}/v2.0`) {
		t.Errorf("metadata of common: %s", w.Body)
	}
	if w := e.get("/fabrikam.com/v2.0/.well-known/openid-configuration", ""); w.Code != 400 {
		t.Errorf("metadata of a stranger: %d", w.Code)
	}
}

func TestAdminConsent(t *testing.T) {
	e := newEntra(t, Options{AdminConsentOnly: true})
	back, err := e.SignIn("http://graph.test/common/oauth2/v2.0/authorize?"+authorizeQuery(nil).Encode(), ada, "accept")
	if err != nil || !strings.Contains(back, "AADSTS90094") {
		t.Errorf("a user consented: %s, %v", back, err)
	}
	ask := func(tenant, answer string) *httptest.ResponseRecorder {
		q := url.Values{"client_id": {DefaultPublicClientID}, "scope": {"http://graph.test/Mail.Read"}, "redirect_uri": {redirect}, "state": {"s"}}
		r := httptest.NewRequest(http.MethodPost, "http://graph.test/"+tenant+"/v2.0/adminconsent?"+q.Encode(), strings.NewReader("answer="+answer))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		return w
	}
	if w := ask("common", "accept"); w.Code != 400 {
		t.Errorf("on common: %d", w.Code)
	}
	if to := ask("organizations", "decline").Header().Get("Location"); !strings.Contains(to, "error=access_denied") || !strings.Contains(to, "admin_consent=True") {
		t.Errorf("declined: %s", to)
	}
	if to := ask("organizations", "accept").Header().Get("Location"); !strings.Contains(to, "admin_consent=True") || !strings.Contains(to, "tenant="+DefaultTenant) || !strings.Contains(to, "state=s") {
		t.Errorf("accepted: %s", to)
	}
	if e.code(nil).Get("code") == "" {
		t.Error("the user cannot sign in after the administrator consented")
	}
}

func TestDeviceCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntra(t, Options{})
		begin := func() (code, userCode string) {
			t.Helper()
			status, out := e.post("/common/oauth2/v2.0/devicecode", url.Values{"client_id": {DefaultPublicClientID}, "scope": {"openid profile offline_access http://graph.test/Mail.Read"}})
			if status != 200 || out["verification_uri"] != "http://graph.test/devicelogin" {
				t.Fatal(status, out)
			}
			return out["device_code"].(string), out["user_code"].(string)
		}
		poll := func(code string) (int, map[string]any) {
			return e.post(tokenPath, url.Values{"grant_type": {deviceGrant}, "client_id": {DefaultPublicClientID}, "device_code": {code}})
		}
		code, userCode := begin()
		status, out := poll(code)
		wantRefusal(t, "nobody came yet", status, out, "authorization_pending", 70016)
		status, out = poll(code)
		wantRefusal(t, "too fast", status, out, "slow_down", 70016)
		if err := e.EnterDeviceCode("WRONGCODE", ada, true); err == nil {
			t.Error("a wrong code was taken")
		}
		if err := e.EnterDeviceCode(strings.ToLower(userCode), ada, true); err != nil {
			t.Error(err)
		}
		if status, out = poll(code); status != 200 || out["refresh_token"] == nil {
			t.Errorf("%d %v", status, out)
		}
		status, out = poll(code)
		wantRefusal(t, "a code used twice", status, out, "bad_verification_code", 70018)
		code, _ = begin()
		time.Sleep(deviceLife)
		status, out = poll(code)
		wantRefusal(t, "an old code", status, out, "expired_token", 70020)
		status, out = e.post("/common/oauth2/v2.0/devicecode", url.Values{"client_id": {DefaultClientID}, "scope": {"openid"}})
		wantRefusal(t, "a confidential app", status, out, "invalid_client", 7000218)
		e.opts.BlockDeviceFlow = true
		status, out = e.post("/common/oauth2/v2.0/devicecode", url.Values{"client_id": {DefaultPublicClientID}, "scope": {"openid"}})
		wantRefusal(t, "blocked by policy", status, out, "invalid_grant", 53003)
	})
}
