package clock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

const calendar = 1 // the number of the feed

// harness is a room on a real store in a bubble, with what delta would do to the store.
type harness struct {
	t       *testing.T
	dir     string
	st      *store.Store
	watches atomic.Pointer[[]changes.Watch] // empty: nobody watches the calendar
	room    *Room                           // the one at work
	hold    chan struct{}                   // not nil: who asks for the watches waits until it is closed
	log     bytes.Buffer                    // of the room at work
	stop    func()
}

// bubble runs a test in a bubble, whose time begins at midnight of 2000-01-01 UTC. The room is not at work yet.
func bubble(t *testing.T, test func(*harness)) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, dir: t.TempDir()}
		h.follow(watch("w", 15*time.Minute))
		h.open(store.Options{})
		defer h.close()
		test(h)
	})
}

func watch(name string, leads ...time.Duration) changes.Watch {
	return changes.Watch{Name: name, Token: "m", Content: event.ContentEnvelope, Events: map[string]bool{event.Starting: true}, Starting: leads}
}

// follow is what the watches are from now on.
func (h *harness) follow(watches ...changes.Watch) { h.watches.Store(&watches) }

func (h *harness) open(o store.Options) {
	h.t.Helper()
	var err error
	if h.st, err = store.Open(h.dir, o); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) close() {
	h.rest()
	if err := h.st.Close(); err != nil {
		h.t.Error(err)
	}
}

