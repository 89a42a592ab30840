package event_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/event"
)

func merge(t testing.TB, o *event.Observed, raw string) {
	t.Helper()
	if err := o.Merge([]byte(raw)); err != nil {
		t.Fatalf("Merge(%s): %v", raw, err)
	}
}

func TestMergeAWholeMessage(t *testing.T) {
	var raw json.RawMessage
	readJSON(t, "testdata/graph/message-get.json", &raw)
	var o event.Observed
	merge(t, &o, string(raw))
	adele := &event.Address{Name: "Adele Vance", Address: "adelev@contoso.OnMicrosoft.com"}
	want := event.Observed{
		ChangeKey:    "uKH0BxCKgkm0D6LfNwBXGwAAJ447mQ",
		FolderID:     "AAMkADcbAAAAAAEJAAA=",
		WebLink:      "https://outlook.office365.com/owa/?ItemID=AAMkADMGAAA%3D&exvsurl=1&viewmodel=ReadMessageItem",
		LastModified: "2018-09-09T03:15:08Z",
		BodyHash:     o.BodyHash,
		Message: event.Message{
			InternetMessageID: "<MWHPR6E1BE060@MWHPR1120.namprd22.prod.outlook.com>",
			ConversationID:    "AAQkADOUpag6yWs=",
			Subject:           "9/9/2018: concert",
			From:              adele, Sender: adele,
			ToRecipients:    []event.Address{{Name: "Alex Wilber", Address: "AlexW@contoso.OnMicrosoft.com"}},
			CreatedDateTime: "2018-09-09T03:15:05Z", ReceivedDateTime: "2018-09-09T03:15:08Z", SentDateTime: "2018-09-09T03:15:06Z",
			Importance: "normal", Categories: []string{}, IsRead: true, Flag: "notFlagged",
			BodyPreview: "The group represents Nevada.",
			Body:        o.Message.Body,
		},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	if !o.Complete() || len(o.BodyHash) != 32 || o.Message.Body == nil || o.Message.Body.ContentType != "html" {
		t.Errorf("complete %v, body hash %q, body %+v", o.Complete(), o.BodyHash, o.Message.Body)
	}
}

func TestMergeEveryMessageThatGraphIsKnownToSend(t *testing.T) {
	files, err := filepath.Glob("testdata/graph/delta-messages-*.json")
	if err != nil {
		t.Fatal(err)
	}
	merged := 0
	for _, path := range files {
		var page struct{ Value []json.RawMessage }
		readJSON(t, path, &page)
		for _, raw := range page.Value {
			var o event.Observed
			merge(t, &o, string(raw))
			merged++
			checkObserved(t, o)
			if o.Complete() {
				t.Errorf("%s: %s counts as complete, but has no folder", path, raw)
			}
		}
	}
	if merged < 10 {
		t.Errorf("only %d messages were found", merged)
	}
	var o event.Observed
	var rich json.RawMessage
	readJSON(t, "testdata/graph/notification-rich-decrypted-message.json", &rich)
	merge(t, &o, string(rich)) // annotations between the properties
	if o.Message.Subject != "TEST MESSAGE FOR RICH NOTIFICATIONS" || o.Message.From.Address != "Megan.Brown@microsoft.com" || o.Message.Importance != "normal" {
		t.Errorf("got %+v", o.Message)
	}
}

// A delta round tells only what changed (D-7), and the documentation prints isRead as a string (D-31).
func TestMergeAPartialMessageKeepsTheRest(t *testing.T) {
	var first, second struct{ Value []json.RawMessage }
	readJSON(t, "testdata/graph/delta-messages-page1.json", &first)
	readJSON(t, "testdata/graph/delta-messages-round2-removed.json", &second)
	var o event.Observed
	merge(t, &o, string(first.Value[0]))
	merge(t, &o, `{"id":"1","toRecipients":[{"emailAddress":{"address":"a@contoso.com"}}],"categories":["Red"],"flag":{"flagStatus":"flagged"}}`)
	merge(t, &o, string(second.Value[1]))
	if !o.Message.IsRead || o.Message.Subject != "Holiday hours update" || o.Message.Sender.Name != "Dana Swope" || o.ChangeKey != "EZ9r3czxY0m2jz8c45czkwAAErCmcw" {
		t.Errorf("got %+v", o)
	}
	if len(o.Message.ToRecipients) != 1 || !slices.Equal(o.Message.Categories, []string{"Red"}) || o.Message.Flag != "flagged" {
		t.Errorf("what was known is gone: %+v", o.Message)
	}
	merge(t, &o, `{"id":"1","isRead":false,"parentFolderId":"f"}`) // all that was seen after a change of the read flag (D-7)
	if o.Message.IsRead || o.FolderID != "f" || o.Message.Subject != "Holiday hours update" {
		t.Errorf("got %+v", o)
	}
}

func TestMergeNullEmptiesAProperty(t *testing.T) {
	full := filled(t)
	var raw strings.Builder
	raw.WriteString("{")
	for _, name := range event.Select(event.ContentBody) {
		if name != "id" && name != "changeKey" { // never without a value
			raw.WriteString(`"` + name + `":null,`)
		}
	}
	merge(t, &full, strings.TrimSuffix(raw.String(), ",")+"}")
	want := event.Observed{ChangeKey: full.ChangeKey}
	if !reflect.DeepEqual(full, want) {
		t.Errorf("got %+v, want everything empty but the change key", full)
	}
}

func TestMergeOddButReadable(t *testing.T) {
	tests := []struct {
		name, raw string
		want      func(o *event.Observed) bool
	}{
		{"a stray byte", "{\"subject\":\"caf\xe9\"}", func(o *event.Observed) bool { return o.Message.Subject == "caf\uFFFD" }},
		{"half a surrogate pair", `{"subject":"a\ud83d","bodyPreview":"\udc4d","categories":["\ud800"],"from":{"emailAddress":{"name":"\ud800x"}}}`, func(o *event.Observed) bool {
			return o.Message.Subject == "a\uFFFD" && o.Message.BodyPreview == "\uFFFD" && o.Message.Categories[0] == "\uFFFD" && o.Message.From.Name == "\uFFFDx"
		}},
		{"escapes", `{"subject":"\u00e9\n\"\\\ud83d\udc4d"}`, func(o *event.Observed) bool { return o.Message.Subject == "é\n\"\\👍" }},
		{"a name twice: the last counts", `{"subject":"a","subject":"b"}`, func(o *event.Observed) bool { return o.Message.Subject == "b" }},
		{"no sender", `{"from":{"emailAddress":{"name":"","address":""}},"sender":{"emailAddress":null}}`, func(o *event.Observed) bool {
			return o.Message.From == nil && o.Message.Sender == nil
		}},
		{"no recipients", `{"toRecipients":[]}`, func(o *event.Observed) bool { return o.Message.ToRecipients == nil }},
		{"a change key and an etag: the etag counts", `{"changeKey":"old-key-x","@odata.etag":"W/\"new-key-x\""}`, func(o *event.Observed) bool { return o.ChangeKey == "new-key-x" }},
		{"the etag of a deletion takes no key away", `{"changeKey":"a-key-x","@odata.etag":"W/\"CQAAAA==\""}`, func(o *event.Observed) bool { return o.ChangeKey == "a-key-x" }},
		{"a read flag as a string", `{"isRead":"false","hasAttachments":"true"}`, func(o *event.Observed) bool { return !o.Message.IsRead && o.Message.HasAttachments }},
		{"unknown properties", `{"x":{"deep":[1,{"subject":"no"}]},"internetMessageHeaders":[],"Subject":"no"}`, func(o *event.Observed) bool { return o.Message.Subject == "" }},
		{"nothing", `{}`, func(o *event.Observed) bool { return reflect.DeepEqual(*o, event.Observed{}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var o event.Observed
			merge(t, &o, tt.raw)
			if !tt.want(&o) {
				t.Errorf("Merge(%s) gave %+v", tt.raw, o)
			}
			checkObserved(t, o)
		})
	}
}

func TestMergeRefusesWhatIsNoMessage(t *testing.T) {
	for _, raw := range []string{
		"", " ", "null", "[]", `"text"`, "1", "{", `{"subject"`, `{"subject":`, `{"subject":"a"`, `{"subject":"a",`, `{"subject" "a"}`, "{'subject':1}",
		`{"subject":1}`, `{"subject":{}}`, `{"isRead":"yes"}`, `{"isRead":1}`, `{"categories":"Red"}`, `{"categories":[1]}`,
		`{"from":"a@contoso.com"}`, `{"from":{"emailAddress":"a"}}`, `{"toRecipients":{}}`, `{"toRecipients":[1]}`, `{"flag":"flagged"}`, `{"flag":{"flagStatus":1}}`,
		`{"body":"text"}`, `{"body":{"content":1}}`, `{"@odata.etag":1}`, `{"parentFolderId":[]}`, "<html>busy</html>",
	} {
		var o event.Observed
		if err := o.Merge([]byte(raw)); !errors.Is(err, event.ErrNotMessage) {
			t.Errorf("Merge(%s) = %v, want ErrNotMessage", raw, err)
		}
	}
}

func FuzzMerge(f *testing.F) {
	files, err := filepath.Glob("testdata/graph/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		var doc any
		readJSON(f, path, &doc)
		eachObject(doc, func(o map[string]any) {
			b, err := json.Marshal(o)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		})
	}
	f.Add([]byte(`{"subject":"a\ud83d","body":{"contentType":"text","content":"\udc4d"},"toRecipients":[{}],"categories":[null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var once event.Observed
		if err := once.Merge(raw); err != nil {
			if !errors.Is(err, event.ErrNotMessage) {
				t.Errorf("Merge = %v, want ErrNotMessage or nil", err)
			}
			return
		}
		checkObserved(t, once)
		twice := once
		if err := twice.Merge(raw); err != nil || !reflect.DeepEqual(once, twice) {
			t.Errorf("merged twice: %v\n%+v\n%+v", err, once, twice)
		}
	})
}

// checkObserved checks that what was read can be published: it is valid JSON and obeys the schema.
func checkObserved(t testing.TB, o event.Observed) {
	t.Helper()
	for _, s := range []string{o.ChangeKey, o.FolderID, o.WebLink, o.LastModified} {
		if !utf8.ValidString(s) {
			t.Errorf("%q is not text", s)
		}
	}
	m := o.Message.At(event.ContentBody)
	b, err := jsonx.Marshal(event.Data{Item: event.Item{ID: "1", Folder: &event.Folder{}}, Message: &m})
	if err != nil {
		t.Fatalf("cannot be published: %v", err)
	}
	if err := validate(event.AreaMail, b); err != nil {
		t.Errorf("against the schema: %v\n%s", err, b)
	}
}

// filled is an observation with every field set.
func filled(t testing.TB) event.Observed {
	t.Helper()
	var o event.Observed
	fill(reflect.ValueOf(&o).Elem())
	return o
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("secret")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[jsontext.Value]() {
			v.SetBytes([]byte(`{"secret":true}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		for _, f := range v.Fields() {
			fill(f)
		}
	default:
		panic("there is a field of kind " + v.Kind().String())
	}
}

// What a level asks Graph for is exactly what it lets out, so that no content can leak.
func TestAContentLevelLetsOutWhatItSelectsAndNothingMore(t *testing.T) {
	for c := event.ContentIDs; c <= event.ContentBody; c++ {
		m := reflect.ValueOf(filled(t).Message.At(c))
		selected := event.Select(c)
		for field, v := range m.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			empty := v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
			if slices.Contains(selected, name) == empty {
				t.Errorf("%v: %s is %v, selected %v", c, name, v, slices.Contains(selected, name))
			}
		}
	}
	low := filled(t).Message.At(event.ContentReference)
	if low.Subject != "" || low.From != nil || low.ToRecipients != nil || low.BodyPreview != "" || low.Body != nil {
		t.Errorf("reference lets out %+v", low)
	}
}

func TestAtLeavesTheMessageAsItWas(t *testing.T) {
	o := filled(t)
	o.Message.At(event.ContentIDs)
	if !reflect.DeepEqual(o, filled(t)) {
		t.Errorf("At changed its receiver: %+v", o.Message)
	}
	b, err := jsonx.Marshal((event.Message{}).At(event.ContentIDs))
	if want := `{"hasAttachments":false,"categories":[],"isRead":false}`; err != nil || string(b) != want {
		t.Errorf("an empty message is %s, %v, want %s", b, err, want)
	}
}

func TestContentLevels(t *testing.T) {
	all := []string{"reference", "ids", "envelope", "preview", "body"}
	for i, name := range all {
		c, err := event.ParseContent(name)
		if err != nil || c != event.Content(i) || c.String() != name {
			t.Errorf("ParseContent(%s) = %v, %v", name, c, err)
		}
		if i > 0 {
			lower, higher := event.Select(c-1), event.Select(c)
			if len(higher) <= len(lower) || !slices.Equal(higher[:len(lower)], lower) {
				t.Errorf("%s selects %v, which does not hold all of the level below", name, higher)
			}
		}
	}
	for _, name := range []string{"", "Body", "everything"} {
		if _, err := event.ParseContent(name); err == nil || !strings.Contains(err.Error(), "reference, ids, envelope, preview, body") {
			t.Errorf("ParseContent(%q) = %v, want an error that lists the levels", name, err)
		}
	}
	if slices.Contains(event.Select(event.ContentReference), "subject") {
		t.Error("reference asks for the subject")
	}
}

func TestParseTime(t *testing.T) {
	if got := event.ParseTime("2026-11-23T10:31:19.25+01:00").String(); got != "2026-11-23 09:31:19.25 +0000 UTC" {
		t.Errorf("ParseTime gave %s", got)
	}
	for _, s := range []string{"", "datetime-value", "2026-11-23", "0"} {
		if !event.ParseTime(s).IsZero() {
			t.Errorf("ParseTime(%q) = %v, want the zero time", s, event.ParseTime(s))
		}
	}
}
