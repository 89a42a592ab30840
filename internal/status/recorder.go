package status

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

const (
	keptEvents    = 50
	keptIncidents = 50
	rateMinutes   = 60
	observeEvery  = 5 * time.Second
)

// Published is an event that NATS has acknowledged: where, not what.
type Published struct {
	At      time.Time `json:"at"`   // acknowledged
	Time    time.Time `json:"time"` // when it happened
	Subject string    `json:"subject"`
	ID      string    `json:"id"`
	Via     event.Via `json:"via,omitempty"`
}

// Incident is a problem with its beginning and its end.
type Incident struct {
	Problem
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"` // zero while it lasts
}

// Recorder remembers what a report of one moment cannot tell: the last events, how many came each minute, and the last
// problems. Its memory is bounded, and it is safe for concurrent use. It begins empty with the process.
type Recorder struct {
	mu        sync.Mutex
	recent    []Published // newest last
	minute    int64       // Unix minute of the last count
	counts    [rateMinutes]uint64
	incidents []Incident // by beginning
}

// Published notes an event that was acknowledged at a time. It does not block.
func (r *Recorder) Published(e *event.Event, prefix string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.recent) == keptEvents {
		r.recent = append(r.recent[:0], r.recent[1:]...)
	}
	r.recent = append(r.recent, Published{at, e.Time, e.NATSSubject(prefix), e.ID, e.Via})
	r.advance(at)
	r.counts[r.minute%rateMinutes]++
}

// advance empties the minutes that have begun since the last count.
func (r *Recorder) advance(now time.Time) {
	minute := now.Unix() / 60
	for m := max(r.minute+1, minute-rateMinutes+1); m <= minute; m++ {
		r.counts[m%rateMinutes] = 0
	}
	r.minute = max(r.minute, minute)
}

// Run looks every five seconds which problems there are, until ctx is done.
func (r *Recorder) Run(ctx context.Context, report func() Report) error {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		rep := report()
		r.observe(&rep)
	}
}

// observe begins and ends incidents.
func (r *Recorder) observe(rep *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := map[string]Problem{}
	for _, p := range rep.Problems {
		there[p.Key] = p
	}
	for i := range r.incidents {
		in := &r.incidents[i]
		if !in.Until.IsZero() {
			continue
		}
		if p, lasts := there[in.Key]; lasts {
			in.Problem = p // its text may have changed
			delete(there, in.Key)
		} else {
			in.Until = rep.At
		}
	}
	for _, p := range rep.Problems {
		if _, isNew := there[p.Key]; isNew {
			r.incidents = append(r.incidents, Incident{Problem: p, From: rep.At})
			delete(there, p.Key)
		}
	}
	over := len(r.incidents) - keptIncidents
	r.incidents = slices.DeleteFunc(r.incidents, func(in Incident) bool { // of those that are over; what lasts is bounded by what can be wrong
		if over <= 0 || in.Until.IsZero() {
			return false
		}
		over--
		return true
	})
}

// Fill puts what is remembered into a report: newest first, but for the rate, whose last minute is the one that runs.
func (r *Recorder) Fill(rep *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(rep.At)
	rep.Recent = slices.Clone(r.recent)
	slices.Reverse(rep.Recent)
	rep.Incidents = slices.Clone(r.incidents)
	slices.Reverse(rep.Incidents)
	rep.Rate = make([]uint64, rateMinutes)
	for i := range rep.Rate {
		rep.Rate[i] = r.counts[(r.minute+1+int64(i))%rateMinutes]
	}
}
