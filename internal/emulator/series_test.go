package emulator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// at reads a time of a test.
func at(text string) time.Time {
	for _, layout := range []string{"2006-01-02T15:04Z", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	panic(text)
}

// starts lists what an oracle shows in a window.
func (w *world) starts(from, until string) (out []string) {
	for _, i := range w.Instances(mailbox, "", at(from), at(until)) {
		out = append(out, i.Start.Format("2006-01-02T15:04Z"))
	}
	return out
}

func (w *world) meet(m Meeting) string {
	w.t.Helper()
	id, err := w.AddMeeting(mailbox, m)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func TestSeriesRecurByTheClockOfTheirZone(t *testing.T) {
	for _, c := range []struct {
		name        string
		zone, start string
		allDay      bool
		recurrence  Recurrence
		want        []string // in the first year and a half
	}{
		{
			"weekly over the beginning of summer time", "W. Europe Standard Time", "2000-03-16T09:00Z", false,
			Recurrence{Type: "weekly", RangeType: "numbered", Count: 3},
			[]string{"2000-03-16T09:00Z", "2000-03-23T09:00Z", "2000-03-30T08:00Z"},
		},
		{
			"daily over its end, by an IANA name", "Europe/Berlin", "2000-10-28T08:00Z", false,
			Recurrence{Type: "daily", RangeType: "endDate", EndDate: at("2000-10-30")},
			[]string{"2000-10-28T08:00Z", "2000-10-29T09:00Z", "2000-10-30T09:00Z"},
		},
		{
			"a local date that is another one in UTC", "Pacific Standard Time", "2000-01-04T02:00Z", false, // Monday evening
			Recurrence{Type: "weekly", DaysOfWeek: []string{"Monday"}, RangeType: "numbered", Count: 2},
			[]string{"2000-01-04T02:00Z", "2000-01-11T02:00Z"},
		},
		{
			"every second week on two days, the week beginning on Sunday", "", "2000-01-03T10:00Z", false,
			Recurrence{Type: "weekly", Interval: 2, DaysOfWeek: []string{"monday", "sunday"}, RangeType: "numbered", Count: 4},
			[]string{"2000-01-03T10:00Z", "2000-01-16T10:00Z", "2000-01-17T10:00Z", "2000-01-30T10:00Z"},
		},
		{
			"the same with the week beginning on Monday", "", "2000-01-03T10:00Z", false,
			Recurrence{Type: "weekly", Interval: 2, DaysOfWeek: []string{"monday", "sunday"}, FirstDayOfWeek: "monday", RangeType: "numbered", Count: 4},
			[]string{"2000-01-03T10:00Z", "2000-01-09T10:00Z", "2000-01-17T10:00Z", "2000-01-23T10:00Z"},
		},
		{
			"the 31st is the last day of a shorter month", "", "2000-01-31T10:00Z", false,
			Recurrence{Type: "absoluteMonthly", RangeType: "numbered", Count: 3},
			[]string{"2000-01-31T10:00Z", "2000-02-29T10:00Z", "2000-03-31T10:00Z"},
		},
		{
			"the last weekday of a month", "", "2000-01-31T10:00Z", false,
			Recurrence{Type: "relativeMonthly", DaysOfWeek: weekdays[1:6], Index: "last", RangeType: "numbered", Count: 3},
			[]string{"2000-01-31T10:00Z", "2000-02-29T10:00Z", "2000-03-31T10:00Z"},
		},
		{
			"the second Tuesday, begun on another day, starts on the first such", "", "2000-01-01T10:00Z", false,
			Recurrence{Type: "relativeMonthly", DaysOfWeek: []string{"tuesday"}, Index: "second", RangeType: "numbered", Count: 2},
			[]string{"2000-01-11T10:00Z", "2000-02-08T10:00Z"},
		},
		{
			"a birthday on a leap day", "", "2000-02-29", true, Recurrence{Type: "absoluteYearly"},
			[]string{"2000-02-29T00:00Z", "2001-02-28T00:00Z"},
		},
		{
			"the last Monday of May", "", "2000-05-29T10:00Z", false, Recurrence{Type: "relativeYearly", Index: "last"},
			[]string{"2000-05-29T10:00Z", "2001-05-28T10:00Z"},
		},
		{
			"a zone without a name", customZone, "2000-01-01T10:00Z", false, Recurrence{Type: "daily", RangeType: "numbered", Count: 2},
			[]string{"2000-01-01T10:00Z", "2000-01-02T10:00Z"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, w *world) {
				w.meet(Meeting{Start: at(c.start), TimeZone: c.zone, AllDay: c.allDay, Recurrence: &c.recurrence})
				if got := w.starts("2000-01-01", "2001-06-30"); !slices.Equal(got, c.want) {
					t.Errorf("takes place at %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestMeetingsThatCannotBeAreRefused(t *testing.T) {
	ok := at("2000-01-03T10:00Z")
	weekly := func(r Recurrence) *Recurrence { r.Type = "weekly"; return &r }
	for _, c := range []struct {
		name string
		m    Meeting
		want string
	}{
		{"no start", Meeting{}, "needs a start"},
		{"an end before the start", Meeting{Start: ok, End: ok.Add(-time.Second)}, "before the start"},
		{"before calendars begin", Meeting{Start: time.Unix(-1e11, 0)}, "1601"},
		{"after calendars end", Meeting{Start: time.Date(4500, 12, 31, 23, 59, 0, 0, time.UTC)}, "4500"},
		{"an unknown zone", Meeting{Start: ok, TimeZone: "Middle Earth Standard Time"}, "neither"},
		{"the machine's own zone", Meeting{Start: ok, TimeZone: "Local"}, "neither"},
		{"another calendar", Meeting{Start: ok, Calendar: "Nobody's"}, "no such calendar"},
		{"a wrong showAs", Meeting{Start: ok, ShowAs: "away"}, "showAs"},
		{"a wrong sensitivity", Meeting{Start: ok, Sensitivity: "secret"}, "sensitivity"},
		{"a wrong importance", Meeting{Start: ok, Importance: "urgent"}, "importance"},
		{"a wrong attendee type", Meeting{Start: ok, Attendees: []Attendee{{Type: "chair"}}}, "attendee type"},
		{"a wrong response", Meeting{Start: ok, Attendees: []Attendee{{Response: "maybe"}}}, "response"},
		{"no pattern", Meeting{Start: ok, Recurrence: &Recurrence{}}, "needs a type"},
		{"a wrong pattern", Meeting{Start: ok, Recurrence: &Recurrence{Type: "hourly"}}, "recurrence type"},
		{"a wrong range", Meeting{Start: ok, Recurrence: weekly(Recurrence{RangeType: "forever"})}, "range type"},
		{"a wrong index", Meeting{Start: ok, Recurrence: weekly(Recurrence{Index: "fifth"})}, "index"},
		{"a wrong day", Meeting{Start: ok, Recurrence: weekly(Recurrence{DaysOfWeek: []string{"mo"}})}, "day of week"},
		{"an interval below one", Meeting{Start: ok, Recurrence: weekly(Recurrence{Interval: -1})}, "interval"},
		{"no count", Meeting{Start: ok, Recurrence: weekly(Recurrence{RangeType: "numbered"})}, "count"},
		{"no end date", Meeting{Start: ok, Recurrence: weekly(Recurrence{RangeType: "endDate"})}, "endDate"},
		{"an end before the first", Meeting{Start: ok, Recurrence: weekly(Recurrence{RangeType: "endDate", EndDate: at("2000-01-02")})}, "never"},
		{"a 32nd", Meeting{Start: ok, Recurrence: &Recurrence{Type: "absoluteMonthly", DayOfMonth: 32}}, "dayOfMonth"},
		{"a 13th month", Meeting{Start: ok, Recurrence: &Recurrence{Type: "absoluteYearly", Month: 13}}, "month"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(Options{})
			s.AddUser(mailbox)
			if id, err := s.AddMeeting(mailbox, c.m); err == nil || !strings.Contains(err.Error(), c.want) || id != "" {
				t.Errorf("AddMeeting() = %q, %v, want an error with %q", id, err, c.want)
			}
			if n := len(s.Meetings(mailbox)); n != 0 || len(s.MeetingLedger()) != 0 {
				t.Errorf("%d meetings after that", n)
			}
		})
	}
}

// weekly is a series of four on Mondays, 10:00 in Berlin, where it is winter.
func (w *world) weekly() string {
	w.t.Helper()
	return w.meet(Meeting{
		Subject: "weekly", Start: at("2000-01-03T09:00Z"), End: at("2000-01-03T10:00Z"), TimeZone: "W. Europe Standard Time",
		Attendees: []Attendee{{Address: Address{"Ada", "ada@contoso.com"}}}, Recurrence: &Recurrence{Type: "weekly", RangeType: "numbered", Count: 4},
	})
}

// shown describes what takes place in January 2000.
func (w *world) shown() (out []string) {
	for _, i := range w.Instances(mailbox, "", at("2000-01-01"), at("2000-02-01")) {
		out = append(out, fmt.Sprint(i.Start.Format("02T15:04 "), i.Type, " ", i.Subject))
	}
	return out
}

func TestExceptionsKeepWhatIsTheirOwn(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.weekly()
		second, third := at("2000-01-10T09:00Z"), at("2000-01-17T09:00Z")
		before := w.Instances(mailbox, "", at("2000-01-10"), at("2000-01-11"))[0]
		key := func() string { return w.Meetings(mailbox)[0].ChangeKey }
		was := key()
		moved, own, series, place := at("2000-01-11T14:00Z"), "own", "renamed", "Room 2"
		w.do(w.UpdateOccurrence(mailbox, id, second, MeetingPatch{Start: &moved}))
		if key() == was {
			t.Error("a changed date left the change key of the series as it was")
		}
		w.do(w.UpdateOccurrence(mailbox, id, third, MeetingPatch{Subject: &own}))
		w.do(w.DeleteOccurrence(mailbox, id, at("2000-01-24T09:00Z")))
		want := []string{"03T09:00 occurrence weekly", "11T14:00 exception weekly", "17T09:00 exception own"}
		if got := w.shown(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		x := w.Instances(mailbox, "", at("2000-01-11"), at("2000-01-12"))[0]
		if x.ID != before.ID || x.ChangeKey == key() || !x.OriginalStart.Equal(second) || x.SeriesMasterID != id || !x.End.Equal(moved.Add(time.Hour)) {
			t.Errorf("the exception is %+v, it was %+v", x, before)
		}
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{Subject: &series, Location: &place}))
		want = []string{"03T09:00 occurrence renamed", "11T14:00 exception renamed", "17T09:00 exception own"}
		if got := w.shown(); !slices.Equal(got, want) {
			t.Errorf("after the series changed: %q, want %q", got, want)
		}
		if again := w.Instances(mailbox, "", at("2000-01-11"), at("2000-01-12"))[0]; again.Location != place || again.ChangeKey == x.ChangeKey {
			t.Errorf("the exception does not follow in the rest: %+v", again)
		}
		w.do(w.CancelOccurrence(mailbox, id, at("2000-01-03T09:00Z")))
		if first := w.Instances(mailbox, "", at("2000-01-03"), at("2000-01-04"))[0]; !first.Cancelled || first.Type != "exception" {
			t.Errorf("after one date was cancelled: %+v", first)
		}
		if w.Meetings(mailbox)[0].Cancelled {
			t.Error("the series was cancelled with one date")
		}
		later := at("2000-01-04T09:00Z")
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{Start: &later}))
		want = []string{"04T09:00 occurrence renamed", "11T09:00 occurrence renamed", "18T09:00 occurrence renamed", "25T09:00 occurrence renamed"}
		if got := w.shown(); !slices.Equal(got, want) {
			t.Errorf("after the series moved: %q, want %q", got, want)
		}
		wantError(t, "an id from before", w.get("/users/"+mailbox+"/events/"+x.ID), 404, "ErrorItemNotFound")
	})
}

func TestChangesOfWhatIsNotThereAreRefused(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id, single := w.weekly(), w.meet(Meeting{Start: at("2000-01-05T09:00Z")})
		first := w.Instances(mailbox, "", at("2000-01-03"), at("2000-01-04"))[0]
		monday, tuesday, no := at("2000-01-03T09:00Z"), at("2000-01-04T09:00Z"), "no"
		early := monday.Add(-time.Hour)
		n := len(w.MeetingLedger())
		for name, err := range map[string]error{
			"no such user":                   w.DeleteMeeting("nobody@x.y", id),
			"no such meeting":                w.CancelMeeting(mailbox, w.deliver("a message")),
			"not an id":                      w.UpdateMeeting(mailbox, "x", MeetingPatch{}),
			"a date it has not":              w.UpdateOccurrence(mailbox, id, tuesday, MeetingPatch{}),
			"the date at another time":       w.DeleteOccurrence(mailbox, id, monday.Add(time.Hour)),
			"a date of a single meeting":     w.CancelOccurrence(mailbox, single, at("2000-01-05T09:00Z")),
			"a date of a date":               w.DeleteOccurrence(mailbox, first.ID, monday),
			"the organizer's answer":         w.Respond(mailbox, id, "", "accepted"),
			"a stranger's answer":            w.Respond(mailbox, id, "bob@contoso.com", "accepted"),
			"no answer":                      w.Respond(mailbox, id, "ada@contoso.com", "perhaps"),
			"a stranger's answer for a date": w.RespondOccurrence(mailbox, id, monday, "bob@contoso.com", "accepted"),
			"a wrong showAs":                 w.UpdateMeeting(mailbox, single, MeetingPatch{ShowAs: &no}),
			"a wrong importance":             w.UpdateMeeting(mailbox, single, MeetingPatch{Importance: &no}),
			"an end before the start":        w.UpdateMeeting(mailbox, first.ID, MeetingPatch{End: &early}),
			"a wrong attendee":               w.UpdateMeeting(mailbox, single, MeetingPatch{Attendees: &[]Attendee{{Type: no}}}),
			"a wrong recurrence":             w.UpdateMeeting(mailbox, single, MeetingPatch{Recurrence: &Recurrence{Type: no}}),
			"a recurring date":               w.UpdateMeeting(mailbox, first.ID, MeetingPatch{Recurrence: &Recurrence{Type: "daily"}}),
			"an unknown zone":                w.SetTimeZone(mailbox, no),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if len(w.MeetingLedger()) != n || w.shown()[0] != "03T09:00 occurrence weekly" {
			t.Errorf("something changed all the same: %v", w.MeetingLedger()[n:])
		}
	})
}

