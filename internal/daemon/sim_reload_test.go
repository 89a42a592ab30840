package daemon

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

const supportYAML = `
  support:
    connection: contoso
    mailboxes: [{address: support@contoso.com, alias: support}]
    mail: {folders: [inbox], events: [received]}
`

// cursors are the delta links of all feeds.
func (s *sim) cursors() map[uint32]string {
	out := map[uint32]string{}
	for _, f := range s.d.store.Feeds() {
		out[f.Num] = f.Cursor
	}
	return out
}

// live are the ids of the subscriptions at Graph, by resource.
func (s *sim) live() map[string]string {
	out := map[string]string{}
	for _, sub := range s.emu.Subscriptions() {
		out[sub.Resource] = sub.ID
	}
	return out
}

// A reload applies what changed and touches nothing else: the same subscriptions, the same cursors, every event once.
func TestAReloadTouchesOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(_ *sim, o *emulator.Options) { o.NoLimits = true })
		s.emu.AddUser(support)
		s.wait(settle)
		s.deliver("before")
		s.wait(settle)
		subs, cursors, asked := s.live(), s.cursors(), s.emu.Requests()

		s.yaml += supportYAML
		s.must(s.d.Reload(t.Context()))
		s.deliver("during") // is announced while the new rooms start
		s.wait(settle)
		s.want("received before", "received during")
		now := s.live()
		for resource, id := range subs {
			if now[resource] != id {
				t.Errorf("subscription of %s was replaced", resource)
			}
		}
		if len(now) != len(subs)+1 {
			t.Errorf("there are %d subscriptions, want one more than %d", len(now), len(subs))
		}
		if made, renewed := s.emu.Requests()["subscription.create"]-asked["subscription.create"], s.emu.Requests()["subscription.renew"]-asked["subscription.renew"]; made != 1 || renewed != 0 {
			t.Errorf("%d subscriptions were made and %d renewed, want 1 and 0", made, renewed)
		}
		if _, err := s.emu.Deliver(support, emulator.Mail{Subject: "to support"}); err != nil {
			t.Fatal(err)
		}
		s.wait(settle)
		s.want("received before", "received during", "received to support")

		s.yaml = strings.TrimSuffix(s.yaml, supportYAML)
		s.must(s.d.Reload(t.Context()))
		s.wait(time.Minute)
		if now := s.live(); !maps.Equal(now, subs) {
			t.Errorf("after the watch was taken out there are %v, want %v", now, subs)
		}
		if got := s.cursors(); len(got) != len(cursors) {
			t.Errorf("there are %d feeds, want %d", len(got), len(cursors))
		}
		s.deliver("after")
		s.wait(settle)
		s.want("received before", "received during", "received to support", "received after")
		s.checkLaw()
	})
}

// A watch file that cannot be used is refused as a whole, and what ran goes on.
func TestAReloadThatIsRefusedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		subs, good := s.live(), s.yaml
		configuration := func() status.Configuration {
			var r status.Report
			s.d.reportConfiguration(s.d.now(), &r)
			return r.Configuration
		}
		loaded := configuration().LoadedAt
		for name, yaml := range map[string]string{
			"not YAML":                     "watches: [",
			"a name that nobody has":       strings.ReplaceAll(good, "connection: contoso", "connection: contosa"),
			"a user without a key to seal": strings.ReplaceAll(good, "auth: app, client_secret_file: %s", "auth: delegated"),
		} {
			s.yaml = yaml
			if err := s.d.Reload(t.Context()); err == nil {
				t.Errorf("%s is taken", name)
			}
			c := configuration()
			if c.Error == "" || c.RefusedAt.IsZero() || !c.LoadedAt.Equal(loaded) {
				t.Errorf("%s: the report says %+v", name, c)
			}
		}
		s.deliver("still here")
		s.wait(settle)
		s.want("received still here")
		if now := s.live(); !maps.Equal(now, subs) {
			t.Errorf("there are %v, want %v", now, subs)
		}
		s.yaml = good
		s.must(s.d.Reload(t.Context()))
		if c := configuration(); c.Error != "" || !c.LoadedAt.After(loaded) {
			t.Errorf("after a good one the report says %+v", c)
		}
		s.d.opts.Load = nil // the demo has none
		if err := s.d.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "without a watch file") {
			t.Errorf("without a file: %v", err)
		}
	})
}

// What Graph asked for stays in force across a reload: a mailbox that is to be left alone is.
func TestAReloadKeepsGraphsPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		s.emu.FailNext("delta", 1, emulator.Fault{Status: 429, RetryAfter: "300"})
		s.deliver("patience")
		s.wait(10 * time.Second)
		s.must(s.d.Reload(t.Context()))
		s.wait(time.Minute)
		if len(s.names()) != 0 {
			t.Fatal("the pause was not there, so that nothing is shown by this test")
		}
		s.wait(10 * time.Minute) // the emulator counts requests before the end of the pause as violations
		s.want("received patience")
	})
}

// Reloads while everything is busy lose and double nothing, and leave no room behind.
func TestReloadsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(_ *sim, o *emulator.Options) { o.NoLimits = true })
		s.wait(settle)
		var want []string
		for i := range 40 {
			s.deliver("mail")
			want = append(want, "received mail")
			if i%2 == 0 {
				s.must(s.d.Reload(t.Context()))
			}
			time.Sleep(time.Duration(i) * 50 * time.Millisecond)
		}
		s.wait(settle)
		if got := s.names(); !slices.Equal(got, want) {
			t.Errorf("%d events, want %d", len(got), len(want))
		}
		s.checkLaw()
		s.checkFolded()
		if n := s.d.store.Pending(); n != 0 {
			t.Errorf("%d notifications are not settled", n)
		}
	})
}

// Alive tells what stands still, and nothing else: it is what the watchdog is fed by.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		alive := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return s.d.Alive(ctx)
		}
		s.must(alive())
		s.emu.SetFaults(func(f *emulator.Faults) {
			f.Fail = func(string, *http.Request) *emulator.Fault { return &emulator.Fault{} }
		})
		s.wait(time.Hour)
		s.must(alive()) // Graph's troubles are none of ours
		release, held := make(chan struct{}), make(chan error, 1)
		go func() {
			held <- s.d.store.Update(func(*store.Tx) error { <-release; return nil }) // as a disk does that does not answer
		}()
		synctest.Wait()
		if err := alive(); err == nil || !strings.Contains(err.Error(), "the database does not get on") {
			t.Errorf("with a database that stands still: %v", err)
		}
		close(release)
		s.must(<-held)
		s.must(alive())
		s.must(s.d.Reload(t.Context()))
		s.must(alive())

		running := s.d.now()
		defer s.d.current.Store(running)
		still, err := s.d.generation(running.file) // its rooms do not run
		s.must(err)
		for want, one := range map[string]generation{
			"the scheduler of feeds does not get on":         {delta: still.delta, subscriptions: running.subscriptions, clock: running.clock},
			"the scheduler of subscriptions does not get on": {delta: running.delta, subscriptions: still.subscriptions, clock: running.clock},
			"the clock of meetings does not get on":          {delta: running.delta, subscriptions: running.subscriptions, clock: still.clock},
		} {
			one.file, one.connections, one.freshness = running.file, running.connections, running.freshness
			s.d.current.Store(&one)
			if err := alive(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("alive: %v, want that %s", err, want)
			}
		}
	})
}
