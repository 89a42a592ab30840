package emulator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fold applies a round to what a client knows of a folder: id → subject, isRead. It checks that changes of items it does
// not know come whole.
func fold(t *testing.T, known map[string]item, items []item) {
	t.Helper()
	for _, i := range items {
		id := i.text("id")
		if i["@removed"] != nil {
			if i["subject"] != nil || i["@odata.etag"] != nil {
				t.Errorf("removed item has properties: %v", i)
			}
			delete(known, id)
			continue
		}
		if i.text("@odata.etag") == "" || i.text("parentFolderId") == "" {
			t.Errorf("item without etag or folder: %v", i)
		}
		if known[id] == nil {
			if i["subject"] == nil || i["isRead"] == nil {
				t.Errorf("first sight of an item is not whole: %v", i)
			}
			known[id] = item{}
		}
		maps.Copy(known[id], i)
	}
}

func ids(items []item) (out []string) {
	for _, i := range items {
		out = append(out, i.text("id"))
	}
	slices.Sort(out)
	return out
}

const deltaSelect = "/messages/delta?$select=subject,isRead,parentFolderId"

// compare checks what a client knows against the mailbox.
func (w *world) compare(folder string, known map[string]item) {
	w.t.Helper()
	n := 0
	for _, m := range w.Messages(mailbox) {
		if m.Folder != w.FolderID(mailbox, folder) {
			continue
		}
		n++
		k := known[m.ID]
		if k == nil || k.text("subject") != m.Subject || k["isRead"] != m.IsRead || k.text("@odata.etag") != etag(m.ChangeKey) {
			w.t.Errorf("%s: known %v, is %+v", folder, k, m)
		}
	}
	if n != len(known) {
		w.t.Errorf("%s: %d messages known, there are %d", folder, len(known), n)
	}
}

// TestDeltaConverges changes a mailbox at random between the pages of rounds, with everything that the contract allows
// switched on, and compares what a client knows after each round.
func TestDeltaConverges(t *testing.T) {
	for seed := range int64(20) {
		inBubble(t, Options{Seed: seed, PageSize: 3}, func(t *testing.T, w *world) {
			w.SetFaults(func(f *Faults) {
				f.EmptyPages, f.RepeatItems = 0.3, 0.3
				f.CompleteUpdates = seed%2 == 1
			})
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			folders := []string{"inbox", "archive"}
			known := map[string]map[string]item{"inbox": {}, "archive": {}}
			links := map[string]string{}
			for _, f := range folders {
				links[f] = w.root + "/users/" + mailbox + "/mailFolders/" + f + deltaSelect
			}
			change := func() {
				list := w.Messages(mailbox)
				read := rng.IntN(2) == 0
				subject := fmt.Sprint(rng.IntN(1000))
				switch n := rng.IntN(10); {
				case n < 4 || len(list) == 0:
					w.deliver(subject)
				case n < 6:
					w.do(w.Update(mailbox, list[rng.IntN(len(list))].ID, Patch{IsRead: &read}))
				case n < 7:
					w.do(w.Update(mailbox, list[rng.IntN(len(list))].ID, Patch{Subject: &subject}))
				case n < 9:
					w.do(w.Move(mailbox, list[rng.IntN(len(list))].ID, folders[rng.IntN(2)]))
				default:
					w.do(w.Delete(mailbox, list[rng.IntN(len(list))].ID))
				}
			}
			for range 40 {
				for range rng.IntN(8) {
					change()
				}
				for _, f := range folders {
					for target := links[f]; ; {
						r := w.send("GET", target, "",
							"Authorization", "Bearer "+w.token, "Prefer", `IdType="ImmutableId"`)
						if r.status != 200 {
							t.Fatalf("%d %s", r.status, r.raw)
						}
						if n := len(r.values()); n > 6 {
							t.Errorf("page of %d items", n)
						}
						fold(t, known[f], r.values())
						if links[f] = r.text("@odata.deltaLink"); links[f] != "" {
							break
						}
						target = r.text("@odata.nextLink")
						if rng.IntN(3) == 0 {
							change()
						}
					}
				}
			}
			for _, f := range folders { // nothing changes any more
				items, _, _ := w.round(links[f])
				fold(t, known[f], items)
				w.compare(f, known[f])
			}
		})
	}
}

