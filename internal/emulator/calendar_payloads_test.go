package emulator

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorded reads the items of a recorded collection.
func recorded(t *testing.T, file string) (out []item) {
	t.Helper()
	var body struct{ Value []item }
	readJSON(t, "testdata/"+file, &body)
	return body.Value
}

func TestCalendarShapesAreThoseOfTheRecordings(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series := w.meet(Meeting{
			Subject: "R - 1", Body: "test", Location: "Sikkim", Start: at("2000-01-05T07:00Z"), TimeZone: "Eastern Standard Time",
			Recurrence: &Recurrence{Type: "daily", RangeType: "endDate", EndDate: at("2000-01-07")},
		})
		body := []string{"/body", "/body/contentType", "/body/content"} // dropped by the recordings' authors
		page := w.get(w.viewOf("") + "/delta" + january)
		items := page.values()
		slices.SortFunc(items, func(a, b item) int { return strings.Compare(b.text("type"), a.text("type")) })
		want := recorded(t, "recorded-delta-calendarview-series.json")
		as := func(i item) any { return map[string]any(i) }
		compareShapes(t, "the series", as(items[0]), as(want[0]), body...)
		compareShapes(t, "its occurrences", as(items[1]), as(want[1]))
		var stub any
		readJSON(t, "testdata/recorded-delta-occurrence-stub.json", &stub)
		compareShapes(t, "a stub", as(items[1]), stub)
		if got := page.text("@odata.context"); got != w.root+"/$metadata#Collection(event)" {
			t.Errorf("context %s", got)
		}

		r := w.get("/users/" + mailbox + "/events/" + series + "/instances" + january + "&$select=subject,bodyPreview,seriesMasterId,type,recurrence,start,end")
		compareShapes(t, "instances", as(r.values()[0]), as(recorded(t, "event-instances.json")[0]))

		link := page.text("@odata.deltaLink")
		w.do(w.DeleteMeeting(mailbox, series))
		items, _, _ = w.round(link)
		compareShapes(t, "removed", as(items[0]), as(recorded(t, "delta-calendarview-round2-removed.json")[0]))

		single := w.meet(Meeting{Subject: "Heyyyyyyy", Start: at("2000-01-05T07:00Z"), TimeZone: "Central Standard Time"})
		var group any
		readJSON(t, "testdata/recorded-event-get-group.json", &group)
		compareShapes(t, "one", any(w.get("/users/"+mailbox+"/events/"+single).body), group, append(body, "/webLink", "/occurrenceId")...)
	})
}

func TestCalendarNotificationsAreThoseOfTheRecordings(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.OneNotice = true })
		if r := w.subscribe("/events", "created,updated,deleted"); r.status != http.StatusCreated {
			t.Fatalf("subscribe: %d %s", r.status, r.raw)
		}
		id, name := w.meet(Meeting{Start: at("2000-01-05T07:00Z")}), "x"
		key := func() string { return w.Meetings(mailbox)[0].ChangeKey }
		for _, c := range []struct {
			kind   string
			change func() error
		}{
			{"created", func() error { return nil }},
			{"updated", func() error { return w.UpdateMeeting(mailbox, id, MeetingPatch{Subject: &name}) }},
			{"deleted", func() error { return w.DeleteMeeting(mailbox, id) }},
		} {
			w.do(c.change())
			got := w.received()
			if len(got) != 1 {
				t.Fatalf("%s: %v, want one item", c.kind, got)
			}
			i, file := got[0], "recorded-notification-event-"+c.kind+".json"
			wantShape(t, map[string]any{"value": []any{map[string]any(i)}}, "testdata/"+file)
			if want := recorded(t, file)[0]; i.text("changeType") != c.kind || i.data("@odata.type") != want.data("@odata.type") ||
				i.data("@odata.etag")[:8] != want.data("@odata.etag")[:8] && c.kind != "deleted" {
				t.Errorf("%s: %v, recorded %v", c.kind, i, want)
			}
			if i.data("id") != id || i.text("resource") != "Users/"+w.user.ID+"/Events/"+id {
				t.Errorf("%s is about %v", c.kind, i)
			}
			if c.kind == "deleted" {
				if i.data("@odata.etag") != recorded(t, file)[0].data("@odata.etag") { // W-9b
					t.Errorf("deleted: %v", i)
				}
				continue
			}
			tagged, bare := strings.TrimPrefix(i.data("@odata.etag"), `W/"`), key()
			if tagged == bare || len(tagged) != 41 || !sameKey(tagged[:40], bare) { // W-9a
				t.Errorf("%s: the etag %s is not the change key %s with a tag", c.kind, tagged, bare)
			}
		}
	})
}

// sameKey compares the last 22 bytes, which two spellings of a change key share.
func sameKey(tagged, bare string) bool {
	a, b := mustDecode(urlSafe(tagged)), mustDecode(urlSafe(bare))
	return string(a[len(a)-22:]) == string(b[len(b)-22:])
}

func urlSafe(s string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(s) }

