package emulator

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Kinds of Change.
const (
	created = "created"
	updated = "updated"
	moved   = "moved"
	deleted = "deleted"
)

// Change is something that really happened to a message.
type Change struct {
	At        time.Time `json:"at"`
	User      string    `json:"user"` // id
	Item      string    `json:"item"` // immutable id
	Kind      string    `json:"kind"` // created, updated, moved, deleted
	ChangeKey string    `json:"changeKey"`
	Folder    string    `json:"folder"`         // id of where the item is then; for deleted, where it was
	From      string    `json:"from,omitempty"` // moved: id of where it was
}

// change is a Change before anybody asked for it.
type change struct {
	at      time.Time
	m       *message
	kind    string
	version uint64
	folder  *folder
	from    *folder
}

// happened keeps a change in the ledger and tells the subscribers. from is the folder that the message left. mu is held.
func (s *Server) happened(m *message, kind string, from *folder) {
	c := change{at: time.Now(), m: m, kind: kind, version: m.version, folder: m.folder, from: from}
	if kind == deleted {
		c.folder, c.from = from, nil
	}
	s.ledger = append(s.ledger, c)
	switch kind {
	case moved: // I-9
		s.announce(m, deleted, from)
		s.announce(m, created, m.folder)
	case deleted:
		s.announce(m, deleted, from)
	default:
		s.announce(m, kind, m.folder)
	}
}

// Ledger lists every change really made to messages, oldest first; MeetingLedger has those of meetings.
func (s *Server) Ledger() []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Change, len(s.ledger))
	for i, c := range s.ledger {
		out[i] = Change{
			At: c.at.UTC(), User: c.m.user.id, Item: c.m.id(true), Kind: c.kind,
			ChangeKey: c.m.user.changeKey(c.version), Folder: c.folder.id,
		}
		if c.from != nil {
			out[i].From = c.from.id
		}
	}
	return out
}

// strictness is what clients did.
type strictness struct {
	texts    []string       // each once
	times    map[string]int // text → how often
	requests map[string]int
	waits    map[string]patience // request.lane → the Retry-After that was answered
}

func newStrictness() strictness {
	return strictness{times: map[string]int{}, requests: map[string]int{}, waits: map[string]patience{}}
}

// maxViolations bounds what is kept; a client that does this much wrong needs no more words.
const maxViolations = 1000

// violation notes what a client did although the contract forbids it. The text begins with the fact. mu is held.
func (s *Server) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.strict.times[text]++; s.strict.times[text] > 1 {
		return
	}
	if len(s.strict.texts) < maxViolations {
		s.strict.texts = append(s.strict.texts, text)
	}
	s.opts.Log.Warn().Str("violation", text).Msg("the contract was violated")
}

// Violations lists what clients did although the contract forbids it, each text once, beginning with the fact, for
// example "R-8: PATCH and reauthorize of … within 10 minutes".
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.strict.texts)
	for i, text := range out {
		if n := s.strict.times[text]; n > 1 {
			out[i] = fmt.Sprintf("%s (%d times)", text, n)
		}
	}
	return out
}

// ForgetViolations empties the list, for tests that provoke some.
func (s *Server) ForgetViolations() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict.texts = nil
	clear(s.strict.times)
}

// Requests counts requests by operation: token, message.get, message.list, delta, folder.get, folder.list, folder.delta,
// event.get, event.instances, calendar.get, calendar.list, calendarview, calendarview.delta, mailboxsettings,
// subscription.create, .get, .list, .renew, .reauthorize, .delete, and unknown.
func (s *Server) Requests() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.strict.requests)
}

// MaxConcurrency is the largest number of requests that were in flight for a mailbox at a time.
func (s *Server) MaxConcurrency(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return 0
	}
	return u.maxInFlight
}

// window counts requests in consecutive spans of time.
type window struct {
	length time.Duration
	limit  int
	begun  time.Time
	n      int
}

// full counts a request and reports whether it is one too many; then wait is when the next span begins.
func (w *window) full(now time.Time) (wait time.Duration, full bool) {
	if now.Sub(w.begun) >= w.length {
		w.begun, w.n = now, 0
	}
	w.n++
	return w.begun.Add(w.length).Sub(now), w.n > w.limit
}
