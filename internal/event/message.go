package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Content is how much of a message leaves the daemon. The levels are ordered.
type Content int

// The levels, each holding all of the one before.
const (
	ContentReference Content = iota // Graph's notification, nothing read
	ContentIDs                      // identifiers, times, flags
	ContentEnvelope                 // and subject, people, categories
	ContentPreview                  // and the first 255 characters of the text
	ContentBody                     // and the body
)

var contentNames = [...]string{"reference", "ids", "envelope", "preview", "body"}

func (c Content) String() string { return contentNames[c] }

// ParseContent is the inverse of Content.String.
func ParseContent(s string) (Content, error) {
	if i := slices.Index(contentNames[:], s); i >= 0 {
		return Content(i), nil
	}
	return 0, fmt.Errorf("unknown content %q: want one of %s", s, strings.Join(contentNames[:], ", "))
}

// Address is a person or mailbox as a message names it.
type Address struct {
	Name    string `json:"name,omitzero"`
	Address string `json:"address,omitzero"`
}

// Body is a message's body.
type Body struct {
	ContentType string `json:"contentType"` // text or html
	Content     string `json:"content"`
}

// Message is a message in normalized form. The names are Graph's; times are RFC 3339 in UTC as Graph wrote them. Fields
// that the content level leaves out are empty.
type Message struct {
	InternetMessageID string    `json:"internetMessageId,omitzero"`
	ConversationID    string    `json:"conversationId,omitzero"`
	Subject           string    `json:"subject,omitzero"`
	From              *Address  `json:"from,omitempty"`
	Sender            *Address  `json:"sender,omitempty"`
	ToRecipients      []Address `json:"toRecipients,omitempty"`
	CcRecipients      []Address `json:"ccRecipients,omitempty"`
	BccRecipients     []Address `json:"bccRecipients,omitempty"`
	ReplyTo           []Address `json:"replyTo,omitempty"`
	CreatedDateTime   string    `json:"createdDateTime,omitzero"`
	ReceivedDateTime  string    `json:"receivedDateTime,omitzero"`
	SentDateTime      string    `json:"sentDateTime,omitzero"`
	HasAttachments    bool      `json:"hasAttachments"`
	Importance        string    `json:"importance,omitzero"`
	Categories        []string  `json:"categories"`
	IsRead            bool      `json:"isRead"`
	IsDraft           bool      `json:"isDraft,omitzero"`
	Flag              string    `json:"flag,omitzero"` // notFlagged, flagged, complete
	BodyPreview       string    `json:"bodyPreview,omitzero"`
	Body              *Body     `json:"body,omitempty"`
}

// Observed is one look at an item: what Graph says of it now, laid over what was known before.
type Observed struct {
	ChangeKey    string // normalized, see ChangeKey
	FolderID     string
	WebLink      string
	LastModified string // RFC 3339
	BodyHash     string // of Message.Body, so that a body is compared without being kept
	Message      Message
}

// Complete reports whether the look holds what the first sight of an item needs. Partial delta items (D-7) of unknown
// items do not.
func (o *Observed) Complete() bool {
	return o.FolderID != "" && (o.Message.CreatedDateTime != "" || o.Message.ReceivedDateTime != "")
}

var selects = [...][]string{
	ContentReference: {"id", "changeKey", "parentFolderId", "createdDateTime", "lastModifiedDateTime", "receivedDateTime", "sentDateTime", "isDraft", "isRead"},
	ContentIDs:       {"flag", "categories", "internetMessageId", "conversationId", "hasAttachments", "importance", "webLink"},
	ContentEnvelope:  {"subject", "from", "sender", "toRecipients", "ccRecipients", "bccRecipients", "replyTo"},
	ContentPreview:   {"bodyPreview"},
	ContentBody:      {"body"},
}

// Select lists the properties to ask Graph for at a content level.
func Select(c Content) []string {
	return slices.Concat(selects[:c+1]...)
}

// ErrNotMessage means that an item's JSON is not a message object.
var ErrNotMessage = errors.New("not a message object")

// lenient is how Graph's JSON is read: mail is full of broken text, and half a surrogate pair or a stray byte must not
// keep a message from being told about. They become U+FFFD.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Merge lays a message as Graph wrote it, whole or partial (D-7), over what is known: present properties replace,
// absent ones stay. Unknown properties are passed over; null empties a property. After an error, which is
// ErrNotMessage, o holds a part of what was read and is of no use.
func (o *Observed) Merge(raw []byte) error {
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	dec := jsontext.NewDecoder(bytes.NewReader(raw), lenient)
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return ErrNotMessage
	}
	etag := ""
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotMessage, err)
		}
		key := name.String()
		val, err := dec.ReadValue()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNotMessage, key, err)
		}
		if key == "@odata.etag" {
			etag, err = text(val)
		} else {
			err = o.set(key, val)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNotMessage, key, err)
		}
	}
	if key := ChangeKey(etag); key != "" { // partial items carry no changeKey, but an etag (D-7)
		o.ChangeKey = key
	}
	return nil
}

