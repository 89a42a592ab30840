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

func meeting() *event.Meeting {
	return &event.Meeting{
		InstanceKind: event.Exception, SeriesMasterID: "m1", Subject: "Budget 2027", IsOrganizer: true, Response: "organizer", IsOnline: true,
		Start: event.Moment{DateTime: "2026-11-24T09:00:00Z", TimeZone: "Europe/Berlin"}, End: event.Moment{DateTime: "2026-11-24T10:30:00Z"},
		Organizer: &event.Address{Name: "Ann", Address: "ann@fabrikam.com"}, Location: "Room 1", ShowAs: "busy", Sensitivity: "private",
		Attendees:  []event.Attendee{{Name: "Bob", Address: "bob@contoso.com", Type: "required"}, {Address: "room@contoso.com", Type: "resource"}},
		Importance: "high", Categories: []string{"Red"}, HasAttachments: true, BodyPreview: "please come",
	}
}

func TestFilterOnMeetings(t *testing.T) {
	in := &event.Calendar{ID: "C1", Name: "Team", IsDefault: true}
	tests := []struct {
		source string
		want   bool
	}{
		{`area == "calendar"`, true},
		{`area == "mail" || isRead`, false},
		{`hasAttachments && lower(subject) contains "budget"`, true},
		{`organizer.address endsWith "@fabrikam.com" && organizer.name == "Ann"`, true},
		{`any(attendees, .address == "bob@contoso.com")`, true},
		{`from.address == organizer.address && any(to, .address == "room@contoso.com")`, true},
		{`sender.address == "" && len(cc) + len(bcc) == 0 && folder.id == "" && flag == "" && receivedDateTime.IsZero()`, true},
		{`location contains "Room"`, true},
		{`end - start > duration("1h")`, true},
		{`start.Hour() == 9 && start < date("2026-11-25")`, true},
		{`isAllDay or isCancelled`, false},
		{`isOrganizer and isOnlineMeeting and responseStatus == "organizer"`, true},
		{`showAs == "busy" && sensitivity == "private" && importance == "high"`, true},
		{`instanceKind == "exception" && seriesMasterId == "m1"`, true},
		{`calendar.id == "C1" && calendar.name == "Team" && calendar.isDefault`, true},
		{`"Red" in categories && bodyPreview contains "come"`, true},
		{`event in ["invited", "rescheduled"] && mailbox == "sales"`, true},
	}
	for _, tt := range tests {
		f, err := CompileFilter(tt.source)
		if err != nil {
			t.Errorf("%s: %v", tt.source, err)
			continue
		}
		got, err := f.For(Mailbox{"sales@contoso.com", "sales"}).MatchMeeting("invited", meeting(), in)
		if err != nil || got != tt.want {
			t.Errorf("%s = %v, %v, want %v", tt.source, got, err, tt.want)
		}
		if _, err := f.For(Mailbox{Address: "a@b.c"}).MatchMeeting("deleted", &event.Meeting{}, nil); err != nil {
			t.Errorf("%s on an empty meeting: %v", tt.source, err)
		}
		if _, err := f.For(Mailbox{Address: "a@b.c"}).Match("deleted", &event.Message{}, nil); err != nil {
			t.Errorf("%s on an empty message: %v", tt.source, err)
		}
	}
}

func TestFilterOnDates(t *testing.T) {
	f, err := CompileFilter(`isAllDay && start == date("2026-12-24T00:00:00Z") && end == date("2026-12-27T00:00:00Z")`)
	if err != nil {
		t.Fatal(err)
	}
	m := &event.Meeting{IsAllDay: true, Start: event.Moment{Date: "2026-12-24"}, End: event.Moment{Date: "2026-12-27"}}
	if yes, err := f.MatchMeeting("created", m, nil); !yes || err != nil {
		t.Errorf("MatchMeeting = %v, %v", yes, err)
	}
}

func TestFilterMistakes(t *testing.T) {
	tests := []struct{ source, want string }{
		{`subjct == "a"`, `unknown name subjct; did you mean "subject"?`},
		{`isRead && (`, `at column 11: unexpected token EOF`},
		{`from == "a@b.c"`, `at column 6: invalid operation: == (mismatched types config.person and string)`},
		{`from.mail == "x"`, `at column 6: type config.person has no field mail`},
		{`len(subject)`, `expected bool, but got int`},
		{`organiser.name == "x"`, `unknown name organiser; did you mean "organizer"?`},
		{`calendar == "Team"`, `at column 10: invalid operation: == (mismatched types config.calendar and string)`},
		{`any(attendees, .response == "accepted")`, `at column 17: type config.person has no field response`},
		{`start > now()`, `at column 9: unknown name now`},
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
		`isRead`:                       event.ContentIDs,
		`any(categories, # == "a")`:    event.ContentIDs,
		`folder.path == "bodyPreview"`: event.ContentIDs,
		`isRead || subject == ""`:      event.ContentEnvelope,
		`any(to, .address == "a")`:     event.ContentEnvelope,
		`isOrganizer && showAs == "busy" && start < end && !isOnlineMeeting`: event.ContentIDs,
		`calendar.name == "location" || responseStatus == "accepted"`:        event.ContentIDs,
		`area == "mail" || sensitivity == "private"`:                         event.ContentIDs,
		`organizer.address == "a"`:                                           event.ContentEnvelope,
		`len(attendees) > 2`:                                                 event.ContentEnvelope,
		`location == ""`:                                                     event.ContentEnvelope,
		`isRead ? bodyPreview == "" : true`:                                  event.ContentPreview,
		`$env["bodyPreview"] == "x"`:                                         event.ContentPreview,
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
		if yes, err := f.MatchMeeting("invited", &event.Meeting{Subject: "canary"}, nil); err == nil || yes || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s on a meeting = %v, %v", source, yes, err)
		}
	}
	f, err := CompileFilter(`mailbox == "sales"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Match("received", message(), nil); err == nil {
		t.Error("a filter on mailbox that was made for none gave a verdict")
	}
	if _, err := f.MatchMeeting("invited", meeting(), nil); err == nil {
		t.Error("a filter on mailbox that was made for none gave a verdict on a meeting")
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
