package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// problem is a mistake or a warning, with its line.
type problem struct {
	line int
	text string
}

// reader walks a YAML document and collects mistakes instead of stopping at the first.
type reader struct {
	name     string // of the file, for messages
	problems []problem
	warnings []problem
	known    map[string]bool // fields that the file may have, "watch.mailboxes", for the test of the example
}

// document parses YAML and returns its root; nil when it cannot be parsed.
func (r *reader) document(data []byte) ast.Node {
	doc, err := parseYAML(data)
	if err != nil {
		r.notYAML(data, err)
		return nil
	}
	if len(doc.Docs) != 1 || doc.Docs[0].Body == nil {
		r.at(1, "want one document with connections and watches")
		return nil
	}
	return doc.Docs[0].Body
}

// parseYAML guards against the panics by which the parser meets some malformed files.
func parseYAML(data []byte) (doc *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("cannot be read")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// bareTag finds what is meant as "leave out" and read as a YAML tag.
var bareTag = regexp.MustCompile(`^[^"'#]*[\s\[,]!\w`)

func (r *reader) notYAML(data []byte, err error) {
	line, text := 1, err.Error()
	if ye, ok := errors.AsType[yaml.Error](err); ok {
		text = ye.GetMessage()
		if t := ye.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
	}
	r.at(line, "not YAML: %s", text)
	for i, l := range bytes.Split(data, []byte("\n")) {
		if bareTag.Match(l) {
			r.at(i+1, "a name that begins with ! must stand in quotes")
		}
	}
}

func (r *reader) at(line int, format string, args ...any) {
	r.problems = append(r.problems, problem{line, fmt.Sprintf("%s:%d: %s", r.name, line, fmt.Sprintf(format, args...))})
}

// bad notes a mistake at a node.
func (r *reader) bad(n ast.Node, format string, args ...any) { r.at(lineOf(n), format, args...) }

// warn notes what is allowed and probably not meant.
func (r *reader) warn(n ast.Node, format string, args ...any) {
	line := lineOf(n)
	r.warnings = append(r.warnings, problem{line, fmt.Sprintf("%s:%d: %s", r.name, line, fmt.Sprintf(format, args...))})
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return n.GetToken().Position.Line
}

// texts are problems in the order of the file.
func texts(list []problem) (out []string) {
	slices.SortStableFunc(list, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	for _, p := range list {
		out = append(out, p.text)
	}
	return out
}

// err joins the mistakes; nil when there are none.
func (r *reader) err() error {
	var errs []error
	for _, t := range texts(r.problems) {
		errs = append(errs, errors.New(t))
	}
	return errors.Join(errs...)
}

// entry is a key of a mapping and its value.
type entry struct{ key, value ast.Node }

// fields reads a mapping of kind what: each key by its function, others are mistakes. It returns the entries found.
func (r *reader) fields(n ast.Node, what string, known map[string]func(ast.Node)) map[string]entry {
	found := map[string]entry{}
	names := slices.Sorted(maps.Keys(known))
	for _, name := range names {
		r.known[what+"."+name] = true
	}
	free := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(keyNames(n), name) })
	r.each(n, what, func(key string, k, v ast.Node) {
		read, ok := known[key]
		if !ok {
			r.bad(k, "unknown field %q%s", key, cmp.Or(didYouMean(key, free), fmt.Sprintf("; a %s has %s", what, strings.Join(names, ", "))))
			return
		}
		found[key] = entry{k, v}
		read(v)
	})
	return found
}

// each walks a mapping in the order of the file.
func (r *reader) each(n ast.Node, what string, fn func(key string, k, v ast.Node)) {
	m, ok := resolve(n).(ast.MapNode)
	if !ok {
		r.bad(n, "%s: want fields, got %s", what, kind(n))
		return
	}
	seen := map[string]int{}
	for it := m.MapRange(); it.Next(); {
		key := it.Key()
		name := keyName(key)
		if first, ok := seen[name]; ok {
			r.bad(key, "%q stands in line %d already: keep one", name, first)
			continue
		}
		seen[name] = lineOf(key)
		fn(name, key, it.Value())
	}
}

// keyNames lists the keys of a mapping; a misspelled field is not one of those that are there.
func keyNames(n ast.Node) (out []string) {
	if m, ok := resolve(n).(ast.MapNode); ok {
		for it := m.MapRange(); it.Next(); {
			out = append(out, keyName(it.Key()))
		}
	}
	return out
}

func keyName(key ast.Node) string {
	if s, ok := key.(*ast.StringNode); ok {
		return s.Value
	}
	return key.GetToken().Value
}

func (r *reader) list(n ast.Node, what string, fn func(ast.Node)) {
	s, ok := resolve(n).(*ast.SequenceNode)
	if !ok {
		r.bad(n, "%s: want a list, got %s", what, kind(n))
		return
	}
	for _, v := range s.Values {
		fn(v)
	}
}

// text reads a string, or a number as it is written; "" when it is neither.
func (r *reader) text(n ast.Node, what string) string {
	switch v := resolve(n).(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return strings.TrimRight(v.Value.Value, "\n")
	case *ast.IntegerNode, *ast.FloatNode:
		return v.GetToken().Value
	case *ast.TagNode:
		r.bad(n, "%s: put it in quotes: what begins with a bare ! is a YAML tag", what)
	default:
		r.bad(n, "%s: want text, got %s", what, kind(n))
	}
	return ""
}

// resolve looks through anchors.
func resolve(n ast.Node) ast.Node {
	for range 16 {
		a, ok := n.(*ast.AnchorNode)
		if !ok {
			return n
		}
		n = a.Value
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
	case *ast.TagNode:
		return "a tag, which is not supported"
	}
	return "something else"
}
