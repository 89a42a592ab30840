package daemon

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

// history edits a calendar at random, the same for the same seed whatever reads it.
type history struct {
	s       *sim
	rng     *rand.Rand
	n       int
	singles []string
	series  []string
	deleted map[string]bool
	begins  map[string]time.Time // of series: when its dates are
}

func newHistory(s *sim, seed uint64) *history {
	return &history{s: s, rng: rand.New(rand.NewPCG(seed, 5)), deleted: map[string]bool{}, begins: map[string]time.Time{}}
}

func (h *history) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[h.rng.IntN(len(list))]
}

// day is some day from tomorrow on, in the window.
func (h *history) day() time.Time {
	return at("2000-01-05 00:00").AddDate(0, 0, h.rng.IntN(60)).Add(time.Duration(h.rng.IntN(20)) * 30 * time.Minute)
}

// edit makes one change.
func (h *history) edit() {
	s, rng := h.s, h.rng
	h.n++
	subject, start := fmt.Sprint("meeting ", h.n), h.day()
	length := time.Duration(1+rng.IntN(4)) * 30 * time.Minute
	response := []string{"accepted", "declined", "tentativelyAccepted"}[rng.IntN(3)]
	var organizer emulator.Address
	if rng.IntN(2) == 0 {
		organizer = emulator.Address{Name: "Ada", Address: "ada@contoso.com"}
	}
	single, series, date := h.pick(h.singles), h.pick(h.series), rng.IntN(6)
	original := h.begins[series].AddDate(0, 0, 7*date)
	ignore := func(error) {} // of a date that is gone, or a meeting that cannot be answered: the edit is then none
	switch kind := rng.IntN(14); {
	case kind < 2 || single == "" && kind < 8:
		id, err := s.emu.AddMeeting(sales, emulator.Meeting{Subject: subject, Start: start, End: start.Add(length), Organizer: organizer,
			AllDay: rng.IntN(5) == 0, Attendees: []emulator.Attendee{{Address: emulator.Address{Address: "bob@contoso.com"}}}})
		s.must(err)
		h.singles = append(h.singles, id)
	case kind == 8 || series == "" && kind > 8:
		id, err := s.emu.AddMeeting(sales, emulator.Meeting{Subject: subject, Start: start, End: start.Add(length), Organizer: organizer, TimeZone: "UTC",
			Recurrence: &emulator.Recurrence{Type: "weekly", Interval: 1, RangeType: "numbered", Count: 8}})
		s.must(err)
		h.series = append(h.series, id)
		h.begins[id] = start
	case kind == 2:
		s.must(s.emu.UpdateMeeting(sales, single, emulator.MeetingPatch{Subject: &subject}))
	case kind == 3:
		s.must(s.emu.UpdateMeeting(sales, single, emulator.MeetingPatch{Start: ptr(start), End: ptr(start.Add(length))}))
	case kind == 4:
		ignore(s.emu.Respond(sales, single, "", response))
	case kind == 5:
		ignore(s.emu.Respond(sales, single, "bob@contoso.com", response))
	case kind == 6:
		ignore(s.emu.CancelMeeting(sales, single))
	case kind == 7:
		s.must(s.emu.DeleteMeeting(sales, single))
		h.singles = slices.DeleteFunc(h.singles, func(id string) bool { return id == single })
	case kind == 9:
		ignore(s.emu.UpdateOccurrence(sales, series, original, emulator.MeetingPatch{Start: ptr(original.Add(26 * time.Hour)), End: ptr(original.Add(27 * time.Hour))}))
	case kind == 10:
		ignore(s.emu.DeleteOccurrence(sales, series, original))
	case kind == 11:
		ignore(s.emu.CancelOccurrence(sales, series, original))
	case kind == 12:
		s.must(s.emu.UpdateMeeting(sales, series, emulator.MeetingPatch{Subject: &subject}))
	default:
		switch rng.IntN(4) {
		case 0:
			h.begins[series] = start
			s.must(s.emu.UpdateMeeting(sales, series, emulator.MeetingPatch{Start: ptr(start), End: ptr(start.Add(length))}))
		case 1:
			ignore(s.emu.RespondOccurrence(sales, series, original, "", response))
		case 2:
			ignore(s.emu.CancelMeeting(sales, series))
		default:
			s.must(s.emu.DeleteMeeting(sales, series))
			h.series = slices.DeleteFunc(h.series, func(id string) bool { return id == series })
		}
	}
}

