package probe

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/graph"
)

// answers is a Graph that answers by mailbox.
type answers map[string]error

func (a answers) Folder(_ context.Context, mailbox, _ string) (graph.Folder, error) {
	return graph.Folder{}, a[mailbox]
}

// house says how connections are.
type house map[string]connections.Status

func (house) Source(string) connections.Source { return nil }

func (h house) Look(_ context.Context, name string) (connections.Status, error) {
	s := h[name]
	if s.Name == "broken" {
		return s, errors.New("disk full")
	}
	return s, nil
}

func refused(status int, code string) error {
	return &graph.Error{Op: "get folder", Status: status, Code: code}
}

func TestRun(t *testing.T) {
	file := &config.File{
		Connections: map[string]config.Connection{
			"app":  {Name: "app", Auth: config.AuthApp, Unreachable: []string{"ceo@x.example", "open@x.example", "none@x.example"}},
			"user": {Name: "user", Auth: config.AuthDelegated, Unreachable: []string{"ceo@x.example"}},
			"gone": {Name: "gone", Auth: config.AuthDelegated},
			"sick": {Name: "sick", Auth: config.AuthApp},
		},
		Watches: []config.Watch{
			{Name: "a", Connection: "app", Mailboxes: []config.Mailbox{{Address: "good@x.example"}, {Address: "far@x.example"}, {Address: "none@x.example"}, {Address: "slow@x.example"}}},
			{Name: "b", Connection: "app", Mailboxes: []config.Mailbox{{Address: "GOOD@x.example"}}}, // asked once
			{Name: "c", Connection: "user", Mailboxes: []config.Mailbox{{Address: config.Me}, {Address: "shared@x.example"}, {Address: "far@x.example"}}},
			{Name: "d", Connection: "gone", Mailboxes: []config.Mailbox{{Address: config.Me}}},
		},
	}
	room := house{
		"app":  {State: connections.OK},
		"user": {State: connections.OK, User: "ada@x.example"},
		"gone": {State: connections.ReauthRequired, Paused: true, Reason: "nobody has signed in yet", Remedy: "run `triggerd login gone`"},
		"sick": {Name: "broken"},
	}
	graphs := answers{
		"far@x.example": refused(403, "ErrorAccessDenied"), "none@x.example": refused(404, "ErrorInvalidUser"), "slow@x.example": refused(503, ""),
		"ceo@x.example": refused(403, "ErrorAccessDenied"),
	}
	got := Run(t.Context(), file, room, map[string]Graph{"app": graphs, "user": graphs, "gone": graphs, "sick": graphs})
	want := []struct {
		connection, mailbox string
		ok                  bool
		text, who           string
	}{
		{"app", "", true, "signed in as the app", ""},
		{"app", "good@x.example", true, "readable", ""},
		{"app", "far@x.example", false, "no access", Exchange},
		{"app", "none@x.example", false, "no such mailbox", Operator},
		{"app", "slow@x.example", false, "cannot tell", Operator},
		{"app", "ceo@x.example", true, "out of reach", ""},
		{"app", "open@x.example", false, "READABLE, and must not be", Exchange + " and " + Entra},
		{"app", "none@x.example", false, "cannot tell whether it is out of reach", Operator},
		{"gone", "", false, "nobody has signed in yet", User},
		{"sick", "", false, "disk full", Operator},
		{"user", "", true, "signed in for ada@x.example", ""},
		{"user", "me", true, "readable", ""},
		{"user", "shared@x.example", true, "readable; polled", ""},
		{"user", "far@x.example", false, "no access", Owner},
		{"user", "ceo@x.example", true, "out of reach", ""},
	}
	if len(got) != len(want) {
		t.Fatalf("%d findings, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		g := got[i]
		if g.Connection != w.connection || g.Mailbox != w.mailbox || g.OK != w.ok || !strings.Contains(g.Text, w.text) || g.Who != w.who || (g.Remedy == "") != w.ok {
			t.Errorf("finding %d: %+v, want %+v", i, g, w)
		}
	}
}
