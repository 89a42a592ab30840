package emulator

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// round is what a delta or skip token holds, sealed so that clients cannot read it: where a round stands, and the query
// options of its first request, which are frozen (D-3). It walks a log; full is the first round, which tells what is there.
type round struct {
	Delta      bool        `json:"d,omitempty"` // a deltaLink: the next use begins a round
	User       string      `json:"u"`
	Folder     string      `json:"f,omitempty"` // empty: the folders themselves, or a calendar
	Calendar   string      `json:"k,omitempty"`
	View       *view       `json:"v,omitempty"` // of a calendar, frozen (D-35)
	Within     int         `json:"w,omitempty"` // items that this round told of the series at Pos
	Full       bool        `json:"a,omitempty"`
	From       int         `json:"r"` // place up to which earlier rounds told all
	Start      int         `json:"s"` // length of the log when the round began
	Pos        int         `json:"p"` // place up to which this round told all
	Select     propertySet `json:"$,omitempty"`
	Folders    string      `json:"$f,omitempty"` // $select of folders
	Since      *lowerBound `json:"c,omitempty"`
	Newest     bool        `json:"o,omitempty"` // $orderby=receivedDateTime desc
	ChangeType string      `json:"t,omitempty"`
	Left       int         `json:"l,omitempty"` // of $top or of the 5,000 of a filter; 0: no limit, -1: none left
	Generation int         `json:"g,omitempty"`
	At         int64       `json:"at"` // unix nanoseconds
	Nonce      uint32      `json:"n"`
}

// lowerBound is a lower bound of receivedDateTime.
type lowerBound struct {
	At time.Time `json:"at"`
	Gt bool      `json:"gt,omitempty"`
}

func (c *lowerBound) holds(m *message) bool {
	if c == nil {
		return true
	}
	at := time.Unix(m.received, 0)
	return at.After(c.At) || !c.Gt && at.Equal(c.At)
}

// filteredMost is how many messages come back with a filter (D-25).
const filteredMost = 5000

// sealed makes the token of a round. mu is held.
func (s *Server) sealed(r round) string {
	r.At, r.Nonce, r.Generation = time.Now().UnixNano(), s.rng.Uint32(), s.deltaGeneration
	plain, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers
	}
	nonce := make([]byte, s.seal.NonceSize())
	s.fill(nonce)
	return base64.RawURLEncoding.EncodeToString(s.seal.Seal(nonce, nonce, plain, nil))
}

// opened reads a token; not ok when it was not made here, or is gone. mu is held.
func (s *Server) opened(token string, isDelta bool) (r round, refused answer, ok bool) {
	invalid := fail(http.StatusBadRequest, "SyncStateInvalid", "Badly formed token.")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < s.seal.NonceSize() {
		s.violation("D-2: a delta link was changed or made up")
		return r, invalid, false
	}
	n := s.seal.NonceSize()
	plain, err := s.seal.Open(nil, raw[:n], raw[n:], nil)
	if err == nil {
		err = json.Unmarshal(plain, &r)
	}
	if err != nil || r.Delta != isDelta {
		s.violation("D-2: a delta link was changed or made up")
		return r, invalid, false
	}
	aged := s.opts.DeltaTokenAge > 0 && time.Since(time.Unix(0, r.At)) > s.opts.DeltaTokenAge
	if r.Generation < s.deltaGeneration || aged {
		return r, answerSyncState, false
	}
	return r, answer{}, true
}

// continued reads the token of a request that has one. given tells whether it has. mu is held.
func (s *Server) continued(q *request) (r round, given bool, refused answer, ok bool) {
	skip, hasSkip := option(q.query, "$skiptoken")
	delta, hasDelta := option(q.query, "$deltatoken")
	if !hasSkip && !hasDelta {
		return r, false, answer{}, true
	}
	if hasDelta && delta == "" && !hasSkip { // D-13: the same query with an empty token begins anew
		return r, false, answer{}, true
	}
	if len(q.query) != 1 {
		s.violation("D-2: query options were added to a delta link")
		return r, true, fail(http.StatusBadRequest, "BadRequest", "Query options cannot be added to a nextLink or deltaLink."), false
	}
	if strings.EqualFold(delta, "latest") {
		s.violation("D-18: $deltatoken=latest is for directory resources only")
		return r, true, fail(http.StatusBadRequest, "BadRequest", "Parameter 'DeltaToken' not supported for this request."), false
	}
	token := skip
	if hasDelta {
		token = delta
	}
	r, refused, ok = s.opened(token, hasDelta)
	if !ok && refused.status == http.StatusGone && s.faults.ResyncRequired {
		refused = fail(http.StatusGone, "resyncRequired", "Resync required.").
			with("Location", s.opts.Root+q.URL.EscapedPath()+"?"+r.View.query()+"$deltatoken=")
	}
	if ok && r.User != q.user.id {
		refused, ok = fail(http.StatusBadRequest, "SyncStateInvalid", "The token belongs to another mailbox."), false
	}
	return r, true, refused, ok
}

