package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

const counterAppended = "outbox_appended"

// OutboxRow is an event that JetStream has not acknowledged.
type OutboxRow struct {
	Seq   uint64 // position in the outbox; ascending in the order of publication
	Event event.Event
	Size  int   // bytes of the stored row
	Err   error // the row is damaged (ErrDamaged) and Event is empty; QuarantineOutbox takes it out of the way
}

// Ack says that JetStream has stored an outbox row. The row is held for a while (a PubAck is not an fsync).
type Ack struct {
	Seq       uint64    `json:"seq"`        // of the outbox row
	ID        string    `json:"id"`         // of the event
	StreamSeq uint64    `json:"stream_seq"` // where the stream put it
	At        time.Time `json:"at"`         // when the PubAck came
}

// OutboxStats tells how full the outbox is.
type OutboxStats struct {
	Entries  int       // events not acknowledged
	Held     int       // events acknowledged and still held
	OldestAt time.Time // recorded time of the oldest one not acknowledged; zero when there is none
}

func (tx *Tx) wakeOutbox() {
	tx.onCommit(func() {
		tx.s.outbox.pending++
		select {
		case tx.s.outbox.wake <- struct{}{}:
		default:
		}
	})
}

// outboxIndex counts what lies in the outbox. Guarded by Store.mu; wake may be received from without it.
type outboxIndex struct {
	pending, held int
	wake          chan struct{}
}

// OutboxChanged receives a value after events were committed to the outbox, or held ones were released for publishing
// again. Several commits may share one value. One receiver only.
func (s *Store) OutboxChanged() <-chan struct{} { return s.outbox.wake }

// Outbox reads events that are not acknowledged, with Seq above after, in ascending order, until about maxBytes of rows
// are read; at least one when there is one. A damaged row is among them, with its Err set.
func (s *Store) Outbox(after uint64, maxBytes int) (rows []OutboxRow, err error) {
	err = s.db.View(func(btx *bolt.Tx) error {
		acks := btx.Bucket(bucketAcks).Cursor()
		ak, _ := acks.Seek(key64(after + 1))
		c := btx.Bucket(bucketOutbox).Cursor()
		size := 0
		for k, v := c.Seek(key64(after + 1)); k != nil && size < maxBytes; k, v = c.Next() {
			seq := binary.BigEndian.Uint64(k)
			for ak != nil && binary.BigEndian.Uint64(ak) < seq {
				ak, _ = acks.Next()
			}
			if ak != nil && binary.BigEndian.Uint64(ak) == seq {
				continue
			}
			row := OutboxRow{Seq: seq, Size: len(v)}
			if err := decode(v, &row.Event); err != nil {
				row.Event, row.Err = event.Event{}, err
			}
			rows = append(rows, row)
			size += len(v)
		}
		return nil
	})
	return rows, err
}

// Acknowledge records that rows were stored by JetStream. It may be called twice for the same row; rows that are not in
// the outbox any more are passed over.
func (s *Store) Acknowledge(acks []Ack) error {
	return s.Update(func(tx *Tx) error {
		b, out := tx.appending(bucketAcks), tx.bucket(bucketOutbox)
		fresh := 0
		for i := range acks {
			key := key64(acks[i].Seq)
			if out.Get(key) == nil {
				continue
			}
			if b.Get(key) == nil {
				fresh++
			}
			v, err := encode(&acks[i])
			if err != nil {
				return err
			}
			if err := b.Put(key, v); err != nil {
				return err
			}
		}
		tx.onCommit(func() { s.outbox.pending -= fresh; s.outbox.held += fresh })
		return nil
	})
}

// ReleaseHeld forgets rows acknowledged before a time, oldest first, about limit of them, and says how many. A damaged
// ack counts as being as old as the next one that can be read.
func (s *Store) ReleaseHeld(before time.Time, limit int) (n int, err error) {
	err = s.Update(func(tx *Tx) error {
		var keys [][]byte // deleted after the walk: a cursor skips a key after a deletion
		n = 0
		c := tx.bucket(bucketAcks).Cursor()
		for k, v := c.First(); k != nil && n < limit; k, v = c.Next() {
			keys = append(keys, bytes.Clone(k))
			var a Ack
			if decode(v, &a) != nil {
				continue
			}
			if !a.At.Before(before) {
				break
			}
			n = len(keys)
		}
		for _, k := range keys[:n] {
			if err := errors.Join(tx.bucket(bucketOutbox).Delete(k), tx.bucket(bucketAcks).Delete(k)); err != nil {
				return err
			}
		}
		gone := n
		tx.onCommit(func() { s.outbox.held -= gone })
		return nil
	})
	return n, err
}

// LastHeld returns the held ack with the highest stream sequence; ok is false when nothing is held. Damaged acks are
// passed over.
func (s *Store) LastHeld() (last Ack, ok bool, err error) {
	err = s.db.View(func(btx *bolt.Tx) error {
		return btx.Bucket(bucketAcks).ForEach(func(_, v []byte) error {
			var a Ack
			if decode(v, &a) != nil {
				return nil
			}
			if !ok || a.StreamSeq > last.StreamSeq {
				last, ok = a, true
			}
			return nil
		})
	})
	return last, ok, err
}

// Unacknowledge takes back the acks of rows that the stream put after a sequence, because the stream has gone back, and
// says how many: they will be published again. So will rows whose ack is damaged.
func (s *Store) Unacknowledge(streamSeqAfter uint64) (n int, err error) {
	err = s.Update(func(tx *Tx) error {
		var keys [][]byte // deleted after the walk: a cursor skips a key after a deletion
		c := tx.bucket(bucketAcks).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			var a Ack
			if decode(v, &a) != nil || a.StreamSeq > streamSeqAfter {
				keys = append(keys, bytes.Clone(k))
			}
		}
		for _, k := range keys {
			if err := tx.bucket(bucketAcks).Delete(k); err != nil {
				return err
			}
		}
		n = len(keys)
		back := n
		tx.onCommit(func() { s.outbox.pending += back; s.outbox.held -= back })
		if n > 0 {
			tx.onCommit(func() {
				select {
				case s.outbox.wake <- struct{}{}:
				default:
				}
			})
		}
		return nil
	})
	return n, err
}

// QuarantineOutbox parks an event that the broker will never take, so that the others can pass.
func (s *Store) QuarantineOutbox(seq uint64, reason string, at time.Time) error {
	return s.Update(func(tx *Tx) error {
		b := tx.bucket(bucketOutbox)
		v := b.Get(key64(seq))
		if v == nil {
			return nil
		}
		raw, err := unseal(v)
		if err != nil {
			raw = nil
		}
		q := Quarantine{Reason: reason, At: at, Raw: append([]byte(nil), raw...)}
		if err := tx.PutQuarantine(&q); err != nil {
			return err
		}
		tx.onCommit(func() { s.outbox.pending-- })
		return b.Delete(key64(seq))
	})
}

// OutboxStats counts the outbox.
func (s *Store) OutboxStats() (st OutboxStats) {
	s.mu.RLock()
	st.Entries, st.Held = s.outbox.pending, s.outbox.held
	s.mu.RUnlock()
	if st.Entries > 0 {
		if rows, _ := s.Outbox(0, 1); len(rows) > 0 {
			st.OldestAt = rows[0].Event.RecordedTime
		}
	}
	return st
}
