package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// The lines that tail prints of the events in the documentation.
func TestTailLinesOfMeetings(t *testing.T) {
	for name, want := range map[string]string{
		event.Created:     "Invoices of November — Fri 2026-11-27 10:00–10:30 Europe/Berlin [Calendar]",
		event.Invited:     "Next year's prices — Mon 2026-11-30 10:00–11:00 America/New_York — from Dana Swope [Calendar]",
		event.Updated:     "Sales of the week — series from Mon 2026-10-05 09:00–10:00 Europe/Berlin — location changed [Calendar]",
		event.Rescheduled: "Sales of the week — Mon 2026-11-30 09:00–10:00 → Mon 2026-11-30 14:00–15:00 Europe/Berlin, one of a series [Calendar]",
		event.Responded:   "Invoices of November — Fri 2026-11-27 10:00–10:30 Europe/Berlin — Dana Swope: none → accepted [Calendar]",
		event.Cancelled:   "Canceled: Stocktaking — Thu 2026-12-03 to Fri 2026-12-04 — from Dana Swope [Calendar]",
		event.Deleted:     "(no subject) — Mon 2026-11-30 09:00–10:00 Europe/Berlin, one of a series [calendar]",
		event.Starting:    "Sales of the week — Mon 2026-11-30 09:00–10:00 Europe/Berlin, one of a series — starts in 15m [Calendar]",
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("../../internal/event/testdata/events/calendar." + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				Via  event.Via
				Data json.RawMessage
			}
			if err := json.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
			e := event.Event{Area: event.AreaCalendar, Name: name, Mailbox: "sales", Via: doc.Via, Sequence: 7, Data: []byte(doc.Data)}
			line := eventLine(&e, time.Now())
			if _, got, _ := strings.Cut(line, "#7    "); got != want || !strings.Contains(line, "  sales      "+name) {
				t.Errorf("got  %s\nwant %s", line, want)
			}
		})
	}
}

