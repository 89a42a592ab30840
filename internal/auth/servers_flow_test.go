package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
)

func TestSignInAtRealServers(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		u := s.user(vault, wire)
		if _, err := u.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody has signed in yet") {
			t.Errorf("before a sign-in: %v", err)
		}
		g := s.signIn(t, u)
		if g.ObjectID == "" || g.TenantID == "" || g.Refresh+g.Access != "" {
			t.Errorf("grant %+v", g)
		}
		first := accessToken(t, u)
		if again := accessToken(t, u); again != first || wire.count("refresh_token") != 0 {
			t.Errorf("a living token was replaced")
		}
		// Strict rotation over several refreshes.
		for range 4 {
			if err := u.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if next := accessToken(t, u); next == first {
				t.Error("a refresh gave the same token")
			} else {
				first = next
			}
		}
		// After a restart the stored token is used, and then the stored refresh token.
		u = s.user(vault, wire)
		if got := accessToken(t, u); got != first {
			t.Error("a restart does not use the living token")
		}
		if err := u.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongAnswersAtRealServers(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault := &memory{}
		u := s.user(vault, &counting{})
		begin := func() (*CodeFlow, url.Values) {
			f, err := u.AuthCode(t.Context(), redirectURI)
			if err != nil {
				t.Fatal(err)
			}
			back, err := url.Parse(s.browse(t, f.URL(), nil))
			if err != nil {
				t.Fatal(err)
			}
			return f, back.Query()
		}
		f, back := begin()
		f.verifier = strings.Repeat("x", 43)
		if _, err := f.Finish(t.Context(), back); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
			t.Errorf("wrong PKCE verifier: %v", err)
		}
		f, back = begin()
		f.nonce = "another"
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrState) {
			t.Errorf("wrong nonce: %v", err)
		}
		f, back = begin()
		wrong := url.Values{"state": {"x"}, "code": back["code"]}
		if _, err := f.Finish(t.Context(), wrong); !errors.Is(err, ErrState) {
			t.Errorf("wrong state: %v", err)
		}
		if _, err := f.Finish(t.Context(), back); err != nil {
			t.Errorf("the right answer after a wrong one: %v", err)
		}
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrState) {
			t.Errorf("replayed: %v", err)
		}
		f2, _ := begin()
		f2.state = f.state // the code of another flow, whose verifier does not fit
		if _, err := f2.Finish(t.Context(), back); err == nil {
			t.Error("a code was used twice")
		}
		f, back = begin()
		f.ends = time.Now().Add(-time.Second)
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrExpired) {
			t.Errorf("late: %v", err)
		}
		f, back = begin()
		back.Set("iss", "https://evil.example")
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrState) {
			t.Errorf("another issuer: %v", err)
		}
		f, back = begin()
		vault.grant.ObjectID = "somebody else"
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrOtherUser) {
			t.Errorf("another user: %v", err)
		}
		f, back = begin()
		vault.grant.TenantID = "elsewhere"
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrOtherTenant) {
			t.Errorf("another tenant: %v", err)
		}
		f, back = begin()
		u.opts.Tenant = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
		if _, err := f.Finish(t.Context(), back); !errors.Is(err, ErrOtherTenant) {
			t.Errorf("another tenant than the configured one: %v", err)
		}
	})
}

func TestFiftyCallersCauseOneRefresh(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		s.signIn(t, s.user(vault, wire))
		vault.grant.ExpiresAt = time.Now() // the access token has ended
		u := s.user(vault, wire)
		var wg sync.WaitGroup
		tokens := make([]string, 50)
		for i := range tokens {
			wg.Go(func() { tokens[i] = accessToken(t, u) })
		}
		wg.Wait()
		slices.Sort(tokens)
		if n := wire.count("refresh_token"); n != 1 || len(slices.Compact(tokens)) != 1 {
			t.Errorf("%d refreshes, %d tokens", n, len(slices.Compact(tokens)))
		}
	})
}

