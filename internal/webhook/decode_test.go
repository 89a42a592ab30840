package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBodiesThatAreNoNotificationCollection(t *testing.T) {
	good := note("s1", "right", `"resourceData":{"id":"i"}`)
	deep := strings.Repeat("[", 100_000)
	tests := []struct{ name, body string }{
		{"nothing", ""},
		{"blank", " \n"},
		{"null", "null"},
		{"text", `"value"`},
		{"an array", "[" + good + "]"},
		{"a form", "value=x"},
		{"HTML", "<html></html>"},
		{"byte order mark", "\xef\xbb\xbf" + collectionOf(good)},
		{"no value", `{"values":[]}`},
		{"value in another case", `{"Value":[` + good + `]}`},
		{"value is null", `{"value":null}`},
		{"value is an object", `{"value":` + good + `}`},
		{"value is text", `{"value":"x"}`},
		{"an item is a number", collectionOf(good, "1")},
		{"an item is null", collectionOf(good, "null")},
		{"an item is a list", collectionOf(good, "[]")},
		{"value twice", `{"value":[` + good + `],"value":[` + good + `]}`},
		{"value twice, once escaped", `{"value":[],"v\u0061lue":[]}`},
		{"cut short in the body", `{"value":[` + good},
		{"cut short in text", `{"value":[{"subscriptionId":"s`},
		{"comma at the end", `{"value":[` + good + `,]}`},
		{"comma missing", `{"value":[` + good + good + `]}`},
		{"colon missing", `{"value"[]}`},
		{"name without quotes", `{value:[]}`},
		{"name is a number", `{1:[]}`},
		{"name is a list", `{` + deep},
		{"single quotes", `{'value':[]}`},
		{"two documents", collectionOf(good) + collectionOf(good)},
		{"rubbish behind", collectionOf(good) + "x"},
		{"a control character in text", "{\"value\":[{\"subscriptionId\":\"a\x01\"}]}"},
		{"broken escape", `{"value":[{"subscriptionId":"\x"}]}`},
		{"NaN", `{"value":[{"x":NaN}]}`},
		{"a number with a leading zero", `{"value":[{"x":01}]}`},
		{"a brace closed by a bracket", `{"value":[{]]}`},
		{"nested too deep at the top", deep},
		{"nested too deep beside value", `{"validationTokens":` + deep},
		{"nested too deep in value", `{"value":` + deep},
		{"nested too deep in an item", `{"value":[{"x":` + deep + strings.Repeat("]", 100_000) + `}]}`},
		{"nested too deep where text is wanted", `{"value":[{"subscriptionId":` + strings.Repeat(`{"a":`, 100_000)},
		{"NULs", strings.Repeat("\x00", 1000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, map[string]string{"s1": "right"})
			res := f.do("POST", notificationsURL, tt.body)
			if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusBadRequest || string(body) != "not a notification collection\n" {
				t.Errorf("answer = %d %q, want 400", res.StatusCode, body)
			}
			f.counted(map[string]uint64{"malformed": 1})
			if notes, _ := f.stored(); notes != nil {
				t.Errorf("stored %q of a body that was refused", notes)
			}
		})
	}
}

func TestOddBodiesThatAreFine(t *testing.T) {
	good := note("s1", "right", `"resourceData":{"id":"i"}`)
	nested := strings.Repeat("[", 25) + strings.Repeat("]", 25)
	tests := []struct {
		name, body string
		accepted   uint64
	}{
		{"empty collection", `{"value":[]}`, 0},
		{"white space", " {\n\"value\" :\t[ " + good + " , " + good + " ] } \r\n", 2},
		{"validation tokens null", `{"value":[` + good + `],"validationTokens":null}`, 1},
		{"unknown properties around", `{"@odata.context":"x","value":[` + good + `],"later":{"a":[1,2,{"b":null}]}}`, 1},
		{"name of value escaped", `{"v\u0061lue":[` + good + `]}`, 1},
		{"repeated names beside value", `{"x":1,"x":2,"value":[` + good + `]}`, 1},
		{"nested within reason", `{"x":` + nested + `,"value":[` + good + `]}`, 1},
		{"broken UTF-8 beside value", "{\"\xff\":\"\xff\",\"value\":[" + good + "]}", 1},
		{"numbers out of range", `{"x":1e999,"value":[` + good + `]}`, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, map[string]string{"s1": "right"})
			f.post(notificationsURL, tt.body, http.StatusAccepted)
			if got := f.h.Counters()["accepted"]; got != tt.accepted {
				t.Errorf("accepted %d, want %d", got, tt.accepted)
			}
		})
	}
}

func TestTooMuch(t *testing.T) {
	item := note("s1", "right", `"resourceData":{"id":"i"}`)
	times := func(n int) string { return collectionOf(strings.TrimSuffix(strings.Repeat(item+",", n), ",")) }
	f := newFixture(t, map[string]string{"s1": "right"})
	f.post(notificationsURL, times(10_000), http.StatusAccepted)
	if got := f.store.Pending(); got != 10_000 {
		t.Fatalf("%d pending, want 10,000", got)
	}
	f.post(notificationsURL, times(10_001), http.StatusRequestEntityTooLarge)
	f.post(notificationsURL, times(100_000), http.StatusRequestEntityTooLarge)

	padded := func(size int) string { // a good collection of exactly size bytes
		body := collectionOf(item)
		return body[:len(body)-1] + strings.Repeat(" ", size-len(body)) + "}"
	}
	f.post(notificationsURL, padded(10<<20), http.StatusAccepted)
	f.post(notificationsURL, padded(10<<20+1), http.StatusRequestEntityTooLarge)
	f.counted(map[string]uint64{"accepted": 10_001, "too_large": 3})
}

