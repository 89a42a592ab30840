package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/store"
)

// slowStore knows one subscription, "s1" with the clientState "right", and never finishes a commit.
type slowStore struct{ started chan struct{} }

func (slowStore) Subscription(id string) (store.Subscription, bool) {
	return store.Subscription{ID: "s1", Feed: 1, StateHash: sha256.Sum256([]byte("right"))}, id == "s1"
}

func (slowStore) Expected([32]byte) (uint32, bool) { return 0, false }

func (s slowStore) Accept(ctx context.Context, _ []store.Notification, _ []store.Lifecycle) error {
	s.started <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

var genuine = collectionOf(note("s1", "right", `"changeType":"created","resourceData":{"id":"i"}`))

func serve(h http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", notificationsURL, strings.NewReader(body)))
	return w
}

func TestSlowCommitIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		woken := func(uint32) { t.Error("woken without a commit") }
		h := New(Options{Store: slowStore{make(chan struct{}, 10)}, Wake: woken, Log: zerolog.New(&log)})
		for range 3 {
			start := time.Now()
			w := serve(h, genuine)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("answer = %d %v, want 503 with Retry-After", w.Code, w.Header())
			}
			if took := time.Since(start); took != 2*time.Second {
				t.Errorf("answered after %v, want 2s", took)
			}
		}
		// What needs no commit is answered all the same.
		if w := serve(h, collectionOf(note("s9", "x", ``))); w.Code != http.StatusAccepted {
			t.Errorf("strangers are told %d, want 202", w.Code)
		}
		if got := h.Counters(); got["not_stored"] != 3 || got["accepted"] != 0 {
			t.Errorf("counters = %v, want 3 not stored", got)
		}
		if n := strings.Count(log.String(), "commit takes too long"); n != 1 {
			t.Errorf("logged %d times, want once a minute: %s", n, &log)
		}
	})
}

func TestTooManyRequestsAtOnceAreTurnedAwayEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := slowStore{make(chan struct{}, maxInFlight)}
		h := New(Options{Store: st})
		var wg sync.WaitGroup
		for range maxInFlight {
			wg.Go(func() { serve(h, genuine) })
		}
		synctest.Wait()
		if len(st.started) != maxInFlight {
			t.Fatalf("%d commits begun, want %d", len(st.started), maxInFlight)
		}
		start := time.Now()
		if w := serve(h, genuine); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || time.Since(start) != 0 {
			t.Errorf("answer = %d after %v, want 503 at once", w.Code, time.Since(start))
		}
		w := httptest.NewRecorder() // handshakes go on: a subscription may be waiting for one
		h.ServeHTTP(w, httptest.NewRequest("POST", notificationsURL+"?validationToken=t", nil))
		if w.Code != http.StatusOK {
			t.Errorf("handshake = %d, want 200", w.Code)
		}
		wg.Wait()
		if n := h.inFlight.Load(); n != 0 {
			t.Errorf("%d in flight after all were answered", n)
		}
	})
}

func TestBodiesHeldAtOnceAreBounded(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	f.h.requests.room.Store(100 << 10)
	if got := f.postChunks(endless{' '}); got != http.StatusServiceUnavailable {
		t.Errorf("a body beyond the room = %d, want 503", got)
	}
	f.post(notificationsURL, genuine, http.StatusAccepted)
	f.counted(map[string]uint64{"accepted": 1, "not_stored": 1})
	if room := f.h.requests.room.Load(); room != 100<<10 {
		t.Errorf("room = %d, want it given back", room)
	}
}

func TestAnAnnouncedLengthAllocatesNothing(t *testing.T) {
	var p requestPool
	p.room.Store(maxBuffered)
	req := p.get()
	if err := p.fill(req, failing{}, 10<<20); err == nil || cap(req.body) > freshLimit {
		t.Errorf("%d bytes allocated for a body of which none came (%v)", cap(req.body), err)
	}
}

