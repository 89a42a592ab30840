package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	idleTick     = time.Second // wall-clock deadlines are looked at this often at least
	readChunk    = 1 << 20     // bytes of rows read from the outbox at once
	checkBase    = 250 * time.Millisecond
	checkMax     = 8 * time.Second
	pauseBase    = 100 * time.Millisecond
	pauseMax     = 15 * time.Second
	drainTime    = time.Second // for answers on their way when we stop
	releaseBatch = 500
	settleTime   = time.Minute // from comparing the stream to releasing again
	maxPuts      = 4           // bodies stored at the same time
)

var errClosed = errors.New("connection to NATS was closed")

// Run publishes until ctx is done, and returns nil then.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		err := p.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errClosed) {
			return err
		}
		p.log.Warn().Err(err).Msg("connecting to NATS anew")
		if !sleep(ctx, reconnectMax) {
			return nil
		}
	}
}

// session publishes over one client connection, which reconnects by itself. It returns when ctx is done, or errClosed
// when the client has given the connection up.
func (p *Publisher) session(ctx context.Context) error {
	r := &runner{Publisher: p, queue: newQueue(), flights: map[*nats.Msg]*flight{}, limit: p.opts.MaxInFlight,
		wake: make(chan struct{}, 1), puts: make(chan struct{}, maxPuts), more: true}
	r.acks = newAckBook(p.outbox.Acknowledge, r.poke, r.commitFailed)
	r.stopPuts(nil)
	if err := r.connect(); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { r.acks.run(inner) })
	wg.Go(func() { r.release(inner) })
	err := r.loop(ctx)
	r.stopPuts(context.Canceled)
	r.drain()
	cancel()
	wg.Wait()
	r.nc.Close()
	r.bodies.Wait()
	p.update(func(s *Status) { s.Connected, s.InFlight, s.Blocked = false, 0, "stopped" })
	return err
}

// runner is one session. Its fields belong to loop unless said otherwise.
type runner struct {
	*Publisher
	nc      *nats.Conn
	js      jetstream.JetStream
	queue   *queue
	more    bool // the outbox may hold rows that were not read
	flights map[*nats.Msg]*flight
	acks    *ackBook

	stream  jetstream.StreamConfig // as last checked
	created time.Time              // of the stream, as last checked
	highest uint64                 // stream sequence seen
	checked uint64                 // connection that the stream was checked on, see generation; 0 is none
	checkAt time.Time
	checks  int // that did not work, in a row
	problem string

	limit       int // flights at once; 1 while trying whether the broker takes events again
	pausedUntil time.Time
	pauses      int       // in a row
	silentSince time.Time // first time-out after which nothing was answered

	puts   chan struct{} // bodies being stored; capacity maxPuts
	bodies sync.WaitGroup

	wake chan struct{} // capacity 1

	settled atomic.Int64 // wall clock in ns at which the stream was compared; 0 while it is in doubt

	mu      sync.Mutex // guards what follows
	results []result
	refusal error           // last permission violation, which JetStream leaves to look like a time-out
	putCtx  context.Context // of bodies being stored; ends with the connection, which their answers would not
	putStop context.CancelCauseFunc
}

// result is how a flight ended. One flight may have two.
type result struct {
	msg    *nats.Msg
	ack    *jetstream.PubAck // nil when err is set, or the body was stored and the message may follow
	err    error
	isBody bool
}

func (r *runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *runner) report(res result) {
	r.mu.Lock()
	r.results = append(r.results, res)
	r.mu.Unlock()
	r.poke()
}

func (r *runner) commitFailed(err error) {
	r.noteError(fmt.Sprintf("PubAcks cannot be recorded: %s", oneLine(err)))
	r.log.Error().Err(err).Msg("PubAcks cannot be recorded, trying again")
}

