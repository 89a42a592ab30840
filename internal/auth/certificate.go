package auth

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"software.sslmate.com/src/go-pkcs12"
)

const (
	assertionLife = 5 * time.Minute // Entra takes up to ten
	maxKeyFile    = 1 << 20
	lookAgain     = 10 * time.Second // at the files: were they replaced?
)

// CertificateFiles name a certificate with its RSA key: PEM in one file or two, or PKCS#12.
type CertificateFiles struct {
	ClientID string                 // issuer and subject of assertions
	Cert     string                 // PEM or PKCS#12
	Key      string                 // PEM; empty: in Cert
	Password func() (string, error) // of the PKCS#12 file; nil: none
}

// Certificate proves the app by signed assertions (private_key_jwt). The files are read again when they change; while
// new ones cannot be read the old ones go on.
func Certificate(o CertificateFiles) Credential { return &certificate{files: o} }

type certificate struct {
	files CertificateFiles

	mu       sync.Mutex // guards what follows
	lookedAt time.Time
	stamp    string // of the files that pair was read from
	pair     *keyPair
}

// keyPair signs assertions.
type keyPair struct {
	key       *rsa.PrivateKey
	x5t       string // base64url of the SHA-256 of the certificate
	notBefore time.Time
	notAfter  time.Time
}

func (c *certificate) proofs(tokenURL string) ([]url.Values, error) {
	pair, err := c.current()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	switch {
	case now.After(pair.notAfter):
		return nil, fmt.Errorf("%s: the certificate ended on %s: make a new one, add it to the app registration, and replace the file", filepath.Base(c.files.Cert), pair.notAfter.UTC().Format(time.DateOnly))
	case now.Before(pair.notBefore):
		return nil, fmt.Errorf("%s: the certificate is valid from %s on: is this machine's clock right?", filepath.Base(c.files.Cert), pair.notBefore.UTC().Format(time.RFC3339))
	}
	jwt, err := pair.assert(c.files.ClientID, tokenURL, now)
	if err != nil {
		return nil, err
	}
	return assertion(jwt), nil
}

func (c *certificate) version() (string, error) {
	pair, err := c.current()
	if err != nil {
		return "", err
	}
	return pair.x5t, nil
}

// Expiry is when the certificate ends; zero while it cannot be read.
func (c *certificate) Expiry() time.Time {
	pair, err := c.current()
	if err != nil {
		return time.Time{}
	}
	return pair.notAfter
}

// current returns the pair in the files, read again when they have changed.
func (c *certificate) current() (*keyPair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.pair != nil && now.Sub(c.lookedAt) < lookAgain && !now.Before(c.lookedAt) {
		return c.pair, nil
	}
	c.lookedAt = now
	stamp := stampOf(c.files.Cert) + stampOf(c.files.Key)
	if c.pair != nil && stamp == c.stamp {
		return c.pair, nil
	}
	pair, err := c.files.read()
	if err != nil && c.pair != nil && now.Before(c.pair.notAfter) {
		return c.pair, nil // half written, perhaps: looked at again soon
	}
	if err != nil {
		return nil, err
	}
	c.pair, c.stamp = pair, stamp
	return pair, nil
}

// stampOf changes when a file does.
func stampOf(path string) string {
	if path == "" {
		return ""
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%d %d;", fi.Size(), fi.ModTime().UnixNano())
}

func (o CertificateFiles) read() (*keyPair, error) {
	cert, err := readFile(o.Cert)
	if err != nil {
		return nil, err
	}
	var key []byte
	if o.Key != "" {
		if key, err = readFile(o.Key); err != nil {
			return nil, err
		}
	}
	password := ""
	if o.Password != nil {
		if password, err = o.Password(); err != nil {
			return nil, err
		}
	}
	pair, err := parsePair(cert, key, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(o.Cert), err)
	}
	return pair, nil
}

func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: larger than %d bytes: this is no certificate", path, maxKeyFile)
	}
	return os.ReadFile(filepath.Clean(path))
}

// parsePair reads a certificate with its key, from PEM or PKCS#12.
func parsePair(cert, key []byte, password string) (*keyPair, error) {
	if !bytes.Contains(cert, []byte("-----BEGIN ")) {
		return parsePKCS12(cert, password)
	}
	leaf, err := pemCertificate(cert)
	if err != nil {
		return nil, err
	}
	if key == nil {
		key = cert
	}
	private, err := pemKey(key)
	if err != nil {
		return nil, err
	}
	return newPair(leaf, private)
}

func parsePKCS12(data []byte, password string) (*keyPair, error) {
	private, leaf, _, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, errors.New("the password is wrong: name the file that holds it in certificate_password_file")
	case err != nil:
		return nil, errors.New("neither PEM nor a PKCS#12 file with one key and its certificate")
	}
	return newPair(leaf, private)
}

func pemCertificate(data []byte) (*x509.Certificate, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("holds no certificate (BEGIN CERTIFICATE)")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("the certificate cannot be read")
		}
		return leaf, nil
	}
}

func pemKey(data []byte) (any, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("no private key: put it into the same file, or name its file in certificate_key_file")
		}
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("the key is encrypted: store it without a password, readable for triggerd only, or use PKCS#12")
			}
			return orUnreadable(x509.ParsePKCS1PrivateKey(block.Bytes))
		case "PRIVATE KEY":
			return orUnreadable(x509.ParsePKCS8PrivateKey(block.Bytes))
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key is encrypted: store it without a password, readable for triggerd only, or use PKCS#12")
		case "EC PRIVATE KEY":
			return nil, errNotRSA
		}
	}
}

var errNotRSA = errors.New("Entra takes RSA keys only: make a certificate with an RSA key of 2048 bits or more")

func orUnreadable[K any](key K, err error) (any, error) {
	if err != nil {
		return nil, errors.New("the private key cannot be read")
	}
	return key, nil
}

func newPair(leaf *x509.Certificate, private any) (*keyPair, error) {
	key, ok := private.(*rsa.PrivateKey)
	if !ok {
		return nil, errNotRSA
	}
	if key.N.BitLen() < 2048 {
		return nil, errNotRSA
	}
	if public, ok := leaf.PublicKey.(*rsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("certificate and key do not belong together")
	}
	sum := sha256.Sum256(leaf.Raw)
	return &keyPair{key: key, x5t: base64.RawURLEncoding.EncodeToString(sum[:]), notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}, nil
}

// assert signs that the app asks, as Entra wants it: PS256, the certificate's SHA-256 in the header, the token endpoint
// as audience, good for minutes and once.
func (p *keyPair) assert(clientID, tokenURL string, now time.Time) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.PS256, Key: p.key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("x5t#S256", p.x5t))
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"aud": tokenURL, "iss": clientID, "sub": clientID, "jti": uuid.NewString(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