func (o *Observed) set(key string, val jsontext.Value) (err error) {
	m := &o.Message
	switch key {
	case "changeKey":
		var s string
		if s, err = text(val); s != "" {
			o.ChangeKey = ChangeKey(s)
		}
	case "parentFolderId":
		o.FolderID, err = text(val)
	case "webLink":
		o.WebLink, err = text(val)
	case "lastModifiedDateTime":
		o.LastModified, err = text(val)
	case "internetMessageId":
		m.InternetMessageID, err = text(val)
	case "conversationId":
		m.ConversationID, err = text(val)
	case "subject":
		m.Subject, err = text(val)
	case "from":
		m.From, err = address(val)
	case "sender":
		m.Sender, err = address(val)
	case "toRecipients":
		m.ToRecipients, err = addresses(val)
	case "ccRecipients":
		m.CcRecipients, err = addresses(val)
	case "bccRecipients":
		m.BccRecipients, err = addresses(val)
	case "replyTo":
		m.ReplyTo, err = addresses(val)
	case "createdDateTime":
		m.CreatedDateTime, err = text(val)
	case "receivedDateTime":
		m.ReceivedDateTime, err = text(val)
	case "sentDateTime":
		m.SentDateTime, err = text(val)
	case "hasAttachments":
		m.HasAttachments, err = boolean(val)
	case "importance":
		m.Importance, err = text(val)
	case "categories":
		m.Categories = nil
		err = json.Unmarshal(val, &m.Categories, lenient)
	case "isRead":
		m.IsRead, err = boolean(val)
	case "isDraft":
		m.IsDraft, err = boolean(val)
	case "flag":
		var f struct {
			Status string `json:"flagStatus"`
		}
		err = json.Unmarshal(val, &f, lenient)
		m.Flag = f.Status
	case "bodyPreview":
		m.BodyPreview, err = text(val)
	case "body":
		m.Body, o.BodyHash = nil, ""
		if err = json.Unmarshal(val, &m.Body, lenient); m.Body != nil {
			sum := sha256.Sum256([]byte(m.Body.ContentType + "\x00" + m.Body.Content))
			o.BodyHash = hex.EncodeToString(sum[:16])
		}
	}
	return err
}

func text(v jsontext.Value) (string, error) {
	if v.Kind() == 'n' {
		return "", nil
	}
	if v.Kind() != '"' {
		return "", fmt.Errorf("want a string, got %s", v.Kind())
	}
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	var s string
	err := json.Unmarshal(v, &s, lenient)
	return s, err
}

// boolean also takes "true" as a string: the documentation prints isRead so (D-31).
func boolean(v jsontext.Value) (bool, error) {
	switch string(v) {
	case "true", `"true"`:
		return true, nil
	case "false", `"false"`, "null":
		return false, nil
	}
	return false, fmt.Errorf("want true or false, got %s", v.Kind())
}

type recipient struct {
	EmailAddress Address `json:"emailAddress"`
}

func address(v jsontext.Value) (*Address, error) {
	var r *recipient
	if err := json.Unmarshal(v, &r, lenient); err != nil || r == nil || r.EmailAddress == (Address{}) {
		return nil, err
	}
	return &r.EmailAddress, nil
}

func addresses(v jsontext.Value) ([]Address, error) {
	var rs []recipient
	if err := json.Unmarshal(v, &rs, lenient); err != nil || len(rs) == 0 {
		return nil, err
	}
	out := make([]Address, len(rs))
	for i, r := range rs {
		out[i] = r.EmailAddress
	}
	return out, nil
}

// At reduces a message to what a content level lets out. The result shares memory with m.
func (m Message) At(c Content) Message {
	if c < ContentBody {
		m.Body = nil
	}
	if c < ContentPreview {
		m.BodyPreview = ""
	}
	if c < ContentEnvelope {
		m.Subject, m.From, m.Sender = "", nil, nil
		m.ToRecipients, m.CcRecipients, m.BccRecipients, m.ReplyTo = nil, nil, nil, nil
	}
	if m.Categories == nil {
		m.Categories = []string{}
	}
	return m
}

// ParseTime reads a time as Graph writes it; the zero time when it is absent or unreadable.
func ParseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
