package delta

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// scriptedCalendar is a Graph with one calendar, which says what a test wants it to.
type scriptedCalendar struct {
	Graph // what is not asked for here
	t     testing.TB
	full  []graph.Page // the pages of an enumeration
	next  []graph.Page // those of the next round from the cursor; empty afterwards
	gone  bool         // the calendar

	mu       sync.Mutex            // guards what follows
	events   map[string]graph.Item // what can be read by itself
	failures map[string]error      // by link or id: once
	views    []graph.CalendarViewRequest
	reads    []string
	rounds   int // makes every cursor another one
}

func (g *scriptedCalendar) DefaultCalendar(context.Context, string) (graph.Calendar, error) {
	return graph.Calendar{ID: "cal", Name: "Calendar", IsDefault: true}, nil
}

func (g *scriptedCalendar) Calendars(context.Context, string) ([]graph.Calendar, error) {
	if g.gone {
		return []graph.Calendar{{ID: "other"}}, nil
	}
	return []graph.Calendar{{ID: "cal"}, {ID: "other"}}, nil
}

// CalendarViewDelta answers from the script: links are "full 1", "next 1" and so on, cursors "cursor 1".
func (g *scriptedCalendar) CalendarViewDelta(_ context.Context, r graph.CalendarViewRequest) (graph.Page, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Calendar != "" || r.Mailbox != "a@example.com" {
		g.t.Errorf("asked for calendar %q of %q", r.Calendar, r.Mailbox)
	}
	g.views = append(g.views, r)
	if g.gone {
		return graph.Page{}, graph.ErrNotFound
	}
	if err := g.failures[r.Link]; err != nil {
		delete(g.failures, r.Link)
		return graph.Page{}, err
	}
	kind, pages, n := "full", g.full, 0
	switch {
	case strings.HasPrefix(r.Link, "next "), strings.HasPrefix(r.Link, "cursor "):
		kind, pages = "next", g.next
	}
	if _, err := fmt.Sscanf(r.Link, kind+" %d", &n); err != nil {
		n = 0
	}
	if n >= len(pages) {
		return graph.Page{Delta: g.cursor()}, nil
	}
	p := pages[n]
	if n+1 < len(pages) {
		p.Next = fmt.Sprintf("%s %d", kind, n+1)
		return p, nil
	}
	p.Delta = g.cursor()
	if kind == "next" {
		g.next = nil
	}
	return p, nil
}

func (g *scriptedCalendar) cursor() string { g.rounds++; return fmt.Sprintf("cursor %d", g.rounds) }

func (g *scriptedCalendar) Event(_ context.Context, _, calendar, id string) (graph.Item, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reads = append(g.reads, calendar+"/"+id)
	if err := g.failures[id]; err != nil {
		delete(g.failures, id)
		return graph.Item{}, err
	}
	it, ok := g.events[id]
	if !ok {
		return graph.Item{}, graph.ErrNotFound
	}
	return it, nil
}

// diary is a room over one scripted calendar, whose rounds are made one at a time.
type diary struct {
	*scriptedCalendar
	dir  string
	st   *store.Store
	room *Room
	f    *feed
	seen uint64       // of the outbox
	tune func(*Watch) // nil: the watch is as it is
}

// inDiary runs a test in a bubble, where it is 2000-01-01.
func inDiary(t *testing.T, test func(*diary)) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(t)
		d.open()
		defer func() { d.st.Close() }()
		test(d)
	})
}

func newDiary(t testing.TB) *diary {
	return &diary{dir: t.TempDir(), scriptedCalendar: &scriptedCalendar{t: t, events: map[string]graph.Item{}, failures: map[string]error{}}}
}

const (
	past, future = 7 * 24 * time.Hour, 32 * 24 * time.Hour
	slide        = future / 8 // TrueUp is longer
)

