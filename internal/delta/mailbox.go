package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// keepUnseen is how long an item stays known after it was last seen in a watched folder.
const keepUnseen = 30 * 24 * time.Hour

// forgetBatch bounds how much one transaction forgets.
const forgetBatch = 1000

// wellKnown are the folder names that work in any locale (S-25). The first alwaysAsked of them are looked up in every
// mailbox, since events carry them; the others where a watch names them.
var wellKnown = []string{"msgfolderroot", "inbox", "sentitems", "drafts", "deleteditems", "junkemail", "archive", "outbox",
	"clutter", "conflicts", "conversationhistory", "localfailures", "recoverableitemsdeletions", "scheduled",
	"searchfolders", "serverfailures", "syncissues"}

const alwaysAsked = 8

// mailbox is one target with what is known of its folders, and the feeds that follow from them.
type mailbox struct {
	room    *Room
	target  Target
	graph   Graph
	noDelta bool
	log     zerolog.Logger
	task    *task // reads the folders again
	lane    lane
	resumed atomic.Bool // the connection was paused: waits no longer count

	announces *announcer // guarded by room.mu; nil: its calendars have no subscription

	// apply is held while looks at items are compared and committed, so that two feeds of one mailbox do not judge the
	// same item from the same old state. It is never held across a request to Graph.
	apply sync.Mutex

	mu      sync.Mutex // guards what follows
	rec     store.Mailbox
	problem error // why the folders could not be read or resolved
	tries   int
	asked   time.Time // when an unknown folder last made the folders be read early
}

func mailboxKey(connection, address string) string {
	return connection + "\x00" + strings.ToLower(address)
}

// firstRefresh is when to read the folders for the first time in this run.
func (mb *mailbox) firstRefresh(now time.Time) time.Time {
	if mb.rec.FoldersAt.IsZero() && mb.wantsMail() || mb.rec.CalendarsAt.IsZero() && mb.wantsCalendars() {
		return now
	}
	return now.Add(spread(min(mb.room.opts.Sweep, time.Minute), mb.target.Address))
}

// refresh reads the folders, makes feeds of those that watches name, and forgets items not seen for long.
func (mb *mailbox) refresh(ctx context.Context) time.Time {
	now := time.Now()
	if mb.resumed.Swap(false) {
		mb.mu.Lock()
		mb.tries = 0
		mb.mu.Unlock()
	}
	if mb.paused() != "" {
		return now.Add(pausedLook)
	}
	err := mb.readAgain(ctx, now)
	if resolveErr := mb.resolve(now); err == nil {
		err = resolveErr
	}
	if err == nil {
		err = mb.forget(now)
	}
	if ctx.Err() != nil {
		return now
	}
	if errors.Is(err, graph.ErrUnauthorized) && mb.paused() != "" {
		return now.Add(pausedLook) // it became so while we asked
	}
	mb.mu.Lock()
	defer mb.mu.Unlock()
	mb.problem = err
	if err == nil || isUnknown(err) {
		mb.tries = 0
		if err != nil {
			mb.log.Warn().Err(err).Msg("folder or calendar of a watch not found; looked for again later")
		}
		return now.Add(mb.refreshEvery())
	}
	mb.tries++
	wait := retryAfter(err, mb.tries)
	mb.log.Warn().Err(err).Dur("wait", wait).Msg("folders or calendars could not be read")
	return now.Add(wait)
}

func (mb *mailbox) wantsMail() bool {
	return slices.ContainsFunc(mb.target.Watches, func(w Watch) bool { return len(w.Folders) > 0 })
}

func (mb *mailbox) wantsCalendars() bool {
	return slices.ContainsFunc(mb.target.Watches, func(w Watch) bool { return len(w.Calendars) > 0 })
}

// readAgain reads and stores what there is of folders and calendars. That one of them cannot be read keeps nobody from the
// other.
func (mb *mailbox) readAgain(ctx context.Context, now time.Time) error {
	mb.mu.Lock()
	rec := mb.rec
	mb.mu.Unlock()
	var mailErr, calendarErr error
	if mb.wantsMail() {
		folders, err := mb.readFolders(ctx)
		if mailErr = err; err == nil {
			rec.Folders, rec.FoldersAt = folders, now
		}
	}
	if mb.wantsCalendars() {
		calendars, zone, err := mb.readCalendars(ctx)
		if calendarErr = err; err == nil {
			rec.Calendars, rec.TimeZone, rec.CalendarsAt = calendars, zone, now
		}
	}
	mb.mu.Lock()
	mb.rec = rec
	mb.mu.Unlock()
	err := mb.room.st.Update(func(tx *store.Tx) error { return tx.PutMailbox(&rec) })
	return errors.Join(mailErr, calendarErr, err)
}

