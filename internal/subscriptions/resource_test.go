package subscriptions

import (
	"slices"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

func TestResourcesAreTheSame(t *testing.T) {
	tests := []struct {
		a, b string
		same bool
	}{
		{"users/a@x.test/mailFolders/AAMk1=/messages", "/users/a@x.test/mailFolders/AAMk1=/messages", true},
		{"users/a@x.test/mailFolders/AAMk1=/messages", "Users/A@x.test/mailfolders/AAMk1=/Messages", true},
		{"users/a@x.test/mailFolders/AAMk1=/messages", "users/a@x.test/mailFolders/aamk1=/messages", false},
		{"me/mailFolders('AAMk')/messages", "me/mailfolders/AAMk/messages", true},
		{"Users('622eaaff')/Messages", "users/622eaaff/messages", true},
		{"users/622eaaff/messages", "users/622eaaff/events", false},
		{"users/622eaaff/messages", "users/622eaaff/messages?$filter=isRead eq false", false},
		{"me/messages?$select=Subject", "/me/Messages?$select=Subject", true},
	}
	for _, tt := range tests {
		if got := normalize(tt.a) == normalize(tt.b); got != tt.same {
			t.Errorf("%q and %q: same is %v, want %v (%q, %q)", tt.a, tt.b, got, tt.same, normalize(tt.a), normalize(tt.b))
		}
	}
}

func TestURLsAreTheSame(t *testing.T) {
	tests := []struct {
		a, b string
		same bool
	}{
		{"https://hook.test/graph/notifications", "https://HOOK.test:443/graph/notifications", true},
		{"http://hook.test:80/a", "http://hook.test/a", true},
		{"https://hook.test/graph/notifications", "https://hook.test/other/graph/notifications", false},
		{"https://hook.test/graph/notifications", "https://hook.test.evil/graph/notifications", false},
		{"https://hook.test/graph/notifications", "http://hook.test/graph/notifications", false},
		{"https://hook.test/graph/notifications", "https://hook.test:8443/graph/notifications", false},
		{"https://hook.test/n?a=1", "https://hook.test/n?a=2", false},
		{"https://hook.test/n", "", false},
		{"://", "://", false},
		{"https://hook.test/n", "https://hook.test/%zz", false},
	}
	for _, tt := range tests {
		if got := sameURL(tt.a, tt.b); got != tt.same {
			t.Errorf("sameURL(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.same)
		}
	}
}

func TestChangeTypesAreTheSame(t *testing.T) {
	if !sameChanges("created,updated,deleted", "Deleted, Created,updated") {
		t.Error("order, case and blanks matter")
	}
	if sameChanges("created,updated,deleted", "created,updated") {
		t.Error("a missing one does not matter")
	}
}

func TestCalendarSpreadsABurst(t *testing.T) {
	c := newCalendar()
	most := map[int64]int{}
	for range 1000 { // all created in one second, for an hour
		sub := store.Subscription{Connection: "c"}
		from, to := DefaultPolicy.RenewWindow(t0, t0.Add(time.Hour))
		sub.RenewAt = c.choose("c", from, to)
		if sub.RenewAt.Before(from) || sub.RenewAt.After(to) {
			t.Fatalf("%v is not between %v and %v", sub.RenewAt, from, to)
		}
		c.move(nil, &sub)
		most[sub.RenewAt.Unix()]++
	}
	peak := 0
	for _, n := range most {
		peak = max(peak, n)
	}
	if peak > 7 {
		t.Errorf("%d renewals of 1000 fall into one second of ten minutes", peak)
	}
	if n := c.planned[slot{"other", t0.Unix()}]; n != 0 {
		t.Errorf("another connection has %d plans", n)
	}
}

func TestCalendarForgetsWhatMoved(t *testing.T) {
	c := newCalendar()
	a := store.Subscription{Connection: "c", RenewAt: t0}
	b := store.Subscription{Connection: "c", RenewAt: t0.Add(time.Hour)}
	c.move(nil, &a)
	c.move(&a, &b)
	gone := b
	gone.RemovedAt = t0
	c.move(&b, &gone)
	if len(c.planned) != 0 {
		t.Errorf("left over: %v", c.planned)
	}
	if at := c.choose("c", t0, t0.Add(-time.Hour)); !at.Equal(t0) {
		t.Errorf("a window of nothing gives %v, want its beginning", at)
	}
}

func TestClientStateIsRandomAndFits(t *testing.T) {
	var seen []string
	for range 100 {
		s := newClientState()
		if len(s) != 43 || slices.Contains(seen, s) {
			t.Fatalf("client state of %d characters, seen before: %v", len(s), slices.Contains(seen, s))
		}
		seen = append(seen, s)
	}
}
