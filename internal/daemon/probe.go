package daemon

import (
	"context"

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
