package status

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/triggerd/triggerd/internal/event"
)

// shots is where screenshots go when it names a directory.
var shots = os.Getenv("SCREENSHOTS")

// browser starts Chromium. What it says on its console, and what it asks of anybody else, is an error of the test.
func browser(t *testing.T, origin string) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: install chromium: make testtools", err)
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(time.Minute), // and a profile of its own, which chromedp makes and removes
	}
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			t.Errorf("the page wrote to the console: %s", ev.Type)
		case *runtime.EventExceptionThrown:
			t.Errorf("the page threw: %v", ev.ExceptionDetails)
		case *network.EventRequestWillBeSent:
			if url := ev.Request.URL; !strings.HasPrefix(url, origin) && !strings.HasPrefix(url, "data:") && url != "about:blank" {
				t.Errorf("the page asks for %s", url)
			}
		}
	})
	do(t, ctx, network.Enable(), runtime.Enable())
	return ctx
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// eval evaluates JavaScript in the page.
func eval[T any](t *testing.T, ctx context.Context, js string) (v T) {
	t.Helper()
	do(t, ctx, chromedp.Evaluate(js, &v))
	return v
}

// changing is a source whose report changes.
type changing struct {
	mu     sync.Mutex
	report Report
}

func (c *changing) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Judge()
	return c.report
}

func (*changing) Resync(string) (int, error) { return 0, nil }

func (c *changing) change(edit func(*Report)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit(&c.report)
}

// busy is a report with something of everything, hostile names among it.
func busy(feeds int) Report {
	r := good()
	r.Configuration = Configuration{File: "/etc/triggerd/triggerd.yaml", LoadedAt: now.Add(-26 * time.Hour)}
	r.Certificate = Certificate{Source: "acme", NotBefore: now.Add(-30 * 24 * time.Hour), NotAfter: now.Add(60 * 24 * time.Hour)}
	r.Subscriptions[0].Renewals = []time.Time{now.Add(-20 * time.Hour), now.Add(-10 * time.Hour), now.Add(-5 * time.Minute)}
	r.Connections = append(r.Connections, Connection{
		Name: "fabrikam", Cloud: "usgov-l4", Auth: "delegated", User: "ada@fabrikam.us", State: "reauth_required", Since: now.Add(-3 * time.Hour), Paused: true,
		Reason: "sign-in: status 400 invalid_grant AADSTS50173: the sign-in was revoked, or the password was changed", Remedy: "run `triggerd login fabrikam`",
	})
	r.Watches = append(r.Watches,
		Watch{Name: "a-watch-with-a-very-long-name-that-nobody-should-have-chosen-but-somebody-did", State: "stale", Since: now.Add(-2 * time.Hour), FreshAt: now.Add(-3 * time.Hour), Reason: "the connection waits: sign-in was revoked", Feeds: 12},
		Watch{Name: "new", State: "reading", Feeds: 3})
	for i := range feeds {
		r.Feeds = append(r.Feeds, Feed{
			Feed: uint32(i + 5), Inbox: uint32(i + 5), Connection: "contoso", Mailbox: fmt.Sprintf("m-%016d", i), Area: event.AreaMail, Folder: fmt.Sprintf("Inbox/Kunden & Partner/<script>alert(%d)</script>", i), Label: "inbox", Watches: []string{"sales"},
			Mailboxes: map[string]string{"sales": fmt.Sprintf("m-%016d", i)},
			RoundAt:   now.Add(-time.Duration(i) * time.Second), BaselinedAt: now.Add(-time.Hour), Interval: 15 * time.Minute, Push: i%3 > 0, PushReason: "no subscription yet",
			Announced: uint64(90 + i), Missed: uint64(i % 7),
		})
		r.Subscriptions = append(r.Subscriptions, Subscription{
			ID: fmt.Sprintf("c6126aa3-0ed8-412f-a988-%012d", i), Feed: uint32(i + 5), Mailbox: fmt.Sprintf("m-%016d", i), Folder: "Inbox", CreatedAt: now.Add(-48 * time.Hour),
			ExpiresAt: now.Add(time.Duration(i+2) * time.Hour), RenewAt: now.Add(time.Duration(i+1) * time.Hour), RenewedAt: now.Add(-time.Hour),
			Renewals: []time.Time{now.Add(-30 * time.Hour), now.Add(-time.Hour)},
		})
	}
	r.Feeds = append(r.Feeds, Feed{
		Feed: 100_000, Connection: "fabrikam", Mailbox: "ceo", Area: event.AreaCalendar, Folder: "<b>Reisen</b> & Besuche_und_was_sonst_noch_in_einen_Kalender_gehört_den_andere_pflegen",
		Label: "c-2dkzq1xb", Watches: []string{"sales"}, Mailboxes: map[string]string{"sales": "ceo"}, BaselinedAt: now.Add(-time.Hour), RoundAt: now.Add(-time.Minute), Interval: time.Minute,
		PushReason: "delegated access to another mailbox has no push", Reason: "window", Pages: 3, Items: 2700,
	})
	if feeds > 0 {
		r.Feeds[4].Error, r.Feeds[4].Tries = "read messages: status 403 ErrorAccessDenied", 7
		r.Subscriptions[3].Failures, r.Subscriptions[3].LastError = 4, "renew subscription: status 503"
	}
	r.NATS.Connected, r.NATS.LastError = false, "connection refused"
	r.Outbox.OldestAt = now.Add(-time.Hour)
	r.Quarantine = 3
	var rec Recorder
	for i := range 60 {
		rec.Published(&event.Event{ID: fmt.Sprintf("%032d", i), Watch: "sales", Mailbox: "desk", Area: "mail", Name: "received", Via: event.ViaPush, Time: now.Add(-time.Duration(60-i) * time.Minute)},
			"graph", now.Add(-time.Duration(60-i)*time.Minute+1200*time.Millisecond))
	}
	r.Judge()
	rec.observe(&r)
	over := r
	over.Problems, over.At = r.Problems[:2], now.Add(-time.Minute)
	rec.observe(&over)
	rec.Fill(&r)
	return r
}

