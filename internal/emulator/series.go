package emulator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

// state is a meeting as it is from one change to the next. It is never changed: a change makes another.
type state struct {
	key        uint64 // version in its change key
	modifiedAt time.Time

	subject, body, preview, location string
	html                             bool
	start, end                       time.Time // of a series: of its first occurrence; of an all-day one: midnights in UTC
	allDay                           bool
	zone                             string
	loc                              *time.Location // where a series recurs; of an all-day one UTC
	organizer                        Address
	own                              bool   // the mailbox is the organizer
	response                         string // the mailbox's own
	respondedAt                      time.Time
	attendees                        []attendee
	showAs, sensitivity, importance  string
	categories                       []string
	cancelled, online                bool
	joinURL, uid                     string

	asked      *Recurrence // as it was given; nil: single
	recurrence *Recurrence // the same with its defaults, which depend on the start; of one date nil
	days       *days
	exceptions map[day]exception
	gone       map[day]bool
}

type attendee struct {
	Attendee
	at time.Time // of the response
}

// edit changes a state that nobody has seen yet.
type edit func(*state) error

// exception is an occurrence with values of its own: what its edits do not touch follows the series.
type exception struct {
	key        uint64
	modifiedAt time.Time
	edits      []edit
}

// day is a date without a zone: days since 1970-01-01.
type day int