func TestDeltaTellsOnlyWhatChanged(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		_, link, _ := w.round(w.inbox() + "/messages/delta?$select=subject,isRead,flag")
		read, flag, categories := true, "flagged", []string{"red"}
		names := func(i item) []string { return slices.Sorted(maps.Keys(i)) }
		always := []string{"@odata.etag", "@odata.type", "id", "parentFolderId"}
		for _, c := range []struct {
			name  string
			patch Patch
			want  []string
		}{
			{"one", Patch{IsRead: &read}, []string{"isRead"}},
			{"two", Patch{IsRead: &read, Flag: &flag}, []string{"flag", "isRead"}},
			{"not selected", Patch{Categories: &categories}, nil},
			{"none", Patch{}, nil},
		} {
			w.do(w.Update(mailbox, id, c.patch))
			var items []item
			items, link, _ = w.round(link)
			want := append(slices.Clone(always), c.want...)
			slices.Sort(want)
			if len(items) != 1 || !slices.Equal(names(items[0]), want) {
				t.Errorf("%s: %v, want one item with %v", c.name, items, want)
			}
		}
		if items, _, _ := w.round(link); len(items) != 0 {
			t.Errorf("nothing changed, but delta tells %v", items)
		}
		w.do(w.Move(mailbox, id, "archive"))
		items, link, _ := w.round(link)
		if len(items) != 1 || fmt.Sprint(items[0]["@removed"]) != "map[reason:deleted]" {
			t.Errorf("after a move: %v", items)
		}
		w.do(w.Move(mailbox, id, "inbox"))
		if items, _, _ = w.round(link); len(items) != 1 || items[0].text("subject") != "x" {
			t.Errorf("after coming back: %v, want the whole item", items)
		}
	})
}

func TestDeltaPagesAsAsked(t *testing.T) {
	inBubble(t, Options{PageSize: 4}, func(t *testing.T, w *world) {
		for i := range 250 {
			w.deliver(fmt.Sprint(i))
		}
		items, _, pages := w.round(w.inbox() + deltaSelect)
		if len(items) != 250 || pages != 3 {
			t.Errorf("%d items on %d pages, want 250 on 3", len(items), pages)
		}
		in := slices.IsSortedFunc(items, func(a, b item) int { return strings.Compare(a.text("id"), b.text("id")) })
		if first := items[0].text("subject"); first == "0" && items[1].text("subject") == "1" || in {
			t.Error("the items are in order; delta's is arbitrary")
		}
		w.SetFaults(func(f *Faults) { f.IgnorePageSize = true })
		if r := w.get(w.inbox() + deltaSelect); len(r.values()) != 4 {
			t.Errorf("%d items though the page size is ignored, want 4", len(r.values()))
		}
	})
}

func TestDeltaLinksAreOpaque(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		other := w.AddUser("other@contoso.com")
		_, link, _ := w.round(w.inbox() + deltaSelect)
		if !strings.Contains(link, "?$deltatoken=") {
			t.Errorf("delta link %s", link)
		}
		w.deliver("x")
		w.deliver("y")
		next := w.call("GET", link, "", "Prefer", `IdType="ImmutableId", odata.maxpagesize=1`).text("@odata.nextLink")
		if !strings.Contains(next, "?$skiptoken=") {
			t.Errorf("next link %s", next)
		}
		for _, c := range []struct{ name, link, code, violation string }{
			{"an option added", link + "&$select=subject", "BadRequest", "D-2: query options"},
			{"an option added to a next link", next + "&$top=5", "BadRequest", "D-2: query options"},
			{"cut off", link[:len(link)-1], "SyncStateInvalid", "D-2: a delta link"},
			{"made up", w.inbox() + "/messages/delta?$deltatoken=abc", "SyncStateInvalid", "D-2: a delta link"},
			{"a skip token as delta token", strings.Replace(next, "$skiptoken", "$deltatoken", 1), "SyncStateInvalid", "D-2: a delta link"},
			{"latest", w.inbox() + "/messages/delta?$deltatoken=latest", "BadRequest", "D-18: "},
			{"another mailbox", strings.Replace(link, w.user.ID, other.ID, 1), "SyncStateInvalid", ""},
			{"another folder", strings.Replace(link, "inbox", "archive", 1), "SyncStateInvalid", ""},
			{"of folders", strings.Replace(link, "mailFolders/inbox/messages", "mailFolders", 1), "SyncStateInvalid", ""},
		} {
			wantError(t, c.name, w.get(c.link), 400, c.code)
			if c.violation != "" {
				w.wantViolation(c.violation)
			}
		}
		if items, _, _ := w.round(link); len(items) != 2 {
			t.Errorf("the link used again: %v, want what came since", items)
		}
		if items, _, _ := w.round(w.inbox() + "/messages/delta?$deltatoken="); len(items) != 2 {
			t.Errorf("an empty token: %v, want all", items)
		}
	})
}

