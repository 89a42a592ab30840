package emulator

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// perMailbox is how many requests an app may have in flight at one mailbox (H-2).
const perMailbox = 4

// request is a request to Graph, as far as it is understood.
type request struct {
	*http.Request
	op      string
	mailbox string // as named in the path; empty: none
	user    *user
	area    area // of mailbox; empty: mail
	folder  segment
	within  bool    // the path names a calendar
	cal     segment // empty: the default one
	item    segment // message, calendar item or subscription
	query   url.Values
	prefer  preferences
	token   *tokenInfo
	serve   func(*Server, *request) answer
}

// segment is a part of a path, escaped and unescaped once.
type segment struct{ raw, text string }

// id is the segment read as an id.
func (g segment) id() (string, bool) { return pathID(g.raw, g.text) }

// serveGraph answers one request, or spoils the answer as a fault asks.
func (s *Server) serveGraph(w http.ResponseWriter, r *http.Request) {
	q := s.parse(r)
	leave, refused := s.enter(q)
	if refused != nil {
		s.write(w, r, *refused)
		return
	}
	defer leave()
	f := s.faultFor(q.op, r)
	s.slow(r)
	if f != nil && !f.After && !f.Truncate {
		s.spoil(w, r, q, f)
		return
	}
	a := s.answer(q)
	switch {
	case f == nil:
		s.write(w, r, a)
	case f.Truncate:
		s.truncate(w, r, a)
	default:
		s.spoil(w, r, q, f)
	}
}

// enter counts the request and takes a place at the mailbox; leave must be called unless it is refused.
func (s *Server) enter(q *request) (leave func(), refused *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict.requests[q.op]++
	s.checkWait(q)
	u := s.byName[strings.ToLower(q.mailbox)]
	if q.mailbox == "me" {
		_, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
		if info := s.tokens[token]; info != nil {
			u = info.user
		}
	}
	if u == nil {
		return func() {}, nil
	}
	if u.inFlight >= perMailbox {
		s.violation("H-2: more than %d requests in flight at mailbox %s", perMailbox, u.id)
		return nil, &answerConcurrency
	}
	u.inFlight++
	u.maxInFlight = max(u.maxInFlight, u.inFlight)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.inFlight--
	}, nil
}

// answer does the work. It takes mu.
func (s *Server) answer(q *request) answer {
	var a answer
	var ok bool
	if q.token, a, ok = s.authorize(q.Request); !ok {
		return a
	}
	if q.mailbox != "" {
		if a, ok := s.admit(q); !ok {
			return a
		}
	}
	return q.serve(s, q)
}

// admit finds the mailbox and looks whether the app may read it.
func (s *Server) admit(q *request) (answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byName[strings.ToLower(q.mailbox)]
	if strings.EqualFold(q.mailbox, "me") {
		if u = q.token.user; u == nil {
			return answerNoMe, false
		}
	}
	if u == nil {
		return fail(http.StatusNotFound, "ErrorInvalidUser", "The requested user '"+q.mailbox+"' is invalid."), false
	}
	if wait, full := u.requests.full(time.Now()); full && !s.opts.NoLimits {
		s.violation("H-2: more than %d requests in %v to mailbox %s", u.requests.limit, u.requests.length, u.id)
		return throttled(wait), false
	}
	switch u.access {
	case Denied:
		return answerAccessDenied, false
	case Unlicensed:
		return answerNoMailbox, false
	}
	if a, ok := s.mayRead(q, u); !ok {
		return a, false
	}
	q.user = u
	if strings.HasPrefix(q.op, "message.") || q.op == "delta" || strings.HasPrefix(q.op, "event.") || strings.HasPrefix(q.op, "calendarview") {
		q.prefer.immutable = s.wantsImmutable(q)
	}
	return answer{}, true
}

