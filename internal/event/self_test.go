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

func TestEventsOfTriggerdItself(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 31, 19, 482e6, time.FixedZone("CET", 3600))
	o := event.Origin{Tenant: "84bd8158", Watch: "sales", Token: "desk", Alias: "desk"}
	sub := event.SubscriptionData{Connection: "contoso", ID: "7f10", ExpiresAt: at.Add(time.Hour)}
	e, err := event.NewSubscriptionEvent(o, event.Renewed, at, sub)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.NATSSubject("graph"); got != "graph.sales.desk.subscription.renewed" {
		t.Errorf("subject %s", got)
	}
	if e.Numbered() || e.Source != "urn:triggerd:84bd8158:desk" || e.Subject != "subscriptions/7f10" || e.Time.Location() != time.UTC {
		t.Errorf("event %+v", e)
	}
	if !strings.Contains(string(e.Data), `"expiresAt":"2026-11-23T10:31:19.482Z"`) {
		t.Errorf("data %s", e.Data)
	}
	again, _ := event.NewSubscriptionEvent(o, event.Renewed, at.UTC(), sub)
	other, _ := event.NewSubscriptionEvent(o, event.RenewalFailed, at, sub)
	folder := event.Folder{ID: "inbox"}
	gap, _ := event.NewWatchEvent(o, event.GapClosed, at, event.WatchData{Folder: &folder})
	twin, _ := event.NewWatchEvent(o, event.GapClosed, at, event.WatchData{Folder: &event.Folder{ID: "drafts"}})
	if again.ID != e.ID || other.ID == e.ID || gap.ID == twin.ID {
		t.Error("ids do not follow what happened")
	}

	for name, refused := range map[string]func() (event.Event, error){
		"a watch that is no level": func() (event.Event, error) {
			return event.NewWatchEvent(event.Origin{Watch: "a.b", Token: "x"}, event.Stale, at, event.WatchData{})
		},
		"a mailbox that is a wildcard": func() (event.Event, error) {
			return event.NewWatchEvent(event.Origin{Watch: "a", Token: ">"}, event.Stale, at, event.WatchData{})
		},
		"a name of another area": func() (event.Event, error) { return event.NewWatchEvent(o, event.Renewed, at, event.WatchData{}) },
		"no time": func() (event.Event, error) {
			return event.NewWatchEvent(o, event.Stale, time.Time{}, event.WatchData{})
		},
		"no subscription": func() (event.Event, error) {
			return event.NewSubscriptionEvent(o, event.Renewed, at, event.SubscriptionData{})
		},
	} {
		if e, err := refused(); err == nil || e.ID != "" {
			t.Errorf("%s is taken: %+v", name, e)
		}
	}
}

// The examples of the documentation are valid, name nobody, and their ids are a promise.
func TestExamplesOfTriggerdItself(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 31, 19, 482e6, time.UTC)
	o := event.Origin{Tenant: tenant, Watch: "sales", Token: "desk", Alias: "desk"}
	inbox := &event.Folder{ID: "AQMkADNkNAAAAgEMAAAA", WellKnownName: "inbox", Path: "Inbox"}
	failed, err := event.NewSubscriptionEvent(o, event.RenewalFailed, at, event.SubscriptionData{
		Connection: "contoso", Folder: inbox, ID: "7f105c7d-2dc5-4530-97cd-4e7ae6534c07", ExpiresAt: at.Add(70 * time.Hour), RenewAt: at.Add(time.Minute),
		Failures: 1, Reason: "status 503",
	})
	if err != nil {
		t.Fatal(err)
	}
	closed, err := event.NewWatchEvent(o, event.GapClosed, at, event.WatchData{
		Connection: "contoso", FreshAt: at.Add(-2 * time.Second), Since: at.Add(-3 * time.Hour), Folder: inbox, Published: 17, Reason: "resync",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []event.Event{failed, closed} {
		path, b := "testdata/events/"+e.Area+"."+e.Name+".json", structured(t, &e)
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, want) || bytes.Contains(b, []byte("@")) {
			t.Errorf("%s\nwant %s %v", b, want, err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := validateEvent(doc); err != nil {
			t.Error(err)
		}
		doc.(map[string]any)["sequence"] = "00000000000000000001"
		if validateEvent(doc) == nil {
			t.Errorf("%s.%s may have a sequence", e.Area, e.Name)
		}
	}
}
