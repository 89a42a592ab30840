package delta

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/triggerd/triggerd/internal/graph"
)

// recordedPage is a page of a recorded or documented answer.
func recordedPage(t *testing.T, name string) (p graph.Page) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "event", "testdata", "graph", name))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Value []jsontext.Value }
	if err := json.Unmarshal(text, &answer, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	for _, raw := range answer.Value {
		var o struct {
			ID      string         `json:"id"`
			Removed jsontext.Value `json:"@removed"`
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		p.Items = append(p.Items, graph.Item{ID: o.ID, Removed: o.Removed != nil, Raw: raw})
	}
	return p
}

// A series as Graph was recorded to tell it: its master and stubs of its dates. It is one event, and nothing is read beside.
func TestARecordedSeriesIsOneEvent(t *testing.T) {
	inDiary(t, func(d *diary) {
		time.Sleep(time.Until(time.Date(2023, 12, 5, 6, 17, 0, 0, time.UTC)))
		d.baseline()
		time.Sleep(time.Minute)
		series := recordedPage(t, "recorded-delta-calendarview-series.json")
		d.round("created 1==", series)
		d.wantReads()
		if n := len(d.known()); n != len(series.Items) {
			t.Errorf("%d items are known of %d", n, len(series.Items))
		}
		d.round("", series) // D-6: told again
		d.trueUp("", series)
		d.wantReads()
	})
}

// The rounds of the documentation: everything in them is understood, what was removed and never known is nothing (D-38).
func TestDocumentedRounds(t *testing.T) {
	inDiary(t, func(d *diary) {
		time.Sleep(time.Until(time.Date(2016, 12, 1, 0, 0, 0, 0, time.UTC)))
		pages := []graph.Page{recordedPage(t, "delta-calendarview-page1.json"), recordedPage(t, "delta-calendarview-page2.json"), recordedPage(t, "delta-calendarview-page3-deltalink.json")}
		d.baseline(pages...)
		known := strings.Join(d.known(), " ")
		for _, p := range pages {
			for _, it := range p.Items {
				if !strings.Contains(known, it.ID) {
					t.Errorf("%s is not known", it.ID)
				}
			}
		}
		d.round("", recordedPage(t, "delta-calendarview-round2-removed.json"))
		d.wantReads()
	})
}
