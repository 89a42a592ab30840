package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// calendarOf wraps events, given as lines, in a calendar.
func calendarOf(lines ...string) string {
	return "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n" + strings.Join(lines, "\r\n") + "\r\nEND:VCALENDAR\r\n"
}

func eventOf(lines ...string) string {
	return "BEGIN:VEVENT\r\n" + strings.Join(lines, "\r\n") + "\r\nEND:VEVENT"
}

// imported imports a calendar into an empty mailbox.
func imported(t *testing.T, calendar string) (s *Server, n int, err error) {
	t.Helper()
	s = New(Options{})
	s.AddUser(mailbox)
	n, err = s.ImportICS(mailbox, strings.NewReader(calendar))
	return s, n, err
}

// happenings describes what takes place from 2026 on.
func happenings(s *Server) (out []string) {
	for _, i := range s.Instances(mailbox, "", at("2026-01-01"), at("2028-12-31")) {
		out = append(out, i.Start.Format("2006-01-02T15:04Z"))
	}
	return out
}

func TestICSRulesAndZones(t *testing.T) {
	custom := strings.Join([]string{
		"BEGIN:VTIMEZONE", "TZID:Customized Time Zone", "BEGIN:STANDARD", "DTSTART:16010101T030000", "TZOFFSETFROM:+0200", "TZOFFSETTO:+0100",
		"RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10", "END:STANDARD", "BEGIN:DAYLIGHT", "DTSTART:16010101T020000", "TZOFFSETFROM:+0100",
		"TZOFFSETTO:+0200", "RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3", "END:DAYLIGHT", "END:VTIMEZONE",
	}, "\r\n")
	fixed := "BEGIN:VTIMEZONE\r\nTZID:Ours\r\nBEGIN:STANDARD\r\nDTSTART:16010101T000000\r\nTZOFFSETFROM:-0330\r\nTZOFFSETTO:-0330\r\nEND:STANDARD\r\nEND:VTIMEZONE"
	for _, c := range []struct {
		name  string
		lines []string
		zone  string
		want  []string
	}{
		{"Outlook's zone name, over summer time", []string{"DTSTART;TZID=W. Europe Standard Time:20260326T100000", "DTEND;TZID=W. Europe Standard Time:20260326T110000", "RRULE:FREQ=WEEKLY;COUNT=2"},
			"W. Europe Standard Time", []string{"2026-03-26T09:00Z", "2026-04-02T08:00Z"}},
		{"a quoted one", []string{`DTSTART;TZID="Tokyo Standard Time":20260326T100000`}, "Tokyo Standard Time", []string{"2026-03-26T01:00Z"}},
		{"an IANA name", []string{"DTSTART;TZID=America/New_York:20260326T100000"}, "America/New_York", []string{"2026-03-26T14:00Z"}},
		{"an IANA name behind a path", []string{"DTSTART;TZID=/mozilla.org/20050126_1/Europe/Berlin:20260326T100000"}, "Europe/Berlin", []string{"2026-03-26T09:00Z"}},
		{"a zone of the file's own, over summer time", []string{"DTSTART;TZID=Customized Time Zone:20260326T100000", "RRULE:FREQ=WEEKLY;COUNT=2"},
			customZone, []string{"2026-03-26T09:00Z", "2026-04-02T08:00Z"}},
		{"one without summer time", []string{"DTSTART;TZID=Ours:20260326T100000"}, customZone, []string{"2026-03-26T13:30Z"}},
		{"UTC", []string{"DTSTART:20260326T100000Z"}, "UTC", []string{"2026-03-26T10:00Z"}},
		{"no zone: the mailbox's", []string{"DTSTART:20260326T100000"}, "UTC", []string{"2026-03-26T10:00Z"}},
		{"a date", []string{"DTSTART;VALUE=DATE:20260326"}, "UTC", []string{"2026-03-26T00:00Z"}},
		{"Outlook's all-day flag", []string{"DTSTART;TZID=Europe/Berlin:20260326T000000", "DTEND;TZID=Europe/Berlin:20260327T000000", "X-MICROSOFT-CDO-ALLDAYEVENT:TRUE"},
			"Europe/Berlin", []string{"2026-03-26T00:00Z"}},
		{"every day until a time", []string{"DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;UNTIL=20260328T095959Z"}, "UTC", []string{"2026-03-26T10:00Z", "2026-03-27T10:00Z"}},
		{"every day until the time of the last", []string{"DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;UNTIL=20260327T100000Z"}, "UTC", []string{"2026-03-26T10:00Z", "2026-03-27T10:00Z"}},
		{"every day until a date", []string{"DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;UNTIL=20260327"}, "UTC", []string{"2026-03-26T10:00Z", "2026-03-27T10:00Z"}},
		{"working days, as days", []string{"DTSTART:20260327T100000Z", "RRULE:FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR;COUNT=2"}, "UTC", []string{"2026-03-27T10:00Z", "2026-03-30T10:00Z"}},
		{"every second week", []string{"DTSTART:20260327T100000Z", "RRULE:FREQ=WEEKLY;INTERVAL=2;WKST=SU;COUNT=2;BYDAY=FR"}, "UTC", []string{"2026-03-27T10:00Z", "2026-04-10T10:00Z"}},
		{"the second Tuesday", []string{"DTSTART:20260113T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=2TU;COUNT=2"}, "UTC", []string{"2026-01-13T10:00Z", "2026-02-10T10:00Z"}},
		{"the last weekday", []string{"DTSTART:20260130T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=2"}, "UTC", []string{"2026-01-30T10:00Z", "2026-02-27T10:00Z"}},
		{"a day of the month", []string{"DTSTART:20260115T100000Z", "RRULE:FREQ=MONTHLY;BYMONTHDAY=15;COUNT=2"}, "UTC", []string{"2026-01-15T10:00Z", "2026-02-15T10:00Z"}},
		{"the last day of the month", []string{"DTSTART:20260131T100000Z", "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=2"}, "UTC", []string{"2026-01-31T10:00Z", "2026-02-28T10:00Z"}},
		{"a birthday", []string{"DTSTART;VALUE=DATE:20260315", "RRULE:FREQ=YEARLY;COUNT=2"}, "UTC", []string{"2026-03-15T00:00Z", "2027-03-15T00:00Z"}},
		{"the last Monday of May", []string{"DTSTART:20260525T100000Z", "RRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;COUNT=2"}, "UTC", []string{"2026-05-25T10:00Z", "2027-05-31T10:00Z"}},
		{"without some dates", []string{"DTSTART;TZID=Europe/Berlin:20260326T100000", "RRULE:FREQ=DAILY;COUNT=4",
			"EXDATE;TZID=Europe/Berlin:20260327T100000,20260328T100000", "EXDATE:20260329T080000Z", "EXDATE;VALUE=DATE:20270101"}, "Europe/Berlin", []string{"2026-03-26T09:00Z"}},
		{"without a whole day", []string{"DTSTART;VALUE=DATE:20260326", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE;VALUE=DATE:20260326"}, "UTC", []string{"2026-03-27T00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, n, err := imported(t, calendarOf(custom, fixed, eventOf(append(c.lines, "UID:1")...)))
			if err != nil || n != 1 {
				t.Fatalf("ImportICS() = %d, %v", n, err)
			}
			if got := happenings(s); !slices.Equal(got, c.want) {
				t.Errorf("takes place at %v, want %v", got, c.want)
			}
			if m := s.Meetings(mailbox)[0]; m.TimeZone != c.zone || m.ICalUID != "1" {
				t.Errorf("%+v, want zone %s", m, c.zone)
			}
		})
	}
}

