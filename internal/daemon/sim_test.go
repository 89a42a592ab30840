package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// sim is triggerd without sockets against the emulator, in a synctest bubble: the real rooms and a real database, and in
// place of the broker a reader of the outbox that acknowledges what it has read. It can be killed and started again.
type sim struct {
	t    *testing.T
	dir  string
	emu  *emulator.Server
	yaml string
	set  config.Settings
	log  zerolog.Logger

	every  time.Duration          // between the looks of the rooms; 0: as in earnest
	before func()                 // runs before triggerd starts
	faults func(*emulator.Faults) // in force from the beginning
	hook   struct {               // what Graph reaches
		sync.Mutex
		http.Handler
	}

	d    *Daemon
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	events []event.Event // of mailboxes, as they were acknowledged
	told   []event.Event // of triggerd about itself
	acked  uint64
	seen   map[string]int
}

const simYAML = `
clouds:
  lab: {graph: "http://graph.test/v1.0", login: "http://graph.test", like: global}
connections:
  contoso: {cloud: lab, tenant: %s, client_id: %s, auth: app, client_secret_file: %s}
watches:
  sales:
    connection: contoso
    mailboxes: [{address: sales@contoso.com, alias: sales}]
    mail: {folders: [inbox, sentitems, drafts], events: [received, sent, draft, read, unread, flagged, categorized, moved, deleted, updated]}
`

// startSim starts the emulator with one mailbox, and triggerd. Call it in a bubble.
func startSim(t *testing.T, edit ...func(*sim, *emulator.Options)) *sim {
	t.Helper()
	s := &sim{t: t, dir: t.TempDir(), seen: map[string]int{}, yaml: simYAML, log: zerolog.Nop()}
	s.set = config.Settings{
		StateDir: s.dir, PublicURL: "http://hook.test", Stream: "GRAPH", SubjectPrefix: "graph",
		PollInterval: time.Minute, SweepInterval: 15 * time.Minute, TrueUpInterval: 24 * time.Hour,
		DeltaLag: 30 * time.Second, AckHold: 15 * time.Minute,
	}
	o := emulator.Options{Root: "http://graph.test", Delivery: emulator.HandlerTransport(map[string]http.Handler{"hook.test": http.HandlerFunc(s.serveHook)})}
	for _, e := range edit {
		e(s, &o)
	}
	s.emu = emulator.New(o)
	s.emu.AddUser("sales@contoso.com")
	if s.faults != nil {
		s.emu.SetFaults(s.faults)
	}
	ctx, cancel := context.WithCancel(t.Context())
	emuDone := make(chan error, 1)
	go func() { emuDone <- s.emu.Run(ctx) }()
	t.Cleanup(func() {
		s.kill()
		cancel()
		<-emuDone
		if v := s.emu.Violations(); len(v) > 0 {
			t.Errorf("the contract was violated:\n%s", strings.Join(v, "\n"))
		}
	})
	if s.before != nil {
		s.before()
	}
	s.start()
	return s
}