// open makes the room over what is stored, as a start of the process does.
func (d *diary) open() {
	d.t.Helper()
	var err error
	if d.st, err = store.Open(d.dir, store.Options{}); err != nil {
		d.t.Fatal(err)
	}
	w := Watch{Name: "w", Token: "a", Calendars: []FolderRef{{Name: "default"}}, Meetings: event.CalendarEvents, Content: event.ContentEnvelope, Past: past, Future: future}
	if d.tune != nil {
		d.tune(&w)
	}
	d.room, err = New(d.st, Options{
		Graphs: map[string]Graph{"c": d.scriptedCalendar}, Poll: time.Hour, Sweep: time.Hour, TrueUp: 1000 * time.Hour,
		Targets: []Target{{Connection: "c", Identity: func() (string, string) { return "t", "" }, Address: "a@example.com", Watches: []Watch{w}}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.room.mailboxes[0].refresh(d.t.Context())
	for _, f := range d.room.feeds {
		d.f = f
	}
	if len(d.room.feeds) != 1 {
		d.t.Fatalf("%d feeds", len(d.room.feeds))
	}
}

func (d *diary) restart() {
	d.t.Helper()
	if err := d.st.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.open()
}

// run lets the feed do what it does until it wants to wait, and reports whether that went well.
func (d *diary) run() bool {
	time.Sleep(time.Until(d.f.notBefore))
	d.f.begun = time.Time{}
	d.f.run(d.t.Context())
	return d.f.tries == 0
}

// round makes a round from the cursor over some pages, which must go well, and wants it to tell this.
func (d *diary) round(want string, pages ...graph.Page) {
	d.t.Helper()
	d.next = pages
	if !d.run() {
		d.t.Fatalf("the round failed: %s", d.f.shown.Error)
	}
	d.want(want)
}

// baseline reads the calendar for the first time.
func (d *diary) baseline(pages ...graph.Page) {
	d.t.Helper()
	d.full = pages
	d.round("")
	d.reads, d.views = nil, nil
}

// trueUp enumerates the calendar again.
func (d *diary) trueUp(want string, pages ...graph.Page) {
	d.t.Helper()
	d.full = pages
	d.f.ask("trueup", true)
	d.round(want)
}

// want compares what was told since it was last called: "name id" each.
func (d *diary) want(want string) {
	d.t.Helper()
	rows, err := d.st.Outbox(d.seen, 1<<30)
	if err != nil {
		d.t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		d.seen = row.Seq
		if row.Event.Area == event.AreaCalendar {
			got = append(got, row.Event.Name+" "+strings.TrimPrefix(row.Event.Subject, "events/"))
		}
	}
	if s := strings.Join(got, ", "); s != want {
		d.t.Errorf("told %q, want %q", s, want)
	}
}

// wantReads compares what was read by itself since it was last called, in any order.
func (d *diary) wantReads(want ...string) {
	d.t.Helper()
	slices.Sort(d.reads)
	if !slices.Equal(d.reads, want) {
		d.t.Errorf("read by themselves: %q, want %q", d.reads, want)
	}
	d.reads = nil
}

// known lists what is stored, as ids with their starts.
func (d *diary) known() (out []string) {
	d.t.Helper()
	err := d.st.View(func(tx *store.Tx) error {
		return tx.EachMeeting(d.f.num, "", func(_ store.MeetingKey, read func() (store.Meeting, error)) error {
			m, err := read()
			out = append(out, strings.TrimSuffix(m.ID+" "+m.Meeting.Start.DateTime, "T09:00:00Z"))
			return err
		})
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *diary) wantKnown(want ...string) {
	d.t.Helper()
	if got := d.known(); !slices.Equal(got, want) {
		d.t.Errorf("known: %q, want %q", got, want)
	}
}

// exists has items readable by themselves.
func (d *diary) exists(items ...graph.Item) {
	for _, it := range items {
		d.events[it.ID] = it
	}
}

func of(items ...graph.Item) graph.Page { return graph.Page{Items: items} }

func removed(id string) graph.Item { return graph.Item{ID: id, Removed: true} }

// January is a morning of the bubble's first month.
func january(day int) time.Time { return time.Date(2000, 1, day, 9, 0, 0, 0, time.UTC) }

// longAgo is before there was a watch, soon after there was one.
var longAgo, soon = time.Date(1999, 6, 1, 9, 0, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)

type change = func(map[string]any)

func whole(id string, version int, at, start time.Time, changes ...change) graph.Item {
	o := map[string]any{
		"id": id, "@odata.etag": `W/"` + changeKey(version, "") + `"`, "changeKey": changeKey(version, ""), "type": "singleInstance", "seriesMasterId": nil,
		"createdDateTime": at.Format(time.RFC3339), "lastModifiedDateTime": at.Format(time.RFC3339), "iCalUId": "040000008200E00074C5B7101A82E008" + id,
		"subject": "Weekly review of open questions", "bodyPreview": "Agenda: figures, risks, next steps", "isAllDay": false, "isCancelled": false, "isOrganizer": false,
		"isDraft": false, "hasAttachments": false, "importance": "normal", "sensitivity": "normal", "showAs": "busy", "categories": []string{},
		"webLink": "https://outlook.office365.com/owa/?itemid=" + id + "&exvsurl=1&path=/calendar/item", "originalStartTimeZone": "W. Europe Standard Time", "originalEndTimeZone": "W. Europe Standard Time",
		"responseStatus": map[string]any{"response": "notResponded", "time": "0001-01-01T00:00:00Z"}, "body": map[string]any{"contentType": "html", "content": "<html><body>Agenda: figures, risks, next steps</body></html>"},
		"organizer":        map[string]any{"emailAddress": map[string]any{"name": "Adele Vance", "address": "adelev@contoso.com"}},
		"attendees":        []any{map[string]any{"type": "required", "status": map[string]any{"response": "none"}, "emailAddress": map[string]any{"name": "Alex Wilber", "address": "alexw@contoso.com"}}},
		"location":         map[string]any{"displayName": "Room 12", "locationType": "default"},
		"onlineMeetingUrl": nil, "isOnlineMeeting": false, "recurrence": nil,
	}
	takesPlace(start)(o)
	for _, c := range changes {
		c(o)
	}
	return item(o)
}

func item(o map[string]any) graph.Item {
	raw, err := json.Marshal(o, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return graph.Item{ID: o["id"].(string), Raw: raw}
}

// changeKey is a version as Graph writes it: bare, or with the head of notifications and stubs (W-9a).
func changeKey(version int, head string) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s%022d", head, version))
}

func takesPlace(start time.Time) change {
	clock := func(t time.Time) any {
		return map[string]any{"dateTime": t.Format("2006-01-02T15:04:05.0000000"), "timeZone": "UTC"}
	}
	return func(o map[string]any) { o["start"], o["end"] = clock(start), clock(start.Add(time.Hour)) }
}

func set(name string, value any) change { return func(o map[string]any) { o[name] = value } }

// seriesMaster is a weekly series that began long before the window.
func seriesMaster(id string, version int, at time.Time, changes ...change) graph.Item {
	return whole(id, version, at, longAgo.AddDate(-1, 0, 0), append([]change{set("type", "seriesMaster"),
		set("recurrence", map[string]any{"pattern": map[string]any{"type": "weekly", "interval": 1}, "range": map[string]any{"type": "noEnd", "startDate": "1998-06-01"}})}, changes...)...)
}

// dateOf is the stub of an occurrence (D-36a), whose id encodes its day (D-36d).
func dateOf(series string, version int, start time.Time) graph.Item {
	o := map[string]any{"id": dateID(series, start), "@odata.etag": `W/"` + changeKey(version, "\x0f\x00\x00\x00\x16\x00\x00\x00") + `"`, "seriesMasterId": series, "type": "occurrence"}
	takesPlace(start)(o)
	return item(o)
}

func dateID(series string, start time.Time) string { return series + start.Format("-0102") }

// exceptionOf is an occurrence with properties of its own.
func exceptionOf(series string, version int, original, start time.Time, changes ...change) graph.Item {
	return whole(dateID(series, original), version, soon, start, append([]change{set("type", "exception"), set("seriesMasterId", series),
		set("originalStart", original.Format(time.RFC3339)), set("createdDateTime", longAgo.Format(time.RFC3339))}, changes...)...)
}

// weekly is what a round holds of a series: its master and its dates of the month.
func weekly(version int, days ...int) (out []graph.Item) {
	out = append(out, seriesMaster("s", version, longAgo))
	for _, day := range days {
		out = append(out, dateOf("s", version, january(day)))
	}
	return out
}

func TestASeriesMayBeSplitOverPages(t *testing.T) {
	inDiary(t, func(d *diary) {
		s, x := weekly(1, 3, 10, 17), whole("x", 1, longAgo, january(5))
		d.baseline(of(s[1]), of(), of(s[0], s[2]), of(s[3], x))
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "s-0117 2000-01-17", "x 2000-01-05")
		d.trueUp("", of(x, s[3], s[2]), of(s[1]), of(s[0], s[3])) // some twice (D-5)
		d.wantReads()
		if len(d.views) != 3 {
			t.Errorf("%d pages were asked for, want 3", len(d.views))
		}
		d.round("rescheduled s-0110", of(s[1]), of(exceptionOf("s", 2, january(10), january(11)), s[3]), of(s[0]))
		d.wantReads()
	})
}

func TestAMissingMasterIsReadOnce(t *testing.T) {
	inDiary(t, func(d *diary) {
		s := weekly(1, 3, 10, 17)
		d.exists(s[0])
		d.full = []graph.Page{of(s[1:]...)}
		d.round("")
		d.wantReads("cal/s")
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "s-0117 2000-01-17")
		d.round("", of(s[1:]...))
		d.wantReads() // the one that is stored is of the same version
		d.exists(seriesMaster("s", 2, longAgo, set("subject", "Another")))
		d.round("updated s", of(weekly(2, 3, 10, 17)[1:]...))
		d.wantReads("cal/s")
	})
}

func TestADateOfASeriesThatIsNotThereIsNotTold(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline()
		d.round("", of(dateOf("s", 1, january(3))))
		d.wantReads("cal/s") // 404: it was deleted meanwhile
	})
}

// What a fill needs and did not get is asked for again; an unchanged stub is not sent a second time (D-36c).
func TestAFailedFillIsRetried(t *testing.T) {
	tests := []struct {
		name  string
		err   error
		then  func(*diary)
		views int  // requests for pages
		again bool // what was read already is read again
	}{
		{"the round goes on where it is", graph.ErrUnavailable, func(*diary) {}, 1, false},
		{"patience is asked for", &graph.Error{Op: "get event", Status: 429, RetryAfter: time.Minute, Err: graph.ErrThrottled}, func(*diary) {}, 1, false},
		{"the round is begun anew", graph.ErrForbidden, func(*diary) {}, 2, true},
		{"the process is started again", graph.ErrUnavailable, (*diary).restart, 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inDiary(t, func(d *diary) {
				d.baseline()
				d.exists(seriesMaster("s", 1, soon), seriesMaster("t", 1, soon))
				d.failures["t"] = tt.err
				pages := []graph.Page{of(dateOf("s", 1, january(3)), dateOf("t", 1, january(4)), whole("x", 1, soon, january(5)))}
				d.next = pages
				if d.run() {
					t.Fatal("the round went well")
				}
				d.want("")
				d.wantKnown()
				tt.then(d)
				d.round("invited s, invited t, invited x", pages...)
				want := []string{"cal/s", "cal/t", "cal/t"}
				if tt.again {
					want = []string{"cal/s", "cal/s", "cal/t", "cal/t"}
				}
				d.wantReads(want...)
				if len(d.views) != tt.views {
					t.Errorf("%d pages were asked for, want %d", len(d.views), tt.views)
				}
				d.round("")
			})
		})
	}
}

