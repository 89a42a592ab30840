package config

import (
	"strings"
	"testing"

	"github.com/triggerd/triggerd/internal/event"
)

func message() *event.Message {
	return &event.Message{
		Subject: "Invoice 7", From: &event.Address{Name: "Ann", Address: "ann@Fabrikam.com"},
		ToRecipients: []event.Address{{Name: "Sales", Address: "sales@contoso.com"}, {Address: "x@contoso.com"}},
		Categories:   []string{"Red"}, HasAttachments: true, Importance: "high", Flag: "flagged", IsRead: true,
		ReceivedDateTime: "2026-11-24T10:00:00Z", ConversationID: "c1", InternetMessageID: "<1@x>", BodyPreview: "please pay",
	}
}

func TestFilter(t *testing.T) {
	in := &event.Folder{ID: "F1", WellKnownName: "inbox", Path: "Inbox"}
	tests := []struct {
		source string
		want   bool
	}{
		{`hasAttachments && lower(subject) contains "invoice"`, true},
		{`subject startsWith "invoice"`, false},
		{`subject matches "^Invoice [0-9]+$"`, true},
		{`from.address endsWith "@fabrikam.com"`, false},
		{`lower(from.address) endsWith "@fabrikam.com" and from.name == "Ann"`, true},
		{`any(to, .address == "x@contoso.com")`, true},
		{`len(cc) + len(bcc) + len(replyTo) == 0`, true},
		{`sender.address == ""`, true},
		{`"Red" in categories and not isDraft and isRead`, true},
		{`importance == "high" && flag == "flagged"`, true},
		{`event in ["received", "moved"]`, true},
		{`folder.wellKnownName == "inbox" && folder.path == "Inbox" && folder.id == "F1"`, true},
		{`receivedDateTime > date("2026-11-01")`, true},
		{`receivedDateTime.Year() == 2025`, false},
		{`conversationId == "c1" && internetMessageId == "<1@x>"`, true},
		{`bodyPreview contains "pay"`, true},
		{`mailbox == "sales"`, true},
		{`true`, true},
	}
	for _, tt := range tests {
		f, err := CompileFilter(tt.source)
		if err != nil {
			t.Errorf("%s: %v", tt.source, err)
			continue
		}
		got, err := f.For(Mailbox{"sales@contoso.com", "sales"}).Match("received", message(), in)
		if err != nil || got != tt.want {
			t.Errorf("%s = %v, %v, want %v", tt.source, got, err, tt.want)
		}
		if _, err := f.For(Mailbox{Address: "a@b.c"}).Match("deleted", &event.Message{}, nil); err != nil {
			t.Errorf("%s on an empty message: %v", tt.source, err)
		}
	}
}

func TestFilterMistakes(t *testing.T) {
	tests := []struct{ source, want string }{
		{`subjct == "a"`, `unknown name subjct; did you mean "subject"?`},
		{`isRead && (`, `at column 11: unexpected token EOF`},
		{`from == "a@b.c"`, `at column 6: invalid operation: == (mismatched types config.person and string)`},
		{`from.mail == "x"`, `at column 6: type config.person has no field mail`},
		{`len(subject)`, `expected bool, but got int`},
		{`receivedDateTime > now()`, `at column 20: unknown name now`},
		{`subject matches "("`, ""},
		{`isRead(`, ""},
		{``, ""},
		{`"` + strings.Repeat("x", maxFilter) + `" == subject`, `expression of 4109 bytes: at most 4096`},
		{strings.Repeat("isRead&&", 505) + "isRead", ""},
		{strings.Repeat("!", 1001) + "isRead", ""},
	}
	for _, tt := range tests {
		f, err := CompileFilter(tt.source)
		if f != nil || err == nil || strings.Contains(err.Error(), "\n") || tt.want != "" && err.Error() != tt.want {
			t.Errorf("CompileFilter(%.40q) = %v, %v, want %s", tt.source, f, err, tt.want)
		}
	}
}

func TestFilterReads(t *testing.T) {
	for source, want := range map[string]event.Content{
		`isRead`:                            event.ContentIDs,
		`any(categories, # == "a")`:         event.ContentIDs,
		`folder.path == "bodyPreview"`:      event.ContentIDs,
		`isRead || subject == ""`:           event.ContentEnvelope,
		`any(to, .address == "a")`:          event.ContentEnvelope,
		`isRead ? bodyPreview == "" : true`: event.ContentPreview,
		`$env["bodyPreview"] == "x"`:        event.ContentPreview,
	} {
		f, err := CompileFilter(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got := f.Reads(); got != want {
			t.Errorf("%s reads %v, want %v", source, got, want)
		}
	}
}

// What goes wrong while a message is looked at must not quote it, since it is logged.
func TestFilterFailsWithoutQuoting(t *testing.T) {
	for _, source := range []string{`int(subject) == 1`, `date(subject) == receivedDateTime`, `to[5].address == ""`} {
		f, err := CompileFilter(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if yes, err := f.Match("received", &event.Message{Subject: "canary"}, nil); err == nil || yes || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s = %v, %v", source, yes, err)
		}
	}
	f, err := CompileFilter(`mailbox == "sales"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Match("received", message(), nil); err == nil {
		t.Error("a filter on mailbox that was made for none gave a verdict")
	}
}

func BenchmarkFilter(b *testing.B) {
	f, err := CompileFilter(`hasAttachments && lower(subject) contains "invoice" && any(to, .address endsWith "@contoso.com")`)
	if err != nil {
		b.Fatal(err)
	}
	m := message()
	b.ReportAllocs()
	for b.Loop() {
		if yes, err := f.Match("received", m, nil); !yes || err != nil {
			b.Fatal(yes, err)
		}
	}
}