// refreshEvery is often where new folders or calendars become feeds by themselves, and rare elsewhere.
func (mb *mailbox) refreshEvery() time.Duration {
	for _, w := range mb.target.Watches {
		for _, f := range slices.Concat(w.Folders, w.Calendars) {
			if strings.EqualFold(f.Name, "all") && !f.Exclude {
				return mb.room.opts.Sweep
			}
		}
	}
	return max(mb.room.opts.TrueUp, mb.room.opts.Sweep)
}

// refreshSoon is for a look at an item in a folder that is not known: at most once a minute.
func (mb *mailbox) refreshSoon() {
	mb.mu.Lock()
	now := time.Now()
	soon := now.Sub(mb.asked) > time.Minute
	if soon {
		mb.asked = now
	}
	mb.mu.Unlock()
	if soon {
		mb.room.sched.wake(mb.task, now)
	}
}

// readFolders lists all folders and finds out which of them are the well-known ones.
func (mb *mailbox) readFolders(ctx context.Context) (map[string]store.FolderInfo, error) {
	list, err := mb.graph.Folders(ctx, mb.target.Address)
	if err != nil {
		return nil, err
	}
	out := make(map[string]store.FolderInfo, len(list))
	for _, f := range list {
		if !f.Removed {
			out[f.ID] = store.FolderInfo{Name: f.Name, ParentID: f.ParentID}
		}
	}
	for _, name := range mb.namesToAsk() {
		f, err := mb.graph.Folder(ctx, mb.target.Address, name)
		if errors.Is(err, graph.ErrNotFound) {
			continue // this mailbox has no such folder, for example no archive
		}
		if err != nil {
			return nil, err
		}
		out[f.ID] = store.FolderInfo{Name: f.Name, ParentID: f.ParentID, WellKnown: name}
	}
	return out, nil
}

