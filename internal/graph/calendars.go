package graph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// CalendarViewRequest asks for a page of a calendar's delta (D-34).
type CalendarViewRequest struct {
	Mailbox    string
	Calendar   string    // id; empty: the default calendar
	Start, End time.Time // the window, both needed without Link; frozen in the links (D-35)
	Link       string    // cursor or next link, used as it is; Calendar and the window matter only without it
	PageSize   int       // a wish, sent with every request (D-19); 0: Graph's own
}

var errWindow = fmt.Errorf("%w: the window does not end after it starts", ErrBadRequest)

// CalendarViewDelta reads one page. The page has either a next link or a delta link (D-1). Properties cannot be chosen
// (D-36), and times come in UTC, since no other zone is asked for (D-37).
func (c *Client) CalendarViewDelta(ctx context.Context, r CalendarViewRequest) (Page, error) {
	link, err := r.Link, error(nil)
	if link == "" {
		link, err = c.calendarView(r)
	}
	if err != nil {
		return Page{}, &Error{Op: opCalendarView, Err: err}
	}
	return c.deltaPage(ctx, call{op: opCalendarView, url: link, mailbox: r.Mailbox, pageSize: r.PageSize})
}

func (c *Client) calendarView(r CalendarViewRequest) (string, error) {
	if r.Start.IsZero() || !r.Start.Before(r.End) {
		return "", errWindow
	}
	a := inCalendar(r.Mailbox, r.Calendar, "/calendarView/delta")
	a.query = []string{"startDateTime=" + inQuery(r.Start), "endDateTime=" + inQuery(r.End)}
	return c.url(a)
}

// Event reads one calendar item; ErrNotFound when it is gone. Of a calendar that others share it is found only by way of
// that calendar (D-36c); an empty calendar asks the mailbox.
func (c *Client) Event(ctx context.Context, mailbox, calendar, id string) (Item, error) {
	return c.one(ctx, opEvent, inCalendar(mailbox, calendar, "/events/{id}", id))
}

// inCalendar is an address below a calendar, or below the mailbox when there is none.
func inCalendar(mailbox, calendar, path string, ids ...string) address {
	if calendar == "" {
		return address{mailbox: mailbox, path: path, ids: ids}
	}
	return address{mailbox: mailbox, path: "/calendars/{id}" + path, ids: append([]string{calendar}, ids...)}
}

// Calendar is a calendar of a mailbox.
type Calendar struct {
	ID        string // constant (I-4)
	Name      string // as shown to people, in the mailbox's language
	IsDefault bool
}

const (
	calendarProperties = "id,name,isDefaultCalendar"
	calendarPageSize   = 100
)

// DefaultCalendar reads the calendar that every mailbox has.
func (c *Client) DefaultCalendar(ctx context.Context, mailbox string) (Calendar, error) {
	it, err := c.one(ctx, opCalendar, address{mailbox: mailbox, path: "/calendar", query: []string{"$select=" + calendarProperties}})
	if err != nil {
		return Calendar{}, err
	}
	cal, err := decodeCalendar(it)
	if err != nil {
		return Calendar{}, &Error{Op: opCalendar, Err: err}
	}
	cal.IsDefault = true
	return cal, nil
}

// Calendars reads all calendars of a mailbox, each once, in Graph's order.
func (c *Client) Calendars(ctx context.Context, mailbox string) ([]Calendar, error) {
	u, err := c.url(address{mailbox: mailbox, path: "/calendars", query: []string{"$select=" + calendarProperties, fmt.Sprintf("$top=%d", calendarPageSize)}})
	if err != nil {
		return nil, &Error{Op: opCalendars, Err: err}
	}
	var all []Calendar
	seen := map[string]bool{}
	err = c.pages(ctx, call{op: opCalendars, url: u, mailbox: mailbox}, c.page, func(it Item) error {
		cal, err := decodeCalendar(it)
		if !seen[cal.ID] {
			all = append(all, cal)
		}
		seen[cal.ID] = true
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func decodeCalendar(it Item) (Calendar, error) {
	cal := Calendar{ID: it.ID}
	err := members(it.Raw, func(name []byte, dec *jsontext.Decoder) (err error) {
		switch string(name) {
		case "name":
			cal.Name, err = decodeString(dec)
		case "isDefaultCalendar":
			cal.IsDefault = dec.PeekKind() == 't'
			err = dec.SkipValue()
		default:
			err = dec.SkipValue()
		}
		return err
	})
	return cal, err
}

var errNoValue = errors.New("answer has no value")

// TimeZone reads the name of a mailbox's time zone, Windows' or IANA's; empty where none was ever set. It needs the
// permission MailboxSettings.Read.
func (c *Client) TimeZone(ctx context.Context, mailbox string) (zone string, err error) {
	u, err := c.url(address{mailbox: mailbox, path: "/mailboxSettings/timeZone"})
	if err != nil {
		return "", &Error{Op: opTimeZone, Err: err}
	}
	err = c.do(ctx, call{op: opTimeZone, method: http.MethodGet, url: u, mailbox: mailbox, decode: func(body io.Reader) (err error) {
		zone, err = decodeValue(body)
		return err
	}})
	return zone, err
}

// decodeValue reads an answer that is one property of text.
func decodeValue(r io.Reader) (value string, err error) {
	raw, err := decodeAlone(r)
	if err != nil {
		return "", err
	}
	if raw.Kind() != '{' {
		return "", errNoValue
	}
	found := false
	err = members(raw, func(name []byte, dec *jsontext.Decoder) (err error) {
		if string(name) != "value" {
			return dec.SkipValue()
		}
		found = true
		value, err = decodeString(dec)
		return err
	})
	if err == nil && !found {
		err = errNoValue
	}
	return value, err
}
