package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rs/zerolog"
)

const redacted = "[redacted]"

// Secret is a value that cannot be printed, marshalled or logged by accident.
type Secret string

// Reveal returns the value, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (Secret) String() string { return redacted }

// GoString hides the value from %#v.
func (Secret) GoString() string { return redacted }

// Format hides the value from every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText hides the value from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalZerologObject hides the value from logs.
func (Secret) MarshalZerologObject(e *zerolog.Event) { e.Str("secret", redacted) }

// minToken is the least length of a token in characters: 32 of base64 are 192 bits.
const minToken = 32

// ReadToken reads what gives access to the admin listener: one line of at least 32 characters.
func ReadToken(path string) (Secret, error) {
	s, err := ReadSecret(path)
	switch {
	case err != nil:
		return "", err
	case strings.ContainsFunc(string(s), func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s: a token is one line of letters, digits and signs without spaces: write what `openssl rand -hex 32` prints", path)
	case len(s) < minToken:
		return "", fmt.Errorf("%s: has %d characters, and a token needs %d: write what `openssl rand -hex 32` prints", path, len(s), minToken)
	}
	return s, nil
}

// maxSecret bounds a secret file: something larger is a mistake.
const maxSecret = 64 << 10

// ReadSecret reads a secret from a file, without the white space around it. It is read anew each time, so that a
// rotated secret is taken up without a restart.
func ReadSecret(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("%s: larger than %d bytes: this is no secret", path, maxSecret)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s: %w", path, errors.New("is empty"))
	}
	return Secret(s), nil
}
