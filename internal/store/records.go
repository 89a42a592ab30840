package store

import (
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// Mailbox is one user, shared or room mailbox on one connection.
type Mailbox struct {
	Num        uint32                `json:"num"` // assigned by PutMailbox
	Connection string                `json:"connection"`
	Address    string                `json:"address"` // as configured
	Folders    map[string]FolderInfo `json:"folders,omitempty"`
	FoldersAt  time.Time             `json:"folders_at,omitzero"` // when Folders was read
	SweptAt    time.Time             `json:"swept_at,omitzero"`   // when items last seen long ago were forgotten

	Calendars   map[string]CalendarInfo `json:"calendars,omitempty"`   // by id; replaced, never changed in place
	CalendarsAt time.Time               `json:"calendars_at,omitzero"` // when Calendars was read
	TimeZone    string                  `json:"time_zone,omitzero"`    // the mailbox's own, as Graph names it; empty: not known
}

// CalendarInfo is what is known of a calendar.
type CalendarInfo struct {
	Name      string `json:"name"`
	IsDefault bool   `json:"is_default,omitzero"`
}

// FolderInfo is what is known of a mail folder. Values are never changed in place.
type FolderInfo struct {
	Name      string `json:"name"`
	ParentID  string `json:"parent_id,omitzero"`
	WellKnown string `json:"well_known,omitzero"`
}

// FeedKind is what a feed reads.
type FeedKind string

// The kinds.
const (
	MailFolder    FeedKind = ""              // one mail folder, with at most one subscription
	CalendarFeed  FeedKind = "calendar"      // one calendar
	Announcements FeedKind = "announcements" // no cursor: the subscription on the events of all calendars of a mailbox (S-27)
)

// Feed is one mail folder or calendar of one mailbox: the unit that has one cursor.
type Feed struct {
	Num       uint32    `json:"num"` // assigned by PutFeed
	Mailbox   uint32    `json:"mailbox"`
	Kind      FeedKind  `json:"kind,omitzero"`
	FolderID  string    `json:"folder_id"`  // or the calendar's id; empty for Announcements
	CreatedAt time.Time `json:"created_at"` // what is older was there before the feed

	Cursor      string        `json:"cursor,omitzero"`       // delta link, opaque; empty until the baseline is complete
	Content     event.Content `json:"content"`               // what the cursor's properties were selected for
	RoundAt     time.Time     `json:"round_at,omitzero"`     // start of the last completed round
	BaselinedAt time.Time     `json:"baselined_at,omitzero"` // zero until the first enumeration is complete
	TrueUpAt    time.Time     `json:"true_up_at,omitzero"`   // start of the last completed enumeration

	Watches  map[string]time.Time `json:"watches,omitempty"`  // watch → since when it follows this feed; replaced, never changed in place
	Starting map[string]bool      `json:"starting,omitempty"` // watches that joined a read feed and still want what was there before; replaced likewise

	WindowStart time.Time `json:"window_start,omitzero"` // of a calendar: what the cursor was asked for (D-35)
	WindowEnd   time.Time `json:"window_end,omitzero"`
	Alarms      string    `json:"alarms,omitzero"` // for which lead times and in which zones alarms are stored

	PushAt    time.Time `json:"push_at,omitzero"`   // last notification that a round confirmed
	MissedAt  time.Time `json:"missed_at,omitzero"` // last change found that push never announced
	Missed    uint64    `json:"missed,omitzero"`    // how many such
	Announced uint64    `json:"announced,omitzero"` // notifications that a round confirmed
}

// Subscription is a Graph subscription of ours, alive or remembered.
type Subscription struct {
	ID           string      `json:"id"`
	Feed         uint32      `json:"feed"`
	Connection   string      `json:"connection"`
	Resource     string      `json:"resource"`
	StateHash    [32]byte    `json:"state_hash"` // SHA-256 of the clientState, which itself is kept nowhere
	CreatedAt    time.Time   `json:"created_at"`
	ExpiresAt    time.Time   `json:"expires_at"`             // as the server said
	RenewAt      time.Time   `json:"renew_at"`               // when the next renewal is due, jitter included
	RenewedAt    time.Time   `json:"renewed_at,omitzero"`    // last successful PATCH
	Renewals     []time.Time `json:"renewals,omitempty"`     // the latest successful PATCHes, oldest first; never changed in place
	AuthorizedAt time.Time   `json:"authorized_at,omitzero"` // last create, PATCH or reauthorize
	TouchedAt    time.Time   `json:"touched_at,omitzero"`    // last PATCH or reauthorize sent, for R-8
	Failures     int         `json:"failures,omitzero"`      // failed renewals in a row
	LastError    string      `json:"last_error,omitzero"`
	RemovedAt    time.Time   `json:"removed_at,omitzero"` // gone at Graph; kept for late notices (L-14)
}

// Live reports whether the subscription is believed to exist at Graph.
func (s *Subscription) Live(now time.Time) bool {
	return s.RemovedAt.IsZero() && now.Before(s.ExpiresAt)
}

// Item is what is known of one message: the last look at it, and when that was.
type Item struct {
	event.Observed
	Level  event.Content `json:"level"` // which properties the look held
	SeenAt time.Time     `json:"seen_at"`
	GoneAt time.Time     `json:"gone_at,omitzero"` // Graph no longer has it
}

// Reference is what is known of an item that is only told about by reference.
type Reference struct {
	Keys   []string  `json:"keys"` // change keys told already, newest last
	SeenAt time.Time `json:"seen_at"`
	GoneAt time.Time `json:"gone_at,omitzero"` // its deletion was told
}

// Notification is one accepted change notification.
type Notification struct {
	Feed      uint32
	Item      string
	Change    string    // created, updated, deleted, or what Graph may come to say
	ChangeKey string    // normalized; empty where the notification has none (W-9b)
	At        time.Time // when it was accepted, to the millisecond
}

// Lifecycle is one accepted lifecycle notification, kept until its consequences are.
type Lifecycle struct {
	Seq          uint64    `json:"seq"` // assigned by Accept
	Subscription string    `json:"subscription"`
	Event        string    `json:"event"` // reauthorizationRequired, subscriptionRemoved, missed, or unknown
	At           time.Time `json:"at"`
}

// Outcome is how an accepted notification ended.
type Outcome string

// The outcomes of the law: accepted = the sum of these + what is still in the inbox.
const (
	Published   Outcome = "published"   // it led to an event
	Duplicate   Outcome = "duplicate"   // that version had been dealt with already
	Superseded  Outcome = "superseded"  // a later version was seen instead
	Filtered    Outcome = "filtered"    // seen, and no watch wants an event of it
	Gone        Outcome = "gone"        // the item vanished before anything could be told of it
	Quarantined Outcome = "quarantined" // could not be processed; parked
)

// Outcomes lists all outcomes.
var Outcomes = []Outcome{Published, Duplicate, Superseded, Filtered, Gone, Quarantined}

// Quarantine is something that could not be processed, parked with its reason.
type Quarantine struct {
	Seq    uint64    `json:"seq"` // assigned by PutQuarantine
	Feed   uint32    `json:"feed,omitzero"`
	Item   string    `json:"item,omitzero"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Raw    []byte    `json:"raw,omitempty"` // what it was about, where it is small enough to keep
}
