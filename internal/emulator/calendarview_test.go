package emulator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// january is the window of most tests.
const january = "?startDateTime=2000-01-01T00:00:00Z&endDateTime=2000-02-01T00:00:00Z"

func (w *world) viewOf(calendar string) string {
	if calendar == "" {
		return "/users/" + w.user.ID + "/calendarView"
	}
	return "/users/" + w.user.ID + "/calendars/" + calendar + "/calendarView"
}

// kinds counts the items of a round.
func kinds(items []item) map[string]int {
	out := map[string]int{}
	for _, i := range items {
		kind := i.text("type")
		if i["@removed"] != nil {
			kind = "removed"
		}
		out[kind]++
	}
	return out
}

func wantKinds(t *testing.T, what string, items []item, want string) {
	t.Helper()
	if got := fmt.Sprint(kinds(items)); got != "map["+want+"]" {
		t.Errorf("%s: %s, want map[%s]", what, got, want)
	}
}

func TestTheFirstRoundOfACalendarView(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series, single := w.weekly(), w.meet(Meeting{Subject: "x", Start: at("2000-01-05T09:00Z")})
		own := "own"
		w.do(w.UpdateOccurrence(mailbox, series, at("2000-01-17T09:00Z"), MeetingPatch{Subject: &own}))
		w.meet(Meeting{Start: at("2000-02-01T00:00Z")})
		w.meet(Meeting{Start: at("1999-12-31T23:00Z"), End: at("2000-01-01T00:00Z")})
		gone := w.meet(Meeting{Start: at("2000-01-06T09:00Z")})
		w.do(w.DeleteMeeting(mailbox, gone))
		w.do(w.DeleteOccurrence(mailbox, series, at("2000-01-24T09:00Z")))
		items, _, _ := w.round(w.viewOf("") + "/delta" + january)
		wantKinds(t, "all", items, "exception:1 occurrence:2 seriesMaster:1 singleInstance:1")
		stub := []string{"@odata.etag", "@odata.type", "end", "id", "seriesMasterId", "start", "type"}
		for _, i := range items {
			switch i.text("type") {
			case "occurrence":
				if names := slices.Sorted(maps.Keys(i)); !slices.Equal(names, stub) {
					t.Errorf("an occurrence has %v, want %v", names, stub)
				}
				if i.text("seriesMasterId") != series || !strings.HasPrefix(i.text("@odata.etag"), `W/"DwAAABYAAA`) {
					t.Errorf("an occurrence: %v", i)
				}
				if i.text("@odata.etag") != etag(w.users[0].taggedKey(eventKey, w.users[0].meetings[0].now.key)) {
					t.Errorf("an occurrence has the etag %s, want that of its series", i.text("@odata.etag"))
				}
			case "seriesMaster":
				if i.text("id") != series || i.text("subject") != "weekly" || fmt.Sprint(i["start"]) != "map[dateTime:2000-01-03T09:00:00.0000000 timeZone:UTC]" {
					t.Errorf("the series: %v", i)
				}
			case "exception":
				if i.text("seriesMasterId") != series || i.text("subject") != "own" || i.text("originalStart") != "2000-01-17T09:00:00Z" {
					t.Errorf("the exception: %v", i)
				}
			default:
				if i.text("id") != single || i.text("@odata.etag") != etag(i.text("changeKey")) || len(i.text("changeKey")) != 32 {
					t.Errorf("the single meeting: %v", i)
				}
			}
		}
	})
}