// work lets the room run until rest is called.
func (h *harness) work() {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	h.room = New(h.st, Options{Log: zerolog.New(&h.log), Agenda: func(feed uint32) (*changes.Agenda, []changes.Watch, bool) {
		if h.hold != nil {
			<-h.hold
		}
		if feed != calendar {
			h.t.Errorf("asked for feed %d", feed)
		}
		return &changes.Agenda{Mailbox: &changes.Mailbox{Tenant: "t"}, Calendar: event.Calendar{ID: "cal"}}, *h.watches.Load(), len(*h.watches.Load()) > 0
	}})
	go func() { done <- h.room.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func (h *harness) rest() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

func (h *harness) update(fn func(*store.Tx) error) {
	h.t.Helper()
	if err := h.st.Update(fn); err != nil {
		h.t.Fatal(err)
	}
}

// put stores meetings, and the alarms of those that have a date of their own.
func (h *harness) put(items ...*event.ObservedMeeting) {
	h.t.Helper()
	h.update(func(tx *store.Tx) error {
		for _, o := range items {
			enc, err := store.EncodeMeeting(keyOf(o), &store.Meeting{ObservedMeeting: *o})
			if err != nil {
				return err
			}
			if err := tx.PutMeeting(calendar, enc); err != nil {
				return err
			}
			if err := h.alarms(tx, o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *harness) alarms(tx *store.Tx, o *event.ObservedMeeting) error {
	for _, w := range *h.watches.Load() {
		for _, lead := range w.Starting {
			a := store.Alarm{Feed: calendar, Meeting: keyOf(o), Watch: w.Name, LeadSeconds: int64(lead / time.Second), Start: changes.StartsAt(o, &w)}
			if o.Meeting.InstanceKind == event.SeriesMaster || a.Start.Before(time.Now()) {
				continue
			}
			if err := tx.PutAlarm(&a); err != nil {
				return err
			}
		}
	}
	return nil
}

func keyOf(o *event.ObservedMeeting) store.MeetingKey {
	if o.Meeting.SeriesMasterID == "" {
		return store.MeetingKey{Series: o.ID}
	}
	return store.MeetingKey{Series: o.Meeting.SeriesMasterID, Original: o.Meeting.OriginalStart}
}

// at is a time by the clock of the bubble's first day.
func at(clock string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", "2000-01-01 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func timed(id string, start time.Time) *event.ObservedMeeting {
	o := &event.ObservedMeeting{ID: id, ChangeKey: "k1", Meeting: event.Meeting{InstanceKind: event.SingleInstance, Subject: "about " + id}}
	o.Meeting.Start.DateTime, o.Meeting.End.DateTime = start.Format(time.RFC3339), start.Add(time.Hour).Format(time.RFC3339)
	return o
}

func allDay(id, date string) *event.ObservedMeeting {
	o := timed(id, time.Time{})
	o.Meeting.IsAllDay, o.Meeting.Start, o.Meeting.End = true, event.Moment{Date: date}, event.Moment{Date: date}
	return o
}

func master(id string) *event.ObservedMeeting {
	o := timed(id, at("00:00:00"))
	o.Meeting.InstanceKind = event.SeriesMaster
	return o
}

// stub is a date of a series of which only the times are known (D-36a).
func stub(series string, start time.Time) *event.ObservedMeeting {
	o := timed("date of "+series, start)
	o.Stub, o.Meeting.Subject = true, ""
	o.Meeting.InstanceKind, o.Meeting.SeriesMasterID, o.Meeting.OriginalStart = event.Occurrence, series, start.Format(time.RFC3339)
	return o
}

func cancelled(o *event.ObservedMeeting) *event.ObservedMeeting {
	o.Meeting.IsCancelled = true
	return o
}

// until lets time pass.
func until(when time.Time) {
	time.Sleep(time.Until(when))
	synctest.Wait()
}

// told lists what was told: when, to which watch, what about, how long before, and how many seconds late.
func (h *harness) told() (out []string) {
	h.t.Helper()
	rows, err := h.st.Outbox(0, 1<<30)
	if err != nil {
		h.t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, row := range rows {
		e := row.Event
		var d event.CalendarData
		if err := json.Unmarshal(e.Data, &d); err != nil {
			h.t.Fatal(err)
		}
		if ids[e.ID] {
			h.t.Errorf("told twice: %+v", e)
		}
		ids[e.ID] = true
		late := time.Duration(d.Starting.LateSeconds) * time.Second
		if diff := e.RecordedTime.Sub(e.Time) - late; diff < 0 || diff >= time.Second {
			h.t.Errorf("due %v, told %v, says it is %v late", e.Time, e.RecordedTime, late)
		}
		if e.Area != event.AreaCalendar || e.Name != event.Starting || e.Via != event.ViaClock {
			h.t.Errorf("event = %+v", e)
		}
		lead := time.Duration(d.Starting.LeadSeconds) * time.Second
		out = append(out, fmt.Sprintf("%s %s %s, %v before, %v late", e.RecordedTime.Format("01-02 15:04:05"), e.Watch, d.Event.Subject, lead, late))
	}
	return out
}

func (h *harness) want(want ...string) {
	h.t.Helper()
	if got := h.told(); !slices.Equal(got, want) {
		h.t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMeetingsAreToldToTheSecond(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("b", at("10:00:07")), timed("a", at("09:00:01")))
		until(at("08:45:00.999"))
		h.want()
		until(at("08:45:01"))
		h.want("01-01 08:45:01 w about a, 15m0s before, 0s late")
		h.put(timed("c", at("09:00:03"))) // an earlier one than the room waits for
		until(at("23:00:00"))
		h.want(
			"01-01 08:45:01 w about a, 15m0s before, 0s late",
			"01-01 08:45:03 w about c, 15m0s before, 0s late",
			"01-01 09:45:07 w about b, 15m0s before, 0s late",
		)
	})
}

func TestWhatStartedMeanwhileIsToldAfterARestart(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("a", at("09:00:00")), timed("b", at("09:00:30")), timed("c", at("11:00:00")))
		until(at("08:45:10"))
		h.close()
		until(at("08:50:00")) // nothing runs
		h.open(store.Options{})
		h.work()
		until(at("12:00:00"))
		h.want(
			"01-01 08:45:00 w about a, 15m0s before, 0s late",
			"01-01 08:50:00 w about b, 15m0s before, 4m30s late",
			"01-01 10:45:00 w about c, 15m0s before, 0s late",
		)
	})
}

func TestMeetingsThatDoNotStartThenAreSilent(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("moved", at("09:00:00")), timed("cancelled", at("09:00:00")), timed("deleted", at("09:00:00")), timed("retitled", at("09:00:00")))
		until(at("08:00:00"))
		retitled := timed("retitled", at("09:00:00"))
		retitled.Meeting.Subject = "something else"
		h.put(timed("moved", at("10:00:00")), cancelled(timed("cancelled", at("09:00:00"))), retitled)
		h.update(func(tx *store.Tx) error { return tx.DeleteMeeting(calendar, store.MeetingKey{Series: "deleted"}) })
		until(at("23:00:00"))
		h.want(
			"01-01 08:45:00 w something else, 15m0s before, 0s late",
			"01-01 09:45:00 w about moved, 15m0s before, 0s late",
		)
	})
}

func TestAMeetingThatWasMovedAwayAndBackIsToldOnce(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("before", at("09:00:00")), timed("after", at("09:00:00")))
		h.put(timed("before", at("10:00:00")))
		h.put(timed("before", at("09:00:00")))
		until(at("08:50:00"))
		h.put(timed("after", at("10:00:00")))
		until(at("08:55:00"))
		h.put(timed("after", at("09:00:00")))
		until(at("23:00:00"))
		got := h.told()
		slices.Sort(got)
		if want := []string{"01-01 08:45:00 w about after, 15m0s before, 0s late", "01-01 08:45:00 w about before, 15m0s before, 0s late"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want each once", got)
		}
	})
}

