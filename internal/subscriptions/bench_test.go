package subscriptions

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/store"
)

// BenchmarkScan looks at many subscriptions of which none is due: what every tick costs.
func BenchmarkScan(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st, err := store.Open(b.TempDir(), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			now := clock()
			wants := make([]Want, n)
			err = st.Update(func(tx *store.Tx) error {
				for i := range wants {
					w := want(uint32(i))
					wants[i] = w
					err := tx.PutSubscription(&store.Subscription{
						ID: fmt.Sprint("sub-", i), Feed: w.Feed, Connection: conn, Resource: w.Resource,
						CreatedAt: now, ExpiresAt: now.Add(100 * time.Hour), RenewAt: now.Add(50 * time.Hour),
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			r := New(st, Options{
				Graphs: map[string]Graph{conn: nil}, PublicURL: hook, Log: zerolog.Nop(),
				Wants: func() []Want { return wants },
			})
			r.scan(now)
			for b.Loop() {
				r.scan(now)
			}
			if len(r.queue) != 2 { // the list and the check of the public URL
				b.Fatalf("%d jobs although nothing is due", len(r.queue))
			}
		})
	}
}