func TestICSZonesOfTheFile(t *testing.T) {
	zone := func(id string, parts ...string) string {
		lines := []string{"BEGIN:VTIMEZONE", "TZID:" + id}
		for _, p := range parts {
			kind, rest, _ := strings.Cut(p, " ")
			lines = append(lines, "BEGIN:"+kind)
			lines = append(append(lines, strings.Fields(rest)...), "END:"+kind)
		}
		return strings.Join(append(lines, "END:VTIMEZONE"), "\r\n")
	}
	const (
		south  = "STANDARD DTSTART:16010101T030000 TZOFFSETTO:+1000 RRULE:FREQ=YEARLY;BYDAY=1SU;BYMONTH=4"
		summer = "DAYLIGHT DTSTART:16010101T020000 TZOFFSETTO:+1100 RRULE:FREQ=YEARLY;BYDAY=1SU;BYMONTH=10"
	)
	for _, c := range []struct {
		name, zone       string
		january, july    string // 12:00 there
		beforeChange, at string // a time on the day of a change; empty: none
	}{
		{"summer in January", zone("z", south, summer), "01:00", "02:00", "20261004T013000", "15:30"},
		{"after that change", zone("z", south, summer), "01:00", "02:00", "20261004T033000", "16:30"},
		{"west", zone("z", "STANDARD DTSTART:16010101T020000 TZOFFSETTO:-0500 RRULE:FREQ=YEARLY;BYDAY=1SU;BYMONTH=11",
			"DAYLIGHT DTSTART:16010101T020000 TZOFFSETTO:-0400 RRULE:FREQ=YEARLY;BYMONTHDAY=8,9,10,11,12,13,14;BYDAY=SU;BYMONTH=3"), "17:00", "16:00", "20260308T030000", "07:00"},
		{"the last Sunday by its days", zone("z", "STANDARD DTSTART:16010101T030000 TZOFFSETTO:+0100 RRULE:FREQ=YEARLY;BYMONTHDAY=25,26,27,28,29,30,31;BYDAY=SU;BYMONTH=10",
			"DAYLIGHT DTSTART:16010101T020000 TZOFFSETTO:+0200 RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=3"), "11:00", "10:00", "20261025T030000", "02:00"},
		{"the newest rules count", zone("z", south, summer, "DAYLIGHT DTSTART:15010101T020000 TZOFFSETTO:+1200", "STANDARD DTSTART:15010101T020000 TZOFFSETTO:+0900"), "01:00", "02:00", "", ""},
		{"summer time that comes no more", zone("z", south, "DAYLIGHT DTSTART:19800101T020000 TZOFFSETTO:+1100"), "02:00", "02:00", "", ""},
		{"summer time by the week", zone("z", south, "DAYLIGHT DTSTART:19800101T020000 TZOFFSETTO:+1100 RRULE:FREQ=WEEKLY"), "02:00", "02:00", "", ""},
		{"no standard time", zone("z", summer), "01:00", "01:00", "", ""},
		{"seconds", zone("z", "STANDARD DTSTART:18930401T000000 TZOFFSETTO:+005328"), "11:06", "11:06", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := []string{c.zone, eventOf("UID:1", "DTSTART;TZID=z:20260115T120000"), eventOf("UID:2", "DTSTART;TZID=z:20260715T120000")}
			want := []string{c.january, c.july}
			if c.beforeChange != "" {
				events = append(events, eventOf("UID:3", "DTSTART;TZID=z:"+c.beforeChange))
				want = append(want, c.at)
			}
			s, _, err := imported(t, calendarOf(events...))
			var got []string
			for _, m := range s.Meetings(mailbox) {
				got = append(got, m.Start.Format("15:04"))
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("starts at %q in UTC, %v, want %q", got, err, want)
			}
		})
	}
	for name, z := range map[string]string{
		"no offset": zone("z", "STANDARD DTSTART:16010101T030000"), "an offset that is none": zone("z", "STANDARD TZOFFSETTO:late"), "no parts": zone("z"),
	} {
		if _, n, err := imported(t, calendarOf(z, eventOf("UID:1", "DTSTART;TZID=z:20260115T120000"))); n != 0 || err == nil {
			t.Errorf("%s: ImportICS() = %d, %v, want an error", name, n, err)
		}
	}
	for calendarZone, want := range map[string]string{"Europe/Berlin": "2026-03-26T09:00Z", "Middle Earth": "2026-03-26T10:00Z"} {
		s, _, err := imported(t, calendarOf("X-WR-TIMEZONE:"+calendarZone, eventOf("UID:1", "DTSTART:20260326T100000")))
		if got := happenings(s); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("without a zone in a calendar of %s: %q, %v, want %s", calendarZone, got, err, want)
		}
	}
}

