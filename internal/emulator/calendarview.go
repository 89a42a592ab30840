package emulator

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

// longestView is the longest window that Graph takes.
const longestView = 1825 * 24 * time.Hour

// query writes the window as query options, for a client that is to begin anew; nothing for no window.
func (v *view) query() string {
	if v == nil {
		return ""
	}
	return "startDateTime=" + url.QueryEscape(v.From.Format(time.RFC3339Nano)) + "&endDateTime=" + url.QueryEscape(v.Until.Format(time.RFC3339Nano)) + "&"
}

// window reads startDateTime and endDateTime, both required (D-34). Times without an offset are UTC. mu is held.
func (s *Server) window(q *request) (v view, refused answer, ok bool) {
	no := func(message string) (view, answer, bool) {
		return v, fail(http.StatusBadRequest, "ErrorInvalidParameter", message), false
	}
	for name, into := range map[string]*time.Time{"startDateTime": &v.From, "endDateTime": &v.Until} {
		text, given := option(q.query, name)
		if !given || text == "" {
			s.violation("D-34: %s without startDateTime or endDateTime", q.op)
			return no("This request requires a time window specified by the query string parameters StartDateTime and EndDateTime.")
		}
		if *into, ok = parseTime(text); !ok { // a `+` that was not escaped has become a space
			return no("The value '" + text + "' of parameter '" + name + "' is not a time.")
		}
	}
	switch {
	case !v.Until.After(v.From):
		return no("The value of EndDateTime must be after that of StartDateTime.")
	case v.Until.Sub(v.From) > longestView:
		return v, fail(http.StatusBadRequest, "ErrorCalendarViewRangeTooBig", "The requested time duration specified for calendarview is too long. The calendarview window cannot be longer than 1825 days."), false
	}
	return v, answer{}, true
}

func parseTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil && t.Year() >= 1601 && t.Year() <= 4500 {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// zoneOf is the zone that times are wanted in.
func zoneOf(q *request) (*zone, answer, bool) {
	if q.prefer.zone == "" {
		return &zone{"UTC", time.UTC}, answer{}, true
	}
	loc, err := location(q.prefer.zone)
	if err != nil || q.prefer.zone == customZone {
		return nil, fail(http.StatusBadRequest, "TimeZoneNotSupportedException",
			"A valid TimeZone value must be specified. The following TimeZone value is not supported: '"+q.prefer.zone+"'."), false
	}
	return &zone{q.prefer.zone, loc}, answer{}, true
}

// listView answers GET …/calendarView: what takes place in a window. Series as a whole are not in it (D-36b).
func (s *Server) listView(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, refused, ok := s.findCalendar(q)
	if !ok {
		return refused
	}
	return s.listWindow(q, s.eventContext(q), c.instances)
}

// listInstances answers GET …/events/{id}/instances: the dates of a series in a window.
func (s *Server) listInstances(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, refused, ok := s.findEvent(q)
	if !ok {
		return refused
	}
	if i.kind != typeMaster {
		return fail(http.StatusBadRequest, "ErrorInvalidRequest", "The Id belongs to an item that is not a series master.")
	}
	context := s.eventContext(q) + "('" + url.QueryEscape(q.item.text) + "')/instances"
	return s.listWindow(q, context, func(v view) []instance { return i.m.in(i.m.now, v) })
}

// listWindow answers with a page of what list has in the window of the request. mu is held.
func (s *Server) listWindow(q *request, context string, list func(view) []instance) answer {
	if bad := s.checkQuery(q, "startdatetime", "enddatetime", "$select", "$top", "$skip"); bad != nil {
		return *bad
	}
	set, refused, ok := selectedOfEvent(q.query)
	if !ok {
		return refused
	}
	size, refused, ok := pageSize(q)
	if !ok {
		return refused
	}
	v, refused, ok := s.window(q)
	if !ok {
		return refused
	}
	z, refused, ok := zoneOf(q)
	if !ok {
		return refused
	}
	all, skip := list(v), skipOf(q.query)
	b := appendString([]byte(`{"@odata.context":`), context+selectContext(q.query))
	b = append(b, `,"value":[`...)
	last := min(skip+size, len(all))
	for n := skip; n < last; n++ {
		if n > skip {
			b = append(b, ',')
		}
		b = appendEvent(b, all[n], set, z, q.prefer.immutable, false, "")
	}
	b = append(b, ']')
	if last < len(all) {
		b = appendString(append(b, `,"@odata.nextLink":`...), s.skipLink(q, last))
	}
	return ok200(append(b, '}'), q)
}

// viewDelta answers GET …/calendarView/delta (D-34 to D-39).
func (s *Server) viewDelta(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, given, refused, ok := s.continued(q)
	if !ok {
		return refused
	}
	c, refused, ok := s.findCalendar(q)
	if !ok {
		return refused
	}
	z, refused, ok := zoneOf(q)
	if !ok {
		return refused
	}
	switch {
	case !given:
		if bad := s.checkQuery(q, "startdatetime", "enddatetime", "$deltatoken"); bad != nil {
			return *bad
		}
		v, refused, ok := s.window(q)
		if !ok {
			return refused
		}
		r = round{User: q.user.id, Calendar: c.id, View: &v, Full: true, Start: s.visible(c)}
	case r.Calendar != c.id:
		return fail(http.StatusBadRequest, "SyncStateInvalid", "The token belongs to another calendar.")
	case r.Delta:
		r.Delta, r.Full, r.From, r.Start = false, false, r.Pos, s.visible(c)
	}
	return s.viewPage(q, c, r, z)
}

// toldMeeting is one item of a page: an item of the calendar, or one that is removed.
type toldMeeting struct {
	instance
	removed bool
}

// viewPage answers one page of a round.
func (s *Server) viewPage(q *request, c *calendar, r round, z *zone) answer {
	size := s.opts.PageSize
	if q.prefer.pageSize > 0 && !s.faults.IgnorePageSize {
		size = q.prefer.pageSize
	}
	var items []toldMeeting
	here, end := r, false
	if !s.chance(s.faults.EmptyPages) {
		items, end = s.walkView(c, &r, size)
	}
	s.rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] }) // D-5
	for _, it := range items {
		if s.chance(s.faults.RepeatItems) {
			items = append(items, it)
		}
	}
	b := make([]byte, 0, 512*(len(items)+1))
	b = appendString(append(b, `{"@odata.context":`...), s.opts.Root+"/v1.0/$metadata#Collection(event)")
	b = append(b, `,"value":[`...)
	for i, it := range items {
		if i > 0 {
			b = append(b, ',')
		}
		switch {
		case it.removed:
			b = appendRemovedEvent(b, it.id(q.prefer.immutable))
		case it.kind == typeOccurrence:
			b = appendStub(b, it.instance, z, q.prefer.immutable)
		default:
			b = appendEvent(b, it.instance, allEventProperties, z, q.prefer.immutable, true, "")
		}
	}
	b = append(b, ']')
	b = s.appendLink(b, q, r, here, end)
	return ok200(append(b, '}'), q)
}

