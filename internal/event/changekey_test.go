package event_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triggerd/triggerd/internal/event"
)

func TestChangeKeyOfEverySpelling(t *testing.T) {
	version := bytes.Repeat([]byte{0xFB, 0xEF, 0x3E}, 8)[:22]
	const want = "--8---8---8---8---8---8---8--w" // that version in URL-safe base64 without padding
	std, url := base64.StdEncoding, base64.URLEncoding
	message, meeting, contact := "\x09\x00\x00\x00\x16\x00\x00\x00", "\x0F\x00\x00\x00\x16\x00\x00\x00", "\x11\x00\x00\x00\x16\x00\x00\x00"
	tests := []struct{ name, in, want string }{
		{"bare", std.EncodeToString(version), base64.RawURLEncoding.EncodeToString(version)},
		{"bare, without padding", std.WithPadding(base64.NoPadding).EncodeToString(version), want},
		{"bare, URL-safe", url.EncodeToString(version), want},
		{"message head", std.EncodeToString(append([]byte(message), version...)), want},
		{"meeting head", std.EncodeToString(append([]byte(meeting), version...)), want},
		{"contact head", std.EncodeToString(append([]byte(contact), version...)), want},
		{"weak etag", `W/"` + std.EncodeToString(append([]byte(message), version...)) + `"`, want},
		{"strong etag", `"` + std.EncodeToString(version) + `"`, want},
		{"normalized already", want, want},
		{"deletion, a constant (W-9b)", `W/"CQAAAA=="`, ""},
		{"absent", "", ""},
		{"empty etag", `W/""`, ""},
		{"short", "AbCd", "AbCd"},
		{"not base64", `W/"not base64 at all, but longer than a key would be"`, "not base64 at all, but longer than a key would be"},
		{"base64 that breaks off", strings.Repeat("A", 40) + "!!!!", strings.Repeat("A", 40) + "!!!!"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := event.ChangeKey(tt.in); got != tt.want {
				t.Errorf("ChangeKey(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

// The same version is written in more than one way inside Graph's own answers: in the etag and the change key of one
// item, and bare in a series' master but with a head in its occurrences (W-9a).
func TestChangeKeyOverRecordedPayloads(t *testing.T) {
	files, err := filepath.Glob("testdata/graph/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, path := range files {
		var doc any
		readJSON(t, path, &doc)
		eachObject(doc, func(o map[string]any) {
			etag, ok := o["@odata.etag"].(string)
			if !ok {
				return
			}
			seen++
			key := event.ChangeKey(etag)
			if strings.Contains(path, "deleted") {
				if key != "" {
					t.Errorf("%s: ChangeKey(%q) = %q, want none", path, etag, key)
				}
				return
			}
			if len(key) != 30 || event.ChangeKey(key) != key {
				t.Errorf("%s: ChangeKey(%q) = %q, want 30 characters that stay what they are", path, etag, key)
			}
			if bare, ok := o["changeKey"].(string); ok && event.ChangeKey(bare) != key {
				t.Errorf("%s: change key %q and etag %q are one version, got %q and %q", path, bare, etag, event.ChangeKey(bare), key)
			}
		})
	}
	if seen < 20 {
		t.Errorf("only %d etags were found", seen)
	}
	var series struct {
		Value []struct {
			Etag string `json:"@odata.etag"`
		}
	}
	readJSON(t, "testdata/graph/recorded-delta-calendarview-series.json", &series)
	for _, v := range series.Value[1:] {
		if a, b := event.ChangeKey(series.Value[0].Etag), event.ChangeKey(v.Etag); a != b {
			t.Errorf("master %q and occurrence %q are one version, got %q and %q", series.Value[0].Etag, v.Etag, a, b)
		}
	}
}

func FuzzChangeKey(f *testing.F) {
	for _, s := range []string{"", `W/"CQAAAA=="`, `W/"CQAAABYAAABZbQVR+TVZTLodSM/vZvBeAAB3AQa8"`, "7DBtS36oekqlFVL/lW3rKQAAC3er5w==", "CZP64ORySkeB5kudU0omJQAAKRHXXg", "a\xffb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key := event.ChangeKey(s)
		if len(key) > len(s) {
			t.Errorf("ChangeKey(%q) = %q is longer than what it came from", s, key)
		}
		if !strings.ContainsAny(s, `W"`) && event.ChangeKey(`W/"`+s+`"`) != key {
			t.Errorf("ChangeKey(%q) = %q, but as a weak etag it is %q", s, key, event.ChangeKey(`W/"`+s+`"`))
		}
		if raw, err := base64.RawURLEncoding.DecodeString(key); err == nil && len(raw) == 22 && event.ChangeKey(key) != key {
			t.Errorf("ChangeKey(%q) = %q is not stable: %q", s, key, event.ChangeKey(key))
		}
	})
}

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// eachObject calls fn with every object of a JSON document.
func eachObject(doc any, fn func(map[string]any)) {
	switch d := doc.(type) {
	case map[string]any:
		fn(d)
		for _, v := range d {
			eachObject(v, fn)
		}
	case []any:
		for _, v := range d {
			eachObject(v, fn)
		}
	}
}