func TestICSProperties(t *testing.T) {
	s, n, err := imported(t, calendarOf(eventOf(
		"UID:a", "DTSTART:20260326T100000Z", "DURATION:P1DT2H30M", `SUMMARY:Plans\, big ones`, "LOCATION:Room 1", `DESCRIPTION:One\nTwo`, "CLASS:PRIVATE", "PRIORITY:1",
		"CATEGORIES:Red,Blue", "STATUS:TENTATIVE", "ORGANIZER;CN=Bob:MAILTO:bob@contoso.com",
		"ATTENDEE;CN=Sales;PARTSTAT=TENTATIVE:mailto:"+mailbox, "ATTENDEE;CN=Ada;ROLE=OPT-PARTICIPANT;PARTSTAT=ACCEPTED:mailto:ada@contoso.com",
		"ATTENDEE;CUTYPE=ROOM;PARTSTAT=NEEDS-ACTION:mailto:room@contoso.com", "X-GOOGLE-CONFERENCE:https://meet.test/x",
	)))
	if err != nil || n != 1 {
		t.Fatalf("ImportICS() = %d, %v", n, err)
	}
	m := s.Meetings(mailbox)[0]
	got := fmt.Sprint(m.Subject, "|", m.Location, "|", m.End.Format("02T15:04"), "|", m.Sensitivity, m.Importance, m.ShowAs, m.Categories, m.IsOrganizer, m.Organizer, m.Response, m.Attendees)
	want := "Plans, big ones|Room 1|27T12:30|privatehightentative[Red Blue] false {Bob bob@contoso.com}tentativelyAccepted" +
		"[{{Sales sales@contoso.com} required tentativelyAccepted} {{Ada ada@contoso.com} optional accepted} {{ room@contoso.com} resource none}]"
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	is := s.users[0].meetings[0].now
	if is.body != "One\nTwo" || is.joinURL != "https://meet.test/x" || !is.online {
		t.Errorf("%+v", is)
	}
}

