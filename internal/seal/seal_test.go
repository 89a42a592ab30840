package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const purpose = "test records v1"

func keys(t testing.TB, lines ...string) *Keys {
	t.Helper()
	k, err := ParseKeys([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealAndOpen(t *testing.T) {
	a, b := NewKey(), NewKey()
	old, both, other := keys(t, a), keys(t, b, a), keys(t, NewKey())
	record, plain := []byte("connections\x00alice"), []byte("canary")
	sealed := old.Seal(purpose, record, plain)
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, old.Seal(purpose, record, plain)) {
		t.Error("the record can be read, or recognized")
	}
	for name, k := range map[string]*Keys{"the same keys": old, "a newer one before it": both} {
		if got, err := k.Open(purpose, record, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if id := KeyID(sealed); id != old.IDs()[0] || id != both.IDs()[1] || KeyID(both.Seal(purpose, record, plain)) != both.IDs()[0] {
		t.Errorf("sealed by %s of %v", id, both.IDs())
	}
	flip := func(i int) []byte {
		out := bytes.Clone(sealed)
		out[i] ^= 1
		return out
	}
	tests := []struct {
		name    string
		keys    *Keys
		purpose string
		record  []byte
		sealed  []byte
		want    error
	}{
		{"another key", other, purpose, record, sealed, ErrUnknownKey},
		{"another purpose", old, "test records v2", record, sealed, ErrForged},
		{"another record's place", old, purpose, []byte("connections\x00bob"), sealed, ErrForged},
		{"another version", old, purpose, record, flip(0), ErrFormat},
		{"another key id", old, purpose, record, flip(1), ErrUnknownKey},
		{"nonce flipped", old, purpose, record, flip(1 + idSize), ErrForged},
		{"text flipped", old, purpose, record, flip(headSize), ErrForged},
		{"tag flipped", old, purpose, record, flip(len(sealed) - 1), ErrForged},
		{"cut off", old, purpose, record, sealed[:len(sealed)-1], ErrForged},
		{"cut to nothing", old, purpose, record, sealed[:headSize], ErrFormat},
		{"empty", old, purpose, record, nil, ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.keys.Open(tt.purpose, tt.record, tt.sealed); !errors.Is(err, tt.want) || got != nil {
				t.Errorf("Open = %q, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestReadKeys(t *testing.T) {
	a := NewKey()
	raw, err := base64.StdEncoding.DecodeString(a)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]string, maxKeys+1)
	for i := range many {
		many[i] = NewKey()
	}
	tests := []struct {
		name, text string
		mode       os.FileMode
		keys       int
		want       string // of the error
	}{
		{"one", a, 0o600, 1, ""},
		{"one, read by its group", a + "\n", 0o640, 1, ""},
		{"several, with a comment", "# made today\r\n" + a + "\r\n\n" + NewKey(), 0o400, 2, ""},
		{"raw bytes", string(raw), 0o600, 1, ""},
		{"read by everybody", a, 0o644, 0, "everybody on this machine may use it"},
		{"empty", "", 0o600, 0, "holds no key"},
		{"a comment only", "# nothing\n", 0o600, 0, "holds no key"},
		{"a word", "secret", 0o600, 0, "line 1 is no key"},
		{"too short", a + "\n" + base64.StdEncoding.EncodeToString(raw[:31]), 0o600, 0, "line 2 is no key"},
		{"twice", a + "\n" + a, 0o600, 0, "line 2 repeats a key"},
		{"too many", strings.Join(many, "\n"), 0o600, 0, "more than 16 keys"},
		{"something else", strings.Repeat("x", maxFile+1), 0o600, 0, "this is no key file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			k, err := ReadKeys(path)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || tt.text != "" && len(tt.text) < 100 && strings.Contains(err.Error(), tt.text) {
					t.Errorf("ReadKeys: %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil || len(k.IDs()) != tt.keys {
				t.Errorf("ReadKeys = %v, %v", k, err)
			}
		})
	}
	if _, err := ReadKeys(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "triggerd key new") {
		t.Errorf("no file: %v", err)
	}
}

func TestKeysCannotBePrinted(t *testing.T) {
	line := NewKey()
	k := keys(t, line)
	raw, _ := base64.StdEncoding.DecodeString(line)
	js, err := json.Marshal(map[string]any{"k": k})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s %x %d", k, k, k, k, k, k), string(js)} {
		if strings.Contains(shown, line) || strings.Contains(shown, fmt.Sprintf("%x", raw)) || strings.Contains(shown, string(raw)) || !strings.Contains(shown, redacted) {
			t.Errorf("shown: %s", shown)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := keys(f, NewKey())
	f.Add(k.Seal(purpose, []byte("r"), []byte("plain")))
	f.Add([]byte{version})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		// Nothing that was not sealed opens; whatever comes is an error, not a panic.
		if plain, err := k.Open(purpose, []byte("r"), sealed); err == nil && string(plain) != "plain" {
			t.Errorf("opened %q", plain)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(NewKey() + "\n#x\n" + NewKey()))
	f.Add(bytes.Repeat([]byte{0xff}, keySize))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKeys(data)
		if err != nil {
			return
		}
		if plain, err := k.Open(purpose, nil, k.Seal(purpose, nil, []byte("x"))); err != nil || string(plain) != "x" {
			t.Errorf("keys that do not open what they seal: %v", err)
		}
	})
}
