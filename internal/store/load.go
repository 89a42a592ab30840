package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// incarnationFile lies beside the database and is written once: with it and without a database, state was lost; without
// both, this is a first run. bbolt itself opens an emptied file as a new one.
const incarnationFile = "triggerd.incarnation"

// migrations[i] takes the file from version i to version i+1. Append, never edit.
var migrations = [...]func(*bolt.Tx) error{
	func(tx *bolt.Tx) error { // the first version
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	},
	func(tx *bolt.Tx) error { // sign-ins
		_, err := tx.CreateBucketIfNotExists(bucketConnections)
		return err
	},
	func(tx *bolt.Tx) error { // how fresh watches are
		_, err := tx.CreateBucketIfNotExists(bucketWatches)
		return err
	},
	func(tx *bolt.Tx) error { // calendars
		for _, name := range [][]byte{bucketMeetings, bucketAlarms, bucketTold} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	},
}

var (
	keyVersion     = []byte("version")
	keyEpoch       = []byte("epoch")
	keyIncarnation = []byte("incarnation")
)

// checkIncarnation reports whether this is a first run, or ErrStateLost.
func checkIncarnation(dir, path string) (fresh bool, err error) {
	marker := filepath.Join(dir, incarnationFile)
	_, err = os.Stat(marker)
	used := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%w: give the directory to the user triggerd runs as, mode 0700", err)
	}
	db, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if db != nil && !db.Mode().IsRegular() {
		return false, fmt.Errorf("%s: is not a regular file: move it away", path)
	}
	if used && (db == nil || db.Size() == 0) {
		return false, fmt.Errorf("%s: %w: restore a backup, or remove %s to start empty: mailboxes are then read anew and what changed since the last run is not published",
			path, ErrStateLost, marker)
	}
	return !used, nil
}

// load checks the file, brings it to this version, and reads what is kept in memory.
func (s *Store) load(dir string, fresh bool) error {
	if err := s.migrate(); err != nil {
		return err
	}
	if fresh {
		if err := s.begin(dir); err != nil {
			return err
		}
	}
	return s.db.View(func(btx *bolt.Tx) error {
		s.epoch = string(btx.Bucket(bucketMeta).Get(keyEpoch))
		return s.loadMemory(btx)
	})
}

func (s *Store) migrate() error {
	version, err := s.version()
	if err != nil || version == len(migrations) {
		return err
	}
	return s.db.Update(func(btx *bolt.Tx) error {
		for _, step := range migrations[version:] {
			if err := step(btx); err != nil {
				return err
			}
		}
		return btx.Bucket(bucketMeta).Put(keyVersion, []byte(strconv.Itoa(len(migrations))))
	})
}

// version reads the file's version: 0 for a new file.
func (s *Store) version() (version int, err error) {
	err = s.db.View(func(btx *bolt.Tx) error {
		meta := btx.Bucket(bucketMeta)
		if meta == nil {
			if k, _ := btx.Cursor().First(); k != nil {
				return fmt.Errorf("%w: it is a bbolt file, but not triggerd's", ErrDamaged)
			}
			return nil
		}
		v := string(meta.Get(keyVersion))
		version, err = strconv.Atoi(v)
		if err != nil || version < 1 {
			return fmt.Errorf("%w: version %q makes no sense", ErrDamaged, v)
		}
		if version > len(migrations) {
			return fmt.Errorf("%w: version %d, this one knows %d", ErrNewerVersion, version, len(migrations))
		}
		return nil
	})
	return version, err
}

// begin starts a new life of the state: a new epoch, and the file that tells a lost database from a first run.
func (s *Store) begin(dir string) error {
	var id [8]byte
	rand.Read(id[:])
	epoch := hex.EncodeToString(id[:])
	err := s.db.Update(func(btx *bolt.Tx) error {
		meta := btx.Bucket(bucketMeta)
		return errors.Join(meta.Put(keyEpoch, []byte(epoch)), meta.Put(keyIncarnation, []byte(epoch)))
	})
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(dir, incarnationFile), []byte(epoch+"\n"))
}

// writeDurably writes a new file and syncs it and its directory.
func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) loadMemory(btx *bolt.Tx) error {
	err := btx.Bucket(bucketCounters).ForEach(func(k, v []byte) error {
		if len(v) != 8 {
			return fmt.Errorf("%w: counter %s", ErrDamaged, k)
		}
		s.counters[string(k)] = binary.BigEndian.Uint64(v)
		return nil
	})
	err = errors.Join(err, loadAll(btx, bucketMailboxes, func(m *Mailbox) { s.mailboxes[m.Num] = m }))
	err = errors.Join(err, loadAll(btx, bucketFeeds, func(f *Feed) { s.feeds[f.Num] = f }))
	err = errors.Join(err, loadAll(btx, bucketSubscriptions, func(sub *Subscription) { s.subs[sub.ID] = sub }))
	err = errors.Join(err, loadAll(btx, bucketConnections, func(c *Connection) { s.connections[c.Name] = c }))
	err = errors.Join(err, loadAll(btx, bucketWatches, func(w *Watch) { s.watches[watchKey(w.Name, w.Token)] = w }))
	if err != nil {
		return err
	}
	s.outbox.held = btx.Bucket(bucketAcks).Stats().KeyN
	s.outbox.pending = btx.Bucket(bucketOutbox).Stats().KeyN - s.outbox.held
	return btx.Bucket(bucketInbox).ForEach(func(k, v []byte) error {
		seq := binary.BigEndian.Uint64(k)
		row, err := unseal(v)
		if err != nil {
			return fmt.Errorf("inbox row %d: %w", seq, err)
		}
		return eachRecord(row, func(i, _ int, settled bool, n Notification) {
			if !settled {
				s.inbox.add(n.Feed, entryRef{seq, uint32(i)})
			}
		})
	})
}

func loadAll[V any](btx *bolt.Tx, bucket []byte, keep func(*V)) error {
	return btx.Bucket(bucket).ForEach(func(k, v []byte) error {
		rec := new(V)
		if err := decode(v, rec); err != nil {
			return fmt.Errorf("%s %x: %w", bucket, k, err)
		}
		keep(rec)
		return nil
	})
}
