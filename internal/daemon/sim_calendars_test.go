package daemon

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

func (s *sim) meet(mailbox string, m emulator.Meeting) string {
	s.t.Helper()
	if m.Start.IsZero() {
		m.Start = time.Now().Add(48 * time.Hour)
	}
	m.End = m.Start.Add(time.Hour)
	id, err := s.emu.AddMeeting(mailbox, m)
	s.must(err)
	return id
}

// All calendars of a mailbox share one subscription; what it announces is sorted to calendars, and what belongs to none of
// those that are watched is settled all the same.
func TestCalendarsShareOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(calendarYAML, "{starting: [15m]}", "{calendars: [default, Team]}", 1)
			s.before = func() {
				for _, name := range []string{"Team", "Private"} {
					_, err := s.emu.AddCalendar(sales, name)
					s.must(err)
				}
			}
		})
		s.wait(settle)
		s.meet(sales, emulator.Meeting{Subject: "mine"})
		s.wait(settle)
		team := s.meet(sales, emulator.Meeting{Subject: "ours", Calendar: "Team"})
		s.wait(settle) // a round that something else wakes would find it before its notification is there
		private := s.meet(sales, emulator.Meeting{Subject: "nobody's business", Calendar: "Private"})
		s.wait(2 * time.Minute)
		s.must(s.emu.UpdateMeeting(sales, private, emulator.MeetingPatch{Subject: ptr("still not")}))
		s.wait(2 * time.Minute) // likewise
		s.must(s.emu.DeleteMeeting(sales, team))
		s.wait(2 * time.Minute)
		s.must(s.emu.DeleteMeeting(sales, private))
		s.wait(2 * time.Minute)
		s.want("created mine", "created ours", "deleted ours")
		if v := s.vias(); v[event.ViaPush] != 3 {
			t.Errorf("by %v", v)
		}
		subs := s.emu.Subscriptions()
		if len(subs) != 1 || !strings.HasSuffix(subs[0].Resource, "/events") {
			t.Errorf("subscriptions %+v, want one on all events", subs)
		}
		if n := s.d.store.Pending(); n != 0 {
			t.Errorf("%d notifications are still pending", n)
		}
		if c := s.d.store.Counters(); c["settled_filtered"] == 0 || c["settled_gone"] == 0 {
			t.Errorf("those of the private calendar: %v", c)
		}
		feeds, _ := s.d.now().delta.Status()
		var labels []string
		for _, f := range feeds {
			labels = append(labels, f.Folder)
			if !f.Push || f.Area != event.AreaCalendar {
				t.Errorf("feed %+v", f)
			}
		}
		if !slices.Equal(labels, []string{"Calendar", "Team"}) {
			t.Errorf("feeds %q", labels)
		}
		s.checkLaw()
	})
}

// Somebody else's calendar is polled, the user's own is pushed (P-6 to P-10).
func TestSomebodyElsesCalendarIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(delegatedYAML, "mail: {folders: [inbox]}", "calendar: {starting: [1h]}", 1)
		})
		s.wait(settle)
		out, err := s.signIn(sales, "accept")
		if err != nil || len(out.Missing) != 0 {
			t.Fatalf("sign-in: %+v, %v", out, err)
		}
		s.wait(2 * time.Minute)
		s.meet(sales, emulator.Meeting{Subject: "own"})
		series := s.meet(support, emulator.Meeting{Subject: "shared", Recurrence: &emulator.Recurrence{Type: "daily", RangeType: "numbered", Count: 3}})
		s.wait(2 * time.Minute)
		first := time.Now().Add(48 * time.Hour).Truncate(time.Minute)
		for _, m := range s.emu.Instances(support, "", first.Add(-time.Hour), first.Add(time.Hour)) {
			s.must(s.emu.DeleteOccurrence(support, series, m.OriginalStart))
		}
		s.wait(2 * time.Minute)
		names := s.names()
		slices.Sort(names)
		if len(names) != 3 || names[0] != "created own" || names[1] != "created shared" || !strings.HasPrefix(names[2], "deleted shared of ") {
			t.Errorf("events are %q", names)
		}
		feeds, _ := s.d.now().delta.Status()
		for _, f := range feeds {
			if f.Push != (f.Mailbox == "sales") || f.Mailbox == "support" && !strings.Contains(f.PushReason, "delegated access has no subscriptions") {
				t.Errorf("mailbox %s: push %v: %s", f.Mailbox, f.Push, f.PushReason)
			}
		}
		if subs := s.emu.Subscriptions(); len(subs) != 1 {
			t.Errorf("%d subscriptions, want one on the own events", len(subs))
		}
		s.checkLaw()
	})
}

// Lead times that come with a reload are told of the meetings that are known already, and those that go are not told.
func TestLeadTimesChangeWithAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t)
		s.wait(settle)
		s.meet(sales, emulator.Meeting{Subject: "talk", Start: at("2000-01-01 12:00")})
		s.wait(settle)
		cursors := s.cursors()
		s.yaml = strings.Replace(s.yaml, "starting: [15m]", "starting: [2h, 5m]", 1)
		s.must(s.d.Reload(t.Context()))
		s.wait(settle)
		s.until("2000-01-01 10:30")
		s.want("created talk", "starting talk at 2000-01-01T12:00:00Z")
		s.yaml = strings.Replace(s.yaml, "starting: [2h, 5m]", "starting: [3h, 5m]", 1) // the longer one is over
		s.must(s.d.Reload(t.Context()))
		s.until("2000-01-01 13:00")
		s.want("created talk", "starting talk at 2000-01-01T12:00:00Z", "starting talk at 2000-01-01T12:00:00Z")
		for name, late := range s.starts() {
			if late >= time.Second {
				t.Errorf("%s was told %v late", name, late)
			}
		}
		if now := s.cursors(); len(now) != len(cursors) {
			t.Errorf("feeds were made anew: %v, then %v", cursors, now)
		}
		s.checkLaw()
	})
}

