package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pair makes a self-signed certificate for hook.test and its key, as PEM.
func pair(t *testing.T, serial int64, from, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"hook.test"}, NotBefore: from, NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shown is the certificate that a server shows to a client over a pipe.
func shown(t *testing.T, server *tls.Config, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		_ = tls.Server(theirs, server).Handshake()
	}()
	defer func() { ours.Close(); <-done }()
	conn := tls.Client(ours, client)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// serial is the number of the certificate that is shown to whoever asks for hook.test.
func serial(t *testing.T, server *tls.Config) int64 {
	t.Helper()
	cert, err := shown(t, server, &tls.Config{ServerName: "hook.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.Int64()
}

func TestTLSVersions(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	cert, key := pair(t, 1, now.Add(-time.Hour), now.Add(time.Hour))
	f, err := NewFiles(write(t, dir, "c", cert), write(t, dir, "k", key), nop)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, err := shown(t, f.TLS(), &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true})
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestReadRoots(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	cert, key := pair(t, 1, now.Add(-time.Hour), now.Add(time.Hour))
	pool, err := ReadRoots(write(t, dir, "roots.pem", bytes.Join([][]byte{[]byte("a comment\n"), cert}, nil)))
	if err != nil || pool.Equal(x509.NewCertPool()) {
		t.Errorf("ReadRoots = %v, %v, want one certificate", pool, err)
	}
	if _, err := ReadRoots(write(t, dir, "key.pem", key)); err == nil {
		t.Error("a key is taken for a certificate")
	}
	if _, err := ReadRoots(filepath.Join(dir, "missing")); !os.IsNotExist(err) {
		t.Errorf("ReadRoots of nothing = %v", err)
	}
}
