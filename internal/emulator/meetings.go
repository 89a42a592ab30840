package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MeetingChange is something that really happened to a meeting.
type MeetingChange struct {
	At         time.Time `json:"at"`
	User       string    `json:"user"`                 // id
	Item       string    `json:"item"`                 // immutable id of the single meeting or series
	Occurrence string    `json:"occurrence,omitempty"` // immutable id of the date that alone changed
	Kind       string    `json:"kind"`                 // created, updated, deleted
	ChangeKey  string    `json:"changeKey"`            // of Item
	Calendar   string    `json:"calendar"`             // id
}

// MeetingLedger lists every change really made to meetings, oldest first. A date that was deleted alone is an update of
// its series.
func (s *Server) MeetingLedger() []MeetingChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.meetingLedger)
}

// target is what a change is about: a meeting, or one date of a series.
type target struct {
	m   *meeting
	day day
	one bool
}

// AddMeeting puts a meeting into a calendar and returns its immutable id. With an organizer other than the mailbox it is
// an invitation.
func (s *Server) AddMeeting(user string, m Meeting) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return "", err
	}
	c, err := u.calendar(m.Calendar)
	if err != nil {
		return "", err
	}
	is, err := newState(u, m)
	if err != nil {
		return "", err
	}
	return s.addMeeting(c, is).whole(is).id(true), nil
}

func (s *Server) addMeeting(c *calendar, is *state) *meeting {
	m := &meeting{calendar: c, n: len(c.user.meetings), createdAt: time.Now()}
	c.user.meetings = append(c.user.meetings, m)
	s.commit(target{m: m}, is, created)
	return m
}

// newState makes a state of a meeting that is to be put into u's calendar.
func newState(u *user, m Meeting) (*state, error) {
	is := &state{
		subject: clean(m.Subject), body: clean(m.Body), html: m.HTML, location: clean(m.Location), zone: m.TimeZone, loc: m.loc,
		allDay: m.AllDay, organizer: cleanAddress(m.Organizer), categories: cleanAll(m.Categories),
		online: m.Online, joinURL: clean(m.JoinURL), uid: clean(m.ICalUID),
	}
	is.preview = previewOf(is.body, is.html)
	is.own = m.Organizer == (Address{}) || strings.EqualFold(m.Organizer.Address, u.address)
	is.response = "notResponded"
	if is.own {
		is.response = "organizer"
		if is.organizer.Address == "" {
			is.organizer = Address{Name: u.address, Address: u.address}
		}
	}
	if is.zone == "" {
		is.zone = "UTC"
	}
	var err error
	if is.loc == nil {
		if is.loc, err = location(is.zone); err != nil {
			return nil, err
		}
	}
	if is.allDay {
		is.loc = time.UTC
	}
	if is.attendees, err = cleanAttendees(m.Attendees); err != nil {
		return nil, err
	}
	if is.showAs, err = oneOf("showAs", showAsNames, m.ShowAs); err != nil {
		return nil, err
	}
	if is.sensitivity, err = oneOf("sensitivity", sensitivities, m.Sensitivity); err != nil {
		return nil, err
	}
	if is.importance, err = oneOf("importance", importances, m.Importance); err != nil {
		return nil, err
	}
	if m.Start.IsZero() {
		return nil, errors.New("a meeting needs a start")
	}
	if m.End.IsZero() && !m.AllDay {
		m.End = m.Start.Add(30 * time.Minute)
	}
	if err := is.take(m.Start, m.End); err != nil {
		return nil, err
	}
	if m.Recurrence != nil {
		return is, is.recur(*m.Recurrence)
	}
	return is, nil
}

// take sets when the meeting takes place.
func (s *state) take(start, end time.Time) error {
	start, end = start.UTC(), end.UTC()
	if s.allDay { // M-6
		start, end = dayOf(start).midnight(), dayOf(end).midnight()
		if !end.After(start) {
			end = start.AddDate(0, 0, 1)
		}
	}
	switch {
	case end.Before(start):
		return fmt.Errorf("the end %v is before the start %v", end, start)
	case start.Year() < 1601 || end.Year() > 4500: // what Exchange can keep
		return fmt.Errorf("%v to %v is not between the years 1601 and 4500", start, end)
	}
	s.start, s.end = start, end
	return nil
}

func cleanAttendees(list []Attendee) (out []attendee, err error) {
	for _, a := range list {
		a.Address = cleanAddress(a.Address)
		if a.Type, err = oneOf("attendee type", attendeeTypes, a.Type); err != nil {
			return nil, err
		}
		if a.Response, err = oneOf("response", responses, a.Response); err != nil {
			return nil, err
		}
		out = append(out, attendee{Attendee: a})
	}
	return out, nil
}

// UpdateMeeting changes what id names: a single meeting, a series as a whole, or one date of it, which becomes an
// exception.
func (s *Server) UpdateMeeting(user, id string, p MeetingPatch) error {
	return s.changeByID(user, id, p.apply)
}

