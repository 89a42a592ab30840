package emulator

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSubscriptionIsShownAsGraphDoes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		r := w.subscribe("/messages", "created")
		if r.status != 201 || r.text("clientState") != "secret" || r.text("expirationDateTime") != "2000-01-01T01:00:00.0000000Z" || r.text("applicationId") != DefaultClientID {
			t.Errorf("created %d %s", r.status, r.raw)
		}
		id := r.text("id")
		if r := w.get("/subscriptions/" + id); r.status != 200 || r.text("id") != id || r.body["clientState"] != nil {
			t.Errorf("one %s", r.raw)
		}
		if list := w.get("/subscriptions").values(); len(list) != 1 || list[0].text("id") != id || list[0]["clientState"] != nil {
			t.Errorf("list %v", list)
		}
		info := w.Subscriptions()
		if len(info) != 1 || info[0].ID != id || info[0].User != w.user.ID || info[0].ClientState != "secret" || info[0].LifecycleURL != "http://hook.test/l" {
			t.Errorf("info %+v", info)
		}
		if r := w.call("DELETE", "/subscriptions/"+id, ""); r.status != 204 || r.raw != "" {
			t.Errorf("delete %d %s", r.status, r.raw)
		}
		wantError(t, "deleted again", w.call("DELETE", "/subscriptions/"+id, ""), 404, "ResourceNotFound")
		wantError(t, "read after that", w.get("/subscriptions/"+id), 404, "ResourceNotFound")
		wantError(t, "list with options", w.get("/subscriptions?$top=5"), 400, "BadRequest")
		w.wantViolation("R-14: ")
		wantError(t, "another method", w.call("PUT", "/subscriptions/"+id, "{}"), 405, "Request_BadRequest")
	})
}

func TestSubscriptionListPages(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.AllowDuplicates = true })
		for range 250 {
			w.subscribe("/messages", "created", "lifecycleNotificationUrl", "")
		}
		n, pages := 0, 0
		for target := "/subscriptions"; target != ""; pages++ {
			r := w.get(target)
			n += len(r.values())
			target = r.text("@odata.nextLink")
		}
		if n != 250 || pages != 3 {
			t.Errorf("%d subscriptions on %d pages, want 250 on 3", n, pages)
		}
	})
}

