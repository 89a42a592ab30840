package daemon

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/triggerd/triggerd/internal/probe"
)

// Check asks what every connection can read.
func (d *Daemon) Check(ctx context.Context) []probe.Finding {
	g := d.now()
	graphs := map[string]probe.Graph{}
	for name, c := range g.graphs {
		graphs[name] = c
	}
	return probe.Run(ctx, g.file, g.connections, graphs)
}

// handlers are what the admin listener serves for other rooms.
func (d *Daemon) handlers() map[string]http.Handler {
	out := map[string]http.Handler{}
	for pattern := range d.now().handlers {
		out[pattern] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.now().handlers[pattern].ServeHTTP(w, r) })
	}
	out["GET /metrics"] = d.metrics
	out["POST /api/v1/reload"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{"watches": 0}
		if err := d.Reload(r.Context()); err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer = map[string]any{"error": err.Error()}
		} else {
			answer["watches"] = len(d.now().file.Watches)
		}
		_ = json.NewEncoder(w).Encode(answer) // the client went away
	})
	out["POST /api/v1/check"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Check(r.Context())) // the client went away
	})
	return out
}
