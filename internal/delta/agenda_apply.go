package delta

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// agendaOutcome collects what a round leads to, to be written in one transaction.
type agendaOutcome struct {
	now    time.Time
	put    []store.EncodedMeeting
	drop   []store.MeetingKey
	events []store.EncodedEvent
	alarms []store.Alarm
	sights map[string]sight // by id

	realarm bool                   // of the series at hand: its dates start at other times although they look the same
	single  *event.ObservedMeeting // what it was while it took place once; nil: it did not
}

// commit compares everything that was collected with what was known, and commits the events, the new states, the alarms,
// the cursor, and the outcomes of the notifications that the calendar can account for.
func (r *agendaRound) commit() error {
	mb := r.f.mb
	mb.apply.Lock()
	defer mb.apply.Unlock()
	out := &agendaOutcome{now: time.Now().UTC(), sights: map[string]sight{}}
	for _, id := range r.seriesInOrder() {
		if err := r.nameSeries(id, r.dates[id], out); err != nil {
			return err
		}
	}
	if r.full {
		r.forget(out)
	}
	for id := range r.parked {
		r.pending.note(id, store.Quarantined)
	}
	r.rememberKnown(out)
	v := r.pending.only(out.sights, r.direct).judge(out.sights, r.direct, out.now, mb.room.opts.Lag)
	again := r.f.retried(r.direct)
	gap := r.gapClosed(out.now, len(out.events))
	err := mb.room.st.Update(func(tx *store.Tx) error {
		if err := unpark(tx, again); err != nil { // before it is parked again
			return err
		}
		if err := out.write(tx, r.f.num); err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(r.parked)) {
			q := r.parked[id]
			if err := tx.PutQuarantine(&q); err != nil {
				return err
			}
		}
		for i := range gap {
			if err := tx.AppendEvent(&gap[i]); err != nil {
				return err
			}
		}
		if err := v.settle(tx); err != nil {
			return err
		}
		_, err := tx.UpdateFeed(r.f.num, func(f *store.Feed) { r.advance(f, len(v.settled), out.now) })
		return err
	})
	if err != nil {
		return err
	}
	r.f.tried(again)
	r.f.readThem(r.direct)
	if r.again {
		r.f.ask("series", true)
	}
	r.events += len(out.events)
	r.complete()
	return nil
}

// readThem forgets what was to be read directly and was.
func (f *feed) readThem(ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.refused)
	for _, id := range ids {
		delete(f.direct, id)
	}
}

// seriesInOrder lists the series and single items that the round says something of: as they came, then what was missing.
func (r *agendaRound) seriesInOrder() (out []string) {
	listed := map[string]bool{}
	add := func(id string) {
		if !listed[id] {
			listed[id] = true
			out = append(out, id)
		}
	}
	for _, id := range r.order {
		if o := r.looks[id]; o != nil {
			add(seriesOf(o))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.single)) {
		key, date := r.states.byID[id]
		switch o := r.single[id]; {
		case date:
			add(key.Series)
		case o != nil:
			add(seriesOf(o))
		default:
			add(id)
		}
	}
	return out
}

