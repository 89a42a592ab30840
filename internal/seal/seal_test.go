package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
		{"another version", old, purpose, record, flip(0), ErrVersion},
		{"another version, cut off", old, purpose, record, flip(0)[:1], ErrVersion},
		{"another key id", old, purpose, record, flip(1), ErrUnknownKey},
		{"nonce flipped", old, purpose, record, flip(1 + idSize), ErrForged},
		{"text flipped", old, purpose, record, flip(headSize), ErrForged},
		{"tag flipped", old, purpose, record, flip(len(sealed) - 1), ErrForged},
		{"cut off", old, purpose, record, sealed[:len(sealed)-1], ErrForged},
		{"cut to nothing", old, purpose, record, sealed[:headSize+15], ErrCut},
		{"empty", old, purpose, record, nil, ErrCut},
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
	type deep struct{ keys Keys }
	const verbs = "%v %+v %#v %s %q %x %X %d %b %c %U %t"
	times := func(v any) []any { return slices.Repeat([]any{v}, strings.Count(verbs, "%")) }
	text := func(v any) string {
		js, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(js)
	}
	if got := k.String() + k.GoString(); got != redacted+redacted {
		t.Errorf("strings %s", got)
	}
	tests := []struct {
		name, shown string
		redacted    int // times that it says so
	}{
		{"a pointer", fmt.Sprintf(verbs, times(k)...), len(times(k))},
		{"a value", fmt.Sprintf(verbs, times(*k)...), len(times(k))},
		{"a field", fmt.Sprintf(verbs, times(struct{ Keys *Keys }{k})...), len(times(k))},
		{"a field that fmt may not ask", fmt.Sprintf(verbs, times(deep{*k})...), 0},
		{"a pointer to such a field", fmt.Sprintf(verbs, times(&deep{*k})...), 0},
		{"an error", fmt.Errorf("with %v and %w", *k, errors.New("why")).Error(), 1},
		{"JSON", text(map[string]any{"k": k, "v": *k}), 2},
		{"JSON of a key", text(map[keyName]int{{k}: 1}), 1},
	}
	secrets := []string{line, string(raw)}
	for _, format := range []string{"%x", "%X", "%d", "%b", "%#v"} {
		shown := strings.TrimPrefix(fmt.Sprintf(format, raw), "[]byte")
		secrets = append(secrets, shown[1:len(shown)-1]) // also without its brackets
	}
	for _, tt := range tests {
		for _, secret := range secrets {
			if strings.Contains(tt.shown, secret) {
				t.Errorf("%s shows the key: %s", tt.name, tt.shown)
			}
		}
		if n := strings.Count(tt.shown, redacted); n != tt.redacted {
			t.Errorf("%s: %d times %s, want %d: %s", tt.name, n, redacted, tt.redacted, tt.shown)
		}
	}
}

// keyName is marshalled as text: it names a member of a JSON object.
type keyName struct{ *Keys }

// A key file grows at its head and loses its tail, whatever form it has, and comments do not harm.
func TestKeyFileGrowsAndShrinks(t *testing.T) {
	a, b := NewKey(), NewKey()
	raw, err := base64.StdEncoding.DecodeString(a)
	if err != nil {
		t.Fatal(err)
	}
	idA, idB := keys(t, a).IDs()[0], keys(t, b).IDs()[0]
	for name, text := range map[string]string{
		"a line": a, "a line with its end": a + "\n", "raw bytes": string(raw), "comments": "# mine\n\n" + a + "\n# old\n", "from Windows": "# mine\r\n" + a + "\r\n",
	} {
		both := WithFirst(b, []byte(text))
		if got := keys(t, string(both)).IDs(); !slices.Equal(got, []string{idB, idA}) {
			t.Errorf("%s: with a new key %v, want %s and %s", name, got, idB, idA)
		}
		if got := keys(t, string(FirstOnly(both))).IDs(); !slices.Equal(got, []string{idB}) {
			t.Errorf("%s: without the old one %v, want %s", name, got, idB)
		}
		if got := keys(t, string(FirstOnly([]byte(text)))).IDs(); !slices.Equal(got, []string{idA}) {
			t.Errorf("%s: the only key is %v, want %s", name, got, idA)
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
		ids, line := k.IDs(), NewKey()
		if only, err := ParseKeys(FirstOnly(data)); err != nil || !slices.Equal(only.IDs(), ids[:1]) {
			t.Errorf("without the old keys: %v", err)
		}
		more, err := ParseKeys(WithFirst(line, data))
		if err == nil && !slices.Equal(more.IDs(), append(keys(t, line).IDs(), ids...)) {
			t.Errorf("with a new key the others are others")
		}
		if err != nil && len(ids) < maxKeys && len(data)+len(line)+2 <= maxFile {
			t.Errorf("with a new key: %v", err)
		}
	})
}
