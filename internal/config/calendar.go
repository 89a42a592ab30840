package config

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/triggerd/triggerd/internal/event"
)

const (
	day = 24 * time.Hour

	// Graph shows no more than 1825 days of a calendar at once. All watches over it share one window, which reaches further
	// than they want, by an eighth of the future at most, so that it need not be asked for anew as time goes on; with these
	// limits it stays below.
	// Source: github.com/microsoftgraph/microsoft-graph-docs/issues/6284 (checked 2026-11-29).
	defaultPast, maxPast                = 7 * day, 366 * day
	defaultFuture, minFuture, maxFuture = 180 * day, time.Hour, 1280 * day

	defaultLead, maxLead = 15 * time.Minute, 30 * day
	maxLeads             = 8
)

var calendarRefs = refKind{"calendar", "calendars", "write default, a calendar's name, its id, or all", calendarProblem}

// calendarProblem says what is wrong with a calendar's name; empty when nothing is. Names may hold anything.
func calendarProblem(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "is empty"
	case name[0] == '!':
		return "begins with more than one !"
	}
	return ""
}

func (p *parse) calendar(n ast.Node) Calendar {
	c := Calendar{Calendars: []FolderRef{{Name: "default"}}, Past: defaultPast, Future: defaultFuture}
	at := p.fields(n, "calendar", map[string]func(ast.Node){
		"calendars": func(v ast.Node) { c.Calendars = p.refs(v, calendarRefs) },
		"window":    func(v ast.Node) { p.window(v, &c) },
		"events":    func(v ast.Node) { c.Events = p.events(v, event.CalendarEvents) },
		"starting":  func(v ast.Node) { c.Starting = p.leads(v) },
		"time_zone": func(v ast.Node) { c.TimeZone = p.timeZone(v) },
	})
	_, chosen := at["events"]
	leads, given := at["starting"]
	named := slices.Contains(c.Events, event.Starting)
	switch {
	case !chosen:
		c.Events = slices.DeleteFunc(slices.Clone(event.CalendarEvents), func(name string) bool { return name == event.Starting && !given })
	case given && !named && len(c.Events) > 0:
		p.bad(leads.key, "starting: there are lead times, and events leaves starting out: add it there, or take the lead times out")
	case named && !given:
		c.Starting = []time.Duration{defaultLead}
	}
	if len(c.Starting) > 0 && c.Starting[0] > c.Future {
		p.bad(leads.value, "starting: the longest lead time reaches out of the window: give window a longer future, or take that lead time out")
	}
	return c
}

// window reads how far a calendar is looked at.
func (p *parse) window(n ast.Node, c *Calendar) {
	p.fields(n, "window", map[string]func(ast.Node){
		"past":   func(v ast.Node) { c.Past = p.within(v, "past", 0, maxPast, "0d to 366d, such as 7d") },
		"future": func(v ast.Node) { c.Future = p.within(v, "future", minFuture, maxFuture, "1h to 1280d, such as 180d") },
	})
}

// within reads a duration that has limits, which the text tells. After a mistake it is the highest, so that nothing that
// is compared with it is a mistake too.
func (p *parse) within(n ast.Node, what string, low, high time.Duration, text string) time.Duration {
	before := len(p.problems)
	v := p.text(n, what)
	d, err := parseDuration(v)
	switch {
	case len(p.problems) > before:
		return high
	case err != nil, d < low, d > high:
		p.bad(n, "%s %q: write a duration from %s", what, v, text)
		return high
	}
	return d
}

// leads reads how long before their start meetings are told of, the longest first.
func (p *parse) leads(n ast.Node) (out []time.Duration) {
	before := len(p.problems)
	p.words(n, "starting", func(v ast.Node, word string) {
		d, err := parseDuration(word)
		switch {
		case err != nil, d < 0, d > maxLead, d%time.Second != 0:
			p.bad(v, "starting %q: write how long before the start, in whole seconds from 0s to 30d, such as 15m", word)
		case slices.Contains(out, d):
			p.bad(v, "starting %q: this lead time stands twice: keep one", word)
		default:
			out = append(out, d)
		}
	})
	switch {
	case len(p.problems) > before:
	case len(out) == 0:
		p.bad(n, "starting: list at least one lead time such as 15m, or leave it out")
	case len(out) > maxLeads:
		p.bad(n, "starting: %d lead times: at most %d", len(out), maxLeads)
	}
	slices.SortFunc(out, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return out
}

// timeZone reads the name of a time zone.
func (p *parse) timeZone(n ast.Node) string {
	before := len(p.problems)
	name := p.text(n, "time_zone")
	if _, err := event.LoadZone(name); len(p.problems) == before && err != nil {
		p.bad(n, "time_zone: %q is no time zone: write its IANA or its Windows name, such as Europe/Berlin or W. Europe Standard Time", name)
	}
	return name
}

// allDay warns of mailboxes whose own time zone cannot be known: the settings of others cannot be read.
func (p *parse) allDay(w *Watch, calendar entry) {
	c, ok := p.file.Connections[w.Connection]
	if !ok || c.Auth != AuthDelegated || len(w.Calendar.Starting) == 0 || w.Calendar.TimeZone != "" {
		return
	}
	for _, m := range w.Mailboxes {
		if !m.IsMe() {
			p.warn(calendar.key, "calendar: the time zone of mailbox %q cannot be read with delegated access, so its all-day meetings start in the zone they were made in: give time_zone", m.Address)
		}
	}
}
