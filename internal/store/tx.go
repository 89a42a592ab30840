package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

// Buckets. docs/storage.md describes each key and value; change both together.
var (
	bucketMeta          = []byte("meta")          // version, incarnation, epoch
	bucketCounters      = []byte("counters")      // name → uint64
	bucketMailboxes     = []byte("mailboxes")     // num → Mailbox
	bucketFeeds         = []byte("feeds")         // num → Feed
	bucketSubscriptions = []byte("subscriptions") // id → Subscription
	bucketItems         = []byte("items")         // mailbox num + item id → Item
	bucketReferences    = []byte("references")    // mailbox num + item id → Reference
	bucketInbox         = []byte("inbox")         // sequence → accepted notifications of one request
	bucketLifecycle     = []byte("lifecycle")     // sequence → Lifecycle
	bucketOutbox        = []byte("outbox")        // sequence → event.Event
	bucketAcks          = []byte("acks")          // outbox sequence → Ack
	bucketSequences     = []byte("sequences")     // partition key → uint64
	bucketQuarantine    = []byte("quarantine")    // sequence → Quarantine
	bucketConnections   = []byte("connections")   // name → Connection
	bucketWatches       = []byte("watches")       // name, mailbox → Watch
	bucketMeetings      = []byte("meetings")      // feed num + MeetingKey → Meeting
	bucketAlarms        = []byte("alarms")        // unix milliseconds + digest → Alarm
	bucketTold          = []byte("told")          // keys of alarms that were told
)

var buckets = [][]byte{bucketMeta, bucketCounters, bucketMailboxes, bucketFeeds, bucketSubscriptions, bucketItems, bucketReferences,
	bucketInbox, bucketLifecycle, bucketOutbox, bucketAcks, bucketSequences, bucketQuarantine, bucketConnections, bucketWatches,
	bucketMeetings, bucketAlarms, bucketTold}

// Counters of what push announced and what it did not, in the life of the file.
const (
	counterAnnounced = "push_announced"
	counterMissed    = "push_missed"
)

// appendFill is how full pages of buckets are packed whose keys only ever grow.
const appendFill = 0.95

// Tx is a transaction, shared with others when it writes. It must not be used after the function it was given to has
// returned, and belongs to that function's goroutine.
type Tx struct {
	s     *Store
	btx   *bolt.Tx
	dirty dirty
	after []func() // run under s.mu once committed
}

// dirty is what many operations of one transaction change and one write at its end makes durable.
type dirty struct {
	counters  map[string]uint64 // deltas
	sequences map[string]uint64 // new values
	rows      map[uint64][]byte // inbox rows without their checksum, records settled in place
}

func newTx(s *Store, btx *bolt.Tx) *Tx { return &Tx{s: s, btx: btx} }

func (tx *Tx) bucket(name []byte) *bolt.Bucket { return tx.btx.Bucket(name) }

func (tx *Tx) appending(name []byte) *bolt.Bucket {
	b := tx.btx.Bucket(name)
	b.FillPercent = appendFill
	return b
}

// Count adds to a counter.
func (tx *Tx) Count(name string, n uint64) {
	if n == 0 {
		return
	}
	if tx.dirty.counters == nil {
		tx.dirty.counters = map[string]uint64{}
	}
	tx.dirty.counters[name] += n
}

func (tx *Tx) onCommit(fn func()) { tx.after = append(tx.after, fn) }

func (tx *Tx) flush() error {
	b := tx.bucket(bucketCounters)
	for name, n := range tx.dirty.counters {
		total := n
		if v := b.Get([]byte(name)); v != nil {
			total += binary.BigEndian.Uint64(v)
		}
		if err := b.Put([]byte(name), key64(total)); err != nil {
			return err
		}
	}
	b = tx.bucket(bucketSequences)
	for name, n := range tx.dirty.sequences {
		if err := b.Put([]byte(name), key64(n)); err != nil {
			return err
		}
	}
	return tx.flushInbox()
}