func TestAVanishedDateIsReadBeforeItIsTold(t *testing.T) {
	tests := []struct {
		name string
		is   []graph.Item // what its id gives
		want string
		left []string
	}{
		{"it was deleted", nil, "deleted s-0110", []string{"s 1998-06-01", "s-0103 2000-01-03", "s-0117 2000-01-17"}},
		{"it was moved out of the window", []graph.Item{exceptionOf("s", 2, january(10), january(10).AddDate(1, 0, 0))}, "rescheduled s-0110",
			[]string{"s 1998-06-01", "s-0103 2000-01-03", "s-0110 2001-01-10", "s-0117 2000-01-17"}},
		{"it is there all the same", []graph.Item{whole("s-0110", 1, longAgo, january(10), set("type", "occurrence"), set("seriesMasterId", "s"))}, "",
			[]string{"s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "s-0117 2000-01-17"}},
	}
	for _, tt := range tests {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in an enumeration: %v", tt.name, full), func(t *testing.T) {
				inDiary(t, func(d *diary) {
					d.baseline(of(weekly(1, 3, 10, 17)...))
					d.exists(tt.is...)
					if full {
						d.trueUp(tt.want, of(weekly(2, 3, 17)...))
					} else {
						d.round(tt.want, of(weekly(2, 3, 17)...))
					}
					d.wantReads("cal/s-0110")
					d.wantKnown(tt.left...)
					d.round("")
				})
			})
		}
	}
}

