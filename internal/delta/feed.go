package delta

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

const (
	// wakeSpacing is the least time between the beginnings of two rounds of a feed: a mailbox has 10,000 requests in ten
	// minutes (H-2), and a storm of notifications must not use them up.
	wakeSpacing = 200 * time.Millisecond

	minPage  = 10 // below this a page is not shrunk any more
	bodyPage = 50 // page size where bodies are read
)

// feed is one mail folder or calendar at work. Fields above mu belong to the worker that runs the task.
type feed struct {
	mb     *mailbox
	num    uint32
	kind   store.FeedKind
	folder string // or the calendar's id
	log    zerolog.Logger
	task   *task

	round     pass      // nil between rounds
	begun     time.Time // when the last round began
	dueAt     time.Time // when a round is due by itself
	notBefore time.Time // Graph asked for patience, or we give it some
	tries     int       // failures in a row
	lagTries  int       // rounds in a row that did not show what was announced
	pageSize  int       // 0: the default
	pushSince time.Time // since when push is believed to work

	wanted  atomic.Pointer[wanted] // what watches want; replaced as a whole
	resumed atomic.Bool            // the connection was paused: waits no longer count

	mu      sync.Mutex
	asked   string                      // reason of a round asked for
	full    bool                        // an enumeration was asked for
	retry   map[string]store.Quarantine // parked items that are to be read again, by id
	direct  map[string]bool             // of a calendar: announced items that are to be read by themselves
	refused map[string]int              // of a calendar: how often an item could not be read by itself
	shown   FeedStatus
}

// wanted is what the watches over a feed want of it. It is never changed.
type wanted struct {
	watches  []changes.Watch
	content  event.Content // what rounds must read
	push     bool          // some watch wants a subscription
	noPush   string        // why none does, in words
	refs     bool          // some watch has content "reference"
	onlyRefs bool

	past, future time.Duration // of a calendar: the widest window
	alarms       string        // of a calendar: what the alarms depend on
}

// configure takes over what the watches want.
func (f *feed) configure(rec store.Feed, watches []resolved) {
	next := &wanted{onlyRefs: true, noPush: "polling is what the watch asks for"}
	for _, w := range watches {
		since := rec.Watches[w.Name]
		cw := changes.Watch{
			Name: w.Name, Token: w.Token, Alias: w.Alias, Content: w.Content, Filter: w.Filter,
			Events: map[string]bool{}, Folders: w.folders, Joined: since, Since: since.Add(-w.Back),
		}
		if w.All {
			cw.Since = time.Time{}
		}
		if f.kind == store.CalendarFeed {
			f.configureCalendar(next, &cw, w.Watch)
		} else {
			for _, name := range w.Events {
				cw.Events[name] = true
			}
		}
		next.watches = append(next.watches, cw)
		next.content = max(next.content, w.Content, w.Reads)
		next.push = next.push || w.Push
		if w.NoPush != "" {
			next.noPush = w.NoPush
		}
		next.refs = next.refs || w.Content == event.ContentReference
		next.onlyRefs = next.onlyRefs && w.Content == event.ContentReference
	}
	f.wanted.Store(next)
}

func (f *feed) follows(watch string) bool {
	return slices.ContainsFunc(f.wanted.Load().watches, func(w changes.Watch) bool { return w.Name == watch })
}

// ask records why the next round is made, and whether it must enumerate.
func (f *feed) ask(reason string, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.full = reason, f.full || full
}

// firstRound spreads the rounds after a start; a feed that was never read begins at once.
func (f *feed) firstRound(rec store.Feed, now time.Time) time.Time {
	if rec.RoundAt.IsZero() || now.Sub(rec.RoundAt) > f.mb.room.opts.Poll {
		return now.Add(spread(min(f.mb.room.opts.Poll, 10*time.Second)/2, f.mb.target.Address, f.folder))
	}
	return now.Add(spread(f.mb.room.opts.Poll, f.mb.target.Address, f.folder))
}

