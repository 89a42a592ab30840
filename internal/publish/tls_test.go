package publish

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM of cert
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t), file: filepath.Join(t.TempDir(), "ca.pem")}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue signs a server certificate for a host, expired or not.
func (a *authority) issue(t *testing.T, host string, until time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSNeverFallsBackAndNamesTheCause(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	valid := time.Now().Add(time.Hour)
	config := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	for name, c := range map[string]struct {
		server *tls.Config
		want   string // of the reason; empty means that it works
	}{
		"a good certificate": {config(ours.issue(t, "127.0.0.1", valid)), ""},
		"plain text":         {nil, "secure connection not available"},
		"unknown authority":  {config(other.issue(t, "127.0.0.1", valid)), "certificate signed by unknown authority"},
		"wrong name":         {config(ours.issue(t, "nats.example", valid)), "doesn't contain any IP SANs"},
		"expired":            {config(ours.issue(t, "127.0.0.1", time.Now().Add(-time.Hour))), "certificate has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := strictServer(t, &server.Options{TLSConfig: c.server, TLSTimeout: 2})
			s := newStore(t)
			appendEvents(t, s, mailboxes(1), 1, 2)
			p := start(t, s, Options{URL: "nats://" + srv.Addr().String(), TLSCAFile: ours.file})
			if c.want == "" {
				published(t, s, p)
				return
			}
			eventually(t, "saying why", func() bool { return strings.Contains(p.Status().Blocked, c.want) })
			seen, err := srv.Varz(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.OutboxStats().Entries; got != 2 || seen.InMsgs > 0 {
				t.Errorf("outbox holds %d events, server has seen %d messages, want 2 and none", got, seen.InMsgs)
			}
		})
	}
}
