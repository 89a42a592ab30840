package emulator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func names(items []item) (out []string) {
	for _, i := range items {
		out = append(out, i.text("displayName"))
	}
	slices.Sort(out)
	return out
}

func TestFoldersAreFoundByIDAndByName(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.deliver("x")
		base := "/users/" + mailbox + "/mailFolders/"
		byName := w.get(base + "Inbox")
		id := byName.text("id")
		if id != w.FolderID(mailbox, "inbox") || byName.text("displayName") != "Inbox" || byName.body["unreadItemCount"] != 1.0 || byName.body["totalItemCount"] != 1.0 {
			t.Errorf("inbox %s", byName.raw)
		}
		if r := w.get(base + id + "?$select=displayName"); r.text("id") != id || r.body["totalItemCount"] != nil {
			t.Errorf("by id %s", r.raw)
		}
		wantError(t, "another case", w.get(base+strings.ToLower(id)), 404, "ErrorItemNotFound")
		wantError(t, "a name that is known, a folder that is not there", w.get(base+"clutter"), 404, "ErrorItemNotFound")
		wantError(t, "a display name", w.get(base+"Invoices"), 400, "ErrorInvalidIdMalformed")
		wantError(t, "unknown property", w.get(base+"inbox?$select=name"), 400, "RequestBroker--ParseUri")
		wantError(t, "messages of no folder", w.get(base+"clutter/messages"), 404, "ErrorItemNotFound")
		wantError(t, "delta of no folder", w.get(base+"clutter/messages/delta"), 404, "ErrorItemNotFound")
	})
}

func TestFoldersAreListedByLevel(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		invoices, err := w.AddFolder(mailbox, "inbox", "Invoices")
		w.do(err)
		if _, err := w.AddFolder(mailbox, "inbox", "invoices"); err == nil {
			t.Error("two folders of one name")
		}
		if _, err := w.AddFolder(mailbox, "nowhere", "x"); err == nil {
			t.Error("a folder below nothing")
		}
		for i := range 3 {
			if _, err := w.AddFolder(mailbox, "", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		r := w.get("/users/" + mailbox + "/mailFolders?includeHiddenFolders=true")
		if len(r.values()) != 10 || r.text("@odata.nextLink") == "" {
			t.Errorf("first page %v, %s", names(r.values()), r.text("@odata.nextLink"))
		}
		all := r.values()
		all = append(all, w.get(r.text("@odata.nextLink")).values()...)
		if got := names(all); len(got) != 11 || slices.Contains(got, "Invoices") {
			t.Errorf("top level %v", got)
		}
		if got := names(w.get(w.inbox() + "/childFolders?$select=displayName").values()); !slices.Equal(got, []string{"Invoices"}) {
			t.Errorf("below the inbox %v", got)
		}
		wantError(t, "too many", w.get("/users/"+mailbox+"/mailFolders?$top=0"), 400, "BadRequest")
		wantError(t, "below nothing", w.get("/users/"+mailbox+"/mailFolders/"+strings.ToLower(invoices)+"/childFolders"), 404, "ErrorItemNotFound")
	})
}

func TestFolderDelta(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		invoices, err := w.AddFolder(mailbox, "inbox", "Invoices")
		w.do(err)
		paid, err := w.AddFolder(mailbox, invoices, "Paid")
		w.do(err)
		first := "/users/" + mailbox + "/mailFolders/delta?$select=displayName,parentFolderId"
		items, link, _ := w.round(first)
		if got := names(items); len(got) != 10 || !slices.Contains(got, "Paid") || slices.Contains(got, "Top of Information Store") {
			t.Errorf("first round %v", got)
		}
		id, err := w.Deliver(mailbox, Mail{Folder: paid, Subject: "x"})
		w.do(err)
		_, messages, _ := w.round("/users/" + mailbox + "/mailFolders/" + paid + "/messages/delta")
		w.do(w.RenameFolder(mailbox, invoices, "Bills"))
		items, link, _ = w.round(link)
		if len(items) != 1 || items[0].text("displayName") != "Bills" || items[0]["totalItemCount"] != nil {
			t.Errorf("renamed: %v", items)
		}
		w.do(w.DeleteFolder(mailbox, invoices))
		items, link, _ = w.round(link)
		if want := []string{paid, invoices}; len(items) != 2 || items[0]["@removed"] == nil || !slices.Contains(want, items[0].text("id")) || !slices.Contains(want, items[1].text("id")) {
			t.Errorf("deleted: %v", items)
		}
		if items, _, _ = w.round(link); len(items) != 0 {
			t.Errorf("nothing changed: %v", items)
		}
		if items, _, _ = w.round(first); len(items) != 8 {
			t.Errorf("starting over: %v", names(items))
		}
		wantError(t, "delta of a deleted folder", w.get(messages), 404, "ErrorItemNotFound")
		wantError(t, "what was in it", w.get("/users/"+mailbox+"/messages/"+id), 404, "ErrorItemNotFound")
		if err := w.DeleteFolder(mailbox, "inbox"); err == nil {
			t.Error("the inbox was deleted")
		}
		wantError(t, "an option", w.get(first+"&$top=5"), 400, "BadRequest")
		w.wantViolation("D-32: ")
	})
}

func TestFolderDeltaPages(t *testing.T) {
	inBubble(t, Options{PageSize: 3}, func(t *testing.T, w *world) {
		target, seen, pages := w.root+"/users/"+mailbox+"/mailFolders/delta", 0, 0
		for target != "" {
			r := w.send("GET", target, "", "Authorization", "Bearer "+w.token)
			seen += len(r.values())
			pages++
			target = r.text("@odata.nextLink")
		}
		if seen != 8 || pages != 3 {
			t.Errorf("%d folders on %d pages, want 8 on 3", seen, pages)
		}
	})
}
