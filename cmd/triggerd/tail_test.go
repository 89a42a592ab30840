package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/publish"
)

// received is a connection event as it is read back, with the data given.
func received(t *testing.T, d event.ConnectionData) publish.Received {
	t.Helper()
	e, err := event.NewConnectionEvent("", d)
	if err != nil {
		t.Fatal(err)
	}
	return publish.Received{Event: e, Data: e.Data, StoredAt: d.Since, NATSSubject: e.NATSSubject("graph"),
		Attributes: map[string]string{"id": e.ID, "type": e.Type(), "source": e.Source}}
}

func TestTailLineOfAConnection(t *testing.T) {
	since := time.Date(2026, 11, 23, 9, 31, 19, 482e6, time.Local)
	for name, tt := range map[string]struct{ state, remedy, want string }{
		"somebody must sign in":       {event.ReauthRequired, "run `triggerd login ada`", "09:31:19.482  ada        reauth_required              run `triggerd login ada`"},
		"nothing to do":               {event.ConnectionOK, "", "09:31:19.482  ada        ok"},
		"what would steer the screen": {event.Throttled, "wait\x1b[2J\n\u202e", "09:31:19.482  ada        throttled                 wait [2J"},
	} {
		t.Run(name, func(t *testing.T) {
			r := received(t, event.ConnectionData{Name: "ada", Cloud: "global", Auth: "delegated", State: tt.state, Since: since, Remedy: tt.remedy})
			var out bytes.Buffer
			if err := printEvent(&out, &r, false); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != tt.want+"\n" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTailLineOfAConnectionThatCannotBeRead(t *testing.T) {
	r := received(t, event.ConnectionData{Name: "ada", State: event.ReauthRequired, Since: time.Now()})
	r.Event.Data = []byte(`{"remedy": 5}`)
	var out bytes.Buffer
	if err := printEvent(&out, &r, false); err != nil || !strings.HasSuffix(out.String(), "  ada        reauth_required\n") {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestTailJSONOfAConnection(t *testing.T) {
	d := event.ConnectionData{Name: "ada", Cloud: "global", Auth: "delegated", State: event.ReauthRequired, Since: time.Date(2026, 11, 23, 9, 31, 19, 0, time.UTC)}
	r := received(t, d)
	var out bytes.Buffer
	if err := printEvent(&out, &r, true); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Type, Source string
		Sequence     *string
		Data         event.ConnectionData
	}
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%q: %v, want one line of JSON", out.String(), err)
	}
	if doc.Type != "io.triggerd.connection.reauth_required.v1" || doc.Source != "urn:triggerd:_:ada" || doc.Sequence != nil || doc.Data.State != d.State {
		t.Errorf("got %s", out.String())
	}
}
