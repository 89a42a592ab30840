package event_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/triggerd/triggerd/internal/event"
)

var update = flag.Bool("update", false, "rewrite testdata/events and the examples in docs/events.md")

const (
	docs   = "../../docs/events.md"
	tenant = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
	itemID = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A9Y1kQ2VbEE6RfBw0-1s2bQAAB3Vk1QAA"
)

var (
	inbox    = event.Folder{ID: "AQMkADNkNAAAAgEMAAAA", WellKnownName: "inbox", Path: "Inbox"}
	invoices = event.Folder{ID: "AQMkADNkNAAAAgFaAAAA", Path: "Inbox/Invoices"}
	sent     = event.Folder{ID: "AQMkADNkNAAAAgEJAAAA", WellKnownName: "sentitems", Path: "Sent Items"}
	drafts   = event.Folder{ID: "AQMkADNkNAAAAgEPAAAA", WellKnownName: "drafts", Path: "Drafts"}
	deleted  = event.Folder{ID: "AQMkADNkNAAAAgEKAAAA", WellKnownName: "deleteditems", Path: "Deleted Items"}

	dana  = event.Address{Name: "Dana Swope", Address: "danas@fabrikam.com"}
	sales = event.Address{Name: "Contoso Sales", Address: "sales@contoso.com"}
)

// incoming is the message whose life most of the examples tell.
func incoming() event.Message {
	return event.Message{
		InternetMessageID: "<d41d8cd98f00b204@fabrikam.com>", ConversationID: "AAQkADNkNAAQAJ4Ay1n3sUKVqR5d2ZcHhUQ=",
		Subject: "Invoice 4711", From: &dana, Sender: &dana, ToRecipients: []event.Address{sales},
		CreatedDateTime: "2026-11-23T09:31:18Z", ReceivedDateTime: "2026-11-23T09:31:19Z", SentDateTime: "2026-11-23T09:31:14Z",
		HasAttachments: true, Importance: "normal", Flag: "notFlagged",
		BodyPreview: "Please find our invoice attached.\r\n\r\nKind regards\r\nDana",
		Body:        &event.Body{ContentType: "text", Content: "Please find our invoice attached.\r\n\r\nKind regards\r\nDana Swope\r\n"},
	}
}

func outgoing() event.Message {
	m := incoming()
	m.InternetMessageID, m.Subject, m.From, m.Sender, m.ToRecipients = "<AM0PR04MB6593@AM0PR04MB6593.eurprd04.prod.outlook.com>", "RE: Invoice 4711", &sales, &sales, []event.Address{dana}
	m.CreatedDateTime, m.ReceivedDateTime, m.SentDateTime = "2026-11-23T10:02:41Z", "2026-11-23T10:05:07Z", "2026-11-23T10:05:06Z"
	m.HasAttachments, m.IsRead, m.BodyPreview, m.Body = false, true, "Thank you, it will be paid on Friday.", nil
	return m
}

// sample is an example of one event: what is special about it.
type sample struct {
	area, name string
	at         string // in the mailbox
	version    string
	via        event.Via
	folder     event.Folder
	content    event.Content
	message    event.Message
	edit       func(m *event.Message)
	changed    []event.FieldChange
	moved      *event.Move
}

func change(field, old, now string) event.FieldChange {
	c := event.FieldChange{Field: field}
	if old != "" {
		c.Old = jsontext.Value(old)
	}
	if now != "" {
		c.New = jsontext.Value(now)
	}
	return c
}

