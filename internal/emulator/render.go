package emulator

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// propertySet has a bit for each entry of properties.
type propertySet uint64

// property is one of a message's. put appends its value, or nothing when the message has none.
type property struct {
	name   string
	hidden bool // told only when selected
	put    func(b []byte, m *message) []byte
}

// properties in the order that Graph writes them.
var properties = []property{
	{"createdDateTime", false, func(b []byte, m *message) []byte { return appendTime(b, m.created) }},
	{"lastModifiedDateTime", false, func(b []byte, m *message) []byte { return appendTime(b, m.modified) }},
	{"changeKey", false, func(b []byte, m *message) []byte { return appendString(b, m.changeKey()) }},
	{"categories", false, func(b []byte, m *message) []byte { return appendStrings(b, m.categories) }},
	{"receivedDateTime", false, func(b []byte, m *message) []byte { return appendTime(b, m.received) }},
	{"sentDateTime", false, func(b []byte, m *message) []byte { return appendTime(b, m.sent) }},
	{"hasAttachments", false, func(b []byte, m *message) []byte { return strconv.AppendBool(b, m.hasAttachments) }},
	{"internetMessageId", false, func(b []byte, m *message) []byte { return appendString(b, m.messageID()) }},
	{"subject", false, func(b []byte, m *message) []byte { return appendString(b, m.subject) }},
	{"bodyPreview", false, func(b []byte, m *message) []byte { return appendString(b, m.preview) }},
	{"importance", false, func(b []byte, m *message) []byte { return appendString(b, importances[m.importance]) }},
	{"parentFolderId", false, func(b []byte, m *message) []byte { return appendString(b, m.folder.id) }},
	{"conversationId", false, func(b []byte, m *message) []byte { return appendString(b, m.conversationID()) }},
	{"isDeliveryReceiptRequested", false, func(b []byte, m *message) []byte { return append(b, "false"...) }},
	{"isReadReceiptRequested", false, func(b []byte, m *message) []byte { return append(b, "false"...) }},
	{"isRead", false, func(b []byte, m *message) []byte { return strconv.AppendBool(b, m.isRead) }},
	{"isDraft", false, func(b []byte, m *message) []byte { return strconv.AppendBool(b, m.isDraft) }},
	{"webLink", false, func(b []byte, m *message) []byte {
		id := strings.ReplaceAll(m.id(true), "=", "%3D")
		return appendString(b, "https://outlook.office365.com/owa/?ItemID="+id+"&exvsurl=1&viewmodel=ReadMessageItem")
	}},
	{"inferenceClassification", false, func(b []byte, m *message) []byte { return append(b, `"focused"`...) }},
	{"body", false, appendBody},
	{"uniqueBody", true, appendBody},
	{"sender", false, func(b []byte, m *message) []byte {
		if m.more != nil && m.more.sender != (Address{}) {
			return appendRecipient(b, m.more.sender)
		}
		return appendRecipient(b, m.from)
	}},
	{"from", false, func(b []byte, m *message) []byte { return appendRecipient(b, m.from) }},
	{"toRecipients", false, func(b []byte, m *message) []byte { return appendRecipients(b, m.to) }},
	{"ccRecipients", false, func(b []byte, m *message) []byte { return appendRecipients(b, m.rare().cc) }},
	{"bccRecipients", false, func(b []byte, m *message) []byte { return appendRecipients(b, m.rare().bcc) }},
	{"replyTo", false, func(b []byte, m *message) []byte { return appendRecipients(b, m.rare().replyTo) }},
	{"flag", false, func(b []byte, m *message) []byte {
		return append(appendString(append(b, `{"flagStatus":`...), flags[m.flag]), '}')
	}},
	{"internetMessageHeaders", true, appendHeaders},
}

var (
	allProperties propertySet
	propertyNamed = map[string]propertySet{} // lower case → bit
	facetMask     [numFacets]propertySet     // what changes with a facet
	facetNames    = [numFacets][]string{facetRead: {"isRead"}, facetFlag: {"flag"}, facetCategories: {"categories"},
		facetSubject: {"subject"}, facetImportance: {"importance"}, facetBody: {"body", "bodyPreview", "uniqueBody"}}
)

func init() {
	for i, p := range properties {
		propertyNamed[strings.ToLower(p.name)] = 1 << i
		if !p.hidden {
			allProperties |= 1 << i
		}
	}
	for f, names := range facetNames {
		for _, n := range names {
			facetMask[f] |= propertyNamed[strings.ToLower(n)]
		}
	}
}

var noRarely rarely

func (m *message) rare() *rarely {
	if m.more == nil {
		return &noRarely
	}
	return m.more
}

