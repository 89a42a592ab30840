package changes

import (
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Agenda is what naming must know of one calendar of a mailbox.
type Agenda struct {
	*Mailbox
	Calendar event.Calendar
}

// MeetingLook is one observation of a calendar item. What the dates-only stub of an occurrence lacks is taken from its
// series master, so occurrences and exceptions need it as it was and as it is.
type MeetingLook struct {
	Key       store.MeetingKey
	Old       *store.Meeting         // what was known; nil when the item was never seen
	New       *event.ObservedMeeting // what Graph says now; nil when Graph no longer has the item
	OldMaster *event.ObservedMeeting // of an occurrence or exception; nil when it was not known
	NewMaster *event.ObservedMeeting
	At        time.Time // when it was observed
	Via       event.Via
	Baseline  bool            // the calendar is read for the first time: what is older than the watch is silent
	Fresh     map[string]bool // watches for which it is, although the item is known
	NewSince  time.Time       // outside a baseline: what is later counts as new
}

// MeetingResult is what a look leads to.
type MeetingResult struct {
	Events  []*event.Event
	Dropped int // events that no watch wanted
}

// Fill gives the stub of an occurrence what it has from its series master (D-36a). What is no stub stays as it is. The
// result shares memory with both.
func Fill(o, master *event.ObservedMeeting) *event.ObservedMeeting {
	if o == nil || !o.Stub || master == nil {
		return o
	}
	out := *master
	out.ID, out.Stub = o.ID, true
	m := &out.Meeting
	m.InstanceKind, m.SeriesMasterID, m.OriginalStart, m.Recurrence = event.Occurrence, master.ID, o.Meeting.OriginalStart, nil
	start, end := o.Meeting.Start, o.Meeting.End
	start.TimeZone, end.TimeZone = m.Start.TimeZone, m.End.TimeZone
	m.Start, m.End = start, end
	if m.IsAllDay { // which a stub does not say
		m.Start, m.End = onlyDate(start), onlyDate(end)
	}
	return &out
}

// onlyDate is a moment as a date. Midnight of an all-day event is told in UTC whatever the zone (M-6).
func onlyDate(m event.Moment) event.Moment {
	if m.Date == "" && len(m.DateTime) >= len(time.DateOnly) {
		m.Date, m.DateTime = m.DateTime[:len(time.DateOnly)], ""
	}
	return m
}

// Instant is when a moment is; an all-day one begins at midnight in loc, which for everything else does not matter.
// The zero time where the moment cannot be read.
func Instant(m event.Moment, loc *time.Location) time.Time {
	if m.Date == "" {
		return event.ParseTime(m.DateTime)
	}
	t, err := time.ParseInLocation(time.DateOnly, m.Date, loc)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// StartsAt is when a meeting starts for a watch; the zero time when that cannot be told.
func StartsAt(o *event.ObservedMeeting, w *Watch) time.Time {
	loc := w.Zone
	if loc == nil {
		var err error
		if loc, err = event.LoadZone(o.Meeting.Start.TimeZone); err != nil {
			loc = time.UTC
		}
	}
	return Instant(o.Meeting.Start, loc)
}

// Retimed reports whether a series as a whole takes place at other times than before: its occurrences merely follow.
func Retimed(old, now *event.ObservedMeeting) bool {
	return old != nil && now != nil && (!sameSpan(old, now) || string(old.Meeting.Recurrence) != string(now.Meeting.Recurrence) ||
		old.Meeting.Start.TimeZone != now.Meeting.Start.TimeZone)
}

func sameSpan(a, b *event.ObservedMeeting) bool {
	return a.Meeting.IsAllDay == b.Meeting.IsAllDay && sameMoment(a.Meeting.Start, b.Meeting.Start) && sameMoment(a.Meeting.End, b.Meeting.End)
}

// SameStart reports whether two looks are at what starts at the same time.
func SameStart(a, b *event.ObservedMeeting) bool { return sameMoment(a.Meeting.Start, b.Meeting.Start) }

func sameMoment(a, b event.Moment) bool { return a.DateTime == b.DateTime && a.Date == b.Date }

// DiffersMeeting reports whether a state is worth writing.
func DiffersMeeting(old, now *event.ObservedMeeting) bool {
	if old.Stub && now.Stub {
		return old.ID != now.ID || !sameSpan(old, now)
	}
	return old.Stub != now.Stub || old.ChangeKey != now.ChangeKey || old.ID != now.ID || old.LastModified != now.LastModified ||
		!sameSpan(old, now) || len(diffMeeting(old, now, event.ContentBody)) > 0 || len(responses(old, now)) > 0
}

// Name compares a look with what was known and names the events of every watch (DESIGN section 9). Filter errors are
// given to onFilterError and count as a match: an event too many is better than one lost.
func (a *Agenda) Name(l *MeetingLook, watches []Watch, onFilterError func(watch string, err error)) (r MeetingResult) {
	if l.New == nil && l.Old == nil || l.follows() {
		return r
	}
	c := comparison{l: l, now: Fill(l.New, l.NewMaster)}
	if l.Old != nil {
		c.old = Fill(&l.Old.ObservedMeeting, l.OldMaster)
	}
	for i := range watches {
		w := &watches[i]
		for _, n := range c.names(w) {
			if !w.Events[n.name] || !c.inWindow(w) || !a.wants(c.seen(), w, n.name, onFilterError) {
				r.Dropped++
				continue
			}
			r.Events = append(r.Events, a.event(&c, w, n))
		}
	}
	return r
}

// follows reports whether the look is at a date of a series that is like the others and when it was: whatever else
// changed, changed in its series.
func (l *MeetingLook) follows() bool {
	return l.Old != nil && l.New != nil && l.Old.Stub && l.New.Stub && sameSpan(&l.Old.ObservedMeeting, l.New)
}

// comparison is a look with the stubs filled.
type comparison struct {
	l        *MeetingLook
	old, now *event.ObservedMeeting
}

// seen is the item as it is, or as it was last known.
func (c *comparison) seen() *event.ObservedMeeting {
	if c.now != nil {
		return c.now
	}
	return c.old
}

// ofSeries reports whether the item is one date of a series.
func (c *comparison) ofSeries() bool { return c.l.Key.Original != "" }

// namedMeeting is an event before it is dressed.
type namedMeeting struct {
	name      string
	changed   []event.FieldChange
	moved     *event.Reschedule
	responses []event.ResponseChange
}

// names decides which events a look means for one watch.
func (c *comparison) names(w *Watch) []namedMeeting {
	switch {
	case c.now == nil:
		return []namedMeeting{{name: event.Deleted}}
	case c.old == nil || c.l.Fresh[w.Name]:
		return c.firstSight(w)
	}
	return c.named(w)
}

// named names what differs between two looks.
func (c *comparison) named(w *Watch) []namedMeeting {
	if c.old.Meeting.IsCancelled || !c.now.Meeting.IsCancelled {
		return c.facets(w)
	}
	if c.ofSeries() && c.l.NewMaster != nil && c.l.NewMaster.Meeting.IsCancelled {
		return nil // the series was
	}
	return []namedMeeting{{name: event.Cancelled}}
}

func (c *comparison) firstSight(w *Watch) []namedMeeting {
	since := c.l.NewSince
	baseline := c.l.Baseline || c.l.Fresh[w.Name]
	if baseline {
		since = w.Since
	}
	m := &c.now.Meeting
	created, modified := notBefore(m.CreatedAt, since), notBefore(c.now.LastModified, since)
	switch {
	case c.ofSeries() && (c.now.Stub || c.l.NewMaster != nil && !modified):
		return nil // its series tells that it exists
	case c.ofSeries() && c.l.NewMaster != nil: // without a series, an invitation to one date of it is like any other
		return c.asRegular().named(w)
	case !created && (baseline || !modified):
		return nil // the window slid over it, or it was there before the watch
	case m.IsCancelled:
		return []namedMeeting{{name: event.Cancelled}}
	case !created:
		return []namedMeeting{{name: event.Rescheduled, moved: &event.Reschedule{New: span(c.now)}}}
	case m.IsOrganizer:
		return []namedMeeting{{name: event.Created}}
	}
	return []namedMeeting{{name: event.Invited}}
}

// asRegular is the comparison of a date that was never seen, and is not as its series has it, with what it would be.
func (c *comparison) asRegular() *comparison {
	master := c.l.NewMaster
	stub := &event.ObservedMeeting{ID: c.now.ID, Stub: true}
	stub.Meeting.OriginalStart = c.now.Meeting.OriginalStart
	start, length := event.ParseTime(c.l.Key.Original), Instant(master.Meeting.End, time.UTC).Sub(Instant(master.Meeting.Start, time.UTC))
	stub.Meeting.Start.DateTime = start.Format(time.RFC3339)
	stub.Meeting.End.DateTime = start.Add(length).Format(time.RFC3339)
	look := *c.l
	look.OldMaster = master
	return &comparison{l: &look, old: Fill(stub, master), now: c.now}
}

// notBefore reports whether a time of Graph's is since or later. What is of the same second counts: better an old item
// is told than a new one lost.
func notBefore(text string, since time.Time) bool {
	return text != "" && !event.ParseTime(text).Before(since.Truncate(time.Second))
}

// facets names what differs between two looks at an item that is known: one facet, one event. What a date of a series
// has from its series, the series' own event tells.
func (c *comparison) facets(w *Watch) (out []namedMeeting) {
	fields, answers := diffMeeting(c.old, c.now, w.Content), responses(c.old, c.now)
	retimed := false
	if om, nm := c.l.OldMaster, c.l.NewMaster; c.ofSeries() && om != nil && nm != nil {
		retimed = Retimed(om, nm)
		fields = slices.DeleteFunc(fields, func(f event.FieldChange) bool {
			return follows(f.Field, c.now, om, nm, retimed) || f.Field == "recurrence"
		})
		of := responses(om, nm)
		answers = slices.DeleteFunc(answers, func(r event.ResponseChange) bool {
			return retimed || slices.ContainsFunc(of, func(s event.ResponseChange) bool { return sameResponse(r, s) })
		})
	}
	if !sameSpan(c.old, c.now) && (!retimed || !c.regular()) {
		out = append(out, namedMeeting{name: event.Rescheduled, moved: &event.Reschedule{Old: span(c.old), New: span(c.now)}})
	}
	if len(answers) > 0 {
		out = append(out, namedMeeting{name: event.Responded, responses: answers})
	}
	if len(fields) > 0 {
		out = append(out, namedMeeting{name: event.Updated, changed: fields})
	}
	return out
}

// regular reports whether a date of a series is when the series has it.
func (c *comparison) regular() bool {
	m := &c.now.Meeting
	return m.InstanceKind == event.Occurrence || Instant(m.Start, time.UTC).Equal(event.ParseTime(m.OriginalStart))
}

// follows reports whether an item merely has what its series came to have.
func follows(field string, now, oldMaster, newMaster *event.ObservedMeeting, retimed bool) bool {
	for _, f := range meetingFields {
		if f.name == field {
			is := sameValue(f.get(&now.Meeting), f.get(&newMaster.Meeting))
			return is && (retimed || !sameValue(f.get(&oldMaster.Meeting), f.get(&newMaster.Meeting)))
		}
	}
	return field == "body" && now.BodyHash == newMaster.BodyHash && (retimed || oldMaster.BodyHash != newMaster.BodyHash)
}

// span is when a meeting takes place, dressed.
func span(o *event.ObservedMeeting) *event.Span {
	m := o.Meeting.At(event.ContentIDs)
	return &event.Span{Start: m.Start, End: m.End, IsAllDay: m.IsAllDay}
}

// inWindow reports whether a meeting took or takes place in the window of a watch: feeds are shared, and the widest
// window is read. A series as a whole always does.
func (c *comparison) inWindow(w *Watch) bool {
	if w.Past == 0 && w.Future == 0 {
		return true
	}
	from, to := c.l.At.Add(-w.Past), c.l.At.Add(w.Future)
	return c.old != nil && overlaps(c.old, from, to) || c.now != nil && overlaps(c.now, from, to)
}

func overlaps(o *event.ObservedMeeting, from, to time.Time) bool {
	return o.Meeting.InstanceKind == event.SeriesMaster || Overlaps(o, from, to)
}

// Overlaps reports whether a meeting takes place between two times. All-day ones count from where on earth their days
// begin first to where they end last.
func Overlaps(o *event.ObservedMeeting, from, to time.Time) bool {
	start, end := Instant(o.Meeting.Start, time.UTC), Instant(o.Meeting.End, time.UTC)
	if o.Meeting.Start.Date != "" {
		start, end = start.Add(-14*time.Hour), end.Add(12*time.Hour)
	}
	return !start.After(to) && !end.Before(from)
}

func (a *Agenda) wants(o *event.ObservedMeeting, w *Watch, name string, onError func(string, error)) bool {
	if w.Filter == nil {
		return true
	}
	ok, err := w.Filter.MatchMeeting(name, &o.Meeting, &a.Calendar)
	if err != nil {
		onError(w.Name, err)
		return true
	}
	return ok
}

// event dresses a name with everything that is published.
func (a *Agenda) event(c *comparison, w *Watch, n namedMeeting) *event.Event {
	seen, l := c.seen(), c.l
	e := a.dress(l.Key, seen, w, n.name, l.At, l.Via, event.CalendarData{Changed: n.changed, Rescheduled: n.moved, Responded: withoutNames(n.responses, w.Content)})
	if l.Baseline || l.Fresh[w.Name] {
		if !notBefore(seen.Meeting.CreatedAt, w.Joined.Add(time.Second)) {
			e.Via = event.ViaStart
		}
	}
	switch n.name {
	case event.Created, event.Invited:
		// It happens once in an item's life, and two instances may first see it at different versions.
		e.ID = event.ID(a.Tenant, w.Name, w.Token, l.Key.Series, l.Key.Original, e.Type())
		e.Time = event.ParseTime(seen.Meeting.CreatedAt)
	default:
		e.ID = event.ID(a.Tenant, w.Name, w.Token, l.Key.Series, l.Key.Original, e.Type(), seen.ChangeKey)
		if c.now != nil {
			e.Time = event.ParseTime(seen.LastModified)
		}
	}
	if e.Time.IsZero() {
		e.Time = l.At
	}
	return e
}

// dress makes an event about a meeting; id and time remain to be set.
func (a *Agenda) dress(key store.MeetingKey, o *event.ObservedMeeting, w *Watch, name string, at time.Time, via event.Via, d event.CalendarData) *event.Event {
	m, calendar := o.Meeting.At(w.Content), a.Calendar
	if w.Content < event.ContentEnvelope {
		calendar.Name = ""
	}
	d.Mailbox = event.Mailbox{ID: a.UserID, Alias: w.Alias}
	d.Item = event.CalendarItem{ID: o.ID, ChangeKey: o.ChangeKey, Calendar: &calendar, WebLink: o.WebLink}
	d.Event = &m
	if key.Original != "" {
		m.SeriesMasterID, m.OriginalStart = key.Series, key.Original
	}
	return &event.Event{
		Area: event.AreaCalendar, Name: name, Source: event.Source(a.Tenant, w.Token), Subject: "events/" + o.ID, Time: at,
		Watch: w.Name, Mailbox: w.Token, Via: via, RecordedTime: at, Data: marshal(d),
	}
}

// Starting makes the event that a meeting is about to start, for one lead time of a watch; nil when the watch does not
// want it. o is filled; at is now.
func (a *Agenda) Starting(alarm *store.Alarm, o *event.ObservedMeeting, w *Watch, at time.Time, onFilterError func(watch string, err error)) *event.Event {
	if !w.Events[event.Starting] || !slices.Contains(w.Starting, alarm.Lead()) || !a.wants(o, w, event.Starting, onFilterError) {
		return nil
	}
	late := max(0, at.Sub(alarm.Due()))
	e := a.dress(alarm.Meeting, o, w, event.Starting, at, event.ViaClock, event.CalendarData{
		Starting: &event.StartingSoon{LeadSeconds: alarm.LeadSeconds, LateSeconds: int64(late / time.Second)},
	})
	e.ID = event.ID(a.Tenant, w.Name, w.Token, alarm.Meeting.Series, alarm.Meeting.Original, e.Type(), alarm.Start.UTC().Format(time.RFC3339), alarm.Lead().String())
	e.Time = alarm.Due().UTC()
	return e
}
