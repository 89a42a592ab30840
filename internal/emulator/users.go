package emulator

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// User is a mailbox owner: a person, or a shared mailbox, which Graph addresses the same way (S-29).
type User struct {
	ID      string // GUID
	Address string
}

// Access tells how Graph answers for a mailbox.
type Access int

// What may be wrong with a mailbox.
const (
	Allowed    Access = iota
	Denied            // outside the application access policy: 403 ErrorAccessDenied (N-16)
	Unlicensed        // no mailbox, soft-deleted, on-premises: 404 MailboxNotEnabledForRESTAPI (N-17)
)

var (
	errNoUser    = errors.New("no such user")
	errNoMessage = errors.New("no such message")
	errNoFolder  = errors.New("no such folder")
)

// user is a mailbox. Guarded by Server.mu.
type user struct {
	id, address string
	tag         uint64   // in its messages' ids
	replica     [16]byte // in its change keys
	version     uint64   // of the last change; only grows
	access      Access
	messages    []*message // by number; a deleted one stays as a tombstone
	folders     map[string]*folder
	wellKnown   map[string]*folder
	folderLog   []folderEntry
	subs        map[string]*subscription
	calendars   []*calendar // by number; the default one first
	meetings    []*meeting  // by number; a deleted one stays as a tombstone
	zone        string      // of the mailbox settings

	inFlight, maxInFlight int
	requests              window

	sharedWith  map[*user]bool // who may read it with Full Access
	personal    bool           // a personal Microsoft account
	challenge   string         // claims that tokens must have been asked for with
	interaction bool           // refreshes end in interaction_required
}

// AddUser makes a mailbox with its well-known folders. A second one with the same address is the first.
func (s *Server) AddUser(address string) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.byName[strings.ToLower(address)]; u != nil {
		return User{ID: u.id, Address: u.address}
	}
	u := &user{
		id: s.guid(), address: address, tag: s.rng.Uint64(), version: 0x1000 + uint64(s.rng.IntN(1<<24)),
		folders: map[string]*folder{}, wellKnown: map[string]*folder{}, subs: map[string]*subscription{},
		requests: window{length: 10 * time.Minute, limit: 10_000}, // H-2
	}
	s.fill(u.replica[:])
	// Every change key of every mailbox holds `+` and `/`, so that nobody takes it for the URL-safe alphabet.
	copy(u.replica[1:], []byte{0xFB, 0xEF, 0xFF})
	s.users = append(s.users, u)
	s.byName[u.id], s.byName[strings.ToLower(address)] = u, u
	s.addWellKnown(u)
	u.zone = "UTC"
	u.addCalendar("Calendar")
	return User{ID: u.id, Address: u.address}
}

// Users lists the mailboxes in the order they were made.
func (s *Server) Users() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]User, len(s.users))
	for i, u := range s.users {
		out[i] = User{ID: u.id, Address: u.address}
	}
	return out
}

// SetAccess changes how Graph answers for a mailbox.
func (s *Server) SetAccess(user string, a Access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return err
	}
	u.access = a
	return nil
}

// find looks a mailbox up by address or id. mu is held.
func (s *Server) find(user string) (*user, error) {
	if u := s.byName[strings.ToLower(user)]; u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("%w: %q", errNoUser, user)
}