// wantsImmutable notes requests whose answer would have ids that change (I-2, I-3). mu is held.
func (s *Server) wantsImmutable(q *request) bool {
	if !q.prefer.immutable {
		s.violation(`I-3: mutable ids: %s without Prefer: IdType="ImmutableId"`, q.op)
	}
	return q.prefer.immutable
}

// parse understands a request as far as its path and method go.
func (s *Server) parse(r *http.Request) *request {
	q := &request{Request: r, op: "unknown", prefer: parsePrefer(r.Header)}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		q.serve = refuse(fail(http.StatusBadRequest, "BadRequest", "The query of the request is malformed."))
		return q
	}
	q.query = query
	q.serve = s.route(q, segments(r.URL))
	return q
}

func refuse(a answer) func(*Server, *request) answer {
	return func(*Server, *request) answer { return a }
}

// segments splits a path as Graph's gateway does: it unescapes slashes before it splits (I-11a), and takes
// mailFolders('inbox') for mailFolders/inbox.
func segments(u *url.URL) []segment {
	raw := strings.NewReplacer("%2F", "/", "%2f", "/", "%27", "'", "%28", "(", "%29", ")").Replace(u.EscapedPath())
	raw = strings.TrimPrefix(raw, "/v1.0")
	var out []segment
	for part := range strings.SplitSeq(strings.Trim(raw, "/"), "/") {
		name, key, ok := strings.Cut(part, "('")
		if ok && strings.HasSuffix(key, "')") {
			out = append(out, newSegment(name), newSegment(strings.TrimSuffix(key, "')")))
			continue
		}
		out = append(out, newSegment(part))
	}
	return out
}

func newSegment(raw string) segment {
	text, err := url.PathUnescape(raw)
	if err != nil {
		text = raw
	}
	return segment{raw: raw, text: text}
}

// route names the operation and finds who serves it. Segment names are read without case (S-30).
func (s *Server) route(q *request, path []segment) func(*Server, *request) answer {
	switch first := strings.ToLower(path[0].text); {
	case first == "subscriptions":
		return s.routeSubscription(q, path[1:])
	case first == "me" && len(path) > 1:
		q.mailbox = "me"
		return s.routeMailbox(q, path[1:])
	case first == "users" && len(path) > 2:
		q.mailbox = path[1].text
		return s.routeMailbox(q, path[2:])
	case first == "users" || first == "groups" || first == "organization":
		return refuse(answerDenied) // the app reads mailboxes only
	}
	return refuse(noSegment(path[0].text))
}

func (s *Server) routeMailbox(q *request, path []segment) func(*Server, *request) answer {
	if q.Method != http.MethodGet {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.violation("P-2: %s below a mailbox: the app reads only", q.Method)
		return refuse(answerReadOnly)
	}
	switch first := strings.ToLower(path[0].text); first {
	case "messages":
		switch {
		case len(path) == 1:
			q.op = "message.list"
			return (*Server).listMessages
		case len(path) == 2 && isDelta(path[1]) && !s.opts.NoDelta:
			q.op = "delta"
			return refuse(answerNoMailDelta) // D-24
		case len(path) == 2:
			q.op, q.item = "message.get", path[1]
			return (*Server).getMessage
		}
		return refuse(noSegment(path[2].text))
	case "mailfolders":
		return s.routeFolder(q, path[1:])
	case "events", "calendar", "calendars", "calendarview":
		q.area = calendarArea
		return s.routeCalendar(q, first, path)
	case "mailboxsettings":
		q.area = settingsArea
		return s.routeSettings(q, path[1:])
	case "contacts", "contactfolders":
		return refuse(fail(http.StatusNotImplemented, "NotImplemented", "The emulator has no contacts."))
	default:
		return refuse(noSegment(path[0].text))
	}
}