// An alarm that went off while its meeting was elsewhere was silent; the meeting comes back and is told, late.
func TestAMeetingThatWasAwayWhenItWasDueIsToldWhenItComesBack(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("a", at("09:00:00")))
		until(at("08:40:00"))
		h.put(timed("a", at("10:00:00")))
		until(at("08:50:00"))
		h.put(timed("a", at("09:00:00")))
		until(at("23:00:00"))
		h.want("01-01 08:50:00 w about a, 15m0s before, 5m0s late")
	})
}

func TestDatesOfSeries(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		own := stub("weekly", at("11:00:00"))
		own.Stub, own.Meeting.InstanceKind, own.Meeting.Subject = false, event.Exception, "a special one"
		h.put(master("weekly"), stub("weekly", at("09:00:00")), stub("weekly", at("10:00:00")), own)
		h.put(master("called off"), stub("called off", at("09:30:00")), stub("called off", at("12:00:00")))
		h.put(stub("unknown", at("09:45:00"))) // its master is gone
		until(at("10:00:00"))
		h.put(cancelled(master("called off")))
		until(at("23:00:00"))
		h.want(
			"01-01 08:45:00 w about weekly, 15m0s before, 0s late",
			"01-01 09:15:00 w about called off, 15m0s before, 0s late",
			"01-01 09:45:00 w about weekly, 15m0s before, 0s late",
			"01-01 10:45:00 w a special one, 15m0s before, 0s late",
		)
		rows, err := h.st.Outbox(0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var d event.CalendarData
		if err := json.Unmarshal(rows[0].Event.Data, &d); err != nil {
			t.Fatal(err)
		}
		if m := d.Event; m.SeriesMasterID != "weekly" || m.OriginalStart != "2000-01-01T09:00:00Z" || m.InstanceKind != event.Occurrence || d.Item.ID != "date of weekly" {
			t.Errorf("it does not say which date of which series: %+v of %+v", m, d.Item)
		}
	})
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := event.LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// All-day meetings start at midnight where the mailbox is, also when the clocks there change.
func TestAllDayMeetingsAcrossSummerTime(t *testing.T) {
	bubble(t, func(h *harness) {
		berlin, newYork := watch("berlin", time.Hour), watch("newyork", time.Hour)
		berlin.Zone, newYork.Zone = zone(t, "Europe/Berlin"), zone(t, "America/New_York")
		h.follow(berlin, newYork)
		for _, date := range []string{"2000-03-26", "2000-03-27", "2000-04-02", "2000-04-03"} { // Berlin from the first to the second, New York later
			h.put(allDay(date[5:], date))
		}
		until(time.Date(2000, 3, 25, 0, 0, 0, 0, time.UTC))
		h.work()
		until(time.Date(2000, 4, 4, 0, 0, 0, 0, time.UTC))
		h.want(
			"03-25 22:00:00 berlin about 03-26, 1h0m0s before, 0s late",
			"03-26 04:00:00 newyork about 03-26, 1h0m0s before, 0s late",
			"03-26 21:00:00 berlin about 03-27, 1h0m0s before, 0s late",
			"03-27 04:00:00 newyork about 03-27, 1h0m0s before, 0s late",
			"04-01 21:00:00 berlin about 04-02, 1h0m0s before, 0s late",
			"04-02 04:00:00 newyork about 04-02, 1h0m0s before, 0s late",
			"04-02 21:00:00 berlin about 04-03, 1h0m0s before, 0s late",
			"04-03 03:00:00 newyork about 04-03, 1h0m0s before, 0s late",
		)
	})
}

