package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// errUnknownCalendar is errUnknownFolder's sister: looked for again later.
var errUnknownCalendar = errors.New("no such calendar")

// readCalendars lists the calendars that watches may name, and asks for the mailbox's time zone where a watch needs it.
func (mb *mailbox) readCalendars(ctx context.Context) (map[string]store.CalendarInfo, string, error) {
	out, usual := map[string]store.CalendarInfo{}, false
	if mb.namesCalendar(func(name string) bool { return !strings.EqualFold(name, "default") }) {
		list, err := mb.graph.Calendars(ctx, mb.target.Address)
		if err != nil {
			return nil, "", err
		}
		for _, c := range list {
			out[c.ID] = store.CalendarInfo{Name: c.Name, IsDefault: c.IsDefault}
			usual = usual || c.IsDefault
		}
	}
	if !usual && mb.namesCalendar(func(name string) bool { return strings.EqualFold(name, "default") }) {
		c, err := mb.graph.DefaultCalendar(ctx, mb.target.Address)
		if err != nil {
			return nil, "", err
		}
		out[c.ID] = store.CalendarInfo{Name: c.Name, IsDefault: true}
	}
	zone, err := mb.readZone(ctx)
	return out, zone, err
}

// namesCalendar reports whether a watch names a calendar of a kind.
func (mb *mailbox) namesCalendar(kind func(name string) bool) bool {
	return slices.ContainsFunc(mb.target.Watches, func(w Watch) bool {
		return slices.ContainsFunc(w.Calendars, func(c FolderRef) bool { return kind(c.Name) })
	})
}

// readZone asks for the mailbox's time zone. Where the permission for that is missing, or it is somebody else's mailbox, it
// stays unknown, and all-day meetings begin in the zone they were made in.
func (mb *mailbox) readZone(ctx context.Context) (string, error) {
	wanted := slices.ContainsFunc(mb.target.Watches, func(w Watch) bool { return len(w.Starting) > 0 && w.TimeZone == "" && !w.NoZone })
	if !wanted {
		return "", nil
	}
	zone, err := mb.graph.TimeZone(ctx, mb.target.Address)
	if errors.Is(err, graph.ErrForbidden) || errors.Is(err, graph.ErrNotFound) {
		mb.log.Warn().Err(err).Msg("time zone of the mailbox cannot be read: all-day meetings start in the zone they were made in; grant MailboxSettings.Read, or give the watch a time_zone")
		return "", nil
	}
	return zone, err
}

// matchCalendars finds the calendars that references name.
func matchCalendars(calendars map[string]store.CalendarInfo, refs []FolderRef) (map[string]bool, error) {
	return matchRefs(calendars, refs, errUnknownCalendar, func(id string, c store.CalendarInfo, ref string) bool {
		return strings.EqualFold(ref, "all") || ref == id || strings.EqualFold(ref, c.Name) || c.IsDefault && strings.EqualFold(ref, "default")
	})
}

// calendarIsGone tells a vanished calendar from a mailbox that answers 404 to everything.
func (f *feed) calendarIsGone(ctx context.Context) bool {
	list, err := f.mb.graph.Calendars(ctx, f.mb.target.Address)
	return err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(c graph.Calendar) bool { return c.ID == f.folder })
}

// calendar describes the feed's calendar by what is known of it.
func (f *feed) calendar() event.Calendar {
	f.mb.mu.Lock()
	defer f.mb.mu.Unlock()
	info := f.mb.rec.Calendars[f.folder]
	return event.Calendar{ID: f.folder, Name: info.Name, IsDefault: info.IsDefault}
}

// describedCalendar describes the calendar that the feed reads; nil when it reads mail.
func (f *feed) describedCalendar() *event.Calendar {
	if f.kind != store.CalendarFeed {
		return nil
	}
	c := f.calendar()
	return &c
}

// agenda is what changes must know of the calendar.
func (f *feed) agenda() *changes.Agenda {
	return &changes.Agenda{Mailbox: f.mb.naming(), Calendar: f.calendar()}
}