func TestAnswersAndCancelling(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series := w.weekly()
		invited := w.meet(Meeting{Start: at("2000-01-05T09:00Z"), Organizer: Address{"Bob", "bob@contoso.com"}})
		info := func(id string) MeetingInfo {
			list := w.Meetings(mailbox)
			return list[slices.IndexFunc(list, func(i MeetingInfo) bool { return i.ID == id })]
		}
		if i := info(invited); i.IsOrganizer || i.Response != "notResponded" {
			t.Errorf("an invitation: %+v", i)
		}
		w.do(w.Respond(mailbox, invited, strings.ToUpper(mailbox), "accepted"))
		if i := info(invited); i.Response != "accepted" {
			t.Errorf("after the answer: %+v", i)
		}
		if i := info(series); !i.IsOrganizer || i.Response != "organizer" || i.Attendees[0].Response != "none" {
			t.Errorf("a meeting of one's own: %+v", i)
		}
		w.do(w.RespondOccurrence(mailbox, series, at("2000-01-10T09:00Z"), "ADA@contoso.com", "declined"))
		w.do(w.Respond(mailbox, series, "ada@contoso.com", "accepted"))
		var got []string
		for _, i := range w.Instances(mailbox, "", at("2000-01-01"), at("2000-02-01")) {
			if i.SeriesMasterID != "" {
				got = append(got, i.Attendees[0].Response)
			}
		}
		if want := []string{"accepted", "declined", "accepted", "accepted"}; !slices.Equal(got, want) {
			t.Errorf("Ada's answers %q, want %q", got, want)
		}
		w.do(w.CancelMeeting(mailbox, invited))
		if i := info(invited); !i.Cancelled {
			t.Errorf("after cancelling: %+v", i)
		}
		w.do(w.DeleteMeeting(mailbox, invited))
		w.do(w.DeleteMeeting(mailbox, series))
		if list := w.Meetings(mailbox); len(list) != 0 || len(w.shown()) != 0 {
			t.Errorf("after deleting: %+v", list)
		}
		wantError(t, "deleted", w.get("/users/"+mailbox+"/events/"+invited), 404, "ErrorItemNotFound")
	})
}