func (s *Server) routeFolder(q *request, path []segment) func(*Server, *request) answer {
	switch len(path) {
	case 0:
		q.op = "folder.list"
		return (*Server).listFolders
	case 1:
		if isDelta(path[0]) && !s.opts.NoDelta {
			q.op = "folder.delta"
			return (*Server).folderDelta
		}
		q.op, q.folder = "folder.get", path[0]
		return (*Server).getFolder
	}
	q.folder = path[0]
	switch below := strings.ToLower(path[1].text); {
	case below == "childfolders" && len(path) == 2:
		q.op = "folder.list"
		return (*Server).listFolders
	case below == "messages" && len(path) == 2:
		q.op = "message.list"
		return (*Server).listMessages
	case below == "messages" && len(path) == 3 && isDelta(path[2]):
		q.op = "delta"
		if s.opts.NoDelta {
			return refuse(answerIDMalformed) // C-12: the segment is taken for a message id
		}
		return (*Server).messageDelta
	case below == "messages" && len(path) == 3:
		q.op, q.item = "message.get", path[2]
		return (*Server).getMessage
	case below == "messages":
		return refuse(noSegment(path[3].text))
	}
	return refuse(noSegment(path[1].text))
}

func isDelta(g segment) bool {
	name := strings.TrimSuffix(strings.ToLower(g.text), "()")
	return name == "delta" || name == "microsoft.graph.delta"
}

// findFolder looks up the folder in the path. mu is held.
func (s *Server) findFolder(q *request) (*folder, answer, bool) {
	id, ok := q.folder.id()
	if !ok {
		s.badID("folder", q.folder)
		return nil, answerIDMalformed, false
	}
	f, err := q.user.folder(id)
	switch {
	case err == nil:
		return f, answer{}, true
	case isKnownName(id):
		return nil, answerItemNotFound, false
	}
	if _, err := idEncoding.DecodeString(id); err != nil || len(id) < 20 {
		return nil, answerIDMalformed, false
	}
	return nil, answerItemNotFound, false
}

// badID notes an id that was spelled so that Graph cannot read it. mu is held.
func (s *Server) badID(what string, g segment) {
	s.violation("I-11: %s id is not escaped once as one segment, with - for / and _ for +: %q", what, g.raw)
}

// getMessage answers GET /users/{id}/messages/{id}, also below a folder.
func (s *Server) getMessage(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, refused, ok := selected(q.query)
	if !ok {
		return refused
	}
	if bad := s.checkQuery(q, "$select"); bad != nil {
		return *bad
	}
	id, ok := q.item.id()
	if !ok {
		s.badID("message", q.item)
		return answerIDMalformed
	}
	m, malformed := q.user.messageByID(id)
	switch {
	case malformed:
		return answerIDMalformed
	case m == nil || m.ghostUntil > time.Now().UnixNano():
		return answerItemNotFound
	}
	if q.folder.raw != "" {
		f, refused, ok := s.findFolder(q)
		if !ok {
			return refused
		}
		if m.folder != f {
			return answerItemNotFound
		}
	}
	context := s.opts.Root + "/v1.0/$metadata#users('" + q.user.id + "')/messages" + selectContext(q.query) + "/$entity"
	return ok200(appendMessage(nil, m, set, q.prefer.immutable, false, context), q)
}

// ok200 also says which wishes were fulfilled.
func ok200(body []byte, q *request) answer {
	a := ok(body)
	if applied := q.prefer.applied(); applied != "" {
		a = a.with("Preference-Applied", applied)
	}
	return a
}

// getFolder answers GET /users/{id}/mailFolders/{id or well-known name}.
func (s *Server) getFolder(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select", "includehiddenfolders"); bad != nil {
		return *bad
	}
	f, refused, ok := s.findFolder(q)
	if !ok {
		return refused
	}
	sel, refused, ok := selectedOfFolder(q.query)
	if !ok {
		return refused
	}
	context := s.opts.Root + "/v1.0/$metadata#users('" + q.user.id + "')/mailFolders" + selectContext(q.query) + "/$entity"
	return ok200(appendFolder(nil, f, sel, context), q)
}