var samples = []sample{
	{name: event.Received, at: "2026-11-23T09:31:19Z", version: "B3VkSA", via: event.ViaPush, folder: inbox, content: event.ContentPreview, message: incoming()},
	{name: event.Sent, at: "2026-11-23T10:05:06Z", version: "B3WK8Q", via: event.ViaPush, folder: sent, content: event.ContentPreview, message: outgoing()},
	{name: event.Draft, at: "2026-11-23T10:02:41Z", version: "B3WJ-A", via: event.ViaPush, folder: drafts, content: event.ContentEnvelope, message: outgoing(),
		edit: func(m *event.Message) { m.IsDraft, m.ToRecipients, m.SentDateTime = true, nil, "2026-11-23T10:02:41Z" }},
	{name: event.Read, at: "2026-11-23T09:40:02Z", version: "B3WJmg", via: event.ViaPush, folder: inbox, content: event.ContentEnvelope, message: incoming(),
		edit: func(m *event.Message) { m.IsRead = true }, changed: []event.FieldChange{change("isRead", "false", "true")}},
	{name: event.Unread, at: "2026-11-23T09:41:30Z", version: "B3WJnw", via: event.ViaPush, folder: inbox, content: event.ContentIDs, message: incoming(),
		changed: []event.FieldChange{change("isRead", "true", "false")}},
	{name: event.Flagged, at: "2026-11-23T09:44:51Z", version: "B3WJsg", via: event.ViaPoll, folder: inbox, content: event.ContentEnvelope, message: incoming(),
		edit: func(m *event.Message) { m.Flag = "flagged" }, changed: []event.FieldChange{change("flag", `"notFlagged"`, `"flagged"`)}},
	{name: event.Categorized, at: "2026-11-23T09:45:10Z", version: "B3WJtA", via: event.ViaPush, folder: inbox, content: event.ContentEnvelope, message: incoming(),
		edit:    func(m *event.Message) { m.Flag, m.Categories = "flagged", []string{"Red category"} },
		changed: []event.FieldChange{change("categories", "[]", `["Red category"]`)}},
	{name: event.Moved, at: "2026-11-23T11:20:00Z", version: "B3WMAQ", via: event.ViaPush, folder: invoices, content: event.ContentEnvelope, message: incoming(),
		edit: func(m *event.Message) { m.IsRead = true }, moved: &event.Move{From: &inbox, To: &invoices}},
	{name: event.Deleted, at: "2026-11-30T06:00:12.250Z", version: "B3WMAQ", via: event.ViaTrueUp, folder: deleted, content: event.ContentBody, message: incoming(),
		edit: func(m *event.Message) { m.IsRead, m.Body = true, nil }},
	{name: event.Updated, at: "2026-11-23T09:58:33Z", version: "B3WKAA", via: event.ViaPush, folder: inbox, content: event.ContentBody, message: incoming(),
		edit: func(m *event.Message) { m.Subject = "Invoice 4711 (checked)" },
		changed: []event.FieldChange{
			change("subject", `"Invoice 4711"`, `"Invoice 4711 (checked)"`),
			change("body", "", ""),
		}},
	{area: event.AreaNotification, name: event.Created, at: "2026-11-23T09:31:19.482Z", version: "B3VkSA", via: event.ViaPush, folder: inbox},
	{area: event.AreaNotification, name: event.Updated, at: "2026-11-23T09:40:02.771Z", version: "B3WJmg", via: event.ViaPush, folder: inbox},
	{area: event.AreaNotification, name: event.Deleted, at: "2026-11-30T06:00:12.250Z", version: "B3WMAQ", via: event.ViaPush, folder: inbox},
}

// event dresses a sample as the daemon does.
func (s sample) event(t *testing.T, n int) *event.Event {
	t.Helper()
	area, token := s.area, "sales"
	if area == "" {
		area = event.AreaMail
	}
	at, err := time.Parse(time.RFC3339Nano, s.at)
	if err != nil {
		t.Fatal(err)
	}
	key := "9Y1kQ2VbEE6RfBw0-1s2bQAA" + s.version
	e := &event.Event{
		Area: area, Name: s.name, Source: event.Source(tenant, token), Subject: "messages/" + itemID, Time: at,
		Watch: "sales", Mailbox: token, Via: s.via, Sequence: uint64(n + 1), Epoch: "5b1d2c3e4f5a6b7c",
		RecordedTime: at.Add(482 * time.Millisecond),
	}
	data := event.Data{Mailbox: event.Mailbox{Alias: "sales"}, Item: event.Item{ID: itemID, ChangeKey: key, Folder: &s.folder}}
	e.ID = s.id(e, key)
	if area == event.AreaMail {
		m := s.message
		if s.edit != nil {
			s.edit(&m)
		}
		m = m.At(s.content)
		data.Message, data.Changed, data.Moved = &m, s.changed, s.moved
		data.Item.WebLink = "https://outlook.office365.com/owa/?ItemID=" + itemID + "&exvsurl=1&viewmodel=ReadMessageItem"
	}
	if e.Data, err = jsonx.Marshal(data); err != nil {
		t.Fatal(err)
	}
	return e
}

