package daemon

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/emulator"
)

// appCertificate makes a certificate with its key, in one file.
func appCertificate(t *testing.T, path string, life time.Duration) *x509.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	must(t, os.WriteFile(path, text, 0o600))
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return leaf
}

// An app signs in with a certificate, is warned before it ends, and takes up the next one while it runs.
func TestAppWithACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "app.pem")
		s := startSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(s.yaml, "client_secret_file: %s", "certificate_file: "+path+"}\n# {%s", 1)
			s.before = func() { s.emu.TrustCertificate(appCertificate(t, path, 15*24*time.Hour)) }
		})
		s.wait(settle)
		s.deliver("with a certificate")
		s.wait(settle)
		s.want("received with a certificate")
		s.wait(2 * 24 * time.Hour)
		if st := s.state(); st.State != connections.OK || time.Until(st.CredentialExpiresAt) > 14*24*time.Hour || st.CredentialExpiresAt.IsZero() {
			t.Errorf("state %+v", st)
		}
		next := appCertificate(t, path, 365*24*time.Hour) // not uploaded yet
		s.wait(time.Minute)                               // until the file was looked at: the old one would still sign in
		s.emu.RevokeTokens()
		s.wait(20 * time.Minute) // a round is due within the sweep interval
		if st := s.state(); st.State != connections.CredentialFailed || !strings.Contains(st.Reason, "upload this certificate to the app registration") {
			t.Errorf("with a certificate that Entra does not know: %+v", st)
		}
		s.emu.TrustCertificate(next)
		s.deliver("meanwhile")
		s.wait(2 * time.Hour)
		s.want("received with a certificate", "received meanwhile")
		if st := s.state(); st.State != connections.OK || time.Until(st.CredentialExpiresAt) < 300*24*time.Hour {
			t.Errorf("with the next certificate: %+v", st)
		}
		s.checkLaw()
	})
}

// An app signs in with the token of another issuer, which that issuer replaces in its file.
func TestAppWithAFederatedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(t, err)
		path := filepath.Join(t.TempDir(), "token")
		write := func() {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
			must(t, err)
			text, err := jwt.Signed(signer).Claims(jwt.Claims{Audience: jwt.Audience{"api://AzureADTokenExchange"}, Issuer: "https://issuer.example", Subject: "vm", Expiry: jwt.NewNumericDate(time.Now().Add(2 * time.Hour))}).Serialize()
			must(t, err)
			must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		}
		write()
		s := startSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(s.yaml, "client_secret_file: %s", "federated_token_file: "+path+"}\n# {%s", 1)
			s.before = func() { s.emu.TrustIssuer(&key.PublicKey) }
		})
		for range 5 {
			s.wait(90 * time.Minute)
			write()
		}
		s.deliver("with a federated token")
		s.wait(settle)
		s.want("received with a federated token")
		if st := s.state(); st.State != connections.OK {
			t.Errorf("state %+v", st)
		}
	})
}
