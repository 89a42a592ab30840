package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TailOptions say what to read back.
type TailOptions struct {
	Subject string    // with NATS wildcards; empty means everything in the stream
	Since   time.Time // from events stored at this time on; zero means from now
	All     bool      // from the oldest event on
	Wait    bool      // for broker and stream to come into being, instead of an error
	OnReady func()    // called once, when every event published from now on will be seen; may be nil
}

// waitRetry is how often Tail looks for a broker or stream it waits for.
const waitRetry = 200 * time.Millisecond

// tailForget is how soon the broker forgets a reader that vanished.
const tailForget = 30 * time.Second

// Tail calls fn for each message of the stream, in order, until ctx is done, and returns nil then. An error of fn ends it
// and is returned. Of o only the connection and Stream matter. It leaves nothing behind on the broker.
func Tail(ctx context.Context, o Options, t TailOptions, fn func(Received) error) error {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	opts, err := o.connectOptions()
	if err != nil {
		return err
	}
	nc, err := nats.Connect(o.URL, append(opts, nats.RetryOnFailedConnect(t.Wait), nats.ReconnectWait(waitRetry))...)
	if err != nil {
		return fmt.Errorf("NATS: %s", oneLine(err))
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(o.PublishTimeout))
	if err != nil {
		return err
	}
	messages, err := follow(ctx, js, o, t)
	if err == nil {
		defer messages.Stop()
		if t.OnReady != nil {
			t.OnReady()
		}
		err = receive(ctx, messages, fn)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow finds the stream, waiting for it when asked to, and starts reading.
func follow(ctx context.Context, js jetstream.JetStream, o Options, t TailOptions) (jetstream.MessagesContext, error) {
	for {
		s, err := js.Stream(ctx, o.Stream)
		if err == nil {
			cons, err := s.OrderedConsumer(ctx, t.consumer(s.CachedInfo()))
			if err != nil {
				return nil, fmt.Errorf("reading stream %s: %s", o.Stream, oneLine(err))
			}
			return cons.Messages()
		}
		if !t.Wait && errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("stream %s is not there: triggerd makes it when it runs; set TRIGGERD_STREAM if it has another name", o.Stream)
		}
		if !t.Wait {
			return nil, o.explainStream(err)
		}
		if !sleep(ctx, waitRetry) {
			return nil, ctx.Err()
		}
	}
}

// consumer starts at a fixed place, "now" being one too, so that a consumer made anew after a disconnection skips nothing.
func (t TailOptions) consumer(info *jetstream.StreamInfo) jetstream.OrderedConsumerConfig {
	c := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: info.State.LastSeq + 1,
		InactiveThreshold: tailForget}
	switch {
	case t.All:
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverAllPolicy, 0
	case !t.Since.IsZero():
		since := t.Since.UTC()
		c.DeliverPolicy, c.OptStartSeq, c.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &since
	}
	if t.Subject != "" {
		c.FilterSubjects = []string{t.Subject}
	}
	return c
}

func receive(ctx context.Context, messages jetstream.MessagesContext, fn func(Received) error) error {
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat), errors.Is(err, nats.ErrTimeout):
			continue // the broker is away; the consumer is made anew when it is back
		case err != nil:
			return fmt.Errorf("reading the stream: %s", oneLine(err))
		}
		r := decode(m.Headers(), m.Data())
		r.NATSSubject = m.Subject()
		if meta, err := m.Metadata(); err == nil {
			r.StreamSeq, r.StoredAt = meta.Sequence.Stream, meta.Timestamp.UTC()
		}
		if err := fn(r); err != nil {
			return err
		}
	}
}