// dayOf is the date that t's own clock shows.
func dayOf(t time.Time) day {
	y, m, d := t.Date()
	return day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

func (d day) midnight() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// floating is the same clock in UTC, so that lengths are those that people see.
func floating(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// in is the time that a clock in loc shows as f.
func in(f time.Time, loc *time.Location) time.Time {
	return time.Date(f.Year(), f.Month(), f.Day(), f.Hour(), f.Minute(), f.Second(), f.Nanosecond(), loc)
}

// days are the dates of a series, as far as somebody asked. Shared by the states of a series; guarded by Server.mu.
type days struct {
	next rrule.Next
	list []day
	done bool
}

// lastDay is in the year 4500, where calendars end.
const lastDay day = 2530 * 36525 / 100

// through lists the days up to last.
func (l *days) through(last day) []day {
	last = min(last, lastDay)
	for !l.done && (len(l.list) == 0 || l.list[len(l.list)-1] <= last) {
		t, ok := l.next()
		if !ok {
			l.done = true
			break
		}
		l.list = append(l.list, dayOf(t))
	}
	n, _ := slices.BinarySearch(l.list, last+1)
	return l.list[:n]
}

func (l *days) has(d day) bool {
	list := l.through(d)
	return len(list) > 0 && list[len(list)-1] == d
}

// first is the first day; not ok: there is none.
func (l *days) first() (d day, ok bool) {
	if len(l.list) == 0 {
		if t, ok := l.next(); ok {
			l.list = append(l.list, dayOf(t))
		}
	}
	if len(l.list) == 0 {
		return 0, false
	}
	return l.list[0], true
}

var (
	weekdays = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	rweekday = []rrule.Weekday{rrule.SU, rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA}
	indexes  = []string{"first", "second", "third", "fourth", "last"}
	patterns = []string{"daily", "weekly", "absoluteMonthly", "relativeMonthly", "absoluteYearly", "relativeYearly"}
	ranges   = []string{"noEnd", "endDate", "numbered"}
)

// filled checks a recurrence and fills in what it does not tell from the date it starts on.
func (r Recurrence) filled(start day) (Recurrence, error) {
	if r.Type == "" {
		return r, errors.New("a recurrence needs a type")
	}
	names := []struct {
		what string
		list []string
		v    *string
	}{
		{"recurrence type", patterns, &r.Type}, {"index", indexes, &r.Index},
		{"firstDayOfWeek", weekdays, &r.FirstDayOfWeek}, {"range type", ranges, &r.RangeType},
	}
	for _, n := range names {
		var err error
		if *n.v, err = oneOf(n.what, n.list, *n.v); err != nil {
			return r, err
		}
	}
	r.DaysOfWeek = slices.Clone(r.DaysOfWeek)
	for i, d := range r.DaysOfWeek {
		if d == "" || !slices.Contains(weekdays, strings.ToLower(d)) {
			return r, fmt.Errorf("day of week %q is not one of %v", d, weekdays)
		}
		r.DaysOfWeek[i] = strings.ToLower(d)
	}
	date := start.midnight()
	if len(r.DaysOfWeek) == 0 && (r.Type == "weekly" || strings.HasPrefix(r.Type, "relative")) {
		r.DaysOfWeek = []string{weekdays[date.Weekday()]}
	}
	if r.DayOfMonth == 0 && strings.HasPrefix(r.Type, "absolute") {
		r.DayOfMonth = date.Day()
	}
	if r.Month == 0 && strings.HasSuffix(r.Type, "Yearly") {
		r.Month = int(date.Month())
	}
	if r.Interval == 0 {
		r.Interval = 1
	}
	switch {
	case r.Interval < 0 || r.Interval > 999:
		return r, fmt.Errorf("interval %d is not between 1 and 999", r.Interval)
	case r.DayOfMonth < 0 || r.DayOfMonth > 31:
		return r, fmt.Errorf("dayOfMonth %d is not between 1 and 31", r.DayOfMonth)
	case r.Month < 0 || r.Month > 12:
		return r, fmt.Errorf("month %d is not between 1 and 12", r.Month)
	case r.RangeType == "numbered" && (r.Count < 1 || r.Count > 999):
		return r, fmt.Errorf("count %d is not between 1 and 999", r.Count)
	case r.RangeType == "endDate" && r.EndDate.IsZero():
		return r, errors.New("a range of type endDate needs an endDate")
	}
	return r, nil
}

// expand makes the list of a filled recurrence's days. rrule-go counts them on the calendar alone, at midnight in UTC:
// the time of day and its summer time come in afterwards, so that they cannot move a date.
func (r Recurrence) expand(start day) (*days, error) {
	o := rrule.ROption{
		Dtstart: start.midnight(), Interval: r.Interval, Wkst: rweekday[slices.Index(weekdays, r.FirstDayOfWeek)],
	}
	switch r.RangeType {
	case "numbered":
		o.Count = r.Count
	case "endDate":
		o.Until = dayOf(r.EndDate.UTC()).midnight()
	}
	o.Freq = map[string]rrule.Frequency{"daily": rrule.DAILY, "weekly": rrule.WEEKLY}[r.Type]
	if strings.HasSuffix(r.Type, "Monthly") {
		o.Freq = rrule.MONTHLY
	}
	if strings.HasSuffix(r.Type, "Yearly") {
		o.Freq, o.Bymonth = rrule.YEARLY, []int{r.Month}
	}
	if r.Type != "daily" {
		for _, d := range r.DaysOfWeek {
			o.Byweekday = append(o.Byweekday, rweekday[slices.Index(weekdays, d)])
		}
	}
	switch {
	case strings.HasPrefix(r.Type, "relative"):
		n := slices.Index(indexes, r.Index) + 1
		if r.Index == "last" {
			n = -1
		}
		o.Bysetpos = []int{n}
	case strings.HasPrefix(r.Type, "absolute"):
		o.Byweekday = nil
		for d := min(r.DayOfMonth, 28); d <= r.DayOfMonth; d++ { // the last of them that the month has
			o.Bymonthday = append(o.Bymonthday, d)
		}
		o.Bysetpos = []int{-1}
	}
	rule, err := rrule.NewRRule(o)
	if err != nil {
		return nil, fmt.Errorf("recurrence: %w", err)
	}
	return &days{next: rule.Iterator()}, nil
}

// recur makes the state a series as asked, without exceptions, and moves it to its first occurrence.
func (s *state) recur(asked Recurrence) error {
	start := dayOf(s.start.In(s.loc))
	r, err := asked.filled(start)
	if err != nil {
		return err
	}
	list, err := r.expand(start)
	if err != nil {
		return err
	}
	first, ok := list.first()
	if !ok {
		return errors.New("the recurrence never takes place")
	}
	s.start, s.end = s.on(first)
	s.asked, s.recurrence, s.days, s.exceptions, s.gone = &asked, &r, list, nil, nil
	return nil
}

// on is when the series takes place on a day, by the clock of its zone.
func (s *state) on(d day) (start, end time.Time) {
	first := floating(s.start.In(s.loc))
	begin := d.midnight().Add(timeOfDay(first))
	return in(begin, s.loc).UTC(), in(begin.Add(floating(s.end.In(s.loc)).Sub(first)), s.loc).UTC()
}

// withOwn copies the state with maps that may be changed.
func (s *state) withOwn() *state {
	c := *s
	c.exceptions, c.gone = maps.Clone(s.exceptions), maps.Clone(s.gone)
	if c.exceptions == nil {
		c.exceptions = map[day]exception{}
	}
	if c.gone == nil {
		c.gone = map[day]bool{}
	}
	return &c
}

// view is the window of a calendar view.
type view struct {
	From  time.Time `json:"f"`
	Until time.Time `json:"u"`
}

// has reports whether something takes place in the window, if only in part.
func (v view) has(start, end time.Time) bool {
	return start.Before(v.Until) && (end.After(v.From) || start.Equal(v.From))
}

// instance is what stands in a calendar: a single meeting, a series as a whole, or one date of it.
type instance struct {
	m *meeting
	*state
	kind     string
	day      day       // of one date
	original time.Time // of one date: when the series has it
}

// isDate reports whether i is one date of a series.
func (i instance) isDate() bool { return i.kind == typeOccurrence || i.kind == typeException }

// whole is the meeting itself, single or series, in one of its states.
func (m *meeting) whole(s *state) instance {
	if s.recurrence != nil {
		return instance{m: m, state: s, kind: typeMaster}
	}
	return instance{m: m, state: s, kind: typeSingle}
}

// date is one date of a series; not ok: the series has no such date.
func (m *meeting) date(s *state, d day) (i instance, ok bool) {
	if s.recurrence == nil || s.gone[d] || !s.days.has(d) {
		return i, false
	}
	own := *s
	own.start, own.end = s.on(d)
	own.recurrence = nil
	i = instance{m: m, state: &own, kind: typeOccurrence, day: d, original: own.start}
	x, ok := s.exceptions[d]
	if !ok {
		return i, true
	}
	i.kind, own.key, own.modifiedAt = typeException, x.key, x.modifiedAt
	for _, do := range x.edits {
		_ = do(&own) // it succeeded once; an attendee who left the series since then has no answer to change
	}
	return i, true
}

// in lists what a meeting has in a window: itself, or its dates.
func (m *meeting) in(s *state, v view) (out []instance) {
	if s.recurrence == nil {
		if v.has(s.start, s.end) {
			out = append(out, m.whole(s))
		}
		return out
	}
	length := day(s.end.Sub(s.start)/(24*time.Hour)) + 2 // a day more at either end: zones
	list := s.days.through(dayOf(v.Until.UTC()) + 1)
	from, _ := slices.BinarySearch(list, dayOf(v.From.UTC())-length)
	for _, d := range list[from:] {
		if _, own := s.exceptions[d]; own || s.gone[d] {
			continue
		}
		if i, ok := m.date(s, d); ok && v.has(i.start, i.end) {
			out = append(out, i)
		}
	}
	for d := range s.exceptions {
		if i, ok := m.date(s, d); ok && v.has(i.start, i.end) {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b instance) int {
		if c := a.start.Compare(b.start); c != 0 {
			return c
		}
		return int(a.day - b.day)
	})
	return out
}
