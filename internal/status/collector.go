package status

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/triggerd/triggerd/internal/event"
)

// ConnectionStates are the values of the label state of triggerd_connection_state.
var ConnectionStates = []string{"unknown", "ok", "unreachable", "throttled", "reauth_required", "consent_required", "credential_failed"}

// requestResults are the values of the label result of triggerd_notifications_total; accepted is counted in the database.
var requestResults = []string{"lifecycle", "unknown_subscription", "bad_client_state", "malformed"}

// none stands in labels where a level does not apply, as in subjects.
const none = "_"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("triggerd_"+name, help, labels, nil)
}

var (
	descBuild         = desc("build_info", "Always 1; the labels tell what runs.", "version")
	descStarted       = desc("start_time_seconds", "When triggerd was started, as a Unix time; process_start_time_seconds is not told where the unit hides /proc/stat.")
	descReady         = desc("ready", "1 while status has no problem, else 0.")
	descProblems      = desc("problems", "Problems that status tells.")
	descConfig        = desc("config_last_reload_successful", "0 while a watch file that was refused waits to be mended, else 1.")
	descPublic        = desc("public_url_up", "1 while the public URL answers its own check; absent without a public URL.")
	descNATS          = desc("nats_connected", "1 while triggerd is connected to NATS and the stream takes events, else 0.")
	descState         = desc("connection_state", "1 for the state a connection is in, 0 for the others.", "connection", "state")
	descExpiry        = desc("credential_expiry_timestamp_seconds", "When the certificate of a connection ends, as a Unix time; absent where it is not known.", "connection")
	descCertificate   = desc("certificate_expiry_timestamp_seconds", "When the public listener's own certificate ends, as a Unix time; absent without TLS of its own.", "source")
	descNotifications = desc("notifications_total", "Notifications by what became of them; accepted ones since the database was made, the others since the start.", "result")
	descSettled       = desc("notifications_settled_total", "Accepted notifications by outcome, since the database was made: with triggerd_inbox_entries they add up to the accepted ones.", "outcome")
	descInbox         = desc("inbox_entries", "Accepted notifications that are not settled.")
	descUnaccounted   = desc("notifications_unaccounted", "Accepted notifications less settled ones less the inbox: always 0, or there is a defect.")
	descOutbox        = desc("outbox_entries", "Events that NATS has not acknowledged.")
	descOldest        = desc("outbox_oldest_seconds", "Age of the oldest event that NATS has not acknowledged; 0 without one.")
	descQuarantine    = desc("quarantine_entries", "What could not be processed and is parked.")
	descSubscriptions = desc("subscriptions", "Subscriptions by state: active, failing (the last renewal failed), lapsed, missing (wanted, and not there for a while).", "state")
	descEnds          = desc("subscription_expiry_timestamp_seconds", "When a subscription ends unless it is renewed, as a Unix time; feed calendars: the one for all calendars of a mailbox.", "watch", "mailbox", "feed")
	descRenewals      = desc("renewals_total", "Renewals of subscriptions, since the database was made.", "result")
	descFresh         = desc("feed_freshness_seconds", "Age of what is known of a feed: everything that happened before is published. Absent until the first reading is complete.", "watch", "mailbox", "feed")
	descLate          = desc("feed_interval_seconds", "How often a feed is due at present: its freshness should stay below twice that.", "watch", "mailbox", "feed")
	descWatch         = desc("watch_stale", "1 while a watch is stale, else 0.", "watch")
	descPushMissed    = desc("push_missed_total", "Changes that a round found and push never announced, since the database was made.")
	descPushAnnounced = desc("push_announced_total", "Notifications that a round confirmed, since the database was made.")
	descPushSilent    = desc("feeds_without_push", "Feeds that should be announced by push and are polled because that is not proven.")
)

// collector turns a report into metrics whenever it is asked, so that both never tell different things.
type collector struct {
	src      Source
	perWatch bool
}

// Describe is prometheus.Collector's.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descStarted, descReady, descProblems, descConfig, descPublic, descNATS, descState, descExpiry, descCertificate, descNotifications, descSettled,
		descInbox, descUnaccounted, descOutbox, descOldest, descQuarantine, descSubscriptions, descEnds, descRenewals, descFresh, descLate, descWatch,
		descPushMissed, descPushAnnounced, descPushSilent,
	} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	r := c.src.Report()
	s := sink{ch}
	s.gauge(descBuild, 1, r.Version)
	s.gauge(descStarted, unix(r.StartedAt))
	s.gauge(descReady, truth(r.Healthy))
	s.gauge(descProblems, float64(len(r.Problems)))
	s.gauge(descConfig, truth(r.Configuration.Error == ""))
	s.gauge(descNATS, truth(r.NATS.Connected && r.NATS.Blocked == ""))
	if r.Public.URL != "" {
		s.gauge(descPublic, truth(r.Public.OK))
	}
	if c := &r.Certificate; !c.NotAfter.IsZero() {
		s.gauge(descCertificate, unix(c.NotAfter), c.Source)
	}
	s.connections(&r)
	s.books(&r)
	s.subscriptions(&r, c.perWatch)
	s.feeds(&r, c.perWatch)
}

