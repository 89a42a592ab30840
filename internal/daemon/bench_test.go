package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/publish"
	"github.com/triggerd/triggerd/internal/store"
)

// rig is a whole daemon with an embedded broker over loopback, and an emulator reached in memory that answers at once.
type rig struct {
	b      testing.TB
	emu    *emulator.Server
	d      *Daemon
	broker *publish.Embedded // of its own, when given
	stop   func()
}

const benchState = "state-of-the-benchmark"

func newRig(b testing.TB, mailboxes int, content string, broker *publish.Embedded) *rig {
	b.Helper()
	r := &rig{b: b, broker: broker}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	r.emu = emulator.New(emulator.Options{NoLimits: true, PageSize: 1000})
	var boxes []string
	for i := range mailboxes {
		r.emu.AddUser(fmt.Sprintf("u%d@example.com", i))
		boxes = append(boxes, fmt.Sprintf("{address: u%d@example.com, alias: u%d}", i, i))
	}
	tenant, client, secret := r.emu.Credentials()
	dir := b.TempDir()
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := config.Parse("bench.yaml", fmt.Appendf(nil, `
clouds: {lab: {graph: "http://graph.test/v1.0", login: "http://graph.test", like: global}}
connections: {c: {cloud: lab, tenant: %s, client_id: %s, auth: app, client_secret_file: %q}}
watches: {w: {connection: c, mailboxes: [%s], mail: {folders: [inbox]}, content: %s}}
`, tenant, client, secretFile, strings.Join(boxes, ", "), content))
	if err != nil {
		b.Fatal(err)
	}
	set := config.Settings{
		StateDir: filepath.Join(dir, "state"), PublicURL: "http://" + public.Addr().String(), NATSListen: "127.0.0.1:0",
		Stream: "GRAPH", SubjectPrefix: "graph", EventMode: "binary", PollInterval: time.Hour, SweepInterval: time.Hour,
		TrueUpInterval: 24 * time.Hour, DeltaLag: 30 * time.Second, AckHold: 15 * time.Minute,
	}
	if broker != nil {
		set.NATSURL = broker.ClientURL()
	}
	r.d, err = New(Options{
		Settings: set, File: file, Log: zerolog.Nop(), Public: public, Admin: admin,
		Transport: emulator.HandlerTransport(map[string]http.Handler{"graph.test": r.emu, public.Addr().String(): r}),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.d.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	r.stop = func() { cancel(); wg.Wait() }
	b.Cleanup(r.stop)
	r.until(func() bool {
		done := 0
		for _, f := range r.d.store.Feeds() {
			if !f.BaselinedAt.IsZero() {
				done++
			}
		}
		return done == mailboxes
	})
	return r
}

// ServeHTTP is the public listener, for the emulator and the daemon's own check.
func (r *rig) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.d.webhook.ServeHTTP(w, req) }

func (r *rig) until(ok func() bool) {
	r.b.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.b.Fatal("it does not come to be")
		}
	}
}

