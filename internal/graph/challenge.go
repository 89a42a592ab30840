package graph

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// maxClaims bounds the claims of a challenge, in bytes.
const maxClaims = 8 << 10

// challenged returns the claims that a 401 asks for; empty when it asks for none.
func challenged(err error) string {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return ""
	}
	return e.claims
}

// claimsChallenge reads the claims of continuous access evaluation: one of the WWW-Authenticate headers is
// `Bearer …, error="insufficient_claims", claims="…"`, the claims being JSON in base64 of either alphabet, padded or not.
// What is none of that is no challenge.
func claimsChallenge(h http.Header) string {
	for _, v := range h.Values("WWW-Authenticate") {
		if !strings.EqualFold(parameter(v, "error"), "insufficient_claims") {
			continue
		}
		text := strings.TrimRight(parameter(v, "claims"), "=")
		if len(text) == 0 || len(text) > maxClaims {
			continue
		}
		raw, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(text))
		var object map[string]any
		if err == nil && json.Unmarshal(raw, &object) == nil && len(object) > 0 {
			return string(raw)
		}
	}
	return ""
}

// parameter finds name="value" in a challenge; a quoted value may hold commas and spaces.
func parameter(challenge, name string) string {
	rest := challenge
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return ""
		}
		if i := strings.LastIndexAny(key, " ,\t"); i >= 0 {
			key = key[i+1:]
		}
		after = strings.TrimLeft(after, " \t")
		var value string
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			value, rest, _ = strings.Cut(quoted, `"`)
		} else {
			value, rest, _ = strings.Cut(after, ",")
			value = strings.TrimSpace(value)
		}
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}
