package emulator

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	// arran4/golang-ical reads what calendars really export (its tests hold such files), has releases and is fuzzed;
	// emersion/go-ical has no releases. Recurrence it leaves alone: ics_rule.go does that.
	ics "github.com/arran4/golang-ical"
)

// maxICS bounds a calendar that is read, in bytes.
const maxICS = 32 << 20

var (
	errNotICS    = errors.New("not an iCalendar file")
	errICSTooBig = errors.New("larger than 32 MiB")
)

// ImportICS puts the meetings of an iCalendar file into a mailbox's default calendar; one that is there by its UID is
// replaced. n events were imported, dates of a series that have their own among them; err joins what was not, or not
// wholly, each with its UID.
func (s *Server) ImportICS(user string, r io.Reader) (n int, err error) {
	f, err := readICS(r)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return 0, err
	}
	f.user, f.floating = u, icsZone{"UTC", time.UTC}
	if z, err := f.zone(cmp.Or(f.zoneName, u.zone)); err == nil {
		f.floating = z
	}
	var problems []error
	for _, group := range f.groups {
		is, got, err := f.state(group)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", cmp.Or(group[0].text("UID"), "an event without a UID"), err))
		}
		if is != nil {
			s.replace(u.calendars[0], is)
			n += got
		}
	}
	return n, errors.Join(problems...)
}

// replace puts a meeting where the one with its UID is, or adds it.
func (s *Server) replace(c *calendar, is *state) {
	for d, x := range is.exceptions {
		c.user.version++
		x.key, x.modifiedAt = c.user.version, time.Now()
		is.exceptions[d] = x
	}
	for _, m := range c.user.meetings {
		if m.calendar == c && m.now != nil && is.uid != "" && m.now.uid == is.uid {
			s.commit(target{m: m}, is, updated)
			return
		}
	}
	s.addMeeting(c, is)
}

// icsFile is a calendar as it was read.
type icsFile struct {
	user     *user
	groups   [][]icsEvent // by UID, the series or single event first
	zones    map[string]icsZone
	zoneName string  // of the calendar; may be empty
	floating icsZone // of times without a zone
}

// icsEvent is one VEVENT.
type icsEvent struct{ *ics.VEvent }

// icsProperty is a property of one, with the names of parameters in capitals.
type icsProperty struct {
	value string
	param map[string]string
}

// readICS parses a calendar.
func readICS(r io.Reader) (f icsFile, err error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxICS+1))
	switch {
	case err != nil:
		return f, err
	case len(raw) > maxICS:
		return f, errICSTooBig
	}
	defer func() { // whatever a parser makes of odd files, the emulator goes on
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: the parser gave up: %v", errNotICS, v)
		}
	}()
	raw = bytes.TrimPrefix(raw, []byte("\xEF\xBB\xBF"))
	cal, err := ics.ParseCalendarWithOptions(bytes.NewReader([]byte(clean(string(raw)))))
	if err != nil {
		return f, fmt.Errorf("%w: %w", errNotICS, err)
	}
	for _, p := range cal.CalendarProperties {
		if strings.EqualFold(p.IANAToken, "X-WR-TIMEZONE") {
			f.zoneName = p.Value
		}
	}
	f.zones = zonesOf(cal)
	f.groups = grouped(cal)
	return f, nil
}

// grouped sorts the events by UID. Of several versions of one the highest SEQUENCE counts, of equal ones the last.
func grouped(cal *ics.Calendar) (groups [][]icsEvent) {
	place := map[string]int{}
	for _, v := range cal.Events() {
		for i := range v.Properties {
			v.Properties[i].IANAToken = strings.ToUpper(v.Properties[i].IANAToken)
		}
		e := icsEvent{v}
		uid := e.text("UID")
		at, known := place[uid]
		if uid == "" || !known {
			place[uid] = len(groups)
			groups = append(groups, []icsEvent{e})
			continue
		}
		same := func(other icsEvent) bool { return other.text("RECURRENCE-ID") == e.text("RECURRENCE-ID") }
		switch i := slices.IndexFunc(groups[at], same); {
		case i < 0:
			groups[at] = append(groups[at], e)
		case groups[at][i].number("SEQUENCE") <= e.number("SEQUENCE"):
			groups[at][i] = e
		}
	}
	var out [][]icsEvent
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b icsEvent) int { return strings.Compare(a.text("RECURRENCE-ID"), b.text("RECURRENCE-ID")) })
		for g[0].text("RECURRENCE-ID") != "" && len(g) > 1 { // invitations to single dates of a series that is not there
			out, g = append(out, g[:1]), g[1:]
		}
		out = append(out, g)
	}
	return out
}

