package emulator

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMessageHasOnlyWhatIsSelected(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id, err := w.Deliver(mailbox, Mail{Subject: "x", Body: "<p>Hello <b>you</b></p>", HTML: true, Headers: []Header{{"X-A", "1"}}})
		w.do(err)
		path := "/users/" + w.user.ID + "/messages/" + id
		all := w.get(path)
		for _, name := range []string{"id", "@odata.etag", "changeKey", "body", "flag", "toRecipients", "parentFolderId", "receivedDateTime"} {
			if all.body[name] == nil {
				t.Errorf("without $select there is no %s", name)
			}
		}
		for _, name := range []string{"uniqueBody", "internetMessageHeaders", "from", "sender"} {
			if all.body[name] != nil {
				t.Errorf("without $select there is %s, of a mail without a sender", name)
			}
		}
		if got := all.text("bodyPreview"); got != "Hello you" {
			t.Errorf("bodyPreview %q", got)
		}
		some := w.get(path + "?$select=Subject,internetMessageHeaders")
		var names []string
		for name := range some.body {
			names = append(names, name)
		}
		slices.Sort(names)
		if want := []string{"@odata.context", "@odata.etag", "id", "internetMessageHeaders", "subject"}; !slices.Equal(names, want) {
			t.Errorf("selected %v, want %v", names, want)
		}
		wantError(t, "unknown property", w.get(path+"?$select=subjct"), 400, "RequestBroker--ParseUri")
		wantError(t, "expand", w.get(path+"?$expand=attachments"), 400, "BadRequest")
		w.wantViolation("Q-1: ")
		wantError(t, "in another folder", w.get("/users/"+mailbox+"/mailFolders/archive/messages/"+id), 404, "ErrorItemNotFound")
		if r := w.get(w.inbox() + "/messages('" + id + "')"); r.status != 200 {
			t.Errorf("in its folder, with the key in brackets: %d %s", r.status, r.raw)
		}
	})
}

func TestMutableIDsChangeOnAMove(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		plain := func(target string) reply {
			return w.send("GET", w.root+target, "", "Authorization", "Bearer "+w.token)
		}
		first := plain("/users/" + mailbox + "/messages/" + id).text("id")
		w.do(w.Move(mailbox, id, "archive"))
		second := plain("/users/" + mailbox + "/messages/" + id).text("id")
		if first == id || second == first {
			t.Errorf("immutable %s, mutable %s before and %s after a move: want three ids", id, first, second)
		}
		wantError(t, "the old id", plain("/users/"+mailbox+"/messages/"+first), 404, "ErrorItemNotFound")
		if r := w.get("/users/" + mailbox + "/messages/" + second); r.text("id") != id {
			t.Errorf("asked with the mutable id: %s, want %s", r.text("id"), id)
		}
		w.wantViolation("I-3: mutable ids: message.get")
	})
}

func TestIDsLookLikeGraphs(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		seen := map[string]bool{}
		for i := range 1000 {
			id := w.deliver(fmt.Sprint(i))
			if seen[id] || !strings.HasSuffix(id, "=") || !strings.Contains(id, "-") || strings.ContainsAny(id, "+/") || strings.ToLower(id) == id {
				t.Fatalf("id %d is %q", i, id)
			}
			seen[id] = true
		}
		for _, m := range w.Messages(mailbox) {
			raw, err := base64.StdEncoding.DecodeString(m.ChangeKey)
			if err != nil || len(raw) != 30 || string(raw[:8]) != "\x09\x00\x00\x00\x16\x00\x00\x00" || !strings.ContainsAny(m.ChangeKey, "+/") {
				t.Fatalf("change key %q: %v", m.ChangeKey, err)
			}
		}
		for n := range 100 {
			if got := gather(scatter(n, 77), 77); got != int64(n) {
				t.Fatalf("gather(scatter(%d)) = %d", n, got)
			}
		}
	})
}

