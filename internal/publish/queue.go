package publish

import (
	"github.com/nats-io/nats.go"

	"github.com/triggerd/triggerd/internal/store"
)

// queue holds rows read from the outbox, by partition. Of each partition at most one row is out at a time, so that the
// order within it holds whatever fails. It is owned by one goroutine.
type queue struct {
	parts map[string]*partition
	ready []*partition // with rows and none of them out, oldest first
	after uint64       // rows up to here were read
	bytes int          // of all rows held
}

type partition struct {
	key  string
	rows []store.OutboxRow // rows[0] is out or next
}

func newQueue() *queue { return &queue{parts: map[string]*partition{}} }

func (q *queue) add(row store.OutboxRow) {
	q.after = max(q.after, row.Seq)
	q.bytes += row.Size
	key := row.Event.PartitionKey()
	part := q.parts[key]
	if part == nil {
		part = &partition{key: key}
		q.parts[key] = part
		q.ready = append(q.ready, part)
	}
	part.rows = append(part.rows, row)
}

// next takes a partition whose first row may go out. It must come back by done or again.
func (q *queue) next() *partition {
	if len(q.ready) == 0 {
		return nil
	}
	part := q.ready[0]
	q.ready = q.ready[1:]
	return part
}

// done forgets the first row of a partition that was out.
func (q *queue) done(part *partition) {
	q.bytes -= part.rows[0].Size
	part.rows[0] = store.OutboxRow{} // the event may go
	if part.rows = part.rows[1:]; len(part.rows) == 0 {
		delete(q.parts, part.key)
		return
	}
	q.ready = append(q.ready, part)
}

// again puts a partition back whose first row was out and has to go out once more.
func (q *queue) again(part *partition) { q.ready = append(q.ready, part) }

// flight is a row that is out.
type flight struct {
	part *partition
	msg  *nats.Msg
	body []byte // complete data that goes to the object store before the message; nil where there is none
}

func (f *flight) row() *store.OutboxRow { return &f.part.rows[0] }
