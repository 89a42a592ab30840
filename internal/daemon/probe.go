package daemon

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/triggerd/triggerd/internal/probe"
)

// Check asks what every connection can read.
func (d *Daemon) Check(ctx context.Context) []probe.Finding {
	graphs := map[string]probe.Graph{}
	for name, c := range d.graphs {
		graphs[name] = c
	}
	return probe.Run(ctx, d.opts.File, d.connections, graphs)
}

// handlers are what the admin listener serves for other rooms.
func (d *Daemon) handlers() map[string]http.Handler {
	out := d.connections.Handlers()
	out["POST /api/v1/check"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Check(r.Context())) // the client went away
	})
	return out
}
