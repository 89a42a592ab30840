package emulator

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// routeCalendar finds who serves a request for calendars and what is in them. Path begins with the segment named first.
func (s *Server) routeCalendar(q *request, first string, path []segment) func(*Server, *request) answer {
	switch rest := path[1:]; {
	case first == "calendars" && len(rest) == 0:
		q.op = "calendar.list"
		return (*Server).listCalendars
	case first == "calendars":
		q.within, q.cal = true, rest[0]
		return s.routeInCalendar(q, rest[1:])
	case first == "calendar":
		q.within = true
		return s.routeInCalendar(q, rest)
	}
	return s.routeInCalendar(q, path)
}

// routeInCalendar serves what stands below a calendar, or below the mailbox for its default calendar.
func (s *Server) routeInCalendar(q *request, path []segment) func(*Server, *request) answer {
	if len(path) == 0 {
		q.op = "calendar.get"
		return (*Server).getCalendar
	}
	switch first := strings.ToLower(path[0].text); {
	case first == "calendarview" && len(path) == 1:
		q.op = "calendarview"
		return (*Server).listView
	case first == "calendarview" && len(path) == 2 && isDelta(path[1]):
		q.op = "calendarview.delta"
		return (*Server).viewDelta
	case first == "events" && len(path) == 1:
		return refuse(fail(http.StatusNotImplemented, "NotImplemented", "The emulator lists calendar items by calendarView."))
	case first == "events" && len(path) == 2 && isDelta(path[1]):
		return func(s *Server, _ *request) answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.violation("D-40: delta of events without a window is in beta only")
			return noSegment(path[1].text)
		}
	case first == "events" && len(path) == 2:
		q.op, q.item = "event.get", path[1]
		return (*Server).getEvent
	case first == "events" && len(path) == 3 && strings.EqualFold(path[2].text, "instances"):
		q.op, q.item = "event.instances", path[1]
		return (*Server).listInstances
	}
	return refuse(noSegment(path[len(path)-1].text))
}

// findCalendar looks up the calendar in the path. mu is held.
func (s *Server) findCalendar(q *request) (*calendar, answer, bool) {
	if q.cal.raw == "" {
		return q.user.calendars[0], answer{}, true
	}
	id, ok := q.cal.id()
	if !ok {
		s.badID("calendar", q.cal)
		return nil, answerIDMalformed, false
	}
	for _, c := range q.user.calendars {
		if c.id == id { // not by name, which Graph does not know
			return c, answer{}, true
		}
	}
	if _, err := idEncoding.DecodeString(id); err != nil || len(id) < 20 {
		return nil, answerIDMalformed, false
	}
	return nil, answerItemNotFound, false
}

// findEvent looks up the calendar item in the path. mu is held.
func (s *Server) findEvent(q *request) (instance, answer, bool) {
	id, ok := q.item.id()
	if !ok {
		s.badID("event", q.item)
		return instance{}, answerIDMalformed, false
	}
	i, malformed := q.user.instanceByID(id)
	switch {
	case malformed:
		return i, answerIDMalformed, false
	case i.m == nil:
		return i, answerItemNotFound, false
	case !q.within && q.token.user != nil && q.token.user != q.user:
		return i, answerItemNotFound, false // D-36c: what is shared is found below its calendar only
	case !q.within:
		return i, answer{}, true
	}
	c, refused, ok := s.findCalendar(q)
	if ok && i.m.calendar != c {
		return i, answerItemNotFound, false
	}
	return i, refused, ok
}

// getEvent answers GET …/events/{id}, of the mailbox or below a calendar.
func (s *Server) getEvent(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, refused, ok := selectedOfEvent(q.query)
	if !ok {
		return refused
	}
	if bad := s.checkQuery(q, "$select"); bad != nil {
		return *bad
	}
	z, refused, ok := zoneOf(q)
	if !ok {
		return refused
	}
	i, refused, ok := s.findEvent(q)
	if !ok {
		return refused
	}
	context := s.eventContext(q) + selectContext(q.query) + "/$entity"
	return ok200(appendEvent(nil, i, set, z, q.prefer.immutable, false, context), q)
}

// eventContext is the metadata context of the events of the mailbox or calendar in the path.
func (s *Server) eventContext(q *request) string {
	context := s.opts.Root + "/v1.0/$metadata#users('" + q.user.id + "')"
	if q.cal.raw != "" {
		context += "/calendars('" + q.cal.raw + "')"
	}
	return context + "/events"
}

