package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

const connectionTenant = "84bd8158-6d4d-4958-8b9f-9d6445542f95"

// connectionEvent is the nth event of a connection.
func connectionEvent(t testing.TB, connection, state string, n int) *event.Event {
	t.Helper()
	e, err := event.NewConnectionEvent(connectionTenant, event.ConnectionData{
		Name: connection, Cloud: "global", Auth: "delegated", State: state, Reason: "sign-in: status 400 invalid_grant AADSTS50173",
		Remedy: "run `triggerd login " + connection + "`", Since: time.Date(2026, 11, 23, 9, 0, 0, 5_000_000, time.UTC).Add(time.Duration(n) * time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &e
}

func modes(t *testing.T, test func(t *testing.T, structured bool)) {
	for name, structured := range map[string]bool{"binary": false, "structured": true} {
		t.Run(name, func(t *testing.T) { test(t, structured) })
	}
}

// What comes out of the stream is a CloudEvent to the SDK, with nothing of order that does not apply.
func TestConnectionEventInTheStream(t *testing.T) {
	modes(t, func(t *testing.T, structured bool) {
		b := newBroker(t)
		s := newStore(t)
		e := connectionEvent(t, "alice", event.ReauthRequired, 0)
		if err := s.Update(func(tx *store.Tx) error { return tx.AppendEvent(e) }); err != nil {
			t.Fatal(err)
		}
		p := start(t, s, Options{URL: b.ClientURL(), Structured: structured})
		published(t, s, p)
		st, err := jetStream(t, b.ClientURL()).Stream(t.Context(), "GRAPH")
		if err != nil {
			t.Fatal(err)
		}
		m, err := st.GetMsg(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != "graph._.alice.connection.reauth_required" || m.Header.Get(nats.MsgIdHdr) != e.ID {
			t.Errorf("subject %s, message id %s, want that of %s", m.Subject, m.Header.Get(nats.MsgIdHdr), e.ID)
		}
		want := map[string]string{
			"specversion": "1.0", "id": e.ID, "type": "io.triggerd.connection.reauth_required.v1",
			"source": "urn:triggerd:" + connectionTenant + ":alice", "subject": "connections/alice", "time": "2026-11-23T09:00:00.005Z",
			"datacontenttype": "application/json", "dataschema": "urn:triggerd:schema:connection:v1", "recordedtime": "2026-11-23T09:00:00.005Z",
			"partitionkey": "_.alice", "traceparent": "00-" + e.ID + "-" + e.ID[:16] + "-01", "watch": "_",
		}
		got := map[string]string{} // as sent: an attribute that is there and empty would show
		if structured {
			var doc map[string]json.RawMessage
			if err := json.Unmarshal(m.Data, &doc); err != nil {
				t.Fatal(err)
			}
			for name, v := range doc {
				if name != "data" {
					got[name] = strings.Trim(string(v), `"`)
				}
			}
		} else {
			for name, v := range m.Header {
				if attr, ok := strings.CutPrefix(name, "ce-"); ok {
					got[attr] = v[0]
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("attributes\n%v\nwant\n%v", got, want)
		}
		ce := sdkEvent(t, m.Header, m.Data)
		if err := ce.Validate(); err != nil {
			t.Fatalf("the SDK refuses the event: %v", err)
		}
		var d event.ConnectionData
		if err := ce.DataAs(&d); err != nil {
			t.Fatal(err)
		}
		if ce.ID() != e.ID || ce.Type() != e.Type() || !ce.Time().Equal(e.Time) || ce.Extensions()["watch"] != "_" || !bytes.Equal(ce.Data(), e.Data) ||
			d.State != event.ReauthRequired || d.Remedy != "run `triggerd login alice`" {
			t.Errorf("the SDK reads\n%s", ce)
		}
		for _, x := range []string{"sequence", "epoch", "via", "replayof", "dataref"} {
			if v, ok := ce.Extensions()[x]; ok {
				t.Errorf("the SDK reads %s %v, want none", x, v)
			}
		}
		r := decode(m.Header, m.Data)
		if a, b := mustJSON(t, r.Event), mustJSON(t, *e); r.Err != nil || a != b {
			t.Errorf("read back as\n%s\nwant\n%s (%v)", a, b, r.Err)
		}
	})
}

// Each connection is a stream of its own beside the mailboxes', also beside one of the same name, and in order while the
// server is restarted.
func TestConnectionEventsArriveOnceAndInOrderWhileTheServerIsRestarted(t *testing.T) {
	b := newBroker(t)
	s := newStore(t)
	boxes := mailboxes(2)
	connections := []string{"box0", "bob"}
	states := []string{event.ReauthRequired, event.ConnectionOK}
	p := start(t, s, Options{URL: b.ClientURL()})
	want := map[string][]string{} // ids by partition
	for round := range 3 {
		err := s.Update(func(tx *store.Tx) error {
			for i := round*100 + 1; i <= (round+1)*100; i++ {
				for _, m := range boxes {
					if err := tx.AppendEvent(newEvent(m, i)); err != nil {
						return err
					}
				}
				for _, c := range connections {
					e := connectionEvent(t, c, states[i%2], i)
					if err := tx.AppendEvent(e); err != nil {
						return err
					}
					want[e.PartitionKey()] = append(want[e.PartitionKey()], e.ID)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "publishing", func() bool { return s.OutboxStats().Held > round*400+50 })
		b.restart()
	}
	published(t, s, p)
	var mails []Received
	got := map[string][]string{}
	for _, r := range contents(t, jetStream(t, b.ClientURL()), "GRAPH") {
		if r.Event.Area != event.AreaConnection {
			mails = append(mails, r)
			continue
		}
		key := r.Event.PartitionKey()
		got[key] = append(got[key], r.Event.ID)
		if r.Event.Sequence != 0 || r.Event.Epoch != "" || r.NATSSubject != r.Event.NATSSubject("graph") {
			t.Fatalf("%s has sequence %d of epoch %q", r.NATSSubject, r.Event.Sequence, r.Event.Epoch)
		}
	}
	wantComplete(t, mails, boxes, 300)
	if len(got) != 2 || !slices.Equal(got["_.box0"], want["_.box0"]) || !slices.Equal(got["_.bob"], want["_.bob"]) {
		t.Errorf("%d and %d events of two connections, want 300 each, once and in order", len(got["_.box0"]), len(got["_.bob"]))
	}
}

// The same change of state, told again after a crash or by a second instance that knows the same beginning, is one message.
func TestAStateIsToldOnce(t *testing.T) {
	b := newBroker(t)
	for range 2 {
		s := newStore(t)
		if err := s.Update(func(tx *store.Tx) error { return tx.AppendEvent(connectionEvent(t, "alice", event.ReauthRequired, 1)) }); err != nil {
			t.Fatal(err)
		}
		p := start(t, s, Options{URL: b.ClientURL()})
		published(t, s, p)
		p.stop()
	}
	if all := contents(t, jetStream(t, b.ClientURL()), "GRAPH"); len(all) != 1 {
		t.Errorf("%d messages, want one", len(all))
	}
}

// Without a subject a reader sees events of mailboxes and connections; with the documented one those that need a person.
func TestTailShowsConnectionEvents(t *testing.T) {
	modes(t, func(t *testing.T, structured bool) {
		b := newBroker(t)
		s := newStore(t)
		o := Options{URL: b.ClientURL(), Structured: structured}
		err := s.Update(func(tx *store.Tx) error {
			for _, e := range []*event.Event{newEvent("box0", 1), connectionEvent(t, "alice", event.ReauthRequired, 2), connectionEvent(t, "alice", event.ConnectionOK, 3), connectionEvent(t, "bob", event.ReauthRequired, 4)} {
				if err := tx.AppendEvent(e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		published(t, s, start(t, s, o))
		for subject, want := range map[string][]string{
			"":                                     {"graph._.alice.connection.ok", "graph._.alice.connection.reauth_required", "graph._.bob.connection.reauth_required", "graph.sales.box0.mail.received"},
			"graph._.*.connection.reauth_required": {"graph._.alice.connection.reauth_required", "graph._.bob.connection.reauth_required"},
			"graph.*.*.mail.>":                     {"graph.sales.box0.mail.received"},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			var got []string
			err := Tail(ctx, o, TailOptions{Subject: subject, All: true}, func(r Received) error {
				if r.Err != nil {
					return r.Err
				}
				if got = append(got, r.NATSSubject); len(got) == len(want) {
					cancel()
				}
				return nil
			})
			cancel()
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("tail of %q: %v, %v, want %v", subject, got, err, want)
			}
		}
	})
}
