package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// meetings is a file with a watch over calendars alone; tests replace its section, which begins in line 10.
const meetings = `connections:
  contoso:
    tenant: 84bd8158-6d4d-4958-8b9f-9d6445542f95
    client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111
    client_secret_file: /run/secret
watches:
  rooms:
    connection: contoso
    mailboxes: [room@contoso.com]
    calendar: {}
`

func withCalendar(section string) []byte {
	return []byte(strings.Replace(meetings, "calendar: {}", "calendar:"+section, 1))
}

func TestCalendar(t *testing.T) {
	quiet := slices.DeleteFunc(slices.Clone(event.CalendarEvents), func(s string) bool { return s == event.Starting })
	const m, h = time.Minute, time.Hour
	tests := []struct {
		name, section string
		want          Calendar
	}{
		{"defaults", " {}", Calendar{[]FolderRef{{"default", false}}, 168 * h, 4320 * h, quiet, nil, ""}},
		{"everything", `
      calendars: ["!Holidays, and so on/", all, "!Birthdays"]
      window: {past: 0, future: 1.5d}
      events: [starting, created]
      starting: [5m, 0s, 1d, 90s]
      time_zone: W. Europe Standard Time
`, Calendar{[]FolderRef{{"all", false}, {"Holidays, and so on/", true}, {"Birthdays", true}}, 0, 36 * h, []string{"starting", "created"}, []time.Duration{24 * h, 5 * m, 90 * time.Second, 0}, "W. Europe Standard Time"}},
		{"a window that is given in part", " {window: {future: 90m}}", Calendar{[]FolderRef{{"default", false}}, 168 * h, 90 * m, quiet, nil, ""}},
		{"the longest window", " {window: {past: 366d, future: 1280d}}", Calendar{[]FolderRef{{"default", false}}, 8784 * h, 30720 * h, quiet, nil, ""}},
		{"starting without lead times", " {events: [starting]}", Calendar{[]FolderRef{{"default", false}}, 168 * h, 4320 * h, []string{"starting"}, []time.Duration{15 * m}, ""}},
		{"lead times without events", " {starting: [1h]}", Calendar{[]FolderRef{{"default", false}}, 168 * h, 4320 * h, event.CalendarEvents, []time.Duration{h}, ""}},
		{"an id and a number for a name", " {calendars: [AAMkAGI2TGuLAAA=, 2026]}", Calendar{[]FolderRef{{"AAMkAGI2TGuLAAA=", false}, {"2026", false}}, 168 * h, 4320 * h, quiet, nil, ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("f", withCalendar(tt.section))
			if err != nil || len(f.Warnings) > 0 {
				t.Fatal(f, err)
			}
			w := f.Watches[0]
			if !reflect.DeepEqual(w.Calendar, tt.want) || !reflect.DeepEqual(w.Mail, Mail{}) {
				t.Errorf("calendar %+v, mail %+v, want %+v and none", w.Calendar, w.Mail, tt.want)
			}
		})
	}
	f, err := Parse("f", []byte(good))
	if err != nil || !reflect.DeepEqual(f.Watches[0].Calendar, Calendar{}) {
		t.Errorf("mail alone: %+v, %v", f, err)
	}
}

