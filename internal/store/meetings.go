package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

// Meeting is what is known of one calendar item of a feed: the last look at it that showed something new. Of an occurrence
// that is like its series but for the date, only the date is kept (event.ObservedMeeting.Stub).
type Meeting struct {
	event.ObservedMeeting
	SeenAt time.Time `json:"seen_at"`
}

// MeetingKey names a calendar item within its feed: a single event or a whole series by its id, an occurrence by the id
// of its series and when the series has it, since its own id changes with the series (M-4a).
type MeetingKey struct {
	Series   string // the item's own id, or its series master's
	Original string // RFC 3339, UTC; empty unless it is an occurrence
}

func (k MeetingKey) bytes(feed uint32) []byte {
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 5+len(k.Series)+len(k.Original)), feed)
	out = append(append(out, k.Series...), 0)
	return append(out, k.Original...)
}

// Meeting reads what is known of a calendar item; ok is false when nothing is.
func (tx *Tx) Meeting(feed uint32, key MeetingKey) (m Meeting, ok bool, err error) {
	v := tx.bucket(bucketMeetings).Get(key.bytes(feed))
	if v == nil {
		return m, false, nil
	}
	if err := decode(v, &m); err != nil {
		return m, false, fmt.Errorf("calendar item of feed %d: %w", feed, err)
	}
	return m, true, nil
}

// EncodedMeeting is a calendar item ready to be written, so that encoding need not be done inside a transaction.
type EncodedMeeting struct {
	Key   MeetingKey
	value []byte
}

// EncodeMeeting prepares a calendar item for PutMeeting.
func EncodeMeeting(key MeetingKey, m *Meeting) (EncodedMeeting, error) {
	v, err := encode(m, json.OmitZeroStructFields(true)) // most are stubs, of which little is known
	return EncodedMeeting{key, v}, err
}

// PutMeeting stores what is known of a calendar item.
func (tx *Tx) PutMeeting(feed uint32, m EncodedMeeting) error {
	return tx.bucket(bucketMeetings).Put(m.Key.bytes(feed), m.value)
}

// DeleteMeeting forgets a calendar item.
func (tx *Tx) DeleteMeeting(feed uint32, key MeetingKey) error {
	return tx.bucket(bucketMeetings).Delete(key.bytes(feed))
}

// EachMeeting calls fn for every known calendar item of a feed, or of one series with its master, until fn returns an
// error. A series comes together, its master first. read decodes the item, and returns ErrDamaged where it cannot; it
// must not be called after fn has returned.
func (tx *Tx) EachMeeting(feed uint32, series string, fn func(key MeetingKey, read func() (Meeting, error)) error) error {
	prefix := key32(feed)
	if series != "" {
		prefix = MeetingKey{Series: series}.bytes(feed)
	}
	c := tx.bucket(bucketMeetings).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		id, original, _ := bytes.Cut(k[4:], []byte{0})
		key := MeetingKey{string(id), string(original)}
		if err := fn(key, func() (m Meeting, err error) { return m, decode(v, &m) }); err != nil {
			return err
		}
	}
	return nil
}

// forgetMeetings deletes all calendar items of a feed.
func (tx *Tx) forgetMeetings(feed uint32) error {
	var keys []MeetingKey
	err := tx.EachMeeting(feed, "", func(key MeetingKey, _ func() (Meeting, error)) error {
		keys = append(keys, key)
		return nil
	})
	for _, k := range keys {
		if err == nil {
			err = tx.DeleteMeeting(feed, k)
		}
	}
	return err
}

// Alarm is a moment at which something is to be told of a meeting's start. It is told only if the meeting still starts
// then: who moves a meeting adds alarms and leaves the old ones.
type Alarm struct {
	Feed        uint32     `json:"feed"`
	Meeting     MeetingKey `json:"meeting"`
	Watch       string     `json:"watch"`
	LeadSeconds int64      `json:"lead_seconds"` // before the start
	Start       time.Time  `json:"start"`        // of the meeting, as it was known then
}

// Lead is how long before the start it is told.
func (a *Alarm) Lead() time.Duration { return time.Duration(a.LeadSeconds) * time.Second }

// Due is when to tell it.
func (a *Alarm) Due() time.Time { return a.Start.Add(-a.Lead()) }

// key begins with the time, so that what is due comes first; the same alarm has the same key.
func (a *Alarm) key() []byte {
	out := key64(uint64(a.Due().UnixMilli()))
	sum := sha256.Sum256(fmt.Append(nil, a.Feed, "\x00", a.Meeting.Series, "\x00", a.Meeting.Original, "\x00", a.Watch, "\x00", a.LeadSeconds, "\x00", a.Start.Unix()))
	return append(out, sum[:16]...)
}

// PutAlarm stores an alarm, unless it was told already; one that is there stays as it is.
func (tx *Tx) PutAlarm(a *Alarm) error {
	key := a.key()
	if tx.bucket(bucketTold).Get(key) != nil {
		return nil
	}
	tx.onCommit(func() {
		select {
		case tx.s.alarms <- struct{}{}:
		default:
		}
	})
	return tx.put(bucketAlarms, key, a)
}

// keepTold is how long it is remembered that an alarm was told: a meeting that was moved away and back is not told again.
const keepTold = 60 * 24 * time.Hour

// AlarmTold remembers that an alarm was told, and forgets one or two that were told long ago.
func (tx *Tx) AlarmTold(a *Alarm, now time.Time) error {
	b := tx.bucket(bucketTold)
	c := b.Cursor()
	for range 2 {
		if k, _ := c.First(); k == nil || now.Sub(alarmTime(k)) < keepTold {
			break
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return b.Put(a.key(), []byte{1})
}

// TakeAlarms removes the alarms that are due at now, the earliest first, at most limit of them, and returns them. Those for
// which hold says so stay; nil holds none. A damaged one is removed and nothing else is said of it: its meeting, when
// looked at again, does not bring it back.
func (tx *Tx) TakeAlarms(now time.Time, limit int, hold func(*Alarm) bool) (due []Alarm, err error) {
	var keys [][]byte
	c := tx.bucket(bucketAlarms).Cursor()
	for k, v := c.First(); k != nil && len(keys) < limit && !alarmTime(k).After(now); k, v = c.Next() {
		var a Alarm
		damaged := decode(v, &a) != nil
		if !damaged && hold != nil && hold(&a) {
			continue
		}
		keys = append(keys, bytes.Clone(k))
		if !damaged {
			due = append(due, a)
		}
	}
	for _, k := range keys {
		if err := tx.bucket(bucketAlarms).Delete(k); err != nil {
			return nil, err
		}
	}
	return due, nil
}

func alarmTime(key []byte) time.Time { return time.UnixMilli(int64(binary.BigEndian.Uint64(key))) }

// NextAlarm is when the earliest alarm is due; ok is false when there is none.
func (s *Store) NextAlarm() (at time.Time, ok bool, err error) {
	err = s.db.View(func(btx *bolt.Tx) error {
		if k, _ := btx.Bucket(bucketAlarms).Cursor().First(); k != nil {
			at, ok = alarmTime(k), true
		}
		return nil
	})
	return at, ok, err
}

// AlarmsChanged has something to receive when alarms were added since it was last received from.
func (s *Store) AlarmsChanged() <-chan struct{} { return s.alarms }
