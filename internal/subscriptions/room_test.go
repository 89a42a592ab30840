package subscriptions

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// slowly looks less often, for tests of many days.
func slowly(o *Options) { o.Every = 30 * time.Second }

func TestCreatesWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 3, nil)
		var expected bool
		f.fault = func(op, _ string) (bool, error) {
			if op == "create" { // a notification may come before the answer
				f.mu.Lock()
				defer f.mu.Unlock()
				expected = true
			}
			return true, nil
		}
		h.push(1, false, "no subscription is wanted")
		h.once()
		if got := f.live(); len(got) != 3 || !expected {
			t.Fatalf("Graph has %v, want 3", got)
		}
		for feed := range uint32(3) {
			sub := h.living(feed + 1)
			if sub.StateHash != sha256.Sum256([]byte(f.subs[sub.ID].ClientState)) {
				t.Errorf("feed %d: the hash is not that of the client state", feed+1)
			}
			life := time.Until(sub.ExpiresAt)
			if life != MaxLifetime-time.Hour {
				t.Errorf("feed %d: granted %v, want the maximum less an hour", feed+1, life)
			}
			if wait := time.Until(sub.RenewAt); wait < life/2 || wait > life*2/3 {
				t.Errorf("feed %d: renewal after %v of %v", feed+1, wait, life)
			}
			h.push(feed+1, true, "")
		}
		if got := h.asked(); len(got) != 3 || got[0] != (ask{1, "subscription created"}) {
			t.Errorf("rounds asked for: %v, want one for each", got)
		}
		before := f.count("")
		h.once()
		if n := f.count("") - before; n != 0 {
			t.Errorf("%d requests although all is well", n)
		}
	})
}

func TestNotificationsAreExpectedWhileCreating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		spy := &spy{fakeGraph: f}
		h.opts.Graphs[conn] = spy
		h.reopen()
		spy.created = func(s graph.Subscription) {
			if feed, ok := h.st.Expected(sha256.Sum256([]byte(s.ClientState))); !ok || feed != 1 {
				t.Errorf("while the request is under way its client state leads to feed %d, %v", feed, ok)
			}
		}
		h.once()
		if spy.secret == "" {
			t.Fatal("nothing was created")
		}
		if _, ok := h.st.Expected(sha256.Sum256([]byte(spy.secret))); ok {
			t.Error("the client state is still expected although its record is stored")
		}
	})
}

// spy looks at a creation while it is under way.
type spy struct {
	*fakeGraph
	created func(graph.Subscription)
	secret  string
}

func (s *spy) CreateSubscription(ctx context.Context, mailbox string, sub graph.Subscription) (graph.Subscription, error) {
	s.secret = sub.ClientState
	s.created(sub)
	return s.fakeGraph.CreateSubscription(ctx, mailbox, sub)
}

func TestRenewsByWhatWasGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.grant = 50 * time.Minute // far less than asked, in silence (S-9)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		first := h.living(1)
		if got := time.Until(first.ExpiresAt); got != 50*time.Minute {
			t.Fatalf("expires in %v, want what was granted", got)
		}
		for range 100 {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if got := h.living(1); got.ID != first.ID {
				t.Fatalf("after %v another subscription: %s", time.Since(first.CreatedAt), got.ID)
			}
		}
		if n := f.count("renew"); n < 1000/33-2 || n > 1000/25+1 {
			t.Errorf("%d renewals in 1000 minutes of 50-minute leases, want one every 25 to 33", n)
		}
	})
}

func TestLifetimeRaisedByGraphIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, func(o *Options) { o.Lifetime = func(string) time.Duration { return time.Minute } })
		raise := &raiser{f}
		h.opts.Graphs[conn] = raise
		h.reopen()
		h.once()
		sub := h.living(1)
		if got := time.Until(sub.ExpiresAt); got != minLifetime {
			t.Errorf("expires in %v, want the 45 minutes that were granted", got)
		}
		if got := time.Until(sub.RenewAt); got < 22*time.Minute {
			t.Errorf("renewal in %v, which follows the wish and not the grant", got)
		}
	})
}

// raiser raises short lifetimes as Graph does (S-6).
type raiser struct{ *fakeGraph }

func (r *raiser) CreateSubscription(ctx context.Context, mailbox string, s graph.Subscription) (graph.Subscription, error) {
	s.ExpiresAt = time.Now().Add(minLifetime)
	return r.fakeGraph.CreateSubscription(ctx, mailbox, s)
}

