package event_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/triggerd/triggerd/internal/event"
)

func waiting() event.ConnectionData {
	return event.ConnectionData{
		Name: "alice", Cloud: "global", Auth: "delegated", State: event.ReauthRequired, Since: time.Date(2026, 11, 23, 9, 31, 19, 482e6, time.UTC),
		Reason: "sign-in: status 400 invalid_grant AADSTS50173: the sign-in was revoked, or the password was changed: sign in again",
		Remedy: "run `triggerd login alice`",
	}
}

func TestConnectionEvents(t *testing.T) {
	for _, name := range event.ConnectionEvents {
		d := waiting()
		d.State = name
		e, err := event.NewConnectionEvent(tenant, d)
		if err != nil {
			t.Fatal(err)
		}
		if want := "graph._.alice.connection." + name; e.NATSSubject("graph") != want || e.Numbered() {
			t.Errorf("subject %s, numbered %v, want %s", e.NATSSubject("graph"), e.Numbered(), want)
		}
		b := structured(t, &e)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := validateEvent(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		doc.(map[string]any)["sequence"] = "00000000000000000001"
		if validateEvent(doc) == nil {
			t.Errorf("%s with a sequence passes", name)
		}
	}
	d := waiting()
	a, _ := event.NewConnectionEvent(tenant, d)
	again, _ := event.NewConnectionEvent(tenant, d)
	d.Since = d.Since.Add(time.Hour)
	later, _ := event.NewConnectionEvent(tenant, d)
	if a.ID != again.ID || a.ID == later.ID {
		t.Errorf("ids %s, %s, %s: want one for one change, and another for the next", a.ID, again.ID, later.ID)
	}
	if e, _ := event.NewConnectionEvent("", d); e.Source != "urn:triggerd:_:alice" {
		t.Errorf("source without a tenant: %s", e.Source)
	}
}

func TestConnectionExample(t *testing.T) {
	e, err := event.NewConnectionEvent(tenant, waiting())
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/events/connection.reauth_required.json"
	b := structured(t, &e)
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(b) != string(want) {
		t.Errorf("%s\nwant %s %v", b, want, err)
	}
	if strings.Contains(string(b), "@") {
		t.Errorf("somebody's address: %s", b)
	}
}
