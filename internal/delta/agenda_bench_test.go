package delta

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
)

// A calendar of 5,000 occurrences in the window: 100 series with 50 dates each, in pages of 1,000.
const (
	manySeries, manyDates = 100, 50
	manyItems             = manySeries * (1 + manyDates)
	manyPages             = (manyItems + 999) / 1000
)

func seriesID(i int) string {
	return fmt.Sprintf("AAMkADBlZTUwNTkxLWVmODgtNDVhNC1iZjhlLTdjNjA1ODZlMDI5MgBGAAAAAACUbnk-iwQZRbXMgkfKtmYhBwCpTc-InBsuTYwTUBb_VIb4AAAAAAENAACpTc-InBsuTYwTUBb_VIb4AAAU%08dAAA=", i)
}

// oneOfMany is what Graph tells of a series: its master and the stubs of its dates, one a day from tomorrow on.
func oneOfMany(i, version int, now time.Time) (out []graph.Item) {
	out = append(out, seriesMaster(seriesID(i), version, now.AddDate(0, -1, 0)))
	begin := now.UTC().Truncate(24 * time.Hour).Add(time.Duration(9*60+i) * time.Minute)
	for day := range manyDates {
		out = append(out, dateOf(seriesID(i), version, begin.AddDate(0, 0, 1+day)))
	}
	return out
}

func manyMeetings(version int, now time.Time) (items []graph.Item) {
	for i := range manySeries {
		items = append(items, oneOfMany(i, version, now)...)
	}
	return items
}

func inPages(items []graph.Item) (pages []graph.Page) {
	for chunk := range slices.Chunk(items, 1000) {
		pages = append(pages, graph.Page{Items: chunk})
	}
	return pages
}

func manyDiary(t testing.TB) *diary {
	d := newDiary(t)
	d.tune = func(w *Watch) {
		w.Future, w.Starting, w.TimeZone = 60*24*time.Hour, []time.Duration{15 * time.Minute}, "Europe/Berlin"
	}
	d.open()
	t.Cleanup(func() { d.st.Close() })
	return d
}

// calls is how often Graph was asked since it was last called.
func (d *diary) calls() int {
	n := len(d.views) + len(d.reads)
	d.views, d.reads = nil, nil
	return n
}

// A round asks Graph for its pages, and once for every master that it neither holds nor finds stored in that version.
func TestRoundsOverCalendarsAskForNoMoreThanTheyMust(t *testing.T) {
	now, d := time.Now(), manyDiary(t)
	var masters []string
	for i := range manySeries {
		masters = append(masters, seriesID(i))
	}
	without := func(items []graph.Item, n int) []graph.Page {
		return inPages(slices.DeleteFunc(items, func(it graph.Item) bool {
			return slices.Contains(masters[:n], it.ID)
		}))
	}
	tests := []struct {
		name    string
		version int
		missing int // masters
		full    bool
		want    int
	}{
		{"first reading, seven masters are missing", 1, 7, true, manyPages + 7},
		{"compared, all masters are there", 1, 0, true, manyPages},
		{"compared, those that are missing are known", 1, 7, true, manyPages},
		{"compared, five changed that are missing", 2, 5, true, manyPages + 5},
		{"from the cursor, all masters are there", 3, 0, false, manyPages},
		{"from the cursor, four changed that are missing", 4, 4, false, manyPages + 4},
	}
	for _, tt := range tests {
		d.exists(manyMeetings(tt.version, now)...)
		pages := without(manyMeetings(tt.version, now), tt.missing)
		if tt.full {
			d.trueUp("", pages...)
		} else {
			d.round("", pages...)
		}
		if got := d.calls(); got != tt.want {
			t.Errorf("%s: %d calls, want %d", tt.name, got, tt.want)
		}
	}
}

// BenchmarkCalendar measures rounds over a calendar of 5,000 occurrences, all durable.
func BenchmarkCalendar(b *testing.B) {
	now := time.Now()
	pages := inPages(manyMeetings(1, now))
	report := func(b *testing.B, items int, d *diary, calls int) {
		b.ReportMetric(float64(items*b.N)/b.Elapsed().Seconds(), "items/s")
		b.ReportMetric(float64(calls)/float64(b.N), "calls/op")
		if n := len(d.known()); n != manyItems {
			b.Errorf("%d items are known, want %d", n, manyItems)
		}
		d.want("")
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		var d *diary
		calls := 0
		for b.Loop() {
			b.StopTimer()
			d = manyDiary(b)
			d.full = pages
			b.StartTimer()
			d.room.roundOnce(b)
			calls += d.calls()
		}
		report(b, manyItems, d, calls)
	})
	b.Run("compared", func(b *testing.B) {
		b.ReportAllocs()
		d := manyDiary(b)
		d.full = pages
		d.room.roundOnce(b)
		d.calls()
		calls := 0
		for b.Loop() {
			d.f.ask("trueup", true)
			d.room.roundOnce(b)
			calls += d.calls()
		}
		report(b, manyItems, d, calls)
	})
	b.Run("one series changed", func(b *testing.B) {
		b.ReportAllocs()
		d := manyDiary(b)
		d.full = pages
		d.room.roundOnce(b)
		d.calls()
		calls, version := 0, 1
		for b.Loop() {
			b.StopTimer()
			version++
			d.next = inPages(oneOfMany(0, version, now))
			b.StartTimer()
			d.room.roundOnce(b)
			calls += d.calls()
		}
		report(b, 1+manyDates, d, calls)
	})
}
