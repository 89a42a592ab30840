package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// entra answers token requests in memory.
type entra struct {
	t     testing.TB
	mu    sync.Mutex
	n     int // requests so far
	took  time.Duration
	reply func(n int) (status int, body, header string) // nil: tokens of an hour
}

func (e *entra) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	form, err := url.ParseQuery(string(body))
	want := url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"}, "client_secret": {"canary-secret"}, "scope": {"https://graph.example.com/.default"}}
	if err != nil || form.Encode() != want.Encode() || r.URL.String() != "https://login.example.com/tenant/oauth2/v2.0/token" || r.Header.Get("Authorization") != "" {
		e.t.Errorf("asked %s with %v", r.URL, form)
	}
	e.mu.Lock()
	e.n++
	n := e.n
	e.mu.Unlock()
	select {
	case <-time.After(e.took):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, text, header := 200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":3600,"access_token":"canary-token-%d"}`, n), ""
	if e.reply != nil {
		if s, t, h := e.reply(n); s != 0 {
			status, text, header = s, t, h
		}
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if k, v, ok := strings.Cut(header, ": "); ok {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (e *entra) requests() int { e.mu.Lock(); defer e.mu.Unlock(); return e.n }

func appOf(e *entra, change ...func(*AppOptions)) (*App, *bytes.Buffer) {
	var log bytes.Buffer
	o := AppOptions{
		Login: "https://login.example.com", Tenant: "tenant", ClientID: "app", Scope: "https://graph.example.com/.default",
		Credential: ClientSecrets(func() (string, error) { return "canary-secret", nil }), Transport: e, Log: zerolog.New(&log),
	}
	for _, f := range change {
		f(&o)
	}
	return NewApp(o), &log
}

func expect(t *testing.T, a *App, want string) {
	t.Helper()
	if got, err := a.Token(t.Context()); got != want || err != nil {
		t.Errorf("Token = %s, %v, want %s", got, err, want)
	}
}

func TestManyCallersOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t, took: time.Second}
		a, _ := appOf(e)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { expect(t, a, "canary-token-1") })
		}
		wg.Wait()
		if e.requests() != 1 {
			t.Errorf("%d requests, want 1", e.requests())
		}
	})
}

func TestTokenIsReusedUntilFiveMinutesBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t}
		a, _ := appOf(e)
		expect(t, a, "canary-token-1")
		time.Sleep(55*time.Minute - time.Second)
		expect(t, a, "canary-token-1")
		e.took = 10 * time.Second
		time.Sleep(2 * time.Second)
		var wg sync.WaitGroup
		begun := time.Now()
		wg.Go(func() { expect(t, a, "canary-token-2") })
		synctest.Wait()
		expect(t, a, "canary-token-1") // the old one still lives: nobody else waits
		if time.Since(begun) != 0 {
			t.Errorf("waited %v for a token while one lived", time.Since(begun))
		}
		wg.Wait()
		expect(t, a, "canary-token-2")
		if e.requests() != 2 {
			t.Errorf("%d requests, want 2", e.requests())
		}
	})
}

func TestShortLivedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t}
		e.reply = func(n int) (status int, body, header string) {
			return 200, fmt.Sprintf(`{"expires_in":"60","access_token":"t%d"}`, n), ""
		}
		a, _ := appOf(e)
		expect(t, a, "t1")
		time.Sleep(44 * time.Second)
		expect(t, a, "t1")
		time.Sleep(2 * time.Second)
		expect(t, a, "t2")
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t}
		a, _ := appOf(e)
		a.Refused("nobody's", "")
		expect(t, a, "canary-token-1")
		a.Refused("canary-token-0", "") // told late, of a token that is gone
		expect(t, a, "canary-token-1")
		for n := 2; n <= 4; n++ {
			a.Refused(fmt.Sprintf("canary-token-%d", n-1), "")
			expect(t, a, fmt.Sprintf("canary-token-%d", n))
		}
		a.Refused("canary-token-4", "") // again and again: Entra would lock us out
		_, err := a.Token(t.Context())
		e1, ok := errors.AsType[*Error](err)
		if !ok || e1.Class != Retry || e1.RetryAfter != 30*time.Second || e.requests() != 4 {
			t.Errorf("Token = %v after %d requests, want to be told to wait 30 s", err, e.requests())
		}
		time.Sleep(30 * time.Second)
		expect(t, a, "canary-token-5")
	})
}

