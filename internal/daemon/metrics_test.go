package daemon

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/emulator"
)

// scraped are the metrics of a running daemon, by name with labels.
func (w *world) scraped() map[string]float64 {
	w.t.Helper()
	resp, err := http.Get("http://" + w.setting("TRIGGERD_ADMIN_LISTEN") + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, "triggerd_") {
			continue
		}
		if out[name], err = strconv.ParseFloat(value, 64); err != nil {
			w.t.Errorf("%s: %v", line, err)
		}
	}
	return out
}

// scrapedUntil reads the metrics until they are as they should be, or it took too long.
func (w *world) scrapedUntil(ok func(map[string]float64) bool) (m map[string]float64) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if m = w.scraped(); ok(m) {
			break
		}
	}
	return m
}

// sum adds up all that have a beginning of their name in common.
func sum(m map[string]float64, prefix string) (total float64) {
	for name, v := range m {
		if strings.HasPrefix(name, prefix) {
			total += v
		}
	}
	return total
}

// setting is a variable of the daemon's environment.
func (w *world) setting(name string) string {
	for _, kv := range w.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	w.t.Fatalf("no %s", name)
	return ""
}

// What Prometheus reads of a daemon that has worked: the law holds in it, and it tells what happened.
func TestMetricsOfARunningDaemon(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser("sales@contoso.com")
	p := w.start()
	w.waitSubscribed(2)
	const (
		mails     = 20
		latencies = "triggerd_event_latency_seconds_count{"
		pushes    = `triggerd_delta_rounds_total{reason="push",result="ok"}`
	)
	deliver := func(from, to int) {
		for i := from; i < to; i++ {
			if _, err := w.emu.Deliver("sales@contoso.com", emulator.Mail{Subject: fmt.Sprint("mail ", i)}); err != nil {
				t.Fatal(err)
			}
		}
		w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == to })
	}
	settledAll := func(m map[string]float64) bool {
		return m["triggerd_inbox_entries"] == 0 && m["triggerd_ready"] == 1 && m[`triggerd_notifications_total{result="accepted"}`] > 0
	}
	deliver(0, mails-1)
	w.scrapedUntil(settledAll)
	deliver(mails-1, mails) // the rounds that follow new subscriptions may have found the others; this one is left to push
	m := w.scrapedUntil(func(m map[string]float64) bool {
		return settledAll(m) && m[`triggerd_notifications_total{result="accepted"}`] >= mails && m[pushes] >= 1 && sum(m, latencies) >= mails
	})
	settled := sum(m, "triggerd_notifications_settled_total{")
	accepted := m[`triggerd_notifications_total{result="accepted"}`]
	if accepted < mails || accepted != settled+m["triggerd_inbox_entries"] || m["triggerd_notifications_unaccounted"] != 0 {
		t.Errorf("accepted %v, settled %v, pending %v, unaccounted %v", accepted, settled, m["triggerd_inbox_entries"], m["triggerd_notifications_unaccounted"])
	}
	if e, l := sum(m, `triggerd_events_total{area="mail",event="received",`), sum(m, latencies); e != mails || l != mails {
		t.Errorf("%v events and %v latencies for %d mails", e, l, mails)
	}
	for name, least := range map[string]float64{
		"triggerd_notification_ack_seconds_count": 1,
		pushes: 1,
		`triggerd_delta_rounds_total{reason="baseline",result="ok"}`: 2,
		`triggerd_subscriptions{state="active"}`:                     2,
		`triggerd_connection_state{connection="contoso",state="ok"}`: 1,
		"triggerd_nats_connected":                                    1,
		"triggerd_public_url_up":                                     1,
		"triggerd_ready":                                             1,
		"triggerd_config_last_reload_successful":                     1,
		"triggerd_push_announced_total":                              1,
		`triggerd_subscription_expiry_timestamp_seconds{feed="inbox",mailbox="sales",watch="sales"}`: float64(time.Now().Unix()),
	} {
		if m[name] < least {
			t.Errorf("%s is %v, want %v at least", name, m[name], least)
		}
	}
	if fresh, ok := m[`triggerd_feed_freshness_seconds{feed="inbox",mailbox="sales",watch="sales"}`]; !ok || fresh > 30 {
		t.Errorf("freshness %v, %v", fresh, ok)
	}
	requests := 0.0
	if m[`triggerd_graph_requests_total{operation="create_subscription",status="201"}`] != 2 {
		t.Errorf("two subscriptions were made, and the metrics say otherwise")
	}
	for name, v := range m {
		if strings.HasPrefix(name, "triggerd_graph_requests_total{") {
			requests += v
			if strings.Contains(name, `status="none"`) || strings.Contains(name, `status="other"`) {
				t.Errorf("%s is %v", name, v)
			}
		}
	}
	if requests < 5 {
		t.Errorf("%v requests to Graph", requests)
	}
	p.stop(t)
}