// all are the properties of a name.
func (e icsEvent) all(name string) (out []icsProperty) {
	for _, p := range e.GetProperties(ics.ComponentProperty(name)) {
		q := icsProperty{value: strings.TrimSpace(p.Value), param: map[string]string{}}
		for k, v := range p.ICalParameters {
			if len(v) > 0 {
				q.param[strings.ToUpper(k)] = v[0]
			}
		}
		out = append(out, q)
	}
	return out
}

func (e icsEvent) one(name string) (p icsProperty, ok bool) {
	list := e.all(name)
	if len(list) == 0 || list[0].value == "" {
		return p, false
	}
	return list[0], true
}

func (e icsEvent) text(name string) string {
	p, _ := e.one(name)
	return p.value
}

func (e icsEvent) is(name, value string) bool { return strings.EqualFold(e.text(name), value) }

func (e icsEvent) number(name string) int {
	n, err := strconv.Atoi(e.text(name))
	if err != nil {
		return 0
	}
	return n
}

// state makes a meeting of the events of one UID. It may be one although not all could be taken over.
func (f icsFile) state(group []icsEvent) (is *state, n int, err error) {
	m, problem := f.meeting(group[0])
	if m == nil {
		return nil, 0, problem
	}
	if is, err = newState(f.user, *m); err != nil {
		return nil, 0, errors.Join(problem, err)
	}
	f.finish(is, group[0])
	problems := []error{problem}
	n = 1
	if is.recurrence == nil {
		for range group[1:] {
			problems = append(problems, errors.New("a RECURRENCE-ID of an event that does not recur"))
		}
		return is, n, errors.Join(problems...)
	}
	is = is.withOwn()
	for _, p := range group[0].all("EXDATE") {
		for text := range strings.SplitSeq(p.value, ",") {
			d, err := f.dayIn(is, icsProperty{value: text, param: p.param})
			switch {
			case err != nil:
				problems = append(problems, fmt.Errorf("EXDATE: %w", err))
			case is.days.has(d):
				is.gone[d] = true
			}
		}
	}
	for _, e := range group[1:] {
		if err := f.except(is, e); err != nil {
			problems = append(problems, err)
			continue
		}
		n++
	}
	return is, n, errors.Join(problems...)
}

// dayIn is the date of a series that a time or date names.
func (f icsFile) dayIn(is *state, p icsProperty) (day, error) {
	at, zone, isDate, err := f.time(p)
	switch {
	case err != nil:
		return 0, err
	case isDate:
		return dayOf(at), nil
	case is.allDay:
		return dayOf(at.In(zone.loc)), nil
	}
	return dayOf(at.In(is.loc)), nil
}

// except makes an exception of a series of an event with a RECURRENCE-ID.
func (f icsFile) except(is *state, e icsEvent) error {
	p, _ := e.one("RECURRENCE-ID")
	if p.param["RANGE"] != "" {
		return fmt.Errorf("RECURRENCE-ID %s: a change of this and all later dates cannot be represented", p.value)
	}
	d, err := f.dayIn(is, p)
	if err != nil {
		return fmt.Errorf("RECURRENCE-ID: %w", err)
	}
	if !is.days.has(d) || is.gone[d] {
		return fmt.Errorf("RECURRENCE-ID %s is not a date of the series", p.value)
	}
	m, problem := f.meeting(e)
	if m == nil {
		return problem
	}
	m.Recurrence = nil
	own, err := newState(f.user, *m)
	if err != nil {
		return fmt.Errorf("RECURRENCE-ID %s: %w", p.value, err)
	}
	f.finish(own, e)
	is.exceptions[d] = exception{edits: []edit{override(own)}}
	return problem
}

