package delta

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// play runs a scheduler with some workers until the test ends.
func play(t *testing.T, workers int) *scheduler {
	s := newScheduler(5 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	work := make(chan *task)
	var wg sync.WaitGroup
	wg.Go(func() { defer close(work); s.dispatch(ctx, work) })
	for range workers {
		wg.Go(func() {
			for t := range work {
				s.finish(t, t.run(ctx))
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func TestTasksRunWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, 2)
		begin := time.Now()
		var at []time.Duration
		tk := &task{lane: &lane{}}
		tk.run = func(context.Context) time.Time {
			at = append(at, time.Since(begin))
			return time.Now().Add(time.Hour)
		}
		s.add(tk, begin.Add(time.Minute))
		time.Sleep(2*time.Hour + 2*time.Minute)
		synctest.Wait()
		if len(at) != 3 || at[0] != time.Minute || at[1] != time.Minute+time.Hour {
			t.Errorf("ran at %v", at)
		}
	})
}

func TestWakesOfOneTaskAreOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, 4)
		var runs atomic.Int32
		tk := &task{lane: &lane{}}
		tk.run = func(context.Context) time.Time {
			runs.Add(1)
			time.Sleep(time.Second)
			return time.Now().Add(time.Hour)
		}
		s.add(tk, time.Now().Add(time.Hour))
		for range 100 {
			s.wake(tk, time.Now())
		}
		time.Sleep(100 * time.Millisecond)
		for range 100 { // while it runs: once more
			s.wake(tk, time.Now())
		}
		time.Sleep(10 * time.Second)
		if runs.Load() != 2 {
			t.Errorf("%d runs, want 2", runs.Load())
		}
		s.remove(tk)
		s.wake(tk, time.Now())
		time.Sleep(2 * time.Hour)
		if runs.Load() != 2 {
			t.Errorf("a removed task ran: %d runs", runs.Load())
		}
	})
}

func TestASlowMailboxLeavesWorkersToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, 4)
		slow, fast := &lane{}, &lane{}
		var mu sync.Mutex
		running, most, quick := 0, 0, 0
		for range 10 {
			s.add(&task{lane: slow, run: func(context.Context) time.Time {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(time.Hour)
				mu.Lock()
				running--
				mu.Unlock()
				return time.Time{}
			}}, time.Now())
		}
		s.add(&task{lane: fast, run: func(context.Context) time.Time {
			mu.Lock()
			quick++
			mu.Unlock()
			return time.Time{}
		}}, time.Now())
		time.Sleep(time.Minute)
		mu.Lock()
		if quick != 1 {
			t.Errorf("the other mailbox ran %d times in a minute", quick)
		}
		mu.Unlock()
		time.Sleep(6 * time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if most != lanesAtOnce || running != 0 {
			t.Errorf("%d at once, want %d; %d still running", most, lanesAtOnce, running)
		}
	})
}
