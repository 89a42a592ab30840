package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

// until lets time pass up to a moment of the simulated year.
func (s *sim) until(moment string) { s.t.Helper(); s.wait(time.Until(at(moment))) }

// starts lists the starting events so far: "lead subject start", each with how late it was recorded.
func (s *sim) starts() map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]time.Duration{}
	for i := range s.events {
		e := &s.events[i]
		if e.Name != event.Starting {
			continue
		}
		var d event.CalendarData
		s.must(json.Unmarshal(e.Data, &d))
		lead := time.Duration(d.Starting.LeadSeconds) * time.Second
		name := fmt.Sprintf("%s %s %s", lead, d.Event.Subject, d.Event.Start.DateTime+d.Event.Start.Date)
		late := e.RecordedTime.Sub(e.Time)
		if _, twice := out[name]; twice {
			s.t.Errorf("told twice: %s", name)
		}
		out[name] = late
		if told := time.Duration(d.Starting.LateSeconds) * time.Second; late < 0 || late.Truncate(time.Second) != told || e.Via != event.ViaClock {
			s.t.Errorf("%s: recorded %v late, and says %v, via %s", name, late, told, e.Via)
		}
	}
	return out
}

// otherNames are the names of all events but the starting ones.
func (s *sim) otherNames() []string {
	return slices.DeleteFunc(s.names(), func(name string) bool { return strings.HasPrefix(name, event.Starting) })
}

