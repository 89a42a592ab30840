// Package freshness watches the watches: up to when everything is known of each of their mailboxes, and whether that is
// late. A change of that is committed together with the event that tells it, so that it is told once, across restarts.
package freshness

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// State is how a watch over a mailbox is.
type State string

// The states.
const (
	Reading State = "reading" // for the first time
	Fresh   State = "fresh"
	Stale   State = "stale"

	unknown State = "" // it would be late if triggerd had not just started: as it was
)

// Grace is what a feed may be late beyond two of its intervals, and how long a mailbox may be unreadable.
const Grace = time.Minute

// Late reports whether a feed is: it should have had two rounds since its last one.
func Late(roundAt time.Time, interval time.Duration, now time.Time) bool {
	return now.Sub(roundAt) > 2*interval+Grace
}

// Feed is one folder as its rounds leave it.
type Feed struct {
	Folder      string
	RoundAt     time.Time // everything that happened before is known
	BaselinedAt time.Time // zero while it is read for the first time
	Interval    time.Duration
	Push        bool   // push is proven
	Error       string // of the last attempt
}

// View is one watch over one mailbox, as it is now.
type View struct {
	Origin     event.Origin
	Connection string
	Feeds      []Feed
	Problem    string // why the mailbox cannot be read
	Paused     string // why its connection waits for a person
	Silent     string // why its canary is missed
}

// Store keeps what was told; *store.Store has it.
type Store interface {
	Watches() []store.Watch
	Update(fn func(*store.Tx) error) error
}

// Options are the room's needs.
type Options struct {
	Views   func() []View // all that is configured; called from Run and Status
	Started time.Time     // of the process: before it has run for a while nothing is late
	Every   time.Duration // between looks, default 5 s
	Log     zerolog.Logger
}

// Room keeps the states. It is safe for concurrent use.
type Room struct {
	st   Store
	opts Options

	mu       sync.Mutex
	troubles map[key]time.Time // since when a mailbox cannot be read at all
}

// key is a watch over a mailbox.
type key struct{ watch, token string }

// New makes the room.
func New(st Store, o Options) *Room {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	return &Room{st: st, opts: o, troubles: map[key]time.Time{}}
}

