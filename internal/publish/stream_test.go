package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// good is a stream that can be published to.
func good(change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
	c := Options{}.withDefaults().streamConfig()
	change(&c)
	return c
}

func TestUnfitStreamHoldsEventsAndNamesTheRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		config jetstream.StreamConfig
		want   string
		heal   func(t *testing.T, js jetstream.JetStream)
	}{
		"other subjects": {good(func(c *jetstream.StreamConfig) { c.Subjects = []string{"orders.>"} }), "does not take the subjects graph.> (it takes orders.>)", nil},
		"memory":         {good(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), "keeps its messages in memory: make it anew with file storage", nil},
		"short window":   {good(func(c *jetstream.StreamConfig) { c.Duplicates = 2 * time.Minute }), "set `nats stream edit GRAPH --dupe-window=20m0s`", nil},
		"async":          {good(func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }), "persist_mode async", remake},
		"no ack":         {good(func(c *jetstream.StreamConfig) { c.NoAck = true }), "does not acknowledge", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			js := jetStream(t, b.ClientURL())
			if _, err := js.CreateStream(t.Context(), c.config); err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			appendEvents(t, s, mailboxes(1), 1, 5)
			p := start(t, s, Options{URL: b.ClientURL()})
			eventually(t, "saying what is wrong", func() bool { return strings.Contains(p.Status().Stream, c.want) })
			eventually(t, "being blocked for that reason", func() bool { return strings.Contains(p.Status().Blocked, c.want) })
			if got := s.OutboxStats().Entries; got != 5 {
				t.Fatalf("outbox holds %d events, want 5", got)
			}
			if st, err := js.Stream(t.Context(), "GRAPH"); err != nil || st.CachedInfo().State.Msgs != 0 {
				t.Fatalf("stream: %v, want it untouched and empty", err)
			}
			if c.config.Storage == jetstream.MemoryStorage || c.heal != nil {
				remake(t, js)
			} else if _, err := js.UpdateStream(t.Context(), good(func(*jetstream.StreamConfig) {})); err != nil {
				t.Fatal(err)
			}
			published(t, s, p)
			wantComplete(t, contents(t, js, "GRAPH"), mailboxes(1), 5)
		})
	}
}

func remake(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if err := js.DeleteStream(t.Context(), "GRAPH"); err != nil {
		t.Fatal(err)
	}
}

func TestSubjectsOfAnotherStream(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"graph.sales.>"}}); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 5)
	p := start(t, s, Options{URL: b.ClientURL()})
	eventually(t, "saying what is wrong", func() bool {
		return strings.Contains(p.Status().Stream, "another stream takes subjects under graph.>: name that one in TRIGGERD_STREAM")
	})
	if st, err := js.Stream(t.Context(), "OTHER"); err != nil || st.CachedInfo().State.Msgs != 0 {
		t.Fatalf("the other stream: %v, want it empty", err)
	}
	if err := js.DeleteStream(t.Context(), "OTHER"); err != nil {
		t.Fatal(err)
	}
	published(t, s, p)
}

func TestWarningIsInTheStatus(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	if _, err := js.CreateStream(t.Context(), good(func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 1000 })); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 5)
	p := start(t, s, Options{URL: b.ClientURL()})
	published(t, s, p)
	if w := p.Status().Warnings; len(w) != 1 || !strings.Contains(w[0], "--discard=new") {
		t.Errorf("warnings %q, want one about discarding", w)
	}
}

func TestFullStreamHoldsEventsUntilThereIsRoom(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	st, err := js.CreateStream(t.Context(), good(func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }))
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	appendEvents(t, s, mailboxes(3), 1, 6)
	p := start(t, s, Options{URL: b.ClientURL()})
	eventually(t, "saying that it is full", func() bool {
		st := p.Status()
		return strings.Contains(st.Blocked, "stream GRAPH is full (maximum messages exceeded)") && st.Connected
	})
	eventually(t, "recording what was taken", func() bool { return s.OutboxStats().Held == 10 })
	first := contents(t, js, "GRAPH")
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	published(t, s, p)
	wantComplete(t, append(first, contents(t, js, "GRAPH")...), mailboxes(3), 6)
	if got := s.OutboxStats().Held; got != 18 {
		t.Errorf("%d held, want 18", got)
	}
}

