package status

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestMetricsOfConnections(t *testing.T) {
	src := &source{report: good()}
	src.report.Connections = append(src.report.Connections, Connection{
		Name: "fabrikam", State: "reauth_required", CredentialExpiresAt: time.Unix(1_800_000_000, 0),
	})
	src.report.Certificate = certificateOf("acme", 90, 60)
	w := httptest.NewRecorder()
	NewMetrics(src, false).ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	for _, want := range []string{
		`triggerd_build_info{version="v1.0.0"} 1`,
		`triggerd_connection_state{connection="contoso",state="ok"} 1`,
		`triggerd_connection_state{connection="contoso",state="reauth_required"} 0`,
		`triggerd_connection_state{connection="fabrikam",state="ok"} 0`,
		`triggerd_connection_state{connection="fabrikam",state="reauth_required"} 1`,
		`triggerd_credential_expiry_timestamp_seconds{connection="fabrikam"} 1.8e+09`,
		`triggerd_certificate_expiry_timestamp_seconds{source="acme"} 1.8006948e+09`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(string(body), `expiry_timestamp_seconds{connection="contoso"}`) {
		t.Error("an expiry that is not known is told")
	}
}