// configureCalendar takes over what a watch wants of calendars.
func (f *feed) configureCalendar(next *wanted, cw *changes.Watch, w *Watch) {
	for _, name := range w.Meetings {
		cw.Events[name] = true
	}
	cw.Past, cw.Future, cw.Starting = w.Past, w.Future, w.Starting
	next.past, next.future = max(next.past, w.Past), max(next.future, w.Future)
	if len(w.Starting) == 0 {
		return
	}
	f.mb.mu.Lock()
	zone := cmp.Or(w.TimeZone, f.mb.rec.TimeZone)
	f.mb.mu.Unlock()
	if zone != "" {
		var err error
		if cw.Zone, err = event.LoadZone(zone); err != nil {
			f.log.Warn().Err(err).Msg("time zone of the mailbox is not known here: all-day meetings start in the zone they were made in")
		}
	}
	next.alarms += fmt.Sprint(w.Name, w.Starting, zone, ";")
}

// slideEvery is how long a window that was asked for serves: it reaches so much further than what watches want.
func (w *wanted) slideEvery(trueUp time.Duration) time.Duration {
	return min(max(w.future/8, time.Hour), max(trueUp, time.Hour))
}

// outgrown says why the window that the cursor was made for no longer serves; empty while it does.
func (w *wanted) outgrown(rec *store.Feed, now time.Time) string {
	if rec.Cursor == "" {
		return "no cursor"
	}
	if now.Add(w.future).After(rec.WindowEnd) || now.Add(-w.past).Before(rec.WindowStart.Add(-time.Minute)) {
		return "window"
	}
	return ""
}

// Agenda is what is needed to tell that meetings of a calendar start: its description, and the watches over it. ok is
// false when nobody watches it.
func (r *Room) Agenda(num uint32) (a *changes.Agenda, watches []changes.Watch, ok bool) {
	f := r.feed(num)
	if f == nil || f.kind != store.CalendarFeed {
		return nil, nil, false
	}
	return f.agenda(), f.wanted.Load().watches, true
}

// alarmsOf are the alarms of a meeting for all watches: those due from a time on, and of a meeting that has not started
// by then also those that are late already, if late says so.
func alarmsOf(feed uint32, key store.MeetingKey, m *event.ObservedMeeting, watches []changes.Watch, from func(*changes.Watch) time.Time, late bool) (out []store.Alarm) {
	if m.Meeting.IsCancelled || m.Meeting.InstanceKind == event.SeriesMaster {
		return nil
	}
	for i := range watches {
		w := &watches[i]
		for _, lead := range w.Starting {
			a := store.Alarm{Feed: feed, Meeting: key, Watch: w.Name, LeadSeconds: int64(lead / time.Second), Start: changes.StartsAt(m, w)}
			since := from(w)
			if a.Start.IsZero() || a.Start.Before(since) || !late && a.Due().Before(since) {
				continue
			}
			out = append(out, a)
		}
	}
	return out
}

// setAlarms brings the stored alarms in line with lead times and zones that changed. Those that nobody wants any more are
// dropped when they are due.
func (f *feed) setAlarms(rec store.Feed, now time.Time) error {
	w := f.wanted.Load()
	if rec.Alarms == w.alarms || rec.BaselinedAt.IsZero() {
		return nil
	}
	f.mb.apply.Lock()
	defer f.mb.apply.Unlock()
	return f.mb.room.st.Update(func(tx *store.Tx) error {
		masters := map[string]*event.ObservedMeeting{}
		var alarms []store.Alarm
		err := tx.EachMeeting(f.num, "", func(key store.MeetingKey, read func() (store.Meeting, error)) error {
			m, err := read()
			if err != nil {
				return nil // a damaged one is read anew when Graph next tells of it
			}
			if key.Original == "" {
				masters[key.Series] = &m.ObservedMeeting
			}
			filled := changes.Fill(&m.ObservedMeeting, masters[key.Series])
			alarms = append(alarms, alarmsOf(f.num, key, filled, w.watches, func(*changes.Watch) time.Time { return now }, false)...)
			return nil
		})
		for i := range alarms {
			if err == nil {
				err = tx.PutAlarm(&alarms[i])
			}
		}
		if err != nil {
			return err
		}
		_, err = tx.UpdateFeed(f.num, func(f *store.Feed) { f.Alarms = w.alarms })
		return err
	})
}
