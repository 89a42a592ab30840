package delta

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// lookAt is what Graph said of one item.
type lookAt struct {
	id   string
	raw  jsontext.Value // whole or partial; nil when the item is gone
	bad  error          // why it cannot be processed; it is parked
	seen *event.Observed
}

// observe turns the items of a page into looks, reading by itself what the page does not tell: items removed from the
// folder (moved or deleted? D-10, D-30) and partial ones that were never seen whole (D-7).
func (r *round) observe(ctx context.Context, items []graph.Item) ([]lookAt, error) {
	merged := make([]lookAt, len(items))
	spreadOver(len(items), func(i int) {
		if it := &items[i]; !it.Removed {
			merged[i] = lookAt{id: it.ID, raw: it.Raw, seen: &event.Observed{}}
			merged[i].bad = merged[i].seen.Merge(it.Raw)
		}
	})
	looks := make([]lookAt, 0, len(items))
	var read []string
	for i := range items {
		it := &items[i]
		if it.Removed {
			if !r.full { // an enumeration finds what left the folder by itself
				read = append(read, it.ID)
				looks = append(looks, lookAt{id: it.ID})
			}
			continue
		}
		if r.full {
			r.seen[digest(it.ID)] = struct{}{}
		}
		l := merged[i]
		if l.bad == nil && !l.seen.Complete() {
			l.seen = nil // partial: laid over what is known when it is applied
			known, err := r.known(it.ID)
			if err != nil {
				return nil, err
			}
			if !known {
				read = append(read, it.ID)
				l.raw = nil
			}
		}
		looks = append(looks, l)
	}
	if len(read) == 0 {
		return looks, nil
	}
	if err := r.readItems(ctx, read); err != nil {
		return nil, err
	}
	for i := range looks {
		if l := &looks[i]; l.raw == nil && l.bad == nil {
			*l = r.single(l.id)
		}
	}
	return looks, nil
}

// known reports whether a whole look at an item is stored.
func (r *round) known(id string) (ok bool, err error) {
	err = r.f.mb.room.st.View(func(tx *store.Tx) error {
		it, found, err := tx.Item(r.rec.Mailbox, id)
		ok = found && it.GoneAt.IsZero() && it.Level >= r.content
		if errors.Is(err, store.ErrDamaged) {
			ok, err = false, nil
		}
		return err
	})
	return ok, err
}

// lookUp reads items by themselves.
func (r *round) lookUp(ctx context.Context, ids []string) ([]lookAt, error) {
	if err := r.readItems(ctx, ids); err != nil {
		return nil, err
	}
	looks := make([]lookAt, 0, len(ids))
	for _, id := range ids {
		looks = append(looks, r.single(id))
	}
	return looks, nil
}

// readItems reads messages by themselves.
func (r *round) readItems(ctx context.Context, ids []string) error {
	mb, sel := r.f.mb, event.Select(r.content)
	return r.singly(ctx, ids, func(ctx context.Context, id string) (graph.Item, error) {
		return mb.graph.Message(ctx, mb.target.Address, id, sel)
	})
}

func (r *round) single(id string) lookAt {
	raw := r.fetched[id]
	l := lookAt{id: id, raw: raw}
	if raw != nil {
		l.seen = &event.Observed{}
		l.bad = l.seen.Merge(raw)
	}
	return l
}

// finish is what is committed together with the last looks of a round.
type finish struct {
	confirmed []string // items that were just read because delta did not show them; nil: the cursor moves
}

// applied collects what a batch of looks leads to, to be written in one transaction.
type applied struct {
	items  []store.EncodedItem
	events []store.EncodedEvent
	parked []store.Quarantine
	refs   map[string]store.Reference
}