func TestDeltaQueryOptions(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		old := w.deliver("old")
		time.Sleep(time.Hour)
		fresh := w.deliver("new")
		delta := w.inbox() + "/messages/delta"
		items, link, _ := w.round(delta + "?$select=subject&$filter=receivedDateTime ge 2000-01-01T00:30:00Z")
		if !slices.Equal(ids(items), []string{fresh}) {
			t.Errorf("filtered: %v", items)
		}
		read := true
		w.do(w.Update(mailbox, old, Patch{IsRead: &read}))
		w.do(w.Delete(mailbox, fresh))
		if items, _, _ = w.round(link); len(items) != 1 || items[0]["@removed"] == nil || items[0].text("id") != fresh {
			t.Errorf("filtered, second round: %v, want the removal only", items)
		}
		_, link, _ = w.round(delta + "?changeType=created&$select=subject")
		w.do(w.Update(mailbox, old, Patch{IsRead: &read}))
		third := w.deliver("third")
		if items, _, _ = w.round(link); !slices.Equal(ids(items), []string{third}) {
			t.Errorf("changeType=created: %v", items)
		}
		items, _, _ = w.round(delta + "?$orderby=receivedDateTime desc")
		if len(items) != 2 || items[0].text("id") != third {
			t.Errorf("newest first: %v", items)
		}
		for _, q := range []string{
			"$filter=isRead eq false", "$filter=receivedDateTime le 2000-01-01T00:00:00Z", "$filter=lastModifiedDateTime ge 2000-01-01T00:00:00Z",
			"$filter=receivedDateTime ge 2000-01-01T00:00:00Z and receivedDateTime ge 2000-01-01T00:00:00Z",
			"$orderby=receivedDateTime", "changeType=moved", "$top=0",
		} {
			wantError(t, q, w.get(delta+"?"+q), 400, "BadRequest")
		}
		wantError(t, "search", w.get(delta+"?$search=x"), 400, "BadRequest")
		w.wantViolation("D-26: ")
		if items, _, _ = w.round(delta + "?$top=1"); len(items) != 1 {
			t.Errorf("$top=1: %v", items)
		}
		w.wantViolation("D-20: ")
	})
}

func TestDeltaFilterReturnsAtMost5000(t *testing.T) {
	inBubble(t, Options{NoLimits: true}, func(t *testing.T, w *world) {
		for range 5100 {
			w.deliver("x")
		}
		items, link, _ := w.round(w.inbox() + "/messages/delta?$select=id&$filter=receivedDateTime ge 2000-01-01T00:00:00Z")
		if len(items) != 5000 {
			t.Errorf("%d items, want 5000", len(items))
		}
		w.deliver("y")
		if items, _, _ = w.round(link); len(items) != 1 {
			t.Errorf("second round has %d items, want 1", len(items))
		}
	})
}

func TestDeltaTokensExpire(t *testing.T) {
	inBubble(t, Options{DeltaTokenAge: time.Hour}, func(t *testing.T, w *world) {
		for range 3 {
			w.deliver("x")
		}
		_, link, _ := w.round(w.inbox() + deltaSelect)
		next := w.call("GET", w.inbox()+deltaSelect, "", "Prefer", `IdType="ImmutableId", odata.maxpagesize=1`).text("@odata.nextLink")
		_, folders, _ := w.round("/users/" + mailbox + "/mailFolders/delta")
		w.ExpireDeltaTokens()
		for _, l := range []string{link, next, folders} {
			wantError(t, "after ExpireDeltaTokens", w.get(l), 410, "SyncStateNotFound")
		}
		_, link, _ = w.round(w.inbox() + deltaSelect)
		if r := w.get(link); r.status != 200 {
			t.Errorf("a new link: %d %s", r.status, r.raw)
		}
		time.Sleep(time.Hour + time.Second)
		wantError(t, "too old", w.get(link), 410, "SyncStateNotFound")
		w.SetFaults(func(f *Faults) { f.ResyncRequired = true })
		r := w.get(link)
		wantError(t, "with a Location", r, 410, "resyncRequired")
		if items, _, _ := w.round(r.header.Get("Location")); len(items) != 3 {
			t.Errorf("the Location leads to %d items, want 3", len(items))
		}
	})
}

