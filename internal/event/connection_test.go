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

// The instant is what counts, not how it is written; and the tenant, the connection and the state each make another event.
func TestConnectionEventIdentity(t *testing.T) {
	build := func(tenant string, edit func(*event.ConnectionData)) event.Event {
		t.Helper()
		d := waiting()
		edit(&d)
		e, err := event.NewConnectionEvent(tenant, d)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := build(tenant, func(*event.ConnectionData) {})
	if want := "1aa78fd84c971de9d5020ee63928df06"; first.ID != want {
		t.Errorf("id %s, want %s: consumers remember ids", first.ID, want)
	}
	elsewhere := build(tenant, func(d *event.ConnectionData) { d.Since = d.Since.In(time.FixedZone("", 7200)) })
	if elsewhere.ID != first.ID || !bytes.Equal(elsewhere.Data, first.Data) || elsewhere.Time.Location() != time.UTC {
		t.Errorf("in another time zone it is %+v", elsewhere)
	}
	reworded := build(tenant, func(d *event.ConnectionData) { d.Reason, d.Missing = "another", []string{"Mail.Read"} })
	if reworded.ID != first.ID {
		t.Error("the wording of the reason makes another event")
	}
	seen := map[string]string{first.ID: "the first"}
	for name, e := range map[string]event.Event{
		"another tenant":     build("", func(*event.ConnectionData) {}),
		"another connection": build(tenant, func(d *event.ConnectionData) { d.Name = "bob" }),
		"another state":      build(tenant, func(d *event.ConnectionData) { d.State = event.ConnectionOK }),
		"a moment later":     build(tenant, func(d *event.ConnectionData) { d.Since = d.Since.Add(time.Nanosecond) }),
	} {
		if other, ok := seen[e.ID]; ok {
			t.Errorf("%s has the id of %s", name, other)
		}
		seen[e.ID] = name
	}
}

func TestConnectionEventRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*event.ConnectionData)
		want string
	}{
		"no name":                {func(d *event.ConnectionData) { d.Name = "" }, `the name "" cannot stand in a subject`},
		"a name of two tokens":   {func(d *event.ConnectionData) { d.Name = "a.b" }, `"a.b" cannot stand in a subject`},
		"a name that matches":    {func(d *event.ConnectionData) { d.Name = "*" }, `"*" cannot stand in a subject`},
		"a name with a space":    {func(d *event.ConnectionData) { d.Name = "a b" }, `"a b" cannot stand in a subject`},
		"no state":               {func(d *event.ConnectionData) { d.State = "" }, `there is no event ""`},
		"a state not for events": {func(d *event.ConnectionData) { d.State = "unreachable" }, `there is no event "unreachable"`},
		"an event of mail":       {func(d *event.ConnectionData) { d.State = event.Received }, `there is no event "received"`},
		"no beginning":           {func(d *event.ConnectionData) { d.Since = time.Time{} }, "nothing says when reauth_required began"},
	} {
		t.Run(name, func(t *testing.T) {
			d := waiting()
			tt.edit(&d)
			if e, err := event.NewConnectionEvent(tenant, d); err == nil || !strings.Contains(err.Error(), tt.want) || e.ID != "" {
				t.Errorf("gave %+v, %v, want an error with %q", e, err, tt.want)
			}
		})
	}
}

// What the login endpoint, a file or the system writes into a reason must not keep the state from being told.
func TestConnectionDataIsAlwaysValid(t *testing.T) {
	for name, edit := range map[string]func(*event.ConnectionData){
		"nothing but what must be": func(d *event.ConnectionData) { d.Reason, d.Remedy = "", "" },
		"nothing missing":          func(d *event.ConnectionData) { d.Missing = []string{} },
		"all of it": func(d *event.ConnectionData) {
			d.State, d.Missing = event.ConsentRequired, []string{"Mail.Read", "Mail.Read.Shared"}
			d.AdminConsentURL = "https://login.microsoftonline.com/organizations/v2.0/adminconsent?client_id=507c3b9a-67b8-463d-88a2-15a8cefb2111&scope=Mail.Read"
		},
		"a stray byte": func(d *event.ConnectionData) { d.Reason = "open /keys/\xff: no such file" },
	} {
		t.Run(name, func(t *testing.T) {
			d := waiting()
			edit(&d)
			e, err := event.NewConnectionEvent(tenant, d)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(structured(t, &e)))
			if err != nil {
				t.Fatal(err)
			}
			if err := validateEvent(doc); err != nil {
				t.Errorf("%s: %v", e.Data, err)
			}
		})
	}
}

// Each of these is the example with one thing wrong.
func TestConnectionSchemaRefuses(t *testing.T) {
	for name, spoil := range map[string]func(e, data map[string]any){
		"an epoch":                  func(e, _ map[string]any) { e["epoch"] = "5b1d2c3e4f5a6b7c" },
		"an unknown state":          func(_, d map[string]any) { d["state"] = "tired" },
		"an unknown event":          func(e, _ map[string]any) { e["type"] = "io.triggerd.connection.tired.v1" },
		"an unknown way to sign in": func(_, d map[string]any) { d["auth"] = "password" },
		"a user":                    func(_, d map[string]any) { d["user"] = "alice@contoso.com" },
		"no state":                  func(_, d map[string]any) { delete(d, "state") },
		"no beginning":              func(_, d map[string]any) { delete(d, "since") },
		"a list of nothing missing": func(_, d map[string]any) { d["missing"] = []any{} },
		"the schema of mail":        func(e, _ map[string]any) { e["dataschema"] = event.SchemaID(event.AreaMail) },
	} {
		t.Run(name, func(t *testing.T) {
			e, err := event.NewConnectionEvent(tenant, waiting())
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(structured(t, &e)))
			if err != nil {
				t.Fatal(err)
			}
			attrs := doc.(map[string]any)
			spoil(attrs, attrs["data"].(map[string]any))
			if validateEvent(doc) == nil {
				t.Errorf("%v passed", doc)
			}
		})
	}
}
