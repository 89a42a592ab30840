package emulator

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestControlOfCalendars(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		base := w.opts.Root + "/emulator/users/" + mailbox
		send := func(method, target, body string, headers ...string) reply {
			t.Helper()
			r := w.send(method, target, body, headers...)
			if r.status != 200 {
				t.Errorf("%s %s: %d %s", method, target, r.status, r.raw)
			}
			return r
		}
		list := func(target string) (out []item) {
			t.Helper()
			if err := json.Unmarshal([]byte(send("GET", target, "").raw), &out); err != nil {
				t.Errorf("%s: %v", target, err)
			}
			return out
		}
		projects := send("POST", base+"/calendars", `{"name":"Projects"}`).text("id")
		if c := list(base + "/calendars"); len(c) != 2 || c[0]["isDefaultCalendar"] != true || c[1].text("id") != projects {
			t.Errorf("calendars %v", c)
		}
		send("PUT", base+"/timeZone", `{"timeZone":"Tokyo Standard Time"}`)
		if r := w.get("/users/" + mailbox + "/mailboxSettings/timeZone"); r.text("value") != "Tokyo Standard Time" {
			t.Errorf("time zone %s", r.raw)
		}
		single := send("POST", base+"/meetings", `{"subject":"x","calendar":"Projects","start":"2000-01-05T09:00:00Z","organizer":{"address":"bob@contoso.com"}}`).text("id")
		series := send("POST", base+"/meetings", `{"subject":"s","start":"2000-01-03T09:00:00Z","timeZone":"Europe/Berlin",
			"attendees":[{"name":"Ada","address":"ada@contoso.com","type":"optional"}],"recurrence":{"type":"weekly","rangeType":"numbered","count":4}}`).text("id")
		send("PATCH", base+"/meetings/"+single, `{"subject":"y","start":"2000-01-05T10:00:00Z"}`)
		send("POST", base+"/meetings/"+single+"/respond", `{"response":"accepted"}`)
		send("PATCH", base+"/meetings/"+series+"?originalStart=2000-01-10T09:00:00Z", `{"subject":"own"}`)
		send("POST", base+"/meetings/"+series+"/respond?originalStart=2000-01-10T09:00:00Z", `{"attendee":"ada@contoso.com","response":"declined"}`)
		send("POST", base+"/meetings/"+series+"/cancel?originalStart=2000-01-17T10:00:00%2B01:00", "")
		send("DELETE", base+"/meetings/"+series+"?originalStart=2000-01-24T09:00:00Z", "")
		if m := list(base + "/meetings"); len(m) != 2 || m[0].text("response") != "accepted" || m[0].text("subject") != "y" || m[1].text("type") != "seriesMaster" {
			t.Errorf("meetings %v", m)
		}
		const window = "?from=2000-01-01&until=2000-02-01"
		dates := list(base + "/meetings" + window)
		var got []string
		for _, i := range dates {
			got = append(got, i.text("type")+" "+i.text("subject"))
		}
		if want := []string{"occurrence s", "exception own", "exception s"}; !slices.Equal(got, want) {
			t.Errorf("takes place %q, want %q", got, want)
		}
		if dates[2]["cancelled"] != true {
			t.Errorf("the third date: %v", dates[2])
		}
		if there := list(base + "/meetings" + window + "&calendar=" + url.QueryEscape(projects)); len(there) != 1 || there[0].text("id") != single {
			t.Errorf("in the other calendar %v", there)
		}
		send("POST", base+"/meetings/"+single+"/cancel", "")
		send("DELETE", base+"/meetings/"+dates[0].text("id"), "")
		send("DELETE", base+"/meetings/"+single, "")
		if m := list(base + "/meetings"); len(m) != 1 || len(list(base+"/meetings"+window)) != 2 {
			t.Errorf("after deleting %v", m)
		}
		if users := list(w.opts.Root + "/emulator/users"); users[0]["meetings"] != 1.0 {
			t.Errorf("users %v", users)
		}
		if l := list(w.opts.Root + "/emulator/ledger/meetings"); len(l) != 11 || l[10].text("kind") != "deleted" || l[4].text("occurrence") == "" {
			t.Errorf("ledger %v", l)
		}
		calendar := calendarOf(eventOf("UID:1", "DTSTART:20000106T090000Z"), eventOf("UID:2", "DTSTART:20000106T090000Z", "RRULE:FREQ=HOURLY"))
		r := send("POST", base+"/meetings", calendar, "Content-Type", "text/calendar; charset=utf-8")
		if problems, _ := r.body["problems"].([]any); r.body["imported"] != 1.0 || len(problems) != 1 {
			t.Errorf("imported %s", r.raw)
		}
		send("POST", w.opts.Root+"/emulator/faults", `{"oneNotice":true,"splitSeries":true,"masterMissing":true,"failNext":{"op":"calendarview","status":503}}`)
		w.Server.mu.Lock()
		f := w.faults
		w.Server.mu.Unlock()
		if !f.OneNotice || !f.SplitSeries || !f.MasterMissing {
			t.Errorf("faults %+v", f)
		}
		wantError(t, "a planned fault", w.get(w.viewOf("")+january), 503, "ServiceUnavailable")
	})
}

