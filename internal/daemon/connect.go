package daemon

import (
	"fmt"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/delta"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/seal"
)

// connect makes the connections and their clients. Nothing is requested yet.
func (d *Daemon) connect() (err error) {
	o := &d.opts
	var keys *seal.Keys
	if o.Settings.StateKeyFile != "" {
		if keys, err = seal.ReadKeys(o.Settings.StateKeyFile); err != nil {
			return fmt.Errorf("TRIGGERD_STATE_KEY_FILE: %w", err)
		}
	}
	d.connections, err = connections.New(d.store, connections.Options{
		File: o.File, Keys: keys, KeyFile: o.Settings.StateKeyFile, Transport: o.Transport, Resumed: d.resumed, Log: d.room("connections"),
	})
	if err != nil {
		return err
	}
	d.graphs = map[string]*graph.Client{}
	for name, c := range o.File.Connections {
		d.graphs[name], err = graph.New(graph.Options{
			Root: c.Cloud.Graph, Tokens: d.connections.Source(name), Transport: o.Transport, NoDelta: c.Cloud.NoDelta,
			UserAgent: "triggerd/" + o.Version, Log: o.Log.With().Str("connection", name).Logger(),
		})
		if err != nil {
			return fmt.Errorf("connection %s: %w", name, err)
		}
	}
	return nil
}

// resumed catches up with what a connection missed while it waited for a person.
func (d *Daemon) resumed(connection string) {
	d.delta.Resume(connection)
	d.subscriptions.Resume(connection)
}

// targets turns watches over mailboxes into mailboxes with their watches: watches over the same mailbox share feeds.
func (d *Daemon) targets() []delta.Target {
	o := &d.opts
	var out []delta.Target
	index := map[string]int{}
	for i := range o.File.Watches {
		w := &o.File.Watches[i]
		for _, m := range w.Mailboxes {
			key := w.Connection + "\x00" + foldAddress(m.Address)
			i, ok := index[key]
			if !ok {
				i = len(out)
				index[key] = i
				out = append(out, delta.Target{Connection: w.Connection, Address: m.Address, Identity: d.identity(w.Connection, m)})
			}
			out[i].Watches = append(out[i].Watches, watch(o, w, m))
		}
	}
	return out
}

// identity tells whose mailbox it is: the tenant of a delegated connection is known once somebody has signed in.
func (d *Daemon) identity(connection string, m config.Mailbox) func() (tenant, userID string) {
	return func() (tenant, userID string) {
		tenant, user := d.connections.Identity(connection)
		switch {
		case m.IsMe():
			return tenant, user
		case m.IsID():
			return tenant, m.Address
		}
		return tenant, ""
	}
}

func watch(o *Options, w *config.Watch, m config.Mailbox) delta.Watch {
	out := delta.Watch{
		Name: w.Name, Token: m.Token(), Alias: m.Alias, Events: w.Mail.Events, Content: w.Content,
		Push: o.Settings.PublicURL != "" && w.Delivery != config.DeliveryPoll,
		Back: w.Start.Back, All: w.Start.All,
	}
	switch {
	case o.File.Connections[w.Connection].Auth == config.AuthDelegated && !m.IsMe(): // P-6, P-7
		out.Push, out.NoPush = false, "delegated access has no subscriptions on somebody else's mailbox"
	case !out.Push && w.Delivery != config.DeliveryPoll:
		out.NoPush = "no public URL is configured"
	}
	for _, f := range w.Mail.Folders {
		out.Folders = append(out.Folders, delta.FolderRef(f))
	}
	if w.When != nil {
		out.Filter, out.Reads = w.When.For(m), w.When.Reads()
	}
	return out
}
