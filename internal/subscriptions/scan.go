package subscriptions

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

// forgetEvery is how often old records are looked for.
const forgetEvery = time.Hour

// job is work for one goroutine.
type job struct {
	connection string // empty: does not count against one
	urgent     bool
	run        func(ctx context.Context)
}

// scan looks at everything, does what needs no request, and queues the rest. It returns how many jobs wait.
func (r *Room) scan(now time.Time) int {
	var wants []Want
	if r.opts.PublicURL != "" {
		wants = r.opts.Wants()
		for _, f := range r.st.Feeds() {
			r.public.prove(f.PushAt)
		}
		if r.public.begin(now) {
			r.enqueue(job{run: r.checkPublic, urgent: true})
		}
	}
	r.follow(wants, now)
	r.settleLifecycle(now)
	if !within(r.forgotAt, forgetEvery, now) {
		r.forgotAt = now
		r.forgetOld(now)
	}
	return r.enqueueDue(now)
}

// follow brings the units up to what is wanted.
func (r *Room) follow(wants []Want, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := make(map[*unit]bool, len(wants))
	byFeed := make(map[uint32]*unit, len(wants))
	for _, w := range wants {
		if r.connections[w.Connection] == nil {
			continue // nobody could ask Graph
		}
		u := r.known[w]
		if u == nil {
			u = r.unit(w.Connection, w.Resource)
			r.known[w] = u
		}
		if wanted[u] { // two feeds with one resource: the first one is served
			continue
		}
		if u.want == nil {
			u.wantedAt = now
		}
		if u.want == nil || *u.want != w {
			kept := w
			u.want = &kept
		}
		wanted[u], byFeed[w.Feed] = true, u
	}
	r.byFeed = byFeed
	for key, u := range r.units {
		switch {
		case wanted[u]:
			u.unwantedAt = time.Time{}
		case len(u.subs) == 0 && u.listing == nil && !u.busy && !u.queued:
			delete(r.units, key)
			r.known = map[Want]*unit{}
		default:
			u.want, u.replace = nil, ""
			if u.unwantedAt.IsZero() || now.Before(u.unwantedAt) {
				u.unwantedAt = now
			}
		}
	}
}

// forgetOld drops the records of subscriptions that were removed long ago.
func (r *Room) forgetOld(now time.Time) {
	var old []string
	r.mu.Lock()
	for _, u := range r.units {
		if u.busy {
			continue
		}
		u.subs = slices.DeleteFunc(u.subs, func(id string) bool {
			sub, ok := r.st.Subscription(id)
			if ok && r.opts.Policy.Next(&sub, now).Do != Forget {
				return false
			}
			old = append(old, id)
			return true
		})
	}
	r.mu.Unlock()
	if len(old) == 0 {
		return
	}
	err := r.st.Update(func(tx *store.Tx) error {
		for _, id := range old {
			if err := tx.DeleteSubscription(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.report(fmt.Errorf("forget old subscriptions: %w", err)) // they come back with the next start
	}
}

// enqueueDue queues what is due and is neither queued nor being done.
func (r *Room) enqueueDue(now time.Time) int {
	ready := r.public.ready(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opts.PublicURL != "" {
		for name, c := range r.connections {
			if c.needsList(now) && r.opts.Paused(name) == "" {
				c.listing = true
				c.started++
				r.queue = append(r.queue, job{connection: name, urgent: true, run: func(ctx context.Context) { r.list(ctx, name, c) }})
			}
		}
	}
	var scratch []store.Subscription
	for _, u := range r.units {
		if u.queued || u.busy {
			continue
		}
		v := r.view(u, ready, scratch[:0])
		step := v.next(r.opts.Policy, now)
		scratch = v.records
		if step.Do == Keep {
			continue
		}
		u.queued = true
		r.queue = append(r.queue, job{connection: u.key.connection, urgent: step.Do == Renew, run: func(ctx context.Context) { r.work(ctx, u) }})
	}
	slices.SortStableFunc(r.queue, func(a, b job) int {
		switch {
		case a.urgent == b.urgent:
			return 0
		case a.urgent:
			return -1
		}
		return 1
	})
	return len(r.queue)
}

// view collects what the next step of a unit depends on, its records in room. Room.mu is held.
func (r *Room) view(u *unit, ready bool, room []store.Subscription) view {
	v := view{unit: u, noPush: r.opts.PublicURL == "", paused: r.opts.Paused(u.key.connection) != "", records: room}
	for _, id := range u.subs {
		if sub, ok := r.st.Subscription(id); ok {
			v.records = append(v.records, sub)
		}
	}
	c := r.connections[u.key.connection]
	v.mayCreate = c != nil && c.settled(u) && ready
	return v
}

func (r *Room) enqueue(j job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, j)
}

// take gives out the first job whose connection is not busy enough already.
func (r *Room) take() (j job, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, j := range r.queue {
		if j.connection != "" && r.running[j.connection] >= perConnection {
			continue
		}
		if i == 0 {
			r.queue = r.queue[1:]
		} else {
			r.queue = slices.Delete(r.queue, i, i+1)
		}
		r.running[j.connection]++
		return j, true
	}
	return job{}, false
}

// start starts as many goroutines as the queue can use and the limit allows.
func (r *Room) start(ctx context.Context, wg *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range min(len(r.queue), workers-r.draining) {
		r.draining++
		wg.Go(func() { r.drain(ctx) })
	}
}

// drain does jobs until there are none for it, or ctx is done.
func (r *Room) drain(ctx context.Context) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.draining--
	}()
	for ctx.Err() == nil {
		j, ok := r.take()
		if !ok {
			return
		}
		j.run(ctx)
		r.mu.Lock()
		r.running[j.connection]--
		r.mu.Unlock()
	}
}

// dropQueue forgets the jobs that were not begun.
func (r *Room) dropQueue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = nil
	for _, u := range r.units {
		u.queued = false
	}
	for _, c := range r.connections {
		c.listing = false
	}
	r.public.cancel()
}

// report keeps an error of the storage for whoever called.
func (r *Room) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}
