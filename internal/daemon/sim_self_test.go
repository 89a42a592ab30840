package daemon

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
)

const oneInbox = `
watches:
  sales: {connection: contoso, mailboxes: [{address: sales@contoso.com, alias: sales}], mail: {folders: [inbox], events: [received]}}
  audit: {connection: contoso, mailboxes: [{address: sales@contoso.com, alias: books}], mail: {folders: [inbox], events: [deleted]}}
`

// startSelf starts a simulation with two watches over one inbox: they share the feed and its subscription.
func startSelf(t *testing.T, edit ...func(*sim, *emulator.Options)) *sim {
	return startSim(t, append([]func(*sim, *emulator.Options){func(s *sim, _ *emulator.Options) {
		s.yaml = s.yaml[:strings.Index(s.yaml, "\nwatches:")] + oneInbox
	}}, edit...)...)
}

// since lists what was told about itself after the first n events, as "watch area.name", sorted.
func (s *sim) since(n int) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.told[n:] {
		if e := &s.told[n+i]; e.Area != event.AreaConnection {
			out = append(out, e.Watch+" "+e.Area+"."+e.Name)
		}
	}
	slices.Sort(out)
	return out
}

func (s *sim) wantTold(n int, names ...string) int {
	s.t.Helper()
	var want []string
	for _, name := range names {
		want = append(want, "audit "+name, "sales "+name)
	}
	slices.Sort(want)
	if got := s.since(n); !slices.Equal(got, want) {
		s.t.Errorf("told %v, want %v", got, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.told)
}

// Everything that happens to a subscription and to the freshness of a watch is told once to each watch that it matters
// to, in the form that the schema promises, and a restart tells nothing again.
func TestTriggerdTellsOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSelf(t)
		s.wait(settle)
		n := s.wantTold(0, "subscription.created", "watch.baselined")

		s.restart()
		s.wait(time.Hour)
		n = s.wantTold(n)

		s.wait(5 * 24 * time.Hour)
		n = s.wantTold(n, "subscription.renewed")

		s.emu.SendLifecycle("reauthorizationRequired", "")
		s.wait(time.Minute)
		n = s.wantTold(n, "subscription.reauthorized")

		s.emu.SendLifecycle("missed", "")
		s.wait(time.Minute)
		n = s.wantTold(n, "subscription.missed")

		s.emu.RemoveSubscription(s.emu.Subscriptions()[0].ID, true)
		s.wait(time.Minute)
		n = s.wantTold(n, "subscription.removed", "subscription.created")

		s.emu.ExpireDeltaTokens()
		s.wait(20 * time.Minute)
		n = s.wantTold(n, "watch.gap_closed")

		s.emu.SetFaults(func(f *emulator.Faults) {
			f.Fail = func(string, *http.Request) *emulator.Fault { return &emulator.Fault{} }
		})
		s.wait(2 * time.Hour)
		s.restart() // a process that has just started does not call a stale watch fresh
		s.wait(10 * time.Minute)
		n = s.wantTold(n, "watch.stale")

		s.emu.SetFaults(func(f *emulator.Faults) { f.Fail = nil })
		s.wait(time.Hour)
		s.wantTold(n, "watch.recovered")
		s.checkTold()
		s.checkLaw()
	})
}

// A renewal that fails for long is told when it begins, and then less and less often.
func TestFailedRenewalsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSelf(t)
		s.wait(settle)
		n := s.wantTold(0, "subscription.created", "watch.baselined")
		s.emu.SetFaults(func(f *emulator.Faults) {
			f.Fail = func(op string, _ *http.Request) *emulator.Fault {
				if op == "subscription.renew" {
					return &emulator.Fault{Status: 503}
				}
				return nil
			}
		})
		s.wait(5 * 24 * time.Hour)
		got := s.since(n)
		sub := s.d.store.Subscriptions()[0]
		if len(got) == 0 || len(got) > 24 || sub.Failures < 8 {
			t.Errorf("%d failures were told %d times: %v", sub.Failures, len(got), got)
		}
		for _, g := range got {
			if !strings.HasSuffix(g, "subscription.renewal_failed") {
				t.Errorf("told %s", g)
			}
		}
		s.checkTold()
	})
}

// A mailbox that cannot be read at all is a stale watch, with the reason, and recovers.
func TestAMailboxThatIsNotThereIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSelf(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.ReplaceAll(s.yaml, "sales@contoso.com", "new@contoso.com")
		})
		s.wait(10 * time.Minute)
		n := s.wantTold(0, "watch.stale")
		for _, w := range s.d.now().freshness.Status() {
			if w.State != "stale" || w.Reason == "" {
				t.Errorf("watch %s: %+v", w.Watch, w)
			}
		}
		s.emu.AddUser("new@contoso.com")
		s.wait(3 * time.Hour)
		s.wantTold(n, "watch.recovered", "watch.baselined", "subscription.created")
		s.checkTold()
	})
}

// A watch with a canary is stale when its events stop, although every round goes well, and says so.
func TestACanaryThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSelf(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(s.yaml, "events: [received]}}", "events: [received]}, canary: 15m}", 1)
		})
		s.wait(settle)
		n := s.wantTold(0, "subscription.created", "watch.baselined")
		for range 12 {
			s.deliver("canary")
			s.wait(10 * time.Minute)
		}
		n = s.wantTold(n)
		s.wait(10 * time.Minute)
		if got := s.since(n); !slices.Equal(got, []string{"sales watch.stale"}) {
			t.Errorf("told %v, want that sales is stale", got)
		}
		for _, w := range s.d.now().freshness.Status() {
			if want := w.Watch == "sales"; w.Silent != want || want && !strings.Contains(w.Reason, "its canary is silent: no event for 20m") {
				t.Errorf("watch %s: %+v", w.Watch, w)
			}
		}
		s.must(s.d.Reload(t.Context())) // which is no reason to believe it again
		s.wait(time.Minute)
		s.deliver("canary")
		s.wait(time.Minute)
		if got := s.since(n + 1); !slices.Equal(got, []string{"sales watch.recovered"}) {
			t.Errorf("told %v, want that sales has recovered", got)
		}
		s.checkTold()
	})
}

// checkTold validates what was told against the schemas, and holds it against what may be told: no address.
func (s *sim) checkTold() {
	s.t.Helper()
	c := jsonschema.NewCompiler()
	for name, b := range event.Schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		s.must(err)
		s.must(c.AddResource(event.SchemaID(name), doc))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.told {
		e := &s.told[i]
		schema, err := c.Compile(event.SchemaID(e.Area))
		s.must(err)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.Data))
		s.must(err)
		if err := schema.Validate(doc); err != nil {
			s.t.Errorf("%s.%s: %v", e.Area, e.Name, err)
		}
		if e.Sequence != 0 || e.Epoch != "" {
			s.t.Errorf("%s.%s is numbered", e.Area, e.Name)
		}
		if bytes.Contains(e.Data, []byte("@")) {
			s.t.Errorf("%s.%s holds an address: %s", e.Area, e.Name, e.Data)
		}
		if e.Name == event.Recovered || e.Name == event.GapClosed {
			var d event.WatchData
			s.must(json.Unmarshal(e.Data, &d))
			if d.Since.IsZero() || !d.FreshAt.After(d.Since) {
				s.t.Errorf("%s: since %v, fresh at %v", e.Name, d.Since, d.FreshAt)
			}
		}
	}
}
