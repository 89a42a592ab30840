// Package probe finds out what each connection can and cannot read, by asking: with what remedy, and who must act. It
// changes nothing.
package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/graph"
)

// Who must act.
const (
	Operator = "operator"
	User     = "user"
	Entra    = "Entra administrator"
	Exchange = "Exchange administrator"
	Owner    = "mailbox owner or Exchange administrator"
)

// Finding is the answer to one question.
type Finding struct {
	Connection string `json:"connection"`
	Mailbox    string `json:"mailbox,omitempty"` // as configured; empty: the connection as a whole
	OK         bool   `json:"ok"`
	Text       string `json:"text"`
	Remedy     string `json:"remedy,omitempty"`
	Who        string `json:"who,omitempty"` // must act
}

// Graph is what is asked of Graph; *graph.Client has it.
type Graph interface {
	Folder(ctx context.Context, mailbox, idOrWellKnown string) (graph.Folder, error)
	DefaultCalendar(ctx context.Context, mailbox string) (graph.Calendar, error)
	Calendars(ctx context.Context, mailbox string) ([]graph.Calendar, error)
	TimeZone(ctx context.Context, mailbox string) (string, error)
}

// Room is what is asked of the connections; *connections.Room has it.
type Room interface {
	Source(name string) connections.Source
	Look(ctx context.Context, name string) (connections.Status, error)
}

// atOnce bounds the questions that are out at a time.
const atOnce = 8

// Run asks about every connection of a watch file, and every mailbox on it. Findings come by connection, in the order
// of the file. Graphs are by connection.
func Run(ctx context.Context, file *config.File, room Room, graphs map[string]Graph) []Finding {
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(file.Connections)) {
		c := file.Connections[name]
		p := prober{conf: c, graph: graphs[name]}
		signIn, ok := p.signIn(ctx, room)
		out = append(out, signIn...)
		if ok {
			out = append(out, p.mailboxes(ctx, file)...)
		}
	}
	return out
}

// prober asks about one connection.
type prober struct {
	conf  config.Connection
	graph Graph
}

// signIn tells whether there is a token, and whether it may do what is needed.
func (p prober) signIn(ctx context.Context, room Room) (out []Finding, ok bool) {
	s, err := room.Look(ctx, p.conf.Name)
	f := Finding{Connection: p.conf.Name}
	switch {
	case err != nil:
		f.Text, f.Remedy, f.Who = err.Error(), "mend the state directory", Operator
		return []Finding{f}, false
	case s.State == connections.OK && s.User != "":
		f.OK, f.Text = true, "signed in for "+s.User
	case s.State == connections.OK:
		f.OK, f.Text = true, "signed in as the app"
	default:
		f.Text, f.Remedy, f.Who = strings.ReplaceAll(string(s.State), "_", " ")+": "+s.Reason, s.Remedy, actor(s.State)
	}
	return []Finding{f}, !s.Paused && s.State != connections.Unreachable && s.State != connections.Throttled
}

func actor(s connections.State) string {
	switch s {
	case connections.ReauthRequired:
		return User
	case connections.ConsentRequired:
		return Entra
	}
	return Operator
}

// mailboxes asks about every mailbox on the connection, and those that must be out of reach.
func (p prober) mailboxes(ctx context.Context, file *config.File) (out []Finding) {
	var questions []func() []Finding
	for _, m := range p.watched(file) {
		questions = append(questions, func() []Finding { return p.readable(ctx, m) })
	}
	for _, address := range p.conf.Unreachable {
		questions = append(questions, func() []Finding { return []Finding{p.unreachable(ctx, address, file.Needs(p.conf.Name))} })
	}
	answers := make([][]Finding, len(questions))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, ask := range questions {
		g.Go(func() error { answers[i] = ask(); return nil })
	}
	_ = g.Wait() // a question has no error, only an answer
	return slices.Concat(answers...)
}

