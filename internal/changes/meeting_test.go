package changes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

var (
	cal      = &Agenda{Mailbox: box, Calendar: event.Calendar{ID: "cal", Name: "Calendar", IsDefault: true}}
	diary    = []Watch{calendarWatch("sales", event.ContentBody)}
	before   = t0.Add(-48 * time.Hour)
	just     = now.Add(-time.Minute)
	tomorrow = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	single   = store.MeetingKey{Series: "item"}
	whole    = store.MeetingKey{Series: "series"}
	oneDate  = store.MeetingKey{Series: "series", Original: stamp(tomorrow)}
)

func calendarWatch(name string, c event.Content) Watch {
	w := Watch{Name: name, Token: "m-abc", Content: c, Events: map[string]bool{}, Since: t0, Joined: t0}
	for _, n := range event.CalendarEvents {
		w.Events[n] = true
	}
	return w
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

type edit = func(*event.ObservedMeeting)

// meeting is a look at a single meeting of tomorrow morning, to which somebody else invites, created and last changed
// at a time.
func meeting(key string, at time.Time, edits ...edit) *event.ObservedMeeting {
	o := &event.ObservedMeeting{ID: "item", ChangeKey: key, LastModified: stamp(at), BodyHash: "hash", Meeting: event.Meeting{
		InstanceKind: event.SingleInstance, Subject: "Planning", CreatedAt: stamp(at), Response: "notResponded", ShowAs: "tentative",
		Organizer: &event.Address{Name: "Ada", Address: "ada@example.com"},
		Attendees: []event.Attendee{{Name: "Bob", Address: "bob@example.com", Type: "required", Response: "none"}, {Name: "Eve", Address: "eve@example.com", Type: "optional", Response: "none"}},
	}}
	at9(o)
	for _, e := range edits {
		e(o)
	}
	return o
}

// master is a look at a series of which one date is tomorrow morning; its own start is that of its first date, long ago.
func master(key string, at time.Time, edits ...edit) *event.ObservedMeeting {
	return meeting(key, at, append([]edit{func(o *event.ObservedMeeting) {
		o.ID, o.Meeting.InstanceKind, o.Meeting.Recurrence = "series", event.SeriesMaster, []byte(`{"pattern":"daily"}`)
		between(tomorrow.AddDate(-1, 0, 0), time.Hour)(o)
	}}, edits...)...)
}

// stub is all that Graph tells of a date of the series that is like the others (D-36a).
func stub(key string, edits ...edit) *event.ObservedMeeting {
	o := &event.ObservedMeeting{ID: "date", ChangeKey: key, Stub: true, Meeting: event.Meeting{
		InstanceKind: event.Occurrence, SeriesMasterID: "series", OriginalStart: stamp(tomorrow),
	}}
	at9(o)
	for _, e := range edits {
		e(o)
	}
	return o
}

// exception is a date of the series with properties of its own.
func exception(key string, at time.Time, edits ...edit) *event.ObservedMeeting {
	return meeting(key, at, append([]edit{func(o *event.ObservedMeeting) {
		o.ID, o.Meeting.InstanceKind, o.Meeting.SeriesMasterID, o.Meeting.OriginalStart = "date", event.Exception, "series", stamp(tomorrow)
	}}, edits...)...)
}

func between(start time.Time, length time.Duration) edit {
	return func(o *event.ObservedMeeting) {
		o.Meeting.Start.DateTime, o.Meeting.End.DateTime = stamp(start), stamp(start.Add(length))
	}
}

func at9(o *event.ObservedMeeting)  { between(tomorrow, time.Hour)(o) }
func at11(o *event.ObservedMeeting) { between(tomorrow.Add(2*time.Hour), time.Hour)(o) }
func longer(o *event.ObservedMeeting) {
	between(tomorrow, 2*time.Hour)(o)
}
func nextYear(o *event.ObservedMeeting) { between(tomorrow.AddDate(1, 0, 0), time.Hour)(o) }
func wholeDay(o *event.ObservedMeeting) {
	o.Meeting.IsAllDay, o.Meeting.Start, o.Meeting.End = true, event.Moment{Date: "2026-11-25"}, event.Moment{Date: "2026-11-26"}
}
func mine(o *event.ObservedMeeting)       { o.Meeting.IsOrganizer, o.Meeting.Response = true, "organizer" }
func cancelled(o *event.ObservedMeeting)  { o.Meeting.IsCancelled = true }
func accepted(o *event.ObservedMeeting)   { o.Meeting.Response = "accepted" }
func unanswered(o *event.ObservedMeeting) { o.Meeting.Response = "none" }
func retitled(o *event.ObservedMeeting)   { o.Meeting.Subject = "Review" }
func rebodied(o *event.ObservedMeeting)   { o.BodyHash = "another" }
func everyOther(o *event.ObservedMeeting) { o.Meeting.Recurrence = []byte(`{"pattern":"weekly"}`) }
func inBerlin(o *event.ObservedMeeting)   { o.Meeting.Start.TimeZone = "Europe/Berlin" }
func modified(at time.Time) edit {
	return func(o *event.ObservedMeeting) { o.LastModified = stamp(at) }
}
func undated(o *event.ObservedMeeting) { o.LastModified, o.Meeting.CreatedAt = "", "" }
func reordered(o *event.ObservedMeeting) {
	o.Meeting.Attendees = slices.Clone(o.Meeting.Attendees)
	slices.Reverse(o.Meeting.Attendees)
}
func uninvited(o *event.ObservedMeeting) { o.Meeting.Attendees = o.Meeting.Attendees[:1] }
func answers(who, response string) edit {
	return func(o *event.ObservedMeeting) {
		o.Meeting.Attendees = slices.Clone(o.Meeting.Attendees)
		for i := range o.Meeting.Attendees {
			if a := &o.Meeting.Attendees[i]; a.Name == who {
				a.Response = response
			}
		}
	}
}

func known(o *event.ObservedMeeting) *store.Meeting {
	return &store.Meeting{ObservedMeeting: *o, SeenAt: now.Add(-time.Hour)}
}

// see names a look with what the looks of these tests have in common.
func see(l MeetingLook, watches []Watch) MeetingResult {
	if l.Key == (store.MeetingKey{}) {
		l.Key = single
	}
	if l.At.IsZero() {
		l.At, l.Via, l.NewSince = now, event.ViaPoll, now.Add(-Slack-time.Minute)
	}
	return cal.Name(&l, watches, nil)
}

func TestMeetingsAreNamedByTheTable(t *testing.T) {
	fresh := map[string]bool{"sales": true}
	tests := []struct {
		name string
		look MeetingLook
		want string
	}{
		{"a new meeting of the mailbox's own", MeetingLook{New: meeting("k1", just, mine)}, "created"},
		{"a new invitation", MeetingLook{New: meeting("k1", just)}, "invited"},
		{"a new invitation that is cancelled already", MeetingLook{New: meeting("k1", just, cancelled)}, "cancelled"},
		{"an older one that was moved into the window", MeetingLook{New: meeting("k2", before, modified(just))}, "rescheduled"},
		{"an older one that was cancelled outside the window", MeetingLook{New: meeting("k2", before, modified(just), cancelled)}, "cancelled"},
		{"an older one over which the window slid", MeetingLook{New: meeting("k1", before)}, ""},
		{"one without dates", MeetingLook{New: meeting("k1", before, undated)}, ""},
		{"baseline: what was there before the watch", MeetingLook{New: meeting("k1", before), Baseline: true}, ""},
		{"baseline: what was there and changed since", MeetingLook{New: meeting("k2", before, modified(just)), Baseline: true}, ""},
		{"baseline: made after the watch began", MeetingLook{New: meeting("k1", just, mine), Baseline: true}, "created"},
		{"baseline: in the second in which the watch began", MeetingLook{New: meeting("k1", t0), Baseline: true}, "invited"},
		{"baseline: a second before the watch began", MeetingLook{New: meeting("k1", t0.Add(-time.Second)), Baseline: true}, ""},
		{"a watch joins and wants what was there", MeetingLook{Old: known(meeting("k1", just)), New: meeting("k1", just), Fresh: fresh}, "invited"},
		{"a watch joins and what was there is older than it wants", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k1", before), Fresh: fresh}, ""},
		{"another watch joins", MeetingLook{Old: known(meeting("k1", just)), New: meeting("k1", just), Fresh: map[string]bool{"other": true}}, ""},
		{"deleted before it was seen", MeetingLook{}, ""},

		{"seen again", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k1", before)}, ""},
		{"a new version with nothing changed", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, modified(just))}, ""},
		{"another start", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, at11)}, "rescheduled"},
		{"another end", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, longer)}, "rescheduled"},
		{"made to last the whole day", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, wholeDay)}, "rescheduled"},
		{"moved out of the window", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, nextYear)}, "rescheduled"},
		{"the same time in another zone", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, inBerlin)}, "updated"},
		{"accepted by the mailbox", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, accepted)}, "responded"},
		{"none is another word for not responded", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, unanswered)}, ""},
		{"and the other way round", MeetingLook{Old: known(meeting("k1", before, unanswered)), New: meeting("k2", before)}, ""},
		{"an attendee for whom it is the same", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, answers("Bob", "notResponded"))}, ""},
		{"to organize it is no answer", MeetingLook{Old: known(meeting("k1", before, func(o *event.ObservedMeeting) { o.Meeting.Response = "" })),
			New: meeting("k2", before, func(o *event.ObservedMeeting) { o.Meeting.Response = "organizer" })}, ""},
		{"accepted by an attendee", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, answers("Bob", "accepted"))}, "responded"},
		{"several answers are one event", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, accepted, answers("Bob", "declined"), answers("Eve", "accepted"))}, "responded"},
		{"attendees in another order", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, reordered)}, ""},
		{"an attendee less", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, uninvited)}, "updated"},
		{"cancelled", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, cancelled)}, "cancelled"},
		{"cancelled and nothing else for that look", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, cancelled, at11, retitled, accepted)}, "cancelled"},
		{"still cancelled", MeetingLook{Old: known(meeting("k1", before, cancelled)), New: meeting("k2", before, cancelled)}, ""},
		{"not cancelled any more", MeetingLook{Old: known(meeting("k1", before, cancelled)), New: meeting("k2", before)}, "updated"},
		{"another subject", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, retitled)}, "updated"},
		{"another body", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, rebodied)}, "updated"},
		{"one facet, one event", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, at11, accepted, retitled)}, "rescheduled responded updated"},
		{"deleted", MeetingLook{Old: known(meeting("k1", before))}, "deleted"},
		{"deleted after it was cancelled", MeetingLook{Old: known(meeting("k1", before, cancelled))}, "deleted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := see(tt.look, diary)
			if got := strings.Join(eventNames(res.Events), " "); got != tt.want {
				t.Fatalf("Name = %q, want %q", got, tt.want)
			}
			for _, e := range res.Events {
				if e.ID == "" || e.Area != event.AreaCalendar || e.Subject != "events/item" || e.Source != "urn:triggerd:tenant:m-abc" || e.Time.IsZero() {
					t.Errorf("attributes are incomplete: %+v", e)
				}
			}
		})
	}
}

