package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/triggerd/triggerd/internal/clock"
	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/delta"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/freshness"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/subscriptions"
)

// generation is everything that depends on the watch file: the rooms that are stopped and made anew when it is read
// again, while the state, the listeners, the broker and what is being published stay. Whatever the rooms must remember
// is in the state, so that a reload is to them what a restart is: it touches nothing that did not change.
type generation struct {
	file          *config.File
	loadedAt      time.Time
	connections   *connections.Room
	graphs        map[string]*graph.Client // by connection
	delta         *delta.Room
	subscriptions *subscriptions.Room
	freshness     *freshness.Room
	clock         *clock.Room
	handlers      map[string]http.Handler // of the admin listener, by pattern
}

// now is the generation in force. Safe for concurrent use; never nil once wired.
func (d *Daemon) now() *generation { return d.current.Load() }

// generation makes the rooms for a watch file. Nothing runs yet and nothing is requested.
func (d *Daemon) generation(file *config.File) (*generation, error) {
	g := &generation{file: file, loadedAt: time.Now().UTC()}
	for _, step := range []func(*generation) error{d.connect, d.wireDelta, d.wireSubscriptions} {
		if err := step(g); err != nil {
			return nil, err
		}
	}
	g.freshness = freshness.New(d.store, freshness.Options{Views: func() []freshness.View { return d.views(g) }, Started: d.started, Every: d.opts.Every, Log: d.room("freshness")})
	g.clock = clock.New(d.store, clock.Options{Agenda: g.delta.Agenda, Every: d.opts.Every, Log: d.room("clock")})
	g.handlers = g.connections.Handlers()
	return g, nil
}

func (d *Daemon) wireDelta(g *generation) (err error) {
	s := &d.opts.Settings
	graphs, noDelta := map[string]delta.Graph{}, map[string]bool{}
	for name, c := range g.graphs {
		graphs[name], noDelta[name] = c, g.file.Connections[name].Cloud.NoDelta
	}
	g.delta, err = delta.New(d.store, delta.Options{
		Graphs: graphs, NoDelta: noDelta, Targets: d.targets(g),
		Poll: s.PollInterval, Sweep: s.SweepInterval, TrueUp: s.TrueUpInterval, Lag: s.DeltaLag, Every: d.opts.Every,
		PushOK: func(feed uint32) (bool, string) { return g.subscriptions.PushState(feed) },
		Silent: func(feed uint32, reason string) { g.subscriptions.Replace(feed, reason) },
		Paused: g.connections.Paused,
		Changed: func() {
			if g.subscriptions != nil { // feeds that are remembered are taken up before there is a room to tell
				g.subscriptions.Wake()
			}
		},
		Ended: d.metrics.Round,
		Log:   d.room("delta"),
	})
	return err
}

func (d *Daemon) wireSubscriptions(g *generation) error {
	s := &d.opts.Settings
	asks := map[string]subscriptions.Graph{}
	for name, c := range g.graphs {
		asks[name] = c
	}
	g.subscriptions = subscriptions.New(d.store, subscriptions.Options{
		Graphs: asks, Wants: g.wants, PublicURL: s.PublicURL, Every: d.opts.Every,
		Lifetime: func(string) time.Duration { return s.SubscriptionLifetime },
		CatchUp:  g.delta.CatchUp, TrueUp: g.delta.Resync, Paused: g.connections.Paused, Tell: d.tell(g),
		HTTP: &http.Client{Transport: d.opts.Transport, Timeout: 10 * time.Second},
		Log:  d.room("subscriptions"),
	})
	return nil
}

// tell makes the events about a subscription, one for each watch over its feed.
func (d *Daemon) tell(g *generation) func(uint32, string, time.Time, event.SubscriptionData) []event.Event {
	return func(feed uint32, name string, at time.Time, data event.SubscriptionData) (out []event.Event) {
		origins, folder := g.delta.Origins(feed)
		data.Folder = folder
		for _, o := range origins {
			e, err := event.NewSubscriptionEvent(o, name, at, data)
			if err != nil {
				d.log.Error().Err(err).Msg("an event about a subscription cannot be made")
				continue
			}
			out = append(out, e)
		}
		return out
	}
}

// views are all watches over all mailboxes, as delta leaves them.
func (d *Daemon) views(g *generation) []freshness.View {
	watched, canaries, now := g.delta.Watched(), map[string]time.Duration{}, time.Now()
	for i := range g.file.Watches {
		canaries[g.file.Watches[i].Name] = g.file.Watches[i].Canary
	}
	out := make([]freshness.View, 0, len(watched))
	for _, w := range watched {
		v := freshness.View{Origin: w.Origin, Connection: w.Connection, Problem: w.Problem, Paused: g.connections.Paused(w.Connection)}
		v.Silent = d.canaries.Silent(w.Origin.Watch, w.Origin.Token, canaries[w.Origin.Watch], now)
		for i := range w.Feeds {
			f := &w.Feeds[i]
			v.Feeds = append(v.Feeds, freshness.Feed{
				Folder: f.Folder, RoundAt: f.RoundAt, BaselinedAt: f.BaselinedAt, Interval: f.Interval, Push: f.Push, Error: f.Error,
			})
		}
		out = append(out, v)
	}
	return out
}