func serve(t *testing.T, r Report) (*changing, string) {
	t.Helper()
	src := &changing{report: r}
	srv := httptest.NewServer(Handler(src, nil))
	t.Cleanup(srv.Close)
	return src, srv.URL
}

// At three widths and in both schemes nothing is wider than the screen, and axe finds nothing that anybody could not use.
func TestThePageInChromium(t *testing.T) {
	axe, err := os.ReadFile("testdata/axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("%v: install what the tests need: make testservers", err)
	}
	empty := Report{Version: "v1.0.0", StartedAt: now, At: now}
	for name, report := range map[string]Report{"empty": empty, "good": good(), "busy": busy(200)} {
		t.Run(name, func(t *testing.T) {
			_, url := serve(t, report)
			ctx := browser(t, url)
			for _, width := range []int64{360, 768, 1280} {
				for _, scheme := range []string{"light", "dark"} {
					do(t, ctx, chromedp.EmulateViewport(width, 800),
						emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}), chromedp.Navigate(url))
					if shots != "" {
						var png []byte
						do(t, ctx, chromedp.FullScreenshot(&png, 100))
						if err := os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)), png, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					if over := eval[int64](t, ctx, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
						t.Errorf("%d px, %s: the page is %d px too wide", width, scheme, over)
					}
					dark := eval[bool](t, ctx, "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 100")
					if dark != (scheme == "dark") {
						t.Errorf("%d px, %s: the ground is dark: %v", width, scheme, dark)
					}
					do(t, ctx, chromedp.Evaluate(string(axe), nil))
					var found []struct {
						ID, Help string
						Nodes    []struct{ HTML string }
					}
					text := ""
					do(t, ctx, chromedp.Evaluate(`axe.run().then((r) => JSON.stringify(r.violations))`, &text,
						func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
					if err := json.Unmarshal([]byte(text), &found); err != nil {
						t.Fatal(err)
					}
					for _, v := range found {
						t.Errorf("%d px, %s: %s: %s: %d times, %s", width, scheme, v.ID, v.Help, len(v.Nodes), v.Nodes[0].HTML)
					}
				}
			}
		})
	}
}

