package event_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/triggerd/triggerd/internal/event"
)

// compiled are the schemas as an independent library reads them.
var compiled = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	for name, b := range event.Schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := c.AddResource(event.SchemaID(name), doc); err != nil {
			return nil, err
		}
	}
	all := map[string]*jsonschema.Schema{}
	for name := range event.Schemas() {
		var err error
		if all[name], err = c.Compile(event.SchemaID(name)); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// strict are the same schemas with formats asserted.
var strict = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, b := range event.Schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if err := c.AddResource(event.SchemaID(name), doc); err != nil {
			return nil, err
		}
	}
	return c.Compile(event.SchemaID(event.Envelope))
})

func validate(name string, doc []byte) error {
	all, err := compiled()
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return all[name].Validate(v)
}

func validateEvent(v any) error {
	s, err := strict()
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestSchemasAreNamedAndComplete(t *testing.T) {
	for _, name := range []string{event.AreaMail, event.AreaCalendar, event.AreaNotification, event.AreaConnection, event.AreaSubscription, event.AreaWatch, event.Envelope} {
		b, ok := event.Schema(name)
		if !ok {
			t.Fatalf("there is no schema %s", name)
		}
		var s struct {
			Schema      string `json:"$schema"`
			ID          string `json:"$id"`
			Title       string
			Description string
			Examples    []json.RawMessage
		}
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatal(err)
		}
		if s.ID != event.SchemaID(name) || !strings.Contains(s.Schema, "2020-12") || s.Title == "" || s.Description == "" || len(s.Examples) == 0 {
			t.Errorf("%s: id %q, schema %q, title %q, %d examples", name, s.ID, s.Schema, s.Title, len(s.Examples))
		}
		for _, ex := range s.Examples {
			if err := validate(name, ex); err != nil {
				t.Errorf("%s: its own example: %v", name, err)
			}
		}
	}
	for _, name := range []string{"", "contacts", "../go.mod", "mail.v1"} {
		if b, ok := event.Schema(name); ok || b != nil {
			t.Errorf("Schema(%q) gave %d bytes", name, len(b))
		}
	}
	if len(event.Schemas()) != 7 {
		t.Errorf("%d schemas", len(event.Schemas()))
	}
}

// object is the part of a JSON Schema that describes an object.
type object struct {
	Properties           map[string]json.RawMessage
	Required             []string
	AdditionalProperties *bool
	Defs                 map[string]json.RawMessage `json:"$defs"`
}

func parse(t *testing.T, b []byte) (o object) {
	t.Helper()
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// fields lists the JSON names of a struct, and those that are always written.
func fields(v any) (names, always []string) {
	for f := range reflect.TypeOf(v).Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if options == "" {
			always = append(always, name)
		}
	}
	return names, always
}

func keys(m map[string]json.RawMessage) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// mismatches says how a schema and a struct differ.
func mismatches(o object, v any) (out []string) {
	names, always := fields(v)
	for _, n := range names {
		if o.Properties[n] == nil {
			out = append(out, n+" is not in the schema")
		}
	}
	for _, n := range keys(o.Properties) {
		if !slices.Contains(names, n) {
			out = append(out, n+" is only in the schema")
		}
	}
	for _, n := range always {
		if !slices.Contains(o.Required, n) {
			out = append(out, n+" is always written, but not required")
		}
	}
	if o.AdditionalProperties == nil || *o.AdditionalProperties {
		out = append(out, "other properties are allowed")
	}
	return out
}