func TestICSShowAs(t *testing.T) {
	for line, want := range map[string]string{
		"TRANSP:TRANSPARENT": "free", "X-MICROSOFT-CDO-BUSYSTATUS:OOF": "oof", "X-MICROSOFT-CDO-BUSYSTATUS:FREE": "free", "TRANSP:OPAQUE": "busy",
		"X-MICROSOFT-CDO-BUSYSTATUS:TENTATIVE": "tentative", "X-MICROSOFT-CDO-BUSYSTATUS:WORKINGELSEWHERE": "workingElsewhere", "X-MICROSOFT-CDO-BUSYSTATUS:BUSY": "busy",
	} {
		s, _, err := imported(t, calendarOf(eventOf("UID:1", "DTSTART:20260326T100000Z", line, "CLASS:CONFIDENTIAL", "PRIORITY:9")))
		if m := s.Meetings(mailbox)[0]; err != nil || m.ShowAs != want || m.Sensitivity != "confidential" || m.Importance != "low" {
			t.Errorf("%s: %+v, %v, want %s", line, m, err, want)
		}
	}
}

func TestICSExceptions(t *testing.T) {
	series := []string{
		eventOf("UID:s", "SUMMARY:weekly", "DTSTART;TZID=Europe/Berlin:20260323T100000", "DTEND;TZID=Europe/Berlin:20260323T110000", "RRULE:FREQ=WEEKLY;COUNT=4"),
		eventOf("UID:s", "SUMMARY:moved", "RECURRENCE-ID;TZID=Europe/Berlin:20260330T100000", "DTSTART;TZID=Europe/Berlin:20260331T140000", "DTEND;TZID=Europe/Berlin:20260331T150000"),
		eventOf("UID:s", "SUMMARY:weekly", "RECURRENCE-ID:20260406T080000Z", "STATUS:CANCELLED", "DTSTART;TZID=Europe/Berlin:20260406T100000", "DTEND;TZID=Europe/Berlin:20260406T110000"),
		eventOf("UID:s", "SUMMARY:older", "SEQUENCE:0", "DTSTART:20300101T000000Z"),
		eventOf("UID:single", "SEQUENCE:1", "DTSTART:20260401T000000Z", "STATUS:CANCELLED"),
		eventOf("UID:alone", "RECURRENCE-ID:20260501T080000Z", "DTSTART:20260501T090000Z"),
		eventOf("UID:alone", "RECURRENCE-ID:20260502T080000Z", "DTSTART:20260502T090000Z"),
	}
	series[0] = strings.Replace(series[0], "UID:s", "UID:s\r\nSEQUENCE:2", 1)
	s, n, err := imported(t, calendarOf(series...))
	if err != nil || n != 6 {
		t.Fatalf("ImportICS() = %d, %v", n, err)
	}
	var got []string
	for _, i := range s.Instances(mailbox, "", at("2026-01-01"), at("2028-01-01")) {
		got = append(got, fmt.Sprint(i.Start.Format("01-02T15:04 "), i.Type, " ", i.Subject, " ", i.Cancelled))
	}
	want := []string{
		"03-23T09:00 occurrence weekly false", "03-31T12:00 exception moved false", "04-01T00:00 singleInstance  true",
		"04-06T08:00 exception weekly true", "04-13T08:00 occurrence weekly false", "05-01T09:00 singleInstance  false", "05-02T09:00 singleInstance  false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	again := strings.Replace(calendarOf(series...), "SUMMARY:moved", "SUMMARY:moved again", 1)
	if n, err := s.ImportICS(mailbox, strings.NewReader(again)); n != 6 || err != nil {
		t.Errorf("imported again: %d, %v", n, err)
	}
	if list := s.Meetings(mailbox); len(list) != 4 {
		t.Errorf("%d meetings after the same calendar came again, want 4: %+v", len(list), list)
	}
	if x := s.Instances(mailbox, "", at("2026-03-31"), at("2026-04-01"))[0]; x.Subject != "moved again" || x.ChangeKey == s.Meetings(mailbox)[0].ChangeKey {
		t.Errorf("the exception after that: %+v", x)
	}
}

func TestICSReportsWhatCannotBe(t *testing.T) {
	fine := eventOf("UID:fine", "DTSTART:20260326T100000Z")
	daily := []string{"UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;COUNT=3"}
	for _, c := range []struct {
		name   string
		events []string
		n      int // with the fine one
		want   string
	}{
		{"no start", []string{eventOf("UID:x")}, 1, "DTSTART"},
		{"a start that is none", []string{eventOf("UID:x", "DTSTART:tomorrow")}, 1, "DTSTART"},
		{"a date that is none", []string{eventOf("UID:x", "DTSTART:20261332")}, 1, "DTSTART"},
		{"an end that is none", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "DTEND:later")}, 1, "DTEND"},
		{"an end before the start", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "DTEND:20260326T090000Z")}, 1, "before the start"},
		{"a duration that is none", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "DURATION:long")}, 1, "DURATION"},
		{"a duration below nothing", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "DURATION:-PT1H")}, 1, "DURATION"},
		{"an unknown zone", []string{eventOf("UID:x", "DTSTART;TZID=Middle Earth:20260326T100000")}, 1, "time zone"},
		{"the year 2", []string{eventOf("UID:x", "DTSTART:00020101T000000Z")}, 1, "1601"},
		{"every hour", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=HOURLY")}, 1, "no such recurrence"},
		{"twice a day", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;BYHOUR=9,17")}, 1, "no such recurrence"},
		{"every week of some months", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=WEEKLY;BYMONTH=3")}, 1, "no such recurrence"},
		{"two days of the month", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYMONTHDAY=1,15")}, 1, "no such recurrence"},
		{"the day before the last", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYMONTHDAY=-2")}, 1, "no such recurrence"},
		{"every Monday of a month", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=MO")}, 1, "no such recurrence"},
		{"the fifth Monday", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=5MO")}, 1, "no such recurrence"},
		{"the first Monday and the first Tuesday", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=1MO,1TU")}, 1, "no such recurrence"},
		{"the first Monday and the last Tuesday", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=1MO,-1TU")}, 1, "no such recurrence"},
		{"a position of a position", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=MONTHLY;BYDAY=1MO;BYSETPOS=1")}, 1, "no such recurrence"},
		{"every year by the day", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=YEARLY;BYMONTHDAY=3")}, 1, "no such recurrence"},
		{"a rule that is none", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:often")}, 1, "RRULE"},
		{"more than Outlook counts", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY;COUNT=1000")}, 1, "count"},
		{"two rules", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY", "RRULE:FREQ=WEEKLY")}, 1, "several rules"},
		{"a rule of exceptions", []string{eventOf("UID:x", "DTSTART:20260326T100000Z", "RRULE:FREQ=DAILY", "EXRULE:FREQ=WEEKLY")}, 1, "several rules"},
		{"additional dates", []string{eventOf(append(daily, "RDATE:20260401T100000Z")...)}, 2, "RDATE"},
		{"an exception date that is none", []string{eventOf(append(daily, "EXDATE:never")...)}, 2, "EXDATE"},
		{"an exception of no date", []string{eventOf(daily...), eventOf("UID:x", "RECURRENCE-ID:20270101T100000Z", "DTSTART:20270101T100000Z")}, 2, "not a date"},
		{"an exception of a word", []string{eventOf(daily...), eventOf("UID:x", "RECURRENCE-ID:now", "DTSTART:20270101T100000Z")}, 2, "RECURRENCE-ID"},
		{"an exception without a start", []string{eventOf(daily...), eventOf("UID:x", "RECURRENCE-ID:20260327T100000Z")}, 2, "DTSTART"},
		{"an exception that ends too early", []string{eventOf(daily...), eventOf("UID:x", "RECURRENCE-ID:20260327T100000Z", "DTSTART:20260327T100000Z", "DTEND:20260326T100000Z")}, 2, "before the start"},
		{"this and later", []string{eventOf(daily...), eventOf("UID:x", "RECURRENCE-ID;RANGE=THISANDFUTURE:20260327T100000Z", "DTSTART:20260327T110000Z")}, 2, "all later dates"},
		{"an exception of a single event", []string{fine, eventOf("UID:fine", "RECURRENCE-ID:20260326T100000Z", "DTSTART:20260326T110000Z")}, 1, "does not recur"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, n, err := imported(t, calendarOf(append(c.events, fine)...))
			if err == nil || !strings.Contains(err.Error(), c.want) || n != c.n {
				t.Errorf("ImportICS() = %d, %v, want %d and an error with %q", n, err, c.n, c.want)
			}
			if len(s.Meetings(mailbox)) != c.n {
				t.Errorf("%d meetings, want %d", len(s.Meetings(mailbox)), c.n)
			}
		})
	}
	for name, text := range map[string]string{
		"a text": "Hello\r\n", "an event alone": fine, "cut off in a line": "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART", "a BEGIN without an END": "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\n",
	} {
		if s, n, err := imported(t, text); err == nil && name != "a BEGIN without an END" || n != 0 || len(s.Meetings(mailbox)) != 0 {
			t.Errorf("%s: ImportICS() = %d, %v, want an error", name, n, err)
		}
	}
	if _, err := New(Options{}).ImportICS(mailbox, strings.NewReader(calendarOf())); err == nil {
		t.Error("imported for nobody")
	}
	if _, err := New(Options{}).ImportICS(mailbox, bytes.NewReader(make([]byte, maxICS+1))); err == nil {
		t.Error("an endless calendar was read")
	}
}

// samples are the calendars that ship with the library: of Google, Thunderbird, DAVx⁵ and the examples of RFC 5545.
func samples(t testing.TB) (files []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/arran4/golang-ical").Output()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), "testdata"), func(name string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Ext(name), ".ics") {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 15 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	return files
}

// sample reads one, without the remark that follows a calendar.
func sample(t testing.TB, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	end := []byte("END:VCALENDAR")
	before, _, _ := bytes.Cut(raw, end)
	return append(before, end...)
}

func TestICSSamplesOfTheLibraryAreImported(t *testing.T) {
	s := New(Options{})
	s.AddUser(mailbox)
	total := 0
	for _, file := range samples(t) {
		raw := sample(t, file)
		n, err := s.ImportICS(mailbox, bytes.NewReader(raw))
		if events := bytes.Count(raw, []byte("BEGIN:VEVENT")); n != events || err != nil {
			t.Errorf("%s: %d of %d events, %v", filepath.Base(file), n, events, err)
		}
		total += n
	}
	if list := s.Meetings(mailbox); total < 10 || len(list) == 0 {
		t.Errorf("%d events imported, %d meetings", total, len(list))
	}
	checkCalendar(t, s)
}

// checkCalendar checks that all that a mailbox has can be read, and that nothing of it ends before it starts.
func checkCalendar(t *testing.T, s *Server) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[0]
	for _, m := range u.meetings {
		if m.now == nil {
			continue
		}
		from := m.now.start
		list := append(m.in(m.now, view{From: from, Until: from.AddDate(1, 0, 0)}), m.whole(m.now))
		for _, i := range list {
			if found, _ := u.instanceByID(i.id(true)); found.m != m || found.kind != i.kind {
				t.Errorf("%s %s is not found by its id", i.kind, i.subject)
			}
			if b := appendEvent(nil, i, allEventProperties, &zone{"UTC", time.UTC}, true, true, ""); !json.Valid(b) {
				t.Errorf("not JSON: %s", b)
			}
			if i.end.Before(i.start) {
				t.Errorf("%s %q ends at %v, before it starts at %v", i.kind, i.subject, i.end, i.start)
			}
		}
	}
}

// FuzzICS checks that whatever is imported can be read, that it is counted, and that nothing is lost without a word.
func FuzzICS(f *testing.F) {
	for _, file := range samples(f) {
		f.Add(sample(f, file))
	}
	f.Add([]byte(calendarOf(
		eventOf("UID:s", "DTSTART;TZID=W. Europe Standard Time:20260323T100000", "RRULE:FREQ=WEEKLY;BYDAY=MO,WE;UNTIL=20260901", "EXDATE;TZID=W. Europe Standard Time:20260325T100000"),
		eventOf("UID:s", "RECURRENCE-ID:20260330T080000Z", "DTSTART:20260331T080000Z", "DURATION:PT15M"))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := New(Options{})
		s.AddUser(mailbox)
		n, err := s.ImportICS(mailbox, bytes.NewReader(raw))
		if m := len(s.Meetings(mailbox)); m > n || n > 0 && m == 0 {
			t.Errorf("%d events imported, %d meetings", n, m)
		}
		if file, bad := readICS(bytes.NewReader(raw)); err == nil && (bad != nil || n < len(file.groups)) {
			t.Errorf("%d of %d events imported without a word, %v", n, len(file.groups), bad)
		}
		checkCalendar(t, s)
	})
}