// visible is the length of the calendar's log as delta sees it (T-3).
func (s *Server) visible(c *calendar) int {
	limit := time.Now().Add(-s.opts.DeltaLag).UnixNano()
	n := len(c.log)
	for n > 0 && c.log[n-1].at > limit {
		n--
	}
	return n
}

// walkView goes through the calendar's log from where the round stands and collects a page. end tells that the round is
// over: what happens while it is read is for the next one, else a series could be told twice with other dates. A series is
// kept on one page, which may be larger than asked for it, unless Faults.SplitSeries.
func (s *Server) walkView(c *calendar, r *round, size int) (items []toldMeeting, end bool) {
	for r.Pos < r.Start && len(items) < size {
		group := s.tellMeeting(c, r)
		room := size - len(items)
		switch {
		case s.faults.SplitSeries:
			group = group[min(r.Within, len(group)):]
			if len(group) > room {
				r.Within += room
				return append(items, group[:room]...), false
			}
		case len(group) > room && len(items) > 0:
			return items, false
		}
		items = append(items, group...)
		r.Pos++
		r.Within = 0
	}
	return items, r.Pos >= r.Start
}

// tellMeeting decides what the round says about the entry it stands at. Only a meeting's last entry speaks. A series is
// told as a whole, so that a date that vanished is just not in it (D-36d); what has nothing in the window is removed
// (D-38, D-39), though the first round does not tell that.
func (s *Server) tellMeeting(c *calendar, r *round) (group []toldMeeting) {
	e := c.log[r.Pos]
	if next, _ := slices.BinarySearch(e.m.places, r.Pos+2); next < len(e.m.places) && e.m.places[next] <= r.Start {
		return nil
	}
	if e.is != nil {
		for _, i := range e.m.in(e.is, *r.View) {
			group = append(group, toldMeeting{instance: i})
		}
	}
	if len(group) == 0 {
		if r.Full {
			return nil
		}
		return []toldMeeting{{instance: instance{m: e.m}, removed: true}}
	}
	if master := e.m.whole(e.is); master.kind == typeMaster && (r.Full || !s.faults.MasterMissing) {
		group = append([]toldMeeting{{instance: master}}, group...)
	}
	return group
}