func TestSubscriptionBodiesAreCheckedStrictly(t *testing.T) {
	for _, c := range []struct {
		name, name1, value, code string
		status                   int
		violation                string
	}{
		{"no change type", "changeType", "", "InvalidRequest", 400, ""},
		{"unknown change type", "changeType", `"created,moved"`, "InvalidRequest", 400, ""},
		{"no URL", "notificationUrl", "", "InvalidRequest", 400, ""},
		{"http on the internet", "notificationUrl", `"http://contoso.com/n"`, "InvalidRequest", 400, ""},
		{"not a URL", "notificationUrl", `"hook"`, "InvalidRequest", 400, ""},
		{"lifecycle URL on the internet", "lifecycleNotificationUrl", `"http://203.0.113.9/n"`, "InvalidRequest", 400, ""},
		{"no resource", "resource", "", "InvalidRequest", 400, ""},
		{"misspelled", "clientstate2", `"x"`, "InvalidRequest", 400, ""},
		{"no client state", "clientState", "", "", 201, "S-12: subscription without"},
		{"long client state", "clientState", `"` + strings.Repeat("x", 129) + `"`, "InvalidRequest", 400, "S-12: clientState has more"},
		{"TLS version", "latestSupportedTlsVersion", `"v1_4"`, "InvalidRequest", 400, ""},
		{"query options", "notificationQueryOptions", `"x"`, "InvalidRequest", 400, "S-17"},
		{"rich", "includeResourceData", `true`, "NotImplemented", 501, ""},
		{"not rich", "includeResourceData", `false`, "", 201, ""},
		{"own id", "applicationId", `"x"`, "InvalidRequest", 400, ""},
		{"wrong type", "expirationDateTime", `5`, "InvalidRequest", 400, ""},
		{"time without zone", "expirationDateTime", `"2000-01-02T00:00:00"`, "InvalidRequest", 400, "S-11"},
		{"offset", "expirationDateTime", `"2000-01-01T05:00:00+01:00"`, "", 201, ""},
		{"too far", "expirationDateTime", `"2000-01-09T00:00:00Z"`, "ExtensionError", 400, ""},
		{"as far as can be", "expirationDateTime", `"2000-01-08T00:00:00Z"`, "", 201, ""},
		{"me", "resource", `"me/messages"`, "BadRequest", 400, ""},
		{"absolute resource", "resource", `"https://graph.microsoft.com/v1.0/users/x/messages"`, "ExtensionError", 400, ""},
		{"leading slash, other case, by address", "resource", `"/Users/` + mailbox + `/MailFolders('INBOX')/Messages"`, "", 201, ""},
		{"stranger", "resource", `"users/nobody@x.y/messages"`, "ResourceNotFound", 404, ""},
		{"one message", "resource", `"users/` + mailbox + `/messages/x"`, "ExtensionError", 400, ""},
		{"events", "resource", `"users/` + mailbox + `/events"`, "", 201, ""},
		{"one event", "resource", `"users/` + mailbox + `/events/x"`, "ExtensionError", 400, ""},
		{"one calendar", "resource", `"users/` + mailbox + `/calendars/x/events"`, "ExtensionError", 400, "S-27: "},
		{"the default calendar", "resource", `"users/` + mailbox + `/calendar/events"`, "ExtensionError", 400, "S-27: "},
		{"contacts", "resource", `"users/` + mailbox + `/contacts"`, "NotImplemented", 501, ""},
		{"display name", "resource", `"users/` + mailbox + `/mailFolders/Invoices/messages"`, "ExtensionError", 400, ""},
		{"absent folder", "resource", `"users/` + mailbox + `/mailFolders/clutter/messages"`, "ErrorItemNotFound", 404, ""},
		{"select", "resource", `"users/` + mailbox + `/messages?$select=subject"`, "", 201, ""},
		{"filter", "resource", `"users/` + mailbox + `/messages?$filter=isRead eq false"`, "NotImplemented", 501, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, w *world) {
				r := w.subscribe("/messages", "created", c.name1, c.value)
				wantError(t, c.name, r, c.status, c.code)
				if c.violation != "" {
					w.wantViolation(c.violation)
				}
				if want := map[bool]int{true: 1}[c.status == 201]; len(w.Subscriptions()) != want {
					t.Errorf("%d subscriptions, want %d", len(w.Subscriptions()), want)
				}
			})
		})
	}
}

func TestSubscriptionRequestMustBeJSON(t *testing.T) {
	inBubble(t, Options{RequireHTTPS: true}, func(t *testing.T, w *world) {
		for name, r := range map[string]reply{
			"no content type": w.call("POST", "/subscriptions", w.subscription("/messages", "created"), "Content-Type", ""),
			"cut":             w.call("POST", "/subscriptions", `{"changeType":`),
			"two":             w.call("POST", "/subscriptions", `{}{}`),
			"a list":          w.call("POST", "/subscriptions", `[]`),
			"nothing":         w.call("POST", "/subscriptions", "", "Content-Type", "application/json"),
			"http":            w.subscribe("/messages", "created"),
		} {
			wantError(t, name, r, 400, "InvalidRequest")
		}
		w.send("POST", w.root+"/subscriptions", w.subscription("/messages", "created"), "Authorization", "Bearer "+w.token, "Content-Type", "application/json")
		w.wantViolation("N-20: ")
	})
}

