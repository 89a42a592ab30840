package graph

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const empty = `{"value":[],"@odata.deltaLink":"https://graph.example.com/v1.0/d"}`

func TestURLs(t *testing.T) {
	at := time.Date(2026, 11, 24, 10, 0, 0, 5, time.FixedZone("", 2*3600))
	sel := []string{"id", "subject"}
	ctx := t.Context()
	tests := []struct {
		name string
		call func(c *Client) error
		want string
	}{
		{"first delta request", func(c *Client) error {
			_, err := c.MessagesDelta(ctx, DeltaRequest{Mailbox: "sales@contoso.com", Folder: "inbox", Select: sel})
			return err
		}, "GET /users/sales@contoso.com/mailFolders/inbox/messages/delta?$select=id,subject"},
		{"filtered delta", func(c *Client) error {
			_, err := c.MessagesDelta(ctx, DeltaRequest{Mailbox: "me", Folder: "inbox", Since: at})
			return err
		}, "GET /me/mailFolders/inbox/messages/delta?$filter=receivedDateTime%20ge%202026-11-24T08:00:00Z"},
		{"a link is used as it is", func(c *Client) error {
			_, err := c.MessagesDelta(ctx, DeltaRequest{Mailbox: "a", Folder: "b", Select: sel, Since: at, Link: root + "/me/mailFolders('A%2FB=')/messages/delta?$skiptoken=x+y%2B{z}&b"})
			return err
		}, "GET /me/mailFolders('A%2FB=')/messages/delta?$skiptoken=x+y%2B{z}&b"},
		{"a space in a link", func(c *Client) error {
			_, err := c.ListMessages(ctx, ListRequest{Mailbox: "a", Link: root + "/x?$filter=a ge b"})
			return err
		}, "GET /x?$filter=a%20ge%20b"},
		{"list everything", func(c *Client) error {
			_, err := c.ListMessages(ctx, ListRequest{Mailbox: "m", Folder: "inbox", PageSize: 5000})
			return err
		}, "GET /users/m/mailFolders/inbox/messages?$orderby=receivedDateTime&$top=1000"},
		{"list what was received", func(c *Client) error {
			_, err := c.ListMessages(ctx, ListRequest{Mailbox: "m", Folder: "inbox", Since: at, PageSize: 50, Select: sel})
			return err
		}, "GET /users/m/mailFolders/inbox/messages?$select=id,subject&$filter=receivedDateTime%20ge%202026-11-24T08:00:00Z&$orderby=receivedDateTime&$top=50"},
		{"list what was modified", func(c *Client) error {
			_, err := c.ListMessages(ctx, ListRequest{Mailbox: "m", Folder: "inbox", Since: at, ModifiedSince: true})
			return err
		}, "GET /users/m/mailFolders/inbox/messages?$filter=lastModifiedDateTime%20ge%202026-11-24T08:00:00Z&$orderby=lastModifiedDateTime"},
		{"id with slash and plus", func(c *Client) error {
			_, err := c.Message(ctx, "m", "AA/b+c_d-e==", nil)
			return err
		}, "GET /users/m/messages/AA-b_c_d-e=="},
		{"id with what must be escaped", func(c *Client) error {
			_, err := c.Message(ctx, "m", "a?b#c d%2F", sel)
			return err
		}, "GET /users/m/messages/a%3Fb%23c%20d%252F?$select=id,subject"},
		{"guest and plus addresses", func(c *Client) error {
			_, err := c.Message(ctx, "bob+x_fabrikam.com#EXT#@contoso.com", "1", nil)
			return err
		}, "GET /users/bob%2Bx_fabrikam.com%23EXT%23@contoso.com/messages/1"},
		{"folder", func(c *Client) error { _, err := c.Folder(ctx, "m", "sentitems"); return err },
			"GET /users/m/mailFolders/sentitems?$select=id,displayName,parentFolderId"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			c := newClient(t, func(r *http.Request) (*http.Response, error) {
				got = r.Method + " " + strings.TrimPrefix(r.URL.String(), root)
				if strings.Contains(got, "delta") || strings.Contains(got, "messages?") || strings.Contains(got, "/x?") {
					return answer(200, empty), nil
				}
				return answer(200, `{"id":"1"}`), nil
			})
			if err := tt.call(c); err != nil || got != tt.want {
				t.Errorf("asked %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestUnusableNames(t *testing.T) {
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		t.Errorf("sent %s", r.URL)
		return answer(200, empty), nil
	})
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Message(t.Context(), "m", id, nil); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Message(%q) = %v", id, err)
		}
		if _, err := c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Folder: id}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("MessagesDelta(%q) = %v", id, err)
		}
		if _, err := c.ListMessages(t.Context(), ListRequest{Mailbox: "m", Folder: id}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("ListMessages(%q) = %v", id, err)
		}
		if _, err := c.RenewSubscription(t.Context(), id, time.Now()); !errors.Is(err, ErrBadRequest) {
			t.Errorf("RenewSubscription(%q) = %v", id, err)
		}
		if _, err := c.Folders(t.Context(), id); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Folders(%q) = %v", id, err)
		}
	}
	if _, err := c.Message(t.Context(), "", "1", nil); !errors.Is(err, ErrBadRequest) {
		t.Errorf("Message without mailbox = %v", err)
	}
}

