// Package changes turns looks at an item into named events: it compares what Graph says now with what was known, and
// names the difference for each watch. It is pure: no clock, no network, no file, so that the same looks give the same
// events with the same ids on every path.
package changes

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Slack is how much older than the last completed round an item may be and still count as new: delta lags behind the
// mailbox (T-3), and clocks differ.
const Slack = 5 * time.Minute

// Filter decides whether a watch wants an event.
type Filter interface {
	Match(name string, m *event.Message, f *event.Folder) (bool, error)
	MatchMeeting(name string, m *event.Meeting, c *event.Calendar) (bool, error)
}

// Watch is one watch over one mailbox, with its folders resolved.
type Watch struct {
	Name    string
	Token   string // the mailbox in subjects
	Alias   string
	Content event.Content
	Events  map[string]bool // names that the watch wants
	Folders map[string]bool // folder ids
	Since   time.Time       // what came earlier is not published when a folder is read for the first time
	Joined  time.Time       // when the watch began; what came between Since and Joined is published via "start"
	Filter  Filter          // nil: all

	Past, Future time.Duration   // of a calendar: which meetings, counted from now
	Starting     []time.Duration // how long before a meeting it is told
	Zone         *time.Location  // in which all-day meetings start; nil: the one they were made in
}

// Mailbox is what naming must know of a mailbox.
type Mailbox struct {
	Tenant  string
	UserID  string
	Folders map[string]store.FolderInfo
}

// Look is one observation of an item.
type Look struct {
	ID       string
	Old      *store.Item     // what was known; nil when the item was never seen
	New      *event.Observed // what Graph says now, complete; nil when Graph no longer has the item
	Level    event.Content   // which properties New holds
	At       time.Time       // when it was observed
	Via      event.Via
	Baseline bool            // the folder is read for the first time: what is older than the watch is silent
	Fresh    map[string]bool // watches for which it is, although the item is known
	NewSince time.Time       // outside a baseline: what is later counts as new, what is earlier came from elsewhere
}

// Result is what a look leads to.
type Result struct {
	Item    store.Item // to be stored
	Changed bool       // Item differs from what was stored
	Events  []*event.Event
	Dropped int // events that no watch wanted: not in its list, or its filter said no
}

// Name compares a look with what was known and names the events of every watch (DESIGN section 9). Filter errors are
// given to onFilterError and count as a match: an event too many is better than one lost.
func (m *Mailbox) Name(l Look, watches []Watch, onFilterError func(watch string, err error)) Result {
	r := Result{Item: l.next()}
	r.Changed = l.Old == nil || differs(l.Old, &r.Item)
	if l.New == nil && (l.Old == nil || !l.Old.GoneAt.IsZero()) {
		r.Changed = false
		return r
	}
	for i := range watches {
		w := &watches[i]
		if w.Content == event.ContentReference {
			continue
		}
		for _, n := range m.names(l, w) {
			if !m.wants(l, w, n.name, onFilterError) {
				r.Dropped++
				continue
			}
			r.Events = append(r.Events, m.event(l, w, n))
		}
	}
	return r
}

// next is the state to keep after a look.
func (l *Look) next() store.Item {
	var it store.Item
	switch {
	case l.New != nil:
		it = store.Item{Observed: *l.New, Level: l.Level, SeenAt: l.At}
		it.Message.Body = nil // BodyHash stands for it
	case l.Old != nil:
		it = *l.Old
		it.GoneAt, it.SeenAt = l.At, l.At
	}
	return it
}

// differs reports whether a state is worth writing.
func differs(a, b *store.Item) bool {
	return a.ChangeKey != b.ChangeKey || a.FolderID != b.FolderID || a.Level != b.Level || !a.GoneAt.Equal(b.GoneAt) ||
		a.Message.IsRead != b.Message.IsRead || a.LastModified != b.LastModified || len(diff(a, b, event.ContentBody)) > 0
}

func (m *Mailbox) wants(l Look, w *Watch, name string, onError func(string, error)) bool {
	if !w.Events[name] {
		return false
	}
	if w.Filter == nil {
		return true
	}
	seen := l.New
	if seen == nil {
		seen = &l.Old.Observed
	}
	ok, err := w.Filter.Match(name, &seen.Message, m.folder(seen.FolderID))
	if err != nil {
		onError(w.Name, err)
		return true
	}
	return ok
}

// named is an event before it is dressed.
type named struct {
	name    string
	changed []event.FieldChange
	moved   *event.Move
}

// names decides which events a look means for one watch.
func (m *Mailbox) names(l Look, w *Watch) []named {
	switch {
	case l.New == nil:
		if w.Folders[l.Old.FolderID] && !l.Old.Message.IsDraft {
			return []named{{name: event.Deleted}}
		}
		return nil
	case l.Old == nil || l.Fresh[w.Name]:
		return m.firstSight(l, w)
	case l.New.Message.IsDraft:
		return nil // a draft changed or moved; M-1: autosave is a storm
	case l.Old.Message.IsDraft:
		if w.Folders[l.New.FolderID] {
			return []named{{name: m.arrival(l.New.FolderID)}}
		}
		return nil
	case !l.Old.GoneAt.IsZero(): // it came back
		if !w.Folders[l.New.FolderID] {
			return nil
		}
		return []named{{name: event.Moved, moved: m.move(l.Old.FolderID, l.New.FolderID)}}
	}
	return m.facets(l, w)
}

// arrival is the name of the first sight of a new item in a folder.
func (m *Mailbox) arrival(folder string) string {
	if m.Folders[folder].WellKnown == "sentitems" {
		return event.Sent
	}
	return event.Received
}

