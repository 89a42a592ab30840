package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
)

// meetingText says of a calendar event which meeting it is about, when that is, and what happened to it.
func meetingText(name string, d *event.CalendarData) string {
	m := d.Event
	if m == nil {
		return d.Item.ID
	}
	parts := []string{cmp.Or(printable(m.Subject), "(no subject)"), meetingTime(d)}
	switch {
	case d.Starting != nil:
		parts = append(parts, startingText(d.Starting))
	case len(d.Responded) > 0:
		parts = append(parts, answersText(d.Responded))
	case len(d.Changed) > 0:
		parts = append(parts, changedText(d.Changed))
	case (name == event.Invited || name == event.Cancelled) && m.Organizer != nil && !m.IsOrganizer:
		parts = append(parts, "from "+printable(cmp.Or(m.Organizer.Name, m.Organizer.Address)))
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return fmt.Sprintf("%s [%s]", strings.Join(parts, " — "), calendarName(d.Item.Calendar))
}

func calendarName(c *event.Calendar) string {
	if c == nil {
		return event.AreaCalendar
	}
	return cmp.Or(printable(c.Name), event.AreaCalendar) // content ids leaves the name out
}

// meetingTime says when a meeting is, and of one of a series when the series has it.
func meetingTime(d *event.CalendarData) string {
	m := d.Event
	text, zone := spanText(event.Span{Start: m.Start, End: m.End, IsAllDay: m.IsAllDay})
	if r := d.Rescheduled; r != nil && r.New != nil {
		text, zone = spanText(*r.New)
		was, oldZone := "somewhere outside the window", ""
		if r.Old != nil {
			was, oldZone = spanText(*r.Old)
		}
		if oldZone != zone {
			was += oldZone
		}
		text = was + " → " + text
	}
	text += zone
	switch original := event.ParseTime(m.OriginalStart); {
	case m.InstanceKind == event.SeriesMaster:
		text = "series from " + text
	case m.InstanceKind != event.Occurrence && m.InstanceKind != event.Exception:
	case original.IsZero() || d.Rescheduled != nil || original.Equal(changes.Instant(m.Start, time.UTC)):
		text += ", one of a series"
	default:
		text += ", in its series " + momentText(original, m.IsAllDay, zoneOf(m.Start))
	}
	return text
}

// zoneOf is where a meeting was made; UTC where that is not known here.
func zoneOf(m event.Moment) *time.Location {
	loc, err := event.LoadZone(m.TimeZone)
	if err != nil {
		return time.UTC
	}
	return loc
}

// spanText writes from when to when in the zone of the start, and the zone, with a blank before it. An all-day span has
// days and no zone.
func spanText(s event.Span) (text, zone string) {
	if s.IsAllDay {
		from, to := changes.Instant(s.Start, time.UTC), changes.Instant(s.End, time.UTC).AddDate(0, 0, -1)
		text = momentText(from, true, time.UTC)
		if to.After(from) {
			text += " to " + momentText(to, true, time.UTC)
		}
		return text, ""
	}
	loc := zoneOf(s.Start)
	from, to := changes.Instant(s.Start, loc).In(loc), changes.Instant(s.End, loc).In(loc)
	end := " – " + momentText(to, false, loc)
	if from.Format(time.DateOnly) == to.Format(time.DateOnly) {
		end = "–" + to.Format(clockLayout(to))
	}
	return momentText(from, false, loc) + end, " " + loc.String()
}

// momentText writes a day, or a day and what the clocks show.
func momentText(t time.Time, allDay bool, loc *time.Location) string {
	if allDay {
		return t.UTC().Format("Mon 2006-01-02")
	}
	t = t.In(loc)
	return t.Format("Mon 2006-01-02 " + clockLayout(t))
}

// clockLayout shows seconds where there are any.
func clockLayout(t time.Time) string {
	if t.Second() == 0 {
		return "15:04"
	}
	return time.TimeOnly
}

func startingText(s *event.StartingSoon) string {
	lead, late := time.Duration(s.LeadSeconds)*time.Second, time.Duration(s.LateSeconds)*time.Second
	text := "starts in " + brief(lead-late)
	switch {
	case late > lead:
		text = "started " + brief(late-lead) + " ago"
	case late == lead:
		text = "starts now"
	}
	if late > 0 {
		text += ", told " + brief(late) + " late"
	}
	return text
}

// brief writes a duration without the zeros at its end.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// shownAnswers is how many answers, or changed fields, a line tells of.
const shownAnswers = 3

func answersText(list []event.ResponseChange) string {
	var out []string
	for _, r := range list[:min(len(list), shownAnswers)] {
		who := "somebody" // content ids does not say who
		switch {
		case r.Self:
			who = "the mailbox itself"
		case r.Attendee != nil:
			who = printable(cmp.Or(r.Attendee.Name, r.Attendee.Address, who))
		}
		out = append(out, fmt.Sprintf("%s: %s → %s", who, printable(r.Old), printable(r.New)))
	}
	return strings.Join(out, ", ") + andMore(len(list)-shownAnswers)
}

func changedText(list []event.FieldChange) string {
	var out []string
	for _, c := range list[:min(len(list), shownAnswers)] {
		out = append(out, printable(c.Field))
	}
	return strings.Join(out, ", ") + " changed" + andMore(len(list)-shownAnswers)
}

func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}