func TestLaterRoundsOfACalendarView(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series, single := w.weekly(), w.meet(Meeting{Subject: "x", Start: at("2000-01-05T09:00Z")})
		outside := w.meet(Meeting{Subject: "outside", Start: at("2000-03-01T09:00Z")})
		_, link, _ := w.round(w.viewOf("") + "/delta" + january)
		next := func(what, want string) (items []item) {
			t.Helper()
			items, link, _ = w.round(link)
			wantKinds(t, what, items, want)
			return items
		}
		next("nothing happened", "")
		name, far, back := "y", at("2000-03-02T09:00Z"), at("2000-01-08T09:00Z")
		w.do(w.UpdateMeeting(mailbox, single, MeetingPatch{Subject: &name}))
		if i := next("a changed meeting", "singleInstance:1"); i[0].text("subject") != "y" || i[0].text("showAs") != "busy" {
			t.Errorf("a changed meeting: %v", i)
		}
		w.do(w.UpdateMeeting(mailbox, series, MeetingPatch{Subject: &name}))
		next("a changed series", "occurrence:4 seriesMaster:1")
		w.do(w.DeleteOccurrence(mailbox, series, at("2000-01-10T09:00Z")))
		for _, i := range next("a deleted date", "occurrence:3 seriesMaster:1") {
			if start, _ := i["start"].(map[string]any); fmt.Sprint(start["dateTime"]) == "2000-01-10T09:00:00.0000000" {
				t.Errorf("the deleted date: %v", i)
			}
		}
		w.do(w.UpdateOccurrence(mailbox, series, at("2000-01-17T09:00Z"), MeetingPatch{Start: &back}))
		next("a moved date", "exception:1 occurrence:2 seriesMaster:1")
		w.do(w.UpdateOccurrence(mailbox, series, at("2000-01-17T09:00Z"), MeetingPatch{Start: &far}))
		next("the same out of the window", "occurrence:2 seriesMaster:1")
		w.do(w.CancelOccurrence(mailbox, series, at("2000-01-03T09:00Z")))
		next("a cancelled date", "exception:1 occurrence:1 seriesMaster:1")
		w.do(w.UpdateMeeting(mailbox, single, MeetingPatch{Start: &far}))
		if i := next("a meeting that left the window", "removed:1"); i[0].text("id") != single || len(i[0]) != 3 {
			t.Errorf("removed: %v", i)
		}
		w.do(w.UpdateMeeting(mailbox, outside, MeetingPatch{Subject: &name}))
		next("changed outside", "removed:1")
		w.do(w.UpdateMeeting(mailbox, outside, MeetingPatch{Start: &back}))
		next("came in", "singleInstance:1")
		w.meet(Meeting{Start: far})
		w.do(w.DeleteMeeting(mailbox, single))
		next("added and deleted outside", "removed:2")
		w.do(w.UpdateMeeting(mailbox, series, MeetingPatch{Start: &far}))
		if i := next("a series that left", "removed:1"); i[0].text("id") != series {
			t.Errorf("removed: %v", i)
		}
		w.do(w.DeleteMeeting(mailbox, series))
		if i := next("a deleted series", "removed:1"); i[0].text("id") != series {
			t.Errorf("removed: %v", i)
		}
	})
}

func TestCalendarsAreApart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		other, err := w.AddCalendar(mailbox, "Projects")
		w.do(err)
		here, there := w.meet(Meeting{Start: at("2000-01-05T09:00Z")}), w.meet(Meeting{Start: at("2000-01-05T09:00Z"), Calendar: "projects"})
		for calendar, want := range map[string]string{"": here, w.DefaultCalendarID(mailbox): here, other: there} {
			items, _, _ := w.round(w.viewOf(calendar) + "/delta" + january)
			if !slices.Equal(ids(items), []string{want}) {
				t.Errorf("delta of calendar %q: %v, want %s", calendar, ids(items), want)
			}
			if r := w.get(w.viewOf(calendar) + january); !slices.Equal(ids(r.values()), []string{want}) {
				t.Errorf("view of calendar %q: %s, want %s", calendar, r.raw, want)
			}
		}
		events := "/users/" + mailbox + "/calendars/" + other + "/events/"
		if r := w.get(events + there); r.text("id") != there {
			t.Errorf("below its calendar: %s", r.raw)
		}
		wantError(t, "below another calendar", w.get(events+here), 404, "ErrorItemNotFound")
		if r := w.get("/users/" + mailbox + "/events/" + there); r.text("id") != there {
			t.Errorf("below the mailbox: %s", r.raw)
		}
		if _, err := w.AddCalendar(mailbox, "PROJECTS"); err == nil {
			t.Error("two calendars of one name")
		}
		if _, err := w.AddCalendar(mailbox, ""); err == nil {
			t.Error("a calendar without a name")
		}
		if list := w.Instances(mailbox, "Nobody's", at("2000-01-01"), at("2000-02-01")); list != nil {
			t.Errorf("another calendar has %v", list)
		}
	})
}