// The process dies between the answer of the token endpoint and its commit: the refresh token that it used is still the
// stored one. Where reuse only fails or works, one sign-in or none is lost; nowhere does it loop.
func TestKilledBetweenAnswerAndCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		s.signIn(t, s.user(vault, wire))
		vault.failing(errors.New("killed"))
		dying := s.user(vault, wire)
		err := dying.Refresh(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Class != Retry || e.Code != "vault" {
			t.Fatalf("a refresh that cannot be stored: %v", err)
		}
		vault.failing(nil)

		// Started again, all that is known is the old refresh token.
		vault.grant.ExpiresAt = time.Now()
		u := s.user(vault, wire)
		before := wire.count("refresh_token")
		for range 100 {
			_, err = u.Token(t.Context())
		}
		e, ok = errors.AsType[*Error](err)
		if !ok || e.Class != Reauth || u.State() == nil {
			t.Fatalf("with a refresh token that was used: %v", err)
		}
		if n := wire.count("refresh_token") - before; n > 2 {
			t.Errorf("%d requests: that is a loop", n)
		}
		s.signIn(t, u)
		if accessToken(t, u); u.State() != nil {
			t.Errorf("after signing in again: %v", u.State())
		}
	})
}

// A commit that fails once is made up for: the answer is kept, and no refresh token is used twice.
func TestCommitThatFailsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		u := s.user(vault, wire)
		s.signIn(t, u)
		old := accessToken(t, u)
		vault.failing(errors.New("disk full"))
		if err := u.Refresh(t.Context()); err == nil {
			t.Fatal("a refresh that was not stored went well")
		}
		if got := accessToken(t, u); got != old {
			t.Error("a token was used before it was stored")
		}
		vault.failing(nil)
		u.mu.Lock()
		u.retryAt = time.Time{}
		u.mu.Unlock()
		if err := u.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := accessToken(t, u); got == old || wire.count("refresh_token") != 1 {
			t.Errorf("%d refreshes", wire.count("refresh_token"))
		}
		if err := u.Refresh(t.Context()); err != nil {
			t.Errorf("and the one after: %v", err)
		}
	})
}

func TestServerThatForgotEverything(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		s.signIn(t, s.user(vault, wire))
		other := s.start(t) // a restart forgets every sign-in
		vault.grant.ExpiresAt, vault.grant.TenantID = time.Now(), other.issuer
		u := other.user(vault, wire)
		_, err := u.Token(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Class != Reauth || !strings.Contains(err.Error(), "sign in again") {
			t.Fatalf("Token = %v", err)
		}
		vault.grant.ObjectID = "" // it has no memory of who that was either
		other.signIn(t, u)
		accessToken(t, u)
	})
}

