package daemon

import (
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"strconv"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

// adminHandler serves the admin listener, behind the token where there is one.
func (d *Daemon) adminHandler() http.Handler {
	file := d.opts.Settings.AdminTokenFile
	if file == "" {
		return status.Handler(d, d.handlers())
	}
	if a, ok := d.admin.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		d.log.Warn().Str("admin", a.String()).Msg("the admin listener speaks http, and its token crosses the network in clear: put a VPN or a proxy with TLS in front")
	}
	return status.Guarded(d, d.handlers(), func() (string, error) {
		token, err := config.ReadToken(file)
		return token.Reveal(), err
	})
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
	out["POST /api/v1/check"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reply(w, d.Check(r.Context()), nil) })
	return out
}

// reply answers with JSON, or with an error in it.
func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case err == nil:
	case errors.Is(err, store.ErrNotParked):
		w.WriteHeader(http.StatusNotFound)
	default:
		w.WriteHeader(http.StatusConflict)
	}
	if err != nil {
		v = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // the client went away
}
