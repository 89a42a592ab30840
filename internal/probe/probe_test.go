package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/graph"
)

// answers is a Graph that answers by mailbox, "calendar/" and mailbox, "calendars/" and mailbox, or "zone/" and mailbox.
type answers map[string]error

func (a answers) Folder(_ context.Context, mailbox, _ string) (graph.Folder, error) {
	return graph.Folder{}, a[mailbox]
}

func (a answers) DefaultCalendar(_ context.Context, mailbox string) (graph.Calendar, error) {
	return graph.Calendar{ID: "D", Name: "Calendar", IsDefault: true}, a["calendar/"+mailbox]
}

func (a answers) Calendars(_ context.Context, mailbox string) ([]graph.Calendar, error) {
	return []graph.Calendar{{ID: "D", Name: "Calendar", IsDefault: true}, {ID: "T", Name: "Team"}}, a["calendars/"+mailbox]
}

func (a answers) TimeZone(_ context.Context, mailbox string) (string, error) {
	return "UTC", a["zone/"+mailbox]
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

func TestRunOnCalendars(t *testing.T) {
	usual := []config.FolderRef{{Name: "default"}}
	soon := []time.Duration{15 * time.Minute}
	box := func(addresses ...string) (out []config.Mailbox) {
		for _, a := range addresses {
			out = append(out, config.Mailbox{Address: a})
		}
		return out
	}
	file := &config.File{
		Connections: map[string]config.Connection{
			"app":  {Name: "app", Auth: config.AuthApp, Unreachable: []string{"ceo@x.example", "half@x.example", "open@x.example"}},
			"user": {Name: "user", Auth: config.AuthDelegated, Unreachable: []string{"ceo@x.example"}},
		},
		Watches: []config.Watch{
			{Name: "a", Connection: "app", Mailboxes: box("good@x.example", "far@x.example", "none@x.example", "shut@x.example"), Calendar: config.Calendar{Calendars: usual, Starting: soon}},
			{Name: "b", Connection: "app", Mailboxes: box("Good@x.example", "lost@x.example"), // asked once, for both watches
				Mail:     config.Mail{Folders: []config.FolderRef{{Name: "inbox"}}},
				Calendar: config.Calendar{Calendars: []config.FolderRef{{Name: "All"}, {Name: "T"}, {Name: "team", Exclude: true}, {Name: "Holidays", Exclude: true}}}},
			{Name: "c", Connection: "user", Mailboxes: box(config.Me, "shared@x.example", "far@x.example"), Calendar: config.Calendar{Calendars: usual, Starting: soon}},
		},
	}
	denied, gone := refused(403, "ErrorAccessDenied"), refused(404, "ErrorInvalidUser")
	graphs := answers{
		"calendar/far@x.example": denied, "zone/far@x.example": denied, "calendar/none@x.example": gone, "zone/none@x.example": gone,
		"zone/shut@x.example": denied, "calendars/lost@x.example": refused(503, ""), "zone/me": denied,
		"ceo@x.example": denied, "calendar/ceo@x.example": denied, "zone/ceo@x.example": denied, "half@x.example": denied,
	}
	room := house{"app": {State: connections.OK}, "user": {State: connections.OK, User: "ada@x.example"}}
	var got []string
	for _, f := range Run(t.Context(), file, room, map[string]Graph{"app": graphs, "user": graphs}) {
		line := fmt.Sprintf("%s %s %v: %s", f.Connection, f.Mailbox, f.OK, f.Text)
		if f.Remedy != "" {
			line += " → " + f.Remedy + " (" + f.Who + ")"
		}
		got = append(got, line)
	}
	role := func(s string) string {
		return "give the app the role Application " + s + " over this mailbox (`triggerd scopes app --for exchange`); a new assignment takes up to 2 hours"
	}
	open := " false: READABLE, and must not be: the app's reach is not limited → limit the app with RBAC for Applications (`triggerd scopes app --for exchange`), and take "
	want := []string{
		"app  true: signed in as the app",
		"app good@x.example true: readable",
		"app good@x.example true: calendar readable",
		`app good@x.example true: calendar "T" found`,
		`app good@x.example true: calendar "team" found`,
		`app good@x.example false: no calendar "Holidays" → write default, all, or one of those there are: "Calendar", "Team" (operator)`,
		"app good@x.example true: time zone readable",
		"app far@x.example false: no access to its calendar → " + role("Calendars.Read") + " (Exchange administrator)",
		"app far@x.example false: no access to its time zone → " + role("MailboxSettings.Read") + ", or write calendar.time_zone into the watch (Exchange administrator)",
		"app none@x.example false: no such mailbox → compare the address; the account needs a mailbox in Exchange Online (operator)",
		"app shut@x.example true: calendar readable",
		"app shut@x.example false: no access to its time zone → " + role("MailboxSettings.Read") + ", or write calendar.time_zone into the watch (Exchange administrator)",
		"app lost@x.example true: readable",
		"app lost@x.example true: calendar readable",
		"app lost@x.example false: cannot tell: graph: get folder: status 503 → try again (operator)",
		"app ceo@x.example true: out of reach, as it must be",
		"app half@x.example" + open + "Calendars.Read away in Entra: both grants count together (Exchange administrator and Entra administrator)",
		"app open@x.example" + open + "Mail.Read away in Entra: both grants count together (Exchange administrator and Entra administrator)",
		"user  true: signed in for ada@x.example",
		"user me true: calendar readable",
		"user me false: no access to its time zone → consent to the permissions that `triggerd scopes user` lists, and sign in again, or write calendar.time_zone into the watch (Entra administrator)",
		"user shared@x.example true: calendar readable; polled, since Graph has no subscriptions on somebody else's mailbox",
		"user far@x.example false: no access to its calendar → share the calendar with the signed-in user (Reviewer) (mailbox owner or Exchange administrator)",
		"user ceo@x.example true: out of reach, as it must be",
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
