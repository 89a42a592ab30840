// Package delta finds out what changed: it follows each feed's delta link (or lists and filters where a cloud has no
// delta), hands what it sees to changes, and commits events, item states, cursor and the outcomes of the notifications
// that announced them in one transaction. A notification only makes it look sooner.
package delta

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// Graph is what delta asks of Graph; *graph.Client has it.
type Graph interface {
	MessagesDelta(ctx context.Context, r graph.DeltaRequest) (graph.Page, error)
	ListMessages(ctx context.Context, r graph.ListRequest) (graph.Page, error)
	Message(ctx context.Context, mailbox, id string, sel []string) (graph.Item, error)
	Folder(ctx context.Context, mailbox, idOrWellKnown string) (graph.Folder, error)
	Folders(ctx context.Context, mailbox string) ([]graph.Folder, error)

	CalendarViewDelta(ctx context.Context, r graph.CalendarViewRequest) (graph.Page, error)
	Event(ctx context.Context, mailbox, calendar, id string) (graph.Item, error)
	Calendars(ctx context.Context, mailbox string) ([]graph.Calendar, error)
	DefaultCalendar(ctx context.Context, mailbox string) (graph.Calendar, error)
	TimeZone(ctx context.Context, mailbox string) (string, error)
}

// FolderRef names folders or calendars of a watch: a well-known name ("default" of a calendar), an id, a path (the name of a
// calendar), or "all".
type FolderRef struct {
	Name    string
	Exclude bool
}

// Watch is one watch over one mailbox, as configured.
type Watch struct {
	Name    string
	Token   string // the mailbox in subjects
	Alias   string
	Folders []FolderRef
	Events  []string // names of mail events; for content "reference" of notification events

	Calendars    []FolderRef
	Meetings     []string      // names of calendar events
	Past, Future time.Duration // the window of calendars, from now
	Starting     []time.Duration
	TimeZone     string // in which all-day meetings start; empty: the mailbox's own
	NoZone       bool   // which cannot be asked for: it is somebody else's mailbox

	Content event.Content
	Reads   event.Content  // what the watch's filter needs to see, if more than Content
	Filter  changes.Filter // nil: all
	Push    bool           // may use a subscription
	NoPush  string         // why not, in words; empty: polling is what the watch asks for
	Back    time.Duration  // publish what arrived up to so long before the watch began
	All     bool           // publish everything that was there
}

// Target is one mailbox with the watches over it.
type Target struct {
	Connection string
	Address    string                         // or "me", the signed-in user's own
	Identity   func() (tenant, userID string) // whose mailbox it is, as far as is known; asked again for each round
	Watches    []Watch
}

