package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	counterAccepted = "accepted"
	counterSettled  = "settled_" // + Outcome
)

// maxRow bounds an inbox row: a bbolt leaf page that must hold larger values is rewritten at a higher cost.
const maxRow = 32 << 10

// maxString is the longest string of a record, in bytes; those of Graph stay far below.
const maxString = math.MaxUint16

// Entry is an accepted notification that is not settled yet.
type Entry struct {
	Notification
	row    uint64
	offset int // of its record in the row, which never moves
}

// entryRef is where an entry lies: 12 bytes in memory for each, so that a full inbox stays small.
type entryRef struct {
	row   uint64
	index uint32
}

// inboxIndex finds the pending entries of a feed. Guarded by Store.mu.
type inboxIndex struct {
	byFeed map[uint32][]entryRef // in order of acceptance
	total  int
}

func newInboxIndex() *inboxIndex {
	return &inboxIndex{byFeed: map[uint32][]entryRef{}}
}

func (x *inboxIndex) add(feed uint32, ref entryRef) {
	x.byFeed[feed] = append(x.byFeed[feed], ref)
	x.total++
}

func (x *inboxIndex) remove(feed uint32, gone map[entryRef]bool) {
	refs := x.byFeed[feed]
	kept := slices.DeleteFunc(refs, func(r entryRef) bool { return gone[r] })
	x.total -= len(refs) - len(kept)
	if len(kept) == 0 {
		delete(x.byFeed, feed)
		return
	}
	x.byFeed[feed] = kept
}

// Accept commits notifications and lifecycle notifications: after it has returned nil they cannot be lost. ErrFull
// means that too many wait already, ErrTooLong that one cannot be stored at all. It keeps notes and cycles, which must
// not be changed any more. Safe for concurrent use; concurrent calls share transactions.
func (s *Store) Accept(ctx context.Context, notes []Notification, cycles []Lifecycle) error {
	if s.Pending()+len(notes) > s.opts.MaxInbox {
		return ErrFull
	}
	for i := range notes {
		if n := &notes[i]; max(len(n.Change), len(n.Item), len(n.ChangeKey)) > maxString {
			return ErrTooLong
		}
	}
	rows := encodeRows(notes)
	return s.UpdateContext(ctx, func(tx *Tx) error {
		for _, r := range rows {
			if err := tx.appendRow(r); err != nil {
				return err
			}
		}
		if len(notes) > 0 {
			tx.Count(counterAccepted, uint64(len(notes)))
		}
		for i := range cycles {
			b := tx.appending(bucketLifecycle)
			n, err := b.NextSequence()
			if err != nil {
				return err
			}
			cycles[i].Seq = n
			if err := tx.put(bucketLifecycle, key64(n), cycles[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// encodedRow is an inbox row ready to be written.
type encodedRow struct {
	value []byte         // sealed
	notes []Notification // its records, in order
}

func encodeRows(notes []Notification) []encodedRow {
	rows := make([]encodedRow, 0, 1)
	for len(notes) > 0 {
		buf := make([]byte, checksumSize, min(maxRow, 320*len(notes)))
		n := 0
		for n < len(notes) && (n == 0 || len(buf)+recordSize(&notes[n]) <= maxRow) {
			buf = appendRecord(buf, &notes[n])
			n++
		}
		putChecksum(buf)
		rows = append(rows, encodedRow{buf, notes[:n]})
		notes = notes[n:]
	}
	return rows
}

func (tx *Tx) appendRow(r encodedRow) error {
	b := tx.appending(bucketInbox)
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	tx.onCommit(func() {
		for i := range r.notes {
			tx.s.inbox.add(r.notes[i].Feed, entryRef{seq, uint32(i)})
		}
	})
	return b.Put(key64(seq), r.value)
}

// A record is: settled flag (1), feed (4), accepted at in Unix ms (8), then three strings, each with a 2-byte length.
const (
	settledFlag = 1
	recordHead  = 1 + 4 + 8
)

func recordSize(n *Notification) int {
	return recordHead + 2 + len(n.Change) + 2 + len(n.Item) + 2 + len(n.ChangeKey)
}

func appendRecord(b []byte, n *Notification) []byte {
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, n.Feed)
	b = binary.BigEndian.AppendUint64(b, uint64(n.At.UnixMilli()))
	for _, s := range [...]string{n.Change, n.Item, n.ChangeKey} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b
}

// record is one record of a row, in place.
type record []byte

func (r record) settled() bool { return r[0] == settledFlag }
func (r record) settle()       { r[0] = settledFlag }
func (r record) feed() uint32  { return binary.BigEndian.Uint32(r[1:]) }

func (r record) notification() Notification {
	n := Notification{Feed: r.feed(), At: time.UnixMilli(int64(binary.BigEndian.Uint64(r[5:]))).UTC()}
	rest := r[recordHead:]
	for _, s := range [...]*string{&n.Change, &n.Item, &n.ChangeKey} {
		end := 2 + int(binary.BigEndian.Uint16(rest))
		*s, rest = string(rest[2:end]), rest[end:]
	}
	return n
}

// recordAt returns the record that begins at an offset of a row.
func recordAt(row []byte, offset int) (record, error) {
	end := offset + recordHead
	for range 3 {
		if len(row)-end < 2 {
			return nil, fmt.Errorf("%w: inbox record is cut short", ErrDamaged)
		}
		end += 2 + int(binary.BigEndian.Uint16(row[end:]))
	}
	if end > len(row) {
		return nil, fmt.Errorf("%w: inbox record is cut short", ErrDamaged)
	}
	return row[offset:end], nil
}

// records calls fn with every record of a row and where it lies.
func records(row []byte, fn func(i, offset int, r record)) error {
	for i, offset := 0, 0; offset < len(row); i++ {
		r, err := recordAt(row, offset)
		if err != nil {
			return err
		}
		fn(i, offset, r)
		offset += len(r)
	}
	return nil
}

// eachRecord calls fn with every record of a row, decoded.
func eachRecord(row []byte, fn func(i, offset int, settled bool, n Notification)) error {
	return records(row, func(i, offset int, r record) { fn(i, offset, r.settled(), r.notification()) })
}

// Pending is how many accepted notifications are not settled.
func (s *Store) Pending() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inbox.total
}

// PendingFeeds lists the feeds that have pending notifications, in ascending order.
func (s *Store) PendingFeeds() []uint32 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	feeds := make([]uint32, 0, len(s.inbox.byFeed))
	for f := range s.inbox.byFeed {
		feeds = append(feeds, f)
	}
	slices.Sort(feeds)
	return feeds
}

// HasPending reports whether a feed has pending notifications.
func (s *Store) HasPending(feed uint32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.inbox.byFeed[feed]) > 0
}

// Pending reads the pending notifications of a feed, oldest first, at most limit of them (0 means all). A row that is
// damaged is left out and reported in err beside the readable entries.
func (tx *Tx) Pending(feed uint32, limit int) (entries []Entry, err error) {
	tx.s.mu.RLock()
	refs := tx.s.inbox.byFeed[feed]
	if limit > 0 && len(refs) > limit {
		refs = refs[:limit]
	}
	refs = slices.Clone(refs)
	tx.s.mu.RUnlock()
	slices.SortFunc(refs, func(a, b entryRef) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.index, b.index))
	})
	last := uint64(0)
	for _, ref := range refs {
		if ref.row == last {
			continue
		}
		last = ref.row
		row, rerr := tx.row(ref.row)
		if rerr == nil {
			rerr = records(row, func(_, offset int, r record) {
				if !r.settled() && r.feed() == feed {
					entries = append(entries, Entry{r.notification(), ref.row, offset})
				}
			})
		}
		err = cmp.Or(err, rerr)
	}
	if limit > 0 && len(entries) > limit {
		entries = entries[:limit]
	}
	return entries, err
}

