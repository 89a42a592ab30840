package status

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Render shows a report on a terminal; colour marks what is good and what is not.
func (r *Report) Render(w io.Writer, colour bool) error {
	paint := func(code, s string) string {
		if !colour {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	verdict := paint("32", "● "+r.Line())
	if !r.Healthy {
		verdict = paint("31", "● "+r.Line())
	}
	fmt.Fprintf(w, "%s  triggerd %s, up %s\n", verdict, r.Version, short(r.At.Sub(r.StartedAt)))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s %s\n    → %s\n", paint("31", "✗"), p.What, p.Remedy)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.watches(tw)
	r.connections(tw)
	r.subscriptions(tw)
	r.feeds(tw)
	r.books(tw)
	return tw.Flush()
}

// row writes a line of a table. What came from outside can neither break it nor steer the terminal.
func row(w io.Writer, format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = Plain(s)
		}
	}
	fmt.Fprintf(w, format, args...)
}

// Plain is a text in one line: white space is one blank, and what could steer a terminal is left out.
func Plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 { // the others change the direction of writing
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Ready writes the verdict, the problems with their remedies, and one line for each connection and watch.
func (r *Report) Ready(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(tw, r.Line())
	for _, p := range r.Problems {
		row(tw, "- %s: %s\n", p.What, p.Remedy)
	}
	for i := range r.Connections {
		c := &r.Connections[i]
		row(tw, "connection\t%s\t%s\t%s\n", c.Name, words(c.State), c.Reason)
	}
	for i := range r.Watches {
		row(tw, "watch\t%s\t%s\t%s\n", r.Watches[i].Name, r.Watches[i].State, r.fresh(&r.Watches[i]))
	}
	return tw.Flush()
}

// fresh says up to when everything is known of a watch, and why that is not now.
func (r *Report) fresh(w *Watch) string {
	if w.FreshAt.IsZero() {
		return w.Reason
	}
	text := short(r.At.Sub(w.FreshAt)) + " ago"
	if w.Reason != "" {
		text += ": " + w.Reason
	}
	return text
}

func (r *Report) watches(w io.Writer) {
	fmt.Fprintln(w, "\nWATCH\tSTATE\tFRESH\tFEEDS\tBY PUSH")
	for i := range r.Watches {
		one := &r.Watches[i]
		row(w, "%s\t%s\t%s\t%d\t%d\n", one.Name, one.State, cmp.Or(r.fresh(one), "-"), one.Feeds, one.Push)
	}
}

func (r *Report) connections(w io.Writer) {
	fmt.Fprintln(w, "\nCONNECTION\tCLOUD\tSIGNS IN AS\tSTATE")
	for i := range r.Connections {
		c := &r.Connections[i]
		as, state := "the app", words(c.State)
		if c.Auth == "delegated" {
			as = cmp.Or(c.User, "nobody yet")
		}
		if !c.Since.IsZero() {
			state += " for " + short(r.At.Sub(c.Since))
		}
		row(w, "%s\t%s\t%s\t%s\n", c.Name, c.Cloud, as, state)
	}
	switch p := &r.Public; {
	case p.URL == "":
		fmt.Fprintln(w, "public URL\tnone\t\tpolling only")
	case p.OK:
		row(w, "public URL\t%s\t\tok\n", p.URL)
	default:
		row(w, "public URL\t%s\t\t%s\n", p.URL, cmp.Or(p.Reason, "not checked yet"))
	}
	if c := &r.Certificate; c.Source != "" {
		state := cmp.Or(c.Error, "none yet")
		if !c.NotAfter.IsZero() {
			state = "ends " + ahead(c.NotAfter.Sub(r.At)) + because(c.Error)
		}
		row(w, "certificate\tby %s\t\t%s\n", c.Source, state)
	}
}

func (r *Report) subscriptions(w io.Writer) {
	if len(r.Subscriptions) == 0 {
		return
	}
	fmt.Fprintln(w, "\nSUBSCRIPTION\tMAILBOX\tFEED\tEXPIRES\tLAST RENEWAL\tNEXT\tERROR")
	for i := range r.Subscriptions {
		s := &r.Subscriptions[i]
		renewed := "-"
		if !s.RenewedAt.IsZero() {
			renewed = short(r.At.Sub(s.RenewedAt)) + " ago"
		}
		row(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID[:min(8, len(s.ID))], s.Mailbox, s.Folder, ahead(s.ExpiresAt.Sub(r.At)), renewed,
			ahead(s.RenewAt.Sub(r.At)), cmp.Or(s.LastError, "-"))
	}
}

func (r *Report) feeds(w io.Writer) {
	fmt.Fprintln(w, "\nMAILBOX\tFEED\tWATCHES\tFRESH\tBY\tSTATE")
	for i := range r.Feeds {
		f := &r.Feeds[i]
		fresh := "-"
		if !f.RoundAt.IsZero() {
			fresh = short(r.At.Sub(f.RoundAt)) + " ago"
		}
		by := "push"
		if !f.Push {
			by = "polling"
			if f.PushReason != "" {
				by += ": " + f.PushReason
			}
		}
		row(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Mailbox, f.Name(), strings.Join(f.Watches, ","), fresh, by, f.state())
	}
}

func (f *Feed) state() string {
	switch {
	case f.Error != "" && f.Tries == 0:
		return f.Error
	case f.Error != "":
		return fmt.Sprintf("%s (attempt %d)", f.Error, f.Tries)
	case f.BaselinedAt.IsZero():
		return fmt.Sprintf("reading for the first time: %d items, %d pages", f.Items, f.Pages)
	case f.Reason != "":
		return fmt.Sprintf("%s: %d items", f.Reason, f.Items)
	}
	return "ok"
}

func (r *Report) books(w io.Writer) {
	n := &r.Notifications
	row(w, "\nNotifications\t%d accepted = %d settled + %d pending\n", n.Accepted, n.settled(), n.Pending)
	for _, o := range slices.Sorted(maps.Keys(n.Settled)) {
		if n.Settled[o] > 0 {
			row(w, "\t%s %d\n", o, n.Settled[o])
		}
	}
	row(w, "Outbox\t%d waiting, %d held\n", r.Outbox.Entries, r.Outbox.Held)
	row(w, "NATS\t%s, %s\n", r.NATS.URL, cmp.Or(first(r.NATS.Blocked, r.NATS.LastError), "stream "+cmp.Or(r.NATS.Stream, "not checked yet")))
	var events []string
	for _, name := range slices.Sorted(maps.Keys(r.Events)) {
		events = append(events, fmt.Sprintf("%s %d", name, r.Events[name]))
	}
	row(w, "Events\t%s\n", cmp.Or(strings.Join(events, ", "), "none yet"))
}

func ahead(d time.Duration) string {
	if d < 0 {
		return short(-d) + " ago"
	}
	return "in " + short(d)
}

// short writes a duration with its two largest units.
func short(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours, minutes := d/(24*time.Hour), d%(24*time.Hour)/time.Hour, d%time.Hour/time.Minute
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm %ds", minutes, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
