package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/triggerd/triggerd/internal/event"
)

// Filter is a compiled `when` expression. It is safe for concurrent use.
type Filter struct {
	source  string
	program *vm.Program
	names   []string // that the expression uses, sorted
	mailbox *string  // alias or token, see For
}

// facts are what an expression sees: the normalized message or meeting, with people, folders and calendars as objects that
// are never missing. What the other area has is empty, false, or the zero time.
type facts struct {
	Area              string    `expr:"area"`
	Event             string    `expr:"event"`
	Mailbox           string    `expr:"mailbox"`
	Folder            folder    `expr:"folder"`
	Subject           string    `expr:"subject"`
	From              person    `expr:"from"`
	Sender            person    `expr:"sender"`
	To                []person  `expr:"to"`
	Cc                []person  `expr:"cc"`
	Bcc               []person  `expr:"bcc"`
	ReplyTo           []person  `expr:"replyTo"`
	HasAttachments    bool      `expr:"hasAttachments"`
	Importance        string    `expr:"importance"`
	Categories        []string  `expr:"categories"`
	Flag              string    `expr:"flag"`
	IsRead            bool      `expr:"isRead"`
	IsDraft           bool      `expr:"isDraft"`
	ReceivedDateTime  time.Time `expr:"receivedDateTime"`
	SentDateTime      time.Time `expr:"sentDateTime"`
	ConversationID    string    `expr:"conversationId"`
	InternetMessageID string    `expr:"internetMessageId"`
	BodyPreview       string    `expr:"bodyPreview"`
	Calendar          calendar  `expr:"calendar"`
	Organizer         person    `expr:"organizer"`
	Attendees         []person  `expr:"attendees"`
	Location          string    `expr:"location"`
	Start             time.Time `expr:"start"`
	End               time.Time `expr:"end"`
	IsAllDay          bool      `expr:"isAllDay"`
	IsCancelled       bool      `expr:"isCancelled"`
	IsOrganizer       bool      `expr:"isOrganizer"`
	IsOnlineMeeting   bool      `expr:"isOnlineMeeting"`
	ShowAs            string    `expr:"showAs"`
	Sensitivity       string    `expr:"sensitivity"`
	ResponseStatus    string    `expr:"responseStatus"` // the mailbox's own
	InstanceKind      string    `expr:"instanceKind"`
	SeriesMasterID    string    `expr:"seriesMasterId"`
}

type person struct {
	Name    string `expr:"name"`
	Address string `expr:"address"`
}

type folder struct {
	ID            string `expr:"id"`
	WellKnownName string `expr:"wellKnownName"` // empty when it has none
	Path          string `expr:"path"`
}

type calendar struct {
	ID        string `expr:"id"`
	Name      string `expr:"name"`
	IsDefault bool   `expr:"isDefault"`
}

// factNames are the names of facts, for "did you mean".
var factNames = []string{"area", "event", "mailbox", "folder", "subject", "from", "sender", "to", "cc", "bcc", "replyTo", "hasAttachments",
	"importance", "categories", "flag", "isRead", "isDraft", "receivedDateTime", "sentDateTime", "conversationId", "internetMessageId",
	"bodyPreview", "calendar", "organizer", "attendees", "location", "start", "end", "isAllDay", "isCancelled", "isOrganizer",
	"isOnlineMeeting", "showAs", "sensitivity", "responseStatus", "instanceKind", "seriesMasterId"}

// envelopeNames are those that a message or meeting read at content ids does not have.
var envelopeNames = []string{"subject", "from", "sender", "to", "cc", "bcc", "replyTo", "organizer", "attendees", "location"}

const maxFilter = 4096 // bytes of an expression

// CompileFilter compiles an expression, which must be true or false. The same item must always get the same verdict, so
// there is no now().
func CompileFilter(source string) (*Filter, error) {
	if len(source) > maxFilter {
		return nil, fmt.Errorf("expression of %d bytes: at most %d", len(source), maxFilter)
	}
	program, err := expr.Compile(source, expr.Env(facts{}), expr.AsBool(), expr.MaxNodes(1000), expr.DisableBuiltin("now"))
	if err != nil {
		return nil, filterError(source, err)
	}
	var used identifiers
	node := program.Node()
	ast.Walk(&node, &used)
	slices.Sort(used)
	return &Filter{source: source, program: program, names: slices.Compact(used)}, nil
}

// identifiers collects the names that an expression uses.
type identifiers []string

func (ids *identifiers) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok {
		*ids = append(*ids, id.Value)
	}
}