// Run looks until ctx is done.
func (r *Room) Run(ctx context.Context) error {
	tick := time.NewTicker(r.opts.Every)
	defer tick.Stop()
	for {
		if err := r.look(time.Now().UTC()); err != nil {
			r.opts.Log.Error().Err(err).Msg("the freshness of watches is not stored; the next look tries again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look compares every watch with what was told of it, and commits what is news.
func (r *Room) look(now time.Time) error {
	told := map[key]store.Watch{}
	for _, w := range r.st.Watches() {
		told[key{w.Name, w.Token}] = w
	}
	var events []event.Event
	var records []store.Watch
	for _, v := range r.opts.Views() {
		k := key{v.Origin.Watch, v.Origin.Token}
		rec, known := told[k]
		delete(told, k)
		next, names := r.step(&v, rec, known, now)
		if next == rec {
			continue
		}
		records = append(records, next)
		for _, name := range names {
			e, err := r.event(&v, name, rec, now)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
	}
	if len(records)+len(told) == 0 {
		return nil
	}
	return r.st.Update(func(tx *store.Tx) error {
		for i := range events {
			if err := tx.AppendEvent(&events[i]); err != nil {
				return err
			}
		}
		for i := range records {
			if err := tx.PutWatch(&records[i]); err != nil {
				return err
			}
		}
		for k := range told { // not configured any more
			if err := tx.DeleteWatch(k.watch, k.token); err != nil {
				return err
			}
		}
		return nil
	})
}

// step decides what is news: the record that is to be kept, and the names of the events that tell it.
func (r *Room) step(v *View, rec store.Watch, known bool, now time.Time) (next store.Watch, names []string) {
	next = rec
	next.Name, next.Token = v.Origin.Watch, v.Origin.Token
	state, reason := r.judge(v, known, now)
	log := r.opts.Log.With().Str("watch", v.Origin.Watch).Str("mailbox", v.Origin.Token).Logger()
	switch {
	case state == Reading, state == unknown, known && rec.State == string(state):
		return rec, nil
	case state == Stale:
		names = []string{event.Stale}
		log.Warn().Str("reason", reason).Time("fresh_at", freshAt(v.Feeds)).Msg("watch is stale")
	default:
		if known && rec.State == string(Stale) {
			names = []string{event.Recovered}
			log.Info().Dur("stale_for", now.Sub(rec.Since)).Msg("watch is fresh again")
		}
		if rec.BaselinedAt.IsZero() {
			names = append(names, event.Baselined)
			next.BaselinedAt = now
		}
	}
	next.State, next.Since = string(state), now
	return next, names
}

// judge says how a watch over a mailbox is, and why it is not fresh.
func (r *Room) judge(v *View, known bool, now time.Time) (State, string) {
	k := key{v.Origin.Watch, v.Origin.Token}
	reading := len(v.Feeds) == 0
	for _, f := range v.Feeds {
		switch {
		case f.BaselinedAt.IsZero():
			reading = true
		case !Late(f.RoundAt, f.Interval, now):
		case now.Sub(r.opts.Started) <= 2*f.Interval+Grace:
			return unknown, "triggerd has just started"
		default:
			return Stale, cmp.Or(v.Paused, f.Error, v.Problem, fmt.Sprintf("no round of %s since %v", f.Folder, now.Sub(f.RoundAt).Round(time.Second)))
		}
	}
	if v.Silent != "" && !reading {
		return Stale, v.Silent
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(v.Feeds) > 0 || v.Problem == "" {
		delete(r.troubles, k)
	} else if since := r.troubles[k]; since.IsZero() {
		r.troubles[k] = now
	} else if now.Sub(since) > Grace {
		return Stale, v.Problem
	}
	if reading && (!known || len(v.Feeds) == 0) {
		return Reading, cmp.Or(v.Paused, v.Problem)
	}
	return Fresh, ""
}

// freshAt is up to when everything is known; zero while some folder was never read.
func freshAt(feeds []Feed) time.Time {
	if len(feeds) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(feeds, func(a, b Feed) int { return a.RoundAt.Compare(b.RoundAt) }).RoundAt
}

func (r *Room) event(v *View, name string, before store.Watch, now time.Time) (event.Event, error) {
	d := event.WatchData{Connection: v.Connection, FreshAt: freshAt(v.Feeds)}
	switch name {
	case event.Stale:
		_, d.Reason = r.judge(v, true, now)
	case event.Recovered:
		d.Since = before.Since
	}
	return event.NewWatchEvent(v.Origin, name, now, d)
}

// Status is how a watch is over all its mailboxes.
type Status struct {
	Watch   string
	State   State     // the worst
	Since   time.Time // of State, as it was told
	FreshAt time.Time // everything that happened before is known
	Reason  string    // why it is not fresh
	Feeds   int
	Push    int  // feeds with proven push
	Silent  bool // the canary of some mailbox is missed, which is then the reason
}

// Status tells how every watch is, by name.
func (r *Room) Status() []Status {
	now := time.Now().UTC()
	told := map[key]store.Watch{}
	for _, w := range r.st.Watches() {
		told[key{w.Name, w.Token}] = w
	}
	byName := map[string]*Status{}
	for _, v := range r.opts.Views() {
		k := key{v.Origin.Watch, v.Origin.Token}
		rec, known := told[k]
		state, reason := r.judge(&v, known, now)
		if state == unknown {
			state = cmp.Or(State(rec.State), Reading)
		}
		s := byName[v.Origin.Watch]
		if s == nil {
			s = &Status{Watch: v.Origin.Watch, State: Fresh, FreshAt: freshAt(v.Feeds)}
			byName[v.Origin.Watch] = s
		}
		s.add(&v, state, reason, rec.Since)
	}
	out := make([]Status, 0, len(byName))
	for _, s := range byName {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Watch, b.Watch) })
	return out
}

var severity = map[State]int{Fresh: 0, Reading: 1, Stale: 2}

// add takes a mailbox into the watch's status.
func (s *Status) add(v *View, state State, reason string, since time.Time) {
	if worse := severity[state] - severity[s.State]; worse > 0 || worse == 0 && (s.Since.IsZero() || since.Before(s.Since)) {
		s.State, s.Since = state, since
		s.Reason = cmp.Or(reason, s.Reason)
	}
	if at := freshAt(v.Feeds); at.Before(s.FreshAt) {
		s.FreshAt = at
	}
	if v.Silent != "" && reason == v.Silent {
		s.Silent, s.Reason = true, reason
	}
	for _, f := range v.Feeds {
		s.Feeds++
		if f.Push {
			s.Push++
		}
	}
}