func TestCalendarViewRequestsAreCheckedStrictly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.AddUser("other@contoso.com")
		other, err := w.AddCalendar(mailbox, "Projects")
		w.do(err)
		single := w.meet(Meeting{Start: at("2000-01-05T09:00Z")})
		message := w.deliver("x")
		_, link, _ := w.round(w.viewOf("") + "/delta" + january)
		_, mail, _ := w.round(w.inbox() + deltaSelect)
		_, folders, _ := w.round("/users/" + mailbox + "/mailFolders/delta")
		view, delta, u := w.viewOf(""), w.viewOf("")+"/delta", "/users/"+mailbox
		token := func(link string) string { return link[strings.Index(link, "?"):] }
		for _, c := range []struct {
			name, target string
			status       int
			code         string
			violation    string
		}{
			{"no window", delta, 400, "ErrorInvalidParameter", "D-34: "},
			{"half a window", delta + "?startDateTime=2000-01-01T00:00:00Z", 400, "ErrorInvalidParameter", "D-34: "},
			{"a view without a window", view, 400, "ErrorInvalidParameter", "D-34: "},
			{"a window that ends before it begins", delta + "?startDateTime=2000-01-02&endDateTime=2000-01-01", 400, "ErrorInvalidParameter", ""},
			{"a window of a word", delta + "?startDateTime=today&endDateTime=2000-01-01", 400, "ErrorInvalidParameter", ""},
			{"a plus that is not escaped", delta + "?startDateTime=2000-01-01T00:00:00+01:00&endDateTime=2000-01-02", 400, "ErrorInvalidParameter", ""},
			{"six years", delta + "?startDateTime=2000-01-01&endDateTime=2006-01-01", 400, "ErrorCalendarViewRangeTooBig", ""},
			{"$select", delta + january + "&$select=subject", 400, "BadRequest", "D-36: "},
			{"$expand", delta + january + "&$expand=attachments", 400, "BadRequest", "D-36: "},
			{"$filter", delta + january + "&$filter=isCancelled", 400, "BadRequest", "D-36: "},
			{"$orderby", delta + january + "&$orderby=start", 400, "BadRequest", "D-36: "},
			{"$search", delta + january + "&$search=x", 400, "BadRequest", "D-36: "},
			{"$top", delta + january + "&$top=5", 400, "BadRequest", "D-36: "},
			{"a token with options", link + "&startDateTime=2000-01-01", 400, "BadRequest", "D-2: query"},
			{"a token cut off", link[:len(link)-1], 400, "SyncStateInvalid", "D-2: "},
			{"a token of another calendar", w.viewOf(other) + "/delta" + token(link), 400, "SyncStateInvalid", ""},
			{"a token of another mailbox", "/users/other@contoso.com/calendarView/delta" + token(link), 400, "SyncStateInvalid", ""},
			{"a token of messages", delta + token(mail), 400, "SyncStateInvalid", ""},
			{"a token of folders", delta + token(folders), 400, "SyncStateInvalid", ""},
			{"messages by a calendar's token", w.inbox() + "/messages/delta" + token(link), 400, "SyncStateInvalid", ""},
			{"folders by a calendar's token", u + "/mailFolders/delta" + token(link), 400, "SyncStateInvalid", ""},
			{"events delta", u + "/events/delta", 400, "RequestBroker--ParseUri", "D-40: "},
			{"all events", u + "/events", 501, "NotImplemented", ""},
			{"a message as an event", u + "/events/" + message, 404, "ErrorItemNotFound", ""},
			{"an event as a message", u + "/messages/" + single, 404, "ErrorItemNotFound", ""},
			{"not an id", u + "/events/nonsense", 400, "ErrorInvalidIdMalformed", ""},
			{"an id escaped twice", u + "/events/" + strings.Replace(single, "=", "%253D", 1), 400, "ErrorInvalidIdMalformed", "I-11: event"},
			{"not a calendar's id", u + "/calendars/nonsense", 400, "ErrorInvalidIdMalformed", ""},
			{"a calendar's name", u + "/calendars/Projects/calendarView" + january, 400, "ErrorInvalidIdMalformed", ""},
			{"no such calendar", u + "/calendars/" + w.FolderID(mailbox, "inbox"), 404, "ErrorItemNotFound", ""},
			{"a calendar's id escaped twice", u + "/calendars/%253D", 400, "ErrorInvalidIdMalformed", "I-11: calendar"},
			{"an unknown property", u + "/events/" + single + "?$select=start,colour", 400, "RequestBroker--ParseUri", ""},
			{"an unknown property of calendars", u + "/calendars?$select=colour", 400, "RequestBroker--ParseUri", ""},
			{"an unknown property of a calendar", u + "/calendar?$select=colour", 400, "RequestBroker--ParseUri", ""},
			{"an option of one event", u + "/events/" + single + "?$top=1", 400, "BadRequest", "Q-1: "},
			{"$filter of a view", view + january + "&$filter=isCancelled", 400, "BadRequest", "Q-1: "},
			{"$top=0 of a view", view + january + "&$top=0", 400, "BadRequest", ""},
			{"$top=0 of calendars", u + "/calendars?$top=0", 400, "BadRequest", ""},
			{"instances of a single meeting", u + "/events/" + single + "/instances" + january, 400, "ErrorInvalidRequest", ""},
			{"below an event", u + "/events/" + single + "/attachments", 400, "RequestBroker--ParseUri", ""},
			{"below a calendar", u + "/calendar/permissions", 400, "RequestBroker--ParseUri", ""},
			{"below a view", view + "/x", 400, "RequestBroker--ParseUri", ""},
			{"below the settings", u + "/mailboxSettings/language", 400, "RequestBroker--ParseUri", ""},
			{"an unknown setting", u + "/mailboxSettings?$select=zone", 400, "RequestBroker--ParseUri", ""},
			{"contacts", u + "/contacts", 501, "NotImplemented", ""},
		} {
			wantError(t, c.name, w.get(c.target), c.status, c.code)
			if c.violation != "" {
				w.wantViolation(c.violation)
			} else if v := w.Violations(); len(v) > 0 {
				t.Errorf("%s: violations %q, want none", c.name, v)
				w.ForgetViolations()
			}
		}
		zone := `IdType="ImmutableId", outlook.timezone="Middle Earth Standard Time"`
		for _, target := range []string{view + january, delta + january, u + "/events/" + single} {
			r := w.send("GET", w.root+target, "", "Authorization", "Bearer "+w.token, "Prefer", zone)
			wantError(t, "an unknown zone: "+target, r, 400, "TimeZoneNotSupportedException")
		}
		wantError(t, "writing", w.call("PATCH", u+"/events/"+single, "{}"), 403, "ErrorAccessDenied")
		w.wantViolation("P-2: ")
	})
}