func TestAccountWithoutStorageLeft(t *testing.T) {
	srv := strictServer(t, &server.Options{JetStreamMaxStore: 20_000})
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 60)
	p := start(t, s, Options{URL: srv.ClientURL()})
	eventually(t, "saying that there is no storage", func() bool {
		return strings.Contains(p.Status().Blocked, "no storage left") || strings.Contains(p.Status().Blocked, "is full")
	})
	eventually(t, "recording what was taken", func() bool { st := s.OutboxStats(); return st.Held > 0 && st.Entries > 0 })
	stream, err := jetStream(t, srv.ClientURL()).Stream(t.Context(), "GRAPH")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := s.OutboxStats().Entries
	eventually(t, "going on", func() bool { return s.OutboxStats().Entries < before })
}

func withSubject(mailbox string, n, size int) *event.Event {
	e := newEvent(mailbox, n)
	e.Data = jsontext.Value(fmt.Sprintf(`{"message":{"subject":%q}}`, strings.Repeat("x", size)))
	return e
}

func TestTooLargeEventGoesToQuarantineAndOthersFlow(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*jetstream.StreamConfig)
		size   int
	}{
		"above max_payload":  {func(*jetstream.StreamConfig) {}, 2 << 20},
		"above max_msg_size": {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 5000 }, 6000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			js := jetStream(t, b.ClientURL())
			if _, err := js.CreateStream(t.Context(), good(c.config)); err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			err := s.Update(func(tx *store.Tx) error {
				return errors.Join(tx.AppendEvent(newEvent("box0", 1)), tx.AppendEvent(withSubject("box0", 2, c.size)),
					tx.AppendEvent(newEvent("box0", 3)), tx.AppendEvent(newEvent("box1", 1)))
			})
			if err != nil {
				t.Fatal(err)
			}
			p := start(t, s, Options{URL: b.ClientURL()})
			published(t, s, p)
			var got []string
			for _, r := range contents(t, js, "GRAPH") {
				got = append(got, fmt.Sprint(r.Event.Mailbox, r.Event.Sequence))
			}
			if len(got) != 3 || s.Counters()["quarantine_entries"] != 1 {
				t.Errorf("stream holds %v, quarantine %d, want three events and one parked", got, s.Counters()["quarantine_entries"])
			}
		})
	}
}

func TestMaxMsgSizeLoweredWhileRunning(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	s := newStore(t)
	p := start(t, s, Options{URL: b.ClientURL()})
	appendEvents(t, s, mailboxes(1), 1, 1)
	published(t, s, p)
	if _, err := js.UpdateStream(t.Context(), good(func(c *jetstream.StreamConfig) { c.MaxMsgSize = 5000 })); err != nil {
		t.Fatal(err)
	}
	err := s.Update(func(tx *store.Tx) error {
		return errors.Join(tx.AppendEvent(withSubject("box0", 2, 6000)), tx.AppendEvent(newEvent("box0", 3)))
	})
	if err != nil {
		t.Fatal(err)
	}
	published(t, s, p) // the server says 10054
	if got := contents(t, js, "GRAPH"); len(got) != 2 || s.Counters()["quarantine_entries"] != 1 {
		t.Errorf("%d in the stream, %d in quarantine, want 2 and 1", len(got), s.Counters()["quarantine_entries"])
	}
}

func TestServerWithoutJetStream(t *testing.T) {
	srv, err := startServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true}, newLog())
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown()
	p := start(t, newStore(t), Options{URL: srv.ClientURL()})
	eventually(t, "saying so", func() bool { return strings.Contains(p.Status().Stream, "start nats-server with JetStream") })
}

func TestUserWithoutPermissionToPublish(t *testing.T) {
	srv := strictServer(t, &server.Options{Users: []*server.User{
		{Username: "admin", Password: "a"},
		{Username: "limited", Password: "b", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"$JS.API.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{">"}},
		}},
	}})
	host := strings.TrimPrefix(srv.ClientURL(), "nats://")
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 3)
	p := start(t, s, Options{URL: "nats://limited:b@" + host, PublishTimeout: 200 * time.Millisecond})
	eventually(t, "naming the permission", func() bool {
		return strings.Contains(p.Status().Blocked, "may not publish to graph.>")
	})
	if got := s.OutboxStats().Entries; got != 3 {
		t.Errorf("outbox holds %d, want 3", got)
	}
	if got := p.Status().Server; strings.Contains(got, "limited:b@") {
		t.Errorf("status shows the password: %s", got)
	}
}

