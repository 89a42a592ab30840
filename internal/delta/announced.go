package delta

import (
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// announcements are the accepted notifications of a feed that a round must account for.
type announcements struct {
	byItem map[string]*announced
}

// announced is what was accepted for one item, oldest first, and what the round saw of it.
type announced struct {
	entries []store.Entry
	outcome store.Outcome // of the looks of this round; empty when nothing changed
}

// announced reads what was accepted for a feed and is not settled.
func (r *Room) announced(feed uint32) (*announcements, error) {
	a := &announcements{byItem: map[string]*announced{}}
	if feed == 0 || !r.st.HasPending(feed) {
		return a, nil
	}
	return a, r.st.View(func(tx *store.Tx) error {
		entries, err := tx.Pending(feed, maxPending)
		for _, e := range entries {
			it := a.byItem[e.Item]
			if it == nil {
				it = &announced{}
				a.byItem[e.Item] = it
			}
			it.entries = append(it.entries, e)
		}
		return err
	})
}

// note records what a look at an item led to; the weightiest of several counts.
func (a *announcements) note(id string, o store.Outcome) {
	if it := a.byItem[id]; it != nil && it.outcome != store.Published {
		it.outcome = o
	}
	if it := a.byItem[""]; it != nil && it.outcome != store.Published { // a notification that named no item
		it.outcome = o
	}
}

func (a *announcements) drop(v verdict) {
	for _, s := range v.settled {
		it := a.byItem[s.entry.Item]
		if it == nil {
			continue
		}
		if len(it.entries) == 1 {
			delete(a.byItem, s.entry.Item)
			continue
		}
		it.entries = it.entries[1:]
	}
}

// only are those that something can be said of: seen, read directly, or noted.
func (a *announcements) only(sights map[string]sight, direct []string) *announcements {
	out := &announcements{byItem: map[string]*announced{}}
	for id, it := range a.byItem {
		if _, seen := sights[id]; seen || id == "" || it.outcome != "" || slices.Contains(direct, id) {
			out.byItem[id] = it
		}
	}
	return out
}

type settlement struct {
	entry   store.Entry
	outcome store.Outcome
}

// verdict is what a round says of the notifications.
type verdict struct {
	settled []settlement
	open    bool     // some were not shown by delta yet
	overdue []string // and were announced long enough ago to be read directly
}

func (v *verdict) settle(tx *store.Tx) error {
	for _, s := range v.settled {
		if err := tx.Settle(s.entry, s.outcome); err != nil {
			return err
		}
	}
	return nil
}

// judge decides which notifications are accounted for by what is known now.
//
// Change keys have no order that is documented, so a version that was not seen is taken for an older one only when a
// notification accepted later is satisfied, or when the item was read directly after it was announced.
func (a *announcements) judge(sights map[string]sight, confirmed []string, now time.Time, lag time.Duration) (v verdict) {
	direct := map[string]bool{}
	for _, id := range confirmed {
		direct[id] = true
	}
	for id, it := range a.byItem {
		state := sights[id]
		upTo := -1 // entries up to this one are accounted for
		for i := range it.entries {
			if id == "" || direct[id] || it.outcome == store.Quarantined || satisfied(&it.entries[i], state, it) {
				upTo = i
			}
		}
		for i := range upTo + 1 {
			v.settled = append(v.settled, settlement{it.entries[i], it.verdict(i, upTo, state)})
		}
		if upTo+1 == len(it.entries) {
			continue
		}
		if now.Sub(it.entries[upTo+1].At) >= lag {
			v.overdue = append(v.overdue, id)
		} else {
			v.open = true
		}
	}
	return v
}

// sight is what is known now of an item that was announced; the zero value when nothing is.
type sight struct {
	known     bool
	here      bool // in what the feed reads
	changeKey string
}

// sightsOf are what is known of messages, for a folder.
func sightsOf(items map[string]*store.Item, folder string) map[string]sight {
	out := make(map[string]sight, len(items))
	for id, it := range items {
		out[id] = sight{true, it.GoneAt.IsZero() && it.FolderID == folder, it.ChangeKey}
	}
	return out
}

// satisfied reports whether what a notification announces is seen in what is known.
func satisfied(e *store.Entry, s sight, it *announced) bool {
	switch {
	case e.Change == event.Deleted:
		return !s.here
	case !s.known:
		return false
	case e.ChangeKey == "": // no etag: any look that changed something will do
		return it.outcome != ""
	}
	return s.changeKey == e.ChangeKey
}

// verdict is the outcome of the ith of the entries that are accounted for, last being the latest of them.
func (it *announced) verdict(i, last int, s sight) store.Outcome {
	if i < last && (it.entries[i].ChangeKey != it.entries[last].ChangeKey || it.entries[i].Change == event.Deleted) {
		return store.Superseded
	}
	if i < last {
		return store.Duplicate
	}
	switch {
	case it.outcome != "":
		return it.outcome
	case !s.known:
		return store.Gone
	case it.entries[i].ChangeKey != "" && s.changeKey != it.entries[i].ChangeKey && it.entries[i].Change != event.Deleted:
		return store.Superseded
	}
	return store.Duplicate
}