func TestMutableIdsOfMeetings(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series := w.weekly()
		plain := func(target string) reply {
			t.Helper()
			r := w.send("GET", w.root+target, "", "Authorization", "Bearer "+w.token)
			w.wantViolation("I-3: ")
			return r
		}
		list := plain(w.viewOf("") + january).values()
		date := list[0].text("id")
		if date == w.Instances(mailbox, "", at("2000-01-01"), at("2000-02-01"))[0].ID || list[0].text("seriesMasterId") == series {
			t.Errorf("without a wish the ids are immutable: %v", list[0])
		}
		if r := plain("/users/" + mailbox + "/events/" + date); r.text("id") != date {
			t.Errorf("by the other kind of id: %s", r.raw)
		}
		if r := w.get("/users/" + mailbox + "/events/" + date); r.text("seriesMasterId") != series {
			t.Errorf("with the wish: %s", r.raw)
		}
		plain("/users/" + mailbox + "/events/" + series + "/instances" + january)
		plain(w.viewOf("") + "/delta" + january)
	})
}

func TestPlainViewsAndInstances(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series := w.weekly()
		early, all := w.meet(Meeting{Start: at("2000-01-02T09:00Z")}), w.meet(Meeting{Start: at("2000-01-04T15:00Z"), AllDay: true})
		list := func(target string) (items []item, pages int) {
			t.Helper()
			for ; target != ""; pages++ {
				r := w.get(target)
				if r.status != 200 {
					t.Fatalf("%s: %d %s", target, r.status, r.raw)
				}
				items = append(items, r.values()...)
				target = r.text("@odata.nextLink")
			}
			return items, pages
		}
		items, pages := list(w.viewOf("") + january + "&$top=4&$select=start")
		wantKinds(t, "with $select", items, ":6")
		if pages != 2 || items[0].text("id") != early || items[2].text("id") != all {
			t.Errorf("%d pages of %v, want 2 with the earliest first", pages, items)
		}
		items, _ = list(w.viewOf("") + january)
		wantKinds(t, "a view", items, "occurrence:4 singleInstance:2")
		if o := items[1]; o.text("subject") != "weekly" || o.text("seriesMasterId") != series || o.text("originalStart") != "2000-01-03T09:00:00Z" ||
			!strings.HasPrefix(o.text("@odata.etag"), `W/"`+o.text("changeKey")) || o["recurrence"] != nil {
			t.Errorf("an occurrence of a plain view is whole: %v", o)
		}
		master := w.get("/users/" + mailbox + "/events/" + series)
		items, _ = list("/users/" + mailbox + "/events/" + series + "/instances?startDateTime=2000-01-10&endDateTime=2000-01-18")
		if len(items) != 2 || items[0].text("@odata.etag") != master.text("@odata.etag") || items[0].text("iCalUId") == items[1].text("iCalUId") {
			t.Errorf("instances %v of %s, want two with its etag (M-5) and iCalUIds of their own", items, master.raw)
		}
		if items, _ = list("/users/" + mailbox + "/calendar/events/" + series + "/instances" + january); len(items) != 4 {
			t.Errorf("instances below the calendar: %v", items)
		}
		w.do(w.DeleteOccurrence(mailbox, series, at("2000-01-10T09:00Z")))
		r := w.get("/users/" + mailbox + "/events/" + series + "?$select=subject,cancelledOccurrences")
		if got := fmt.Sprint(r.body["cancelledOccurrences"]); got != "[OID."+series+".2000-01-10]" || r.body["start"] != nil {
			t.Errorf("cancelled occurrences %s", r.raw)
		}
	})
}