// wants lists the subscriptions that there should be.
func (g *generation) wants() []subscriptions.Want {
	feeds := g.delta.PushFeeds()
	out := make([]subscriptions.Want, 0, len(feeds))
	for _, f := range feeds {
		owner := "users/" + f.Mailbox
		if f.Mailbox == config.Me {
			owner = config.Me
		}
		resource := owner + "/events" // of all calendars (S-26, S-27)
		if f.FolderID != "" {
			resource = owner + "/mailFolders/" + f.FolderID + "/messages"
		}
		out = append(out, subscriptions.Want{Feed: f.Feed, Connection: f.Connection, Mailbox: f.Mailbox, Resource: resource})
	}
	return out
}

// resumed catches up with what a connection missed while it waited for a person.
func (g *generation) resumed(connection string) {
	g.delta.Resume(connection)
	g.subscriptions.Resume(connection)
}

// run runs the rooms until ctx is done or one fails.
func (g *generation) run(ctx context.Context) error {
	return runAll(ctx, map[string]runner{
		"connections": g.connections.Run, "delta": g.delta.Run, "subscriptions": g.subscriptions.Run,
		"freshness": g.freshness.Run, "clock": g.clock.Run,
	})
}

// reload is a watch file that is to be put in force.
type reload struct {
	file *config.File
	done chan error // gets the answer
}

// runGenerations runs the generation in force, and the next one whenever a reload brings it, until ctx is done.
func (d *Daemon) runGenerations(ctx context.Context) error {
	for ctx.Err() == nil {
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- d.now().run(running) }()
		select {
		case err := <-ended:
			stop()
			return err
		case next := <-d.next:
			stop()
			if err := errors.Join(<-ended, d.succeed(next)); err != nil {
				return err
			}
		}
	}
	return nil
}

// succeed puts the rooms of a new watch file in the place of those that have stopped. A file that was found good a
// moment ago and no longer is leaves the old one in force; an error means that not even that works any more.
func (d *Daemon) succeed(r reload) error {
	old := d.now()
	g, err := d.generation(r.file)
	if err != nil {
		again, broken := d.generation(old.file)
		if broken != nil {
			r.done <- err
			return fmt.Errorf("go on with the old watch file: %w", broken)
		}
		g, g.loadedAt = again, old.loadedAt
	}
	d.current.Store(g)
	r.done <- err
	return nil
}

// Reload reads the watch file again and puts it in force: watches that did not change keep their subscriptions, cursors
// and events. A file that cannot be used is refused, and the old one stays in force; the report says so too. One Reload
// waits for the other.
func (d *Daemon) Reload(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	err := d.replace(ctx)
	switch {
	case err == nil:
		d.refused.Store(nil)
		d.log.Info().Int("watches", len(d.now().file.Watches)).Msg("watch file reloaded")
	case ctx.Err() == nil:
		d.refused.Store(&refusal{err.Error(), time.Now().UTC()})
		d.log.Error().Err(err).Msg("watch file refused, the old one stays in force")
	}
	return err
}

func (d *Daemon) replace(ctx context.Context) error {
	if d.opts.Load == nil {
		return errors.New("this daemon was started without a watch file that could be read again")
	}
	file, err := d.opts.Load()
	if err != nil {
		return err
	}
	if err := d.connect(&generation{file: file}); err != nil { // tries what can fail while the old rooms still run
		return err
	}
	r := reload{file, make(chan error, 1)}
	select {
	case d.next <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refusal is a watch file that was not put in force.
type refusal struct {
	why string
	at  time.Time
}

// sameConnection reports whether a connection is configured as before, so that its client may go on: it knows for how
// long Graph wants to be left alone.
func sameConnection(old *generation, c config.Connection) bool {
	if old == nil {
		return false
	}
	was, ok := old.file.Connections[c.Name]
	return ok && reflect.DeepEqual(was, c)
}

// tokens are those of the connection as it is now configured.
type tokens struct {
	d    *Daemon
	name string
}

var errNotConfigured = errors.New("the connection is not configured any more")

// Token is graph.TokenSource's.
func (t tokens) Token(ctx context.Context) (string, error) {
	src := t.d.now().connections.Source(t.name)
	if src == nil {
		return "", errNotConfigured
	}
	return src.Token(ctx)
}

// Refused is graph.TokenSource's.
func (t tokens) Refused(token, claims string) {
	if src := t.d.now().connections.Source(t.name); src != nil {
		src.Refused(token, claims)
	}
}
