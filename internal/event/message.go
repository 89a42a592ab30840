package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Content is how much of a message or meeting leaves the daemon. The levels are ordered.
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

// Address is a person or mailbox as a message or meeting names it.
type Address struct {
	Name    string `json:"name,omitzero"`
	Address string `json:"address,omitzero"`
}

// Body is the body of a message or meeting.
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
	etag, err := item(raw, o.set)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotMessage, err)
	}
	if key := ChangeKey(etag); key != "" { // partial items carry no changeKey, but an etag (D-7)
		o.ChangeKey = key
	}
	return nil
}

// item calls set for each property of an item as Graph wrote it; set must consume the value. The etag is returned.
func item(raw []byte, set func(key string, dec *jsontext.Decoder) error) (etag string, err error) {
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	dec := decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(dec)
	dec.Reset(bytes.NewBuffer(raw), lenient) // a Buffer is read in place
	err = members(dec, func(key string) (err error) {
		if key == "@odata.etag" {
			etag, err = text(dec)
			return err
		}
		return set(key, dec)
	})
	return etag, err
}

var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}

// members calls read for each member of the object that comes next; read must consume the value.
func members(dec *jsontext.Decoder, read func(key string) error) error {
	tok, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if tok.Kind() != '{' {
		return fmt.Errorf("want an object, got %s", tok.Kind())
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		if err := read(key); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	_, err = dec.ReadToken()
	return err
}

func (o *Observed) set(key string, dec *jsontext.Decoder) (err error) {
	m := &o.Message
	switch key {
	case "changeKey":
		var s string
		if s, err = text(dec); s != "" {
			o.ChangeKey = ChangeKey(s)
		}
	case "parentFolderId":
		o.FolderID, err = text(dec)
	case "webLink":
		o.WebLink, err = text(dec)
	case "lastModifiedDateTime":
		o.LastModified, err = text(dec)
	case "internetMessageId":
		m.InternetMessageID, err = text(dec)
	case "conversationId":
		m.ConversationID, err = text(dec)
	case "subject":
		m.Subject, err = text(dec)
	case "from":
		m.From, err = address(dec)
	case "sender":
		m.Sender, err = address(dec)
	case "toRecipients":
		m.ToRecipients, err = addresses(dec)
	case "ccRecipients":
		m.CcRecipients, err = addresses(dec)
	case "bccRecipients":
		m.BccRecipients, err = addresses(dec)
	case "replyTo":
		m.ReplyTo, err = addresses(dec)
	case "createdDateTime":
		m.CreatedDateTime, err = text(dec)
	case "receivedDateTime":
		m.ReceivedDateTime, err = text(dec)
	case "sentDateTime":
		m.SentDateTime, err = text(dec)
	case "hasAttachments":
		m.HasAttachments, err = boolean(dec)
	case "importance":
		m.Importance, err = text(dec)
	case "categories":
		m.Categories, err = categories(dec)
	case "isRead":
		m.IsRead, err = boolean(dec)
	case "isDraft":
		m.IsDraft, err = boolean(dec)
	case "flag":
		m.Flag, err = member(dec, "flagStatus")
	case "bodyPreview":
		m.BodyPreview, err = text(dec)
	case "body":
		m.Body, o.BodyHash, err = body(dec)
	default:
		err = dec.SkipValue()
	}
	return err
}

func text(dec *jsontext.Decoder) (string, error) {
	v, err := dec.ReadValue()
	if err != nil {
		return "", err
	}
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
	err = json.Unmarshal(v, &s, lenient)
	return s, err
}

// boolean also takes "true" as a string: the documentation prints isRead so (D-31).
func boolean(dec *jsontext.Decoder) (bool, error) {
	v, err := dec.ReadValue()
	switch {
	case err != nil:
		return false, err
	case string(v) == "true", string(v) == `"true"`:
		return true, nil
	case string(v) == "false", string(v) == `"false"`, string(v) == "null":
		return false, nil
	}
	return false, fmt.Errorf("want true or false, got %s", v.Kind())
}

// null consumes a null if one comes next.
func null(dec *jsontext.Decoder) bool {
	if dec.PeekKind() != 'n' {
		return false
	}
	_, err := dec.ReadToken()
	return err == nil
}

// member reads one text out of an object; "" when the object is null.
func member(dec *jsontext.Decoder, name string) (value string, err error) {
	if null(dec) {
		return "", nil
	}
	err = members(dec, func(key string) (err error) {
		if key != name {
			return dec.SkipValue()
		}
		value, err = text(dec)
		return err
	})
	return value, err
}

// categories reads a list that is nil only for null.
func categories(dec *jsontext.Decoder) ([]string, error) {
	given := dec.PeekKind() == '['
	list, err := elements(dec, text)
	if given && list == nil {
		list = []string{}
	}
	return list, err
}

// body reads a body and makes its hash; both are empty for null.
func body(dec *jsontext.Decoder) (b *Body, hash string, err error) {
	if err = json.UnmarshalDecode(dec, &b); b == nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(b.ContentType + "\x00" + b.Content))
	return b, hex.EncodeToString(sum[:16]), err
}

// address reads a recipient: {"emailAddress":{"name":…,"address":…}}.
func address(dec *jsontext.Decoder) (*Address, error) {
	a, err := recipient(dec)
	if err != nil || a == (Address{}) {
		return nil, err
	}
	return &a, nil
}

func addresses(dec *jsontext.Decoder) ([]Address, error) { return elements(dec, recipient) }

func recipient(dec *jsontext.Decoder) (a Address, err error) {
	if null(dec) {
		return a, nil
	}
	err = members(dec, func(key string) (err error) {
		if key != "emailAddress" {
			return dec.SkipValue()
		}
		a, err = emailAddress(dec)
		return err
	})
	return a, err
}

func emailAddress(dec *jsontext.Decoder) (a Address, err error) {
	if null(dec) {
		return a, nil
	}
	err = members(dec, func(key string) (err error) {
		switch key {
		case "name":
			a.Name, err = text(dec)
		case "address":
			a.Address, err = text(dec)
		default:
			err = dec.SkipValue()
		}
		return err
	})
	return a, err
}

// elements reads a list; nil for null and for an empty one.
func elements[V any](dec *jsontext.Decoder, read func(*jsontext.Decoder) (V, error)) (out []V, err error) {
	if null(dec) {
		return nil, nil
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() != '[' {
		return nil, fmt.Errorf("want a list, got %s", tok.Kind())
	}
	for dec.PeekKind() != ']' {
		v, err := read(dec)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err = dec.ReadToken()
	return out, err
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
