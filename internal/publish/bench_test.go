package publish

import (
	"fmt"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// memory is an outbox without a disk, so that publishing itself is measured.
type memory struct {
	rows    []store.OutboxRow
	changed chan struct{}
	acked   chan int
}

func (m *memory) Outbox(after uint64, maxBytes int) (rows []store.OutboxRow, err error) {
	for i := after; i < uint64(len(m.rows)) && maxBytes > 0; i++ {
		rows = append(rows, m.rows[i])
		maxBytes -= m.rows[i].Size
	}
	return rows, nil
}
func (m *memory) OutboxChanged() <-chan struct{}                   { return m.changed }
func (m *memory) Acknowledge(a []store.Ack) error                  { m.acked <- len(a); return nil }
func (m *memory) ReleaseHeld(time.Time, int) (int, error)          { return 0, nil }
func (m *memory) LastHeld() (a store.Ack, ok bool, err error)      { return a, false, nil }
func (m *memory) Unacknowledge(uint64) (int, error)                { return 0, nil }
func (m *memory) QuarantineOutbox(uint64, string, time.Time) error { return nil }

func BenchmarkPublish(b *testing.B) {
	for _, parts := range []int{1, 256} {
		for _, inProcess := range []bool{false, true} {
			b.Run(fmt.Sprintf("partitions=%d/inprocess=%v", parts, inProcess), func(b *testing.B) {
				benchmarkPublish(b, parts, inProcess)
			})
		}
	}
}

func benchmarkPublish(b *testing.B, parts int, inProcess bool) {
	const batch = 4096
	srv := newBroker(b)
	o := Options{URL: srv.ClientURL()}
	if inProcess {
		o.InProcess = srv.Embedded
	}
	boxes := mailboxes(parts)
	total := 0
	for b.Loop() {
		b.StopTimer()
		m := &memory{changed: make(chan struct{}, 1), acked: make(chan int, batch)}
		for i := range batch {
			e := newEvent(boxes[i%parts], total+i)
			e.ID = event.ID(b.Name(), fmt.Sprint(total+i))
			e.Sequence = uint64(total + i + 1)
			m.rows = append(m.rows, store.OutboxRow{Seq: uint64(i + 1), Event: *e, Size: 700})
		}
		b.StartTimer()
		p := start(b, m, o)
		for left := batch; left > 0; {
			left -= <-m.acked
		}
		b.StopTimer()
		p.stop()
		total += batch
		b.StartTimer()
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkPublishFromStore includes reading the outbox and writing the acks.
func BenchmarkPublishFromStore(b *testing.B) {
	const batch = 4096
	boxes := mailboxes(256)
	srv := newBroker(b)
	s := newStore(b)
	total := 0
	done := make(chan struct{}, batch)
	start(b, s, Options{InProcess: srv.Embedded, OnPublished: func(*event.Event, time.Time) { done <- struct{}{} }})
	for b.Loop() {
		b.StopTimer()
		appendEvents(b, s, boxes, total/256+1, batch/256)
		b.StartTimer()
		for range batch {
			<-done
		}
		total += batch
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkEncode(b *testing.B) {
	e := fullEvent()
	for name, structured := range map[string]bool{"binary": false, "structured": true} {
		b.Run(name, func(b *testing.B) {
			o := Options{Structured: structured}.withDefaults()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := o.encode(e, e.Data, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
