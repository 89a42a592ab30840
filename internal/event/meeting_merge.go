package event

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrNotMeeting means that an item's JSON is not an event object.
var ErrNotMeeting = errors.New("not an event object")

// Merge lays an event as Graph wrote it over what is known: present properties replace, absent ones stay. Unknown
// properties are passed over; null empties a property. Stub tells of this look alone. After an error, which is
// ErrNotMeeting, o holds a part of what was read and is of no use.
func (o *ObservedMeeting) Merge(raw []byte) error {
	l := look{ObservedMeeting: o}
	etag, err := item(raw, l.set)
	if err == nil {
		err = l.finish()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotMeeting, err)
	}
	if key := ChangeKey(etag); key != "" { // stubs carry no changeKey, but an etag (D-36a)
		o.ChangeKey = key
	}
	return nil
}

// look is one run of Merge: beside what is known it holds what makes sense only when everything was read.
type look struct {
	*ObservedMeeting
	start, end      *wallClock // nil where absent
	full            bool       // it has properties that a stub never has
	online          bool       // one of the next two was there
	joinURL, oldURL string
}

// wallClock is a time as Graph writes it: {"dateTime":"2026-09-07T09:00:00.0000000","timeZone":"UTC"}.
type wallClock struct{ dateTime, zone string }

func (l *look) set(key string, dec *jsontext.Decoder) (err error) {
	m := &l.Meeting
	switch key {
	case "id":
		l.ID, err = text(dec)
		l.ID = strings.TrimSpace(l.ID) // the documentation prints a blank before one
	case "changeKey":
		var s string
		if s, err = text(dec); s != "" {
			l.ChangeKey = ChangeKey(s)
		}
	case "webLink":
		l.WebLink, err = text(dec)
	case "createdDateTime":
		l.full = true
		m.CreatedAt, err = text(dec)
	case "lastModifiedDateTime":
		l.LastModified, err = text(dec)
	case "isDraft":
		l.Draft, err = boolean(dec)
	case "type":
		m.InstanceKind, err = text(dec)
	case "seriesMasterId":
		m.SeriesMasterID, err = text(dec)
	case "originalStart":
		m.OriginalStart, err = instant(dec)
	case "iCalUId":
		l.full = true
		m.ICalUID, err = text(dec)
	case "subject":
		l.full = true
		m.Subject, err = text(dec)
	case "start":
		l.start, err = clock(dec)
	case "end":
		l.end, err = clock(dec)
	case "originalStartTimeZone":
		m.Start.TimeZone, err = text(dec)
	case "originalEndTimeZone":
		m.End.TimeZone, err = text(dec)
	case "isAllDay":
		m.IsAllDay, err = boolean(dec)
	case "isCancelled":
		m.IsCancelled, err = boolean(dec)
	case "isOrganizer":
		m.IsOrganizer, err = boolean(dec)
	default:
		return l.setDetail(key, dec)
	}
	return err
}

// setDetail is the half of set that says what a meeting is about and how it is shown.
func (l *look) setDetail(key string, dec *jsontext.Decoder) (err error) {
	m := &l.Meeting
	switch key {
	case "responseStatus":
		m.Response, err = member(dec, "response")
	case "organizer":
		m.Organizer, err = address(dec)
	case "attendees":
		m.Attendees, err = elements(dec, attendee)
	case "location":
		m.Location, err = member(dec, "displayName")
	case "isOnlineMeeting":
		m.IsOnline, err = boolean(dec)
	case "onlineMeeting":
		l.online = true
		l.joinURL, err = member(dec, "joinUrl")
	case "onlineMeetingUrl":
		l.online = true
		l.oldURL, err = text(dec)
	case "recurrence":
		m.Recurrence, err = canonical(dec)
	case "showAs":
		m.ShowAs, err = text(dec)
	case "sensitivity":
		m.Sensitivity, err = text(dec)
	case "importance":
		m.Importance, err = text(dec)
	case "categories":
		m.Categories, err = categories(dec)
	case "hasAttachments":
		m.HasAttachments, err = boolean(dec)
	case "bodyPreview":
		m.BodyPreview, err = text(dec)
	case "body":
		m.Body, l.BodyHash, err = body(dec)
	default:
		err = dec.SkipValue()
	}
	return err
}

