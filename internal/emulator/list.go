package emulator

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// sortedIndex keeps the messages of a folder in order, so that paging through a large one sorts it once. An index is good
// while the folder's log has the length it had then.
type sortedIndex struct {
	byTime [2]struct { // received, lastModified; ascending
		at   int
		list []*message
	}
}

func (f *folder) inOrder(property string) []*message {
	i := 0
	if property == "lastmodifieddatetime" {
		i = 1
	}
	x := &f.sorted.byTime[i]
	if x.at != len(f.log) || x.list == nil {
		x.at, x.list = len(f.log), slices.AppendSeq(x.list[:0], f.messages)
		sortMessages(x.list, property)
	}
	return x.list
}

func sortMessages(list []*message, property string) {
	slices.SortStableFunc(list, func(a, b *message) int {
		if property == "lastmodifieddatetime" {
			return int(a.modified - b.modified)
		}
		return int(a.received - b.received)
	})
}

// listMessages answers GET …/messages of a folder or a whole mailbox.
func (s *Server) listMessages(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select", "$filter", "$orderby", "$top", "$skip"); bad != nil {
		return *bad
	}
	set, refused, ok := selected(q.query)
	if !ok {
		return refused
	}
	filter, by, refused, ok := filterAndOrder(q.query)
	if !ok {
		return refused
	}
	var list []*message
	if q.folder.raw != "" {
		f, refused, ok := s.findFolder(q)
		if !ok {
			return refused
		}
		list = f.inOrder(by.property)
	} else {
		for _, m := range q.user.messages {
			if m.folder != nil {
				list = append(list, m)
			}
		}
		sortMessages(list, by.property)
	}
	size, given, refused, ok := top(q.query)
	if !ok {
		return refused
	}
	if !given {
		size = 10
		if q.prefer.pageSize > 0 {
			size = q.prefer.pageSize
		}
	}
	page, next := pageOf(list, filter, by.descending, skipOf(q.query), size)
	b := append([]byte(nil), `{"@odata.context":`...)
	b = appendString(b, s.opts.Root+"/v1.0/$metadata#users('"+q.user.id+"')/messages"+selectContext(q.query))
	b = append(b, `,"value":[`...)
	for i, m := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, m, set, q.prefer.immutable, false, "")
	}
	b = append(b, ']')
	if next > 0 {
		b = append(b, `,"@odata.nextLink":`...)
		b = appendString(b, s.skipLink(q, next))
	}
	return ok200(append(b, '}'), q)
}

// filterAndOrder reads $filter and $orderby and the rule that joins them. Without an order the newest come first.
func filterAndOrder(query url.Values) (filter []condition, by order, refused answer, ok bool) {
	by = order{property: "receiveddatetime", descending: true}
	if text, given := option(query, "$filter"); given {
		if filter, refused, ok = parseFilter(text); !ok {
			return nil, by, refused, false
		}
	}
	text, given := option(query, "$orderby")
	if !given {
		return filter, by, answer{}, true
	}
	orders, refused, ok := parseOrder(text)
	if !ok {
		return nil, by, refused, false
	}
	if len(orders) > 1 {
		return nil, by, answerTooComplex, false
	}
	if len(filter) > 0 && filter[0].property != orders[0].property {
		return nil, by, answerTooComplex, false
	}
	return filter, orders[0], answer{}, true
}

// pageOf takes a page of size out of an ascending list; skip counts messages that pass the filter. next is 0 at the end.
func pageOf(list []*message, filter []condition, descending bool, skip, size int) (page []*message, next int) {
	seen := 0
	for i, m := range list {
		if descending {
			m = list[len(list)-1-i]
		}
		if slices.ContainsFunc(filter, func(c condition) bool { return !c.holds(m) }) {
			continue
		}
		if seen++; seen <= skip {
			continue
		}
		if len(page) == size {
			return page, skip + size
		}
		page = append(page, m)
	}
	return page, 0
}

func skipOf(query url.Values) int {
	text, _ := option(query, "$skip")
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// skipLink is the link to the next page of a listing: the same query with $skip.
func (s *Server) skipLink(q *request, skip int) string {
	var b strings.Builder
	b.WriteString(s.nextRoot() + q.URL.EscapedPath() + "?")
	for _, name := range []string{"$select", "$filter", "$orderby", "$top", "includeHiddenFolders", "startDateTime", "endDateTime"} {
		if v, given := option(q.query, name); given {
			fmt.Fprintf(&b, "%s=%s&", name, strings.ReplaceAll(url.QueryEscape(v), "+", "%20"))
		}
	}
	fmt.Fprintf(&b, "$skip=%d", skip)
	return b.String()
}

// nextRoot is where next links lead. mu is held.
func (s *Server) nextRoot() string {
	if s.faults.ForeignNextLink {
		return "https://graph.evil.example"
	}
	return s.opts.Root
}

// listFolders answers GET …/mailFolders, which has the top level only (D-33), and GET …/childFolders.
func (s *Server) listFolders(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad := s.checkQuery(q, "$select", "$top", "$skip", "includehiddenfolders"); bad != nil {
		return *bad
	}
	sel, refused, ok := selectedOfFolder(q.query)
	if !ok {
		return refused
	}
	parent := q.user.wellKnown[root]
	if q.folder.raw != "" {
		if parent, refused, ok = s.findFolder(q); !ok {
			return refused
		}
	}
	size, given, refused, ok := top(q.query)
	if !ok {
		return refused
	}
	if !given {
		size = 10
	}
	list := parent.children()
	list = list[min(skipOf(q.query), len(list)):]
	page := list[:min(size, len(list))]
	b := append([]byte(nil), `{"@odata.context":`...)
	b = appendString(b, s.opts.Root+"/v1.0/$metadata#users('"+q.user.id+"')/mailFolders"+selectContext(q.query))
	b = append(b, `,"value":[`...)
	for i, f := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFolder(b, f, sel, "")
	}
	b = append(b, ']')
	if len(page) < len(list) {
		b = append(b, `,"@odata.nextLink":`...)
		b = appendString(b, s.skipLink(q, skipOf(q.query)+len(page)))
	}
	return ok200(append(b, '}'), q)
}

func isKnownName(name string) bool { return slices.Contains(knownNames, strings.ToLower(name)) }