// nameSeries names the events of a series, or of a single item, which is one without dates.
func (r *agendaRound) nameSeries(id string, dates []*event.ObservedMeeting, out *agendaOutcome) error {
	known, next := r.states.of(id), r.now(id)
	retimed := changes.Retimed(known.observed(), next)
	if retimed && len(known.dates) > 0 && len(dates) == 0 && !r.full && !r.removed[id] {
		// Its master was read by itself. What became of its dates tells an enumeration only.
		r.again = true
		r.direct = slices.DeleteFunc(r.direct, func(asked string) bool { return asked == id })
		return nil
	}
	if next != nil || r.isGone(id) {
		if err := r.name(store.MeetingKey{Series: id}, known.master, next, nil, nil, out); err != nil {
			return err
		}
	}
	was, is := known.observed(), known.observed() // the master
	if next != nil {
		is = next
	}
	out.realarm = retimed || was != nil && next != nil && was.Meeting.IsCancelled && !next.Meeting.IsCancelled
	if was != nil && was.Meeting.InstanceKind == event.SingleInstance {
		out.single = was
	}
	told := map[string]bool{}
	for _, d := range r.datesOf(id, known, dates) {
		if r.isGone(id) && d.look.Stub {
			continue // of a series that is gone
		}
		told[d.key.Original] = true
		if err := r.name(d.key, known.dates[d.key.Original], d.look, was, is, out); err != nil {
			return err
		}
	}
	out.realarm, out.single = false, nil
	if r.isGone(id) || retimed { // the dates merely follow
		for original := range known.dates {
			if !told[original] {
				out.drop = append(out.drop, store.MeetingKey{Series: id, Original: original})
			}
		}
		return nil
	}
	for _, original := range slices.Sorted(maps.Keys(known.dates)) {
		m := known.dates[original]
		if _, read := r.single[m.ID]; !told[original] && read && r.isGone(m.ID) {
			if err := r.name(store.MeetingKey{Series: id, Original: original}, m, nil, was, is, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// date is a look at one date of a series, with where its state is kept.
type date struct {
	key  store.MeetingKey
	look *event.ObservedMeeting
}

// datesOf are the dates of a series that the round holds and those that were read by themselves, by when they were to be.
func (r *agendaRound) datesOf(id string, known *seriesState, dates []*event.ObservedMeeting) []date {
	out := make([]date, 0, len(dates))
	add := func(o *event.ObservedMeeting) { out = append(out, date{r.keyOf(o), o}) }
	for _, o := range dates {
		add(o)
	}
	if len(r.single) > 0 {
		for _, m := range known.dates {
			if o := r.single[m.ID]; o != nil && r.looks[m.ID] == nil && seriesOf(o) == id {
				add(o)
			}
		}
	}
	for _, asked := range r.direct {
		o := r.single[asked]
		if _, was := r.states.byID[asked]; o != nil && !was && o.ID != id && seriesOf(o) == id && r.looks[asked] == nil {
			add(o)
		}
	}
	slices.SortFunc(out, func(a, b date) int { return strings.Compare(a.key.Original, b.key.Original) })
	return out
}

// name names the events of one look.
func (r *agendaRound) name(key store.MeetingKey, old *store.Meeting, next, oldMaster, newMaster *event.ObservedMeeting, out *agendaOutcome) error {
	if old == nil && next == nil {
		return nil
	}
	l := changes.MeetingLook{
		Key: key, Old: old, New: next, OldMaster: oldMaster, NewMaster: newMaster, At: out.now, Baseline: r.rec.BaselinedAt.IsZero(), Fresh: r.fresh,
	}
	id := ""
	if next != nil {
		id = next.ID
	} else {
		id = old.ID
	}
	l.NewSince = r.f.newSince(id, r.rec.RoundAt)
	announced := r.pending.byItem[id] != nil || r.pending.byItem[key.Series] != nil
	l.Via = r.via(announced)
	res := r.agenda.Name(&l, r.watches, func(watch string, err error) {
		r.f.log.Error().Err(err).Str("watch", watch).Msg("filter cannot be evaluated; the event is published")
	})
	changed, err := r.keep(&l, out)
	for _, e := range res.Events {
		enc, encErr := store.EncodeEvent(e)
		out.events, err = append(out.events, enc), errors.Join(err, encErr)
	}
	r.account(&l, id, changed, announced, len(res.Events), out.now)
	seen := sight{known: true, here: next != nil}
	if next != nil {
		seen.changeKey = next.ChangeKey
	} else {
		seen.changeKey = old.ChangeKey
	}
	out.sights[id] = seen
	return err
}

// keep notes the state to be stored, and the alarms that follow from it.
func (r *agendaRound) keep(l *changes.MeetingLook, out *agendaOutcome) (changed bool, err error) {
	if l.New == nil {
		out.drop = append(out.drop, l.Key)
		return true, nil
	}
	if changed = l.Old == nil || changes.DiffersMeeting(&l.Old.ObservedMeeting, l.New); changed {
		state := store.Meeting{ObservedMeeting: *l.New, SeenAt: out.now}
		state.Meeting.Body = nil // BodyHash stands for it
		var enc store.EncodedMeeting
		enc, err = store.EncodeMeeting(l.Key, &state)
		out.put = append(out.put, enc)
	}
	if changed || out.realarm {
		from, late := func(*changes.Watch) time.Time { return r.rec.RoundAt }, out.single == nil || !changes.SameStart(out.single, l.New) // as a single one it was told
		if l.Baseline {
			from, late = func(w *changes.Watch) time.Time { return w.Joined }, false
		}
		out.alarms = append(out.alarms, alarmsOf(r.f.num, l.Key, changes.Fill(l.New, l.NewMaster), r.watches, from, late)...)
	}
	return changed, err
}

// account keeps the books of a look that changed something: for the notifications that announced it, and for push when
// none did.
func (r *agendaRound) account(l *changes.MeetingLook, id string, changed, announced bool, events int, now time.Time) {
	if !changed {
		return
	}
	outcome := store.Filtered
	if events > 0 {
		outcome = store.Published
	}
	r.pending.note(id, outcome)
	if l.Key.Series != id {
		r.pending.note(l.Key.Series, outcome)
	}
	if events > 0 && !announced && l.New != nil && !l.New.Stub {
		r.late(l.New.LastModified, now)
	}
}

// rememberKnown adds what is known of what was announced and this round says nothing of.
func (r *agendaRound) rememberKnown(out *agendaOutcome) {
	for id := range r.pending.byItem {
		if _, looked := out.sights[id]; looked {
			continue
		}
		known := r.states.of(id).master
		if key, date := r.states.byID[id]; date && known == nil {
			series := r.states.of(key.Series)
			if known = series.dates[key.Original]; known.Stub && series.master != nil {
				known = series.master // occurrences share its change key (M-5)
			}
		}
		if known != nil {
			out.sights[id] = sight{true, true, known.ChangeKey}
		}
	}
}

// forget drops what left the window long ago: it is not told of any more.
func (r *agendaRound) forget(out *agendaOutcome) {
	from, to := r.from.Add(-keepUnseen), r.to.Add(keepUnseen)
	for id, known := range r.states.series {
		left := 0
		for original, m := range known.dates {
			if changes.Overlaps(&m.ObservedMeeting, from, to) || out.now.Sub(m.SeenAt) < keepUnseen {
				left++
				continue
			}
			out.drop = append(out.drop, store.MeetingKey{Series: id, Original: original})
		}
		m := known.master
		if m == nil || r.dates[id] != nil || left > 0 || out.now.Sub(m.SeenAt) < keepUnseen {
			continue
		}
		if m.Meeting.InstanceKind == event.SeriesMaster || !changes.Overlaps(&m.ObservedMeeting, from, to) {
			out.drop = append(out.drop, store.MeetingKey{Series: id})
		}
	}
}

func (a *agendaOutcome) write(tx *store.Tx, feed uint32) error {
	for _, key := range a.drop {
		if err := tx.DeleteMeeting(feed, key); err != nil {
			return err
		}
	}
	for _, m := range a.put {
		if err := tx.PutMeeting(feed, m); err != nil {
			return err
		}
	}
	for i := range a.alarms {
		if err := tx.PutAlarm(&a.alarms[i]); err != nil {
			return err
		}
	}
	for _, e := range a.events {
		if err := tx.Append(e); err != nil {
			return err
		}
	}
	return nil
}

// advance moves the feed's record to the end of the round.
func (r *agendaRound) advance(f *store.Feed, settled int, now time.Time) {
	r.reading.advance(f, settled, now)
	f.Content = event.ContentBody // a calendar is always read whole (D-36)
	if r.full {
		f.WindowStart, f.WindowEnd = r.from, r.to
	}
	if r.rec.BaselinedAt.IsZero() {
		f.Alarms = r.alarms
	}
}
