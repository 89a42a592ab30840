package changes

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

var (
	t0   = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC) // the watch began
	now  = t0.Add(time.Hour)
	box  = &Mailbox{Tenant: "tenant", Folders: folders}
	all  = map[string]bool{}
	home = []Watch{watch("sales", event.ContentBody, "in", "sent", "drafts")}
)

var folders = map[string]store.FolderInfo{
	"root":   {Name: "Top", WellKnown: "msgfolderroot"},
	"in":     {Name: "Posteingang", ParentID: "root", WellKnown: "inbox"},
	"sent":   {Name: "Sent Items", ParentID: "root", WellKnown: "sentitems"},
	"drafts": {Name: "Drafts", ParentID: "root", WellKnown: "drafts"},
	"bin":    {Name: "Deleted Items", ParentID: "root", WellKnown: "deleteditems"},
	"bills":  {Name: "Bills/2026", ParentID: "in"},
}

func init() {
	for _, n := range event.MailEvents {
		all[n] = true
	}
}

func watch(name string, c event.Content, folders ...string) Watch {
	w := Watch{Name: name, Token: "m-abc", Content: c, Events: all, Folders: map[string]bool{}, Since: t0, Joined: t0}
	for _, f := range folders {
		w.Folders[f] = true
	}
	return w
}

func mail(folder, key string, at time.Time, edit ...func(*event.Observed)) *event.Observed {
	o := &event.Observed{ChangeKey: key, FolderID: folder, LastModified: at.Format(time.RFC3339), Message: event.Message{
		Subject: "Invoice", From: &event.Address{Name: "Ada", Address: "ada@example.com"}, Flag: "notFlagged",
		CreatedDateTime: at.Format(time.RFC3339), ReceivedDateTime: at.Format(time.RFC3339), SentDateTime: at.Format(time.RFC3339),
	}}
	for _, e := range edit {
		e(o)
	}
	return o
}

func was(o *event.Observed) *store.Item {
	return &store.Item{Observed: *o, Level: event.ContentBody, SeenAt: now.Add(-time.Minute)}
}

func gone(it *store.Item) *store.Item { it.GoneAt = now.Add(-time.Minute); return it }

func read(o *event.Observed)    { o.Message.IsRead = true }
func flagged(o *event.Observed) { o.Message.Flag = "flagged" }
func draft(o *event.Observed)   { o.Message.IsDraft = true }
func labelled(o *event.Observed) {
	o.Message.Categories = []string{"Red category"}
}
func renamed(o *event.Observed) { o.Message.Subject = "Reminder" }
func rewritten(o *event.Observed) {
	o.BodyHash = "other"
}