// id is what identifies the change: see docs/events.md.
func (s sample) id(e *event.Event, key string) string {
	switch {
	case e.Area == event.AreaNotification && e.Name == event.Deleted:
		return event.ID(tenant, e.Watch, e.Mailbox, itemID, e.Area, event.Deleted, key)
	case e.Area == event.AreaNotification: // created and updated of one version are one change
		return event.ID(tenant, e.Watch, e.Mailbox, itemID, e.Area, "changed", key)
	case e.Name == event.Received || e.Name == event.Sent || e.Name == event.Draft:
		return event.ID(tenant, e.Watch, e.Mailbox, itemID, e.Type())
	}
	return event.ID(tenant, e.Watch, e.Mailbox, itemID, e.Type(), key)
}

// structured writes an event as the broker gets it in structured mode.
func structured(t *testing.T, e *event.Event) []byte {
	t.Helper()
	sequence := ""
	if e.Numbered() {
		sequence = fmt.Sprintf("%020d", e.Sequence)
	}
	b, err := jsonx.Marshal(struct {
		SpecVersion     string         `json:"specversion"`
		ID              string         `json:"id"`
		Type            string         `json:"type"`
		Source          string         `json:"source"`
		Subject         string         `json:"subject"`
		Time            time.Time      `json:"time"`
		DataContentType string         `json:"datacontenttype"`
		DataSchema      string         `json:"dataschema"`
		Sequence        string         `json:"sequence,omitzero"`
		Epoch           string         `json:"epoch,omitzero"`
		RecordedTime    time.Time      `json:"recordedtime"`
		PartitionKey    string         `json:"partitionkey"`
		TraceParent     string         `json:"traceparent"`
		Watch           string         `json:"watch"`
		Via             event.Via      `json:"via,omitzero"`
		Data            jsontext.Value `json:"data"`
	}{
		"1.0", e.ID, e.Type(), e.Source, e.Subject, e.Time, "application/json", e.DataSchema(), sequence,
		e.Epoch, e.RecordedTime, e.PartitionKey(), e.TraceParent(), e.Watch, e.Via, e.Data,
	}, jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestGoldenEvents(t *testing.T) {
	wanted := map[string]bool{}
	for _, area := range []string{event.AreaMail, event.AreaCalendar, event.AreaNotification} {
		for _, name := range event.Events[area] {
			wanted[area+"."+name+".json"] = true
		}
	}
	check := func(e *event.Event) {
		file := e.Area + "." + e.Name + ".json"
		delete(wanted, file)
		t.Run(file, func(t *testing.T) { checkGolden(t, file, structured(t, e)) })
	}
	for i, s := range samples {
		check(s.event(t, i))
	}
	for i, s := range meetingSamples {
		check(s.event(t, len(samples)+i))
	}
	for file := range wanted {
		t.Errorf("there is no example %s", file)
	}
}

// checkGolden compares an event with its file, and that with the schema; with -update it writes the file first.
func checkGolden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata/events", file)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is\n%s\nwant\n%s", path, got, want)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if err := validateEvent(doc); err != nil {
		t.Errorf("against the schema: %v", err)
	}
}