func TestLearnsTheLongestLifetime(t *testing.T) {
	for _, tt := range []struct {
		name      string
		max, want time.Duration
	}{
		{"the older maximum", 4230 * time.Minute, olderMaxLifetime},
		{"half of it", 3000 * time.Minute, olderMaxLifetime / 2},
		{"the least", 50 * time.Minute, minLifetime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.max = tt.max
				h := newHouse(t, f, 2, nil)
				h.once()
				for feed := range uint32(2) {
					if got := time.Until(h.living(feed + 1).ExpiresAt); got > tt.max || got < tt.want*2/3 {
						t.Errorf("granted %v, want about %v", got, tt.want)
					}
				}
				before := f.count("")
				h.setWants(append(h.wanted(), want(3))...)
				h.once()
				if n := f.count("") - before; n != 1 {
					t.Errorf("%d requests for a third one, want 1: what was learned is remembered", n)
				}
			})
		})
	}
}

func TestNoLifetimeIsGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.max = time.Minute
		h := newHouse(t, f, 1, nil)
		h.once()
		h.push(1, false, "no subscription: 400 Bad Request (ExtensionError): Graph grants no lifetime")
		before := f.count("")
		h.once()
		if n := f.count("") - before; n != 0 {
			t.Errorf("%d requests at once after a refusal", n)
		}
	})
}

func TestRecreatesWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, slowly)
		defer h.run()()
		synctest.Wait()
		first := h.living(1)
		h.asked()
		f.drop(first.ID)
		time.Sleep(time.Until(first.RenewAt) + 31*time.Second)
		synctest.Wait()
		second := h.living(1)
		if second.ID == first.ID {
			t.Fatal("still the one that is gone")
		}
		old, ok := h.st.Subscription(first.ID)
		if !ok || old.RemovedAt.IsZero() {
			t.Error("the old one is not remembered as removed")
		}
		if got := h.asked(); len(got) != 1 || got[0].feed != 1 {
			t.Errorf("rounds asked for: %v, want one after the creation", got)
		}
		time.Sleep(31 * 24 * time.Hour)
		synctest.Wait()
		if _, ok := h.st.Subscription(first.ID); ok {
			t.Error("the old one is remembered for ever")
		}
	})
}

func TestRenewalFailsAndHeals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault *graph.Error
		apply bool
	}{
		{"throttled", throttled, false},
		{"unavailable before", &graph.Error{Op: "renew subscription", Status: 503}, false},
		{"answer lost", &graph.Error{Op: "renew subscription", Err: errors.New("connection reset")}, true},
		{"forbidden", forbidden, false},
		{"unauthorized", &graph.Error{Op: "renew subscription", Status: 401}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				h := newHouse(t, f, 1, slowly)
				defer h.run()()
				synctest.Wait()
				first := h.living(1)
				f.setFault(func(op, _ string) (bool, error) {
					if op == "renew" {
						return tt.apply, tt.fault
					}
					return true, nil
				})
				time.Sleep(time.Until(first.RenewAt) + 10*time.Hour)
				synctest.Wait()
				sub := h.living(1)
				if sub.ID != first.ID || sub.Failures < 3 || sub.LastError == "" {
					t.Fatalf("after 10 hours of failures: %d failures, last %q, same one: %v", sub.Failures, sub.LastError, sub.ID == first.ID)
				}
				h.push(1, true, "") // it lives
				f.setFault(nil)
				time.Sleep(time.Hour)
				synctest.Wait()
				sub = h.living(1)
				if sub.ID != first.ID || sub.Failures != 0 || sub.LastError != "" || time.Until(sub.ExpiresAt) < 6*24*time.Hour {
					t.Errorf("an hour after it healed: %d failures, %v left", sub.Failures, time.Until(sub.ExpiresAt))
				}
			})
		})
	}
}

func TestRenewalFailsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, slowly)
		defer h.run()()
		synctest.Wait()
		first := h.living(1)
		f.setFault(func(op, _ string) (bool, error) { return op != "renew", cmpErr(op == "renew", throttled) })
		time.Sleep(time.Until(first.ExpiresAt) - time.Minute)
		synctest.Wait()
		emergency := 0
		for _, c := range f.made() {
			if c.op == "renew" && first.ExpiresAt.Sub(c.at) < 10*time.Hour {
				emergency++
			}
		}
		if emergency < 250 || emergency > 340 {
			t.Errorf("%d attempts in the last ten hours, want about one every two minutes", emergency)
		}
		time.Sleep(time.Minute + 31*time.Second)
		synctest.Wait()
		if got := h.living(1); got.ID == first.ID {
			t.Error("expired, and not replaced")
		}
	})
}

