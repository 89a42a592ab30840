package delta

import (
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
)

// Origins are the watches over a feed, and its folder; none when nobody watches it.
func (r *Room) Origins(num uint32) ([]event.Origin, event.Folder) {
	f := r.feed(num)
	if f == nil {
		return nil, event.Folder{}
	}
	return f.origins()
}

func (f *feed) origins() ([]event.Origin, event.Folder) {
	naming := f.mb.naming()
	watches := f.wanted.Load().watches
	out := make([]event.Origin, 0, len(watches))
	for _, w := range watches {
		out = append(out, event.Origin{Tenant: naming.Tenant, Watch: w.Name, Token: w.Token, UserID: naming.UserID, Alias: w.Alias})
	}
	return out, event.Folder{ID: f.folder, WellKnownName: naming.Folders[f.folder].WellKnown, Path: changes.Path(naming.Folders, f.folder)}
}

// planned are the reasons of enumerations that no doubt has caused.
var planned = []string{"baseline", "more content", "start", "trueup"}

// gapClosed makes the events that tell that everything was compared after a doubt, to be committed with the end of the
// round. published is how many events the difference was.
func (r *round) gapClosed(fin *finish, now time.Time, published int) (out []event.Event) {
	if fin == nil || fin.confirmed != nil || !r.full || r.folderGone || slices.Contains(planned, r.reason) {
		return nil
	}
	origins, folder := r.f.origins()
	for _, o := range origins {
		e, err := event.NewWatchEvent(o, event.GapClosed, now, event.WatchData{
			Connection: r.f.mb.target.Connection, FreshAt: r.started, Since: r.rec.RoundAt, Folder: &folder, Published: published, Reason: r.reason,
		})
		if err != nil {
			r.f.log.Error().Err(err).Msg("an event about the watch cannot be made")
			continue
		}
		out = append(out, e)
	}
	return out
}
