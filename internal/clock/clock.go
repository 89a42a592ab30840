// Package clock tells when meetings are about to start. Nobody announces that: the alarms lie in the store, where delta
// puts them with what it knows of the meetings, and go off here, once each, across restarts. An alarm whose meeting was
// moved, cancelled or deleted since is silent.
package clock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Options are the room's needs and settings.
type Options struct {
	// Agenda describes a calendar and the watches over it; ok is false when nobody watches it.
	Agenda func(feed uint32) (a *changes.Agenda, watches []changes.Watch, ok bool)
	// Every is the longest sleep: alarms are wall-clock, and timers stand still while a machine does. Default 5 s.
	Every time.Duration
	Log   zerolog.Logger
}

// Room lets the alarms go off.
type Room struct {
	st      *store.Store
	opts    Options
	started time.Time
	pulse   chan struct{} // from Run, whenever it waits

	mu      sync.Mutex
	trouble string        // why the last look failed; empty: it did not
	quiet   time.Duration // for how long the log is silent after it was told of a trouble
	loud    time.Time     // until then
}

// New makes the room.
func New(st *store.Store, o Options) *Room {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	return &Room{st: st, opts: o, started: time.Now().Round(0), pulse: make(chan struct{})}
}

const (
	batch    = 500         // bounds how many alarms go off in one transaction
	retry    = time.Second // after a look that failed
	logEvery = time.Minute // the longest that a trouble lasts between two lines about it
)

// Run lets alarms go off when they are due, until ctx is done.
func (r *Room) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r.pulse <- struct{}{}:
			continue
		case <-timer.C:
		case <-r.st.AlarmsChanged():
		}
		wait, err := r.ring(time.Now().Round(0))
		if err != nil {
			wait = retry
		}
		if ctx.Err() == nil {
			r.note(err, time.Now())
		}
		timer.Reset(wait)
	}
}

// Ping returns nil when Run gets on, else the cause of ctx.
func (r *Room) Ping(ctx context.Context) error {
	select {
	case <-r.pulse:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the clock of meetings does not get on: %w", context.Cause(ctx))
	}
}

// Trouble says why meetings that start cannot be told at present; empty: they can. Safe for concurrent use.
func (r *Room) Trouble() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

// note keeps how a look went. A trouble that lasts is logged at growing intervals: it is looked for every second.
func (r *Room) note(err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.trouble, r.quiet, r.loud = "", 0, time.Time{}
		return
	}
	r.trouble = err.Error()
	if now.Before(r.loud) {
		return
	}
	r.quiet = min(max(2*r.quiet, retry), logEvery)
	r.loud = now.Add(r.quiet)
	r.opts.Log.Error().Err(err).Msg("meetings that start could not be told; tried again every second")
}

// ring lets the alarms go off that are due at now, and says how long to wait for the next one.
func (r *Room) ring(now time.Time) (wait time.Duration, err error) {
	next, ok, err := r.st.NextAlarm()
	switch {
	case err != nil || !ok:
		return r.opts.Every, err
	case next.After(now):
		return min(next.Sub(now), r.opts.Every), nil
	}
	err = r.st.Update(func(tx *store.Tx) error {
		due, err := tx.TakeAlarms(now, batch, func(a *store.Alarm) bool { return r.held(a, now) })
		for i := range due {
			err = errors.Join(err, r.tell(tx, &due[i], now))
		}
		if wait = 0; len(due) == 0 {
			wait = retry
		}
		return err
	})
	return wait, err
}

// patience is how long an alarm that was due before the start waits for its calendar to be read.
const patience = time.Minute

// held reports whether an alarm waits for what may have become of its meeting while triggerd was stopped: it is late
// anyway, and a meeting that was moved or cancelled meanwhile is not to be told. When Graph does not answer it is told
// by what is known.
func (r *Room) held(a *store.Alarm, now time.Time) bool {
	if !a.Due().Before(r.started) || now.Sub(r.started) >= patience {
		return false
	}
	feed, ok := r.st.Feed(a.Feed)
	return ok && feed.RoundAt.Before(r.started)
}

// tell appends the event of one alarm, if its meeting still starts then.
func (r *Room) tell(tx *store.Tx, alarm *store.Alarm, now time.Time) error {
	agenda, watches, ok := r.opts.Agenda(alarm.Feed)
	if !ok {
		return nil
	}
	m, ok, err := r.meeting(tx, alarm)
	if err != nil || !ok || m.Meeting.InstanceKind == event.SeriesMaster { // it took place once when the alarm was set
		return err
	}
	for i := range watches {
		w := &watches[i]
		if w.Name != alarm.Watch || m.Meeting.IsCancelled || !changes.StartsAt(&m.ObservedMeeting, w).Equal(alarm.Start) {
			continue
		}
		e := agenda.Starting(alarm, &m.ObservedMeeting, w, now.UTC(), func(watch string, err error) {
			r.opts.Log.Error().Err(err).Str("watch", watch).Msg("filter cannot be evaluated; the event is published")
		})
		if e == nil {
			continue
		}
		if err := errors.Join(tx.AlarmTold(alarm, now), tx.AppendEvent(e)); err != nil {
			return err
		}
	}
	return nil
}

// meeting reads the meeting of an alarm, with what it has from its series.
func (r *Room) meeting(tx *store.Tx, alarm *store.Alarm) (m store.Meeting, ok bool, err error) {
	m, ok, err = tx.Meeting(alarm.Feed, alarm.Meeting)
	if err == nil && ok && m.Stub {
		var master store.Meeting
		if master, ok, err = tx.Meeting(alarm.Feed, store.MeetingKey{Series: alarm.Meeting.Series}); ok {
			m.ObservedMeeting = *changes.Fill(&m.ObservedMeeting, &master.ObservedMeeting)
		}
	}
	if errors.Is(err, store.ErrDamaged) {
		r.opts.Log.Error().Err(err).Msg("a meeting that starts is damaged; it is read anew when Graph next tells of it")
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("alarm of feed %d: %w", alarm.Feed, err)
	}
	return m, ok, nil
}
