package daemon

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/status"
)

// public is a daemon that Graph reaches by https, directly or through what stands in front.
type public struct {
	*world
	address string         // where TLS is spoken
	roots   *x509.CertPool // that Graph and the daemon's own check trust
}

// newPublic makes the world of a daemon whose public URL is https://localhost with the port of address, under a
// certificate that leads to the root in a file.
func newPublic(t *testing.T, address, root string) *public {
	t.Helper()
	text, err := os.ReadFile(root)
	must(t, err)
	p := &public{address: address, roots: x509.NewCertPool()}
	if !p.roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", root)
	}
	graph := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MaxVersion: tls.VersionTLS12}} // as Graph (X-1a)
	t.Cleanup(graph.CloseIdleConnections)
	p.world = newWorld(t, emulator.Options{Delivery: graph})
	p.emu.AddUser("sales@contoso.com")
	p.set("TRIGGERD_PUBLIC_URL="+p.url(), "SSL_CERT_FILE="+root)
	return p
}

func (p *public) url() string {
	_, port, _ := net.SplitHostPort(p.address)
	return "https://localhost:" + port
}

// set adds to the environment of the daemon; the last one wins.
func (w *world) set(env ...string) { w.env = append(w.env, env...) }

// get looks up in the environment of the daemon.
func (w *world) get(name string) (value string) {
	for _, kv := range w.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// carriesGraph checks that a validation and a notification get through.
func (p *public) carriesGraph() {
	p.t.Helper()
	p.waitSubscribed(2) // each was validated
	if _, err := p.emu.Deliver("sales@contoso.com", emulator.Mail{Subject: "through " + p.address}); err != nil {
		p.t.Fatal(err)
	}
	msgs := p.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == 1 })
	if len(msgs) != 1 {
		p.t.Fatalf("%d messages came, want one", len(msgs))
	}
	for deadline := time.Now().Add(30 * time.Second); p.report(nil).Notifications.Accepted == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("no notification came: %+v", p.report(nil).Notifications)
		}
	}
}

// client speaks one version of TLS.
func (p *public) client(version uint16) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: version, MaxVersion: version}}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// refusesStrangers checks what is answered to those who are not Graph.
func (p *public) refusesStrangers() {
	p.t.Helper()
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		resp, err := p.client(version).Post(p.url()+"/graph/lifecycle?validationToken=a%20b%2Bc+d", "text/plain", nil)
		if (err == nil) != want {
			p.t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err != nil {
			continue
		}
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(body) != "a b+c d" {
			p.t.Errorf("%s: a validation is answered %d %q, %v", tls.VersionName(version), resp.StatusCode, body, err)
		}
		resp.Body.Close()
	}
	const limit = 10 << 20
	requests := []struct {
		name, method, path string
		body               io.Reader
		want               int
	}{
		{"the root", "GET", "/", nil, 404},
		{"health", "GET", "/healthz", nil, 404},
		{"the report", "GET", "/api/v1/status", nil, 404},
		{"metrics", "GET", "/metrics", nil, 404},
		{"below a path", "POST", "/graph/notifications/x", nil, 404},
		{"above a path", "POST", "/graph/", nil, 404},
		{"a visit", "GET", "/graph/notifications", nil, 404},
		{"no notification", "POST", "/graph/notifications", strings.NewReader("{}"), 400},
		{"the largest body", "POST", "/graph/notifications", bytes.NewReader(make([]byte, limit)), 400},
		{"one byte more", "POST", "/graph/notifications", bytes.NewReader(make([]byte, limit+1)), 413},
		{"one byte more, unannounced", "POST", "/graph/notifications", io.MultiReader(bytes.NewReader(make([]byte, limit+1))), 413},
	}
	client := p.client(tls.VersionTLS12)
	for _, r := range requests {
		req, err := http.NewRequestWithContext(p.t.Context(), r.method, p.url()+r.path, r.body)
		must(p.t, err)
		resp, err := client.Do(req)
		if err != nil {
			p.t.Errorf("%s: %v", r.name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != r.want {
			p.t.Errorf("%s: %s %s is answered %d, want %d", r.name, r.method, r.path, resp.StatusCode, r.want)
		}
	}
}

// certificate waits for the daemon's certificate.
func (p *public) certificate() status.Certificate {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c := p.report(nil).Certificate
		if !c.NotAfter.IsZero() {
			return c
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("certificate %+v", c)
		}
	}
}

// localhostPair makes a certificate for localhost, which is its own root, and its key.
func localhostPair(t *testing.T, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return certFile, keyFile
}

func TestTLSByFiles(t *testing.T) {
	cert, key := localhostPair(t, 1)
	p := newPublic(t, freeAddress(t), cert)
	p.set("TRIGGERD_LISTEN="+p.address, "TRIGGERD_TLS_CERT_FILE="+cert, "TRIGGERD_TLS_KEY_FILE="+key)
	d := p.start()
	defer d.stop(t)
	p.carriesGraph()
	p.refusesStrangers()
	if c := p.report(nil).Certificate; c.Source != "files" || c.Error != "" || time.Until(c.NotAfter) < 89*24*time.Hour {
		t.Errorf("certificate %+v", c)
	}
}

func TestTLSFilesThatDoNotFit(t *testing.T) {
	cert, _ := localhostPair(t, 1)
	_, key := localhostPair(t, 2)
	w := newWorld(t, emulator.Options{})
	w.set("TRIGGERD_TLS_CERT_FILE="+cert, "TRIGGERD_TLS_KEY_FILE="+key)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), w.env...), childVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "TRIGGERD_TLS_CERT_FILE: certificate "+cert) || !strings.Contains(string(out), "private key does not match") {
		t.Errorf("daemon: %v, %s", err, out)
	}
}

// startPebble runs Let's Encrypt's server for tests, which validates at the port of address. It returns its directory's
// URL, and the files with the roots of its listener and of what it issues.
func startPebble(t *testing.T, address string) (directory, api, root string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	dir := t.TempDir()
	cmd := exec.Command("../../bin/testservers/pebble", dir, port, "2160h")
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install the servers of the tests: make testservers", err)
	}
	t.Cleanup(func() {
		in.Close() // it ends with its standard input
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	return "https://localhost:" + strings.TrimSpace(strings.TrimPrefix(line, "port ")) + "/dir", filepath.Join(dir, "api.pem"), filepath.Join(dir, "root.pem")
}

func TestTLSByACME(t *testing.T) {
	address := freeAddress(t)
	directory, api, root := startPebble(t, address)
	p := newPublic(t, address, root)
	p.set("TRIGGERD_LISTEN="+address, "TRIGGERD_ACME_EMAIL=canary@contoso.test", "TRIGGERD_ACME_CA="+directory, "TRIGGERD_ACME_CA_ROOT_FILE="+api)
	d := p.start()
	first := p.certificate()
	if first.Source != "acme" || first.Error != "" || time.Until(first.NotAfter) < 89*24*time.Hour {
		t.Errorf("certificate %+v", first)
	}
	d.kill() // the certificate is stored, and nobody need be asked again
	d = p.start()
	if second := p.certificate(); second != first {
		t.Errorf("after a kill: %+v, want %+v", second, first)
	}
	p.carriesGraph()
	p.refusesStrangers()
	d.stop(t)
	if info, err := os.Stat(filepath.Join(p.get("TRIGGERD_STATE_DIR"), "acme")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of keys: %v, %v", info, err)
	}
	if strings.Contains(d.errs.String(), "canary") {
		t.Errorf("log = %s", d.errs.String())
	}
}
