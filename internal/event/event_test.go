package event_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/triggerd/triggerd/internal/event"
)

// Ids, tokens and names of events are a promise: consumers remember them, and a changed one is published twice.
func TestIdentitiesNeverChange(t *testing.T) {
	e := event.Event{ID: event.ID("tenant", "sales", "support", "item", "io.triggerd.mail.read.v1", "key"), Area: event.AreaMail, Name: event.Read, Watch: "sales", Mailbox: "support"}
	for _, tt := range []struct{ name, got, want string }{
		{"ID", e.ID, "5bfa16343fbe669f6c1ed02ea27cc896"},
		{"Type", e.Type(), "io.triggerd.mail.read.v1"},
		{"DataSchema", e.DataSchema(), "urn:triggerd:schema:mail:v1"},
		{"PartitionKey", e.PartitionKey(), "sales.support"},
		{"NATSSubject", e.NATSSubject("graph"), "graph.sales.support.mail.read"},
		{"Source", event.Source("tenant", "support"), "urn:triggerd:tenant:support"},
		{"MailboxToken", event.MailboxToken("Support@Contoso.com"), "m-5olc74l5qytcclib"},
		{"TraceParent", e.TraceParent(), "00-" + e.ID + "-" + e.ID[:16] + "-01"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestIDTellsItsPartsApart(t *testing.T) {
	ids := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"a", "b"}, {"ab"}, {"ab", ""}, {"", "ab"}, {"a", "b", ""}, {"b", "a"}} {
		id := event.ID(parts...)
		if other, ok := ids[id]; ok {
			t.Errorf("%q and %q share an id", parts, other)
		}
		if ids[id] = parts; !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(id) {
			t.Errorf("ID(%q) = %q", parts, id)
		}
	}
}

func TestSubjectsHaveFiveTokens(t *testing.T) {
	names := map[string][]string{event.AreaMail: event.MailEvents, event.AreaNotification: event.NotificationEvents, event.AreaConnection: event.ConnectionEvents}
	for area, events := range names {
		for _, name := range events {
			for _, mailbox := range []string{"sales", event.MailboxToken("sales@contoso.com"), "7f180cbb-a5ae-457c-b7e8-6f5b42ba33e7"} {
				e := event.Event{Area: area, Name: name, Watch: "sales", Mailbox: mailbox}
				tokens := strings.Split(e.NATSSubject("graph"), ".")
				if len(tokens) != 5 || slices.Contains(tokens, "") {
					t.Errorf("subject %s, want five tokens", e.NATSSubject("graph"))
				}
			}
		}
	}
}

func TestMailboxTokenIsStableAndSaysNothing(t *testing.T) {
	token := event.MailboxToken("sales@contoso.com")
	if !regexp.MustCompile("^m-[a-z2-7]{16}$").MatchString(token) || token != event.MailboxToken("SALES@contoso.COM") || token == event.MailboxToken("sale@contoso.com") {
		t.Errorf("token %s", token)
	}
}

func TestTraceParentOfAnyID(t *testing.T) {
	valid := regexp.MustCompile("^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
	for _, id := range []string{event.ID("a"), "", "short", "an id that somebody else made, longer than thirty-two"} {
		if e := (event.Event{ID: id}); !valid.MatchString(e.TraceParent()) {
			t.Errorf("id %q gives traceparent %q", id, e.TraceParent())
		}
	}
}
