package daemon

import (
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/status"
)

// What status and metrics tell of mail and of calendars, which share a subscription, also where two watches follow
// different ones.
func TestTheReportOnCalendars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(s *sim, _ *emulator.Options) {
			s.yaml = strings.Replace(calendarYAML, "calendar: {starting: [15m]}", `calendar: {calendars: [default]}
    mail: {folders: [inbox]}
  fairs:
    connection: contoso
    mailboxes: [{address: sales@contoso.com, alias: desk}]
    calendar: {calendars: [Fairs]}`, 1)
			s.before = func() {
				_, err := s.emu.AddCalendar(sales, "Fairs")
				s.must(err)
			}
		})
		s.wait(settle)
		r := feedReporter{s}.Report()
		var feeds, subs []string
		for i := range r.Feeds {
			f := &r.Feeds[i]
			feeds = append(feeds, f.Area+" "+f.Name()+" "+strings.Join(f.Watches, ","))
		}
		for i := range r.Subscriptions {
			subs = append(subs, r.Subscriptions[i].Folder+" "+strings.Join(r.Subscriptions[i].Watches, ","))
		}
		if want := []string{"calendar calendar Calendar sales", "calendar calendar Fairs fairs", "mail Inbox sales"}; !slices.Equal(feeds, want) {
			t.Errorf("feeds %q, want %q", feeds, want)
		}
		if want := []string{"Inbox sales", status.AllCalendars + " fairs,sales"}; !slices.Equal(subs, want) {
			t.Errorf("subscriptions %q, want %q", subs, want)
		}
		if f := r.Feeds; f[0].Inbox == 0 || f[0].Inbox != f[1].Inbox || f[0].Inbox == f[0].Feed || f[2].Inbox != f[2].Feed {
			t.Errorf("announced by %d, %d, %d", f[0].Inbox, f[1].Inbox, f[2].Inbox)
		}
		w := httptest.NewRecorder()
		status.NewMetrics(feedReporter{s}, false).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		text, err := io.ReadAll(w.Body)
		s.must(err)
		for _, want := range []string{
			`expiry_timestamp_seconds{feed="calendars",mailbox="sales",watch="sales"}`, `expiry_timestamp_seconds{feed="calendars",mailbox="desk",watch="fairs"}`,
			`freshness_seconds{feed="calendar",mailbox="sales",watch="sales"}`, `freshness_seconds{feed="c-`, `expiry_timestamp_seconds{feed="inbox",mailbox="sales",watch="sales"}`,
		} {
			if strings.Count(string(text), want) != 1 {
				t.Errorf("%d of %s, want one", strings.Count(string(text), want), want)
			}
		}
		if strings.Contains(string(text), "Fairs") {
			t.Error("the metrics name a calendar")
		}
	})
}

// feedReporter reports on feeds and what announces their changes; a simulation has no broker to report on.
type feedReporter struct{ s *sim }

func (f feedReporter) Report() (r status.Report) {
	r.At = time.Now()
	f.s.d.reportFeeds(f.s.d.now(), &r)
	f.s.d.reportSubscriptions(&r)
	return r
}

func (feedReporter) Resync(string) (int, error) { return 0, nil }
