package event

import (
	"encoding/base64"
	"strings"
)

// changeKeyBytes is the length of the part of a change key that all its spellings share (W-9a).
const changeKeyBytes = 22

// ChangeKey reduces every spelling of a change key or etag to one that can be compared as text: the last 22 bytes, in
// URL-safe base64 without padding. Graph writes the same version bare, with an 8-byte head, quoted and weak (W-9a).
// The constant etag of a deletion (W-9b) and an absent one give "". What is not base64 is kept as it is.
func ChangeKey(s string) string {
	s = strings.TrimPrefix(s, "W/")
	s = strings.Trim(s, `"`)
	if s == "" {
		return ""
	}
	var buf [64]byte
	raw := buf[:0]
	enc := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.URLEncoding
	}
	if !strings.HasSuffix(s, "=") && len(s)%4 != 0 {
		enc = enc.WithPadding(base64.NoPadding)
	}
	raw, err := enc.AppendDecode(raw, []byte(s))
	switch {
	case err != nil:
		return s
	case len(raw) >= changeKeyBytes:
		return base64.RawURLEncoding.EncodeToString(raw[len(raw)-changeKeyBytes:])
	case len(raw) == 4: // the item tag alone (W-9b)
		return ""
	}
	return s
}