// apply compares looks with what is known, and commits the events, the new states, and with fin the cursor and the
// outcomes of the notifications.
func (r *round) apply(looks []lookAt, fin *finish) error {
	mb := r.f.mb
	mb.apply.Lock()
	defer mb.apply.Unlock()
	states, err := r.load(looks, fin)
	if err != nil {
		return err
	}
	out := applied{refs: map[string]store.Reference{}}
	now := time.Now().UTC()
	if err := r.nameAll(looks, states, &out, now); err != nil {
		return err
	}
	var v verdict
	if fin != nil {
		v = r.pending.judge(sightsOf(states.items, r.f.folder), fin.confirmed, now, mb.room.opts.Lag)
	}
	var again []store.Quarantine
	if fin != nil {
		again = r.f.retried(fin.confirmed)
	}
	var gap []event.Event
	if fin != nil && fin.confirmed == nil {
		gap = r.gapClosed(now, r.events+len(out.events))
	}
	err = mb.room.st.Update(func(tx *store.Tx) error {
		if err := unpark(tx, again); err != nil { // before it is parked again
			return err
		}
		if err := out.write(tx, r.rec.Mailbox); err != nil {
			return err
		}
		if fin == nil {
			return nil
		}
		if err := v.settle(tx); err != nil {
			return err
		}
		for i := range gap {
			if err := tx.AppendEvent(&gap[i]); err != nil {
				return err
			}
		}
		if fin.confirmed != nil && len(v.settled) == 0 {
			return nil
		}
		_, err := tx.UpdateFeed(r.f.num, func(f *store.Feed) {
			if fin.confirmed != nil {
				pushed(f, len(v.settled), now)
				return
			}
			r.advance(f, len(v.settled), now)
		})
		return err
	})
	if err != nil {
		return err
	}
	r.f.tried(again)
	r.events += len(out.events)
	if fin != nil {
		r.open = v.open
		if fin.confirmed == nil {
			r.confirm = append(v.overdue, r.f.retries()...)
			slices.Sort(r.confirm)
			r.confirm = slices.Compact(r.confirm)
		}
		r.pending.drop(v)
	}
	return nil
}

func (a *applied) write(tx *store.Tx, mailbox uint32) error {
	for _, it := range a.items {
		if err := tx.PutItem(mailbox, it); err != nil {
			return err
		}
	}
	for id, ref := range a.refs {
		if err := tx.PutReference(mailbox, id, &ref); err != nil {
			return err
		}
	}
	for _, e := range a.events {
		if err := tx.Append(e); err != nil {
			return err
		}
	}
	for i := range a.parked {
		if err := tx.PutQuarantine(&a.parked[i]); err != nil {
			return err
		}
	}
	return nil
}

// known is what the store says of the items that a batch is about.
type known struct {
	items map[string]*store.Item // absent: never seen
	refs  map[string]store.Reference
}

// load reads the states of the items looked at, and with fin of those that were announced.
func (r *round) load(looks []lookAt, fin *finish) (known, error) {
	k := known{make(map[string]*store.Item, len(looks)), map[string]store.Reference{}}
	err := r.f.mb.room.st.View(func(tx *store.Tx) error {
		get := func(id string) error {
			it, ok, err := tx.Item(r.rec.Mailbox, id)
			if errors.Is(err, store.ErrDamaged) {
				r.f.log.Error().Err(err).Msg("a stored item state is damaged and is read anew")
				return nil
			}
			if ok {
				k.items[id] = &it
			}
			return err
		}
		for i := range looks {
			if err := get(looks[i].id); err != nil {
				return err
			}
			if r.refs {
				ref, err := tx.Reference(r.rec.Mailbox, looks[i].id)
				if err != nil {
					return err
				}
				k.refs[looks[i].id] = ref
			}
		}
		if fin == nil {
			return nil
		}
		for id := range r.pending.byItem {
			if err := get(id); err != nil {
				return err
			}
		}
		return nil
	})
	return k, err
}

// named is what one look leads to.
type named struct {
	item   *store.Item // the new state; nil when nothing changed
	enc    store.EncodedItem
	events []store.EncodedEvent
	ref    *store.Reference
	parked *store.Quarantine
	err    error
}

// nameAll names the events of looks, on all processors where no item is looked at twice, and collects them in order.
func (r *round) nameAll(looks []lookAt, k known, out *applied, now time.Time) error {
	names := make([]named, len(looks))
	distinct := make(map[string]struct{}, len(looks))
	for i := range looks {
		distinct[looks[i].id] = struct{}{}
	}
	parallel := len(distinct) == len(looks)
	if parallel {
		spreadOver(len(looks), func(i int) { names[i] = r.look(&looks[i], k, now) })
	}
	for i := range looks {
		if !parallel { // D-5: the same item several times, each judged by the state after the one before
			names[i] = r.look(&looks[i], k, now)
		}
		if err := r.collect(&looks[i], &names[i], k, out, now); err != nil {
			return err
		}
	}
	return nil
}