// connect makes the client. It does not fail because the broker is not there.
func (r *runner) connect() error {
	var self atomic.Pointer[nats.Conn]
	opts := append([]nats.Option{nats.RetryOnFailedConnect(true), nats.CustomReconnectDelay(reconnectDelay(&self)),
		nats.ConnectHandler(r.connected), nats.ReconnectHandler(r.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { r.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { r.notConnected(err) }),
		nats.ClosedHandler(func(*nats.Conn) { r.poke() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.asyncError(err) }),
	}, r.conn...)
	nc, err := nats.Connect(r.opts.URL, opts...)
	if err != nil {
		return fmt.Errorf("%w: %s", errClosed, oneLine(err))
	}
	self.Store(nc)
	r.nc = nc
	r.js, err = jetstream.New(nc, jetstream.WithPublishAsyncTimeout(r.opts.PublishTimeout),
		jetstream.WithPublishAsyncMaxPending(2*r.opts.MaxInFlight), jetstream.WithDefaultTimeout(r.opts.PublishTimeout),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) { r.report(result{msg: m, ack: ack}) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { r.report(result{msg: m, err: err}) }))
	return err
}

func (r *runner) connected(nc *nats.Conn) {
	r.log.Info().Str("server", nc.ConnectedUrlRedacted()).Msg("connected to NATS")
	r.poke()
}

func (r *runner) disconnected(err error) {
	r.settled.Store(0)
	r.stopPuts(nats.ErrDisconnected)
	if err != nil {
		r.notConnected(err)
		r.log.Warn().Err(err).Msg("connection to NATS lost; events wait in the outbox")
	}
	r.poke()
}

func (r *runner) notConnected(err error) { r.noteError("not connected: " + oneLine(err)) }

func (r *runner) asyncError(err error) {
	r.noteError(oneLine(err))
	if errors.Is(err, nats.ErrPermissionViolation) {
		r.mu.Lock()
		r.refusal = err
		r.mu.Unlock()
	}
	r.poke()
}

// stopPuts ends what is storing bodies for a reason, and lets it begin anew.
func (r *runner) stopPuts(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.putStop != nil {
		r.putStop(reason)
	}
	r.putCtx, r.putStop = context.WithCancelCause(context.Background())
}

// generation numbers the connections made so far, from 1; 0 while there is none.
func (r *runner) generation() uint64 {
	if !r.nc.IsConnected() {
		return 0
	}
	return r.nc.Stats().Reconnects + 1
}

func (r *runner) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.takeResults()
		now := time.Now()
		gen := r.generation()
		if gen != 0 && gen != r.checked && len(r.flights) == 0 && r.acks.open() == 0 && !now.Before(r.checkAt) {
			r.check(ctx, gen)
		}
		if r.mayPublish(gen) {
			r.read()
			r.send()
		}
		r.show(gen)
		if r.nc.IsClosed() {
			return errors.Join(errClosed, r.nc.LastError())
		}
		timer.Reset(r.nap(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-r.outbox.OutboxChanged():
			r.more = true
		case <-timer.C:
		}
	}
}

// mayPublish reports whether messages may go out over a connection.
func (r *runner) mayPublish(gen uint64) bool {
	return gen != 0 && gen == r.checked && !time.Now().Before(r.pausedUntil) && r.acks.open() < maxUncommitted
}

// nap is how long nothing can become due.
func (r *runner) nap(now time.Time) time.Duration {
	d := idleTick
	for _, at := range []time.Time{r.checkAt, r.pausedUntil} {
		if at.After(now) {
			d = min(d, at.Sub(now))
		}
	}
	return d
}

// check opens the stream, compares it with what is held, and takes back the acks of what it lost. It runs with nothing
// in flight and every ack written.
func (r *runner) check(parent context.Context, gen uint64) {
	ctx, cancel := context.WithTimeout(parent, r.opts.PublishTimeout)
	defer cancel()
	if err := r.checkStream(ctx); err != nil {
		if parent.Err() != nil {
			return // stopping: that says nothing about the stream
		}
		r.checks++
		wait := backoff(r.checks, checkBase, checkMax, rand.Float64())
		if r.takeRefusal() != nil {
			wait = refusedWait
		}
		r.checkAt = time.Now().Add(wait)
		if text := oneLine(err); text != r.problem {
			r.problem = text
			r.log.Error().Str("stream", r.opts.Stream).Str("reason", text).Msg("stream cannot be published to; events wait in the outbox")
		}
		r.update(func(s *Status) { s.Stream = r.problem })
		return
	}
	r.checked, r.checks, r.problem = gen, 0, ""
	r.settled.Store(time.Now().UnixNano())
	r.update(func(s *Status) { s.Stream = "ok" })
}

