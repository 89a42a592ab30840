package changes

import (
	"cmp"
	"slices"

	"github.com/triggerd/triggerd/internal/event"
)

// meetingField is one normalized property of a meeting that is compared between two looks.
type meetingField struct {
	name  string
	level event.Content // the lowest content level that holds it
	get   func(*event.Meeting) any
}

// meetingFields lists what makes a meeting "updated". When it takes place, who answered and whether it is cancelled have
// events of their own; that a cancelled one is not any more has none.
var meetingFields = []meetingField{
	{"isCancelled", event.ContentIDs, func(m *event.Meeting) any { return m.IsCancelled }},
	{"isOrganizer", event.ContentIDs, func(m *event.Meeting) any { return m.IsOrganizer }},
	{"recurrence", event.ContentIDs, func(m *event.Meeting) any { return string(m.Recurrence) }},
	{"timeZone", event.ContentIDs, func(m *event.Meeting) any { return m.Start.TimeZone }},
	{"showAs", event.ContentIDs, func(m *event.Meeting) any { return m.ShowAs }},
	{"sensitivity", event.ContentIDs, func(m *event.Meeting) any { return m.Sensitivity }},
	{"importance", event.ContentIDs, func(m *event.Meeting) any { return m.Importance }},
	{"categories", event.ContentIDs, func(m *event.Meeting) any { return m.Categories }},
	{"hasAttachments", event.ContentIDs, func(m *event.Meeting) any { return m.HasAttachments }},
	{"isOnlineMeeting", event.ContentIDs, func(m *event.Meeting) any { return m.IsOnline }},
	{"subject", event.ContentEnvelope, func(m *event.Meeting) any { return m.Subject }},
	{"location", event.ContentEnvelope, func(m *event.Meeting) any { return m.Location }},
	{"organizer", event.ContentEnvelope, func(m *event.Meeting) any { return m.Organizer }},
	{"attendees", event.ContentEnvelope, func(m *event.Meeting) any { return invited(m.Attendees) }},
	{"joinUrl", event.ContentEnvelope, func(m *event.Meeting) any { return m.JoinURL }},
	{"bodyPreview", event.ContentPreview, func(m *event.Meeting) any { return m.BodyPreview }},
}

// invited is who was asked, without what they answered, in an order that does not depend on Graph's.
func invited(list []event.Attendee) []event.Attendee {
	out := slices.Clone(list)
	for i := range out {
		out[i].Response = ""
	}
	slices.SortFunc(out, func(a, b event.Attendee) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return out
}

// diffMeeting lists the properties up to a content level that differ, with old and new values; of a body only that it
// does.
func diffMeeting(old, now *event.ObservedMeeting, level event.Content) (out []event.FieldChange) {
	for _, f := range meetingFields {
		if f.level > level {
			continue
		}
		a, b := f.get(&old.Meeting), f.get(&now.Meeting)
		if sameValue(a, b) {
			continue
		}
		if f.name == "recurrence" {
			out = append(out, event.FieldChange{Field: f.name, Old: orNull(old.Meeting.Recurrence), New: orNull(now.Meeting.Recurrence)})
			continue
		}
		out = append(out, event.FieldChange{Field: f.name, Old: marshal(a), New: marshal(b)})
	}
	if level >= event.ContentBody && old.BodyHash != now.BodyHash {
		out = append(out, event.FieldChange{Field: "body"})
	}
	return out
}

func orNull(v []byte) []byte {
	if len(v) == 0 {
		return []byte("null")
	}
	return v
}

func sameValue(a, b any) bool {
	if list, ok := a.([]event.Attendee); ok { // nil and empty are the same
		return slices.Equal(list, b.([]event.Attendee))
	}
	return same(a, b)
}

// answered is a response as it counts: that nobody has answered has two words.
func answered(response string) string {
	if response == "" || response == "notResponded" {
		return "none"
	}
	return response
}

// responses lists who answers otherwise than before: the mailbox itself first, then the attendees as Graph lists them.
func responses(old, now *event.ObservedMeeting) (out []event.ResponseChange) {
	if a, b := answered(old.Meeting.Response), answered(now.Meeting.Response); a != b && b != "organizer" && a != "organizer" {
		out = append(out, event.ResponseChange{Self: true, Old: a, New: b})
	}
	before := make(map[string]string, len(old.Meeting.Attendees))
	for _, a := range old.Meeting.Attendees {
		before[a.Address] = answered(a.Response)
	}
	for _, a := range now.Meeting.Attendees {
		was, is := before[a.Address], answered(a.Response)
		if was == "" {
			was = "none"
		}
		if was != is {
			out = append(out, event.ResponseChange{Attendee: &event.Attendee{Name: a.Name, Address: a.Address, Type: a.Type, Response: a.Response}, Old: was, New: is})
		}
	}
	return out
}

func sameResponse(a, b event.ResponseChange) bool {
	who := func(r event.ResponseChange) string {
		if r.Attendee == nil {
			return ""
		}
		return r.Attendee.Address
	}
	return a.Self == b.Self && a.Old == b.Old && a.New == b.New && who(a) == who(b)
}

// withoutNames leaves out who answered where the content level holds nobody.
func withoutNames(list []event.ResponseChange, level event.Content) []event.ResponseChange {
	if level >= event.ContentEnvelope {
		return list
	}
	out := slices.Clone(list)
	for i := range out {
		out[i].Attendee = nil
	}
	return out
}
