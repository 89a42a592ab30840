package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
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
	At    time.Time // of when the backup is
	Epoch string    // the new one
	Feeds int       // that will be compared with their mailboxes
	Aside string    // where the database went that was there; empty when there was none
}

// Restore makes a backup the database of dir, which must exist. The old database, if there is one, is refused with
// ErrStateExists, or with force put aside under another name; it is never deleted. Nothing else in dir changes unless the
// backup is whole, of triggerd, and can be opened, and a crash leaves either the old state or the new one.
//
// The restored state begins a new epoch with new sequences. Its feeds have no cursors: they are compared with their
// mailboxes, and what happened since the backup is published. What it held of published events is published again.
func Restore(dir string, backup io.Reader, force bool) (out Restored, err error) {
	path := filepath.Join(dir, "triggerd.db")
	unlock, err := lock(path)
	if err != nil {
		return out, describe(path, err)
	}
	defer unlock()
	st, err := os.Stat(path)
	there := err == nil && st.Size() > 0
	if there && !force {
		return out, fmt.Errorf("%s: %w", path, ErrStateExists)
	}
	scratch := filepath.Join(dir, "restoring") // what a killed restore has left is in nobody's way
	if err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o700)); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	next := filepath.Join(scratch, "triggerd.db")
	if out.At, err = receive(next, backup); err != nil {
		return out, err
	}
	if err := out.begin(scratch); err != nil {
		return out, err
	}
	if err := out.place(next, path, there); err != nil {
		return out, err
	}
	return out, writeDurably(filepath.Join(dir, incarnationFile), []byte(out.Epoch+"\n"))
}

// receive writes the snapshot of a backup into a file of its own.
func receive(path string, backup io.Reader) (at time.Time, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return at, err
	}
	in := &untrailed{in: bufio.NewReaderSize(backup, 1<<16), sum: sha256.New()}
	n, err := io.Copy(f, in)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: it is empty", ErrNoBackup)
	}
	return in.at, errors.Join(err, f.Sync(), f.Close())
}

// begin opens the snapshot, which reads and checks it, in a directory that knows of no earlier life: a new one begins.
func (out *Restored) begin(dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return fmt.Errorf("the state in the backup: %w", err)
	}
	feeds := s.Feeds()
	out.Epoch, out.Feeds = s.Epoch(), len(feeds)
	err = s.Update(func(tx *Tx) error {
		for _, bucket := range [][]byte{bucketSequences, bucketAcks} {
			if err := tx.btx.DeleteBucket(bucket); err != nil {
				return err
			}
			if _, err := tx.btx.CreateBucket(bucket); err != nil {
				return err
			}
		}
		for _, f := range feeds {
			f.Cursor = ""
			if err := tx.put(bucketFeeds, key32(f.Num), &f); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, s.Close())
}

// place moves the new database to its place. An old one gets a second name first; where there was none, one that somebody
// has made meanwhile is not written over.
func (out *Restored) place(next, path string, there bool) error {
	if !there {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // empty
			return err
		}
		return os.Link(next, path)
	}
	out.Aside = path + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000Z")
	return errors.Join(os.Link(path, out.Aside), os.Rename(next, path))
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
