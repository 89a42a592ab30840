package publish

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

func TestEventsArriveOnceAndInOrderWhileTheServerIsRestarted(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	boxes := mailboxes(8)
	p := start(t, s, Options{URL: b.ClientURL()})
	for round := range 4 {
		appendEvents(t, s, boxes, 1+round*300, 300)
		eventually(t, "publishing", func() bool { return s.OutboxStats().Held > round*2400+100 })
		b.restart()
	}
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), boxes, 1200)
}

func TestEventsWaitForAServerThatStartsLater(t *testing.T) {
	b := newBroker(t)
	url := b.ClientURL()
	b.Shutdown()
	s := newStore(t)
	p := start(t, s, Options{URL: url})
	appendEvents(t, s, mailboxes(2), 1, 50)
	eventually(t, "noticing that there is no server", func() bool {
		st := p.Status()
		return !st.Connected && st.LastError != "" && st.Blocked != ""
	})
	if got := s.OutboxStats().Entries; got != 100 {
		t.Fatalf("outbox holds %d, want 100", got)
	}
	b.start()
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, url), "GRAPH"), mailboxes(2), 50)
	st := p.Status()
	if !st.Connected || st.Server != url || st.Stream != "ok" || st.LastError != "" || st.Blocked != "" || st.LastPublishedAt.IsZero() || st.InFlight != 0 {
		t.Fatalf("status %+v, want all well on %s", st, url)
	}
}

func TestInProcessConnection(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	appendEvents(t, s, mailboxes(3), 1, 20)
	var seen atomic.Int64
	p := start(t, s, Options{InProcess: b.Embedded, OnPublished: func(e *event.Event, at time.Time) {
		if e.Sequence == 0 || at.IsZero() {
			t.Errorf("OnPublished got sequence %d at %v", e.Sequence, at)
		}
		seen.Add(1)
	}})
	published(t, s, p)
	if got := seen.Load(); got != 60 {
		t.Errorf("OnPublished was called %d times, want 60", got)
	}
	if got := p.Status().Server; got != b.ClientURL() {
		t.Errorf("server %q, want %q", got, b.ClientURL())
	}
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(3), 20)
}

func TestRowsBeyondTheMemoryLimitAreReadBackInOrder(t *testing.T) {
	for _, limit := range []int{1, 4000} { // one row and a handful
		b := newBroker(t)
		s := newStore(t)
		appendEvents(t, s, mailboxes(3), 1, 100)
		f := &flaky{Store: s, rows: func(rows []store.OutboxRow) []store.OutboxRow {
			size := 0
			for _, r := range rows {
				size += r.Size
			}
			if size > limit && len(rows) > 1 {
				t.Errorf("%d rows of %d bytes read at once, want %d bytes at most", len(rows), size, limit)
			}
			return rows
		}}
		p := start(t, f, Options{URL: b.ClientURL(), MaxBytes: limit, MaxInFlight: 2})
		published(t, s, p)
		wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(3), 100)
	}
}

// Two daemons over the same mailboxes see the same changes, and give them the same ids.
func TestTwoInstancesPublishOnce(t *testing.T) {
	b := newBroker(t)
	one, two := newStore(t), newStore(t)
	appendEvents(t, one, mailboxes(4), 1, 100)
	appendEvents(t, two, mailboxes(4), 1, 100)
	p, q := start(t, one, Options{URL: b.ClientURL()}), start(t, two, Options{URL: b.ClientURL()})
	published(t, one, p)
	published(t, two, q)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(4), 100)
}

func TestEventWhoseSubjectNATSRefusesGoesToQuarantine(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	bad := newEvent("box0", 1)
	bad.Watch = "two words"
	if err := s.Update(func(tx *store.Tx) error { return tx.AppendEvent(bad) }); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, mailboxes(1), 1, 2)
	p := start(t, s, Options{URL: b.ClientURL()})
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(1), 2)
	if n := s.Counters()["quarantine_entries"]; n != 1 {
		t.Errorf("%d entries in quarantine, want 1", n)
	}
}

func TestDeletedStreamIsMadeAnewWithWhatWasHeld(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	s := newStore(t)
	p := start(t, s, Options{URL: b.ClientURL()})
	appendEvents(t, s, mailboxes(2), 1, 50)
	published(t, s, p)
	if err := js.DeleteStream(t.Context(), "GRAPH"); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, mailboxes(2), 51, 10)
	published(t, s, p)
	wantComplete(t, contents(t, js, "GRAPH"), mailboxes(2), 60)
}

func TestStreamMadeAnewByTheOperatorGetsWhatWasHeld(t *testing.T) {
	b := newBroker(t)
	js := jetStream(t, b.ClientURL())
	s := newStore(t)
	o := Options{URL: b.ClientURL()}
	p := start(t, s, o)
	appendEvents(t, s, mailboxes(1), 1, 20)
	published(t, s, p)
	if err := js.DeleteStream(t.Context(), "GRAPH"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), o.withDefaults().streamConfig()); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, mailboxes(1), 21, 1) // its PubAck is what tells
	eventually(t, "publishing what was held again", func() bool {
		st, err := js.Stream(t.Context(), "GRAPH")
		return err == nil && st.CachedInfo().State.Msgs == 21
	})
	published(t, s, p)
	count := map[string]int{}
	for _, r := range contents(t, js, "GRAPH") {
		count[r.Event.ID]++
	}
	if len(count) != 21 {
		t.Fatalf("%d different events in the stream, want 21", len(count))
	}
}

