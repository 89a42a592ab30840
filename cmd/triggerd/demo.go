package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/daemon"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/publish"
)

func demoCommand() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "All of it on a laptop: a Graph emulator, the daemon and NATS in one process",
		Long: "Lets mail and meetings arrive in two mailboxes, one of them shared, and prints the events: by push, one whose notification\n" +
			"is lost on purpose and caught by delta, a move, meetings that are rescheduled, answered, cancelled and about to start, a\n" +
			"series with a date that was moved and one that was deleted, a renewal. Needs no tenant, no broker and no file. Ends on Ctrl-C.",
		Example: "  triggerd demo\n  triggerd demo --for 40s\n  triggerd demo --import ~/mail.mbox --import ~/calendar.ics",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = &lines{w: cmd.OutOrStdout()}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&d.length, "for", 0, "end after so long; 0: on Ctrl-C")
	cmd.Flags().StringArrayVar(&d.imports, "import", nil, "your own mail and meetings: an .eml or .ics file, a folder of them, or an mbox; may be repeated")
	cmd.Flags().BoolVar(&d.asJSON, "json", false, "print each event as one line of CloudEvents JSON, and nothing else")
	cmd.Flags().StringVar(&d.natsListen, "nats-listen", "127.0.0.1:4222", "host:port of the embedded broker")
	cmd.Flags().StringVar(&d.keep, "keep", "", "keep the state in this directory instead of a temporary one")
	return cmd
}

const (
	demoUser     = "sales@contoso.com"
	demoShared   = "support@contoso.com"
	demoLifetime = 60 * time.Second // of subscriptions, so that a renewal is seen within the first minute
	demoLead     = 15 * time.Second // before its start a meeting is told of
)

const demoYAML = `
clouds:
  demo: {graph: "%[1]s/v1.0", login: "%[1]s", like: global}
connections:
  demo: {cloud: demo, tenant: %[2]s, client_id: %[3]s, auth: app, client_secret_file: %[4]q}
watches:
  demo:
    connection: demo
    mailboxes: [{address: sales@contoso.com, alias: sales}, {address: support@contoso.com, alias: support}]
    mail: {folders: [inbox, sentitems, drafts, archive]}
    calendar: {starting: [%[5]v], window: {past: 366d, future: 366d}}
    content: preview
`

// demo is one run of the demonstration.
type demo struct {
	length     time.Duration
	imports    []string
	asJSON     bool
	natsListen string
	keep       string

	out    *lines
	dir    string
	root   string // base URL of the emulator
	emu    *emulator.Server
	daemon *daemon.Daemon
	nats   string
	events int
}

// lines writes whole lines from several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// say narrates, unless only events were asked for.
func (d *demo) say(format string, args ...any) {
	if !d.asJSON {
		fmt.Fprintf(d.out, format+"\n", args...)
	}
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	if d.dir = d.keep; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "triggerd-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	}
	graph, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.root = "http://" + graph.Addr().String()
	d.emu = emulator.New(emulator.Options{
		Root: d.root, MinLifetime: 10 * time.Second, DeliverDelay: 100 * time.Millisecond, Seed: time.Now().UnixNano(),
	})
	d.emu.AddUser(demoUser)
	d.emu.AddUser(demoShared)
	if err := d.makeDaemon(); err != nil {
		return errors.Join(err, graph.Close())
	}
	d.greet()
	return serveEmulator(ctx, graph, d.emu, d.play)
}

// makeDaemon configures the daemon as an operator would, with shorter times.
func (d *demo) makeDaemon() error {
	tenant, client, secret := d.emu.Credentials()
	secretFile := filepath.Join(d.dir, "secret")
	if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
		return err
	}
	file, err := config.Parse("demo.yaml", fmt.Appendf(nil, demoYAML, d.root, tenant, client, secretFile, demoLead))
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := listenNear("127.0.0.1:8081")
	if err != nil {
		return err
	}
	broker, err := listenNear(d.natsListen)
	if err != nil {
		return err
	}
	if err := broker.Close(); err != nil { // it was only asked whether the port is free
		return err
	}
	d.natsListen = broker.Addr().String()
	d.daemon, err = daemon.New(daemon.Options{
		Settings: config.Settings{
			StateDir: filepath.Join(d.dir, "state"), PublicURL: "http://" + public.Addr().String(), NATSListen: d.natsListen,
			Stream: "GRAPH", SubjectPrefix: "graph", EventMode: "binary", PollInterval: 2 * time.Second, SweepInterval: 5 * time.Second,
			TrueUpInterval: time.Hour, DeltaLag: 5 * time.Second, AckHold: 15 * time.Minute, SubscriptionLifetime: demoLifetime,
		},
		File: file, Log: zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: !colours(os.Stderr)}).Level(zerolog.ErrorLevel),
		Version: version().Version, Public: public, Admin: admin,
	})
	d.nats = "nats://" + d.natsListen
	return err
}

