package emulator

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTokenRequestsAreCheckedAsEntraDoes(t *testing.T) {
	for _, c := range []struct {
		name, tenant string
		edit         map[string]string
		status       int
		code, number string
	}{
		{"right", "", nil, 200, "", ""},
		{"no grant", "", map[string]string{"grant_type": ""}, 400, "invalid_request", "AADSTS900144"},
		{"another grant", "", map[string]string{"grant_type": "password"}, 400, "unsupported_grant_type", "AADSTS70003"},
		{"no app", "", map[string]string{"client_id": ""}, 400, "invalid_request", "AADSTS900144"},
		{"unknown app", "", map[string]string{"client_id": "x"}, 400, "unauthorized_client", "AADSTS700016"},
		{"no secret", "", map[string]string{"client_secret": ""}, 401, "invalid_client", "AADSTS7000218"},
		{"wrong secret", "", map[string]string{"client_secret": "x"}, 401, "invalid_client", "AADSTS7000215"},
		{"no scope", "", map[string]string{"scope": ""}, 400, "invalid_request", "AADSTS900144"},
		{"delegated scope", "", map[string]string{"scope": "Mail.Read"}, 400, "invalid_scope", "AADSTS1002012"},
		{"two scopes", "", map[string]string{"scope": "http://graph.test/.default http://graph.test/.default"}, 400, "invalid_scope", "AADSTS1002012"},
		{"another resource", "", map[string]string{"scope": "https://graph.microsoft.us/.default"}, 400, "invalid_resource", "AADSTS500011"},
		{"version in the scope", "", map[string]string{"scope": "http://graph.test/v1.0/.default"}, 400, "invalid_resource", "AADSTS500011"},
		{"unknown tenant", "contoso.example", nil, 400, "invalid_request", "AADSTS90002"},
		{"common", "common", nil, 400, "invalid_request", "AADSTS9001023"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, w *world) {
				tenant := c.tenant
				if tenant == "" {
					tenant = DefaultTenant
				}
				r := w.tokenRequest(tenant, c.edit)
				if r.status != c.status || r.text("error") != c.code || !strings.HasPrefix(r.text("error_description"), c.number) {
					t.Errorf("%d %s, want %d %s %s", r.status, r.raw, c.status, c.code, c.number)
				}
				if c.status != 200 && (r.body["error_codes"] == nil || r.text("trace_id") == "" || r.text("correlation_id") == "") {
					t.Errorf("refusal without Entra's details: %s", r.raw)
				}
			})
		})
	}
}

func TestTokenMustBePostedAsForm(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		target := w.opts.Root + "/" + DefaultTenant + "/oauth2/v2.0/token"
		if r := w.send(http.MethodGet, target, ""); r.status != 400 || r.text("error") != "invalid_request" {
			t.Errorf("GET: %d %s", r.status, r.raw)
		}
		if r := w.send(http.MethodPost, target, `{"grant_type":"client_credentials"}`, "Content-Type", "application/json"); r.status != 400 {
			t.Errorf("JSON: %d %s", r.status, r.raw)
		}
		w.send(http.MethodPost, target+"?client_secret=x", "")
		w.wantViolation("C-3: ")
	})
}

func TestTokensExpireAndAreRevoked(t *testing.T) {
	inBubble(t, Options{TokenLifetime: time.Minute}, func(t *testing.T, w *world) {
		if r := w.get(w.inbox()); r.status != 200 {
			t.Fatalf("fresh token: %d %s", r.status, r.raw)
		}
		time.Sleep(time.Minute)
		r := w.get(w.inbox())
		wantError(t, "expired token", r, 401, "InvalidAuthenticationToken")
		if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("401 without WWW-Authenticate: %v", r.header)
		}
		w.token = w.login()
		if r := w.get(w.inbox()); r.status != 200 {
			t.Fatalf("second token: %d %s", r.status, r.raw)
		}
		w.RevokeTokens()
		wantError(t, "revoked token", w.get(w.inbox()), 401, "InvalidAuthenticationToken")
		wantError(t, "other scheme", w.call("GET", w.inbox(), "", "Authorization", "Basic "+w.token), 401, "InvalidAuthenticationToken")
	})
}
