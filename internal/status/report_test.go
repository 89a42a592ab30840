package status

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite golden files")

var now = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// good is a report without a fault.
func good() Report {
	return Report{
		Version: "v1.0.0", StartedAt: now.Add(-26 * time.Hour), At: now,
		Connections: []Connection{{Name: "contoso", Cloud: "global", Auth: "app", State: "ok", Since: now.Add(-2 * time.Hour)}},
		Watches: []Watch{{Name: "sales", State: "fresh", Since: now.Add(-20 * time.Hour), FreshAt: now.Add(-3 * time.Minute), Feeds: 2, Push: 2},
			{Name: "fairs", State: "fresh", Since: now.Add(-20 * time.Hour), FreshAt: now.Add(-time.Minute), Feeds: 1, Push: 1}},
		Public: Public{URL: "https://hook.example.com", OK: true, CheckedAt: now},
		Subscriptions: []Subscription{{
			ID: "c6126aa3-0ed8-412f-a988-71e6cee627c4", Feed: 1, Mailbox: "sales", Folder: "Inbox", CreatedAt: now.Add(-24 * time.Hour),
			ExpiresAt: now.Add(5*24*time.Hour + 3*time.Hour), RenewAt: now.Add(2 * 24 * time.Hour), RenewedAt: now.Add(-5 * time.Minute),
		}, {
			ID: "7f4b0a1e-55c2-4d0e-9c57-2f3d6a1b8e90", Feed: 4, Mailbox: "sales", Folder: AllCalendars, CreatedAt: now.Add(-20 * time.Hour),
			ExpiresAt: now.Add(6 * 24 * time.Hour), RenewAt: now.Add(3 * 24 * time.Hour),
		}},
		Feeds: []Feed{{
			Feed: 1, Connection: "contoso", Mailbox: "sales", Area: "mail", Folder: "Inbox", Label: "inbox", Inbox: 1, Watches: []string{"sales"},
			Mailboxes: map[string]string{"sales": "sales"}, RoundAt: now.Add(-3 * time.Minute),
			BaselinedAt: now.Add(-20 * time.Hour), Interval: 15 * time.Minute, Push: true,
		}, {
			Feed: 2, Connection: "contoso", Mailbox: "sales", Area: "calendar", Folder: "Kalender", Label: "calendar", Inbox: 4, Watches: []string{"sales"},
			Mailboxes: map[string]string{"sales": "sales"}, RoundAt: now.Add(-2 * time.Minute),
			BaselinedAt: now.Add(-20 * time.Hour), Interval: 15 * time.Minute, Push: true,
		}, {
			Feed: 3, Connection: "contoso", Mailbox: "sales", Area: "calendar", Folder: "Trade fairs", Label: "c-2dkzq1xa", Inbox: 4, Watches: []string{"fairs"},
			Mailboxes: map[string]string{"fairs": "sales"}, RoundAt: now.Add(-time.Minute),
			BaselinedAt: now.Add(-20 * time.Hour), Interval: 15 * time.Minute, Push: true,
		}},
		Notifications: Notifications{Accepted: 12, Settled: map[string]uint64{"published": 9, "duplicate": 2}, Pending: 1},
		Outbox:        Outbox{Entries: 1, Held: 8, OldestAt: now.Add(-time.Second)},
		NATS:          NATS{Connected: true, URL: "nats://127.0.0.1:4222", Stream: "ok"},
		Events:        map[string]uint64{"mail.received": 9},
	}
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Report)
		want string // in the problem; empty: healthy
	}{
		{"all is well", func(*Report) {}, ""},
		{"sign-in fails", func(r *Report) {
			c := &r.Connections[0]
			c.State, c.Reason, c.Remedy = "credential_failed", "sign-in: status 401 invalid_client", "replace it"
		}, "connection contoso: credential failed: sign-in"},
		{"the public URL does not answer", func(r *Report) { r.Public.OK, r.Public.Reason = false, "502" }, "public URL https://hook.example.com: 502"},
		{"the disk is full", func(r *Report) {
			r.Storage = Storage{Path: "/var/lib/triggerd/triggerd.db", Error: "no space left on device", Since: now.Add(-time.Minute)}
		}, "/var/lib/triggerd/triggerd.db cannot be written for 1m 0s: no space left on device"},
		{"starts cannot be told", func(r *Report) { r.Clock = "database is full" }, "meetings that start cannot be told: database is full"},
		{"a canary is missed", func(r *Report) {
			w := &r.Watches[0]
			w.State, w.Silent, w.Reason = "stale", true, "its canary is silent: no event for 40m0s, and there should be one every 15m0s"
		}, "watch sales: its canary is silent: no event for 40m0s"},
		{"a watch file was refused", func(r *Report) {
			r.Configuration = Configuration{File: "triggerd.yaml", LoadedAt: now.Add(-time.Hour), Error: "triggerd.yaml:3: no", RefusedAt: now}
		}, "watch file triggerd.yaml: refused: triggerd.yaml:3: no"},
		{"no public URL is no fault", func(r *Report) { r.Public = Public{} }, ""},
		{"just started", func(r *Report) { r.StartedAt = now.Add(-time.Second); r.Public.OK = false; r.NATS = NATS{} }, ""},
		{"a calendar is not found", func(r *Report) { r.Mailboxes = []Mailbox{{"contoso", "sales", "no such calendar: \"x\""}} }, "mailbox sales: no such calendar"},
		{"a folder is not found", func(r *Report) { r.Mailboxes = []Mailbox{{"contoso", "sales", "no such folder: \"x\""}} }, "mailbox sales: no such folder"},
		{"a certificate in files that will be renewed", func(r *Report) { r.Certificate = certificateOf("files", 90, 15) }, ""},
		{"a certificate in files that nobody renewed", func(r *Report) { r.Certificate = certificateOf("files", 90, 13) }, "the public listener's certificate ends in 13d 0h"},
		{"a certificate that has ended", func(r *Report) { r.Certificate = certificateOf("files", 90, -1) }, "certificate ends 1d 0h ago"},
		{"files that cannot be used", func(r *Report) {
			r.Certificate = certificateOf("files", 90, 60)
			r.Certificate.Error = "private key does not match public key"
		}, "certificate files cannot be used: private key does not match public key"},
		{"a renewal by ACME that will be tried again", func(r *Report) {
			r.Certificate = certificateOf("acme", 90, 8)
			r.Certificate.Error = "429"
		}, ""},
		{"renewals by ACME that fail", func(r *Report) {
			r.Certificate = certificateOf("acme", 90, 6)
			r.Certificate.Error = "429"
		}, "the public listener's certificate ends in 6d 0h: 429"},
		{"a short life is renewed later", func(r *Report) { r.Certificate = certificateOf("acme", 6, 2) }, ""},
		{"a short life is not renewed", func(r *Report) { r.Certificate = certificateOf("acme", 6, 0.9) }, "certificate ends in 21h 36m"},
		{"no certificate was issued", func(r *Report) { r.Certificate = Certificate{Source: "acme", Error: "403"} }, "there is no certificate for the public listener: 403"},
		{"a certificate is long in coming", func(r *Report) { r.Certificate = Certificate{Source: "acme"} }, "no certificate for the public listener: none was issued yet"},
		{"a certificate is on its way", func(r *Report) {
			r.StartedAt, r.Certificate = now.Add(-time.Second), Certificate{Source: "acme"}
		}, ""},
		{"a subscription lapsed", func(r *Report) { r.Subscriptions[0].ExpiresAt = now.Add(-time.Hour) }, "subscription of sales Inbox expires 1h 0m ago"},
		{"one failed renewal is no fault yet", func(r *Report) { r.Subscriptions[0].Failures = 1 }, ""},
		{"renewals fail and time runs out", func(r *Report) {
			s := &r.Subscriptions[0]
			s.Failures, s.LastError = 5, "403"
			s.CreatedAt, s.RenewedAt, s.ExpiresAt = now.Add(-30*24*time.Hour), now.Add(-6*24*time.Hour), now.Add(36*time.Hour)
			s.RenewAt = now.Add(time.Hour) // the next attempt
		}, "subscription of sales Inbox expires in 1d 12h: 403"},
		{"renewals fail and nothing was renewed yet", func(r *Report) {
			s := &r.Subscriptions[1]
			s.Failures, s.LastError = 5, "403"
			s.CreatedAt, s.ExpiresAt, s.RenewAt = now.Add(-6*24*time.Hour), now.Add(36*time.Hour), now.Add(time.Hour)
		}, "subscription of sales all calendars expires in 1d 12h: 403"},
		{"renewals fail and there is time", func(r *Report) {
			s := &r.Subscriptions[0]
			s.Failures, s.LastError = 5, "403"
			s.CreatedAt, s.RenewedAt, s.ExpiresAt = now.Add(-30*24*time.Hour), now.Add(-5*24*time.Hour), now.Add(2*24*time.Hour)
		}, ""},
		{"renewals fail for long", func(r *Report) {
			s := &r.Subscriptions[0]
			s.CreatedAt, s.Failures, s.LastError = now.Add(-3*24*time.Hour), 6, "403"
			s.RenewedAt, s.ExpiresAt = time.Time{}, now.Add(4*24*time.Hour)
		}, "subscription of sales Inbox expires in 4d 0h: 403"},
		{"there is no subscription", func(r *Report) { r.Missing = missing() }, "sales all calendars has had no subscription for 2h 0m: 403 Forbidden"},
		{"there is none yet after a start", func(r *Report) { r.Missing, r.StartedAt = missing(), now.Add(-time.Second) }, ""},
		{"there is none because somebody must sign in", func(r *Report) {
			c := &r.Connections[0]
			c.State, c.Reason, c.Remedy, c.Paused = "reauth_required", "invalid_grant", "run `triggerd login contoso`", true
			r.Missing = missing()
		}, "connection contoso: reauth required: invalid_grant"},
		{"there is none because Graph cannot come in", func(r *Report) {
			r.Public.OK, r.Public.Reason = false, "502"
			r.Missing = missing()
		}, "public URL https://hook.example.com: 502"},
		{"somebody must sign in", func(r *Report) {
			c := &r.Connections[0]
			c.State, c.Reason, c.Remedy, c.Paused = "reauth_required", "sign-in: status 400 invalid_grant", "run `triggerd login contoso`", true
			r.Feeds[0].RoundAt = now.Add(-time.Hour) // waits for it, and is no problem of its own
		}, "connection contoso: reauth required: sign-in: status 400 invalid_grant"},
		{"the login endpoint was away a moment ago", func(r *Report) {
			c := &r.Connections[0]
			c.State, c.Reason, c.Remedy, c.Since = "unreachable", "connection refused", "check DNS", now.Add(-30*time.Second)
		}, ""},
		{"the login endpoint is away", func(r *Report) {
			c := &r.Connections[0]
			c.State, c.Reason, c.Remedy, c.Since = "unreachable", "connection refused", "check DNS", now.Add(-2*time.Minute)
		}, "connection contoso: unreachable: connection refused"},
		{"a certificate ends", func(r *Report) { r.Connections[0].CredentialExpiresAt = now.Add(5 * 24 * time.Hour) }, "connection contoso: its credential expires in 5d 0h"},
		{"a certificate has ended", func(r *Report) { r.Connections[0].CredentialExpiresAt = now.Add(-time.Hour) }, "its credential expires 1h 0m ago"},
		{"a feed is stale", func(r *Report) { r.Feeds[0].RoundAt = now.Add(-time.Hour) }, "feed sales Inbox is stale: last complete 1h 0m ago"},
		{"a calendar is stale", func(r *Report) { r.Feeds[1].RoundAt = now.Add(-time.Hour) }, "feed sales calendar Kalender is stale: last complete 1h 0m ago"},
		{"a calendar fails", func(r *Report) { r.Feeds[2].Error, r.Feeds[2].Tries = "403", 3 }, "feed sales calendar Trade fairs: 403 (attempt 3)"},
		{"the subscription for all calendars lapsed", func(r *Report) { r.Subscriptions[1].ExpiresAt = now.Add(-time.Hour) }, "subscription of sales all calendars expires 1h 0m ago"},
		{"a feed fails", func(r *Report) { r.Feeds[0].Error, r.Feeds[0].Tries = "403", 3 }, "feed sales Inbox: 403 (attempt 3)"},
		{"a first reading takes its time", func(r *Report) { r.Feeds[0].BaselinedAt, r.Feeds[0].RoundAt = time.Time{}, time.Time{} }, ""},
		{"NATS is away", func(r *Report) { r.NATS.Connected, r.NATS.LastError = false, "connection refused" }, "NATS nats://127.0.0.1:4222: connection refused"},
		{"the stream is wrong", func(r *Report) { r.NATS.Stream = "stream GRAPH keeps messages in memory" }, "keeps messages in memory"},
		{"the outbox ages", func(r *Report) { r.Outbox.OldestAt = now.Add(-time.Hour) }, "1 events wait, the oldest for 1h 0m"},
		{"something is parked", func(r *Report) { r.Quarantine = 2 }, "2 items could not be processed"},
		{"the law is broken", func(r *Report) { r.Notifications.Accepted++ }, "do not add up: 13 accepted, 11 settled, 1 pending"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.edit(&r)
			r.Judge()
			switch {
			case tt.want == "":
				if !r.Healthy || len(r.Problems) != 0 || r.Line() != "healthy" {
					t.Errorf("problems = %v", r.Problems)
				}
			case r.Healthy || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, tt.want) || r.Problems[0].Remedy == "":
				t.Errorf("problems = %+v, want %q with a remedy", r.Problems, tt.want)
			case !strings.Contains(r.Line(), "unhealthy: "):
				t.Errorf("line = %q", r.Line())
			}
		})
	}
}

