package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/triggerd/triggerd/internal/event"
)

// maxFile bounds a watch file, in bytes.
const maxFile = 4 << 20

// Parse checks a watch file; name stands in messages. The error joins all mistakes, each as "name:line: what, remedy".
func Parse(name string, data []byte) (*File, error) {
	p := &parse{name: name, file: &File{Connections: map[string]Connection{}}, clouds: maps.Clone(builtin)}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	doc, err := parseYAML(data)
	if err != nil {
		return nil, fmt.Errorf("%s: not YAML: %w", name, err)
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s: want one document with connections and watches", name)
	}
	p.root(doc.Docs[0].Body)
	slices.SortFunc(p.file.Watches, func(a, b Watch) int { return cmp.Compare(a.Name, b.Name) })
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
		errs := make([]error, len(p.problems))
		for i, pr := range p.problems {
			errs[i] = errors.New(pr.text)
		}
		return nil, errors.Join(errs...)
	}
	return p.file, nil
}

// parseYAML guards against the panics by which the parser meets some malformed files.
func parseYAML(data []byte) (doc *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return parser.ParseBytes(data, 0)
}

type problem struct {
	line int
	text string
}

// parse walks the file and collects mistakes instead of stopping at the first.
type parse struct {
	name     string
	file     *File
	clouds   map[string]Cloud
	problems []problem
}

func (p *parse) bad(n ast.Node, format string, args ...any) {
	line := 1
	if n != nil && n.GetToken() != nil {
		line = n.GetToken().Position.Line
	}
	p.problems = append(p.problems, problem{line, fmt.Sprintf("%s:%d: %s", p.name, line, fmt.Sprintf(format, args...))})
}

// fields reads a mapping: each key by its function, others are mistakes. It returns the nodes of the keys it found.
func (p *parse) fields(n ast.Node, what string, known map[string]func(ast.Node)) map[string]ast.Node {
	found := map[string]ast.Node{}
	names := slices.Sorted(maps.Keys(known))
	p.each(n, what, func(key string, k, v ast.Node) {
		read, ok := known[key]
		if !ok {
			p.bad(k, "unknown field %q in %s%s", key, what, cmp.Or(didYouMean(key, names), "; known are "+strings.Join(names, ", ")))
			return
		}
		found[key] = k
		read(v)
	})
	return found
}

// each walks a mapping in the order of the file.
func (p *parse) each(n ast.Node, what string, fn func(key string, k, v ast.Node)) {
	m, ok := resolve(n).(ast.MapNode)
	if !ok {
		p.bad(n, "%s: want fields, got %s", what, kind(n))
		return
	}
	seen := map[string]bool{}
	it := m.MapRange()
	for it.Next() {
		key := it.Key()
		name := strings.Trim(key.String(), `"'`)
		if seen[name] {
			p.bad(key, "%q stands twice in %s", name, what)
			continue
		}
		seen[name] = true
		fn(name, key, it.Value())
	}
}

func (p *parse) list(n ast.Node, what string, fn func(ast.Node)) {
	s, ok := resolve(n).(*ast.SequenceNode)
	if !ok {
		p.bad(n, "%s: want a list, got %s", what, kind(n))
		return
	}
	for _, v := range s.Values {
		fn(v)
	}
}

// text reads a string, or anything that is written like one.
func (p *parse) text(n ast.Node, what string) string {
	switch v := resolve(n).(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		return v.GetToken().Value
	}
	p.bad(n, "%s: want text, got %s", what, kind(n))
	return ""
}

func (p *parse) texts(n ast.Node, what string) (out []string) {
	p.list(n, what, func(v ast.Node) { out = append(out, p.text(v, what)) })
	return out
}

// resolve looks through anchors and tags.
func resolve(n ast.Node) ast.Node {
	for range 16 {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		default:
			return n
		}
	}
	return n
}

func kind(n ast.Node) string {
	switch resolve(n).(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case ast.MapNode:
		return "fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.AliasNode:
		return "an alias, which is not supported"
	}
	return "something else"
}

func (p *parse) root(n ast.Node) {
	var connections, watches ast.Node
	found := p.fields(n, "the file", map[string]func(ast.Node){
		"clouds":      func(v ast.Node) { p.each(v, "clouds", p.cloud) },
		"connections": func(v ast.Node) { connections = v },
		"watches":     func(v ast.Node) { watches = v },
	})
	for _, need := range []string{"connections", "watches"} {
		if found[need] == nil {
			p.bad(n, "%s is missing: without it nothing can be watched", need)
		}
	}
	if connections != nil { // after the clouds, wherever they stand
		p.each(connections, "connections", p.connection)
	}
	if watches != nil {
		p.each(watches, "watches", p.watch)
	}
}

