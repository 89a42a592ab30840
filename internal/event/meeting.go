package event

import "github.com/go-json-experiment/json/jsontext"

// AreaCalendar is the area of events about meetings and appointments.
const AreaCalendar = "calendar"

// Names of calendar events, beside Created, Updated and Deleted.
const (
	Invited     = "invited"
	Rescheduled = "rescheduled"
	Responded   = "responded"
	Cancelled   = "cancelled"
	Starting    = "starting"
)

// CalendarEvents lists the names of calendar events in the order of the documentation.
var CalendarEvents = []string{Created, Invited, Updated, Rescheduled, Responded, Cancelled, Deleted, Starting}

// ViaClock is the path of what nobody changed: a meeting is about to start.
const ViaClock Via = "clock"

// Kinds of calendar items, as Graph names them.
const (
	SingleInstance = "singleInstance"
	Occurrence     = "occurrence"   // of a series, like its master but for the date
	Exception      = "exception"    // of a series, with properties of its own
	SeriesMaster   = "seriesMaster" // the series as a whole; its start is that of its first occurrence and not a date of its own
)

// Moment is when a meeting starts or ends. An all-day one has a Date, every other one a DateTime.
type Moment struct {
	DateTime        string `json:"dateTime,omitzero"`        // RFC 3339 in UTC
	Date            string `json:"date,omitzero"`            // of an all-day event, 2006-01-02; End's is the day after the last
	LocalDateTime   string `json:"localDateTime,omitzero"`   // 2006-01-02T15:04:05 in TimeZone; empty where that is not known
	TimeZone        string `json:"timeZone,omitzero"`        // IANA name of the zone the meeting was made in, else Graph's own word for it
	WindowsTimeZone string `json:"windowsTimeZone,omitzero"` // the same zone's Windows name, where it has one
}

// Attendee is somebody who was invited.
type Attendee struct {
	Name     string `json:"name,omitzero"`
	Address  string `json:"address,omitzero"`
	Type     string `json:"type,omitzero"`     // required, optional, resource
	Response string `json:"response,omitzero"` // none, tentativelyAccepted, accepted, declined, notResponded
}

// Meeting is a calendar item in normalized form. The names are Graph's where the meaning is; times are RFC 3339 in UTC.
// Fields that the content level leaves out are empty.
type Meeting struct {
	InstanceKind   string         `json:"instanceKind"`            // singleInstance, occurrence, exception, seriesMaster
	SeriesMasterID string         `json:"seriesMasterId,omitzero"` // of occurrences and exceptions
	OriginalStart  string         `json:"originalStart,omitzero"`  // of occurrences and exceptions: when the series has it
	ICalUID        string         `json:"iCalUId,omitzero"`
	Subject        string         `json:"subject,omitzero"`
	Start          Moment         `json:"start"`
	End            Moment         `json:"end"`
	IsAllDay       bool           `json:"isAllDay"`
	IsCancelled    bool           `json:"isCancelled"`
	IsOrganizer    bool           `json:"isOrganizer"`
	Response       string         `json:"responseStatus,omitzero"` // the mailbox's own: organizer, accepted, …
	Organizer      *Address       `json:"organizer,omitempty"`
	Attendees      []Attendee     `json:"attendees,omitempty"`
	Location       string         `json:"location,omitzero"`
	IsOnline       bool           `json:"isOnlineMeeting"`
	JoinURL        string         `json:"joinUrl,omitzero"`
	Recurrence     jsontext.Value `json:"recurrence,omitzero"` // Graph's, of a series master
	ShowAs         string         `json:"showAs,omitzero"`
	Sensitivity    string         `json:"sensitivity,omitzero"`
	Importance     string         `json:"importance,omitzero"`
	Categories     []string       `json:"categories"`
	HasAttachments bool           `json:"hasAttachments"`
	CreatedAt      string         `json:"createdDateTime,omitzero"`
	BodyPreview    string         `json:"bodyPreview,omitzero"`
	Body           *Body          `json:"body,omitempty"`
}