func TestHandshake(t *testing.T) {
	plain := func(rw http.ResponseWriter, body string) {
		rw.Header().Set("Content-Type", "text/plain")
		io.WriteString(rw, body)
	}
	for _, c := range []struct {
		name      string
		hook      http.HandlerFunc
		code      string
		violation string
	}{
		{"right", func(rw http.ResponseWriter, r *http.Request) { plain(rw, r.URL.Query().Get("validationToken")) }, "", ""},
		{"9 seconds", func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(9 * time.Second)
			plain(rw, r.URL.Query().Get("validationToken"))
		}, "", ""},
		{"11 seconds", func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(11 * time.Second)
			plain(rw, r.URL.Query().Get("validationToken"))
		}, "InvalidRequest", ""},
		{"not decoded", func(rw http.ResponseWriter, r *http.Request) {
			_, raw, _ := strings.Cut(r.URL.RawQuery, "validationToken=")
			plain(rw, raw)
		}, "ValidationError", "N-4"},
		{"decoded twice", func(rw http.ResponseWriter, r *http.Request) {
			plain(rw, strings.ReplaceAll(strings.ReplaceAll(r.URL.Query().Get("validationToken"), "%2B", "+"), "+", " "))
		}, "ValidationError", "N-4"},
		{"quoted", func(rw http.ResponseWriter, r *http.Request) {
			plain(rw, `"`+r.URL.Query().Get("validationToken")+`"`)
		}, "ValidationError", "N-4"},
		{"JSON", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			io.WriteString(rw, r.URL.Query().Get("validationToken"))
		}, "ValidationError", "N-4"},
		{"202", func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(202)
			io.WriteString(rw, r.URL.Query().Get("validationToken"))
		}, "ValidationError", ""},
		{"redirect", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/x", http.StatusTemporaryRedirect)
		}, "ValidationError", ""},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "ValidationError", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, w *world) {
				var requests []*http.Request
				w.setHook(func(rw http.ResponseWriter, r *http.Request) {
					w.mu.Lock()
					requests = append(requests, r)
					w.mu.Unlock()
					c.hook(rw, r)
				})
				r := w.subscribe("/messages", "created")
				w.mu.Lock()
				seen := slices.Clone(requests)
				w.mu.Unlock()
				if r.code() != c.code || (r.status == 201) != (c.code == "") || len(w.Subscriptions()) > 0 != (c.code == "") {
					t.Errorf("%d %s, want code %q", r.status, r.raw, c.code)
				}
				if c.violation != "" {
					w.wantViolation(c.violation)
				}
				if want := map[bool]int{true: 2, false: 1}[c.code == ""]; len(seen) != want {
					t.Fatalf("%d handshakes, want %d", len(seen), want)
				}
				first := seen[0]
				token := first.URL.Query().Get("validationToken")
				for _, sign := range []string{" ", "+", ":", "%"} {
					if !strings.Contains(token, sign) {
						t.Errorf("token %q has no %q", token, sign)
					}
				}
				if first.Method != "POST" || first.URL.Query().Get("x") != "1" || first.Header.Get("Content-Type") != "text/plain; charset=utf-8" || first.UserAgent() != "" {
					t.Errorf("handshake %s %s %v", first.Method, first.URL, first.Header)
				}
				if strings.Contains(first.URL.RawQuery, " ") || !strings.HasPrefix(first.URL.RawQuery, "x=1&validationToken=") {
					t.Errorf("query %q", first.URL.RawQuery)
				}
			})
		})
	}
}

func TestSubscriptionsAreValidatedWhileThePostIsOpen(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		release := make(chan struct{})
		w.setHook(func(rw http.ResponseWriter, r *http.Request) {
			<-release
			rw.Header().Set("Content-Type", "text/plain")
			io.WriteString(rw, r.URL.Query().Get("validationToken"))
		})
		done := make(chan reply)
		go func() { done <- w.subscribe("/messages", "created") }()
		time.Sleep(time.Second)
		if r := w.get("/subscriptions"); r.status != 200 || len(r.values()) != 0 {
			t.Errorf("while the handshake is open: %s", r.raw)
		}
		close(release)
		if r := <-done; r.status != 201 {
			t.Errorf("%d %s", r.status, r.raw)
		}
	})
}

