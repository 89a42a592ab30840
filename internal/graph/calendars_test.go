package graph

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCalendarURLs(t *testing.T) {
	start := time.Date(2026, 11, 24, 10, 0, 0, 5, time.FixedZone("", 2*3600))
	end := start.AddDate(0, 0, 180)
	ctx := t.Context()
	view := func(r CalendarViewRequest) func(*Client) error {
		return func(c *Client) error { _, err := c.CalendarViewDelta(ctx, r); return err }
	}
	event := func(mailbox, calendar, id string) func(*Client) error {
		return func(c *Client) error { _, err := c.Event(ctx, mailbox, calendar, id); return err }
	}
	tests := []struct {
		name string
		call func(*Client) error
		want string
	}{
		{"the default calendar's window, in UTC", view(CalendarViewRequest{Mailbox: "room@contoso.com", Start: start, End: end}),
			"GET /users/room@contoso.com/calendarView/delta?startDateTime=2026-11-24T08:00:00Z&endDateTime=2027-05-23T08:00:00Z"},
		{"another calendar's window", view(CalendarViewRequest{Mailbox: "me", Calendar: "C/1+=", Start: start, End: end}),
			"GET /me/calendars/C-1_=/calendarView/delta?startDateTime=2026-11-24T08:00:00Z&endDateTime=2027-05-23T08:00:00Z"},
		{"a link is used as it is", view(CalendarViewRequest{Mailbox: "m", Calendar: "C", Start: start, Link: root + "/me/calendarView/delta?$skiptoken=x+y%2B{z}"}),
			"GET /me/calendarView/delta?$skiptoken=x+y%2B{z}"},
		{"an event of the mailbox", event("m", "", "A/b+c="), "GET /users/m/events/A-b_c="},
		{"an event of one calendar", event("m", "C/{id}", "E?1"), "GET /users/m/calendars/C-%7Bid%7D/events/E%3F1"},
		{"the default calendar", func(c *Client) error { _, err := c.DefaultCalendar(ctx, "m"); return err },
			"GET /users/m/calendar?$select=id,name,isDefaultCalendar"},
		{"all calendars", func(c *Client) error { _, err := c.Calendars(ctx, "m"); return err },
			"GET /users/m/calendars?$select=id,name,isDefaultCalendar&$top=100"},
		{"the time zone", func(c *Client) error { _, err := c.TimeZone(ctx, "me"); return err }, "GET /me/mailboxSettings/timeZone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			c := newClient(t, func(r *http.Request) (*http.Response, error) {
				got = r.Method + " " + strings.TrimPrefix(r.URL.String(), root)
				switch {
				case strings.Contains(got, "/calendars?"):
					return answer(200, `{"value":[]}`), nil
				case strings.Contains(got, "/delta"):
					return answer(200, empty), nil
				case strings.Contains(got, "/mailboxSettings"):
					return answer(200, `{"value":"UTC"}`), nil
				}
				return answer(200, `{"id":"1"}`), nil
			})
			if err := tt.call(c); err != nil || got != tt.want {
				t.Errorf("asked %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestUnusableCalendarRequests(t *testing.T) {
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		t.Errorf("sent %s", r.URL)
		return answer(200, empty), nil
	})
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for name, r := range map[string]CalendarViewRequest{
		"no window":                 {Mailbox: "m"},
		"no start":                  {Mailbox: "m", End: at},
		"no end":                    {Mailbox: "m", Start: at},
		"an end before the start":   {Mailbox: "m", Start: at, End: at.Add(-time.Second)},
		"an empty window":           {Mailbox: "m", Start: at, End: at},
		"no mailbox":                {Start: at, End: at.Add(time.Hour)},
		"a calendar that leads up":  {Mailbox: "m", Calendar: "..", Start: at, End: at.Add(time.Hour)},
		"a mailbox that leads away": {Mailbox: "..", Start: at, End: at.Add(time.Hour)},
	} {
		if _, err := c.CalendarViewDelta(t.Context(), r); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: CalendarViewDelta = %v", name, err)
		}
	}
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Event(t.Context(), "m", "", id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Event(%q) = %v", id, err)
		}
		if _, err := c.Event(t.Context(), "m", "C", id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Event(%q) in a calendar = %v", id, err)
		}
		if _, err := c.Calendars(t.Context(), id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Calendars(%q) = %v", id, err)
		}
		if _, err := c.DefaultCalendar(t.Context(), id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("DefaultCalendar(%q) = %v", id, err)
		}
		if _, err := c.TimeZone(t.Context(), id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("TimeZone(%q) = %v", id, err)
		}
	}
	_, err := c.CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Link: "https://elsewhere.example/v1.0/me/calendarView/delta"})
	is(t, err, ErrForeignLink)
}

// No zone is asked for, so that all times are in UTC (D-37), and ids are the immutable ones.
func TestCalendarHeaders(t *testing.T) {
	var seen []string
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header.Values("Prefer")...)
		return answer(200, `{"id":"1","value":[],"@odata.deltaLink":"`+root+`/d"}`), nil
	})
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	c.CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Start: at, End: at.Add(time.Hour), PageSize: 200})
	c.CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Link: root + "/d", PageSize: 200})
	c.Event(t.Context(), "m", "", "1")
	want := []string{`IdType="ImmutableId", odata.maxpagesize=200`, `IdType="ImmutableId", odata.maxpagesize=200`, `IdType="ImmutableId"`}
	if !slices.Equal(seen, want) {
		t.Errorf("Prefer %q, want %q", seen, want)
	}
}