func TestIDsMustBeEscapedOnceAsOneSegment(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		// An id as EWS writes it, with a slash: take one whose URL-safe spelling has both special characters.
		var id string
		for id == "" || strings.Count(id, "-") < 2 || !strings.Contains(id, "_") {
			id = w.deliver("x")
		}
		raw := strings.NewReplacer("-", "/", "_", "+").Replace(id)
		for _, c := range []struct {
			name, segment string
			status        int
			code          string
			violation     string
		}{
			{"as given", id, 200, "", ""},
			{"= escaped", strings.ReplaceAll(id, "=", "%3D"), 200, "", ""},
			{"%252F for a slash", strings.ReplaceAll(strings.ReplaceAll(raw, "/", "%252F"), "+", "_"), 200, "", ""},
			{"%2F for a slash", strings.ReplaceAll(strings.ReplaceAll(raw, "/", "%2F"), "+", "_"), 400, "RequestBroker--ParseUri", ""},
			{"raw plus", strings.ReplaceAll(raw, "/", "-"), 400, "ErrorInvalidIdMalformed", "I-11"},
			{"_ escaped", strings.ReplaceAll(id, "_", "%5F"), 400, "ErrorInvalidIdMalformed", "I-11"},
			{"escaped twice", url.PathEscape(strings.ReplaceAll(id, "=", "%3D")), 400, "ErrorInvalidIdMalformed", "I-11"},
			{"another case", strings.ToLower(id), 404, "ErrorItemNotFound", ""},
			{"too short", id[:7], 400, "ErrorInvalidIdMalformed", ""},
		} {
			r := w.get("/users/" + mailbox + "/messages/" + c.segment)
			wantError(t, c.name, r, c.status, c.code)
			if c.violation != "" {
				w.wantViolation(c.violation)
			}
		}
	})
}

func TestListFiltersSortsAndPages(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		var want []string
		for i := range 25 {
			want = append(want, w.deliver(fmt.Sprint(i)))
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Hour)
		read := true
		w.do(w.Update(mailbox, want[3], Patch{IsRead: &read}))
		list := func(target string) (ids []string, pages int) {
			for target != "" {
				r := w.get(target)
				if r.status != 200 {
					t.Fatalf("%s: %d %s", target, r.status, r.raw)
				}
				for _, v := range r.values() {
					ids = append(ids, v.text("id"))
				}
				pages++
				target = r.text("@odata.nextLink")
			}
			return ids, pages
		}
		check := func(name, target string, want []string, wantPages int) {
			t.Helper()
			if got, pages := list(target); !slices.Equal(got, want) || pages != wantPages {
				t.Errorf("%s: %d messages on %d pages, want %d on %d", name, len(got), pages, len(want), wantPages)
			}
		}
		messages := w.inbox() + "/messages"
		newest := slices.Clone(want)
		slices.Reverse(newest)
		check("all, newest first", messages+"?$top=1000", newest, 1)
		check("oldest first", messages+"?$orderby=receivedDateTime&$top=10&$select=id", want, 3)
		check("from a time on", messages+"?$filter=receivedDateTime ge 2000-01-01T00:10:00Z&$orderby=receivedDateTime&$top=10", want[10:], 2)
		check("after a time", messages+"?$filter=receivedDateTime gt 2000-01-01T00:10:00Z&$orderby=receivedDateTime&$top=20", want[11:], 1)
		check("modified", messages+"?$filter=lastModifiedDateTime ge 2000-01-01T01:00:00Z&$orderby=lastModifiedDateTime&$top=20", []string{want[3]}, 1)
		check("between", messages+"?$filter=receivedDateTime ge 2000-01-01T00:10:00Z and receivedDateTime lt 2000-01-01T00:12:00Z&$orderby=receivedDateTime desc", []string{want[11], want[10]}, 1)
		check("the whole mailbox", "/users/"+mailbox+"/messages?$top=1000", newest, 1)
		if r := w.get(messages + "?$top=1000"); len(r.values()) != 25 || r.header.Get("Preference-Applied") == "" {
			t.Errorf("answer %d, %v", len(r.values()), r.header)
		}
		r := w.send("GET", w.root+messages, "", "Authorization", "Bearer "+w.token, "Prefer", `IdType="ImmutableId"`)
		if len(r.values()) != 10 {
			t.Errorf("%d messages without $top, want 10", len(r.values()))
		}
		wantError(t, "order by what is not filtered", w.get(messages+"?$filter=lastModifiedDateTime ge 2000-01-01T00:00:00Z&$orderby=receivedDateTime"), 400, "InefficientFilter")
		wantError(t, "a plus in a time", w.get(messages+"?$filter=receivedDateTime ge 2000-01-01T00:00:00+00:00"), 400, "BadRequest")
		wantError(t, "another filter", w.get(messages+"?$filter=isRead eq false"), 400, "BadRequest")
		wantError(t, "too large", w.get(messages+"?$top=1001"), 400, "BadRequest")
		wantError(t, "unknown order", w.get(messages+"?$orderby=subject"), 400, "BadRequest")
	})
}

