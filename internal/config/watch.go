package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/triggerd/triggerd/internal/event"
)

// watch reads one, and returns the name of its connection.
func (p *parse) watch(name string, k, v ast.Node) string {
	if !isName(name) {
		p.bad(k, "watch name %q: it stands in subjects, %s", name, nameRule)
	}
	w := Watch{Name: name, Content: event.ContentEnvelope, Delivery: DeliveryAuto}
	at := p.fields(v, "watch", map[string]func(ast.Node){
		"connection": func(n ast.Node) { w.Connection = p.text(n, "connection") },
		"mailboxes":  func(n ast.Node) { w.Mailboxes = p.mailboxes(n) },
		"mail":       func(ast.Node) {}, // read below, when the content level is known
		"calendar":   func(n ast.Node) { w.Calendar = p.calendar(n) },
		"when":       func(n ast.Node) { w.When = p.filter(n) },
		"content":    func(n ast.Node) { w.Content = p.content(n) },
		"delivery":   func(n ast.Node) { w.Delivery = p.delivery(n) },
		"rich":       p.later("rich", "leave it out"),
		"start":      func(n ast.Node) { w.Start = p.start(n) },
		"canary":     func(n ast.Node) { w.Canary = p.canary(n) },
	})
	if _, ok := at["connection"]; !ok {
		p.bad(k, "watch %q has no connection: name one of %s", name, strings.Join(names(p.file.Connections), ", "))
	} else if _, ok := p.file.Connections[w.Connection]; !ok {
		known := names(p.file.Connections)
		p.bad(at["connection"].value, "unknown connection %q%s", w.Connection, cmp.Or(didYouMean(w.Connection, known), "; there are "+strings.Join(known, ", ")))
	}
	if _, ok := at["mailboxes"]; !ok {
		p.bad(k, "watch %q has no mailboxes: list at least one address", name)
	}
	mail, hasMail := at["mail"]
	if hasMail {
		w.Mail = p.mail(mail.value, w.Content)
	}
	calendar, hasCalendar := at["calendar"]
	if !hasMail && !hasCalendar {
		p.bad(k, "watch %q watches nothing: give it mail or calendar", name)
	}
	if w.Content == event.ContentReference {
		p.reference(&w, at)
	}
	p.reach(&w, at)
	if hasCalendar {
		p.allDay(&w, calendar)
	}
	p.file.Watches = append(p.file.Watches, w)
	return w.Connection
}

// reference refuses what does not go with notifications that are handed on unread.
func (p *parse) reference(w *Watch, at map[string]entry) {
	if w.Delivery == DeliveryPoll {
		p.bad(at["content"].value, "content: reference hands on notifications, and delivery poll has none: write content ids, or delivery auto")
	}
	if w.When != nil {
		p.bad(at["when"].value, "when: with content reference nothing is read that could be filtered: leave it out, or write content ids")
	}
	if _, ok := at["calendar"]; ok { // W-13, S-27
		p.bad(at["content"].value, "content: reference hands on notifications, and those of meetings do not name the calendar: write content ids, or leave calendar out")
	}
}

func (p *parse) mailboxes(n ast.Node) (out []Mailbox) {
	seen, tokens := map[string]int{}, map[string]string{}
	p.list(n, "mailboxes", func(v ast.Node) {
		m, ok := p.mailbox(v)
		if !ok {
			return
		}
		lower := strings.ToLower(m.Address)
		switch first, twice := seen[lower]; {
		case twice:
			p.bad(v, "mailbox %q stands in line %d already: keep one", m.Address, first)
			return
		case tokens[m.Token()] != "":
			p.bad(v, "mailboxes %q and %q would share the name %q in subjects: give them different aliases", tokens[m.Token()], m.Address, m.Token())
			return
		}
		seen[lower], tokens[m.Token()] = lineOf(v), m.Address
		out = append(out, m)
	})
	if s, ok := resolve(n).(*ast.SequenceNode); ok && len(s.Values) == 0 {
		p.bad(n, "mailboxes: list at least one address")
	}
	return out
}

