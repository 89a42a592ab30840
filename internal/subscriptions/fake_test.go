package subscriptions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

const (
	hook = "https://hook.test"
	conn = "contoso"
)

// fakeGraph is Graph's subscription service in memory, for faults that need a precise moment. It fails the test when it
// is used wrongly: two requests at once about one resource, a second living subscription, a bad body.
type fakeGraph struct {
	t      *testing.T
	delay  time.Duration // of every answer
	max    time.Duration // longest lifetime; longer wishes are refused
	grant  time.Duration // when set, no more is granted, in silence
	strict bool          // refuses doubles with 409, as documented; else it accepts them (S-43)

	// fault may fail a call: before it is applied, or after, so that the answer is lost.
	fault func(op, id string) (apply bool, err error)

	mu    sync.Mutex
	subs  map[string]graph.Subscription
	busy  map[string]bool
	next  int
	calls []call
}

type call struct {
	op, id string
	at     time.Time
}

func newFake(t *testing.T) *fakeGraph {
	return &fakeGraph{t: t, max: MaxLifetime, strict: true, subs: map[string]graph.Subscription{}, busy: map[string]bool{}}
}

func (f *fakeGraph) do(ctx context.Context, op, id, resource string, apply func() error) error {
	f.mu.Lock()
	f.calls = append(f.calls, call{op, id, time.Now()})
	if resource != "" && f.busy[resource] {
		f.t.Errorf("%s of %s while another request about it is under way", op, resource)
	}
	f.busy[resource] = true
	fault, delay := f.fault, f.delay
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy[resource] = false
	}()
	applied, err := true, error(nil)
	if fault != nil {
		applied, err = fault(op, id)
	}
	if applied || err == nil {
		f.mu.Lock()
		aerr := apply()
		f.mu.Unlock()
		err = cmp.Or(err, aerr)
	}
	select {
	case <-time.After(delay):
		return err
	case <-ctx.Done():
		return &graph.Error{Op: op, Err: context.Cause(ctx)}
	}
}

// expire removes what has expired, as Graph does. mu is held.
func (f *fakeGraph) expire() {
	for id, s := range f.subs {
		if !time.Now().Before(s.ExpiresAt) {
			delete(f.subs, id)
		}
	}
}

func (f *fakeGraph) granted(expires time.Time) (time.Time, error) {
	if time.Until(expires) > f.max {
		return expires, &graph.Error{Op: "create subscription", Status: 400, Code: "ExtensionError", Message: "Subscription expiration can only be 4230 minutes in the future."}
	}
	if f.grant > 0 && time.Until(expires) > f.grant {
		expires = time.Now().Add(f.grant)
	}
	return expires, nil
}

func (f *fakeGraph) CreateSubscription(ctx context.Context, mailbox string, s graph.Subscription) (out graph.Subscription, err error) {
	err = f.do(ctx, "create", "", normalize(s.Resource), func() error {
		f.expire()
		if len(s.ClientState) != 43 || s.LifecycleURL != hook+"/graph/lifecycle" || !strings.Contains(s.Resource, mailbox) || s.ChangeType == "" {
			f.t.Errorf("bad creation for %s: %+v", mailbox, s)
		}
		for _, o := range f.subs {
			if normalize(o.Resource) == normalize(s.Resource) && f.strict {
				return &graph.Error{Op: "create subscription", Status: 409, Code: "ObjectIdentifierInUse"}
			}
		}
		var err error
		if s.ExpiresAt, err = f.granted(s.ExpiresAt); err != nil {
			return err
		}
		f.next++
		s.ID = fmt.Sprintf("sub-%d", f.next)
		f.subs[s.ID] = s
		out = s
		return nil
	})
	return out, err
}

func (f *fakeGraph) RenewSubscription(ctx context.Context, id string, expires time.Time) (out graph.Subscription, err error) {
	err = f.do(ctx, "renew", id, f.resource(id), func() error {
		f.expire()
		s, ok := f.subs[id]
		if !ok {
			return notFound
		}
		var err error
		if s.ExpiresAt, err = f.granted(expires); err != nil {
			return err
		}
		f.subs[id] = s
		out = s
		return nil
	})
	return out, err
}

func (f *fakeGraph) DeleteSubscription(ctx context.Context, id string) error {
	return f.do(ctx, "delete", id, f.resource(id), func() error {
		f.expire()
		if _, ok := f.subs[id]; !ok {
			return notFound
		}
		delete(f.subs, id)
		return nil
	})
}

func (f *fakeGraph) ListSubscriptions(ctx context.Context) (out []graph.Subscription, err error) {
	err = f.do(ctx, "list", "", "", func() error {
		f.expire()
		for _, s := range f.subs {
			s.ClientState = "" // S-45
			out = append(out, s)
		}
		return nil
	})
	return out, err
}

func (f *fakeGraph) resource(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return normalize(f.subs[id].Resource)
}

// live returns the ids of the living subscriptions.
func (f *fakeGraph) live() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	for id := range f.subs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (f *fakeGraph) drop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, id)
}

func (f *fakeGraph) count(op string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c.op == op || op == "" {
			n++
		}
	}
	return n
}