func (tx *Tx) committed() {
	tx.s.mu.Lock()
	defer tx.s.mu.Unlock()
	for name, n := range tx.dirty.counters {
		tx.s.counters[name] += n
	}
	for _, fn := range tx.after {
		fn()
	}
}

// put writes a record as JSON with its checksum.
func (tx *Tx) put(bucket, key []byte, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return tx.bucket(bucket).Put(key, b)
}

// PutMailbox stores a mailbox, assigning its number when it has none.
func (tx *Tx) PutMailbox(m *Mailbox) error {
	if m.Num == 0 {
		n, err := tx.bucket(bucketMailboxes).NextSequence()
		if err != nil {
			return err
		}
		m.Num = uint32(n)
	}
	kept := *m
	tx.onCommit(func() { tx.s.mailboxes[kept.Num] = &kept })
	return tx.put(bucketMailboxes, key32(m.Num), m)
}

// PutFeed stores a feed, assigning its number when it has none.
func (tx *Tx) PutFeed(f *Feed) error {
	if f.Num == 0 {
		n, err := tx.bucket(bucketFeeds).NextSequence()
		if err != nil {
			return err
		}
		f.Num = uint32(n)
	}
	kept := *f
	tx.onCommit(func() { tx.s.feeds[kept.Num] = &kept })
	return tx.put(bucketFeeds, key32(f.Num), f)
}

// UpdateFeed changes a feed by what fn does to it, starting from what the transaction sees, so that two writers do not
// undo each other. It returns the feed as stored. What push announced and missed is counted for all feeds together too,
// so that a sum does not go back when a feed is forgotten.
func (tx *Tx) UpdateFeed(num uint32, fn func(*Feed)) (Feed, error) {
	var f Feed
	v := tx.bucket(bucketFeeds).Get(key32(num))
	if v == nil {
		return f, fmt.Errorf("feed %d is not stored", num)
	}
	if err := decode(v, &f); err != nil {
		return f, fmt.Errorf("feed %d: %w", num, err)
	}
	announced, missed := f.Announced, f.Missed
	fn(&f)
	tx.Count(counterAnnounced, f.Announced-announced)
	tx.Count(counterMissed, f.Missed-missed)
	return f, tx.PutFeed(&f)
}

// DeleteFeed forgets a feed and settles what is pending for it as filtered: nobody watches it any more.
func (tx *Tx) DeleteFeed(num uint32) error {
	pending, err := tx.Pending(num, 0)
	if err != nil {
		return err
	}
	for _, e := range pending {
		if err := tx.Settle(e, Filtered); err != nil {
			return err
		}
	}
	if err := tx.forgetMeetings(num); err != nil {
		return err
	}
	tx.onCommit(func() { delete(tx.s.feeds, num) })
	return tx.bucket(bucketFeeds).Delete(key32(num))
}

// PutSubscription stores a subscription under its id.
func (tx *Tx) PutSubscription(sub *Subscription) error {
	kept := *sub
	tx.onCommit(func() { tx.s.subs[kept.ID] = &kept })
	return tx.put(bucketSubscriptions, []byte(sub.ID), sub)
}

// DeleteSubscription forgets a subscription.
func (tx *Tx) DeleteSubscription(id string) error {
	tx.onCommit(func() { delete(tx.s.subs, id) })
	return tx.bucket(bucketSubscriptions).Delete([]byte(id))
}

func itemKey(mailbox uint32, id string) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(id)), mailbox), id...)
}

// Item reads what is known of an item; ok is false when nothing is.
func (tx *Tx) Item(mailbox uint32, id string) (it Item, ok bool, err error) {
	v := tx.bucket(bucketItems).Get(itemKey(mailbox, id))
	if v == nil {
		return it, false, nil
	}
	if err := decode(v, &it); err != nil {
		return it, false, fmt.Errorf("item of mailbox %d: %w", mailbox, err)
	}
	return it, true, nil
}