func TestExpiryIsGrantedAsGraphDoes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		r := w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-01T00:01:00Z"`)
		if got := r.text("expirationDateTime"); got != "2000-01-01T00:45:00.0000000Z" {
			t.Errorf("a minute is raised to %s, want 45 minutes (S-6)", got)
		}
		w.SetFaults(func(f *Faults) { f.GrantAtMost = 2 * time.Hour })
		id := r.text("id")
		r = w.call("PATCH", "/subscriptions/"+id, `{"expirationDateTime":"2000-01-06T00:00:00Z"}`)
		if got := r.text("expirationDateTime"); r.status != 200 || got != "2000-01-01T02:00:00.0000000Z" {
			t.Errorf("granted %s, want less than was asked (S-9)", got)
		}
		wantError(t, "PATCH too far", w.call("PATCH", "/subscriptions/"+id, `{"expirationDateTime":"2000-02-01T00:00:00Z"}`), 400, "ExtensionError")
		time.Sleep(2*time.Hour - time.Second)
		if r := w.get("/subscriptions/" + id); r.status != 200 {
			t.Errorf("before its end: %d", r.status)
		}
		w.deliver("in time")
		time.Sleep(time.Second)
		wantError(t, "after its end", w.get("/subscriptions/"+id), 404, "ResourceNotFound")
		wantError(t, "renewed after its end", w.call("PATCH", "/subscriptions/"+id, `{"expirationDateTime":"2000-01-02T00:00:00Z"}`), 404, "ResourceNotFound")
		w.deliver("too late")
		if got := w.received(); len(got) != 1 {
			t.Errorf("%d notifications, want the one in time: %v", len(got), got)
		}
		if len(w.Subscriptions()) != 0 {
			t.Errorf("left: %v", w.Subscriptions())
		}
	})
}

func TestRenewalIsCheckedStrictly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.subscribe("/messages", "created").text("id")
		patch := func(body string) reply { return w.call("PATCH", "/subscriptions/"+id, body) }
		wantError(t, "nothing", patch(`{}`), 400, "InvalidRequest")
		w.wantViolation("R-2: ")
		wantError(t, "client state", patch(`{"expirationDateTime":"2000-01-02T00:00:00Z","clientState":"x"}`), 400, "InvalidRequest")
		w.wantViolation("R-4: ")
		wantError(t, "misspelled", patch(`{"expirationDatetimes":"2000-01-02T00:00:00Z"}`), 400, "InvalidRequest")
		wantError(t, "URL on the internet", patch(`{"notificationUrl":"http://contoso.com"}`), 400, "InvalidRequest")
		wantError(t, "URL that does not answer", patch(`{"notificationUrl":"http://nowhere.test"}`), 400, "ValidationError")
		before := len(w.checks)
		if r := patch(`{"notificationUrl":"http://hook.test/other"}`); r.status != 200 || len(w.checks) != before+1 {
			t.Errorf("new URL: %d %s, %d handshakes", r.status, r.raw, len(w.checks)-before)
		}
		if r := patch(`{"expirationDateTime":"2000-01-02T00:00:00Z"}`); r.status != 200 || r.text("expirationDateTime") != "2000-01-02T00:00:00.0000000Z" {
			t.Errorf("renewal: %d %s", r.status, r.raw)
		}
		info := w.Subscriptions()[0]
		if info.Renewals != 2 || info.NotificationURL != "http://hook.test/other" {
			t.Errorf("info %+v", info)
		}
		w.do(w.SetAccess(mailbox, Denied))
		wantError(t, "access taken away", patch(`{"expirationDateTime":"2000-01-02T00:00:00Z"}`), 403, "ExtensionError")
		time.Sleep(10 * time.Minute)
		wantError(t, "reauthorize then", w.call("POST", "/subscriptions/"+id+"/reauthorize", ""), 403, "ExtensionError")
	})
}