// The page follows the daemon by itself, and leaves alone what somebody is using.
func TestThePageIsLive(t *testing.T) {
	src, url := serve(t, busy(20))
	ctx := browser(t, url)
	do(t, ctx, chromedp.EmulateViewport(1280, 800), chromedp.Navigate(url))
	verdict := func() string { return eval[string](t, ctx, "document.getElementById('verdict-is').innerText") }
	if got := verdict(); !strings.Contains(got, "Unhealthy") {
		t.Fatalf("verdict %q", got)
	}
	// By keyboard alone: the first stop skips to the facts, and what is folded opens.
	do(t, ctx, chromedp.KeyEvent("\t"))
	if got := eval[string](t, ctx, "document.activeElement.className"); got != "skip" {
		t.Errorf("the first stop is %q", got)
	}
	do(t, ctx, chromedp.Focus("#more-events-s"), chromedp.KeyEvent(" "), chromedp.Evaluate("window.mark = 'same page'", nil))
	if !eval[bool](t, ctx, "document.getElementById('more-events').open") {
		t.Fatal("the list does not open by keyboard")
	}
	src.change(func(r *Report) {
		recent := append([]Published{{At: now, Time: now, Subject: "graph.sales.desk.mail.moved", ID: "the new one"}}, r.Recent...)
		*r = good()
		r.Recent = recent
	})
	do(t, ctx, chromedp.Poll("document.getElementById('verdict-is').innerText.includes('✓ Healthy') && document.getElementById('events-list').innerText.includes('the new one')", nil))
	if got := eval[string](t, ctx, "[window.mark, document.activeElement.id, document.getElementById('more-events').open, document.title].join(' | ')"); got != "same page | more-events-s | true | ✓ healthy · triggerd" {
		t.Errorf("after the change: %s", got)
	}
	if eval[bool](t, ctx, "document.getElementById('stalled').checkVisibility()") {
		t.Error("it says that the daemon is away")
	}
}

