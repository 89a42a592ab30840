package certificate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// pebbleBinary is Let's Encrypt's own server for tests; see testdata/pebble.
const pebbleBinary = "../../bin/testservers/pebble"

// authority is a running pebble.
type authority struct {
	directory string
	api       *x509.CertPool // leads to its listener
	root      *x509.CertPool // leads to what it issues
	stop      func()
}

// startAuthority runs a pebble that validates at a port and issues certificates that live so long.
func startAuthority(t *testing.T, port string, life time.Duration) *authority {
	t.Helper()
	if _, err := os.Stat(pebbleBinary); err != nil {
		t.Fatalf("%v: install the servers of the tests: make testservers", err)
	}
	dir := t.TempDir()
	cmd := exec.Command(pebbleBinary, dir, port, life.String())
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
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
		t.Fatal(err)
	}
	a := &authority{stop: sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })} // it ends with its standard input
	t.Cleanup(a.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		a.stop()
		t.Fatalf("pebble: %v: %s", err, complaints.String())
	}
	a.directory = "https://localhost:" + strings.TrimSpace(strings.TrimPrefix(line, "port ")) + "/dir"
	for name, pool := range map[string]**x509.CertPool{"api.pem": &a.api, "root.pem": &a.root} {
		if *pool, err = ReadRoots(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// host is a machine whose public listener has its certificate by ACME.
type host struct {
	t         *testing.T
	name      string
	dir       string
	port      string
	listener  net.Listener
	authority *authority
	log       buffer
	acme      *ACME
	stop      func()
}

// buffer is a log that may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const email = "canary@contoso.test"

// hosts counts them: certmagic remembers by name, for the whole process, when a renewal failed last.
var hosts atomic.Int64

func newHost(t *testing.T, life time.Duration) *host {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	name := fmt.Sprintf("hook%d.triggerd.test", hosts.Add(1))
	return &host{t: t, name: name, dir: filepath.Join(t.TempDir(), "acme"), port: port, listener: l, authority: startAuthority(t, port, life)}
}

// start runs ACME behind the listener, as the daemon does, until stop.
func (h *host) start() {
	h.t.Helper()
	if h.listener == nil {
		var err error
		if h.listener, err = net.Listen("tcp", "127.0.0.1:"+h.port); err != nil {
			h.t.Fatal(err)
		}
	}
	h.acme = NewACME(ACMEOptions{
		Host: h.name, Email: email, CA: h.authority.directory, Roots: h.authority.api, Dir: h.dir,
		Listen: h.listener.Addr().(*net.TCPAddr), RenewEvery: 200 * time.Millisecond, Log: zerolog.New(&h.log),
	})
	server := &http.Server{
		TLSConfig: h.acme.TLS(), ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }),
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done, served := make(chan error, 1), make(chan error, 1)
	listener := h.listener
	go func() { served <- server.ServeTLS(listener, "", "") }()
	go func() { done <- h.acme.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run = %v", err)
		}
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			h.t.Errorf("Serve = %v", err)
		}
		h.listener = nil
	})
	h.t.Cleanup(h.stop)
}

// ask makes a request as Graph would: it checks the certificate.
func (h *host) ask(version uint16) (*tls.ConnectionState, error) {
	h.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: h.authority.root, MaxVersion: version},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+h.port)
		},
	}}
	resp, err := client.Get("https://" + h.name + "/graph/notifications")
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	return resp.TLS, nil
}

// until waits for something that others bring about.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s did not happen: %+v\n%s", what, h.acme.Status(), h.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (h *host) has() bool { return !h.acme.Status().NotAfter.IsZero() }

func TestACertificateIsIssuedAndServed(t *testing.T) {
	t.Parallel()
	h := newHost(t, 90*24*time.Hour)
	h.start()
	h.until("the first certificate", h.has)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		state, err := h.ask(version)
		if err != nil {
			t.Fatalf("%s: %v", tls.VersionName(version), err)
		}
		if state.Version != version || state.NegotiatedProtocol != "h2" {
			t.Errorf("spoken: %s, %s", tls.VersionName(state.Version), state.NegotiatedProtocol)
		}
	}
	s := h.acme.Status()
	if left := time.Until(s.NotAfter); s.Source != SourceACME || s.Error != "" || left < 89*24*time.Hour || left > 90*24*time.Hour {
		t.Errorf("status %+v", s)
	}
	if log := h.log.String(); !strings.Contains(log, "certificate obtained") || strings.Contains(log, email) {
		t.Errorf("log = %s", log)
	}
	h.stop()
	h.onlyOursToRead()
}