// listenNear takes another port when the wanted one is taken.
func listenNear(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	host, _, serr := net.SplitHostPort(addr)
	if serr != nil {
		return nil, usage(fmt.Errorf("%q is not an address: write host:port", addr))
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

func (d *demo) greet() {
	d.say("A Microsoft Graph emulator, triggerd and NATS run in this process. The mail and meetings of two mailboxes are watched: %s, and the shared %s.", demoUser, demoShared)
	d.say("From another terminal:\n\n  nats sub --server %s 'graph.>'\n  TRIGGERD_NATS_URL=%s triggerd tail\n  TRIGGERD_ADMIN_LISTEN=%s triggerd status\n\nIn a browser: http://%s/\n",
		d.nats, d.nats, d.daemon.AdminAddr(), d.daemon.AdminAddr())
	d.say("TIME          MAILBOX    EVENT        VIA    SEQ   WHAT")
}

// play runs the daemon, the printer, the narrator of renewals and the script until ctx is done.
func (d *demo) play(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	dctx, stopDaemon := context.WithCancel(gctx)
	defer stopDaemon()
	g.Go(func() error { return d.daemon.Run(dctx) })
	printed := make(chan error, 1)
	reading := make(chan struct{})
	pctx, stopPrinter := context.WithCancel(gctx)
	defer stopPrinter()
	go func() { printed <- d.print(pctx, reading) }()
	beside, bctx := errgroup.WithContext(work)
	beside.Go(func() error { return d.renewals(bctx) })
	beside.Go(func() error {
		select {
		case <-reading:
		case <-bctx.Done():
			return nil
		}
		return d.script(bctx)
	})
	select {
	case <-ctx.Done():
	case <-gctx.Done(): // the daemon failed
	}
	stop()
	err := beside.Wait()
	stopPrinter()
	err = errors.Join(err, <-printed, d.verdict())
	stopDaemon()
	return errors.Join(err, g.Wait())
}

// print shows events as they are published.
func (d *demo) print(ctx context.Context, reading chan<- struct{}) error {
	o := publish.Options{URL: d.nats, Stream: "GRAPH", SubjectPrefix: "graph"}
	t := publish.TailOptions{All: true, Wait: true, OnReady: func() { close(reading) }}
	return publish.Tail(ctx, o, t, func(r publish.Received) error {
		d.events++
		return printEvent(d.out, &r, d.asJSON)
	})
}

// renewals tells of each renewal.
func (d *demo) renewals(ctx context.Context) error {
	known := map[string]time.Time{}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		rep := d.daemon.Report()
		for i := range rep.Subscriptions {
			s := &rep.Subscriptions[i]
			if !s.RenewedAt.IsZero() && known[s.ID] != s.RenewedAt {
				known[s.ID] = s.RenewedAt
				d.say("%s  ↻ subscription of %s %s renewed, expires in %v", s.RenewedAt.Local().Format("15:04:05.000"), s.Mailbox, s.Folder,
					s.ExpiresAt.Sub(rep.At).Round(time.Second))
			}
		}
	}
}

// script lets things happen, and then goes on delivering mail.
func (d *demo) script(ctx context.Context) error {
	s, err := newStory(d)
	if err != nil {
		return err
	}
	if err := d.subscribed(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := importAll(narration{d}, d.emu, demoUser, d.imports); err != nil {
		fmt.Fprintln(os.Stderr, "not imported:\n"+indent(err.Error(), "  "))
	}
	for _, step := range s.steps() {
		if !pause(ctx, step.after) {
			return nil
		}
		d.say("%s", step.text)
		if err := step.do(); err != nil {
			return err
		}
	}
	d.say("· subscriptions live for %v here and are renewed after half of it; mail goes on arriving", demoLifetime)
	for i := 3; pause(ctx, 6*time.Second); i++ {
		if _, err := d.emu.Deliver([]string{demoUser, demoShared}[i%2], sampleMail(i)); err != nil {
			return err
		}
	}
	return nil
}

// narration writes where say does.
type narration struct{ d *demo }

func (n narration) Write(p []byte) (int, error) {
	n.d.say("· %s", trimNewline(p))
	return len(p), nil
}

// subscribed waits until push works.
func (d *demo) subscribed(ctx context.Context) error {
	for pause(ctx, 100*time.Millisecond) {
		if len(d.emu.Subscriptions()) == 10 { // of each mailbox four folders, and one for all its calendars
			return nil
		}
	}
	return nil
}

// pause reports false when ctx is done first.
func pause(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// verdict sums up, and fails when the emulator was mistreated or the books do not balance.
func (d *demo) verdict() error {
	rep := d.daemon.Report()
	n := rep.Notifications
	settled := uint64(0)
	for _, v := range n.Settled {
		settled += v
	}
	d.say("\n%d events; notifications: %d accepted = %d settled + %d pending; violations of Graph's contract: %d",
		d.events, n.Accepted, settled, n.Pending, len(d.emu.Violations()))
	if v := d.emu.Violations(); len(v) > 0 {
		text, err := json.Marshal(v)
		return errors.Join(fmt.Errorf("Graph's contract was violated: %s", text), err)
	}
	if n.Accepted != settled+n.Pending {
		return errors.New("notifications do not add up")
	}
	return nil
}