func TestTimesComeInTheZoneThatIsAsked(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.meet(Meeting{Start: at("2000-01-05T23:30Z"), End: at("2000-01-06T00:30Z"), TimeZone: "Tokyo Standard Time"})
		all := w.meet(Meeting{Start: at("2000-01-05"), AllDay: true, TimeZone: "Tokyo Standard Time"})
		for _, c := range []struct{ name, zone, id, start, shown string }{
			{"none", "", id, "2000-01-05T23:30:00.0000000", "UTC"},
			{"a Windows zone", "W. Europe Standard Time", id, "2000-01-06T00:30:00.0000000", "W. Europe Standard Time"},
			{"an IANA zone", "America/New_York", id, "2000-01-05T18:30:00.0000000", "America/New_York"},
			{"an all-day one", "America/New_York", all, "2000-01-05T00:00:00.0000000", "America/New_York"},
		} {
			prefer := `IdType="ImmutableId"`
			if c.zone != "" {
				prefer += `, outlook.timezone="` + c.zone + `"`
			}
			r := w.send("GET", w.root+"/users/"+mailbox+"/events/"+c.id, "", "Authorization", "Bearer "+w.token, "Prefer", prefer)
			start, _ := r.body["start"].(map[string]any)
			if start["dateTime"] != c.start || start["timeZone"] != c.shown || r.header.Get("Preference-Applied") != prefer {
				t.Errorf("%s: %v, applied %s", c.name, start, r.header.Get("Preference-Applied"))
			}
			if r.text("originalStartTimeZone") != "Tokyo Standard Time" {
				t.Errorf("%s: original zone %s", c.name, r.text("originalStartTimeZone"))
			}
		}
	})
}