// mailbox reads an address, or an address with an alias.
func (p *parse) mailbox(v ast.Node) (m Mailbox, ok bool) {
	before := len(p.problems)
	if _, ok := resolve(v).(ast.MapNode); ok {
		at := p.fields(v, "mailbox", map[string]func(ast.Node){
			"address": func(n ast.Node) { m.Address = p.text(n, "address") },
			"alias":   func(n ast.Node) { m.Alias = p.text(n, "alias") },
		})
		if _, ok := at["address"]; !ok {
			p.bad(v, "mailbox without an address")
		}
		if a, ok := at["alias"]; ok && !isName(m.Alias) {
			p.bad(a.value, "alias %q: it stands in subjects, %s", m.Alias, nameRule)
		}
	} else {
		m.Address = p.text(v, "mailboxes")
	}
	if len(p.problems) > before {
		return m, false
	}
	switch {
	case strings.EqualFold(m.Address, Me):
		m.Address = Me // whether there is a signed-in user is known with the connection
	case !m.IsID() && !isAddress(m.Address):
		p.bad(v, "mailbox %q is neither an address nor a Graph user id", m.Address)
	}
	return m, len(p.problems) == before
}

func isAddress(s string) bool {
	local, host, at := strings.Cut(s, "@")
	return at && local != "" && host != "" && !strings.ContainsAny(s, "/\\?*<>\"|,; \t\r\n") && !strings.Contains(host, "@")
}

// reach compares the mailboxes of a watch with what its connection can see and be told.
func (p *parse) reach(w *Watch, at map[string]entry) {
	c, ok := p.file.Connections[w.Connection]
	n := at["mailboxes"].value
	if !ok || n == nil {
		return
	}
	for _, m := range w.Mailboxes {
		switch {
		case m.IsMe() && c.Auth == AuthApp:
			p.bad(n, `mailbox "me" is the signed-in user, and with auth app there is none: give the address`)
		case c.Auth == AuthApp || m.IsMe():
		case w.needsPush() != "": // P-6, P-7
			p.bad(n, "mailbox %q: %s needs notifications, and delegated access has them for `me` only: take a connection with auth app, or another delivery and content", m.Address, w.needsPush())
		}
	}
}

func (p *parse) mail(n ast.Node, content event.Content) (m Mail) {
	known := event.MailEvents
	if content == event.ContentReference {
		known = event.NotificationEvents
	}
	at := p.fields(n, "mail", map[string]func(ast.Node){
		"folders": func(v ast.Node) { m.Folders = p.refs(v, folderRefs) },
		"events":  func(v ast.Node) { m.Events = p.events(v, known) },
	})
	if _, ok := at["folders"]; !ok {
		m.Folders = []FolderRef{{Name: "inbox"}}
	}
	if _, ok := at["events"]; !ok {
		m.Events = slices.Clone(known)
	}
	return m
}

func (p *parse) events(n ast.Node, known []string) (out []string) {
	p.words(n, "events", func(v ast.Node, name string) {
		switch {
		case !slices.Contains(known, name):
			p.bad(v, "unknown event %q; there are %s", name, strings.Join(known, ", "))
		case slices.Contains(out, name):
			p.bad(v, "event %q stands twice: keep one", name)
		default:
			out = append(out, name)
		}
	})
	if s, ok := resolve(n).(*ast.SequenceNode); ok && len(s.Values) == 0 {
		p.bad(n, "events: list at least one of %s", strings.Join(known, ", "))
	}
	return out
}

// words reads a list of texts; what is no text is a mistake, and left out.
func (p *parse) words(n ast.Node, what string, fn func(v ast.Node, word string)) {
	p.list(n, what, func(v ast.Node) {
		before := len(p.problems)
		if word := p.text(v, what); len(p.problems) == before {
			fn(v, word)
		}
	})
}

// refKind is what a list of references names.
type refKind struct {
	one, many string
	remedy    string
	problem   func(name string) string // what is wrong with a name; empty when nothing is
}

