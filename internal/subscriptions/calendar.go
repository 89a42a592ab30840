package subscriptions

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

// calendar counts the renewals planned for each second of each connection, so that a burst of creations does not come
// back as a burst of renewals for ever. Safe for concurrent use.
type calendar struct {
	mu      sync.Mutex
	planned map[slot]int
}

type slot struct {
	connection string
	second     int64
}

// choices is how many random seconds are compared; the least loaded of them is taken.
const choices = 4

func newCalendar() *calendar { return &calendar{planned: map[slot]int{}} }

// choose picks a moment between from and to.
func (c *calendar) choose(connection string, from, to time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best time.Time
	least := 0
	for i := range choices {
		at := from
		if window := to.Sub(from); window > 0 {
			at = from.Add(rand.N(window))
		}
		if n := c.planned[slot{connection, at.Unix()}]; i == 0 || n < least {
			best, least = at, n
		}
	}
	return best
}

// move takes a subscription's old plan out and puts its new one in; nil and removed ones have none.
func (c *calendar) move(from, to *store.Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from != nil && from.RemovedAt.IsZero() {
		s := slot{from.Connection, from.RenewAt.Unix()}
		if c.planned[s]--; c.planned[s] <= 0 {
			delete(c.planned, s)
		}
	}
	if to != nil && to.RemovedAt.IsZero() {
		c.planned[slot{to.Connection, to.RenewAt.Unix()}]++
	}
}