func TestMeetingText(t *testing.T) {
	at := func(utc, zone string) event.Moment { return event.Moment{DateTime: utc, TimeZone: zone} }
	one := func(edit func(*event.CalendarData)) *event.CalendarData {
		d := &event.CalendarData{Item: event.CalendarItem{ID: "AAMk", Calendar: &event.Calendar{Name: "Team"}}, Event: &event.Meeting{
			Subject: "lunch", Start: at("2026-11-30T11:00:00Z", "Europe/Berlin"), End: at("2026-11-30T12:00:00Z", "Europe/Berlin"), InstanceKind: event.SingleInstance,
		}}
		edit(d)
		return d
	}
	for name, tt := range map[string]struct {
		edit func(*event.CalendarData)
		want string
	}{
		"a single one": {func(*event.CalendarData) {}, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin [Team]"},
		"a zone that nobody knows is told in UTC": {func(d *event.CalendarData) {
			d.Event.Start.TimeZone = "tzone://Microsoft/Custom"
		}, "lunch — Mon 2026-11-30 11:00–12:00 UTC [Team]"},
		"over midnight": {func(d *event.CalendarData) {
			d.Event.Start.DateTime, d.Event.End.DateTime = "2026-11-30T22:30:00Z", "2026-12-01T00:30:15Z"
		}, "lunch — Mon 2026-11-30 23:30 – Tue 2026-12-01 01:30:15 Europe/Berlin [Team]"},
		"a day": {func(d *event.CalendarData) {
			d.Event.IsAllDay, d.Event.Start, d.Event.End = true, event.Moment{Date: "2026-11-30"}, event.Moment{Date: "2026-12-01"}
		}, "lunch — Mon 2026-11-30 [Team]"},
		"days": {func(d *event.CalendarData) {
			d.Event.IsAllDay, d.Event.Start, d.Event.End = true, event.Moment{Date: "2026-11-30"}, event.Moment{Date: "2026-12-03"}
		}, "lunch — Mon 2026-11-30 to Wed 2026-12-02 [Team]"},
		"an exception that was moved before": {func(d *event.CalendarData) {
			d.Event.InstanceKind, d.Event.OriginalStart = event.Exception, "2026-11-29T11:00:00Z"
		}, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin, in its series Sun 2026-11-29 12:00 [Team]"},
		"an all-day exception that was moved before": {func(d *event.CalendarData) {
			d.Event.IsAllDay, d.Event.Start, d.Event.End = true, event.Moment{Date: "2026-11-30"}, event.Moment{Date: "2026-12-01"}
			d.Event.InstanceKind, d.Event.OriginalStart = event.Exception, "2026-11-29T00:00:00Z"
		}, "lunch — Mon 2026-11-30, in its series Sun 2026-11-29 [Team]"},
		"into the window": {func(d *event.CalendarData) {
			d.Rescheduled = &event.Reschedule{New: &event.Span{Start: d.Event.Start, End: d.Event.End}}
		}, "lunch — somewhere outside the window → Mon 2026-11-30 12:00–13:00 Europe/Berlin [Team]"},
		"from a day to an hour": {func(d *event.CalendarData) {
			d.Rescheduled = &event.Reschedule{
				Old: &event.Span{Start: event.Moment{Date: "2026-11-29"}, End: event.Moment{Date: "2026-11-30"}, IsAllDay: true},
				New: &event.Span{Start: d.Event.Start, End: d.Event.End},
			}
		}, "lunch — Sun 2026-11-29 → Mon 2026-11-30 12:00–13:00 Europe/Berlin [Team]"},
		"from another zone": {func(d *event.CalendarData) {
			d.Rescheduled = &event.Reschedule{
				Old: &event.Span{Start: at("2026-11-30T10:00:00Z", "Asia/Tokyo"), End: at("2026-11-30T11:00:00Z", "Asia/Tokyo")},
				New: &event.Span{Start: d.Event.Start, End: d.Event.End},
			}
		}, "lunch — Mon 2026-11-30 19:00–20:00 Asia/Tokyo → Mon 2026-11-30 12:00–13:00 Europe/Berlin [Team]"},
		"many answers": {func(d *event.CalendarData) {
			d.Responded = []event.ResponseChange{
				{Self: true, Old: "notResponded", New: "accepted"}, {Old: "none", New: "declined"},
				{Attendee: &event.Attendee{Address: "ada@example.com"}, Old: "none", New: "accepted"}, {Old: "none", New: "accepted"}, {Old: "none", New: "accepted"},
			}
		}, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin — the mailbox itself: notResponded → accepted, somebody: none → declined, ada@example.com: none → accepted and 2 more [Team]"},
		"late":           {func(d *event.CalendarData) { d.Starting = &event.StartingSoon{LeadSeconds: 3600, LateSeconds: 125} }, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin — starts in 57m55s, told 2m5s late [Team]"},
		"too late":       {func(d *event.CalendarData) { d.Starting = &event.StartingSoon{LeadSeconds: 600, LateSeconds: 1200} }, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin — started 10m ago, told 20m late [Team]"},
		"at its start":   {func(d *event.CalendarData) { d.Starting = &event.StartingSoon{} }, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin — starts now [Team]"},
		"hours before":   {func(d *event.CalendarData) { d.Starting = &event.StartingSoon{LeadSeconds: 10 * 3600} }, "lunch — Mon 2026-11-30 12:00–13:00 Europe/Berlin — starts in 10h [Team]"},
		"steers nothing": {func(d *event.CalendarData) { d.Event.Subject, d.Item.Calendar.Name = "a\x1b[2Jb", "c\nd" }, "a [2Jb — Mon 2026-11-30 12:00–13:00 Europe/Berlin [c d]"},
		"no event":       {func(d *event.CalendarData) { d.Event = nil }, "AAMk"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := meetingText(event.Updated, one(tt.edit)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestTailLineOfACalendarEventThatCannotBeRead(t *testing.T) {
	e := event.Event{Area: event.AreaCalendar, Name: event.Updated, Mailbox: "sales", Sequence: 7, Data: []byte(`{"event":5}`)}
	if got := eventLine(&e, time.Now()); !strings.HasSuffix(got, "#7") {
		t.Errorf("got %q", got)
	}
}

// What triggerd tells of itself names the folder, the calendar, or all calendars of a mailbox.
func TestTailLinesNameWhatTheyAreAbout(t *testing.T) {
	for data, want := range map[string]string{
		`{"folder":{"id":"1","path":"Inbox"}}`: "subscription [Inbox]",
		`{}`:                                   "subscription [all calendars]",
		`{"calendar":{"id":"1","name":"Team"},"reason":"no"}`: "watch: no [Team]",
	} {
		area := strings.TrimSuffix(strings.Fields(want)[0], ":")
		e := event.Event{Area: area, Name: "created", Mailbox: "sales", Data: []byte(data)}
		if got := eventLine(&e, time.Now()); !strings.HasSuffix(got, " "+want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