// mailbox is one of those watched, with all that watches want of it.
type mailbox struct {
	config.Mailbox
	needs     config.Needs
	calendars []string // those named, beside the default one
}

// watched lists the mailboxes on the connection, each once, in the order of the file.
func (p prober) watched(file *config.File) (out []*mailbox) {
	known := map[string]*mailbox{}
	for i := range file.Watches {
		w := &file.Watches[i]
		if w.Connection != p.conf.Name {
			continue
		}
		for _, m := range w.Mailboxes {
			key := strings.ToLower(m.Address)
			if known[key] == nil {
				known[key] = &mailbox{Mailbox: m}
				out = append(out, known[key])
			}
			known[key].needs = known[key].needs.And(w.Needs(p.conf.Auth, m))
			known[key].name(w.Calendar.Calendars)
		}
	}
	return out
}

// name adds calendars that are called by a name or an id.
func (m *mailbox) name(refs []config.FolderRef) {
	for _, ref := range refs {
		if !strings.EqualFold(ref.Name, "default") && !strings.EqualFold(ref.Name, "all") && !slices.Contains(m.calendars, ref.Name) {
			m.calendars = append(m.calendars, ref.Name)
		}
	}
}

// thing is what is read of a mailbox.
type thing struct {
	name       string // as findings call it; empty for mail
	permission string // the application permission
	share      string // what lets another user read it
	lacking    string // what to do instead of giving an app the permission; empty: nothing
	read       func(ctx context.Context, g Graph, mailbox string) error
}

var (
	mail = thing{"", "Mail.Read", "share the mailbox with the signed-in user (Full Access, or Reviewer on its folders)", "",
		func(ctx context.Context, g Graph, mailbox string) error {
			_, err := g.Folder(ctx, mailbox, "inbox")
			return err
		}}
	calendar = thing{"calendar", "Calendars.Read", "share the calendar with the signed-in user (Reviewer)", "",
		func(ctx context.Context, g Graph, mailbox string) error {
			_, err := g.DefaultCalendar(ctx, mailbox)
			return err
		}}
	zone = thing{"time zone", "MailboxSettings.Read", "", ", or write calendar.time_zone into the watch",
		func(ctx context.Context, g Graph, mailbox string) error {
			_, err := g.TimeZone(ctx, mailbox)
			return err
		}}
)

// things are what must be read for these needs; where there are none, mail.
func things(n config.Needs) (out []thing) {
	meetings := n.Calendar || n.CalendarShared
	if n.Mail || n.MailShared || !meetings {
		out = append(out, mail)
	}
	if meetings {
		out = append(out, calendar)
	}
	if n.Settings {
		out = append(out, zone)
	}
	return out
}

// readable tells whether what is watched of a mailbox can be read, and how its changes come. A mailbox that is not there is
// told of once.
func (p prober) readable(ctx context.Context, m *mailbox) (out []Finding) {
	for _, t := range things(m.needs) {
		err := t.read(ctx, p.graph, m.Address)
		out = append(out, p.finding(m.Mailbox, t, err))
		if err != nil && !errors.Is(err, graph.ErrForbidden) {
			return out
		}
		if err == nil && t.name == calendar.name {
			out = append(out, p.named(ctx, m)...)
		}
	}
	return out
}