func missing() []Missing {
	return []Missing{{Feed: 4, Connection: "contoso", Mailbox: "sales", Folder: AllCalendars, Since: now.Add(-2 * time.Hour), Reason: "403 Forbidden"}}
}

// Errors of several lines, and names that others give, stay in one line and cannot steer the terminal.
func TestOneLineIsOneLine(t *testing.T) {
	report := func(text string) Report {
		r := good()
		r.Connections[0].State, r.Connections[0].Reason, r.Connections[0].Remedy = "consent_required", text, "ask "+text
		r.Connections = append(r.Connections, Connection{Name: "fabrikam", Auth: "delegated", State: "ok", User: text})
		r.Configuration = Configuration{File: text, LoadedAt: now, Error: strings.ReplaceAll(text, "\n", " ")} // of several mistakes the first is shown
		r.Public.OK, r.Public.Reason = false, text
		r.Certificate = certificateOf("files", 90, 13)
		r.Certificate.Error = text
		r.Mailboxes = []Mailbox{{"contoso", "sales", text}}
		s := &r.Subscriptions[0]
		s.Folder, s.Failures, s.LastError, s.ExpiresAt = text, 3, text, now.Add(-time.Hour)
		r.Subscriptions[1].LastError = text
		r.Feeds[0].Folder, r.Feeds[0].Error, r.Feeds[0].Tries = text, text, 7
		r.Feeds[1].Folder, r.Feeds[1].RoundAt = text, now.Add(-24*time.Hour)
		r.Feeds[2].Push, r.Feeds[2].PushReason, r.Feeds[2].Reason = false, text, text
		r.Watches[0].State, r.Watches[0].Silent, r.Watches[0].Reason = "stale", true, text
		r.NATS = NATS{URL: text, Stream: text, Blocked: text, LastError: text}
		r.Storage, r.Clock = Storage{Path: text, Error: text, Since: now}, text
		r.Judge()
		return r
	}
	for name, show := range map[string]func(*Report, *bytes.Buffer) error{
		"status": func(r *Report, out *bytes.Buffer) error { return r.Render(out, false) },
		"readyz": func(r *Report, out *bytes.Buffer) error { return r.Ready(out) },
		"line":   func(r *Report, out *bytes.Buffer) error { out.WriteString(r.Line()); return nil },
	} {
		plain, nasty := report("no such folder: a no such folder: b"), report("no such folder:\ta\r\nno such \x1b\u009b\u202efolder: b")
		var want, got bytes.Buffer
		if err := errors.Join(show(&plain, &want), show(&nasty, &got)); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%s:\n%q\nwant:\n%q", name, got.String(), want.String())
		}
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"Inbox/Kunden & Partner": "Inbox/Kunden & Partner", "Bürgermeister 市长 👍": "Bürgermeister 市长 👍",
		"a\nb\r\n\tc ": "a b c", "\x1b]0;title\x07x": "]0;title x", "\u009b31mred": "31mred", "a\u202eb\u2066c": "a b c", "a\u2028b": "a b", "\x7f\x00": "", "": "",
	} {
		if got := Plain(text); got != want {
			t.Errorf("Plain(%q) = %q, want %q", text, got, want)
		}
	}
}

