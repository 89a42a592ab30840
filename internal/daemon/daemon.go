// Package daemon introduces the rooms to each other, runs them, and stops them. It decides nothing by itself.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/freshness"
	"github.com/triggerd/triggerd/internal/publish"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
	"github.com/triggerd/triggerd/internal/webhook"
)

// Options are what a daemon is made of.
type Options struct {
	Settings  config.Settings
	File      *config.File
	Log       zerolog.Logger
	Version   string
	Transport http.RoundTripper            // to Graph and the login endpoint; nil: the network
	Load      func() (*config.File, error) // reads the watch file again; nil: Reload is not used
	Public    net.Listener                 // nil: opened from the settings
	Admin     net.Listener                 // likewise
	Handlers  map[string]http.Handler      // what else the admin listener serves, by pattern
	Every     time.Duration                // between the looks of the rooms at what is due; 0: what each finds right
}

// Daemon is the whole of triggerd in one process.
type Daemon struct {
	opts    Options
	log     zerolog.Logger
	started time.Time
	ready   chan struct{}
	once    sync.Once

	store         *store.Store
	embedded      *publish.Embedded // nil with a broker of its own
	webhook       *webhook.Handler
	publisher     *publish.Publisher
	current       atomic.Pointer[generation]
	next          chan reload // to runGenerations
	reloading     sync.Mutex
	refused       atomic.Pointer[refusal]
	canaries      freshness.Canaries
	metrics       *status.Metrics
	recorder      status.Recorder
	certificate   certificates // nil: the public listener speaks http
	public, admin net.Listener
}

// New opens the state, the embedded broker and the listeners, and wires the rooms. What it opened is closed by Run, or
// at once when it returns an error.
func New(o Options) (d *Daemon, err error) {
	d = &Daemon{opts: o, log: o.Log, started: time.Now().UTC(), ready: make(chan struct{}), next: make(chan reload)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
			d = nil
		}
	}()
	dir := o.Settings.StateDir
	switch err := os.MkdirAll(dir, 0o700); {
	case errors.Is(err, syscall.ENOTDIR):
		return d, fmt.Errorf("state directory: %w: move the file away, or set TRIGGERD_STATE_DIR", err)
	case err != nil:
		return d, fmt.Errorf("state directory: %w: create it for the user triggerd runs as, or set TRIGGERD_STATE_DIR", err)
	}
	if d.store, err = store.Open(dir, store.Options{}); err != nil {
		return d, err
	}
	if d.public, err = listen(o.Public, o.Settings.Listen, "TRIGGERD_LISTEN"); err != nil {
		return d, err
	}
	if d.admin, err = listen(o.Admin, o.Settings.AdminListen, "TRIGGERD_ADMIN_LISTEN"); err != nil {
		return d, err
	}
	if o.Settings.NATSURL == "" {
		d.embedded, err = publish.StartEmbedded(filepath.Join(dir, "nats"), o.Settings.NATSListen, d.room("nats"))
		if err != nil {
			return d, err
		}
	}
	return d, d.wire()
}

func listen(given net.Listener, addr, variable string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: stop what listens there, or choose another address", variable, err)
	}
	return l, nil
}

func (d *Daemon) room(name string) zerolog.Logger { return d.log.With().Str("room", name).Logger() }

// wire makes the rooms. Data moves one way: webhook → inbox → delta → outbox → publish; subscriptions runs beside.
func (d *Daemon) wire() error {
	if err := d.wirePublisher(); err != nil {
		return err
	}
	if err := d.wireCertificate(); err != nil {
		return err
	}
	return d.wireGraph()
}

func (d *Daemon) wirePublisher() (err error) {
	s := &d.opts.Settings
	d.publisher, err = publish.New(d.store, publish.Options{
		URL: s.NATSURL, CredsFile: s.NATSCredsFile, NKeyFile: s.NATSNKeyFile,
		TLSCAFile: s.NATSTLSCAFile, TLSCertFile: s.NATSTLSCertFile, TLSKeyFile: s.NATSTLSKeyFile,
		InProcess: d.embedded, Stream: s.Stream, SubjectPrefix: s.SubjectPrefix, Structured: s.EventMode == "structured",
		AckHold: s.AckHold, Log: d.room("publish"), OnPublished: d.published,
	})
	return err
}

