package emulator

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// preferences are the wishes of the Prefer header (D-21).
type preferences struct {
	immutable bool
	pageSize  int    // 0: no wish
	zone      string // of times of calendar items; empty: UTC (D-37)
}

func parsePrefer(h http.Header) (p preferences) {
	for _, line := range h.Values("Prefer") {
		for wish := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(wish, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "idtype":
				p.immutable = value == "ImmutableId"
			case "odata.maxpagesize":
				if n, err := strconv.Atoi(value); err == nil && n > 0 {
					p.pageSize = min(n, 1000)
				}
			case "outlook.timezone":
				p.zone = value
			}
		}
	}
	return p
}

func (p preferences) applied() string {
	var list []string
	if p.immutable {
		list = append(list, `IdType="ImmutableId"`)
	}
	if p.pageSize > 0 {
		list = append(list, "odata.maxpagesize="+strconv.Itoa(p.pageSize))
	}
	if p.zone != "" {
		list = append(list, `outlook.timezone="`+p.zone+`"`)
	}
	return strings.Join(list, ", ")
}

// checkQuery refuses options that an operation does not have. mu is held.
func (s *Server) checkQuery(q *request, known ...string) *answer {
	for name, values := range q.query {
		if !slices.Contains(known, strings.ToLower(name)) {
			s.violation("%s: %s does not have the query option %q", optionFact(q.op), q.op, name)
			a := fail(http.StatusBadRequest, "BadRequest", "The query option '"+name+"' is not supported here.")
			return &a
		}
		if len(values) > 1 {
			a := fail(http.StatusBadRequest, "BadRequest", "Query option '"+name+"' was specified more than once, but it must be specified at most once.")
			return &a
		}
	}
	return nil
}

// optionFact is the fact that says which query options an operation has.
func optionFact(op string) string {
	switch op {
	case "delta":
		return "D-26"
	case "folder.delta":
		return "D-32"
	case "calendarview.delta":
		return "D-36"
	case "subscription.list":
		return "R-14"
	}
	return "Q-1"
}

// option reads a query option whose name is written without regard to case.
func option(query url.Values, name string) (string, bool) {
	for k, v := range query {
		if strings.EqualFold(k, name) && len(v) > 0 {
			return v[0], true
		}
	}
	return "", false
}

// selected reads $select of messages; without it all that is not hidden.
func selected(query url.Values) (propertySet, answer, bool) {
	list, given := option(query, "$select")
	if !given {
		return allProperties, answer{}, true
	}
	var set propertySet
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		bit, ok := propertyNamed[strings.ToLower(name)]
		if !ok && strings.ToLower(name) != "id" {
			return 0, fail(http.StatusBadRequest, "RequestBroker--ParseUri",
				"Could not find a property named '"+name+"' on type 'Microsoft.OutlookServices.Message'."), false
		}
		set |= bit
	}
	return set, answer{}, true
}

// selectedOfFolder reads $select of folders; nil: all.
func selectedOfFolder(query url.Values) (map[string]bool, answer, bool) {
	list, given := option(query, "$select")
	if !given {
		return nil, answer{}, true
	}
	set := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		known := name == "id"
		for _, p := range folderProperties {
			known = known || strings.ToLower(p.name) == name
		}
		if !known {
			return nil, fail(http.StatusBadRequest, "RequestBroker--ParseUri",
				"Could not find a property named '"+name+"' on type 'Microsoft.OutlookServices.MailFolder'."), false
		}
		set[name] = true
	}
	return set, answer{}, true
}

// selectContext is how a metadata context shows a $select.
func selectContext(query url.Values) string {
	if list, given := option(query, "$select"); given {
		return "(" + list + ")"
	}
	return ""
}

// top reads $top.
func top(query url.Values) (n int, given bool, refused answer, ok bool) {
	text, given := option(query, "$top")
	if !given {
		return 0, false, answer{}, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, false, fail(http.StatusBadRequest, "BadRequest", "The limit of '1000' for Top query has been exceeded, or the value '"+text+"' is not a number of at least 1."), false
	}
	return n, true, answer{}, true
}

// condition compares a time property of messages.
type condition struct {
	property string // lower case
	op       string
	at       time.Time
}

func (c condition) holds(m *message) bool {
	seconds := m.received
	switch c.property {
	case "lastmodifieddatetime":
		seconds = m.modified
	case "sentdatetime":
		seconds = m.sent
	case "createddatetime":
		seconds = m.created
	}
	d := time.Unix(seconds, 0).Compare(c.at)
	switch c.op {
	case "ge":
		return d >= 0
	case "gt":
		return d > 0
	case "le":
		return d <= 0
	case "lt":
		return d < 0
	}
	return d == 0
}

var (
	timeProperties = []string{"receiveddatetime", "lastmodifieddatetime", "sentdatetime", "createddatetime"}
	comparisons    = []string{"ge", "gt", "le", "lt", "eq"}
)

// parseFilter reads comparisons of times, joined by `and`. A `+` of an offset that was not escaped has become a space by
// now, and is refused.
func parseFilter(text string) (list []condition, refused answer, ok bool) {
	invalid := fail(http.StatusBadRequest, "BadRequest", "Invalid filter clause: "+text)
	for part := range strings.SplitSeq(text, " and ") {
		words := strings.Fields(strings.Trim(part, " ()"))
		if len(words) != 3 {
			return nil, invalid, false
		}
		c := condition{property: strings.ToLower(words[0]), op: strings.ToLower(words[1])}
		if !slices.Contains(timeProperties, c.property) || !slices.Contains(comparisons, c.op) {
			return nil, invalid, false
		}
		at, err := time.Parse(time.RFC3339Nano, words[2])
		if err != nil {
			return nil, invalid, false
		}
		c.at = at
		list = append(list, c)
	}
	return list, answer{}, true
}

// order is one property of $orderby.
type order struct {
	property   string // lower case
	descending bool
}

func parseOrder(text string) (list []order, refused answer, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 || !slices.Contains(timeProperties[:2], strings.ToLower(words[0])) ||
			len(words) == 2 && words[1] != "asc" && words[1] != "desc" {
			return nil, fail(http.StatusBadRequest, "BadRequest", "Invalid or unsupported $orderby: "+text), false
		}
		list = append(list, order{property: strings.ToLower(words[0]), descending: len(words) == 2 && words[1] == "desc"})
	}
	return list, answer{}, true
}
