package status

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const token = "0123456789abcdef0123456789abcdef"

// guarded serves a report behind a token, which edit may change.
func guarded(t *testing.T, edit func(src *source, token *string, err *error)) (base string) {
	t.Helper()
	src, want, err := &source{report: good()}, token, error(nil)
	if edit != nil {
		edit(src, &want, &err)
	}
	srv := httptest.NewServer(Guarded(src, map[string]http.Handler{"GET /metrics": NewMetrics(src, false)}, func() (string, error) { return want, err }))
	t.Cleanup(srv.Close)
	return srv.URL
}

// request makes a request and returns the answer with its body.
func request(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// basic is the header of a browser with a password.
func basic(user, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

func TestWhoeverShowsTheTokenGetsIn(t *testing.T) {
	base := guarded(t, nil)
	tests := []struct {
		name, shown string
		want        int
	}{
		{"the token", "Bearer " + token, 200},
		{"the token, with the scheme written otherwise", "bearer " + token, 200},
		{"a browser", basic("me", token), 200},
		{"a browser without a name", basic("", token), 200},
		{"nothing", "", 401},
		{"another token", "Bearer " + strings.Repeat("x", len(token)), 401},
		{"half of it", "Bearer " + token[:16], 401},
		{"more than it", "Bearer " + token + "0", 401},
		{"no token", "Bearer ", 401},
		{"the token alone", token, 401},
		{"another scheme", "Digest " + token, 401},
		{"the token as the name", basic(token, ""), 401},
		{"another password", basic("admin", "admin"), 401},
		{"Basic that is none", "Basic " + token, 401},
	}
	for _, tt := range tests {
		for _, path := range []string{"/api/v1/status", "/metrics", "/debug/pprof/"} {
			resp, body := request(t, "GET", base+path, "Authorization", tt.shown, "Host", "vm7.contoso.test:8081")
			if resp.StatusCode != tt.want {
				t.Errorf("%s: %s answers %d, want %d", tt.name, path, resp.StatusCode, tt.want)
			}
			if tt.want == 401 && (!strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") || strings.Contains(body, "contoso")) {
				t.Errorf("%s: %s: %v %s", tt.name, path, resp.Header, body)
			}
		}
	}
}

func TestWhatEverybodyMaySee(t *testing.T) {
	sick := guarded(t, func(src *source, _ *string, _ *error) { src.report.Quarantine = 1 })
	tests := []struct {
		base, path, shown string
		code              int
		want              string
	}{
		{guarded(t, nil), "/healthz", "", 200, "ok\n"},
		{guarded(t, nil), "/readyz", "", 200, "healthy\n"},
		{sick, "/readyz", "", 503, "unhealthy\n"},
		{sick, "/readyz", "Bearer wrong", 503, "unhealthy\n"},
		{sick, "/readyz", "Bearer " + token, 503, "unhealthy: 1 items could not be processed"},
		{sick, "/readyz/x", "", 401, "token"},
		{sick, "/nothing", "", 401, "token"},
		{sick, "/", "", 401, "token"},
		{sick, "/nothing", "Bearer " + token, 404, ""},
	}
	for _, tt := range tests {
		resp, body := request(t, "GET", tt.base+tt.path, "Authorization", tt.shown)
		exact := tt.shown != "Bearer "+token && resp.StatusCode != 401
		if resp.StatusCode != tt.code || !strings.Contains(body, tt.want) || exact && body != tt.want {
			t.Errorf("%s with %q: %d %q, want %d %q", tt.path, tt.shown, resp.StatusCode, body, tt.code, tt.want)
		}
	}
	if resp, _ := request(t, "POST", sick+"/healthz"); resp.StatusCode != 401 {
		t.Errorf("POST /healthz answers %d", resp.StatusCode)
	}
}

func TestATokenDoesNotHelpAWebPage(t *testing.T) {
	base := guarded(t, nil)
	for _, origin := range []string{"https://evil.example", "null"} {
		resp, _ := request(t, "POST", base+"/api/v1/resync?watch=sales", "Authorization", basic("", token), "Origin", origin)
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("a page from %s is answered %d", origin, resp.StatusCode)
		}
	}
}

func TestATokenThatCannotBeReadLetsNobodyIn(t *testing.T) {
	for name, edit := range map[string]func(*source, *string, *error){
		"an error": func(_ *source, want *string, err *error) {
			*want, *err = "", errors.New("/run/canary: permission denied")
		},
		"empty": func(_ *source, want *string, _ *error) { *want = "" },
	} {
		base := guarded(t, edit)
		for _, shown := range []string{"", "Bearer " + token, "Bearer ", basic("", "")} {
			resp, body := request(t, "GET", base+"/api/v1/status", "Authorization", shown)
			if resp.StatusCode != 401 && resp.StatusCode != 503 || strings.Contains(body, "canary") {
				t.Errorf("%s: %q is answered %d %s", name, shown, resp.StatusCode, body)
			}
		}
		if resp, _ := request(t, "GET", base+"/healthz"); resp.StatusCode != 200 {
			t.Errorf("%s: /healthz answers %d", name, resp.StatusCode)
		}
	}
}

func TestAnotherTokenTakesEffectAtOnce(t *testing.T) {
	var now *string
	base := guarded(t, func(_ *source, want *string, _ *error) { now = want })
	*now = strings.Repeat("n", 32)
	if resp, _ := request(t, "GET", base+"/metrics", "Authorization", "Bearer "+token); resp.StatusCode != 401 {
		t.Errorf("the token of before is answered %d", resp.StatusCode)
	}
	if resp, _ := request(t, "GET", base+"/metrics", "Authorization", "Bearer "+*now); resp.StatusCode != 200 {
		t.Errorf("the token of now is answered %d", resp.StatusCode)
	}
}

func TestClientWithAToken(t *testing.T) {
	addr := strings.TrimPrefix(guarded(t, nil), "http://")
	c := NewClient(addr).WithToken(token)
	if r, err := c.Status(t.Context()); err != nil || !r.Healthy {
		t.Errorf("status: %+v, %v", r, err)
	}
	if n, err := c.Resync(t.Context(), "sales"); n != 3 || err != nil {
		t.Errorf("resync: %d, %v", n, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, *c); strings.Contains(text, token) {
		t.Errorf("printed: %s", text)
	}
	for name, c := range map[string]*Client{"none": NewClient(addr), "another": NewClient(addr).WithToken("x")} {
		_, err := c.Status(t.Context())
		if err == nil || errors.Is(err, ErrNoDaemon) || !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		":8081": "localhost:8081", "0.0.0.0:8081": "localhost:8081", "[::]:8081": "localhost:8081",
		"127.0.0.1:8081": "127.0.0.1:8081", "[::1]:8081": "[::1]:8081", "vm7.contoso.test:8081": "vm7.contoso.test:8081", "192.0.2.1:1": "192.0.2.1:1",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("reachable(%q) = %q, want %q", addr, got, want)
		}
	}
}

// FuzzShows looks for a header that gets in without holding the token, plain or as the password of Basic.
func FuzzShows(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer " + token, "bEaReR " + token, basic("", token), basic(token, ""), basic("a:b", token), "Basic !", "Bearer  " + token} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		_, encoded, _ := strings.Cut(header, " ")
		decoded, _ := base64.StdEncoding.DecodeString(encoded)
		holds := encoded == token || strings.HasSuffix(string(decoded), ":"+token)
		if shows(r, token) && !holds {
			t.Errorf("%q gets in", header)
		}
		if shows(r, "") {
			t.Errorf("%q shows an empty token", header)
		}
	})
}
