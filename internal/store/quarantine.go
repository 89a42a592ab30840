package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/triggerd/triggerd/internal/event"
)

// ErrNotParked means that there is no such entry in the quarantine.
var ErrNotParked = errors.New("nothing is parked under that number")

// counterQuarantine counts what is parked at present.
const counterQuarantine = "quarantine_entries"

// PutQuarantine parks something that could not be processed. What is parked of the same item already is replaced.
func (tx *Tx) PutQuarantine(q *Quarantine) error {
	b := tx.appending(bucketQuarantine)
	if q.Item != "" {
		if err := tx.dropParked(q.Feed, q.Item); err != nil {
			return err
		}
	}
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	q.Seq = n
	tx.Count(counterQuarantine, 1)
	return tx.put(bucketQuarantine, key64(n), q)
}

// dropParked drops what is parked of an item.
func (tx *Tx) dropParked(feed uint32, item string) error {
	var same []uint64
	err := tx.bucket(bucketQuarantine).ForEach(func(k, v []byte) error {
		var q Quarantine
		if err := decode(v, &q); err == nil && q.Feed == feed && q.Item == item {
			same = append(same, binary.BigEndian.Uint64(k))
		}
		return nil
	})
	for _, seq := range same {
		err = errors.Join(err, tx.DropQuarantine(seq))
	}
	return err
}

// DropQuarantine forgets what is parked under a number; ErrNotParked when nothing is.
func (tx *Tx) DropQuarantine(seq uint64) error {
	b := tx.bucket(bucketQuarantine)
	if b.Get(key64(seq)) == nil {
		return ErrNotParked
	}
	tx.Count(counterQuarantine, ^uint64(0)) // one less
	return b.Delete(key64(seq))
}

// Quarantined lists what is parked, oldest first. An entry that is damaged has only its number, and says so as its reason.
func (s *Store) Quarantined() (out []Quarantine, err error) {
	err = s.View(func(tx *Tx) error {
		return tx.bucket(bucketQuarantine).ForEach(func(k, v []byte) error {
			q := parked(binary.BigEndian.Uint64(k), v)
			out = append(out, q)
			return nil
		})
	})
	return out, err
}

// Parked reads one entry; ErrNotParked when there is none.
func (s *Store) Parked(seq uint64) (q Quarantine, err error) {
	err = s.View(func(tx *Tx) error {
		v := tx.bucket(bucketQuarantine).Get(key64(seq))
		if v == nil {
			return ErrNotParked
		}
		q = parked(seq, v)
		return nil
	})
	return q, err
}

func parked(seq uint64, v []byte) (q Quarantine) {
	if err := decode(v, &q); err != nil {
		q = Quarantine{Reason: "the entry itself cannot be read: " + err.Error()}
	}
	q.Seq = seq
	return q
}

// ParkedEvent is the event that an entry is about; ok is false where it is about an item, or nothing is left of the event.
func (q *Quarantine) ParkedEvent() (e event.Event, ok bool) {
	if q.Item != "" || len(q.Raw) == 0 || json.Unmarshal(q.Raw, &e) != nil || e.ID == "" {
		return event.Event{}, false
	}
	return e, true
}

// RetryEvent puts a parked event back into the outbox, with the id and the sequence that it had: where the broker takes it
// now, the gap that it left is closed.
func (s *Store) RetryEvent(seq uint64) error {
	return s.Update(func(tx *Tx) error {
		v := tx.bucket(bucketQuarantine).Get(key64(seq))
		if v == nil {
			return ErrNotParked
		}
		q := parked(seq, v)
		if _, ok := q.ParkedEvent(); !ok {
			return fmt.Errorf("entry %d: nothing of the event is left that could be published: drop it", seq)
		}
		if err := tx.appendOutbox(append(make([]byte, checksumSize, checksumSize+len(q.Raw)), q.Raw...)); err != nil {
			return err
		}
		return tx.DropQuarantine(seq)
	})
}
