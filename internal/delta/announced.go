package delta

import (
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

// announced reads what was accepted and is not settled.
func (f *feed) announced() (*announcements, error) {
	a := &announcements{byItem: map[string]*announced{}}
	if !f.mb.room.st.HasPending(f.num) {
		return a, nil
	}
	return a, f.mb.room.st.View(func(tx *store.Tx) error {
		entries, err := tx.Pending(f.num, maxPending)
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
func (a *announcements) judge(states map[string]*store.Item, folder string, fin *finish, now time.Time, lag time.Duration) (v verdict) {
	confirmed := map[string]bool{}
	for _, id := range fin.confirmed {
		confirmed[id] = true
	}
	for id, it := range a.byItem {
		state := states[id]
		upTo := -1 // entries up to this one are accounted for
		for i := range it.entries {
			if id == "" || confirmed[id] || it.outcome == store.Quarantined || satisfied(&it.entries[i], state, it, folder) {
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

// satisfied reports whether what a notification announces is seen in what is known.
func satisfied(e *store.Entry, state *store.Item, it *announced, folder string) bool {
	switch {
	case e.Change == event.Deleted:
		return state == nil || !state.GoneAt.IsZero() || state.FolderID != folder
	case state == nil:
		return false
	case e.ChangeKey == "": // no etag: any look that changed something will do
		return it.outcome != ""
	}
	return state.ChangeKey == e.ChangeKey
}

// verdict is the outcome of the ith of the entries that are accounted for, last being the latest of them.
func (it *announced) verdict(i, last int, state *store.Item) store.Outcome {
	if i < last && (it.entries[i].ChangeKey != it.entries[last].ChangeKey || it.entries[i].Change == event.Deleted) {
		return store.Superseded
	}
	if i < last {
		return store.Duplicate
	}
	switch {
	case it.outcome != "":
		return it.outcome
	case state == nil:
		return store.Gone
	case it.entries[i].ChangeKey != "" && state.ChangeKey != it.entries[i].ChangeKey && it.entries[i].Change != event.Deleted:
		return store.Superseded
	}
	return store.Duplicate
}
