package emulator

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// root is the well-known name of the folder that holds all others.
const root = "msgfolderroot"

// wellKnownFolders are made for every mailbox. The names work in any locale (S-25).
var wellKnownFolders = []struct{ name, display string }{
	{root, "Top of Information Store"},
	{"inbox", "Inbox"},
	{"drafts", "Drafts"},
	{"sentitems", "Sent Items"},
	{"deleteditems", "Deleted Items"},
	{"junkemail", "Junk Email"},
	{"archive", "Archive"},
	{"outbox", "Outbox"},
	{"conversationhistory", "Conversation History"},
}

// knownNames are all the names of S-25; a mailbox need not have each folder.
var knownNames = []string{
	"archive", "clutter", "conflicts", "conversationhistory", "deleteditems", "drafts", "inbox", "junkemail",
	"localfailures", root, "outbox", "recoverableitemsdeletions", "scheduled", "searchfolders", "sentitems",
	"serverfailures", "syncissues",
}

// folder is guarded by Server.mu.
type folder struct {
	user      *user
	id        string
	parent    *folder
	wellKnown string // lower case; empty for people's own
	name      string
	gone      bool

	// log has an entry for everything that happened in the folder; a place in it is an index plus one. It is what delta
	// rounds walk, and since an item's last entry is known they tell each item once.
	log           []entry
	removed       map[*message]int // place of the removal of items that are not here any more
	total, unread int
	sorted        sortedIndex
}

// entry tells that a message arrived or changed, or left.
type entry struct {
	m     *message
	at    int64 // unix nanoseconds
	moves uint32
	kind  entryKind
}

type entryKind uint8

const (
	present  entryKind = iota
	unspoken           // arrived, and delta tells it only to who starts over (D-30)
	left
)

type folderEntry struct {
	f    *folder
	gone bool
}

// append notes what happened to m here and returns its place.
func (f *folder) append(m *message, kind entryKind) int {
	f.log = append(f.log, entry{m: m, at: time.Now().UnixNano(), moves: m.moves, kind: kind})
	return len(f.log)
}

func (s *Server) addWellKnown(u *user) {
	for _, w := range wellKnownFolders {
		f := &folder{user: u, id: s.folderID(u), wellKnown: w.name, name: w.display, parent: u.wellKnown[root], removed: map[*message]int{}}
		u.folders[f.id], u.wellKnown[w.name] = f, f
		if w.name != root {
			u.folderLog = append(u.folderLog, folderEntry{f: f})
		}
	}
}

// folder looks a folder up by id or well-known name; empty is the inbox.
func (u *user) folder(idOrName string) (*folder, error) {
	if idOrName == "" {
		idOrName = "inbox"
	}
	if f := u.folders[idOrName]; f != nil {
		return f, nil
	}
	if f := u.wellKnown[strings.ToLower(idOrName)]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%w: %q", errNoFolder, idOrName)
}

// children lists the folders directly below f, by name.
func (f *folder) children() []*folder {
	var out []*folder
	for _, c := range f.user.folders {
		if c.parent == f {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *folder) int { return strings.Compare(a.name+a.id, b.name+b.id) })
	return out
}

// messages walks what is in the folder now, oldest change first.
func (f *folder) messages(yield func(*message) bool) {
	for i := range f.log {
		if e := &f.log[i]; e.m.folder == f && e.m.place == i+1 && !yield(e.m) {
			return
		}
	}
}

// AddFolder makes a folder below parent, which is an id or a well-known name; empty is the root.
func (s *Server) AddFolder(user, parent, name string) (folderID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return "", err
	}
	if parent == "" {
		parent = root
	}
	p, err := u.folder(parent)
	if err != nil {
		return "", err
	}
	for _, c := range p.children() {
		if strings.EqualFold(c.name, name) {
			return "", fmt.Errorf("a folder with the specified name already exists: %q", name)
		}
	}
	f := &folder{user: u, id: s.folderID(u), parent: p, name: clean(name), removed: map[*message]int{}}
	u.folders[f.id] = f
	u.folderLog = append(u.folderLog, folderEntry{f: f})
	return f.id, nil
}

// RenameFolder changes what people see; the id stays.
func (s *Server) RenameFolder(user, folderID, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return err
	}
	f, err := u.folder(folderID)
	if err != nil {
		return err
	}
	f.name = clean(name)
	u.folderLog = append(u.folderLog, folderEntry{f: f})
	return nil
}

// DeleteFolder deletes a folder of people's own for good, with all it holds.
func (s *Server) DeleteFolder(user, folderID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return err
	}
	f, err := u.folder(folderID)
	if err != nil {
		return err
	}
	if f.wellKnown != "" {
		return fmt.Errorf("the distinguished folder %q cannot be deleted", f.wellKnown)
	}
	s.dropFolder(f)
	return nil
}

func (s *Server) dropFolder(f *folder) {
	for _, c := range f.children() {
		s.dropFolder(c)
	}
	for m := range f.messages {
		s.remove(m)
	}
	f.gone = true
	delete(f.user.folders, f.id)
	f.user.folderLog = append(f.user.folderLog, folderEntry{f: f, gone: true})
}

// FolderID returns the id of a well-known folder; empty when there is no such user or folder.
func (s *Server) FolderID(user, wellKnown string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return ""
	}
	f := u.wellKnown[strings.ToLower(wellKnown)]
	if f == nil {
		return ""
	}
	return f.id
}
