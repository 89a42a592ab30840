package subscriptions

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

func TestReauthorizationIsOneRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		time.Sleep(time.Hour)
		synctest.Wait()
		h.asked()
		sub := h.living(1)
		for range 3 { // it may be repeated (L-17)
			h.lifecycle(sub.ID, "reauthorizationRequired")
		}
		synctest.Wait()
		if n := f.count("renew"); n != 1 {
			t.Fatalf("%d renewals, want one", n)
		}
		if got := h.asked(); len(got) != 1 || got[0] != (ask{1, "reauthorized"}) {
			t.Errorf("rounds asked for: %v", got)
		}
		if n := h.openLifecycles(); n != 0 {
			t.Errorf("%d notifications left", n)
		}
		renewed := h.living(1)
		if renewed.ID != sub.ID || !renewed.AuthorizedAt.After(sub.AuthorizedAt) || !renewed.ExpiresAt.After(sub.ExpiresAt) {
			t.Errorf("not renewed: %+v", renewed)
		}
		time.Sleep(time.Minute)
		h.lifecycle(sub.ID, "ReauthorizationRequired") // within ten minutes
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		if n := f.count("renew"); n != 1 {
			t.Errorf("%d renewals within ten minutes", n)
		}
		if n := h.openLifecycles(); n != 1 {
			t.Error("the notification was forgotten before it was answered")
		}
		h.push(1, true, "")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := f.count("renew"); n != 2 || h.openLifecycles() != 0 {
			t.Errorf("after ten minutes: %d renewals, %d notifications left", n, h.openLifecycles())
		}
	})
}

func TestReauthorizationDuringARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		sub := h.living(1)
		f.mu.Lock()
		f.delay = 20 * time.Second
		f.mu.Unlock()
		time.Sleep(time.Until(sub.RenewAt) + 10*time.Second)
		if f.count("renew") != 1 {
			t.Fatal("no renewal is under way")
		}
		h.lifecycle(sub.ID, "reauthorizationRequired")
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if n := f.count("renew"); n != 1 {
			t.Errorf("%d renewals within ten minutes", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := f.count("renew"); n != 2 || h.openLifecycles() != 0 {
			t.Errorf("%d renewals, %d notifications left", n, h.openLifecycles())
		}
	})
}

func TestReauthorizationSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		sub := h.living(1)
		time.Sleep(time.Hour)
		h.lifecycle(sub.ID, "reauthorizationRequired")
		f.setFault(func(op, _ string) (bool, error) { return op != "renew", cmpErr(op == "renew", forbidden) })
		h.once()
		h.push(1, false, "reauthorization is required, and fails: 403 Forbidden")
		h.reopen()
		f.setFault(nil)
		h.asked()
		time.Sleep(time.Hour)
		h.once()
		if n := f.count("renew"); n != 2 || h.openLifecycles() != 0 {
			t.Errorf("%d renewals, %d notifications left", n, h.openLifecycles())
		}
		if got := h.asked(); len(got) != 1 || got[0].reason != "reauthorized" {
			t.Errorf("rounds asked for: %v", got)
		}
	})
}

func TestRemovedByGraph(t *testing.T) {
	for _, fault := range []error{nil, forbidden} { // a removed one may also answer that access was revoked (L-13)
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			h := newHouse(t, f, 1, nil)
			defer h.run()()
			synctest.Wait()
			sub := h.living(1)
			h.asked()
			f.drop(sub.ID)
			f.setFault(func(op, _ string) (bool, error) { return true, cmpErr(op == "renew" && fault != nil, fault) })
			h.lifecycle(sub.ID, "subscriptionRemoved")
			h.lifecycle(sub.ID, "subscriptionRemoved")
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := h.living(1); got.ID == sub.ID {
				t.Fatal("not replaced within a minute")
			}
			if n := f.count("create"); n != 2 {
				t.Errorf("%d creations", n)
			}
			if got := h.asked(); len(got) != 1 || got[0].reason != "subscription created" {
				t.Errorf("rounds asked for: %v, want one after the creation (L-12)", got)
			}
			if n := h.openLifecycles(); n != 0 {
				t.Errorf("%d notifications left", n)
			}
		})
	}
}

func TestRemovedByGraphAndCreationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		sub := h.living(1)
		f.drop(sub.ID)
		f.setFault(func(op, _ string) (bool, error) { return op == "list", cmpErr(op != "list", &throttledFor) })
		h.lifecycle(sub.ID, "subscriptionRemoved")
		synctest.Wait()
		h.push(1, false, "Graph says that it removed the subscription")
		f.setFault(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := h.living(1); got.ID == sub.ID {
			t.Error("not replaced")
		}
	})
}

var throttledFor = *throttled

func TestMissed(t *testing.T) {
	for _, event := range []string{"missed", "Missed", "somethingGraphMayComeToSay"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			h := newHouse(t, f, 2, nil)
			defer h.run()()
			time.Sleep(time.Hour)
			synctest.Wait()
			h.asked()
			before := f.count("")
			for range 25 { // every other second
				h.lifecycle(h.living(2).ID, event)
				time.Sleep(2 * time.Second)
				synctest.Wait()
			}
			if got := h.asked(); len(got) != 1 || got[0].feed != 2 {
				t.Errorf("%s: rounds asked for in a minute: %v, want one", event, got)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := h.asked(); len(got) != 1 || h.openLifecycles() != 0 {
				t.Errorf("%s: for those that came later: %v, %d left; want one round more", event, got, h.openLifecycles())
			}
			if n := f.count("") - before; n != 0 {
				t.Errorf("%s: %d requests about subscriptions", event, n)
			}
		})
	}
}

func TestLifecycleOfAFormerSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		old := h.living(1)
		time.Sleep(time.Minute)
		h.room.Replace(1, "silent")
		synctest.Wait()
		h.asked()
		time.Sleep(time.Minute)
		for _, event := range []string{"reauthorizationRequired", "subscriptionRemoved"} {
			h.lifecycle(old.ID, event)
		}
		synctest.Wait()
		if got := h.asked(); len(got) != 0 || h.openLifecycles() != 0 {
			t.Errorf("rounds %v, %d left; want none", got, h.openLifecycles())
		}
		before := f.count("")
		h.lifecycle(old.ID, "missed") // its id leads to the feed still (L-14)
		h.lifecycle("never-heard-of", "missed")
		synctest.Wait()
		if got := h.asked(); len(got) != 1 || got[0].feed != 1 || h.openLifecycles() != 0 {
			t.Errorf("rounds %v, %d left; want one", got, h.openLifecycles())
		}
		if n := f.count("") - before; n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// Whoever knows a clientState may send what he likes.
func TestForgedLifecycleNotifications(t *testing.T) {
	for _, event := range []string{"reauthorizationRequired", "subscriptionRemoved", "missed", "nonsense"} {
		t.Run(event, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				h := newHouse(t, f, 1, nil)
				defer h.run()()
				synctest.Wait()
				first := h.living(1)
				begun := len(f.made())
				h.asked()
				for range 1200 { // twenty minutes
					h.lifecycle(first.ID, event)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if got := h.living(1); got.ID != first.ID {
					t.Error("the living subscription was given up")
				}
				calls := f.made()[begun:]
				for i, c := range calls[min(len(calls), 1):] {
					if d := c.at.Sub(calls[i].at); d < time.Minute {
						t.Errorf("%s %v after %s", c.op, d, calls[i].op)
					}
				}
				if n := len(h.asked()); n > 21 {
					t.Errorf("%d rounds in twenty minutes", n)
				}
			})
		})
	}
}

// Graph may have stored the consequences when the process ended: nothing is done twice, nothing is forgotten.
func TestLifecycleIsDoneOnlyWhenItsConsequenceIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		time.Sleep(time.Hour)
		sub := h.living(1)
		h.lifecycle(sub.ID, "reauthorizationRequired")
		dying := &dyingStore{Store: h.st}
		f.setFault(func(op, _ string) (bool, error) {
			dying.dead.Store(op == "renew") // between the request and its record
			return true, nil
		})
		if err := New(dying, h.opts).RunOnce(t.Context()); err == nil {
			t.Fatal("the store has not failed")
		}
		if f.count("renew") != 1 || h.openLifecycles() != 1 {
			t.Fatalf("%d renewals, %d notifications; want one of each", f.count("renew"), h.openLifecycles())
		}
		f.setFault(nil)
		h.reopen()
		h.once()
		if f.count("renew") != 1 {
			t.Error("touched again within ten minutes")
		}
		time.Sleep(10 * time.Minute)
		h.once()
		if f.count("renew") != 2 || h.openLifecycles() != 0 {
			t.Errorf("%d renewals, %d notifications", f.count("renew"), h.openLifecycles())
		}
	})
}

func TestLifecycleWhileStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		h.asked()
		sick := &sickStore{Store: h.st}
		room := New(sick, h.opts)
		h.lifecycle(h.living(1).ID, "missed")
		sick.err = errStore
		if err := room.RunOnce(t.Context()); err == nil {
			t.Error("the store's error is hidden")
		}
		if len(h.asked()) != 1 || h.openLifecycles() != 1 {
			t.Error("asked for, and still there: that is what is wanted")
		}
		sick.err = nil
		time.Sleep(time.Minute)
		if err := room.RunOnce(t.Context()); err != nil {
			t.Error(err)
		}
		if h.openLifecycles() != 0 {
			t.Error("never forgotten")
		}
	})
}

func TestConsequence(t *testing.T) {
	at := t0.Add(time.Hour)
	removed := week(func(s *store.Subscription) { s.RemovedAt = t0 })
	answered := week(func(s *store.Subscription) { s.AuthorizedAt = at.Add(1) })
	tests := []struct {
		name    string
		sub     *store.Subscription
		event   string
		settled bool
		round   bool
	}{
		{"reauthorization open", week(nil), reauthorizationRequired, false, true},
		{"reauthorization answered", answered, reauthorizationRequired, true, true},
		{"reauthorization of a removed one", removed, reauthorizationRequired, true, false},
		{"removal not checked", week(nil), subscriptionRemoved, false, true},
		{"removal disproved", answered, subscriptionRemoved, true, true},
		{"removal confirmed", removed, subscriptionRemoved, true, false},
		{"missed", week(nil), missed, true, true},
		{"missed by a removed one", removed, missed, true, true},
		{"unknown", week(nil), "x", true, true},
		{"empty", week(nil), "", true, true},
	}
	for _, tt := range tests {
		settled, reason := consequence(tt.sub, store.Lifecycle{Event: tt.event, At: at})
		if settled != tt.settled || (reason != "") != tt.round {
			t.Errorf("%s: settled %v, reason %q; want %v, a reason: %v", tt.name, settled, reason, tt.settled, tt.round)
		}
	}
}