func TestOneChangeOfAMeetingIsNotifiedTwoToFourTimes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.subscribe("/events", "created,updated,deleted")
		counts := map[int]int{}
		intermediate := 0
		for n := range 40 {
			id := w.meet(Meeting{Start: at("2000-01-05T07:00Z")})
			got := w.received()
			counts[len(got)]++
			etags := map[string]bool{}
			for at, i := range got {
				etags[i.data("@odata.etag")] = true
				if want := map[bool]string{true: "created", false: "updated"}[at == 0]; i.text("changeType") != want || i.data("id") != id {
					t.Errorf("item %d of meeting %d: %v", at, n, i)
				}
			}
			if len(etags) == 2 {
				intermediate++
			}
			w.do(w.DeleteMeeting(mailbox, id))
			got = w.received()
			if counts[len(got)]++; got[len(got)-1].text("changeType") != "deleted" || got[len(got)-1].data("@odata.etag") != deletedETag {
				t.Errorf("deleted: %v", got)
			}
		}
		if len(counts) != 3 || counts[2] == 0 || counts[3] == 0 || counts[4] == 0 || intermediate == 0 {
			t.Errorf("changes by their number of notifications %v, want 2 to 4; %d with an intermediate change key", counts, intermediate)
		}
	})
}

func TestWhatEventSubscriptionsAreTold(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.OneNotice = true })
		other, err := w.AddCalendar(mailbox, "Projects")
		w.do(err)
		w.subscribe("/events", "created,updated,deleted")
		w.subscribe("/messages", "created", "clientState", `"mail"`)
		told := func(what string, want ...string) {
			t.Helper()
			var got []string
			for _, i := range w.received() {
				got = append(got, i.text("clientState")+" "+i.text("changeType")+" "+i.data("id"))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		w.deliver("mail")
		told("a message", "mail created "+w.Messages(mailbox)[0].ID)
		there := w.meet(Meeting{Calendar: other, Start: at("2000-01-05T07:00Z")})
		told("a meeting in another calendar", "secret created "+there)
		series, subject := w.weekly(), "own"
		told("a series", "secret created "+series)
		first := w.Instances(mailbox, "", at("2000-01-01"), at("2000-02-01"))[0]
		w.do(w.UpdateMeeting(mailbox, first.ID, MeetingPatch{Subject: &subject}))
		told("a changed date", "secret updated "+series) // D-42
		w.do(w.Respond(mailbox, first.ID, "ada@contoso.com", "accepted"))
		told("a changed exception", "secret updated "+series, "secret updated "+first.ID)
		w.do(w.DeleteMeeting(mailbox, first.ID))
		told("a deleted date", "secret updated "+series)
		w.do(w.DeleteMeeting(mailbox, series))
		told("a deleted series", "secret deleted "+series)
		w.SetFaults(func(f *Faults) { f.LoseNext = 1 })
		w.do(w.DeleteMeeting(mailbox, there))
		told("a lost notification")
	})
}

func TestEventSubscriptionsWithMutableIds(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.OneNotice = true })
		w.send("POST", w.root+"/subscriptions", w.subscription("/events", "created"),
			"Authorization", "Bearer "+w.token, "Content-Type", "application/json")
		w.wantViolation("N-20: ")
		id := w.meet(Meeting{Start: at("2000-01-05T07:00Z")})
		got := w.received()
		if len(got) != 1 || got[0].data("id") == id {
			t.Fatalf("notified %v, want an id that is not immutable", got)
		}
		if r := w.get("/users/" + mailbox + "/events/" + got[0].data("id")); r.text("id") != id {
			t.Errorf("read by it: %s", r.raw)
		}
	})
}

func TestPermissionsOfAnAppCanBeWithheld(t *testing.T) {
	for _, c := range []struct {
		withheld string
		works    []string
		refused  []string
	}{
		{"Calendars.Read", []string{"/mailFolders/inbox", "/mailboxSettings"}, []string{"/calendar", "/calendarView" + january, "/events/x"}},
		{"mail.read", []string{"/calendar", "/mailboxSettings"}, []string{"/mailFolders/inbox", "/messages"}},
		{"MailboxSettings.Read", []string{"/calendar", "/mailFolders/inbox"}, []string{"/mailboxSettings", "/mailboxSettings/timeZone"}},
	} {
		inBubble(t, Options{WithheldPermissions: []string{c.withheld}}, func(t *testing.T, w *world) {
			for _, target := range c.works {
				if r := w.get("/users/" + mailbox + target); r.status != 200 {
					t.Errorf("without %s: %s: %d %s", c.withheld, target, r.status, r.raw)
				}
			}
			for _, target := range c.refused {
				wantError(t, "without "+c.withheld+": "+target, w.get("/users/"+mailbox+target), 403, "ErrorAccessDenied")
			}
			want := map[string]int{"/events": 201, "/messages": 201}
			switch c.withheld {
			case "Calendars.Read":
				want["/events"] = 403
			case "mail.read":
				want["/messages"] = 403
			}
			for below, status := range want {
				if r := w.subscribe(below, "created"); r.status != status {
					t.Errorf("without %s: subscribing to %s: %d %s, want %d", c.withheld, below, r.status, r.raw, status)
				}
			}
		})
	}
}

func TestNotificationsOfOneChangeAreApart(t *testing.T) {
	inBubble(t, Options{Seed: 3}, func(t *testing.T, w *world) {
		w.subscribe("/events", "created,updated,deleted")
		w.meet(Meeting{Start: at("2000-01-05T07:00Z")})
		time.Sleep(time.Millisecond)
		if w.Idle() {
			t.Error("all is delivered at once")
		}
		if got := w.received(); len(got) < 2 || !w.Idle() {
			t.Errorf("notified %v", got)
		}
	})
}
