package daemon

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

// calendarYAML watches the default calendar instead of mail.
var calendarYAML = simYAML[:strings.Index(simYAML, "    mail:")] + "    calendar: {starting: [15m]}\n"

// calendarSim is startSim with a watch over the default calendar.
func calendarSim(t *testing.T, edit ...func(*sim, *emulator.Options)) *sim {
	t.Helper()
	return startSim(t, append([]func(*sim, *emulator.Options){func(s *sim, _ *emulator.Options) { s.yaml = calendarYAML }}, edit...)...)
}

// meetingName is a calendar event as "name subject", with the date that it is about for one of a series.
func (s *sim) meetingName(e *event.Event) string {
	s.t.Helper()
	var d event.CalendarData
	if err := json.Unmarshal(e.Data, &d); err != nil {
		s.t.Fatal(err)
	}
	name := e.Name + " " + d.Event.Subject
	if d.Event.OriginalStart != "" {
		name += " of " + d.Event.OriginalStart
	}
	if r := d.Rescheduled; r != nil {
		was := "nowhere"
		if r.Old != nil {
			was = r.Old.Start.DateTime + r.Old.Start.Date
		}
		name += " from " + was + " to " + r.New.Start.DateTime + r.New.Start.Date
	}
	for _, r := range d.Responded {
		name += " " + r.Old + "→" + r.New
	}
	if d.Starting != nil {
		name += " at " + d.Event.Start.DateTime + d.Event.Start.Date
	}
	return name
}

// at is a time of the simulated year, which begins on Saturday, 1 January 2000.
func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

const salesBox = "sales@contoso.com"

func TestTheLifeOfAMeeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.before = func() {
				_, err := s.emu.AddMeeting(salesBox, emulator.Meeting{Subject: "old", Start: at("2000-01-03 08:00"), End: at("2000-01-03 09:00")})
				must(t, err)
				time.Sleep(time.Minute)
			}
		})
		s.wait(settle)
		id, err := s.emu.AddMeeting(salesBox, emulator.Meeting{Subject: "own", Start: at("2000-01-02 10:00"), End: at("2000-01-02 11:00"), Attendees: []emulator.Attendee{{Address: emulator.Address{Address: "ada@contoso.com"}}}})
		must(t, err)
		s.wait(settle)
		must(t, s.emu.UpdateMeeting(salesBox, id, emulator.MeetingPatch{Location: ptr("Room 1")}))
		s.wait(settle)
		must(t, s.emu.UpdateMeeting(salesBox, id, emulator.MeetingPatch{Start: ptr(at("2000-01-02 12:00")), End: ptr(at("2000-01-02 13:00"))}))
		s.wait(settle)
		must(t, s.emu.Respond(salesBox, id, "ada@contoso.com", "accepted"))
		s.wait(settle)
		s.want("created own", "updated own", "rescheduled own from 2000-01-02T10:00:00Z to 2000-01-02T12:00:00Z", "responded own none→accepted")
		s.wait(time.Until(at("2000-01-02 11:45")) + time.Second)
		must(t, s.emu.CancelMeeting(salesBox, id))
		s.wait(settle)
		must(t, s.emu.DeleteMeeting(salesBox, id))
		s.wait(settle)
		s.want("created own", "updated own", "rescheduled own from 2000-01-02T10:00:00Z to 2000-01-02T12:00:00Z", "responded own none→accepted",
			"starting own at 2000-01-02T12:00:00Z", "cancelled own", "deleted own")
		s.wait(24 * time.Hour)
		s.want("created own", "updated own", "rescheduled own from 2000-01-02T10:00:00Z to 2000-01-02T12:00:00Z", "responded own none→accepted",
			"starting own at 2000-01-02T12:00:00Z", "cancelled own", "deleted own", "starting old at 2000-01-03T08:00:00Z")
		s.checkLaw()
		if v := s.vias(); v[event.ViaPush] != 6 {
			t.Errorf("by %v", v)
		}
	})
}

func TestASeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(s *sim, _ *emulator.Options) { s.every = 5 * time.Minute })
		s.wait(settle)
		id, err := s.emu.AddMeeting(salesBox, emulator.Meeting{Subject: "weekly", Start: at("2000-01-03 09:00"), End: at("2000-01-03 10:00"),
			TimeZone: "W. Europe Standard Time", Organizer: emulator.Address{Name: "Ada", Address: "ada@contoso.com"},
			Recurrence: &emulator.Recurrence{Type: "weekly", Interval: 1, DaysOfWeek: []string{"monday"}, RangeType: "noEnd"}})
		must(t, err)
		s.wait(settle)
		s.want("invited weekly")
		must(t, s.emu.UpdateOccurrence(salesBox, id, at("2000-01-10 09:00"), emulator.MeetingPatch{Start: ptr(at("2000-01-11 09:00")), End: ptr(at("2000-01-11 10:00"))}))
		s.wait(settle)
		must(t, s.emu.DeleteOccurrence(salesBox, id, at("2000-01-17 09:00")))
		s.wait(settle)
		must(t, s.emu.UpdateMeeting(salesBox, id, emulator.MeetingPatch{Subject: ptr("weekly sync")}))
		s.wait(settle)
		must(t, s.emu.CancelOccurrence(salesBox, id, at("2000-01-24 09:00")))
		s.wait(settle)
		must(t, s.emu.RespondOccurrence(salesBox, id, at("2000-01-31 09:00"), "", "accepted"))
		s.wait(settle)
		want := []string{"invited weekly",
			"rescheduled weekly of 2000-01-10T09:00:00Z from 2000-01-10T09:00:00Z to 2000-01-11T09:00:00Z",
			"deleted weekly of 2000-01-17T09:00:00Z",
			"updated weekly sync",
			"cancelled weekly sync of 2000-01-24T09:00:00Z",
			"responded weekly sync of 2000-01-31T09:00:00Z none→accepted"}
		s.want(want...)
		must(t, s.emu.UpdateMeeting(salesBox, id, emulator.MeetingPatch{Start: ptr(at("2000-01-03 13:00")), End: ptr(at("2000-01-03 14:00"))}))
		s.wait(settle)
		want = append(want, "rescheduled weekly sync from 2000-01-03T09:00:00Z to 2000-01-03T13:00:00Z")
		s.want(want...)
		s.wait(time.Until(at("2000-01-12 00:00")))
		for _, day := range []string{"03", "10"} {
			start := "2000-01-" + day + "T13:00:00Z"
			want = append(want, "starting weekly sync of "+start+" at "+start)
		}
		s.want(want...)
		must(t, s.emu.CancelMeeting(salesBox, id))
		s.wait(settle)
		must(t, s.emu.DeleteMeeting(salesBox, id))
		s.wait(8 * 24 * time.Hour)
		s.want(append(want, "cancelled weekly sync", "deleted weekly sync")...)
		s.checkLaw()
	})
}