func TestEventsAreNamedByTheTable(t *testing.T) {
	old, fresh := t0.Add(-48*time.Hour), now.Add(-time.Minute)
	tests := []struct {
		name string
		look Look
		want string
	}{
		{"a new message in the inbox", Look{New: mail("in", "k1", fresh)}, "received"},
		{"a new message in Sent Items", Look{New: mail("sent", "k1", fresh)}, "sent"},
		{"received long ago, created just now by a copy", Look{New: mail("in", "k1", old, func(o *event.Observed) {
			o.Message.CreatedDateTime = fresh.Format(time.RFC3339)
		})}, "received"},
		{"Sent Items go by the time of sending", Look{New: mail("sent", "k1", fresh, func(o *event.Observed) {
			o.Message.SentDateTime = old.Format(time.RFC3339)
		})}, "moved"},
		{"an old message nobody watched before", Look{New: mail("in", "k1", old)}, "moved"},
		{"a message in an unwatched folder", Look{New: mail("bin", "k1", fresh)}, ""},
		{"a draft", Look{New: mail("drafts", "k1", fresh, draft)}, "draft"},
		{"a draft saved again", Look{Old: was(mail("drafts", "k1", fresh, draft)), New: mail("drafts", "k2", fresh, draft, renamed)}, ""},
		{"a draft moved", Look{Old: was(mail("drafts", "k1", fresh, draft)), New: mail("in", "k2", fresh, draft)}, ""},
		{"a draft deleted", Look{Old: was(mail("drafts", "k1", fresh, draft))}, ""},
		{"a draft sent", Look{Old: was(mail("drafts", "k1", fresh, draft)), New: mail("sent", "k2", fresh)}, "sent"},
		{"a draft sent into a folder nobody watches", Look{Old: was(mail("drafts", "k1", fresh, draft)), New: mail("bin", "k2", fresh)}, ""},
		{"moved to a watched folder", Look{Old: was(mail("in", "k1", old)), New: mail("sent", "k2", old)}, "moved"},
		{"moved to an unwatched folder", Look{Old: was(mail("in", "k1", old)), New: mail("bin", "k2", old)}, "moved"},
		{"moved and read on the way out", Look{Old: was(mail("in", "k1", old)), New: mail("bin", "k2", old, read)}, "moved"},
		{"moved and read within", Look{Old: was(mail("in", "k1", old)), New: mail("drafts", "k2", old, read)}, "moved read"},
		{"moved between unwatched folders", Look{Old: was(mail("bin", "k1", old)), New: mail("bills", "k2", old)}, ""},
		{"came back from an unwatched folder", Look{Old: was(mail("bin", "k1", fresh)), New: mail("in", "k2", fresh)}, "moved"},
		{"came back from the dead", Look{Old: gone(was(mail("in", "k1", fresh))), New: mail("in", "k2", fresh)}, "moved"},
		{"deleted", Look{Old: was(mail("in", "k1", old))}, "deleted"},
		{"deleted again", Look{Old: gone(was(mail("in", "k1", old)))}, ""},
		{"deleted where nobody watches", Look{Old: was(mail("bin", "k1", old))}, ""},
		{"deleted before it was seen", Look{}, ""},
		{"read", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, read)}, "read"},
		{"unread", Look{Old: was(mail("in", "k1", old, read)), New: mail("in", "k2", old)}, "unread"},
		{"flagged", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, flagged)}, "flagged"},
		{"categorized", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, labelled)}, "categorized"},
		{"read and flagged: one facet, one event", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, read, flagged)}, "read flagged"},
		{"another subject", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, renamed)}, "updated"},
		{"another body", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old, rewritten)}, "updated"},
		{"a new version with nothing changed", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k2", old)}, ""},
		{"seen again", Look{Old: was(mail("in", "k1", old)), New: mail("in", "k1", old)}, ""},
		{"baseline: an old message", Look{New: mail("in", "k1", old), Baseline: true}, ""},
		{"baseline: one that came after the watch began", Look{New: mail("in", "k1", fresh), Baseline: true}, "received"},
		{"baseline: an old draft", Look{New: mail("drafts", "k1", old, draft), Baseline: true}, ""},
		{"a watch joins and wants what was there", Look{Old: was(mail("in", "k1", fresh)), New: mail("in", "k1", fresh), Fresh: map[string]bool{"sales": true}}, "received"},
		{"unknown dates are old", Look{New: &event.Observed{FolderID: "in", ChangeKey: "k"}}, "moved"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.look
			l.ID, l.Level, l.At, l.Via, l.NewSince = "item", event.ContentBody, now, event.ViaPoll, now.Add(-Slack-time.Minute)
			res := box.Name(l, home, nil)
			if got := strings.Join(eventNames(res.Events), " "); got != tt.want {
				t.Fatalf("Name = %q, want %q", got, tt.want)
			}
			for _, e := range res.Events {
				if e.ID == "" || e.Subject != "messages/item" || e.Source != "urn:triggerd:tenant:m-abc" || e.Time.IsZero() {
					t.Errorf("attributes are incomplete: %+v", e)
				}
			}
		})
	}
}

func eventNames(events []*event.Event) (out []string) {
	for _, e := range events {
		out = append(out, e.Name)
	}
	return out
}