// override is the edit that gives one date all that own has.
func override(own *state) edit {
	return func(s *state) error {
		was := *s
		*s = *own
		s.key, s.modifiedAt, s.uid = was.key, was.modifiedAt, was.uid
		s.asked, s.days, s.exceptions, s.gone = was.asked, was.days, was.exceptions, was.gone
		return nil
	}
}

// finish adds what a Meeting does not tell.
func (f icsFile) finish(is *state, e icsEvent) {
	is.cancelled = e.is("STATUS", "CANCELLED")
	if is.own {
		return
	}
	for _, a := range e.all("ATTENDEE") {
		if r, ok := partStats[strings.ToUpper(a.param["PARTSTAT"])]; ok && strings.EqualFold(mailto(a.value), f.user.address) {
			is.response = r
		}
	}
}

// partStats are answers as iCalendar calls them; who has not answered yet is told nowhere else than here.
var partStats = map[string]string{
	"ACCEPTED": "accepted", "DECLINED": "declined", "TENTATIVE": "tentativelyAccepted", "NEEDS-ACTION": "notResponded",
}

// meeting reads an event. It may be one although err tells of something that it cannot have; nil: it cannot be one.
func (f icsFile) meeting(e icsEvent) (m *Meeting, err error) {
	start, ok := e.one("DTSTART")
	if !ok {
		return nil, errors.New("it has no DTSTART")
	}
	at, zone, isDate, err := f.time(start)
	if err != nil {
		return nil, fmt.Errorf("DTSTART: %w", err)
	}
	m = &Meeting{
		Subject: e.text("SUMMARY"), Location: e.text("LOCATION"), Body: e.text("DESCRIPTION"), ICalUID: e.text("UID"),
		Start: at, TimeZone: zone.name, loc: zone.loc, AllDay: isDate || e.is("X-MICROSOFT-CDO-ALLDAYEVENT", "TRUE"),
		Organizer: addressOf(e, "ORGANIZER"), ShowAs: showAsOf(e), Sensitivity: sensitivityOf(e), Importance: priorityOf(e),
	}
	if date := e.text("RECURRENCE-ID"); date != "" {
		m.ICalUID += "_" + date
	}
	if html, ok := e.one("X-ALT-DESC"); ok && strings.EqualFold(html.param["FMTTYPE"], "text/html") {
		m.Body, m.HTML = html.value, true
	}
	if m.End, err = f.end(e, at); err != nil {
		return nil, err
	}
	if m.AllDay { // by the dates that people see
		m.Start, m.End = floating(m.Start.In(zone.loc)), floating(m.End.In(zone.loc))
	}
	for _, name := range []string{"X-MICROSOFT-SKYPETEAMSMEETINGURL", "X-GOOGLE-CONFERENCE", "CONFERENCE"} {
		if url := e.text(name); url != "" && m.JoinURL == "" {
			m.Online, m.JoinURL = true, url
		}
	}
	for _, p := range e.all("CATEGORIES") {
		for c := range strings.SplitSeq(p.value, ",") {
			if c = strings.TrimSpace(c); c != "" {
				m.Categories = append(m.Categories, c)
			}
		}
	}
	for _, a := range e.all("ATTENDEE") {
		m.Attendees = append(m.Attendees, attendeeOf(a))
	}
	if m.Recurrence, err = ruleOf(e, *m); err != nil {
		return nil, err
	}
	if len(e.all("RDATE")) > 0 {
		return m, errors.New("RDATE cannot be represented: the additional dates are left out")
	}
	return m, nil
}

// ruleOf is the recurrence of an event; nil: none.
func ruleOf(e icsEvent, m Meeting) (*Recurrence, error) {
	rules := e.all("RRULE")
	if len(rules) > 1 || len(e.all("EXRULE")) > 0 {
		return nil, errors.New("several rules cannot be represented")
	}
	if len(rules) == 0 {
		return nil, nil
	}
	r, err := recurrenceOf(rules[0].value, m)
	if err != nil {
		return nil, fmt.Errorf("RRULE %s: %w", rules[0].value, err)
	}
	return &r, nil
}

