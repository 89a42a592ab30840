package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

var errLoop = errors.New("nextLink leads in a circle")

const (
	maxPages    = 100_000            // a round that is longer is a loop that changes its links (D-22)
	maxPending  = 10_000             // notifications judged in one round
	listOverlap = 2 * time.Minute    // where changes are found by time, how far the windows overlap
	listCursor  = "modified-since: " // + RFC 3339: the cursor of a feed without delta
)

type phase int

const (
	phasePages   phase = iota // follow the links
	phaseUnseen               // after an enumeration: what is known and was not returned
	phaseConfirm              // read directly what was announced and delta does not show
	phaseDone
)

// round is one pass over a feed, resumable after an interruption: each step makes the requests of one page and commits
// what they show.
type round struct {
	f        *feed
	rec      store.Feed // as the round began
	reason   string
	full     bool // enumerates without a cursor
	list     bool // lists and filters instead of delta (C-12)
	started  time.Time
	naming   *changes.Mailbox
	*wanted                  // as the round began
	fresh    map[string]bool // watches that want what was there before
	pending  *announcements
	pageSize int

	phase      phase
	link       string
	pages      int
	items      int // seen, for progress
	events     int
	links      map[[16]byte]struct{}
	seen       map[[16]byte]struct{}     // in an enumeration
	fetched    map[string]jsontext.Value // items read for this page, kept when the page must be repeated; nil value: gone
	unseen     []string
	confirm    []string
	cursor     string
	folderGone bool
	open       bool // something announced was not shown yet
	missed     uint64
}

// begin decides what kind of round is needed and reads what was announced.
func (f *feed) begin(rec store.Feed, now time.Time) (*round, error) {
	f.mu.Lock()
	reason, full := f.asked, f.full
	f.asked, f.full = "", false
	f.mu.Unlock()
	w := f.wanted.Load()

	trueUp := f.mb.room.opts.TrueUp
	due := rec.TrueUpAt.Add(trueUp - trueUp/10 + spread(trueUp/10, f.mb.target.Address, f.folder))
	switch {
	case rec.BaselinedAt.IsZero():
		reason, full = "baseline", true
	case rec.Cursor == "" || strings.HasPrefix(rec.Cursor, listCursor) != f.mb.noDelta:
		reason, full = "no cursor", true
	case rec.Content < w.content:
		reason, full = "more content", true
	case len(rec.Starting) > 0:
		reason, full = "start", true
	case !now.Before(due):
		reason, full = "trueup", true
	}
	r := &round{
		f: f, rec: rec, reason: reason, full: full, list: f.mb.noDelta, started: now,
		naming: f.mb.naming(), wanted: w, fresh: rec.Starting,
		pageSize: f.pageSize, links: map[[16]byte]struct{}{}, fetched: map[string]jsontext.Value{},
	}
	if full {
		r.seen = map[[16]byte]struct{}{}
	} else {
		r.link = rec.Cursor
	}
	if r.pageSize == 0 {
		r.pageSize = f.mb.room.opts.PageSize
		if w.content >= event.ContentBody {
			r.pageSize = min(r.pageSize, bodyPage)
		}
	}
	var err error
	r.pending, err = f.announced()
	if r.reason == "" {
		r.reason = "poll"
		if len(r.pending.byItem) > 0 {
			r.reason = "push"
		}
	}
	return r, err
}

// shrink asks for smaller pages after Graph could not produce one (H-7, D-41).
func (r *round) shrink() {
	if r.pageSize > minPage {
		r.pageSize = max(minPage, r.pageSize/2)
		r.f.pageSize = r.pageSize
	}
}

// folderVanished turns the round into one that found nothing: every known item is then looked up by itself.
func (r *round) folderVanished() {
	r.folderGone, r.full, r.phase, r.cursor = true, true, phaseUnseen, ""
	r.seen, r.unseen = map[[16]byte]struct{}{}, nil
}

// step goes one page, or one batch of single reads, further. It may be called again after an error.
func (r *round) step(ctx context.Context) (done bool, err error) {
	switch r.phase {
	case phasePages:
		err = r.page(ctx)
	case phaseUnseen:
		err = r.lookUpUnseen(ctx)
	case phaseConfirm:
		err = r.readAnnounced(ctx)
	}
	return r.phase == phaseDone, err
}