func TestSchemaAndStructsAreTheSame(t *testing.T) {
	mail, _ := event.Schema(event.AreaMail)
	calendar, _ := event.Schema(event.AreaCalendar)
	connection, _ := event.Schema(event.AreaConnection)
	subscription, _ := event.Schema(event.AreaSubscription)
	watch, _ := event.Schema(event.AreaWatch)
	root := parse(t, mail)
	message := parse(t, root.Defs["message"])
	meetings := parse(t, calendar)
	// Data.Message is a pointer because notification events have none; mail events always do.
	if !slices.Contains(root.Required, "message") {
		t.Error("message is not required")
	}
	for _, tt := range []struct {
		name   string
		schema object
		typ    any
	}{
		{"data", root, event.Data{}},
		{"mailbox", parse(t, root.Defs["mailbox"]), event.Mailbox{}},
		{"item", parse(t, root.Defs["item"]), event.Item{}},
		{"folder", parse(t, root.Defs["folder"]), event.Folder{}},
		{"fieldChange", parse(t, root.Defs["fieldChange"]), event.FieldChange{}},
		{"move", parse(t, root.Defs["move"]), event.Move{}},
		{"address", parse(t, root.Defs["address"]), event.Address{}},
		{"message", message, event.Message{}},
		{"body", parse(t, message.Properties["body"]), event.Body{}},
		{"data of a meeting", meetings, event.CalendarData{}},
		{"calendar item", parse(t, meetings.Defs["item"]), event.CalendarItem{}},
		{"calendar", parse(t, meetings.Defs["calendar"]), event.Calendar{}},
		{"moment", parse(t, meetings.Defs["moment"]), event.Moment{}},
		{"span", parse(t, meetings.Defs["span"]), event.Span{}},
		{"reschedule", parse(t, meetings.Defs["reschedule"]), event.Reschedule{}},
		{"responseChange", parse(t, meetings.Defs["responseChange"]), event.ResponseChange{}},
		{"startingSoon", parse(t, meetings.Defs["startingSoon"]), event.StartingSoon{}},
		{"attendee", parse(t, meetings.Defs["attendee"]), event.Attendee{}},
		{"meeting", parse(t, meetings.Defs["meeting"]), event.Meeting{}},
		{"connection", parse(t, connection), event.ConnectionData{}},
		{"subscription", parse(t, subscription), event.SubscriptionData{}},
		{"watch", parse(t, watch), event.WatchData{}},
	} {
		for _, m := range mismatches(tt.schema, tt.typ) {
			t.Errorf("%s: %s", tt.name, m)
		}
	}
}

func TestTheSchemaTestCanFail(t *testing.T) {
	got := mismatches(object{Properties: map[string]json.RawMessage{"id": []byte("{}"), "colour": []byte("{}")}}, event.Folder{})
	want := []string{"wellKnownName is not in the schema", "path is not in the schema", "colour is only in the schema", "id is always written, but not required", "other properties are allowed"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNotificationSchemaHoldsNoContent(t *testing.T) {
	b, _ := event.Schema(event.AreaNotification)
	root := parse(t, b)
	got := keys(root.Properties)
	slices.Sort(got)
	if !slices.Equal(got, []string{"item", "mailbox"}) || !slices.Equal(root.Required, []string{"mailbox", "item"}) {
		t.Errorf("properties %v, required %v", got, root.Required)
	}
	names, _ := fields(event.Item{})
	for _, n := range keys(parse(t, root.Properties["item"]).Properties) {
		if !slices.Contains(names, n) {
			t.Errorf("item.%s does not exist", n)
		}
	}
}

func TestEnvelopeSchemaKnowsEveryAttribute(t *testing.T) {
	b, _ := event.Schema(event.Envelope)
	root := parse(t, b)
	names, _ := fields(event.Event{})
	for _, n := range names {
		if root.Properties[n] == nil && !slices.Contains([]string{"area", "name", "mailbox"}, n) { // those are in type and source
			t.Errorf("%s is not in the schema", n)
		}
	}
	var via struct{ Enum []event.Via }
	if err := json.Unmarshal(root.Properties["via"], &via); err != nil {
		t.Fatal(err)
	}
	if want := []event.Via{event.ViaPush, event.ViaPoll, event.ViaTrueUp, event.ViaStart, event.ViaReplay, event.ViaClock}; !slices.Equal(via.Enum, want) {
		t.Errorf("via is one of %v, want %v", via.Enum, want)
	}
}