// icsDuration is a duration: weeks alone, or days and a time.
var icsDuration = regexp.MustCompile(`^\+?P(?:(\d{1,3})W)?(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?$`)

// end is when an event ends: DTEND, else DURATION, else the next day or at once.
func (f icsFile) end(e icsEvent, start time.Time) (time.Time, error) {
	if p, ok := e.one("DTEND"); ok {
		at, _, _, err := f.time(p)
		if err != nil {
			return at, fmt.Errorf("DTEND: %w", err)
		}
		return at, nil
	}
	text := strings.ToUpper(e.text("DURATION"))
	if text == "" {
		return start, nil
	}
	parts := icsDuration.FindStringSubmatch(text)
	if parts == nil {
		return start, fmt.Errorf("DURATION %q is not one", text)
	}
	var d time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute, time.Second} {
		n, _ := strconv.Atoi(cmp.Or(parts[i+1], "0")) // digits
		d += time.Duration(n) * unit
	}
	return start.Add(d), nil
}

// time reads a date or time with its zone. A date is midnight in UTC.
func (f icsFile) time(p icsProperty) (at time.Time, zone icsZone, isDate bool, err error) {
	text := strings.ToUpper(strings.TrimSpace(p.value))
	zone = icsZone{"UTC", time.UTC}
	if d := strings.TrimSuffix(text, "Z"); len(d) == 8 {
		at, err = time.Parse("20060102", d)
		return at, zone, true, err
	}
	if strings.HasSuffix(text, "Z") {
		at, err = time.Parse("20060102T150405Z", text)
		return at, zone, false, err
	}
	if id := p.param["TZID"]; id != "" {
		if zone, err = f.zone(id); err != nil {
			return at, zone, false, err
		}
	} else {
		zone = f.floating
	}
	at, err = time.ParseInLocation("20060102T150405", text, zone.loc)
	return at, zone, false, err
}

func mailto(v string) string {
	if len(v) > 7 && strings.EqualFold(v[:7], "mailto:") {
		return v[7:]
	}
	return v
}

func addressOf(e icsEvent, name string) Address {
	p, ok := e.one(name)
	if !ok {
		return Address{}
	}
	return Address{Name: p.param["CN"], Address: mailto(p.value)}
}

func attendeeOf(p icsProperty) Attendee {
	a := Attendee{Address: Address{Name: p.param["CN"], Address: mailto(p.value)}, Type: "required", Response: "none"}
	switch role, kind := strings.ToUpper(p.param["ROLE"]), strings.ToUpper(p.param["CUTYPE"]); {
	case kind == "ROOM", kind == "RESOURCE":
		a.Type = "resource"
	case role == "OPT-PARTICIPANT", role == "NON-PARTICIPANT":
		a.Type = "optional"
	}
	if r := partStats[strings.ToUpper(p.param["PARTSTAT"])]; r != "" && r != "notResponded" {
		a.Response = r
	}
	return a
}

func showAsOf(e icsEvent) string {
	switch strings.ToUpper(e.text("X-MICROSOFT-CDO-BUSYSTATUS")) {
	case "FREE":
		return "free"
	case "TENTATIVE":
		return "tentative"
	case "OOF":
		return "oof"
	case "WORKINGELSEWHERE":
		return "workingElsewhere"
	case "BUSY":
		return "busy"
	}
	switch {
	case e.is("TRANSP", "TRANSPARENT"):
		return "free"
	case e.is("STATUS", "TENTATIVE"):
		return "tentative"
	}
	return "busy"
}

func sensitivityOf(e icsEvent) string {
	switch strings.ToUpper(e.text("CLASS")) {
	case "PRIVATE":
		return "private"
	case "CONFIDENTIAL":
		return "confidential"
	}
	return "normal"
}

// priorityOf reads PRIORITY, 1 the highest, 5 normal, 9 the lowest.
func priorityOf(e icsEvent) string {
	switch n := e.number("PRIORITY"); {
	case n >= 1 && n <= 4:
		return "high"
	case n >= 6 && n <= 9:
		return "low"
	}
	return "normal"
}
