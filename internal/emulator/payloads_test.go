package emulator

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// provoked says how each recorded error is made to happen.
var provoked = map[string]func(w *world) reply{
	"error-400-delta-not-supported.json": func(w *world) reply { return w.get("/users/" + mailbox + "/messages/delta") },
	"error-400-expiration-missing.json": func(w *world) reply {
		return w.subscribe("/messages", "created", "expirationDateTime", "")
	},
	"error-400-expiration-too-far.json": func(w *world) reply {
		return w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-08T00:00:01Z"`)
	},
	"error-400-folder-name-invalid.json": func(w *world) reply { return w.subscribe("/mailFolders('My Folder')/messages", "created") },
	"error-400-id-malformed.json":        func(w *world) reply { return w.get("/users/" + mailbox + "/messages/nonsense") },
	"error-400-payload-unparsable.json": func(w *world) reply {
		defer w.wantViolation("S-11: ")
		return w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-02T00:00:00"`)
	},
	"error-400-slash-in-id.json": func(w *world) reply { return w.get("/users/" + mailbox + "/messages/AAMk%2Fz") },
	"error-400-validation-forbidden.json": func(w *world) reply {
		w.setHook(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
		return w.subscribe("/messages", "created")
	},
	"error-400-validation-not-200.json":         badToken,
	"error-400-validation-not-200-headers.json": badToken,
	"error-400-validation-timeout.json": func(w *world) reply {
		w.setHook(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		return w.subscribe("/messages", "created")
	},
	"error-400-validation-tls.json": func(w *world) reply {
		return w.subscribe("/messages", "created", "notificationUrl", `"https://nowhere.test/"`)
	},
	"error-401-token-empty.json": func(w *world) reply { return w.send(http.MethodGet, w.root+w.inbox(), "") },
	"error-401-token-malformed.json": func(w *world) reply {
		return w.send(http.MethodGet, w.root+w.inbox(), "", "Authorization", "Bearer nonsense")
	},
	"error-403-app-access-policy.json": func(w *world) reply {
		w.do(w.SetAccess(mailbox, Denied))
		return w.get(w.inbox())
	},
	"error-403-authorization-requestdenied.json": func(w *world) reply { return w.get("/users/" + mailbox) },
	"error-403-extensionerror-forbidden.json": func(w *world) reply {
		w.do(w.SetAccess(mailbox, Denied))
		return w.subscribe("/messages", "created")
	},
	"error-404-extensionerror-mailbox.json": func(w *world) reply {
		w.do(w.SetAccess(mailbox, Unlicensed))
		return w.subscribe("/messages", "created")
	},
	"error-404-itemnotfound.json": func(w *world) reply {
		id := w.deliver("gone")
		w.do(w.Delete(mailbox, id))
		return w.get("/users/" + mailbox + "/messages/" + id)
	},
	"error-404-mailboxnotenabled.json": func(w *world) reply {
		w.do(w.SetAccess(mailbox, Unlicensed))
		return w.get(w.inbox() + "/messages")
	},
	"error-404-subscription-gone.json": func(w *world) reply {
		return w.call(http.MethodPatch, "/subscriptions/7f105c7d-2dc5-4530-97cd-4e7ae6534c07", `{"expirationDateTime":"2000-01-02T00:00:00Z"}`)
	},
	"error-409-duplicate-subscription.json": func(w *world) reply {
		w.subscribe("/messages", "created,updated")
		return w.subscribe("/messages", "updated,created")
	},
	"error-410-resyncrequired.json": func(w *world) reply {
		w.SetFaults(func(f *Faults) { f.ResyncRequired = true })
		return expiredRound(w)
	},
	"error-410-syncstatenotfound.json": expiredRound,
	"error-429-mailboxconcurrency.json": func(w *world) reply {
		w.SetFaults(func(f *Faults) { f.Latency = time.Second })
		for range perMailbox {
			go w.get(w.inbox())
		}
		time.Sleep(time.Millisecond)
		defer w.wantViolation("H-2: ")
		defer time.Sleep(2 * time.Second)
		return w.get(w.inbox())
	},
	"error-429-toomanyrequests.json": asFault(Fault{Status: 429, RetryAfter: "10"}),
	"error-500-api-quarantined.json": asFault(Fault{Status: 500, Body: `{"error":{"code":"ErrorApiQuarantined","message":"Request has been quarantined by condition."}}`}),
	"error-500-extensionerror-task-canceled.json": asFault(Fault{Status: 500,
		Body: `{"error":{"code":"ExtensionError","message":"Operation: Create; Exception: [A task was canceled.]"}}`}),
	"error-503-extensionerror-backend-unknown.json": asFault(Fault{Status: 503, Body: `{"error":{"code":"ExtensionError"}}`}),
	"error-503-extensionerror-stale.json":           asFault(Fault{Status: 503, Body: `{"error":{"code":"ExtensionError"}}`}),
}

func badToken(w *world) reply {
	w.setHook(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain")
		io.WriteString(rw, r.URL.Query().Get("validationToken")+"\n")
	})
	defer w.wantViolation("N-4: ")
	return w.subscribe("/messages", "created")
}

func expiredRound(w *world) reply {
	_, link, _ := w.round(w.inbox() + "/messages/delta")
	w.ExpireDeltaTokens()
	return w.get(link)
}

func asFault(f Fault) func(w *world) reply {
	return func(w *world) reply {
		w.FailNext("", 1, f)
		return w.get(w.inbox())
	}
}

// sameWords are recordings whose message the emulator gives word for word.
var sameWords = []string{
	"error-400-delta-not-supported.json", "error-400-expiration-missing.json", "error-400-id-malformed.json", "error-400-slash-in-id.json",
	"error-400-validation-forbidden.json", "error-400-validation-not-200.json", "error-400-validation-timeout.json",
	"error-401-token-empty.json", "error-401-token-malformed.json", "error-403-app-access-policy.json",
	"error-403-authorization-requestdenied.json", "error-403-extensionerror-forbidden.json", "error-404-extensionerror-mailbox.json",
	"error-404-itemnotfound.json", "error-404-mailboxnotenabled.json", "error-404-subscription-gone.json",
	"error-410-resyncrequired.json", "error-410-syncstatenotfound.json", "error-429-mailboxconcurrency.json", "error-429-toomanyrequests.json",
}

func TestErrorsAreThoseOfTheRecordings(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.json")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	if len(files) != len(provoked) {
		t.Errorf("%d recordings, but %d are provoked: %v", len(files), len(provoked), slices.Sorted(maps.Keys(provoked)))
	}
	for _, file := range files {
		name := filepath.Base(file)
		provoke := provoked[name]
		if provoke == nil {
			t.Errorf("nothing provokes %s", name)
			continue
		}
		var want struct {
			HTTP struct {
				Status  int
				Headers map[string]string
			} `json:"_http"`
			Body struct {
				Error struct {
					Code, Message string
					Inner         map[string]any `json:"innerError"`
				}
			}
		}
		readJSON(t, file, &want)
		t.Run(strings.TrimSuffix(name, ".json"), func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, w *world) {
				r := provoke(w)
				wantError(t, name, r, want.HTTP.Status, want.Body.Error.Code)
				if slices.Contains(sameWords, name) && r.message() != want.Body.Error.Message {
					t.Errorf("message %q, want %q", r.message(), want.Body.Error.Message)
				}
				for _, h := range []string{"Location", "Retry-After"} {
					if (want.HTTP.Headers[h] != "") != (r.header.Get(h) != "") {
						t.Errorf("header %s is %q, the recording has %q", h, r.header.Get(h), want.HTTP.Headers[h])
					}
				}
				if r.header.Get("request-id") == "" || r.header.Get("client-request-id") == "" {
					t.Errorf("headers without request ids: %v", r.header)
				}
			})
		})
	}
}