func TestCalendarMistakes(t *testing.T) {
	const (
		names  = "created, invited, updated, rescheduled, responded, cancelled, deleted, starting"
		past   = "write a duration from 0d to 366d, such as 7d"
		future = "write a duration from 1h to 1280d, such as 180d"
		lead   = "write how long before the start, in whole seconds from 0s to 30d, such as 15m"
		zone   = "write its IANA or its Windows name, such as Europe/Berlin or W. Europe Standard Time"
		refs   = "write default, a calendar's name, its id, or all"
	)
	tests := []struct{ name, section, want string }{
		{"text", " default", `10: calendar: want fields, got text`},
		{"a list", " [default]", `10: calendar: want fields, got a list`},
		{"nothing", "", `10: calendar: want fields, got nothing`},
		{"unknown field", "\n      calendars: [default]\n      windw: {}", `12: unknown field "windw"; did you mean "window"?`},
		{"unknown field, nothing near", " {xxxxxxxxxxx: 1}", `10: unknown field "xxxxxxxxxxx"; a calendar has calendars, events, starting, time_zone, window`},
		{"field twice", " {events: [created],\n      events: [deleted]}", `11: "events" stands in line 10 already: keep one`},

		{"one calendar as text", " {calendars: default}", `10: calendars: want a list, got text`},
		{"no calendars", " {calendars: []}", `10: calendars: nothing is left to watch: list at least one calendar, or all`},
		{"nothing left", ` {calendars: ["!Holidays"]}`, `10: calendars: nothing is left to watch: list at least one calendar, or all`},
		{"calendar twice", " {calendars: [Team, default, team]}", `10: calendar "team" stands twice: keep one`},
		{"calendar in and out", ` {calendars: [all, Team, "!Team"]}`, `10: calendar "Team" stands twice: keep one`},
		{"calendar names", ` {calendars: ["", "  ", "!", "!!a", [a], {a: b}]}`, `10: calendar "" is empty: ` + refs + `
10: calendar "  " is empty: ` + refs + `
10: calendar "!" is empty: ` + refs + `
10: calendar "!!a" begins with more than one !: ` + refs + `
10: calendars: want text, got a list
10: calendars: want text, got fields`},

		{"window as text", " {window: 7d}", `10: window: want fields, got text`},
		{"unknown end of the window", " {window: {pst: 7d}}", `10: unknown field "pst"; did you mean "past"?`},
		{"ends of other kinds", " {window: {past: [7d], future: {}}}", "10: past: want text, got a list\n10: future: want text, got fields"},
		{"ends that are no durations", " {window: {past: last week, future: 180}}", `10: past "last week": ` + past + "\n" + `10: future "180": ` + future},
		{"a past that is none", "\n      window:\n        past: -1d\n        future: 1d", `12: past "-1d": ` + past},
		{"a past too long", " {window: {past: 367d}}", `10: past "367d": ` + past},
		{"a future too short", " {window: {future: 59m}, starting: [1d]}", `10: future "59m": ` + future},
		{"a future too long", " {window: {future: 1281d}}", `10: future "1281d": ` + future},
		{"a future beyond all numbers", " {window: {future: 1e300d}}", `10: future "1e300d": ` + future},

		{"events as text", " {events: created}", `10: events: want a list, got text`},
		{"no events", " {events: []}", `10: events: list at least one of ` + names},
		{"an event of mail", " {events: [received]}", `10: unknown event "received"; there are ` + names},
		{"event twice", " {events: [created, created]}", `10: event "created" stands twice: keep one`},
		{"event without a name", ` {events: [""]}`, `10: unknown event ""; there are ` + names},

		{"one lead time as text", " {starting: 15m}", `10: starting: want a list, got text`},
		{"no lead times", " {starting: []}", `10: starting: list at least one lead time such as 15m, or leave it out`},
		{"lead times", " {starting: [soon, 15, -1m, 31d, 1500ms, '', [1m]]}", `10: starting "soon": ` + lead + `
10: starting "15": ` + lead + `
10: starting "-1m": ` + lead + `
10: starting "31d": ` + lead + `
10: starting "1500ms": ` + lead + `
10: starting "": ` + lead + `
10: starting: want text, got a list`},
		{"lead time twice", " {starting: [15m, 900s]}", `10: starting "900s": this lead time stands twice: keep one`},
		{"too many lead times", " {starting: [1m, 2m, 3m, 4m, 5m, 6m, 7m, 8m, 9m]}", `10: starting: 9 lead times: at most 8`},
		{"lead times that nobody hears of", "\n      events: [created]\n      starting: [15m]", `12: starting: there are lead times, and events leaves starting out: add it there, or take the lead times out`},
		{"a lead time out of the window", "\n      window: {future: 1d}\n      starting:\n        - 15m\n        - 25h", `13: starting: the longest lead time reaches out of the window: give window a longer future, or take that lead time out`},

		{"a time zone", " {time_zone: Europe/Berln}", `10: time_zone: "Europe/Berln" is no time zone: ` + zone},
		{"no time zone", ` {time_zone: ""}`, `10: time_zone: "" is no time zone: ` + zone},
		{"the machine's time zone", " {time_zone: Local}", `10: time_zone: "Local" is no time zone: ` + zone},
		{"a time zone that leads away", " {time_zone: ../../etc/passwd}", `10: time_zone: "../../etc/passwd" is no time zone: ` + zone},
		{"time zones", " {time_zone: [UTC]}", `10: time_zone: want text, got a list`},

		{"reference", " {}\n    content: reference", `11: content: reference hands on notifications, and those of meetings do not name the calendar: write content ids, or leave calendar out`},
		{"reference with mail", " {}\n    mail: {}\n    content: reference", `12: content: reference hands on notifications, and those of meetings do not name the calendar: write content ids, or leave calendar out`},
		{"a filter", " {}\n    when: organiser.address == 'a'", `11: when: unknown name organiser; did you mean "organizer"?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("f", withCalendar(tt.section))
			if f != nil || err == nil {
				t.Fatalf("Parse = %+v, %v", f, err)
			}
			want := strings.Split("f:"+strings.ReplaceAll(tt.want, "\n", "\nf:"), "\n")
			if got := strings.Split(err.Error(), "\n"); !sameLines(got, want) {
				t.Errorf("mistakes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// What a connection must be allowed to read is no more than its watches look at.
func TestNeedsOfCalendars(t *testing.T) {
	app := "tenant: contoso.com\nclient_secret_file: /s\nclient_id: " + client
	user := "auth: delegated\nclient_id: " + client
	const mail, none = "    mail: {}\n", ""
	tests := []struct {
		name, connection, mail, watch string
		want                          []string
	}{
		{"an app and meetings", app, none, "mailboxes: [a@b.c]\ncalendar: {}", []string{"Calendars.Read"}},
		{"an app and both", app, mail, "mailboxes: [a@b.c]\ncalendar: {}", []string{"Mail.Read", "Calendars.Read"}},
		{"an app that tells of starts", app, none, "mailboxes: [a@b.c]\ncalendar: {starting: [15m]}", []string{"Calendars.Read", "MailboxSettings.Read"}},
		{"an app that is told the zone", app, none, "mailboxes: [a@b.c]\ncalendar: {starting: [15m], time_zone: Europe/Berlin}", []string{"Calendars.Read"}},
		{"a user's own", user, none, "mailboxes: [me]\ncalendar: {}", []string{"Calendars.Read"}},
		{"a user's own, with starts", user, mail, "mailboxes: [me]\ncalendar: {events: [starting]}", []string{"Mail.Read", "Calendars.Read", "MailboxSettings.Read"}},
		{"a user's own, and the zone", user, none, "mailboxes: [me]\ncalendar: {events: [starting], time_zone: UTC}", []string{"Calendars.Read"}},
		{"another's", user, none, "mailboxes: [a@b.c]\ncalendar: {starting: [15m]}", []string{"Calendars.Read.Shared"}},
		{"all of it", user, mail, "mailboxes: [me, a@b.c]\ncalendar: {starting: [15m]}", []string{"Mail.Read", "Mail.Read.Shared", "Calendars.Read", "Calendars.Read.Shared", "MailboxSettings.Read"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("f", []byte(strings.Replace(connected(tt.connection, tt.watch), mail, tt.mail, 1)))
			if err != nil {
				t.Fatal(err)
			}
			n := f.Needs("c")
			if got := n.Scopes(); !slices.Equal(got, tt.want) {
				t.Errorf("scopes %v, want %v", got, tt.want)
			}
			if got := n.Roles(); tt.connection == app && !slices.Equal(got, tt.want) || slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, ".Shared") }) {
				t.Errorf("roles %v", got)
			}
			if got := f.Needs("nobody"); got != (Needs{}) {
				t.Errorf("a connection without watches needs %+v", got)
			}
		})
	}
}

func TestAllDayMeetingsOfOthers(t *testing.T) {
	user := "auth: delegated\nclient_id: " + client
	warnings := func(watch string) []string {
		t.Helper()
		f, err := Parse("f", []byte(connected(user, watch)))
		if err != nil {
			t.Fatal(err)
		}
		return f.Warnings
	}
	want := []string{`f:10: calendar: the time zone of mailbox "a@b.c" cannot be read with delegated access, so its all-day meetings start in the zone they were made in: give time_zone`}
	if got := warnings("mailboxes: [me, a@b.c]\ncalendar: {starting: [15m]}"); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	for _, watch := range []string{
		"mailboxes: [me, a@b.c]\ncalendar: {starting: [15m], time_zone: Europe/Berlin}",
		"mailboxes: [me, a@b.c]\ncalendar: {}",
		"mailboxes: [me]\ncalendar: {starting: [15m]}",
	} {
		if got := warnings(watch); len(got) > 0 {
			t.Errorf("%s: warnings %q", watch, got)
		}
	}
}
