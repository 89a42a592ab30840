package subscriptions

import (
	"net/url"
	"slices"
	"strings"
)

// segments are the words of a resource path; everything else in it is an id.
var segments = map[string]bool{
	"me": true, "users": true, "groups": true, "messages": true, "mailfolders": true, "childfolders": true,
	"events": true, "calendar": true, "calendars": true, "contacts": true, "contactfolders": true,
}

// normalize brings a resource into the form in which two of them can be compared: no leading slash, words and
// addresses in lower case, ids exactly as they are, Users('x') as users/x (S-44, S-30, W-7).
func normalize(resource string) string {
	path, query, filtered := strings.Cut(strings.Trim(resource, "/"), "?")
	var out []string
	for part := range strings.SplitSeq(path, "/") {
		name, id, called := strings.Cut(part, "('")
		out = append(out, normalizeSegment(name))
		if called {
			out = append(out, normalizeSegment(strings.TrimSuffix(id, "')")))
		}
	}
	path = strings.Join(out, "/")
	if filtered {
		path += "?" + query
	}
	return path
}

func normalizeSegment(s string) string {
	if lower := strings.ToLower(s); segments[lower] || strings.Contains(s, "@") {
		return lower
	}
	return s
}

// sameChanges compares two changeType lists, which have no order and no case.
func sameChanges(a, b string) bool {
	split := func(s string) []string {
		list := strings.Split(strings.ToLower(strings.ReplaceAll(s, " ", "")), ",")
		slices.Sort(list)
		return list
	}
	return slices.Equal(split(a), split(b))
}

// sameURL compares two URLs as a browser would: scheme and host have no case, a default port need not be written.
func sameURL(a, b string) bool {
	ua, err := url.Parse(a)
	if err != nil {
		return false
	}
	ub, err := url.Parse(b)
	if err != nil {
		return false
	}
	return strings.EqualFold(ua.Scheme, ub.Scheme) && strings.EqualFold(ua.Hostname(), ub.Hostname()) &&
		portOf(ua) == portOf(ub) && ua.EscapedPath() == ub.EscapedPath() && ua.RawQuery == ub.RawQuery
}

func portOf(u *url.URL) string {
	switch port, scheme := u.Port(), strings.ToLower(u.Scheme); {
	case port != "":
		return port
	case scheme == "https":
		return "443"
	default:
		return "80"
	}
}