// finish sets what depends on more than one property, in whatever order they came.
func (l *look) finish() error {
	m := &l.Meeting
	switch {
	case m.InstanceKind != "":
	case m.SeriesMasterID != "":
		m.InstanceKind = Occurrence
	default:
		m.InstanceKind = SingleInstance
	}
	l.Stub = m.InstanceKind == Occurrence && !l.full // D-36a
	if l.online {
		m.JoinURL = cmp.Or(l.joinURL, l.oldURL)
	}
	if err := l.start.into(&m.Start, m.IsAllDay); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := l.end.into(&m.End, m.IsAllDay); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	return nil
}

// into makes the moment that a wall clock shows: of an all-day event the date as it stands there (M-6), else the instant.
// Times are asked for in UTC (D-37); another zone of the answer is obeyed, and one that nobody knows taken for UTC.
func (w *wallClock) into(m *Moment, allDay bool) error {
	if w == nil {
		return nil
	}
	m.DateTime, m.Date = "", ""
	if m.TimeZone == "" && w.zone != "UTC" { // Graph does not say where it was made, but where this is
		m.TimeZone = w.zone
	}
	if w.dateTime == "" {
		return nil
	}
	zone, err := LoadZone(w.zone)
	if err != nil {
		zone = time.UTC
	}
	at, err := time.ParseInLocation("2006-01-02T15:04:05", strings.TrimSuffix(w.dateTime, "Z"), zone)
	switch {
	case err != nil:
		return errNoTime
	case allDay:
		m.Date = at.Format(time.DateOnly)
		return nil
	}
	m.DateTime, err = utc(at)
	return err
}

// errNoTime does not say what stands there instead: errors are logged.
var errNoTime = errors.New("no date and time can be read")

// utc writes an instant as RFC 3339, with a fraction only where there is one.
func utc(at time.Time) (string, error) {
	if at = at.UTC(); at.Year() < 0 || at.Year() > 9999 {
		return "", errNoTime
	}
	return at.Format(time.RFC3339Nano), nil
}

// clock reads a time of its zone; empty for null. The documentation of the beta prints its names with capitals.
func clock(dec *jsontext.Decoder) (*wallClock, error) {
	w := new(wallClock)
	if null(dec) {
		return w, nil
	}
	return w, members(dec, func(key string) (err error) {
		switch strings.ToLower(key) {
		case "datetime":
			w.dateTime, err = text(dec)
		case "timezone":
			w.zone, err = text(dec)
		default:
			err = dec.SkipValue()
		}
		return err
	})
}

// instant reads an RFC 3339 time and writes it in UTC; "" for null.
func instant(dec *jsontext.Decoder) (string, error) {
	s, err := text(dec)
	if err != nil || s == "" {
		return "", err
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "", errNoTime
	}
	return utc(at)
}

func attendee(dec *jsontext.Decoder) (a Attendee, err error) {
	if null(dec) {
		return a, nil
	}
	err = members(dec, func(key string) (err error) {
		switch key {
		case "type":
			a.Type, err = text(dec)
		case "status":
			a.Response, err = member(dec, "response")
		case "emailAddress":
			var who Address
			who, err = emailAddress(dec)
			a.Name, a.Address = who.Name, who.Address
		default:
			err = dec.SkipValue()
		}
		return err
	})
	return a, err
}

// canonical reads an object and writes it without blanks and with its members sorted, so that it compares as text; nil
// for null.
func canonical(dec *jsontext.Decoder) (jsontext.Value, error) {
	var object map[string]any
	if err := json.UnmarshalDecode(dec, &object); err != nil || object == nil {
		return nil, err
	}
	return json.Marshal(object, json.Deterministic(true))
}