// A daemon that goes away is told on the page that is open, and so is its return.
func TestThePageTellsThatTheDaemonIsAway(t *testing.T) {
	src := &changing{report: good()}
	var mu sync.Mutex
	away := false
	page := Handler(src, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		gone := away
		mu.Unlock()
		if gone {
			panic(http.ErrAbortHandler)
		}
		page.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx := browser(t, srv.URL)
	do(t, ctx, chromedp.Navigate(srv.URL))
	visible := "document.getElementById('stalled').checkVisibility()"
	for _, gone := range []bool{true, false} {
		mu.Lock()
		away = gone
		mu.Unlock()
		do(t, ctx, chromedp.Poll(fmt.Sprintf("%s === %v", visible, gone), nil))
	}
}

// Without JavaScript everything is there, and the page reloads itself.
func TestThePageWithoutJavaScript(t *testing.T) {
	_, url := serve(t, busy(3))
	ctx := browser(t, url)
	do(t, ctx, emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(url))
	var text, refresh string
	do(t, ctx, chromedp.Text("main", &text), chromedp.AttributeValue(`meta[http-equiv="refresh"]`, "content", &refresh, nil, chromedp.ByQuery))
	if refresh != "5" || !strings.Contains(text, "Unhealthy") || !strings.Contains(text, "triggerd login fabrikam") {
		t.Errorf("refresh %q, text %s", refresh, text)
	}
}

// Places on the line of a subscription's life are per cent of it, from its creation to its end.
func TestTheLineOfALife(t *testing.T) {
	at := func(hours float64) time.Time { return now.Add(time.Duration(hours * float64(time.Hour))) }
	healthy := Subscription{Mailbox: "sales", Folder: "Inbox", CreatedAt: at(-40), ExpiresAt: at(60), RenewAt: at(20), Renewals: []time.Time{at(-30), at(-10)}}
	const text = "Subscription of sales Inbox: made 1d 16h ago, renewed 2 times, next renewal in 20h 0m, expires in 2d 12h"
	tests := []struct {
		name string
		edit func(*Subscription)
		want life // without the subscription
	}{
		{"healthy", func(*Subscription) {}, life{Mark: "good", Sign: "✓", Now: 40, Next: 60, Ticks: []float64{10, 30}, Text: text}},
		{"renewals fail", func(s *Subscription) { s.Failures = 1 }, life{Mark: "warn", Sign: "!", Now: 40, Next: 60, Ticks: []float64{10, 30}, Text: text}},
		{"never renewed", func(s *Subscription) { s.Renewals = nil },
			life{Mark: "good", Sign: "✓", Now: 40, Next: 60, Text: strings.Replace(text, "2 times", "0 times", 1)}},
		{"to be renewed after its end", func(s *Subscription) { s.RenewAt = at(61) },
			life{Mark: "good", Sign: "✓", Now: 40, Ticks: []float64{10, 30}, Text: strings.Replace(text, "in 20h 0m", "in 2d 13h", 1)}},
		{"to be renewed now", func(s *Subscription) { s.RenewAt = at(0) },
			life{Mark: "good", Sign: "✓", Now: 40, Ticks: []float64{10, 30}, Text: strings.Replace(text, "in 20h 0m", "in 0s", 1)}},
		{"lapsed, shown from its first renewal on", func(s *Subscription) { s.ExpiresAt, s.RenewAt, s.Failures = at(-10), at(-20), 3 },
			life{Mark: "bad", Sign: "✗", Now: 100, Ticks: []float64{0, 66.6}, Lapsed: true,
				Text: "Subscription of sales Inbox: made 1d 16h ago, renewed 2 times, next renewal 20h 0m ago, expires 10h 0m ago"}},
		{"an old one shows what is left of it", func(s *Subscription) { s.CreatedAt, s.Renewals = at(-1000), []time.Time{at(-40), at(-10)} },
			life{Mark: "good", Sign: "✓", Now: 40, Next: 60, Ticks: []float64{0, 30}, Text: strings.Replace(text, "1d 16h", "41d 16h", 1)}},
		{"renewed before it was made: the clock was set back", func(s *Subscription) { s.Renewals[0] = at(-41) },
			life{Mark: "good", Sign: "✓", Now: 40, Next: 60, Ticks: []float64{30}, Text: text}},
		{"tenths of a per cent", func(s *Subscription) { s.CreatedAt, s.Renewals, s.RenewAt = at(-30), nil, at(30) },
			life{Mark: "good", Sign: "✓", Now: 33.3, Next: 66.6, Text: "Subscription of sales Inbox: made 1d 6h ago, renewed 0 times, next renewal in 1d 6h, expires in 2d 12h"}},
		{"without a length", func(s *Subscription) { s.CreatedAt, s.ExpiresAt, s.RenewAt, s.Renewals = now, now, now, nil },
			life{Mark: "bad", Sign: "✗", Lapsed: true, Text: "Subscription of sales Inbox: made 0s ago, renewed 0 times, next renewal in 0s, expires in 0s"}},
	}
	for _, tt := range tests {
		sub := healthy
		sub.Renewals = slices.Clone(healthy.Renewals)
		tt.edit(&sub)
		got := newLife(&sub, now)
		got.Subscription = nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", tt.name, got, tt.want)
		}
	}
}

