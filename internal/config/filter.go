package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/triggerd/triggerd/internal/event"
)

// Filter is a compiled `when` expression. Safe for concurrent use.
type Filter struct {
	source  string
	program *vm.Program
}

// facts are what an expression sees. Times are compared with date("2026-01-01") and now().
type facts struct {
	Event             string    `expr:"event"`
	Subject           string    `expr:"subject"`
	FromAddress       string    `expr:"from"`
	FromName          string    `expr:"fromName"`
	To                []string  `expr:"to"`
	Cc                []string  `expr:"cc"`
	HasAttachments    bool      `expr:"hasAttachments"`
	Importance        string    `expr:"importance"`
	Categories        []string  `expr:"categories"`
	Flag              string    `expr:"flag"`
	IsRead            bool      `expr:"isRead"`
	IsDraft           bool      `expr:"isDraft"`
	ReceivedDateTime  time.Time `expr:"receivedDateTime"`
	ConversationID    string    `expr:"conversationId"`
	InternetMessageID string    `expr:"internetMessageId"`
	BodyPreview       string    `expr:"bodyPreview"`
	Folder            string    `expr:"folder"`     // well-known name, empty when it has none
	FolderPath        string    `expr:"folderPath"` // display names joined by "/"
}

// CompileFilter compiles an expression; it must be true or false.
func CompileFilter(source string) (*Filter, error) {
	program, err := expr.Compile(source, expr.Env(facts{}), expr.AsBool())
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return &Filter{source, program}, nil
}

// String is the expression.
func (f *Filter) String() string { return f.source }

// Match evaluates the expression on a message.
func (f *Filter) Match(name string, m *event.Message, folder *event.Folder) (bool, error) {
	env := facts{
		Event: name, Subject: m.Subject, To: addresses(m.ToRecipients), Cc: addresses(m.CcRecipients),
		HasAttachments: m.HasAttachments, Importance: m.Importance, Categories: m.Categories, Flag: m.Flag,
		IsRead: m.IsRead, IsDraft: m.IsDraft, ReceivedDateTime: event.ParseTime(m.ReceivedDateTime),
		ConversationID: m.ConversationID, InternetMessageID: m.InternetMessageID, BodyPreview: m.BodyPreview,
	}
	if m.From != nil {
		env.FromAddress, env.FromName = m.From.Address, m.From.Name
	}
	if folder != nil {
		env.Folder, env.FolderPath = folder.WellKnownName, folder.Path
	}
	out, err := expr.Run(f.program, env)
	if err != nil {
		return false, err
	}
	return out.(bool), nil
}

func addresses(list []event.Address) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.Address
	}
	return out
}