var folderRefs = refKind{"folder", "folders", `write a well-known name, an id, a path such as "Inbox/Invoices", or all`, folderProblem}

func (p *parse) refs(n ast.Node, k refKind) (out []FolderRef) {
	before := len(p.problems)
	seen := map[string]bool{}
	p.words(n, k.many, func(v ast.Node, written string) {
		name, exclude := strings.CutPrefix(written, "!")
		switch problem := k.problem(name); {
		case problem != "":
			p.bad(v, "%s %q %s: %s", k.one, written, problem, k.remedy)
		case seen[strings.ToLower(name)]:
			p.bad(v, "%s %q stands twice: keep one", k.one, name)
		}
		seen[strings.ToLower(name)] = true
		out = append(out, FolderRef{Name: name, Exclude: exclude})
	})
	if len(p.problems) == before && !slices.ContainsFunc(out, func(f FolderRef) bool { return !f.Exclude }) {
		p.bad(n, "%s: nothing is left to watch: list at least one %s, or all", k.many, k.one)
	}
	// First what is watched, then what is left out of it, whatever their order in the file.
	slices.SortStableFunc(out, func(a, b FolderRef) int {
		switch {
		case a.Exclude == b.Exclude:
			return 0
		case b.Exclude:
			return -1
		}
		return 1
	})
	return out
}

// folderProblem says what is wrong with a folder's name; empty when nothing is.
func folderProblem(name string) string {
	empty := true // the part since the last slash
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] == '\\' && i+1 < len(name) && name[i+1] == '/':
			empty = false
			i++
		case name[i] == '/' && empty:
			return "has an empty part"
		case name[i] == '/':
			empty = true
		case name[i] != ' ':
			empty = false
		}
	}
	switch {
	case name == "":
		return "is empty"
	case empty:
		return "has an empty part"
	case name[0] == '!':
		return "begins with more than one !"
	}
	return ""
}

func (p *parse) filter(n ast.Node) *Filter {
	source := p.text(n, "when")
	if source == "" {
		return nil
	}
	f, err := CompileFilter(source)
	if err != nil {
		p.bad(n, "when: %v", err)
	}
	return f
}

func (p *parse) content(n ast.Node) event.Content {
	c, err := event.ParseContent(p.text(n, "content"))
	if err != nil {
		p.bad(n, "%v", err)
		return event.ContentEnvelope
	}
	return c
}

func (p *parse) delivery(n ast.Node) Delivery {
	d := Delivery(p.text(n, "delivery"))
	if d != DeliveryAuto && d != DeliveryPush && d != DeliveryPoll {
		p.bad(n, "unknown delivery %q: want one of auto, push, poll", d)
	}
	return d
}

// maxBack bounds a start in the past; who wants more wants all.
const maxBack = 10 * 365 * 24 * time.Hour

func (p *parse) start(n ast.Node) (s Start) {
	v := p.text(n, "start")
	switch v {
	case "now":
		return s
	case "all":
		return Start{All: true}
	}
	d, err := parseDuration(v)
	if err != nil || d <= 0 || d > maxBack {
		p.bad(n, "start %q: write now, all, or a duration back such as 36h or 7d", v)
		return s
	}
	return Start{Back: d}
}

// minCanary is the shortest promise of a canary: a poll and its round must fit in.
const minCanary = time.Minute

func (p *parse) canary(n ast.Node) time.Duration {
	v := p.text(n, "canary")
	d, err := parseDuration(v)
	if err != nil || d < minCanary || d > maxBack {
		p.bad(n, "canary %q: write how often an event of this watch must come at least, such as 15m; not under %v", v, minCanary)
		return 0
	}
	return d
}

// parseDuration also takes days: 7d.
func parseDuration(s string) (time.Duration, error) {
	days, ok := strings.CutSuffix(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	d, err := time.ParseDuration(days + "h")
	if err != nil || d > maxBack {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return d * 24, nil
}
