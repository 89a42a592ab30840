// Package status tells operators how the daemon is: the report with its verdict, the listener that serves it on this
// machine, the client that commands use, and how a terminal shows it.
package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// Report is everything that is known of the daemon at a moment.
type Report struct {
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	At        time.Time `json:"at"`
	Healthy   bool      `json:"healthy"`
	Problems  []Problem `json:"problems"`

	Connections   []Connection      `json:"connections"`
	Configuration Configuration     `json:"configuration"`
	Watches       []Watch           `json:"watches"`
	Public        Public            `json:"public"`
	Certificate   Certificate       `json:"certificate,omitzero"` // of the public listener; zero without TLS of its own
	Subscriptions []Subscription    `json:"subscriptions"`
	Missing       []Missing         `json:"missing_subscriptions,omitempty"`
	Feeds         []Feed            `json:"feeds"`
	Mailboxes     []Mailbox         `json:"mailbox_problems,omitempty"`
	Storage       Storage           `json:"storage"`
	Clock         string            `json:"clock,omitempty"` // why meetings that start cannot be told
	Notifications Notifications     `json:"notifications"`
	Outbox        Outbox            `json:"outbox"`
	NATS          NATS              `json:"nats"`
	Events        map[string]uint64 `json:"events"` // "mail.received" → how many were ever put into the outbox
	Quarantine    uint64            `json:"quarantine"`
	Renewals      Renewals          `json:"renewals"`
	Push          Push              `json:"push"`
	Rate          []uint64          `json:"rate,omitempty"`      // events acknowledged in each of the last 60 minutes, the one that runs last
	Recent        []Published       `json:"recent,omitempty"`    // the last events acknowledged, newest first
	Incidents     []Incident        `json:"incidents,omitempty"` // the last problems, newest first
}

// Storage is the database.
type Storage struct {
	Path  string    `json:"path,omitempty"`
	Error string    `json:"error,omitempty"` // why the last commit failed
	Since time.Time `json:"since,omitzero"`
}

// Renewals counts what became of the renewals of subscriptions since the database was made.
type Renewals struct {
	OK     uint64 `json:"ok"`
	Failed uint64 `json:"failed"`
}

// Push counts what push announced and what it never did since the database was made, also of feeds that are gone.
type Push struct {
	Announced uint64 `json:"announced"` // notifications that a round confirmed
	Missed    uint64 `json:"missed"`    // changes
}

// Problem is one reason not to be healthy.
type Problem struct {
	Key    string `json:"key"` // the same while the problem lasts, however its text changes
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Connection is one configured identity.
type Connection struct {
	Name                string    `json:"name"`
	Cloud               string    `json:"cloud"`
	Auth                string    `json:"auth"`  // app or delegated
	State               string    `json:"state"` // unknown, ok, unreachable, throttled, reauth_required, consent_required, credential_failed
	Reason              string    `json:"reason,omitempty"`
	Remedy              string    `json:"remedy,omitempty"`
	Since               time.Time `json:"since,omitzero"`
	Paused              bool      `json:"paused,omitempty"` // nothing is asked of Graph until somebody has acted; notifications are accepted
	User                string    `json:"user,omitempty"`   // who signed in
	TenantID            string    `json:"tenant_id,omitempty"`
	Missing             []string  `json:"missing,omitempty"` // permissions that are needed and not granted
	SignedInAt          time.Time `json:"signed_in_at,omitzero"`
	RefreshedAt         time.Time `json:"refreshed_at,omitzero"`
	CredentialExpiresAt time.Time `json:"credential_expires_at,omitzero"`
}

// Parked is an entry of the quarantine.
type Parked struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // item: read from Graph; event: refused by NATS
	Mailbox string    `json:"mailbox,omitempty"`
	Folder  string    `json:"folder,omitempty"` // or the calendar's name
	Item    string    `json:"item,omitempty"`
	Event   string    `json:"event,omitempty"` // its id
	Type    string    `json:"type,omitempty"`  // of the event
	Reason  string    `json:"reason"`
	Raw     []byte    `json:"raw,omitempty"` // what it is about, where it was small enough to keep; only when one entry is asked for
}

// Configuration is the watch file that is in force.
type Configuration struct {
	File      string    `json:"file,omitempty"`
	LoadedAt  time.Time `json:"loaded_at,omitzero"`
	Error     string    `json:"error,omitempty"` // why a newer one was refused; the old one stays in force
	RefusedAt time.Time `json:"refused_at,omitzero"`
}

// Watch is one declared watch: as fresh as its stalest feed.
type Watch struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`             // reading (for the first time), fresh, stale
	Since   time.Time `json:"since,omitzero"`    // of State
	FreshAt time.Time `json:"fresh_at,omitzero"` // everything up to then is known
	Reason  string    `json:"reason,omitempty"`  // why it is not fresh
	Feeds   int       `json:"feeds"`
	Push    int       `json:"push"`             // feeds with proven push
	Silent  bool      `json:"silent,omitempty"` // its canary is missed
}

// Public is the check of the public URL.
type Public struct {
	URL       string    `json:"url,omitempty"` // empty: polling only
	OK        bool      `json:"ok"`
	Reason    string    `json:"reason,omitempty"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
}

// Certificate is the public listener's.
type Certificate struct {
	Source    string    `json:"source"`              // files or acme
	NotBefore time.Time `json:"not_before,omitzero"` // both zero while there is none
	NotAfter  time.Time `json:"not_after,omitzero"`
	Error     string    `json:"error,omitempty"` // why there is none, or no newer one
}

