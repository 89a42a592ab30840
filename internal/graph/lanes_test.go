package graph

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestThreeRequestsToAMailboxAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := map[string]int{}, map[string]int{}
		c := newClient(t, func(r *http.Request) (*http.Response, error) {
			box := strings.ToLower(r.URL.Path)
			mu.Lock()
			now[box]++
			most[box] = max(most[box], now[box])
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now[box]--
			mu.Unlock()
			return answer(200, `{"id":"1"}`), nil
		})
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 60 {
			box := []string{"a@x.example", "A@X.example", "b@x.example"}[i%3]
			wg.Go(func() {
				if _, err := c.Message(t.Context(), box, "1", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for box, n := range most {
			if n != 3 {
				t.Errorf("%s: %d at a time, want 3", box, n)
			}
		}
		if took := time.Since(begun); took != 14*time.Second { // 40 of one mailbox, three a second
			t.Errorf("took %v, want 14 s", took)
		}
		if len(c.lanes.active) != 0 {
			t.Errorf("%d lanes left", len(c.lanes.active))
		}
	})
}

func TestPauseAfterThrottling(t *testing.T) {
	for _, status := range []int{429, 503} {
		synctest.Test(t, func(t *testing.T) {
			wait := ""
			var asked atomic.Int32
			c := newClient(t, func(r *http.Request) (*http.Response, error) {
				asked.Add(1)
				if wait != "" {
					return answer(status, "", "Retry-After: "+wait), nil
				}
				return answer(200, `{"id":"1"}`), nil
			})
			get := func(ctx context.Context, mailbox string) error {
				_, err := c.Message(ctx, mailbox, "1", nil)
				return err
			}
			wait = "25"
			err := get(t.Context(), "a")
			is(t, err, ErrThrottled)
			wait = ""

			begun := time.Now()
			if err := get(t.Context(), "b"); err != nil || time.Since(begun) != 0 {
				t.Errorf("another mailbox waited %v, %v", time.Since(begun), err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := get(ctx, "A"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a bounded wait ended with %v", err)
			}
			if err := get(t.Context(), "a"); err != nil || time.Since(begun) != 25*time.Second {
				t.Errorf("the same mailbox waited %v, %v, want 25 s", time.Since(begun), err)
			}

			wait = "90"
			is(t, get(t.Context(), "a"), ErrThrottled)
			wait = ""
			n := asked.Load()
			time.Sleep(30 * time.Second)
			err = get(t.Context(), "a")
			is(t, err, ErrThrottled)
			if e, ok := errors.AsType[*Error](err); !ok || e.RetryAfter != time.Minute || asked.Load() != n {
				t.Errorf("told %v after %d requests, want to wait a minute without a request", err, asked.Load()-n)
			}
			time.Sleep(time.Minute)
			if err := get(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			get(t.Context(), "b")
			if len(c.lanes.active) != 0 || len(c.lanes.paused) != 0 {
				t.Errorf("left behind: %v, %v", c.lanes.active, c.lanes.paused)
			}
		})
	}
}

func TestThrottledWithoutHeaderDoesNotPause(t *testing.T) {
	c := newClient(t, replay(429, `{"error":{"code":"ApplicationThrottled"}}`))
	for range 3 {
		_, err := c.Message(t.Context(), "m", "1", nil)
		if is(t, err, ErrThrottled); c.lanes.pausedFor("m") != 0 {
			t.Error("paused without being told for how long")
		}
	}
}

// A request that waits for a place when the mailbox is paused must not go out when it gets the place.
func TestPauseWhileWaitingForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		var at []time.Duration
		begun := time.Now()
		c := newClient(t, func(*http.Request) (*http.Response, error) {
			at = append(at, time.Since(begun))
			if first {
				first = false
				time.Sleep(time.Second)
				return answer(429, "", "Retry-After: 10"), nil
			}
			return answer(200, `{"id":"1"}`), nil
		}, func(o *Options) { o.PerMailbox = 1 })
		var wg sync.WaitGroup
		wg.Go(func() { c.Message(t.Context(), "m", "1", nil) })
		synctest.Wait()
		wg.Go(func() {
			if _, err := c.Message(t.Context(), "m", "2", nil); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if len(at) != 2 || at[1] != 11*time.Second {
			t.Errorf("requests at %v, want the second at 11 s", at)
		}
	})
}

func TestWaitingForAPlaceEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes()
		if wait, err := l.enter(t.Context(), "m", 1); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.enter(ctx, "m", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("enter = %v", err)
		}
		l.leave("m")
		if len(l.active) != 0 {
			t.Errorf("left behind: %v", l.active)
		}
	})
}
