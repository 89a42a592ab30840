package graph

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// ours parses a link, which is otherwise used as it is (D-2), and refuses one that would carry the token elsewhere.
func (c *Client) ours(link string) (*url.URL, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("%w: not a URL", ErrForeignLink)
	}
	if u.User != nil || !strings.EqualFold(u.Scheme, c.root.Scheme) || hostPort(u) != hostPort(c.root) {
		return nil, ErrForeignLink
	}
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20") // a raw space would end the request line
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[strings.ToLower(u.Scheme)]
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// address is what a first request is sent to: a path below the mailbox, in which each {id} stands for one of the ids,
// escaped. Query options that are empty are left out.
type address struct {
	mailbox string // address, Graph user id, or "me"
	path    string // for example "/mailFolders/{id}/messages"
	ids     []string
	query   []string
}

func (c *Client) url(a address) (string, error) {
	var b strings.Builder
	b.WriteString(c.root.String())
	switch a.mailbox {
	case "me":
		b.WriteString("/me")
	case "", ".", "..":
		return "", fmt.Errorf("%w: unusable mailbox", ErrBadRequest)
	default:
		b.WriteString("/users/" + strings.ReplaceAll(url.PathEscape(a.mailbox), "+", "%2B"))
	}
	path := a.path
	for _, id := range a.ids {
		escaped, err := segment(id)
		if err != nil {
			return "", err
		}
		before, after, _ := strings.Cut(path, "{id}")
		b.WriteString(before + escaped)
		path = after
	}
	b.WriteString(path)
	sep := byte('?')
	for _, q := range a.query {
		if q != "" {
			b.WriteByte(sep)
			b.WriteString(strings.ReplaceAll(q, " ", "%20"))
			sep = '&'
		}
	}
	return b.String(), nil
}

// segment makes an id fit for a path: the gateway unescapes before it splits, so `/` and `+` are spelled the URL-safe
// way instead of being escaped (I-11a); then the rest is escaped, once (I-11b).
func segment(id string) (string, error) {
	switch id {
	case "", ".", "..":
		return "", fmt.Errorf("%w: unusable id", ErrBadRequest)
	}
	return url.PathEscape(strings.NewReplacer("/", "-", "+", "_").Replace(id)), nil
}

func selecting(properties []string) string {
	if len(properties) == 0 {
		return ""
	}
	return "$select=" + strings.Join(properties, ",")
}

// since filters by a time in UTC with Z, so that there is no `+` to be escaped.
func since(property string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "$filter=" + property + " ge " + inQuery(t)
}

func inQuery(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
