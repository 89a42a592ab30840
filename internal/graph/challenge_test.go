package graph

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const wantedClaims = `{"access_token":{"nbf":{"essential":true,"value":"1764000000"},"x":{"value":"?>~"}}}`

func TestClaimsChallenge(t *testing.T) {
	std, raw := base64.StdEncoding.EncodeToString([]byte(wantedClaims)), base64.RawURLEncoding.EncodeToString([]byte(wantedClaims))
	head := `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", `
	tests := []struct {
		name    string
		headers []string
		want    string
	}{
		{"as documented", []string{head + `errorDescription="x, y=z", error="insufficient_claims", claims="` + std + `"`}, wantedClaims},
		{"claims first", []string{`Bearer claims="` + std + `", error="insufficient_claims"`}, wantedClaims},
		{"URL-safe, not padded, not quoted", []string{`bearer error=insufficient_claims, claims=` + raw}, wantedClaims},
		{"in the second header", []string{`PoP nonce="x"`, head + `error="insufficient_claims", claims="` + raw + `"`}, wantedClaims},
		{"another error", []string{head + `error="invalid_token", claims="` + std + `"`}, ""},
		{"no claims", []string{head + `error="insufficient_claims"`}, ""},
		{"not base64", []string{head + `error="insufficient_claims", claims="%%%"`}, ""},
		{"not JSON", []string{head + `error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte("hello")) + `"`}, ""},
		{"huge", []string{head + `error="insufficient_claims", claims="` + strings.Repeat("A", maxClaims+1) + `"`}, ""},
		{"none", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := claimsChallenge(http.Header{"Www-Authenticate": tt.headers}); got != tt.want {
				t.Errorf("claimsChallenge = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzClaimsChallenge(f *testing.F) {
	f.Add(`Bearer error="insufficient_claims", claims="e30="`)
	f.Add(`Bearer error="insufficient_claims", claims="eyJhIjoxfQ`)
	f.Add(`===,"","`)
	f.Fuzz(func(t *testing.T, v string) {
		got := claimsChallenge(http.Header{"Www-Authenticate": {v}})
		if got != "" && !json.Valid([]byte(got)) {
			t.Errorf("claimsChallenge(%q) = %q, which is no JSON", v, got)
		}
	})
}

func TestChallengeReachesTheTokenSource(t *testing.T) {
	source := &tokens{}
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			return answer(401, `{"error":{"code":"InvalidAuthenticationToken"}}`,
				`WWW-Authenticate: Bearer realm="", error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString([]byte(wantedClaims))+`"`), nil
		}
		return answer(200, `{"id":"1","expirationDateTime":"2026-12-01T00:00:00Z"}`), nil
	}, func(o *Options) { o.Tokens = source })
	if _, err := c.RenewSubscription(t.Context(), "1", time.Now()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(source.claims, []string{wantedClaims}) {
		t.Errorf("the token source was told %q", source.claims)
	}
}
