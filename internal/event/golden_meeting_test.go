package event_test

import (
	"testing"
	"time"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/event"
)

const (
	meetingID    = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A9Y1kQ2VbEE6RfBw0-1s2bQAAB3Vk2gAA"
	seriesID     = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A9Y1kQ2VbEE6RfBw0-1s2bQAAB3Vk3QAA"
	occurrenceID = "AAkALgFRAAgI3k7WkoAAAEYAAAAAHYQDEapmEc2byACqAC-EWg0A9Y1kQ2VbEE6RfBw0-1s2bQAAB3Vk3QAAEA=="
)

var desk = event.Attendee{Name: "Contoso Sales", Address: "sales@contoso.com", Type: "required"}

// at is a moment as Merge leaves it: in UTC, with Graph's word for the zone.
func at(utc, zone string) event.Moment { return event.Moment{DateTime: utc, TimeZone: zone} }

// appointment is the meeting that the mailbox itself called.
func appointment() event.Meeting {
	return event.Meeting{
		InstanceKind: event.SingleInstance, ICalUID: "040000008200E00074C5B7101A82E00800000000A0F8D6D1",
		Subject: "Invoices of November", Start: at("2026-11-27T09:00:00Z", "W. Europe Standard Time"), End: at("2026-11-27T09:30:00Z", "W. Europe Standard Time"),
		IsOrganizer: true, Response: "organizer", Organizer: &sales,
		Attendees: []event.Attendee{{Name: dana.Name, Address: dana.Address, Type: "required", Response: "none"}},
		Location:  "Room 4", ShowAs: "busy", Sensitivity: "normal", Importance: "normal", CreatedAt: "2026-11-23T09:50:12.1234567Z",
		BodyPreview: "What is still open?", Body: &event.Body{ContentType: "text", Content: "What is still open?\r\n"},
	}
}

// invitation is the meeting that somebody else called.
func invitation() event.Meeting {
	m := appointment()
	m.Subject, m.Organizer, m.IsOrganizer, m.Response = "Next year's prices", &dana, false, "notResponded"
	m.Start, m.End = at("2026-11-30T15:00:00Z", "America/New_York"), at("2026-11-30T16:00:00Z", "America/New_York")
	m.Attendees, m.Location, m.IsOnline, m.JoinURL = []event.Attendee{desk}, "", true, "https://teams.microsoft.com/l/meetup-join/19%3ameeting_N2M3"
	m.ShowAs, m.BodyPreview, m.Body = "tentative", "", nil
	return m
}

// stocktaking takes whole days.
func stocktaking() event.Meeting {
	m := invitation()
	m.Subject, m.IsAllDay, m.IsOnline, m.JoinURL = "Stocktaking", true, false, ""
	m.Start, m.End = event.Moment{Date: "2026-12-03", TimeZone: "W. Europe Standard Time"}, event.Moment{Date: "2026-12-05", TimeZone: "W. Europe Standard Time"}
	return m
}

// weekly is a series as a whole: one hour every Monday.
func weekly() event.Meeting {
	m := appointment()
	m.InstanceKind, m.Subject = event.SeriesMaster, "Sales of the week"
	m.Start, m.End = at("2026-10-05T07:00:00Z", "W. Europe Standard Time"), at("2026-10-05T08:00:00Z", "W. Europe Standard Time")
	m.Recurrence = jsontext.Value(`{"pattern":{"daysOfWeek":["monday"],"firstDayOfWeek":"sunday","interval":1,"type":"weekly"},"range":{"recurrenceTimeZone":"W. Europe Standard Time","startDate":"2026-10-05","type":"noEnd"}}`)
	return m
}

// monday is one date of that series, an hour later in UTC: summer time has ended.
func monday() event.Meeting {
	m := weekly()
	m.InstanceKind, m.SeriesMasterID, m.OriginalStart, m.Recurrence, m.Location = event.Occurrence, seriesID, "2026-11-30T08:00:00Z", nil, "Room 7"
	m.Start, m.End = at("2026-11-30T08:00:00Z", "W. Europe Standard Time"), at("2026-11-30T09:00:00Z", "W. Europe Standard Time")
	return m
}

// meetingSample is an example of one calendar event: what is special about it.
type meetingSample struct {
	name, id string
	at       string // in the mailbox
	version  string
	via      event.Via
	content  event.Content
	meeting  event.Meeting
	edit     func(m *event.Meeting)
	data     event.CalendarData
}

func span(m event.Meeting) *event.Span {
	m = m.At(event.ContentIDs)
	return &event.Span{Start: m.Start, End: m.End, IsAllDay: m.IsAllDay}
}

// postponed is the Monday that was moved to the afternoon.
func postponed(m *event.Meeting) {
	m.InstanceKind = event.Exception
	m.Start.DateTime, m.End.DateTime = "2026-11-30T13:00:00Z", "2026-11-30T14:00:00Z"
}

func edited(m event.Meeting, edit func(*event.Meeting)) event.Meeting {
	edit(&m)
	return m
}