// messageDelta answers GET …/mailFolders/{id}/messages/delta (D-23).
func (s *Server) messageDelta(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, given, refused, ok := s.continued(q)
	if !ok {
		return refused
	}
	f, refused, ok := s.findFolder(q)
	if !ok {
		return refused
	}
	switch {
	case !given:
		if r, refused, ok = s.beginRound(q, f); !ok {
			return refused
		}
	case r.Folder != f.id:
		return fail(http.StatusBadRequest, "SyncStateInvalid", "The token belongs to another folder.")
	case r.Delta:
		r.Delta, r.Full, r.From, r.Start, r.Left = false, false, r.Pos, len(f.log), 0
	}
	return s.deltaPage(q, f, r)
}

// beginRound reads the query options of a first request (D-25 to D-27).
func (s *Server) beginRound(q *request, f *folder) (r round, refused answer, ok bool) {
	if bad := s.checkQuery(q, "$select", "$filter", "$orderby", "$top", "$deltatoken", "changetype"); bad != nil {
		return r, *bad, false
	}
	r = round{User: q.user.id, Folder: f.id, Full: true, Start: len(f.log)}
	if r.Select, refused, ok = selected(q.query); !ok {
		return r, refused, false
	}
	if text, given := option(q.query, "$filter"); given {
		list, refused, ok := parseFilter(text)
		if !ok || len(list) != 1 || list[0].property != "receiveddatetime" || list[0].op != "ge" && list[0].op != "gt" {
			if ok {
				refused = fail(http.StatusBadRequest, "BadRequest", "Only receivedDateTime with ge or gt can be filtered by in a delta query.")
			}
			return r, refused, false
		}
		r.Since, r.Left = &lowerBound{At: list[0].at, Gt: list[0].op == "gt"}, filteredMost
	}
	if text, given := option(q.query, "$orderby"); given {
		if !strings.EqualFold(strings.Join(strings.Fields(text), " "), "receivedDateTime desc") {
			return r, fail(http.StatusBadRequest, "BadRequest", "Only receivedDateTime desc can be ordered by in a delta query."), false
		}
		r.Newest = true
	}
	if n, given, refused, ok := top(q.query); !ok {
		return r, refused, false
	} else if given {
		s.violation("D-20: $top in a delta query limits the total")
		r.Left = n
	}
	if text, given := option(q.query, "changeType"); given {
		if !slices.Contains([]string{created, updated, deleted}, text) {
			return r, fail(http.StatusBadRequest, "BadRequest", "Invalid changeType: "+text), false
		}
		r.ChangeType = text
	}
	return r, answer{}, true
}

// told is one item of a page.
type told struct {
	m       *message
	removed bool
	moves   uint32 // of a removed one, for its mutable id
	set     propertySet
}