// chunks is a body of unknown length.
type chunks struct{ io.Reader }

func (f *fixture) postChunks(body io.Reader) int {
	r := httptest.NewRequest("POST", notificationsURL, chunks{body})
	r.ContentLength = -1
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	return w.Code
}

type endless struct{ fill byte }

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.fill
	}
	return len(p), nil
}

func TestChunkedBodies(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	body := collectionOf(note("s1", "right", `"x":"`+strings.Repeat("x", 300_000)+`"`))
	if got := f.postChunks(strings.NewReader(body)); got != http.StatusAccepted {
		t.Errorf("chunked = %d, want 202", got)
	}
	if got := f.postChunks(endless{'['}); got != http.StatusRequestEntityTooLarge {
		t.Errorf("endless = %d, want 413", got)
	}
	if got := f.postChunks(io.MultiReader(strings.NewReader(body[:1000]), failing{})); got != http.StatusBadRequest {
		t.Errorf("broken off = %d, want 400", got)
	}
	f.counted(map[string]uint64{"accepted": 1, "too_large": 1, "malformed": 1})
	if room := f.h.requests.room.Load(); room != maxBuffered {
		t.Errorf("%d bytes of room left, want all %d", room, maxBuffered)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestBodyLongerThanAnnounced(t *testing.T) {
	f := newFixture(t, nil)
	r := httptest.NewRequest("POST", notificationsURL, chunks{endless{' '}})
	r.ContentLength = 5
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("answer = %d, want 400", w.Code)
	}
}

// A parser is used again and again: nothing of a body may show up in the next one.
func TestParserForgets(t *testing.T) {
	var p parser
	first := collectionOf(note("s1", "a\\u0062c", `"resourceData":{"id":"x\"y","@odata.etag":"W/\"e\""}`), note("s2", "b", ``))
	items, err := p.decode([]byte(first), 10)
	if err != nil || len(items) != 2 || string(items[0].id) != `x"y` || string(items[0].etag) != `W/"e"` || string(items[1].subscription) != "s2" {
		t.Fatalf("decode = %+v, %v", items, err)
	}
	if items, err := p.decode([]byte(`{"value":[{}]`), 10); err == nil || items != nil {
		t.Errorf("decode = %+v, %v, want an error and no items", items, err)
	}
	items, err = p.decode([]byte(collectionOf(`{}`)), 10)
	if err != nil || len(items) != 1 || items[0].subscription != nil || items[0].id != nil || items[0].malformed {
		t.Errorf("decode = %+v, %v, want one empty item", items, err)
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{`{"value":[{"resourceData":{"id":"a"},"resourceData":null}]}`, `{"value":[],"value":[]}`, `{"value":[{"subscriptionId":"\ud83d\ude00\u0000"}]}`, "{\"value\":[{\"\xff\":\"\xff\"}]}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var p parser
		kept := bytes.Clone(body)
		items, err := p.decode(body, 100)
		if !bytes.Equal(body, kept) {
			t.Fatal("decode wrote to the body")
		}
		if err != nil && items != nil {
			t.Fatalf("items and an error: %v, %v", items, err)
		}
		want, ok := reference(body)
		if err != nil {
			// What encoding/json reads as a collection is refused only for a limit of ours or a doubled value.
			limits := len(want) > 100 || bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > maxDepth
			if ok && !limits && bytes.Count(body, []byte("value"))+bytes.Count(body, []byte(`\`)) < 2 {
				t.Fatalf("decode(%q): %v, encoding/json takes it", body, err)
			}
			return
		}
		if !ok || len(want) != len(items) {
			t.Fatalf("decode(%q) = %d items, encoding/json: %d, %v", body, len(items), len(want), ok)
		}
		for i, it := range items {
			if it.malformed {
				continue
			}
			data, _ := want[i]["resourceData"].(map[string]any)
			for _, c := range []struct {
				got  []byte
				want any
			}{
				{it.subscription, want[i]["subscriptionId"]}, {it.clientState, want[i]["clientState"]},
				{it.change, want[i]["changeType"]}, {it.lifecycle, want[i]["lifecycleEvent"]},
				{it.resource, want[i]["resource"]}, {it.id, data["id"]}, {it.etag, data["@odata.etag"]},
			} {
				if s, _ := c.want.(string); s != string(c.got) {
					t.Fatalf("decode(%q): item %d has %q, encoding/json %q", body, i, c.got, c.want)
				}
			}
		}
	})
}

// reference reads a collection with encoding/json; ok is false when it is none.
func reference(body []byte) (items []map[string]any, ok bool) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil, false
	}
	top, _ := v.(map[string]any)
	list, ok := top["value"].([]any)
	for _, e := range list {
		m, isObject := e.(map[string]any)
		ok = ok && isObject
		items = append(items, m)
	}
	return items, ok
}
