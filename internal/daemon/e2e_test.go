package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/publish"
)

// childVariable makes the test binary run a daemon instead of tests, so that it can be killed.
const childVariable = "DAEMON_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs a daemon until standard input is closed.
func child() error {
	os.Unsetenv(childVariable)
	set, err := config.LoadSettings()
	if err != nil {
		return err
	}
	file, err := config.Load(set.Config)
	if err != nil {
		return err
	}
	d, err := New(Options{Settings: set, File: file, Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel)})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	fmt.Println("ready")
	return d.Run(ctx)
}

// world is an emulator and a broker on real sockets.
type world struct {
	t      *testing.T
	emu    *emulator.Server
	broker *publish.Embedded
	js     jetstream.JetStream
	env    []string
}

func newWorld(t *testing.T, o emulator.Options) *world {
	t.Helper()
	w := &world{t: t}
	server := httptest.NewUnstartedServer(nil)
	o.Root = "http://" + server.Listener.Addr().String()
	o.NoLimits, o.PageSize = true, 100
	w.emu = emulator.New(o)
	server.Config.Handler = w.emu
	server.Start()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.emu.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		server.Close()
		if v := w.emu.Violations(); len(v) > 0 {
			t.Errorf("the contract was violated:\n%s", strings.Join(v, "\n"))
		}
	})
	var err error
	if w.broker, err = publish.StartEmbedded(t.TempDir(), "127.0.0.1:0", zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Shutdown)
	nc, err := nats.Connect(w.broker.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if w.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	w.configure(o.Root)
	return w
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) configure(root string) {
	w.t.Helper()
	dir := w.t.TempDir()
	tenant, client, secret := w.emu.Credentials()
	files := map[string]string{
		"secret": secret,
		"triggerd.yaml": fmt.Sprintf(`
clouds:
  lab: {graph: %q, login: %q, like: global}
connections:
  contoso: {cloud: lab, tenant: %s, client_id: %s, auth: app, client_secret_file: %s}
watches:
  sales:
    connection: contoso
    mailboxes: [{address: sales@contoso.com, alias: sales}]
    mail: {folders: [inbox, sentitems], events: [received, sent, read, unread, flagged, categorized, moved, deleted, updated]}
    content: preview
`, root+"/v1.0", root, tenant, client, filepath.Join(dir, "secret")),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	listen := freeAddress(w.t)
	w.env = []string{
		"TRIGGERD_CONFIG=" + filepath.Join(dir, "triggerd.yaml"), "TRIGGERD_STATE_DIR=" + w.t.TempDir(),
		"TRIGGERD_LISTEN=" + listen, "TRIGGERD_PUBLIC_URL=http://" + listen, "TRIGGERD_ADMIN_LISTEN=" + freeAddress(w.t),
		"TRIGGERD_NATS_URL=" + w.broker.ClientURL(), "TRIGGERD_POLL_INTERVAL=2s", "TRIGGERD_SWEEP_INTERVAL=3s", "TRIGGERD_DELTA_LAG=2s",
	}
}

// daemon is a triggerd in a process of its own.
type daemonProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	errs  strings.Builder
}

// start runs a daemon and returns when its state is open.
func (w *world) start() *daemonProcess {
	w.t.Helper()
	p := &daemonProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(append(os.Environ(), w.env...), childVariable+"=1")
	p.cmd.Stderr = &p.errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		p.cmd.Wait()
		w.t.Fatalf("daemon did not start: %s", p.errs.String())
	}
	return p
}

func (p *daemonProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func (p *daemonProcess) stop(t *testing.T) {
	t.Helper()
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("daemon: %v\n%s", err, p.errs.String())
	}
}

// collect reads the stream with nats.go from its beginning, until enough says so or a minute has passed.
func (w *world) collect(enough func(subjects map[string]int, last jetstream.Msg) bool) []jetstream.Msg {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var cons jetstream.Consumer
	var err error
	for { // until the daemon has made the stream
		if cons, err = w.js.OrderedConsumer(ctx, "GRAPH", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"graph.*.*.mail.*", "graph.*.*.calendar.*"}}); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("no stream: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	var msgs []jetstream.Msg
	seen := map[string]int{}
	for {
		m, err := cons.Next(jetstream.FetchContext(ctx))
		if err != nil {
			w.t.Errorf("only %d messages came: %v", len(msgs), err)
			return msgs
		}
		msgs = append(msgs, m)
		seen[m.Headers().Get("ce-subject")+" "+m.Headers().Get("ce-type")]++
		if enough(seen, m) {
			return msgs
		}
	}
}