func TestASeriesStaysOnOnePageUnlessItIsSplit(t *testing.T) {
	inBubble(t, Options{PageSize: 4}, func(t *testing.T, w *world) {
		w.meet(Meeting{Start: at("2000-01-05T09:00Z")})
		w.weekly()
		w.meet(Meeting{Start: at("2000-01-06T09:00Z")})
		sizes := func() (out []int) {
			t.Helper()
			for target := w.viewOf("") + "/delta" + january; target != ""; {
				r := w.call("GET", target, "", "Prefer", `IdType="ImmutableId", odata.maxpagesize=4`)
				out = append(out, len(r.values()))
				target = r.text("@odata.nextLink")
			}
			return out
		}
		if got := sizes(); !slices.Equal(got, []int{1, 5, 1}) {
			t.Errorf("pages of %v items, want the series on one", got)
		}
		w.SetFaults(func(f *Faults) { f.SplitSeries = true })
		if got := sizes(); !slices.Equal(got, []int{4, 3}) {
			t.Errorf("pages of %v items, want the series split", got)
		}
	})
}

func TestMastersCanBeMissing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		series, name := w.weekly(), "y"
		w.SetFaults(func(f *Faults) { f.MasterMissing = true })
		items, link, _ := w.round(w.viewOf("") + "/delta" + january)
		wantKinds(t, "first round", items, "occurrence:4 seriesMaster:1")
		w.do(w.UpdateMeeting(mailbox, series, MeetingPatch{Subject: &name}))
		items, _, _ = w.round(link)
		wantKinds(t, "second round", items, "occurrence:4")
		if r := w.get("/users/" + mailbox + "/events/" + series); r.text("subject") != "y" || r.text("type") != "seriesMaster" {
			t.Errorf("the master itself: %s", r.raw)
		}
	})
}

func TestCalendarDeltaLagsAndExpires(t *testing.T) {
	inBubble(t, Options{DeltaLag: time.Minute}, func(t *testing.T, w *world) {
		id, name := w.meet(Meeting{Subject: "x", Start: at("2000-01-05T09:00Z")}), "y"
		items, link, _ := w.round(w.viewOf("") + "/delta" + january)
		wantKinds(t, "at once", items, "")
		time.Sleep(40 * time.Second)
		w.do(w.UpdateMeeting(mailbox, id, MeetingPatch{Subject: &name}))
		time.Sleep(30 * time.Second)
		if items, link, _ = w.round(link); len(items) != 1 || items[0].text("subject") != "x" {
			t.Errorf("after the lag of the first change: %v, want what was then", items)
		}
		time.Sleep(40 * time.Second)
		if items, link, _ = w.round(link); len(items) != 1 || items[0].text("subject") != "y" {
			t.Errorf("after that of the second: %v", items)
		}
		w.ExpireDeltaTokens()
		wantError(t, "expired", w.get(link), 410, "SyncStateNotFound")
		w.SetFaults(func(f *Faults) { f.ResyncRequired = true })
		r := w.get(link)
		wantError(t, "with a Location", r, 410, "resyncRequired")
		if items, _, _ := w.round(r.header.Get("Location")); len(items) != 1 {
			t.Errorf("the Location leads to %v, want the whole window", items)
		}
	})
}

func TestTheOtherFaultsOfDeltaTouchCalendars(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		for range 5 {
			w.meet(Meeting{Start: at("2000-01-05T09:00Z")})
		}
		w.SetFaults(func(f *Faults) { f.EmptyPages, f.RepeatItems = 0.5, 1 })
		items, _, _ := w.round(w.viewOf("") + "/delta" + january)
		if got := ids(items); len(got) != 10 || len(slices.Compact(got)) != 5 {
			t.Errorf("%d items, want each of 5 twice", len(got))
		}
		w.SetFaults(func(f *Faults) { *f = Faults{LoopNextLink: true} })
		first := w.get(w.viewOf("") + "/delta" + january).text("@odata.nextLink")
		if again := w.get(first).text("@odata.nextLink"); again != first {
			t.Errorf("next link %s leads to %s, want a loop", first, again)
		}
		w.SetFaults(func(f *Faults) { *f = Faults{ForeignNextLink: true} })
		if link := w.get(w.viewOf("") + "/delta" + january).text("@odata.deltaLink"); !strings.HasPrefix(link, "https://graph.evil.example/") {
			t.Errorf("delta link %s, want another host", link)
		}
	})
}

