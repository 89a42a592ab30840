package subscriptions

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wantMissing compares what is missing, as "feed: reason".
func (h *house) wantMissing(when string, want ...string) {
	h.t.Helper()
	got := h.room.Missing()
	if len(got) != len(want) {
		h.t.Errorf("%s: missing %+v, want %q", when, got, want)
		return
	}
	for i, m := range got {
		if text := fmt.Sprintf("%d: %s", m.Feed, m.Reason); !strings.HasPrefix(text, want[i]) {
			h.t.Errorf("%s: %q is missing, want %q", when, text, want[i])
		}
	}
}

// A feed that wants a subscription and has none is no fault at first, is one after ten minutes, and is none any more once
// there is one, or once nobody wants it.
func TestMissingFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 3, nil)
		f.fault = func(op, _ string) (bool, error) { return op != "create", cmpErr(op == "create", forbidden) }
		stop := h.run()
		defer stop()
		began := time.Now()
		time.Sleep(9 * time.Minute)
		h.wantMissing("after nine minutes")
		time.Sleep(2 * time.Minute)
		h.wantMissing("after eleven", "1: 403 Forbidden", "2: 403 Forbidden", "3: 403 Forbidden")
		if m := h.room.Missing(); m[0].Since.Sub(began) > time.Second {
			t.Errorf("missing since %v, want from the start at %v", m[0].Since, began)
		}
		h.setWants(want(1), want(2))
		time.Sleep(time.Minute)
		h.wantMissing("one is not wanted any more", "1: 403", "2: 403")
		f.setFault(nil)
		time.Sleep(time.Hour + time.Minute)
		h.wantMissing("healed")
	})
}

// A subscription that lapses because it cannot be renewed is missed from that moment on, also across a restart; one that
// Graph removed has its ten minutes.
func TestMissingAfterItWasThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, slowly)
		stop := h.run()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		f.setFault(func(op, _ string) (bool, error) {
			return op == "list", cmpErr(op != "list", forbidden)
		})
		ends := h.living(1).ExpiresAt
		time.Sleep(time.Until(ends) - time.Minute)
		h.wantMissing("a minute before it ends")
		time.Sleep(2 * time.Minute)
		h.wantMissing("a minute after", "1: ")
		stop()
		h.reopen()
		stop = h.run()
		time.Sleep(time.Minute)
		h.wantMissing("after a restart", "1: 403 Forbidden")
		f.setFault(nil)
		time.Sleep(2 * time.Hour)
		h.wantMissing("healed")

		f.setFault(func(op, _ string) (bool, error) { return op != "create", cmpErr(op == "create", noMailbox) })
		f.drop(h.living(1).ID)
		h.lifecycle(h.living(1).ID, subscriptionRemoved)
		time.Sleep(5 * time.Minute)
		h.wantMissing("five minutes after Graph removed it")
		time.Sleep(10 * time.Minute)
		h.wantMissing("fifteen minutes after", "1: 404")
	})
}

func TestNothingIsMissingWithoutPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFake(t), 1, func(o *Options) { o.PublicURL = "" })
		stop := h.run()
		defer stop()
		time.Sleep(time.Hour)
		h.wantMissing("polling only")
	})
}
