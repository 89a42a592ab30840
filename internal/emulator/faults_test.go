package emulator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestFaultsAreGivenToTheRightOperation(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.deliver("x")
		sub := w.subscribe("/messages", "created").text("id")
		sends := map[string]func() reply{
			"token":                    func() reply { return w.tokenRequest(DefaultTenant, nil) },
			"message.get":              func() reply { return w.get("/users/" + mailbox + "/messages/" + id) },
			"message.list":             func() reply { return w.get(w.inbox() + "/messages") },
			"delta":                    func() reply { return w.get(w.inbox() + deltaSelect) },
			"folder.get":               func() reply { return w.get(w.inbox()) },
			"folder.list":              func() reply { return w.get(w.inbox() + "/childFolders") },
			"folder.delta":             func() reply { return w.get("/users/" + mailbox + "/mailFolders/delta") },
			"subscription.create":      func() reply { return w.subscribe("/messages", "updated") },
			"subscription.list":        func() reply { return w.get("/subscriptions") },
			"subscription.get":         func() reply { return w.get("/subscriptions/" + sub) },
			"subscription.renew":       func() reply { return w.call("PATCH", "/subscriptions/"+sub, "{}") },
			"subscription.reauthorize": func() reply { return w.call("POST", "/subscriptions/"+sub+"/reauthorize", "") },
			"subscription.delete":      func() reply { return w.call("DELETE", "/subscriptions/"+sub, "") },
			"unknown":                  func() reply { return w.get("/nonsense") },
		}
		before := w.Requests()
		for op, send := range sends {
			w.FailNext(op, 1, Fault{Status: 418, Body: "teapot", ContentType: "text/plain"})
			if r := send(); r.status != 418 || r.raw != "teapot" || r.header.Get("Content-Type") != "text/plain" {
				t.Errorf("%s: %d %s, want the fault", op, r.status, r.raw)
			}
		}
		for op := range sends {
			if n := w.Requests()[op] - before[op]; n != 1 {
				t.Errorf("%d requests counted as %s, want 1", n, op)
			}
		}
		if len(w.Subscriptions()) != 1 {
			t.Error("work was done although the fault came before it")
		}
	})
}

func TestFaultsOfAFunction(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) {
			f.Fail = func(op string, r *http.Request) *Fault {
				w.Idle() // may ask the server
				if op == "folder.get" && strings.HasSuffix(r.URL.Path, "/drafts") {
					return &Fault{Status: 503, RetryAfter: "3"}
				}
				return nil
			}
		})
		if r := w.get(w.inbox()); r.status != 200 {
			t.Errorf("inbox: %d", r.status)
		}
		r := w.get("/users/" + mailbox + "/mailFolders/drafts")
		wantError(t, "drafts", r, 503, "ServiceUnavailable")
		if r.header.Get("Retry-After") != "3" {
			t.Errorf("headers %v", r.header)
		}
	})
}

func TestDefaultFaultsAreGraphs(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		for status, code := range map[int]string{
			401: "InvalidAuthenticationToken", 403: "ErrorAccessDenied", 404: "ErrorItemNotFound", 410: "SyncStateNotFound",
			429: "TooManyRequests", 500: "InternalServerError", 503: "ServiceUnavailable", 504: "UnknownError",
		} {
			w.FailNext("", 1, Fault{Status: status})
			wantError(t, http.StatusText(status), w.get(w.inbox()), status, code)
		}
		w.FailNext("", 1, Fault{Status: 204})
		if r := w.get(w.inbox()); r.status != 204 || r.raw != "" {
			t.Errorf("204: %d %q", r.status, r.raw)
		}
	})
}

func TestRetryAfterMustBeAwaited(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.AddUser("other@contoso.com")
		date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for _, after := range []func() string{func() string { return "10" }, func() string { return date(10 * time.Second) }} {
			w.FailNext("folder.get", 1, Fault{Status: 429, RetryAfter: after()})
			w.get(w.inbox())
			time.Sleep(5 * time.Second)
			w.get("/users/other@contoso.com/mailFolders/inbox") // H-3: another mailbox is free
			if v := w.Violations(); len(v) != 0 {
				t.Errorf("%q", v)
			}
			w.get(w.inbox())
			w.wantViolation("H-5: folder.get")
			time.Sleep(5 * time.Second)
			w.get(w.inbox())
		}
	})
}

