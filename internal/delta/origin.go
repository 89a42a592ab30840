package delta

import (
	"slices"
	"time"

	"github.com/triggerd/triggerd/internal/changes"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Origins are the watches over what a subscription is for, and its folder: nil for the calendars of a mailbox. There are
// none when nobody watches it.
func (r *Room) Origins(num uint32) (out []event.Origin, folder *event.Folder) {
	told := map[string]bool{}
	for _, f := range r.served(num) {
		for _, o := range f.origins() {
			if !told[o.Watch] {
				told[o.Watch] = true
				out = append(out, o)
			}
		}
		folder = f.mailFolder()
	}
	return out, folder
}

func (f *feed) origins() []event.Origin {
	naming := f.mb.naming()
	watches := f.wanted.Load().watches
	out := make([]event.Origin, 0, len(watches))
	for _, w := range watches {
		out = append(out, event.Origin{Tenant: naming.Tenant, Watch: w.Name, Token: w.Token, UserID: naming.UserID, Alias: w.Alias})
	}
	return out
}

// mailFolder describes the folder that the feed reads; nil when it reads a calendar.
func (f *feed) mailFolder() *event.Folder {
	if f.kind != store.MailFolder {
		return nil
	}
	folders := f.mb.naming().Folders
	return &event.Folder{ID: f.folder, WellKnownName: folders[f.folder].WellKnown, Path: changes.Path(folders, f.folder)}
}

// planned are the reasons of enumerations that no doubt has caused.
var planned = []string{"baseline", "more content", "start", "trueup", "window", "series"}

// gapClosed makes the events that tell that everything was compared after a doubt, to be committed with the end of the
// round. published is how many events the difference was.
func (r *reading) gapClosed(now time.Time, published int) (out []event.Event) {
	if !r.full || r.folderGone || slices.Contains(planned, r.reason) {
		return nil
	}
	for _, o := range r.f.origins() {
		e, err := event.NewWatchEvent(o, event.GapClosed, now, event.WatchData{
			Connection: r.f.mb.target.Connection, FreshAt: r.started, Since: r.rec.RoundAt, Folder: r.f.mailFolder(), Calendar: r.f.describedCalendar(), Published: published, Reason: r.reason,
		})
		if err != nil {
			r.f.log.Error().Err(err).Msg("an event about the watch cannot be made")
			continue
		}
		out = append(out, e)
	}
	return out
}
