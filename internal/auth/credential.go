package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"time"
)

// Credential proves to the login endpoint which app asks. It is safe for concurrent use.
type Credential interface {
	// proofs are the form values to add to a token request, the best first; several only while two secrets are live.
	// They are asked for before each request, since a secret may have been rotated and an assertion must be fresh.
	proofs(tokenURL string) ([]url.Values, error)
	// version is another one when the operator has replaced the credential. It tells nothing about it.
	version() (string, error)
	// Expiry is when a certificate ends; zero when nothing is known of an end.
	Expiry() time.Time
}

// ClientSecrets reads client secrets, the newest first: Entra lets two live while one replaces the other. One that
// cannot be read is passed over while another can.
func ClientSecrets(read ...func() (string, error)) Credential { return clientSecrets(read) }

type clientSecrets []func() (string, error)

func (s clientSecrets) proofs(string) (out []url.Values, err error) {
	secrets, err := s.read()
	for _, secret := range secrets {
		out = append(out, url.Values{"client_secret": {secret}})
	}
	return out, err
}

// read returns what can be read; an error only when nothing can.
func (s clientSecrets) read() (out []string, err error) {
	var problems []error
	for _, read := range s {
		secret, err := read()
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out = append(out, secret)
	}
	if len(out) == 0 {
		return nil, errors.Join(append(problems, errIfNone(len(s)))...)
	}
	return out, nil
}

func errIfNone(n int) error {
	if n == 0 {
		return errors.New("no client secret is configured")
	}
	return nil
}

func (s clientSecrets) version() (string, error) {
	secrets, err := s.read()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, secret := range secrets {
		sum := sha256.Sum256([]byte(secret))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (clientSecrets) Expiry() time.Time { return time.Time{} }

// assertionType says that client_assertion is a JWT (RFC 7523).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

func assertion(jwt string) []url.Values {
	return []url.Values{{"client_assertion_type": {assertionType}, "client_assertion": {jwt}}}
}

// FederatedToken reads a token of another issuer that the app trusts (workload identity). It is read for every request,
// because whoever writes the file replaces it often.
func FederatedToken(read func() (string, error)) Credential { return federatedToken(read) }

type federatedToken func() (string, error)

func (f federatedToken) proofs(string) ([]url.Values, error) {
	jwt, err := f()
	if err != nil {
		return nil, err
	}
	if !looksLikeJWT(jwt) {
		return nil, errors.New("the federated token file holds no JWT: name the file that the issuer writes")
	}
	return assertion(jwt), nil
}

// looksLikeJWT tells three parts of base64url, so that another secret named by mistake is not sent anywhere.
func looksLikeJWT(s string) bool {
	dots := 0
	for _, r := range s {
		switch {
		case r == '.':
			dots++
		case r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
		default:
			return false
		}
	}
	return dots == 2
}

func (f federatedToken) version() (string, error) { return clientSecrets{f}.version() }

func (federatedToken) Expiry() time.Time { return time.Time{} }
