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
	Connections map[string]Connection
	Watches     []Watch // by name
}

// Connection is one identity that may read Graph.
type Connection struct {
	Name             string
	Cloud            Cloud
	Tenant           string
	ClientID         string
	ClientSecretFile string
}

// Watch is what the operator declares.
type Watch struct {
	Name       string
	Connection string
	Mailboxes  []Mailbox
	Mail       Mail
	When       *Filter // nil: all
	Content    event.Content
	Delivery   Delivery
	Start      Start
}

// Mailbox is one mailbox of a watch.
type Mailbox struct {
	Address string // SMTP address, UPN or Graph user id
	Alias   string // "" when none was given
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// IsID reports whether the mailbox is named by its Graph user id.
func (m Mailbox) IsID() bool { return guid.MatchString(m.Address) }

// Token is the mailbox in subjects: its alias, its user id, or a digest of its address.
func (m Mailbox) Token() string {
	switch {
	case m.Alias != "":
		return m.Alias
	case m.IsID():
		return m.Address
	}
	return event.MailboxToken(m.Address)
}

// Mail says which folders and events of a mailbox are wanted.
type Mail struct {
	Folders []FolderRef
	Events  []string
}

// FolderRef names folders: a well-known name, an id, a path with "/", or "all".
type FolderRef struct {
	Name    string
	Exclude bool // written with a leading "!"
}

// Delivery is how changes of a watch are noticed.
type Delivery string

// The ways.
const (
	DeliveryAuto Delivery = "auto" // push where it works, polling where it does not
	DeliveryPush Delivery = "push" // the same, and the configuration is refused where push cannot work
	DeliveryPoll Delivery = "poll" // never a subscription
)

// Start says which of the mail that is there already is published.
type Start struct {
	Back time.Duration // what arrived up to so long ago
	All  bool
}

// Load reads and checks a watch file. The error joins all mistakes.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("watch file: %w: write one, or name another in %s_CONFIG", err, prefix)
	}
	return Parse(filepath.Base(path), data)
}