// validate reads messages as an independent consumer would: with the CloudEvents SDK, and the schema.
func validate(t *testing.T, msgs []jetstream.Msg) {
	t.Helper()
	schemas := map[string]*jsonschema.Schema{}
	c := jsonschema.NewCompiler()
	for area, text := range event.Schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(event.SchemaID(area), doc); err != nil {
			t.Fatal(err)
		}
	}
	for _, area := range []string{event.AreaMail, event.AreaCalendar} {
		var err error
		if schemas[area], err = c.Compile(event.SchemaID(area)); err != nil {
			t.Fatal(err)
		}
	}
	next := map[string]int{}
	ids := map[string]bool{}
	for _, m := range msgs {
		h := m.Headers()
		e := cloudevents.NewEvent(h.Get("ce-specversion"))
		e.SetID(h.Get("ce-id"))
		e.SetType(h.Get("ce-type"))
		e.SetSource(h.Get("ce-source"))
		e.SetSubject(h.Get("ce-subject"))
		e.SetDataSchema(h.Get("ce-dataschema"))
		at, err := time.Parse(time.RFC3339Nano, h.Get("ce-time"))
		if err != nil {
			t.Errorf("time: %v", err)
		}
		e.SetTime(at)
		for _, x := range []string{"sequence", "epoch", "recordedtime", "partitionkey", "traceparent", "watch", "via"} {
			e.SetExtension(x, h.Get("ce-"+x))
			if h.Get("ce-"+x) == "" {
				t.Errorf("%s has no %s", e.ID(), x)
			}
		}
		if err := e.SetData(h.Get("content-type"), m.Data()); err != nil {
			t.Error(err)
		}
		if err := e.Validate(); err != nil {
			t.Errorf("not a CloudEvent: %v", err)
		}
		if h.Get("Nats-Msg-Id") != e.ID() || ids[e.ID()] {
			t.Errorf("id %s, message id %s, seen before: %v", e.ID(), h.Get("Nats-Msg-Id"), ids[e.ID()])
		}
		ids[e.ID()] = true
		key := h.Get("ce-partitionkey")
		if next[key]++; h.Get("ce-sequence") != fmt.Sprintf("%020d", next[key]) {
			t.Errorf("sequence of %s is %s, want %d", key, h.Get("ce-sequence"), next[key])
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(m.Data())))
		if err == nil {
			err = schemas[strings.Split(e.Type(), ".")[2]].Validate(doc)
		}
		if err != nil {
			t.Errorf("%s does not fit its schema: %v", e.Type(), err)
		}
	}
}

// enmimeTestdata finds the public corpus of odd mails that comes with the MIME library.
func enmimeTestdata(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/jhillyerd/enmime/v2").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "testdata")
}

func TestAPublicCorpusOfOddMailArrivesExactlyOnce(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser("sales@contoso.com")
	p := w.start()
	w.waitSubscribed(2)
	n, err := w.emu.Import("sales@contoso.com", enmimeTestdata(t))
	if n < 50 {
		t.Fatalf("only %d mails were imported: %v", n, err)
	}
	huge := "From: a@example.com\r\nSubject: huge\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 1<<18)
	if _, err := w.emu.DeliverMIME("sales@contoso.com", strings.NewReader(huge)); err != nil {
		t.Fatal(err)
	}
	msgs := w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == n+1 })
	validate(t, msgs)
	if len(msgs) != n+1 {
		t.Errorf("%d messages for %d mails", len(msgs), n+1)
	}
	p.stop(t)
}

// waitSubscribed waits until the daemon has its subscriptions.
func (w *world) waitSubscribed(n int) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(w.emu.Subscriptions()) < n; {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d subscriptions, want %d", len(w.emu.Subscriptions()), n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestKillsLoseAndDoubleNothing(t *testing.T) {
	w := newWorld(t, emulator.Options{Seed: 1})
	w.emu.AddUser("sales@contoso.com")
	p := w.start()
	w.waitSubscribed(2)
	var wg sync.WaitGroup
	const mails = 300
	wg.Go(func() {
		for i := range mails {
			if _, err := w.emu.Deliver("sales@contoso.com", emulator.Mail{Subject: fmt.Sprint("mail ", i)}); err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	for i := range 12 {
		time.Sleep(time.Duration(100+i*53%400) * time.Millisecond)
		p.kill()
		p = w.start()
	}
	wg.Wait()
	msgs := w.collect(func(seen map[string]int, _ jetstream.Msg) bool { return len(seen) == mails })
	validate(t, msgs)
	if len(msgs) != mails {
		t.Errorf("%d messages for %d mails", len(msgs), mails)
	}
	p.stop(t)
}

func TestASecondDaemonOnTheSameStateIsRefused(t *testing.T) {
	w := newWorld(t, emulator.Options{})
	w.emu.AddUser("sales@contoso.com")
	p := w.start()
	defer p.stop(t)
	second := exec.Command(os.Args[0])
	second.Env = append(append(os.Environ(), w.env...), childVariable+"=1")
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another triggerd") {
		t.Errorf("second daemon: %v, %s", err, out)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("%v", err)
	}
}