func TestSeriesCountAsAWhole(t *testing.T) {
	m1 := master("m1", before)
	of := func(old, now *event.ObservedMeeting, oldMaster, newMaster *event.ObservedMeeting) MeetingLook {
		l := MeetingLook{Key: oneDate, New: now, OldMaster: oldMaster, NewMaster: newMaster}
		if old != nil {
			l.Old = known(old)
		}
		return l
	}
	first := func(l MeetingLook) MeetingLook { l.Baseline = true; return l }
	midnight := tomorrow.Truncate(24 * time.Hour)
	days := master("m1", before, func(o *event.ObservedMeeting) {
		o.Meeting.IsAllDay, o.Meeting.Start, o.Meeting.End = true, event.Moment{Date: "2025-11-25"}, event.Moment{Date: "2025-11-26"}
	})
	day := of(nil, exception("x1", before, modified(just), wholeDay, retitled), days, days)
	day.Key.Original = stamp(midnight)
	tests := []struct {
		name string
		look MeetingLook
		want string
	}{
		{"a new series", MeetingLook{Key: whole, New: master("m1", just)}, "invited"},
		{"a date of a new series", of(nil, stub("m1"), nil, master("m1", just)), ""},
		{"an exception of a new series", of(nil, exception("x1", just, at11, retitled), nil, master("m1", just)), "rescheduled updated"},
		{"an invitation to one date of a series that nobody has", of(nil, exception("x1", just, at11), nil, nil), "invited"},
		{"baseline: an exception that was there", first(of(nil, exception("x1", before, at11), nil, m1)), ""},
		{"baseline: one that came to be after the watch began", first(of(nil, exception("x1", just, at11), nil, m1)), "rescheduled"},

		{"a series with another subject", MeetingLook{Key: whole, Old: known(m1), New: master("m2", before, retitled)}, "updated"},
		{"its dates follow", of(stub("m1"), stub("m2"), m1, master("m2", before, retitled)), ""},
		{"its exceptions follow", of(exception("x1", before, at11), exception("x2", before, at11, retitled), m1, master("m2", before, retitled)), ""},
		{"an exception keeps its own subject", of(exception("x1", before, func(o *event.ObservedMeeting) { o.Meeting.Subject = "Special" }),
			exception("x2", before, func(o *event.ObservedMeeting) { o.Meeting.Subject = "Special" }), m1, master("m2", before, retitled)), ""},
		{"a date becomes an exception in the same look, and follows in the rest", of(stub("m1"), exception("x1", just, at11, retitled, rebodied), m1, master("m2", before, retitled, rebodied)), "rescheduled"},
		{"a series at another time", MeetingLook{Key: whole, Old: known(m1), New: master("m2", before, at11)}, "rescheduled"},
		{"its dates are where it has them", of(stub("m1"), stub("m2", at11), m1, master("m2", before, at11)), ""},
		{"its exceptions are dates like the others again", of(exception("x1", before, longer, retitled), stub("m2", at11), m1, master("m2", before, at11)), ""},
		{"an exception follows to the new time", of(exception("x1", before, longer), exception("x2", before, func(o *event.ObservedMeeting) {
			at11(o)
			o.Meeting.OriginalStart = o.Meeting.Start.DateTime
		}), m1, master("m2", before, at11)), ""},
		{"a series with another rule", MeetingLook{Key: whole, Old: known(m1), New: master("m2", before, everyOther)}, "updated"},
		{"its dates move with the rule", of(stub("m1"), stub("m2", at11), m1, master("m2", before, everyOther)), ""},
		{"a cancelled series", MeetingLook{Key: whole, Old: known(m1), New: master("m2", before, cancelled)}, "cancelled"},
		{"its dates are cancelled with it", of(stub("m1"), stub("m2"), m1, master("m2", before, cancelled)), ""},
		{"its exceptions are cancelled with it", of(exception("x1", before, at11), exception("x2", before, at11, cancelled), m1, master("m2", before, cancelled)), ""},
		{"a series that was accepted", MeetingLook{Key: whole, Old: known(m1), New: master("m2", before, accepted)}, "responded"},
		{"its dates are accepted with it", of(stub("m1"), stub("m2"), m1, master("m2", before, accepted)), ""},
		{"its exceptions are accepted with it", of(exception("x1", before), exception("x2", before, accepted), m1, master("m2", before, accepted)), ""},
		{"an attendee's answer to the series counts for its exceptions", of(exception("x1", before), exception("x2", before, answers("Bob", "accepted")), m1, master("m2", before, answers("Bob", "accepted"))), ""},
		{"a deleted series", MeetingLook{Key: whole, Old: known(m1)}, "deleted"},

		{"seen again", of(stub("m1"), stub("m1"), m1, m1), ""},
		{"a date with its own time", of(stub("m1"), exception("x1", just, at11), m1, m1), "rescheduled"},
		{"a date with its own length", of(stub("m1"), exception("x1", just, longer), m1, m1), "rescheduled"},
		{"a date that is elsewhere although it claims to be like the others", of(stub("m1"), stub("m1", at11), m1, m1), "rescheduled"},
		{"a date with its own subject", of(stub("m1"), exception("x1", just, retitled), m1, m1), "updated"},
		{"a date with its own body", of(stub("m1"), exception("x1", just, rebodied), m1, m1), "updated"},
		{"a date that was accepted by itself", of(stub("m1"), exception("x1", just, accepted), m1, m1), "responded"},
		{"a date that was cancelled by itself", of(stub("m1"), exception("x1", just, cancelled), m1, m1), "cancelled"},
		{"all of that is one event for each", of(stub("m1"), exception("x1", just, at11, retitled, accepted), m1, m1), "rescheduled responded updated"},
		{"an exception that only became one", of(stub("m1"), exception("x1", just), m1, m1), ""},
		{"an exception with another subject than its series came to have", of(exception("x1", before), exception("x2", just, func(o *event.ObservedMeeting) { o.Meeting.Subject = "Special" }), m1, master("m2", before, retitled)), "updated"},
		{"an exception that goes back", of(exception("x1", before, at11, retitled), stub("m2"), m1, master("m2", before)), "rescheduled updated"},
		{"an exception with its own time, of a series that moves", of(stub("m1"), exception("x1", just, at11), m1, master("m2", before, everyOther)), "rescheduled"},
		{"a date that vanished", of(stub("m1"), nil, m1, m1), "deleted"},
		{"an exception that vanished", of(exception("x1", before), nil, m1, m1), "deleted"},

		{"an exception that was moved into the window", of(nil, exception("x1", before, modified(just), at11), m1, m1), "rescheduled"},
		{"an exception over which the window slid", of(nil, exception("x1", before, at11), m1, m1), ""},
		{"one at its time", of(nil, exception("x1", before, modified(just), retitled), m1, m1), "updated"},
		{"an all-day one at its time", day, "updated"},
		{"one that was cancelled", of(nil, exception("x1", before, modified(just), at11, cancelled), m1, m1), "cancelled"},
		{"one that is like the others after all", of(nil, exception("x1", before, modified(just)), m1, m1), ""},
		{"a date over which the window slid", of(nil, stub("m1"), m1, m1), ""},
		{"a date whose master is not known", of(stub("m1"), stub("m1", at11), nil, nil), "rescheduled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := see(tt.look, diary)
			if got := strings.Join(eventNames(res.Events), " "); got != tt.want {
				t.Fatalf("Name = %q, want %q", got, tt.want)
			}
			for _, e := range res.Events {
				m := calendarData(t, e).Event
				if date := tt.look.Key.Original != ""; date && (m.SeriesMasterID != "series" || m.OriginalStart != tt.look.Key.Original) {
					t.Errorf("it does not say which date of which series: %+v", m)
				} else if !date && (m.InstanceKind != event.SeriesMaster || m.OriginalStart != "" || len(m.Recurrence) == 0) {
					t.Errorf("it is not about the series: %+v", m)
				}
			}
		})
	}
}