func TestHeaders(t *testing.T) {
	var seen []http.Header
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.Header)
		return answer(200, `{"id":"1","value":[],"@odata.deltaLink":"`+root+`/d"}`), nil
	}, func(o *Options) { o.UserAgent = "triggerd/1" })
	c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Folder: "inbox", PageSize: 200})
	c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Link: root + "/d", PageSize: 200})
	c.Message(t.Context(), "m", "1", nil)
	want := []string{`IdType="ImmutableId", odata.maxpagesize=200`, `IdType="ImmutableId", odata.maxpagesize=200`, `IdType="ImmutableId"`}
	ids := map[string]bool{}
	for i, h := range seen {
		if got := h.Values("Prefer"); !slices.Equal(got, want[i:i+1]) {
			t.Errorf("request %d: Prefer %q, want %q", i, got, want[i])
		}
		if h.Get("Authorization") != "Bearer token-1" || h.Get("User-Agent") != "triggerd/1" || h.Get("Accept") != "application/json" {
			t.Errorf("request %d: %v", i, h)
		}
		ids[h.Get("client-request-id")] = true
	}
	if len(ids) != 3 || ids[""] {
		t.Errorf("client-request-ids %v, want three", ids)
	}
}

func TestDeltaPageMustLeadOn(t *testing.T) {
	c := newClient(t, replay(200, `{"value":[]}`))
	_, err := c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Folder: "inbox"})
	is(t, err, ErrUnavailable)
	if !errors.Is(err, errNoLink) {
		t.Errorf("MessagesDelta = %v", err)
	}
	if p, err := c.ListMessages(t.Context(), ListRequest{Mailbox: "m", Folder: "inbox"}); err != nil || p.Next != "" {
		t.Errorf("a listing ends so: %v, %v", p, err)
	}
}

func TestFolders(t *testing.T) {
	const sel = "?$select=id,displayName,parentFolderId"
	w, asked := script(t, map[string]string{
		"GET /users/m/mailFolders/delta" + sel: `{"value":[{"id":"A","displayName":"Inbox","parentFolderId":"R"},{"id":"B","displayName":"Old","parentFolderId":"A"}],
			"@odata.nextLink":"` + root + `/users/m/mailFolders/delta?$skiptoken=1"}`,
		"GET /users/m/mailFolders/delta?$skiptoken=1": `{"value":[{"id":"B","displayName":"New","parentFolderId":"A"},{"id":"C","@removed":{"reason":"deleted"}}],
			"@odata.deltaLink":"` + root + `/users/m/mailFolders/delta?$deltatoken=2"}`,
	})
	got, err := newClient(t, w).Folders(t.Context(), "m")
	want := []Folder{{ID: "A", Name: "Inbox", ParentID: "R"}, {ID: "B", Name: "New", ParentID: "A"}, {ID: "C", Removed: true}}
	if err != nil || !slices.Equal(got, want) || len(asked()) != 2 {
		t.Errorf("Folders = %v, %v after %q, want %v", got, err, asked(), want)
	}
}

