package graph

import (
	"context"
	"strings"
	"sync"
	"time"
)

// maxPauseWait is how long a request waits for a pause to end; beyond it the caller is told to come back.
const maxPauseWait = 30 * time.Second

// laneSubscriptions is the pause shared by all requests about subscriptions. No mailbox has such a name.
const laneSubscriptions = "\x00subscriptions"

// laneOf is the lane of a mailbox: addresses are compared without case.
func laneOf(mailbox string) string { return strings.ToLower(mailbox) }

// lanes keeps requests to one mailbox to a few at a time, and away from it while Graph asked for patience. A mailbox
// costs memory only while it is used or paused.
type lanes struct {
	mu     sync.Mutex // guards what follows; never held while waiting
	active map[string]*lane
	paused map[string]time.Time // until when
	swept  time.Time
}

type lane struct {
	slots chan struct{}
	users int // in it or waiting for it
}

func newLanes() *lanes {
	return &lanes{active: map[string]*lane{}, paused: map[string]time.Time{}}
}

// enter waits for the mailbox to be free and takes a place that leave gives back. It returns a wait above zero, and no
// place, when the mailbox is paused for longer than maxPauseWait; and an error when ctx ends first.
func (l *lanes) enter(ctx context.Context, key string, width int) (wait time.Duration, err error) {
	ln := l.join(key, width)
	for {
		wait := l.pausedFor(key)
		if wait > maxPauseWait {
			l.quit(key)
			return wait, nil
		}
		if err := sleep(ctx, wait); err != nil {
			l.quit(key)
			return 0, err
		}
		select {
		case ln.slots <- struct{}{}:
		case <-ctx.Done():
			l.quit(key)
			return 0, context.Cause(ctx)
		}
		if l.pausedFor(key) == 0 {
			return 0, nil
		}
		<-ln.slots // paused while we waited for the place
	}
}

// leave gives the place back.
func (l *lanes) leave(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	<-l.active[key].slots
	l.drop(key)
}

func (l *lanes) join(key string, width int) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.active[key]
	if ln == nil {
		ln = &lane{slots: make(chan struct{}, width)}
		l.active[key] = ln
	}
	ln.users++
	return ln
}

func (l *lanes) quit(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(key)
}

func (l *lanes) drop(key string) {
	ln := l.active[key]
	if ln.users--; ln.users == 0 {
		delete(l.active, key)
	}
}

// pause keeps new requests away for d; the longest pause counts.
func (l *lanes) pause(key string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.paused[key]) {
		l.paused[key] = until
	}
}

// pausedFor is how long the pause still lasts; 0: there is none.
func (l *lanes) pausedFor(key string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.paused) == 0 {
		return 0
	}
	now := time.Now()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		for k, until := range l.paused {
			if !until.After(now) {
				delete(l.paused, k)
			}
		}
	}
	return max(l.paused[key].Sub(now), 0)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
