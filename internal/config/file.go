package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// File is the watch file, checked.
type File struct {
	Clouds      map[string]Cloud // the built-in ones and the file's own
	Connections map[string]Connection
	Watches     []Watch  // by name
	Warnings    []string // what is allowed and probably not meant; "name:line: what, remedy"
}

// Connection is one identity that may read Graph: an app registration that signs in as itself, or for a user.
type Connection struct {
	Name     string
	Cloud    Cloud
	Tenant   string // directory id, a domain of it, or for a delegated one common, organizations or consumers
	ClientID string // empty for the system-assigned managed identity
	Auth     Auth

	// The credential: one kind at most, and exactly one for AuthApp. The files are read anew when they are used.
	ClientSecretFiles       []string // the newest first, see ReadSecret
	CertificateFile         string   // PEM or PKCS#12
	CertificateKeyFile      string   // PEM; empty: in CertificateFile
	CertificatePasswordFile string   // of PKCS#12; empty: none
	FederatedTokenFile      string
	ManagedIdentity         bool

	ExtraScopes []string // of a delegated one, beside what the watches need
	Unreachable []string // mailboxes that must be out of reach; check --online proves it
}

// Auth is how a connection signs in.
type Auth string

// The ways.
const (
	AuthApp       Auth = "app"       // as itself
	AuthDelegated Auth = "delegated" // for the user who signed in
)

// Watch is what the operator declares.
type Watch struct {
	Name       string // a token of subjects
	Connection string
	Mailboxes  []Mailbox // in the order of the file, each once
	Mail       Mail      // the zero value: none
	Calendar   Calendar  // the zero value: none; at least one of both is there
	When       *Filter   // nil: all
	Content    event.Content
	Delivery   Delivery
	Start      Start
	Canary     time.Duration // an event must come at least so often in each of its mailboxes; 0: none is promised
}

// needsPush says why a watch is nothing without notifications; empty when it can be polled.
func (w Watch) needsPush() string {
	switch {
	case w.Delivery == DeliveryPush:
		return "delivery push"
	case w.Content == event.ContentReference:
		return "content reference"
	}
	return ""
}

// Mailbox is one mailbox of a watch.
type Mailbox struct {
	Address string // SMTP address, UPN or Graph user id
	Alias   string // a token of subjects; "" when none was given
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Me is the mailbox of the user who signed in.
const Me = "me"

// IsMe reports whether it is the signed-in user's own mailbox.
func (m Mailbox) IsMe() bool { return m.Address == Me }

// IsID reports whether the mailbox is named by its Graph user id.
func (m Mailbox) IsID() bool { return guid.MatchString(m.Address) }

// Token is the mailbox in subjects: its alias, its user id, "me", or a digest of its address.
func (m Mailbox) Token() string {
	switch {
	case m.Alias != "":
		return m.Alias
	case m.IsID(), m.IsMe():
		return m.Address
	}
	return event.MailboxToken(m.Address)
}

// Mail says which folders and events of a mailbox are wanted.
type Mail struct {
	Folders []FolderRef // those that leave out come last
	Events  []string    // of event.MailEvents; for content reference of event.NotificationEvents
}

// FolderRef names folders: a well-known name, an id, a path with "/" (a slash in a name is `\/`), or "all".
type FolderRef struct {
	Name    string
	Exclude bool // written with a leading "!"
}

// Calendar says which calendars and events of a mailbox are wanted, and when meetings are about to start.
type Calendar struct {
	Calendars []FolderRef     // "default", a calendar's display name, its id, or "all"; those that leave out come last
	Past      time.Duration   // the window reaches from so long ago
	Future    time.Duration   // to so far ahead
	Events    []string        // of event.CalendarEvents
	Starting  []time.Duration // lead times in whole seconds, each once, the longest first; some if Events has starting, else none
	TimeZone  string          // IANA or Windows name of the zone in which all-day meetings start; empty: the mailbox's own
}

// Delivery is how changes of a watch are noticed.
type Delivery string

// The ways.
const (
	DeliveryAuto Delivery = "auto" // push where it works, polling where it does not
	DeliveryPush Delivery = "push" // the same, and the configuration is refused where push cannot work
	DeliveryPoll Delivery = "poll" // never a subscription
)

// Start says which of the mail and meetings that are there already is published. The zero value is none: from now on.
type Start struct {
	Back time.Duration // what arrived, or was made, up to so long ago
	All  bool
}

// Load reads and checks a watch file and the secrets that it names. The error joins all mistakes.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("watch file: %w: write one, or name another in %sCONFIG", err, prefix)
	}
	return load(filepath.Base(path), filepath.Dir(path), data)
}

// Parse checks a watch file without looking at other files; name stands in messages. The error joins all mistakes, each
// as "name:line: what, remedy". Files with relative names are of the working directory.
func Parse(name string, data []byte) (*File, error) { return load(name, "", data) }
