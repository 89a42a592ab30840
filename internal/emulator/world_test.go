package emulator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is an emulator in a bubble with one mailbox, a client of it, and an endpoint that keeps what is posted to it.
type world struct {
	*Server
	t     *testing.T
	user  User
	root  string // of Graph
	rt    http.RoundTripper
	token string

	mu     sync.Mutex
	hook   http.HandlerFunc // nil: 202
	got    []item
	posts  []int // items by POST
	checks []string
}

// item is a notification as it arrived.
type item map[string]any

func (i item) text(name string) string { s, _ := i[name].(string); return s }
func (i item) data(name string) string {
	d, _ := i["resourceData"].(map[string]any)
	s, _ := d[name].(string)
	return s
}

const mailbox = "sales@contoso.com"

// inBubble runs a test in a bubble. Violations that the test does not forget fail it.
func inBubble(t *testing.T, o Options, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
		time.Sleep(time.Minute) // handlers that are slower than their callers end
		if v := w.Violations(); len(v) > 0 {
			t.Errorf("violations: %q", v)
		}
	})
}

func newWorld(t *testing.T, o Options) *world {
	w := &world{t: t}
	if o.TokenLifetime == 0 {
		o.TokenLifetime = 1000 * time.Hour // tests of tokens choose theirs
	}
	o.Delivery = HandlerTransport(map[string]http.Handler{"hook.test": w})
	w.Server = New(o)
	w.root = w.opts.Root + "/v1.0"
	w.user = w.AddUser(mailbox)
	w.rt = HandlerTransport(map[string]http.Handler{"graph.test": w.Server})
	w.token = w.login()
	return w
}

// ServeHTTP is the endpoint that is notified.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	hook := w.hook
	w.mu.Unlock()
	if token := r.URL.Query().Get("validationToken"); token != "" && hook == nil {
		w.mu.Lock()
		w.checks = append(w.checks, r.URL.RequestURI())
		w.mu.Unlock()
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(rw, token)
		return
	}
	if hook != nil {
		hook(rw, r)
		return
	}
	w.keep(r)
	rw.WriteHeader(http.StatusAccepted)
}

func (w *world) keep(r *http.Request) {
	var body struct{ Value []item }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.t.Errorf("notification: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, body.Value...)
	w.posts = append(w.posts, len(body.Value))
}

func (w *world) setHook(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = h
}

// received waits until nothing more happens by itself and takes what arrived.
func (w *world) received() []item {
	time.Sleep(3 * time.Second)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got, w.posts = nil, nil
	return got
}

func (w *world) login() string {
	w.t.Helper()
	r := w.tokenRequest(w.opts.Tenant, nil)
	if r.status != http.StatusOK {
		w.t.Fatalf("token: %d %s", r.status, r.raw)
	}
	return r.text("access_token")
}

// tokenRequest asks for a token with one form value changed for each of edit.
func (w *world) tokenRequest(tenant string, edit map[string]string) reply {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {w.opts.ClientID}, "client_secret": {w.opts.ClientSecret},
		"scope": {w.opts.Root + "/.default"},
	}
	for k, v := range edit {
		form.Set(k, v)
		if v == "" {
			form.Del(k)
		}
	}
	return w.send(http.MethodPost, w.opts.Root+"/"+tenant+"/oauth2/v2.0/token", form.Encode(),
		"Content-Type", "application/x-www-form-urlencoded")
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (r reply) text(name string) string { s, _ := r.body[name].(string); return s }

func (r reply) code() string {
	e, _ := r.body["error"].(map[string]any)
	s, _ := e["code"].(string)
	return s
}

func (r reply) message() string {
	e, _ := r.body["error"].(map[string]any)
	s, _ := e["message"].(string)
	return s
}

func (r reply) values() (out []item) {
	list, _ := r.body["value"].([]any)
	for _, v := range list {
		m, _ := v.(map[string]any)
		out = append(out, item(m))
	}
	return out
}

// send makes a request without anything added.
func (w *world) send(method, target, body string, headers ...string) reply {
	w.t.Helper()
	r, err := w.try(method, target, body, headers...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, target, err)
	}
	return r
}

func (w *world) try(method, target, body string, headers ...string) (r reply, err error) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, strings.ReplaceAll(target, " ", "%20"), strings.NewReader(body))
	if err != nil {
		return r, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.rt.RoundTrip(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return r, err
	}
	r = reply{status: resp.StatusCode, header: resp.Header, raw: string(b)}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &r.body); err != nil {
			r.body = nil
		}
	}
	return r, nil
}

