package auth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// waitFor waits for a device's sign-in in the background.
func waitFor(t testing.TB, f *DeviceFlow) <-chan error {
	ctx := within(t, time.Minute)
	done := make(chan error, 1)
	go func() {
		_, err := f.Wait(ctx)
		done <- err
	}()
	return done
}

func begin(t testing.TB, u *User) *DeviceFlow {
	t.Helper()
	f, err := u.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.UserCode == "" || f.interval != 5*time.Second || time.Until(f.ExpiresAt) <= 0 {
		t.Fatalf("a flow of %v, every %v, code %q", time.Until(f.ExpiresAt), f.interval, f.UserCode)
	}
	f.interval = 500 * time.Millisecond
	return f
}

func TestDeviceAtRealServers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		vault, wire := &memory{}, &counting{}
		polled := make(chan bool, 1)
		wire.quirks(func(grant string, n int) *http.Response {
			switch {
			case grant != deviceGrant:
			case n == 1: // something in between fails
				return answer(502, "<html>")
			case n == 2: // the server itself says that nobody has typed the code yet
			case n == 3:
				polled <- true
			}
			return nil
		})
		u := s.user(vault, wire)
		f := begin(t, u)
		done := waitFor(t, f)
		<-polled
		s.browse(t, f.VerificationURI, f.UserCode, false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s.accepts(t, accessToken(t, u))
		if g, err := u.Grant(); err != nil || g.ObjectID == "" {
			t.Errorf("grant %+v, %v", g, err)
		}
		if got, err := exchange(t.Context(), u.client, f.server.Token, url.Values{"grant_type": {deviceGrant}, "client_id": {s.public}, "device_code": {f.code}}, nil); s.strict && err == nil {
			t.Errorf("a device code was used twice: %v", got != nil)
		}
	})
}

func TestDeviceThatIsDeclined(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s *server) {
		vault := &memory{}
		f := begin(t, s.user(vault, &counting{}))
		done := waitFor(t, f)
		s.browse(t, f.VerificationURI, f.UserCode, true)
		if err := <-done; !errors.Is(err, ErrDeclined) || vault.saves != 0 {
			t.Errorf("Wait = %v", err)
		}
	})
}

// What ends a wait for a device, in the words of servers and in Entra's.
func TestDeviceThatEnds(t *testing.T) {
	t.Parallel()
	s := oidcProvider(t, "DEVICE_TTL=1")
	says := func(body string) func(string, int) *http.Response {
		return func(grant string, _ int) *http.Response {
			if grant != deviceGrant {
				return nil
			}
			return answer(http.StatusBadRequest, body)
		}
	}
	tests := []struct {
		name  string
		quirk func(string, int) *http.Response
		longs bool // waits beyond the end that it was told
		is    error
		text  string
	}{
		{"the time is up here", nil, false, ErrExpired, "begin again"},
		{"the time is up there", nil, true, ErrExpired, "begin again"},
		{"declined, as Entra says it", says(`{"error":"authorization_declined","error_codes":[70017]}`), true, ErrDeclined, "declined"},
		{"expired, as Entra says it", says(`{"error":"expired_token","error_codes":[70019]}`), true, ErrExpired, "begin again"},
		{"forbidden by Conditional Access", says(`{"error":"access_denied_by_policy","error_codes":[53003],"suberror":"message_only"}`), true, nil, "forbids signing in by a code"},
		{"not a public client", says(`{"error":"invalid_client","error_codes":[7000218]}`), true, nil, "Allow public client flows"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			vault, wire := &memory{}, &counting{}
			f := begin(t, s.user(vault, wire))
			wire.quirks(tt.quirk)
			if tt.longs {
				f.ExpiresAt, f.interval = time.Now().Add(time.Minute), 1100*time.Millisecond
			}
			err := <-waitFor(t, f)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || vault.saves != 0 {
				t.Errorf("Wait = %v", err)
			}
		})
	}
	t.Run("the operator leaves", func(t *testing.T) {
		f := begin(t, s.user(&memory{}, &counting{}))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v", err)
		}
	})
}
