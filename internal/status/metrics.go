package status

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ConnectionStates are the values of the label state of triggerd_connection_state.
var ConnectionStates = []string{"unknown", "ok", "unreachable", "throttled", "reauth_required", "consent_required", "credential_failed"}

var (
	descState = prometheus.NewDesc("triggerd_connection_state",
		"1 for the state a connection is in, 0 for the others.", []string{"connection", "state"}, nil)
	descExpiry = prometheus.NewDesc("triggerd_credential_expiry_timestamp_seconds",
		"When the certificate of a connection ends, as a Unix time; absent where it is not known.", []string{"connection"}, nil)
	descCertificate = prometheus.NewDesc("triggerd_certificate_expiry_timestamp_seconds",
		"When the public listener's certificate ends, as a Unix time; absent without TLS of its own.", []string{"source"}, nil)
	descBuild = prometheus.NewDesc("triggerd_build_info", "Always 1; the labels tell what runs.", []string{"version"}, nil)
)

// collector turns a report into metrics whenever it is asked, so that both never tell different things.
type collector struct{ src Source }

// Describe is prometheus.Collector's.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descState, descExpiry, descCertificate, descBuild} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	r := c.src.Report()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descBuild, 1, r.Version)
	if c := &r.Certificate; !c.NotAfter.IsZero() {
		gauge(descCertificate, float64(c.NotAfter.Unix()), c.Source)
	}
	for i := range r.Connections {
		conn := &r.Connections[i]
		for _, state := range ConnectionStates {
			v := 0.0
			if state == conn.State {
				v = 1
			}
			gauge(descState, v, conn.Name, state)
		}
		if !conn.CredentialExpiresAt.IsZero() {
			gauge(descExpiry, float64(conn.CredentialExpiresAt.Unix()), conn.Name)
		}
	}
}

// metrics serves the metrics for Prometheus.
func metrics(src Source) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{src}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}