// A series that an enumeration does not show is read by its master, and its dates only where that is still there.
func TestAVanishedSeriesIsReadAsAWhole(t *testing.T) {
	inDiary(t, func(d *diary) {
		x := whole("x", 1, longAgo, january(5))
		d.baseline(of(append(weekly(1, 3, 10, 17), x)...))
		d.trueUp("deleted s", of(x))
		d.wantReads("cal/s")
		d.wantKnown("x 2000-01-05")
	})
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10)...))
		d.exists(seriesMaster("s", 2, longAgo))
		d.trueUp("deleted s-0103, deleted s-0110")
		d.wantReads("cal/s", "cal/s-0103", "cal/s-0110")
		d.wantKnown("s 1998-06-01")
	})
}

// The dates of a series that merely came to other times are not looked for one by one.
func TestASeriesThatMovesTakesItsDatesAlong(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10, 17)...))
		s := []graph.Item{seriesMaster("s", 2, longAgo, takesPlace(longAgo.AddDate(-1, 0, 1)))}
		for _, day := range []int{4, 11, 18} {
			s = append(s, dateOf("s", 2, january(day)))
		}
		d.round("rescheduled s", of(s...))
		d.wantReads()
		d.wantKnown("s 1998-06-02", "s-0104 2000-01-04", "s-0111 2000-01-11", "s-0118 2000-01-18")
		d.trueUp("", of(s...))
	})
}

