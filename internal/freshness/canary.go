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

// Silent says that a canary is: that no event came for longer than every, or since this was first asked. Empty: it is
// not, or there is none (every is 0).
func (c *Canaries) Silent(watch, token string, every time.Duration, now time.Time) string {
	if every <= 0 {
		return ""
	}
	c.mu.Lock()
	last, known := c.last[key{watch, token}]
	c.mu.Unlock()
	if !known {
		c.Published(watch, token, now) // the promise counts from here
		return ""
	}
	if now.Sub(last) <= every {
		return ""
	}
	return fmt.Sprintf("its canary is silent: no event for %v, and there should be one every %v", now.Sub(last).Round(time.Second), every)
}