// subscribe makes a subscription of the benchmark's own for every feed, and returns their ids.
func (r *rig) subscribe() (ids []string) {
	r.b.Helper()
	for _, f := range r.d.store.Feeds() {
		id := fmt.Sprintf("00000000-0000-0000-0000-%012d", f.Num)
		err := r.d.store.Update(func(tx *store.Tx) error {
			return tx.PutSubscription(&store.Subscription{ID: id, Feed: f.Num, Connection: "bench", StateHash: sha256.Sum256([]byte(benchState)), ExpiresAt: time.Now().Add(time.Hour)})
		})
		if err != nil {
			r.b.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func notifications(sub string, first, n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"value":[`)
	for i := first; i < first+n; i++ {
		if i > first {
			b.WriteByte(',')
		}
		id := fmt.Sprintf("AAMkADJmNWUwNzZlLWMxNWQtNGNkMy1iNmY4LWJiOTBkYjk5YjVlYgBGAAAAAAC6hwbZVh5T6nLJ1FvBfvIBwBZbQVR%012dAAA=", i)
		fmt.Fprintf(&b, `{"subscriptionId":%q,"subscriptionExpirationDateTime":"2026-12-01T00:00:00.0000000+00:00","changeType":"created","resource":"Users/dc6a587c-e51d-4e4b-9b95-d35c3e289b53/Messages/%s",`+
			`"resourceData":{"@odata.type":"#Microsoft.Graph.Message","@odata.id":"Users/dc6a587c-e51d-4e4b-9b95-d35c3e289b53/Messages/%s","@odata.etag":"W/\"CQAAABYAAABZbQVR+TVZTLodSM/vZvBeAAB3AQa8\"","id":"%s"},`+
			`"clientState":%q,"tenantId":"d0a40b73-985f-48ee-b349-93b8a06c8384"}`, sub, id, id, id, benchState)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// BenchmarkReference measures from POST to PubAck where nothing is read: 64 mailboxes, 64 connections.
func BenchmarkReference(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%d-a-POST", size), func(b *testing.B) {
			r := newRig(b, 64, "reference", nil)
			ids := r.subscribe()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			url := "http://" + r.d.public.Addr().String() + "/graph/notifications"
			var next atomic.Int64
			n := 0
			for b.Loop() {
				const posts = 640
				var wg sync.WaitGroup
				for range 64 {
					wg.Go(func() {
						for range posts / 64 {
							at := int(next.Add(int64(size)))
							resp, err := client.Post(url, "application/json", bytes.NewReader(notifications(ids[at/size%len(ids)], at, size)))
							if err != nil {
								b.Error(err)
								return
							}
							io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
							if resp.StatusCode != http.StatusAccepted {
								b.Error(resp.Status)
							}
						}
					})
				}
				wg.Wait()
				n += posts * size
				r.until(func() bool { return r.d.store.OutboxStats().Held == n })
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "notifications/s")
		})
	}
}

// BenchmarkPush measures one mail at a time from its delivery in the mailbox to the event at a subscriber: notification,
// commit, delta round, commit, publish.
func BenchmarkPush(b *testing.B) {
	r := newRig(b, 1, "envelope", nil)
	emuCtx, stop := context.WithCancel(b.Context())
	defer stop()
	go r.emu.Run(emuCtx)
	nc, err := nats.Connect(r.d.natsURL())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("graph.>")
	if err != nil {
		b.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	r.until(func() bool { return len(r.emu.Subscriptions()) == 1 })
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		time.Sleep(220 * time.Millisecond) // rounds of a feed are spaced
		b.StartTimer()
		begin := time.Now()
		if _, err := r.emu.Deliver("u0@example.com", emulator.Mail{Subject: "bench"}); err != nil {
			b.Fatal(err)
		}
		if _, err := sub.NextMsg(10 * time.Second); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// BenchmarkIdle measures the memory and goroutines of a daemon with 1,000 mailboxes and nothing to do, the emulator in
// the same process left out.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		before := heap()
		r := newRig(b, 1000, "envelope", nil)
		r.until(func() bool { return len(r.emu.Subscriptions()) == 1000 })
		withAll, routines := heap(), runtime.NumGoroutine()
		r.stop()
		b.ReportMetric(withAll-before, "MiB-heap")
		b.ReportMetric(float64(routines), "goroutines")
	}
}

// TestGoroutinesDoNotGrowWithMailboxes compares a few mailboxes with many.
func TestGoroutinesDoNotGrowWithMailboxes(t *testing.T) {
	count := func(mailboxes int) int {
		r := newRig(t, mailboxes, "envelope", nil)
		r.until(func() bool { return len(r.emu.Subscriptions()) == mailboxes })
		n := 0
		r.until(func() bool { n = runtime.NumGoroutine(); return n < 300 })
		r.stop()
		return n
	}
	few, many := count(4), count(150)
	if many > few+40 { // connections of the check and of what still ends
		t.Errorf("%d goroutines with 4 mailboxes, %d with 150", few, many)
	}
}

// BenchmarkOutage posts at a steady rate while the broker is away for three seconds, and reports the p99 of the answers
// before and during.
func BenchmarkOutage(b *testing.B) {
	dir := b.TempDir()
	broker, err := publish.StartEmbedded(dir, "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b, 16, "reference", broker)
	ids := r.subscribe()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	url := "http://" + r.d.public.Addr().String() + "/graph/notifications"
	next := 0
	storm := func(d time.Duration) time.Duration {
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
			at := next
			next++
			wg.Go(func() {
				begin := time.Now()
				resp, err := client.Post(url, "application/json", bytes.NewReader(notifications(ids[at%len(ids)], at, 1)))
				if err != nil {
					b.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					b.Error(resp.Status)
				}
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
			})
		}
		wg.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	var before, during time.Duration
	for b.Loop() {
		before = storm(3 * time.Second)
		addr := strings.TrimPrefix(broker.ClientURL(), "nats://")
		broker.Shutdown()
		during = storm(3 * time.Second)
		if broker, err = publish.StartEmbedded(dir, addr, zerolog.Nop()); err != nil {
			b.Fatal(err)
		}
		r.until(func() bool { return r.d.store.OutboxStats().Entries == 0 && r.d.store.Pending() == 0 })
	}
	broker.Shutdown()
	b.ReportMetric(float64(before.Microseconds())/1000, "p99-before-ms")
	b.ReportMetric(float64(during.Microseconds())/1000, "p99-outage-ms")
}
