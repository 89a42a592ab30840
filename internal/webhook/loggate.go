package webhook

import (
	"sync"
	"time"
)

// logEvery is how often at most a gate lets something be logged, so that a flood of requests is no flood of lines.
const logEvery = time.Minute

// logGate counts what happens and opens at most once every logEvery. The zero value is closed to nobody.
type logGate struct {
	mu   sync.Mutex
	last time.Time
	n    int
}

// open adds n to what happened; when ok, it returns all that happened since it last was open.
func (g *logGate) open(now time.Time, n int) (total int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += n
	if !g.last.IsZero() && now.Sub(g.last) < logEvery {
		return 0, false
	}
	total, g.n, g.last = g.n, 0, now
	return total, true
}
