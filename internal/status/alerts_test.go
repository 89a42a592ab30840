package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

const prometheusFiles = "../../configs/prometheus/"

// promtool runs Prometheus's own checker.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: install promtool: make testtools", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = prometheusFiles
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// scrape is what Prometheus gets of a daemon with something of everything.
func scrape(t *testing.T, perWatch bool) string {
	t.Helper()
	r := busy(3)
	r.Connections[0].CredentialExpiresAt = now.Add(time.Hour)
	r.Missing, r.Push = missing(), Push{Announced: 90, Missed: 7}
	m := NewMetrics(&changing{report: r}, perWatch)
	m.Acked(time.Millisecond)
	m.Published(&event.Event{Area: event.AreaMail, Name: event.Received, Via: event.ViaPush, Time: now}, now.Add(time.Second))
	m.Published(&event.Event{Area: event.AreaCalendar, Name: event.Starting, Via: event.ViaClock, Time: now}, now.Add(90*time.Minute))
	m.Round("push", true)
	m.Round("window", true)
	m.Round("what somebody asked for in words", false)
	m.Requested("message", 429, time.Second)
	m.Requested("message", 0, time.Second)
	m.Requested("message", 799, time.Second)
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestAlertRules(t *testing.T) {
	promtool(t, "", "check", "rules", "alerts.yml")
	promtool(t, "", "test", "rules", "alerts_test.yml")
	promtool(t, "", "check", "config", "prometheus.yml")
}

func TestMetricsAreNamedAsPrometheusWants(t *testing.T) {
	promtool(t, scrape(t, false), "check", "metrics")
}

var (
	metricName = regexp.MustCompile(`\b(?:triggerd|process|go|promhttp)_[a-z_]+[a-z]`)
	labelName  = regexp.MustCompile(`\$labels\.([a-z_]+)`)
)

// lacks lists the metrics that a text names and Prometheus does not get. Under the unit it gets less than in a test:
// ProcSubset=pid hides /proc/stat, and with it the time since which the start of a process is counted.
func lacks(metrics, text string) (out []string) {
	for _, name := range metricName.FindAllString(text, -1) {
		there := strings.Contains(metrics, "\n"+name+"{") || strings.Contains(metrics, "\n"+name+" ")
		if !there || name == "process_start_time_seconds" {
			out = append(out, name)
		}
	}
	return out
}

func TestLacks(t *testing.T) {
	for text, want := range map[string]string{
		"triggerd_ready == 0":    "",
		"triggerd_readiness > 1": "triggerd_readiness",
		`changes(process_start_time_seconds{job="triggerd"}[30m])`: "process_start_time_seconds",
		"process_resident_memory_bytes + go_goroutines":            "",
		"process_handles + go_routines":                            "process_handles go_routines",
	} {
		if got := strings.Join(lacks(scrape(t, false), text), " "); got != want {
			t.Errorf("%s lacks %q, want %q", text, got, want)
		}
	}
}

// Every metric that an alert names exists, each alert is tested, and the runbook has its section.
func TestAlertsNameWhatThereIs(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	metrics, rules, tests, runbook := scrape(t, false), read(prometheusFiles+"alerts.yml"), read(prometheusFiles+"alerts_test.yml"), read("../../docs/operations.md")
	for _, name := range lacks(metrics, rules) {
		t.Errorf("there is no metric %s", name)
	}
	for _, m := range labelName.FindAllStringSubmatch(rules, -1) {
		if m[1] != "instance" && !strings.Contains(metrics, m[1]+`="`) {
			t.Errorf("there is no label %s", m[1])
		}
	}
	alerts := regexp.MustCompile(`(?m)^      - alert: (\w+)$`).FindAllStringSubmatch(rules, -1)
	if len(alerts) < 15 {
		t.Errorf("only %d alerts", len(alerts))
	}
	for _, a := range alerts {
		if strings.Count(tests, "alertname: "+a[1]+",") < 2 {
			t.Errorf("%s is not tested as firing and as not firing", a[1])
		}
		if !strings.Contains(runbook, "\n### "+a[1]+"\n") {
			t.Errorf("docs/operations.md does not say what to do about %s", a[1])
		}
		if !strings.Contains(rules, "operations.md#"+strings.ToLower(a[1])+"\n") {
			t.Errorf("%s does not lead to its section", a[1])
		}
	}
}

// The metrics of the design are there, with their labels.
func TestEveryMetricOfTheDesign(t *testing.T) {
	text := scrape(t, false)
	for _, want := range []string{
		`triggerd_notifications_total{result="accepted"}`, `triggerd_notifications_settled_total{outcome="published"}`, `triggerd_notification_ack_seconds_bucket{le="3"}`,
		`triggerd_inbox_entries`, `triggerd_outbox_entries`, `triggerd_outbox_oldest_seconds`, `triggerd_events_total{area="mail",event="received",via="push"}`,
		`triggerd_event_latency_seconds_bucket{via="push",le="1"}`, `triggerd_subscriptions{state="active"}`,
		`triggerd_subscription_expiry_timestamp_seconds{feed="inbox",mailbox="m-0000000000000000",watch="sales"}`, `triggerd_renewals_total{result="ok"}`,
		`triggerd_feed_freshness_seconds{feed="inbox",mailbox="m-0000000000000000",watch="sales"}`, `triggerd_push_missed_total`,
		`triggerd_delta_rounds_total{reason="push",result="ok"}`, `triggerd_delta_rounds_total{reason="catchup",result="failed"}`,
		`triggerd_events_total{area="calendar",event="starting",via="clock"} 1`, `triggerd_event_latency_seconds_sum{via="clock"} 5400`,
		`triggerd_delta_rounds_total{reason="window",result="ok"} 1`,
		`triggerd_feed_freshness_seconds{feed="calendar",mailbox="sales",watch="sales"} 120`, `triggerd_feed_freshness_seconds{feed="c-2dkzq1xa",mailbox="sales",watch="fairs"} 60`,
		`triggerd_subscription_expiry_timestamp_seconds{feed="calendars",mailbox="sales",watch="sales"}`,
		`triggerd_subscription_expiry_timestamp_seconds{feed="calendars",mailbox="sales",watch="fairs"}`,
		`triggerd_graph_requests_total{operation="message",status="429"}`, `triggerd_graph_requests_total{operation="message",status="none"}`,
		`triggerd_graph_requests_total{operation="message",status="other"}`, `triggerd_graph_throttled_total 1`,
		`triggerd_connection_state{connection="contoso",state="ok"}`, `triggerd_credential_expiry_timestamp_seconds{connection="contoso"}`,
		`triggerd_start_time_seconds 1.7`, `triggerd_subscriptions{state="missing"} 1`, `triggerd_push_announced_total 90`, `triggerd_push_missed_total 7`,
		`triggerd_quarantine_entries 3`, `triggerd_build_info{version="v1.0.0"}`, `triggerd_notifications_unaccounted 0`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
}

// With a thousand mailboxes there are three series for each, or as many for each watch.
func TestCardinality(t *testing.T) {
	r := busy(1000)
	series := func(perWatch bool) (n int) {
		w := httptest.NewRecorder()
		NewMetrics(&changing{report: r}, perWatch).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for line := range bytes.Lines(w.Body.Bytes()) {
			if bytes.HasPrefix(line, []byte("triggerd_")) {
				n++
			}
		}
		return n
	}
	if n := series(false); n < 3000 || n > 3120 {
		t.Errorf("%d series by feed", n)
	}
	if n := series(true); n > 120 {
		t.Errorf("%d series by watch", n)
	}
}

// With one series for each watch, that is the worst feed: the subscription that ends first, and the age and the interval of
// the feed that is most overdue, both of the same one, so that the alert on stale feeds compares what belongs together.
func TestTheWorstOfEachWatch(t *testing.T) {
	r := good()
	feed := func(label string, age, interval time.Duration) Feed {
		return Feed{Feed: 1, Inbox: 1, Area: event.AreaMail, Label: label, Mailboxes: map[string]string{"sales": "sales"}, RoundAt: now.Add(-age), BaselinedAt: now, Interval: interval}
	}
	r.Feeds = []Feed{feed("polled", 10*time.Minute, time.Minute), feed("pushed", 20*time.Minute, 15*time.Minute), feed("another", time.Minute, time.Minute)}
	w := httptest.NewRecorder()
	NewMetrics(&changing{report: r}, true).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`triggerd_feed_freshness_seconds{feed="_",mailbox="_",watch="sales"} 600`,
		`triggerd_feed_interval_seconds{feed="_",mailbox="_",watch="sales"} 60`,
		fmt.Sprintf(`triggerd_subscription_expiry_timestamp_seconds{feed="_",mailbox="_",watch="sales"} %.9g`, unix(r.Subscriptions[0].ExpiresAt)),
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}

// The dashboard is one that Grafana can load: every panel says what it shows, every query is one, and what it names exists.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile("../../configs/grafana/triggerd.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID           string
		SchemaVersion int
		Panels        []struct {
			ID                       int
			Type, Title, Description string
			Datasource               struct{ UID string }
			Targets                  []struct{ Expr string }
			GridPos                  struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	metrics, ids := scrape(t, false), map[int]bool{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: a second one of that id, without a title, or out of the grid", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q: no description, a fixed data source, or no query", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range lacks(metrics, target.Expr) {
				t.Errorf("panel %q: there is no metric %s", p.Title, name)
			}
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr)
			fmt.Fprintf(&rules, "  - {record: 'r%d', expr: %q}\n", rules.Len(), expr)
		}
	}
	if len(ids) < 20 || d.UID == "" || d.SchemaVersion == 0 {
		t.Errorf("%d panels, uid %q, schema %d", len(ids), d.UID, d.SchemaVersion)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
}
