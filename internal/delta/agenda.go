package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// agendaRound is one pass over a calendar. Other than a mail folder's it is collected as a whole before anything is
// compared, since what became of the dates of a series shows only in what is missing (D-36d); a window bounds its size.
type agendaRound struct {
	reading
	agenda   *changes.Agenda
	from, to time.Time // the window

	collected bool
	order     []string                            // ids as they came
	looks     map[string]*event.ObservedMeeting   // by id; of several the last one counts (D-5)
	removed   map[string]bool                     // ids told as removed
	parked    map[string]store.Quarantine         // what cannot be processed
	direct    []string                            // to be read by themselves
	single    map[string]*event.ObservedMeeting   // what was read by itself; nil: gone, or parked
	states    *states                             // what was known, once collected
	dates     map[string][]*event.ObservedMeeting // looks by series, once collected
}

// beginCalendar decides what kind of round a calendar needs.
func (f *feed) beginCalendar(rec store.Feed, now time.Time) (*agendaRound, error) {
	w := f.wanted.Load()
	read, err := f.read(rec, w.outgrown(&rec, now), f.inbox(), now)
	r := &agendaRound{
		reading: read, agenda: f.agenda(), from: rec.WindowStart, to: rec.WindowEnd,
		looks: map[string]*event.ObservedMeeting{}, removed: map[string]bool{}, parked: map[string]store.Quarantine{}, single: map[string]*event.ObservedMeeting{}, direct: f.directs(),
	}
	if r.full {
		r.from = now.Add(-r.past).UTC().Truncate(time.Minute)
		r.to = now.Add(r.future + r.slideEvery(f.mb.room.opts.TrueUp)).UTC().Truncate(time.Minute)
	}
	return r, err
}