// What /readyz answers, to the letter: the verdict, the problems with their remedies, each connection and each watch.
func TestReady(t *testing.T) {
	sick := good()
	sick.Quarantine = 2
	c, w := &sick.Connections[0], &sick.Watches[0]
	c.State, c.Reason, c.Remedy, c.Paused = "consent_required", "Mail.Read is not granted", "ask the administrator", true
	w.State, w.Reason = "stale", "the connection waits"
	sick.Watches[1].State, sick.Watches[1].FreshAt = "reading", time.Time{}
	for _, tt := range []struct {
		name   string
		report Report
		code   int
		want   string
	}{
		{"ready", good(), 200, "healthy\n" +
			"connection contoso ok    \n" +
			"watch      sales   fresh 3m 0s ago\n" +
			"watch      fairs   fresh 1m 0s ago\n"},
		{"not ready", sick, 503, "unhealthy: connection contoso: consent required: Mail.Read is not granted (and 1 more)\n" +
			"- connection contoso: consent required: Mail.Read is not granted: ask the administrator\n" +
			"- 2 items could not be processed and are parked: `triggerd quarantine list` says what and why; mend that, then `triggerd quarantine retry --all`\n" +
			"connection contoso consent required Mail.Read is not granted\n" +
			"watch      sales   stale            3m 0s ago: the connection waits\n" +
			"watch      fairs   reading          \n"},
	} {
		w := httptest.NewRecorder()
		Handler(&source{report: tt.report}, nil).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/readyz", http.NoBody))
		if body := w.Body.String(); w.Code != tt.code || body != tt.want {
			t.Errorf("%s: %d\n%q\nwant %d\n%q", tt.name, w.Code, body, tt.code, tt.want)
		}
	}
}