// Options are the room's needs and settings.
type Options struct {
	Graphs  map[string]Graph // by connection
	NoDelta map[string]bool  // connections to clouds without message delta (C-12)
	Targets []Target

	Poll, Sweep, TrueUp time.Duration // between rounds without push, with healthy push, and between full enumerations
	Lag                 time.Duration // how long a round is repeated for an announced item before the item is read directly
	PushLate            time.Duration // how old a change must be to say that push never announced it; default 5 min (T-1: 3)
	PageSize            int           // default 1,000; less where bodies are read
	Workers             int           // rounds at a time, default 16
	Every               time.Duration // between looks at what is due, default 5 s

	PushOK  func(feed uint32) (ok bool, reason string) // whether push is believed to work; nil means it never does
	Silent  func(feed uint32, reason string)           // push did not announce a change
	Changed func()                                     // PushFeeds changed

	Ended func(reason string, ok bool) // a round came to its end, or was interrupted by an error; nil: nobody wants to know

	// Paused says why a connection cannot be used until a person has acted; empty when it can. Nothing is asked of Graph
	// over a paused connection. nil means that none ever is.
	Paused func(connection string) (reason string)
	Log    zerolog.Logger
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Poll, time.Minute)
	set(&o.Sweep, 15*time.Minute)
	set(&o.TrueUp, 24*time.Hour)
	set(&o.Lag, 30*time.Second)
	set(&o.PushLate, 5*time.Minute)
	set(&o.Every, 5*time.Second)
	if o.PageSize == 0 {
		o.PageSize = 1000
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
	if o.PushOK == nil {
		o.PushOK = func(uint32) (bool, string) { return false, "push is not configured" }
	}
	if o.Silent == nil {
		o.Silent = func(uint32, string) {}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Ended == nil {
		o.Ended = func(string, bool) {}
	}
	if o.Paused == nil {
		o.Paused = func(string) string { return "" }
	}
	return o
}

// Room runs the rounds of all feeds.
type Room struct {
	st    *store.Store
	opts  Options
	log   zerolog.Logger
	sched *scheduler

	janitor *task // settles what was accepted for feeds that are gone

	mu         sync.Mutex
	mailboxes  []*mailbox
	feeds      map[uint32]*feed
	announcers map[uint32]*announcer
}

// New prepares the room. What the store remembers of folders is used at once, so that notifications can be processed
// before Graph was asked for anything.
func New(st *store.Store, opts Options) (*Room, error) {
	opts = opts.withDefaults()
	r := &Room{st: st, opts: opts, log: opts.Log, sched: newScheduler(opts.Every), feeds: map[uint32]*feed{}, announcers: map[uint32]*announcer{}}
	r.janitor = &task{run: r.settleOrphans, lane: &lane{}}
	r.sched.add(r.janitor, time.Now())
	known := map[string]store.Mailbox{}
	for _, m := range st.Mailboxes() {
		known[mailboxKey(m.Connection, m.Address)] = m
	}
	for _, t := range opts.Targets {
		if opts.Graphs[t.Connection] == nil {
			return nil, fmt.Errorf("mailbox on unknown connection %q", t.Connection)
		}
		mb := &mailbox{room: r, target: t, graph: opts.Graphs[t.Connection], noDelta: opts.NoDelta[t.Connection]}
		mb.log = r.log.With().Str("connection", t.Connection).Str("mailbox", t.Watches[0].Token).Logger()
		mb.task = &task{run: mb.refresh, lane: &mb.lane}
		if rec, ok := known[mailboxKey(t.Connection, t.Address)]; ok {
			mb.rec = rec
		} else {
			mb.rec = store.Mailbox{Connection: t.Connection, Address: t.Address}
			if err := st.Update(func(tx *store.Tx) error { return tx.PutMailbox(&mb.rec) }); err != nil {
				return nil, err
			}
		}
		r.mailboxes = append(r.mailboxes, mb)
		first := mb.firstRefresh(time.Now())
		if len(mb.rec.Folders)+len(mb.rec.Calendars) > 0 {
			switch err := mb.resolve(time.Now()); {
			case isUnknown(err): // perhaps it was made, or is wanted, only since
				first = time.Now()
			case err != nil:
				return nil, err
			}
		}
		r.sched.add(mb.task, first)
	}
	return r, r.dropUnwanted()
}

// dropUnwanted forgets the feeds of mailboxes that are no longer watched.
func (r *Room) dropUnwanted() error {
	watched := map[uint32]bool{}
	for _, mb := range r.mailboxes {
		watched[mb.rec.Num] = true
	}
	for _, f := range r.st.Feeds() {
		if watched[f.Mailbox] {
			continue
		}
		if err := r.st.Update(func(tx *store.Tx) error { return tx.DeleteFeed(f.Num) }); err != nil {
			return err
		}
	}
	return nil
}

// Run does the rounds until ctx is done.
func (r *Room) Run(ctx context.Context) error {
	for _, num := range r.st.PendingFeeds() {
		r.Wake(num)
	}
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *task)
	g.Go(func() error {
		defer close(work)
		r.sched.dispatch(ctx, work)
		return nil
	})
	for range r.opts.Workers {
		g.Go(func() error {
			for t := range work {
				next := t.run(ctx)
				r.sched.finish(t, next)
			}
			return nil
		})
	}
	return g.Wait()
}

// Ping returns nil when the scheduler gets on, else the cause of ctx.
func (r *Room) Ping(ctx context.Context) error {
	select {
	case <-r.sched.pulse:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the scheduler of feeds does not get on: %w", context.Cause(ctx))
	}
}

