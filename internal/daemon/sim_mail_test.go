package daemon

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/status"
)

const sales = "sales@contoso.com"

func parseSim(s *sim) (*config.File, error) {
	tenant, client, secret := s.emu.Credentials()
	path := filepath.Join(s.dir, "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		return nil, err
	}
	text := s.yaml
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, tenant, client, path)
	}
	return config.Parse("triggerd.yaml", []byte(text))
}

func (s *sim) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) deliver(subject string) string {
	s.t.Helper()
	id, err := s.emu.Deliver(sales, emulator.Mail{Subject: subject})
	s.must(err)
	return id
}

func (s *sim) patch(id string, p emulator.Patch) { s.t.Helper(); s.must(s.emu.Update(sales, id, p)) }
func (s *sim) move(id, folder string)            { s.t.Helper(); s.must(s.emu.Move(sales, id, folder)) }
func (s *sim) remove(id string)                  { s.t.Helper(); s.must(s.emu.Delete(sales, id)) }

func ptr[T any](v T) *T { return &v }

// settle is longer than push, delta and a retry take when nothing is wrong.
const settle = 20 * time.Second

func TestMailBecomesEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		a := s.deliver("hello")
		s.wait(settle)
		s.patch(a, emulator.Patch{IsRead: ptr(true)})
		s.wait(settle)
		s.patch(a, emulator.Patch{Flag: ptr("flagged"), Categories: ptr([]string{"Red"})})
		s.wait(settle)
		s.patch(a, emulator.Patch{Subject: ptr("hello again")})
		s.wait(settle)
		s.move(a, "archive") // nobody watches it
		s.wait(settle)
		s.move(a, "inbox")
		s.wait(settle)
		s.remove(a)
		s.wait(settle)
		d, err := s.emu.SaveDraft(sales, emulator.Mail{Subject: "answer"})
		s.must(err)
		s.wait(settle)
		s.must(s.emu.SendDraft(sales, d))
		s.wait(settle)
		s.want("received hello", "read hello", "flagged hello", "categorized hello", "updated hello again", "moved hello again",
			"moved hello again", "deleted hello again", "draft answer", "sent answer")
		if v := s.vias(); v[event.ViaPush] != len(s.events) {
			t.Errorf("paths are %v, want push only", v)
		}
		s.checkLaw()
		s.checkFolded()
		if n := s.d.store.Pending(); n != 0 {
			t.Errorf("%d notifications are not settled", n)
		}
	})
}

func TestMailThatWasThereIsNotPublished(t *testing.T) {
	for start, want := range map[string][]string{
		"now": {"received new"},
		"all": {"received old", "received new"},
		"2h":  {"received new"},
		"7d":  {"received old", "received new"},
	} {
		t.Run(start, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSim(t, func(s *sim, _ *emulator.Options) {
					s.yaml = strings.Replace(s.yaml, "    mail:", "    start: "+start+"\n    mail:", 1)
					s.before = func() {
						s.deliver("old")
						time.Sleep(24 * time.Hour)
					}
				})
				s.wait(settle)
				s.deliver("new")
				s.wait(settle)
				s.want(want...)
				s.restart()
				s.wait(25 * time.Hour) // a true-up
				s.want(want...)
				s.checkLaw()
			})
		})
	}
}

func TestALostNotificationIsCaughtByDelta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNotifications = 1 })
		s.deliver("lost")
		s.wait(16 * time.Minute)
		s.want("received lost")
		if s.vias()[event.ViaPoll] != 1 {
			t.Errorf("paths are %v, want poll", s.vias())
		}
		// Push was silent: it is not trusted, and polling is close until it proves itself again.
		s.deliver("lost too")
		s.wait(70 * time.Second)
		s.want("received lost", "received lost too")
		s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNotifications = 0 })
		s.deliver("pushed")
		s.wait(settle)
		s.want("received lost", "received lost too", "received pushed")
		s.checkLaw()
	})
}

