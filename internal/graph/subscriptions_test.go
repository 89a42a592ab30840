package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCreateSubscription(t *testing.T) {
	var sent map[string]any
	var prefer string
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		if r.Method != "POST" || r.URL.String() != root+"/subscriptions" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		prefer = r.Header.Get("Prefer")
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		return answer(201, string(payload(t, "subscription-create-response-outlook-basic-201.json"))), nil
	})
	got, err := c.CreateSubscription(t.Context(), "sales@contoso.com", Subscription{
		Resource: "users/sales@contoso.com/mailFolders/inbox/messages", ChangeType: "created,updated,deleted", ClientState: "secret",
		NotificationURL: "https://hook.example.com/graph/notifications", LifecycleURL: "https://hook.example.com/graph/lifecycle",
		ExpiresAt: time.Date(2026, 12, 1, 2, 0, 0, 9, time.FixedZone("", 2*3600)),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"resource": "users/sales@contoso.com/mailFolders/inbox/messages", "changeType": "created,updated,deleted", "clientState": "secret",
		"notificationUrl": "https://hook.example.com/graph/notifications", "lifecycleNotificationUrl": "https://hook.example.com/graph/lifecycle",
		"expirationDateTime": "2026-12-01T00:00:00Z", "latestSupportedTlsVersion": "v1_2",
	}
	if fmt.Sprint(sent) != fmt.Sprint(want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
	if prefer != `IdType="ImmutableId"` {
		t.Errorf("Prefer %q", prefer)
	}
	granted := time.Date(2022, 1, 1, 21, 42, 18, 225776800, time.UTC)
	if got.ID != "5522bd62-7c96-4530-85b0-00b916f6151a" || got.ExpiresAt != granted || got.ClientState != "secretClientState" {
		t.Errorf("got %#v", got)
	}
	for _, s := range []string{got.String(), fmt.Sprintf("%v %+v %#v", got, got, got)} {
		if strings.Contains(s, "secretClientState") || strings.Contains(s, "webhook") {
			t.Errorf("prints %q", s)
		}
	}
}

func TestSentPropertiesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	files, _ := filepath.Glob("testdata/subscription-create-request*.json")
	for _, f := range files {
		var m map[string]any
		if err := json.Unmarshal(payload(t, filepath.Base(f)), &m); err != nil {
			t.Fatal(err)
		}
		for k := range m {
			documented[k] = true
		}
	}
	b, _ := json.Marshal(subscriptionJSON{"", "r", "c", "n", "l", "s", "e", "", "t"})
	var sent map[string]any
	if err := json.Unmarshal(b, &sent); err != nil || len(sent) != 7 {
		t.Fatalf("%v: %s", err, b)
	}
	for k := range sent {
		if !documented[k] {
			t.Errorf("property %s is in no sample of %d", k, len(files))
		}
	}
}

func TestSubscriptionAnswers(t *testing.T) {
	tests := map[string]struct{ id, expires string }{
		"subscription-create-response-201.json":                     {"7f105c7d-2dc5-4530-97cd-4e7ae6534c07", "2016-11-20T18:23:45.9356913Z"},
		"subscription-create-response-outlook-basic-201.json":       {"5522bd62-7c96-4530-85b0-00b916f6151a", "2022-01-01T21:42:18.2257768Z"},
		"subscription-create-response-outlook-rich-201.json":        {"", ""},
		"subscription-create-response-outlook-rich-filter-201.json": {"", ""},
		"subscription-create-response-rich-teams-201.json":          {"", ""},
		"subscription-get-response.json":                            {"7f105c7d-2dc5-4530-97cd-4e7ae6534c07", "2016-11-20T18:23:45.9356913Z"},
		"subscription-patch-response-200.json":                      {"7f105c7d-2dc5-4530-97cd-4e7ae6534c07", "2016-11-22T18:23:45.9356913Z"},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			var raw map[string]any
			if err := json.Unmarshal(payload(t, name), &raw); err != nil {
				t.Fatal(err)
			}
			if _, ok := raw["id"]; !ok {
				_, err := newClient(t, replay(201, string(payload(t, name)))).RenewSubscription(t.Context(), "x", time.Now())
				if !errors.Is(err, errNotSubscription) {
					t.Errorf("without an id: %v", err)
				}
				return
			}
			if want.id == "" {
				want.id, want.expires = raw["id"].(string), raw["expirationDateTime"].(string)
			}
			at, err := time.Parse(time.RFC3339, want.expires)
			if err != nil {
				t.Fatal(err)
			}
			s, err := newClient(t, replay(200, string(payload(t, name)))).RenewSubscription(t.Context(), "x", time.Now())
			if err != nil || s.ID != want.id || !s.ExpiresAt.Equal(at) || s.Resource != raw["resource"] || s.ApplicationID != raw["applicationId"] {
				t.Errorf("got %+v %v, %v", s, s.Resource, err)
			}
		})
	}
}