func cmpErr(fails bool, err error) error {
	if fails {
		return err
	}
	return nil
}

func TestRefusedCreations(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  error
		reason string
		most   int // attempts in a day
	}{
		{"forbidden", forbidden, "no subscription: 403 Forbidden (ExtensionError): permission Mail.Read or Calendars.Read is missing", 60},
		{"no mailbox", noMailbox, "no subscription: 404 Not Found (MailboxNotEnabledForRESTAPI): Graph does not serve this mailbox", 60},
		{"no folder", &graph.Error{Op: "create subscription", Status: 404, Code: "ErrorItemNotFound"}, "404 Not Found (ErrorItemNotFound): Graph knows no such", 60},
		{"conflict with a stranger's", &graph.Error{Op: "create subscription", Status: 409, Code: "Conflict"}, "409 Conflict (Conflict): a subscription of this app exists", 60},
		{"url not validated", badURL, "400 Bad Request (ValidationError): Graph did not get the answer it wanted", 130},
		{"unparsable", &graph.Error{Op: "create subscription", Status: 400, Code: "BadRequest"}, "400 Bad Request (BadRequest): Graph does not take", 130},
		{"no token", &graph.Error{Op: "create subscription", Err: graph.ErrUnauthorized}, "no token", 130},
		{"gateway", gateway, "504 Gateway Timeout: Graph is not available", 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				h := newHouse(t, f, 2, nil)
				f.fault = func(op, id string) (bool, error) { return op != "create", cmpErr(op == "create", tt.fault) }
				stop := h.run()
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				h.push(1, false, tt.reason)
				if n := f.count("create") / 2; n < 20 || n > tt.most {
					t.Errorf("%d attempts in a day, want 20 to %d", n, tt.most)
				}
				if n := f.count("list"); n > f.count("create")+2 {
					t.Errorf("%d lists for %d creations", n, f.count("create"))
				}
				f.setFault(nil)
				time.Sleep(time.Hour + 6*time.Second)
				synctest.Wait()
				h.push(1, true, "")
				h.push(2, true, "")
				stop()
			})
		})
	}
}

func TestLostAnswerOfACreationLeavesNoOrphan(t *testing.T) {
	for _, strict := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.strict = strict
			h := newHouse(t, f, 1, nil)
			lost := 0
			f.fault = func(op, _ string) (bool, error) {
				if op == "create" && lost < 3 {
					lost++
					return true, gateway
				}
				return true, nil
			}
			defer h.run()()
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := f.live(); len(got) != 1 || got[0] != h.living(1).ID {
				t.Errorf("strict %v: Graph has %v, the store %s", strict, got, h.living(1).ID)
			}
			if lost != 3 {
				t.Errorf("%d answers lost", lost)
			}
		})
	}
}

func TestCrashBetweenCreationAndCommitLeavesNoOrphan(t *testing.T) {
	for _, strict := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.strict = strict
			h := newHouse(t, f, 3, nil)
			dying := &dyingStore{Store: h.st}
			f.fault = func(op, _ string) (bool, error) {
				switch {
				case op == "create":
					dying.dead.Store(true)
				case dying.dead.Load():
					return false, gateway // nobody is there any more to clean up
				}
				return true, nil
			}
			room := New(dying, h.opts)
			if err := room.RunOnce(t.Context()); !errors.Is(err, store.ErrClosed) {
				t.Fatalf("RunOnce = %v, want that the store is closed", err)
			}
			if len(f.live()) == 0 || len(h.st.Subscriptions()) != 0 {
				t.Fatalf("Graph has %d, the store %d: no orphan to find", len(f.live()), len(h.st.Subscriptions()))
			}
			f.setFault(nil)
			h.asked()
			h.reopen()
			h.once()
			for feed := range uint32(3) {
				h.living(feed + 1)
			}
			if got := f.live(); len(got) != 3 {
				t.Errorf("strict %v: Graph has %v, want one for each feed", strict, got)
			}
			if got := len(h.asked()) + len(h.trueUps); got != 3 {
				t.Errorf("%d rounds asked for, want one for each", got)
			}
		})
	}
}

// dyingStore is a store whose process ends at a moment.
type dyingStore struct {
	Store
	dead atomic.Bool
}

func (d *dyingStore) Update(fn func(*store.Tx) error) error {
	if d.dead.Load() {
		return store.ErrClosed
	}
	return d.Store.Update(fn)
}

func TestStoreFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.strict = false
		h := newHouse(t, f, 1, nil)
		sick := &sickStore{Store: h.st}
		h.room = New(sick, h.opts)
		sick.err = errStore
		if err := h.room.RunOnce(t.Context()); !errors.Is(err, errStore) {
			t.Fatalf("RunOnce = %v, want the store's error", err)
		}
		if got := f.live(); len(got) != 0 {
			t.Errorf("Graph has %v that nothing is known of", got)
		}
		before := f.count("")
		h.room.RunOnce(t.Context())
		if n := f.count("") - before; n > 1 {
			t.Errorf("%d requests at once although nothing can be stored", n)
		}
		sick.err = nil
		time.Sleep(time.Minute)
		h.once()
		time.Sleep(time.Minute)
		h.once()
		if got := f.live(); len(got) != 1 || got[0] != h.living(1).ID {
			t.Errorf("Graph has %v, want the stored one", got)
		}
	})
}

// sickStore is a store that refuses for a while.
type sickStore struct {
	Store
	err error
}

func (s *sickStore) Update(fn func(*store.Tx) error) error {
	if s.err != nil {
		return s.err
	}
	return s.Store.Update(fn)
}

func TestUnwantedFeedsAreUnsubscribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 3, nil)
		defer h.run()()
		synctest.Wait()
		gone := h.living(2)
		h.setWants(want(1), want(3))
		h.room.Wake()
		synctest.Wait()
		if !slices.Contains(f.live(), gone.ID) {
			t.Error("deleted at once: a reload that is not complete yet would cost a subscription")
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := f.live(); len(got) != 2 || slices.Contains(got, gone.ID) {
			t.Errorf("Graph has %v after 30 s", got)
		}
		rec, ok := h.st.Subscription(gone.ID)
		if !ok || rec.RemovedAt.IsZero() {
			t.Error("the record is not kept as removed")
		}
		h.push(2, false, "no subscription is wanted")
		h.asked()
		h.setWants(want(1), want(2), want(3))
		h.room.Wake()
		synctest.Wait()
		if h.living(2).ID == gone.ID || len(h.asked()) != 1 {
			t.Error("wanted again, and no new one with a round")
		}
	})
}

func TestUnwantedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		h.setWants()
		time.Sleep(11 * time.Second)
		h.setWants(want(1))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := f.count("delete"); n != 0 {
			t.Errorf("%d deletions", n)
		}
	})
}

func TestWithoutPublicURLOnlyRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 2, nil)
		h.once()
		h.opts.PublicURL = ""
		h.reopen()
		before := f.count("")
		h.once()
		if got := f.live(); len(got) != 0 {
			t.Errorf("Graph still has %v", got)
		}
		if n := f.count("") - before; n != 2 {
			t.Errorf("%d requests, want two deletions", n)
		}
		h.push(1, false, "no public URL")
		if ok, reason, _ := h.room.Public(); ok || reason == "" {
			t.Errorf("Public() = %v, %q", ok, reason)
		}
	})
}

func TestConnectionNotConfiguredAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		h.opts.Graphs = map[string]Graph{"other": newFake(t)}
		h.reopen()
		h.once()
		time.Sleep(time.Minute)
		h.once()
		for _, sub := range h.st.Subscriptions() {
			if sub.RemovedAt.IsZero() {
				t.Error("the record stays as if it lived")
			}
		}
		h.push(1, false, "no subscription is wanted")
	})
}

func TestDeletionFailsAndIsTriedAgain(t *testing.T) {
	for _, apply := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			h := newHouse(t, f, 1, nil)
			defer h.run()()
			synctest.Wait()
			fails := 3
			f.setFault(func(op, _ string) (bool, error) {
				if op == "delete" && fails > 0 {
					fails--
					return apply, gateway
				}
				return true, nil
			})
			h.setWants()
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := f.live(); len(got) != 0 || fails > 0 {
				t.Errorf("applied %v: Graph has %v, %d failures left", apply, got, fails)
			}
		})
	}
}

func TestReplacesASilentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.room.Replace(1, "too early: nobody knows the feed")
		defer h.run()()
		time.Sleep(time.Minute)
		synctest.Wait()
		first := h.living(1)
		h.asked()
		for range 10 {
			h.room.Replace(1, "push is silent")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		second := h.living(1)
		if second.ID == first.ID || f.count("create") != 2 || f.count("delete") != 1 {
			t.Errorf("ten complaints in ten minutes: %d creations, %d deletions, want one new one", f.count("create")-1, f.count("delete"))
		}
		if got := h.asked(); len(got) != 1 {
			t.Errorf("rounds asked for: %v", got)
		}
		time.Sleep(6 * time.Minute)
		h.room.Replace(1, "push is silent")
		synctest.Wait()
		if h.living(1).ID == second.ID {
			t.Error("after 15 minutes a complaint is heard again")
		}
		h.room.Replace(99, "no such feed")
	})
}

func TestSuspendedForEightDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 20, nil)
		h.once()
		time.Sleep(8 * 24 * time.Hour) // nothing runs
		h.asked()
		before := f.count("")
		start := time.Now()
		stop := h.run()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		stop()
		if n := f.count("") - before; n > 21 {
			t.Errorf("%d requests after waking, want a list and one for each mailbox", n)
		}
		for feed := range uint32(20) {
			if sub := h.living(feed + 1); sub.CreatedAt.Sub(start) > 6*time.Second {
				t.Errorf("feed %d came back after %v", feed+1, sub.CreatedAt.Sub(start))
			}
		}
		if got := h.asked(); len(got) != 20 {
			t.Errorf("%d rounds asked for, want 20", len(got))
		}
	})
}

func TestLongGapAsksForATrueUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		h.asked()
		time.Sleep(15 * 24 * time.Hour)
		h.once()
		if len(h.trueUps) != 1 || len(h.asked()) != 0 {
			t.Errorf("after 8 days without push: true-ups %v", h.trueUps)
		}
	})
}

func TestOneSlowMailboxStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 30, nil)
		other := newFake(t)
		slow := newFake(t)
		slow.delay = 40 * time.Second
		h.opts.Graphs = map[string]Graph{conn: slow, "quick": other}
		for i := range h.wants {
			if i%2 == 0 {
				h.wants[i].Connection = "quick"
			}
		}
		h.reopen()
		stop := h.run()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := len(other.live()); n != 15 {
			t.Errorf("%d subscriptions of the quick connection after 15 s, want 15", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := len(slow.live()); n != 15 {
			t.Errorf("%d subscriptions of the slow connection after 5 minutes, want 15", n)
		}
		stop()
	})
}

func TestGraphThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.delay = 1000 * time.Hour
		h := newHouse(t, f, 1, nil)
		stop := h.run()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		h.push(1, false, "no subscription")
		f.mu.Lock()
		f.delay = 0
		f.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := f.live(); len(got) != 1 || got[0] != h.living(1).ID {
			t.Errorf("Graph has %v", got)
		}
		f.mu.Lock()
		f.delay = 1000 * time.Hour
		f.mu.Unlock()
		h.room.Replace(1, "silent")
		synctest.Wait()
		stop() // in the middle of a request
	})
}

func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		sub := h.living(1)
		// What was stored while the clock ran a day ahead.
		sub.CreatedAt, sub.AuthorizedAt = sub.CreatedAt.Add(24*time.Hour), sub.AuthorizedAt.Add(24*time.Hour)
		sub.TouchedAt, sub.RenewAt = sub.CreatedAt, sub.RenewAt.Add(24*time.Hour)
		if err := h.st.Update(func(tx *store.Tx) error { return tx.PutSubscription(&sub) }); err != nil {
			t.Fatal(err)
		}
		h.reopen()
		before := f.count("")
		defer h.run()()
		time.Sleep(6 * 24 * time.Hour)
		synctest.Wait()
		if got := h.living(1); got.ID != sub.ID || time.Until(got.ExpiresAt) < 24*time.Hour {
			t.Errorf("%v left after six days", time.Until(got.ExpiresAt))
		}
		if n := f.count("") - before; n > 10 {
			t.Errorf("%d requests in six days", n)
		}
	})
}

func TestGrantInThePastIsNoBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.opts.Graphs[conn] = &pastGraph{f}
		h.reopen()
		stop := h.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		if n := f.count(""); n > 3600/10+10 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

// pastGraph grants until a time that is past by our clock.
type pastGraph struct{ *fakeGraph }

func (p *pastGraph) CreateSubscription(ctx context.Context, mailbox string, s graph.Subscription) (graph.Subscription, error) {
	out, err := p.fakeGraph.CreateSubscription(ctx, mailbox, s)
	out.ExpiresAt = time.Now().Add(-time.Hour)
	p.drop(out.ID)
	return out, err
}

func TestRunEndsOnlyWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		stop := h.run()
		h.url.breakIt(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		time.Sleep(time.Hour)
		stop()
		if err := h.room.RunOnce(t.Context()); err != nil { // and it can go on
			t.Error(err)
		}
	})
}