// Without the permission to read the mailbox's time zone everything else goes on.
func TestWithoutTheMailboxsTimeZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(_ *sim, o *emulator.Options) { o.WithheldPermissions = []string{"MailboxSettings.Read"} })
		s.wait(settle)
		s.meet(sales, emulator.Meeting{Subject: "talk", Start: at("2000-01-01 12:00")})
		s.wait(settle)
		_, err := s.emu.AddMeeting(sales, emulator.Meeting{Subject: "day off", AllDay: true, Start: at("2000-01-02 00:00"), End: at("2000-01-03 00:00"), TimeZone: "Tokyo Standard Time"})
		s.must(err)
		s.until("2000-01-01 14:50")
		s.want("created talk", "created day off", "starting talk at 2000-01-01T12:00:00Z", "starting day off at 2000-01-02") // midnight in Tokyo is 15:00
	})
}

// A calendar that can never be read keeps no notification of the others waiting.
func TestACalendarThatIsRefusedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad string
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.every = time.Minute
			s.yaml = strings.Replace(calendarYAML, "{starting: [15m]}", "{calendars: [default, Bad]}", 1)
			s.before = func() {
				var err error
				bad, err = s.emu.AddCalendar(sales, "Bad")
				s.must(err)
				_, err = s.emu.AddCalendar(sales, "Private")
				s.must(err)
				s.emu.SetFaults(func(f *emulator.Faults) {
					f.Fail = func(_ string, r *http.Request) *emulator.Fault {
						if strings.Contains(r.URL.Path, bad) {
							return &emulator.Fault{Status: http.StatusForbidden}
						}
						return nil
					}
				})
			}
		})
		s.wait(settle)
		s.meet(sales, emulator.Meeting{Subject: "mine"})
		private := s.meet(sales, emulator.Meeting{Subject: "nobody's business", Calendar: "Private"})
		s.wait(5 * time.Minute)
		s.must(s.emu.DeleteMeeting(sales, private))
		s.wait(10 * time.Minute)
		s.want("created mine")
		if n := s.d.store.Pending(); n != 0 {
			t.Errorf("%d notifications are still pending", n)
		}
		s.checkLaw()
	})
}

// What became of a meeting while triggerd was stopped is told, and not that it starts when it no longer does.
func TestMeetingsThatWereMovedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t)
		s.wait(settle)
		moved := s.meet(sales, emulator.Meeting{Subject: "moved", Start: at("2000-01-01 02:00")})
		s.wait(settle)
		cancelled := s.meet(sales, emulator.Meeting{Subject: "cancelled", Start: at("2000-01-01 02:00")})
		s.wait(settle)
		s.meet(sales, emulator.Meeting{Subject: "kept", Start: at("2000-01-01 02:00")})
		s.wait(settle)
		s.kill()
		s.must(s.emu.UpdateMeeting(sales, moved, emulator.MeetingPatch{Start: ptr(at("2000-01-03 02:00"))}))
		s.must(s.emu.CancelMeeting(sales, cancelled))
		s.until("2000-01-01 02:05")
		s.start()
		s.wait(2 * time.Minute)
		names := s.names()[3:]
		slices.Sort(names)
		want := []string{"cancelled cancelled", "rescheduled moved from 2000-01-01T02:00:00Z to 2000-01-03T02:00:00Z", "starting kept at 2000-01-01T02:00:00Z"}
		if !slices.Equal(names, want) {
			t.Errorf("events are %q, want %q", names, want)
		}
		s.checkLaw()
	})
}

// A meeting that becomes a series keeps its id, and starts once.
func TestAMeetingThatBecomesASeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(calendarYAML, "[15m]", "[15m, 1d]", 1)
			s.every = time.Minute
		})
		s.wait(settle)
		id := s.meet(sales, emulator.Meeting{Subject: "talk", Start: at("2000-01-02 12:00")})
		s.until("2000-01-02 11:00")
		s.must(s.emu.UpdateMeeting(sales, id, emulator.MeetingPatch{Recurrence: &emulator.Recurrence{Type: "weekly", RangeType: "numbered", Count: 2}}))
		s.until("2000-01-10 00:00")
		names := s.names()
		want := []string{"created talk", "starting talk at 2000-01-02T12:00:00Z", "updated talk",
			"starting talk of 2000-01-02T12:00:00Z at 2000-01-02T12:00:00Z",
			"starting talk of 2000-01-09T12:00:00Z at 2000-01-09T12:00:00Z", "starting talk of 2000-01-09T12:00:00Z at 2000-01-09T12:00:00Z"}
		if !slices.Equal(names, want) {
			t.Errorf("events are\n  %s\nwant\n  %s", strings.Join(names, "\n  "), strings.Join(want, "\n  "))
		}
		s.starts()
		s.checkLaw()
	})
}