func TestChangesAreLedgered(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		inbox, archive := w.FolderID(mailbox, "inbox"), w.FolderID(mailbox, "archive")
		id := w.deliver("x")
		flag, subject, importance, body, categories := "flagged", "y", "high", "new", []string{"red"}
		w.do(w.Update(mailbox, id, Patch{Flag: &flag, Subject: &subject, Importance: &importance, Body: &body, Categories: &categories}))
		w.do(w.Move(mailbox, id, "archive"))
		w.do(w.Move(w.user.ID, id, archive)) // it is there already
		m := w.Messages(mailbox)
		if len(m) != 1 || m[0].Flag != flag || m[0].Subject != subject || m[0].Importance != importance || m[0].Folder != archive || m[0].IsRead || !slices.Equal(m[0].Categories, categories) {
			t.Errorf("messages %+v", m)
		}
		w.do(w.Delete(mailbox, id))
		if left := w.Messages(mailbox); len(left) != 0 {
			t.Errorf("left: %+v", left)
		}
		var kinds, folders []string
		keys := map[string]bool{}
		for _, c := range w.Ledger() {
			kinds, folders = append(kinds, c.Kind), append(folders, c.Folder)
			keys[c.ChangeKey] = true
			if c.Item != id || c.User != w.user.ID || c.At.IsZero() {
				t.Errorf("change %+v", c)
			}
		}
		if want := []string{created, updated, moved, deleted}; !slices.Equal(kinds, want) {
			t.Errorf("kinds %v, want %v", kinds, want)
		}
		if want := []string{inbox, inbox, archive, archive}; !slices.Equal(folders, want) {
			t.Errorf("folders %v, want %v", folders, want)
		}
		if len(keys) != 3 {
			t.Errorf("%d change keys, want 3: a deletion has the last one", len(keys))
		}
	})
}

func TestDraftIsSentWithTheSameID(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.SentGhost = time.Second })
		id, err := w.SaveDraft(mailbox, Mail{Subject: "draft"})
		w.do(err)
		path := "/users/" + mailbox + "/messages/" + id
		if r := w.get(path); r.body["isDraft"] != true || r.text("parentFolderId") != w.FolderID(mailbox, "drafts") {
			t.Errorf("draft %s", r.raw)
		}
		time.Sleep(time.Minute)
		w.do(w.SendDraft(mailbox, id))
		wantError(t, "while it is sent", w.get(path), 404, "ErrorItemNotFound")
		time.Sleep(2 * time.Second)
		if r := w.get(path); r.body["isDraft"] != false || r.text("parentFolderId") != w.FolderID(mailbox, "sentitems") || r.text("sentDateTime") != "2000-01-01T00:01:00Z" {
			t.Errorf("sent %s", r.raw)
		}
		if err := w.SendDraft(mailbox, id); err == nil {
			t.Error("sent twice")
		}
	})
}