func calendarData(t *testing.T, e *event.Event) (d event.CalendarData) {
	t.Helper()
	if err := json.Unmarshal(e.Data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRescheduledTellsFromWhenToWhen(t *testing.T) {
	d := calendarData(t, see(MeetingLook{Old: known(meeting("k1", before, inBerlin)), New: meeting("k2", before, wholeDay)}, diary).Events[0])
	old, is := d.Rescheduled.Old, d.Rescheduled.New
	if old.Start.DateTime != stamp(tomorrow) || old.Start.LocalDateTime != "2026-11-25T10:00:00" || old.IsAllDay {
		t.Errorf("old = %+v", old)
	}
	if is.Start.Date != "2026-11-25" || is.End.Date != "2026-11-26" || is.Start.DateTime != "" || !is.IsAllDay {
		t.Errorf("new = %+v", is)
	}
	d = calendarData(t, see(MeetingLook{New: meeting("k2", before, modified(just))}, diary).Events[0])
	if d.Rescheduled.Old != nil || d.Rescheduled.New.Start.DateTime != stamp(tomorrow) {
		t.Errorf("from outside the window: %+v", d.Rescheduled)
	}
	m1 := master("m1", before, longer, func(o *event.ObservedMeeting) { o.Meeting.Start.DateTime = stamp(tomorrow.Add(-time.Hour)) })
	d = calendarData(t, see(MeetingLook{Key: oneDate, New: exception("x1", just, at11), OldMaster: m1, NewMaster: m1}, diary).Events[0])
	if old := d.Rescheduled.Old; old.Start.DateTime != stamp(tomorrow) || old.End.DateTime != stamp(tomorrow.Add(3*time.Hour)) {
		t.Errorf("an exception that was never seen comes from where its series has it: %+v", old)
	}
}

func TestRespondedTellsWhoOldAndNew(t *testing.T) {
	invitedToo := func(o *event.ObservedMeeting) {
		o.Meeting.Attendees = append(slices.Clone(o.Meeting.Attendees), event.Attendee{Name: "Zoe", Address: "zoe@example.com", Response: "accepted"})
	}
	look := MeetingLook{Old: known(meeting("k1", before, answers("Bob", "accepted"))), New: meeting("k2", before, accepted, answers("Bob", "declined"), invitedToo)}
	texts := func(w Watch) (out []string) {
		for _, r := range calendarData(t, see(look, []Watch{w}).Events[0]).Responded {
			who := "?"
			if r.Self {
				who = "self"
			} else if r.Attendee != nil {
				who = r.Attendee.Name
			}
			out = append(out, fmt.Sprintf("%s: %s → %s", who, r.Old, r.New))
		}
		return out
	}
	if got, want := texts(diary[0]), []string{"self: none → accepted", "Bob: accepted → declined", "Zoe: none → accepted"}; !slices.Equal(got, want) {
		t.Errorf("responded %q, want %q", got, want)
	}
	ids := calendarWatch("sales", event.ContentIDs)
	if got, want := texts(ids), []string{"self: none → accepted", "?: accepted → declined", "?: none → accepted"}; !slices.Equal(got, want) {
		t.Errorf("at content ids responded %q, want %q", got, want)
	}
	if data := string(see(look, []Watch{ids}).Events[0].Data); strings.Contains(data, "Bob") || strings.Contains(data, "@") || strings.Contains(data, "Planning") || strings.Contains(data, `"name"`) {
		t.Errorf("content ids lets out %s", data)
	}
}

func TestContentLevelDecidesWhatOfAMeetingIsAnUpdate(t *testing.T) {
	watches := []Watch{
		calendarWatch("ids", event.ContentIDs), calendarWatch("envelope", event.ContentEnvelope),
		calendarWatch("preview", event.ContentPreview), calendarWatch("body", event.ContentBody),
	}
	tests := []struct {
		name string
		edit edit
		want string
	}{
		{"categories", labelledMeeting, "ids envelope preview body"},
		{"a subject", retitled, "envelope preview body"},
		{"who is invited", uninvited, "envelope preview body"},
		{"a preview", func(o *event.ObservedMeeting) { o.Meeting.BodyPreview = "Dear" }, "preview body"},
		{"a body", rebodied, "body"},
	}
	for _, tt := range tests {
		var who []string
		for _, e := range see(MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, tt.edit)}, watches).Events {
			who = append(who, e.Watch)
		}
		if got := strings.Join(who, " "); got != tt.want {
			t.Errorf("%s: updated for %q, want %q", tt.name, got, tt.want)
		}
	}
}

