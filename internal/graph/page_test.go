package graph

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRecordedPages(t *testing.T) {
	const next, delta = "next", "delta"
	tests := map[string]struct {
		items   int
		removed []string
		link    string
		err     error
	}{
		"delta-calendarview-api-sample.json":               {err: errNoID},
		"delta-calendarview-empty-page-with-nextlink.json": {link: next},
		"delta-calendarview-page1.json":                    {items: 2, link: next},
		"delta-calendarview-page2.json":                    {items: 2, link: next},
		"delta-calendarview-page3-deltalink.json":          {items: 1, link: delta},
		"delta-calendarview-round2-removed.json":           {items: 2, removed: []string{"AAMkADk0MGFkODE3LWE4MmYtNDRhOS04OGQLkRkXbBznTvAADb6ytyAAA="}, link: delta},
		"delta-contacts-page.json":                         {err: errNoID},
		"delta-events-beta-page.json":                      {items: 1, link: next},
		"delta-mailfolders-page.json":                      {err: errNoID},
		"delta-messages-api-sample.json":                   {err: errNoID},
		"delta-messages-changetype-created-page1.json":     {items: 2, link: next},
		"delta-messages-changetype-created-page2.json":     {items: 2, link: delta},
		"delta-messages-changetype-created-round2.json":    {items: 2, link: delta},
		"delta-messages-page1.json":                        {items: 2, link: next},
		"delta-messages-page2.json":                        {items: 2, link: next},
		"delta-messages-page3-deltalink.json":              {items: 1, link: delta},
		"delta-messages-round2-removed.json":               {items: 2, removed: []string{"AAMkADk0MGFkODE3LWE4MmYtNDRhOS0Dh_6qB-pB2Sa2pUum19a6YAAKnLuxoAAA="}, link: delta},
		"recorded-delta-calendarview-series.json":          {items: 3, link: next},
	}
	files, _ := filepath.Glob("testdata/*delta-*.json")
	for _, file := range files {
		name := filepath.Base(file)
		want, ok := tests[name]
		if !ok {
			if !strings.HasPrefix(name, "error-") && name != "recorded-delta-occurrence-stub.json" {
				t.Errorf("no case for %s", name)
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			p, err := decodePage(bytes.NewReader(payload(t, name)))
			if !errors.Is(err, want.err) {
				t.Fatalf("decodePage = %v, want %v", err, want.err)
			}
			var removed []string
			for _, it := range p.Items {
				if it.Removed {
					removed = append(removed, it.ID)
				}
				if !it.Raw.IsValid() || !bytes.Contains(it.Raw, []byte(it.ID)) {
					t.Errorf("item %s: raw %s", it.ID, it.Raw)
				}
			}
			if len(p.Items) != want.items || !slices.Equal(removed, want.removed) {
				t.Errorf("%d items, removed %q, want %d, %q", len(p.Items), removed, want.items, want.removed)
			}
			if (p.Next != "") != (want.link == next) || (p.Delta != "") != (want.link == delta) {
				t.Errorf("next %q, delta %q, want %s", p.Next, p.Delta, want.link)
			}
		})
	}
}

func TestDecodeItem(t *testing.T) {
	tests := []struct {
		file, id string
	}{
		{"message-get.json", "AAMkADhMGAAA="},
		{"message-get-headers.json", "AAMkADhAAAW-VPeAAA="},
		{"recorded-delta-occurrence-stub.json", "AAMkADBlZTUwNTkxLWVmODgtNDVhNC1iZjhlLTdjNjA1ODZlMDI5MgFRAAgI1P7xXviAAEYAAAAAlG55P4sEGUW1zIJHyrZmIQcAqU3PyJwbLk2ME1AW_lSG_AAAAAAAAQ0AAKlNz8icGy5NjBNQFv5UhvgAABQcUeIAABA="},
	}
	for _, tt := range tests {
		it, err := decodeOne(bytes.NewReader(payload(t, tt.file)))
		if err != nil || !strings.HasPrefix(it.ID, tt.id[:12]) || it.Removed {
			t.Errorf("%s: %q, removed %v, %v", tt.file, it.ID, it.Removed, err)
		}
	}
}

