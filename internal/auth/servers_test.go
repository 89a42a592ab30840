package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
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
	traffic  *traffic
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
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: the tests of sign-in need %s", err, name)
	}
	impatient := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok && impatient.Stop() {
			go io.Copy(io.Discard, out)
			t.Cleanup(func() {
				in.Close()
				_ = cmd.Wait() // ends with its standard input
			})
			return port
		}
	}
	in.Close()
	_ = cmd.Wait()
	t.Fatalf("%s did not start: %s", name, complaints.String())
	return ""
}

const (
	nodeDir       = "testdata/oidc-provider"
	zitadelBinary = "../../bin/testservers/zitadel"
)

// installed fails a test when something that it needs is missing. Tests download and build nothing.
func installed(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: install the OAuth servers of the tests: make testservers", err)
	}
}

func oidcProvider(t testing.TB, env ...string) *server {
	t.Helper()
	installed(t, filepath.Join(nodeDir, "node_modules", "oidc-provider"))
	base := "http://127.0.0.1:" + startProcess(t, nodeDir, env, "node", "op.mjs")
	return &server{
		name: "oidc-provider", issuer: base, metadata: base + "/.well-known/openid-configuration", public: "public", secret: "byo", value: "s3cret",
		strict: true, scopes: []string{"Mail.Read"}, fill: map[string]string{"login": "ada", "password": "x"}, start: oidcProvider,
		traffic: watchTraffic(t, "ada@example.com"),
	}
}

func zitadel(t testing.TB, env ...string) *server {
	t.Helper()
	installed(t, zitadelBinary)
	base := "http://localhost:" + startProcess(t, ".", env, zitadelBinary) + "/"
	return &server{
		name: "zitadel", issuer: base, metadata: base + ".well-known/openid-configuration", public: "native", secret: "web", value: "secret-canary",
		fill: map[string]string{"username": "test-user@localhost", "password": "verysecure"}, start: zitadel,
		traffic: watchTraffic(t, "test-user@localhost"),
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

// user makes a source of tokens against a server.
func (s *server) user(v Vault, wire http.RoundTripper, edit ...func(*UserOptions)) *User {
	o := UserOptions{
		Tenant: "common", ClientID: s.public, Metadata: s.metadata, Prompt: "consent", Scopes: s.scopes, Vault: v,
		Transport: wire, Spacing: time.Millisecond, Log: zerolog.New(s.traffic),
	}
	if c, ok := wire.(*counting); ok {
		c.traffic = s.traffic
	}
	for _, f := range edit {
		f(&o)
	}
	return NewUser(o)
}

// signIn signs the user in.
func (s *server) signIn(t testing.TB, u *User) Grant {
	t.Helper()
	f, err := u.AuthCode(t.Context(), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(s.browse(t, f.URL(), "", false))
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

// accepts fails the test when the server that issued a token does not take it.
func (s *server) accepts(t testing.TB, token string) {
	t.Helper()
	if status := s.userinfo(t, token); status != http.StatusOK {
		t.Errorf("%s answers %d to its own token", s.name, status)
	}
}

func (s *server) userinfo(t testing.TB, token string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.endpoint(t, "userinfo_endpoint"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// endpoint is one that triggerd itself does not use.
func (s *server) endpoint(t testing.TB, name string) string {
	t.Helper()
	resp, err := http.Get(s.metadata)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var m map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	link, _ := m[name].(string)
	if link == "" {
		t.Fatalf("%s has no %s", s.name, name)
	}
	return link
}

// revoke ends a sign-in at the server, as an administrator would.
func (s *server) revoke(t testing.TB, refreshToken string) {
	t.Helper()
	resp, err := http.PostForm(s.endpoint(t, "revocation_endpoint"), url.Values{"token": {refreshToken}, "token_type_hint": {"refresh_token"}, "client_id": {s.public}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s does not revoke: %d", s.name, resp.StatusCode)
	}
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
