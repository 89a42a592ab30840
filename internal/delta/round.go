package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

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

// round is one pass over a mail folder: each step makes the requests of one page and commits what they show.
type round struct {
	reading
	list   bool // lists and filters instead of delta (C-12)
	naming *changes.Mailbox

	phase   phase
	seen    map[[16]byte]struct{} // in an enumeration
	unseen  []string
	confirm []string
}

// beginMail decides what kind of round a folder needs.
func (f *feed) beginMail(rec store.Feed, now time.Time) (*round, error) {
	again := ""
	if rec.Cursor == "" || strings.HasPrefix(rec.Cursor, listCursor) != f.mb.noDelta {
		again = "no cursor"
	}
	read, err := f.read(rec, again, f.num, now)
	r := &round{reading: read, list: f.mb.noDelta, naming: f.mb.naming()}
	if r.full {
		r.seen = map[[16]byte]struct{}{}
	}
	if r.content >= event.ContentBody {
		r.pageSize = min(r.pageSize, bodyPage)
	}
	return r, err
}

// vanished turns the round into one that found nothing: every known item is then looked up by itself.
func (r *round) vanished() {
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
	r.complete()
}