func TestOddPages(t *testing.T) {
	const link = `"@odata.deltaLink":"https://x/d"`
	tests := []struct {
		name, in string
		items    int
		err      error // errAny: some
	}{
		{"unknown properties", `{"@odata.context":{"a":[1,{"value":[]}]},"new":null,"value":[{"id":"1"}],` + link + `}`, 1, nil},
		{"null property before", `{"@odata.nextLink":null,"value":[],` + link + `}`, 0, nil},
		{"same property twice", `{"value":[{"id":"1","a":1,"a":2}],` + link + `}`, 1, nil},
		{"escaped names", `{"v\u0061lue":[{"i\u0064":"1"}],` + link + `}`, 1, nil},
		{"not UTF-8", "{\"value\":[{\"id\":\"1\",\"subject\":\"\xff\xfe\"}]," + link + `}`, 1, nil},
		{"lone surrogate", `{"value":[{"id":"1","subject":"\ud800"}],` + link + `}`, 1, nil},
		{"no links is a listing's last page", `{"value":[]}`, 0, nil},
		{"removed null is not removed", `{"value":[{"id":"1","@removed":null}]}`, 1, nil},
		{"both links", `{"value":[],"@odata.nextLink":"a","@odata.deltaLink":"b"}`, 0, errTwoLinks},
		{"no value", `{` + link + `}`, 0, errNotPage},
		{"value is no array", `{"value":{},` + link + `}`, 0, errNotPage},
		{"value is null", `{"value":null,` + link + `}`, 0, errNotPage},
		{"item is no object", `{"value":["1"]}`, 0, errNotPage},
		{"id is a number", `{"value":[{"id":1}]}`, 0, errNotPage},
		{"id is empty", `{"value":[{"id":""}]}`, 0, errNoID},
		{"link is an object", `{"value":[],"@odata.nextLink":{}}`, 0, errNotPage},
		{"an array", `[]`, 0, errNotPage},
		{"HTML", `<html>`, 0, errAny},
		{"nothing", ``, 0, io.EOF},
		{"cut in an item", `{"value":[{"id":"1","subject":"a`, 0, io.ErrUnexpectedEOF},
		{"cut between items", `{"value":[{"id":"1"},`, 0, io.ErrUnexpectedEOF},
		{"cut before the link", `{"value":[{"id":"1"}]`, 0, io.ErrUnexpectedEOF},
		{"cut after the link", `{"value":[],` + link, 0, io.ErrUnexpectedEOF},
		{"cut before the value", `{"value":`, 0, io.ErrUnexpectedEOF},
		{"more after the end", `{"value":[]} {}`, 0, errAfterPage},
		{"rubbish after the end", `{"value":[]}<`, 0, errAny},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := decodePage(strings.NewReader(tt.in))
			if tt.err == errAny && err != nil {
				err = errAny
			}
			if !errors.Is(err, tt.err) || len(p.Items) != tt.items {
				t.Errorf("decodePage = %d items, %v, want %d, %v", len(p.Items), err, tt.items, tt.err)
			}
		})
	}
}

var errAny = errors.New("any")

func TestItemsOwnTheirBytes(t *testing.T) {
	in := []byte(`{"value":[{"id":"1","s":"one"},{"id":"2","s":"two"}]}`)
	p, err := decodePage(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	clear(in)
	if string(p.Items[0].Raw) != `{"id":"1","s":"one"}` || string(p.Items[1].Raw) != `{"id":"2","s":"two"}` {
		t.Errorf("items %s, %s", p.Items[0].Raw, p.Items[1].Raw)
	}
}

func FuzzPage(f *testing.F) {
	files, _ := filepath.Glob("testdata/*delta-*.json")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte(`{"value":[{"id":"1","@removed":{"reason":"deleted"}}],"@odata.deltaLink":"x"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := decodePage(bytes.NewReader(in))
		if err != nil {
			if p.Items != nil || p.Next != "" || p.Delta != "" {
				t.Error("a page beside an error")
			}
			return
		}
		if p.Next != "" && p.Delta != "" {
			t.Error("both links")
		}
		for _, it := range p.Items {
			if it.ID == "" || it.Raw.Kind() != '{' {
				t.Errorf("item %q: %s", it.ID, it.Raw)
			}
			if again, err := decodeItem(it.Raw); err != nil || again.ID != it.ID || again.Removed != it.Removed {
				t.Errorf("item %q decodes again as %q, %v", it.ID, again.ID, err)
			}
		}
		for i := range min(len(in), 200) { // nothing that is cut off is taken for a page
			if p, err := decodePage(bytes.NewReader(in[:i])); err == nil && len(bytes.TrimSpace(in[i:])) > 0 {
				t.Errorf("the first %d bytes of %d gave %d items", i, len(in), len(p.Items))
			}
		}
	})
}

func BenchmarkPage(b *testing.B) {
	var page bytes.Buffer
	page.WriteString(`{"value":[`)
	msg := payload(b, "message-get.json")
	for i := range 500 {
		if i > 0 {
			page.WriteByte(',')
		}
		page.Write(msg)
	}
	page.WriteString(`],"@odata.deltaLink":"https://x/"}`)
	b.SetBytes(int64(page.Len()))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		p, err := decodePage(bytes.NewReader(page.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		n += len(p.Items)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "items/s")
}