func TestFaultAfterTheWork(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.FailNext("subscription.create", 1, Fault{Status: 504, After: true})
		if r := w.subscribe("/messages", "created"); r.status != 504 || len(w.Subscriptions()) != 1 {
			t.Errorf("%d, %d subscriptions, want 504 and 1", r.status, len(w.Subscriptions()))
		}
		w.FailNext("subscription.create", 1, Fault{After: true})
		if _, err := w.try("POST", w.root+"/subscriptions", w.subscription("/messages", "updated"), "Authorization", "Bearer "+w.token,
			"Content-Type", "application/json", "Prefer", `IdType="ImmutableId"`); err == nil || len(w.Subscriptions()) != 2 {
			t.Errorf("%v, %d subscriptions, want no answer and 2", err, len(w.Subscriptions()))
		}
		w.FailNext("token", 1, Fault{Status: 500, After: true})
		if r := w.tokenRequest(DefaultTenant, nil); r.status != 500 {
			t.Errorf("token %d", r.status)
		}
	})
}

func TestBrokenAnswers(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		get := func(ctx context.Context, path string) (int, error) {
			req, err := http.NewRequestWithContext(ctx, "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+w.token)
			resp, err := w.rt.RoundTrip(req)
			if err != nil {
				return 0, err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return len(b), err
		}
		path := w.root + w.inbox()
		whole, err := get(t.Context(), path)
		w.do(err)
		w.FailNext("", 1, Fault{Truncate: true})
		if n, err := get(t.Context(), path); !errors.Is(err, io.ErrUnexpectedEOF) || n == 0 || n >= whole {
			t.Errorf("truncated: %d of %d bytes, %v", n, whole, err)
		}
		w.FailNext("", 1, Fault{})
		if _, err := get(t.Context(), path); err == nil {
			t.Error("no answer: no error")
		}
		w.FailNext("", 1, Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if _, err := get(ctx, path); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("hanging: %v after %v", err, time.Since(begun))
		}
		w.FailNext("token", 1, Fault{Truncate: true})
		if _, err := w.try("POST", w.opts.Root+"/"+DefaultTenant+"/oauth2/v2.0/token", ""); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("truncated token: %v", err)
		}
		w.SetFaults(func(f *Faults) { f.Latency = time.Hour })
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := get(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow: %v", err)
		}
	})
}

func TestFourRequestsAtATime(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.Latency = time.Second })
		status := func(n int) map[int]int {
			var mu sync.Mutex
			var wg sync.WaitGroup
			got := map[int]int{}
			for range n {
				wg.Go(func() {
					r := w.get(w.inbox())
					mu.Lock()
					defer mu.Unlock()
					got[r.status]++
				})
			}
			wg.Wait()
			return got
		}
		if got := status(4); got[200] != 4 || w.MaxConcurrency(mailbox) != 4 {
			t.Errorf("four: %v, at most %d", got, w.MaxConcurrency(mailbox))
		}
		if got := status(6); got[200] != 4 || got[429] != 2 {
			t.Errorf("six: %v", got)
		}
		w.wantViolation("H-2: more than 4 requests in flight")
		if w.MaxConcurrency("nobody@x.y") != 0 {
			t.Error("concurrency of a stranger")
		}
		synctest.Wait()
		if got := status(4); got[200] != 4 {
			t.Errorf("four again: %v: places were not given back", got)
		}
	})
}

func TestTenThousandRequestsInTenMinutes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		var r reply
		for range 10_001 {
			r = w.get(w.inbox() + "?$select=id")
		}
		wantError(t, "one more", r, 429, "TooManyRequests")
		if r.header.Get("Retry-After") != "600" {
			t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
		}
		w.wantViolation("H-2: more than 10000 requests")
	})
}

func TestViolationsAreListedOnceWithTheirNumber(t *testing.T) {
	s := New(Options{})
	s.mu.Lock()
	for range 3 {
		s.violation("X-1: %s", "a")
	}
	for i := range 2 * maxViolations {
		s.violation("X-2: %d", i)
	}
	s.mu.Unlock()
	v := s.Violations()
	if len(v) != maxViolations || v[0] != "X-1: a (3 times)" || v[1] != "X-2: 0" {
		t.Errorf("%d violations, beginning %q", len(v), v[:2])
	}
}

func TestHandlerTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := HandlerTransport(map[string]http.Handler{
			"a.test": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil || r.ContentLength != int64(len(b)) || r.RequestURI != "/x?y=1" || r.Host != "a.test" || r.URL.Host != "" {
					t.Errorf("request %v, %v: %+v", err, len(b), r)
				}
				rc := http.NewResponseController(w)
				if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{}), rc.Flush()); err != nil {
					t.Error(err)
				}
				w.Header().Set("X-A", "1")
				w.WriteHeader(http.StatusCreated)
				w.Header().Set("X-A", "2")
				w.WriteHeader(http.StatusTeapot)
				w.Write(b)
			}),
			"late.test": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }),
			"none.test": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusNoContent)
				if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
					t.Errorf("body of 204: %v", err)
				}
			}),
			"text.test": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }),
		})
		client := &http.Client{Transport: rt, Timeout: time.Minute}
		resp, err := client.Post("http://a.test/x?y=1", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != "hello" || resp.StatusCode != 201 || resp.Header.Get("X-A") != "1" {
			t.Errorf("%d %q %v, %v", resp.StatusCode, b, resp.Header, err)
		}
		if _, err := client.Get("http://late.test/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a handler that is late: %v", err)
		}
		if _, err := client.Get("http://b.test/"); err == nil {
			t.Error("an unknown host answered")
		}
		if resp, err := client.Get("http://none.test/"); err != nil || resp.StatusCode != 204 {
			t.Errorf("204: %v, %v", resp, err)
		}
		if resp, err := client.Head("http://text.test/"); err != nil || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("HEAD: %v, %v", resp, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://text.test/", nil)
		if _, err := rt.RoundTrip(req); !errors.Is(err, context.Canceled) {
			t.Errorf("a request given up before: %v", err)
		}
		time.Sleep(2 * time.Hour) // the late handler ends
	})
}

// TestOverSockets is the emulator as people reach it: a server, and an endpoint that is notified, on loopback.
func TestOverSockets(t *testing.T) {
	w := &world{t: t}
	hook := httptest.NewServer(w)
	defer hook.Close()
	var s *Server
	graph := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { s.ServeHTTP(rw, r) }))
	defer graph.Close()
	s = New(Options{Root: graph.URL})
	w.Server, w.root, w.rt = s, graph.URL+"/v1.0", http.DefaultTransport
	w.user = w.AddUser(mailbox)
	w.token = w.login()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	arrived := make(chan struct{}, 8)
	if r := w.subscribe("/messages", "created", "notificationUrl", `"`+hook.URL+`/n"`, "lifecycleNotificationUrl", `"`+hook.URL+`/l"`); r.status != 201 {
		t.Fatalf("subscribe: %d %s", r.status, r.raw)
	}
	w.setHook(func(rw http.ResponseWriter, r *http.Request) {
		w.keep(r)
		rw.WriteHeader(202)
		arrived <- struct{}{}
	})
	id := w.deliver("x")
	<-arrived
	if w.got[0].data("id") != id {
		t.Errorf("notified of %v, want %s", w.got, id)
	}
	path := "/users/" + mailbox + "/messages/" + id
	if r := w.get(path); r.text("id") != id {
		t.Errorf("message %s", r.raw)
	}
	wantError(t, "a slash in an id", w.get("/users/"+mailbox+"/messages/AA%2Fz"), 400, "RequestBroker--ParseUri")
	w.FailNext("", 1, Fault{Truncate: true})
	if _, err := w.try("GET", w.root+path, "", "Authorization", "Bearer "+w.token, "Prefer", `IdType="ImmutableId"`); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %v", err)
	}
	w.FailNext("", 2, Fault{}) // net/http tries a GET again on a new connection
	if _, err := w.try("GET", w.root+path, ""); err == nil {
		t.Error("no answer: no error")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if v := w.Violations(); len(v) != 0 {
		t.Errorf("%q", v)
	}
}