// history makes one change at a time, far enough apart that every path sees each of them.
func (s *sim) history(gap time.Duration) {
	s.wait(gap)
	a, b := s.deliver("a"), s.deliver("b")
	s.wait(gap)
	s.patch(a, emulator.Patch{IsRead: ptr(true)})
	s.wait(gap)
	s.move(b, "archive")
	s.wait(gap)
	s.patch(a, emulator.Patch{Flag: ptr("flagged")})
	s.move(b, "inbox")
	s.wait(gap)
	s.remove(a)
	_, err := s.emu.Send(sales, emulator.Mail{Subject: "sent"})
	s.must(err)
	s.wait(gap)
}

func TestEveryPathGivesTheSameIDs(t *testing.T) {
	ids := map[string][]string{}
	paths := map[string]func(*sim, *emulator.Options){
		"push": func(*sim, *emulator.Options) {},
		"poll": func(s *sim, _ *emulator.Options) { s.set.PublicURL = "" },
		"true-up": func(s *sim, _ *emulator.Options) {
			s.set.PublicURL, s.set.PollInterval, s.set.TrueUpInterval = "", 10*time.Minute, time.Second
		},
		"no delta": func(s *sim, o *emulator.Options) { // what left a folder shows in true-ups only
			s.set.PublicURL, s.set.PollInterval, s.set.TrueUpInterval, o.NoDelta = "", 10*time.Minute, time.Second, true
			s.china()
		},
		"lagging":     func(_ *sim, o *emulator.Options) { o.DeltaLag = 10 * time.Second },
		"doubled":     func(s *sim, _ *emulator.Options) { s.faults = func(f *emulator.Faults) { f.DoubleNotifications = 1 } },
		"half silent": func(s *sim, _ *emulator.Options) { s.faults = func(f *emulator.Faults) { f.LoseNotifications = 0.5 } },
		"moves hidden by delta": func(s *sim, _ *emulator.Options) {
			s.faults = func(f *emulator.Faults) { f.HideMovedIn = true }
		},
	}
	for name, edit := range paths {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSim(t, edit)
				s.history(31 * time.Minute)
				s.checkLaw()
				s.checkFolded()
				for i := range s.events {
					ids[name] = append(ids[name], s.events[i].ID)
				}
				slices.Sort(ids[name])
			})
		})
	}
	for name := range paths {
		if !slices.Equal(ids[name], ids["push"]) {
			t.Errorf("%s published %d events, push %d, or others", name, len(ids[name]), len(ids["push"]))
		}
	}
}

// china makes the cloud one without message delta (C-12).
func (s *sim) china() { s.yaml = strings.Replace(s.yaml, "like: global", "like: china", 1) }

func TestAnExpiredDeltaTokenLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		a, b := s.deliver("a"), s.deliver("b")
		s.wait(settle)
		s.kill()
		s.remove(a)
		s.patch(b, emulator.Patch{IsRead: ptr(true)})
		s.deliver("c")
		s.emu.ExpireDeltaTokens()
		time.Sleep(time.Hour)
		s.start()
		s.wait(2 * time.Minute)
		got := s.names()
		slices.Sort(got)
		if want := []string{"deleted a", "read b", "received a", "received b", "received c"}; !slices.Equal(got, want) {
			t.Errorf("events are %v, want %v", got, want)
		}
		s.checkLaw()
		s.checkFolded()
	})
}

func TestPollingTakesOverWhileNobodyCanReachUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		h := s.hook.Handler
		s.hook.Lock()
		s.hook.Handler = nil
		s.hook.Unlock()
		s.wait(16 * time.Minute)
		s.deliver("polled")
		s.wait(70 * time.Second)
		s.want("received polled")
		s.hook.Lock()
		s.hook.Handler = h
		s.hook.Unlock()
		s.wait(time.Hour)
		n := s.emu.Requests()["delta"]
		s.wait(time.Hour)
		if polls := s.emu.Requests()["delta"] - n; polls > 20 { // three folders, every 15 minutes
			t.Errorf("%d delta requests in an hour: polling does not give way", polls)
		}
		s.checkLaw()
	})
}

func TestAVanishedFolderDeletesItsMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(s.yaml, "[inbox, sentitems, drafts]", "[all]", 1)
		})
		s.wait(settle)
		id, err := s.emu.AddFolder(sales, "inbox", "Bills/2026")
		s.must(err)
		s.wait(20 * time.Minute) // the folder list is read again
		_, err = s.emu.Deliver(sales, emulator.Mail{Subject: "bill", Folder: id})
		s.must(err)
		s.wait(settle)
		s.must(s.emu.DeleteFolder(sales, id))
		s.wait(40 * time.Minute)
		if got := s.names(); len(got) != 2 || got[0] != "received bill" || got[1] != "deleted bill" && got[1] != "moved bill" {
			t.Errorf("events are %v", got)
		}
		s.checkLaw()
	})
}

func TestAMailboxThatDeniesAccessDoesNotLoseItsMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		s.deliver("before")
		s.wait(settle)
		for _, access := range []emulator.Access{emulator.Denied, emulator.Unlicensed} {
			s.must(s.emu.SetAccess(sales, access))
			s.wait(2 * time.Hour)
			s.must(s.emu.SetAccess(sales, emulator.Allowed))
			s.deliver("after")
			s.wait(90 * time.Minute)
		}
		s.want("received before", "received after", "received after")
		s.checkLaw()
	})
}

func TestLifecycleNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		for _, ev := range []string{"missed", "reauthorizationRequired", "somethingNew"} {
			s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNotifications = 1 })
			s.deliver(ev)
			s.wait(2 * time.Second)
			s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNotifications = 0 })
			s.emu.SendLifecycle(ev, "")
			s.wait(2 * time.Minute)
		}
		for _, sub := range s.emu.Subscriptions() {
			s.emu.RemoveSubscription(sub.ID, true)
		}
		s.deliver("removed")
		s.wait(2 * time.Minute)
		got := s.names()
		if want := "received removed"; got[len(got)-1] != want || len(s.emu.Subscriptions()) != 3 {
			t.Errorf("events %v, %d subscriptions; want the last %q and 3", got, len(s.emu.Subscriptions()), want)
		}
		s.checkLaw()
		s.checkFolded()
	})
}

func TestReferencesAreToldWithoutReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(s.yaml, "events: [received, sent, draft, read, unread, flagged, categorized, moved, deleted, updated]", "events: [created, updated, deleted]", 1)
			s.yaml = strings.Replace(s.yaml, "    mail:", "    content: reference\n    mail:", 1)
		})
		s.wait(settle)
		s.emu.SetFaults(func(f *emulator.Faults) { f.DoubleNotifications = 1 })
		n := s.emu.Requests()
		a := s.deliver("x")
		s.wait(settle)
		s.patch(a, emulator.Patch{IsRead: ptr(true)})
		s.wait(settle)
		s.remove(a)
		s.wait(settle)
		s.want("created", "updated", "deleted")
		if d := s.emu.Requests(); !maps.Equal(n, d) {
			t.Errorf("Graph was asked: %v, before %v", d, n)
		}
		s.emu.SetFaults(func(f *emulator.Faults) { f.LoseNotifications = 1 })
		s.deliver("y")
		s.wait(16 * time.Minute)
		s.want("created", "updated", "deleted", "created")
		s.checkLaw()
	})
}

// edit makes one random change.
func (s *sim) edit(r *rand.Rand) {
	watched := s.emu.Messages(sales)
	pick := func() (emulator.MessageInfo, bool) {
		if len(watched) == 0 {
			return emulator.MessageInfo{}, false
		}
		return watched[r.IntN(len(watched))], true
	}
	m, ok := pick()
	switch n := r.IntN(10); {
	case n < 4 || !ok:
		s.deliver(fmt.Sprintf("mail %d", r.IntN(1000)))
	case n == 4:
		s.patch(m.ID, emulator.Patch{IsRead: ptr(!m.IsRead)})
	case n == 5:
		s.patch(m.ID, emulator.Patch{Flag: ptr([]string{"flagged", "complete", "notFlagged"}[r.IntN(3)])})
	case n == 6:
		s.patch(m.ID, emulator.Patch{Subject: ptr(fmt.Sprintf("again %d", r.IntN(1000)))})
	case n == 7:
		s.remove(m.ID)
	case n == 8:
		_, err := s.emu.Send(sales, emulator.Mail{Subject: fmt.Sprintf("out %d", r.IntN(1000))})
		s.must(err)
	default:
		s.move(m.ID, []string{"inbox", "archive", "sentitems", "deleteditems"}[r.IntN(4)])
	}
}

