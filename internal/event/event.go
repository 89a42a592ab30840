// Package event holds the words of what triggerd publishes: the event with its CloudEvents attributes, the normalized
// message or meeting it tells about, its deterministic id, and its JSON Schema. It is a leaf: everybody may import it.
package event

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Areas of events.
const (
	AreaMail         = "mail"
	AreaNotification = "notification" // content "reference": Graph's notification as it came, nothing read
)

// Names of mail events.
const (
	Received    = "received"
	Sent        = "sent"
	Draft       = "draft"
	Read        = "read"
	Unread      = "unread"
	Flagged     = "flagged"
	Categorized = "categorized"
	Moved       = "moved"
	Deleted     = "deleted"
	Updated     = "updated"
)

// Created is a name of notification and calendar events, beside Updated and Deleted.
const Created = "created"

// MailEvents lists the names of mail events in the order of the documentation.
var MailEvents = []string{Received, Sent, Draft, Read, Unread, Flagged, Categorized, Moved, Deleted, Updated}

// NotificationEvents lists the names of notification events.
var NotificationEvents = []string{Created, Updated, Deleted}

// Via tells by which path a change was seen. It is not part of an event's identity.
type Via string

// The paths.
const (
	ViaPush   Via = "push"   // announced by a notification
	ViaPoll   Via = "poll"   // found by a delta round that nobody announced
	ViaTrueUp Via = "trueup" // found by a full enumeration
	ViaStart  Via = "start"  // older than the watch, published because of its start setting
	ViaReplay Via = "replay"
)

// Event is one normalized change, as it lies in the outbox and as it is published. Its fields are the CloudEvents 1.0
// attributes and extensions of the same names; Data is the JSON payload.
type Event struct {
	ID           string         `json:"id"`
	Area         string         `json:"area"`
	Name         string         `json:"name"`
	Source       string         `json:"source"`  // urn:triggerd:<tenant id>:<mailbox>
	Subject      string         `json:"subject"` // messages/<id> or events/<id>
	Time         time.Time      `json:"time"`    // when it happened in the mailbox, as far as Graph tells; UTC
	Watch        string         `json:"watch"`
	Mailbox      string         `json:"mailbox"` // the mailbox's token in NATS subjects
	Via          Via            `json:"via"`
	Sequence     uint64         `json:"sequence,omitzero"` // from 1, without gaps, per watch and mailbox; set by the store
	Epoch        string         `json:"epoch,omitzero"`    // set by the store
	RecordedTime time.Time      `json:"recordedtime"`
	ReplayOf     string         `json:"replayof,omitzero"`
	Data         jsontext.Value `json:"data,omitzero"`
}

// Type is the CloudEvents type, for example "io.triggerd.mail.received.v1".
func (e *Event) Type() string { return "io.triggerd." + e.Area + "." + e.Name + ".v1" }

// DataSchema names the JSON Schema of Data; `triggerd schema` prints it.
func (e *Event) DataSchema() string { return SchemaID(e.Area) }

// SchemaID is the identifier of the JSON Schema of all events of an area.
func SchemaID(area string) string { return "urn:triggerd:schema:" + area + ":v1" }

// PartitionKey names the stream of events that are published in order and numbered without gaps.
func (e *Event) PartitionKey() string { return e.Watch + "." + e.Mailbox }

// NATSSubject is where the event is published: always five tokens after the prefix.
func (e *Event) NATSSubject(prefix string) string {
	return prefix + "." + e.Watch + "." + e.Mailbox + "." + e.Area + "." + e.Name
}

// TraceParent is a W3C traceparent derived from the id, so that every copy of an event belongs to one trace.
func (e *Event) TraceParent() string {
	id := e.ID
	if len(id) != 32 {
		sum := sha256.Sum256([]byte(id))
		id = hex.EncodeToString(sum[:16])
	}
	return "00-" + id + "-" + id[:16] + "-01"
}

// ID makes the deterministic id of an event from what identifies the change: the same on every path, after every
// restart and in a second instance, never from the time of arrival. It is 32 lower-case hexadecimal digits.
func ID(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		io.WriteString(h, p)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Source is the CloudEvents source of a mailbox's events.
func Source(tenant, mailboxToken string) string { return "urn:triggerd:" + tenant + ":" + mailboxToken }

// MailboxToken is the name of a mailbox without alias in subjects: stable, and without personal data.
func MailboxToken(address string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(address)))
	return "m-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:16])
}
