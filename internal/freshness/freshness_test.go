package freshness

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

var (
	began = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	now   = began.Add(time.Hour)
)

// at is a feed whose last round began so long ago.
func at(age, interval time.Duration) Feed {
	return Feed{Folder: "Inbox", RoundAt: now.Add(-age), BaselinedAt: began, Interval: interval}
}

func view(feeds ...Feed) View {
	return View{Origin: event.Origin{Watch: "sales", Token: "desk"}, Connection: "contoso", Feeds: feeds}
}

func TestJudge(t *testing.T) {
	withProblem, withCanary, waits := view(), view(at(0, time.Minute)), view(at(time.Hour, time.Minute))
	withProblem.Problem, withCanary.Silent, waits.Paused = "no such mailbox", "its canary is silent", "sign in again"
	unread := Feed{Folder: "New", Interval: time.Minute}
	for name, tt := range map[string]struct {
		up     time.Duration
		view   View
		known  bool
		want   State
		reason string
	}{
		"fresh":                                   {time.Hour, view(at(time.Second, time.Minute)), true, Fresh, ""},
		"two intervals and a minute are allowed":  {time.Hour, view(at(3*time.Minute, time.Minute)), true, Fresh, ""},
		"more is late":                            {time.Hour, view(at(3*time.Minute+time.Second, time.Minute)), true, Stale, "no round of Inbox since 3m1s"},
		"by push it may be older":                 {time.Hour, view(at(30*time.Minute, 15*time.Minute)), true, Fresh, ""},
		"the stalest counts":                      {time.Hour, view(at(0, time.Minute), at(time.Hour, time.Minute)), true, Stale, "no round"},
		"a process that has just started":         {time.Minute, view(at(time.Hour, time.Minute)), true, unknown, "just started"},
		"read for the first time":                 {time.Hour, view(unread), false, Reading, ""},
		"a new folder in a watch that is fresh":   {time.Hour, view(at(0, time.Minute), unread), true, Fresh, ""},
		"a connection that waits says why":        {time.Hour, waits, true, Stale, "sign in again"},
		"a mailbox without folders, a moment ago": {time.Hour, withProblem, false, Reading, "no such mailbox"},
		"a canary that is missed":                 {time.Hour, withCanary, true, Stale, "its canary is silent"},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(nil, Options{Started: now.Add(-tt.up)})
			if got, reason := r.judge(&tt.view, tt.known, now); got != tt.want || !strings.Contains(reason, tt.reason) || tt.reason == "" && reason != "" {
				t.Errorf("%q: %q, want %q: %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

// A watch is as stale as its stalest mailbox, and one that nobody declares any more is forgotten.
func TestStatusAndForgetting(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	other := view(at(time.Hour, time.Minute))
	other.Origin.Token = "books"
	views := []View{view(at(time.Second, time.Minute)), other}
	r := New(st, Options{Views: func() []View { return views }, Started: now.Add(-time.Hour), Log: zerolog.Nop()})
	if err := r.look(now); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); len(s) != 1 || s[0].State != Stale || s[0].Feeds != 2 || !s[0].FreshAt.Equal(now.Add(-time.Hour)) || len(st.Watches()) != 2 {
		t.Errorf("status %+v, kept %v", s, st.Watches())
	}
	views = views[:1]
	if err := r.look(now); err != nil {
		t.Fatal(err)
	}
	if w := st.Watches(); len(w) != 1 || w[0].Token != "desk" || w[0].State != string(Fresh) {
		t.Errorf("kept %+v", w)
	}
}

func TestCanaries(t *testing.T) {
	var c Canaries
	const every = 15 * time.Minute
	ask := func(at time.Time, every time.Duration, want string) {
		t.Helper()
		if got := c.Silent("sales", "desk", every, at); (got != "") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ask(began, 0, "") // none is promised
	ask(now, every, "")
	ask(now.Add(every), every, "")
	ask(now.Add(every+time.Second), every, "no event for 15m1s, and there should be one every 15m0s")
	c.Published("sales", "desk", now.Add(time.Hour))
	c.Published("sales", "books", now.Add(2*time.Hour))
	ask(now.Add(time.Hour+every), every, "")
	ask(now.Add(2*time.Hour), every, "no event for 1h0m0s")
	ask(now.Add(2*time.Hour), 0, "")
}
