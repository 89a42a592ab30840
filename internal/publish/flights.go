package publish

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/store"
)

// read takes the next rows from the outbox where there is room for them.
func (r *runner) read() {
	chunk := min(readChunk, max(r.opts.MaxBytes/2, 1))
	if !r.more || r.queue.bytes+chunk > r.opts.MaxBytes {
		return
	}
	rows, err := r.outbox.Outbox(r.queue.after, chunk)
	if err != nil {
		r.pause("outbox cannot be read: "+oneLine(err), 0)
		return
	}
	for _, row := range rows {
		if row.Err == nil {
			r.queue.add(row)
		} else if r.queue.after = row.Seq; !r.quarantine(row.Seq, row.Err) {
			r.queue.after = row.Seq - 1
			return
		}
	}
	if r.more = len(rows) > 0; r.more {
		r.poke() // after these have been sent
	}
}

// send puts messages on their way while there is room for more.
func (r *runner) send() {
	lim := limits{message: int(r.nc.MaxPayload())}
	if n := int(r.stream.MaxMsgSize); n > 0 {
		lim.message = min(lim.message, n)
	}
	for len(r.flights) < r.limit && !time.Now().Before(r.pausedUntil) {
		part := r.queue.next()
		if part == nil {
			return
		}
		row := &part.rows[0]
		msg, body, err := r.opts.prepare(&row.Event, lim)
		f := &flight{part: part, msg: msg, body: body}
		switch {
		case err != nil:
			r.failed(f, err)
		case body != nil:
			r.flights[msg] = f
			r.putAndReport(f, lim)
		default:
			r.flights[msg] = f
			r.submit(f)
		}
	}
}

func (r *runner) submit(f *flight) {
	if _, err := r.js.PublishMsgAsync(f.msg); err != nil {
		r.settle(result{msg: f.msg, err: err})
	}
}

// putAndReport stores a body beside the loop, since that takes several round trips.
func (r *runner) putAndReport(f *flight, lim limits) {
	id, stream := f.row().Event.ID, r.stream
	r.mu.Lock()
	ctx := r.putCtx
	r.mu.Unlock()
	r.bodies.Go(func() {
		select {
		case r.puts <- struct{}{}:
			defer func() { <-r.puts }()
		case <-ctx.Done():
		}
		r.report(result{msg: f.msg, isBody: true, err: putBody(ctx, r.js, stream, id, f.body, lim)})
	})
}

func (r *runner) takeResults() {
	r.mu.Lock()
	results := r.results
	r.results = nil
	r.mu.Unlock()
	for _, res := range results {
		r.settle(res)
	}
}

func (r *runner) settle(res result) {
	f := r.flights[res.msg]
	if f == nil {
		return // the second answer
	}
	if res.isBody && res.err == nil {
		if r.mayPublish(r.generation()) {
			r.submit(f)
			return
		}
		delete(r.flights, res.msg) // the connection is another one since, or the broker takes nothing: later
		r.queue.again(f.part)
		return
	}
	delete(r.flights, res.msg)
	if res.err != nil {
		r.failed(f, res.err)
		return
	}
	r.published(f, res.ack)
}

func (r *runner) published(f *flight, ack *jetstream.PubAck) {
	now := time.Now().UTC()
	row := f.row()
	r.acks.add(store.Ack{Seq: row.Seq, ID: row.Event.ID, StreamSeq: ack.Sequence, At: now})
	if r.opts.OnPublished != nil {
		r.opts.OnPublished(&row.Event, now)
	}
	r.queue.done(f.part)
	if now.After(r.pausedUntil) { // an answer to what was sent before a pause says nothing about the time after it
		r.limit, r.pauses, r.silentSince = r.opts.MaxInFlight, 0, time.Time{}
	}
	if !ack.Duplicate && ack.Sequence <= r.highest {
		r.log.Warn().Str("stream", r.opts.Stream).Uint64("stream_seq", ack.Sequence).Uint64("highest", r.highest).Msg("stream sequence went back")
		r.doubt()
	}
	r.highest = max(r.highest, ack.Sequence)
	r.update(func(s *Status) { s.LastPublishedAt, s.LastError, s.LastErrorAt = now, "", time.Time{} })
}

// failed decides what becomes of a row that was not acknowledged.
func (r *runner) failed(f *flight, err error) {
	reaction := reactTo(err)
	if reaction == giveUp {
		if r.quarantine(f.row().Seq, err) {
			r.queue.done(f.part)
			return
		}
	}
	r.queue.again(f.part)
	switch reaction {
	case reconnect:
		r.doubt()
		r.noteError(oneLine(err))
	case recheck:
		r.doubt()
		r.pause(r.opts.explainPublish(err, 0), 0)
	case retry:
		err = r.timedOut(err)
		least := time.Duration(0)
		if refused(err) {
			least = refusedWait
		}
		r.pause(r.opts.explainPublish(err, r.silence()), least)
	}
}

// timedOut finds the cause of a time-out that is a refusal in truth.
func (r *runner) timedOut(err error) error {
	if !errors.Is(err, jetstream.ErrAsyncPublishTimeout) {
		return err
	}
	if r.silentSince.IsZero() {
		r.silentSince = time.Now().Add(-r.opts.PublishTimeout)
	}
	if refusal := r.takeRefusal(); refusal != nil {
		return refusal
	}
	return err
}

func (r *runner) silence() time.Duration {
	if r.silentSince.IsZero() {
		return 0
	}
	return time.Since(r.silentSince)
}

func (r *runner) takeRefusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.refusal
	r.refusal = nil
	return err
}

// pause lets nothing go out for a while, at least as long as said, and then one message to see whether the broker takes
// events again.
func (r *runner) pause(reason string, least time.Duration) {
	r.noteError(reason)
	if time.Now().Before(r.pausedUntil) {
		return // one of many that failed together
	}
	if r.pauses++; r.pauses == 3 {
		r.log.Warn().Str("stream", r.opts.Stream).Str("reason", reason).Msg("publishing does not work; events wait in the outbox")
	}
	r.limit = 1
	r.pausedUntil = time.Now().Add(max(least, backoff(r.pauses, pauseBase, pauseMax, rand.Float64())))
}

// quarantine parks a row, and reports whether it did.
func (r *runner) quarantine(seq uint64, reason error) bool {
	if err := r.outbox.QuarantineOutbox(seq, oneLine(reason), time.Now().UTC()); err != nil {
		r.pause("event cannot be put into quarantine: "+oneLine(err), 0)
		return false
	}
	r.log.Error().Uint64("seq", seq).Err(reason).Msg("event put into quarantine")
	return true
}