// Every one of these is an example with one thing wrong, and the schema must refuse it.
func TestSchemaRefuses(t *testing.T) {
	tests := []struct {
		name, file string
		spoil      func(e, data map[string]any)
	}{
		{"an unknown attribute", "mail.read.json", func(e, _ map[string]any) { e["colour"] = "red" }},
		{"an unknown property of data", "mail.read.json", func(_, d map[string]any) { d["colour"] = "red" }},
		{"an unknown property of message", "mail.read.json", func(_, d map[string]any) { d["message"].(map[string]any)["uniqueBody"] = "x" }},
		{"an unknown property of item", "mail.read.json", func(_, d map[string]any) { d["item"].(map[string]any)["name"] = "x" }},
		{"an unknown property of mailbox", "mail.read.json", func(_, d map[string]any) { d["mailbox"].(map[string]any)["address"] = "x" }},
		{"no id", "mail.read.json", func(e, _ map[string]any) { delete(e, "id") }},
		{"no message", "mail.read.json", func(_, d map[string]any) { delete(d, "message") }},
		{"no item id", "mail.read.json", func(_, d map[string]any) { delete(d["item"].(map[string]any), "id") }},
		{"read without changed", "mail.read.json", func(_, d map[string]any) { delete(d, "changed") }},
		{"moved without moved", "mail.moved.json", func(_, d map[string]any) { delete(d, "moved") }},
		{"read with moved", "mail.read.json", func(_, d map[string]any) { d["moved"] = map[string]any{"from": nil, "to": map[string]any{"id": "f"}} }},
		{"moved from nowhere said", "mail.moved.json", func(_, d map[string]any) { delete(d["moved"].(map[string]any), "from") }},
		{"a number as sequence", "mail.read.json", func(e, _ map[string]any) { e["sequence"] = 7 }},
		{"a short sequence", "mail.read.json", func(e, _ map[string]any) { e["sequence"] = "7" }},
		{"an unknown path", "mail.read.json", func(e, _ map[string]any) { e["via"] = "pigeon" }},
		{"a time that is none", "mail.read.json", func(e, _ map[string]any) { e["time"] = "yesterday" }},
		{"an event that mail does not have", "mail.read.json", func(e, _ map[string]any) { e["type"] = "io.triggerd.mail.rescheduled.v1" }},
		{"the schema of another area", "mail.read.json", func(e, _ map[string]any) { e["dataschema"] = "urn:triggerd:schema:notification:v1" }},
		{"a string as read flag", "mail.read.json", func(_, d map[string]any) { d["message"].(map[string]any)["isRead"] = "true" }},
		{"an unknown property of event", "calendar.created.json", func(_, d map[string]any) { d["event"].(map[string]any)["type"] = "occurrence" }},
		{"an unknown property of a moment", "calendar.created.json", func(_, d map[string]any) { part(d, "event", "start")["zone"] = "UTC" }},
		{"a moment that is a date and a time", "calendar.created.json", func(_, d map[string]any) { part(d, "event", "start")["date"] = "2026-11-27" }},
		{"a time without a zone", "calendar.created.json", func(_, d map[string]any) { part(d, "event", "start")["dateTime"] = "2026-11-27T09:00:00" }},
		{"a local time with a zone", "calendar.created.json", func(_, d map[string]any) { part(d, "event", "start")["localDateTime"] = "2026-11-27T09:00:00Z" }},
		{"a date that is none", "calendar.cancelled.json", func(_, d map[string]any) { part(d, "event", "start")["date"] = "27.11.2026" }},
		{"no event", "calendar.created.json", func(_, d map[string]any) { delete(d, "event") }},
		{"no kind", "calendar.created.json", func(_, d map[string]any) { delete(part(d, "event"), "instanceKind") }},
		{"no calendar", "calendar.created.json", func(_, d map[string]any) { delete(part(d, "item"), "calendar") }},
		{"a message in a calendar event", "calendar.created.json", func(_, d map[string]any) { d["message"] = map[string]any{} }},
		{"updated without changed", "calendar.updated.json", func(_, d map[string]any) { delete(d, "changed") }},
		{"created with changed", "calendar.created.json", func(_, d map[string]any) { d["changed"] = []any{map[string]any{"field": "x"}} }},
		{"rescheduled without rescheduled", "calendar.rescheduled.json", func(_, d map[string]any) { delete(d, "rescheduled") }},
		{"rescheduled from nowhere said", "calendar.rescheduled.json", func(_, d map[string]any) { delete(part(d, "rescheduled"), "old") }},
		{"rescheduled to nowhere", "calendar.rescheduled.json", func(_, d map[string]any) { part(d, "rescheduled")["new"] = nil }},
		{"deleted with rescheduled", "calendar.deleted.json", func(_, d map[string]any) { d["rescheduled"] = map[string]any{} }},
		{"responded without responded", "calendar.responded.json", func(_, d map[string]any) { delete(d, "responded") }},
		{"responded by nobody", "calendar.responded.json", func(_, d map[string]any) { d["responded"] = []any{} }},
		{"updated with responded", "calendar.updated.json", func(_, d map[string]any) {
			d["responded"] = []any{map[string]any{"self": true, "old": "none", "new": "accepted"}}
		}},
		{"starting without starting", "calendar.starting.json", func(_, d map[string]any) { delete(d, "starting") }},
		{"starting that somebody pushed", "calendar.starting.json", func(e, _ map[string]any) { e["via"] = "push" }},
		{"starting too early", "calendar.starting.json", func(_, d map[string]any) { part(d, "starting")["lateSeconds"] = -1 }},
		{"created by the clock", "calendar.created.json", func(e, _ map[string]any) { e["via"] = "clock" }},
		{"created with starting", "calendar.created.json", func(_, d map[string]any) {
			d["starting"] = map[string]any{"leadSeconds": 900, "lateSeconds": 0}
		}},
		{"mail by the clock", "mail.read.json", func(e, _ map[string]any) { e["via"] = "clock" }},
		{"an event that calendars do not have", "calendar.updated.json", func(e, _ map[string]any) { e["type"] = "io.triggerd.calendar.moved.v1" }},
		{"the schema of mail", "calendar.created.json", func(e, _ map[string]any) { e["dataschema"] = "urn:triggerd:schema:mail:v1" }},
		{"a calendar event without a sequence", "calendar.created.json", func(e, _ map[string]any) { delete(e, "sequence") }},
		{"content in a notification", "notification.created.json", func(_, d map[string]any) { d["message"] = map[string]any{} }},
		{"a link in a notification", "notification.created.json", func(_, d map[string]any) { d["item"].(map[string]any)["webLink"] = "https://x" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e map[string]any
			readJSON(t, filepath.Join("testdata/events", tt.file), &e)
			tt.spoil(e, e["data"].(map[string]any))
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if validateEvent(doc) == nil {
				t.Errorf("%s passed", b)
			}
		})
	}
}

