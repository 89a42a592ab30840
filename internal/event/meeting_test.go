package event_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	jsonx "github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/event"
)

func mergeMeeting(t testing.TB, o *event.ObservedMeeting, raw string) {
	t.Helper()
	if err := o.Merge([]byte(raw)); err != nil {
		t.Fatalf("Merge(%s): %v", raw, err)
	}
}

// page reads the events of a recorded or documented answer, which may also be one event.
func page(t testing.TB, file string) (events []string) {
	t.Helper()
	var raw json.RawMessage
	readJSON(t, filepath.Join("testdata/graph", file), &raw)
	var list struct{ Value []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `"value"`) {
		return []string{string(raw)}
	}
	for _, v := range list.Value {
		events = append(events, string(v))
	}
	return events
}

func TestMergeAWholeEvent(t *testing.T) {
	var o event.ObservedMeeting
	mergeMeeting(t, &o, page(t, "recorded-event-get-group.json")[0])
	want := event.ObservedMeeting{
		ID:           "AAMkAGViYzY5NTVhLTcxNzUtNDE3YS05N2FhLTNhODU5OWE2MWVlZABGAAAAAABYnoNt8-_-QbEnnjxv3TP-BwAJk-rg5HJKR4HmS51TSiYlAAAAAAENAAAJk-rg5HJKR4HmS51TSiYlAAApEW8FAAA=",
		ChangeKey:    "CZP64ORySkeB5kudU0omJQAAKRHXXg",
		LastModified: "2022-11-06T03:39:10.8473034Z",
		Meeting: event.Meeting{
			InstanceKind: event.SingleInstance,
			ICalUID:      "040000008200E00074C5B7101A82E00800000000DC88BE5491F1D8010000000000000000100000005649C98E9D445245BF56D9CCFEE85BA5",
			Subject:      "Heyyyyyyy",
			Start:        event.Moment{DateTime: "2022-11-02T15:00:00Z", TimeZone: "Central Standard Time"},
			End:          event.Moment{DateTime: "2022-11-02T15:30:00Z", TimeZone: "Central Standard Time"},
			IsOrganizer:  true, Response: "organizer",
			Organizer: &event.Address{Name: "Sample Team Site", Address: "SampleTeamSite@23ns5m.onmicrosoft.com"},
			ShowAs:    "busy", Sensitivity: "normal", Importance: "normal", Categories: []string{},
			CreatedAt: "2022-11-06T03:39:10.17546Z", BodyPreview: "What's up",
		},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	checkMeeting(t, o)
}

// The master of a series comes in full and is no date; its occurrences come as stubs of its version (D-36a, D-36b, M-5).
func TestMergeASeries(t *testing.T) {
	items := page(t, "recorded-delta-calendarview-series.json")
	var master event.ObservedMeeting
	mergeMeeting(t, &master, items[0])
	m := &master.Meeting
	if master.Stub || m.InstanceKind != event.SeriesMaster || m.SeriesMasterID != "" || m.Location != "Sikkim" || m.Start.TimeZone != "Eastern Standard Time" {
		t.Errorf("master %+v", master)
	}
	const recurrence = `{"pattern":{"dayOfMonth":0,"firstDayOfWeek":"sunday","index":"first","interval":1,"month":0,"type":"daily"},` +
		`"range":{"endDate":"2023-12-07","numberOfOccurrences":0,"recurrenceTimeZone":"Eastern Standard Time","startDate":"2023-12-05","type":"endDate"}}`
	if string(m.Recurrence) != recurrence {
		t.Errorf("recurrence %s", m.Recurrence)
	}
	for i, raw := range items[1:] {
		var o event.ObservedMeeting
		mergeMeeting(t, &o, raw)
		day := []string{"2023-12-05", "2023-12-06"}[i]
		want := event.ObservedMeeting{
			ID: []string{"2==", "3=="}[i], ChangeKey: master.ChangeKey, Stub: true,
			Meeting: event.Meeting{
				InstanceKind: event.Occurrence, SeriesMasterID: master.ID,
				Start: event.Moment{DateTime: day + "T07:00:00Z"}, End: event.Moment{DateTime: day + "T07:30:00Z"},
			},
		}
		if !reflect.DeepEqual(o, want) {
			t.Errorf("got  %+v\nwant %+v", o, want)
		}
		checkMeeting(t, o)
	}
}

func TestMergeTheRecordedStub(t *testing.T) {
	var o event.ObservedMeeting
	mergeMeeting(t, &o, page(t, "recorded-delta-occurrence-stub.json")[0])
	if !o.Stub || o.ChangeKey != "qU3PyJwbLk2ME1AW_lSG-AAAdPhLJw" || o.Meeting.Start.DateTime != "2017-09-19T05:00:00Z" || o.Meeting.End.DateTime != "2017-09-19T06:00:00Z" {
		t.Errorf("got %+v", o)
	}
}

func TestMergeEveryEventThatGraphIsKnownToSend(t *testing.T) {
	var files []string
	for _, pattern := range []string{"delta-calendarview-*.json", "delta-events-*.json", "event-*.json", "recorded-delta-*.json", "recorded-event-*.json"} {
		found, err := filepath.Glob("testdata/graph/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	seen := map[string]event.ObservedMeeting{}
	for _, path := range files {
		for _, raw := range page(t, filepath.Base(path)) {
			if strings.Contains(raw, "@removed") {
				continue
			}
			var o event.ObservedMeeting
			mergeMeeting(t, &o, raw)
			checkMeeting(t, o)
			seen[o.Meeting.Subject+" "+o.Meeting.Start.DateTime] = o
		}
	}
	if len(seen) < 17 {
		t.Errorf("only %d events were found", len(seen))
	}
	for _, tt := range []struct {
		key  string
		want func(o *event.ObservedMeeting) bool
	}{
		{"Attend service 2016-12-25T06:00:00Z", func(o *event.ObservedMeeting) bool {
			return o.Meeting.Location == "Chapel of Saint Ignatius" && o.Meeting.InstanceKind == event.SingleInstance && o.Meeting.Body != nil
		}},
		{"New Product Regulations Touchpoint 2014-11-03T17:00:00Z", func(o *event.ObservedMeeting) bool {
			return slices.Equal(o.Meeting.Attendees, []event.Attendee{
				{Name: "Engineering", Address: "engineering@M365x214355.onmicrosoft.com", Type: "required", Response: "none"},
				{Name: "Irvin Sayers", Address: "IrvinS@M365x214355.onmicrosoft.com", Type: "required", Response: "none"},
			}) && len(o.BodyHash) == 32 && o.Meeting.Organizer.Name == "Engineering"
		}},
		// Noon in summer in Los Angeles: the answer is not in UTC.
		{"Let's go for lunch 2017-09-04T19:00:00Z", func(o *event.ObservedMeeting) bool {
			return o.Meeting.End.DateTime == "2017-09-04T21:00:00Z" && o.Meeting.Start.TimeZone == "Pacific Standard Time" && o.Meeting.Recurrence != nil && o.WebLink != ""
		}},
		{"Review strategy for Q3 2019-04-16T20:30:00Z", func(o *event.ObservedMeeting) bool {
			return o.Meeting.InstanceKind == event.Exception && !o.Stub && o.Meeting.Recurrence == nil && o.Meeting.SeriesMasterID == "AAMkAGUzYRgWAAA="
		}},
		{"Review strategy for Q3 2019-04-08T20:30:00Z", func(o *event.ObservedMeeting) bool { // a list tells more of an occurrence than delta does
			return o.Meeting.InstanceKind == event.Occurrence && !o.Stub
		}},
		{" 2020-02-19T10:00:00Z", func(o *event.ObservedMeeting) bool { // a blank before the id, DateTime and TimeZone with capitals
			return o.ID == "AAMkADllMWMwNDkzLWJlY2EtNDIyOS1iZjAA=" && o.Meeting.End.DateTime == "2020-02-19T11:00:00Z" && o.Meeting.Start.TimeZone == ""
		}},
	} {
		if o, ok := seen[tt.key]; !ok || !tt.want(&o) {
			t.Errorf("%s: %v, %+v", tt.key, ok, o)
		}
	}
}

// Notifications write the version of an event with a head, and GET without one: text comparison never matches (W-9a).
func TestTheVersionOfANotificationIsThatOfGET(t *testing.T) {
	var got event.ObservedMeeting
	raw := page(t, "recorded-event-get-group.json")[0]
	mergeMeeting(t, &got, raw)
	var bare struct{ ChangeKey string }
	if err := json.Unmarshal([]byte(raw), &bare); err != nil {
		t.Fatal(err)
	}
	version, err := base64.StdEncoding.DecodeString(bare.ChangeKey)
	if err != nil {
		t.Fatal(err)
	}
	announced := `W/"` + base64.StdEncoding.EncodeToString(append([]byte("\x0F\x00\x00\x00\x16\x00\x00\x00"), version...)) + `"`
	if !strings.HasPrefix(announced, `W/"DwAAABYAAAAJk/rg5HJKR4HmS51TSiYlAAA`) || event.ChangeKey(announced) != got.ChangeKey {
		t.Errorf("%s is %s, GET has %s", announced, event.ChangeKey(announced), got.ChangeKey)
	}
	keys := map[string]string{}
	for _, kind := range []string{"created", "updated", "deleted"} {
		var n struct {
			Value []struct {
				ResourceData struct {
					Etag string `json:"@odata.etag"`
				}
			}
		}
		readJSON(t, "testdata/graph/recorded-notification-event-"+kind+".json", &n)
		keys[kind] = event.ChangeKey(n.Value[0].ResourceData.Etag)
	}
	// Another event of the same mailbox: all but the counter at the end is the same.
	mailbox := got.ChangeKey[:22]
	if !strings.HasPrefix(keys["created"], mailbox) || !strings.HasPrefix(keys["updated"], mailbox) || keys["created"] == keys["updated"] || keys["deleted"] != "" {
		t.Errorf("notifications have %v, GET has %s", keys, got.ChangeKey)
	}
}

func TestMergeOfMeetingTimes(t *testing.T) {
	const start = `{"start":{"dateTime":"2026-09-07T09:00:00.0000000","timeZone":"UTC"}`
	tests := []struct {
		name, raw string
		want      event.Moment
	}{
		{"UTC", start + `}`, event.Moment{DateTime: "2026-09-07T09:00:00Z"}},
		{"the zone it was made in", start + `,"originalStartTimeZone":"W. Europe Standard Time"}`, event.Moment{DateTime: "2026-09-07T09:00:00Z", TimeZone: "W. Europe Standard Time"}},
		{"a zone of Exchange's own making", start + `,"originalStartTimeZone":"tzone://Microsoft/Custom"}`, event.Moment{DateTime: "2026-09-07T09:00:00Z", TimeZone: "tzone://Microsoft/Custom"}},
		{"no zone is UTC", `{"start":{"dateTime":"2026-09-07T09:00:00"}}`, event.Moment{DateTime: "2026-09-07T09:00:00Z"}},
		{"null as zone is UTC", `{"start":{"dateTime":"2026-09-07T09:00:00","timeZone":null}}`, event.Moment{DateTime: "2026-09-07T09:00:00Z"}},
		{"a Z after the time", `{"start":{"dateTime":"2026-09-07T09:00:00Z","timeZone":"UTC"}}`, event.Moment{DateTime: "2026-09-07T09:00:00Z"}},
		{"a fraction", `{"start":{"dateTime":"2026-09-07T09:00:00.2500000","timeZone":"UTC"}}`, event.Moment{DateTime: "2026-09-07T09:00:00.25Z"}},
		{"a Windows zone", `{"start":{"dateTime":"2026-09-07T09:00:00.0000000","timeZone":"Pacific Standard Time"}}`, event.Moment{DateTime: "2026-09-07T16:00:00Z", TimeZone: "Pacific Standard Time"}},
		{"an IANA zone", `{"start":{"timeZone":"Asia/Kolkata","dateTime":"2026-09-07T09:00:00.0000000"}}`, event.Moment{DateTime: "2026-09-07T03:30:00Z", TimeZone: "Asia/Kolkata"}},
		{"an IANA zone, made in another", `{"originalStartTimeZone":"Tokyo Standard Time","start":{"timeZone":"Asia/Kolkata","dateTime":"2026-09-07T09:00:00.0000000"}}`, event.Moment{DateTime: "2026-09-07T03:30:00Z", TimeZone: "Tokyo Standard Time"}},
		{"an unknown zone is kept and taken for UTC", `{"start":{"dateTime":"2026-09-07T09:00:00","timeZone":"Customized Time Zone"}}`, event.Moment{DateTime: "2026-09-07T09:00:00Z", TimeZone: "Customized Time Zone"}},
		{"names with capitals, and others", `{"start":{"DateTime":"2026-09-07T09:00:00","TIMEZONE":"UTC","@odata.type":"x","more":[{}]}}`, event.Moment{DateTime: "2026-09-07T09:00:00Z"}},
		{"all day, said before", `{"isAllDay":true,"start":{"dateTime":"2026-09-07T00:00:00.0000000","timeZone":"UTC"}}`, event.Moment{Date: "2026-09-07"}},
		{"all day, said after", `{"start":{"dateTime":"2026-09-07T00:00:00.0000000","timeZone":"UTC"},"isAllDay":true}`, event.Moment{Date: "2026-09-07"}},
		{"all day, as text", `{"start":{"dateTime":"2026-09-07T00:00:00.0000000","timeZone":"UTC"},"isAllDay":"true"}`, event.Moment{Date: "2026-09-07"}},
		{"all day in a zone", `{"isAllDay":true,"start":{"dateTime":"2026-09-07T00:00:00.0000000","timeZone":"Tokyo Standard Time"}}`, event.Moment{Date: "2026-09-07", TimeZone: "Tokyo Standard Time"}},
		{"null", `{"start":null,"originalStartTimeZone":"UTC"}`, event.Moment{TimeZone: "UTC"}},
		{"nothing in it", `{"start":{}}`, event.Moment{}},
		{"the first second of summer time that Berlin does not have", `{"start":{"dateTime":"2026-03-29T03:00:00","timeZone":"W. Europe Standard Time"}}`, event.Moment{DateTime: "2026-03-29T01:00:00Z", TimeZone: "W. Europe Standard Time"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var o event.ObservedMeeting
			mergeMeeting(t, &o, tt.raw)
			if o.Meeting.Start != tt.want || o.Meeting.End != (event.Moment{}) {
				t.Errorf("start %+v, end %+v, want %+v", o.Meeting.Start, o.Meeting.End, tt.want)
			}
			o = event.ObservedMeeting{}
			mergeMeeting(t, &o, strings.NewReplacer(`"start"`, `"end"`, "originalStart", "originalEnd").Replace(tt.raw))
			if o.Meeting.End != tt.want || o.Meeting.Start != (event.Moment{}) {
				t.Errorf("as end: %+v, start %+v, want %+v", o.Meeting.End, o.Meeting.Start, tt.want)
			}
			checkMeeting(t, o)
		})
	}
}

func TestMergeOddButReadableEvents(t *testing.T) {
	tests := []struct {
		name, raw string
		want      func(o *event.ObservedMeeting) bool
	}{
		{"no type", `{}`, func(o *event.ObservedMeeting) bool { return o.Meeting.InstanceKind == event.SingleInstance && !o.Stub }},
		{"no type, but a master", `{"seriesMasterId":"m"}`, func(o *event.ObservedMeeting) bool { return o.Meeting.InstanceKind == event.Occurrence && o.Stub }},
		{"no type, and null as master", `{"seriesMasterId":null,"type":null}`, func(o *event.ObservedMeeting) bool { return o.Meeting.InstanceKind == event.SingleInstance }},
		{"an occurrence in full", `{"type":"occurrence","seriesMasterId":"m","iCalUId":"u"}`, func(o *event.ObservedMeeting) bool { return !o.Stub }},
		{"an occurrence without a subject", `{"type":"occurrence","seriesMasterId":"m","subject":null}`, func(o *event.ObservedMeeting) bool { return !o.Stub }},
		{"an exception is no stub", `{"type":"exception","seriesMasterId":"m"}`, func(o *event.ObservedMeeting) bool { return !o.Stub }},
		{"when the series had it", `{"originalStart":"2026-09-07T11:00:00.0000000+02:00"}`, func(o *event.ObservedMeeting) bool { return o.Meeting.OriginalStart == "2026-09-07T09:00:00Z" }},
		{"an old and a new link to join", `{"onlineMeetingUrl":"https://old","onlineMeeting":{"joinUrl":"https://new","conferenceId":"1"},"isOnlineMeeting":true}`, func(o *event.ObservedMeeting) bool {
			return o.Meeting.JoinURL == "https://new" && o.Meeting.IsOnline
		}},
		{"an old link alone", `{"onlineMeeting":null,"onlineMeetingUrl":"https://old"}`, func(o *event.ObservedMeeting) bool { return o.Meeting.JoinURL == "https://old" }},
		{"booleans as text", `{"isCancelled":"true","isOrganizer":"true","isDraft":"true","hasAttachments":"false"}`, func(o *event.ObservedMeeting) bool {
			return o.Meeting.IsCancelled && o.Meeting.IsOrganizer && o.Draft && !o.Meeting.HasAttachments
		}},
		{"attendees of whom little is known", `{"attendees":[{"type":"resource"},null,{"emailAddress":null,"status":null},{"emailAddress":{"address":"a@x.example"},"status":{"response":"accepted"},"proposedNewTime":{}}]}`, func(o *event.ObservedMeeting) bool {
			return slices.Equal(o.Meeting.Attendees, []event.Attendee{{Type: "resource"}, {}, {}, {Address: "a@x.example", Response: "accepted"}})
		}},
		{"no attendees", `{"attendees":[]}`, func(o *event.ObservedMeeting) bool { return o.Meeting.Attendees == nil }},
		{"no organizer", `{"organizer":{"emailAddress":{}}}`, func(o *event.ObservedMeeting) bool { return o.Meeting.Organizer == nil }},
		{"a rule in another order", "{\"recurrence\": {\"range\" : {\"type\":\"noEnd\"}, \n \"pattern\":{\"type\":\"daily\",\"interval\":1.0}}}", func(o *event.ObservedMeeting) bool {
			return string(o.Meeting.Recurrence) == `{"pattern":{"interval":1,"type":"daily"},"range":{"type":"noEnd"}}`
		}},
		{"a rule with a name twice", `{"recurrence":{"a":1,"a":2}}`, func(o *event.ObservedMeeting) bool { return string(o.Meeting.Recurrence) == `{"a":2}` }},
		{"no rule", `{"recurrence":null}`, func(o *event.ObservedMeeting) bool { return o.Meeting.Recurrence == nil }},
		{"a stray byte", "{\"subject\":\"caf\xe9\",\"location\":{\"displayName\":\"\xff\"}}", func(o *event.ObservedMeeting) bool {
			return o.Meeting.Subject == "caf\uFFFD" && o.Meeting.Location == "\uFFFD"
		}},
		{"half a surrogate pair", `{"subject":"a\ud83d","recurrence":{"\ud800":"\udc4d"}}`, func(o *event.ObservedMeeting) bool {
			return o.Meeting.Subject == "a\uFFFD" && string(o.Meeting.Recurrence) == "{\"\uFFFD\":\"\uFFFD\"}"
		}},
		{"an etag alone", `{"@odata.etag":"W/\"DwAAABYAAACpTc/InBsuTYwTUBb+VIb4AAB0+Esn\""}`, func(o *event.ObservedMeeting) bool { return o.ChangeKey == "qU3PyJwbLk2ME1AW_lSG-AAAdPhLJw" }},
		{"a body", `{"body":{"contentType":"text","content":"hello"}}`, func(o *event.ObservedMeeting) bool { return o.Meeting.Body.Content == "hello" && len(o.BodyHash) == 32 }},
		{"properties that nobody knows", `{"calendar@odata.navigationLink":"https://x","locations":[{}],"OnlineMeeting":null}`, func(o *event.ObservedMeeting) bool { return o.Meeting.Location == "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var o event.ObservedMeeting
			mergeMeeting(t, &o, tt.raw)
			if !tt.want(&o) {
				t.Errorf("Merge(%s) gave %+v", tt.raw, o)
			}
			checkMeeting(t, o)
		})
	}
}

func TestMergeRefusesWhatIsNoEvent(t *testing.T) {
	for _, raw := range []string{
		"", " ", "null", "[]", `"text"`, "1", "{", `{"subject"`, `{"subject":`, `{"subject":"secret"`, `{"subject":"secret",`, `{"subject" "secret"}`,
		`{"subject":1}`, `{"isAllDay":"secret"}`, `{"isDraft":1}`, `{"type":{}}`, `{"id":1}`, `{"categories":"secret"}`, `{"categories":[1]}`,
		`{"organizer":"secret"}`, `{"attendees":{}}`, `{"attendees":["secret"]}`, `{"attendees":[{"status":"secret"}]}`, `{"attendees":[{"emailAddress":{"name":1}}]}`,
		`{"location":"secret"}`, `{"location":{"displayName":1}}`, `{"responseStatus":"secret"}`, `{"onlineMeeting":"secret"}`, `{"onlineMeetingUrl":{}}`,
		`{"recurrence":"secret"}`, `{"recurrence":[]}`, `{"recurrence":{"n":1e999}}`, `{"recurrence":{"a"`, `{"body":"secret"}`, `{"@odata.etag":1}`,
		`{"start":"2026-09-07T09:00:00"}`, `{"start":[]}`, `{"start":{"dateTime":1}}`, `{"start":{"timeZone":1}}`, `{"start":{"dateTime":"secret"}}`,
		`{"start":{"dateTime":"2026-09-07"}}`, `{"start":{"dateTime":"2026-02-30T09:00:00"}}`, `{"start":{"dateTime":"2026-09-07T25:00:00"}}`, `{"end":{"dateTime":"secret"}}`,
		`{"start":{"dateTime":"2026-09-07T09:00:00+02:00"}}`, `{"isAllDay":true,"start":{"dateTime":"secret"}}`, `{"start":{"dateTime":"9999-12-31T23:00:00","timeZone":"Pacific Standard Time"}}`,
		`{"originalStart":"secret"}`, `{"originalStart":"2026-09-07"}`, `{"originalStart":"2026-09-07T09:00:00"}`, `{"originalStart":1}`, "<html>busy</html>",
	} {
		var o event.ObservedMeeting
		if err := o.Merge([]byte(raw)); !errors.Is(err, event.ErrNotMeeting) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Merge(%s) = %v, want ErrNotMeeting and nothing of the content", raw, err)
		}
	}
}

func TestMergeLaysAnEventOverWhatIsKnown(t *testing.T) {
	var o event.ObservedMeeting
	mergeMeeting(t, &o, page(t, "event-recurring-seriesmaster.json")[0])
	mergeMeeting(t, &o, `{"id":"AAMkADQwMD","subject":"Lunch","start":{"dateTime":"2017-09-04T20:00:00.0000000","timeZone":"UTC"}}`)
	m := &o.Meeting
	if m.Subject != "Lunch" || m.Start != (event.Moment{DateTime: "2017-09-04T20:00:00Z", TimeZone: "Pacific Standard Time"}) {
		t.Errorf("what came is not there: %+v", o)
	}
	if m.InstanceKind != event.SeriesMaster || m.Location != "Harry's Bar" || m.End.DateTime != "2017-09-04T21:00:00Z" || len(m.Attendees) != 1 || o.BodyHash == "" || o.ChangeKey != "-T8RDneHMkKe2BGYEaQZ4wAA5a9Acw" {
		t.Errorf("what was known is gone: %+v", o)
	}
}

func TestMergeNullEmptiesAPropertyOfAnEvent(t *testing.T) {
	var full event.ObservedMeeting
	fill(reflect.ValueOf(&full).Elem())
	mergeMeeting(t, &full, `{"id":"1","webLink":null,"createdDateTime":null,"lastModifiedDateTime":null,"isDraft":null,"type":null,"seriesMasterId":null,
		"originalStart":null,"iCalUId":null,"subject":null,"start":null,"end":null,"originalStartTimeZone":null,"originalEndTimeZone":null,"isAllDay":null,
		"isCancelled":null,"isOrganizer":null,"responseStatus":null,"organizer":null,"attendees":null,"location":null,"isOnlineMeeting":null,
		"onlineMeeting":null,"recurrence":null,"showAs":null,"sensitivity":null,"importance":null,"categories":null,"hasAttachments":null,
		"bodyPreview":null,"body":null,"changeKey":null,"@odata.etag":null}`)
	// The local time and the Windows name are not Graph's: At sets them.
	full.Meeting.Start.LocalDateTime, full.Meeting.Start.WindowsTimeZone, full.Meeting.End.LocalDateTime, full.Meeting.End.WindowsTimeZone = "", "", "", ""
	want := event.ObservedMeeting{ID: "1", ChangeKey: full.ChangeKey, Meeting: event.Meeting{InstanceKind: event.SingleInstance}}
	if full.ChangeKey == "" || !reflect.DeepEqual(full, want) {
		t.Errorf("got %+v, want everything empty but id, kind and change key", full)
	}
}

func FuzzMeeting(f *testing.F) {
	files, err := filepath.Glob("testdata/graph/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		for _, raw := range page(f, filepath.Base(path)) {
			f.Add([]byte(raw))
		}
	}
	f.Add([]byte(`{"start":{"dateTime":"2026-09-07T00:00:00","timeZone":"Tokyo Standard Time"},"isAllDay":true,"attendees":[null],"recurrence":{"\ud800":[1e2]},"categories":[null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var once event.ObservedMeeting
		if err := once.Merge(raw); err != nil {
			if !errors.Is(err, event.ErrNotMeeting) {
				t.Errorf("Merge = %v, want ErrNotMeeting or nil", err)
			}
			return
		}
		checkMeeting(t, once)
		twice := once
		if err := twice.Merge(raw); err != nil || !reflect.DeepEqual(once, twice) {
			t.Errorf("merged twice: %v\n%+v\n%+v", err, once, twice)
		}
	})
}

// checkMeeting checks that what was read can be published: its times can be read, it is valid JSON and obeys the schema.
func checkMeeting(t testing.TB, o event.ObservedMeeting) {
	t.Helper()
	for _, s := range []string{o.ID, o.ChangeKey, o.WebLink, o.LastModified} {
		if !utf8.ValidString(s) {
			t.Errorf("%q is not text", s)
		}
	}
	m := &o.Meeting
	if m.InstanceKind == "" || o.Stub && m.InstanceKind != event.Occurrence {
		t.Errorf("kind %q, stub %v", m.InstanceKind, o.Stub)
	}
	for _, at := range []event.Moment{m.Start, m.End, {DateTime: m.OriginalStart}} {
		if at.Date != "" && !m.IsAllDay || at.DateTime != "" && at != (event.Moment{DateTime: m.OriginalStart}) && m.IsAllDay {
			t.Errorf("all day %v, but %+v", m.IsAllDay, at)
		}
		if _, err := time.Parse(time.RFC3339, at.DateTime); at.DateTime != "" && (err != nil || !strings.HasSuffix(at.DateTime, "Z")) {
			t.Errorf("%q is no time in UTC", at.DateTime)
		}
		if _, err := time.Parse(time.DateOnly, at.Date); at.Date != "" && err != nil {
			t.Errorf("%q is no date", at.Date)
		}
	}
	out := m.At(event.ContentBody)
	if again := out.At(event.ContentBody); !reflect.DeepEqual(out, again) {
		t.Errorf("dressed twice: %+v, %+v", out, again)
	}
	b, err := jsonx.Marshal(event.CalendarData{Item: event.CalendarItem{ID: "1", Calendar: &event.Calendar{}}, Event: &out})
	if err != nil {
		t.Fatalf("cannot be published: %v", err)
	}
	if err := validate(event.AreaCalendar, b); err != nil {
		t.Errorf("against the schema: %v\n%s", err, b)
	}
}

// What a level does not let out is written here once more, so that no content can leak by a slip.
func TestAContentLevelLetsOutNoMoreOfAMeetingThanItMay(t *testing.T) {
	from := map[string]event.Content{
		"subject": event.ContentEnvelope, "organizer": event.ContentEnvelope, "attendees": event.ContentEnvelope, "location": event.ContentEnvelope, "joinUrl": event.ContentEnvelope,
		"bodyPreview": event.ContentPreview, "body": event.ContentBody,
	}
	var full event.ObservedMeeting
	fill(reflect.ValueOf(&full).Elem())
	var before event.ObservedMeeting
	fill(reflect.ValueOf(&before).Elem())
	for c := event.ContentReference; c <= event.ContentBody; c++ {
		m := reflect.ValueOf(full.Meeting.At(c))
		for field, v := range m.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			empty := v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
			if lowest, ok := from[name]; empty != (ok && c < lowest) {
				t.Errorf("%v: %s is %v", c, name, v)
			}
		}
	}
	if !reflect.DeepEqual(full, before) {
		t.Errorf("At changed its receiver: %+v", full.Meeting)
	}
	b, err := jsonx.Marshal((event.Meeting{}).At(event.ContentIDs))
	if want := `{"instanceKind":"","start":{},"end":{},"isAllDay":false,"isCancelled":false,"isOrganizer":false,"isOnlineMeeting":false,"categories":[],"hasAttachments":false}`; err != nil || string(b) != want {
		t.Errorf("an empty meeting is %s, %v, want %s", b, err, want)
	}
}

// Clocks are set forward and back at different times in different places, and by half an hour on Lord Howe.
func TestMeetingsAreToldInTheirOwnZone(t *testing.T) {
	const berlin, newYork, kolkata, lordHowe = "W. Europe Standard Time", "Eastern Standard Time", "India Standard Time", "Lord Howe Standard Time"
	tests := []struct{ name, utc, word, local, iana, windows string }{
		{"Berlin in winter", "2026-03-29T00:30:00Z", berlin, "2026-03-29T01:30:00", "Europe/Berlin", berlin},
		{"Berlin, clocks were set forward", "2026-03-29T01:00:00Z", berlin, "2026-03-29T03:00:00", "Europe/Berlin", berlin},
		{"Berlin, the first half past two", "2026-10-25T00:30:00Z", berlin, "2026-10-25T02:30:00", "Europe/Berlin", berlin},
		{"Berlin, the second half past two", "2026-10-25T01:30:00Z", berlin, "2026-10-25T02:30:00", "Europe/Berlin", berlin},
		{"New York, clocks were set forward", "2026-03-08T07:00:00Z", newYork, "2026-03-08T03:00:00", "America/New_York", newYork},
		{"New York in summer while Berlin is in winter", "2026-03-15T13:00:00Z", "America/New_York", "2026-03-15T09:00:00", "America/New_York", newYork},
		{"New York, the second half past one", "2026-11-01T06:30:00Z", newYork, "2026-11-01T01:30:00", "America/New_York", newYork},
		{"Kolkata in winter", "2026-01-15T18:45:00Z", kolkata, "2026-01-16T00:15:00", "Asia/Kolkata", kolkata},
		{"Kolkata in summer", "2026-07-15T18:45:00Z", kolkata, "2026-07-16T00:15:00", "Asia/Kolkata", kolkata},
		{"Lord Howe in summer", "2026-04-04T14:59:00Z", lordHowe, "2026-04-05T01:59:00", "Australia/Lord_Howe", lordHowe},
		{"Lord Howe, clocks were set back by half an hour", "2026-04-04T15:00:00Z", lordHowe, "2026-04-05T01:30:00", "Australia/Lord_Howe", lordHowe},
		{"Lord Howe, clocks were set forward by half an hour", "2026-10-03T15:30:00Z", lordHowe, "2026-10-04T02:30:00", "Australia/Lord_Howe", lordHowe},
		{"a place that Windows does not know", "2026-07-15T12:00:00Z", "Antarctica/Troll", "2026-07-15T14:00:00", "Antarctica/Troll", ""},
		{"a zone of Exchange's own making", "2026-07-15T12:00:00Z", "tzone://Microsoft/Custom", "", "tzone://Microsoft/Custom", ""},
		{"no zone", "2026-07-15T12:00:00Z", "", "", "", ""},
		{"seconds and less", "2026-07-15T12:00:01.5Z", "UTC", "2026-07-15T12:00:01", "UTC", "UTC"},
		{"no time", "", berlin, "", "Europe/Berlin", berlin},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := event.Meeting{Start: at(tt.utc, tt.word), End: at(tt.utc, tt.word)}.At(event.ContentIDs)
			want := event.Moment{DateTime: tt.utc, LocalDateTime: tt.local, TimeZone: tt.iana, WindowsTimeZone: tt.windows}
			if m.Start != want || m.End != want {
				t.Errorf("start %+v, end %+v, want %+v", m.Start, m.End, want)
			}
		})
	}
}

func TestAllDayMeetingsAreDates(t *testing.T) {
	var o event.ObservedMeeting
	mergeMeeting(t, &o, `{"start":{"dateTime":"2026-12-03T00:00:00.0000000","timeZone":"UTC"},"end":{"dateTime":"2026-12-05T00:00:00.0000000","timeZone":"UTC"},
		"originalStartTimeZone":"Tokyo Standard Time","originalEndTimeZone":"tzone://Microsoft/Custom","isAllDay":true}`)
	m := o.Meeting.At(event.ContentIDs)
	if m.Start != (event.Moment{Date: "2026-12-03", TimeZone: "Asia/Tokyo", WindowsTimeZone: "Tokyo Standard Time"}) || m.End != (event.Moment{Date: "2026-12-05", TimeZone: "tzone://Microsoft/Custom"}) {
		t.Errorf("start %+v, end %+v", m.Start, m.End)
	}
}
