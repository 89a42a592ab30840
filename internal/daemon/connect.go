package daemon

import (
	"fmt"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/delta"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/seal"
)

// connect makes the connections and their clients. Nothing is requested yet. A client whose connection is configured as
// before is taken over.
func (d *Daemon) connect(g *generation) (err error) {
	o := &d.opts
	var keys *seal.Keys
	if o.Settings.StateKeyFile != "" {
		if keys, err = seal.ReadKeys(o.Settings.StateKeyFile); err != nil {
			return fmt.Errorf("TRIGGERD_STATE_KEY_FILE: %w", err)
		}
	}
	g.connections, err = connections.New(d.store, connections.Options{
		File: g.file, Keys: keys, KeyFile: o.Settings.StateKeyFile, Transport: o.Transport, Resumed: g.resumed, Every: d.opts.Every, Log: d.room("connections"),
	})
	if err != nil {
		return err
	}
	g.graphs = map[string]*graph.Client{}
	old := d.now()
	for name, c := range g.file.Connections {
		if sameConnection(old, c) {
			g.graphs[name] = old.graphs[name]
			continue
		}
		g.graphs[name], err = graph.New(graph.Options{
			Root: c.Cloud.Graph, Tokens: tokens{d, name}, Transport: o.Transport, NoDelta: c.Cloud.NoDelta,
			UserAgent: "triggerd/" + o.Version, Observe: d.metrics.Requested, Log: o.Log.With().Str("connection", name).Logger(),
		})
		if err != nil {
			return fmt.Errorf("connection %s: %w", name, err)
		}
	}
	return nil
}

// targets turns watches over mailboxes into mailboxes with their watches: watches over the same mailbox share feeds.
func (d *Daemon) targets(g *generation) []delta.Target {
	var out []delta.Target
	index := map[string]int{}
	for i := range g.file.Watches {
		w := &g.file.Watches[i]
		for _, m := range w.Mailboxes {
			key := w.Connection + "\x00" + foldAddress(m.Address)
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				out = append(out, delta.Target{Connection: w.Connection, Address: m.Address, Identity: g.identity(w.Connection, m)})
			}
			out[i].Watches = append(out[i].Watches, watch(d.opts.Settings.PublicURL != "", g.file, w, m))
		}
	}
	return out
}

// identity tells whose mailbox it is: the tenant of a delegated connection is known once somebody has signed in.
func (g *generation) identity(connection string, m config.Mailbox) func() (tenant, userID string) {
	return func() (tenant, userID string) {
		tenant, user := g.connections.Identity(connection)
		switch {
		case m.IsMe():
			return tenant, user
		case m.IsID():
			return tenant, m.Address
		}
		return tenant, ""
	}
}

func watch(reachable bool, file *config.File, w *config.Watch, m config.Mailbox) delta.Watch {
	out := delta.Watch{
		Name: w.Name, Token: m.Token(), Alias: m.Alias, Events: w.Mail.Events, Content: w.Content,
		Push: reachable && w.Delivery != config.DeliveryPoll,
		Back: w.Start.Back, All: w.Start.All,
	}
	switch {
	case file.Connections[w.Connection].Auth == config.AuthDelegated && !m.IsMe(): // P-6, P-7
		out.Push, out.NoPush = false, "delegated access has no subscriptions on somebody else's mailbox"
	case !out.Push && w.Delivery != config.DeliveryPoll:
		out.NoPush = "no public URL is configured"
	}
	for _, f := range w.Mail.Folders {
		out.Folders = append(out.Folders, delta.FolderRef(f))
	}
	c := &w.Calendar
	for _, f := range c.Calendars {
		out.Calendars = append(out.Calendars, delta.FolderRef(f))
	}
	out.Meetings, out.Past, out.Future, out.Starting, out.TimeZone = c.Events, c.Past, c.Future, c.Starting, c.TimeZone
	out.NoZone = file.Connections[w.Connection].Auth == config.AuthDelegated && !m.IsMe()
	if w.When != nil {
		out.Filter, out.Reads = w.When.For(m), w.When.Reads()
	}
	return out
}
