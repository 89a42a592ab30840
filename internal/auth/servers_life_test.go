package auth

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Tokens of two seconds, as they end by themselves: each caller has a good one all the time, and each rotated refresh
// token works once.
func TestTokensThatEnd(t *testing.T) {
	t.Parallel()
	s := oidcProvider(t, "TTL=2")
	vault, wire := &memory{}, &counting{}
	u := s.user(vault, wire)
	s.signIn(t, u)
	seen := []string{accessToken(t, u)}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t, time.Minute); len(seen) < 4; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d tokens in a minute", len(seen))
		}
		if got := accessToken(t, u); got != seen[len(seen)-1] {
			seen = append(seen, got)
		}
	}
	slices.Sort(seen)
	if n := wire.count("refresh_token"); n != 3 || len(slices.Compact(seen)) != 4 || u.State() != nil {
		t.Errorf("%d refreshes, state %v", n, u.State())
	}
}

// A sign-in that is revoked while it is used is a state, not a loop, and signing in again mends it.
func TestRevokedInMidRun(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire, changes := &memory{}, &counting{}, atomic.Int32{}
		u := s.user(vault, wire, func(o *UserOptions) { o.Changed = func() { changes.Add(1) } })
		s.signIn(t, u)
		token := accessToken(t, u)
		told := changes.Load()
		g, err := vault.Load()
		if err != nil {
			t.Fatal(err)
		}
		s.revoke(t, g.Refresh)
		if status := s.userinfo(t, token); s.strict && status != http.StatusUnauthorized {
			t.Errorf("a revoked sign-in's token is answered with %d", status)
		}
		u.Refused(token, "")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := u.Token(t.Context())
				if e, ok := errors.AsType[*Error](err); !ok || e.Class != Reauth || !strings.Contains(err.Error(), "sign in again") {
					t.Errorf("Token = %v", err)
				}
			})
		}
		wg.Wait()
		if n := wire.count("refresh_token"); n != 1 || u.State() == nil || changes.Load() != told+1 {
			t.Errorf("%d requests, state %v, told %d times", n, u.State(), changes.Load()-told)
		}
		s.signIn(t, u)
		if u.State() != nil || changes.Load() != told+2 {
			t.Errorf("after signing in again: %v, told %d times", u.State(), changes.Load()-told)
		}
		s.accepts(t, accessToken(t, u))
	})
}

// A server refuses all of a refresh for one permission that was not granted. Those that were go on all the same.
func TestPermissionThatIsNotGranted(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		u := s.user(vault, wire, func(o *UserOptions) { o.Scopes = append(slices.Clone(s.scopes), "Calendars.Read.Shared") })
		if got := u.Missing(); got != nil {
			t.Errorf("before the first sign-in %v is missing", got)
		}
		s.signIn(t, u)
		if got := u.Missing(); !slices.Equal(got, []string{"Calendars.Read.Shared"}) {
			t.Errorf("missing: %v", got)
		}
		if err := u.Refresh(t.Context()); err != nil || !slices.Equal(u.Missing(), []string{"Calendars.Read.Shared"}) {
			t.Errorf("after a refresh: %v, missing %v", err, u.Missing())
		}
		if n := wire.count("refresh_token"); n != 2 {
			t.Errorf("%d requests", n)
		}
		s.accepts(t, accessToken(t, u))
	})
}

// What is granted later without a sign-in, by an administrator for example, comes with the next refresh.
func TestPermissionThatIsGrantedLater(t *testing.T) {
	s := oidcProvider(t)
	vault, wire := &memory{}, &counting{}
	u := s.user(vault, wire, func(o *UserOptions) { o.Scopes = []string{"Mail.Read", "Mail.Read.Shared"} })
	s.signIn(t, u)
	vault.grant.Scopes = []string{"mail.read", "openid"} // as far as is known
	if u = s.user(vault, wire, func(o *UserOptions) { o.Scopes = []string{"Mail.Read", "Mail.Read.Shared"} }); !slices.Equal(u.Missing(), []string{"Mail.Read.Shared"}) {
		t.Errorf("missing: %v", u.Missing())
	}
	if err := u.Refresh(t.Context()); err != nil || u.Missing() != nil || wire.count("refresh_token") != 1 {
		t.Errorf("afterwards: %v, missing %v", err, u.Missing())
	}
}

// An app registration of the operator's own, with a secret.
func TestOwnAppAtRealServers(t *testing.T) {
	secret := func(v string) func() (string, error) { return func() (string, error) { return v, nil } }
	onBoth(t, func(t *testing.T, s *server) {
		app := func(c Credential) (*User, *counting) {
			wire := &counting{}
			return s.user(&memory{}, wire, func(o *UserOptions) { o.ClientID, o.Credential = s.secret, c }), wire
		}
		for name, c := range map[string]Credential{
			"one secret":                    ClientSecrets(secret(s.value)),
			"the newer is not known yet":    ClientSecrets(secret("newer-canary"), secret(s.value)),
			"the older is not known either": ClientSecrets(secret(s.value), secret("older-canary")),
		} {
			u, _ := app(c)
			s.signIn(t, u)
			if err := u.Refresh(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			s.accepts(t, accessToken(t, u))
		}
		value := s.value
		u, wire := app(ClientSecrets(func() (string, error) { return value, nil }))
		s.signIn(t, u)
		value = "replaced-canary"
		for range 10 {
			err := u.Refresh(t.Context())
			if e, ok := errors.AsType[*Error](err); !ok || e.Class != Operator || e.Code != "invalid_client" {
				t.Fatalf("with a wrong secret: %v", err)
			}
		}
		if n := wire.count("refresh_token"); n != 1 {
			t.Errorf("%d requests: that is a loop", n)
		}
		value = s.value
		u.mu.Lock()
		u.lookedAt = time.Time{} // the time to look at the file again has come
		u.mu.Unlock()
		if err := u.Refresh(t.Context()); err != nil || u.State() != nil {
			t.Errorf("with the right secret again: %v, %v", err, u.State())
		}
	})
}

func TestDeclinedInTheBrowser(t *testing.T) {
	s := oidcProvider(t)
	u := s.user(&memory{}, &counting{})
	f, err := u.AuthCode(t.Context(), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(s.browse(t, f.URL(), "", true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Finish(t.Context(), back.Query()); !errors.Is(err, ErrDeclined) || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("Finish = %v", err)
	}
	if g, err := u.Grant(); err != nil || g.ObjectID != "" {
		t.Errorf("somebody signed in: %+v, %v", g, err)
	}
	s.signIn(t, u)
}
