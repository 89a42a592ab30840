package subscriptions

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// plant puts a subscription of our URL into Graph that nothing is known of.
func (f *fakeGraph) plant(id string, w Want, change func(*graph.Subscription)) {
	s := graph.Subscription{
		ID: id, Resource: w.Resource, ChangeType: "created,updated,deleted", NotificationURL: hook + "/graph/notifications",
		LifecycleURL: hook + "/graph/lifecycle", ExpiresAt: time.Now().Add(24 * time.Hour),
	}
	if change != nil {
		change(&s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[id] = s
}

func TestStartAdoptsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 2, nil)
		h.once()
		first, second := h.living(1), h.living(2)
		f.mu.Lock() // as Graph spells it, and shorter than we think
		s := f.subs[second.ID]
		s.Resource, s.ChangeType = "/Users/M2@x.test/mailfolders/AAMkA=/Messages", "deleted,created,updated"
		s.ExpiresAt = time.Now().Add(time.Hour)
		f.subs[second.ID] = s
		f.mu.Unlock()
		h.reopen()
		h.asked()
		before := f.count("")
		h.once()
		if n := f.count("") - before; n != 1 {
			t.Errorf("%d requests, want one list", n)
		}
		if h.living(1).ID != first.ID {
			t.Error("the first record has changed")
		}
		got := h.living(2)
		if got.ID != second.ID || time.Until(got.ExpiresAt) != time.Hour || time.Until(got.RenewAt) > 40*time.Minute {
			t.Errorf("Graph's expiry not taken: expires in %v, renewal in %v", time.Until(got.ExpiresAt), time.Until(got.RenewAt))
		}
	})
}

func TestStartDeletesStrangersOfOurURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		f.plant("orphan", want(1), nil)
		f.plant("double", want(1), func(s *graph.Subscription) { s.Resource = "/" + s.Resource })
		f.plant("unwanted", want(7), nil)
		f.plant("foreign", want(1), func(s *graph.Subscription) {
			s.Resource, s.NotificationURL = "users/other/messages", "https://else.test/graph/notifications"
		})
		h.once()
		got := f.live()
		if len(got) != 2 || !slices.Contains(got, "foreign") || !slices.Contains(got, h.living(1).ID) {
			t.Errorf("Graph has %v, want a new one and the foreign one", got)
		}
		if len(h.trueUps) != 1 {
			t.Errorf("true-ups %v: a subscription that nothing is known of means lost state", h.trueUps)
		}
	})
}

func TestStartReplacesWhatIsNotAsItShouldBe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Options)
	}{
		{"public URL", func(o *Options) { o.PublicURL = hook + ":8443" }},
		{"change types", func(o *Options) { o.ChangeTypes = "created,updated" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				h := newHouse(t, f, 1, nil)
				h.once()
				first := h.living(1)
				h.asked()
				g := &urlBlind{f}
				h.opts.Graphs[conn] = g
				tt.change(&h.opts)
				h.reopen()
				h.once()
				got := h.living(1)
				if got.ID == first.ID || !slices.Equal(f.live(), []string{got.ID}) {
					t.Errorf("Graph has %v, the store %s", f.live(), got.ID)
				}
				if len(h.asked()) != 1 {
					t.Error("no round after the creation")
				}
			})
		})
	}
}

// urlBlind does not mind which URLs are used.
type urlBlind struct{ *fakeGraph }

func (u *urlBlind) CreateSubscription(ctx context.Context, mailbox string, s graph.Subscription) (graph.Subscription, error) {
	s.LifecycleURL = hook + "/graph/lifecycle"
	return u.fakeGraph.CreateSubscription(ctx, mailbox, s)
}

func TestStartAsksForWhatIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 2, nil)
		h.once()
		time.Sleep(time.Hour)
		gone := h.living(1)
		f.drop(gone.ID)
		h.reopen()
		h.asked()
		h.once()
		if h.living(1).ID == gone.ID {
			t.Error("not replaced")
		}
		if got := h.asked(); len(got) != 1 || got[0].feed != 1 {
			t.Errorf("rounds %v", got)
		}
	})
}

func TestListThatLagsBehindMakesNoSecondOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.strict = false
		h := newHouse(t, f, 1, nil)
		h.once()
		first := h.living(1)
		h.opts.Graphs[conn] = &emptyList{f}
		h.reopen()
		h.once() // a moment after the creation
		time.Sleep(time.Hour)
		h.reopen()
		h.once() // later: the renewal tells that it is there
		if got := h.living(1); got.ID != first.ID || f.count("create") != 1 {
			t.Errorf("%d creations", f.count("create"))
		}
	})
}

// emptyList lists nothing.
type emptyList struct{ *fakeGraph }

func (e *emptyList) ListSubscriptions(context.Context) ([]graph.Subscription, error) { return nil, nil }

func TestListFailsAtTheStart(t *testing.T) {
	for _, fault := range []*graph.Error{gateway, forbidden, throttled} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			h := newHouse(t, f, 1, nil)
			h.once()
			first := h.living(1)
			f.plant("orphan", want(9), nil)
			h.setWants(want(1), want(2))
			f.setFault(func(op, _ string) (bool, error) { return op != "list", cmpErr(op == "list", fault) })
			h.reopen()
			defer h.run()()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if h.living(1).ID != first.ID {
				t.Error("what the store knows is not gone on with")
			}
			h.living(2) // made although no list was seen
			f.setFault(nil)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if got := f.live(); len(got) != 2 || slices.Contains(got, "orphan") {
				t.Errorf("after a list: Graph has %v", got)
			}
		})
	}
}

func TestConflictIsResolvedByAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		synctest.Wait()
		time.Sleep(time.Hour)
		sub := h.living(1)
		sub.RemovedAt = time.Now().Round(0).UTC() // a removal that Graph takes back
		if err := h.st.Update(func(tx *store.Tx) error { return tx.PutSubscription(&sub) }); err != nil {
			t.Fatal(err)
		}
		h.asked()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := h.living(1); got.ID != sub.ID {
			t.Errorf("%s lives, want the known one", got.ID)
		}
		if got := h.asked(); len(got) != 1 || got[0].reason != "subscription adopted" {
			t.Errorf("rounds %v", got)
		}
		h.push(1, true, "")
	})
}

func TestConflictIsResolvedByReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 0, nil)
		h.once() // the start's list is done
		f.plant("unknown", want(1), func(s *graph.Subscription) { s.Resource = "Users/" + s.Resource[len("users/"):] })
		h.setWants(want(1))
		h.once()
		got := h.living(1)
		if got.ID == "unknown" || !slices.Equal(f.live(), []string{got.ID}) {
			t.Errorf("Graph has %v, the store %s", f.live(), got.ID)
		}
		if n := f.count("create"); n != 2 {
			t.Errorf("%d creations, want the refused one and another", n)
		}
	})
}

func TestConflictThatStaysIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 0, nil)
		h.once()
		h.setWants(want(1))
		n := 0
		f.setFault(func(op, _ string) (bool, error) { // deleted each time, and there again
			if op == "create" {
				n++
				f.plant("ghost", want(1), nil)
			}
			return true, nil
		})
		stop := h.run()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		stop()
		if n < 10 || n > 80 || // waits of half an hour on average, at random: 52 with a deviation of 4, so that 60 was passed now and then
			f.count("list") > n+3 || f.count("delete") > n+1 {
			t.Errorf("in a day: %d creations, %d lists, %d deletions", n, f.count("list"), f.count("delete"))
		}
		h.push(1, false, "409 Conflict")
	})
}

func TestSuperfluousOneThatCannotBeDeleted(t *testing.T) {
	for _, fault := range []*graph.Error{gateway, forbidden} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.strict = false
			h := newHouse(t, f, 1, nil)
			f.plant("orphan", want(1), nil)
			f.setFault(func(op, _ string) (bool, error) { return op != "delete", cmpErr(op == "delete", fault) })
			stop := h.run()
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if fault == gateway { // it may still be deleted: never two
				h.push(1, false, "504")
			} else { // it is not ours to delete
				h.living(1)
			}
			if n := f.count(""); n > 60 {
				t.Errorf("%d requests in two hours", n)
			}
			f.setFault(nil)
			time.Sleep(26 * time.Hour)
			synctest.Wait()
			if got := f.live(); len(got) != 1 || got[0] != h.living(1).ID {
				t.Errorf("Graph has %v", got)
			}
			stop()
		})
	}
}

func TestTwoConnectionsOfOneApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.opts.Graphs["second"] = f // the same app: lists the same
		w := want(2)
		w.Connection = "second"
		h.setWants(want(1), w)
		h.reopen()
		defer h.run()()
		time.Sleep(50 * time.Hour)
		synctest.Wait()
		if n := f.count("delete"); n != 0 || len(f.live()) != 2 {
			t.Errorf("%d deletions: one connection takes the other's away", n)
		}
	})
}

func TestFeedWithAnotherNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.once()
		sub := h.living(1)
		h.asked()
		w := want(1)
		w.Feed = 5
		h.setWants(w)
		before := f.count("")
		h.once()
		if got := h.living(5); got.ID != sub.ID || got.StateHash != sub.StateHash {
			t.Error("the subscription was not handed over")
		}
		if got := h.asked(); len(got) != 1 || got[0].feed != 5 || f.count("") != before {
			t.Errorf("rounds %v, %d requests", got, f.count("")-before)
		}
		h.push(5, true, "")
	})
}

func TestTwoLivingRecordsBecomeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.strict = false
		h := newHouse(t, f, 1, nil)
		h.once()
		older := h.living(1)
		older.ID, older.CreatedAt, older.StateHash = "older", older.CreatedAt.Add(-time.Hour), [32]byte{1}
		f.plant("older", want(1), nil)
		if err := h.st.Update(func(tx *store.Tx) error { return tx.PutSubscription(&older) }); err != nil {
			t.Fatal(err)
		}
		h.reopen()
		time.Sleep(time.Minute)
		h.once()
		if got := h.living(1); got.ID == "older" || !slices.Equal(f.live(), []string{got.ID}) {
			t.Errorf("Graph has %v, the store %s", f.live(), got.ID)
		}
	})
}

func TestAnswerWithoutIDIsNoSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.opts.Graphs[conn] = &mute{f}
		h.reopen()
		h.once()
		h.push(1, false, "no subscription")
		if len(h.st.Subscriptions()) != 0 {
			t.Error("a record without id is stored")
		}
	})
}

// mute answers a creation with nothing.
type mute struct{ *fakeGraph }

func (m *mute) CreateSubscription(context.Context, string, graph.Subscription) (graph.Subscription, error) {
	return graph.Subscription{}, nil
}

func TestWordsNameNobody(t *testing.T) {
	secret := "a@x.test is not here"
	for _, err := range []error{
		&graph.Error{Op: "create subscription", Status: 404, Code: "ErrorInvalidUser", Message: secret},
		&graph.Error{Op: "create subscription", Status: 418, Message: secret},
		&graph.Error{Op: "create subscription", Err: errors.New(secret)},
		errors.New(secret),
		noAnswer("create subscription"),
	} {
		if got := words(err); got == "" || slices.Contains([]string{secret}, got) {
			t.Errorf("words(%T) = %q", err, got)
		}
	}
}