func TestDeltaHidesWhatMovedIn(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		archive := "/users/" + mailbox + "/mailFolders/archive" + deltaSelect
		_, from, _ := w.round(w.inbox() + deltaSelect)
		_, to, _ := w.round(archive)
		w.SetFaults(func(f *Faults) { f.HideMovedIn = true })
		w.do(w.Move(mailbox, id, "archive"))
		if items, _, _ := w.round(from); len(items) != 1 || items[0]["@removed"] == nil {
			t.Errorf("in the old folder: %v, want @removed", items)
		}
		items, to, _ := w.round(to)
		if len(items) != 0 {
			t.Errorf("in the new folder: %v, want nothing", items)
		}
		if items, _, _ := w.round(archive); len(items) != 1 {
			t.Errorf("starting over: %v, want the message", items)
		}
		read := true
		w.do(w.Update(mailbox, id, Patch{IsRead: &read}))
		if items, _, _ = w.round(to); len(items) != 1 || items[0].text("subject") != "x" {
			t.Errorf("once it changes: %v, want the whole message", items)
		}
		w.do(w.Move(mailbox, id, "inbox")) // there and back again
		if items, _, _ = w.round(from); len(items) != 1 || items[0]["@removed"] == nil {
			t.Errorf("A to B to A: %v, want only that it left", items)
		}
	})
}

func TestDeltaLagsBehind(t *testing.T) {
	inBubble(t, Options{DeltaLag: time.Minute}, func(t *testing.T, w *world) {
		first := w.deliver("first")
		items, link, _ := w.round(w.inbox() + deltaSelect)
		if len(items) != 0 {
			t.Errorf("at once: %v, want nothing yet", items)
		}
		time.Sleep(30 * time.Second)
		read := true
		w.do(w.Update(mailbox, first, Patch{IsRead: &read}))
		time.Sleep(31 * time.Second)
		known := map[string]item{}
		items, link, _ = w.round(link)
		fold(t, known, items)
		if known[first] == nil {
			t.Errorf("after the lag: %v, want the message", items)
		}
		w.do(w.Move(mailbox, first, "archive"))
		if items, link, _ = w.round(link); len(items) != 0 {
			t.Errorf("right after a move: %v, want nothing", items)
		}
		time.Sleep(time.Minute + time.Second)
		items, _, _ = w.round(link)
		fold(t, known, items)
		w.compare("inbox", known)
	})
}

func TestNextLinksCanMisbehave(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.deliver("x")
		w.SetFaults(func(f *Faults) { f.LoopNextLink = true })
		first := w.get(w.inbox() + deltaSelect).text("@odata.nextLink")
		if again := w.get(first).text("@odata.nextLink"); again != first {
			t.Errorf("next link %s leads to %s, want a loop", first, again)
		}
		w.SetFaults(func(f *Faults) { *f = Faults{ForeignNextLink: true} })
		if link := w.get(w.inbox() + deltaSelect).text("@odata.deltaLink"); !strings.HasPrefix(link, "https://graph.evil.example/") {
			t.Errorf("delta link %s, want another host", link)
		}
	})
}

func TestCloudWithoutDelta(t *testing.T) {
	inBubble(t, Options{NoDelta: true}, func(t *testing.T, w *world) {
		w.deliver("x")
		wantError(t, "messages", w.get(w.inbox()+deltaSelect), 400, "ErrorInvalidIdMalformed")
		wantError(t, "folders", w.get("/users/"+mailbox+"/mailFolders/delta"), 400, "ErrorInvalidIdMalformed")
		wantError(t, "mailbox", w.get("/users/"+mailbox+"/messages/delta"), 400, "ErrorInvalidIdMalformed")
		if r := w.get(w.inbox() + "/messages"); len(r.values()) != 1 {
			t.Errorf("the list: %s", r.raw)
		}
	})
}

// BenchmarkDelta pages through a folder of 200,000 messages.
func BenchmarkDelta(b *testing.B) {
	s := New(Options{NoLimits: true})
	s.AddUser(mailbox)
	const n = 200_000
	for i := range n {
		if _, err := s.Deliver(mailbox, Mail{Subject: fmt.Sprint(i), From: Address{"Dana", "dana@contoso.com"}, Body: "Hello"}); err != nil {
			b.Fatal(err)
		}
	}
	u := s.users[0]
	f := u.wellKnown["inbox"]
	for b.Loop() {
		r := round{User: u.id, Folder: f.id, Full: true, Start: len(f.log), Select: propertyNamed["subject"] | propertyNamed["isread"] | propertyNamed["from"]}
		items := 0
		for end := false; !end; {
			var page []told
			page, end = s.walk(f, &r, 1000)
			buf := make([]byte, 0, 1<<20)
			for _, it := range page {
				buf = appendMessage(buf, it.m, it.set, true, true, "")
			}
			items += len(page)
		}
		if items != n {
			b.Fatalf("%d items", items)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "items/s")
}