func TestFoldersWithoutDelta(t *testing.T) {
	const query = "?includeHiddenFolders=true&$select=id,displayName,parentFolderId,childFolderCount&$top=200"
	levels := map[string]string{
		"GET /users/m/mailFolders" + query: `{"value":[{"id":"A","displayName":"Inbox","parentFolderId":"R","childFolderCount":1}],"@odata.nextLink":"` + root + `/more"}`,
		"GET /more":                        `{"value":[{"id":"B","displayName":"Sent","parentFolderId":"R","childFolderCount":0},{"id":"A","childFolderCount":1,"displayName":"Inbox","parentFolderId":"R"}]}`,
		"GET /users/m/mailFolders/A/childFolders" + query:                      `{"value":[{"id":"C/1","displayName":"Sub","parentFolderId":"A","childFolderCount":1}]}`,
		"GET /users/m/mailFolders/C-1/childFolders" + query:                    `{"value":[{"id":"D","displayName":"Deep","parentFolderId":"C/1","childFolderCount":0}]}`,
		"GET /users/m/mailFolders/delta?$select=id,displayName,parentFolderId": "",
	}
	want := []Folder{{ID: "A", Name: "Inbox", ParentID: "R"}, {ID: "B", Name: "Sent", ParentID: "R"}, {ID: "C/1", Name: "Sub", ParentID: "A"}, {ID: "D", Name: "Deep", ParentID: "C/1"}}
	for _, noDelta := range []bool{true, false} { // told so, or found out
		w, asked := script(t, levels)
		refusing := wire(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "delta") {
				w(r)
				return answer(400, `{"error":{"code":"ErrorInvalidIdMalformed","message":"Id is malformed."}}`), nil
			}
			return w(r)
		})
		got, err := newClient(t, refusing, func(o *Options) { o.NoDelta = noDelta }).Folders(t.Context(), "m")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("NoDelta %v: Folders = %v, %v, want %v", noDelta, got, err, want)
		}
		if tried := slices.ContainsFunc(asked(), func(s string) bool { return strings.Contains(s, "delta") }); tried == noDelta {
			t.Errorf("NoDelta %v: asked %q", noDelta, asked())
		}
	}
}

func TestFolderDeletedWhileListed(t *testing.T) {
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "childFolders") {
			return answer(404, `{"error":{"code":"ErrorItemNotFound"}}`), nil
		}
		return answer(200, `{"value":[{"id":"A","displayName":"Inbox","childFolderCount":2}]}`), nil
	}, func(o *Options) { o.NoDelta = true })
	if got, err := c.Folders(t.Context(), "m"); err != nil || len(got) != 1 {
		t.Errorf("Folders = %v, %v", got, err)
	}
}

func TestLinksInACircle(t *testing.T) {
	n := 0
	c := newClient(t, func(*http.Request) (*http.Response, error) {
		n++
		return answer(200, `{"value":[],"@odata.nextLink":"`+root+`/again"}`), nil
	})
	_, err := c.Folders(t.Context(), "m")
	if is(t, err, ErrUnavailable); !errors.Is(err, errLoop) || n != 2 {
		t.Errorf("Folders = %v after %d requests", err, n)
	}
}

func TestFolder(t *testing.T) {
	c := newClient(t, replay(200, `{"@odata.context":"x","id":"A/=","displayName":"Boîte","parentFolderId":null}`))
	if f, err := c.Folder(t.Context(), "m", "inbox"); err != nil || f != (Folder{ID: "A/=", Name: "Boîte"}) {
		t.Errorf("Folder = %+v, %v", f, err)
	}
	c = newClient(t, replay(404, `{"error":{"code":"ErrorItemNotFound"}}`))
	_, err := c.Folder(t.Context(), "m", "archive")
	is(t, err, ErrNotFound)
}