func TestRemovedItems(t *testing.T) {
	series := []string{"s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10"}
	tests := []struct {
		name  string
		items []graph.Item
		is    []graph.Item // what can be read by itself
		want  string
		reads []string
		left  []string
	}{
		{"one that nobody knows means nothing (D-38)", []graph.Item{removed("stranger")}, nil, "", nil, append(slices.Clone(series), "x 2000-01-05")},
		{"a meeting that was deleted", []graph.Item{removed("x")}, nil, "deleted x", []string{"cal/x"}, series},
		{"a meeting that left the window (D-39)", []graph.Item{removed("x")}, []graph.Item{whole("x", 2, longAgo, january(5).AddDate(1, 0, 0))}, "rescheduled x", []string{"cal/x"},
			append(slices.Clone(series), "x 2001-01-05")},
		{"a meeting that is there all the same", []graph.Item{removed("x")}, []graph.Item{whole("x", 1, longAgo, january(5))}, "", []string{"cal/x"}, append(slices.Clone(series), "x 2000-01-05")},
		{"a meeting that came back within the round", []graph.Item{removed("x"), whole("x", 2, longAgo, january(6))}, nil, "rescheduled x", nil, append(slices.Clone(series), "x 2000-01-06")},
		{"a meeting that changed and then went", []graph.Item{whole("x", 2, longAgo, january(6)), removed("x")}, nil, "deleted x", []string{"cal/x"}, series},
		{"a series that was deleted, told by its master", []graph.Item{removed("s")}, nil, "deleted s", []string{"cal/s"}, []string{"x 2000-01-05"}},
		{"a series that was deleted, told with its dates", []graph.Item{removed("s-0103"), removed("s"), removed("s-0110")}, nil, "deleted s", []string{"cal/s"}, []string{"x 2000-01-05"}},
		{"a date that was deleted", []graph.Item{removed("s-0103")}, nil, "deleted s-0103", []string{"cal/s-0103"}, []string{"s 1998-06-01", "s-0110 2000-01-10", "x 2000-01-05"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inDiary(t, func(d *diary) {
				d.baseline(of(append(weekly(1, 3, 10), whole("x", 1, longAgo, january(5)))...))
				d.exists(tt.is...)
				d.round(tt.want, of(tt.items...))
				d.wantReads(tt.reads...)
				d.wantKnown(tt.left...)
				d.round("")
				d.wantReads()
			})
		})
	}
}

