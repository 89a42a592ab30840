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
func (p prober) mailboxes(ctx context.Context, file *config.File) []Finding {
	var questions []func() Finding
	asked := map[string]bool{}
	for i := range file.Watches {
		w := &file.Watches[i]
		if w.Connection != p.conf.Name {
			continue
		}
		for _, m := range w.Mailboxes {
			if key := strings.ToLower(m.Address); !asked[key] {
				asked[key] = true
				questions = append(questions, func() Finding { return p.readable(ctx, m) })
			}
		}
	}
	for _, address := range p.conf.Unreachable {
		questions = append(questions, func() Finding { return p.unreachable(ctx, address) })
	}
	out := make([]Finding, len(questions))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, ask := range questions {
		g.Go(func() error { out[i] = ask(); return nil })
	}
	_ = g.Wait() // a question has no error, only an answer
	return out
}

// readable tells whether a watched mailbox can be read, and how its changes come.
func (p prober) readable(ctx context.Context, m config.Mailbox) Finding {
	f := Finding{Connection: p.conf.Name, Mailbox: m.Address}
	delegated := p.conf.Auth == config.AuthDelegated
	_, err := p.graph.Folder(ctx, m.Address, "inbox")
	switch {
	case err == nil && delegated && !m.IsMe():
		f.OK, f.Text = true, "readable; polled, since Graph has no subscriptions on somebody else's mailbox"
	case err == nil:
		f.OK, f.Text = true, "readable"
	case errors.Is(err, graph.ErrForbidden) && delegated && !m.IsMe():
		f.Text, f.Who = "no access", Owner
		f.Remedy = "share the mailbox with the signed-in user (Full Access, or Reviewer on its folders)"
	case errors.Is(err, graph.ErrForbidden) && delegated:
		f.Text, f.Remedy, f.Who = "no access", "consent to the permissions that `triggerd scopes "+p.conf.Name+"` lists, and sign in again", Entra
	case errors.Is(err, graph.ErrForbidden):
		f.Text, f.Who = "no access", Exchange
		f.Remedy = "give the app the role Application Mail.Read over this mailbox (`triggerd scopes " + p.conf.Name + " --for exchange`); a new assignment takes up to 2 hours"
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

// unreachable proves that a mailbox cannot be read: the app's reach is limited.
func (p prober) unreachable(ctx context.Context, address string) Finding {
	f := Finding{Connection: p.conf.Name, Mailbox: address}
	_, err := p.graph.Folder(ctx, address, "inbox")
	switch {
	case err == nil && p.conf.Auth == config.AuthDelegated:
		f.Text, f.Remedy, f.Who = "READABLE, and must not be", "take the signed-in user's access to it away", Owner
	case err == nil:
		f.Text, f.Who = "READABLE, and must not be: the app's reach is not limited", Exchange+" and "+Entra
		f.Remedy = "limit the app with RBAC for Applications (`triggerd scopes " + p.conf.Name + " --for exchange`), and take Mail.Read away in Entra: both grants count together"
	case errors.Is(err, graph.ErrForbidden):
		f.OK, f.Text = true, "out of reach, as it must be"
	case p.conf.Auth == config.AuthDelegated && errors.Is(err, graph.ErrNotFound):
		f.OK, f.Text = true, "out of reach, as it must be" // Graph does not tell strangers what exists
	default:
		f.Text, f.Remedy, f.Who = fmt.Sprintf("cannot tell whether it is out of reach: %v", err), "name a mailbox that exists in `unreachable`", Operator
	}
	return f
}