func labelledMeeting(o *event.ObservedMeeting) { o.Meeting.Categories = []string{"Red category"} }

func TestChangedFieldsOfAMeetingCarryOldAndNew(t *testing.T) {
	all := func(o *event.ObservedMeeting) { retitled(o); labelledMeeting(o); rebodied(o); everyOther(o) }
	got := map[string]string{}
	for _, c := range calendarData(t, see(MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, all)}, diary).Events[0]).Changed {
		got[c.Field] = string(c.Old) + " → " + string(c.New)
	}
	want := map[string]string{
		"subject":    `"Planning" → "Review"`,
		"categories": `[] → ["Red category"]`,
		"recurrence": `null → {"pattern":"weekly"}`,
		"body":       " → ", // only that it differs: bodies are not kept
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("changed = %v", got)
	}
}

func TestTheSameMeetingChangeHasTheSameIDOnEveryPath(t *testing.T) {
	id := func(l MeetingLook) string {
		res := see(l, diary)
		if len(res.Events) != 1 {
			t.Fatalf("%d events", len(res.Events))
		}
		return res.Events[0].ID
	}
	moved := MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, at11), At: now, Via: event.ViaPush}
	later := moved
	later.At, later.Via = now.Add(time.Hour), event.ViaTrueUp
	if id(moved) != id(later) {
		t.Error("the same change has two ids by push and by true-up")
	}
	again := MeetingLook{Old: known(meeting("k2", before)), New: meeting("k3", before, at11)}
	if id(moved) == id(again) {
		t.Error("two changes have one id")
	}
	for _, by := range []edit{mine, func(*event.ObservedMeeting) {}} { // created, invited
		first := MeetingLook{New: meeting("k1", just, by)}
		if other := (MeetingLook{New: meeting("k2", just, by)}); id(first) != id(other) {
			t.Error("two instances that first see a meeting at different versions must agree")
		}
	}
	// Dates of a series may share its change key (M-5), and the key of a vanished one is its master's.
	m1 := master("m1", before)
	next := store.MeetingKey{Series: "series", Original: stamp(tomorrow.AddDate(0, 0, 1))}
	a, b := MeetingLook{Key: oneDate, Old: known(stub("m1")), OldMaster: m1, NewMaster: m1}, MeetingLook{Key: next, Old: known(stub("m1")), OldMaster: m1, NewMaster: m1}
	if id(a) == id(b) {
		t.Error("two dates of a series that vanish have one id")
	}
	if id(a) == id(MeetingLook{Key: whole, Old: known(m1)}) {
		t.Error("a date and its series that vanish have one id")
	}
}

