package delta

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// lanesAtOnce is how many tasks of one mailbox run at a time, so that a slow one does not take all workers.
const lanesAtOnce = 2

// lane is what the tasks of one mailbox share. Guarded by scheduler.mu.
type lane struct {
	running int
	waiting []*task
}

// task is something that is done again and again. run returns when to do it next; the zero time means never, unless
// woken. Guarded by scheduler.mu, but for run and lane, which never change.
type task struct {
	run  func(ctx context.Context) time.Time
	lane *lane

	due     time.Time
	index   int // in the heap, from 1; 0 when not in it
	running bool
	again   bool // woken while running
	dead    bool
}

// scheduler hands tasks to workers when they are due, each to one worker at a time.
type scheduler struct {
	mu     sync.Mutex
	queue  taskHeap
	every  time.Duration // the longest sleep: deadlines are wall-clock, and timers stand still while a machine does
	signal chan struct{}
	pulse  chan struct{} // from dispatch, whenever it waits
}

func newScheduler(every time.Duration) *scheduler {
	return &scheduler{every: every, signal: make(chan struct{}, 1), pulse: make(chan struct{})}
}

func (s *scheduler) add(t *task, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueue(t, due)
}

// enqueue moves a task to due, whether it is in the heap or not.
func (s *scheduler) enqueue(t *task, due time.Time) {
	if t.dead || due.IsZero() {
		return
	}
	t.due = due.Round(0)
	if t.index == 0 {
		heap.Push(&s.queue, t)
	} else {
		heap.Fix(&s.queue, t.index-1)
	}
	if t.index == 1 {
		s.poke()
	}
}

func (s *scheduler) poke() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// wake makes a task due now; one that runs will run once more.
func (s *scheduler) wake(t *task, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.running {
		t.again = true
		return
	}
	if t.index == 0 && !t.dead && t.due.IsZero() || t.index > 0 && t.due.After(now) {
		s.enqueue(t, now)
	}
}

// remove makes sure that a task is not run again.
func (s *scheduler) remove(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.dead = true
	if t.index > 0 {
		heap.Remove(&s.queue, t.index-1)
	}
}

// finish takes a task back from a worker.
func (s *scheduler) finish(t *task, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.running = false
	t.lane.running--
	t.due = time.Time{}
	if t.again {
		t.again = false
		next = time.Now()
	}
	s.enqueue(t, next)
	if len(t.lane.waiting) > 0 {
		w := t.lane.waiting[0]
		t.lane.waiting = t.lane.waiting[1:]
		s.enqueue(w, w.due)
	}
}

// take returns a task that is due, or how long to wait for one.
func (s *scheduler) take(now time.Time) (*task, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		t := s.queue[0]
		if wait := t.due.Sub(now); wait > 0 {
			return nil, min(wait, s.every)
		}
		heap.Pop(&s.queue)
		if t.dead {
			continue
		}
		if t.lane.running >= lanesAtOnce {
			t.lane.waiting = append(t.lane.waiting, t)
			continue
		}
		t.lane.running++
		t.running = true
		return t, 0
	}
	return nil, s.every
}

// dispatch gives due tasks to work until ctx is done.
func (s *scheduler) dispatch(ctx context.Context, work chan<- *task) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		t, wait := s.take(time.Now().Round(0))
		if t != nil {
			if !s.hand(ctx, work, t) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.signal:
		case s.pulse <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// hand waits for a free worker; false when ctx is done first.
func (s *scheduler) hand(ctx context.Context, work chan<- *task, t *task) bool {
	for {
		select {
		case work <- t:
			return true
		case s.pulse <- struct{}{}: // all workers wait for Graph: they have their own deadlines
		case <-ctx.Done():
			return false
		}
	}
}

// taskHeap orders tasks by when they are due.
type taskHeap []*task

func (h taskHeap) Len() int           { return len(h) }
func (h taskHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h taskHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push is heap.Interface's.
func (h *taskHeap) Push(x any) {
	t := x.(*task)
	t.index = len(*h) + 1
	*h = append(*h, t)
}

// Pop is heap.Interface's.
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = 0
	return t
}
