package daemon

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/status"
)

// report asks the daemon for its report once it answers. Edit may change the client.
func (w *world) report(edit func(*status.Client)) status.Report {
	w.t.Helper()
	client := status.NewClient(w.get("TRIGGERD_ADMIN_LISTEN"))
	if edit != nil {
		edit(client)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := client.Status(w.t.Context())
		if err == nil {
			return r
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
	}
}

// TestAdminBeyondLoopback listens on all addresses of the machine.
func TestAdminBeyondLoopback(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser("sales@contoso.com")
	file := filepath.Join(t.TempDir(), "token")
	first, second := strings.Repeat("a1", 16), strings.Repeat("b2", 16)
	must(t, os.WriteFile(file, []byte(first+"\n"), 0o600))
	_, port, _ := strings.Cut(w.get("TRIGGERD_ADMIN_LISTEN"), ":")
	w.set("TRIGGERD_ADMIN_LISTEN=0.0.0.0:"+port, "TRIGGERD_ADMIN_TOKEN_FILE="+file)
	d := w.start()
	if r := w.report(func(c *status.Client) { c.WithToken(first) }); len(r.Connections) != 1 {
		t.Errorf("report %+v", r)
	}
	get := func(shown string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1:"+port+"/metrics", nil)
		must(t, err)
		req.Host = "vm7.contoso.test"
		req.Header.Set("Authorization", "Bearer "+shown)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	if a, b := get(first), get(second); a != 200 || b != 401 {
		t.Errorf("the token is answered %d, another %d", a, b)
	}
	must(t, os.WriteFile(file, []byte(second), 0o600)) // replaced while the daemon runs
	if a, b := get(first), get(second); a != 401 || b != 200 {
		t.Errorf("the token of before is answered %d, that of now %d", a, b)
	}
	must(t, os.WriteFile(file, []byte("short"), 0o600))
	if a := get("short"); a != 503 {
		t.Errorf("a token that is too short is answered %d", a)
	}
	d.stop(t)
	log := d.errs.String()
	if !strings.Contains(log, "the admin listener speaks http") || strings.Contains(log, first) || strings.Contains(log, second) {
		t.Errorf("log = %s", log)
	}
}