func TestServerThatLostAcknowledgedEventsGetsThemAgain(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	p := start(t, s, Options{URL: b.ClientURL()})
	appendEvents(t, s, mailboxes(4), 1, 100)
	published(t, s, p)

	b.Shutdown()
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.start()
	appendEvents(t, s, mailboxes(4), 101, 150)
	published(t, s, p)
	b.Shutdown()
	appendEvents(t, s, mailboxes(4), 251, 10) // must come after what is repaired

	b.dir = older
	b.start()
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(4), 260)
}

func TestLossIsFoundByAPublisherThatWasNotThere(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	appendEvents(t, s, mailboxes(2), 1, 40)
	p := start(t, s, Options{URL: b.ClientURL()})
	published(t, s, p)
	b.Shutdown()
	older := t.TempDir()
	if err := os.CopyFS(older, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.start()
	appendEvents(t, s, mailboxes(2), 41, 40)
	published(t, s, p)
	p.stop()
	b.Shutdown()
	b.dir = older
	b.start()
	p = start(t, s, Options{URL: b.ClientURL()})
	eventually(t, "finding the loss", func() bool { return p.Status().Stream == "ok" })
	published(t, s, p)
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(2), 80)
}

// A PubAck can be lost on its way to the outbox in two ways: it was not written, or it was and nobody heard.
func TestLostPubAckDoesNotPublishTwice(t *testing.T) {
	for name, applied := range map[string]bool{"not written": false, "written, answer lost": true} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			s := newStore(t)
			failed := make(chan struct{}, 1000)
			f := &flaky{Store: s, ack: func(acks []store.Ack) error {
				if applied {
					if err := s.Acknowledge(acks); err != nil {
						return err
					}
				}
				failed <- struct{}{}
				return errors.New("no space left on device")
			}}
			p := start(t, f, Options{URL: b.ClientURL()})
			appendEvents(t, s, mailboxes(3), 1, 10)
			js := jetStream(t, b.ClientURL())
			eventually(t, "storing in the stream", func() bool {
				st, err := js.Stream(t.Context(), "GRAPH")
				return err == nil && st.CachedInfo().State.Msgs == 30
			})
			<-failed
			eventually(t, "saying why", func() bool { return strings.Contains(p.Status().LastError, "no space left") })
			p.stop()
			if got := s.OutboxStats().Entries; !applied && got != 30 {
				t.Fatalf("outbox has %d entries, want 30: no PubAck was written", got)
			}

			p = start(t, s, Options{URL: b.ClientURL()})
			published(t, s, p)
			wantComplete(t, contents(t, js, "GRAPH"), mailboxes(3), 10)
		})
	}
}

func TestFailedAcknowledgeIsTriedAgain(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	var calls atomic.Int64
	f := &flaky{Store: s, ack: func(acks []store.Ack) error {
		if calls.Add(1) == 1 {
			return errors.New("disk full")
		}
		return s.Acknowledge(acks)
	}}
	p := start(t, f, Options{URL: b.ClientURL()})
	appendEvents(t, s, mailboxes(2), 1, 5)
	published(t, s, p)
	if got := s.OutboxStats().Held; got != 10 {
		t.Errorf("%d rows held, want 10", got)
	}
}

