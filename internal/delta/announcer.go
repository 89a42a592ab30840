package delta

import (
	"context"
	"errors"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// announcer stands for the one subscription on the events of all calendars of a mailbox (S-27). What it accepts wakes the
// calendars, whose rounds settle what they see; what none of them shows is looked up here.
type announcer struct {
	mb   *mailbox
	num  uint32
	task *task

	// Owned by the worker that runs the task.
	tries     int       // rounds of all calendars that did not show what was announced
	tryAt     time.Time // when to have them read again
	failed    int       // look-ups in a row
	notBefore time.Time // the next one
}

// wake is called when something was accepted, and whenever a calendar has completed a round. It does nothing on nil.
func (a *announcer) wake() {
	if a != nil {
		a.mb.room.sched.wake(a.task, time.Now())
	}
}

// number is the feed that notifications are accepted for; 0 on nil.
func (a *announcer) number() uint32 {
	if a == nil {
		return 0
	}
	return a.num
}

// announcer is the mailbox's; nil when it has no subscription on its events.
func (mb *mailbox) announcer() *announcer {
	mb.room.mu.Lock()
	defer mb.room.mu.Unlock()
	return mb.announces
}

// calendars are the feeds of the mailbox's calendars.
func (mb *mailbox) calendars() (out []*feed) {
	mb.room.mu.Lock()
	defer mb.room.mu.Unlock()
	for _, f := range mb.room.feeds {
		if f.mb == mb && f.kind == store.CalendarFeed {
			out = append(out, f)
		}
	}
	return out
}

// maxTries is how often the calendars are read again for something that was announced, before it is looked up.
const maxTries = 3

// run has the calendars read what was accepted, and looks up what they do not show for long. It returns when to do so
// again; the zero time when nothing is left.
func (a *announcer) run(ctx context.Context) time.Time {
	now, lag := time.Now().Round(0), a.mb.room.opts.Lag
	pending, err := a.mb.room.announced(a.num)
	if err == nil && len(pending.byItem) == 0 {
		a.tries, a.failed, a.tryAt, a.notBefore = 0, 0, time.Time{}, time.Time{}
		return time.Time{}
	}
	if a.mb.paused() != "" {
		return now.Add(pausedLook)
	}
	if err == nil && !now.Before(a.notBefore) {
		err = a.lookUp(ctx, pending, now)
	}
	switch {
	case ctx.Err() != nil:
		return now
	case err != nil:
		a.failed++
		wait := retryAfter(err, a.failed)
		a.notBefore = now.Add(wait)
		a.mb.log.Warn().Err(err).Dur("wait", wait).Msg("an announced calendar item could not be looked up")
	case !now.Before(a.notBefore):
		a.failed = 0
	}
	newest := pending.newest()
	behind := a.wakeCalendars(func(rec store.Feed) bool { return rec.RoundAt.Before(newest) })
	if !behind && a.tries < maxTries && !now.Before(a.tryAt) {
		// Delta lags behind push (T-3): look again soon, less and less soon.
		if a.tries++; a.tries > 1 {
			a.wakeCalendars(func(store.Feed) bool { return true })
		}
		a.tryAt = now.Add(min(time.Second<<a.tries, lag/2+time.Millisecond))
	}
	if now.Before(a.tryAt) {
		return a.tryAt
	}
	return now.Add(lag/2 + time.Second) // woken earlier by the calendars
}

// newest is when something was last announced.
func (a *announcements) newest() (at time.Time) {
	for _, it := range a.byItem {
		if last := it.last(); last.After(at) {
			at = last
		}
	}
	return at
}

// last is when it was last announced, as exactly as entries are kept.
func (it *announced) last() time.Time {
	return it.entries[len(it.entries)-1].At.Truncate(time.Millisecond)
}

func (a *announcer) wakeCalendars(which func(store.Feed) bool) (woken bool) {
	for _, f := range a.mb.calendars() {
		if rec, ok := a.mb.room.st.Feed(f.num); ok && which(rec) {
			woken = true
			a.mb.room.sched.wake(f.task, time.Now())
		}
	}
	return woken
}

// lookUp deals with what was announced long enough ago and no calendar shows: a calendar that knows the item, or that has
// it, reads it directly; what is in none of them is settled here.
func (a *announcer) lookUp(ctx context.Context, pending *announcements, now time.Time) (err error) {
	for id, it := range pending.byItem {
		if id == "" || now.Sub(it.last()) < a.mb.room.opts.Lag || !a.covered(it) {
			continue
		}
		f, outcome, findErr := a.find(ctx, id)
		switch {
		case findErr != nil:
			err = errors.Join(err, findErr) // the others are not kept waiting
		case f != nil:
			f.readDirectly(id)
		default:
			err = errors.Join(err, a.settle(it, outcome))
		}
	}
	return err
}

// covered reports whether every calendar that can be read was read since an item was last announced.
func (a *announcer) covered(it *announced) bool {
	for _, f := range a.mb.calendars() {
		rec, ok := a.mb.room.st.Feed(f.num)
		if ok && rec.RoundAt.Before(it.last()) && !f.failing() {
			return false
		}
	}
	return true
}

// failing reports whether the last attempt to read the feed failed.
func (f *feed) failing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown.Error != ""
}

func (a *announcer) settle(it *announced, outcome store.Outcome) error {
	return a.mb.room.st.Update(func(tx *store.Tx) error {
		for _, e := range it.entries {
			if err := tx.Settle(e, outcome); err != nil {
				return err
			}
		}
		return nil
	})
}

// find looks for the calendar of an item: the one that knows it, else the one where Graph has it. Without one, outcome is
// what became of its notifications.
func (a *announcer) find(ctx context.Context, id string) (f *feed, outcome store.Outcome, err error) {
	calendars, g, mailbox := a.mb.calendars(), a.mb.graph, a.mb.target.Address
	for _, f := range calendars {
		known := false
		err := a.mb.room.st.View(func(tx *store.Tx) (err error) {
			_, known, err = tx.Meeting(f.num, store.MeetingKey{Series: id})
			return err
		})
		if known || err != nil && !errors.Is(err, store.ErrDamaged) {
			return f, "", err
		}
	}
	switch _, err := g.Event(ctx, mailbox, "", id); {
	case errors.Is(err, graph.ErrMailboxUnavailable):
		return nil, "", err
	case errors.Is(err, graph.ErrNotFound), errors.Is(err, graph.ErrBadRequest): // an id that Graph does not take is nobody's
		return nil, store.Gone, nil
	case errors.Is(err, graph.ErrForbidden):
		return nil, store.Filtered, nil // not ours to read
	case err != nil && !errors.Is(err, graph.ErrCorrupt):
		return nil, "", err
	}
	for _, f := range calendars {
		switch _, err := g.Event(ctx, mailbox, f.folder, id); {
		case errors.Is(err, graph.ErrMailboxUnavailable):
			return nil, "", err
		case err == nil, errors.Is(err, graph.ErrCorrupt):
			return f, "", nil
		case !errors.Is(err, graph.ErrNotFound) && !errors.Is(err, graph.ErrForbidden): // of one that cannot be read nothing is told
			return nil, "", err
		}
	}
	return nil, store.Filtered, nil // of a calendar that nobody watches
}

// readDirectly has the next round read an item by itself, and makes it soon.
func (f *feed) readDirectly(id string) {
	f.mu.Lock()
	if f.direct == nil {
		f.direct = map[string]bool{}
	}
	f.direct[id] = true
	f.mu.Unlock()
	f.mb.room.sched.wake(f.task, time.Now())
}
