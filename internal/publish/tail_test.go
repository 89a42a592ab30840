package publish

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// tailing is a Tail at work.
type tailing struct {
	got   chan Received
	done  chan error
	stop  context.CancelFunc
	ready chan struct{}
}

func tail(t *testing.T, o Options, to TailOptions) *tailing {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &tailing{got: make(chan Received, 1000), done: make(chan error, 1), ready: make(chan struct{}), stop: cancel}
	to.OnReady = func() { close(x.ready) }
	go func() {
		x.done <- Tail(ctx, o, to, func(r Received) error {
			x.got <- r
			return nil
		})
	}()
	t.Cleanup(cancel)
	return x
}

func wait[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v", what, patience)
	}
	return v
}

func TestTailSeesEventsFromNowOnAcrossARestart(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	o := Options{URL: b.ClientURL()}
	p := start(t, s, o)
	appendEvents(t, s, mailboxes(1), 1, 3)
	published(t, s, p)

	x := tail(t, o, TailOptions{})
	wait(t, "being ready", x.ready)
	b.restart() // before anything was seen
	appendEvents(t, s, mailboxes(1), 4, 2)
	for want := uint64(4); want <= 5; want++ {
		r := wait(t, "an event", x.got)
		if r.Err != nil || r.Event.Sequence != want || r.StreamSeq != want || r.NATSSubject != "graph.sales.box0.mail.received" || r.StoredAt.IsZero() {
			t.Fatalf("got %+v, want event %d", r, want)
		}
	}
	x.stop()
	if err := wait(t, "ending", x.done); err != nil {
		t.Errorf("Tail = %v, want nil because ctx is done", err)
	}
}

func TestTailFromTheStartAndFiltered(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	o := Options{URL: b.ClientURL()}
	p := start(t, s, o)
	appendEvents(t, s, mailboxes(3), 1, 4)
	published(t, s, p)
	x := tail(t, o, TailOptions{All: true, Subject: "graph.*.box1.>"})
	for want := uint64(1); want <= 4; want++ {
		if r := wait(t, "an event", x.got); r.Event.Sequence != want || r.Event.Mailbox != "box1" {
			t.Fatalf("got %+v, want event %d of box1", r, want)
		}
	}
	all := contents(t, jetStream(t, b.ClientURL()), "GRAPH")
	x = tail(t, o, TailOptions{Since: time.Now().Add(-time.Hour)})
	for range all {
		wait(t, "an event", x.got)
	}
	x = tail(t, o, TailOptions{Since: time.Now().Add(time.Hour)})
	wait(t, "being ready", x.ready)
	x.stop()
	wait(t, "ending", x.done)
	if len(x.got) > 0 {
		t.Error("events from before Since")
	}
}

func TestTailShowsWhatIsNoCloudEvent(t *testing.T) {
	b := newBroker(t)
	o := Options{URL: b.ClientURL()}
	js := jetStream(t, b.ClientURL())
	if _, err := js.CreateStream(t.Context(), o.withDefaults().streamConfig()); err != nil {
		t.Fatal(err)
	}
	x := tail(t, o, TailOptions{})
	wait(t, "being ready", x.ready)
	if _, err := js.Publish(t.Context(), "graph.hello", []byte("world")); err != nil {
		t.Fatal(err)
	}
	if r := wait(t, "the message", x.got); r.Err == nil || string(r.Data) != "world" || r.NATSSubject != "graph.hello" || r.StreamSeq != 1 {
		t.Errorf("got %+v, want an error beside the raw message", r)
	}
}

func TestTailWaitsForBrokerAndStream(t *testing.T) {
	b := newBroker(t)
	o := Options{URL: b.ClientURL()}
	b.Shutdown()
	x := tail(t, o, TailOptions{Wait: true, All: true})
	b.start()
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 1)
	start(t, s, o)
	if r := wait(t, "the event", x.got); r.Event.Sequence != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestTailEndsWithTheErrorOfItsFunction(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 2)
	o := Options{InProcess: b.Embedded}
	p := start(t, s, o)
	published(t, s, p)
	enough := errors.New("enough")
	if err := Tail(t.Context(), o, TailOptions{All: true}, func(Received) error { return enough }); err != enough {
		t.Errorf("Tail = %v, want the function's error", err)
	}
}

func TestTailRefuses(t *testing.T) {
	b := newBroker(t)
	gone := newBroker(t)
	gone.Shutdown()
	plain, err := startServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true}, newLog())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Shutdown()
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no broker":    {Options{URL: gone.ClientURL()}, "NATS: "},
		"no stream":    {Options{URL: b.ClientURL(), Stream: "NOPE"}, "stream NOPE is not there"},
		"no jetstream": {Options{URL: plain.ClientURL()}, "start nats-server with JetStream"},
		"bad options":  {Options{URL: "x://y"}, "NATS URL is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Tail(t.Context(), c.o, TailOptions{}, func(Received) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Tail = %v, want an error with %q", err, c.want)
			}
		})
	}
}