func (m *Mailbox) firstSight(l Look, w *Watch) []named {
	if !w.Folders[l.New.FolderID] {
		return nil
	}
	baseline := l.Baseline || l.Fresh[w.Name]
	since := l.NewSince
	if baseline {
		since = w.Since
	}
	isNew := m.later(l.New, since)
	switch {
	case baseline && !isNew:
		return nil
	case l.New.Message.IsDraft:
		return []named{{name: event.Draft}}
	case isNew:
		return []named{{name: m.arrival(l.New.FolderID)}}
	}
	return []named{{name: event.Moved, moved: m.move("", l.New.FolderID)}}
}

// later reports whether an item came into being after since. Graph tells whole seconds: what came in the same second
// counts as later, for it may be, and better an old item is told than a new one lost.
func (m *Mailbox) later(o *event.Observed, since time.Time) bool {
	since = since.Truncate(time.Second)
	after := func(text string) bool { return text != "" && !event.ParseTime(text).Before(since) }
	if m.Folders[o.FolderID].WellKnown == "sentitems" && o.Message.SentDateTime != "" {
		return after(o.Message.SentDateTime)
	}
	return after(o.Message.ReceivedDateTime) || after(o.Message.CreatedDateTime)
}

// facets names what differs between two looks at an item that is known: one facet, one event.
func (m *Mailbox) facets(l Look, w *Watch) (out []named) {
	was, is := w.Folders[l.Old.FolderID], w.Folders[l.New.FolderID]
	if l.Old.FolderID != l.New.FolderID && (was || is) {
		out = append(out, named{name: event.Moved, moved: m.move(l.Old.FolderID, l.New.FolderID)})
	}
	if !is {
		return out
	}
	now := l.next()
	var updated []event.FieldChange
	for _, c := range diff(l.Old, &now, min(w.Content, l.Old.Level, l.Level)) {
		switch c.Field {
		case "isRead":
			name := event.Unread
			if l.New.Message.IsRead {
				name = event.Read
			}
			out = append(out, named{name: name, changed: []event.FieldChange{c}})
		case "flag":
			out = append(out, named{name: event.Flagged, changed: []event.FieldChange{c}})
		case "categories":
			out = append(out, named{name: event.Categorized, changed: []event.FieldChange{c}})
		default:
			updated = append(updated, c)
		}
	}
	if len(updated) > 0 {
		out = append(out, named{name: event.Updated, changed: updated})
	}
	return out
}

// event dresses a name with everything that is published.
func (m *Mailbox) event(l Look, w *Watch, n named) *event.Event {
	seen := l.New
	if seen == nil {
		seen = &l.Old.Observed
	}
	e := &event.Event{
		Area: event.AreaMail, Name: n.name,
		Source:  event.Source(m.Tenant, w.Token),
		Subject: "messages/" + l.ID,
		Time:    happened(n.name, seen, l.At),
		Watch:   w.Name, Mailbox: w.Token, Via: l.Via,
		RecordedTime: l.At,
	}
	if l.Baseline || l.Fresh[w.Name] {
		if !m.later(seen, w.Joined.Add(time.Second)) { // of the same second: as if it had been there
			e.Via = event.ViaStart
		}
	}
	changeKey := seen.ChangeKey
	switch n.name {
	case event.Received, event.Sent, event.Draft:
		// It happens once in an item's life, and two instances may first see it at different versions.
		e.ID = event.ID(m.Tenant, w.Name, w.Token, l.ID, e.Type())
	default:
		e.ID = event.ID(m.Tenant, w.Name, w.Token, l.ID, e.Type(), changeKey)
	}
	msg := seen.Message.At(w.Content)
	e.Data = marshal(event.Data{
		Mailbox: event.Mailbox{ID: m.UserID, Alias: w.Alias},
		Item:    event.Item{ID: l.ID, ChangeKey: changeKey, Folder: m.folder(seen.FolderID), WebLink: seen.WebLink},
		Changed: n.changed, Moved: n.moved, Message: &msg,
	})
	return e
}

// happened is when a change happened in the mailbox, as far as Graph tells; seenAt where it does not.
func happened(name string, o *event.Observed, seenAt time.Time) time.Time {
	var t time.Time
	switch name {
	case event.Received:
		t = event.ParseTime(o.Message.ReceivedDateTime)
	case event.Sent:
		t = event.ParseTime(o.Message.SentDateTime)
	case event.Draft:
		t = event.ParseTime(o.Message.CreatedDateTime)
	case event.Deleted:
	default:
		t = event.ParseTime(o.LastModified)
	}
	if t.IsZero() {
		return seenAt
	}
	return t
}

func (m *Mailbox) move(from, to string) *event.Move {
	mv := &event.Move{To: m.folder(to)}
	if from != "" && from != to {
		mv.From = m.folder(from)
	}
	return mv
}

// folder describes a folder by what is known of it: at least its id.
func (m *Mailbox) folder(id string) *event.Folder {
	info := m.Folders[id]
	return &event.Folder{ID: id, WellKnownName: info.WellKnown, Path: Path(m.Folders, id)}
}

// Path is a folder's display names from the top, joined by "/", a slash inside a name written as "\/". It is empty for
// an unknown folder.
func Path(folders map[string]store.FolderInfo, id string) string {
	path := ""
	for range 64 { // deeper than Exchange allows, and proof against a loop
		f, ok := folders[id]
		if !ok || f.WellKnown == "msgfolderroot" {
			return path
		}
		name := escapeSlash(f.Name)
		if path != "" {
			name += "/"
		}
		path, id = name+path, f.ParentID
	}
	return path
}

func escapeSlash(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == '/' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(out)
}

// marshal encodes what cannot fail to be encoded: our own structs of strings, flags and JSON made here.
func marshal(v any) jsontext.Value {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err)
	}
	return b
}