func (p prober) finding(m config.Mailbox, t thing, err error) Finding {
	f := Finding{Connection: p.conf.Name, Mailbox: m.Address}
	delegated := p.conf.Auth == config.AuthDelegated
	readable, denied := "readable", "no access"
	if t.name != "" {
		readable, denied = t.name+" readable", "no access to its "+t.name
	}
	switch {
	case err == nil && delegated && !m.IsMe():
		f.OK, f.Text = true, readable+"; polled, since Graph has no subscriptions on somebody else's mailbox"
	case err == nil:
		f.OK, f.Text = true, readable
	case errors.Is(err, graph.ErrForbidden) && delegated && !m.IsMe():
		f.Text, f.Remedy, f.Who = denied, t.share, Owner
	case errors.Is(err, graph.ErrForbidden) && delegated:
		f.Text, f.Remedy, f.Who = denied, "consent to the permissions that `triggerd scopes "+p.conf.Name+"` lists, and sign in again"+t.lacking, Entra
	case errors.Is(err, graph.ErrForbidden):
		f.Text, f.Who = denied, Exchange
		f.Remedy = "give the app the role Application " + t.permission + " over this mailbox (`triggerd scopes " + p.conf.Name + " --for exchange`); a new assignment takes up to 2 hours" + t.lacking
	case errors.Is(err, graph.ErrNotFound), errors.Is(err, graph.ErrMailboxUnavailable):
		f.Text, f.Remedy, f.Who = "no such mailbox", "compare the address; the account needs a mailbox in Exchange Online"+orShared(delegated, m), Operator
	case errors.Is(err, graph.ErrUnauthorized):
		f.Text, f.Remedy, f.Who = "Graph refuses the token: "+err.Error(), "compare cloud and tenant", Operator
	default:
		f.Text, f.Remedy, f.Who = "cannot tell: "+err.Error(), "try again", Operator
	}
	return f
}

// orShared: Graph may answer 404 for a mailbox that is merely not shared.
func orShared(delegated bool, m config.Mailbox) string {
	if delegated && !m.IsMe() {
		return ", and must be shared with the signed-in user"
	}
	return ""
}

// named tells of each calendar that a watch names whether the mailbox has it.
func (p prober) named(ctx context.Context, m *mailbox) (out []Finding) {
	if len(m.calendars) == 0 {
		return nil
	}
	list, err := p.graph.Calendars(ctx, m.Address)
	if err != nil {
		return []Finding{p.finding(m.Mailbox, thing{name: "list of calendars", permission: calendar.permission, share: calendar.share}, err)}
	}
	for _, name := range m.calendars {
		f := Finding{Connection: p.conf.Name, Mailbox: m.Address, OK: true, Text: fmt.Sprintf("calendar %q found", name)}
		if !slices.ContainsFunc(list, func(c graph.Calendar) bool { return c.ID == name || strings.EqualFold(c.Name, name) }) {
			f.OK, f.Text, f.Who = false, fmt.Sprintf("no calendar %q", name), Operator
			f.Remedy = "write default, all, or one of those there are: " + quoted(list)
		}
		out = append(out, f)
	}
	return out
}

func quoted(list []graph.Calendar) string {
	var out []string
	for _, c := range list {
		out = append(out, fmt.Sprintf("%q", c.Name))
	}
	return strings.Join(out, ", ")
}

// unreachable proves that nothing which the connection reads can be read of a mailbox: the app's reach is limited.
func (p prober) unreachable(ctx context.Context, address string, n config.Needs) Finding {
	f := Finding{Connection: p.conf.Name, Mailbox: address, OK: true, Text: "out of reach, as it must be"}
	delegated := p.conf.Auth == config.AuthDelegated
	for _, t := range things(n) {
		err := t.read(ctx, p.graph, address)
		switch {
		case err == nil && delegated:
			f.Text, f.Remedy, f.Who = "READABLE, and must not be", "take the signed-in user's access to it away", Owner
		case err == nil:
			f.Text, f.Who = "READABLE, and must not be: the app's reach is not limited", Exchange+" and "+Entra
			f.Remedy = "limit the app with RBAC for Applications (`triggerd scopes " + p.conf.Name + " --for exchange`), and take " + t.permission + " away in Entra: both grants count together"
		case errors.Is(err, graph.ErrForbidden):
			continue
		case delegated && errors.Is(err, graph.ErrNotFound):
			continue // Graph does not tell strangers what exists
		default:
			f.Text, f.Remedy, f.Who = fmt.Sprintf("cannot tell whether it is out of reach: %v", err), "name a mailbox that exists in `unreachable`", Operator
		}
		f.OK = false
		return f
	}
	return f
}
