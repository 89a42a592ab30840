package daemon

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

func foldAddress(s string) string { return strings.ToLower(s) }

// Report gathers what every room says, with the verdict on it.
func (d *Daemon) Report() status.Report {
	r := d.reportRooms()
	d.reportNATS(&r)
	r.Judge()
	d.recorder.Fill(&r)
	return r
}

// reportRooms is all of it but the broker, not judged yet.
func (d *Daemon) reportRooms() status.Report {
	r := status.Report{Version: d.opts.Version, StartedAt: d.started, At: time.Now().UTC()}
	g := d.now()
	g.reportConnections(&r)
	d.reportConfiguration(g, &r)
	r.Public.URL = d.opts.Settings.PublicURL
	r.Public.OK, r.Public.Reason, r.Public.CheckedAt = g.subscriptions.Public()
	d.reportCertificate(&r)
	d.reportFeeds(g, &r)
	g.reportWatches(&r)
	d.reportSubscriptions(&r)
	g.reportMissing(&r)
	d.reportBooks(&r)
	return r
}

func (d *Daemon) reportConfiguration(g *generation, r *status.Report) {
	r.Configuration = status.Configuration{File: d.opts.Settings.Config, LoadedAt: g.loadedAt}
	if no := d.refused.Load(); no != nil {
		r.Configuration.Error, r.Configuration.RefusedAt = no.why, no.at
	}
}

func (g *generation) reportConnections(r *status.Report) {
	for _, c := range g.connections.Status() {
		r.Connections = append(r.Connections, status.Connection{
			Name: c.Name, Cloud: c.Cloud, Auth: c.Auth, State: string(c.State), Reason: c.Reason, Remedy: c.Remedy, Since: c.Since, Paused: c.Paused,
			User: c.User, TenantID: c.TenantID, Missing: c.Missing, SignedInAt: c.SignedInAt, RefreshedAt: c.RefreshedAt,
			CredentialExpiresAt: c.CredentialExpiresAt,
		})
	}
}

func (d *Daemon) reportFeeds(g *generation, r *status.Report) {
	feeds, problems := g.delta.Status()
	for i := range feeds {
		f := &feeds[i]
		r.Feeds = append(r.Feeds, status.Feed{
			Feed: f.Feed, Connection: f.Connection, Mailbox: f.Mailbox, Area: f.Area, Folder: f.Folder, Label: f.Label, Inbox: f.Inbox,
			Watches: f.Watches, Mailboxes: f.Mailboxes, RoundAt: f.RoundAt,
			BaselinedAt: f.BaselinedAt, TrueUpAt: f.TrueUpAt, DueAt: f.DueAt, Interval: f.Interval, Pending: f.Pending, Push: f.Push,
			PushReason: f.PushReason, PushAt: f.PushAt, Announced: f.Announced, Missed: f.Missed, Reason: f.Reason, Pages: f.Pages, Items: f.Items,
			Error: f.Error, Tries: f.Tries,
		})
	}
	for _, p := range problems {
		r.Mailboxes = append(r.Mailboxes, status.Mailbox(p))
	}
}

func (g *generation) reportWatches(r *status.Report) {
	for _, w := range g.freshness.Status() {
		r.Watches = append(r.Watches, status.Watch{
			Name: w.Watch, State: string(w.State), Since: w.Since, FreshAt: w.FreshAt, Reason: w.Reason, Feeds: w.Feeds, Push: w.Push, Silent: w.Silent,
		})
	}
}

func (d *Daemon) reportSubscriptions(r *status.Report) {
	announces := announced(r)
	for _, s := range d.store.Subscriptions() {
		if !s.RemovedAt.IsZero() {
			continue
		}
		out := status.Subscription{
			ID: s.ID, Feed: s.Feed, Connection: s.Connection, Renewals: s.Renewals, CreatedAt: s.CreatedAt, ExpiresAt: s.ExpiresAt, RenewAt: s.RenewAt, RenewedAt: s.RenewedAt,
			Failures: s.Failures, LastError: s.LastError,
		}
		if about := announces[s.Feed]; about != nil {
			out.Mailbox, out.Folder, out.Watches = about.Mailbox, about.Folder, about.Watches
		}
		r.Subscriptions = append(r.Subscriptions, out)
	}
	slices.SortFunc(r.Subscriptions, func(a, b status.Subscription) int {
		return cmp.Or(cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Folder, b.Folder), cmp.Compare(a.ID, b.ID))
	})
}

// reportMissing tells of subscriptions that there should be; reportFeeds has told of the feeds that wait for them.
func (g *generation) reportMissing(r *status.Report) {
	announces := announced(r)
	for _, m := range g.subscriptions.Missing() {
		if about := announces[m.Feed]; about != nil {
			out := *about
			out.Feed, out.Since, out.Reason = m.Feed, m.Since, m.Reason
			r.Missing = append(r.Missing, out)
		}
	}
	slices.SortFunc(r.Missing, func(a, b status.Missing) int {
		return cmp.Or(cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Folder, b.Folder), cmp.Compare(a.Feed, b.Feed))
	})
}

// announced is what subscriptions are about, by Subscription.Feed: a mailbox has one for all its calendars (S-27). Times and
// reasons are left open.
func announced(r *status.Report) map[uint32]*status.Missing {
	out := map[uint32]*status.Missing{}
	for i := range r.Feeds {
		f := &r.Feeds[i]
		about := out[f.Inbox]
		if about == nil {
			about = &status.Missing{Connection: f.Connection, Mailbox: f.Mailbox, Folder: f.Folder}
			out[f.Inbox] = about
		}
		if f.Area == event.AreaCalendar {
			about.Folder = status.AllCalendars
		}
		about.Watches = append(about.Watches, f.Watches...)
	}
	for _, about := range out {
		slices.Sort(about.Watches)
		about.Watches = slices.Compact(about.Watches)
	}
	return out
}

func (d *Daemon) reportBooks(r *status.Report) {
	pending, c := d.store.Law()
	r.Notifications = status.Notifications{
		Accepted: c["accepted"], Pending: uint64(pending), Settled: map[string]uint64{}, Results: d.webhook.Counters(),
	}
	for _, o := range store.Outcomes {
		r.Notifications.Settled[string(o)] = c["settled_"+string(o)]
	}
	r.Quarantine = c["quarantine_entries"]
	trouble := d.store.Trouble()
	r.Storage = status.Storage{Path: d.store.Path(), Error: trouble.Reason, Since: trouble.Since}
	r.Clock = d.now().clock.Trouble()
	r.Renewals = status.Renewals{OK: c["renewals_ok"], Failed: c["renewals_failed"]}
	r.Push = status.Push{Announced: c["push_announced"], Missed: c["push_missed"]}
	r.Events = map[string]uint64{}
	for area, names := range event.Events {
		for _, name := range names {
			if n := c["events_"+area+"_"+name]; n > 0 {
				r.Events[area+"."+name] = n
			}
		}
	}
	o := d.store.OutboxStats()
	r.Outbox = status.Outbox{Entries: o.Entries, Held: o.Held, OldestAt: o.OldestAt}
}

func (d *Daemon) reportNATS(r *status.Report) {
	n := d.publisher.Status()
	r.NATS = status.NATS{
		Connected: n.Connected, URL: cmp.Or(n.Server, d.natsURL()), Stream: n.Stream, Warnings: n.Warnings, Blocked: n.Blocked,
		LastPublishedAt: n.LastPublishedAt, LastError: n.LastError,
	}
}