// ObservedMeeting is one look at a calendar item: what Graph says of it now.
type ObservedMeeting struct {
	ID           string
	ChangeKey    string // normalized, see ChangeKey; occurrences share their master's (M-5)
	WebLink      string
	LastModified string // RFC 3339
	BodyHash     string // of Meeting.Body, so that a body is compared without being kept
	Stub         bool   // an occurrence of which Graph tells only the dates (D-36a); its master has the rest
	Draft        bool   // not sent to anybody yet

	// Meeting holds what Graph wrote. Start and End have DateTime or Date, and in TimeZone Graph's own word for the zone.
	Meeting Meeting
}

// Calendar names a calendar.
type Calendar struct {
	ID        string `json:"id"`
	Name      string `json:"name,omitzero"`
	IsDefault bool   `json:"isDefaultCalendar,omitzero"`
}

// CalendarItem names the changed calendar item.
type CalendarItem struct {
	ID        string    `json:"id"`
	ChangeKey string    `json:"changeKey,omitzero"` // normalized
	Calendar  *Calendar `json:"calendar"`
	WebLink   string    `json:"webLink,omitzero"`
}

// Span is from when to when a meeting takes place.
type Span struct {
	Start    Moment `json:"start"`
	End      Moment `json:"end"`
	IsAllDay bool   `json:"isAllDay"`
}

// Reschedule tells from when to when a meeting was moved. Old is null where it is not known: it came into the window.
type Reschedule struct {
	Old *Span `json:"old"`
	New *Span `json:"new"`
}

// ResponseChange is one answer to an invitation.
type ResponseChange struct {
	Self     bool      `json:"self"`               // the mailbox's own
	Attendee *Attendee `json:"attendee,omitempty"` // from content envelope; absent for the mailbox's own
	Old      string    `json:"old"`                // none for one who was not invited before
	New      string    `json:"new"`
}

// StartingSoon tells which of the lead times has come.
type StartingSoon struct {
	LeadSeconds int64 `json:"leadSeconds"` // before the start, as the watch wants it
	LateSeconds int64 `json:"lateSeconds"` // later than that, for example because triggerd was stopped; 0: on time
}

// CalendarData is the payload of a calendar event.
type CalendarData struct {
	Mailbox     Mailbox          `json:"mailbox"`
	Item        CalendarItem     `json:"item"`
	Changed     []FieldChange    `json:"changed,omitempty"`
	Rescheduled *Reschedule      `json:"rescheduled,omitempty"`
	Responded   []ResponseChange `json:"responded,omitempty"`
	Starting    *StartingSoon    `json:"starting,omitempty"`
	Event       *Meeting         `json:"event"`
}

// At reduces a meeting to what a content level lets out, and dresses its times for those who read them: the local time
// and both names of the zone. The result shares memory with m.
func (m Meeting) At(c Content) Meeting {
	if c < ContentBody {
		m.Body = nil
	}
	if c < ContentPreview {
		m.BodyPreview = ""
	}
	if c < ContentEnvelope {
		m.Subject, m.Location, m.JoinURL, m.Organizer, m.Attendees = "", "", "", nil, nil
	}
	if m.Categories == nil {
		m.Categories = []string{}
	}
	m.Start, m.End = m.Start.dressed(), m.End.dressed()
	return m
}

// dressed adds the local time and the names of the zone; nothing where the zone is not known.
func (m Moment) dressed() Moment {
	m.LocalDateTime, m.WindowsTimeZone = "", ""
	iana, windows := ZoneNames(m.TimeZone)
	if iana == "" {
		return m
	}
	m.TimeZone, m.WindowsTimeZone = iana, windows
	zone, err := LoadZone(iana)
	if at := ParseTime(m.DateTime); err == nil && !at.IsZero() {
		m.LocalDateTime = at.In(zone).Format("2006-01-02T15:04:05")
	}
	return m
}
