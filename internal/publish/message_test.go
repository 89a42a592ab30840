package publish

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

func fullEvent() *event.Event {
	e := newEvent("box0", 7)
	e.Sequence, e.Epoch, e.ReplayOf = 42, "0123456789abcdef", event.ID("other")
	e.Time = time.Date(2026, 11, 23, 9, 31, 19, 120_000_000, time.FixedZone("", 3600))
	return e
}

func wantAttributes(e *event.Event) map[string]string {
	return map[string]string{
		"specversion": "1.0", "id": e.ID, "type": "io.triggerd.mail.received.v1",
		"source": "urn:triggerd:84bd8158-6d4d-4958-8b9f-9d6445542f95:box0", "subject": "messages/AAMk7=",
		"time": "2026-11-23T08:31:19.12Z", "datacontenttype": "application/json", "dataschema": "urn:triggerd:schema:mail:v1",
		"sequence": "00000000000000000042", "epoch": "0123456789abcdef", "recordedtime": "2026-11-23T09:00:08Z",
		"partitionkey": "sales.box0", "traceparent": "00-" + e.ID + "-" + e.ID[:16] + "-01", "watch": "sales", "via": "push",
		"replayof": event.ID("other"),
	}
}

func TestBinaryMessage(t *testing.T) {
	e := fullEvent()
	m, err := Options{}.withDefaults().encode(e, e.Data, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"content-type": "application/json", "Nats-Msg-Id": e.ID, "Nats-Expected-Stream": "GRAPH"}
	for k, v := range wantAttributes(e) {
		want["ce-"+k] = v
	}
	got := map[string]string{}
	for k, v := range m.Header {
		got[k] = strings.Join(v, "|")
	}
	if !maps.Equal(got, want) {
		t.Errorf("headers\n%v\nwant\n%v", got, want)
	}
	if m.Subject != "graph.sales.box0.mail.received" || !bytes.Equal(m.Data, e.Data) {
		t.Errorf("subject %s, data %s", m.Subject, m.Data)
	}
	if n := wireSize(t, m); n != size(m) {
		t.Errorf("size = %d, nats.go sends %d", size(m), n)
	}
}