func TestFailures(t *testing.T) {
	entraSays := func(code string, number int) string {
		return fmt.Sprintf(`{"error":%q,"error_description":"AADSTS%d: canary text","error_codes":[%d],"correlation_id":"c0ffee-1","trace_id":"x"}`, code, number, number)
	}
	tests := []struct {
		name, body string
		status     int
		header     string
		class      Class
		from, to   time.Duration // when the next attempt is made
		text       string
	}{
		{"wrong secret", entraSays("invalid_client", 7000215), 401, "", Operator, 15 * time.Minute, 15 * time.Minute,
			"sign-in: status 401 invalid_client AADSTS7000215: the client secret is wrong: put its value, not its id, into client_secret_file (correlation c0ffee-1)"},
		{"expired secret", entraSays("invalid_client", 7000222), 401, "", Operator, 15 * time.Minute, 15 * time.Minute,
			"sign-in: status 401 invalid_client AADSTS7000222: the client secret has expired: make a new one and put it into client_secret_file (correlation c0ffee-1)"},
		{"wrong client", entraSays("unauthorized_client", 700016), 400, "", Operator, 15 * time.Minute, 15 * time.Minute,
			"sign-in: status 400 unauthorized_client AADSTS700016: the app registration is not in this tenant: compare client_id and tenant (correlation c0ffee-1)"},
		{"wrong tenant", entraSays("invalid_request", 90002), 400, "", Operator, 15 * time.Minute, 15 * time.Minute,
			"sign-in: status 400 invalid_request AADSTS90002: the tenant is not known here: compare tenant and cloud (correlation c0ffee-1)"},
		{"a number nobody knows", entraSays("invalid_scope", 1), 400, "", Operator, 15 * time.Minute, 15 * time.Minute,
			"sign-in: status 400 invalid_scope AADSTS1: the login endpoint refuses the app registration: compare cloud, tenant, client_id and credential (correlation c0ffee-1)"},
		{"a loop", entraSays("invalid_grant", 50196), 400, "", Retry, 5 * time.Minute, 5 * time.Minute,
			"sign-in: status 400 invalid_grant AADSTS50196: Entra takes the app for a client in a loop: does something else use the same app registration? (correlation c0ffee-1)"},
		{"throttled", entraSays("temporarily_unavailable", 90055), 429, "Retry-After: 120", Retry, 2 * time.Minute, 2 * time.Minute,
			"sign-in: status 429 temporarily_unavailable AADSTS90055 (correlation c0ffee-1)"},
		{"throttled as a client error", entraSays("invalid_request", 90055), 429, "", Retry, time.Minute, time.Minute,
			"sign-in: status 429 invalid_request AADSTS90055 (correlation c0ffee-1)"},
		{"down", `{"error":"server_error"}`, 500, "", Retry, time.Second, 2 * time.Second, "sign-in: status 500 server_error"},
		{"down, told as a client error", entraSays("invalid_client", 90033), 503, "", Retry, time.Second, 2 * time.Second,
			"sign-in: status 503 invalid_client AADSTS90033 (correlation c0ffee-1)"},
		{"HTML", "<html>canary text</html>", 502, "", Retry, time.Second, 2 * time.Second, "sign-in: status 502"},
		{"HTML that says all is well", "<html>canary text</html>", 200, "", Retry, time.Second, 2 * time.Second, "sign-in: the login endpoint's answer cannot be read"},
		{"somebody else's 404", "<html>canary text</html>", 404, "", Retry, time.Second, 2 * time.Second,
			"sign-in: status 404: the answer is not Entra's: compare the cloud's login URL, and look at proxies in between"},
		{"a redirect", "", 307, "Location: https://canary.example/", Retry, time.Second, 2 * time.Second,
			"sign-in: status 307: the answer is not Entra's: compare the cloud's login URL, and look at proxies in between"},
		{"no token", `{"canary":"text"}`, 200, "", Retry, time.Second, 2 * time.Second, "sign-in: the login endpoint's answer cannot be read"},
		{"cut off", `{"access_token":"canary`, 200, "", Retry, time.Second, 2 * time.Second, "sign-in: the login endpoint's answer cannot be read"},
		{"code that is none", `{"error":"canary text"}`, 400, "", Retry, time.Second, 2 * time.Second,
			"sign-in: status 400: the answer is not Entra's: compare the cloud's login URL, and look at proxies in between"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &entra{t: t, reply: func(n int) (status int, body, header string) {
					if n > 1 {
						return 0, "", ""
					}
					return tt.status, tt.body, tt.header
				}}
				a, log := appOf(e)
				_, err := a.Token(t.Context())
				e1, ok := errors.AsType[*Error](err)
				if !ok || e1.Class != tt.class || err.Error() != tt.text {
					t.Fatalf("Token = %v\nwant %v: %s", err, tt.class, tt.text)
				}
				if _, retryable := e1.Retryable(); retryable != (tt.class == Retry) || a.State() != err {
					t.Errorf("Retryable = %v, State = %v", retryable, a.State())
				}
				begun := time.Now()
				for a.State() != nil {
					if token, err2 := a.Token(t.Context()); err2 != nil && (err2 != err || token != "") {
						t.Fatalf("meanwhile Token = %s, %v", token, err2)
					}
					time.Sleep(100 * time.Millisecond)
				}
				took := time.Since(begun)
				if took < tt.from || took > tt.to+200*time.Millisecond || e.requests() != 2 {
					t.Errorf("the next attempt came after %v, want %v to %v; %d requests", took, tt.from, tt.to, e.requests())
				}
				if all := log.String() + err.Error() + fmt.Sprintf("%+v %#v", e1, e1); strings.Contains(all, "canary") {
					t.Errorf("shown: %s", all)
				}
				if !strings.Contains(log.String(), `"message":"sign-in failed"`) || !strings.Contains(log.String(), `"message":"signed in again"`) {
					t.Errorf("log %s", log.String())
				}
			})
		})
	}
}