func (p *parse) cloud(name string, k, v ast.Node) {
	if _, ok := builtin[name]; ok {
		p.bad(k, "cloud %q is built in: choose another name", name)
		return
	}
	c, like := Cloud{Name: name, Custom: true}, "global"
	at := p.fields(v, "cloud "+name, map[string]func(ast.Node){
		"graph": func(n ast.Node) { c.Graph = p.base(n, "graph") },
		"login": func(n ast.Node) { c.Login = p.base(n, "login") },
		"like":  func(n ast.Node) { like = p.text(n, "like") },
	})
	for _, need := range []string{"graph", "login"} {
		if at[need] == nil {
			p.bad(k, "cloud %s has no %s: give its base URL", name, need)
		}
	}
	model, ok := builtin[like]
	if !ok {
		p.bad(at["like"], "like: %q is not one of %s", like, list(builtin))
	}
	c.NoDelta, c.MailMax = model.NoDelta, model.MailMax
	p.clouds[name] = c
}

func (p *parse) base(n ast.Node, what string) string {
	s := strings.TrimSuffix(p.text(n, what), "/")
	if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" {
		p.bad(n, "%s: %q is not a base URL", what, s)
	}
	return s
}

func list[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func isToken(s string) bool { return token.MatchString(s) }

// later are fields of the design that this version does not have: named, so that nobody waits for their effect.
func (p *parse) later(what string) func(ast.Node) {
	return func(n ast.Node) {
		if b, ok := resolve(n).(*ast.BoolNode); ok && !b.Value {
			return
		}
		p.bad(n, "%s is not supported by this version: leave it out", what)
	}
}

func (p *parse) connection(name string, k, v ast.Node) {
	if !isToken(name) {
		p.bad(k, "connection name %q: use letters, digits, - and _", name)
	}
	c, cloud, auth := Connection{Name: name}, "global", "app"
	at := p.fields(v, "connection "+name, map[string]func(ast.Node){
		"cloud":                func(n ast.Node) { cloud = p.text(n, "cloud") },
		"tenant":               func(n ast.Node) { c.Tenant = p.text(n, "tenant") },
		"client_id":            func(n ast.Node) { c.ClientID = p.text(n, "client_id") },
		"auth":                 func(n ast.Node) { auth = p.text(n, "auth") },
		"client_secret_file":   func(n ast.Node) { c.ClientSecretFile = p.text(n, "client_secret_file") },
		"certificate_file":     p.later("certificate_file"),
		"certificate_key_file": p.later("certificate_key_file"),
		"federated_token_file": p.later("federated_token_file"),
		"extra_scopes":         p.later("extra_scopes"),
	})
	var ok bool
	if c.Cloud, ok = p.clouds[cloud]; !ok {
		p.bad(at["cloud"], "cloud %q is not one of %s", cloud, list(p.clouds))
	}
	switch auth {
	case "app":
	case "delegated":
		p.bad(at["auth"], "auth: delegated sign-in is not supported by this version: use app")
	default:
		p.bad(at["auth"], "auth: %q is not one of app, delegated", auth)
	}
	switch strings.ToLower(c.Tenant) {
	case "":
		p.bad(k, "connection %s has no tenant: give the directory's id", name)
	case "common", "organizations", "consumers":
		p.bad(at["tenant"], "tenant: %q does not work without a user: give the directory's id", c.Tenant)
	}
	if c.ClientID == "" {
		p.bad(k, "connection %s has no client_id: give the app registration's application id", name)
	}
	p.secret(at["client_secret_file"], k, &c)
	p.file.Connections[name] = c
}

func (p *parse) secret(at, k ast.Node, c *Connection) {
	if c.ClientSecretFile == "" {
		p.bad(cmp.Or(at, k), "connection %s has no credential: name the file with the client secret in client_secret_file", c.Name)
		return
	}
	if _, err := ReadSecret(c.ClientSecretFile); err != nil {
		p.bad(at, "client_secret_file: %v", err)
	}
}

func (p *parse) watch(name string, k, v ast.Node) {
	if !isToken(name) {
		p.bad(k, "watch name %q: it is a token of the subject, use letters, digits, - and _", name)
	}
	w := Watch{Name: name, Content: event.ContentEnvelope, Delivery: DeliveryAuto}
	var mail ast.Node
	at := p.fields(v, "watch "+name, map[string]func(ast.Node){
		"connection": func(n ast.Node) { w.Connection = p.text(n, "connection") },
		"mailboxes":  func(n ast.Node) { w.Mailboxes = p.mailboxes(n) },
		"mail":       func(n ast.Node) { mail = n },
		"calendar":   p.later("calendar"),
		"when":       func(n ast.Node) { w.When = p.filter(n) },
		"content":    func(n ast.Node) { w.Content = p.content(n) },
		"delivery":   func(n ast.Node) { w.Delivery = p.delivery(n) },
		"rich":       p.later("rich"),
		"start":      func(n ast.Node) { w.Start = p.start(n) },
	})
	if _, ok := p.file.Connections[w.Connection]; !ok {
		if w.Connection == "" {
			p.bad(k, "watch %s has no connection: name one of %s", name, list(p.file.Connections))
		} else {
			p.bad(at["connection"], "connection %q is not one of %s", w.Connection, list(p.file.Connections))
		}
	}
	if len(w.Mailboxes) == 0 && at["mailboxes"] == nil {
		p.bad(k, "watch %s has no mailboxes: list at least one address", name)
	}
	if mail == nil {
		p.bad(k, "watch %s watches nothing: give it mail, with folders and events", name)
	} else {
		w.Mail = p.mail(mail, w.Content)
	}
	if w.Content == event.ContentReference && w.Delivery == DeliveryPoll {
		p.bad(at["content"], "content reference needs notifications, and delivery is poll: choose content ids, or another delivery")
	}
	if w.Content == event.ContentReference && w.When != nil {
		p.bad(at["when"], "a filter sees nothing where content is reference: leave when out, or choose content ids")
	}
	p.file.Watches = append(p.file.Watches, w)
}

func (p *parse) mailboxes(n ast.Node) (out []Mailbox) {
	seen := map[string]bool{}
	tokens := map[string]string{}
	p.list(n, "mailboxes", func(v ast.Node) {
		var m Mailbox
		if _, ok := resolve(v).(ast.MapNode); ok {
			p.fields(v, "mailbox", map[string]func(ast.Node){
				"address": func(n ast.Node) { m.Address = p.text(n, "address") },
				"alias":   func(n ast.Node) { m.Alias = p.text(n, "alias") },
			})
		} else {
			m.Address = p.text(v, "mailbox")
		}
		lower := strings.ToLower(m.Address)
		switch {
		case lower == "me":
			p.bad(v, "mailbox me means the signed-in user, and there is none with auth app: give the address")
		case !strings.Contains(m.Address, "@") && !m.IsID():
			p.bad(v, "mailbox %q is neither an address nor a Graph user id", m.Address)
		case strings.ContainsAny(m.Address, "/?# \t\n"):
			p.bad(v, "mailbox %q holds a character that no address has", m.Address)
		case seen[lower]:
			p.bad(v, "mailbox %q stands twice in this watch", m.Address)
		case m.Alias != "" && !isToken(m.Alias):
			p.bad(v, "alias %q: it is a token of the subject, use letters, digits, - and _", m.Alias)
		case tokens[m.Token()] != "":
			p.bad(v, "mailboxes %s and %s would share the subject token %q: give them different aliases", tokens[m.Token()], m.Address, m.Token())
		}
		seen[lower], tokens[m.Token()] = true, m.Address
		out = append(out, m)
	})
	if len(out) == 0 {
		p.bad(n, "mailboxes: list at least one address")
	}
	return out
}

func (p *parse) mail(n ast.Node, content event.Content) (m Mail) {
	known := event.MailEvents
	if content == event.ContentReference {
		known = event.NotificationEvents
	}
	at := p.fields(n, "mail", map[string]func(ast.Node){
		"folders": func(v ast.Node) { m.Folders = p.folders(v) },
		"events": func(v ast.Node) {
			p.list(v, "events", func(e ast.Node) {
				name := p.text(e, "events")
				if !slices.Contains(known, name) {
					p.bad(e, "event %q is not one of %s", name, strings.Join(known, ", "))
				}
				m.Events = append(m.Events, name)
			})
		},
	})
	if at["folders"] == nil {
		m.Folders = []FolderRef{{Name: "inbox"}}
	}
	if at["events"] == nil {
		m.Events = known
		if content != event.ContentReference {
			m.Events = []string{event.Received, event.Sent, event.Moved, event.Deleted}
		}
	}
	return m
}

func (p *parse) folders(n ast.Node) (out []FolderRef) {
	includes := 0
	p.list(n, "folders", func(v ast.Node) {
		name, exclude := strings.CutPrefix(p.text(v, "folders"), "!")
		if name == "" || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") && !strings.HasSuffix(name, `\/`) {
			p.bad(v, `folder %q: write a well-known name, an id, a path such as "Inbox/Invoices", or all`, name)
		}
		if !exclude {
			includes++
		}
		out = append(out, FolderRef{Name: name, Exclude: exclude})
	})
	if includes == 0 {
		p.bad(n, "folders: nothing is left to watch: list at least one folder, or all")
	}
	return out
}

func (p *parse) filter(n ast.Node) *Filter {
	f, err := CompileFilter(p.text(n, "when"))
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
		p.bad(n, "delivery %q is not one of auto, push, poll", d)
	}
	return d
}

func (p *parse) start(n ast.Node) (s Start) {
	v := p.text(n, "start")
	switch v {
	case "now":
		return s
	case "all":
		s.All = true
		return s
	}
	d, err := parseDuration(v)
	if err != nil || d <= 0 {
		p.bad(n, "start %q: write now, all, or a duration back such as 36h or 7d", v)
	}
	s.Back = d
	return s
}

// parseDuration also takes days.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		d, err := time.ParseDuration(days + "h")
		return d * 24, err
	}
	return time.ParseDuration(s)
}

func origin(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	return u.Scheme + "://" + u.Host
}

// didYouMean names the nearest of the known words, when one is near.
func didYouMean(word string, known []string) string {
	best, dist := "", len(word)/3+2
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := prev
			if a[i] != b[j] {
				next++
			}
			prev, row[j+1] = row[j+1], min(next, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