// spreadOver calls fn for 0 to n-1, on all processors when there is enough to do.
func spreadOver(n int, fn func(i int)) {
	const chunk = 64
	workers := min(runtime.GOMAXPROCS(0), n/chunk)
	if workers < 2 {
		for i := range n {
			fn(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// look names the events of one look. It changes nothing that other looks see.
func (r *round) look(l *lookAt, k known, now time.Time) (n named) {
	old := k.items[l.id]
	if string(l.raw) == string(errCorrupt) {
		l.bad = graph.ErrCorrupt
	}
	level := r.content
	if l.bad == nil && l.raw != nil && l.seen == nil { // partial (D-7)
		if old == nil {
			return n // known a moment ago, forgotten since; the next round brings it whole
		}
		merged := old.Observed
		l.bad, l.seen, level = merged.Merge(l.raw), &merged, old.Level
	}
	if l.bad != nil {
		r.f.log.Error().Err(l.bad).Str("item", l.id).Msg("item cannot be processed; parked in quarantine")
		n.parked = &store.Quarantine{Feed: r.f.num, Item: l.id, Reason: l.bad.Error(), At: now, Raw: small(l.raw)}
		return n
	}
	look := changes.Look{
		ID: l.id, Old: old, New: l.seen, Level: level, At: now, Via: r.via(r.pending.byItem[l.id] != nil), Baseline: r.rec.BaselinedAt.IsZero(),
		Fresh: r.fresh, NewSince: r.rec.RoundAt.Add(-changes.Slack),
	}
	if r.phase == phaseConfirm {
		look.NewSince = r.f.newSince(l.id, r.rec.RoundAt)
	}
	if look.Baseline && old != nil && l.seen != nil && old.FolderID == l.seen.FolderID && old.SeenAt.Before(r.rec.CreatedAt) {
		look.Old = nil // remembered from a watch that ended: nobody was promised what happened since
	}
	res := r.naming.Name(look, r.watches, func(watch string, err error) {
		r.f.log.Error().Err(err).Str("watch", watch).Msg("filter cannot be evaluated; the event is published")
	})
	if !res.Changed && look.Old == old || l.seen == nil && old == nil {
		return n
	}
	if r.refs {
		var told []*event.Event
		n.ref, told = r.reference(l, old, k, look)
		res.Events = append(res.Events, told...)
	}
	n.item = &res.Item
	n.enc, n.err = store.EncodeItem(l.id, &res.Item)
	for _, e := range res.Events {
		enc, err := store.EncodeEvent(e)
		n.events, n.err = append(n.events, enc), errors.Join(n.err, err)
	}
	return n
}

// collect notes what a look led to, for the commit and in the books.
func (r *round) collect(l *lookAt, n *named, k known, out *applied, now time.Time) error {
	if n.parked != nil {
		out.parked = append(out.parked, *n.parked)
		r.pending.note(l.id, store.Quarantined)
	}
	if n.err != nil || n.item == nil {
		return n.err
	}
	if l.seen != nil {
		if _, ok := r.naming.Folders[l.seen.FolderID]; !ok {
			r.f.mb.refreshSoon()
		}
	}
	k.items[l.id] = n.item
	out.items = append(out.items, n.enc)
	out.events = append(out.events, n.events...)
	if n.ref != nil {
		k.refs[l.id], out.refs[l.id] = *n.ref, *n.ref
	}
	r.account(l, len(n.events), now)
	return nil
}

// reference tells watches with content "reference" what delta saw and no notification told.
func (r *round) reference(l *lookAt, old *store.Item, k known, look changes.Look) (*store.Reference, []*event.Event) {
	s := changes.Sighting{ID: l.id, Folder: r.f.folder, At: look.At, Via: look.Via, Silent: look.Baseline}
	switch {
	case l.seen == nil || l.seen.FolderID != r.f.folder:
		if old == nil || old.FolderID != r.f.folder {
			return nil, nil
		}
		s.Name, s.ChangeKey = event.Deleted, old.ChangeKey
	case old == nil || old.FolderID != r.f.folder:
		s.Name, s.ChangeKey = event.Created, l.seen.ChangeKey
		if s.Silent && event.ParseTime(l.seen.Message.ReceivedDateTime).After(r.rec.CreatedAt) {
			s.Silent = false
		}
	default:
		s.Name, s.ChangeKey = event.Updated, l.seen.ChangeKey
	}
	next, fresh, events := r.naming.Refer(k.refs[l.id], s, r.watches)
	if !fresh {
		return nil, nil
	}
	return &next, events
}

// account keeps the books of a look that changed something: for the notifications that announced it, and for push
// when none did.
func (r *round) account(l *lookAt, events int, now time.Time) {
	if events > 0 {
		r.pending.note(l.id, store.Published)
	} else {
		r.pending.note(l.id, store.Filtered)
	}
	if events > 0 && r.pending.byItem[l.id] == nil && l.seen != nil {
		r.late(l.seen.LastModified, now)
	}
}

// small keeps what is short enough to be parked.
func small(raw []byte) []byte {
	if len(raw) > 64<<10 {
		return nil
	}
	return raw
}
