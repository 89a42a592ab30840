package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

var nine = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)

// wantMeeting is a meeting with everything of a content that a state may hold.
func wantMeeting(subject string) *Meeting {
	return &Meeting{SeenAt: nine.Add(-time.Hour), ObservedMeeting: event.ObservedMeeting{
		ID: "id " + subject, ChangeKey: "key", WebLink: "https://outlook/x", LastModified: "2026-11-24T09:00:00Z", BodyHash: "hash", Stub: true, Draft: true,
		Meeting: event.Meeting{
			InstanceKind: event.Exception, SeriesMasterID: "series", OriginalStart: "2026-11-25T09:00:00Z", ICalUID: "uid", Subject: subject,
			Start: event.Moment{DateTime: "2026-11-25T09:00:00Z", TimeZone: "Europe/Berlin"}, End: event.Moment{Date: "2026-11-26"},
			IsAllDay: true, IsCancelled: true, IsOrganizer: true, Response: "organizer", Organizer: &event.Address{Name: "Ada", Address: "ada@example.com"},
			Attendees: []event.Attendee{{Name: "Bob", Address: "bob@example.com", Type: "required", Response: "accepted"}}, Location: "Room 1", IsOnline: true,
			JoinURL: "https://teams/x", Recurrence: []byte(`{"pattern":{"type":"daily"}}`), ShowAs: "busy", Sensitivity: "private", Importance: "high",
			Categories: []string{"Red"}, HasAttachments: true, CreatedAt: "2026-11-23T09:00:00Z", BodyPreview: "Dear",
		},
	}}
}

func putMeeting(t testing.TB, s *Store, feed uint32, key MeetingKey, subject string) {
	t.Helper()
	enc, err := EncodeMeeting(key, wantMeeting(subject))
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error { return tx.PutMeeting(feed, enc) })
}