// getCalendar answers GET …/calendar and …/calendars/{id}.
func (s *Server) getCalendar(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select"); bad != nil {
		return *bad
	}
	sel, refused, ok := selectedNames(q.query, "Calendar", calendarNames)
	if !ok {
		return refused
	}
	c, refused, ok := s.findCalendar(q)
	if !ok {
		return refused
	}
	context := s.opts.Root + "/v1.0/$metadata#users('" + q.user.id + "')/calendars" + selectContext(q.query) + "/$entity"
	return ok200(appendCalendar(nil, c, sel, context), q)
}

// listCalendars answers GET …/calendars.
func (s *Server) listCalendars(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select", "$top", "$skip"); bad != nil {
		return *bad
	}
	sel, refused, ok := selectedNames(q.query, "Calendar", calendarNames)
	if !ok {
		return refused
	}
	size, refused, ok := pageSize(q)
	if !ok {
		return refused
	}
	b := appendString([]byte(`{"@odata.context":`), s.opts.Root+"/v1.0/$metadata#users('"+q.user.id+"')/calendars"+selectContext(q.query))
	b = append(b, `,"value":[`...)
	list, skip := q.user.calendars, skipOf(q.query)
	last := min(skip+size, len(list))
	for n := skip; n < last; n++ {
		if n > skip {
			b = append(b, ',')
		}
		b = appendCalendar(b, list[n], sel, "")
	}
	b = append(b, ']')
	if last < len(list) {
		b = appendString(append(b, `,"@odata.nextLink":`...), s.skipLink(q, last))
	}
	return ok200(append(b, '}'), q)
}

// pageSize is how many items a page of a listing has.
func pageSize(q *request) (size int, refused answer, ok bool) {
	size, given, refused, ok := top(q.query)
	if ok && !given {
		size = 10
		if q.prefer.pageSize > 0 {
			size = q.prefer.pageSize
		}
	}
	return size, refused, ok
}

// routeSettings finds who serves a request below mailboxSettings.
func (s *Server) routeSettings(q *request, path []segment) func(*Server, *request) answer {
	switch {
	case len(path) == 0:
		q.op = "mailboxsettings"
		return (*Server).getSettings
	case len(path) == 1 && strings.EqualFold(path[0].text, "timeZone"):
		q.op = "mailboxsettings"
		return (*Server).getZone
	}
	return refuse(noSegment(path[len(path)-1].text))
}

// getZone answers GET …/mailboxSettings/timeZone.
func (s *Server) getZone(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q); bad != nil {
		return *bad
	}
	b := appendString([]byte(`{"@odata.context":`), s.opts.Root+"/v1.0/$metadata#users('"+q.user.id+"')/mailboxSettings/timeZone")
	b = appendString(append(b, `,"value":`...), q.user.zone)
	return ok200(append(b, '}'), q)
}

// getSettings answers GET …/mailboxSettings.
func (s *Server) getSettings(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select"); bad != nil {
		return *bad
	}
	all := map[string]any{
		"timeZone": q.user.zone, "dateFormat": "dd.MM.yyyy", "timeFormat": "HH:mm",
		"language": map[string]string{"locale": "en-US", "displayName": "English (United States)"},
		"workingHours": map[string]any{
			"daysOfWeek": weekdays[1:6], "startTime": "08:00:00.0000000", "endTime": "17:00:00.0000000",
			"timeZone": map[string]string{"name": q.user.zone},
		},
	}
	sel, refused, ok := selectedNames(q.query, "MailboxSettings", []string{"timeZone", "dateFormat", "timeFormat", "language", "workingHours"})
	if !ok {
		return refused
	}
	for name := range all {
		if sel != nil && !sel[strings.ToLower(name)] {
			delete(all, name)
		}
	}
	all["@odata.context"] = s.opts.Root + "/v1.0/$metadata#users('" + q.user.id + "')/mailboxSettings" + selectContext(q.query)
	b, err := json.Marshal(all)
	if err != nil {
		panic(err) // strings
	}
	return ok200(b, q)
}

// selectedNames reads $select of what has the named properties; nil: all. The names are lower case.
func selectedNames(query map[string][]string, typ string, known []string) (map[string]bool, answer, bool) {
	list, given := option(query, "$select")
	if !given {
		return nil, answer{}, true
	}
	set := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !strings.EqualFold(name, "id") && !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			return nil, fail(http.StatusBadRequest, "RequestBroker--ParseUri",
				"Could not find a property named '"+name+"' on type 'Microsoft.OutlookServices."+typ+"'."), false
		}
		set[strings.ToLower(name)] = true
	}
	return set, answer{}, true
}
