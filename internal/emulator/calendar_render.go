package emulator

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// zone is how times of calendar items are written.
type zone struct {
	name string
	loc  *time.Location
}

// eventProperty is one of a calendar item's. put appends its value, or nothing when the item has none.
type eventProperty struct {
	name   string
	hidden bool // told only when selected
	put    func(b []byte, i instance, z *zone) []byte
}

func literal(v string) func([]byte, instance, *zone) []byte {
	return func(b []byte, _ instance, _ *zone) []byte { return append(b, v...) }
}

func text(v func(instance) string) func([]byte, instance, *zone) []byte {
	return func(b []byte, i instance, _ *zone) []byte { return appendString(b, v(i)) }
}

func truth(v func(instance) bool) func([]byte, instance, *zone) []byte {
	return func(b []byte, i instance, _ *zone) []byte { return strconv.AppendBool(b, v(i)) }
}

// eventProperties in the order that Graph writes them.
var eventProperties = []eventProperty{
	{"createdDateTime", false, func(b []byte, i instance, _ *zone) []byte { return appendInstant(b, i.m.createdAt) }},
	{"lastModifiedDateTime", false, func(b []byte, i instance, _ *zone) []byte { return appendInstant(b, i.modifiedAt) }},
	{"changeKey", false, text(instance.changeKey)},
	{"categories", false, func(b []byte, i instance, _ *zone) []byte { return appendStrings(b, i.categories) }},
	{"transactionId", false, literal("null")},
	{"originalStart", false, func(b []byte, i instance, _ *zone) []byte {
		if !i.isDate() {
			return b
		}
		return append(i.original.UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05Z"), '"')
	}},
	{"originalStartTimeZone", false, text(func(i instance) string { return i.zone })},
	{"originalEndTimeZone", false, text(func(i instance) string { return i.zone })},
	{"iCalUId", false, text(instance.iCalUID)},
	{"reminderMinutesBeforeStart", false, literal("15")},
	{"isReminderOn", false, literal("true")},
	{"hasAttachments", false, literal("false")},
	{"subject", false, text(func(i instance) string { return i.subject })},
	{"bodyPreview", false, text(func(i instance) string { return i.preview })},
	{"importance", false, text(func(i instance) string { return i.importance })},
	{"sensitivity", false, text(func(i instance) string { return i.sensitivity })},
	{"isAllDay", false, truth(func(i instance) bool { return i.allDay })},
	{"isCancelled", false, truth(func(i instance) bool { return i.cancelled })},
	{"isOrganizer", false, truth(func(i instance) bool { return i.own })},
	{"responseRequested", false, literal("true")},
	{"seriesMasterId", false, literal("null")}, // of a date, appendEvent writes it: it needs the kind of id
	{"showAs", false, text(func(i instance) string { return i.showAs })},
	{"type", false, text(func(i instance) string { return i.kind })},
	{"webLink", false, text(func(i instance) string {
		return "https://outlook.office365.com/owa/?itemid=" + url.QueryEscape(i.id(true)) + "&exvsurl=1&path=/calendar/item"
	})},
	{"onlineMeetingUrl", false, literal("null")},
	{"isOnlineMeeting", false, truth(func(i instance) bool { return i.online })},
	{"onlineMeetingProvider", false, text(func(i instance) string {
		if i.online {
			return "teamsForBusiness"
		}
		return "unknown"
	})},
	{"allowNewTimeProposals", false, literal("true")},
	{"occurrenceId", false, func(b []byte, i instance, _ *zone) []byte {
		if !i.isDate() {
			return append(b, "null"...)
		}
		return appendString(b, i.occurrenceID(i.day))
	}},
	{"isDraft", false, literal("false")},
	{"hideAttendees", false, literal("false")},
	{"responseStatus", false, func(b []byte, i instance, _ *zone) []byte { return appendResponse(b, i.response, i.respondedAt) }},
	{"body", false, func(b []byte, i instance, _ *zone) []byte { return appendContent(b, i.body, i.html) }},
	{"start", false, func(b []byte, i instance, z *zone) []byte { return appendLocal(b, i.start, i.allDay, z) }},
	{"end", false, func(b []byte, i instance, z *zone) []byte { return appendLocal(b, i.end, i.allDay, z) }},
	{"location", false, func(b []byte, i instance, _ *zone) []byte { return appendLocation(b, i.location) }},
	{"locations", false, func(b []byte, i instance, _ *zone) []byte {
		if i.location == "" {
			return append(b, "[]"...)
		}
		return append(appendLocation(append(b, '['), i.location), ']')
	}},
	{"recurrence", false, appendRecurrence},
	{"attendees", false, appendAttendees},
	{"organizer", false, func(b []byte, i instance, _ *zone) []byte { return appendAddress(b, i.organizer) }},
	{"onlineMeeting", false, func(b []byte, i instance, _ *zone) []byte {
		if !i.online {
			return append(b, "null"...)
		}
		return append(appendString(append(b, `{"joinUrl":`...), i.join()), '}')
	}},
	{"cancelledOccurrences", true, func(b []byte, i instance, _ *zone) []byte {
		var list []string
		for _, d := range slices.Sorted(maps.Keys(i.gone)) {
			list = append(list, i.occurrenceID(d))
		}
		return appendStrings(b, list)
	}},
}

var (
	allEventProperties propertySet
	eventPropertyNamed = map[string]propertySet{} // lower case → bit
)

func init() {
	for i, p := range eventProperties {
		eventPropertyNamed[strings.ToLower(p.name)] = 1 << i
		if !p.hidden {
			allEventProperties |= 1 << i
		}
	}
}

// selectedOfEvent reads $select of calendar items.
func selectedOfEvent(query url.Values) (set propertySet, refused answer, ok bool) {
	list, given := option(query, "$select")
	if !given {
		return allEventProperties, answer{}, true
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		bit, ok := eventPropertyNamed[strings.ToLower(name)]
		if !ok && !strings.EqualFold(name, "id") {
			return 0, fail(http.StatusBadRequest, "RequestBroker--ParseUri",
				"Could not find a property named '"+name+"' on type 'Microsoft.OutlookServices.Event'."), false
		}
		set |= bit
	}
	return set, answer{}, true
}

// changeKey is bare; dates of a series that are like it share its key (M-5).
func (i instance) changeKey() string { return i.m.calendar.user.bareKey(i.key) }

// exchangeUID begins every iCalUId that Exchange makes; a date follows, of one date of a series.
const exchangeUID = "040000008200E00074C5B7101A82E008"

// iCalUID is the same in every participant's calendar, and differs from date to date of a series.
func (i instance) iCalUID() string {
	uid := i.uid
	if uid == "" {
		var b [20]byte
		binary.LittleEndian.PutUint64(b[:], uint64(i.m.createdAt.UnixNano()/100))
		binary.LittleEndian.PutUint32(b[8:], 16)
		binary.BigEndian.PutUint64(b[12:], scatter(i.m.n, i.m.calendar.user.tag^meetingTag))
		uid = exchangeUID + "00000000" + strings.ToUpper(hex.EncodeToString(b[:8])+"0000000000000000"+hex.EncodeToString(b[8:])+hex.EncodeToString(b[12:]))
	}
	if !i.isDate() {
		return uid
	}
	date := i.day.midnight()
	if len(uid) > 40 && strings.HasPrefix(uid, exchangeUID) {
		return uid[:32] + fmt.Sprintf("%04X%02X%02X", date.Year(), int(date.Month()), date.Day()) + uid[40:]
	}
	return uid + "_" + date.Format("20060102")
}

func (i instance) occurrenceID(d day) string {
	return "OID." + i.m.whole(i.state).id(true) + "." + d.midnight().Format(time.DateOnly)
}

func (i instance) join() string {
	if i.joinURL != "" {
		return i.joinURL
	}
	return "https://teams.microsoft.com/l/meetup-join/" + i.m.whole(i.state).iCalUID()
}

// appendEvent writes a calendar item. typed adds @odata.type, as delta does; context the annotation of a single answer.
func appendEvent(b []byte, i instance, set propertySet, z *zone, immutable, typed bool, context string) []byte {
	b = append(b, '{')
	if context != "" {
		b = append(appendString(append(b, `"@odata.context":`...), context), ',')
	}
	if typed {
		b = append(b, `"@odata.type":"#microsoft.graph.event",`...)
	}
	b = appendString(append(b, `"@odata.etag":`...), etag(i.changeKey()))
	b = appendString(append(b, `,"id":`...), i.id(immutable))
	for n, p := range eventProperties {
		if set&(1<<n) == 0 {
			continue
		}
		before := len(b)
		b = append(append(append(b, ',', '"'), p.name...), '"', ':')
		value := len(b)
		if p.name == "seriesMasterId" && i.isDate() {
			b = appendString(b, i.m.whole(i.state).id(immutable))
			continue
		}
		if b = p.put(b, i, z); len(b) == value {
			b = b[:before]
		}
	}
	return append(b, '}')
}

// appendStub writes what delta tells of an occurrence (D-36a); its etag is tagged (W-9a).
func appendStub(b []byte, i instance, z *zone, immutable bool) []byte {
	b = append(b, `{"@odata.type":"#microsoft.graph.event","@odata.etag":`...)
	b = appendString(b, etag(i.m.calendar.user.taggedKey(eventKey, i.key)))
	b = appendString(append(b, `,"id":`...), i.id(immutable))
	b = appendString(append(b, `,"seriesMasterId":`...), i.m.whole(i.state).id(immutable))
	b = append(b, `,"type":"occurrence","start":`...)
	b = appendLocal(b, i.start, i.allDay, z)
	b = appendLocal(append(b, `,"end":`...), i.end, i.allDay, z)
	return append(b, '}')
}

// appendRemovedEvent writes what delta says of a calendar item that is not in the window, or not any more (D-38).
func appendRemovedEvent(b []byte, id string) []byte {
	b = appendString(append(b, `{"@odata.type":"#microsoft.graph.event","id":`...), id)
	return append(b, `,"@removed":{"reason":"deleted"}}`...)
}

// appendInstant writes fractions of a second, as Outlook does for calendar items.
func appendInstant(b []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.0000000Z"), '"')
}

// appendLocal writes a time by the clock of a zone (M-4). All-day items start and end at midnight of whatever zone (M-6).
func appendLocal(b []byte, t time.Time, allDay bool, z *zone) []byte {
	t = t.UTC()
	if !allDay {
		t = t.In(z.loc)
	}
	b = append(b, `{"dateTime":"`...)
	b = t.AppendFormat(b, "2006-01-02T15:04:05.0000000")
	return append(appendString(append(b, `","timeZone":`...), z.name), '}')
}

func appendResponse(b []byte, response string, at time.Time) []byte {
	b = appendString(append(b, `{"response":`...), response)
	b = append(b, `,"time":`...)
	if at.IsZero() {
		return append(b, `"0001-01-01T00:00:00Z"}`...)
	}
	return append(appendInstant(b, at), '}')
}

func appendLocation(b []byte, name string) []byte {
	b = appendString(append(b, `{"displayName":`...), name)
	if name == "" {
		return append(b, `,"locationType":"default","uniqueIdType":"unknown","address":{},"coordinates":{}}`...)
	}
	b = appendString(append(b, `,"locationType":"default","uniqueId":`...), name)
	return append(b, `,"uniqueIdType":"private"}`...)
}

func appendAttendees(b []byte, i instance, _ *zone) []byte {
	b = append(b, '[')
	for n, a := range i.attendees {
		if n > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"type":`...), a.Type)
		b = appendResponse(append(b, `,"status":`...), a.Response, a.at)
		b = append(append(b, ','), appendAddress(nil, a.Address)[1:]...) // {"emailAddress":…} goes on here
	}
	return append(b, ']')
}

func appendRecurrence(b []byte, i instance, _ *zone) []byte {
	r := i.recurrence
	if r == nil {
		return append(b, "null"...)
	}
	b = appendString(append(b, `{"pattern":{"type":`...), r.Type)
	b = fmt.Appendf(b, `,"interval":%d,"month":%d,"dayOfMonth":%d`, r.Interval, r.Month, r.DayOfMonth)
	if len(r.DaysOfWeek) > 0 {
		b = appendStrings(append(b, `,"daysOfWeek":`...), r.DaysOfWeek)
	}
	b = appendString(append(b, `,"firstDayOfWeek":`...), r.FirstDayOfWeek)
	b = appendString(append(b, `,"index":`...), r.Index)
	end := "0001-01-01"
	if r.RangeType == "endDate" {
		end = r.EndDate.UTC().Format(time.DateOnly)
	}
	b = appendString(append(b, `},"range":{"type":`...), r.RangeType)
	b = appendString(append(b, `,"startDate":`...), i.start.In(i.loc).Format(time.DateOnly))
	b = appendString(append(b, `,"endDate":`...), end)
	b = appendString(append(b, `,"recurrenceTimeZone":`...), i.zone)
	count := 0
	if r.RangeType == "numbered" {
		count = r.Count
	}
	return fmt.Appendf(b, `,"numberOfOccurrences":%d}}`, count)
}

// calendarNames are a calendar's properties, in Graph's order.
var calendarNames = []string{
	"name", "color", "hexColor", "isDefaultCalendar", "changeKey", "canShare", "canViewPrivateItems", "canEdit",
	"allowedOnlineMeetingProviders", "defaultOnlineMeetingProvider", "isTallyingResponses", "isRemovable", "owner",
}

// appendCalendar writes a calendar. sel has lower-case names; nil: all.
func appendCalendar(b []byte, c *calendar, sel map[string]bool, context string) []byte {
	b = append(b, '{')
	if context != "" {
		b = append(appendString(append(b, `"@odata.context":`...), context), ',')
	}
	b = appendString(append(b, `"id":`...), c.id)
	owner := fmt.Appendf(nil, `{"name":%s,"address":%s}`, appendString(nil, c.user.address), appendString(nil, c.user.address))
	values := []string{
		string(appendString(nil, c.name)), `"auto"`, `""`, strconv.FormatBool(c.isDefault),
		string(appendString(nil, c.user.bareKey(uint64(c.number+1)))), "true", "true", "true",
		`["teamsForBusiness"]`, `"teamsForBusiness"`, "true", strconv.FormatBool(!c.isDefault), string(owner),
	}
	for n, name := range calendarNames {
		if sel == nil || sel[strings.ToLower(name)] {
			b = append(append(append(b, ',', '"'), name...), '"', ':')
			b = append(b, values[n]...)
		}
	}
	return append(b, '}')
}