// deltaPage answers one page of a round.
func (s *Server) deltaPage(q *request, f *folder, r round) answer {
	size := s.opts.PageSize
	if q.prefer.pageSize > 0 && !s.faults.IgnorePageSize {
		size = q.prefer.pageSize
	}
	var items []told
	here, end := r, false
	if !s.chance(s.faults.EmptyPages) {
		items, end = s.walk(f, &r, size)
	}
	switch {
	case r.Newest: // as far as a page shows it; delta's order is arbitrary otherwise (D-5)
		slices.SortStableFunc(items, func(a, b told) int { return int(b.m.received - a.m.received) })
	default:
		s.rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	}
	for _, it := range items {
		if s.chance(s.faults.RepeatItems) {
			items = append(items, it)
		}
	}
	b := make([]byte, 0, 512*(len(items)+1))
	b = append(b, `{"@odata.context":`...)
	b = appendString(b, s.opts.Root+"/v1.0/$metadata#Collection(message)")
	b = append(b, `,"value":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		if it.removed {
			id := it.m.user.immutableID(it.m.n)
			if !q.prefer.immutable {
				id = it.m.user.mutableID(it.m.n, it.moves)
			}
			b = appendRemoved(b, id)
			continue
		}
		b = appendMessage(b, it.m, it.set, q.prefer.immutable, true, "")
	}
	b = append(b, ']')
	b = s.appendLink(b, q, r, here, end)
	return ok200(append(b, '}'), q)
}

// appendLink writes the link that every page of a round has, one of two (D-1). here is where the page began.
func (s *Server) appendLink(b []byte, q *request, r, here round, end bool) []byte {
	link := s.nextRoot() + q.URL.EscapedPath()
	if end && !s.faults.LoopNextLink {
		r.Delta = true
		b = append(b, `,"@odata.deltaLink":`...)
		return appendString(b, link+"?$deltatoken="+s.sealed(r))
	}
	b = append(b, `,"@odata.nextLink":`...)
	if s.faults.LoopNextLink {
		if token, given := option(q.query, "$skiptoken"); given {
			return appendString(b, link+"?$skiptoken="+url.QueryEscape(token))
		}
		r = here
	}
	return appendString(b, link+"?$skiptoken="+s.sealed(r))
}

// walk goes through the folder's log from where the round stands and collects a page. end tells that the round is over.
func (s *Server) walk(f *folder, r *round, size int) (items []told, end bool) {
	visible := time.Now().Add(-s.opts.DeltaLag).UnixNano()
	limited := r.Left > 0
	for r.Pos < len(f.log) && len(items) < size && r.Left >= 0 {
		e := &f.log[r.Pos]
		if e.at > visible { // T-3
			return items, true
		}
		r.Pos++
		it, ok := s.tell(f, r, e, visible)
		if !ok {
			continue
		}
		items = append(items, it)
		if limited && !it.removed {
			if r.Left--; r.Left == 0 {
				r.Left = -1
			}
		}
	}
	if r.Left < 0 { // no more is told in this round
		r.Pos = len(f.log)
	}
	return items, r.Pos == len(f.log) || f.log[r.Pos].at > visible
}

// tell decides what the round says about an entry. Only an item's last entry speaks.
func (s *Server) tell(f *folder, r *round, e *entry, visible int64) (it told, ok bool) {
	m, here := e.m, e.m.folder == f
	last := f.removed[m]
	if here {
		last = m.place
	}
	unnoticed := e.kind == left && here && m.told == 0 // it came back, and nobody is told that (D-30)
	if last != r.Pos && f.log[last-1].at <= visible && !unnoticed {
		return it, false
	}
	before := r.Full && r.Pos <= r.Start // what is there when a full round begins
	switch {
	case e.kind == left:
		return told{m: m, removed: true, moves: e.moves}, !before && (r.ChangeType == "" || r.ChangeType == deleted || r.Full)
	case !here, e.kind == unspoken && !before, !r.Since.holds(m):
		return it, false
	}
	complete := r.Full || m.told == 0 || m.told > r.From
	if !r.Full && (r.ChangeType == deleted || r.ChangeType == created && !complete || r.ChangeType == updated && complete) {
		return it, false // D-27
	}
	it = told{m: m, set: r.Select}
	if !complete && !s.faults.CompleteUpdates {
		it.set = m.changedSince(r.From)&r.Select | propertyNamed["parentfolderid"]
	}
	return it, true
}

// changedSince has the properties that changed after a place in the folder's log.
func (m *message) changedSince(place int) (set propertySet) {
	if m.changed == nil {
		return 0
	}
	for f, at := range m.changed {
		if at > place {
			set |= facetMask[f]
		}
	}
	return set
}

// folderDelta answers GET …/mailFolders/delta, which has every folder below the root (D-32).
func (s *Server) folderDelta(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, given, refused, ok := s.continued(q)
	if !ok {
		return refused
	}
	log := q.user.folderLog
	switch {
	case !given:
		if bad := s.checkQuery(q, "$select", "$deltatoken", "includehiddenfolders"); bad != nil {
			return *bad
		}
		r = round{User: q.user.id, Full: true, Start: len(log)}
		r.Folders, _ = option(q.query, "$select")
	case r.Folder != "" || r.Calendar != "":
		return fail(http.StatusBadRequest, "SyncStateInvalid", "The token belongs to messages or events.")
	case r.Delta:
		r.Delta, r.Full, r.From, r.Start = false, false, r.Pos, len(log)
	}
	query := url.Values{}
	if r.Folders != "" {
		query.Set("$select", r.Folders)
	}
	sel, refused, ok := selectedOfFolder(query)
	if !ok {
		return refused
	}
	size := s.opts.PageSize
	if q.prefer.pageSize > 0 && !s.faults.IgnorePageSize {
		size = q.prefer.pageSize
	}
	b := append([]byte(nil), `{"@odata.context":`...)
	b = appendString(b, s.opts.Root+"/v1.0/$metadata#Collection(mailFolder)")
	b = append(b, `,"value":[`...)
	here, n := r, 0
	for ; r.Pos < len(log) && n < size; r.Pos++ {
		e := log[r.Pos]
		later := slices.ContainsFunc(log[r.Pos+1:], func(l folderEntry) bool { return l.f == e.f })
		if later || e.gone && r.Full && r.Pos < r.Start {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		if e.gone {
			b = appendString(append(b, `{"id":`...), e.f.id)
			b = append(b, `,"@removed":{"reason":"deleted"}}`...)
			continue
		}
		b = appendFolder(b, e.f, sel, "")
	}
	b = append(b, ']')
	b = s.appendLink(b, q, r, here, r.Pos == len(log))
	return ok200(append(b, '}'), q)
}
