package webhook

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxToken is the longest validation token that is echoed, in bytes; Graph's have some 100.
const maxToken = 4 << 10

var (
	errNoToken  = errors.New("no validation token")
	errBadToken = errors.New("validation token refused")
)

// validationToken finds the token of an endpoint validation in a raw query, decoded once as form data (N-5). It is
// errNoToken when the query has none, and errBadToken when it is one that no client but a hostile one would send: given
// twice, empty, too long, not text, or with markup in it (N-8).
func validationToken(query string) (token string, err error) {
	err = errNoToken
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name, nerr := url.QueryUnescape(name); nerr != nil || name != "validationToken" {
			continue
		}
		if err == nil {
			return "", errBadToken
		}
		if token, err = url.QueryUnescape(value); err != nil || !harmless(token) {
			return "", errBadToken
		}
	}
	return token, err
}

func harmless(token string) bool {
	return token != "" && len(token) <= maxToken && utf8.ValidString(token) &&
		!strings.ContainsFunc(token, func(r rune) bool { return r == '<' || r == '>' || unicode.IsControl(r) })
}

// handshake answers a validation request (N-2 to N-8). Anybody can send one, so that nothing is concluded from it
// (N-10).
func (h *Handler) handshake(w http.ResponseWriter, token string, err error) {
	h.count(validation, 1)
	if err != nil {
		http.Error(w, "validation token refused", http.StatusBadRequest)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'")
	w.Write([]byte(token))
}
