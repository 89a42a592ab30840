package emulator

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Address is a mail address with the name shown beside it.
type Address struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Header is one internet message header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Mail is a message to be put into a mailbox. What is left empty is made up or stays away.
type Mail struct {
	Folder            string    `json:"folder"` // id or well-known name; empty: the inbox, Drafts or Sent Items, as the method says
	Subject           string    `json:"subject"`
	From              Address   `json:"from"`
	Sender            Address   `json:"sender"` // who sent on behalf of From; default From (M-3)
	To                []Address `json:"to"`
	Cc                []Address `json:"cc"`
	Bcc               []Address `json:"bcc"`
	ReplyTo           []Address `json:"replyTo"`
	Body              string    `json:"body"`
	HTML              bool      `json:"html"` // what Body is
	Preview           string    `json:"preview"`
	InternetMessageID string    `json:"internetMessageId"`
	ConversationID    string    `json:"conversationId"`
	ReceivedAt        time.Time `json:"receivedAt"` // default now
	SentAt            time.Time `json:"sentAt"`     // default ReceivedAt
	IsRead            bool      `json:"isRead"`
	HasAttachments    bool      `json:"hasAttachments"`
	Importance        string    `json:"importance"` // low, normal, high
	Categories        []string  `json:"categories"`
	Flag              string    `json:"flag"` // notFlagged, flagged, complete
	Headers           []Header  `json:"headers"`
}

// Patch changes a message; nil fields stay.
type Patch struct {
	IsRead     *bool     `json:"isRead"`
	Flag       *string   `json:"flag"`
	Categories *[]string `json:"categories"`
	Subject    *string   `json:"subject"`
	Importance *string   `json:"importance"`
	Body       *string   `json:"body"`
}

// MessageInfo is a message as an oracle wants it.
type MessageInfo struct {
	ID                string    `json:"id"` // immutable
	ChangeKey         string    `json:"changeKey"`
	Folder            string    `json:"folder"` // id
	Subject           string    `json:"subject"`
	InternetMessageID string    `json:"internetMessageId"`
	IsRead            bool      `json:"isRead"`
	IsDraft           bool      `json:"isDraft"`
	Flag              string    `json:"flag"` // notFlagged, flagged, complete
	Importance        string    `json:"importance"`
	Categories        []string  `json:"categories"`
	ReceivedAt        time.Time `json:"receivedAt"`
}

// message is a message of a mailbox. Guarded by Server.mu. Many are kept, so it is compact: what few mails have is in
// more, times are unix seconds.
type message struct {
	user    *user
	folder  *folder // nil once deleted
	n       int     // number in the mailbox
	version uint64  // in its change key
	place   int     // of its last entry in the folder's log
	told    int     // place of the first entry that tells it since it came to the folder; 0: none does
	changed *[numFacets]int
	more    *rarely

	received, sent, created, modified int64
	ghostUntil                        int64 // unix nanoseconds: sending is not finished, GET does not see it (I-8)
	subject, body, preview            string
	from                              Address
	to                                []Address
	categories                        []string
	moves                             uint32
	importance, flag                  uint8
	isRead, isDraft, hasAttachments   bool
	html                              bool
}

// rarely is what few mails have.
type rarely struct {
	sender                  Address
	cc, bcc, replyTo        []Address
	messageID, conversation string
	headers                 []Header
}

// facet is what can change on a message that stays where it is; delta tells only the changed ones (D-7).
type facet uint8

const (
	facetRead facet = iota
	facetFlag
	facetCategories
	facetSubject
	facetImportance
	facetBody
	numFacets
)

var (
	importances = []string{"normal", "low", "high"}
	flags       = []string{"notFlagged", "flagged", "complete"}
)

func indexOf(list []string, v string) (uint8, bool) {
	for i, s := range list {
		if strings.EqualFold(s, v) {
			return uint8(i), true
		}
	}
	return 0, v == ""
}

func (m *message) id(immutable bool) string {
	if immutable {
		return m.user.immutableID(m.n)
	}
	return m.user.mutableID(m.n, m.moves)
}

func (m *message) changeKey() string { return m.user.changeKey(m.version) }

func (m *message) info() MessageInfo {
	return MessageInfo{
		ID: m.id(true), ChangeKey: m.changeKey(), Folder: m.folder.id, Subject: m.subject, InternetMessageID: m.messageID(),
		IsRead: m.isRead, IsDraft: m.isDraft, Flag: flags[m.flag], Importance: importances[m.importance],
		Categories: m.categories, ReceivedAt: time.Unix(m.received, 0).UTC(),
	}
}

// messageID is the internetMessageId, made up when the mail brought none.
func (m *message) messageID() string {
	if m.more != nil && m.more.messageID != "" {
		return m.more.messageID
	}
	id := m.user.immutableID(m.n)
	return "<" + strings.TrimRight(id[len(id)-26:], "=") + "@emulator.triggerd.example>"
}

func (m *message) conversationID() string {
	if m.more != nil && m.more.conversation != "" {
		return m.more.conversation
	}
	id := m.user.immutableID(m.n)
	return "AAQkAD" + id[36:]
}

// clean makes text that JSON can hold.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func cleanAddress(a Address) Address { return Address{Name: clean(a.Name), Address: clean(a.Address)} }

func cleanAddresses(list []Address) []Address {
	if len(list) == 0 {
		return nil
	}
	out := make([]Address, len(list))
	for i, a := range list {
		out[i] = cleanAddress(a)
	}
	return out
}

// previewOf is the first 255 characters of the body as text.
func previewOf(body string, html bool) string {
	const most = 255
	if html {
		body = stripTags(body, 16*most)
	}
	if len(body) <= most && !strings.ContainsAny(body, "\r\n\t") && !strings.Contains(body, "  ") && strings.TrimSpace(body) == body {
		return body // the text is kept once
	}
	var b strings.Builder
	n, space := 0, false
	for _, r := range body {
		if r == '\n' || r == '\r' || r == '\t' || r == ' ' {
			space = n > 0
			continue
		}
		if space {
			if b.WriteByte(' '); n+1 >= most {
				break
			}
			n, space = n+1, false
		}
		b.WriteRune(r)
		if n++; n >= most {
			break
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// stripTags drops markup, styles and scripts; it stops after about most bytes of text.
func stripTags(html string, most int) string {
	var b strings.Builder
	for len(html) > 0 && b.Len() < most {
		open := strings.IndexByte(html, '<')
		if open < 0 {
			b.WriteString(html)
			break
		}
		b.WriteString(html[:open])
		html = html[open:]
		end := strings.IndexByte(html, '>')
		if end < 0 {
			break
		}
		name := strings.ToLower(html[1:min(end, 7)])
		html = html[end+1:]
		for _, skip := range []string{"style", "script"} {
			if !strings.HasPrefix(name, skip) {
				continue
			}
			i := indexFold(html, "</"+skip)
			if i < 0 {
				return b.String()
			}
			html = html[i:]
		}
		b.WriteByte(' ')
	}
	s := b.String()
	if !utf8.ValidString(s) {
		s = clean(s)
	}
	return strings.NewReplacer("&nbsp;", " ", "&lt;", "<", "&gt;", ">", "&quot;", `"`, "&#39;", "'", "&amp;", "&").Replace(s)
}

// indexFold finds an ASCII text without regard to case.
func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}