func TestEveryWatchHasItsLeadTimes(t *testing.T) {
	bubble(t, func(h *harness) {
		h.follow(watch("v", 0, time.Hour), watch("w", 15*time.Minute), watch("none"))
		h.work()
		h.put(timed("a", at("09:00:00")))
		until(at("08:30:00"))
		h.follow(watch("v", time.Hour), watch("w", 15*time.Minute)) // the start itself is wanted no more
		until(at("23:00:00"))
		h.want(
			"01-01 08:00:00 v about a, 1h0m0s before, 0s late",
			"01-01 08:45:00 w about a, 15m0s before, 0s late",
		)
	})
}

func TestAlarmsOfACalendarThatNobodyWatchesAreSilent(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("a", at("09:00:00")), timed("b", at("10:00:00")))
		h.follow()
		until(at("09:00:00"))
		h.follow(watch("w", 15*time.Minute))
		until(at("23:00:00"))
		h.want("01-01 09:45:00 w about b, 15m0s before, 0s late")
		if _, left, err := h.st.NextAlarm(); left || err != nil {
			t.Errorf("an alarm is left, %v", err)
		}
	})
}

func TestManyMeetingsAtOnce(t *testing.T) {
	bubble(t, func(h *harness) {
		const n = 2*batch + 7
		var items []*event.ObservedMeeting
		for i := range n {
			items = append(items, timed(fmt.Sprint(i), at("09:00:00")))
		}
		h.put(items...)
		h.work()
		until(at("08:45:00"))
		if got := h.told(); len(got) != n {
			t.Errorf("%d told, want %d", len(got), n)
		}
	})
}