// onlyOursToRead checks the modes of what is stored: keys are among it.
func (h *host) onlyOursToRead() {
	h.t.Helper()
	files := 0
	err := filepath.WalkDir(h.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			h.t.Errorf("%s has mode %v", path, info.Mode())
		}
		if !e.IsDir() {
			files++
		}
		return nil
	})
	if err != nil || files < 4 {
		h.t.Errorf("%d files are stored: %v", files, err)
	}
}

func TestAfterARestartTheStoredCertificateIsServed(t *testing.T) {
	t.Parallel()
	h := newHost(t, 90*24*time.Hour)
	h.start()
	h.until("the first certificate", h.has)
	first, err := h.ask(0)
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.authority.stop() // nothing can be asked any more
	h.start()
	h.until("the stored certificate", h.has)
	second, err := h.ask(0)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := first.PeerCertificates[0].SerialNumber, second.PeerCertificates[0].SerialNumber; a.Cmp(b) != 0 {
		t.Errorf("certificate %d is served after a restart, want %d", b, a)
	}
}

func TestRenewalWithoutABrokenConnection(t *testing.T) {
	t.Parallel()
	h := newHost(t, 12*time.Second)
	h.start()
	h.until("the first certificate", h.has)
	first, err := h.ask(0)
	if err != nil {
		t.Fatal(err)
	}
	h.until("a renewal", func() bool {
		state, err := h.ask(0)
		if err != nil {
			t.Fatalf("a request meanwhile: %v", err)
		}
		return state.PeerCertificates[0].SerialNumber.Cmp(first.PeerCertificates[0].SerialNumber) != 0
	})
	if log := h.log.String(); !strings.Contains(log, `"renewal":true`) {
		t.Errorf("log = %s", log)
	}
}

func TestARenewalThatFailsIsToldAndTheCertificateStays(t *testing.T) {
	t.Parallel()
	h := newHost(t, 12*time.Second)
	h.start()
	h.until("the first certificate", h.has)
	h.authority.stop()
	h.until("a failure", func() bool { return h.acme.Status().Error != "" })
	if _, err := h.ask(0); err != nil {
		t.Errorf("the certificate of before: %v", err)
	}
	if s := h.acme.Status(); s.NotAfter.IsZero() || !strings.Contains(s.Error, "connection refused") {
		t.Errorf("status %+v", s)
	}
	if log := h.log.String(); !strings.Contains(log, `"level":"warn"`) || strings.Contains(log, email) {
		t.Errorf("log = %s", log)
	}
}

// TestWithoutACertificate has the authority look for the host where somebody else is.
func TestWithoutACertificate(t *testing.T) {
	t.Parallel()
	h := newHost(t, time.Hour)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(other.Addr().String())
	other.Close()
	h.authority = startAuthority(t, port, time.Hour)
	h.start()
	if _, err := h.ask(0); err == nil {
		t.Error("a connection without a certificate")
	}
	h.until("a failure", func() bool { return h.acme.Status().Error != "" })
	if s := h.acme.Status(); !s.NotAfter.IsZero() || !strings.Contains(s.Error, h.name) {
		t.Errorf("status %+v", s)
	}
	h.stop() // in the midst of waiting for another attempt
}

func TestAnAuthorityThatIsNotTrusted(t *testing.T) {
	t.Parallel()
	h := newHost(t, time.Hour)
	h.authority.api = x509.NewCertPool()
	h.start()
	h.until("a failure", func() bool { return h.acme.Status().Error != "" })
	if s := h.acme.Status(); !strings.Contains(s.Error, "certificate signed by unknown authority") {
		t.Errorf("status %+v", s)
	}
}

func TestADamagedStoreIsTold(t *testing.T) {
	t.Parallel()
	h := newHost(t, 90*24*time.Hour)
	h.start()
	h.until("the first certificate", h.has)
	h.stop()
	certs, err := filepath.Glob(filepath.Join(h.dir, "certificates", "*", "*", "*.crt"))
	if err != nil || len(certs) != 1 {
		t.Fatalf("stored: %v, %v", certs, err)
	}
	write(t, filepath.Dir(certs[0]), filepath.Base(certs[0]), []byte("damaged"))
	h.start()
	h.until("a failure", func() bool { return h.acme.Status().Error != "" })
	if s := h.acme.Status(); !strings.Contains(s.Error, "remove "+h.dir+" to get another") {
		t.Errorf("status %+v", s)
	}
	h.stop()
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("another certificate", h.has)
}

func TestErrorsDoNotNameTheAccount(t *testing.T) {
	var log buffer
	a := NewACME(ACMEOptions{Host: "hook.triggerd.test", Email: email, Dir: t.TempDir(), Log: zerolog.New(&log)})
	a.fail(errors.New("contact mailto:" + email + " is refused"))
	if s := a.Status(); s.Error != "contact mailto:[redacted] is refused" || strings.Contains(log.String(), email) {
		t.Errorf("status %+v, log %s", s, log.String())
	}
}