// made returns the calls so far.
func (f *fakeGraph) made() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fakeGraph) setFault(fault func(op, id string) (bool, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

var (
	notFound  = &graph.Error{Op: "renew subscription", Status: 404, Code: "ResourceNotFound"}
	throttled = &graph.Error{Op: "renew subscription", Status: 429, Code: "TooManyRequests", RetryAfter: 10 * time.Second}
	gateway   = &graph.Error{Op: "create subscription", Status: 504}
	forbidden = &graph.Error{Op: "create subscription", Status: 403, Code: "ExtensionError"}
	noMailbox = &graph.Error{Op: "create subscription", Status: 404, Code: "MailboxNotEnabledForRESTAPI"}
	badURL    = &graph.Error{Op: "create subscription", Status: 400, Code: "ValidationError"}
)

// listener is the public URL: it echoes validation tokens, or does what broken says.
type listener struct {
	mu     sync.Mutex
	broken func(*http.Request) (*http.Response, error)
	asked  int
}

func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.asked++
	broken := l.broken
	l.mu.Unlock()
	if broken != nil {
		return broken(req)
	}
	if req.URL.Path != "/graph/notifications" || req.Method != http.MethodPost {
		return answer(http.StatusNotFound, ""), nil
	}
	return answer(http.StatusOK, req.URL.Query().Get("validationToken")), nil
}

func (l *listener) breakIt(broken func(*http.Request) (*http.Response, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = broken
}

func (l *listener) times() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// house is a room with its store and everything that it calls.
type house struct {
	t     *testing.T
	dir   string
	st    *store.Store
	room  *Room
	graph Graph
	url   *listener
	opts  Options

	mu      sync.Mutex
	wants   []Want
	asks    []ask // CatchUp
	trueUps []ask
}

func want(feed uint32) Want {
	mailbox := fmt.Sprintf("m%d@x.test", feed)
	return Want{Feed: feed, Connection: conn, Mailbox: mailbox, Resource: "users/" + mailbox + "/mailFolders/AAMkA=/messages"}
}

// newHouse opens a house with feeds 1 to n. It must be called inside a bubble.
func newHouse(t *testing.T, g Graph, n int, change func(*Options)) *house {
	h := &house{t: t, dir: t.TempDir(), graph: g, url: &listener{}}
	for i := range n {
		h.wants = append(h.wants, want(uint32(i+1)))
	}
	h.opts = Options{
		Graphs: map[string]Graph{conn: g}, Wants: h.wanted, PublicURL: hook,
		CatchUp: h.note(&h.asks), TrueUp: h.note(&h.trueUps),
		HTTP: &http.Client{Transport: h.url}, Log: zerolog.Nop(),
	}
	if change != nil {
		change(&h.opts)
	}
	h.open()
	t.Cleanup(func() { h.close() })
	return h
}

func (h *house) wanted() []Want {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.wants)
}

func (h *house) note(list *[]ask) func(uint32, string) {
	return func(feed uint32, reason string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		*list = append(*list, ask{feed, reason})
	}
}

// asked takes the feeds that delta rounds were asked for.
func (h *house) asked() (out []ask) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out, h.asks = h.asks, nil
	slices.SortFunc(out, func(a, b ask) int { return cmp.Compare(a.feed, b.feed) })
	return out
}

func (h *house) setWants(wants ...Want) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wants = wants
}

func (h *house) open() {
	st, err := store.Open(h.dir, store.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.st = st
	h.room = New(st, h.opts)
}

func (h *house) close() {
	if h.st != nil {
		if err := h.st.Close(); err != nil {
			h.t.Error(err)
		}
		h.st = nil
	}
}

// reopen is a restart.
func (h *house) reopen() {
	h.close()
	h.open()
}

func (h *house) once() {
	h.t.Helper()
	if err := h.room.RunOnce(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// run runs the room until the returned function is called, which waits for it.
func (h *house) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	room := h.room
	go func() { done <- room.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run returned %v although it was asked to end", err)
		}
	}
}

// living returns the record of the one subscription of a feed that is believed to live.
func (h *house) living(feed uint32) store.Subscription {
	h.t.Helper()
	var found []store.Subscription
	for _, s := range h.st.Subscriptions() {
		if s.Feed == feed && s.Live(time.Now()) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		h.t.Fatalf("feed %d has %d living subscriptions in the store, want 1", feed, len(found))
	}
	return found[0]
}

func (h *house) lifecycle(id, event string) {
	h.t.Helper()
	if err := h.st.Accept(h.t.Context(), nil, []store.Lifecycle{{Subscription: id, Event: event, At: time.Now().Round(0).UTC()}}); err != nil {
		h.t.Fatal(err)
	}
	h.room.Wake()
}

func (h *house) openLifecycles() (n int) {
	h.t.Helper()
	if err := h.st.View(func(tx *store.Tx) error {
		open, err := tx.Lifecycles()
		n = len(open)
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *house) push(feed uint32, wantOK bool, wantReason string) {
	h.t.Helper()
	ok, reason := h.room.PushState(feed)
	if ok != wantOK || !strings.Contains(reason, wantReason) || !ok && reason == "" {
		h.t.Errorf("PushState(%d) = %v, %q; want %v, %q", feed, ok, reason, wantOK, wantReason)
	}
}

var errStore = errors.New("disk full")
