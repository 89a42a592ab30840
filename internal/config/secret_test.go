package config

import (
	"bytes"
	"encoding/json"
	"fmt"
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
