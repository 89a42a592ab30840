package freshness

import (
	"fmt"
	"sync"
	"time"
)

// Canaries remember when NATS last acknowledged an event of each watch and mailbox. A watch with a canary has a mailbox
// that something outside sends to again and again: while its events arrive, the whole way from the mailbox to NATS
// works, and when they stop, some part of it does not. Safe for concurrent use.
type Canaries struct {
	mu   sync.Mutex
	last map[key]time.Time
}

// Published notes an event that was acknowledged at a time. It does not block.
func (c *Canaries) Published(watch, token string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[key]time.Time{}
	}
	c.last[key{watch, token}] = at
}

// Last is when that was; zero when there was none since the start of the process.
func (c *Canaries) Last(watch, token string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[key{watch, token}]
}

// Silent says that a canary is: that no event came for longer than every, counted from since where there was none.
// Empty: it is not, or there is none (every is 0).
func (c *Canaries) Silent(watch, token string, every time.Duration, since, now time.Time) string {
	last := c.Last(watch, token)
	if last.Before(since) {
		last = since
	}
	if every <= 0 || now.Sub(last) <= every {
		return ""
	}
	return fmt.Sprintf("its canary is silent: no event for %v, and there should be one every %v", now.Sub(last).Round(time.Second), every)
}