func TestHeldRowsAreReleasedOnlyWhileTheServerIsThere(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	p := start(t, s, Options{URL: b.ClientURL(), AckHold: 50 * time.Millisecond})
	appendEvents(t, s, mailboxes(1), 1, 10)
	eventually(t, "releasing", func() bool { st := s.OutboxStats(); return st.Entries == 0 && st.Held == 0 })
	b.Shutdown()
	eventually(t, "noticing", func() bool { return !p.Status().Connected })
	appendEvents(t, s, mailboxes(1), 11, 1)
	rows, err := s.Outbox(0, 1<<20)
	if err != nil || len(rows) != 1 {
		t.Fatalf("outbox has %d rows, %v", len(rows), err)
	}
	// As if its PubAck had come an hour ago: the broker may have forgotten it since.
	if err := s.Acknowledge([]store.Ack{{Seq: rows[0].Seq, ID: rows[0].Event.ID, StreamSeq: 11, At: time.Now().Add(-time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	b.start()
	eventually(t, "publishing and releasing what the broker does not have", func() bool {
		st := s.OutboxStats()
		return st.Entries == 0 && st.Held == 0
	})
	wantComplete(t, contents(t, jetStream(t, b.ClientURL()), "GRAPH"), mailboxes(1), 11)
}

func TestReleasingWaitsUntilTheStreamWasCompared(t *testing.T) {
	b := newBroker(t)
	r := &runner{Publisher: &Publisher{opts: Options{AckHold: 15 * time.Minute}}}
	now := time.Now()
	if r.mayRelease(now) {
		t.Error("released before the stream was compared")
	}
	r.nc = jetStream(t, b.ClientURL()).Conn()
	r.settled.Store(now.UnixNano())
	if r.mayRelease(now.Add(settleTime - 1)) {
		t.Error("released right after the stream was compared")
	}
	if !r.mayRelease(now.Add(settleTime)) {
		t.Error("not released although the stream was compared a while ago")
	}
	r.disconnected(nil)
	if r.mayRelease(now.Add(time.Hour)) {
		t.Error("released although the connection is gone")
	}
}

func TestDamagedRowGoesToQuarantine(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	appendEvents(t, s, mailboxes(1), 1, 3)
	f := &flaky{Store: s, rows: func(rows []store.OutboxRow) []store.OutboxRow {
		for i := range rows {
			if rows[i].Event.Sequence == 2 {
				rows[i] = store.OutboxRow{Seq: rows[i].Seq, Err: store.ErrDamaged}
			}
		}
		return rows
	}}
	p := start(t, f, Options{URL: b.ClientURL()})
	published(t, s, p)
	got := contents(t, jetStream(t, b.ClientURL()), "GRAPH")
	if len(got) != 2 || got[0].Event.Sequence != 1 || got[1].Event.Sequence != 3 {
		t.Fatalf("stream holds %d events, want 1 and 3", len(got))
	}
	if n := s.Counters()["quarantine_entries"]; n != 1 {
		t.Errorf("%d entries in quarantine, want 1", n)
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk := file("junk", "not a key")
	good := "nats://127.0.0.1:4222"
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no url":                     {Options{}, "URL is missing"},
		"bad url":                    {Options{URL: "http://user:hunter2@host"}, "want nats://host:4222"},
		"url without host":           {Options{URL: "nats://"}, "want nats://host:4222"},
		"one bad url of two":         {Options{URL: good + ",ftp://x"}, "want nats://host:4222"},
		"bad stream":                 {Options{URL: good, Stream: "a.b"}, `stream "a.b"`},
		"wildcard prefix":            {Options{URL: good, SubjectPrefix: "graph.*"}, "subject prefix"},
		"empty token":                {Options{URL: good, SubjectPrefix: "a..b"}, "subject prefix"},
		"negative hold":              {Options{URL: good, AckHold: -1}, "ack hold"},
		"endless hold":               {Options{URL: good, AckHold: 1000 * time.Hour}, "ack hold"},
		"negative limit":             {Options{URL: good, MaxInFlight: -1}, "negative"},
		"creds file missing":         {Options{URL: good, CredsFile: filepath.Join(dir, "nowhere")}, "creds file"},
		"creds file of junk":         {Options{URL: good, CredsFile: junk}, "creds file " + junk},
		"nkey file of junk":          {Options{URL: good, NKeyFile: junk}, "nkey file " + junk},
		"CA file of junk":            {Options{URL: good, TLSCAFile: junk}, "root certificate"},
		"certificate alone":          {Options{URL: good, TLSCertFile: junk}, "both the certificate file and the key file"},
		"certificate of junk":        {Options{URL: good, TLSCertFile: junk, TLSKeyFile: junk}, "client certificate"},
		"everything is told at once": {Options{URL: "", Stream: "a b", AckHold: -1}, "ack hold"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(newStore(t), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("New = %v, want an error with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error repeats the password: %v", err)
			}
		})
	}
}

func TestStreamMadeByUsFitsOurOwnCheck(t *testing.T) {
	for _, hold := range []time.Duration{time.Second, 15 * time.Minute, 16 * time.Minute, 24 * time.Hour} {
		o := Options{AckHold: hold}.withDefaults()
		c := o.streamConfig()
		if problems, warnings := o.checkStream(&c); len(problems)+len(warnings) > 0 {
			t.Errorf("hold %v: %v %v", hold, problems, warnings)
		}
		if c.Duplicates > c.MaxAge {
			t.Errorf("hold %v: duplicate window %v above max age %v", hold, c.Duplicates, c.MaxAge)
		}
	}
	b := newBroker(t)
	s := newStore(t)
	p := start(t, s, Options{URL: b.ClientURL(), Stream: "MAIL-1", SubjectPrefix: "a.b"})
	appendEvents(t, s, mailboxes(1), 1, 1)
	published(t, s, p)
	js := jetStream(t, b.ClientURL())
	st, err := js.Stream(t.Context(), "MAIL-1")
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	if c.Duplicates != 20*time.Minute || c.MaxAge != 7*24*time.Hour || c.Discard != jetstream.DiscardNew || c.Storage != jetstream.FileStorage || !c.AllowDirect {
		t.Errorf("stream made as %+v", c)
	}
	if got := contents(t, js, "MAIL-1"); len(got) != 1 || got[0].NATSSubject != "a.b.sales.box0.mail.received" {
		t.Errorf("stream holds %+v", got)
	}
}