// UpdateOccurrence changes one date of a series, which becomes an exception.
func (s *Server) UpdateOccurrence(user, master string, originalStart time.Time, p MeetingPatch) error {
	return s.changeByDate(user, master, originalStart, p.apply)
}

// CancelMeeting is the organizer's cancelling: the meeting stays as cancelled until somebody deletes it (M-7).
func (s *Server) CancelMeeting(user, id string) error {
	return s.changeByID(user, id, cancel)
}

// CancelOccurrence is the organizer's cancelling of one date of a series.
func (s *Server) CancelOccurrence(user, master string, originalStart time.Time) error {
	return s.changeByDate(user, master, originalStart, cancel)
}

func cancel(s *state) error { s.cancelled = true; return nil }

// Respond answers an invitation: with attendee empty or the mailbox's own address for the mailbox, else as one of the
// attendees.
func (s *Server) Respond(user, id, attendee, response string) error {
	return s.changeByID(user, id, s.respond(user, attendee, response))
}

// RespondOccurrence answers for one date of a series.
func (s *Server) RespondOccurrence(user, master string, originalStart time.Time, attendee, response string) error {
	return s.changeByDate(user, master, originalStart, s.respond(user, attendee, response))
}

// respond is the edit that answers. It takes mu only to look at the mailbox.
func (s *Server) respond(user, who, response string) edit {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return func(*state) error { return err }
	}
	now := time.Now()
	return func(is *state) error {
		response, err := oneOf("response", responses, response)
		if err != nil {
			return err
		}
		if who == "" || strings.EqualFold(who, u.address) {
			if is.own {
				return errors.New("the organizer has nothing to answer")
			}
			is.response, is.respondedAt = response, now
			return nil
		}
		i := slices.IndexFunc(is.attendees, func(a attendee) bool { return strings.EqualFold(a.Address.Address, who) })
		if i < 0 {
			return fmt.Errorf("%q is not among the attendees", who)
		}
		is.attendees = slices.Clone(is.attendees)
		is.attendees[i].Response, is.attendees[i].at = response, now
		return nil
	}
}

// apply is the edit that a patch is.
func (p MeetingPatch) apply(s *state) (err error) {
	set := func(p, into *string) {
		if p != nil {
			*into = clean(*p)
		}
	}
	set(p.Subject, &s.subject)
	set(p.Location, &s.location)
	set(p.Body, &s.body)
	s.preview = previewOf(s.body, s.html)
	if p.ShowAs != nil {
		if s.showAs, err = oneOf("showAs", showAsNames, *p.ShowAs); err != nil {
			return err
		}
	}
	if p.Importance != nil {
		if s.importance, err = oneOf("importance", importances, *p.Importance); err != nil {
			return err
		}
	}
	if p.Categories != nil {
		s.categories = cleanAll(*p.Categories)
	}
	if p.Attendees != nil {
		if s.attendees, err = cleanAttendees(*p.Attendees); err != nil {
			return err
		}
	}
	if p.Recurrence != nil {
		if s.recurrence == nil && s.asked != nil {
			return errors.New("one date of a series has no recurrence of its own")
		}
		s.asked = p.Recurrence
	}
	return p.move(s)
}

// move is the part of a patch that is about time.
func (p MeetingPatch) move(s *state) error {
	start, end := s.start, s.end
	if p.AllDay != nil && s.allDay != *p.AllDay {
		if s.allDay = *p.AllDay; s.allDay { // on the dates that people saw
			start, end, s.loc = floating(start.In(s.loc)), floating(end.In(s.loc)), time.UTC
		} else if loc, err := location(s.zone); err == nil { // from midnight to midnight
			start, end, s.loc = in(start, loc), in(end, loc), loc
		}
	}
	if p.Start != nil {
		start, end = *p.Start, p.Start.Add(end.Sub(start))
	}
	if p.End != nil {
		end = *p.End
	}
	return s.take(start, end)
}

func (s *Server) changeByID(user, id string, do edit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findMeeting(user, id)
	if err != nil {
		return err
	}
	return s.change(t, do)
}

func (s *Server) changeByDate(user, master string, originalStart time.Time, do edit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findDate(user, master, originalStart)
	if err != nil {
		return err
	}
	return s.change(t, do)
}

// findMeeting looks up what an id names. mu is held.
func (s *Server) findMeeting(user, id string) (t target, err error) {
	u, err := s.find(user)
	if err != nil {
		return t, err
	}
	i, _ := u.instanceByID(id)
	if i.m == nil {
		return t, fmt.Errorf("%w: %s", errNoMeeting, id)
	}
	return target{m: i.m, day: i.day, one: i.isDate()}, nil
}