// meetings lists what is known of a feed or a series, as key and subject; "damaged" for what cannot be read.
func meetings(t testing.TB, s *Store, feed uint32, series string) (out []string) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		return tx.EachMeeting(feed, series, func(key MeetingKey, read func() (Meeting, error)) error {
			m, err := read()
			if errors.Is(err, ErrDamaged) {
				m.Meeting.Subject = "damaged"
			} else if err != nil {
				return err
			}
			out = append(out, strings.TrimSpace(key.Series+" "+key.Original)+": "+m.Meeting.Subject)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantMeetings(t testing.TB, s *Store, feed uint32, series string, want ...string) {
	t.Helper()
	if got := meetings(t, s, feed, series); !slices.Equal(got, want) {
		t.Errorf("feed %d, series %q: %q, want %q", feed, series, got, want)
	}
}

func TestMeetingsAreKept(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	key := MeetingKey{"series", "2026-11-25T09:00:00Z"}
	putMeeting(t, s, 1, key, "first")
	putMeeting(t, s, 1, key, "Planning")
	for _, when := range []string{"at once", "after a restart"} {
		err := s.View(func(tx *Tx) error {
			m, ok, err := tx.Meeting(1, key)
			if err != nil || !ok || !reflect.DeepEqual(&m, wantMeeting("Planning")) {
				t.Errorf("%s: %+v, %v, %v", when, m, ok, err)
			}
			for feed, other := range map[uint32]MeetingKey{2: key, 1: {Series: "series"}, 3: {}} {
				if m, ok, err := tx.Meeting(feed, other); ok || err != nil || m.ID != "" {
					t.Errorf("%s: feed %d knows %+v: %+v, %v", when, feed, other, m, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		stop(t, s)
		s = start(t, dir, Options{})
	}
	for range 2 { // a step may be repeated
		update(t, s, func(tx *Tx) error { return tx.DeleteMeeting(1, key) })
	}
	wantMeetings(t, s, 1, "")
}

// A series comes together, its master first, and does not mix with others, whose ids begin like its own.
func TestSeriesDoNotMix(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	for _, key := range []MeetingKey{{"AB", "2026-11-26"}, {"ABC", ""}, {"A", "2026-11-25"}, {"AB", ""}, {"A", ""}, {"AB", "2026-11-25"}, {"A=", "2026-11-25"}} {
		putMeeting(t, s, 256, key, "of 256")
	}
	putMeeting(t, s, 1, MeetingKey{"A", ""}, "of 1")
	putMeeting(t, s, 257, MeetingKey{"A", ""}, "of 257")
	wantMeetings(t, s, 256, "A", "A: of 256", "A 2026-11-25: of 256")
	wantMeetings(t, s, 256, "AB", "AB: of 256", "AB 2026-11-25: of 256", "AB 2026-11-26: of 256")
	wantMeetings(t, s, 256, "ABC", "ABC: of 256")
	wantMeetings(t, s, 256, "A=", "A= 2026-11-25: of 256")
	wantMeetings(t, s, 256, "B")
	wantMeetings(t, s, 256, "", "A: of 256", "A 2026-11-25: of 256", "A= 2026-11-25: of 256",
		"AB: of 256", "AB 2026-11-25: of 256", "AB 2026-11-26: of 256", "ABC: of 256")
	wantMeetings(t, s, 257, "", "A: of 257")
	wantMeetings(t, s, 1, "", "A: of 1")
}

func TestEachMeetingEndsWithTheFirstError(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	putMeeting(t, s, 1, MeetingKey{"a", ""}, "one")
	putMeeting(t, s, 1, MeetingKey{"b", ""}, "two")
	seen, enough := 0, errors.New("enough")
	err := s.View(func(tx *Tx) error {
		return tx.EachMeeting(1, "", func(MeetingKey, func() (Meeting, error)) error { seen++; return enough })
	})
	if !errors.Is(err, enough) || seen != 1 {
		t.Errorf("%d seen, %v", seen, err)
	}
}

func TestDeletingAFeedForgetsItsMeetings(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutFeed(&Feed{Kind: CalendarFeed, FolderID: "one"}), tx.PutFeed(&Feed{Kind: CalendarFeed, FolderID: "two"}))
	})
	for feed := range uint32(2) {
		for i := range 300 {
			putMeeting(t, s, feed+1, MeetingKey{"series", fmt.Sprint(1000 + i)}, "date")
		}
	}
	update(t, s, func(tx *Tx) error { return tx.DeleteFeed(1) })
	if one, two := meetings(t, s, 1, ""), meetings(t, s, 2, ""); len(one) != 0 || len(two) != 300 {
		t.Errorf("%d meetings are left of the deleted feed, %d of the other", len(one), len(two))
	}
}

func TestADamagedMeetingIsToldApart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	for _, id := range []string{"a", "b", "c"} {
		putMeeting(t, s, 1, MeetingKey{id, ""}, "fine")
	}
	stop(t, s)
	raw(t, s.Path(), func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeetings).Put(MeetingKey{"b", ""}.bytes(1), []byte("\x00\x00\x00\x00{}"))
	})
	s = start(t, dir, Options{})
	wantMeetings(t, s, 1, "", "a: fine", "b: damaged", "c: fine")
	err := s.View(func(tx *Tx) error { _, _, err := tx.Meeting(1, MeetingKey{"b", ""}); return err })
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "feed 1") {
		t.Errorf("Meeting = %v, want ErrDamaged that names the feed", err)
	}
	putMeeting(t, s, 1, MeetingKey{"b", ""}, "anew")
	wantMeetings(t, s, 1, "b", "b: anew")
}

func alarmAt(start time.Time, series string) *Alarm {
	return &Alarm{Feed: 1, Meeting: MeetingKey{Series: series}, Watch: "w", LeadSeconds: 900, Start: start}
}

func putAlarms(t testing.TB, s *Store, alarms ...*Alarm) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		for _, a := range alarms {
			if err := tx.PutAlarm(a); err != nil {
				return err
			}
		}
		return nil
	})
}

func takeAlarms(t testing.TB, s *Store, now time.Time, limit int) (out []Alarm) {
	t.Helper()
	update(t, s, func(tx *Tx) (err error) { out, err = tx.TakeAlarms(now, limit, nil); return err })
	return out
}

