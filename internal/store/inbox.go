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
	row   uint64
	index int
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
// means that too many wait already, ErrTooLong that one cannot be stored at all. Safe for concurrent use; concurrent calls share transactions.
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
	value []byte
	feeds []uint32 // of its records, in order
}

func encodeRows(notes []Notification) []encodedRow {
	var rows []encodedRow
	for len(notes) > 0 {
		buf := make([]byte, 0, min(maxRow, 280*len(notes)))
		n := 0
		for n < len(notes) && (n == 0 || len(buf) < maxRow-512) {
			buf = appendRecord(buf, &notes[n])
			n++
		}
		feeds := make([]uint32, n)
		for i := range feeds {
			feeds[i] = notes[i].Feed
		}
		rows = append(rows, encodedRow{seal(buf), feeds})
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
		for i, feed := range r.feeds {
			tx.s.inbox.add(feed, entryRef{seq, uint32(i)})
		}
	})
	return b.Put(key64(seq), r.value)
}

// A record is: settled flag (1), feed (4), accepted at in Unix ms (8), then three strings, each with a 2-byte length.
const settledFlag = 1

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

// eachRecord calls fn with every record of a row and the offset of its flag.
func eachRecord(row []byte, fn func(i, offset int, settled bool, n Notification)) error {
	for i, at := 0, 0; at < len(row); i++ {
		start := at
		if len(row)-at < 13 {
			return fmt.Errorf("%w: inbox record is cut short", ErrDamaged)
		}
		n := Notification{
			Feed: binary.BigEndian.Uint32(row[at+1:]),
			At:   time.UnixMilli(int64(binary.BigEndian.Uint64(row[at+5:]))).UTC(),
		}
		at += 13
		for _, s := range [...]*string{&n.Change, &n.Item, &n.ChangeKey} {
			if len(row)-at < 2 {
				return fmt.Errorf("%w: inbox record is cut short", ErrDamaged)
			}
			end := at + 2 + int(binary.BigEndian.Uint16(row[at:]))
			if end > len(row) {
				return fmt.Errorf("%w: inbox record is cut short", ErrDamaged)
			}
			*s, at = string(row[at+2:end]), end
		}
		fn(i, start, row[start] == settledFlag, n)
	}
	return nil
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
	refs := slices.Clone(tx.s.inbox.byFeed[feed])
	tx.s.mu.RUnlock()
	if limit > 0 && len(refs) > limit {
		refs = refs[:limit]
	}
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
			rerr = eachRecord(row, func(i, _ int, settled bool, n Notification) {
				if !settled && n.Feed == feed {
					entries = append(entries, Entry{n, ref.row, i})
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
	return eachRecord(row, func(i, offset int, settled bool, n Notification) {
		if i != e.index || settled {
			return
		}
		row[offset] = settledFlag
		tx.Count(counterSettled+string(outcome), 1)
	})
}

// flushInbox writes the rows in which something was settled and deletes those in which everything is.
func (tx *Tx) flushInbox() error {
	b := tx.appending(bucketInbox)
	gone := map[uint32]map[entryRef]bool{}
	for seq, row := range tx.dirty.rows {
		open := false
		err := eachRecord(row, func(i, _ int, settled bool, n Notification) {
			if !settled {
				open = true
				return
			}
			if gone[n.Feed] == nil {
				gone[n.Feed] = map[entryRef]bool{}
			}
			gone[n.Feed][entryRef{seq, uint32(i)}] = true
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