func data(t *testing.T, e *event.Event) (d event.Data) {
	t.Helper()
	if err := json.Unmarshal(e.Data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMovedTellsFromWhereToWhere(t *testing.T) {
	look := Look{ID: "i", Old: was(mail("in", "k1", now)), New: mail("bin", "k2", now), Level: event.ContentBody, At: now}
	d := data(t, box.Name(look, home, nil).Events[0])
	if d.Moved.From.WellKnownName != "inbox" || d.Moved.To.WellKnownName != "deleteditems" || d.Moved.To.Path != "Deleted Items" {
		t.Errorf("moved = %+v → %+v", d.Moved.From, d.Moved.To)
	}
	look = Look{ID: "i", New: mail("in", "k1", t0.Add(-48*time.Hour)), At: now, NewSince: now}
	d = data(t, box.Name(look, home, nil).Events[0])
	if d.Moved.From != nil || d.Moved.To.ID != "in" {
		t.Errorf("from a folder nobody watches: %+v", d.Moved)
	}
}

func TestChangedCarriesOldAndNew(t *testing.T) {
	look := Look{ID: "i", Old: was(mail("in", "k1", now)), New: mail("in", "k2", now, renamed, labelled, rewritten), Level: event.ContentBody, At: now}
	got := map[string]string{}
	for _, e := range box.Name(look, home, nil).Events {
		for _, c := range data(t, e).Changed {
			got[e.Name+" "+c.Field] = string(c.Old) + " → " + string(c.New)
		}
	}
	want := map[string]string{
		"categorized categories": `[] → ["Red category"]`,
		"updated subject":        `"Invoice" → "Reminder"`,
		"updated body":           " → ", // only that it differs: bodies are not kept
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("changed = %v", got)
	}
}

func TestContentLevelDecidesWhatLeavesAndWhatIsAnUpdate(t *testing.T) {
	watches := []Watch{
		watch("ids", event.ContentIDs, "in"), watch("envelope", event.ContentEnvelope, "in"),
		watch("preview", event.ContentPreview, "in"), watch("body", event.ContentBody, "in"),
	}
	preview := func(o *event.Observed) { o.Message.BodyPreview = "Dear" }
	look := Look{ID: "i", Old: was(mail("in", "k1", now)), New: mail("in", "k2", now, preview), Level: event.ContentBody, At: now}
	var who []string
	for _, e := range box.Name(look, watches, nil).Events {
		who = append(who, e.Watch)
	}
	if !slices.Equal(who, []string{"preview", "body"}) {
		t.Errorf("updated for %v, want the watches that hold the preview", who)
	}
	e := box.Name(Look{ID: "i", New: mail("in", "k1", now), At: now, Level: event.ContentBody}, watches[:1], nil).Events[0]
	if s := string(e.Data); strings.Contains(s, "Invoice") || strings.Contains(s, "ada@") {
		t.Errorf("content ids lets out %s", s)
	}
}

func TestAStateReadWithLessContentIsNotAnUpdate(t *testing.T) {
	old := was(mail("in", "k1", now))
	old.Level = event.ContentIDs
	old.Message.Subject, old.Message.From = "", nil
	look := Look{ID: "i", Old: old, New: mail("in", "k1", now), Level: event.ContentBody, At: now}
	res := box.Name(look, home, nil)
	if len(res.Events) != 0 || !res.Changed {
		t.Errorf("events %v, changed %v; want none, and the fuller state stored", eventNames(res.Events), res.Changed)
	}
}

func TestTheSameChangeHasTheSameIDOnEveryPath(t *testing.T) {
	id := func(via event.Via, at time.Time) string {
		return box.Name(Look{ID: "i", Old: was(mail("in", "k1", t0)), New: mail("in", "k2", t0, read), At: at, Via: via, Level: event.ContentBody}, home, nil).Events[0].ID
	}
	if a, b := id(event.ViaPush, now), id(event.ViaTrueUp, now.Add(time.Hour)); a != b {
		t.Errorf("ids differ: %s, %s", a, b)
	}
	first := func(key string) string {
		return box.Name(Look{ID: "i", New: mail("in", key, now), At: now}, home, nil).Events[0].ID
	}
	if a, b := first("k1"), first("k2"); a != b {
		t.Errorf("two instances that first see a message at different versions must agree: %s, %s", a, b)
	}
}

type filter func(name string, m *event.Message) (bool, error)

func (f filter) Match(name string, m *event.Message, _ *event.Folder) (bool, error) {
	return f(name, m)
}

func (f filter) MatchMeeting(name string, m *event.Meeting, _ *event.Calendar) (bool, error) {
	return f(name, &event.Message{Subject: m.Subject})
}

func TestFilter(t *testing.T) {
	w := watch("sales", event.ContentIDs, "in")
	w.Filter = filter(func(_ string, m *event.Message) (bool, error) { return m.Subject == "Invoice", nil })
	look := Look{ID: "i", New: mail("in", "k1", now), At: now}
	if res := box.Name(look, []Watch{w}, nil); len(res.Events) != 1 {
		t.Errorf("a filter sees more than the content level lets out: %+v", res)
	}
	look.New = mail("in", "k1", now, renamed)
	if res := box.Name(look, []Watch{w}, nil); len(res.Events) != 0 || res.Dropped != 1 || !res.Changed {
		t.Errorf("filtered: %+v", res)
	}
	w.Filter = filter(func(string, *event.Message) (bool, error) { return false, errors.New("boom") })
	told := ""
	if res := box.Name(look, []Watch{w}, func(w string, err error) { told = w }); len(res.Events) != 1 || told != "sales" {
		t.Errorf("an event too many is better than one lost: %+v, told %q", res, told)
	}
}

func TestPathEscapesSlashesAndSurvivesLoops(t *testing.T) {
	if got := Path(folders, "bills"); got != `Posteingang/Bills\/2026` {
		t.Errorf("path = %q", got)
	}
	loop := map[string]store.FolderInfo{"a": {Name: "A", ParentID: "b"}, "b": {Name: "B", ParentID: "a"}}
	if got := Path(loop, "a"); !strings.HasPrefix(got, "B/A") && !strings.HasSuffix(got, "B/A") {
		t.Errorf("path in a loop = %q", got)
	}
}

func TestReferencesAreToldOnce(t *testing.T) {
	w := watch("ref", event.ContentReference, "in")
	w.Events = map[string]bool{event.Created: true, event.Updated: true, event.Deleted: true}
	var known store.Reference
	var told []string
	see := func(name, key string) {
		next, _, events := box.Refer(known, Sighting{ID: "i", Name: name, ChangeKey: key, Folder: "in", At: now, Via: event.ViaPush}, []Watch{w})
		known = next
		for _, e := range events {
			told = append(told, e.Name)
			if d := data(t, e); d.Item.ID != "i" || d.Message != nil {
				t.Errorf("data = %s", e.Data)
			}
		}
	}
	see("created", "k1")
	see("updated", "k1") // W-16: one change key is one change
	see("updated", "k2")
	see("created", "k1")            // late and out of order
	see("unknownFutureValue", "k3") // W-6
	see("deleted", "")              // W-9b
	see("deleted", "")
	see("created", "k4") // it came back
	see("deleted", "")
	if want := "created updated updated deleted created deleted"; strings.Join(told, " ") != want {
		t.Errorf("told %q, want %q", told, want)
	}
}

// Graph tells whole seconds: a mail that came in the second in which a watch began must not be taken for an older one.
func TestTheSecondInWhichAWatchBegins(t *testing.T) {
	began := time.Date(2026, 11, 24, 9, 0, 12, 700e6, time.UTC)
	m := &Mailbox{Folders: map[string]store.FolderInfo{"sent": {WellKnown: "sentitems"}}}
	for at, want := range map[string]bool{"2026-11-24T09:00:12Z": true, "2026-11-24T09:00:13Z": true, "2026-11-24T09:00:11Z": false, "": false} {
		for _, o := range []*event.Observed{
			{FolderID: "inbox", Message: event.Message{ReceivedDateTime: at}},
			{FolderID: "inbox", Message: event.Message{CreatedDateTime: at}},
			{FolderID: "sent", Message: event.Message{SentDateTime: at}},
		} {
			if got := m.later(o, began); got != want {
				t.Errorf("%+v is later: %v, want %v", o.Message, got, want)
			}
		}
	}
}