// TestNothingIsLostInDaysOfTrouble lets a mailbox live while everything goes wrong that can: notifications lost,
// doubled, delayed, reordered; 429, 503, HTML, cut answers, ambiguous failures; expired tokens; kills. At the end the
// events, folded, are the mailbox; each came once, in order, without gaps; and every notification is accounted for.
func TestNothingIsLostInDaysOfTrouble(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 7))
				s := startSim(t, func(_ *sim, o *emulator.Options) {
					o.Seed, o.DeltaLag, o.NoLimits = int64(seed), time.Duration(seed%3)*5*time.Second, true
				})
				s.emu.SetFaults(func(f *emulator.Faults) {
					f.LoseNotifications, f.DoubleNotifications, f.ReorderNotifications = 0.1, 0.2, 0.2
					f.NotificationDelay = 2 * time.Second
					f.HideMovedIn = seed%2 == 1
					f.Fail = trouble(r)
				})
				for range 200 {
					s.edit(r)
					s.wait(time.Duration(r.Int64N(int64(time.Hour))))
					switch r.IntN(40) {
					case 0:
						s.kill()
						s.edit(r)
						s.edit(r)
						time.Sleep(time.Duration(r.Int64N(int64(6 * time.Hour))))
						s.start()
					case 1:
						s.emu.ExpireDeltaTokens()
					case 2:
						for _, sub := range s.emu.Subscriptions() {
							s.emu.RemoveSubscription(sub.ID, r.IntN(2) == 0)
						}
					case 3:
						s.emu.SendLifecycle([]string{"missed", "reauthorizationRequired"}[r.IntN(2)], "")
					case 4, 5:
						s.must(s.d.Reload(t.Context()))
					}
				}
				s.emu.SetFaults(func(f *emulator.Faults) { *f = emulator.Faults{} })
				s.wait(26 * time.Hour) // a true-up
				s.checkLaw()
				s.checkFolded()
				if n := s.d.store.Pending(); n != 0 {
					t.Errorf("%d notifications are not settled", n)
				}
			})
		})
	}
}

// trouble fails one request in twelve in a way that Graph has.
func trouble(r *rand.Rand) func(op string, _ *http.Request) *emulator.Fault {
	kinds := []emulator.Fault{
		{Status: 429, RetryAfter: "3"}, {Status: 503, RetryAfter: "1"}, {Status: 500}, {Status: 504},
		{Status: 200, ContentType: "text/html", Body: "<html>proxy</html>"}, {Status: 503, After: true}, {Truncate: true},
	}
	var mu sync.Mutex
	r = rand.New(rand.NewPCG(r.Uint64(), 1)) // requests run beside the test
	return func(string, *http.Request) *emulator.Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(12) != 0 {
			return nil
		}
		return ptr(kinds[r.IntN(len(kinds))])
	}
}

// written collects what is logged, from many goroutines.
type written struct {
	mu sync.Mutex
	strings.Builder
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Builder.Write(p)
}

// TestLogsAreDiscreet runs a day with everything logged, trouble included, and looks for what must not be there.
func TestLogsAreDiscreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs written
		s := startSim(t, func(s *sim, o *emulator.Options) {
			s.log = zerolog.New(&logs).Level(zerolog.DebugLevel)
			o.ClientSecret = "canary-secret"
			r := rand.New(rand.NewPCG(1, 1))
			s.faults = func(f *emulator.Faults) { f.Fail = trouble(r) }
		})
		s.wait(settle)
		for range 20 {
			_, err := s.emu.Deliver(sales, emulator.Mail{
				Subject: "canary-subject", Body: "canary-body", From: emulator.Address{Name: "canary-name", Address: "canary@example.com"},
			})
			s.must(err)
			s.wait(time.Hour)
		}
		for _, sub := range s.emu.Subscriptions() {
			s.emu.RemoveSubscription(sub.ID, true)
		}
		must(t, s.emu.SetAccess(sales, emulator.Denied))
		s.wait(time.Hour)
		s.restart()
		s.wait(time.Hour)
		text := logs.String()
		if !strings.Contains(text, "delta round interrupted") || !strings.Contains(text, "subscription created") {
			t.Fatal("the log does not show what happened")
		}
		discreet(t, "the log", text)
	})
}