func TestWaitsGrow(t *testing.T) {
	operator, passing := &Error{Class: Operator}, &Error{Class: Retry}
	for n, want := range map[int]time.Duration{1: 15 * time.Minute, 2: 30 * time.Minute, 3: time.Hour, 4: time.Hour, 100: time.Hour} {
		if got := operator.wait(n); got != want {
			t.Errorf("operator.wait(%d) = %v, want %v", n, got, want)
		}
	}
	longest := time.Duration(0)
	for n := range 1000 {
		d := passing.wait(n + 1)
		if d < time.Second || d > min(time.Second<<min(n+1, 16), 5*time.Minute) {
			t.Errorf("wait(%d) = %v", n+1, d)
		}
		longest = max(longest, d)
	}
	if longest < 4*time.Minute {
		t.Errorf("the longest of 1000 waits is %v", longest)
	}
	if d := (&Error{Class: Retry, RetryAfter: time.Hour}).wait(1); d != time.Hour {
		t.Errorf("wait with Retry-After = %v", d)
	}
}

func TestLiveTokenSurvivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t, reply: func(n int) (status int, body, header string) {
			if n > 1 {
				return 401, `{"error":"invalid_client","error_codes":[7000222]}`, ""
			}
			return 0, "", ""
		}}
		a, _ := appOf(e)
		expect(t, a, "canary-token-1")
		time.Sleep(56 * time.Minute)
		expect(t, a, "canary-token-1")
		expect(t, a, "canary-token-1")
		if a.State() == nil || e.requests() != 2 {
			t.Errorf("State = %v after %d requests", a.State(), e.requests())
		}
		time.Sleep(4 * time.Minute)
		if token, err := a.Token(t.Context()); err == nil {
			t.Errorf("an expired token was given out: %s", token)
		}
	})
}

func TestReplacedSecretIsTriedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret, problem := "old", error(nil)
		e := &entra{t: t, reply: func(n int) (status int, body, header string) {
			if secret == "old" {
				return 401, `{"error":"invalid_client","error_codes":[7000215]}`, ""
			}
			return 0, "", ""
		}}
		strict := e.t
		e.t = ignore{t} // the form holds another secret here
		defer func() { e.t = strict }()
		a, _ := appOf(e, func(o *AppOptions) { o.Credential = ClientSecrets(func() (string, error) { return secret, problem }) })
		_, err := a.Token(t.Context())
		time.Sleep(time.Minute)
		if _, again := a.Token(t.Context()); again != err || e.requests() != 1 {
			t.Errorf("Token = %v after %d requests, want to be left alone", again, e.requests())
		}
		problem = errors.New("open secret: permission denied")
		time.Sleep(time.Minute)
		if _, again := a.Token(t.Context()); again != err {
			t.Errorf("Token = %v", again)
		}
		secret, problem = "new", nil
		time.Sleep(lookEvery)
		if _, err := a.Token(t.Context()); err != nil || e.requests() != 2 {
			t.Errorf("Token = %v after %d requests", err, e.requests())
		}
	})
}

type ignore struct{ testing.TB }

func (ignore) Errorf(string, ...any) {}

func TestSecretThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		problem := errors.New("open secret: no such file or directory")
		e := &entra{t: t}
		a, _ := appOf(e, func(o *AppOptions) {
			o.Credential = ClientSecrets(func() (string, error) { return "canary-secret", problem })
		})
		_, err := a.Token(t.Context())
		if e1, ok := errors.AsType[*Error](err); !ok || e1.Class != Operator || err.Error() != "sign-in credential: open secret: no such file or directory" {
			t.Errorf("Token = %v", err)
		}
		problem = nil
		time.Sleep(lookEvery)
		expect(t, a, "canary-token-1")
		if e.requests() != 1 {
			t.Errorf("%d requests", e.requests())
		}
	})
}

func TestCallersMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t, took: 20 * time.Second}
		a, _ := appOf(e)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 2 { // one asks, one waits for it
			wg.Go(func() {
				if _, err := a.Token(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Token = %v", err)
				}
			})
		}
		synctest.Wait()
		wg.Go(func() { expect(t, a, "canary-token-2") })
		wg.Wait()
		if a.State() != nil || e.requests() != 2 {
			t.Errorf("State = %v after %d requests: somebody's leaving is no failure", a.State(), e.requests())
		}
	})
}

func TestSilentLoginEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &entra{t: t, took: time.Hour}
		a, _ := appOf(e)
		begun := time.Now()
		_, err := a.Token(t.Context())
		e1, ok := errors.AsType[*Error](err)
		if !ok || e1.Class != Retry || err.Error() != "sign-in: no answer within 30s" || time.Since(begun) != tokenTimeout {
			t.Errorf("Token = %v after %v", err, time.Since(begun))
		}
	})
}

func TestTokenThatHasExpiredAlready(t *testing.T) {
	e := &entra{t: t, reply: func(int) (status int, body, header string) {
		return 200, `{"expires_in":-5,"access_token":"x"}`, ""
	}}
	a, _ := appOf(e)
	_, err := a.Token(t.Context())
	if want := "sign-in: the token that was issued has expired already: is this machine's clock right?"; err == nil || err.Error() != want {
		t.Errorf("Token = %v, want %s", err, want)
	}
}

func TestNetworkError(t *testing.T) {
	a, log := appOf(nil, func(o *AppOptions) {
		o.Login, o.Transport = "http://127.0.0.1:1/canary", nil
	})
	_, err := a.Token(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.Class != Retry || strings.Contains(err.Error()+log.String(), "canary") {
		t.Errorf("Token = %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "60": time.Minute, "-1": 0, "x": 0, "999999": time.Hour, "Tue, 24 Nov 2026 10:00:30 GMT": 30 * time.Second,
		"Tue, 24 Nov 2026 09:00:30 GMT": 0, "Tue, 24 Nov 2099 09:00:30 GMT": time.Hour,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", in, got, want)
		}
	}
}
