package emulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Meeting is a meeting or an appointment to be put into a calendar. What is left empty is made up or stays away.
type Meeting struct {
	Calendar    string      `json:"calendar"` // id or name; empty: the default calendar
	Subject     string      `json:"subject"`
	Body        string      `json:"body"`
	HTML        bool        `json:"html"` // what Body is
	Location    string      `json:"location"`
	Start       time.Time   `json:"start"`    // of an all-day one only the dates (in UTC) count
	End         time.Time   `json:"end"`      // default half an hour after Start, or the next day
	TimeZone    string      `json:"timeZone"` // Windows or IANA name, or tzone://Microsoft/Custom; a series recurs in it; default UTC
	AllDay      bool        `json:"allDay"`
	Organizer   Address     `json:"organizer"` // empty: the mailbox itself; else it is an invitation
	Attendees   []Attendee  `json:"attendees"`
	Recurrence  *Recurrence `json:"recurrence"` // nil: single
	ShowAs      string      `json:"showAs"`     // free, tentative, busy, oof, workingElsewhere, unknown; default busy
	Sensitivity string      `json:"sensitivity"`
	Importance  string      `json:"importance"`
	Categories  []string    `json:"categories"`
	Online      bool        `json:"online"`
	JoinURL     string      `json:"joinUrl"`
	ICalUID     string      `json:"iCalUId"`

	loc *time.Location // of a zone that has no name; nil: TimeZone tells
}

// Attendee is somebody who was invited.
type Attendee struct {
	Address
	Type     string `json:"type"`     // required, optional, resource; default required
	Response string `json:"response"` // none, tentativelyAccepted, accepted, declined, notResponded; default none
}

// Recurrence is Graph's pattern and range. Days that the pattern needs and that are not told are those of the start.
type Recurrence struct {
	Type           string    `json:"type"`     // daily, weekly, absoluteMonthly, relativeMonthly, absoluteYearly, relativeYearly
	Interval       int       `json:"interval"` // default 1
	DaysOfWeek     []string  `json:"daysOfWeek"`
	DayOfMonth     int       `json:"dayOfMonth"` // a month that is too short has it on its last day
	Month          int       `json:"month"`
	Index          string    `json:"index"`          // first (default), second, third, fourth, last
	FirstDayOfWeek string    `json:"firstDayOfWeek"` // default sunday
	RangeType      string    `json:"rangeType"`      // noEnd (default), endDate, numbered
	EndDate        time.Time `json:"endDate"`        // its date (in UTC) is the last that is possible
	Count          int       `json:"count"`
}

// MeetingPatch changes a meeting; nil fields stay. A new Start without an End moves the meeting as long as it is.
type MeetingPatch struct {
	Subject    *string     `json:"subject"`
	Body       *string     `json:"body"`
	Location   *string     `json:"location"`
	ShowAs     *string     `json:"showAs"`
	Importance *string     `json:"importance"`
	Categories *[]string   `json:"categories"`
	Start      *time.Time  `json:"start"`
	End        *time.Time  `json:"end"`
	AllDay     *bool       `json:"allDay"`
	Attendees  *[]Attendee `json:"attendees"`
	Recurrence *Recurrence `json:"recurrence"`
}

// MeetingInfo is a calendar item as an oracle wants it.
type MeetingInfo struct {
	ID             string     `json:"id"` // immutable
	ChangeKey      string     `json:"changeKey"`
	Calendar       string     `json:"calendar"` // id
	Type           string     `json:"type"`     // singleInstance, seriesMaster, occurrence, exception
	SeriesMasterID string     `json:"seriesMasterId,omitempty"`
	OriginalStart  time.Time  `json:"originalStart,omitzero"` // of occurrences and exceptions
	ICalUID        string     `json:"iCalUId"`
	Subject        string     `json:"subject"`
	Location       string     `json:"location"`
	Start          time.Time  `json:"start"`
	End            time.Time  `json:"end"`
	TimeZone       string     `json:"timeZone"`
	AllDay         bool       `json:"allDay"`
	Cancelled      bool       `json:"cancelled"`
	IsOrganizer    bool       `json:"isOrganizer"`
	Organizer      Address    `json:"organizer"`
	Response       string     `json:"response"` // the mailbox's own
	Attendees      []Attendee `json:"attendees"`
	ShowAs         string     `json:"showAs"`
	Sensitivity    string     `json:"sensitivity"`
	Importance     string     `json:"importance"`
	Categories     []string   `json:"categories"`
	Recurring      bool       `json:"recurring"`
}

// Types of calendar items.
const (
	typeSingle     = "singleInstance"
	typeMaster     = "seriesMaster"
	typeOccurrence = "occurrence"
	typeException  = "exception"
)

var (
	showAsNames   = []string{"busy", "free", "tentative", "oof", "workingElsewhere", "unknown"}
	sensitivities = []string{"normal", "personal", "private", "confidential"}
	attendeeTypes = []string{"required", "optional", "resource"}
	responses     = []string{"none", "tentativelyAccepted", "accepted", "declined", "notResponded"}
)