// A cursor or a next link that Graph knows no more leads to an enumeration that tells the difference once.
func TestALostCursorIsMadeUpFor(t *testing.T) {
	for _, link := range []string{"cursor 1", "next 1", "full 1"} {
		t.Run("at "+link, func(t *testing.T) {
			inDiary(t, func(d *diary) {
				y := whole("y", 1, longAgo, january(6))
				d.baseline(of(append(weekly(1, 3, 10), whole("x", 1, longAgo, january(5)), y)...))
				z, moved := whole("z", 1, soon, january(7)), whole("x", 2, longAgo, january(8))
				d.full, d.next = []graph.Page{of(z, moved), of(weekly(2, 3)...)}, []graph.Page{of(z), of(moved)}
				if link == "full 1" {
					d.f.ask("trueup", true)
				}
				d.failures[link] = &graph.Error{Op: "calendar view delta", Status: 410, Err: graph.ErrResync}
				if d.run() {
					t.Fatal("nobody noticed")
				}
				d.want("")
				d.round("invited z, rescheduled x, deleted s-0110, deleted y", d.next...)
				d.wantReads("cal/s-0110", "cal/y")
				if d.f.shown.Reason != "" || len(d.views) != map[string]int{"cursor 1": 3, "next 1": 4, "full 1": 4}[link] {
					t.Errorf("after %d requests it is in a round for %q", len(d.views), d.f.shown.Reason)
				}
				d.trueUp("", d.full...)
			})
		})
	}
}

func TestAnItemThatCannotBeReadIsParkedAndTheRestGoesOn(t *testing.T) {
	bad := func(id string) graph.Item {
		return item(map[string]any{"id": id, "type": "singleInstance", "start": "soon"})
	}
	parked := func(d *diary) (out []string) {
		list, err := d.st.Quarantined()
		if err != nil {
			d.t.Fatal(err)
		}
		for _, q := range list {
			out = append(out, q.Item)
		}
		return out
	}
	inDiary(t, func(d *diary) {
		x := whole("x", 1, longAgo, january(5))
		d.baseline(of(append(weekly(1, 3, 10), x)...))
		d.round("invited y", of(bad("new"), bad("x")), of(whole("y", 1, soon, january(6))))
		if got := parked(d); !slices.Equal(got, []string{"new", "x"}) {
			t.Errorf("parked: %q", got)
		}
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "x 2000-01-05", "y 2000-01-06")
		// In an enumeration too it is neither taken for deleted, nor does Graph's own corruption stand in the way.
		d.failures["x"] = graph.ErrCorrupt
		d.exists(whole("y", 1, soon, january(6)))
		d.trueUp("deleted s-0110", of(append(weekly(2, 3), bad("x"), whole("y", 1, soon, january(6)))...))
		d.wantReads("cal/s-0110", "cal/x")
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "x 2000-01-05", "y 2000-01-06")

		list, err := d.st.Quarantined()
		if err != nil {
			t.Fatal(err)
		}
		d.exists(whole("new", 1, soon, january(7)))
		for _, q := range list {
			if q.Item == "new" {
				if err := d.room.Retry(q); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.round("invited new")
		if got := parked(d); !slices.Equal(got, []string{"x"}) {
			t.Errorf("parked after the retry: %q", got)
		}
	})
}

