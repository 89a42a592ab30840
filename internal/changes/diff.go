package changes

import (
	"reflect"
	"slices"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// field is one normalized property that is compared between two looks.
type field struct {
	name  string
	level event.Content // the lowest content level that holds it
	get   func(*event.Message) any
}

// fields lists what is compared. Times of arrival, ids and links cannot change and are left out.
var fields = []field{
	{"isRead", event.ContentReference, func(m *event.Message) any { return m.IsRead }},
	{"flag", event.ContentIDs, func(m *event.Message) any { return m.Flag }},
	{"categories", event.ContentIDs, func(m *event.Message) any { return m.Categories }},
	{"hasAttachments", event.ContentIDs, func(m *event.Message) any { return m.HasAttachments }},
	{"importance", event.ContentIDs, func(m *event.Message) any { return m.Importance }},
	{"subject", event.ContentEnvelope, func(m *event.Message) any { return m.Subject }},
	{"from", event.ContentEnvelope, func(m *event.Message) any { return m.From }},
	{"sender", event.ContentEnvelope, func(m *event.Message) any { return m.Sender }},
	{"toRecipients", event.ContentEnvelope, func(m *event.Message) any { return m.ToRecipients }},
	{"ccRecipients", event.ContentEnvelope, func(m *event.Message) any { return m.CcRecipients }},
	{"bccRecipients", event.ContentEnvelope, func(m *event.Message) any { return m.BccRecipients }},
	{"replyTo", event.ContentEnvelope, func(m *event.Message) any { return m.ReplyTo }},
	{"bodyPreview", event.ContentPreview, func(m *event.Message) any { return m.BodyPreview }},
}

// diff lists the properties up to a content level that differ, with old and new values; of a body only that it does.
func diff(old, now *store.Item, level event.Content) (out []event.FieldChange) {
	for _, f := range fields {
		if f.level > level {
			continue
		}
		a, b := f.get(&old.Message), f.get(&now.Message)
		if !same(a, b) {
			out = append(out, event.FieldChange{Field: f.name, Old: marshal(a), New: marshal(b)})
		}
	}
	if level >= event.ContentBody && old.BodyHash != now.BodyHash {
		out = append(out, event.FieldChange{Field: "body"})
	}
	return out
}

func same(a, b any) bool {
	switch a := a.(type) {
	case bool, string:
		return a == b
	case []string: // nil and empty are the same
		return slices.Equal(a, b.([]string))
	case []event.Address:
		return slices.Equal(a, b.([]event.Address))
	}
	return reflect.DeepEqual(a, b)
}