// What Entra does beyond the standard, in front of a server that knows the standard.
func TestEntraQuirks(t *testing.T) {
	answer := func(status int, body string, headers ...string) *http.Response {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i+1 < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
	}
	tests := []struct {
		name   string
		quirk  *http.Response
		class  Class
		state  string // in the error
		wait   time.Duration
		claims string
	}{
		{"a loop that looks like a dead token", answer(400, `{"error":"invalid_grant","error_codes":[50196],"error_description":"AADSTS50196"}`), Retry, "50196", 5 * time.Minute, ""},
		{"throttled", answer(429, `{"error":"temporarily_unavailable"}`, "Retry-After", "60"), Retry, "429", time.Minute, ""},
		{"password changed", answer(400, `{"error":"invalid_grant","error_codes":[50173],"suberror":"bad_token"}`), Reauth, "revoked", 0, ""},
		{"a second factor", answer(400, `{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action","claims":"{\"access_token\":{\"capolids\":{\"essential\":true}}}"}`),
			Reauth, "second factor", 0, `{"access_token":{"capolids":{"essential":true}}}`},
		{"consent withdrawn", answer(400, `{"error":"invalid_grant","error_codes":[65001],"suberror":"consent_required"}`), Reauth, "consented", 0, ""},
		{"the secret has ended", answer(401, `{"error":"invalid_client","error_codes":[7000222]}`), Operator, "expired", 0, ""},
	}
	s := oidcProvider(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vault, wire := &memory{}, &counting{}
			u := s.user(vault, wire)
			s.signIn(t, u)
			old := accessToken(t, u)
			wire.quirk = func(grant string, n int) *http.Response {
				if grant == "refresh_token" && n == 1 {
					return tt.quirk
				}
				return nil
			}
			err := u.Refresh(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Class != tt.class || !strings.Contains(err.Error(), tt.state) || e.RetryAfter != tt.wait {
				t.Fatalf("Refresh = %v, wait %v", err, e.RetryAfter)
			}
			if got := accessToken(t, u); got != old {
				t.Error("the token that lives is not given out")
			}
			if g, _ := u.Grant(); g.Claims != tt.claims {
				t.Errorf("claims kept: %s", g.Claims)
			}
			if tt.claims != "" {
				f, err := u.AuthCode(t.Context(), redirectURI)
				if err != nil || !strings.Contains(f.URL(), "capolids") || !strings.Contains(f.URL(), "cp1") {
					t.Errorf("the next sign-in does not answer the claims: %v", err)
				}
			}
			u.mu.Lock()
			u.retryAt = time.Time{} // the wait is over
			u.mu.Unlock()
			if err := u.Refresh(t.Context()); err != nil || u.State() != nil {
				t.Errorf("afterwards: %v, %v", err, u.State())
			}
		})
	}
}

func TestDeviceCodeAtARealServer(t *testing.T) {
	t.Parallel()
	s := oidcProvider(t)
	wire := &counting{}
	vault := &memory{}
	u := s.user(vault, wire)
	f, err := u.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.interval = time.Second
	wire.quirk = func(grant string, n int) *http.Response {
		if grant == deviceGrant && n == 1 { // the network fails once
			return &http.Response{StatusCode: 502, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>"))}
		}
		return nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.Wait(within(t, time.Minute))
		done <- err
	}()
	s.browse(t, f.VerificationURI, map[string]string{"user_code": f.UserCode})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	accessToken(t, u)
}

func TestAppsAtRealServers(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), Algorithm: "PS256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	s := oidcProvider(t, "CERT_JWK="+string(jwk))
	app := func(id string, c Credential) *App {
		return NewApp(AppOptions{ClientID: id, Credential: c, TokenURL: s.issuer + "/token", Log: zerolog.Nop()})
	}
	secret := func(v string) func() (string, error) { return func() (string, error) { return v, nil } }
	cert := certificateFor(t, key, time.Now().Add(24*time.Hour))
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		app  *App
		want string // of the error
	}{
		{"secret", app(s.secret, ClientSecrets(secret(s.value))), ""},
		{"the newer of two secrets is not known yet", app(s.secret, ClientSecrets(secret("newer"), secret(s.value))), ""},
		{"wrong secret", app(s.secret, ClientSecrets(secret("wrong"))), "invalid_client"},
		{"certificate", app("cert", Certificate(CertificateFiles{ClientID: "cert", Cert: cert})), ""},
		{"another certificate", app("cert", Certificate(CertificateFiles{ClientID: "cert", Cert: certificateFor(t, other, time.Now().Add(time.Hour))})), "invalid_client"},
		{"a certificate that has ended", app("cert", Certificate(CertificateFiles{ClientID: "cert", Cert: certificateFor(t, key, time.Now().Add(-time.Minute))})), "the certificate ended on"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.app.Token(t.Context())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Token = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMetadataThatLeadElsewhere(t *testing.T) {
	s := oidcProvider(t)
	u := s.user(&memory{}, transport(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(strings.NewReader(strings.Replace(string(body), s.issuer+"/token", "http://evil.example/token", 1)))
		return resp, err
	}))
	if _, err := u.AuthCode(t.Context(), redirectURI); err == nil || !strings.Contains(err.Error(), "lead to another host") {
		t.Errorf("AuthCode = %v", err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