func TestStubsAreFilledFromTheirMaster(t *testing.T) {
	m := master("m2", just, inBerlin, accepted)
	m.WebLink = "https://outlook/series"
	got := Fill(stub("m1"), m)
	if got.ID != "date" || got.ChangeKey != "m2" || !got.Stub || got.Meeting.Subject != "Planning" || got.Meeting.Response != "accepted" || len(got.Meeting.Attendees) != 2 {
		t.Errorf("filled: %+v", got)
	}
	if x := got.Meeting; x.InstanceKind != event.Occurrence || x.SeriesMasterID != "series" || x.OriginalStart != stamp(tomorrow) || x.Recurrence != nil {
		t.Errorf("it is taken for its master: %+v", x)
	}
	if x := got.Meeting.Start; x.DateTime != stamp(tomorrow) || x.TimeZone != "Europe/Berlin" {
		t.Errorf("a master has no date: start = %+v", x)
	}
	if m.ID != "series" || len(m.Meeting.Recurrence) == 0 {
		t.Errorf("the master was changed: %+v", m)
	}
	allDay := Fill(stub("m1", between(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC), 24*time.Hour)), master("m1", before, wholeDay))
	if x := allDay.Meeting; !x.IsAllDay || x.Start.Date != "2026-11-25" || x.End.Date != "2026-11-26" || x.Start.DateTime != "" {
		t.Errorf("an all-day date: %+v", x)
	}
	x := exception("x1", just)
	if Fill(x, m) != x || Fill(nil, m) != nil {
		t.Error("what is no stub must stay as it is")
	}
	if s := stub("m1"); Fill(s, nil) != s {
		t.Error("without a master there is nothing to fill in")
	}
}

