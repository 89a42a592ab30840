package delta

import (
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// other is a change of how often a series takes place.
var other = set("recurrence", map[string]any{"pattern": map[string]any{"type": "weekly", "interval": 1}, "range": map[string]any{"type": "endDate", "startDate": "1998-06-01", "endDate": "2000-01-20"}})

func parked(t *testing.T, st *store.Store) (ids []string) {
	t.Helper()
	list, err := st.Quarantined()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		ids = append(ids, q.Item)
	}
	return ids
}

// One item that can never be read by itself is parked, and the calendar goes on.
func TestAnItemThatIsRefusedForEverIsParked(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10, 17)...))
		page := append(weekly(2, 3, 17), whole("y", 1, soon, january(5)))
		for n := range 3 {
			d.failures[dateID("s", january(10))] = graph.ErrForbidden
			d.next = []graph.Page{of(page...)}
			if ok := d.run(); ok != (n == 2) {
				t.Fatalf("try %d went well: %v", n+1, ok)
			}
		}
		d.want("invited y")
		if ids := parked(t, d.st); len(ids) != 1 || ids[0] != dateID("s", january(10)) {
			t.Errorf("parked %v", ids)
		}
	})
}

// A master that is read by itself and takes place at other times says nothing of its dates: everything is compared.
func TestAMovedMasterReadByItselfIsNotTheWholeStory(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10, 17)...))
		moved := seriesMaster("s", 2, longAgo, other)
		d.exists(moved)
		d.f.readDirectly("s")
		d.full = []graph.Page{of(moved, dateOf("s", 2, january(3)), dateOf("s", 2, january(17)))}
		d.round("")
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0110 2000-01-10", "s-0117 2000-01-17")
		d.round("updated s")
		d.wantKnown("s 1998-06-01", "s-0103 2000-01-03", "s-0117 2000-01-17")
	})
}

// While a master cannot be read it is not known whether its series was moved, so none of its dates is missing.
func TestDatesOfASeriesThatCannotBeReadAreNotMissing(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10, 17)...))
		d.failures["s"] = graph.ErrCorrupt
		d.round("", of(dateOf("s", 2, january(4)), dateOf("s", 2, january(11)), dateOf("s", 2, january(18))))
		d.wantReads("cal/s")
	})
}

// What was asked for is asked for again when it could not be done.
func TestAnEnumerationThatWasAskedForIsNotForgotten(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(whole("x", 1, longAgo, january(5)), whole("y", 1, longAgo, january(6))))
		d.full = []graph.Page{of(whole("y", 1, longAgo, january(6)))}
		d.f.ask("notifications were missed", true)
		d.failures[""] = graph.ErrForbidden
		if d.run() {
			t.Fatal("a round that was refused went well")
		}
		d.round("deleted x")
	})
}

// A series of which nothing is left in the window is told as removed, and lives on (D-38).
func TestTheLastDateInTheWindowIsTakenOut(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3)...))
		d.exists(seriesMaster("s", 2, longAgo))
		d.round("deleted s-0103", of(removed("s")))
	})
}

// A date that was moved far away is remembered, so that its way back is told.
func TestADateComesBackFromFarAway(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline(of(weekly(1, 3, 10)...))
		away := exceptionOf("s", 2, january(10), january(10).AddDate(1, 0, 0))
		d.exists(away)
		d.round("rescheduled s-0110", of(weekly(3, 3)...))
		d.trueUp("", of(weekly(3, 3)...))
		d.round("rescheduled s-0110", of(weekly(4, 3, 10)...))
	})
}

// Whose master is gone is no date of anything.
func TestDatesOfASeriesThatIsGoneAreNotKept(t *testing.T) {
	inDiary(t, func(d *diary) {
		d.baseline()
		d.round("", of(dateOf("s", 1, january(3))))
		d.wantKnown()
	})
}

// An all-day series that is told in another time zone starts at other times, although its dates look the same.
func TestAnAllDaySeriesThatChangesItsZone(t *testing.T) {
	inDiaryTuned(t, func(w *Watch) { w.Starting, w.NoZone = []time.Duration{0}, true }, func(d *diary) {
		allDay := []change{set("isAllDay", true), set("start", midnightOf(longAgo)), set("end", midnightOf(longAgo.AddDate(0, 0, 1)))}
		in := func(zone string, version int) graph.Page {
			master := seriesMaster("s", version, longAgo, append(allDay, set("originalStartTimeZone", zone), set("originalEndTimeZone", zone))...)
			o := map[string]any{"id": "s-0103", "@odata.etag": `W/"` + changeKey(version, "\x0f\x00\x00\x00\x16\x00\x00\x00") + `"`, "seriesMasterId": "s", "type": "occurrence",
				"start": midnightOf(january(3)), "end": midnightOf(january(4))}
			return of(master, item(o))
		}
		d.baseline(in("Tokyo Standard Time", 1))
		next := func() string {
			at, _, err := d.st.NextAlarm()
			if err != nil {
				t.Fatal(err)
			}
			return at.UTC().Format(time.DateTime)
		}
		if at := next(); at != "2000-01-02 15:00:00" {
			t.Errorf("midnight in Tokyo is %s", at)
		}
		d.round("updated s", in("GMT Standard Time", 2))
		var due []store.Alarm
		err := d.st.Update(func(tx *store.Tx) (err error) {
			due, err = tx.TakeAlarms(january(10), 10, nil)
			return err
		})
		if err != nil || len(due) != 2 || due[1].Start.UTC().Format(time.DateTime) != "2000-01-03 00:00:00" {
			t.Errorf("alarms %+v, %v", due, err)
		}
	})
}

func midnightOf(t time.Time) any {
	return map[string]any{"dateTime": t.Format("2006-01-02") + "T00:00:00.0000000", "timeZone": "UTC"}
}

// inDiaryTuned is inDiary with another watch.
func inDiaryTuned(t *testing.T, tune func(*Watch), test func(*diary)) {
	inDiary(t, func(d *diary) {
		d.tune = tune
		d.restart()
		test(d)
	})
}

func TestTheDayOfAnAllDayException(t *testing.T) {
	for _, tt := range []struct{ original, zone, want string }{
		{"2026-11-25T00:00:00Z", "W. Europe Standard Time", "2026-11-25T00:00:00Z"},
		{"2026-11-24T23:00:00Z", "W. Europe Standard Time", "2026-11-25T00:00:00Z"},
		{"2026-11-25T05:00:00Z", "Eastern Standard Time", "2026-11-25T00:00:00Z"},
		{"2026-11-24T15:00:00Z", "Tokyo Standard Time", "2026-11-25T00:00:00Z"},
		{"2026-11-25T00:00:00Z", "tzone://Microsoft/Custom", "2026-11-25T00:00:00Z"},
	} {
		if got := midnight(tt.original, tt.zone); got != tt.want || !strings.HasSuffix(got, "T00:00:00Z") || event.ParseTime(got).IsZero() {
			t.Errorf("midnight(%s, %s) = %s, want %s", tt.original, tt.zone, got, tt.want)
		}
	}
}
