package daemon

import (
	"net"
	"net/http"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/status"
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
