package auth

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/html"
)

// Two OAuth servers that nobody here wrote, started by the tests: npm oidc-provider, where using a refresh token twice
// ends the sign-in, and the example server of Go's zitadel/oidc, where it only fails. They differ exactly where triggerd
// has to cope. What Entra does beyond is put in front of them by quirks, so that the protocol is always somebody else's.

const redirectURI = "http://127.0.0.1:8400/callback"

// server is one of them at work.
type server struct {
	name     string
	issuer   string
	metadata string
	public   string   // client id
	secret   string   // client id of the one with a secret
	value    string   // of the secret
	strict   bool     // reuse of a refresh token ends the sign-in
	scopes   []string // it knows beside identity
	fill     map[string]string
	start    func(t testing.TB, env ...string) *server
}

// startProcess runs a server that prints its port, until the test ends.
func startProcess(t testing.TB, dir string, env []string, name string, args ...string) (port string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: the tests of sign-in need %s", err, name)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // ends with its standard input
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			go io.Copy(io.Discard, out)
			return port
		}
	}
	t.Fatalf("%s did not start: %s", name, complaints.String())
	return ""
}

const nodeDir = "testdata/oidc-provider"

// installed fetches the npm packages that package-lock.json pins, once.
var installed = sync.OnceValue(func() error {
	if _, err := os.Stat(filepath.Join(nodeDir, "node_modules", "oidc-provider")); err == nil {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--silent")
	cmd.Dir = nodeDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in internal/auth/%s: %w: install Node.js 20 or later: %s", nodeDir, err, out)
	}
	return nil
})

func oidcProvider(t testing.TB, env ...string) *server {
	t.Helper()
	if err := installed(); err != nil {
		t.Fatal(err)
	}
	port := startProcess(t, nodeDir, env, "node", "op.mjs")
	base := "http://127.0.0.1:" + port
	return &server{
		name: "oidc-provider", issuer: base, metadata: base + "/.well-known/openid-configuration", public: "public", secret: "byo", value: "s3cret",
		strict: true, scopes: []string{"Mail.Read"}, fill: map[string]string{"login": "ada", "password": "x"}, start: oidcProvider,
	}
}

// zitadelBinary builds the other server from its own module, once.
var zitadelBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "triggerd-zitadel-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "zitadel")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "testdata/zitadel"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := zitadelBinary(); err == nil && path != "" {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func zitadel(t testing.TB, env ...string) *server {
	t.Helper()
	path, err := zitadelBinary()
	if err != nil {
		t.Fatal(err)
	}
	port := startProcess(t, ".", env, path)
	base := "http://localhost:" + port + "/"
	return &server{
		name: "zitadel", issuer: base, metadata: base + ".well-known/openid-configuration", public: "native", secret: "web", value: "secret",
		fill: map[string]string{"username": "test-user@localhost", "password": "verysecure"}, start: zitadel,
	}
}

// onBoth runs a test against both servers.
func onBoth(t *testing.T, fn func(t *testing.T, s *server), env ...string) {
	t.Helper()
	for name, start := range map[string]func(testing.TB, ...string) *server{"oidc-provider": oidcProvider, "zitadel": zitadel} {
		t.Run(name, func(t *testing.T) { fn(t, start(t, env...)) })
	}
}

// memory is a Vault that can fail.
type memory struct {
	mu    sync.Mutex
	grant Grant
	fail  error
	saves int
}

func (m *memory) Load() (Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grant, nil
}

func (m *memory) Save(g Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.grant, m.saves = g, m.saves+1
	return nil
}

func (m *memory) failing(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// counting counts token requests by grant, and can change what is sent or answered.
type counting struct {
	mu     sync.Mutex
	grants map[string]int
	quirk  func(grant string, n int) *http.Response // nil, or returning nil: the server answers
	after  func(grant string)                       // when the server has answered
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	grant := ""
	if r.Method == http.MethodPost && r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, _ := url.ParseQuery(string(body))
		grant = form.Get("grant_type")
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	c.mu.Lock()
	if c.grants == nil {
		c.grants = map[string]int{}
	}
	c.grants[grant]++
	n, quirk, after := c.grants[grant], c.quirk, c.after
	c.mu.Unlock()
	if grant != "" && quirk != nil {
		if resp := quirk(grant, n); resp != nil {
			resp.Request = r
			return resp, nil
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if grant != "" && after != nil {
		after(grant)
	}
	return resp, err
}

func (c *counting) count(grant string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.grants[grant]
}

// user makes a source of tokens against a server.
func (s *server) user(v Vault, wire http.RoundTripper, edit ...func(*UserOptions)) *User {
	o := UserOptions{
		Tenant: "common", ClientID: s.public, Metadata: s.metadata, Prompt: "consent", Scopes: s.scopes, Vault: v,
		Transport: wire, Spacing: time.Millisecond, Log: zerolog.Nop(),
	}
	for _, f := range edit {
		f(&o)
	}
	return NewUser(o)
}

// browse does what a person does: follows redirects, fills the forms, until the browser would leave for the redirect URI.
func (s *server) browse(t testing.TB, address string, more map[string]string) (last string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	errLeft := errors.New("left")
	client := &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirectURI) {
			last = r.URL.String()
			return errLeft
		}
		return nil
	}}
	resp, err := client.Get(address)
	for range 8 {
		if last != "" {
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		action, values, found := form(t, resp)
		if !found {
			return ""
		}
		for name := range values {
			for _, known := range []map[string]string{s.fill, more} {
				if v, ok := known[name]; ok {
					values.Set(name, v)
				}
			}
		}
		resp, err = client.PostForm(action, values)
	}
	t.Fatalf("the pages of %s go in circles", s.name)
	return ""
}

// form reads the first form of a page.
func form(t testing.TB, resp *http.Response) (action string, values url.Values, found bool) {
	t.Helper()
	defer resp.Body.Close()
	doc, err := html.Parse(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	at := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	values = url.Values{}
	inside := false
	for n := range doc.Descendants() {
		switch {
		case n.Type == html.ElementNode && n.Data == "form" && !inside:
			inside = true
			u, err := resp.Request.URL.Parse(at(n, "action"))
			if err != nil {
				t.Fatal(err)
			}
			action = u.String()
		case n.Type == html.ElementNode && n.Data == "form":
			return action, values, true
		case n.Type == html.ElementNode && n.Data == "input" && at(n, "name") != "":
			values.Set(at(n, "name"), at(n, "value"))
		}
	}
	return action, values, inside
}

// signIn signs the user in.
func (s *server) signIn(t testing.TB, u *User) Grant {
	t.Helper()
	f, err := u.AuthCode(t.Context(), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(s.browse(t, f.URL(), nil))
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.Finish(t.Context(), back.Query())
	if err != nil {
		t.Fatalf("sign-in at %s: %v", s.name, err)
	}
	return g
}

func accessToken(t testing.TB, u *User) string {
	t.Helper()
	got, err := u.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// certificateFor makes a self-signed certificate with its key, as PEM in one file.
func certificateFor(t testing.TB, key *rsa.PrivateKey, ends time.Time) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "app.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// within is a context that ends before the test's patience does.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