func TestPatchAndReauthorizeMustKeepApart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id := w.subscribe("/messages", "created").text("id")
		patch := func() { w.call("PATCH", "/subscriptions/"+id, `{"expirationDateTime":"2000-01-02T00:00:00Z"}`) }
		reauthorize := func() {
			if r := w.call("POST", "/subscriptions/"+id+"/reauthorize", ""); r.status != 204 || r.raw != "" {
				t.Errorf("reauthorize: %d %s", r.status, r.raw)
			}
		}
		patch()
		time.Sleep(10 * time.Minute)
		reauthorize()
		time.Sleep(10 * time.Minute)
		patch()
		patch()
		if v := w.Violations(); len(v) != 0 {
			t.Errorf("ten minutes apart: %q", v)
		}
		time.Sleep(9 * time.Minute)
		reauthorize()
		w.wantViolation("R-8: PATCH and reauthorize of " + id)
		time.Sleep(9 * time.Minute)
		patch()
		w.wantViolation("R-8: PATCH and reauthorize of " + id)
		if info := w.Subscriptions()[0]; info.Renewals != 4 || info.Reauthorized != 2 {
			t.Errorf("info %+v", info)
		}
		wantError(t, "of nothing", w.call("POST", "/subscriptions/x/reauthorize", ""), 404, "ResourceNotFound")
	})
}

func TestDuplicatesAreFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		first := w.subscribe("/mailFolders('Inbox')/messages", "created,deleted").text("id")
		r := w.call("POST", "/subscriptions", w.subscription("", "deleted, created", "resource", `"/Users/`+w.user.ID+`/mailfolders/inbox/Messages"`))
		wantError(t, "the same in other words", r, 409, "ObjectIdentifierInUse")
		if !strings.Contains(r.message(), first) {
			t.Errorf("message %q does not name %s", r.message(), first)
		}
		for name, r := range map[string]reply{
			"another change type": w.subscribe("/mailFolders('Inbox')/messages", "created"),
			"another folder":      w.subscribe("/mailFolders('drafts')/messages", "created,deleted"),
			"the mailbox":         w.subscribe("/messages", "created,deleted"),
		} {
			if r.status != 201 {
				t.Errorf("%s: %d %s", name, r.status, r.raw)
			}
		}
		w.SetFaults(func(f *Faults) { f.AllowDuplicates = true })
		if r := w.subscribe("/messages", "created,deleted"); r.status != 201 {
			t.Errorf("a duplicate that is let through: %d %s", r.status, r.raw)
		}
	})
}

func TestAMailboxHasAtMost1000Subscriptions(t *testing.T) {
	inBubble(t, Options{NoLimits: true}, func(t *testing.T, w *world) {
		w.SetFaults(func(f *Faults) { f.AllowDuplicates = true })
		for i := range subsPerMailbox {
			if r := w.subscribe("/messages", "created"); r.status != 201 {
				t.Fatalf("%d: %d %s", i, r.status, r.raw)
			}
		}
		wantError(t, "one more", w.subscribe("/messages", "created"), 403, "Forbidden")
	})
}

func TestSubscriptionServiceThrottles(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		for range 25 {
			w.get("/subscriptions")
		}
		r := w.get("/subscriptions")
		wantError(t, "26 lists", r, 429, "TooManyRequests")
		if r.header.Get("Retry-After") != "20" {
			t.Errorf("Retry-After %q, want 20", r.header.Get("Retry-After"))
		}
		w.wantViolation("H-4: ")
		time.Sleep(20 * time.Second)
		if r := w.get("/subscriptions"); r.status != 200 {
			t.Errorf("20 s later: %d", r.status)
		}
		for i := range 501 {
			r = w.call("DELETE", fmt.Sprintf("/subscriptions/%d", i), "")
		}
		wantError(t, "501 writes", r, 429, "TooManyRequests")
		w.wantViolation("H-4: ")
	})
}

func TestPrivateHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "192.168.0.9": true, "localhost": true, "n8n": true, "hook.test": true,
		"my.internal": true, "8.8.8.8": false, "contoso.com": false, "2606:4700::1": false, "test.contoso.com": false,
	} {
		if got := isPrivateHost(host); got != want {
			t.Errorf("isPrivateHost(%q) = %v, want %v", host, got, want)
		}
	}
}