func TestAMeetingBecomesAllDayAndBack(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		// 01:00 of the 6th in Berlin is the evening before in UTC, in summer.
		id := w.meet(Meeting{Start: at("2000-07-05T23:00Z"), End: at("2000-07-06T00:00Z"), TimeZone: "Europe/Berlin"})
		series := w.weekly()
		yes, no := true, false
		span := func(id string) string {
			for _, m := range w.Meetings(mailbox) {
				if m.ID == id {
					return m.Start.Format("02T15:04") + " to " + m.End.Format("02T15:04")
				}
			}
			return ""
		}
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{AllDay: &yes}))
		w.do(w.UpdateMeeting(mailbox, series, MeetingPatch{AllDay: &yes}))
		if got := span(id); got != "06T00:00 to 07T00:00" {
			t.Errorf("all day: %s", got)
		}
		if got := w.shown(); got[0] != "03T00:00 occurrence weekly" || len(got) != 4 {
			t.Errorf("an all-day series: %q", got)
		}
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{AllDay: &no}))
		if got := span(id); got != "05T22:00 to 06T22:00" {
			t.Errorf("back again: %s, want from midnight to midnight in Berlin", got)
		}
		daily := Recurrence{Type: "daily", RangeType: "numbered", Count: 2}
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{Recurrence: &daily}))
		if got := w.starts("2000-07-01", "2000-08-01"); !slices.Equal(got, []string{"2000-07-05T22:00Z", "2000-07-06T22:00Z"}) {
			t.Errorf("as a series: %q", got)
		}
	})
}

func TestManyDatesAreListedInOrder(t *testing.T) {
	s := New(Options{})
	s.AddUser(mailbox)
	for hour := range 5 {
		m := Meeting{Start: at("2000-01-01").Add(time.Duration(hour) * time.Hour), Recurrence: &Recurrence{Type: "daily"}}
		if _, err := s.AddMeeting(mailbox, m); err != nil {
			t.Fatal(err)
		}
	}
	list := s.Instances(mailbox, "", at("2001-01-01"), at("2003-09-28"))
	if len(list) != 5000 || !slices.IsSortedFunc(list, func(a, b MeetingInfo) int { return a.Start.Compare(b.Start) }) {
		t.Errorf("%d dates, want 5000 in order", len(list))
	}
}
