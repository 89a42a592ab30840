package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

var _ Outbox = (*store.Store)(nil)

const patience = 30 * time.Second

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not happen within %v", what, patience)
		}
	}
}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newEvent(mailbox string, n int) *event.Event {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
	return &event.Event{
		ID: event.ID("test", mailbox, fmt.Sprint(n)), Area: event.AreaMail, Name: event.Received,
		Source: event.Source("84bd8158-6d4d-4958-8b9f-9d6445542f95", mailbox), Subject: fmt.Sprintf("messages/AAMk%d=", n),
		Time: at, RecordedTime: at.Add(time.Second), Watch: "sales", Mailbox: mailbox, Via: event.ViaPush,
		Data: jsontext.Value(fmt.Sprintf(`{"mailbox":{"alias":%q},"item":{"id":"AAMk%d="},"message":{"subject":"n %d","hasAttachments":false,"categories":[],"isRead":false}}`, mailbox, n, n)),
	}
}

// appendEvents puts n events of each mailbox into the outbox, from number from on.
func appendEvents(t testing.TB, s *store.Store, mailboxes []string, from, n int) {
	t.Helper()
	err := s.Update(func(tx *store.Tx) error {
		for i := from; i < from+n; i++ {
			for _, m := range mailboxes {
				if err := tx.AppendEvent(newEvent(m, i)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mailboxes(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("box%d", i))
	}
	return names
}

// broker is an embedded server that can be stopped and started again on the same port.
type broker struct {
	*Embedded
	t      testing.TB
	dir    string
	listen string
}

func newBroker(t testing.TB) *broker {
	t.Helper()
	b := &broker{t: t, dir: t.TempDir(), listen: "127.0.0.1:0"}
	b.start()
	b.listen = strings.TrimPrefix(b.ClientURL(), "nats://")
	t.Cleanup(func() { b.Shutdown() })
	return b
}

func (b *broker) start() {
	b.t.Helper()
	e, err := StartEmbedded(b.dir, b.listen, zerolog.Nop())
	if err != nil {
		b.t.Fatal(err)
	}
	b.Embedded = e
}

func (b *broker) restart() {
	b.t.Helper()
	b.Shutdown()
	b.start()
}

// jetStream is a client of the test's own.
func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// running is a publisher at work.
type running struct {
	*Publisher
	stop func()
}

func start(t testing.TB, outbox Outbox, o Options) *running {
	t.Helper()
	p, err := New(outbox, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	r := &running{Publisher: p, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil because ctx is done", err)
		}
	})}
	t.Cleanup(r.stop)
	return r
}

// published waits until nothing in the outbox lacks a PubAck.
func published(t *testing.T, s *store.Store, p *running) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("outbox %+v, status %+v", s.OutboxStats(), p.Status())
		}
	}()
	eventually(t, "publishing everything", func() bool { return s.OutboxStats().Entries == 0 })
}

// contents reads the whole stream.
func contents(t *testing.T, js jetstream.JetStream, stream string) (all []Received) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r := decode(m.Header, m.Data)
		if r.Err != nil {
			t.Fatalf("message %d: %v", seq, r.Err)
		}
		if id := m.Header.Get(nats.MsgIdHdr); id != r.Event.ID {
			t.Fatalf("message %d: Nats-Msg-Id %s, event id %s", seq, id, r.Event.ID)
		}
		r.NATSSubject, r.StreamSeq = m.Subject, seq
		all = append(all, r)
	}
	return all
}

// wantComplete fails unless the stream holds exactly events 1..n of each mailbox, each once and in order.
func wantComplete(t *testing.T, all []Received, boxes []string, n int) {
	t.Helper()
	next := map[string]uint64{}
	for _, r := range all {
		m := r.Event.Mailbox
		if want := next[m] + 1; r.Event.Sequence != want {
			t.Fatalf("%s: sequence %d after %d at stream sequence %d", m, r.Event.Sequence, want-1, r.StreamSeq)
		}
		next[m] = r.Event.Sequence
		if want := "graph.sales." + m + ".mail.received"; r.NATSSubject != want {
			t.Fatalf("subject %s, want %s", r.NATSSubject, want)
		}
	}
	if got := slices.Sorted(maps.Keys(next)); !slices.Equal(got, slices.Sorted(slices.Values(boxes))) {
		t.Fatalf("mailboxes %v, want %v", got, boxes)
	}
	for m, last := range next {
		if last != uint64(n) {
			t.Fatalf("%s: %d events, want %d", m, last, n)
		}
	}
}

// flaky is an outbox whose methods can be made to fail.
type flaky struct {
	*store.Store
	mu   sync.Mutex
	ack  func([]store.Ack) error // instead of Acknowledge
	rows func([]store.OutboxRow) []store.OutboxRow
}

func (f *flaky) Acknowledge(acks []store.Ack) error {
	f.mu.Lock()
	ack := f.ack
	f.mu.Unlock()
	if ack != nil {
		return ack(acks)
	}
	return f.Store.Acknowledge(acks)
}

func (f *flaky) Outbox(after uint64, maxBytes int) ([]store.OutboxRow, error) {
	rows, err := f.Store.Outbox(after, maxBytes)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rows != nil {
		rows = f.rows(rows)
	}
	return rows, err
}

// strictServer starts a server with options of the test's own.
func strictServer(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	o.Host, o.NoSigs, o.JetStream, o.DisableJetStreamBanner = "127.0.0.1", true, true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := startServer(o, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}