func TestWrongWishesOfTheWorldAreRefused(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		bad := "urgent"
		for name, err := range map[string]error{
			"deliver to a stranger": second(w.Deliver("nobody@contoso.com", Mail{})),
			"deliver to no folder":  second(w.Deliver(mailbox, Mail{Folder: "clutter"})),
			"importance":            second(w.Deliver(mailbox, Mail{Importance: bad})),
			"flag":                  second(w.Deliver(mailbox, Mail{Flag: bad})),
			"update importance":     w.Update(mailbox, id, Patch{Importance: &bad}),
			"update flag":           w.Update(mailbox, id, Patch{Flag: &bad}),
			"update nothing":        w.Update(mailbox, "x", Patch{}),
			"move to nowhere":       w.Move(mailbox, id, "nowhere"),
			"move nothing":          w.Move(mailbox, "x", "archive"),
			"delete nothing":        w.Delete(mailbox, "x"),
			"send nothing":          w.SendDraft(mailbox, "x"),
			"access of a stranger":  w.SetAccess("nobody@contoso.com", Denied),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if n := len(w.Ledger()); n != 1 {
			t.Errorf("%d changes, want the one delivery", n)
		}
		if got := w.Messages("nobody@contoso.com"); got != nil {
			t.Errorf("messages of a stranger: %v", got)
		}
		if again := w.AddUser(strings.ToUpper(mailbox)); again != w.user || len(w.Users()) != 1 {
			t.Errorf("a second user of the same address: %v, %v", again, w.Users())
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestOddTextIsMadeUTF8(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id, err := w.Deliver(mailbox, Mail{Subject: "a\xffb\x00<&\u2028", Body: strings.Repeat("é\r\n\t ", 400), From: Address{Name: "\xfe"}})
		w.do(err)
		r := w.get("/users/" + mailbox + "/messages/" + id)
		if got, want := r.text("subject"), "a\uFFFDb\x00<&\u2028"; got != want {
			t.Errorf("subject %q, want %q", got, want)
		}
		if got := []rune(r.text("bodyPreview")); len(got) != 255 || strings.Contains(string(got), "\n") {
			t.Errorf("preview has %d characters: %q", len(got), string(got))
		}
	})
}

func TestReadOnlyAndUnknownPaths(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		wantError(t, "write", w.call("PATCH", "/users/"+mailbox+"/messages/"+id, `{"isRead":true}`), 403, "ErrorAccessDenied")
		w.wantViolation("P-2: ")
		for target, want := range map[string]string{
			"/nonsense":                                              "RequestBroker--ParseUri",
			"/me/messages":                                           "BadRequest",
			"/users/" + mailbox:                                      "Authorization_RequestDenied",
			"/users/" + mailbox + "/x":                               "RequestBroker--ParseUri",
			"/users/" + mailbox + "/events":                          "NotImplemented",
			"/users/nobody@x.y/messages":                             "ErrorInvalidUser",
			"/users/" + mailbox + "/mailFolders/inbox/x":             "RequestBroker--ParseUri",
			"/users/" + mailbox + "/messages/" + id + "/attachments": "RequestBroker--ParseUri",
			w.inbox() + "/messages/" + id + "/attachments":           "RequestBroker--ParseUri",
			"/subscriptions/x/y":                                     "RequestBroker--ParseUri",
			"/users/" + mailbox + "/messages/" + id + "?$select=%zz": "BadRequest",
		} {
			if r := w.get(target); r.code() != want {
				t.Errorf("%s: %d %s, want %s", target, r.status, r.code(), want)
			}
		}
		for _, target := range []string{"/", "/beta/users", "/v2.0/x"} {
			if r := w.send(http.MethodGet, w.opts.Root+target, ""); r.status < 400 {
				t.Errorf("%s: %d", target, r.status)
			}
		}
	})
}