func (r *runner) checkStream(ctx context.Context) error {
	s, made, warnings, err := openStream(ctx, r.js, r.opts)
	r.warn(warnings)
	if err != nil {
		return err
	}
	if made {
		r.log.Info().Str("stream", r.opts.Stream).Msg("stream made")
	}
	last, held, err := r.outbox.LastHeld()
	if err != nil {
		return fmt.Errorf("held events cannot be read: %w", err)
	}
	info := s.CachedInfo()
	if held {
		after, gone, reason, err := lost(ctx, s, last, r.created)
		if err != nil {
			return err
		}
		if gone {
			n, err := r.outbox.Unacknowledge(after)
			if err != nil {
				return fmt.Errorf("acks cannot be taken back: %w", err)
			}
			r.log.Warn().Str("stream", r.opts.Stream).Str("reason", reason).Uint64("stream_seq", info.State.LastSeq).
				Uint64("held_seq", last.StreamSeq).Int("events", n).Msg("publishing held events again")
			r.queue, r.more = newQueue(), true // from the start, so that the order holds
		}
	}
	r.stream, r.created, r.highest = info.Config, info.Created, info.State.LastSeq
	return nil
}

func (r *runner) warn(warnings []string) {
	before := r.Status().Warnings
	for i, w := range warnings {
		if i >= len(before) || before[i] != w {
			r.log.Warn().Str("stream", r.opts.Stream).Str("reason", w).Msg("stream may surprise")
		}
	}
	r.update(func(s *Status) { s.Warnings = warnings })
}

// doubt lets the stream be checked before anything else goes out.
func (r *runner) doubt() {
	r.checked, r.checkAt = 0, time.Time{}
	r.settled.Store(0)
}

// show keeps the status.
func (r *runner) show(gen uint64) {
	server := ""
	if gen != 0 {
		server = r.server()
	}
	full := r.acks.open() >= maxUncommitted
	r.update(func(s *Status) {
		s.Connected, s.Server, s.InFlight, s.Blocked = gen != 0, server, len(r.flights), ""
		switch {
		case gen == 0:
			s.Blocked = cmp.Or(s.LastError, "not connected to NATS")
		case gen != r.checked:
			s.Blocked = cmp.Or(r.problem, "looking at the stream")
		case r.pauses > 0:
			s.Blocked = s.LastError
		case full:
			s.Blocked = "PubAcks cannot be recorded"
		}
	})
}

func (r *runner) server() string {
	if e := r.opts.InProcess; e != nil {
		return e.ClientURL()
	}
	return r.nc.ConnectedUrlRedacted()
}

// drain waits a moment for answers that are on their way, so that a restart has less to ask again.
func (r *runner) drain() {
	timeout := time.NewTimer(drainTime)
	defer timeout.Stop()
	for r.takeResults(); len(r.flights) > 0 && r.nc.IsConnected(); r.takeResults() {
		select {
		case <-r.wake:
		case <-timeout.C:
			return
		}
	}
}

// release lets rows go that were held long enough, while the stream is known to hold what it acknowledged: what is held
// when the broker vanishes stays until the broker is back and was looked at.
func (r *runner) release(ctx context.Context) {
	tick := time.NewTicker(min(max(r.opts.AckHold/30, 20*time.Millisecond), 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for r.mayRelease(time.Now()) && ctx.Err() == nil {
			n, err := r.outbox.ReleaseHeld(time.Now().UTC().Add(-r.opts.AckHold), releaseBatch)
			if err != nil {
				r.log.Error().Err(err).Msg("held events cannot be released, trying again")
			}
			if err != nil || n < releaseBatch {
				break
			}
		}
	}
}

func (r *runner) mayRelease(now time.Time) bool {
	since := r.settled.Load()
	return since != 0 && now.UnixNano()-since >= int64(min(r.opts.AckHold, settleTime)) && r.nc.IsConnected()
}