// certificateOf lives so many days, of which some are left.
func certificateOf(source string, days, left float64) Certificate {
	end := now.Add(time.Duration(left * float64(24*time.Hour)))
	return Certificate{Source: source, NotBefore: end.Add(-time.Duration(days * float64(24*time.Hour))), NotAfter: end}
}

func TestRender(t *testing.T) {
	sick := good()
	sick.Certificate = certificateOf("files", 90, 13)
	sick.Certificate.Error = "private key does not match public key"
	sick.NATS.Connected, sick.NATS.LastError = false, "connection refused"
	sick.Connections = append(sick.Connections, Connection{
		Name: "fabrikam", Cloud: "usgov-l4", Auth: "delegated", State: "reauth_required", Reason: "nobody has signed in yet",
		Remedy: "run `triggerd login fabrikam`", Since: now.Add(-time.Hour), Paused: true,
	})
	sick.Feeds = append(sick.Feeds,
		Feed{Mailbox: "support", Area: "mail", Folder: "Inbox", Watches: []string{"a", "b"}, Items: 4000, Pages: 4, PushReason: "no subscription: 403"},
		Feed{Mailbox: "room-1", Area: "calendar", Folder: "Calendar", Watches: []string{"rooms"}, BaselinedAt: now, RoundAt: now, Reason: "window", Items: 1200, PushReason: "somebody else's calendar"})
	for name, r := range map[string]Report{"healthy": good(), "sick": sick} {
		r.Judge()
		var out bytes.Buffer
		if err := r.Render(&out, false); err != nil {
			t.Fatal(err)
		}
		path := "testdata/" + name + ".txt"
		if *update {
			if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || out.String() != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s %v", name, out.String(), want, err)
		}
	}
}