// page fetches one page and commits what it shows.
func (r *round) page(ctx context.Context) error {
	page, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	looks, err := r.observe(ctx, page.Items)
	if err != nil {
		return err
	}
	last := page.Next == ""
	var fin *finish
	if last {
		r.cursor = page.Delta
		if r.list {
			r.cursor = listCursor + r.started.Add(-listOverlap).UTC().Format(time.RFC3339)
		}
		if !r.full {
			fin = &finish{}
		}
	} else if err := r.remember(page.Next); err != nil {
		return err
	}
	if err := r.apply(looks, fin); err != nil {
		return err
	}
	clear(r.fetched)
	r.pages++
	r.items += len(page.Items)
	switch {
	case !last:
		r.link = page.Next
	case r.full:
		r.phase = phaseUnseen
	default:
		r.finished()
	}
	return nil
}

func (r *round) fetch(ctx context.Context) (graph.Page, error) {
	mb := r.f.mb
	if !r.list {
		return mb.graph.MessagesDelta(ctx, graph.DeltaRequest{
			Mailbox: mb.target.Address, Folder: r.f.folder, Link: r.link, Select: event.Select(r.content), PageSize: r.pageSize,
		})
	}
	req := graph.ListRequest{Mailbox: mb.target.Address, Folder: r.f.folder, Select: event.Select(r.content), PageSize: r.pageSize}
	if since, ok := strings.CutPrefix(r.link, listCursor); ok {
		req.Since, req.ModifiedSince = event.ParseTime(since), true
	} else {
		req.Link = r.link
	}
	return mb.graph.ListMessages(ctx, req)
}

// remember notices links that lead in a circle (D-22).
func (r *round) remember(link string) error {
	h := digest(link)
	if _, ok := r.links[h]; ok || r.pages >= maxPages {
		return fmt.Errorf("%w after %d pages", errLoop, r.pages+1)
	}
	r.links[h] = struct{}{}
	return nil
}

func digest(s string) [16]byte {
	sum := sha256.Sum256([]byte(s))
	return [16]byte(sum[:16])
}

// lookUpUnseen reads what is known to be in the folder and was not returned by an enumeration: deleted, moved, or
// missed by delta (D-30). The cursor is committed with the last of them.
func (r *round) lookUpUnseen(ctx context.Context) error {
	if r.unseen == nil {
		if err := r.findUnseen(); err != nil {
			return err
		}
	}
	n := min(len(r.unseen), 100)
	looks, err := r.lookUp(ctx, r.unseen[:n])
	if err != nil {
		return err
	}
	var fin *finish
	if n == len(r.unseen) {
		fin = &finish{}
	}
	if err := r.apply(looks, fin); err != nil {
		return err
	}
	clear(r.fetched)
	r.unseen = r.unseen[n:]
	if fin != nil {
		r.finished()
	}
	return nil
}

func (r *round) findUnseen() error {
	r.unseen = []string{}
	return r.f.mb.room.st.View(func(tx *store.Tx) error {
		return tx.EachItem(r.rec.Mailbox, func(id string, read func() (store.Item, error)) error {
			if _, ok := r.seen[digest(id)]; ok {
				return nil
			}
			it, err := read()
			if err == nil && it.FolderID == r.f.folder && it.GoneAt.IsZero() && it.SeenAt.Before(r.started) {
				r.unseen = append(r.unseen, id)
			}
			return nil // a damaged one is read anew when Graph next tells of it
		})
	})
}

// readAnnounced reads directly what was announced long enough ago and delta still does not show.
func (r *round) readAnnounced(ctx context.Context) error {
	n := min(len(r.confirm), 100)
	ids := r.confirm[:n]
	looks, err := r.lookUp(ctx, ids)
	if err != nil {
		return err
	}
	if err := r.apply(looks, &finish{confirmed: ids}); err != nil {
		return err
	}
	clear(r.fetched)
	if r.confirm = r.confirm[n:]; len(r.confirm) == 0 {
		r.phase = phaseDone
	}
	return nil
}

// finished is called after the cursor was committed.
func (r *round) finished() {
	r.phase = phaseDone
	if len(r.confirm) > 0 {
		r.phase = phaseConfirm
	}
	l := r.f.log.Debug()
	if r.rec.BaselinedAt.IsZero() {
		l = r.f.log.Info()
	}
	l.Str("reason", r.reason).Bool("full", r.full).Int("pages", r.pages).Int("items", r.items).Int("events", r.events).
		Dur("took", time.Since(r.started)).Msg("delta round complete")
	if r.missed > 0 {
		r.f.log.Warn().Uint64("missed", r.missed).Msg("push did not announce changes that the round found")
		r.f.mb.room.opts.Silent(r.f.num, "push did not announce changes")
	}
}