func readJSON(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// shape lists the paths of an object's properties with the JSON kinds of their values.
func shape(v any, at string, out map[string]string) map[string]string {
	if out == nil {
		out = map[string]string{}
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			shape(e, at+"/"+k, out)
		}
		out[at] = "object"
	case []any:
		out[at] = "array"
		if len(v) > 0 {
			shape(v[0], at+"[]", out)
		}
	case nil:
		out[at] = "null"
	case bool:
		out[at] = "bool"
	case string:
		out[at] = "string"
	default:
		out[at] = "number"
	}
	return out
}

func wantShape(t *testing.T, got any, file string) {
	t.Helper()
	var want any
	readJSON(t, file, &want)
	compareShapes(t, file, got, want)
}

// compareShapes compares what the emulator says with a recording; extra are paths that the recording's authors left out.
func compareShapes(t *testing.T, file string, got, want any, extra ...string) {
	t.Helper()
	g, w := shape(got, "", nil), shape(want, "", nil)
	for k, kind := range w {
		if g[k] == "" || g[k] != kind && g[k] != "null" && kind != "null" {
			t.Errorf("%s: %s is %q, want %q", file, k, g[k], kind)
		}
	}
	for k := range g {
		if w[k] == "" && !strings.Contains(k, "[]/") && !slices.Contains(extra, k) {
			t.Errorf("%s: %s is not in the recording", file, k)
		}
	}
}

func TestShapesAreThoseOfTheRecordings(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		r := w.subscribe("/messages", "created")
		wantShape(t, any(r.body), "testdata/subscription-create-response-outlook-basic-201.json")
		id, err := w.Deliver(mailbox, Mail{Subject: "x", From: Address{"A", "a@b.c"}, To: []Address{{"B", "b@b.c"}}, Body: "<p>x</p>", HTML: true})
		w.do(err)
		wantShape(t, any(w.get("/users/"+mailbox+"/messages/"+id).body), "testdata/message-get.json")
		w.SendLifecycle("reauthorizationRequired", "")
		got := w.received()
		if len(got) != 2 {
			t.Fatalf("%d items, want a notification and a lifecycle item: %v", len(got), got)
		}
		as := func(i item) any { return map[string]any{"value": []any{map[string]any(i)}} }
		for _, i := range got {
			if i["lifecycleEvent"] != nil {
				wantShape(t, as(i), "testdata/lifecycle-reauthorizationrequired.json")
				continue
			}
			wantShape(t, as(i), "testdata/notification-basic-message-outlook.json")
			wantShape(t, as(i), "testdata/recorded-notification-message-created.json")
		}
	})
}