// sink takes metrics.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (s sink) connections(r *Report) {
	for i := range r.Connections {
		conn := &r.Connections[i]
		for _, state := range ConnectionStates {
			s.gauge(descState, truth(state == conn.State), conn.Name, state)
		}
		if !conn.CredentialExpiresAt.IsZero() {
			s.gauge(descExpiry, unix(conn.CredentialExpiresAt), conn.Name)
		}
	}
}

func (s sink) books(r *Report) {
	n := &r.Notifications
	s.counter(descNotifications, n.Accepted, "accepted")
	for _, result := range requestResults {
		s.counter(descNotifications, n.Results[result], result)
	}
	for outcome, v := range n.Settled {
		s.counter(descSettled, v, outcome)
	}
	s.gauge(descInbox, float64(n.Pending))
	s.gauge(descUnaccounted, float64(n.Accepted)-float64(n.settled())-float64(n.Pending))
	s.gauge(descOutbox, float64(r.Outbox.Entries))
	age := 0.0
	if !r.Outbox.OldestAt.IsZero() {
		age = max(0, r.At.Sub(r.Outbox.OldestAt).Seconds())
	}
	s.gauge(descOldest, age)
	s.gauge(descQuarantine, float64(r.Quarantine))
	s.counter(descRenewals, r.Renewals.OK, "ok")
	s.counter(descRenewals, r.Renewals.Failed, "failed")
	s.counter(descPushMissed, r.Push.Missed)
	s.counter(descPushAnnounced, r.Push.Announced)
}

func (s sink) subscriptions(r *Report, perWatch bool) {
	states := map[string]int{"active": 0, "failing": 0, "lapsed": 0, "missing": len(r.Missing)}
	origins := map[uint32][]*Feed{}
	for i := range r.Feeds {
		origins[r.Feeds[i].Inbox] = append(origins[r.Feeds[i].Inbox], &r.Feeds[i])
	}
	soonest := newWorst(perWatch)
	for i := range r.Subscriptions {
		sub := &r.Subscriptions[i]
		switch {
		case sub.ExpiresAt.Before(r.At):
			states["lapsed"]++
		case sub.Failures > 0:
			states["failing"]++
		default:
			states["active"]++
		}
		for _, f := range origins[sub.Feed] {
			ends := unix(sub.ExpiresAt)
			soonest.add(f, f.announcedBy(), -ends, ends)
		}
	}
	for state, n := range states {
		s.gauge(descSubscriptions, float64(n), state)
	}
	soonest.emit(s, descEnds)
}

func (s sink) feeds(r *Report, perWatch bool) {
	silent := 0
	overdue := newWorst(perWatch)
	subscribed := map[uint32]bool{}
	for i := range r.Subscriptions {
		subscribed[r.Subscriptions[i].Feed] = true
	}
	for i := range r.Feeds {
		f := &r.Feeds[i]
		if !f.Push && subscribed[f.Inbox] {
			silent++
		}
		if f.BaselinedAt.IsZero() {
			continue
		}
		age, interval := max(0, r.At.Sub(f.RoundAt).Seconds()), f.Interval.Seconds()
		overdue.add(f, f.Label, age-2*interval, age, interval)
	}
	s.gauge(descPushSilent, float64(silent))
	for i := range r.Watches {
		s.gauge(descWatch, truth(r.Watches[i].State == "stale"), r.Watches[i].Name)
	}
	overdue.emit(s, descFresh, descLate)
}

// announcedBy is the label feed of the subscription that announces changes of a feed: all calendars of a mailbox share one.
func (f *Feed) announcedBy() string {
	if f.Area == event.AreaCalendar {
		return "calendars"
	}
	return f.Label
}

// worst are values of feeds by watch, mailbox and feed. Per watch only those of the worst feed are kept, all of the same one:
// an age and the interval that it is held against belong together.
type worst struct {
	perWatch bool
	kept     map[[3]string]rated
}

// rated are values that belong together, and how bad they are.
type rated struct {
	badness float64
	values  []float64
}

func newWorst(perWatch bool) *worst { return &worst{perWatch, map[[3]string]rated{}} }

// add takes values of a feed, for each watch that follows it, under a label.
func (x *worst) add(f *Feed, label string, badness float64, values ...float64) {
	for watch, mailbox := range f.Mailboxes {
		key := [3]string{watch, mailbox, label}
		if x.perWatch {
			key = [3]string{watch, none, none}
		}
		if old, ok := x.kept[key]; !ok || badness > old.badness {
			x.kept[key] = rated{badness, values}
		}
	}
}

// emit sends the values, each as the metric that stands in its place.
func (x *worst) emit(s sink, metrics ...*prometheus.Desc) {
	for key, r := range x.kept {
		for i, d := range metrics {
			s.gauge(d, r.values[i], slices.Clone(key[:])...)
		}
	}
}