// A master that cannot be read keeps its dates from nothing but what they have from it.
func TestAMasterThatCannotBeReadIsParked(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10)...))
		d.failures["s"] = graph.ErrCorrupt
		d.round("rescheduled s-0110", of(dateOf("s", 2, january(3)), exceptionOf("s", 3, january(10), january(11))))
		list, err := d.st.Quarantined()
		if err != nil || len(list) != 1 || list[0].Item != "s" {
			t.Errorf("parked: %+v, %v", list, err)
		}
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-11")
	})
}

func TestTheWindowSlidesByItself(t *testing.T) {
	inDiary(t, func(d *diary) {
		begin := time.Now().UTC()
		end := begin.Add(future + slide)
		late := whole("late", 1, longAgo, end.Add(time.Hour))
		d.full = []graph.Page{of(append(weekly(1, 3, 10), whole("x", 1, longAgo, january(5)))...)}
		d.round("")
		if v := d.views[0]; !v.Start.Equal(begin.Add(-past)) || !v.End.Equal(end) {
			t.Errorf("window: %v to %v", v.Start, v.End)
		}
		time.Sleep(slide) // the last moment for which it serves
		d.round("")
		if v := d.views[len(d.views)-1]; v.Link != "cursor 1" {
			t.Errorf("the window was asked for anew: %+v", v)
		}
		time.Sleep(time.Minute)
		d.full = []graph.Page{of(append(weekly(1, 3, 10, 17), whole("x", 1, longAgo, january(5)), late)...)}
		d.round("") // what came into it was there before
		if v := d.views[len(d.views)-1]; v.Link != "" || !v.Start.Equal(begin.Add(slide+time.Minute-past)) || !v.End.Equal(end.Add(slide+time.Minute)) {
			t.Errorf("the window did not slide: %+v", v)
		}
		d.wantReads()
		d.wantKnown("late 2000-02-06T01:00:00Z", "s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "s-0117 2000-01-17", "x 2000-01-05")

		// What is behind it is not looked for, not told, and forgotten a month later.
		time.Sleep(20 * 24 * time.Hour)
		d.full = []graph.Page{of(append(weekly(1, 24, 31), late)...)}
		d.round("")
		d.wantReads()
		if n := len(d.known()); n != 8 {
			t.Errorf("%d are known, want all 8: %q", n, d.known())
		}
		time.Sleep(30 * 24 * time.Hour)
		d.full = []graph.Page{of(seriesMaster("s", 1, longAgo), dateOf("s", 1, january(24+35)))}
		d.round("")
		d.wantReads()
		d.wantKnown("late 2000-02-06T01:00:00Z", "s 1998-06-01", "s-0124 2000-01-24", "s-0131 2000-01-31", "s-0228 2000-02-28")
	})
}

// A calendar that was deleted takes its meetings along; a mailbox that answers 404 to everything does not.
func TestACalendarThatIsGone(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(append(weekly(1, 3, 10), whole("x", 1, longAgo, january(5)))...))
		d.gone = true
		if d.run() {
			t.Fatal("nobody noticed")
		}
		d.round("deleted s, deleted x")
		d.wantReads("cal/s", "cal/x")
		d.wantKnown()
	})
	inDiary(t, func(d *diary) {
		d.baseline(of(whole("x", 1, longAgo, january(5))))
		d.failures["cursor 1"] = errors.Join(graph.ErrNotFound, graph.ErrMailboxUnavailable)
		if d.run() {
			t.Fatal("nobody noticed")
		}
		d.round("")
		d.wantKnown("x 2000-01-05")
	})
}