// foldedMeetings is what a consumer knows of the calendar from the events alone: single events and series by id, and by
// id and original start the dates that are not as their series has them.
func (s *sim) foldedMeetings() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for i := range s.events {
		e := &s.events[i]
		var d event.CalendarData
		if err := json.Unmarshal(e.Data, &d); err != nil {
			s.t.Fatal(err)
		}
		m := d.Event
		if e.Name == event.Starting {
			continue
		}
		if m.OriginalStart != "" {
			key := m.SeriesMasterID + " " + m.OriginalStart
			switch start := m.Start.DateTime + m.Start.Date; {
			case e.Name == event.Deleted:
				out[key] = "deleted"
			case m.IsCancelled:
				out[key] = "cancelled"
			case start != m.OriginalStart:
				out[key] = "at " + start
			default:
				delete(out, key)
			}
			continue
		}
		if e.Name == event.Deleted || e.Name == event.Cancelled || e.Name == event.Rescheduled { // its dates follow
			maps.DeleteFunc(out, func(key, _ string) bool { return len(key) > len(d.Item.ID) && key[:len(d.Item.ID)+1] == d.Item.ID+" " })
		}
		if e.Name == event.Deleted {
			delete(out, d.Item.ID)
			continue
		}
		out[d.Item.ID] = describe(m.Subject, m.Start.DateTime+m.Start.Date, m.End.DateTime+m.End.Date, m.IsCancelled, m.Response, m.Attendees)
	}
	return out
}

func describe(subject, start, end string, cancelled bool, response string, attendees []event.Attendee) string {
	text := fmt.Sprintf("%s from %s to %s cancelled=%v %s", subject, start, end, cancelled, response)
	for _, a := range attendees {
		text += " " + a.Address + "=" + a.Response
	}
	return text
}

// checkMeetings compares what the events told with what the calendar holds.
func (s *sim) checkMeetings() (folded map[string]string) {
	s.t.Helper()
	got, want, cancelled := s.foldedMeetings(), map[string]string{}, map[string]bool{}
	for _, m := range s.emu.Meetings(sales) {
		var attendees []event.Attendee
		for _, a := range m.Attendees {
			attendees = append(attendees, event.Attendee{Address: a.Address.Address, Response: a.Response})
		}
		want[m.ID] = describe(m.Subject, asGraphWrites(m.Start, m.AllDay), asGraphWrites(m.End, m.AllDay), m.Cancelled, m.Response, attendees)
		cancelled[m.ID] = m.Cancelled
	}
	there := map[string]bool{}
	for _, m := range s.emu.Instances(sales, "", at("1999-01-01 00:00"), at("2002-01-01 00:00")) {
		if m.SeriesMasterID == "" || cancelled[m.SeriesMasterID] {
			continue
		}
		key := m.SeriesMasterID + " " + asGraphWrites(m.OriginalStart, false)
		there[key] = true
		switch {
		case m.Cancelled:
			want[key] = "cancelled"
		case !m.Start.Equal(m.OriginalStart):
			want[key] = "at " + asGraphWrites(m.Start, m.AllDay)
		}
	}
	for key, state := range got {
		series, _, date := cutDate(key)
		if date && cancelled[series] || state == "deleted" && !there[key] {
			delete(got, key)
		}
	}
	if !maps.Equal(got, want) {
		for key, w := range want {
			if got[key] != w {
				s.t.Errorf("%s is\n  %q, events say\n  %q", key, w, got[key])
			}
		}
		for key, g := range got {
			if want[key] == "" {
				s.t.Errorf("%s is as usual or gone, events say %q", key, g)
			}
		}
	}
	return got
}