// published is told of every PubAck.
func (d *Daemon) published(e *event.Event, at time.Time) {
	d.metrics.Published(e, at)
	d.recorder.Published(e, d.opts.Settings.SubjectPrefix, at)
	if e.Numbered() {
		d.canaries.Published(e.Watch, e.Mailbox, at)
	}
}

// wireGraph makes the rooms that speak with Graph, and the handler of what Graph posts.
func (d *Daemon) wireGraph() error {
	d.metrics = status.NewMetrics(d, d.opts.Settings.Metrics == "watch")
	g, err := d.generation(d.opts.File)
	if err != nil {
		return err
	}
	d.current.Store(g)
	d.webhook = webhook.New(webhook.Options{
		Store:         d.store,
		Wake:          func(feed uint32) { d.now().delta.Wake(feed) },
		WakeLifecycle: func() { d.now().subscriptions.Wake() },
		Acked:         d.metrics.Acked,
		Log:           d.room("webhook"),
	})
	return nil
}

// Ready is closed when the state is open and the listeners accept.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Run runs every room until ctx is done or one fails, returns when all have stopped, and closes the state last.
func (d *Daemon) Run(ctx context.Context) error {
	d.log.Info().Str("version", d.opts.Version).Str("listen", d.public.Addr().String()).Str("admin", d.admin.Addr().String()).
		Str("nats", d.natsURL()).Str("state_dir", d.opts.Settings.StateDir).Msg("triggerd runs")
	d.once.Do(func() { close(d.ready) })
	rooms := map[string]runner{
		"store":    d.store.Run,
		"publish":  d.publisher.Run,
		"watches":  d.runGenerations,
		"recorder": func(ctx context.Context) error { return d.recorder.Run(ctx, d.Report) },
		"webhook": func(ctx context.Context) error {
			return webhook.Serve(ctx, d.public, d.webhook, d.publicTLS(), d.room("webhook"))
		},
		"status": func(ctx context.Context) error {
			return status.Serve(ctx, d.admin, d.adminHandler(), d.room("status"))
		},
	}
	if d.certificate != nil {
		rooms["certificate"] = d.certificate.Run
	}
	return errors.Join(runAll(ctx, rooms), d.close())
}

// Alive returns nil when what must never stand still gets on: the database and the schedulers. Otherwise it returns what
// does not, when ctx is done.
func (d *Daemon) Alive(ctx context.Context) error {
	g := d.now()
	for _, ping := range []func(context.Context) error{d.store.Ping, g.delta.Ping, g.subscriptions.Ping, g.clock.Ping} {
		if err := ping(ctx); err != nil {
			return err
		}
	}
	return nil
}

type runner func(context.Context) error

// runAll runs every room until ctx is done or one fails, and returns when all have stopped.
func runAll(ctx context.Context, rooms map[string]runner) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, run := range rooms {
		g.Go(func() error {
			if err := run(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (d *Daemon) natsURL() string {
	if d.embedded != nil {
		return d.embedded.ClientURL()
	}
	return d.opts.Settings.NATSURL
}

// close closes what New opened, the state last.
func (d *Daemon) close() (err error) {
	for _, l := range []net.Listener{d.public, d.admin} {
		if l != nil {
			if cerr := l.Close(); !errors.Is(cerr, net.ErrClosed) {
				err = errors.Join(err, cerr)
			}
		}
	}
	if d.embedded != nil {
		d.embedded.Shutdown()
	}
	if d.store != nil {
		err = errors.Join(err, d.store.Close())
	}
	return err
}

// Resync asks for a full enumeration of all feeds of a watch and says how many there are.
func (d *Daemon) Resync(watch string) (feeds int, err error) {
	g := d.now()
	for _, w := range g.file.Watches {
		if w.Name == watch {
			return g.delta.ResyncWatch(watch, "asked for"), nil
		}
	}
	return 0, fmt.Errorf("no watch is called %q", watch)
}

// AdminAddr is where the admin listener accepts.
func (d *Daemon) AdminAddr() string { return d.admin.Addr().String() }
