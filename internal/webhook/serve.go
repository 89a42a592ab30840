package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"

	"github.com/triggerd/triggerd/internal/logging"
)

// Limits of the public listener. Graph keeps connections open between notifications, so that idle ones live long.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 20 * time.Second // counted from the end of the headers: the body, the commit, the answer
	idleTimeout       = 3 * time.Minute
	shutdownTimeout   = 15 * time.Second
	maxHeaderBytes    = 16 << 10
	maxConnections    = 4096
	maxStreams        = 100 // requests at once on one HTTP/2 connection
)

// Serve answers requests on ln with h until ctx is done, over TLS when conf is not nil. It closes ln and returns only
// when the requests under way have been answered; nil because ctx is done.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, conf *tls.Config, logger zerolog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		TLSConfig:         conf,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          logging.HTTP(logger),
	}
	if conf != nil && conf.MinVersion == 0 {
		srv.TLSConfig = conf.Clone()
		srv.TLSConfig.MinVersion = tls.VersionTLS12 // Graph fails where only 1.3 is spoken (X-1a)
	}
	ln = netutil.LimitListener(ln, maxConnections)
	served := make(chan error, 1)
	go func() {
		if conf != nil {
			served <- srv.ServeTLS(ln, "", "")
		} else {
			served <- srv.Serve(ln)
		}
	}()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("public listener: %w", err), srv.Close())
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close() // somebody does not stop sending; their request was not answered, so that nothing is lost
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("public listener: %w", err)
	}
	return nil
}