// EncodedItem is an item ready to be written, so that encoding need not be done inside a transaction.
type EncodedItem struct {
	ID    string
	value []byte
}

// EncodeItem prepares an item for PutItem.
func EncodeItem(id string, it *Item) (EncodedItem, error) {
	v, err := encode(it)
	return EncodedItem{id, v}, err
}

// PutItem stores what is known of an item.
func (tx *Tx) PutItem(mailbox uint32, it EncodedItem) error {
	return tx.appending(bucketItems).Put(itemKey(mailbox, it.ID), it.value) // ids of one mailbox mostly grow
}

// DeleteItem forgets an item.
func (tx *Tx) DeleteItem(mailbox uint32, id string) error {
	return tx.bucket(bucketItems).Delete(itemKey(mailbox, id))
}

// EachItem calls fn for every known item of a mailbox, in the order of ids, until fn returns an error. read decodes the
// item, and returns ErrDamaged where it cannot; it must not be called after fn has returned.
func (tx *Tx) EachItem(mailbox uint32, fn func(id string, read func() (Item, error)) error) error {
	prefix := key32(mailbox)
	c := tx.bucket(bucketItems).Cursor()
	for k, v := c.Seek(prefix); len(k) >= 4 && binary.BigEndian.Uint32(k) == mailbox; k, v = c.Next() {
		err := fn(string(k[4:]), func() (it Item, err error) { return it, decode(v, &it) })
		if err != nil {
			return err
		}
	}
	return nil
}

// Reference reads what was told of an item by reference; the zero value when nothing was.
func (tx *Tx) Reference(mailbox uint32, id string) (r Reference, err error) {
	if v := tx.bucket(bucketReferences).Get(itemKey(mailbox, id)); v != nil {
		err = decode(v, &r)
	}
	return r, err
}

// PutReference stores what was told of an item by reference.
func (tx *Tx) PutReference(mailbox uint32, id string, r *Reference) error {
	return tx.put(bucketReferences, itemKey(mailbox, id), r)
}