// TestCalendarDeltaConverges changes a calendar at random between the pages of rounds, with everything that the contract
// allows switched on, and compares what a client that collects rounds knows after each with what takes place.
func TestCalendarDeltaConverges(t *testing.T) {
	for seed := range int64(12) {
		inBubble(t, Options{Seed: seed, NoLimits: true}, func(t *testing.T, w *world) {
			w.SetFaults(func(f *Faults) { f.EmptyPages, f.RepeatItems, f.SplitSeries = 0.2, 0.2, seed%2 == 1 })
			rng := rand.New(rand.NewPCG(uint64(seed), 2))
			when := func() time.Time { return at("2000-01-01").Add(time.Duration(rng.IntN(60*24)) * time.Hour) }
			change := func() {
				start, subject := when(), fmt.Sprint(rng.IntN(1000))
				list := w.Meetings(mailbox)
				dates := w.Instances(mailbox, "", at("2000-01-01"), at("2000-03-01"))
				switch n := rng.IntN(10); {
				case n < 2 || len(dates) == 0:
					w.meet(Meeting{Subject: subject, Start: start})
				case n < 3:
					w.meet(Meeting{Subject: subject, Start: start, Recurrence: &Recurrence{Type: "weekly", RangeType: "numbered", Count: 5}})
				case n < 5:
					w.do(w.UpdateMeeting(mailbox, dates[rng.IntN(len(dates))].ID, MeetingPatch{Start: &start, Subject: &subject}))
				case n < 7:
					w.do(w.UpdateMeeting(mailbox, list[rng.IntN(len(list))].ID, MeetingPatch{Subject: &subject}))
				case n < 8:
					w.do(w.UpdateMeeting(mailbox, list[rng.IntN(len(list))].ID, MeetingPatch{Start: &start}))
				case n < 9:
					w.do(w.DeleteMeeting(mailbox, dates[rng.IntN(len(dates))].ID))
				default:
					w.do(w.CancelMeeting(mailbox, dates[rng.IntN(len(dates))].ID))
				}
			}
			known := map[string]item{} // what takes place, by id
			link := w.viewOf("") + "/delta" + january
			for n := range 30 {
				for range rng.IntN(4) {
					change()
				}
				var items []item
				for target := link; target != ""; {
					r := w.call("GET", target, "", "Prefer", `IdType="ImmutableId", odata.maxpagesize=3`)
					items = append(items, r.values()...)
					target, link = r.text("@odata.nextLink"), r.text("@odata.deltaLink")
					if target != "" && rng.IntN(4) == 0 && n < 29 {
						change()
					}
				}
				foldView(known, items)
			}
			items, _, _ := w.round(link)
			foldView(known, items)
			want := map[string]string{}
			for _, i := range w.Instances(mailbox, "", at("2000-01-01"), at("2000-02-01")) {
				want[i.ID] = i.Type + " " + i.Start.Format(time.RFC3339)
			}
			got := map[string]string{}
			for id, i := range known {
				start, _ := i["start"].(map[string]any)
				got[id] = i.text("type") + " " + strings.TrimSuffix(fmt.Sprint(start["dateTime"]), ".0000000") + "Z"
			}
			if !maps.Equal(got, want) {
				t.Errorf("seed %d: known %v\nwant %v", seed, got, want)
			}
		})
	}
}

// foldView applies a whole round: a series that is in it replaces all that was known of it (D-36d).
func foldView(known map[string]item, items []item) {
	drop := func(series string) {
		maps.DeleteFunc(known, func(_ string, i item) bool { return i.text("seriesMasterId") == series })
	}
	for _, i := range items {
		switch id := i.text("id"); {
		case i["@removed"] != nil:
			delete(known, id)
			drop(id)
		case i.text("type") == "seriesMaster":
			delete(known, id) // it may have been single
			drop(id)
		}
	}
	for _, i := range items {
		if i["@removed"] == nil && i.text("type") != "seriesMaster" {
			known[i.text("id")] = i
		}
	}
}