func (s *sim) serveHook(w http.ResponseWriter, r *http.Request) {
	s.hook.Lock()
	h := s.hook.Handler
	s.hook.Unlock()
	if h == nil {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	h.ServeHTTP(w, r)
}

// start opens the state and runs the rooms.
func (s *sim) start() {
	s.t.Helper()
	file, err := parseSim(s)
	if err != nil {
		s.t.Fatal(err)
	}
	d := &Daemon{
		opts: Options{Settings: s.set, File: file, Log: s.log, Every: s.every, Load: func() (*config.File, error) { return parseSim(s) }, Transport: emulator.HandlerTransport(map[string]http.Handler{
			"graph.test": s.emu, "hook.test": http.HandlerFunc(s.serveHook),
		})},
		started: time.Now().UTC(), ready: make(chan struct{}), next: make(chan reload),
	}
	d.log = d.opts.Log
	if d.store, err = store.Open(s.dir, store.Options{}); err != nil {
		s.t.Fatal(err)
	}
	if err := d.wireGraph(); err != nil {
		s.t.Fatal(err)
	}
	s.d = d
	s.hook.Lock()
	s.hook.Handler = d.webhook
	s.hook.Unlock()
	ctx, stop := context.WithCancel(s.t.Context())
	s.stop, s.done = stop, make(chan error, 1)
	go func() {
		s.done <- runAll(ctx, map[string]runner{
			"store": d.store.Run, "watches": d.runGenerations, "reader": s.read,
		})
	}()
}

// read drains the outbox, as publish does.
func (s *sim) read(ctx context.Context) error {
	st, after := s.d.store, uint64(0)
	for {
		rows, err := st.Outbox(after, 1<<20)
		if err != nil {
			return err
		}
		var acks []store.Ack
		s.mu.Lock()
		for _, r := range rows {
			if r.Event.Numbered() {
				s.events = append(s.events, r.Event)
			} else {
				s.told = append(s.told, r.Event)
			}
			s.seen[r.Event.ID]++
			s.acked++
			s.d.published(&r.Event, time.Now())
			acks = append(acks, store.Ack{Seq: r.Seq, ID: r.Event.ID, StreamSeq: s.acked, At: time.Now()})
			after = r.Seq
		}
		s.mu.Unlock()
		if len(acks) > 0 {
			if err := st.Acknowledge(acks); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-st.OutboxChanged():
		}
	}
}

// kill stops triggerd: what was in flight is lost, what was committed is not.
func (s *sim) kill() {
	if s.d == nil {
		return
	}
	s.hook.Lock()
	s.hook.Handler = nil
	s.hook.Unlock()
	s.stop()
	if err := <-s.done; err != nil {
		s.t.Errorf("run: %v", err)
	}
	if err := s.d.store.Close(); err != nil {
		s.t.Error(err)
	}
	s.d = nil
}

func (s *sim) restart() { s.kill(); s.start() }

// wait lets time pass and everything settle.
func (s *sim) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// names lists the events so far as "name subject-of-the-mail", in order.
func (s *sim) names() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.events {
		if s.events[i].Area == event.AreaCalendar {
			out = append(out, s.meetingName(&s.events[i]))
			continue
		}
		var d event.Data
		if err := json.Unmarshal(s.events[i].Data, &d); err != nil {
			s.t.Fatal(err)
		}
		subject := ""
		if d.Message != nil {
			subject = d.Message.Subject
		}
		out = append(out, strings.TrimSpace(s.events[i].Name+" "+subject))
	}
	return out
}

func (s *sim) want(want ...string) {
	s.t.Helper()
	if got := s.names(); !slices.Equal(got, want) {
		s.t.Errorf("events are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// vias lists by which paths events came.
func (s *sim) vias() map[event.Via]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[event.Via]int{}
	for i := range s.events {
		out[s.events[i].Via]++
	}
	return out
}

// checkLaw verifies what must hold at every moment: ids are unique, sequences have no gaps, and notifications add up.
func (s *sim) checkLaw() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.seen {
		if n != 1 {
			s.t.Errorf("event %s was published %d times", id, n)
		}
	}
	next := map[string]uint64{}
	for i := range s.events {
		e := &s.events[i]
		key := e.PartitionKey()
		if next[key]++; e.Sequence != next[key] {
			s.t.Errorf("sequence of %s is %d, want %d", key, e.Sequence, next[key])
		}
	}
	c, settled := s.d.store.Counters(), uint64(0)
	for _, o := range store.Outcomes {
		settled += c["settled_"+string(o)]
	}
	if got := settled + uint64(s.d.store.Pending()); got != c["accepted"] {
		s.t.Errorf("accepted %d, settled + pending %d: %v", c["accepted"], got, c)
	}
}

// folded is what a consumer knows of the mailbox from the events alone: item → folder and flags.
func (s *sim) folded() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for i := range s.events {
		e := &s.events[i]
		var d event.Data
		if err := json.Unmarshal(e.Data, &d); err != nil {
			s.t.Fatal(err)
		}
		if e.Name == event.Deleted {
			delete(out, d.Item.ID)
			continue
		}
		out[d.Item.ID] = fmt.Sprintf("%s read=%v flag=%s subject=%s", d.Item.Folder.ID, d.Message.IsRead, d.Message.Flag, d.Message.Subject)
	}
	return out
}

// checkFolded compares what the events told with what the mailbox holds, for everything in watched folders.
func (s *sim) checkFolded() {
	s.t.Helper()
	watched := map[string]bool{}
	for _, wk := range []string{"inbox", "sentitems"} {
		watched[s.emu.FolderID("sales@contoso.com", wk)] = true
	}
	want := map[string]string{}
	for _, m := range s.emu.Messages("sales@contoso.com") {
		if watched[m.Folder] {
			want[m.ID] = fmt.Sprintf("%s read=%v flag=%s subject=%s", m.Folder, m.IsRead, cmp.Or(m.Flag, "notFlagged"), m.Subject)
		}
	}
	got := s.folded()
	maps.DeleteFunc(got, func(_, v string) bool { return !watched[strings.Fields(v)[0]] })
	if !maps.Equal(got, want) {
		for id, w := range want {
			if got[id] != w {
				s.t.Errorf("item %s is %q, events say %q", id, w, got[id])
			}
		}
		for id, g := range got {
			if want[id] == "" {
				s.t.Errorf("item %s is gone, events say %q", id, g)
			}
		}
	}
}
