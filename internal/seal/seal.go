// Package seal encrypts single records at rest with keys that live elsewhere: XChaCha20-Poly1305 with a random nonce, a
// key for each purpose, and the record's name as additional data, so that no record can stand in another's place.
package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	keySize  = 32
	idSize   = 8
	headSize = 1 + idSize + chacha20poly1305.NonceSizeX
	version  = 1
	maxKeys  = 16
	maxFile  = 4 << 10 // bytes of a key file
)

// Why a record cannot be opened.
var (
	ErrCut        = errors.New("the sealed record is cut off")
	ErrVersion    = errors.New("the sealed record is of an unknown version: a newer triggerd made it")
	ErrUnknownKey = errors.New("no key of the key file has sealed this record")
	ErrForged     = errors.New("the sealed record was changed, or belongs elsewhere")
)

// Keys are several keys, the first of which seals and all of which open. It never changes, is safe for concurrent use,
// and cannot be printed, neither itself nor as part of something else.
type Keys struct{ keys []key }

type key struct {
	id     [idSize]byte
	secret func() []byte // fmt looks into everything but functions
}

// NewKey makes a key as a line of a key file.
func NewKey() string {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// ReadKeys reads a key file: one key a line in base64, the first of which seals; lines that begin with # are comments.
// Or exactly 32 raw bytes. A file that everybody may read is refused.
func ReadKeys(path string) (*Keys, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("key file: %w: make one with `triggerd key new`", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("key file %s: everybody on this machine may use it: chmod o-rwx", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads what stands in a key file.
func ParseKeys(data []byte) (*Keys, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes: this is no key file", maxFile)
	}
	k := &Keys{}
	if len(data) == keySize && !printable(data) {
		k.add(data)
		return k, nil
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("line %d is no key: want 32 bytes in base64, as `triggerd key new` prints them", i+1)
		}
		if !k.add(raw) {
			return nil, fmt.Errorf("line %d repeats a key: keep one", i+1)
		}
	}
	switch {
	case len(k.keys) == 0:
		return nil, errors.New("holds no key: make one with `triggerd key new`")
	case len(k.keys) > maxKeys:
		return nil, fmt.Errorf("holds more than %d keys: take out those that seal nothing (`triggerd key list`)", maxKeys)
	}
	return k, nil
}

func printable(data []byte) bool {
	for _, b := range data {
		if b < ' ' && b != '\n' && b != '\r' && b != '\t' || b > '~' {
			return false
		}
	}
	return true
}

// add reports false for a key that is there already.
func (k *Keys) add(raw []byte) bool {
	secret := bytes.Clone(raw)
	n := key{secret: func() []byte { return secret }}
	id, err := hkdf.Key(sha256.New, raw, nil, "triggerd key id", idSize)
	if err != nil {
		panic(err) // 8 bytes are always to be had
	}
	copy(n.id[:], id)
	for i := range k.keys {
		if k.keys[i].id == n.id {
			return false
		}
	}
	k.keys = append(k.keys, n)
	return true
}

// IDs name the keys in their order; they tell nothing about them.
func (k *Keys) IDs() (out []string) {
	for i := range k.keys {
		out = append(out, hex.EncodeToString(k.keys[i].id[:]))
	}
	return out
}

// Seal encrypts a record for a purpose with the first key. Record names where it lies.
func (k *Keys) Seal(purpose string, record, plain []byte) []byte {
	first := &k.keys[0]
	out := make([]byte, headSize, headSize+len(plain)+chacha20poly1305.Overhead)
	out[0] = version
	copy(out[1:], first.id[:])
	_, _ = rand.Read(out[1+idSize:]) // never fails
	return first.box(purpose).seal(out, record, plain, purpose)
}

// Open decrypts a record: ErrCut, ErrVersion, ErrUnknownKey or ErrForged when it cannot. A record that was changed, one
// of another place and one for another purpose are the same to the cipher: ErrForged, as is one that lost a few bytes.
func (k *Keys) Open(purpose string, record, sealed []byte) ([]byte, error) {
	if len(sealed) > 0 && sealed[0] != version {
		return nil, ErrVersion
	}
	if len(sealed) < headSize+chacha20poly1305.Overhead {
		return nil, ErrCut
	}
	for i := range k.keys {
		if !bytes.Equal(k.keys[i].id[:], sealed[1:1+idSize]) {
			continue
		}
		return k.keys[i].box(purpose).open(sealed, record, purpose)
	}
	return nil, ErrUnknownKey
}

// KeyID names the key that sealed a record; empty when it is no sealed record.
func KeyID(sealed []byte) string {
	if len(sealed) < headSize || sealed[0] != version {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+idSize])
}

// box is a key for one purpose.
type box [keySize]byte

func (k *key) box(purpose string) box {
	derived, err := hkdf.Key(sha256.New, k.secret(), nil, "triggerd "+purpose, keySize)
	if err != nil {
		panic(err) // 32 bytes are always to be had
	}
	return box(derived)
}

// seal appends the ciphertext to head, which holds version, key id and nonce.
func (b box) seal(head, record, plain []byte, purpose string) []byte {
	aead, err := chacha20poly1305.NewX(b[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	return aead.Seal(head, head[1+idSize:headSize], plain, additional(head, record, purpose))
}

func (b box) open(sealed, record []byte, purpose string) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(b[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	plain, err := aead.Open(nil, sealed[1+idSize:headSize], sealed[headSize:], additional(sealed, record, purpose))
	if err != nil {
		return nil, ErrForged
	}
	return plain, nil
}

// additional is what a record is bound to: version and key, purpose, and where it lies.
func additional(head, record []byte, purpose string) []byte {
	out := append([]byte{}, head[:1+idSize]...)
	out = append(out, byte(len(purpose)))
	out = append(out, purpose...)
	return append(out, record...)
}

const redacted = "[redacted]"

// String hides the keys, as all of these do, for values as for pointers.
func (Keys) String() string { return redacted }

// GoString hides the keys.
func (Keys) GoString() string { return redacted }

// Format hides the keys from every verb.
func (Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText hides the keys from YAML and the like.
func (Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the keys from JSON.
func (Keys) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// WithFirst is the text of a key file with a key put before the others. ParseKeys says whether it is one: there may be
// too many keys then.
func WithFirst(line string, data []byte) []byte { return append([]byte(line+"\n"), lines(data)...) }

// FirstOnly is the text of a key file without all keys but the first.
func FirstOnly(data []byte) []byte {
	var out []byte
	for line := range bytes.Lines(lines(data)) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			return append(out, line...)
		}
		out = append(out, line...)
	}
	return out
}

// lines is the text of a key file, also where it holds raw bytes.
func lines(data []byte) []byte {
	if len(data) == keySize && !printable(data) {
		data = []byte(base64.StdEncoding.EncodeToString(data))
	}
	return append(bytes.Clone(bytes.TrimSpace(data)), '\n')
}
