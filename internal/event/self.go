package event

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Areas of events of triggerd about itself, beside AreaConnection: how a mailbox of a watch is looked after.
const (
	AreaSubscription = "subscription"
	AreaWatch        = "watch"
)

// Names of subscription events.
const (
	SubscriptionCreated = "created"
	Renewed             = "renewed"
	RenewalFailed       = "renewal_failed"
	Removed             = "removed"
	Reauthorized        = "reauthorized"
	Missed              = "missed" // Graph says that it could not deliver notifications
)

// Names of watch events.
const (
	Baselined = "baselined"  // every folder was read for the first time
	Stale     = "stale"      // nothing is known since longer than the watch's interval allows
	Recovered = "recovered"  // fresh again
	GapClosed = "gap_closed" // after a doubt everything was compared, and the difference published
)

// SubscriptionEvents and WatchEvents list the names of these areas.
var (
	SubscriptionEvents = []string{SubscriptionCreated, Renewed, RenewalFailed, Removed, Reauthorized, Missed}
	WatchEvents        = []string{Baselined, Stale, Recovered, GapClosed}
)

// Events lists the names of every area.
var Events = map[string][]string{
	AreaMail: MailEvents, AreaCalendar: CalendarEvents, AreaNotification: NotificationEvents,
	AreaConnection: ConnectionEvents, AreaSubscription: SubscriptionEvents, AreaWatch: WatchEvents,
}

// Origin is whose mailbox an event is about.
type Origin struct {
	Tenant string // directory id; empty while nobody has signed in
	Watch  string
	Token  string // the mailbox in subjects
	UserID string // Graph's, where it is known
	Alias  string
}

// Mailbox is the origin's mailbox as it stands in data.
func (o *Origin) Mailbox() Mailbox { return Mailbox{ID: o.UserID, Alias: o.Alias} }

// SubscriptionData is the payload of a subscription event.
type SubscriptionData struct {
	Mailbox    Mailbox   `json:"mailbox"`
	Connection string    `json:"connection"`
	Folder     *Folder   `json:"folder,omitempty"`  // nil: it is for all calendars of the mailbox
	ID         string    `json:"id"`                // of the subscription at Graph
	ExpiresAt  time.Time `json:"expiresAt"`         // UTC
	RenewAt    time.Time `json:"renewAt,omitzero"`  // when it is next to be renewed; UTC
	Failures   int       `json:"failures,omitzero"` // failed renewals in a row
	Reason     string    `json:"reason,omitzero"`   // in words
}

// WatchData is the payload of a watch event.
type WatchData struct {
	Mailbox    Mailbox   `json:"mailbox"`
	Connection string    `json:"connection"`
	FreshAt    time.Time `json:"freshAt,omitzero"`   // everything that happened before is known; UTC
	Since      time.Time `json:"since,omitzero"`     // recovered: when it had become stale; gap_closed: when the gap began; UTC
	Folder     *Folder   `json:"folder,omitempty"`   // gap_closed: where
	Calendar   *Calendar `json:"calendar,omitempty"` // gap_closed: or there
	Published  int       `json:"published,omitzero"` // gap_closed: how many events the difference was
	Reason     string    `json:"reason,omitzero"`    // in words
}

// NewSubscriptionEvent makes the event that something happened to a subscription at a time. It has no sequence: it is
// about triggerd, not about what is in the mailbox.
func NewSubscriptionEvent(o Origin, name string, at time.Time, d SubscriptionData) (Event, error) {
	if d.ID == "" {
		return Event{}, fmt.Errorf("subscription event %s of %s: the subscription has no id", name, o.Watch)
	}
	d.Mailbox, d.ExpiresAt, d.RenewAt = o.Mailbox(), d.ExpiresAt.UTC(), d.RenewAt.UTC()
	return o.event(AreaSubscription, name, at, "subscriptions/"+d.ID, &d)
}

// NewWatchEvent makes the event that the freshness of a watch over a mailbox has changed. It has no sequence either.
func NewWatchEvent(o Origin, name string, at time.Time, d WatchData) (Event, error) {
	d.Mailbox, d.FreshAt, d.Since = o.Mailbox(), d.FreshAt.UTC(), d.Since.UTC()
	return o.event(AreaWatch, name, at, "watches/"+o.Watch, &d)
}

// event makes an event about triggerd itself. It refuses what would make another subject or a wrong identity.
func (o *Origin) event(area, name string, at time.Time, subject string, data any) (Event, error) {
	switch {
	case !isLevel(o.Watch) || !isLevel(o.Token):
		return Event{}, fmt.Errorf("%s event: %q and %q cannot stand in a subject", area, o.Watch, o.Token)
	case !slices.Contains(Events[area], name):
		return Event{}, fmt.Errorf("%s event of %s: there is no event %q", area, o.Watch, name)
	case at.IsZero():
		return Event{}, fmt.Errorf("%s event of %s: nothing says when it happened", area, o.Watch)
	}
	b, err := json.Marshal(data, jsontext.AllowInvalidUTF8(true)) // a stray byte in a reason becomes U+FFFD
	if err != nil {
		return Event{}, fmt.Errorf("%s event of %s: %w", area, o.Watch, err)
	}
	tenant, at := o.Tenant, at.UTC()
	if tenant == "" {
		tenant = NoLevel
	}
	return Event{
		ID:   ID(tenant, area, o.Watch, o.Token, name, subject, at.Format(time.RFC3339Nano), string(b)),
		Area: area, Name: name, Source: Source(tenant, o.Token), Subject: subject,
		Time: at, Watch: o.Watch, Mailbox: o.Token, RecordedTime: at, Data: b,
	}, nil
}

// isLevel reports whether a text can be one level of a subject.
func isLevel(s string) bool { return s != "" && !strings.ContainsAny(s, ".*> \t\r\n") }