func TestEachWatchHasItsOwnWindow(t *testing.T) {
	near, far := calendarWatch("near", event.ContentIDs), calendarWatch("far", event.ContentIDs)
	near.Past, near.Future = time.Hour, 48*time.Hour
	far.Past, far.Future = 24*time.Hour, 1000*24*time.Hour
	tests := []struct {
		name string
		look MeetingLook
		want string
	}{
		{"a meeting of tomorrow", MeetingLook{New: meeting("k1", just)}, "near far"},
		{"a meeting of next year", MeetingLook{New: meeting("k1", just, nextYear)}, "far"},
		{"one that ended three hours ago", MeetingLook{Old: known(meeting("k1", before, between(now.Add(-4*time.Hour), time.Hour)))}, "far"},
		{"one that goes on", MeetingLook{Old: known(meeting("k1", before, between(now.Add(-4*time.Hour), 8*time.Hour)))}, "near far"},
		{"moved out of the window of one", MeetingLook{Old: known(meeting("k1", before)), New: meeting("k2", before, nextYear)}, "near far"},
		{"moved within the window of the other only", MeetingLook{Old: known(meeting("k1", before, nextYear)), New: meeting("k2", before, between(tomorrow.AddDate(1, 1, 0), time.Hour))}, "far"},
		{"a series, whenever it began", MeetingLook{Key: whole, New: master("m1", just)}, "near far"},
	}
	for _, tt := range tests {
		var who []string
		for _, e := range see(tt.look, []Watch{near, far}).Events {
			who = append(who, e.Watch)
		}
		if got := strings.Join(who, " "); got != tt.want {
			t.Errorf("%s: told to %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestUnwantedMeetingEventsAreCountedAsDropped(t *testing.T) {
	w := calendarWatch("sales", event.ContentIDs)
	delete(w.Events, event.Invited)
	if res := see(MeetingLook{New: meeting("k1", just)}, []Watch{w}); len(res.Events) != 0 || res.Dropped != 1 {
		t.Errorf("not in the watch's list: %+v", res)
	}
}

func TestFilterOfMeetings(t *testing.T) {
	w := calendarWatch("sales", event.ContentIDs)
	w.Filter = filter(func(_ string, m *event.Message) (bool, error) { return m.Subject == "Planning", nil })
	if res := see(MeetingLook{New: meeting("k1", just)}, []Watch{w}); len(res.Events) != 1 {
		t.Errorf("a filter sees more than the content level lets out: %+v", res)
	}
	if res := see(MeetingLook{New: meeting("k1", just, retitled)}, []Watch{w}); len(res.Events) != 0 || res.Dropped != 1 {
		t.Errorf("filtered: %+v", res)
	}
	m1 := master("m1", before)
	if res := see(MeetingLook{Key: oneDate, Old: known(stub("m1")), OldMaster: m1, NewMaster: m1}, []Watch{w}); len(res.Events) != 1 {
		t.Errorf("a filter sees what a date has from its series: %+v", res)
	}
	w.Filter = filter(func(string, *event.Message) (bool, error) { return false, errors.New("boom") })
	told := ""
	l := MeetingLook{Key: single, New: meeting("k1", just), At: now}
	if res := cal.Name(&l, []Watch{w}, func(w string, err error) { told = w }); len(res.Events) != 1 || told != "sales" {
		t.Errorf("an event too many is better than one lost: %+v, told %q", res, told)
	}
}

// What happened between the time back to which a watch wants to know and its beginning comes by way of "start".
func TestWhatWasThereBeforeAWatchComesViaStart(t *testing.T) {
	w := calendarWatch("sales", event.ContentIDs)
	w.Since = t0.Add(-72 * time.Hour)
	for at, want := range map[time.Time]event.Via{before: event.ViaStart, just: event.ViaPoll} {
		for _, l := range []MeetingLook{
			{New: meeting("k1", at), Baseline: true},
			{Old: known(meeting("k1", at)), New: meeting("k1", at), Fresh: map[string]bool{"sales": true}},
		} {
			res := see(l, []Watch{w})
			if len(res.Events) != 1 || res.Events[0].Via != want || !res.Events[0].Time.Equal(at) {
				t.Errorf("created at %v: %+v, want it via %s", at, res.Events, want)
			}
		}
	}
}

func TestAlarmsNameStartingMeetings(t *testing.T) {
	w := calendarWatch("sales", event.ContentEnvelope)
	w.Starting = []time.Duration{15 * time.Minute, time.Hour}
	no := func(string, error) { t.Error("the filter went wrong") }
	alarm := &store.Alarm{Feed: 1, Meeting: single, Watch: "sales", LeadSeconds: 900, Start: tomorrow}
	due := tomorrow.Add(-15 * time.Minute)
	onTime := cal.Starting(alarm, meeting("k1", before), &w, due.Add(999*time.Millisecond), no)
	if s := calendarData(t, onTime).Starting; s.LeadSeconds != 900 || s.LateSeconds != 0 || onTime.Via != event.ViaClock || !onTime.Time.Equal(due) {
		t.Errorf("on time: %+v, %+v", s, onTime)
	}
	late := cal.Starting(alarm, meeting("k2", before, retitled), &w, due.Add(10*time.Minute), no)
	if s := calendarData(t, late).Starting; s.LateSeconds != 600 || late.ID != onTime.ID || !late.Time.Equal(due) {
		t.Errorf("late: %+v, %+v; it is the same event", s, late)
	}
	hour := *alarm
	hour.LeadSeconds = 3600
	moved := *alarm
	moved.Start = tomorrow.Add(time.Hour)
	for name, a := range map[string]*store.Alarm{"another lead time": &hour, "another start": &moved, "a date of a series": {Feed: 1, Meeting: oneDate, Watch: "sales", LeadSeconds: 900, Start: tomorrow}} {
		if e := cal.Starting(a, meeting("k1", before), &w, due, no); e == nil || e.ID == onTime.ID {
			t.Errorf("%s must be another event: %+v", name, e)
		}
	}
	unwanted := *alarm
	unwanted.LeadSeconds = 60
	if e := cal.Starting(&unwanted, meeting("k1", before), &w, due, no); e != nil {
		t.Errorf("a lead time that the watch has no more: %+v", e)
	}
	w.Filter = filter(func(name string, m *event.Message) (bool, error) {
		return name != event.Starting || m.Subject != "Planning", nil
	})
	if e := cal.Starting(alarm, meeting("k1", before), &w, due, no); e != nil {
		t.Errorf("the filter says no: %+v", e)
	}
	if e := cal.Starting(alarm, meeting("k1", before, retitled), &w, due, no); e == nil {
		t.Error("the filter says yes")
	}
	delete(w.Events, event.Starting)
	if e := cal.Starting(alarm, meeting("k1", before, retitled), &w, due, no); e != nil {
		t.Errorf("the watch does not want to know: %+v", e)
	}
}

func TestAllDayMeetingsStartAtMidnightOfAZone(t *testing.T) {
	berlin, newYork := zone(t, "Europe/Berlin"), zone(t, "America/New_York")
	tests := []struct {
		name string
		o    *event.ObservedMeeting
		zone *time.Location // of the watch
		want string
	}{
		{"a timed one starts when it does", meeting("k", now), newYork, stamp(tomorrow)},
		{"an all-day one at midnight of the watch's zone", meeting("k", now, wholeDay), berlin, "2026-11-24T23:00:00Z"},
		{"west of Greenwich later", meeting("k", now, wholeDay), newYork, "2026-11-25T05:00:00Z"},
		{"without one at midnight where it was made", meeting("k", now, wholeDay, inBerlin), nil, "2026-11-24T23:00:00Z"},
		{"in a zone nobody knows at midnight in UTC", meeting("k", now, wholeDay, func(o *event.ObservedMeeting) { o.Meeting.Start.TimeZone = "tzone://Microsoft/Custom" }), nil, "2026-11-25T00:00:00Z"},
		{"on the day on which summer time begins", meeting("k", now, onDate("2026-03-29")), berlin, "2026-03-28T23:00:00Z"},
		{"the day after", meeting("k", now, onDate("2026-03-30")), berlin, "2026-03-29T22:00:00Z"},
		{"a date that is none", meeting("k", now, onDate("2026-02-30")), berlin, "0001-01-01T00:00:00Z"},
		{"no date at all", meeting("k", now, func(o *event.ObservedMeeting) { o.Meeting.Start = event.Moment{} }), berlin, "0001-01-01T00:00:00Z"},
	}
	for _, tt := range tests {
		if got := stamp(StartsAt(tt.o, &Watch{Zone: tt.zone})); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func onDate(date string) edit {
	return func(o *event.ObservedMeeting) { o.Meeting.IsAllDay, o.Meeting.Start = true, event.Moment{Date: date} }
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := event.LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestOverlaps(t *testing.T) {
	from, to := tomorrow, tomorrow.Add(24*time.Hour)
	day := func(date string) edit {
		return func(o *event.ObservedMeeting) {
			onDate(date)(o)
			at, _ := time.Parse(time.DateOnly, date)
			o.Meeting.End = event.Moment{Date: at.AddDate(0, 0, 1).Format(time.DateOnly)}
		}
	}
	tests := []struct {
		name string
		edit edit
		want bool
	}{
		{"within", at11, true},
		{"around", between(from.Add(-time.Hour), 48*time.Hour), true},
		{"ends as the window begins", between(from.Add(-time.Hour), time.Hour), true},
		{"ended before", between(from.Add(-2*time.Hour), time.Hour), false},
		{"begins as the window ends", between(to, time.Hour), true},
		{"begins after", between(to.Add(time.Second), time.Hour), false},
		{"a day that has not ended everywhere", day("2026-11-24"), true},
		{"a day that has", day("2026-11-23"), false},
		{"a day that has begun somewhere", day("2026-11-26"), true},
		{"a day that has begun nowhere", day("2026-11-27"), false},
	}
	for _, tt := range tests {
		if got := Overlaps(meeting("k", now, tt.edit), from, to); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestOnlyWhatDiffersIsWorthWriting(t *testing.T) {
	tests := []struct {
		name     string
		old, now *event.ObservedMeeting
		want     bool
	}{
		{"the same", meeting("k1", before), meeting("k1", before), false},
		{"another version", meeting("k1", before), meeting("k2", before), true},
		{"another subject in the same version", meeting("k1", before), meeting("k1", before, retitled), true},
		{"another time", meeting("k1", before), meeting("k1", before, at11), true},
		{"another answer", meeting("k1", before), meeting("k1", before, accepted), true},
		{"the same date of a series in another version", stub("m1"), stub("m2"), false},
		{"another time of it", stub("m1"), stub("m1", at11), true},
		{"another id of it", stub("m1"), stub("m1", func(o *event.ObservedMeeting) { o.ID = "other" }), true},
		{"it became an exception", stub("m1"), exception("m1", before), true},
		{"an exception went back", exception("m1", before), stub("m1"), true},
	}
	for _, tt := range tests {
		if got := DiffersMeeting(tt.old, tt.now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