func TestRecordedCalendarView(t *testing.T) {
	c := newClient(t, replay(200, string(payload(t, "recorded-delta-calendarview-series.json"))), func(o *Options) { o.Root = "https://graph.microsoft.com/v1.0" })
	p, err := c.CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Link: "https://graph.microsoft.com/v1.0/me/calendarView/delta?$skiptoken=x"})
	if err != nil || len(p.Items) != 3 || p.Next == "" {
		t.Errorf("%d items, next %q, %v", len(p.Items), p.Next, err)
	}
	c = newClient(t, replay(200, `{"value":[]}`))
	_, err = c.CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Link: root + "/d"})
	if is(t, err, ErrUnavailable); !errors.Is(err, errNoLink) {
		t.Errorf("a page that leads nowhere: %v", err)
	}
}

func TestCalendarErrors(t *testing.T) {
	view := func(status int, body string) error {
		_, err := newClient(t, replay(status, body)).CalendarViewDelta(t.Context(), CalendarViewRequest{Mailbox: "m", Link: root + "/d"})
		return err
	}
	is(t, view(410, ""), ErrResync)
	is(t, view(400, `{"error":{"code":"SyncStateNotFound"}}`), ErrResync)
	is(t, view(404, `{"error":{"code":"ErrorItemNotFound"}}`), ErrNotFound)
	is(t, view(400, `{"error":{"code":"BadRequest","message":"Change tracking is not supported against this resource."}}`), ErrDeltaUnsupported)
	is(t, view(400, `{"error":{"code":"ErrorInvalidIdMalformed","message":"Id is malformed."}}`), ErrBadRequest) // no cloud lacks this delta (C-11)
	is(t, view(403, `{"error":{"code":"ErrorAccessDenied"}}`), ErrForbidden)

	c := newClient(t, replay(404, `{"error":{"code":"ErrorItemNotFound"}}`))
	_, err := c.Event(t.Context(), "m", "C", "1")
	is(t, err, ErrNotFound)
	_, err = c.DefaultCalendar(t.Context(), "m")
	is(t, err, ErrNotFound)
}

func TestCalendars(t *testing.T) {
	w, asked := script(t, map[string]string{
		"GET /users/m/calendars?$select=id,name,isDefaultCalendar&$top=100": `{"value":[{"id":"A","name":"Kalender","isDefaultCalendar":true},{"id":"B","name":"Team","isDefaultCalendar":false}],
			"@odata.nextLink":"` + root + `/users/m/calendars?$skip=2"}`,
		"GET /users/m/calendars?$skip=2": `{"value":[{"id":"B","name":"Team"},{"id":"C","name":null,"owner":{}}]}`,
	})
	got, err := newClient(t, w).Calendars(t.Context(), "m")
	want := []Calendar{{ID: "A", Name: "Kalender", IsDefault: true}, {ID: "B", Name: "Team"}, {ID: "C"}}
	if err != nil || !slices.Equal(got, want) || len(asked()) != 2 {
		t.Errorf("Calendars = %v, %v after %q, want %v", got, err, asked(), want)
	}
	got, err = newClient(t, replay(200, `{"value":[{"id":"A","name":7}]}`)).Calendars(t.Context(), "m")
	if is(t, err, ErrUnavailable); got != nil {
		t.Errorf("with a name that is none: %v", got)
	}
}

func TestDefaultCalendar(t *testing.T) {
	got, err := newClient(t, replay(200, `{"@odata.context":"x","id":"A","name":"Calendrier"}`)).DefaultCalendar(t.Context(), "m")
	if want := (Calendar{ID: "A", Name: "Calendrier", IsDefault: true}); err != nil || got != want {
		t.Errorf("DefaultCalendar = %+v, %v, want %+v", got, err, want)
	}
	_, err = newClient(t, replay(200, `{"name":"Calendrier"}`)).DefaultCalendar(t.Context(), "m")
	is(t, err, ErrUnavailable)
}

func TestTimeZone(t *testing.T) {
	tests := []struct {
		name, body, want string
		refused          bool
	}{
		{"a Windows name", `{"@odata.context":"x","value":"W. Europe Standard Time"}`, "W. Europe Standard Time", false},
		{"none set", `{"value":""}`, "", false},
		{"null", `{"value":null}`, "", false},
		{"no value", `{"@odata.context":"x"}`, "", true},
		{"no text", `{"value":{}}`, "", true},
		{"no object", `"UTC"`, "", true},
		{"more than one answer", `{"value":"UTC"}{}`, "", true},
		{"no JSON", `<html>`, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newClient(t, replay(200, tt.body)).TimeZone(t.Context(), "m")
			if got != tt.want || (err != nil) != tt.refused {
				t.Errorf("TimeZone = %q, %v", got, err)
			}
			if tt.refused {
				is(t, err, ErrUnavailable)
			}
		})
	}
	_, err := newClient(t, replay(403, `{"error":{"code":"ErrorAccessDenied"}}`)).TimeZone(t.Context(), "m")
	is(t, err, ErrForbidden)
}
