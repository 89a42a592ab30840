package daemon

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"

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
	maps.Copy(out, d.quarantineHandlers())
	maps.Copy(out, d.opts.Handlers)
	out["GET /metrics"] = d.metrics
	out["GET /api/v1/backup"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		err := d.store.Backup(w, func(n int64) { w.Header().Set("Content-Length", strconv.FormatInt(n, 10)) })
		if err != nil { // the client notices that it is not whole
			d.log.Warn().Err(err).Msg("a backup was not finished")
		}
	})
	out["POST /api/v1/reload"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := d.Reload(r.Context())
		reply(w, map[string]int{"watches": len(d.now().file.Watches)}, err)
	})
	out["POST /api/v1/check"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.Check(r.Context())) // the client went away
	})
	return out
}
