package delta

import (
	"cmp"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// FeedStatus is what an operator wants to know of a feed.
type FeedStatus struct {
	Feed       uint32            `json:"feed"`
	Connection string            `json:"connection"`
	Mailbox    string            `json:"mailbox"` // its token in subjects
	Area       string            `json:"area"`    // mail or calendar
	Folder     string            `json:"folder"`  // path; or the calendar's name
	Label      string            `json:"label"`   // well-known name, else one made from the folder's or calendar's id: no personal data
	Inbox      uint32            `json:"inbox"`   // the feed that its subscription is for: its own, or that of all calendars of the mailbox
	Watches    []string          `json:"watches"`
	Mailboxes  map[string]string `json:"mailboxes"` // watch → the mailbox in its subjects

	RoundAt     time.Time     `json:"round_at,omitzero"`     // start of the last completed round: everything up to then is known
	BaselinedAt time.Time     `json:"baselined_at,omitzero"` // zero while the folder is read for the first time
	TrueUpAt    time.Time     `json:"true_up_at,omitzero"`
	DueAt       time.Time     `json:"due_at,omitzero"`
	Interval    time.Duration `json:"interval_ns"` // between rounds, at present
	Pending     bool          `json:"pending"`     // notifications wait to be settled

	Push       bool      `json:"push"`
	PushReason string    `json:"push_reason,omitzero"` // why not
	PushAt     time.Time `json:"push_at,omitzero"`     // last notification that was confirmed
	Announced  uint64    `json:"announced,omitzero"`   // notifications that were confirmed
	Missed     uint64    `json:"missed,omitzero"`      // changes that push never announced

	Reason string `json:"reason,omitzero"` // of the round that runs
	Pages  int    `json:"pages,omitzero"`  // of it so far
	Items  int    `json:"items,omitzero"`
	Error  string `json:"error,omitzero"` // of the last attempt, empty when it went well
	Tries  int    `json:"tries,omitzero"` // failures in a row
}

// MailboxStatus is a mailbox whose folders could not be read or found.
type MailboxStatus struct {
	Connection string `json:"connection"`
	Mailbox    string `json:"mailbox"`
	Error      string `json:"error"`
}

// show notes where a round stands.
func (f *feed) show(p pass, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown.Reason, f.shown.Pages, f.shown.Items, f.shown.Error, f.shown.Tries = "", 0, 0, "", f.tries
	if p == nil {
	} else if r := p.common(); !r.done {
		f.shown.Reason, f.shown.Pages, f.shown.Items = r.reason, r.pages, r.items
	}
	if err != nil {
		f.shown.Error = err.Error()
	}
	if !f.dueAt.IsZero() {
		f.shown.DueAt = f.dueAt
	}
}

// Status tells how every feed is, and which mailboxes have none because of an error. Sorted by mailbox and folder.
func (r *Room) Status() (feeds []FeedStatus, problems []MailboxStatus) {
	r.mu.Lock()
	all := make([]*feed, 0, len(r.feeds))
	for _, f := range r.feeds {
		all = append(all, f)
	}
	mailboxes := slices.Clone(r.mailboxes)
	r.mu.Unlock()
	for _, f := range all {
		if s, ok := f.status(); ok {
			feeds = append(feeds, s)
		}
	}
	slices.SortFunc(feeds, func(a, b FeedStatus) int {
		return cmp.Or(cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Folder, b.Folder), cmp.Compare(a.Feed, b.Feed))
	})
	for _, mb := range mailboxes {
		mb.mu.Lock()
		if mb.problem != nil {
			problems = append(problems, MailboxStatus{mb.target.Connection, mb.target.Watches[0].Token, mb.problem.Error()})
		}
		mb.mu.Unlock()
	}
	return feeds, problems
}

// Watched is one watch over one mailbox.
type Watched struct {
	Origin     event.Origin
	Connection string
	Feeds      []FeedStatus
	Problem    string // why the mailbox's folders could not be read or found
}

// Watched lists every watch over every mailbox with its feeds.
func (r *Room) Watched() (out []Watched) {
	r.mu.Lock()
	feeds := map[*mailbox][]*feed{}
	for _, f := range r.feeds {
		feeds[f.mb] = append(feeds[f.mb], f)
	}
	mailboxes := slices.Clone(r.mailboxes)
	r.mu.Unlock()
	for _, mb := range mailboxes {
		naming := mb.naming()
		mb.mu.Lock()
		problem := ""
		if mb.problem != nil {
			problem = mb.problem.Error()
		}
		mb.mu.Unlock()
		for i := range mb.target.Watches {
			w := &mb.target.Watches[i]
			one := Watched{
				Origin:     event.Origin{Tenant: naming.Tenant, Watch: w.Name, Token: w.Token, UserID: naming.UserID, Alias: w.Alias},
				Connection: mb.target.Connection, Problem: problem,
			}
			for _, f := range feeds[mb] {
				if s, ok := f.status(); ok && f.follows(w.Name) {
					one.Feeds = append(one.Feeds, s)
				}
			}
			out = append(out, one)
		}
	}
	return out
}

// names are what the feed is called: for the operator, and without personal data.
func (f *feed) names() (name, label string) {
	if f.kind == store.CalendarFeed {
		c := f.calendar()
		if label = "c-" + event.ID(f.folder)[:8]; c.IsDefault {
			label = "calendar"
		}
		return cmp.Or(c.Name, f.folder), label
	}
	folders := f.mb.naming().Folders
	return cmp.Or(changes.Path(folders, f.folder), f.folder), cmp.Or(folders[f.folder].WellKnown, "f-"+event.ID(f.folder)[:8])
}

func (f *feed) status() (FeedStatus, bool) {
	rec, ok := f.mb.room.st.Feed(f.num)
	inbox := f.inbox()
	name, label := f.names()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.shown
	s.Folder, s.Label, s.Inbox, s.Area = name, label, inbox, event.AreaMail
	if f.kind == store.CalendarFeed {
		s.Area = event.AreaCalendar
	}
	s.Feed, s.Connection, s.Mailbox = f.num, f.mb.target.Connection, f.mb.target.Watches[0].Token
	s.Mailboxes = map[string]string{}
	for _, w := range f.wanted.Load().watches {
		s.Watches = append(s.Watches, w.Name)
		s.Mailboxes[w.Name] = w.Token
	}
	slices.Sort(s.Watches)
	s.RoundAt, s.BaselinedAt, s.TrueUpAt, s.PushAt, s.Announced, s.Missed = rec.RoundAt, rec.BaselinedAt, rec.TrueUpAt, rec.PushAt, rec.Announced, rec.Missed
	s.Pending = f.mb.room.st.HasPending(inbox)
	return s, ok
}
