package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/daemon"
	"github.com/triggerd/triggerd/internal/service"
)

// serve runs the daemon until ctx is done, reloads the watch file on SIGHUP, and keeps the service manager informed.
func serve(ctx context.Context, d *daemon.Daemon, m *service.Manager) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		m.Stopping()
		return nil
	})
	g.Go(func() error { return d.Run(ctx) })
	line := func() string {
		r := d.Report()
		return r.Line()
	}
	g.Go(func() error {
		select {
		case <-d.Ready():
		case <-ctx.Done():
			return nil
		}
		m.Ready("starting")
		return m.Run(ctx, d.Alive, line)
	})
	g.Go(func() error {
		hup := make(chan os.Signal, 1)
		onHangup(hup)
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				m.Reloading()
				_ = d.Reload(ctx) // logged, and told by the report
				m.Ready(line())
			}
		}
	})
	return g.Wait()
}