// row returns an inbox row as this transaction sees it; nil when there is none.
func (tx *Tx) row(seq uint64) ([]byte, error) {
	if r, ok := tx.dirty.rows[seq]; ok {
		return r, nil
	}
	v := tx.bucket(bucketInbox).Get(key64(seq))
	if v == nil {
		return nil, nil
	}
	return unseal(v)
}

// Settle ends a notification with its outcome. Settling one that is settled already does nothing, so that the counters
// add up whatever is repeated.
func (tx *Tx) Settle(e Entry, outcome Outcome) error {
	row, err := tx.row(e.row)
	if err != nil || row == nil {
		return err
	}
	if _, ok := tx.dirty.rows[e.row]; !ok {
		if tx.dirty.rows == nil {
			tx.dirty.rows = map[uint64][]byte{}
		}
		row = slices.Clone(row)
		tx.dirty.rows[e.row] = row
	}
	r, err := recordAt(row, e.offset)
	if err != nil || r.settled() {
		return err
	}
	r.settle()
	tx.Count(counterSettled+string(outcome), 1)
	return nil
}

// flushInbox writes the rows in which something was settled and deletes those in which everything is.
func (tx *Tx) flushInbox() error {
	b := tx.appending(bucketInbox)
	gone := map[uint32]map[entryRef]bool{}
	for seq, row := range tx.dirty.rows {
		open := false
		err := records(row, func(i, _ int, r record) {
			if !r.settled() {
				open = true
				return
			}
			if gone[r.feed()] == nil {
				gone[r.feed()] = map[entryRef]bool{}
			}
			gone[r.feed()][entryRef{seq, uint32(i)}] = true
		})
		if err == nil && open {
			err = b.Put(key64(seq), seal(row))
		} else if err == nil {
			err = b.Delete(key64(seq))
		}
		if err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		tx.onCommit(func() {
			for feed, refs := range gone {
				tx.s.inbox.remove(feed, refs)
			}
		})
	}
	return nil
}

// Lifecycles reads the lifecycle notifications that are not done, oldest first.
func (tx *Tx) Lifecycles() (out []Lifecycle, err error) {
	c := tx.bucket(bucketLifecycle).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		var l Lifecycle
		if err := decode(v, &l); err != nil {
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

// DoneLifecycle forgets a lifecycle notification whose consequences are durable.
func (tx *Tx) DoneLifecycle(seq uint64) error { return tx.bucket(bucketLifecycle).Delete(key64(seq)) }