func cutDate(key string) (series, original string, ok bool) { return strings.Cut(key, " ") }

func asGraphWrites(t time.Time, allDay bool) string {
	if allDay {
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format(time.RFC3339)
}

// misfortune now and then stops triggerd and starts it again later, or lets Graph lose what it should keep.
func (s *sim) misfortune(r *rand.Rand) {
	switch n := r.IntN(12); {
	case s.d == nil && n < 6:
		s.start()
	case s.d == nil:
	case n == 0:
		s.kill()
	case n == 1:
		s.emu.ExpireDeltaTokens()
	case n == 2:
		for _, sub := range s.emu.Subscriptions() {
			s.emu.RemoveSubscription(sub.ID, r.IntN(2) == 0)
		}
	case n == 3:
		s.emu.SendLifecycle("missed", "")
	}
}

// Whatever the way by which changes are noticed, the events tell the same calendar, and none of them twice.
func TestEveryPathTellsTheSameCalendar(t *testing.T) {
	ways := map[string]func(*sim, *emulator.Options){
		"push": func(s *sim, _ *emulator.Options) { s.set.SweepInterval = 12 * time.Hour },
		"poll": func(s *sim, _ *emulator.Options) { s.set.PublicURL = "" },
		"mixed": func(s *sim, o *emulator.Options) {
			o.DeltaLag = 7 * time.Second
			s.faults = func(f *emulator.Faults) {
				f.LoseNotifications, f.DoubleNotifications, f.ReorderNotifications = 0.5, 0.3, 0.5
				f.RepeatItems, f.EmptyPages, f.SplitSeries = 0.2, 0.2, true
			}
		},
		"masters missing": func(s *sim, _ *emulator.Options) { s.faults = func(f *emulator.Faults) { f.MasterMissing = true } },
		"trouble": func(s *sim, o *emulator.Options) {
			o.DeltaLag, o.NoLimits = 3*time.Second, true
			s.faults = func(f *emulator.Faults) {
				f.LoseNotifications, f.Fail = 0.1, trouble(rand.New(rand.NewPCG(1, 2)))
			}
		},
		"true-up": func(s *sim, o *emulator.Options) {
			s.set.PublicURL, s.set.PollInterval, o.DeltaTokenAge = "", 10*time.Minute, 20*time.Second
		},
	}
	for seed := range uint64(3) {
		states := map[string]map[string]string{}
		for _, way := range slices.Sorted(maps.Keys(ways)) {
			t.Run(fmt.Sprint(way, " ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := calendarSim(t, ways[way], func(s *sim, _ *emulator.Options) { s.every = 30 * time.Second })
					s.wait(time.Minute)
					h := newHistory(s, seed)
					r := rand.New(rand.NewPCG(seed, 9)) // of what goes wrong beside
					for range 120 {
						h.edit()
						if way == "trouble" {
							s.misfortune(r)
						}
						if h.rng.IntN(3) > 0 {
							s.wait(time.Duration(h.rng.IntN(240)) * time.Second)
						}
					}
					if s.d == nil {
						s.start()
					}
					s.emu.SetFaults(func(f *emulator.Faults) { *f = emulator.Faults{} })
					s.wait(2 * time.Hour)
					if states[way] = s.checkMeetings(); len(states[way]) < 10 {
						t.Errorf("only %d meetings are left to compare", len(states[way]))
					}
					s.checkLaw()
				})
			})
		}
		for way, state := range states {
			if push := states["push"]; push != nil && !maps.Equal(state, push) {
				t.Errorf("seed %d: by %s the calendar is another than by push", seed, way)
			}
		}
	}
}