// ForgetReferences deletes what was told by reference of a mailbox's items last seen before a time, at most limit of
// them, and says how many.
func (tx *Tx) ForgetReferences(mailbox uint32, before time.Time, limit int) (n int, err error) {
	var old [][]byte
	c := tx.bucket(bucketReferences).Cursor()
	for k, v := c.Seek(key32(mailbox)); len(k) >= 4 && binary.BigEndian.Uint32(k) == mailbox && len(old) < limit; k, v = c.Next() {
		var r Reference
		if err := decode(v, &r); err != nil || r.SeenAt.Before(before) {
			old = append(old, bytes.Clone(k))
		}
	}
	for _, k := range old {
		if err := tx.bucket(bucketReferences).Delete(k); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// EncodedEvent is an event ready for the outbox, so that encoding need not be done inside a transaction.
type EncodedEvent struct {
	partition string // empty: the event has no sequence
	counter   string
	payload   []byte // JSON, without sequence, epoch and the closing brace
}

// EncodeEvent prepares an event for Append. What e says of sequence and epoch is left out: the store gives those.
func EncodeEvent(e *event.Event) (EncodedEvent, error) {
	bare := *e
	bare.Sequence, bare.Epoch, bare.Data = 0, "", nil
	b, err := json.Marshal(&bare)
	if err != nil {
		return EncodedEvent{}, err
	}
	if len(e.Data) == 0 {
		return EncodedEvent{}, fmt.Errorf("event %s has no data", e.ID)
	}
	b = append(append(b[:len(b)-1], `,"data":`...), e.Data...) // made by our own encoder: not read again
	enc := EncodedEvent{e.PartitionKey(), "events_" + e.Area + "_" + e.Name, b}
	if !e.Numbered() {
		enc.partition = ""
	}
	return enc, nil
}

// AppendEvent is EncodeEvent and Append in one. What it sets in e is final only once the transaction is committed.
func (tx *Tx) AppendEvent(e *event.Event) error {
	enc, err := EncodeEvent(e)
	if err == nil {
		err = tx.Append(enc)
	}
	if err != nil {
		return err
	}
	e.Sequence, e.Epoch = 0, ""
	if enc.partition != "" {
		e.Sequence, e.Epoch = tx.dirty.sequences[enc.partition], tx.s.epoch
	}
	return nil
}

// Append puts an event into the outbox and gives it the next sequence number of its watch and mailbox, if it has one.
func (tx *Tx) Append(e EncodedEvent) error {
	row := make([]byte, checksumSize, len(e.payload)+64)
	row = append(row, e.payload...)
	if e.partition != "" {
		row = strconv.AppendUint(append(row, `,"sequence":`...), tx.nextSequence(e.partition), 10)
		row = strconv.AppendQuote(append(row, `,"epoch":`...), tx.s.epoch)
	}
	row = append(row, '}')
	tx.Count(e.counter, 1)
	return tx.appendOutbox(row)
}

// appendOutbox puts a row, with room for its checksum in front, at the end of the outbox.
func (tx *Tx) appendOutbox(row []byte) error {
	b := tx.appending(bucketOutbox)
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	tx.Count(counterAppended, 1)
	tx.wakeOutbox()
	putChecksum(row)
	return b.Put(key64(seq), row)
}

// nextSequence counts the events of a watch and mailbox.
func (tx *Tx) nextSequence(partition string) uint64 {
	if tx.dirty.sequences == nil {
		tx.dirty.sequences = map[string]uint64{}
	}
	n, ok := tx.dirty.sequences[partition]
	if !ok {
		if v := tx.bucket(bucketSequences).Get([]byte(partition)); v != nil {
			n = binary.BigEndian.Uint64(v)
		}
	}
	tx.dirty.sequences[partition] = n + 1
	return n + 1
}

// Mailbox returns a copy of a mailbox's record.
func (s *Store) Mailbox(num uint32) (Mailbox, bool) { return lookup(s, s.mailboxes, num) }

// Feed returns a copy of a feed's record.
func (s *Store) Feed(num uint32) (Feed, bool) { return lookup(s, s.feeds, num) }

// Subscription returns a copy of a subscription's record.
func (s *Store) Subscription(id string) (Subscription, bool) { return lookup(s, s.subs, id) }

// Mailboxes returns copies of all mailboxes, in no order.
func (s *Store) Mailboxes() []Mailbox { return all(s, s.mailboxes) }

// Feeds returns copies of all feeds, in no order.
func (s *Store) Feeds() []Feed { return all(s, s.feeds) }

// Subscriptions returns copies of all subscriptions, the removed ones among them, in no order.
func (s *Store) Subscriptions() []Subscription { return all(s, s.subs) }

func lookup[K comparable, V any](s *Store, m map[K]*V, k K) (v V, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := m[k]; p != nil {
		return *p, true
	}
	return v, false
}

func all[K comparable, V any](s *Store, m map[K]*V) []V {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]V, 0, len(m))
	for _, p := range m {
		out = append(out, *p)
	}
	return out
}

// Expect lets notifications for a subscription that is just being created be recognized by their clientState, since
// they may arrive before the answer that brings its id (W-18). forget ends that.
func (s *Store) Expect(stateHash [32]byte, feed uint32) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected[stateHash] = feed
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.expected, stateHash)
	}
}

// Expected finds the feed whose subscription is being created with that clientState.
func (s *Store) Expected(stateHash [32]byte) (feed uint32, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	feed, ok = s.expected[stateHash]
	return feed, ok
}

// Counters returns the counters of the law: "accepted", "settled_<outcome>", "events_<area>_<name>" and others.
func (s *Store) Counters() map[string]uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.counters)
}

// Law returns the counters together with the number of pending notifications, as of one moment:
// accepted = the sum of settled_<outcome> + pending.
func (s *Store) Law() (pending int, counters map[string]uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inbox.total, maps.Clone(s.counters)
}
