package auth

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// counting counts token requests by grant, and puts Entra's quirks before a server.
type counting struct {
	mu      sync.Mutex
	grants  map[string]int
	quirk   func(grant string, n int) *http.Response // nil, or returning nil: the server answers
	traffic *traffic                                 // nil: nobody looks for secrets

	// lenient makes of a server one like Entra, where a refresh token that was used stays good: where an old one is shown,
	// the server sees the newest of its line.
	lenient bool
	next    map[string]string // of refresh tokens
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || r.Body == nil {
		return http.DefaultTransport.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	c.traffic.sent(form)
	resp := c.ask(form)
	if resp != nil {
		resp.Request = r
		return resp, nil
	}
	sent := form.Encode()
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(sent)), int64(len(sent))
	if resp, err = http.DefaultTransport.RoundTrip(r); err != nil {
		return nil, err
	}
	return resp, c.learn(form, resp)
}

// ask counts a request, and answers it when a quirk wants that.
func (c *counting) ask(form url.Values) *http.Response {
	grant := form.Get("grant_type")
	c.mu.Lock()
	if c.grants == nil {
		c.grants, c.next = map[string]int{}, map[string]string{}
	}
	c.grants[grant]++
	n, quirk := c.grants[grant], c.quirk
	for c.lenient && c.next[form.Get("refresh_token")] != "" {
		form.Set("refresh_token", c.next[form.Get("refresh_token")])
	}
	c.mu.Unlock()
	if grant == "" || quirk == nil {
		return nil
	}
	return quirk(grant, n)
}

// learn reads what the server gave, and leaves it to be read again.
func (c *counting) learn(form url.Values, resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var given map[string]any
	if json.Unmarshal(body, &given) != nil {
		return nil
	}
	c.traffic.given(given)
	token, _ := given["refresh_token"].(string)
	if old := form.Get("refresh_token"); token != "" && old != "" && token != old {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.next[old] = token
	}
	return nil
}

func (c *counting) count(grant string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grants[grant]
}

func (c *counting) quirks(f func(grant string, n int) *http.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quirk = f
}

// answer is what a quirk says instead of the server.
func answer(status int, body string, headers ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// behind puts a reverse proxy before a server: all that triggerd sees of it comes from there. What a person sees does not.
func (s *server) behind(t testing.TB, wire *counting) *server {
	t.Helper()
	base := strings.TrimSuffix(s.issuer, "/")
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	wire.traffic = s.traffic
	var own string
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: wire,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			if !strings.HasSuffix(resp.Request.URL.Path, "/openid-configuration") {
				return nil
			}
			return moved(resp, base, own)
		},
	})
	t.Cleanup(proxy.Close)
	own = proxy.URL
	seen := *s
	seen.metadata = own + strings.TrimPrefix(s.metadata, base)
	return &seen
}

// moved makes the endpoints in a discovery document the proxy's. The issuer stays who it is.
func moved(resp *http.Response, from, to string) error {
	var m map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return err
	}
	resp.Body.Close()
	for name, v := range m {
		if link, ok := v.(string); ok && name != "issuer" && strings.HasPrefix(link, from) {
			m[name] = to + strings.TrimPrefix(link, from)
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// traffic is what was logged, and the secrets that went over the wire meanwhile.
type traffic struct {
	mu      sync.Mutex
	log     bytes.Buffer
	secrets []string
}

// watchTraffic fails the test in its end when a log line holds what nobody may read.
func watchTraffic(t testing.TB, names ...string) *traffic {
	w := &traffic{secrets: names}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, secret := range w.secrets {
			if strings.Contains(w.log.String(), secret) {
				t.Errorf("logged: %s in %s", secret, w.log.String())
			}
		}
	})
	return w
}

func (w *traffic) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

var secretNames = []string{"access_token", "refresh_token", "id_token", "code", "device_code", "client_secret", "client_assertion", "code_verifier"}

func (w *traffic) sent(form url.Values) {
	for _, name := range secretNames {
		w.note(form.Get(name))
	}
}

func (w *traffic) given(answer map[string]any) {
	for _, name := range secretNames {
		text, _ := answer[name].(string)
		w.note(text)
	}
}

func (w *traffic) note(secret string) {
	if w == nil || secret == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.secrets, secret) {
		w.secrets = append(w.secrets, secret)
	}
}