func TestUnreadableSubscriptions(t *testing.T) {
	tests := map[string]string{
		"HTML":           "<html>",
		"empty":          "",
		"cut off":        `{"id":"1","expirationDateTime":"2026-`,
		"no id":          `{"expirationDateTime":"2026-12-01T00:00:00Z"}`,
		"no expiry":      `{"id":"1"}`,
		"expiry unclear": `{"id":"1","expirationDateTime":"tomorrow"}`,
		"another type":   `{"id":{"a":"canary"}}`,
		"an array":       `[]`,
	}
	for name, body := range tests {
		c := newClient(t, replay(201, body))
		_, err := c.CreateSubscription(t.Context(), "m", Subscription{})
		if is(t, err, ErrUnavailable); strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v quotes the answer", name, err)
		}
	}
}

func TestSubscriptionNeedsMailbox(t *testing.T) {
	_, err := newClient(t, replay(500, "")).CreateSubscription(t.Context(), "", Subscription{})
	is(t, err, ErrBadRequest)
}

func TestManageSubscriptions(t *testing.T) {
	var method, path, body string
	status := 204
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		method, path, body = r.Method, strings.TrimPrefix(r.URL.String(), root), ""
		if r.Body != nil {
			b, _ := io.ReadAll(r.Body)
			body = string(b)
		}
		if status == 404 {
			return answer(404, `{"error":{"code":"ResourceNotFound"}}`), nil
		}
		return answer(status, `{"id":"s/1","expirationDateTime":"2026-12-01T02:00:00+02:00"}`), nil
	})
	expect := func(m, p, b string) {
		t.Helper()
		if method != m || path != p || body != b {
			t.Errorf("sent %s %s %s, want %s %s %s", method, path, body, m, p, b)
		}
	}
	if err := c.ReauthorizeSubscription(t.Context(), "s1"); err != nil {
		t.Error(err)
	}
	expect("POST", "/subscriptions/s1/reauthorize", "")
	if err := c.DeleteSubscription(t.Context(), "s1"); err != nil {
		t.Error(err)
	}
	expect("DELETE", "/subscriptions/s1", "")
	status = 200
	s, err := c.RenewSubscription(t.Context(), "s1", time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || s.ExpiresAt != time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("renewed %v, %v", s, err)
	}
	expect("PATCH", "/subscriptions/s1", `{"expirationDateTime":"2026-12-01T00:00:00Z"}`)
	status = 404
	if err := c.DeleteSubscription(t.Context(), "s1"); err != nil {
		t.Errorf("deleting what is gone = %v", err)
	}
	_, err = c.RenewSubscription(t.Context(), "s1", time.Now())
	is(t, err, ErrNotFound)
	is(t, c.ReauthorizeSubscription(t.Context(), "s1"), ErrNotFound)
	status = 500
	is(t, c.DeleteSubscription(t.Context(), "s1"), ErrUnavailable)
}

func TestListSubscriptions(t *testing.T) {
	first := strings.Replace(string(payload(t, "subscription-list-response.json")), `"value"`, `"@odata.nextLink":"`+root+`/subscriptions?$skiptoken=2","value"`, 1)
	w, _ := script(t, map[string]string{
		"GET /subscriptions":              first,
		"GET /subscriptions?$skiptoken=2": `{"value":[{"id":"2","resource":"r","expirationDateTime":"2026-12-01T00:00:00Z"}]}`,
	})
	got, err := newClient(t, w).ListSubscriptions(t.Context())
	if err != nil || len(got) != 2 || got[0].ID != "0fc0d6db-0073-42e5-a186-853da75fb308" || got[0].ClientState != "" || got[1].ID != "2" {
		t.Fatalf("ListSubscriptions = %v, %v", got, err)
	}
	_, err = newClient(t, replay(200, `{"value":[{"id":"2"}]}`)).ListSubscriptions(t.Context())
	if !errors.Is(err, errNotSubscription) {
		t.Errorf("without an expiry: %v", err)
	}
}

func TestSubscriptionRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, replay(200, `{"value":[]}`))
		begun := time.Now()
		for range 220 {
			if err := c.ReauthorizeSubscription(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("220 writes took %v, want 10 s: 20 at once, then 20 a second", took)
		}
		begun = time.Now()
		for range 12 {
			if _, err := c.ListSubscriptions(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("12 lists took %v, want 10 s: 2 at once, then one a second", took)
		}
	})
}

func TestThrottledSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := "20"
		n := 0
		c := newClient(t, func(*http.Request) (*http.Response, error) {
			n++
			if n == 1 {
				return answer(429, "", "Retry-After: "+wait), nil
			}
			return answer(200, `{"value":[]}`), nil
		})
		begun := time.Now()
		is(t, c.ReauthorizeSubscription(t.Context(), "a"), ErrThrottled)
		if _, err := c.ListSubscriptions(t.Context()); err != nil || time.Since(begun) != 20*time.Second {
			t.Errorf("listing waited %v, %v, want 20 s", time.Since(begun), err)
		}
		n, wait = 0, "120"
		is(t, c.ReauthorizeSubscription(t.Context(), "a"), ErrThrottled)
		err := c.DeleteSubscription(t.Context(), "b")
		is(t, err, ErrThrottled)
		if wait, ok := Retryable(err); !ok || wait != 2*time.Minute || n != 1 {
			t.Errorf("told to wait %v (%v) after %d requests", wait, ok, n)
		}
	})
}