func TestControlOfCalendarsRefuses(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		base := w.opts.Root + "/emulator/users/" + mailbox
		id := w.weekly()
		for _, c := range []struct {
			name, method, target, body string
			status                     int
		}{
			{"a misspelled property", "POST", "/meetings", `{"subjekt":"x","start":"2000-01-05T09:00:00Z"}`, 400},
			{"no start", "POST", "/meetings", `{"subject":"x"}`, 400},
			{"no such calendar", "POST", "/meetings", `{"calendar":"x","start":"2000-01-05T09:00:00Z"}`, 404},
			{"no such meeting", "DELETE", "/meetings/x", "", 404},
			{"no such date", "DELETE", "/meetings/" + id + "?originalStart=2000-01-05T09:00:00Z", "", 404},
			{"a date that is none", "DELETE", "/meetings/" + id + "?originalStart=monday", "", 400},
			{"a patch that is none", "PATCH", "/meetings/" + id, `{"when":"now"}`, 400},
			{"a patch that cannot be", "PATCH", "/meetings/" + id, `{"showAs":"away"}`, 400},
			{"no response", "POST", "/meetings/" + id + "/respond", `{}`, 400},
			{"a stranger's response", "POST", "/meetings/" + id + "/respond", `{"attendee":"x","response":"accepted"}`, 400},
			{"a response that is not JSON", "POST", "/meetings/" + id + "/respond", `yes`, 400},
			{"another verb", "POST", "/meetings/" + id + "/postpone", "", 404},
			{"another method", "PUT", "/meetings/" + id, "", 404},
			{"a window without an end", "GET", "/meetings?from=2000-01-01", "", 400},
			{"a window of a century", "GET", "/meetings?from=2000-01-01&until=2100-01-01", "", 400},
			{"a calendar without a name", "POST", "/calendars", `{}`, 400},
			{"a calendar that is not JSON", "POST", "/calendars", `x`, 400},
			{"an unknown zone", "PUT", "/timeZone", `{"timeZone":"Middle Earth"}`, 400},
			{"a zone that is not JSON", "PUT", "/timeZone", `UTC`, 400},
			{"below the zone", "PUT", "/timeZone/x", `{}`, 404},
		} {
			if r := w.send(c.method, base+c.target, c.body); r.status != c.status || r.text("error") == "" {
				t.Errorf("%s: %d %s, want %d", c.name, r.status, r.raw, c.status)
			}
		}
		r := w.send(http.MethodPost, base+"/meetings", "Hello", "Content-Type", "text/calendar")
		if r.status != 400 || !strings.Contains(r.text("error"), "not an iCalendar file") {
			t.Errorf("a text as a calendar: %d %s", r.status, r.raw)
		}
		if n := len(w.MeetingLedger()); n != 1 {
			t.Errorf("something changed all the same: %v", w.MeetingLedger())
		}
	})
}