type source struct {
	report Report
	watch  string
}

func (s *source) Report() Report { s.report.Judge(); return s.report }
func (s *source) Resync(watch string) (int, error) {
	if s.watch = watch; watch != "sales" {
		return 0, errors.New("no watch is called that")
	}
	return 3, nil
}

func TestListenerAndClient(t *testing.T) {
	src := &source{report: good()}
	srv := httptest.NewServer(Handler(src, nil))
	defer srv.Close()
	c := NewClient(strings.TrimPrefix(srv.URL, "http://"))
	if r, err := c.Status(t.Context()); err != nil || !r.Healthy || len(r.Feeds) != 3 || r.Feeds[1].Area != "calendar" {
		t.Errorf("status: %+v, %v", r, err)
	}
	if n, err := c.Resync(t.Context(), "sales"); n != 3 || err != nil {
		t.Errorf("resync: %d, %v", n, err)
	}
	if _, err := c.Resync(t.Context(), "x"); err == nil || err.Error() != "no watch is called that" {
		t.Errorf("resync of nothing: %v", err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/nothing": 404, "/api/v1/resync": 405} {
		if got := get(t, srv.URL+path, nil); got != want {
			t.Errorf("%s answers %d, want %d", path, got, want)
		}
	}
	src.report.Quarantine = 1
	if got := get(t, srv.URL+"/readyz", nil); got != http.StatusServiceUnavailable {
		t.Errorf("an unhealthy daemon is ready: %d", got)
	}
	if got := get(t, srv.URL+"/api/v1/status", func(r *http.Request) { r.Host = "evil.example" }); got != http.StatusForbidden {
		t.Errorf("a rebound name is answered: %d", got)
	}
	if got := get(t, srv.URL+"/api/v1/resync?watch=sales", func(r *http.Request) { r.Method = http.MethodPost; r.Header.Set("Origin", "https://evil.example") }); got != http.StatusForbidden {
		t.Errorf("a web page is answered: %d", got)
	}
}

func get(t *testing.T, url string, edit func(*http.Request)) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestClientSaysWhoAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := NewClient(l.Addr().String()).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no triggerd answers at http://127.0.0.1:") {
		t.Errorf("nobody there: %v", err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }))
	defer srv.Close()
	if _, err := NewClient(strings.TrimPrefix(srv.URL, "http://")).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "is that triggerd?") {
		t.Errorf("somebody else: %v", err)
	}
}
