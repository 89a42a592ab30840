package delta

import (
	"cmp"
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
)

// FeedStatus is what an operator wants to know of a feed.
type FeedStatus struct {
	Feed       uint32            `json:"feed"`
	Connection string            `json:"connection"`
	Mailbox    string            `json:"mailbox"` // its token in subjects
	Folder     string            `json:"folder"`  // path
	Label      string            `json:"label"`   // well-known name, else one made from the folder's id: no personal data
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
func (f *feed) show(r *round, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown.Reason, f.shown.Pages, f.shown.Items, f.shown.Error, f.shown.Tries = "", 0, 0, "", f.tries
	if r != nil && r.phase != phaseDone {
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

func (f *feed) status() (FeedStatus, bool) {
	rec, ok := f.mb.room.st.Feed(f.num)
	folders := f.mb.naming().Folders
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.shown
	s.Feed, s.Connection, s.Mailbox = f.num, f.mb.target.Connection, f.mb.target.Watches[0].Token
	if s.Folder = changes.Path(folders, f.folder); s.Folder == "" {
		s.Folder = f.folder
	}
	if s.Label = folders[f.folder].WellKnown; s.Label == "" {
		s.Label = "f-" + event.ID(f.folder)[:8]
	}
	s.Mailboxes = map[string]string{}
	for _, w := range f.wanted.Load().watches {
		s.Watches = append(s.Watches, w.Name)
		s.Mailboxes[w.Name] = w.Token
	}
	slices.Sort(s.Watches)
	s.RoundAt, s.BaselinedAt, s.TrueUpAt, s.PushAt, s.Announced, s.Missed = rec.RoundAt, rec.BaselinedAt, rec.TrueUpAt, rec.PushAt, rec.Announced, rec.Missed
	s.Pending = f.mb.room.st.HasPending(f.num)
	return s, ok
}
