package event

import (
	"time"

	"github.com/go-json-experiment/json"
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
	Name    string    `json:"name"`
	Cloud   string    `json:"cloud"`
	Auth    string    `json:"auth"`             // app or delegated
	State   string    `json:"state"`            // also the event's name
	Since   time.Time `json:"since"`            // when the state began; UTC
	Reason  string    `json:"reason,omitzero"`  // in words
	Remedy  string    `json:"remedy,omitzero"`  // what to do, and who
	Missing []string  `json:"missing,omitzero"` // permissions that are needed and not granted
}

// NewConnectionEvent makes the event of a connection's new state. Such events have no sequence and no epoch: they are
// about triggerd, not about a mailbox. Tenant may be empty while nobody has signed in.
func NewConnectionEvent(tenant string, d ConnectionData) (Event, error) {
	data, err := json.Marshal(&d)
	if err != nil {
		return Event{}, err
	}
	if tenant == "" {
		tenant = NoLevel
	}
	return Event{
		ID:   ID(tenant, AreaConnection, d.Name, d.State, d.Since.UTC().Format(time.RFC3339Nano)),
		Area: AreaConnection, Name: d.State, Source: Source(tenant, d.Name), Subject: "connections/" + d.Name,
		Time: d.Since.UTC(), Watch: NoLevel, Mailbox: d.Name, RecordedTime: d.Since.UTC(), Data: data,
	}, nil
}

// Numbered reports whether the event has a sequence: events of mailboxes do.
func (e *Event) Numbered() bool { return e.Area != AreaConnection }