func TestRefusedCredentials(t *testing.T) {
	srv := strictServer(t, &server.Options{Users: []*server.User{{Username: "admin", Password: "a"}}})
	host := strings.TrimPrefix(srv.ClientURL(), "nats://")
	p := start(t, newStore(t), Options{URL: "nats://admin:wrong@" + host})
	eventually(t, "saying so", func() bool {
		return strings.Contains(strings.ToLower(p.Status().Blocked), "authorization violation")
	})
	if strings.Contains(p.Status().Blocked, "wrong") {
		t.Errorf("status shows the password: %s", p.Status().Blocked)
	}
}

// stall is a TCP proxy in front of a server that can stop passing bytes on without closing anything.
type stall struct {
	net.Listener
	target string
	mu     sync.Mutex
	open   chan struct{} // closed while bytes may pass
	wg     sync.WaitGroup
}

func newStall(t *testing.T, target string) *stall {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stall{Listener: l, target: strings.TrimPrefix(target, "nats://"), open: make(chan struct{})}
	close(s.open)
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", s.target)
			if err != nil {
				c.Close()
				continue
			}
			s.wg.Go(func() { s.pass(ctx, c, up) })
			s.wg.Go(func() { s.pass(ctx, up, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		s.wg.Wait()
	})
	return s
}

func (s *stall) pass(ctx context.Context, to, from net.Conn) {
	stop := context.AfterFunc(ctx, func() { from.Close() })
	defer stop()
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		open := s.open
		s.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (s *stall) set(stalled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stalled {
		s.open = make(chan struct{})
	} else {
		close(s.open)
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	b := newBroker(t)
	proxy := newStall(t, b.ClientURL())
	s := newStore(t)
	appendEvents(t, s, mailboxes(50), 1, 2)
	p := start(t, s, Options{URL: "nats://" + proxy.Addr().String(), MaxInFlight: 16, PublishTimeout: 300 * time.Millisecond})
	published(t, s, p)
	proxy.set(true)
	appendEvents(t, s, mailboxes(50), 3, 2)
	eventually(t, "giving up waiting", func() bool {
		st := p.Status()
		if st.InFlight > 16 {
			t.Fatalf("%d in flight, want 16 at most", st.InFlight)
		}
		return strings.Contains(st.Blocked, "no PubAck within 300ms")
	})
	proxy.set(false)
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(50), 4)
}

func TestLost(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	st, err := js.CreateStream(t.Context(), good(func(*jetstream.StreamConfig) {}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := js.Publish(t.Context(), "graph.x", nil, jetstream.WithMsgID(fmt.Sprint("id", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(st.Purge(t.Context(), jetstream.WithPurgeSequence(3)), st.DeleteMsg(t.Context(), 6)); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := st.CachedInfo().Created
	later := made.Add(time.Hour)
	for name, c := range map[string]struct {
		last    store.Ack
		created time.Time
		after   uint64
		gone    bool
	}{
		"the last one is there":         {store.Ack{ID: "id10", StreamSeq: 10, At: later}, made, 0, false},
		"others published since":        {store.Ack{ID: "id8", StreamSeq: 8, At: later}, time.Time{}, 0, false},
		"read and purged":               {store.Ack{ID: "id2", StreamSeq: 2, At: later}, made, 0, false},
		"read and deleted":              {store.Ack{ID: "id6", StreamSeq: 6, At: later}, made, 0, false},
		"gone back":                     {store.Ack{ID: "id12", StreamSeq: 12, At: later}, made, 10, true},
		"another message in its place":  {store.Ack{ID: "mine", StreamSeq: 9, At: later}, made, 0, true},
		"made after the ack":            {store.Ack{ID: "id9", StreamSeq: 9, At: made.Add(-time.Second)}, time.Time{}, 0, true},
		"made anew since the last look": {store.Ack{ID: "id9", StreamSeq: 9, At: later}, made.Add(-time.Minute), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			after, gone, reason, err := lost(t.Context(), st, c.last, c.created)
			if err != nil || after != c.after || gone != c.gone || gone != (reason != "") {
				t.Errorf("lost = %d, %v, %q, %v, want %d, %v", after, gone, reason, err, c.after, c.gone)
			}
		})
	}
	b.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, gone, _, err := lost(ctx, st, store.Ack{ID: "id10", StreamSeq: 10, At: later}, made); err == nil || gone {
		t.Errorf("lost without a server = %v, %v, want an error and no verdict", gone, err)
	}
}