// oneOf spells v as list does; empty is the first.
func oneOf(what string, list []string, v string) (string, error) {
	i, ok := indexOf(list, v)
	if !ok {
		return "", fmt.Errorf("%s %q is not one of %v", what, v, list)
	}
	return list[i], nil
}

var (
	errNoCalendar = errors.New("no such calendar")
	errNoMeeting  = errors.New("no such meeting")
)

// calendar is guarded by Server.mu.
type calendar struct {
	user      *user
	id, name  string
	number    int
	isDefault bool

	// log has an entry for everything that happened in the calendar; a place in it is an index plus one. It is what
	// delta rounds walk, and since a meeting's last entry is known they tell each meeting once.
	log []meetingEntry
}

// meetingEntry tells what became of a meeting.
type meetingEntry struct {
	m  *meeting
	at int64  // unix nanoseconds
	is *state // nil: deleted
}

// meeting is a single meeting or a series. Guarded by Server.mu.
type meeting struct {
	calendar  *calendar
	n         int // number in the mailbox
	createdAt time.Time
	now       *state // nil once deleted
	places    []int  // of its entries in the calendar's log
}

// addCalendar makes a calendar. Its id needs no chance, so that mailboxes without meetings are what they always were.
func (u *user) addCalendar(name string) *calendar {
	c := &calendar{user: u, name: name, number: len(u.calendars), isDefault: len(u.calendars) == 0}
	b := append([]byte(nil), folderHead...)
	b = append(b, u.id...)
	b = append(b, 0, 0x2e, 0, 0, 0, 0, 0)
	b = append(b, u.replica[:]...)
	b = binary.BigEndian.AppendUint64(b, scatter(c.number, u.tag^calendarTag))
	c.id = idEncoding.EncodeToString(b)
	u.calendars = append(u.calendars, c)
	return c
}

// calendar looks a calendar up by id or name; empty is the default one.
func (u *user) calendar(idOrName string) (*calendar, error) {
	if idOrName == "" {
		return u.calendars[0], nil
	}
	for _, c := range u.calendars {
		if c.id == idOrName || strings.EqualFold(c.name, idOrName) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", errNoCalendar, idOrName)
}

// AddCalendar makes another calendar in a mailbox.
func (s *Server) AddCalendar(user, name string) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", errors.New("a calendar needs a name")
	}
	if _, err := u.calendar(name); err == nil {
		return "", fmt.Errorf("a calendar with the specified name already exists: %q", name)
	}
	return u.addCalendar(clean(name)).id, nil
}

// DefaultCalendarID returns the id of a mailbox's default calendar; empty when there is no such mailbox.
func (s *Server) DefaultCalendarID(user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return ""
	}
	return u.calendars[0].id
}

// SetTimeZone changes the time zone in a mailbox's settings. Nothing in its calendars changes.
func (s *Server) SetTimeZone(user, zone string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return err
	}
	if _, err := location(zone); err != nil {
		return err
	}
	u.zone = zone
	return nil
}

// Meetings lists the single meetings and series of a mailbox, in the order they came.
func (s *Server) Meetings(user string) []MeetingInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return nil
	}
	var out []MeetingInfo
	for _, m := range u.meetings {
		if m.now != nil {
			out = append(out, m.whole(m.now).info())
		}
	}
	return out
}

// Instances lists what takes place in a calendar (id or name; empty: the default one) between two times, by start:
// single meetings, occurrences and exceptions.
func (s *Server) Instances(user, calendar string, from, to time.Time) []MeetingInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return nil
	}
	c, err := u.calendar(calendar)
	if err != nil {
		return nil
	}
	var out []MeetingInfo
	for _, i := range c.instances(view{From: from, Until: to}) {
		out = append(out, i.info())
	}
	return out
}

// instances lists what takes place in a window, by start.
func (c *calendar) instances(v view) (out []instance) {
	for _, m := range c.user.meetings {
		if m.calendar == c && m.now != nil {
			out = append(out, m.in(m.now, v)...)
		}
	}
	slices.SortStableFunc(out, func(a, b instance) int { return a.start.Compare(b.start) })
	return out
}

func (i instance) info() MeetingInfo {
	out := MeetingInfo{
		ID: i.id(true), ChangeKey: i.changeKey(), Calendar: i.m.calendar.id, Type: i.kind, ICalUID: i.iCalUID(),
		Subject: i.subject, Location: i.location, Start: i.start.UTC(), End: i.end.UTC(), TimeZone: i.zone,
		AllDay: i.allDay, Cancelled: i.cancelled, IsOrganizer: i.own, Organizer: i.organizer, Response: i.response,
		ShowAs: i.showAs, Sensitivity: i.sensitivity, Importance: i.importance, Categories: i.categories,
		Recurring: i.recurrence != nil,
	}
	for _, a := range i.attendees {
		out.Attendees = append(out.Attendees, a.Attendee)
	}
	if i.isDate() {
		out.SeriesMasterID, out.OriginalStart = i.m.whole(i.state).id(true), i.original.UTC()
	}
	return out
}
