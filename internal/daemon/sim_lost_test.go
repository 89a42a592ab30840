package daemon

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/status"
)

// verdict is the report of a simulation, judged as if the broker were well.
func (s *sim) verdict() status.Report {
	r := s.d.reportRooms()
	r.NATS = status.NATS{Connected: true, Stream: "ok"}
	r.Judge()
	return r
}

// Resync is status.Source's; nothing asks for it.
func (s *sim) Resync(string) (int, error) { return 0, nil }

// Report is status.Source's.
func (s *sim) Report() status.Report { return s.verdict() }

// refuse has Graph answer 403 to these operations.
func (s *sim) refuse(operations ...string) {
	s.emu.SetFaults(func(f *emulator.Faults) {
		f.Fail = func(op string, _ *http.Request) *emulator.Fault {
			if slices.Contains(operations, op) {
				return &emulator.Fault{Status: http.StatusForbidden, Body: `{"error":{"code":"ErrorAccessDenied","message":"no"}}`}
			}
			return nil
		}
	})
}

// metric is the value of a metric as it is scraped.
func (s *sim) metric(name string) string {
	w := httptest.NewRecorder()
	status.NewMetrics(s, false).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

// wantProblems compares the problems of the verdict, each by its beginning and the reason in it.
func (s *sim) wantProblems(when string, want ...string) {
	s.t.Helper()
	r := s.verdict()
	ok := len(r.Problems) == len(want) && r.Healthy == (len(want) == 0)
	for i := range want {
		begin, reason, _ := strings.Cut(want[i], "…")
		ok = ok && strings.HasPrefix(r.Problems[i].What, begin) && strings.Contains(r.Problems[i].What, reason) && r.Problems[i].Remedy != ""
	}
	if !ok {
		s.t.Errorf("%s: problems are %+v, want %q", when, r.Problems, want)
	}
}

const mailAndCalendars = `
watches:
  sales: {connection: contoso, mailboxes: [{address: sales@contoso.com, alias: sales}], mail: {folders: [inbox], events: [received]}, calendar: {calendars: [default, Team]}}
`

// startLost is a simulation with a mail folder and two calendars, which share a subscription.
func startLost(t *testing.T, edit ...func(*sim, *emulator.Options)) *sim {
	return startSim(t, append([]func(*sim, *emulator.Options){func(s *sim, _ *emulator.Options) {
		s.yaml = s.yaml[:strings.Index(s.yaml, "\nwatches:")] + mailAndCalendars
		s.every, s.set.PollInterval, s.set.SweepInterval = time.Minute, 20*time.Minute, time.Hour // of many days
		s.before = func() {
			_, err := s.emu.AddCalendar(sales, "Team")
			s.must(err)
		}
	}}, edit...)...)
}

const (
	failsForMail      = "subscription of sales Inbox expires in …403 Forbidden (ErrorAccessDenied)"
	failsForCalendars = "subscription of sales all calendars expires in …403 Forbidden (ErrorAccessDenied)"

	noneForMail      = "sales Inbox has had no subscription for …403 Forbidden (ErrorAccessDenied)"
	noneForCalendars = "sales all calendars has had no subscription for …403 Forbidden (ErrorAccessDenied)"
)

// When Graph refuses renewals and creations for days, the subscriptions lapse. That is told before, and from then on until
// they are there again; what happens meanwhile is found by polling.
func TestSubscriptionsThatAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startLost(t)
		s.wait(5 * time.Minute)
		s.wantProblems("at first")
		s.refuse("subscription.renew", "subscription.create")
		s.wait(3 * 24 * time.Hour)
		s.wantProblems("before a renewal is due")
		s.wait(2 * 24 * time.Hour)
		s.wantProblems("days before they lapse", failsForMail, failsForCalendars)
		if failing := s.metric(`triggerd_subscriptions{state="failing"}`); failing != "2" {
			t.Errorf("%s subscriptions are failing, want 2", failing)
		}
		s.wait(24 * time.Hour)
		s.wantProblems("a day before they lapse", failsForMail, failsForCalendars)
		for range 24 * 12 { // they lapse: at no moment does it look healthy
			s.wait(5 * time.Minute)
			if r := s.verdict(); r.Healthy {
				t.Fatalf("healthy at %v, with %d subscriptions and %d missing", r.At, len(r.Subscriptions), len(r.Missing))
			}
		}
		for day := range 3 {
			s.wait(24 * time.Hour)
			s.wantProblems("without a subscription", noneForMail, noneForCalendars)
			if missing := s.metric(`triggerd_subscriptions{state="missing"}`); missing != "2" {
				t.Errorf("day %d: %s subscriptions are missing, want 2", day, missing)
			}
		}
		s.restart()
		s.wait(3 * time.Minute)
		s.wantProblems("after a restart", noneForMail, noneForCalendars)
		s.deliver("found by polling")
		s.wait(25 * time.Minute)
		s.want("received found by polling")
		if v := s.vias(); v[event.ViaPoll] != 1 {
			t.Errorf("it came by %v", v)
		}

		s.emu.SetFaults(func(f *emulator.Faults) { f.Fail = nil })
		s.wait(2 * time.Hour)
		s.wantProblems("healed")
		if missing, active := s.metric(`triggerd_subscriptions{state="missing"}`), s.metric(`triggerd_subscriptions{state="active"}`); missing != "0" || active != "2" {
			t.Errorf("healed: %s missing and %s active, want 0 and 2", missing, active)
		}
		s.checkLaw()
	})
}

// Creations that are refused from the start are told after ten minutes, one for the folder and one for all calendars of the
// mailbox, until nobody wants them any more.
func TestSubscriptionsThatWereNeverThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startLost(t)
		s.refuse("subscription.create")
		s.wait(8 * time.Minute)
		s.wantProblems("after eight minutes")
		s.wait(5 * time.Minute)
		s.wantProblems("after thirteen", noneForMail, noneForCalendars)
		if m := s.verdict().Missing; len(m) != 2 || !slices.Equal(m[0].Watches, []string{"sales"}) || m[0].Connection != "contoso" || m[0].Feed == 0 {
			t.Errorf("missing are %+v", m)
		}
		s.yaml = strings.Replace(s.yaml, "calendar: {", "delivery: poll, calendar: {", 1)
		s.must(s.d.Reload(t.Context()))
		s.wait(2 * time.Minute)
		s.wantProblems("polling is wanted")
		s.checkLaw()
	})
}
