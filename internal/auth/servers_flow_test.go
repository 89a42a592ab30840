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
		s.accepts(t, first)
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
		s.accepts(t, accessToken(t, u))
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
			back, err := url.Parse(s.browse(t, f.URL(), "", false))
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
		again := &CodeFlow{user: u, server: f.server, redirectURI: redirectURI, state: f.state, nonce: f.nonce, verifier: f.verifier, ends: f.ends}
		if _, err := again.Finish(t.Context(), back); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
			t.Errorf("a code was used twice: %v", err)
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

func TestAppsAtRealServers(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), Algorithm: "PS256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	s, z := oidcProvider(t, "CERT_JWK="+string(jwk)), zitadel(t)
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
		{"secret, at the other server", NewApp(AppOptions{ClientID: "sid1", Credential: ClientSecrets(secret("verysecret")), TokenURL: z.issuer + "oauth/token", Scope: "openid"}), ""},
		{"wrong secret, at the other server", NewApp(AppOptions{ClientID: "sid1", Credential: ClientSecrets(secret("wrong")), TokenURL: z.issuer + "oauth/token", Scope: "openid"}), "invalid_client"},
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
