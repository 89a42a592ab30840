package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
)

// credential proves to the login endpoint who the app is: today a client secret; a certificate or a federated token
// makes other form values.
type credential interface {
	// values are added to the token request. They are asked for before each one, since a secret may have been rotated
	// and an assertion must be fresh.
	values() (url.Values, error)
	// version is another one when the operator has replaced the credential. It tells nothing about it.
	version() (string, error)
}

// clientSecret reads a client secret.
type clientSecret func() (string, error)

func (s clientSecret) values() (url.Values, error) {
	secret, err := s()
	if err != nil {
		return nil, err
	}
	return url.Values{"client_secret": {secret}}, nil
}

func (s clientSecret) version() (string, error) {
	secret, err := s()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:]), nil
}