// part is an object inside data.
func part(data map[string]any, path ...string) map[string]any {
	for _, name := range path {
		data = data[name].(map[string]any)
	}
	return data
}

// inDocs finds the examples in docs/events.md, each under a comment that names its file.
var inDocs = regexp.MustCompile("(?s)<!-- (\\S+\\.json) -->\n```json\n(.*?)```\n")

func TestDocumentedExamplesAreTheGoldenOnes(t *testing.T) {
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		text = inDocs.ReplaceAllFunc(text, func(block []byte) []byte {
			file := string(inDocs.FindSubmatch(block)[1])
			b, err := os.ReadFile(filepath.Join("testdata/events", file))
			if err != nil {
				t.Fatal(err)
			}
			return []byte("<!-- " + file + " -->\n```json\n" + string(b) + "```\n")
		})
		if err := os.WriteFile(docs, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	documented := map[string]string{}
	for _, m := range inDocs.FindAllSubmatch(text, -1) {
		documented[string(m[1])] = string(m[2])
	}
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := documented[filepath.Base(path)]; got != string(want) {
			t.Errorf("docs/events.md has another example of %s:\n%s", filepath.Base(path), got)
		}
		delete(documented, filepath.Base(path))
	}
	for file := range documented {
		t.Errorf("docs/events.md has an example %s that does not exist", file)
	}
	if n := strings.Count(string(text), "```json"); n != len(files) {
		t.Errorf("docs/events.md has %d JSON blocks, %d of them are checked", n, len(files))
	}
}
