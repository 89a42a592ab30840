package store

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A backup is a snapshot of the database file, followed by one line that tells it from anything else and from a part of
// itself.
const (
	trailerFormat = "\ntriggerd backup v1 of %s, %020d bytes, sha256 %64x\n"
	trailerTime   = "2006-01-02T15:04:05Z"
)

// trailerSize is the length of that line.
var trailerSize = int64(len(fmt.Sprintf(trailerFormat, trailerTime, 0, [32]byte{})))

// ErrNoBackup means that a file is no backup, or not all of one.
var ErrNoBackup = errors.New("this is no backup of triggerd, or it was cut short or changed")

// ErrStateExists means that there is a database where one should be restored.
var ErrStateExists = errors.New("there is a database already")

// Backup writes a consistent snapshot, as of one moment, while others go on writing. size is told before the first byte.
func (s *Store) Backup(w io.Writer, size func(int64)) error {
	return s.db.View(func(btx *bolt.Tx) error {
		size(btx.Size() + trailerSize)
		sum := sha256.New()
		n, err := btx.WriteTo(io.MultiWriter(w, sum))
		if err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		_, err = fmt.Fprintf(w, trailerFormat, time.Now().UTC().Format(trailerTime), n, sum.Sum(nil))
		return err
	})
}

// CheckBackup reads a backup to its end and says of when it is; ErrNoBackup when it is not whole.
func CheckBackup(r io.Reader) (at time.Time, err error) {
	in := &untrailed{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return time.Time{}, err
	}
	return in.at, nil
}

// Restored is what Restore did.
type Restored struct {
	At      time.Time // of when the backup is
	Epoch   string    // the new one
	Feeds   int       // that will be compared with their mailboxes
	Aside   string    // where the database went that was there; empty when there was none
	Version int       // of the schema in the backup
}

// Restore makes a backup the database of dir, which must exist. The old database, if there is one, is refused with
// ErrStateExists, or with force put aside under another name; it is never deleted. Nothing in dir changes unless the
// backup is whole and of triggerd, and a crash leaves either the old state or the new one.
//
// The restored state begins a new epoch with new sequences, and its feeds have no cursors: they are compared with their
// mailboxes, and what happened since the backup is published.
func Restore(dir string, backup io.Reader, force bool) (out Restored, err error) {
	path := filepath.Join(dir, "triggerd.db")
	unlock, err := lock(path)
	if err != nil {
		return out, describe(path, err)
	}
	defer unlock()
	if st, err := os.Stat(path); err == nil && st.Size() > 0 && !force {
		return out, fmt.Errorf("%s: %w", path, ErrStateExists)
	}
	next := path + ".restoring"
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(next)))
		}
	}()
	if out.At, err = receive(next, backup); err != nil {
		return out, err
	}
	if err := verify(next, Options{LockWait: time.Second}); err != nil {
		return out, fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	if err := out.begin(next); err != nil {
		return out, err
	}
	if out.Aside, err = putAside(path); err != nil {
		return out, err
	}
	if err := os.Rename(next, path); err != nil {
		return out, err
	}
	return out, writeDurably(filepath.Join(dir, incarnationFile), []byte(out.Epoch+"\n"))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// receive writes the snapshot of a backup into a file of its own.
func receive(path string, backup io.Reader) (at time.Time, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return at, err
	}
	in := &untrailed{in: bufio.NewReaderSize(backup, 1<<16), sum: sha256.New()}
	_, err = io.Copy(f, in)
	return in.at, errors.Join(err, f.Sync(), f.Close())
}

// putAside gives the old database a second name, so that it is still there when the new one takes the first.
func putAside(path string) (aside string, err error) {
	if st, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
		return "", nil
	}
	aside = path + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000Z")
	return aside, os.Link(path, aside)
}

// begin turns a snapshot into the beginning of a new life of the state.
func (out *Restored) begin(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	s := &Store{db: db, path: path}
	if out.Version, err = s.version(); err == nil && out.Version == 0 {
		err = fmt.Errorf("%w: it is empty", ErrNoBackup)
	}
	if err == nil {
		err = s.migrate()
	}
	if err == nil {
		err = db.Update(out.renew)
	}
	return errors.Join(err, db.Close())
}

func (out *Restored) renew(btx *bolt.Tx) error {
	var id [8]byte
	rand.Read(id[:])
	out.Epoch = hex.EncodeToString(id[:])
	meta := btx.Bucket(bucketMeta)
	if err := errors.Join(meta.Put(keyEpoch, []byte(out.Epoch)), meta.Put(keyIncarnation, []byte(out.Epoch))); err != nil {
		return err
	}
	if err := btx.DeleteBucket(bucketSequences); err != nil {
		return err
	}
	if _, err := btx.CreateBucket(bucketSequences); err != nil {
		return err
	}
	var feeds []*Feed
	if err := loadAll(btx, bucketFeeds, func(f *Feed) { feeds = append(feeds, f) }); err != nil {
		return err
	}
	tx := &Tx{btx: btx}
	for _, f := range feeds {
		f.Cursor = ""
		if err := tx.put(bucketFeeds, key32(f.Num), f); err != nil {
			return err
		}
	}
	out.Feeds = len(feeds)
	return nil
}

// untrailed reads the snapshot of a backup: all but the last line, which it checks at the end.
type untrailed struct {
	in   *bufio.Reader
	sum  hash.Hash
	n    int64
	at   time.Time
	tail []byte // read, and perhaps part of the last line
	done bool
}

// Read is io.Reader's. It ends with io.EOF only when all of the snapshot was there.
func (u *untrailed) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	for int64(len(u.tail)) <= trailerSize {
		var more [1 << 14]byte
		n, err := u.in.Read(more[:])
		u.tail = append(u.tail, more[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read the backup: %w", err)
		}
	}
	ready := int64(len(u.tail)) - trailerSize
	if ready <= 0 {
		u.done = true
		if err := u.check(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n := copy(p, u.tail[:ready])
	u.sum.Write(p[:n])
	u.n += int64(n)
	u.tail = append(u.tail[:0], u.tail[n:]...)
	return n, nil
}

// check compares the last line with what came before it.
func (u *untrailed) check() error {
	line := string(u.tail)
	at, rest, ok := strings.Cut(strings.TrimPrefix(line, "\ntriggerd backup v1 of "), ", ")
	if ok {
		u.at, _ = time.Parse(trailerTime, at)
	}
	size, _, _ := strings.Cut(rest, " ")
	n, _ := strconv.ParseInt(size, 10, 64)
	want := fmt.Appendf(nil, trailerFormat, u.at.Format(trailerTime), u.n, u.sum.Sum(nil))
	switch {
	case bytes.Equal(want, u.tail):
		return nil
	case !ok:
		return ErrNoBackup
	case n != u.n:
		return fmt.Errorf("%w: it has %d bytes of %d", ErrNoBackup, u.n, n)
	}
	return fmt.Errorf("%w: its checksum is another", ErrNoBackup)
}
