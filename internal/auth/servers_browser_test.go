package auth

import (
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// page is what a person sees: a form, and where links and buttons lead.
type page struct {
	action string // empty: there is no form
	values url.Values
	links  []string
}

// location is how a button without a form leads on.
var location = regexp.MustCompile(`^location\.href='([^']+)'$`)

// browse does what a person does: follows redirects, fills forms and presses buttons, until the browser would leave for
// the redirect URI, or nothing is left to do. A person who declines takes the first way out.
func (s *server) browse(t testing.TB, address, userCode string, decline bool) (last string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	errLeft := errors.New("left")
	client := &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirectURI) {
			last = r.URL.String()
			return errLeft
		}
		return nil
	}}
	resp, err := client.Get(address)
	for range 8 {
		if last != "" {
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		p := read(t, resp)
		switch out := p.link("/abort", "=denied"); {
		case decline && out != "":
			if _, err := client.Get(out); err != nil && last == "" {
				t.Fatal(err)
			}
			return last
		case decline && p.values.Has("confirm"): // the form's other button
			p.values.Set("abort", "yes")
			if _, err := client.PostForm(p.action, p.values); err != nil {
				t.Fatal(err)
			}
			return ""
		case p.action != "":
			resp, err = client.PostForm(p.action, s.filled(p.values, userCode))
		default:
			on := p.link("=allowed")
			if on == "" {
				return ""
			}
			resp, err = client.Get(on)
		}
	}
	t.Fatalf("the pages of %s go in circles", s.name)
	return ""
}

// link finds a link by how it ends; empty: there is none.
func (p page) link(ends ...string) string {
	i := slices.IndexFunc(p.links, func(link string) bool {
		return slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(link, end) })
	})
	if i < 0 {
		return ""
	}
	return p.links[i]
}

// filled is a form as a person fills it.
func (s *server) filled(values url.Values, userCode string) url.Values {
	for name := range values {
		if v, ok := s.fill[name]; ok {
			values.Set(name, v)
		}
	}
	if values.Has("user_code") {
		values.Set("user_code", userCode)
	}
	return values
}

// read reads the first form and the links of a page.
func read(t testing.TB, resp *http.Response) page {
	t.Helper()
	defer resp.Body.Close()
	doc, err := html.Parse(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	absolute := func(link string) string {
		u, err := resp.Request.URL.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		return u.String()
	}
	p := page{values: url.Values{}}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		at := map[string]string{}
		for _, a := range n.Attr {
			at[a.Key] = a.Val
		}
		switch {
		case n.Data == "form" && p.action == "":
			p.action = absolute(at["action"])
		case n.Data == "input" && at["name"] != "":
			p.values.Set(at["name"], at["value"])
		case n.Data == "a" && at["href"] != "":
			p.links = append(p.links, absolute(at["href"]))
		case n.Data == "button" && location.MatchString(at["onclick"]):
			p.links = append(p.links, absolute(location.FindStringSubmatch(at["onclick"])[1]))
		}
	}
	return p
}