// A year of a mailbox in Berlin: every event comes once and at the right time, whatever happens to triggerd and at Graph.
func TestAYearOfMeetings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(calendarYAML, "{starting: [15m]}", "{starting: [15m, 1d], window: {past: 7d, future: 30d}}", 1)
			s.every, s.set.SweepInterval = 10*time.Minute, 2*time.Hour
			s.before = func() { s.must(s.emu.SetTimeZone(sales, "W. Europe Standard Time")) }
		})
		ada := emulator.Address{Name: "Ada", Address: "ada@contoso.com"}
		add := func(m emulator.Meeting) string {
			id, err := s.emu.AddMeeting(sales, m)
			s.must(err)
			return id
		}
		want := map[string]time.Duration{} // of starting events
		expect := func(subject, start string) {
			for _, lead := range []string{"15m0s", "24h0m0s"} {
				want[lead+" "+subject+" "+start] = 0
			}
		}
		s.until("2000-01-01 00:10")
		standup := add(emulator.Meeting{Subject: "standup", Start: at("2000-01-03 08:00"), End: at("2000-01-03 08:30"), TimeZone: "W. Europe Standard Time",
			Organizer: ada, Recurrence: &emulator.Recurrence{Type: "weekly", Interval: 1, DaysOfWeek: []string{"monday"}, RangeType: "noEnd"}})
		add(emulator.Meeting{Subject: "winter holiday", AllDay: true, Start: at("2000-02-01 00:00"), End: at("2000-02-02 00:00"), TimeZone: "W. Europe Standard Time"})
		s.until("2000-02-01 12:00")
		s.restart()
		expect("winter holiday", "2000-02-01")
		s.until("2000-02-10 00:00")
		s.must(s.emu.UpdateOccurrence(sales, standup, at("2000-02-14 08:00"), emulator.MeetingPatch{Start: ptr(at("2000-02-15 10:00")), End: ptr(at("2000-02-15 10:30"))}))
		s.until("2000-03-01 00:00")
		s.must(s.emu.DeleteOccurrence(sales, standup, at("2000-03-20 08:00")))
		s.until("2000-03-10 00:00")
		s.must(s.emu.UpdateOccurrence(sales, standup, at("2000-04-03 07:00"), emulator.MeetingPatch{Subject: ptr("standup outside")})) // summer time by then
		s.until("2000-03-15 00:00")
		s.emu.ExpireDeltaTokens()
		s.until("2000-04-17 06:40")
		s.kill()
		s.until("2000-04-17 07:10") // the alarm of 06:45 was missed, and the meeting has begun
		s.start()
		s.until("2000-05-02 00:00")
		add(emulator.Meeting{Subject: "summer holiday", AllDay: true, Start: at("2000-05-10 00:00"), End: at("2000-05-11 00:00"), TimeZone: "W. Europe Standard Time"})
		expect("summer holiday", "2000-05-10")
		s.until("2000-06-01 00:00")
		s.restart()
		review := add(emulator.Meeting{Subject: "review", Start: at("2000-06-15 12:00"), End: at("2000-06-15 13:00"), Organizer: ada,
			Recurrence: &emulator.Recurrence{Type: "absoluteMonthly", Interval: 1, DayOfMonth: 15, RangeType: "noEnd"}})
		for _, month := range []string{"06", "07", "08"} {
			expect("review", "2000-"+month+"-15T12:00:00Z")
		}
		s.until("2000-08-20 00:00")
		s.must(s.emu.CancelMeeting(sales, review))
		s.until("2000-09-01 00:00")
		s.must(s.emu.DeleteMeeting(sales, review))
		s.until("2000-10-02 00:00")
		s.emu.ExpireDeltaTokens()
		audit := add(emulator.Meeting{Subject: "audit", Start: at("2000-10-10 14:00"), End: at("2000-10-10 15:00")})
		s.until("2000-10-10 13:50") // both alarms have gone off
		s.must(s.emu.UpdateMeeting(sales, audit, emulator.MeetingPatch{Start: ptr(at("2000-10-12 14:00")), End: ptr(at("2000-10-12 15:00"))}))
		s.until("2000-10-10 13:55")
		s.must(s.emu.UpdateMeeting(sales, audit, emulator.MeetingPatch{Start: ptr(at("2000-10-10 14:00")), End: ptr(at("2000-10-10 15:00"))}))
		expect("audit", "2000-10-10T14:00:00Z")
		s.until("2000-11-01 00:00")
		s.restart()
		s.until("2000-12-30 00:00")

		for monday := at("2000-01-03 08:00"); monday.Before(at("2000-12-30 00:00")); monday = monday.AddDate(0, 0, 7) {
			start, subject := monday, "standup"
			if monday.After(at("2000-03-26 01:00")) && monday.Before(at("2000-10-29 01:00")) { // summer time
				start = monday.Add(-time.Hour)
			}
			switch monday.Format(time.DateOnly) {
			case "2000-02-14":
				start = at("2000-02-15 10:00")
			case "2000-03-20":
				continue
			case "2000-04-03":
				subject = "standup outside"
			}
			expect(subject, start.Format(time.RFC3339))
		}
		want["15m0s standup 2000-04-17T07:00:00Z"] = 25 * time.Minute
		got := s.starts()
		for name, late := range want {
			// What came due meanwhile waits until the calendar was read, for a minute at most.
			if was, ok := got[name]; !ok || was < late || late == 0 && was >= time.Second || was > late+time.Minute {
				t.Errorf("%s: told %v, %v late, want %v", name, ok, was, late)
			}
			delete(got, name)
		}
		for name := range got {
			t.Errorf("nobody expected %s", name)
		}
		names := []string{
			"invited standup", // and nothing of the winter holiday: the window slid over it
			"rescheduled standup of 2000-02-14T08:00:00Z from 2000-02-14T08:00:00Z to 2000-02-15T10:00:00Z",
			"deleted standup of 2000-03-20T08:00:00Z",
			"updated standup outside of 2000-04-03T07:00:00Z",
			"created summer holiday",
			"invited review",
			"cancelled review",
			"deleted review",
			"created audit",
			"rescheduled audit from 2000-10-10T14:00:00Z to 2000-10-12T14:00:00Z",
			"rescheduled audit from 2000-10-12T14:00:00Z to 2000-10-10T14:00:00Z",
		}
		if told := s.otherNames(); !slices.Equal(told, names) {
			t.Errorf("events are\n  %s\nwant\n  %s", strings.Join(told, "\n  "), strings.Join(names, "\n  "))
		}
		s.checkLaw()
	})
}
