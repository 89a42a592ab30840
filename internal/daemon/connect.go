package daemon

import (
	"fmt"

	"github.com/triggerd/triggerd/internal/auth"
	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/delta"
	"github.com/triggerd/triggerd/internal/graph"
)

// connection is one configured connection at work.
type connection struct {
	cloud config.Cloud
	app   *auth.App
	graph *graph.Client
}

// connect makes the clients of all connections. Nothing is requested yet.
func connect(o Options) (map[string]*connection, error) {
	out := map[string]*connection{}
	for name, c := range o.File.Connections {
		log := o.Log.With().Str("connection", name).Logger()
		app := auth.NewApp(auth.AppOptions{
			Login: c.Cloud.Login, Tenant: c.Tenant, ClientID: c.ClientID, Scope: c.Cloud.Scope(),
			Secret: func() (string, error) {
				s, err := config.ReadSecret(c.ClientSecretFile)
				return s.Reveal(), err
			},
			Transport: o.Transport, Log: log,
		})
		client, err := graph.New(graph.Options{
			Root: c.Cloud.Graph, Tokens: app, Transport: o.Transport, NoDelta: c.Cloud.NoDelta,
			UserAgent: "triggerd/" + o.Version, Log: log,
		})
		if err != nil {
			return nil, fmt.Errorf("connection %s: %w", name, err)
		}
		out[name] = &connection{c.Cloud, app, client}
	}
	return out, nil
}

// targets turns watches over mailboxes into mailboxes with their watches: watches over the same mailbox share feeds.
func targets(o Options) []delta.Target {
	var out []delta.Target
	index := map[string]int{}
	for _, w := range o.File.Watches {
		for _, m := range w.Mailboxes {
			key := w.Connection + "\x00" + foldAddress(m.Address)
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				t := delta.Target{Connection: w.Connection, Tenant: o.File.Connections[w.Connection].Tenant, Address: m.Address}
				if m.IsID() {
					t.UserID = m.Address
				}
				out = append(out, t)
			}
			out[i].Watches = append(out[i].Watches, watch(o, w, m))
		}
	}
	return out
}

func watch(o Options, w config.Watch, m config.Mailbox) delta.Watch {
	out := delta.Watch{
		Name: w.Name, Token: m.Token(), Alias: m.Alias, Events: w.Mail.Events, Content: w.Content,
		Push: o.Settings.PublicURL != "" && w.Delivery != config.DeliveryPoll,
		Back: w.Start.Back, All: w.Start.All,
	}
	for _, f := range w.Mail.Folders {
		out.Folders = append(out.Folders, delta.FolderRef(f))
	}
	if w.When != nil {
		out.Filter, out.Reads = w.When.For(m), w.When.Reads()
	}
	return out
}