// Wake asks for a round of a feed soon: a notification was accepted for it. Wakes of a feed that come while it waits or
// runs are one. It never blocks.
func (r *Room) Wake(num uint32) {
	if f := r.feed(num); f != nil {
		r.sched.wake(f.task, time.Now())
		return
	}
	if a := r.announcer(num); a != nil {
		a.wake()
		return
	}
	r.sched.wake(r.janitor, time.Now())
}

// settleOrphans ends notifications for feeds that are watched no more; their subscriptions may outlive them a little.
func (r *Room) settleOrphans(context.Context) time.Time {
	for _, num := range r.st.PendingFeeds() {
		if _, ok := r.st.Feed(num); ok {
			continue
		}
		err := r.st.Update(func(tx *store.Tx) error {
			entries, err := tx.Pending(num, 0)
			for _, e := range entries {
				err = errors.Join(err, tx.Settle(e, store.Filtered))
			}
			return err
		})
		if err != nil {
			r.log.Error().Err(err).Uint32("feed", num).Msg("notifications of a feed that is gone cannot be settled")
			return time.Now().Add(time.Minute)
		}
	}
	return time.Time{}
}

// CatchUp asks for a round of a feed now, notifications or not.
func (r *Room) CatchUp(num uint32, reason string) { r.demand(num, reason, false) }

// demand asks for a round of a feed, or of all calendars that a subscription is for.
func (r *Room) demand(num uint32, reason string, full bool) {
	for _, f := range r.served(num) {
		f.ask(reason, full)
		r.sched.wake(f.task, time.Now())
	}
}

// served are the feeds that a subscription is for: one mail folder, or all calendars of a mailbox.
func (r *Room) served(num uint32) []*feed {
	if f := r.feed(num); f != nil {
		return []*feed{f}
	}
	if a := r.announcer(num); a != nil {
		return a.mb.calendars()
	}
	return nil
}

func (r *Room) announcer(num uint32) *announcer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.announcers[num]
}

// Resume goes on with a connection that was paused: what was missed meanwhile is read now, whatever waits there were.
func (r *Room) Resume(connection string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, mb := range r.mailboxes {
		if mb.target.Connection == connection {
			mb.resumed.Store(true)
			r.sched.wake(mb.task, now)
		}
	}
	for _, f := range r.feeds {
		if f.mb.target.Connection == connection {
			f.resumed.Store(true)
			f.ask("connection resumed", false)
			r.sched.wake(f.task, now)
		}
	}
}

// Resync asks for a full enumeration of a feed now.
func (r *Room) Resync(num uint32, reason string) { r.demand(num, reason, true) }

// ResyncWatch asks for a full enumeration of all feeds of a watch and says how many there are.
func (r *Room) ResyncWatch(name, reason string) (n int) {
	r.mu.Lock()
	var nums []uint32
	for num, f := range r.feeds {
		if f.follows(name) {
			nums = append(nums, num)
		}
	}
	r.mu.Unlock()
	for _, num := range nums {
		r.Resync(num, reason)
	}
	return len(nums)
}

func (r *Room) feed(num uint32) *feed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.feeds[num]
}

// PushFeed is a feed that may have a subscription.
type PushFeed struct {
	Feed                uint32
	Connection, Mailbox string
	FolderID            string // empty: the events of all calendars (S-27)
}

// PushFeeds lists the feeds that should have a subscription.
func (r *Room) PushFeeds() []PushFeed {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []PushFeed
	for _, f := range r.feeds {
		if f.wanted.Load().push && f.kind == store.MailFolder {
			out = append(out, PushFeed{f.num, f.mb.target.Connection, f.mb.target.Address, f.folder})
		}
	}
	for _, a := range r.announcers {
		out = append(out, PushFeed{Feed: a.num, Connection: a.mb.target.Connection, Mailbox: a.mb.target.Address})
	}
	return out
}

// spread places something periodic in its period by a hash, so that mailboxes do not take turns all at once and a
// restart moves nobody. The result is below d.
func spread(d time.Duration, parts ...string) time.Duration {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
	}
	if d <= 0 {
		return 0
	}
	return time.Duration(h.Sum64() % uint64(d))
}
