package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestSecretHidesItself(t *testing.T) {
	s := Secret("canary")
	holder := struct{ S Secret }{s}
	var log bytes.Buffer
	l := zerolog.New(&log)
	l.Info().Object("a", s).Interface("b", s).Stringer("c", s).Interface("d", holder).Msg("x")
	asJSON, err := json.Marshal(map[string]any{"a": s, "b": holder})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %s %q %x %d %#v %+v %v", s, s, s, s, s, s, holder, &holder) + log.String() + string(asJSON)
	if strings.Contains(all, "canary") || strings.Contains(all, "63616e617279") || strings.Count(all, redacted) < 10 {
		t.Errorf("printed %s", all)
	}
	if s.Reveal() != "canary" {
		t.Errorf("Reveal = %q", s.Reveal())
	}
}

func TestReadToken(t *testing.T) {
	const good = "0123456789abcdef0123456789abcdef"
	tests := []struct{ name, text, want string }{
		{"a token", good, ""},
		{"a line", good + "\n", ""},
		{"base64", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ+/==", ""},
		{"short", good[1:], "has 31 characters, and a token needs 32: write what `openssl rand -hex 32` prints"},
		{"long by its spaces", good[1:] + "                ", "has 31 characters"},
		{"two lines", good + "\n" + good, "is one line"},
		{"words", "correct horse battery staple and more", "is one line"},
		{"a letter that a header cannot hold", good + "é", "is one line"},
		{"nothing", "\n", "is empty"},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadToken(path)
		switch {
		case tt.want == "" && (err != nil || got.Reveal() != strings.TrimSpace(tt.text)):
			t.Errorf("%s: ReadToken = %v, %v", tt.name, got, err)
		case tt.want != "" && (err == nil || got != "" || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "abcdef")):
			t.Errorf("%s: ReadToken = %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := ReadToken(filepath.Join(t.TempDir(), "missing")); !os.IsNotExist(err) {
		t.Errorf("ReadToken of nothing = %v", err)
	}
}