// discreet looks for what must not be there.
func discreet(t *testing.T, where, text string) {
	t.Helper()
	for _, canary := range []string{"canary", "contoso.com", "sales@", "clientState", "Bearer", "deltatoken", "skiptoken"} {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s: %q: …%s…", where, canary, text[max(0, i-200):min(len(text), i+60)])
		}
	}
}

// TestCalendarsAreDiscreet does the same with calendars, and looks at status, metrics and what triggerd tells of itself,
// too: of what is in a calendar they say nothing, and only the status calls it by its name, as it does folders.
func TestCalendarsAreDiscreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs written
		s := calendarSim(t, func(s *sim, _ *emulator.Options) {
			s.log = zerolog.New(&logs).Level(zerolog.DebugLevel)
			s.yaml = strings.Replace(s.yaml, "{starting: [15m]}", "{calendars: [all], starting: [15m]}", 1)
			s.before = func() {
				_, err := s.emu.AddCalendar(sales, "canary-calendar")
				s.must(err)
			}
			r := rand.New(rand.NewPCG(1, 1))
			s.faults = func(f *emulator.Faults) { f.Fail = trouble(r) }
		})
		s.wait(settle)
		ada := emulator.Attendee{Address: emulator.Address{Name: "canary-attendee", Address: "canary-attendee@example.com"}}
		meeting := emulator.Meeting{
			Calendar: "canary-calendar", Subject: "canary-subject", Body: "canary-body", Location: "canary-location", Categories: []string{"canary-category"},
			Organizer: emulator.Address{Name: "canary-organizer", Address: "canary-organizer@example.com"}, Attendees: []emulator.Attendee{ada},
			Online: true, JoinURL: "https://canary-join.example.com/canary", ICalUID: "canary-uid",
		}
		var ids []string
		for i := range 12 {
			meeting.Start, meeting.Recurrence = time.Now().Add(50*time.Minute), nil
			if i%3 == 2 {
				meeting.Recurrence = &emulator.Recurrence{Type: "daily", RangeType: "numbered", Count: 5}
			}
			id, err := s.emu.AddMeeting(sales, meeting)
			s.must(err)
			ids = append(ids, id)
			s.wait(time.Hour)
		}
		s.must(s.emu.UpdateMeeting(sales, ids[0], emulator.MeetingPatch{Subject: ptr("canary-new-subject")}))
		s.must(s.emu.DeleteMeeting(sales, ids[2]))
		s.wait(time.Hour)
		s.emu.SetFaults(func(f *emulator.Faults) { // a series that makes no sense
			f.MasterMissing = true
			f.Fail = func(op string, _ *http.Request) *emulator.Fault {
				if op == "event.get" {
					return &emulator.Fault{Status: 200, Body: `{"id":"x","subject":"canary-subject","start":{"dateTime":"canary-start","timeZone":"canary-zone"}}`}
				}
				return nil
			}
		})
		_, err := s.emu.AddMeeting(sales, meeting)
		s.must(err)
		s.wait(time.Hour)
		parked, err := s.d.store.Quarantined()
		s.must(err)
		if len(parked) == 0 {
			t.Error("nothing is parked")
		}
		for i := range parked {
			if strings.Contains(parked[i].Reason, "canary") {
				t.Errorf("the reason of what is parked says %q", parked[i].Reason)
			}
		}
		for _, sub := range s.emu.Subscriptions() {
			s.emu.RemoveSubscription(sub.ID, true)
		}
		s.must(s.emu.SetAccess(sales, emulator.Denied))
		s.wait(time.Hour)
		s.restart()
		s.wait(time.Hour)

		names := strings.Join(s.names(), "\n")
		for _, want := range []string{"invited canary-subject", "starting canary-subject", "updated canary-new-subject", "deleted canary-subject"} {
			if !strings.Contains(names, want) {
				t.Errorf("there is no event %q, so that nothing is shown by this test", want)
			}
		}
		text := logs.String()
		for _, want := range []string{"delta round interrupted", "subscription created", "item cannot be processed"} {
			if !strings.Contains(text, want) {
				t.Errorf("the log does not show what happened: %q", want)
			}
		}
		for where, text := range s.shown() {
			names := strings.Contains(text, "canary-calendar")
			if want := where == "the status" || where == "the page"; names != want {
				t.Errorf("the calendar's name stands in %s: %v, want %v", where, names, want)
			}
			discreet(t, where, strings.ReplaceAll(text, "canary-calendar", ""))
		}
		discreet(t, "the log", text)
	})
}