// appendMessage writes a message. typed adds @odata.type, as delta does; context the annotation of a single answer.
func appendMessage(b []byte, m *message, set propertySet, immutable, typed bool, context string) []byte {
	b = append(b, '{')
	if context != "" {
		b = append(appendString(append(b, `"@odata.context":`...), context), ',')
	}
	if typed {
		b = append(b, `"@odata.type":"#microsoft.graph.message",`...)
	}
	b = append(b, `"@odata.etag":`...)
	b = appendString(b, etag(m.changeKey()))
	b = append(b, `,"id":`...)
	b = appendString(b, m.id(immutable))
	for i := range properties {
		if set&(1<<i) == 0 {
			continue
		}
		before := len(b)
		b = append(b, ',', '"')
		b = append(b, properties[i].name...)
		b = append(b, '"', ':')
		value := len(b)
		if b = properties[i].put(b, m); len(b) == value {
			b = b[:before]
		}
	}
	return append(b, '}')
}

// appendRemoved writes what delta says of a message that is gone from the folder (D-8).
func appendRemoved(b []byte, id string) []byte {
	b = append(b, `{"@odata.type":"#microsoft.graph.message","id":`...)
	b = appendString(b, id)
	return append(b, `,"@removed":{"reason":"deleted"}}`...)
}

func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil { // not UTF-8; texts are cleaned when they come in
		b, _ = jsontext.AppendQuote(b, clean(s))
	}
	return b
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendTime writes whole seconds, as Outlook does for mail.
func appendTime(b []byte, unix int64) []byte {
	b = append(b, '"')
	b = time.Unix(unix, 0).UTC().AppendFormat(b, "2006-01-02T15:04:05Z")
	return append(b, '"')
}

// appendRecipient writes nothing for nobody: a mail without a sender has no such property.
func appendRecipient(b []byte, a Address) []byte {
	if a == (Address{}) {
		return b
	}
	return appendAddress(b, a)
}

func appendAddress(b []byte, a Address) []byte {
	name := a.Name
	if name == "" {
		name = a.Address // as Outlook shows it
	}
	b = append(b, `{"emailAddress":{"name":`...)
	b = appendString(b, name)
	b = append(b, `,"address":`...)
	b = appendString(b, a.Address)
	return append(b, '}', '}')
}

func appendRecipients(b []byte, list []Address) []byte {
	b = append(b, '[')
	for i, a := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendAddress(b, a)
	}
	return append(b, ']')
}

func appendBody(b []byte, m *message) []byte { return appendContent(b, m.body, m.html) }

func appendContent(b []byte, body string, html bool) []byte {
	kind := "text"
	if html {
		kind = "html"
	}
	b = append(b, `{"contentType":"`...)
	b = append(b, kind...)
	b = append(b, `","content":`...)
	b = appendString(b, body)
	return append(b, '}')
}

func appendHeaders(b []byte, m *message) []byte {
	list := m.rare().headers
	if len(list) == 0 {
		return b
	}
	b = append(b, '[')
	for i, h := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, h.Name)
		b = append(b, `,"value":`...)
		b = appendString(b, h.Value)
		b = append(b, '}')
	}
	return append(b, ']')
}

// folderProperties are a folder's, in Graph's order.
var folderProperties = []struct {
	name string
	put  func(b []byte, f *folder) []byte
}{
	{"displayName", func(b []byte, f *folder) []byte { return appendString(b, f.name) }},
	{"parentFolderId", func(b []byte, f *folder) []byte {
		if f.parent == nil {
			return append(b, "null"...)
		}
		return appendString(b, f.parent.id)
	}},
	{"childFolderCount", func(b []byte, f *folder) []byte { return strconv.AppendInt(b, int64(len(f.children())), 10) }},
	{"unreadItemCount", func(b []byte, f *folder) []byte { return strconv.AppendInt(b, int64(f.unread), 10) }},
	{"totalItemCount", func(b []byte, f *folder) []byte { return strconv.AppendInt(b, int64(f.total), 10) }},
	{"sizeInBytes", func(b []byte, f *folder) []byte { return strconv.AppendInt(b, int64(f.total)*4096, 10) }},
	{"isHidden", func(b []byte, f *folder) []byte { return append(b, "false"...) }},
}

// appendFolder writes a folder. sel has lower-case names; nil: all.
func appendFolder(b []byte, f *folder, sel map[string]bool, context string) []byte {
	b = append(b, '{')
	if context != "" {
		b = append(appendString(append(b, `"@odata.context":`...), context), ',')
	}
	b = append(b, `"id":`...)
	b = appendString(b, f.id)
	for _, p := range folderProperties {
		if sel != nil && !sel[strings.ToLower(p.name)] {
			continue
		}
		b = append(b, ',', '"')
		b = append(b, p.name...)
		b = append(b, '"', ':')
		b = p.put(b, f)
	}
	return append(b, '}')
}