// filterError makes one line of a compiler's message, with the column where it is not the first.
func filterError(source string, err error) error {
	fe, ok := errors.AsType[*file.Error](err)
	if !ok {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return errors.New(line)
	}
	text := fe.Message
	if name, ok := strings.CutPrefix(text, "unknown name "); ok {
		text += didYouMean(name, factNames)
	}
	if !strings.Contains(source, "\n") && fe.Column > 0 {
		text = fmt.Sprintf("at column %d: %s", fe.Column+1, text)
	}
	return errors.New(text)
}

// String is the expression as it was written.
func (f *Filter) String() string { return f.source }

// Reads is how much of a message or meeting the expression looks at.
func (f *Filter) Reads() event.Content {
	uses := func(name string) bool { return slices.Contains(f.names, name) }
	switch {
	case uses("bodyPreview"), uses("$env"):
		return event.ContentPreview
	case slices.ContainsFunc(envelopeNames, uses):
		return event.ContentEnvelope
	}
	return event.ContentIDs
}

// For is the filter for one mailbox, whose alias (or else its name in subjects) the expression sees as `mailbox`.
func (f *Filter) For(m Mailbox) *Filter {
	bound, name := *f, m.Token()
	bound.mailbox = &name
	return &bound
}

var (
	errUnbound   = errors.New("filter uses mailbox and was not made for one")
	errNoVerdict = errors.New("filter cannot be evaluated on this item") // what expr says may quote the item
)

// Match evaluates the expression on an event's name, message and folder, which may be nil.
func (f *Filter) Match(name string, m *event.Message, in *event.Folder) (bool, error) {
	env := facts{
		Area: event.AreaMail, Event: name, Subject: m.Subject, To: people(m.ToRecipients), Cc: people(m.CcRecipients), Bcc: people(m.BccRecipients),
		ReplyTo: people(m.ReplyTo), HasAttachments: m.HasAttachments, Importance: m.Importance, Categories: m.Categories,
		Flag: m.Flag, IsRead: m.IsRead, IsDraft: m.IsDraft, ReceivedDateTime: event.ParseTime(m.ReceivedDateTime),
		SentDateTime: event.ParseTime(m.SentDateTime), ConversationID: m.ConversationID, InternetMessageID: m.InternetMessageID,
		BodyPreview: m.BodyPreview,
	}
	if m.From != nil {
		env.From = person(*m.From)
	}
	if m.Sender != nil {
		env.Sender = person(*m.Sender)
	}
	if in != nil {
		env.Folder = folder(*in)
	}
	return f.verdict(env)
}

// MatchMeeting evaluates the expression on an event's name, meeting and calendar, which may be nil. The organizer is also
// who it is from, and the attendees whom it is to, so that one expression serves both areas.
func (f *Filter) MatchMeeting(name string, m *event.Meeting, in *event.Calendar) (bool, error) {
	env := facts{
		Area: event.AreaCalendar, Event: name, Subject: m.Subject, HasAttachments: m.HasAttachments, Importance: m.Importance,
		Categories: m.Categories, BodyPreview: m.BodyPreview, Attendees: attendees(m.Attendees), Location: m.Location,
		Start: instant(m.Start), End: instant(m.End), IsAllDay: m.IsAllDay, IsCancelled: m.IsCancelled, IsOrganizer: m.IsOrganizer,
		IsOnlineMeeting: m.IsOnline, ShowAs: m.ShowAs, Sensitivity: m.Sensitivity, ResponseStatus: m.Response,
		InstanceKind: m.InstanceKind, SeriesMasterID: m.SeriesMasterID,
	}
	if m.Organizer != nil {
		env.Organizer = person(*m.Organizer)
	}
	if in != nil {
		env.Calendar = calendar(*in)
	}
	env.From, env.To = env.Organizer, env.Attendees
	return f.verdict(env)
}

func (f *Filter) verdict(env facts) (bool, error) {
	switch {
	case f.mailbox != nil:
		env.Mailbox = *f.mailbox
	case slices.Contains(f.names, "mailbox"):
		return false, errUnbound
	}
	out, err := expr.Run(f.program, env)
	yes, ok := out.(bool)
	if err != nil || !ok {
		return false, errNoVerdict
	}
	return yes, nil
}

func people(list []event.Address) []person {
	out := make([]person, len(list))
	for i, a := range list {
		out[i] = person(a)
	}
	return out
}

func attendees(list []event.Attendee) []person {
	out := make([]person, len(list))
	for i, a := range list {
		out[i] = person{a.Name, a.Address}
	}
	return out
}

// instant is a moment on one line with all others: a date is its midnight in UTC.
func instant(m event.Moment) time.Time {
	if m.Date != "" {
		return event.ParseTime(m.Date + "T00:00:00Z")
	}
	return event.ParseTime(m.DateTime)
}