// run does what the feed needs now, and returns when it wants to run again.
func (f *feed) run(ctx context.Context) time.Time {
	now := time.Now().Round(0)
	if f.resumed.Swap(false) {
		f.notBefore, f.tries = time.Time{}, 0
	}
	if now.Before(f.notBefore) {
		return f.notBefore
	}
	rec, ok := f.mb.room.st.Feed(f.num)
	if !ok {
		return time.Time{}
	}
	if err := errors.Join(f.refer(rec, now), f.setAlarms(rec, now)); err != nil {
		return f.failed(ctx, err)
	}
	if reason := f.mb.paused(); reason != "" {
		f.show(f.round, errPaused)
		return now.Add(pausedLook)
	}
	if f.round == nil {
		if next := f.begun.Add(wakeSpacing); now.Before(next) {
			return next
		}
		if f.idle(now) {
			return f.dueAt
		}
		r, err := f.begin(rec, now)
		if err != nil {
			return f.failed(ctx, err)
		}
		f.round, f.begun = r, now
	}
	for {
		done, err := f.round.step(ctx)
		f.round.common().done = done
		f.show(f.round, err)
		if err != nil {
			return f.failed(ctx, err)
		}
		if done {
			return f.completed(time.Now().Round(0))
		}
	}
}

// idle reports whether a feed that is only told about by reference has nothing to read: its notifications are events.
func (f *feed) idle(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wanted.Load().onlyRefs && f.asked == "" && now.Before(f.dueAt)
}

// completed plans the next round.
func (f *feed) completed(now time.Time) time.Time {
	r := f.round.common()
	f.mb.room.opts.Ended(r.reason, true)
	f.round, f.tries = nil, 0
	if f.pageSize > 0 { // grow back
		if f.pageSize *= 2; f.pageSize >= f.mb.room.opts.PageSize {
			f.pageSize = 0
		}
	}
	rec, _ := f.mb.room.st.Feed(f.num)
	// What a round says holds as of its beginning: one that was interrupted for long is soon followed by another.
	every := f.interval(rec, now)
	f.dueAt = r.started.Add(every)
	if soonest := now.Add(every / 10); f.dueAt.Before(soonest) {
		f.dueAt = soonest
	}
	if r.folderGone {
		f.dueAt = now.Add(max(f.mb.room.opts.Poll, time.Minute))
		f.mb.refreshSoon()
	}
	if f.kind == store.CalendarFeed {
		f.mb.announcer().wake()
		if r.again {
			return now.Add(wakeSpacing)
		}
		return f.dueAt
	}
	if !r.open {
		f.lagTries = 0
		if f.mb.room.st.HasPending(f.num) && !f.wanted.Load().onlyRefs { // accepted while the round ran
			return now.Add(wakeSpacing)
		}
		return f.dueAt
	}
	// Delta lags behind push (T-3): look again soon, less and less soon.
	f.lagTries++
	again := now.Add(min(time.Second<<min(f.lagTries-1, 4), f.mb.room.opts.Lag/2+time.Millisecond))
	if again.Before(f.dueAt) {
		return again
	}
	return f.dueAt
}

// interval is how long to wait for the next round: long while push is proven, short while it is not.
func (f *feed) interval(rec store.Feed, now time.Time) time.Duration {
	o := &f.mb.room.opts
	want := f.wanted.Load()
	ok, reason := false, want.noPush
	if want.push {
		ok, reason = o.PushOK(f.inbox())
	}
	if ok && rec.MissedAt.After(rec.PushAt) {
		ok, reason = false, "push did not announce a change"
	}
	switch {
	case !ok:
		f.pushSince = time.Time{}
	case f.pushSince.IsZero():
		f.pushSince = now
	}
	every := o.Poll
	if ok {
		every = o.Sweep
	}
	f.mu.Lock()
	f.shown.Push, f.shown.PushReason, f.shown.Interval = ok, reason, every
	f.mu.Unlock()
	return every - every/20 + rand.N(every/10+1)
}

