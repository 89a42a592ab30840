package delta

import (
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

func entry(change, key string, age time.Duration, now time.Time) store.Entry {
	return store.Entry{Notification: store.Notification{Feed: 1, Item: "i", Change: change, ChangeKey: key, At: now.Add(-age)}}
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	in := func(key string) *store.Item {
		return &store.Item{Observed: event.Observed{ChangeKey: key, FolderID: "in"}}
	}
	elsewhere := &store.Item{Observed: event.Observed{ChangeKey: "k2", FolderID: "archive"}}
	gone := &store.Item{Observed: event.Observed{ChangeKey: "k1", FolderID: "in"}, GoneAt: now}
	young, old := time.Second, time.Minute
	tests := []struct {
		name    string
		state   *store.Item
		outcome store.Outcome // of this round's looks
		entries []store.Entry
		read    bool // the item was read directly
		want    []store.Outcome
		open    bool
		overdue bool
	}{
		{"the announced version led to an event", in("k1"), store.Published, []store.Entry{entry("created", "k1", young, now)}, false, []store.Outcome{store.Published}, false, false},
		{"told again", in("k1"), "", []store.Entry{entry("created", "k1", young, now)}, false, []store.Outcome{store.Duplicate}, false, false},
		{"twice in one round", in("k1"), store.Published, []store.Entry{entry("created", "k1", young, now), entry("created", "k1", young, now)}, false, []store.Outcome{store.Duplicate, store.Published}, false, false},
		{"three versions, the last one seen", in("k3"), store.Published, []store.Entry{entry("created", "k1", young, now), entry("updated", "k2", young, now), entry("updated", "k3", young, now)}, false, []store.Outcome{store.Superseded, store.Superseded, store.Published}, false, false},
		{"nobody wants it", in("k1"), store.Filtered, []store.Entry{entry("updated", "k1", young, now)}, false, []store.Outcome{store.Filtered}, false, false},
		{"delta lags", nil, "", []store.Entry{entry("created", "k1", young, now)}, false, nil, true, false},
		{"delta lags behind a later version", in("k1"), "", []store.Entry{entry("updated", "k1", young, now), entry("updated", "k2", young, now)}, false, []store.Outcome{store.Duplicate}, true, false},
		{"delta lagged too long", nil, "", []store.Entry{entry("created", "k1", old, now)}, false, nil, false, true},
		{"read directly and gone", nil, "", []store.Entry{entry("created", "k1", old, now)}, true, []store.Outcome{store.Gone}, false, false},
		{"read directly, a later version", in("k9"), store.Published, []store.Entry{entry("updated", "k1", old, now)}, true, []store.Outcome{store.Published}, false, false},
		{"read directly, nothing new", in("k9"), "", []store.Entry{entry("updated", "k1", old, now)}, true, []store.Outcome{store.Superseded}, false, false},
		{"deleted, and an event of it", gone, store.Published, []store.Entry{entry("deleted", "", young, now)}, false, []store.Outcome{store.Published}, false, false},
		{"deleted, told again", gone, "", []store.Entry{entry("deleted", "", young, now)}, false, []store.Outcome{store.Duplicate}, false, false},
		{"deleted before it was seen", nil, "", []store.Entry{entry("created", "k1", young, now), entry("deleted", "", young, now)}, false, []store.Outcome{store.Superseded, store.Gone}, false, false},
		{"deleted here means moved there", elsewhere, store.Published, []store.Entry{entry("deleted", "", young, now)}, false, []store.Outcome{store.Published}, false, false},
		{"deleted, and delta does not show it yet", in("k1"), "", []store.Entry{entry("deleted", "", young, now)}, false, nil, true, false},
		{"no etag, and something changed", in("k1"), store.Published, []store.Entry{entry("updated", "", young, now)}, false, []store.Outcome{store.Published}, false, false},
		{"no etag, and nothing changed", in("k1"), "", []store.Entry{entry("updated", "", young, now)}, false, nil, true, false},
		{"parked", nil, store.Quarantined, []store.Entry{entry("created", "k1", young, now)}, false, []store.Outcome{store.Quarantined}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &announcements{byItem: map[string]*announced{"i": {entries: tt.entries, outcome: tt.outcome}}}
			states := map[string]*store.Item{}
			if tt.state != nil {
				states["i"] = tt.state
			}
			fin := &finish{}
			if tt.read {
				fin.confirmed = []string{"i"}
			}
			v := a.judge(sightsOf(states, "in"), fin.confirmed, now, 30*time.Second)
			var got []store.Outcome
			for _, s := range v.settled {
				got = append(got, s.outcome)
			}
			if len(got) != len(tt.want) {
				t.Fatalf("outcomes %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("outcomes %v, want %v", got, tt.want)
				}
			}
			if v.open != tt.open || len(v.overdue) == 1 != tt.overdue {
				t.Errorf("open %v, overdue %v; want %v, %v", v.open, v.overdue, tt.open, tt.overdue)
			}
			a.drop(v)
			if left := a.byItem["i"]; (left == nil) != (len(got) == len(tt.entries)) || left != nil && len(left.entries) != len(tt.entries)-len(got) {
				t.Errorf("left over: %+v", left)
			}
		})
	}
}