func TestTheRowOfAFeed(t *testing.T) {
	const nothing = "push has announced nothing yet"
	tests := []struct {
		name string
		edit func(*Feed)
		want feedRow // without the feed
	}{
		{"healthy", func(*Feed) {}, feedRow{Mark: "good", Sign: "✓", Share: nothing}},
		{"a round is late", func(f *Feed) { f.RoundAt = now.Add(-16*time.Minute - time.Second) }, feedRow{Mark: "warn", Sign: "!", Share: nothing}},
		{"just in time", func(f *Feed) { f.RoundAt = now.Add(-16 * time.Minute) }, feedRow{Mark: "good", Sign: "✓", Share: nothing}},
		{"two rounds are late", func(f *Feed) { f.RoundAt = now.Add(-31*time.Minute - time.Second) }, feedRow{Mark: "bad", Sign: "✗", Share: nothing}},
		{"rounds fail", func(f *Feed) { f.Error = "403" }, feedRow{Mark: "bad", Sign: "✗", Share: nothing}},
		{"all announced", func(f *Feed) { f.Announced = 7 }, feedRow{Mark: "good", Sign: "✓", Share: "push announced 7 of 7 (100 %)"}},
		{"some announced, rounded down", func(f *Feed) { f.Announced, f.Missed = 199, 1 }, feedRow{Mark: "good", Sign: "✓", Share: "push announced 199 of 200 (99 %)"}},
		{"none announced", func(f *Feed) { f.Missed = 3 }, feedRow{Mark: "good", Sign: "✓", Share: "push announced 0 of 3 (0 %)"}},
		{"read for the first time", func(f *Feed) { f.BaselinedAt, f.Items, f.Pages = time.Time{}, 40, 2 },
			feedRow{Mark: "good", Sign: "✓", Share: nothing, Progress: "first reading: 40 items in 2 pages so far"}},
		{"compared", func(f *Feed) { f.Reason, f.Items, f.Pages = "true-up", 4, 1 },
			feedRow{Mark: "good", Sign: "✓", Share: nothing, Progress: "true-up: 4 items in 1 pages so far"}},
	}
	for _, tt := range tests {
		f := Feed{RoundAt: now, BaselinedAt: now.Add(-time.Hour), Interval: 15 * time.Minute}
		tt.edit(&f)
		got := newFeedRow(&f, now)
		got.Feed = nil
		if got != tt.want {
			t.Errorf("%s:\n%+v\nwant\n%+v", tt.name, got, tt.want)
		}
	}
}

// The highest bar is 56 high, and what is not nothing can be seen.
func TestTheBarsOfTheRate(t *testing.T) {
	tests := []struct {
		name   string
		counts map[int]uint64 // by minute
		bars   []bar
		text   string
	}{
		{"nothing", nil, nil, "0 events in the last hour, at most 0 in a minute"},
		{"one", map[int]uint64{59: 1}, []bar{{X: 59. * 100 / 60, Y: 3, H: 56}}, "1 events in the last hour, at most 1 in a minute"},
		{"many", map[int]uint64{0: 1, 15: 50, 30: 100}, []bar{{X: 0, Y: 57, H: 2}, {X: 25, Y: 31, H: 28}, {X: 50, Y: 3, H: 56}}, "151 events in the last hour, at most 100 in a minute"},
	}
	for _, tt := range tests {
		v := view{Report: &Report{Rate: make([]uint64, rateMinutes)}}
		for minute, n := range tt.counts {
			v.Rate[minute] = n
		}
		v.rate()
		if !slices.Equal(v.Bars, tt.bars) || v.RateText != tt.text {
			t.Errorf("%s: %+v, %q, want %+v, %q", tt.name, v.Bars, v.RateText, tt.bars, tt.text)
		}
	}
}

// A problem keeps its remedy when it is over: it may come again.
func TestIncidentsHaveTheirRemedies(t *testing.T) {
	r := good()
	r.Incidents = []Incident{
		{Problem: Problem{What: "the first", Remedy: "turn it off"}, From: now.Add(-time.Minute)},
		{Problem: Problem{What: "the second", Remedy: "and on again"}, From: now.Add(-time.Hour), Until: now.Add(-30 * time.Minute)},
	}
	b, err := render(&r, "", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"since 2026-11-24 08:59:00 UTC → turn it off<", "from 2026-11-24 08:00:00 UTC until 2026-11-24 08:30:00 UTC → and on again<",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
