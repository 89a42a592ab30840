package auth

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What Entra does beyond the standard, in front of a server that knows the standard.
func TestEntraQuirks(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		body    string
		headers []string
		class   Class
		state   string // in the error
		wait    time.Duration
		claims  string
	}{
		{"a loop that looks like a dead token", 400, `{"error":"invalid_grant","error_codes":[50196],"error_description":"AADSTS50196"}`, nil, Retry, "50196", 5 * time.Minute, ""},
		{"throttled", 429, `{"error":"temporarily_unavailable"}`, []string{"Retry-After", "60"}, Retry, "429", time.Minute, ""},
		{"throttled as if the token were dead", 429, `{"error":"invalid_grant","error_codes":[50173]}`, []string{"Retry-After", "60"}, Retry, "429", time.Minute, ""},
		{"out of order", 503, `<html>The service is unavailable</html>`, []string{"Retry-After", "120"}, Retry, "503", 2 * time.Minute, ""},
		{"password changed", 400, `{"error":"invalid_grant","error_codes":[50173],"suberror":"bad_token","correlation_id":"11111111-2222-4333-8444-555555555555"}`, nil,
			Reauth, "revoked, or the password was changed: sign in again (correlation 11111111-2222-4333-8444-555555555555)", 0, ""},
		{"a second factor", 400, `{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action","claims":"{\"access_token\":{\"capolids\":{\"essential\":true}}}"}`, nil,
			Reauth, "second factor", 0, `{"access_token":{"capolids":{"essential":true}}}`},
		{"consent withdrawn", 400, `{"error":"invalid_grant","error_codes":[65001],"suberror":"consent_required"}`, nil, Reauth, "consented", 0, ""},
		{"the secret has ended", 401, `{"error":"invalid_client","error_codes":[7000222]}`, nil, Operator, "expired", 0, ""},
	}
	bare := oidcProvider(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wire := &counting{}
			s := bare.behind(t, wire)
			u := s.user(&memory{}, nil)
			s.signIn(t, u)
			old := accessToken(t, u)
			wire.quirks(func(grant string, n int) *http.Response {
				if grant == "refresh_token" && n == 1 {
					return answer(tt.status, tt.body, tt.headers...)
				}
				return nil
			})
			err := u.Refresh(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Class != tt.class || !strings.Contains(err.Error(), tt.state) || e.RetryAfter != tt.wait {
				t.Fatalf("Refresh = %v, wait %v", err, e.RetryAfter)
			}
			if got := accessToken(t, u); got != old {
				t.Error("the token that lives is not given out")
			}
			for range 20 { // until the wait is over nobody is asked
				if again := u.Refresh(t.Context()); !errors.Is(again, err) {
					t.Errorf("meanwhile: %v", again)
				}
			}
			u.mu.Lock()
			left := time.Until(u.retryAt)
			u.mu.Unlock()
			if n := wire.count("refresh_token"); n != 1 || left < tt.wait-time.Minute/2 {
				t.Errorf("%d requests, the next in %v", n, left)
			}
			keepsClaims(t, u, tt.claims)
			u.mu.Lock()
			u.retryAt = time.Time{} // the wait is over
			u.mu.Unlock()
			if err := u.Refresh(t.Context()); err != nil || u.State() != nil {
				t.Errorf("afterwards: %v, %v", err, u.State())
			}
		})
	}
}

// keepsClaims looks whether the next sign-in answers what was asked of the last one.
func keepsClaims(t *testing.T, u *User, want string) {
	t.Helper()
	if g, err := u.Grant(); err != nil || g.Claims != want {
		t.Errorf("claims kept: %s, %v", g.Claims, err)
	}
	f, err := u.AuthCode(t.Context(), redirectURI)
	if err != nil || !strings.Contains(f.URL(), "cp1") || strings.Contains(f.URL(), "capolids") != (want != "") {
		t.Errorf("the next sign-in does not answer the claims: %v", err)
	}
}
