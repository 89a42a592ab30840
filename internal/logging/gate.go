// Package logging keeps outsiders from filling the log: what they can cause is told once a minute, with its count and
// without their addresses.
package logging

import (
	"log"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// every is how often one kind of line is written at the most.
const every = time.Minute

// Gate lets one line a minute through, and counts the others. It is safe for concurrent use; the zero value is open.
type Gate struct {
	mu   sync.Mutex
	last time.Time
	n    int
}

// Open adds n to what happened; when ok, it returns all that happened since it last was open.
func (g *Gate) Open(now time.Time, n int) (total int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += n
	if !g.last.IsZero() && now.Sub(g.last) < every {
		return 0, false
	}
	total, g.n, g.last = g.n, 0, now
	return total, true
}

// HTTP takes the lines that net/http writes by itself, for http.Server.ErrorLog: what strangers do wrong is for who
// debugs, a panic is an error.
func HTTP(l zerolog.Logger) *log.Logger { return log.New(&httpLines{log: l}, "", 0) }

type httpLines struct {
	log                zerolog.Logger
	panicked, mistaken Gate
}

// Write is io.Writer's.
func (h *httpLines) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	now := time.Now()
	if rest, ok := strings.CutPrefix(text, "http: panic serving "); ok {
		if n, ok := h.panicked.Open(now, 1); ok {
			_, what, _ := strings.Cut(rest, ": ") // without the address
			h.log.Error().Str("text", what).Int("requests", n).Msg("request failed")
		}
		return len(p), nil
	}
	if n, ok := h.mistaken.Open(now, 1); ok {
		h.log.Debug().Str("text", nameless(text)).Int("connections", n).Msg("connection failed")
	}
	return len(p), nil
}

// nameless cuts the address out of "http: TLS handshake error from 192.0.2.7:1234: EOF".
func nameless(text string) string {
	what, rest, ok := strings.Cut(text, " from ")
	if !ok {
		return text
	}
	if _, why, ok := strings.Cut(rest, ": "); ok {
		return what + ": " + why
	}
	return what
}
