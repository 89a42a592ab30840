package config

import (
	"cmp"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxFile bounds a watch file, in bytes.
const maxFile = 4 << 20

// load checks a watch file. With dir, secrets are read, and relative names are below it.
func load(name, dir string, data []byte) (*File, error) {
	p := &parse{
		reader: reader{name: name, known: map[string]bool{}},
		dir:    dir,
		file:   &File{Clouds: maps.Clone(builtin), Connections: map[string]Connection{}},
	}
	if len(data) > maxFile {
		p.at(1, "larger than %d bytes: split it over several instances", maxFile)
	} else if root := p.document(data); root != nil {
		p.root(root)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	p.file.Warnings = texts(p.warnings)
	slices.SortFunc(p.file.Watches, func(a, b Watch) int { return cmp.Compare(a.Name, b.Name) })
	return p.file, nil
}

// parse makes a File of what it reads.
type parse struct {
	reader
	dir  string
	file *File
}

// token is what can stand between the dots of a subject.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func isToken(s string) bool { return token.MatchString(s) }

// isName is stricter, so that no two names differ by case only. A single _ stands in subjects where a level does not
// apply.
func isName(s string) bool { return isToken(s) && s != "_" && s == strings.ToLower(s) }

const nameRule = "use lower-case letters, digits, - and _"

func (p *parse) root(n ast.Node) {
	sections := map[string]ast.Node{}
	keep := func(name string) func(ast.Node) { return func(v ast.Node) { sections[name] = v } }
	p.fields(n, "file", map[string]func(ast.Node){
		"clouds": keep("clouds"), "connections": keep("connections"), "watches": keep("watches"),
	})
	// Whatever their order in the file: a watch names a connection, which names a cloud.
	if v, ok := sections["clouds"]; ok {
		p.each(v, "clouds", p.cloud)
	}
	used := map[string]bool{}
	keys := map[string]ast.Node{}
	p.section(n, sections["connections"], "connections", func(name string, k, v ast.Node) {
		keys[name] = k
		p.connection(name, k, v)
	})
	p.section(n, sections["watches"], "watches", func(name string, k, v ast.Node) {
		used[p.watch(name, k, v)] = true
	})
	for name, k := range keys {
		if !used[name] {
			p.warn(k, "connection %q is not used by any watch", name)
		}
	}
}

// section reads one that must hold something.
func (p *parse) section(root, n ast.Node, what string, fn func(name string, k, v ast.Node)) {
	count := 0
	if n != nil && kind(n) != "nothing" {
		count = -1 // a wrong type is said by each
		p.each(n, what, func(name string, k, v ast.Node) { count = 1; fn(name, k, v) })
		if m, ok := resolve(n).(*ast.MappingNode); ok && len(m.Values) == 0 {
			count = 0
		}
	}
	if count == 0 {
		p.bad(cmp.Or(n, root), "no %s: without them nothing can be watched", what)
	}
}

func (p *parse) cloud(name string, k, v ast.Node) {
	if _, ok := builtin[name]; ok {
		p.bad(k, "cloud %q is built in: choose another name", name)
		return
	}
	if !isName(name) {
		p.bad(k, "cloud name %q: %s", name, nameRule)
	}
	c, like := Cloud{Name: name, Custom: true}, "global"
	at := p.fields(v, "cloud", map[string]func(ast.Node){
		"graph": func(n ast.Node) { c.Graph = p.base(n, "graph") },
		"login": func(n ast.Node) { c.Login = p.base(n, "login") },
		"like":  func(n ast.Node) { like = p.text(n, "like") },
	})
	for _, need := range []string{"graph", "login"} {
		if _, ok := at[need]; !ok {
			p.bad(k, "cloud %q has no %s: give its base URL", name, need)
		}
	}
	model, ok := builtin[like]
	if !ok {
		p.bad(at["like"].value, "unknown cloud %q%s", like, cmp.Or(didYouMean(like, names(builtin)), "; there are "+strings.Join(names(builtin), ", ")))
	}
	c.NoDelta, c.MailMax, c.Portal, c.Federated, c.Environment, c.Personal = model.NoDelta, model.MailMax, model.Portal, model.Federated, model.Environment, model.Personal
	p.file.Clouds[name] = c
}

// base reads a base URL, without the slash at its end.
func (p *parse) base(n ast.Node, what string) string {
	s := strings.TrimRight(p.text(n, what), "/")
	if err := checkURL(s, "http", "https"); err != nil {
		p.bad(n, "%s: %q is not a base URL (%v): write http[s]://host[:port][/path]", what, s, err)
	} else if u, _ := url.Parse(s); u.Scheme == "http" && !isLoopback(u.Hostname()) {
		p.warn(n, "%s: tokens and secrets travel unencrypted to %s", what, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")))
	}
	return s
}

func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// later refuses a field that this version does not have, so that nobody waits for its effect. False is nothing asked.
func (p *parse) later(what, remedy string) func(ast.Node) {
	return func(n ast.Node) {
		if b, ok := resolve(n).(*ast.BoolNode); ok && !b.Value {
			return
		}
		p.bad(n, "%s is not supported by this version: %s", what, remedy)
	}
}