// findDate looks up a date of a series. mu is held.
func (s *Server) findDate(user, master string, originalStart time.Time) (t target, err error) {
	t, err = s.findMeeting(user, master)
	switch {
	case err != nil:
		return t, err
	case t.one || t.m.now.recurrence == nil:
		return t, fmt.Errorf("%w: not a series: %s", errNoMeeting, master)
	}
	t.day, t.one = dayOf(originalStart.In(t.m.now.loc)), true
	if i, ok := t.m.date(t.m.now, t.day); !ok || !i.original.Equal(originalStart) {
		return t, fmt.Errorf("%w: the series has none at %v", errNoMeeting, originalStart.UTC())
	}
	return t, nil
}

// change edits a meeting. Exceptions keep what was changed in them and follow the series in the rest; when the series
// moves they are regular again, as are the dates that were deleted. mu is held.
func (s *Server) change(t target, do edit) error {
	if t.one {
		return s.changeDate(t, do)
	}
	was, u := t.m.now, t.m.calendar.user
	is := was.withOwn()
	if err := do(is); err != nil {
		return err
	}
	moved := !is.start.Equal(was.start) || is.allDay != was.allDay || is.asked != was.asked
	if is.asked != nil && moved {
		if err := is.recur(*is.asked); err != nil {
			return err
		}
	}
	for d, x := range is.exceptions {
		u.version++
		x.key, x.modifiedAt = u.version, time.Now()
		is.exceptions[d] = x
	}
	s.commit(t, is, updated)
	return nil
}

// changeDate edits one date: it becomes an exception, and the series gets a new change key, too. mu is held.
func (s *Server) changeDate(t target, do edit) error {
	i, _ := t.m.date(t.m.now, t.day)
	if err := do(i.state); err != nil { // a copy: only to see whether it can be done
		return err
	}
	is, u := t.m.now.withOwn(), t.m.calendar.user
	x := is.exceptions[t.day]
	u.version++
	is.exceptions[t.day] = exception{key: u.version, modifiedAt: time.Now(), edits: append(slices.Clip(x.edits), do)}
	s.commit(t, is, updated)
	return nil
}

// DeleteMeeting deletes what id names for good: a single meeting, a whole series, or one date.
func (s *Server) DeleteMeeting(user, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findMeeting(user, id)
	if err != nil {
		return err
	}
	s.delete(t)
	return nil
}

// DeleteOccurrence deletes one date of a series for good.
func (s *Server) DeleteOccurrence(user, master string, originalStart time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findDate(user, master, originalStart)
	if err != nil {
		return err
	}
	s.delete(t)
	return nil
}

func (s *Server) delete(t target) {
	if !t.one {
		s.commit(t, nil, deleted)
		return
	}
	is := t.m.now.withOwn()
	delete(is.exceptions, t.day)
	is.gone[t.day] = true
	s.commit(t, is, updated)
}

// commit makes is what the meeting is from now on (nil: deleted) and tells the subscribers. mu is held.
func (s *Server) commit(t target, is *state, kind string) {
	m, u, now := t.m, t.m.calendar.user, time.Now()
	habit := s.habit()
	last := m.now
	keys := [2]uint64{u.version + 1, u.version + 1} // one that Graph saves in between, the last
	if habit.saves > 1 {
		keys[1]++
	}
	u.version = keys[1]
	if is != nil {
		is.key, is.modifiedAt = u.version, now
		last = is
	}
	m.now = is
	m.calendar.log = append(m.calendar.log, meetingEntry{m: m, at: now.UnixNano(), is: is})
	m.places = append(m.places, len(m.calendar.log))
	c := MeetingChange{
		At: now.UTC(), User: u.id, Item: m.whole(last).id(true), Kind: kind, ChangeKey: u.bareKey(u.version), Calendar: m.calendar.id,
	}
	one := instance{m: m, state: last, kind: typeException, day: t.day}
	if t.one {
		c.Occurrence = one.id(true)
	}
	s.meetingLedger = append(s.meetingLedger, c)
	s.announceMeeting(m.whole(last), kind, keys, habit)
	if x, own := last.exceptions[t.day]; t.one && own && len(x.edits) > 1 { // it had an item of its own before
		s.announceMeeting(one, updated, [2]uint64{x.key, x.key}, once)
	}
}

// habit is how Graph tells of one change of a calendar item: how often it saves the item for it, and which of the saves
// each notification is about.
type habit struct {
	saves   int
	notices []int // index of the change key
}

var (
	once   = habit{1, []int{1}}
	habits = []habit{{1, []int{1, 1}}, {2, []int{0, 1}}, {2, []int{0, 1, 1}}, {2, []int{0, 0, 1, 1}}}
)

// habit chooses one; two to four notifications for a change are usual. mu is held.
func (s *Server) habit() habit {
	if s.faults.OneNotice {
		return once
	}
	return habits[s.rng.IntN(len(habits))]
}