func TestCalendarLists(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		for i := range 3 {
			_, err := w.AddCalendar(mailbox, fmt.Sprint("Calendar ", i))
			w.do(err)
		}
		var names []string
		pages := 0
		for target := "/users/" + mailbox + "/calendars?$top=2&$select=name,isDefaultCalendar"; target != ""; pages++ {
			r := w.get(target)
			for _, c := range r.values() {
				names = append(names, c.text("name"))
				if len(c) != 3 || c["isDefaultCalendar"] != (c.text("name") == "Calendar") {
					t.Errorf("a calendar: %v", c)
				}
			}
			target = r.text("@odata.nextLink")
		}
		if pages != 2 || !slices.Equal(names, []string{"Calendar", "Calendar 0", "Calendar 1", "Calendar 2"}) {
			t.Errorf("%d pages of %q", pages, names)
		}
		def := w.get("/users/" + mailbox + "/calendar")
		if def.text("id") != w.DefaultCalendarID(mailbox) || def.body["isDefaultCalendar"] != true || def.body["owner"] == nil {
			t.Errorf("the default calendar: %s", def.raw)
		}
		if one := w.get("/users/" + mailbox + "/calendars('" + url.PathEscape(def.text("id")) + "')"); one.text("id") != def.text("id") {
			t.Errorf("by its id: %s", one.raw)
		}
		w.do(w.SetTimeZone(mailbox, "W. Europe Standard Time"))
		if r := w.get("/users/" + mailbox + "/mailboxSettings/timeZone"); r.text("value") != "W. Europe Standard Time" {
			t.Errorf("the time zone: %s", r.raw)
		}
		if r := w.get("/users/" + mailbox + "/mailboxSettings?$select=timeZone"); r.text("timeZone") != "W. Europe Standard Time" || len(r.body) != 2 {
			t.Errorf("the settings: %s", r.raw)
		}
	})
}

func TestCalendarRequestsAreCounted(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		u, id := "/users/"+mailbox, w.weekly()
		for _, target := range []string{
			u + "/events/" + id, u + "/calendar", u + "/calendars", u + "/calendarView" + january, u + "/calendarView/delta" + january,
			u + "/events/" + id + "/instances" + january, u + "/mailboxSettings", u + "/mailboxSettings/timeZone",
		} {
			if r := w.get(target); r.status != 200 {
				t.Errorf("%s: %d %s", target, r.status, r.raw)
			}
		}
		want := map[string]int{
			"token": 1, "event.get": 1, "event.instances": 1, "calendar.get": 1, "calendar.list": 1, "calendarview": 1,
			"calendarview.delta": 1, "mailboxsettings": 2,
		}
		if got := w.Requests(); !maps.Equal(got, want) {
			t.Errorf("counted %v, want %v", got, want)
		}
	})
}

// BenchmarkCalendarDelta pages through a window of 5,000 dates of ten series.
func BenchmarkCalendarDelta(b *testing.B) {
	s := New(Options{})
	s.AddUser(mailbox)
	for hour := range 10 {
		m := Meeting{Start: at("2000-01-01").Add(time.Duration(hour+1) * time.Hour), TimeZone: "Europe/Berlin", Recurrence: &Recurrence{Type: "daily"}}
		if _, err := s.AddMeeting(mailbox, m); err != nil {
			b.Fatal(err)
		}
	}
	c, utc := s.users[0].calendars[0], &zone{"UTC", time.UTC}
	for b.Loop() {
		r := round{View: &view{From: at("2001-01-01"), Until: at("2002-05-16")}, Full: true, Start: len(c.log)}
		items := 0
		for end := false; !end; {
			var page []toldMeeting
			page, end = s.walkView(c, &r, 200)
			buf := make([]byte, 0, 1<<18)
			for _, it := range page {
				buf = appendStub(buf, it.instance, utc, true)
			}
			items += len(page)
		}
		if items != 5010 {
			b.Fatalf("%d items", items)
		}
	}
	b.ReportMetric(5000*float64(b.N)/b.Elapsed().Seconds(), "items/s")
}
