package webhook

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/store"
)

const (
	benchConns = 64
	benchSubs  = 1000
)

func benchSub(i int) string {
	return fmt.Sprintf("ec73a6d8-5535-40ba-8b84-%012d", i%benchSubs)
}

func benchState(i int) string {
	sum := sha256.Sum256([]byte(benchSub(i)))
	return fmt.Sprintf("%x", sum[:22])
}

// benchBody is what Graph posts for n changes of message n*seed and following, of one mailbox's folder, with ids and
// etags of the recorded length.
func benchBody(seed, n int) []byte {
	const item = `{"subscriptionId":"%s","subscriptionExpirationDateTime":"2026-11-30T20:25:05.0797291+00:00","changeType":"created",` +
		`"resource":"Users/dc6a587c-e51d-4e4b-9b95-d35c3e289b53/Messages/%[2]s","resourceData":{"@odata.type":"#Microsoft.Graph.Message",` +
		`"@odata.id":"Users/dc6a587c-e51d-4e4b-9b95-d35c3e289b53/Messages/%[2]s","@odata.etag":"W/\"CQAAABYAAABZbQVR+TVZTLodSM/vZvBeAAB3AQa8\"",` +
		`"id":"%[2]s"},"clientState":"%[3]s","tenantId":"d0a40b73-985f-48ee-b349-93b8a06c8384"}`
	items := make([]string, n)
	for i := range items {
		id := fmt.Sprintf("AAMkADJmNWUwNzZlLWMxNWQtNGNkMy1iNmY4LWJiOTBkYjk5YjVlYgBGAAAAAAC6hwbZVh5-T6nLJ1FvBfvIBwBZbQVR_TVZTLodSM-vZvBeAAAAAAEMAABZbQVR_TVZTLodSM-%010d=", seed*n+i)
		items[i] = fmt.Sprintf(item, benchSub(seed), id, benchState(seed))
	}
	return []byte(`{"value":[` + strings.Join(items, ",") + `],"validationTokens":null}`)
}

// measured runs do from 64 goroutines until it was done b.N times, and reports figures per notification.
func measured(b *testing.B, perPost int, do func(worker int)) {
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, benchConns)
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range benchConns {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				do(w)
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	all := slices.Concat(took...)
	slices.Sort(all)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	notes := float64(b.N * perPost)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(notes/b.Elapsed().Seconds(), "notifications/s")
	b.ReportMetric(ms(all[len(all)/2]), "p50-ms")
	b.ReportMetric(ms(all[len(all)*99/100]), "p99-ms")
	b.ReportMetric(float64(cpu.Microseconds())/notes, "cpu-µs/notification")
}

// overHTTP posts to h over 64 kept-alive loopback connections. The client is as cheap as it can be, since it runs on
// the same cores and its time counts as well.
func overHTTP(b *testing.B, perPost int, h http.Handler) {
	l := listen(b)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, h, nil, zerolog.Nop()) }()
	var conns [benchConns]net.Conn
	var answers [benchConns]*bufio.Reader
	var requests [benchConns][]byte
	for w := range conns {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		conns[w], answers[w] = conn, bufio.NewReader(conn)
		body := benchBody(w*17, perPost)
		requests[w] = fmt.Appendf(nil, "POST /graph/notifications HTTP/1.1\r\nHost: triggerd.example\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	measured(b, perPost, func(w int) {
		if _, err := conns[w].Write(requests[w]); err != nil {
			b.Error(err)
		}
		for first := true; ; first = false {
			line, err := answers[w].ReadSlice('\n')
			if err != nil || first && string(line[9:12]) != "202" {
				b.Errorf("answer = %q, %v", line, err)
				return
			}
			if len(line) == 2 {
				return
			}
		}
	})
	for _, conn := range conns {
		conn.Close()
	}
	cancel()
	if err := <-served; err != nil {
		b.Error(err)
	}
}

// BenchmarkAccept measures the way from a POST to its 202, durable, beside two yardsticks: a handler that decodes the
// same body with encoding/json and answers, and the same bytes written to bbolt by group commit and nothing else.
func BenchmarkAccept(b *testing.B) {
	for _, perPost := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("triggerd/%d", perPost), func(b *testing.B) { benchTriggerd(b, perPost) })
		b.Run(fmt.Sprintf("bare-json/%d", perPost), func(b *testing.B) { overHTTP(b, perPost, http.HandlerFunc(bareJSON)) })
		b.Run(fmt.Sprintf("bare-bbolt/%d", perPost), func(b *testing.B) { benchBolt(b, perPost) })
	}
}

func benchTriggerd(b *testing.B, perPost int) {
	st := openStore(b, b.TempDir(), store.Options{MaxInbox: math.MaxInt})
	defer st.Close()
	err := st.Update(func(tx *store.Tx) error {
		for i := range benchSubs {
			feed := store.Feed{Mailbox: 1}
			if err := tx.PutFeed(&feed); err != nil {
				return err
			}
			sub := store.Subscription{ID: benchSub(i), Feed: feed.Num, StateHash: sha256.Sum256([]byte(benchState(i)))}
			if err := tx.PutSubscription(&sub); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	var wakes atomic.Int64
	h := New(Options{Store: st, Wake: func(uint32) { wakes.Add(1) }})
	commits := st.Commits()
	overHTTP(b, perPost, h)
	b.ReportMetric(float64(b.N)/float64(st.Commits()-commits), "posts/commit")
	if got := st.Counters()["accepted"]; got != uint64(b.N*perPost) || wakes.Load() != int64(b.N) {
		b.Errorf("accepted %d, woken %d times, want %d and %d", got, wakes.Load(), b.N*perPost, b.N)
	}
}

func bareJSON(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Value []struct {
			SubscriptionID string `json:"subscriptionId"`
			ClientState    string `json:"clientState"`
			ChangeType     string `json:"changeType"`
			LifecycleEvent string `json:"lifecycleEvent"`
			Resource       string `json:"resource"`
			TenantID       string `json:"tenantId"`
			ResourceData   struct {
				ID   string `json:"id"`
				ETag string `json:"@odata.etag"`
			} `json:"resourceData"`
		} `json:"value"`
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(raw, &body) != nil || len(body.Value) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func benchBolt(b *testing.B, perPost int) {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true, InitialMmapSize: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	type write struct {
		value []byte
		done  chan error
	}
	writes := make(chan write, benchConns)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for first := range writes {
			batch := []write{first}
			for len(writes) > 0 {
				batch = append(batch, <-writes)
			}
			err := db.Update(func(tx *bolt.Tx) error {
				bucket, err := tx.CreateBucketIfNotExists([]byte("inbox"))
				if err != nil {
					return err
				}
				bucket.FillPercent = 0.95
				for _, w := range batch {
					seq, _ := bucket.NextSequence()
					if err := bucket.Put(binary.BigEndian.AppendUint64(nil, seq), w.value); err != nil {
						return err
					}
				}
				return nil
			})
			for _, w := range batch {
				w.done <- err
			}
		}
	}()
	var values [benchConns][]byte
	var done [benchConns]chan error
	for w := range values {
		values[w], done[w] = benchBody(w*17, perPost), make(chan error, 1)
	}
	measured(b, perPost, func(w int) {
		writes <- write{values[w], done[w]}
		if err := <-done[w]; err != nil {
			b.Error(err)
		}
	})
	close(writes)
	<-ended
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var p parser
			body := benchBody(1, n)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if items, err := p.decode(body, n); err != nil || len(items) != n {
					b.Fatal(err)
				}
			}
		})
	}
}