// A full disk delays what is told and loses none of it.
func TestAlarmsWaitForAStoreThatRefuses(t *testing.T) {
	bubble(t, func(h *harness) {
		h.close()
		h.open(store.Options{MaxSize: 2 << 20})
		for _, id := range []string{"a", "b"} {
			o := timed(id, at("09:00:00"))
			o.Meeting.Location = strings.Repeat("x", 200<<10) // so that its event does not fit into what is left
			h.put(o)
		}
		var filler []uint64
		for {
			q := store.Quarantine{Reason: "filler", Raw: make([]byte, 30<<10)}
			if err := h.st.Update(func(tx *store.Tx) error { return tx.PutQuarantine(&q) }); err != nil {
				break
			}
			filler = append(filler, q.Seq)
		}
		h.work()
		until(at("08:44:59"))
		if why := h.room.Trouble(); why != "" {
			t.Errorf("trouble before anything is due: %s", why)
		}
		until(at("08:46:00"))
		h.want()
		if h.st.Trouble().Reason == "" || h.room.Trouble() == "" {
			t.Errorf("the store refuses because of %q, and so the room says %q", h.st.Trouble().Reason, h.room.Trouble())
		}
		if n := h.logged(); n != 6 { // after 0, 1, 3, 7, 15 and 31 s
			t.Errorf("%d lines in the first minute", n)
		}
		until(at("08:50:30"))
		if n := h.logged(); n != 6+5 {
			t.Errorf("%d lines after five minutes, want one a minute", n)
		}
		h.update(func(tx *store.Tx) error {
			for _, seq := range filler {
				if err := tx.DropQuarantine(seq); err != nil {
					return err
				}
			}
			return nil
		})
		until(at("08:52:00"))
		if why := h.room.Trouble(); why != "" {
			t.Errorf("trouble that is over: %s", why)
		}
		got := h.told()
		slices.Sort(got)
		if len(got) != 2 || !strings.Contains(got[0], "about a") || !strings.Contains(got[1], "about b") {
			t.Errorf("told %q, want both once", got)
		}
	})
}

// logged counts the lines about trouble.
func (h *harness) logged() int {
	h.room.mu.Lock() // which the room holds while it writes them
	defer h.room.mu.Unlock()
	return strings.Count(h.log.String(), "could not be told")
}

// A trouble that comes again is new: it is logged at once.
func TestATroubleThatComesAgainIsLogged(t *testing.T) {
	var log bytes.Buffer
	r := New(nil, Options{Log: zerolog.New(&log)})
	for i, c := range []struct {
		after time.Duration
		err   error
		lines int
	}{
		{0, errors.New("full"), 1},
		{time.Second - 1, errors.New("full"), 1},
		{time.Second, errors.New("fuller"), 2},
		{2 * time.Second, errors.New("fullest"), 2},
		{3 * time.Second, nil, 2},
		{3 * time.Second, errors.New("full"), 3},
		{4 * time.Second, errors.New("full"), 4},
	} {
		r.note(c.err, at("00:00:00").Add(c.after))
		if n := strings.Count(log.String(), "\n"); n != c.lines {
			t.Errorf("%d: %d lines, want %d", i, n, c.lines)
		}
		if got := r.Trouble(); c.err == nil && got != "" || c.err != nil && got != c.err.Error() {
			t.Errorf("%d: trouble is %q, want %v", i, got, c.err)
		}
	}
}

// The room is heard of while it waits, also for a store that refuses, and not while it stands still.
func TestPing(t *testing.T) {
	bubble(t, func(h *harness) {
		ping := func() error {
			ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
			defer cancel()
			return h.room.Ping(ctx)
		}
		h.hold = make(chan struct{})
		h.work()
		h.put(timed("a", at("09:00:00")))
		if err := ping(); err != nil {
			t.Error(err)
		}
		until(at("08:45:00"))
		if err := ping(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the clock of meetings does not get on") {
			t.Errorf("standing still: %v", err)
		}
		close(h.hold)
		for range 3 { // and who asks does not keep it from its work
			if err := ping(); err != nil {
				t.Error(err)
			}
		}
		until(at("09:00:00"))
		h.want("01-01 08:45:00 w about a, 15m0s before, 0s late")
		h.rest()
		if err := ping(); err == nil {
			t.Error("a room that does not run is heard of")
		}
	})
}

// What says nothing of its start is silent, and does not keep the others from being told.
func TestAMeetingThatCannotBeTimedIsSilent(t *testing.T) {
	bubble(t, func(h *harness) {
		h.work()
		h.put(timed("a", at("09:00:00")), timed("b", at("09:00:00")))
		broken := timed("a", at("09:00:00"))
		broken.Meeting.Start.DateTime = "soon"
		h.put(broken)
		until(at("23:00:00"))
		h.want("01-01 08:45:00 w about b, 15m0s before, 0s late")
	})
}