var meetingSamples = []meetingSample{
	{name: event.Created, id: meetingID, at: "2026-11-23T09:50:12.1234567Z", version: "B3WJ1A", via: event.ViaPush, content: event.ContentPreview, meeting: appointment()},
	{name: event.Invited, id: meetingID, at: "2026-11-23T09:50:12.1234567Z", version: "B3WJ1g", via: event.ViaPush, content: event.ContentEnvelope, meeting: invitation()},
	{name: event.Updated, id: seriesID, at: "2026-11-24T08:15:40Z", version: "B3WJ3w", via: event.ViaPush, content: event.ContentEnvelope, meeting: weekly(),
		edit: func(m *event.Meeting) { m.Location = "Room 7" },
		data: event.CalendarData{Changed: []event.FieldChange{change("location", `"Room 4"`, `"Room 7"`)}}},
	{name: event.Rescheduled, id: occurrenceID, at: "2026-11-26T16:02:11Z", version: "B3WK4Q", via: event.ViaPush, content: event.ContentEnvelope, meeting: monday(),
		edit: postponed, data: event.CalendarData{Rescheduled: &event.Reschedule{Old: span(monday()), New: span(edited(monday(), postponed))}}},
	{name: event.Responded, id: meetingID, at: "2026-11-23T10:12:55Z", version: "B3WJ2g", via: event.ViaPush, content: event.ContentEnvelope, meeting: appointment(),
		edit: func(m *event.Meeting) {
			m.Attendees = []event.Attendee{{Name: dana.Name, Address: dana.Address, Type: "required", Response: "accepted"}}
		},
		data: event.CalendarData{Responded: []event.ResponseChange{{
			Attendee: &event.Attendee{Name: dana.Name, Address: dana.Address, Type: "required", Response: "accepted"}, Old: "none", New: "accepted",
		}}}},
	{name: event.Cancelled, id: meetingID, at: "2026-11-25T07:30:00Z", version: "B3WKhA", via: event.ViaPoll, content: event.ContentEnvelope, meeting: stocktaking(),
		edit: func(m *event.Meeting) { m.IsCancelled, m.Subject = true, "Canceled: Stocktaking" }},
	{name: event.Deleted, id: occurrenceID, at: "2026-11-27T06:00:12.250Z", version: "B3WJ3w", via: event.ViaTrueUp, content: event.ContentIDs, meeting: monday()},
	{name: event.Starting, id: occurrenceID, at: "2026-11-30T07:45:00Z", version: "B3WJ3w", via: event.ViaClock, content: event.ContentEnvelope, meeting: monday(),
		data: event.CalendarData{Starting: &event.StartingSoon{LeadSeconds: 900}}},
}

// event dresses a sample as the daemon does.
func (s meetingSample) event(t *testing.T, n int) *event.Event {
	t.Helper()
	when, err := time.Parse(time.RFC3339Nano, s.at)
	if err != nil {
		t.Fatal(err)
	}
	if s.edit != nil {
		s.edit(&s.meeting)
	}
	m := s.meeting.At(s.content)
	s.data.Event = &m
	s.data.Mailbox = event.Mailbox{Alias: "sales"}
	s.data.Item = event.CalendarItem{
		ID: s.id, ChangeKey: "9Y1kQ2VbEE6RfBw0-1s2bQAA" + s.version, Calendar: &event.Calendar{ID: "AQMkADNkNAAAAgEIAAAA", IsDefault: true},
		WebLink: "https://outlook.office365.com/owa/?itemid=" + s.id + "&exvsurl=1&path=/calendar/item",
	}
	if s.content >= event.ContentEnvelope {
		s.data.Item.Calendar.Name = "Calendar"
	}
	e := &event.Event{
		Area: event.AreaCalendar, Name: s.name, Source: event.Source(tenant, "sales"), Subject: "events/" + s.id, Time: when,
		Watch: "sales", Mailbox: "sales", Via: s.via, Sequence: uint64(n + 1), Epoch: "5b1d2c3e4f5a6b7c", RecordedTime: when.Truncate(time.Millisecond).Add(482 * time.Millisecond),
	}
	if s.via == event.ViaClock {
		e.RecordedTime = when
	}
	e.ID = s.eventID(e)
	if e.Data, err = jsonx.Marshal(s.data); err != nil {
		t.Fatal(err)
	}
	return e
}

// eventID is what identifies the change: see docs/events.md.
func (s meetingSample) eventID(e *event.Event) string {
	item := s.id
	if s.meeting.SeriesMasterID != "" {
		item = s.meeting.SeriesMasterID
	}
	parts := []string{tenant, e.Watch, e.Mailbox, item, s.meeting.OriginalStart, e.Type()}
	switch e.Name {
	case event.Created, event.Invited:
	case event.Starting:
		parts = append(parts, s.meeting.Start.DateTime, (time.Duration(s.data.Starting.LeadSeconds) * time.Second).String())
	default:
		parts = append(parts, s.data.Item.ChangeKey)
	}
	return event.ID(parts...)
}