// shown is what of triggerd others than the consumers of mail and meetings see, but for its log.
func (s *sim) shown() map[string]string {
	s.t.Helper()
	ask := func(h http.Handler, path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 {
			s.t.Errorf("%s: status %d", path, w.Code)
		}
		return w.Body.String()
	}
	var told strings.Builder
	s.mu.Lock()
	for i := range s.told {
		told.Write(s.told[i].Data)
	}
	s.mu.Unlock()
	api := status.Handler(feedReporter{s}, nil)
	return map[string]string{
		"the status": ask(api, "/api/v1/status"), "the page": ask(api, "/"), "the events about triggerd": told.String(),
		"the metrics": ask(status.NewMetrics(feedReporter{s}, false), "/metrics"),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeltaThatMisbehaves lets one thing at a time go wrong with delta while mail arrives in pages; when it ends, nothing
// is missing and nothing came twice.
func TestDeltaThatMisbehaves(t *testing.T) {
	tests := map[string]func(*sim, *emulator.Faults){
		"links in a circle":        func(_ *sim, f *emulator.Faults) { f.LoopNextLink, f.IgnorePageSize = true, true },
		"links to another host":    func(_ *sim, f *emulator.Faults) { f.ForeignNextLink, f.IgnorePageSize = true, true },
		"empty pages":              func(_ *sim, f *emulator.Faults) { f.EmptyPages, f.IgnorePageSize = 0.5, true },
		"the same item repeatedly": func(_ *sim, f *emulator.Faults) { f.RepeatItems = 0.5 },
		"page size ignored":        func(_ *sim, f *emulator.Faults) { f.IgnorePageSize = true },
		"410 in mid-round": func(s *sim, f *emulator.Faults) {
			var n atomic.Int32
			f.IgnorePageSize = true
			f.Fail = func(op string, _ *http.Request) *emulator.Fault {
				if op == "delta" && n.Add(1)%3 == 2 && n.Load() < 30 {
					return &emulator.Fault{Status: http.StatusGone, Body: `{"error":{"code":"SyncStateNotFound","message":"gone"}}`}
				}
				return nil
			}
		},
		"large pages time out": func(s *sim, f *emulator.Faults) {
			f.Fail = func(op string, r *http.Request) *emulator.Fault {
				if op == "delta" && strings.Contains(r.Header.Get("Prefer"), "maxpagesize=1000") {
					return &emulator.Fault{Status: http.StatusGatewayTimeout}
				}
				return nil
			}
		},
	}
	for name, misbehave := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSim(t, func(s *sim, o *emulator.Options) { o.PageSize = 5; s.set.PublicURL = "" })
				s.wait(settle)
				s.emu.SetFaults(func(f *emulator.Faults) { misbehave(s, f) })
				for i := range 25 {
					s.deliver(fmt.Sprint("mail ", i))
				}
				s.wait(30 * time.Minute)
				s.emu.SetFaults(func(f *emulator.Faults) { *f = emulator.Faults{} })
				s.wait(time.Hour)
				if n := len(s.names()); n != 25 {
					t.Errorf("%d events, want 25", n)
				}
				s.checkLaw()
				s.checkFolded()
			})
		})
	}
}
