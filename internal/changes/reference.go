package changes

import (
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// keptKeys is how many change keys of an item are remembered, so that notifications out of order are told once.
const keptKeys = 8

// Sighting is one hint that an item changed: Graph's notification, or a look by delta.
type Sighting struct {
	ID        string
	Name      string // event.Created, event.Updated or event.Deleted; anything else counts as updated (W-6)
	ChangeKey string // normalized; empty where there is none (W-9b)
	Folder    string // the folder of the feed
	At        time.Time
	Via       event.Via
	Silent    bool // only remember it
}

// Refer names the notification events of a sighting for the watches with content "reference". One version is told once,
// whatever names it comes under (W-16), and a deletion once until the item is seen again (W-9b).
func (m *Mailbox) Refer(known store.Reference, s Sighting, watches []Watch) (next store.Reference, fresh bool, events []*event.Event) {
	next = known
	next.SeenAt = s.At
	if s.Name == event.Deleted {
		if !known.GoneAt.IsZero() {
			return next, false, nil
		}
		next.GoneAt = s.At
	} else {
		if slices.Contains(known.Keys, s.ChangeKey) {
			return next, false, nil
		}
		next.GoneAt = time.Time{}
		next.Keys = append(slices.Clone(known.Keys), s.ChangeKey)
		if len(next.Keys) > keptKeys {
			next.Keys = next.Keys[len(next.Keys)-keptKeys:]
		}
		if s.Name != event.Created {
			s.Name = event.Updated
		}
	}
	if s.Silent {
		return next, true, nil
	}
	if s.ChangeKey == "" && len(known.Keys) > 0 {
		s.ChangeKey = known.Keys[len(known.Keys)-1]
	}
	for i := range watches {
		w := &watches[i]
		if w.Content == event.ContentReference && w.Folders[s.Folder] && w.Events[s.Name] {
			events = append(events, m.reference(s, w))
		}
	}
	return next, true, events
}

func (m *Mailbox) reference(s Sighting, w *Watch) *event.Event {
	e := &event.Event{
		Area: event.AreaNotification, Name: s.Name,
		Source:  event.Source(m.Tenant, w.Token),
		Subject: "messages/" + s.ID,
		Time:    s.At,
		Watch:   w.Name, Mailbox: w.Token, Via: s.Via,
		RecordedTime: s.At,
	}
	// The change key and not the name identifies it: "created" and "updated" of one version are one change (W-16).
	kind := "changed"
	if s.Name == event.Deleted {
		kind = event.Deleted
	}
	e.ID = event.ID(m.Tenant, w.Name, w.Token, s.ID, event.AreaNotification, kind, s.ChangeKey)
	e.Data = marshal(event.Data{
		Mailbox: event.Mailbox{ID: m.UserID, Alias: w.Alias},
		Item:    event.Item{ID: s.ID, ChangeKey: s.ChangeKey, Folder: m.folder(s.Folder)},
	})
	return e
}