func wantNext(t testing.TB, s *Store, want time.Time) {
	t.Helper()
	at, ok, err := s.NextAlarm()
	if err != nil || ok != !want.IsZero() || !at.Equal(want) {
		t.Errorf("NextAlarm = %v, %v, %v, want %v", at, ok, err, want)
	}
}

func seriesOfAlarms(alarms []Alarm) (out []string) {
	for _, a := range alarms {
		out = append(out, a.Meeting.Series)
	}
	return out
}

func TestAlarmsGoOffInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	wantNext(t, s, time.Time{})
	putAlarms(t, s, alarmAt(nine.Add(2*time.Hour), "third"), alarmAt(nine, "first"), alarmAt(nine.Add(time.Hour), "second"))
	long := alarmAt(nine.Add(24*time.Hour), "a day before")
	long.LeadSeconds = 86_400
	putAlarms(t, s, long, long) // a step may be repeated
	stop(t, s)
	s = start(t, dir, Options{})
	wantNext(t, s, nine.Add(-15*time.Minute))
	if due := takeAlarms(t, s, nine.Add(-15*time.Minute-time.Millisecond), 10); len(due) != 0 {
		t.Errorf("too early: %+v", due)
	}
	due := takeAlarms(t, s, nine.Add(-15*time.Minute), 10)
	if len(due) != 1 || !reflect.DeepEqual(&due[0], alarmAt(nine, "first")) {
		t.Errorf("due: %+v", due)
	}
	wantNext(t, s, nine)
	if got := seriesOfAlarms(takeAlarms(t, s, nine.Add(24*time.Hour), 2)); !slices.Equal(got, []string{"a day before", "second"}) {
		t.Errorf("the first two: %q", got)
	}
	if got := seriesOfAlarms(takeAlarms(t, s, nine.Add(24*time.Hour), 2)); !slices.Equal(got, []string{"third"}) {
		t.Errorf("what is left: %q", got)
	}
	wantNext(t, s, time.Time{})
}

// Alarms that are due at the same moment are apart when anything about them differs.
func TestAlarmsOfTheSameMoment(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	a := alarmAt(nine, "one")
	feed, meeting, watch, date := *a, *a, *a, *a
	feed.Feed, meeting.Meeting.Series, watch.Watch, date.Meeting.Original = 2, "two", "v", "2026-11-25T09:00:00Z"
	lead := *a
	lead.LeadSeconds, lead.Start = 1800, nine.Add(15*time.Minute)
	putAlarms(t, s, a, &feed, &meeting, &watch, &date, &lead, a)
	if due := takeAlarms(t, s, nine, 10); len(due) != 6 {
		t.Errorf("%d alarms, want 6: %+v", len(due), due)
	}
}

func TestAnAlarmThatWasToldDoesNotComeBack(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	a := alarmAt(nine, "one")
	putAlarms(t, s, a)
	takeAlarms(t, s, nine, 10)
	update(t, s, func(tx *Tx) error { return tx.AlarmTold(a, nine) })
	for range 2 {
		putAlarms(t, s, a) // the meeting was moved away and back
		wantNext(t, s, time.Time{})
		stop(t, s)
		s = start(t, dir, Options{})
	}
	other := *a
	other.LeadSeconds = 60
	putAlarms(t, s, &other)
	wantNext(t, s, nine.Add(-time.Minute))
}

// What was taken and not told may come back: its meeting was elsewhere then.
func TestAnAlarmThatWasSilentComesBack(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	a := alarmAt(nine, "one")
	putAlarms(t, s, a)
	takeAlarms(t, s, nine, 10)
	putAlarms(t, s, a)
	wantNext(t, s, a.Due())
}