// Subscription is one of Graph's.
type Subscription struct {
	ID         string      `json:"id"`
	Feed       uint32      `json:"feed"`
	Connection string      `json:"connection"`
	Mailbox    string      `json:"mailbox"`
	Folder     string      `json:"folder"` // or "all calendars", which share one
	Watches    []string    `json:"watches,omitempty"`
	CreatedAt  time.Time   `json:"created_at"`
	ExpiresAt  time.Time   `json:"expires_at"`
	RenewAt    time.Time   `json:"renew_at"`
	RenewedAt  time.Time   `json:"renewed_at,omitzero"`
	Renewals   []time.Time `json:"renewals,omitempty"` // the latest ones, oldest first
	Failures   int         `json:"failures,omitempty"`
	LastError  string      `json:"last_error,omitempty"`
}

// Missing is a subscription that there should be and has not been for a while.
type Missing struct {
	Feed       uint32    `json:"feed"` // what Subscription.Feed would be
	Connection string    `json:"connection"`
	Mailbox    string    `json:"mailbox"`
	Folder     string    `json:"folder"` // or "all calendars", which share one
	Watches    []string  `json:"watches,omitempty"`
	Since      time.Time `json:"since"`
	Reason     string    `json:"reason"`
}

// Feed is one folder, or one calendar.
type Feed struct {
	Feed        uint32            `json:"feed"`
	Connection  string            `json:"connection"`
	Mailbox     string            `json:"mailbox"`
	Area        string            `json:"area"`            // mail or calendar
	Folder      string            `json:"folder"`          // its path, or the calendar's name
	Label       string            `json:"label"`           // of metrics: the well-known name, else one made from the folder's or calendar's id
	Inbox       uint32            `json:"inbox,omitempty"` // what Subscription.Feed is of the one that announces its changes; 0: there is none
	Watches     []string          `json:"watches"`
	Mailboxes   map[string]string `json:"mailboxes"`             // watch → the mailbox in its subjects
	RoundAt     time.Time         `json:"round_at,omitzero"`     // everything up to then is known
	BaselinedAt time.Time         `json:"baselined_at,omitzero"` // zero while it is read for the first time
	TrueUpAt    time.Time         `json:"true_up_at,omitzero"`
	DueAt       time.Time         `json:"due_at,omitzero"`
	Interval    time.Duration     `json:"interval_ns"` // at which rounds are due at present
	Pending     bool              `json:"pending"`
	Push        bool              `json:"push"`
	PushReason  string            `json:"push_reason,omitempty"`
	PushAt      time.Time         `json:"push_at,omitzero"`
	Announced   uint64            `json:"announced,omitempty"` // changes that push announced
	Missed      uint64            `json:"missed,omitempty"`    // changes that push never announced
	Reason      string            `json:"reason,omitempty"`    // of the round that runs
	Pages       int               `json:"pages,omitempty"`
	Items       int               `json:"items,omitempty"`
	Error       string            `json:"error,omitempty"`
	Tries       int               `json:"tries,omitempty"`
}

// Mailbox is a mailbox whose folders or calendars could not be read or found.
type Mailbox struct {
	Connection string `json:"connection"`
	Mailbox    string `json:"mailbox"`
	Error      string `json:"error"`
}

// Notifications are the books of the law: accepted = the sum of settled + pending.
type Notifications struct {
	Accepted uint64            `json:"accepted"`
	Settled  map[string]uint64 `json:"settled"` // outcome → how many
	Pending  uint64            `json:"pending"`
	Results  map[string]uint64 `json:"results"` // of requests since the start
}

// Outbox is what waits for NATS.
type Outbox struct {
	Entries  int       `json:"entries"`
	Held     int       `json:"held"`
	OldestAt time.Time `json:"oldest_at,omitzero"`
}

// NATS is the broker as publish sees it.
type NATS struct {
	Connected       bool      `json:"connected"`
	URL             string    `json:"url"`
	Stream          string    `json:"stream"` // ok, or what is wrong with it
	Warnings        []string  `json:"warnings,omitempty"`
	Blocked         string    `json:"blocked,omitempty"` // why nothing is being published
	LastPublishedAt time.Time `json:"last_published_at,omitzero"`
	LastError       string    `json:"last_error,omitempty"`
}

// AllCalendars stands for a folder in the one subscription for all calendars of a mailbox.
const AllCalendars = "all calendars"

// Name is what people call it in its mailbox.
func (f *Feed) Name() string {
	if f.Area == event.AreaCalendar {
		return "calendar " + f.Folder
	}
	return f.Folder
}

// passing reports whether a state mends itself.
func (c *Connection) passing() bool { return c.State == "unreachable" || c.State == "throttled" }

// words writes a state for people.
func words(state string) string { return strings.ReplaceAll(state, "_", " ") }

func (n *Notifications) settled() (sum uint64) {
	for _, v := range n.Settled {
		sum += v
	}
	return sum
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" && t != "ok" {
			return t
		}
	}
	return ""
}

// Line is the verdict in one line.
func (r *Report) Line() string {
	if r.Healthy {
		return "healthy"
	}
	line := "unhealthy: " + r.Problems[0].What
	if n := len(r.Problems) - 1; n > 0 {
		line += fmt.Sprintf(" (and %d more)", n)
	}
	return line
}
