package daemon

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/emulator"
)

// watchCalendars makes the world's daemon watch the default calendar, from a year back, and no mail.
func (w *world) watchCalendars(calendar string) {
	w.t.Helper()
	path := w.setting("TRIGGERD_CONFIG")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "    mail: ")
	if err := os.WriteFile(path, []byte(before+"    calendar: "+calendar+"\n    content: body\n    start: all\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// types are the last words of the messages' CloudEvents types.
func types(msgs []jetstream.Msg) (out []string) {
	for _, m := range msgs {
		out = append(out, strings.Split(m.Headers().Get("ce-type"), ".")[3])
	}
	return out
}

func TestMeetingsReachNATS(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser(sales)
	w.watchCalendars("{starting: [1m]}")
	p := w.start()
	w.waitSubscribed(1)
	soon := time.Now().Add(70 * time.Second)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	next := func(n int) {
		t.Helper()
		w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == n })
	}
	id, err := w.emu.AddMeeting(sales, emulator.Meeting{Subject: "talk", Body: "about it", Start: time.Now().Add(time.Hour), TimeZone: "tzone://Microsoft/Custom",
		Attendees: []emulator.Attendee{{Address: emulator.Address{Name: "Ada", Address: "ada@contoso.com"}}}})
	must(err)
	next(1)
	must(w.emu.Respond(sales, id, "ada@contoso.com", "declined"))
	next(2)
	must(w.emu.UpdateMeeting(sales, id, emulator.MeetingPatch{Start: &soon}))
	next(3)
	next(4)
	must(w.emu.CancelMeeting(sales, id))
	next(5)
	must(w.emu.DeleteMeeting(sales, id))
	msgs := w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == 6 })
	validate(t, msgs)
	if got, want := types(msgs), []string{"created", "responded", "rescheduled", "starting", "cancelled", "deleted"}; !slices.Equal(got, want) {
		t.Errorf("events are %v, want %v", got, want)
	}
	starting := msgs[3]
	at, err := time.Parse(time.RFC3339Nano, starting.Headers().Get("ce-recordedtime"))
	must(err)
	if off := at.Sub(soon.Truncate(time.Second).Add(-time.Minute)); off < 0 || off > time.Second {
		t.Errorf("the start was told %v off its time", off)
	}
	p.stop(t)
}

// The .ics files that come with a public library are somebody's real calendars: whatever of them can be imported becomes
// events that fit their schema, each once.
func TestAPublicCorpusOfCalendarsArrivesExactlyOnce(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser(sales)
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/arran4/golang-ical").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "testdata", "*", "*.ics"))
	more, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "testdata", "*.ics"))
	if files = append(files, more...); err != nil || len(files) < 10 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	imported := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := w.emu.ImportICS(sales, bytes.NewReader(text))
		if imported += n; err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	w.watchCalendars("{window: {past: 366d, future: 1280d}}")
	// What lies further back than any window is moved into it.
	begin := time.Now().Add(24 * time.Hour).Truncate(time.Hour)
	all := w.emu.Meetings(sales)
	for i, m := range all {
		start := begin.Add(time.Duration(i) * time.Hour)
		if err := w.emu.UpdateMeeting(sales, m.ID, emulator.MeetingPatch{Start: &start}); err != nil {
			t.Errorf("%s: %v", m.Type, err)
		}
	}
	p := w.start()
	msgs := w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == len(all) })
	validate(t, msgs)
	if len(msgs) != len(all) || len(all) < 8 {
		t.Errorf("%d messages for %d meetings, %d imported", len(msgs), len(all), imported)
	}
	p.stop(t)
}