func TestRefusalsOfTheStore(t *testing.T) {
	open := func(t *testing.T, opts store.Options) (*fixture, func() error) {
		f := &fixture{t: t, store: openStore(t, t.TempDir(), opts)}
		f.subscribe(map[string]string{"s1": "right"})
		f.h = New(Options{Store: f.store, Wake: func(uint32) {}})
		return f, f.store.Close
	}
	two := collectionOf(note("s1", "right", ``), note("s1", "right", ``))

	t.Run("full", func(t *testing.T) {
		f, closeStore := open(t, store.Options{MaxInbox: 3})
		defer closeStore()
		f.post(notificationsURL, two, http.StatusAccepted)
		f.post(notificationsURL, two, http.StatusServiceUnavailable)
		f.post(notificationsURL, genuine, http.StatusAccepted)
		f.post(notificationsURL, genuine, http.StatusServiceUnavailable)
		f.post(notificationsURL, collectionOf(note("s1", "right", `"lifecycleEvent":"missed"`)), http.StatusAccepted)
		f.post(notificationsURL, collectionOf(note("s9", "right", ``)), http.StatusAccepted)
		f.counted(map[string]uint64{"accepted": 3, "lifecycle": 1, "not_stored": 2, "unknown_subscription": 1})
		if n := f.store.Counters()["accepted"]; n != 3 || f.store.Pending() != 3 {
			t.Errorf("the law: accepted %d, pending %d, want 3 and 3", n, f.store.Pending())
		}
	})
	t.Run("closed", func(t *testing.T) {
		f, closeStore := open(t, store.Options{})
		if err := closeStore(); err != nil {
			t.Fatal(err)
		}
		f.post(notificationsURL, genuine, http.StatusServiceUnavailable)
		f.counted(map[string]uint64{"not_stored": 1})
	})
	t.Run("file may not grow", func(t *testing.T) {
		f, closeStore := open(t, store.Options{MaxSize: 1 << 20})
		defer closeStore()
		big := collectionOf(slices.Repeat([]string{note("s1", "right", `"resourceData":{"id":"`+strings.Repeat("x", 2000)+`"}`)}, 100)...)
		stored := uint64(0)
		for f.h.Counters()["not_stored"] == 0 {
			if serve(f.h, big).Code == http.StatusAccepted {
				stored += 100
			}
		}
		f.counted(map[string]uint64{"accepted": stored, "not_stored": 1})
		if n := f.store.Counters()["accepted"]; stored == 0 || n != stored || f.store.Pending() != int(stored) {
			t.Errorf("answered 202 for %d, the law: accepted %d, pending %d", stored, n, f.store.Pending())
		}
	})
}

// While one transaction is being written, what else is posted gathers and shares the next one.
func TestConcurrentRequestsShareTransactions(t *testing.T) {
	const posts = 500
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, map[string]string{"s1": "right"})
		before := f.store.Commits()
		hold := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := f.store.Update(func(*store.Tx) error { <-hold; return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // the writer is busy
		codes := make([]int, posts)
		for i := range posts {
			wg.Go(func() {
				codes[i] = serve(f.h, collectionOf(note("s1", "right", fmt.Sprintf(`"resourceData":{"id":"i%d"}`, i)))).Code
			})
		}
		synctest.Wait() // all posts wait for it
		close(hold)
		wg.Wait()
		for i, code := range codes {
			if code != http.StatusAccepted {
				t.Fatalf("post %d = %d, want 202", i, code)
			}
		}
		if got := f.store.Commits() - before; got != 2 {
			t.Errorf("%d commits for %d posts behind a busy writer, want 2", got, posts)
		}
		if got := f.store.Pending(); got != posts {
			t.Errorf("%d pending, want %d", got, posts)
		}
	})
}

func TestAcceptedNotificationsSurviveAKill(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right", "s2": "right"})
	f.post(notificationsURL, collectionOf(
		note("s1", "right", `"changeType":"created","resourceData":{"id":"a"}`),
		note("s2", "right", `"changeType":"deleted","resourceData":{"id":"b"}`),
		note("s1", "right", `"lifecycleEvent":"missed"`)), http.StatusAccepted)
	f.post(lifecycleURL, collectionOf(note("s2", "right", `"lifecycleEvent":"subscriptionRemoved"`)), http.StatusAccepted)

	// What a killed process leaves behind: the files as they are now, nothing closed.
	after := t.TempDir()
	files, err := os.ReadDir(filepath.Dir(f.store.Path()))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(f.store.Path()), file.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(after, file.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st := openStore(t, after, store.Options{})
	defer st.Close()
	notes, cycles := readStored(t, st)
	if want := []string{"1 created a", "2 deleted b"}; !slices.Equal(notes, want) {
		t.Errorf("inbox = %q, want %q", notes, want)
	}
	if want := []string{"s1 missed", "s2 subscriptionRemoved"}; !slices.Equal(cycles, want) {
		t.Errorf("lifecycles = %q, want %q", cycles, want)
	}
	if n := st.Counters()["accepted"]; n != 2 || st.Pending() != 2 {
		t.Errorf("the law: accepted %d, pending %d, want 2 and 2", n, st.Pending())
	}
	if _, ok := st.Subscription("s1"); !ok {
		t.Error("subscription is gone")
	}
}

// A caller who hangs up does not undo what was begun: it is committed, and woken.
func TestHangingUpDoesNotStopACommit(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("hung up"))
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", notificationsURL, strings.NewReader(genuine)))
	feeds, _ := f.woken()
	if w.Code != http.StatusAccepted || f.store.Pending() != 1 || !slices.Equal(feeds, []uint32{1}) {
		t.Errorf("answer = %d, %d pending, woken %v; want 202, 1, [1]", w.Code, f.store.Pending(), feeds)
	}
}

// becoming is a store in which a subscription becomes known between the look for its id and the look for its state.
type becoming struct {
	*store.Store
	become func()
}

func (b becoming) Expected(hash [32]byte) (uint32, bool) {
	b.become()
	return b.Store.Expected(hash)
}

func TestSubscriptionThatBecomesKnownBetweenTwoLooks(t *testing.T) {
	f := newFixture(t, nil)
	st := becoming{f.store, func() { f.subscribe(map[string]string{"s1": "right"}) }}
	f.h = New(Options{Store: st})
	f.post(notificationsURL, genuine, http.StatusAccepted)
	f.counted(map[string]uint64{"accepted": 1})
}
