package status

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// filled is what a recorder puts into a report of a time.
func filled(rec *Recorder, at time.Time) Report {
	r := Report{At: at}
	rec.Fill(&r)
	return r
}

func publish(rec *Recorder, id string, at time.Time) {
	rec.Published(&event.Event{ID: id, Watch: "sales", Mailbox: "desk", Area: event.AreaMail, Name: event.Received, Via: event.ViaPush, Time: at.Add(-time.Second)}, "graph", at)
}

// counts are the minutes in which something was published: how long before the last, and how much.
func counts(rate []uint64) map[int]uint64 {
	out := map[int]uint64{}
	for i, n := range rate {
		if n > 0 {
			out[len(rate)-1-i] = n
		}
	}
	return out
}

func TestTheRateOfTheLastHour(t *testing.T) {
	tests := []struct {
		name      string
		published []time.Duration // before now, in this order
		want      string
	}{
		{"nothing", nil, "map[]"},
		{"in the minute that runs", []time.Duration{0, 0}, "map[0:2]"},
		{"by the clock's minutes", []time.Duration{time.Second, 0}, "map[0:1 1:1]"},
		{"with gaps", []time.Duration{59 * time.Minute, 59 * time.Minute, 30 * time.Minute, time.Minute}, "map[1:1 30:1 59:2]"},
		{"an hour ago is over", []time.Duration{60 * time.Minute, 0}, "map[0:1]"},
		{"so is what was long ago", []time.Duration{49 * time.Hour, 48 * time.Hour}, "map[]"},
		{"a clock that goes back", []time.Duration{0, 10 * time.Minute}, "map[0:2]"},
	}
	for _, tt := range tests {
		var rec Recorder
		for i, before := range tt.published {
			publish(&rec, fmt.Sprint(i), now.Add(-before))
		}
		r := filled(&rec, now)
		if got := fmt.Sprint(counts(r.Rate)); got != tt.want || len(r.Rate) != rateMinutes {
			t.Errorf("%s: %s in %d minutes, want %s", tt.name, got, len(r.Rate), tt.want)
		}
	}
	var rec Recorder // it moves on by itself
	publish(&rec, "a", now)
	for minutes, want := range map[int]string{0: "map[0:1]", 7: "map[7:1]", 59: "map[59:1]", 60: "map[]", 600: "map[]"} {
		one := Recorder{minute: rec.minute, counts: rec.counts}
		if got := fmt.Sprint(counts(filled(&one, now.Add(time.Duration(minutes)*time.Minute)).Rate)); got != want {
			t.Errorf("%d minutes later: %s, want %s", minutes, got, want)
		}
	}
}

func TestTheLastEvents(t *testing.T) {
	var rec Recorder
	for i := range keptEvents + 3 {
		publish(&rec, fmt.Sprint(i), now.Add(time.Duration(i)*time.Second))
	}
	recent := filled(&rec, now.Add(time.Hour)).Recent
	if len(recent) != keptEvents || recent[keptEvents-1].ID != "3" {
		t.Errorf("%d are kept, the oldest is %+v", len(recent), recent[len(recent)-1])
	}
	at := now.Add((keptEvents + 2) * time.Second)
	if want := (Published{At: at, Time: at.Add(-time.Second), Subject: "graph.sales.desk.mail.received", ID: "52", Via: event.ViaPush}); recent[0] != want {
		t.Errorf("the newest is %+v, want %+v", recent[0], want)
	}
	recent[0].ID = "somebody else's"
	if got := filled(&rec, now).Recent[0].ID; got != "52" {
		t.Errorf("a report shares the memory: %s", got)
	}
}

func TestIncidentsBeginAndEnd(t *testing.T) {
	var rec Recorder
	look := func(minute int, problems ...Problem) {
		rec.observe(&Report{At: now.Add(time.Duration(minute) * time.Minute), Problems: problems})
	}
	nats := func(what string) Problem { return Problem{Key: "nats", What: what, Remedy: "start it"} }
	disk := Problem{Key: "storage", What: "the disk is full", Remedy: "make room"}
	look(0)
	look(1, nats("away for 0s"), disk)
	look(2, disk, nats("away for 1m"))
	look(3, disk)
	look(4, disk, nats("away again"))
	var got []string
	for _, in := range filled(&rec, now).Incidents {
		until := "now"
		if !in.Until.IsZero() {
			until = fmt.Sprint(in.Until.Sub(now))
		}
		got = append(got, fmt.Sprintf("%s: %s from %v until %s → %s", in.Key, in.What, in.From.Sub(now), until, in.Remedy))
	}
	want := []string{
		"nats: away again from 4m0s until now → start it",
		"storage: the disk is full from 1m0s until now → make room",
		"nats: away for 1m from 1m0s until 3m0s → start it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("incidents\n%q\nwant\n%q", got, want)
	}
	for i := range keptIncidents {
		look(10+i, Problem{Key: fmt.Sprint(i)})
	}
	if in := filled(&rec, now).Incidents; len(in) != keptIncidents || in[0].Key != fmt.Sprint(keptIncidents-1) || in[keptIncidents-1].Key != "0" {
		t.Errorf("%d incidents are kept, from %s to %s", len(in), in[len(in)-1].Key, in[0].Key)
	}
	for i := range 2 * keptIncidents { // one of them lasts
		look(100+i, disk, Problem{Key: fmt.Sprint(i)})
	}
	if in := filled(&rec, now).Incidents; len(in) != keptIncidents || in[keptIncidents-1].Key != "storage" || in[keptIncidents-1].From.Sub(now) != 100*time.Minute {
		t.Errorf("%d incidents are kept, and of the one that lasts %+v", len(in), in[len(in)-1])
	}
}

// The recorder looks by itself, also while nobody has the page open.
func TestTheRecorderLooksByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var rec Recorder
		done := make(chan error, 1)
		go func() {
			done <- rec.Run(ctx, func() Report { return Report{At: time.Now(), Problems: []Problem{{Key: "nats"}}} })
		}()
		begin := time.Now()
		time.Sleep(observeEvery - 1)
		synctest.Wait()
		if in := filled(&rec, time.Now()).Incidents; len(in) != 0 {
			t.Errorf("too early: %+v", in)
		}
		time.Sleep(2 * observeEvery)
		synctest.Wait()
		if in := filled(&rec, time.Now()).Incidents; len(in) != 1 || !in[0].From.Equal(begin.Add(observeEvery)) {
			t.Errorf("incidents %+v, want one from the first look on", in)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
