package event

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// AreaConnection is for events of triggerd about its own sign-ins, so that workflows can watch the watcher.
const AreaConnection = "connection"

// Names of connection events: the states of a connection that are worth telling.
const (
	ConnectionOK     = "ok"
	ReauthRequired   = "reauth_required"
	ConsentRequired  = "consent_required"
	CredentialFailed = "credential_failed"
	Throttled        = "throttled"
)

// ConnectionEvents lists the names of connection events.
var ConnectionEvents = []string{ConnectionOK, ReauthRequired, ConsentRequired, CredentialFailed, Throttled}

// NoLevel stands in subjects where a level does not apply.
const NoLevel = "_"

// ConnectionData is the payload of a connection event. It names no user and holds no secret.
type ConnectionData struct {
	Name            string    `json:"name"`
	Cloud           string    `json:"cloud"`
	Auth            string    `json:"auth"`                     // app or delegated
	State           string    `json:"state"`                    // also the event's name
	Since           time.Time `json:"since"`                    // when the state began; UTC
	Reason          string    `json:"reason,omitzero"`          // in words
	Remedy          string    `json:"remedy,omitzero"`          // what to do, and who
	Missing         []string  `json:"missing,omitempty"`        // permissions that are needed and not granted
	AdminConsentURL string    `json:"adminConsentUrl,omitzero"` // what an administrator opens to grant them
}

// NewConnectionEvent makes the event of a connection's new state. Such events have no sequence and no epoch: they are
// about triggerd, not about a mailbox. Tenant may be empty while nobody has signed in. It refuses what would make
// another subject or a wrong identity: a name that is no subject token, an unknown state, and a state without a beginning.
func NewConnectionEvent(tenant string, d ConnectionData) (Event, error) {
	switch {
	case !isLevel(d.Name):
		return Event{}, fmt.Errorf("connection event: the name %q cannot stand in a subject", d.Name)
	case !slices.Contains(ConnectionEvents, d.State):
		return Event{}, fmt.Errorf("connection event of %s: there is no event %q", d.Name, d.State)
	case d.Since.IsZero():
		return Event{}, fmt.Errorf("connection event of %s: nothing says when %s began", d.Name, d.State)
	}
	d.Since = d.Since.UTC()
	data, err := json.Marshal(&d, jsontext.AllowInvalidUTF8(true)) // a stray byte in a reason becomes U+FFFD; refusing would leave the state untold
	if err != nil {
		return Event{}, fmt.Errorf("connection event of %s: %w", d.Name, err)
	}
	if tenant == "" {
		tenant = NoLevel
	}
	return Event{
		ID:   ID(tenant, AreaConnection, d.Name, d.State, d.Since.Format(time.RFC3339Nano)),
		Area: AreaConnection, Name: d.State, Source: Source(tenant, d.Name), Subject: "connections/" + d.Name,
		Time: d.Since, Watch: NoLevel, Mailbox: d.Name, RecordedTime: d.Since, Data: data,
	}, nil
}

// Numbered reports whether the event has a sequence: events of mailboxes do.
func (e *Event) Numbered() bool {
	return e.Area != AreaConnection && e.Area != AreaSubscription && e.Area != AreaWatch
}