// inbox is the feed for which changes of this one are announced: its own, or that of all calendars of the mailbox (S-27).
func (f *feed) inbox() uint32 {
	if f.kind == store.CalendarFeed {
		return f.mb.announcer().number()
	}
	return f.num
}

// failed decides what an error means for the round and when to go on.
func (f *feed) failed(ctx context.Context, err error) time.Time {
	now := time.Now().Round(0)
	if ctx.Err() != nil {
		return now
	}
	if errors.Is(err, graph.ErrUnauthorized) && f.mb.paused() != "" {
		f.show(f.round, errPaused) // the round goes on where it is
		return now.Add(pausedLook)
	}
	f.tries++
	if f.round != nil {
		f.mb.room.opts.Ended(f.round.common().reason, false)
	}
	wait := retryAfter(err, f.tries)
	level := zerolog.WarnLevel
	switch {
	case f.round == nil:
	case errors.Is(err, graph.ErrThrottled):
		level = zerolog.InfoLevel // the round goes on where it is
	case errors.Is(err, graph.ErrUnavailable):
		f.round.common().shrink()
	case errors.Is(err, graph.ErrResync), errors.Is(err, graph.ErrForeignLink), errors.Is(err, errLoop) && f.tries > 2:
		f.ask("resync", true)
		f.round = nil
		if f.tries == 1 {
			wait = 0
		}
	case errors.Is(err, graph.ErrDeltaUnsupported) && !f.mb.noDelta && f.kind == store.MailFolder:
		f.mb.noDelta, wait = true, 0
		f.drop()
	case errors.Is(err, graph.ErrNotFound) && !errors.Is(err, graph.ErrMailboxUnavailable) && f.folderIsGone(ctx):
		f.round.vanished()
		wait = 0
	default:
		f.drop()
	}
	f.show(f.round, err)
	f.notBefore = now.Add(wait)
	f.log.WithLevel(level).Err(err).Int("attempt", f.tries).Dur("wait", wait).Msg("delta round interrupted")
	return f.notBefore
}

// drop ends a round that cannot go on. What was asked for is asked for again.
func (f *feed) drop() {
	if r := f.round.common(); r.asked != "" {
		f.ask(r.asked, r.askedFull)
	}
	f.round = nil
}

// folderIsGone tells a vanished folder from a mailbox that answers 404 to everything, whose items are not deleted.
func (f *feed) folderIsGone(ctx context.Context) bool {
	if f.kind == store.CalendarFeed {
		return f.calendarIsGone(ctx)
	}
	if _, err := f.mb.graph.Folder(ctx, f.mb.target.Address, "inbox"); err != nil {
		return false
	}
	_, err := f.mb.graph.Folder(ctx, f.mb.target.Address, f.folder)
	return errors.Is(err, graph.ErrNotFound)
}

// retryAfter is how long to wait after the nth failure in a row: what Graph said at least, growing, with jitter.
func retryAfter(err error, n int) time.Duration {
	base, limit := time.Second, 5*time.Minute
	if errors.Is(err, graph.ErrForbidden) || errors.Is(err, graph.ErrMailboxUnavailable) || errors.Is(err, graph.ErrBadRequest) ||
		errors.Is(err, graph.ErrUnauthorized) || errors.Is(err, graph.ErrNotFound) {
		base, limit = 15*time.Second, time.Hour // somebody must act
	}
	d := min(base<<min(n-1, 16), limit)
	d = d/2 + rand.N(d/2+1)
	if ge, ok := errors.AsType[*graph.Error](err); ok && ge.RetryAfter > 0 {
		// Outlook was seen to say 1 s for ever (H-6), so our own back-off goes on growing under it.
		d = max(d, ge.RetryAfter)
	}
	return d
}