// wireSize is what nats.go sends as headers and data.
func wireSize(t *testing.T, m *nats.Msg) int {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("NATS/1.0\r\n")
	if err := http.Header(m.Header).Write(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\r\n")
	return b.Len() + len(m.Data)
}

func TestEmptyAttributesAreLeftOut(t *testing.T) {
	m, err := Options{}.withDefaults().encode(&event.Event{ID: "a", Area: "mail", Name: "sent", Source: "s", Watch: "w", Mailbox: "m"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"subject", "time", "sequence", "epoch", "recordedtime", "via", "replayof", "dataref"} {
		if v, ok := m.Header["ce-"+name]; ok {
			t.Errorf("ce-%s is %q, want none", name, v)
		}
	}
}

// sdkEvent reads a message the way the CloudEvents SDK's own NATS protocol does: a ce-specversion header means binary.
func sdkEvent(t *testing.T, header nats.Header, data []byte) cloudevents.Event {
	t.Helper()
	if header.Get("ce-specversion") == "" {
		var e cloudevents.Event
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatalf("structured message is refused: %v", err)
		}
		return e
	}
	e := cloudevents.New(header.Get("ce-specversion"))
	e.SetID(header.Get("ce-id"))
	e.SetType(header.Get("ce-type"))
	e.SetSource(header.Get("ce-source"))
	e.SetSubject(header.Get("ce-subject"))
	e.SetDataSchema(header.Get("ce-dataschema"))
	at, err := time.Parse(time.RFC3339, header.Get("ce-time"))
	if err != nil {
		t.Fatal(err)
	}
	e.SetTime(at)
	core := []string{"specversion", "id", "type", "source", "subject", "dataschema", "time", "datacontenttype"}
	for k, v := range header {
		if name, ok := strings.CutPrefix(k, "ce-"); ok && !slices.Contains(core, name) {
			e.SetExtension(name, v[0])
		}
	}
	if err := e.SetData(header.Get("ce-datacontenttype"), data); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCloudEventsSDKAcceptsBothModes(t *testing.T) {
	e := fullEvent()
	for name, structured := range map[string]bool{"binary": false, "structured": true} {
		t.Run(name, func(t *testing.T) {
			m, err := Options{Structured: structured}.withDefaults().encode(e, e.Data, dataref("GRAPH", e.ID))
			if err != nil {
				t.Fatal(err)
			}
			ce := sdkEvent(t, m.Header, m.Data)
			if err := ce.Validate(); err != nil {
				t.Fatalf("the SDK refuses the event: %v", err)
			}
			want := wantAttributes(e)
			if ce.ID() != want["id"] || ce.Type() != want["type"] || ce.Source() != want["source"] || ce.Subject() != want["subject"] ||
				ce.DataSchema() != want["dataschema"] || ce.DataContentType() != want["datacontenttype"] || !ce.Time().Equal(e.Time) {
				t.Errorf("the SDK reads\n%s", ce)
			}
			for _, x := range []string{"sequence", "epoch", "recordedtime", "partitionkey", "traceparent", "watch", "via", "replayof"} {
				if got := ce.Extensions()[x]; got != want[x] {
					t.Errorf("extension %s = %v, want %s", x, got, want[x])
				}
			}
			if got := ce.Extensions()["dataref"]; got != "nats-object://GRAPH/"+e.ID {
				t.Errorf("dataref = %v", got)
			}
			if !bytes.Equal(ce.Data(), e.Data) {
				t.Errorf("data %s, want %s", ce.Data(), e.Data)
			}
		})
	}
}

func TestDecodeIsTheInverseOfEncode(t *testing.T) {
	e := fullEvent()
	e.Subject = "messages/ä \"50%\" 😀"
	for name, structured := range map[string]bool{"binary": false, "structured": true} {
		t.Run(name, func(t *testing.T) {
			m, err := Options{Structured: structured}.withDefaults().encode(e, e.Data, "")
			if err != nil {
				t.Fatal(err)
			}
			r := decode(m.Header, m.Data)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			want := *e
			want.Time = want.Time.UTC()
			got := r.Event
			if !bytes.Equal(got.Data, want.Data) {
				t.Errorf("data %s, want %s", got.Data, want.Data)
			}
			got.Data, want.Data = nil, nil
			if a, b := mustJSON(t, got), mustJSON(t, want); a != b {
				t.Errorf("event\n%s\nwant\n%s", a, b)
			}
			if r.Attributes["subject"] != e.Subject {
				t.Errorf("subject %q, want %q", r.Attributes["subject"], e.Subject)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPercentEncoding(t *testing.T) {
	for decoded, encoded := range map[string]string{
		"Euro € 😀": "Euro%20%E2%82%AC%20%F0%9F%98%80", "plain-/:=?": "plain-/:=?", `a"b`: "a%22b", "50%": "50%25",
		"a\r\nb": "a%0D%0Ab", "\x7f": "%7F", "": "",
	} {
		if got := percentEncode(decoded); got != encoded {
			t.Errorf("percentEncode(%q) = %q, want %q", decoded, got, encoded)
		}
		if got, err := percentDecode(encoded); err != nil || got != decoded {
			t.Errorf("percentDecode(%q) = %q, %v, want %q", encoded, got, err, decoded)
		}
	}
	if got := percentEncode("a\xffb"); got != "a%EF%BF%BDb" {
		t.Errorf("percentEncode of bad UTF-8 = %q", got)
	}
	for s, want := range map[string]string{`"a b"`: "a b", `"a \"b\""`: `a "b"`, "%e2%82%ac": "€", "%41": "A", `"`: `"`, "a+b": "a+b"} {
		if got, err := percentDecode(s); err != nil || got != want {
			t.Errorf("percentDecode(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for _, bad := range []string{"%C0%A0", "%", "%4", "%zz", "%FF"} {
		if got, err := percentDecode(bad); err == nil {
			t.Errorf("percentDecode(%q) = %q, want an error", bad, got)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	head := func(kv ...string) nats.Header {
		h := nats.Header{}
		for i := 0; i < len(kv); i += 2 {
			h[kv[i]] = []string{kv[i+1]}
		}
		return h
	}
	doc := head("Content-Type", "application/cloudevents+json; charset=utf-8")
	for name, c := range map[string]struct {
		header nats.Header
		body   string
		want   string
	}{
		"no headers":         {nil, "hello", "specversion"},
		"old version":        {head("ce-specversion", "0.3", "ce-id", "1", "ce-source", "s", "ce-type", "t"), "", `specversion is "0.3"`},
		"no id":              {head("ce-specversion", "1.0", "ce-source", "s", "ce-type", "t"), "", "id is missing"},
		"no source":          {head("ce-specversion", "1.0", "ce-id", "1", "ce-type", "t"), "", "source is missing"},
		"no type":            {head("ce-specversion", "1.0", "ce-id", "1", "ce-source", "s"), "", "type is missing"},
		"bad time":           {head("ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "t", "ce-time", "noon"), "", "no RFC 3339 time"},
		"bad escape":         {head("ce-specversion", "1.0", "ce-id", "%C0%A0"), "", "ce-id: not UTF-8"},
		"document of junk":   {doc, "{", "not a CloudEvent"},
		"document of a list": {doc, "[]", "not a CloudEvent"},
		"nested attribute":   {doc, `{"specversion":"1.0","id":{}}`, "id is no simple value"},
		"duplicate member":   {doc, `{"id":"1","id":"2"}`, "duplicate"},
		"bad base64":         {doc, `{"data_base64":"*"}`, "data_base64"},
	} {
		t.Run(name, func(t *testing.T) {
			r := decode(c.header, []byte(c.body))
			if r.Err == nil || !strings.Contains(r.Err.Error(), c.want) || r.Attributes != nil || r.Event.ID != "" {
				t.Fatalf("decode = %+v, want an error with %q and nothing else", r, c.want)
			}
		})
	}
}

func TestDecodeForeignEvents(t *testing.T) {
	r := decode(nats.Header{"CE-SpecVersion": {"1.0"}, "Ce-Id": {"1"}, "ce-source": {"/x"}, "ce-type": {"com.example"}, "ce-sequence": {"abc"}}, []byte("plain text"))
	if r.Err != nil || r.Event.ID != "1" || r.Attributes["type"] != "com.example" || r.Event.Area != "" || r.Event.Data != nil || string(r.Data) != "plain text" {
		t.Errorf("decode = %+v", r)
	}
	r = decode(nats.Header{"content-type": {"application/CloudEvents"}}, []byte(`{"specversion":"1.0","id":"1","source":"/x","type":"t","n":5,"b":true,"z":null,"data_base64":"aGk="}`))
	if r.Err != nil || r.Attributes["n"] != "5" || r.Attributes["b"] != "true" || string(r.Data) != "hi" {
		t.Errorf("decode = %+v", r)
	}
	if _, ok := r.Attributes["z"]; ok {
		t.Error("a null attribute is there")
	}
}

func FuzzDecode(f *testing.F) {
	e := fullEvent()
	for _, structured := range []bool{false, true} {
		m, err := Options{Structured: structured}.withDefaults().encode(e, e.Data, "")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Header.Get("ce-id"), m.Header.Get("ce-time"), m.Header.Get("ce-subject"), m.Header.Get("content-type"), m.Data)
	}
	f.Add("%C0%A0", "noon", `"a\"`, "application/cloudevents", []byte(`{"specversion":"1.0"}`))
	f.Fuzz(func(t *testing.T, id, at, subject, contentType string, body []byte) {
		h := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {"s"}, "ce-type": {"io.triggerd.mail.sent.v1"},
			"ce-time": {at}, "ce-subject": {subject}, "content-type": {contentType}}
		r := decode(h, body)
		if r.Err != nil {
			if r.Attributes != nil || r.Event.ID != "" {
				t.Fatalf("both an error and an event: %+v", r)
			}
			return
		}
		if r.Event.ID == "" || r.Event.Source == "" || r.Attributes["type"] == "" {
			t.Fatalf("event without id, source or type: %+v", r)
		}
		if r.Event.Area == "" || r.Event.Data == nil {
			return // a foreign one
		}
		for _, structured := range []bool{false, true} { // what was read can be written, and reads the same
			m, err := Options{Structured: structured}.withDefaults().encode(&r.Event, r.Event.Data, "")
			if err != nil {
				t.Fatalf("cannot be written again: %v", err)
			}
			again := decode(m.Header, m.Data)
			if again.Err != nil || again.Event.ID != r.Event.ID || again.Event.Subject != r.Event.Subject || !again.Event.Time.Equal(r.Event.Time) {
				t.Fatalf("read %+v, after writing %+v (%v)", r.Event, again.Event, again.Err)
			}
		}
	})
}

func TestStructuredModeInTheStream(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	appendEvents(t, s, mailboxes(2), 1, 10)
	p := start(t, s, Options{URL: b.ClientURL(), Structured: true})
	published(t, s, p)
	js := jetStream(t, b.ClientURL())
	wantComplete(t, contents(t, js, "GRAPH"), mailboxes(2), 10)
	st, err := js.Stream(t.Context(), "GRAPH")
	if err != nil {
		t.Fatal(err)
	}
	m, err := st.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Header.Get("content-type"); got != "application/cloudevents+json" {
		t.Errorf("content type %q", got)
	}
	ce := sdkEvent(t, m.Header, m.Data)
	if err := ce.Validate(); err != nil {
		t.Error(err)
	}
}

// bodyEvent has a body of n bytes.
func bodyEvent(mailbox string, seq, n int) *event.Event {
	e := newEvent(mailbox, seq)
	e.Data = jsontext.Value(`{"mailbox":{"alias":"` + mailbox + `"},"message":{"subject":"hi","body":{"contentType":"text","content":"` +
		strings.Repeat("y", n) + `"},"isRead":false}}`)
	return e
}

func TestLargeBodyGoesToTheObjectStore(t *testing.T) {
	for name, structured := range map[string]bool{"binary": false, "structured": true} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			s := newStore(t)
			large := bodyEvent("box0", 2, 3<<20) // above max_payload
			middle := bodyEvent("box1", 1, 100_000)
			small := bodyEvent("box1", 2, 60_000)
			err := s.Update(func(tx *store.Tx) error {
				for _, e := range []*event.Event{newEvent("box0", 1), large, newEvent("box0", 3), middle, small} {
					if err := tx.AppendEvent(e); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			p := start(t, s, Options{URL: b.ClientURL(), Structured: structured})
			published(t, s, p)
			js := jetStream(t, b.ClientURL())
			refs := map[string]string{}
			next := map[string]uint64{}
			for _, r := range contents(t, js, "GRAPH") {
				if next[r.Event.Mailbox]++; r.Event.Sequence != next[r.Event.Mailbox] {
					t.Errorf("%s: sequence %d, want %d", r.Event.Mailbox, r.Event.Sequence, next[r.Event.Mailbox])
				}
				if ref := r.Attributes["dataref"]; ref != "" {
					refs[r.Event.ID] = ref
					if want := `{"mailbox":{"alias":"` + r.Event.Mailbox + `"},"message":{"subject":"hi","isRead":false}}`; string(r.Data) != want {
						t.Errorf("data beside the dataref is %.200s, want %s", r.Data, want)
					}
				}
			}
			want := map[string]string{large.ID: "nats-object://GRAPH/" + large.ID, middle.ID: "nats-object://GRAPH/" + middle.ID}
			if !maps.Equal(refs, want) {
				t.Fatalf("datarefs %v, want %v", refs, want)
			}
			bucket, err := js.ObjectStore(t.Context(), "GRAPH")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range []*event.Event{large, middle} {
				if got, err := bucket.GetBytes(t.Context(), e.ID); err != nil || !bytes.Equal(got, e.Data) {
					t.Errorf("object holds %d bytes, %v, want the data of %d", len(got), err, len(e.Data))
				}
			}
			if st, err := bucket.Status(t.Context()); err != nil || st.TTL() != streamMaxAge || st.Storage() != jetstream.FileStorage {
				t.Errorf("bucket %+v, %v", st, err)
			}
		})
	}
}

func TestLargeBodiesArriveOnceAndInOrderWhileTheServerIsRestarted(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	boxes := mailboxes(3)
	p := start(t, s, Options{URL: b.ClientURL()})
	for round := range 3 {
		err := s.Update(func(tx *store.Tx) error {
			for n := range 30 {
				if err := tx.AppendEvent(bodyEvent(boxes[n%3], round*30+n, 70_000)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "publishing some", func() bool { return s.OutboxStats().Held > round*30+5 })
		b.restart()
	}
	published(t, s, p)
	js := jetStream(t, b.ClientURL())
	all := contents(t, js, "GRAPH")
	wantComplete(t, all, boxes, 30)
	bucket, err := js.ObjectStore(t.Context(), "GRAPH")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if got, err := bucket.GetBytes(t.Context(), r.Event.ID); err != nil || len(got) < 70_000 {
			t.Errorf("object of event %d of %s: %d bytes, %v", r.Event.Sequence, r.Event.Mailbox, len(got), err)
		}
	}
}

func TestBodyThatIsStoredAlreadyIsLeftAlone(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	c := good(func(*jetstream.StreamConfig) {})
	lim := limits{message: 1 << 20}
	first := bytes.Repeat([]byte("a"), 300_000)
	if err := putBody(t.Context(), js, c, "id", first, lim); err != nil {
		t.Fatal(err)
	}
	bucket, err := js.ObjectStore(t.Context(), "GRAPH")
	if err != nil {
		t.Fatal(err)
	}
	before, err := bucket.GetInfo(t.Context(), "id")
	if err != nil {
		t.Fatal(err)
	}
	if err := putBody(t.Context(), js, c, "id", first, lim); err != nil {
		t.Fatal(err)
	}
	if after, err := bucket.GetInfo(t.Context(), "id"); err != nil || after.NUID != before.NUID {
		t.Errorf("the object was written again (%v)", err)
	}
	if err := putBody(t.Context(), js, c, "id", []byte("other"), lim); err != nil {
		t.Fatal(err)
	}
	if got, err := bucket.GetBytes(t.Context(), "id"); err != nil || string(got) != "other" {
		t.Errorf("the object holds %q, %v, want the new data", got, err)
	}
}

func TestPrepare(t *testing.T) {
	o := Options{}.withDefaults()
	lim := limits{message: 1 << 20}
	noBody := withSubject("box0", 1, 100_000)
	for name, c := range map[string]struct {
		e    *event.Event
		lim  limits
		body bool
		err  string
	}{
		"small":                           {newEvent("box0", 1), lim, false, ""},
		"large body":                      {bodyEvent("box0", 1, 70_000), lim, true, ""},
		"small body above a small limit":  {bodyEvent("box0", 1, 10_000), limits{5_000}, true, ""},
		"large without a body":            {noBody, lim, false, ""},
		"too large without a body":        {noBody, limits{50_000}, false, "is larger than the broker takes (50000)"},
		"too large even without its body": {bodyEvent("box0", 1, 70_000), limits{500}, false, "is larger than the broker takes (500)"},
	} {
		t.Run(name, func(t *testing.T) {
			m, body, err := o.prepare(c.e, c.lim)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || reactTo(err) != giveUp {
					t.Fatalf("prepare = %v, want giving up with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (body != nil) != c.body || (m.Header["ce-dataref"] != nil) != c.body || size(m) > c.lim.message {
				t.Errorf("message of %d bytes, body to store %v, dataref %v", size(m), body != nil, m.Header["ce-dataref"])
			}
		})
	}
	e := newEvent("box0", 1)
	e.Data = jsontext.Value("{")
	if _, _, err := (Options{Structured: true}).withDefaults().prepare(e, lim); err == nil || reactTo(err) != giveUp {
		t.Errorf("prepare of broken data = %v, want giving up", err)
	}
}

func TestWithoutMember(t *testing.T) {
	for src, want := range map[string]string{
		`{"message":{"body":{"a":[1]},"x":1}}`:        `{"message":{"x":1}}`,
		`{"a":1,"message":{"x":{"body":2}},"body":3}`: "",
		`{"message":"text"}`:                          "",
		`{"message":null}`:                            "",
		`[1]`:                                         "",
		`{"message":{"x":"é\u00e9","body":null},"z":[{}]}`: `{"message":{"x":"éé"},"z":[{}]}`,
	} {
		got, cut, err := withoutMember(jsontext.Value(src), "message", "body")
		if err != nil {
			t.Fatalf("%s: %v", src, err)
		}
		if cut != (want != "") || cut && string(got) != want {
			t.Errorf("withoutMember(%s) = %s, %v, want %q", src, got, cut, want)
		}
	}
	for _, bad := range []string{"{", `{"message":`, "", `{"a":1}}`, `{"message":{"body":1}`} {
		if got, _, err := withoutMember(jsontext.Value(bad), "message", "body"); err == nil {
			t.Errorf("withoutMember(%q) = %s, want an error", bad, got)
		}
	}
}
