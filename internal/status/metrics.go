package status

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/triggerd/triggerd/internal/event"
)

// Metrics are what the rooms observe while they work; everything that can be told from the report is told from it, so
// that metrics and status never disagree. Its methods are cheap, never block, and are safe for concurrent use. The labels
// have fixed sets of values: nobody outside can add one.
type Metrics struct {
	reg       *prometheus.Registry
	ack       prometheus.Histogram
	events    *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	rounds    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	throttled prometheus.Counter
}

// NewMetrics makes the metrics, and fills in from src what the report tells. Where perWatch is set, series of feeds are
// left out in favour of one for each watch: the soonest expiry and the feed that is most overdue.
func NewMetrics(src Source, perWatch bool) *Metrics {
	m := &Metrics{
		reg: prometheus.NewRegistry(),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "triggerd_notification_ack_seconds", Help: "From a request of Graph to its answer 202. Graph gives up after 3 seconds.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 3},
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "triggerd_events_total", Help: "Events that NATS has acknowledged, since the start.",
		}, []string{"area", "event", "via"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "triggerd_event_latency_seconds", Help: "From the time of a change in the mailbox, in whole seconds, or from when the start of a meeting was to be told (via clock), to the acknowledgement of its event by NATS.",
			Buckets: []float64{.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600},
		}, []string{"via"}),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "triggerd_delta_rounds_total", Help: "Rounds of feeds that ended, by what asked for them and how they ended.",
		}, []string{"reason", "result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "triggerd_graph_requests_total", Help: "Requests to Graph, by operation and HTTP status; status none: no answer.",
		}, []string{"operation", "status"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "triggerd_graph_throttled_total", Help: "Answers 429 of Graph.",
		}),
	}
	m.reg.MustRegister(m.ack, m.events, m.latency, m.rounds, m.requests, m.throttled,
		collector{src, perWatch}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ServeHTTP serves them to Prometheus.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// Acked notes how long Graph waited for a 202.
func (m *Metrics) Acked(d time.Duration) { m.ack.Observe(d.Seconds()) }

// Published notes an event that NATS has acknowledged at a time.
func (m *Metrics) Published(e *event.Event, at time.Time) {
	m.events.WithLabelValues(e.Area, e.Name, string(e.Via)).Inc()
	if e.Numbered() {
		m.latency.WithLabelValues(string(e.Via)).Observe(max(0, at.Sub(e.Time).Seconds()))
	}
}

// roundReasons are the values of the label reason; everything else is catchup: somebody asked for a round, in words. The
// window of a calendar that moves on with the time is read as a whole, like a true-up, and told apart from those.
var roundReasons = map[string]string{
	"baseline": "baseline", "more content": "baseline", "start": "baseline", "push": "push", "poll": "poll", "trueup": "trueup",
	"no cursor": "resync", "resync": "resync", "window": "window",
}

// Round notes the end of a feed's round.
func (m *Metrics) Round(reason string, ok bool) {
	label, known := roundReasons[reason]
	if !known {
		label = "catchup"
	}
	result := "ok"
	if !ok {
		result = "failed"
	}
	m.rounds.WithLabelValues(label, result).Inc()
}

// Requested notes a request to Graph; status 0 means that there was no answer. Operations are those of the client.
func (m *Metrics) Requested(operation string, status int, _ time.Duration) {
	label := strconv.Itoa(status)
	switch {
	case status == 0:
		label = "none"
	case http.StatusText(status) == "": // what a proxy makes up
		label = "other"
	case status == http.StatusTooManyRequests:
		m.throttled.Inc()
	}
	m.requests.WithLabelValues(strings.ReplaceAll(operation, " ", "_"), label).Inc()
}