func TestWhatWasToldLongAgoIsForgotten(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	told := func() (n int) {
		err := s.View(func(tx *Tx) error { n = tx.bucket(bucketTold).Stats().KeyN; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	tell := func(i int, now time.Time) {
		update(t, s, func(tx *Tx) error { return tx.AlarmTold(alarmAt(now, fmt.Sprint(i)), now) })
	}
	for i := range 100 {
		tell(i, nine.Add(time.Duration(i)*time.Minute))
	}
	if told() != 100 {
		t.Fatalf("%d remembered, want 100", told())
	}
	later := nine.Add(keepTold - time.Hour)
	tell(100, later)
	if told() != 101 {
		t.Errorf("%d remembered, want all 101: none of them is old", told())
	}
	for i := range 110 {
		tell(200+i, nine.Add(keepTold+24*time.Hour))
	}
	if told() != 111 {
		t.Errorf("%d remembered, want the 111 that are not old", told())
	}
}

func TestNewAlarmsAreSignalled(t *testing.T) {
	s := start(t, t.TempDir(), Options{})
	signalled := func() bool {
		select {
		case <-s.AlarmsChanged():
			return true
		default:
			return false
		}
	}
	a := alarmAt(nine, "one")
	if signalled() {
		t.Error("before there are any")
	}
	putAlarms(t, s, a, alarmAt(nine, "two"))
	if !signalled() || signalled() {
		t.Error("want one signal for both")
	}
	refused := errors.New("refused")
	err := s.Update(func(tx *Tx) error { return errors.Join(tx.PutAlarm(alarmAt(nine, "three")), refused) })
	if !errors.Is(err, refused) || signalled() {
		t.Errorf("%v: what was not committed is not there", err)
	}
	takeAlarms(t, s, nine, 10)
	update(t, s, func(tx *Tx) error { return tx.AlarmTold(a, nine) })
	putAlarms(t, s, a)
	if signalled() {
		t.Error("an alarm that was told is not new")
	}
}

func TestADamagedAlarmIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	bad := alarmAt(nine, "bad")
	putAlarms(t, s, bad, alarmAt(nine.Add(time.Minute), "good"))
	stop(t, s)
	raw(t, s.Path(), func(tx *bolt.Tx) error { return tx.Bucket(bucketAlarms).Put(bad.key(), []byte("\x00\x00\x00\x00{}")) })
	s = start(t, dir, Options{})
	wantNext(t, s, bad.Due())
	if got := seriesOfAlarms(takeAlarms(t, s, nine, 1)); len(got) != 0 {
		t.Errorf("the damaged one: %q", got)
	}
	wantNext(t, s, nine.Add(-14*time.Minute)) // it does not stand in the way
	if got := seriesOfAlarms(takeAlarms(t, s, nine, 1)); !slices.Equal(got, []string{"good"}) {
		t.Errorf("the good one: %q", got)
	}
}

// A file of before there were calendars gets a place for them, and keeps all that it has.
func TestAFileOfTheThirdVersionGetsCalendars(t *testing.T) {
	dir, path := used(t)
	raw(t, path, func(tx *bolt.Tx) error {
		return errors.Join(tx.DeleteBucket(bucketMeetings), tx.DeleteBucket(bucketAlarms), tx.DeleteBucket(bucketTold))
	})
	setVersion(t, path, 3)
	for i := range 2 { // once by the migration, once more when there is nothing to do
		s := start(t, dir, Options{})
		if n := checkItems(t, s); n != 0 {
			t.Errorf("%d items are damaged", n)
		}
		law(t, s)
		if f, ok := s.Feed(1); !ok || f.Kind != MailFolder || f.FolderID != "inbox" {
			t.Errorf("the feed became %+v", f)
		}
		putMeeting(t, s, 2, MeetingKey{Series: fmt.Sprint(i)}, "kept")
		putAlarms(t, s, alarmAt(nine.Add(time.Duration(i)*time.Hour), "kept"))
		stop(t, s)
	}
	s := start(t, dir, Options{})
	wantMeetings(t, s, 2, "", "0: kept", "1: kept")
	if due := takeAlarms(t, s, nine.Add(24*time.Hour), 10); len(due) != 2 {
		t.Errorf("alarms: %+v", due)
	}
}