// directs lists what is to be read by itself: announced and not shown, or parked and to be tried again.
func (f *feed) directs() []string {
	f.mu.Lock()
	ids := slices.Collect(maps.Keys(f.direct))
	f.mu.Unlock()
	ids = append(ids, f.retries()...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// vanished turns the round into one that found nothing: every known item is then looked up by itself.
func (r *agendaRound) vanished() {
	r.folderGone, r.full, r.collected, r.cursor = true, true, true, ""
	clear(r.looks)
	clear(r.removed)
}

// step goes one page, or one batch of single reads, further. With the last of them everything is committed.
func (r *agendaRound) step(ctx context.Context) (done bool, err error) {
	if !r.collected {
		return false, r.page(ctx)
	}
	if r.states == nil {
		if r.states, err = r.load(); err != nil {
			return false, err
		}
		r.dates = r.group()
	}
	if ids := r.unread(); len(ids) > 0 {
		return false, r.readMeetings(ctx, ids[:min(len(ids), 100)])
	}
	return true, r.commit()
}

// page collects one page.
func (r *agendaRound) page(ctx context.Context) error {
	mb := r.f.mb
	req := graph.CalendarViewRequest{Mailbox: mb.target.Address, Calendar: r.f.folder, Start: r.from, End: r.to, Link: r.link, PageSize: r.pageSize}
	if r.agenda.Calendar.IsDefault {
		req.Calendar = "" // documented for v1.0; for other calendars their own path is (D-34)
	}
	page, err := mb.graph.CalendarViewDelta(ctx, req)
	if err != nil {
		return err
	}
	if page.Next != "" {
		if err := r.remember(page.Next); err != nil {
			return err
		}
	}
	read := make([]lookAtMeeting, len(page.Items))
	spreadOver(len(read), func(i int) {
		if it := &page.Items[i]; !it.Removed {
			read[i] = readMeeting(it.Raw)
		}
	})
	for i := range page.Items {
		r.collect(&page.Items[i], read[i])
	}
	r.pages++
	r.items += len(page.Items)
	r.link, r.cursor, r.collected = page.Next, page.Delta, page.Next == ""
	return nil
}

// lookAtMeeting is what Graph said of one item, or why that cannot be processed.
type lookAtMeeting struct {
	seen *event.ObservedMeeting
	bad  error
}

func readMeeting(raw []byte) lookAtMeeting {
	if string(raw) == string(errCorrupt) {
		return lookAtMeeting{bad: graph.ErrCorrupt}
	}
	o := &event.ObservedMeeting{}
	return lookAtMeeting{o, o.Merge(raw)}
}

// collect takes one item of a page.
func (r *agendaRound) collect(it *graph.Item, l lookAtMeeting) {
	if it.Removed {
		delete(r.looks, it.ID)
		r.removed[it.ID] = true
		return
	}
	delete(r.removed, it.ID)
	if o := r.observe(it.ID, it.Raw, l); o != nil {
		r.looks[it.ID] = o
		r.order = append(r.order, it.ID)
	}
}

// observe takes what was read of an item; nil when it cannot be processed, and is parked.
func (r *agendaRound) observe(id string, raw []byte, l lookAtMeeting) *event.ObservedMeeting {
	if l.bad != nil {
		if _, again := r.parked[id]; !again {
			r.f.log.Error().Err(l.bad).Str("item", id).Msg("item cannot be processed; parked in quarantine")
		}
		r.parked[id] = store.Quarantine{Feed: r.f.num, Item: id, Reason: l.bad.Error(), At: time.Now().UTC(), Raw: small(raw)}
		return nil
	}
	o := l.seen
	delete(r.parked, id)
	o.ID = id
	if r.content < event.ContentBody {
		o.Meeting.Body = nil
	}
	switch m := &o.Meeting; {
	case o.Stub && m.OriginalStart == "": // one that was moved by itself comes whole
		m.OriginalStart = m.Start.DateTime
	case m.IsAllDay && m.OriginalStart != "":
		m.OriginalStart = midnight(m.OriginalStart, m.Start.TimeZone)
	}
	return o
}

// midnight is the day of a series' date at 00:00 UTC, as the stubs of all-day series have it (M-6), also where it is told
// as midnight in the zone of the series.
func midnight(original, zone string) string {
	t := event.ParseTime(original)
	if loc, err := event.LoadZone(zone); err == nil && t.In(loc).Truncate(time.Hour).Hour() == 0 {
		y, m, d := t.In(loc).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
	}
	return t.Truncate(24 * time.Hour).Format(time.RFC3339)
}

// readMeetings reads items by themselves, by way of their calendar: of a shared one that is the only way (D-36c).
func (r *agendaRound) readMeetings(ctx context.Context, ids []string) error {
	mb := r.f.mb
	err := r.singly(ctx, ids, func(ctx context.Context, id string) (graph.Item, error) {
		it, err := mb.graph.Event(ctx, mb.target.Address, r.f.folder, id)
		if err != nil && ctx.Err() == nil && r.f.givesUp(id, err) {
			err = fmt.Errorf("%w: %w", graph.ErrCorrupt, err)
		}
		return it, err
	})
	for id, raw := range r.fetched {
		r.single[id] = nil
		if raw != nil {
			r.single[id] = r.observe(id, raw, readMeeting(raw))
		}
	}
	clear(r.fetched)
	return err
}

// givesUp counts how often an item could not be read by itself, and says when that is enough: it is then parked, and the
// rest of the calendar goes on. What passes by itself, or is about more than the item, does not count.
func (f *feed) givesUp(id string, err error) bool {
	limit := 0
	switch {
	case errors.Is(err, graph.ErrMailboxUnavailable):
	case errors.Is(err, graph.ErrForbidden), errors.Is(err, graph.ErrBadRequest):
		limit = 3
	case errors.Is(err, graph.ErrUnavailable) && !errors.Is(err, graph.ErrThrottled):
		limit = 12 // some 20 minutes
	}
	if limit == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.refused = map[string]int{}
	}
	f.refused[id]++
	return f.refused[id] >= limit
}

// seriesState is what was known of a series, or of a single item, which is one without dates.
type seriesState struct {
	master *store.Meeting
	dates  map[string]*store.Meeting // by original start
}

// observed is the last look at the series; nil when there was none.
func (s *seriesState) observed() *event.ObservedMeeting {
	if s.master == nil {
		return nil
	}
	return &s.master.ObservedMeeting
}

// states is what was known of everything that a round is about.
type states struct {
	series map[string]*seriesState
	byID   map[string]store.MeetingKey // of dates
}

func (s *states) of(series string) *seriesState {
	if known := s.series[series]; known != nil {
		return known
	}
	return &seriesState{}
}

func (s *states) add(key store.MeetingKey, m *store.Meeting) {
	known := s.series[key.Series]
	if known == nil {
		known = &seriesState{dates: map[string]*store.Meeting{}}
		s.series[key.Series] = known
	}
	if key.Original == "" {
		known.master = m
		return
	}
	known.dates[key.Original] = m
	s.byID[m.ID] = key
}

// seriesOf is the series that a look is about: its own id, or its master's.
func seriesOf(o *event.ObservedMeeting) string {
	if o.Meeting.SeriesMasterID != "" && o.Meeting.InstanceKind != event.SeriesMaster {
		return o.Meeting.SeriesMasterID
	}
	return o.ID
}

// load reads what is known of the series in the round; of everything, in an enumeration, and where something that is
// removed or to be read may be a date of a series that the round does not name.
func (r *agendaRound) load() (*states, error) {
	s := &states{series: map[string]*seriesState{}, byID: map[string]store.MeetingKey{}}
	return s, r.f.mb.room.st.View(func(tx *store.Tx) error {
		keep := func(key store.MeetingKey, read func() (store.Meeting, error)) error {
			m, err := read()
			if err != nil {
				r.f.log.Error().Err(err).Msg("a stored item state is damaged and is read anew")
				return nil
			}
			s.add(key, &m)
			return nil
		}
		if r.full {
			return tx.EachMeeting(r.f.num, "", keep)
		}
		wanted := map[string]bool{}
		for _, o := range r.looks {
			wanted[seriesOf(o)] = true
		}
		for id := range r.removed {
			wanted[id] = true
		}
		for _, id := range r.direct {
			wanted[id] = true
		}
		for id := range r.pending.byItem {
			wanted[id] = true
		}
		for id := range wanted {
			if id == "" {
				continue
			}
			if err := tx.EachMeeting(r.f.num, id, keep); err != nil {
				return err
			}
		}
		if r.strangers(s) {
			return tx.EachMeeting(r.f.num, "", keep)
		}
		return nil
	})
}

// strangers reports whether the round names ids that may be dates of series.
func (r *agendaRound) strangers(s *states) bool {
	strange := func(id string) bool {
		_, date := s.byID[id]
		return id != "" && !date && s.of(id).master == nil && r.looks[id] == nil
	}
	for id := range r.removed {
		if strange(id) {
			return true
		}
	}
	for id := range r.pending.byItem {
		if strange(id) {
			return true
		}
	}
	return slices.ContainsFunc(r.direct, strange)
}

// unread lists what must be read by itself before the round can be compared, in order, each time less: masters that the
// round does not hold or holds in another version (D-36c), what was removed or is missing (D-36d, D-39), and what was
// asked for.
func (r *agendaRound) unread() []string {
	need := map[string]bool{}
	want := func(id string) {
		if _, read := r.single[id]; !read && id != "" {
			need[id] = true
		}
	}
	for _, id := range r.direct {
		want(id)
	}
	for id := range r.removed {
		if key, date := r.states.byID[id]; date && !r.removed[key.Series] || r.states.of(id).master != nil {
			want(id)
		}
	}
	for _, o := range r.looks {
		if id := seriesOf(o); id != o.ID && r.looks[id] == nil && !r.masterServes(id, o) {
			want(id)
		}
	}
	if len(need) > 0 {
		return slices.Sorted(maps.Keys(need)) // what is missing shows only when the masters are known
	}
	for id, known := range r.states.series {
		g := r.dates[id]
		if g == nil {
			if left := r.removed[id] && r.single[id] != nil; !left && (!r.full || !r.expected(known)) {
				continue // removed and there: nothing of it is left in the window
			}
			if _, read := r.single[id]; !read {
				want(id)
				continue // if it is gone, its dates are gone with it
			}
		}
		for _, m := range r.missing(id, known, g) {
			want(m.ID)
		}
	}
	return slices.Sorted(maps.Keys(need))
}

// expected reports whether an enumeration should hold something of what was known of a series.
func (r *agendaRound) expected(known *seriesState) bool {
	if r.inWindow(known.master, known.master) {
		return true
	}
	for _, m := range known.dates {
		if r.inWindow(m, known.master) {
			return true
		}
	}
	return false
}

// masterServes reports whether the stored master of an item is the version that the item was told with.
func (r *agendaRound) masterServes(id string, o *event.ObservedMeeting) bool {
	m := r.states.of(id).master
	return m != nil && (!o.Stub || m.ChangeKey == o.ChangeKey)
}

// group sorts the looks by series: the dates of each, and an entry for the series itself.
func (r *agendaRound) group() map[string][]*event.ObservedMeeting {
	out := make(map[string][]*event.ObservedMeeting, len(r.looks))
	for _, o := range r.looks {
		id := seriesOf(o)
		if id == o.ID {
			if out[id] == nil {
				out[id] = []*event.ObservedMeeting{}
			}
			continue
		}
		out[id] = append(out[id], o)
	}
	return out
}

// now is a series or a single item as it is; nil when the round says nothing of it, or it is gone.
func (r *agendaRound) now(id string) *event.ObservedMeeting {
	if o := r.looks[id]; o != nil {
		return o
	}
	return r.single[id]
}

// isGone reports whether Graph no longer has a series or a single item.
func (r *agendaRound) isGone(id string) bool {
	o, read := r.single[id]
	_, parked := r.parked[id]
	return read && o == nil && !parked && r.looks[id] == nil
}

// inWindow reports whether what was known takes place in the window that the round reads. A master has no date of its own.
func (r *agendaRound) inWindow(m, master *store.Meeting) bool {
	if m == nil || m.Meeting.InstanceKind == event.SeriesMaster {
		return false
	}
	o := &m.ObservedMeeting
	if master != nil {
		o = changes.Fill(o, &master.ObservedMeeting)
	}
	return changes.Overlaps(o, r.from, r.to)
}

// missing lists the dates that were known and are not among what the round holds of their series, unless the series as a
// whole is at other times now or is gone: then they merely follow.
func (r *agendaRound) missing(id string, known *seriesState, dates []*event.ObservedMeeting) (out []*store.Meeting) {
	if _, parked := r.parked[id]; parked || known.master == nil || len(known.dates) == 0 {
		return nil // whether the series was moved is not known of one that cannot be read
	}
	if changes.Retimed(known.observed(), r.now(id)) || r.isGone(id) {
		return nil
	}
	told := map[string]bool{}
	for _, o := range dates {
		told[r.keyOf(o).Original] = true
	}
	for original, m := range known.dates {
		if !told[original] && r.inWindow(m, known.master) {
			out = append(out, m)
		}
	}
	return out
}

// keyOf is where the state of a look is kept: by when its series has it (M-4a). One that was moved by itself and whose
// original start is told otherwise than its date was, is known by its id.
func (r *agendaRound) keyOf(o *event.ObservedMeeting) store.MeetingKey {
	key := store.MeetingKey{Series: seriesOf(o)}
	if key.Series == o.ID {
		return key
	}
	if key.Original = o.Meeting.OriginalStart; key.Original == "" {
		key.Original = changes.Instant(o.Meeting.Start, time.UTC).Format(time.RFC3339)
	}
	if o.Stub {
		return key
	}
	known := r.states.of(key.Series)
	was, ok := r.states.byID[o.ID]
	if ok && was.Series == key.Series && known.dates[key.Original] == nil && !changes.Retimed(known.observed(), r.now(key.Series)) {
		return was
	}
	return key
}
