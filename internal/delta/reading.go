package delta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// pass is one reading of a feed, resumable after an interruption.
type pass interface {
	// step goes one page, or one batch of single reads, further. It may be called again after an error.
	step(ctx context.Context) (done bool, err error)
	// vanished turns it into one that found nothing: what it reads is gone from the mailbox.
	vanished()
	// common is what all of them have.
	common() *reading
}

// reading is what the passes over mail folders and calendars have in common.
type reading struct {
	f         *feed
	rec       store.Feed // as it began
	reason    string
	full      bool   // enumerates without a cursor
	asked     string // why somebody asked for it; empty: nobody did
	askedFull bool
	started   time.Time
	*wanted                   // as it began
	fresh     map[string]bool // watches that want what was there before
	pending   *announcements
	pageSize  int

	link       string
	cursor     string
	pages      int
	items      int // seen, for progress
	events     int
	links      map[[16]byte]struct{}
	fetched    map[string]jsontext.Value // items read by themselves, kept when what they are read for must be repeated; nil value: gone
	folderGone bool
	open       bool // something announced was not shown yet
	done       bool
	again      bool // an enumeration is to follow at once
	missed     uint64
}

func (r *reading) common() *reading { return r }

// begin decides what kind of pass is needed.
func (f *feed) begin(rec store.Feed, now time.Time) (pass, error) {
	if f.kind == store.CalendarFeed {
		return f.beginCalendar(rec, now)
	}
	return f.beginMail(rec, now)
}

// read begins a reading: from the cursor, or over everything for one of many reasons, among them again, unless that is
// empty. inbox is the feed for which its changes are announced.
func (f *feed) read(rec store.Feed, again string, inbox uint32, now time.Time) (reading, error) {
	f.mu.Lock()
	reason, full := f.asked, f.full
	f.asked, f.full = "", false
	f.mu.Unlock()
	asked, askedFull := reason, full
	w := f.wanted.Load()

	trueUp := f.mb.room.opts.TrueUp
	due := rec.TrueUpAt.Add(trueUp - trueUp/10 + spread(trueUp/10, f.mb.target.Address, f.folder))
	switch {
	case rec.BaselinedAt.IsZero():
		reason, full = "baseline", true
	case again != "":
		reason, full = again, true
	case rec.Content < w.content:
		reason, full = "more content", true
	case len(rec.Starting) > 0:
		reason, full = "start", true
	case !now.Before(due):
		reason, full = "trueup", true
	}
	r := reading{
		f: f, rec: rec, reason: reason, full: full, asked: asked, askedFull: askedFull, started: now, wanted: w, fresh: rec.Starting,
		pageSize: f.pageSize, links: map[[16]byte]struct{}{}, fetched: map[string]jsontext.Value{},
	}
	if !full {
		r.link = rec.Cursor
	}
	if r.pageSize == 0 {
		r.pageSize = f.mb.room.opts.PageSize
	}
	var err error
	r.pending, err = f.mb.room.announced(inbox)
	if r.reason == "" {
		r.reason = "poll"
		if len(r.pending.byItem) > 0 {
			r.reason = "push"
		}
	}
	return r, err
}

// shrink asks for smaller pages after Graph could not produce one (H-7, D-41).
func (r *reading) shrink() {
	if r.pageSize > minPage {
		r.pageSize = max(minPage, r.pageSize/2)
		r.f.pageSize = r.pageSize
	}
}

// remember notices links that lead in a circle (D-22).
func (r *reading) remember(link string) error {
	h := digest(link)
	if _, ok := r.links[h]; ok || r.pages >= maxPages {
		return fmt.Errorf("%w after %d pages", errLoop, r.pages+1)
	}
	r.links[h] = struct{}{}
	return nil
}

// complete is called after the cursor was committed.
func (r *reading) complete() {
	l := r.f.log.Debug()
	if r.rec.BaselinedAt.IsZero() {
		l = r.f.log.Info()
	}
	l.Str("reason", r.reason).Bool("full", r.full).Int("pages", r.pages).Int("items", r.items).Int("events", r.events).
		Dur("took", time.Since(r.started)).Msg("delta round complete")
	if r.missed > 0 {
		r.f.log.Warn().Uint64("missed", r.missed).Msg("push did not announce changes that the round found")
		r.f.mb.room.opts.Silent(r.f.inbox(), "push did not announce changes")
	}
}

// advance moves the feed's record to the end of the reading.
func (r *reading) advance(f *store.Feed, settled int, now time.Time) {
	pushed(f, settled, now)
	f.Cursor, f.RoundAt, f.Content = r.cursor, r.started, r.content
	if r.full {
		f.TrueUpAt = r.started
		f.Starting = nil
		if f.BaselinedAt.IsZero() {
			f.BaselinedAt = now
		}
	}
	if r.missed > 0 {
		f.Missed += r.missed
		f.MissedAt = now
	}
}

// pushed notes that notifications were confirmed.
func pushed(f *store.Feed, settled int, now time.Time) {
	if settled > 0 {
		f.PushAt = now
		f.Announced += uint64(settled)
	}
}

// late counts a change that push should have announced long ago and did not.
func (r *reading) late(lastModified string, now time.Time) {
	at := event.ParseTime(lastModified)
	if !r.full && !r.f.pushSince.IsZero() && at.After(r.f.pushSince) && now.Sub(at) > r.f.mb.room.opts.PushLate {
		r.missed++
	}
}

// via is the path by which a change was seen.
func (r *reading) via(announced bool) event.Via {
	switch {
	case announced:
		return event.ViaPush
	case r.full:
		return event.ViaTrueUp
	}
	return event.ViaPoll
}

// singleReads is how many items are read at a time by themselves; the client keeps the mailbox's limit (H-2).
const singleReads = 3

// errCorrupt marks an item that Graph itself cannot read (F: ErrorCorruptData).
var errCorrupt = jsontext.Value(`"corrupt"`)

// singly fills fetched. What was read stays there when another read fails, so that a retry asks for the rest only.
func (r *reading) singly(ctx context.Context, ids []string, get func(ctx context.Context, id string) (graph.Item, error)) error {
	got := make([]jsontext.Value, len(ids))
	done := make([]bool, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(singleReads)
	for i, id := range ids {
		if _, ok := r.fetched[id]; ok {
			continue
		}
		g.Go(func() error {
			it, err := get(gctx, id)
			switch {
			case errors.Is(err, graph.ErrMailboxUnavailable):
				return err // 404 for the whole mailbox: nothing is known of the item
			case errors.Is(err, graph.ErrNotFound):
			case errors.Is(err, graph.ErrCorrupt):
				got[i] = errCorrupt
			case err != nil:
				return err
			default:
				got[i] = it.Raw
			}
			done[i] = true
			return nil
		})
	}
	err := g.Wait()
	for i, ok := range done {
		if ok {
			r.fetched[ids[i]] = got[i]
		}
	}
	return err
}