func (mb *mailbox) namesToAsk() []string {
	names := slices.Clone(wellKnown[:alwaysAsked])
	for _, w := range mb.target.Watches {
		for _, f := range w.Folders {
			name := strings.ToLower(f.Name)
			if slices.Contains(wellKnown, name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

var errUnknownFolder = errors.New("no such folder")

// isUnknown reports whether an error says no more than that something is not there that a watch names.
func isUnknown(err error) bool {
	return errors.Is(err, errUnknownFolder) || errors.Is(err, errUnknownCalendar)
}

// match finds the folders that references name.
func match(folders map[string]store.FolderInfo, refs []FolderRef) (map[string]bool, error) {
	return matchRefs(folders, refs, errUnknownFolder, func(id string, f store.FolderInfo, ref string) bool { return names(folders, id, f, ref) })
}

// matchRefs finds what references name among all that there is, by id. What none of them names makes an error, which is
// unknown.
func matchRefs[V any](all map[string]V, refs []FolderRef, unknown error, names func(id string, v V, ref string) bool) (map[string]bool, error) {
	out := map[string]bool{}
	var problems []error
	for _, ref := range refs {
		found := false
		for id, v := range all {
			if !names(id, v, ref.Name) {
				continue
			}
			found = true
			if ref.Exclude {
				delete(out, id)
			} else {
				out[id] = true
			}
		}
		if !found {
			problems = append(problems, fmt.Errorf("%w: %q", unknown, ref.Name))
		}
	}
	return out, errors.Join(problems...)
}

func names(folders map[string]store.FolderInfo, id string, f store.FolderInfo, ref string) bool {
	if f.WellKnown == "msgfolderroot" {
		return false
	}
	return strings.EqualFold(ref, "all") || ref == id || strings.EqualFold(f.WellKnown, ref) ||
		strings.EqualFold(changes.Path(folders, id), ref)
}

// place is what a feed reads, or stands for.
type place struct {
	kind store.FeedKind
	id   string // of the folder or calendar
}

// resolve brings the feeds in line with the folders and calendars that the watches name.
func (mb *mailbox) resolve(now time.Time) error {
	mb.mu.Lock()
	num := mb.rec.Num
	mb.mu.Unlock()
	wanted, problems := mb.places()
	existing := map[place]store.Feed{}
	for _, f := range mb.room.st.Feeds() {
		if f.Mailbox == num {
			existing[place{f.Kind, f.FolderID}] = f
		}
	}
	changed := false
	for p, watches := range wanted {
		f, ok := existing[p]
		delete(existing, p)
		did, err := mb.follow(f, ok, p, watches, now)
		if err != nil {
			return err
		}
		changed = changed || did
	}
	if problems == nil { // what merely could not be found now is not forgotten
		for _, f := range existing {
			if err := mb.unfollow(f.Num); err != nil {
				return err
			}
			changed = true
		}
	}
	if changed {
		mb.room.opts.Changed()
	}
	return problems
}

// places are what the watches want to be read, each with its watches, and what could not be found.
func (mb *mailbox) places() (map[place][]resolved, error) {
	mb.mu.Lock()
	folders, calendars := mb.rec.Folders, mb.rec.Calendars
	mb.mu.Unlock()
	var problems []error
	wanted := map[place][]resolved{}
	for i := range mb.target.Watches {
		w := &mb.target.Watches[i]
		ids, err := match(folders, excludesLast(w.Folders))
		for id := range ids {
			p := place{store.MailFolder, id}
			wanted[p] = append(wanted[p], resolved{w, ids})
		}
		of, calErr := matchCalendars(calendars, excludesLast(w.Calendars))
		for id := range of {
			p := place{store.CalendarFeed, id}
			wanted[p] = append(wanted[p], resolved{w, of})
		}
		if len(of) > 0 && w.Push {
			p := place{kind: store.Announcements}
			wanted[p] = append(wanted[p], resolved{w, of})
		}
		if err := errors.Join(err, calErr); err != nil {
			problems = append(problems, fmt.Errorf("watch %s: %w", w.Name, err))
		}
	}
	return wanted, errors.Join(problems...)
}

// excludesLast lets "!inbox, all" mean the same as "all, !inbox".
func excludesLast(refs []FolderRef) []FolderRef {
	out := slices.Clone(refs)
	slices.SortStableFunc(out, func(a, b FolderRef) int {
		switch {
		case a.Exclude == b.Exclude:
			return 0
		case a.Exclude:
			return 1
		}
		return -1
	})
	return out
}

// resolved is a watch with the ids of its folders or calendars in this mailbox.
type resolved struct {
	*Watch
	folders map[string]bool
}

// follow makes or updates the feed of a folder or calendar.
func (mb *mailbox) follow(rec store.Feed, exists bool, p place, watches []resolved, now time.Time) (changed bool, err error) {
	if !exists {
		rec = store.Feed{Mailbox: mb.rec.Num, Kind: p.kind, FolderID: p.id, CreatedAt: now}
	}
	since, starting := map[string]time.Time{}, map[string]bool{}
	for _, w := range watches {
		at, known := rec.Watches[w.Name]
		if !known {
			at = now
		}
		since[w.Name] = at
		if rec.Starting[w.Name] || exists && !known && (w.Back > 0 || w.All) {
			starting[w.Name] = true
		}
	}
	if !exists || !maps.EqualFunc(since, rec.Watches, time.Time.Equal) || !maps.Equal(starting, rec.Starting) {
		rec.Watches, rec.Starting = since, starting
		err := mb.room.st.Update(func(tx *store.Tx) error {
			if !exists {
				rec.Num = 0
				return tx.PutFeed(&rec)
			}
			_, err := tx.UpdateFeed(rec.Num, func(f *store.Feed) { f.Watches, f.Starting = since, starting })
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return mb.install(rec, watches, now), nil
}

// install puts a feed to work, or brings one that works up to date.
func (mb *mailbox) install(rec store.Feed, watches []resolved, now time.Time) (changed bool) {
	r := mb.room
	if rec.Kind == store.Announcements {
		return mb.announce(rec.Num)
	}
	r.mu.Lock()
	f := r.feeds[rec.Num]
	r.mu.Unlock()
	if f == nil {
		f = &feed{mb: mb, num: rec.Num, kind: rec.Kind, folder: rec.FolderID}
		f.shown.Interval = r.opts.Sweep // until its first round: whether push works is not known yet
		f.log = mb.log.With().Uint32("feed", rec.Num).Logger()
		f.task = &task{run: f.run, lane: &mb.lane}
		f.configure(rec, watches)
		r.mu.Lock()
		r.feeds[rec.Num] = f
		r.mu.Unlock()
		r.sched.add(f.task, f.firstRound(rec, now))
		return true
	}
	f.configure(rec, watches)
	if rec.Alarms != f.wanted.Load().alarms {
		r.sched.wake(f.task, now) // lead times or zones are others now
	}
	return false
}

// announce puts what stands for the subscription on all calendars to work.
func (mb *mailbox) announce(num uint32) (changed bool) {
	r := mb.room
	if r.announcer(num) != nil {
		return false
	}
	a := &announcer{mb: mb, num: num}
	a.task = &task{run: a.run, lane: &lane{}} // not the mailbox's lane: it does next to nothing, and its calendars must not wait for it
	r.mu.Lock()
	r.announcers[num], mb.announces = a, a
	r.mu.Unlock()
	r.sched.add(a.task, time.Now())
	return true
}

func (mb *mailbox) unfollow(num uint32) error {
	r := mb.room
	r.mu.Lock()
	f, a := r.feeds[num], r.announcers[num]
	delete(r.feeds, num)
	delete(r.announcers, num)
	if a != nil {
		mb.announces = nil
	}
	r.mu.Unlock()
	if f != nil {
		r.sched.remove(f.task)
	}
	if a != nil {
		r.sched.remove(a.task)
	}
	return r.st.Update(func(tx *store.Tx) error { return tx.DeleteFeed(num) })
}

// errPaused stands in the status of what waits for a person.
var errPaused = errors.New("waits for its connection")

// pausedLook is how often a paused connection is looked at, should nobody tell that it was resumed.
const pausedLook = time.Minute

// paused says why the mailbox's connection cannot be used; empty when it can.
func (mb *mailbox) paused() string { return mb.room.opts.Paused(mb.target.Connection) }

// naming is what changes must know of the mailbox.
func (mb *mailbox) naming() *changes.Mailbox {
	tenant, userID := mb.target.Identity()
	mb.mu.Lock()
	defer mb.mu.Unlock()
	return &changes.Mailbox{Tenant: tenant, UserID: userID, Folders: mb.rec.Folders}
}

// watchedFolders are the folders that have a feed.
func (mb *mailbox) watchedFolders() map[string]bool {
	mb.room.mu.Lock()
	defer mb.room.mu.Unlock()
	out := map[string]bool{}
	for _, f := range mb.room.feeds {
		if f.mb == mb && f.kind == store.MailFolder {
			out[f.folder] = true
		}
	}
	return out
}

// forget drops, once a day, items that are in no watched folder and were not seen for long.
func (mb *mailbox) forget(now time.Time) error {
	mb.mu.Lock()
	num, swept := mb.rec.Num, mb.rec.SweptAt
	mb.mu.Unlock()
	if now.Sub(swept) < 24*time.Hour {
		return nil
	}
	watched := mb.watchedFolders()
	var old []string
	err := mb.room.st.View(func(tx *store.Tx) error {
		return tx.EachItem(num, func(id string, read func() (store.Item, error)) error {
			it, err := read()
			if err == nil && (!it.GoneAt.IsZero() || !watched[it.FolderID]) && now.Sub(it.SeenAt) > keepUnseen {
				old = append(old, id)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(old, forgetBatch) {
		err := mb.room.st.Update(func(tx *store.Tx) error {
			for _, id := range batch {
				if err := tx.DeleteItem(num, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for n := forgetBatch; n == forgetBatch; {
		err := mb.room.st.Update(func(tx *store.Tx) (err error) {
			n, err = tx.ForgetReferences(num, now.Add(-keepUnseen), forgetBatch)
			return err
		})
		if err != nil {
			return err
		}
	}
	mb.mu.Lock()
	mb.rec.SweptAt = now
	rec := mb.rec
	mb.mu.Unlock()
	return mb.room.st.Update(func(tx *store.Tx) error { return tx.PutMailbox(&rec) })
}
