// Package store keeps everything that must survive: accepted notifications (inbox), events on their way to NATS
// (outbox), what is known of every item, the cursors, the subscriptions, and the counters of the law that says that
// nothing was lost. It is the only package that touches bbolt; docs/storage.md describes the file.
//
// All writers share transactions: what waits while one transaction is being synced goes into the next one (group
// commit). What must be true together is written by one call of Update.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Reactions a caller can have to an error of this package.
var (
	ErrLocked       = errors.New("database is in use by another triggerd")
	ErrDamaged      = errors.New("database is damaged")
	ErrNewerVersion = errors.New("database was written by a newer triggerd")
	ErrStateLost    = errors.New("database is missing or empty although this state directory has been in use")
	ErrFull         = errors.New("inbox is full")
	ErrTooLong      = errors.New("a notification has a string above 64 KiB")
	ErrClosed       = errors.New("store is closed")
)

// DefaultMaxInbox is how many notifications may wait in the inbox before Accept answers ErrFull.
const DefaultMaxInbox = 1_000_000

// Options tune a Store; the zero value is right for production.
type Options struct {
	MaxInbox int           // notifications in the inbox, default DefaultMaxInbox
	MaxSize  int           // bytes of the database file, 0 means no limit
	LockWait time.Duration // how long Open waits for another process to let go, default 1 s
}

// Store is the open database. It is safe for concurrent use.
type Store struct {
	db   *bolt.DB
	path string
	opts Options

	ops    chan *op      // to the committer
	pulse  chan struct{} // from the committer, whenever it is free
	quit   chan struct{} // closed by Close
	done   chan struct{} // closed when the committer has ended
	alarms chan struct{} // alarms were added
	failed chan error    // holds the error after which nothing may be written any more

	mu          sync.RWMutex // guards everything below; never held across a commit
	mailboxes   map[uint32]*Mailbox
	feeds       map[uint32]*Feed
	subs        map[string]*Subscription
	connections map[string]*Connection
	watches     map[string]*Watch
	expected    map[[32]byte]uint32 // clientState hash of a subscription being created → feed
	inbox       *inboxIndex
	outbox      outboxIndex
	counters    map[string]uint64
	epoch       string
	trouble     Trouble
}

// Open opens or creates the database in dir, which must exist. It refuses what it cannot vouch for, and never
// overwrites it: ErrLocked, ErrDamaged, ErrNewerVersion, ErrStateLost.
func Open(dir string, opts Options) (*Store, error) {
	if opts.MaxInbox == 0 {
		opts.MaxInbox = DefaultMaxInbox
	}
	if opts.LockWait == 0 {
		opts.LockWait = time.Second
	}
	path := filepath.Join(dir, "triggerd.db")
	fresh, err := checkIncarnation(dir, path)
	if err != nil {
		return nil, err
	}
	if err := verify(path, opts); err != nil {
		return nil, describe(path, err)
	}
	db, err := openBolt(path, opts)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db: db, path: path, opts: opts,
		ops: make(chan *op, 4096), pulse: make(chan struct{}), quit: make(chan struct{}), done: make(chan struct{}), alarms: make(chan struct{}, 1), failed: make(chan error, 1),
		mailboxes: map[uint32]*Mailbox{}, feeds: map[uint32]*Feed{}, subs: map[string]*Subscription{}, connections: map[string]*Connection{}, watches: map[string]*Watch{},
		expected: map[[32]byte]uint32{}, inbox: newInboxIndex(), outbox: outboxIndex{wake: make(chan struct{}, 1)}, counters: map[string]uint64{},
	}
	if err := guard(func() error { return s.load(dir, fresh) }); err != nil {
		return nil, errors.Join(describe(path, err), db.Close())
	}
	go s.commitLoop()
	return s, nil
}

// Run blocks until ctx is done, and returns nil, or until the storage can no longer be trusted (an I/O error whose
// effect is unknown), and returns why: the process must then end and open the file anew.
func (s *Store) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// Close commits what waits and closes the file.
func (s *Store) Close() error {
	close(s.quit)
	<-s.done
	return s.db.Close()
}

// Path is the database file.
func (s *Store) Path() string { return s.path }

// Epoch names this life of the state; a new one begins only when state was lost or restored.
func (s *Store) Epoch() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epoch
}

func openBolt(path string, opts Options) (db *bolt.DB, err error) {
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         opts.LockWait,
			FreelistType:    bolt.FreelistMapType,
			NoFreelistSync:  true,
			InitialMmapSize: 256 << 20,
			MaxSize:         opts.MaxSize,
		})
		return err
	})
	if err != nil {
		return nil, describe(path, err)
	}
	return db, nil
}

// guard turns the panics by which bbolt reports some kinds of damage into errors.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// describe says what an error on opening means and what to do about it.
func describe(path string, err error) error {
	const keep = "the file was left as it is; restore a backup, or move it away to start empty: mailboxes are then read anew and what changed since the last run is not published"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s: %w: stop it first, or give this one its own TRIGGERD_STATE_DIR", path, ErrLocked)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w: give the directory and the file to the user triggerd runs as, modes 0700 and 0600", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, ErrDamaged):
		if errors.Is(err, ErrDamaged) {
			return fmt.Errorf("%s: %w; %s", path, err, keep)
		}
		return fmt.Errorf("%s: %w: %w; %s", path, ErrDamaged, err, keep)
	case errors.Is(err, ErrNewerVersion):
		return fmt.Errorf("%s: %w; the file was left as it is: install the newer triggerd again", path, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w: triggerd needs to write here: mount it writable, or set TRIGGERD_STATE_DIR", path, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%s: %w: triggerd needs to write here: free some space", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