// call makes a request to Graph as a good client does. target is a path below the root, or a link.
func (w *world) call(method, target, body string, headers ...string) reply {
	w.t.Helper()
	if !strings.HasPrefix(target, "http") {
		target = w.root + target
	}
	h := []string{"Authorization", "Bearer " + w.token, "Prefer", `IdType="ImmutableId", odata.maxpagesize=100`}
	if body != "" {
		h = append(h, "Content-Type", "application/json")
	}
	return w.send(method, target, body, append(h, headers...)...)
}

func (w *world) get(target string) reply { w.t.Helper(); return w.call(http.MethodGet, target, "") }

// subscribe makes a subscription on a resource below the mailbox, for example "/messages".
func (w *world) subscribe(below string, changeTypes string, edit ...string) reply {
	w.t.Helper()
	return w.call(http.MethodPost, "/subscriptions", w.subscription(below, changeTypes, edit...))
}

// subscription is the body of a POST; edit are names and JSON values, an empty one takes the name away.
func (w *world) subscription(below, changeTypes string, edit ...string) string {
	body := map[string]json.RawMessage{}
	set := func(name, value string) { b, _ := json.Marshal(value); body[name] = b }
	set("resource", "users/"+w.user.ID+below)
	set("changeType", changeTypes)
	set("notificationUrl", "http://hook.test/n?x=1")
	set("lifecycleNotificationUrl", "http://hook.test/l")
	set("clientState", "secret")
	set("expirationDateTime", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	for i := 0; i < len(edit); i += 2 {
		body[edit[i]] = json.RawMessage(edit[i+1])
		if edit[i+1] == "" {
			delete(body, edit[i])
		}
	}
	b, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *world) deliver(subject string) string {
	w.t.Helper()
	id, err := w.Deliver(mailbox, Mail{Subject: subject, From: Address{Name: "Dana", Address: "dana@contoso.com"}, Body: "Hello"})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// wantViolation checks that exactly one violation with this beginning was noted, and forgets it.
func (w *world) wantViolation(beginning string) {
	w.t.Helper()
	v := w.Violations()
	if len(v) != 1 || !strings.HasPrefix(v[0], beginning) {
		w.t.Errorf("violations %q, want one beginning with %q", v, beginning)
	}
	w.ForgetViolations()
}

func wantError(t *testing.T, what string, r reply, status int, code string) {
	t.Helper()
	if r.status != status || r.code() != code {
		t.Errorf("%s: %d %s (%s), want %d %s", what, r.status, r.code(), r.message(), status, code)
	}
}

// round reads a delta round from a link or path to its end.
func (w *world) round(target string) (items []item, deltaLink string, pages int) {
	w.t.Helper()
	for {
		r := w.get(target)
		if r.status != http.StatusOK {
			w.t.Fatalf("delta: %d %s", r.status, r.raw)
		}
		pages++
		items = append(items, r.values()...)
		next, delta := r.text("@odata.nextLink"), r.text("@odata.deltaLink")
		if (next == "") == (delta == "") {
			w.t.Fatalf("page has next %q and delta %q, want one of them", next, delta)
		}
		if delta != "" {
			return items, delta, pages
		}
		target = next
	}
}

func (w *world) inbox() string { return "/users/" + w.user.ID + "/mailFolders/inbox" }

func TestWholePath(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		if r := w.subscribe("/mailFolders('Inbox')/messages", "created,updated,deleted"); r.status != http.StatusCreated {
			t.Fatalf("subscribe: %d %s", r.status, r.raw)
		}
		if len(w.checks) != 2 {
			t.Errorf("%d handshakes, want 2: %q", len(w.checks), w.checks)
		}
		id := w.deliver("first")
		got := w.received()
		if len(got) != 1 || got[0].text("changeType") != "created" || got[0].data("id") != id || got[0].text("clientState") != "secret" {
			t.Fatalf("notifications %v, want one created of %s", got, id)
		}
		r := w.get("/users/" + mailbox + "/messages/" + id)
		if r.text("subject") != "first" || r.text("@odata.etag") != got[0].data("@odata.etag") {
			t.Errorf("message %s, want subject first and the etag of %v", r.raw, got[0])
		}
		items, link, _ := w.round(w.inbox() + "/messages/delta?$select=subject,isRead")
		if len(items) != 1 || items[0].text("id") != id {
			t.Errorf("delta %v, want %s", items, id)
		}
		read := true
		w.do(w.Update(mailbox, id, Patch{IsRead: &read}))
		items, _, _ = w.round(link)
		if want := fmt.Sprintf("[%s true]", id); len(items) != 1 || fmt.Sprint([]any{items[0]["id"], items[0]["isRead"]}) != want || items[0]["subject"] != nil {
			t.Errorf("second round %v, want only what changed: %s", items, want)
		}
		if !w.Idle() && len(w.received()) != 1 {
			t.Error("the update was not notified")
		}
	})
}
