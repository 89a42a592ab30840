package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

const nobody = 65534

// used makes a state directory that has been in use, and returns it with its database file.
func used(t testing.TB) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	s := start(t, dir, Options{})
	update(t, s, func(tx *Tx) error {
		if err := tx.PutMailbox(&Mailbox{Connection: "contoso", Address: "sales@contoso.com"}); err != nil {
			return err
		}
		if err := tx.PutFeed(&Feed{Mailbox: 1, FolderID: "inbox"}); err != nil {
			return err
		}
		for i := range items {
			it, err := EncodeItem(itemID(i), wantItem(i))
			if err != nil {
				return err
			}
			if err := tx.PutItem(1, it); err != nil {
				return err
			}
		}
		return nil
	})
	accept(t, s, Notification{Feed: 1, Item: itemID(0), Change: event.Created, At: time.UnixMilli(1).UTC()})
	stop(t, s)
	return dir, s.Path()
}

const items = 400

func itemID(i int) string { return fmt.Sprintf("AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A%04d", i) }

func wantItem(i int) *Item {
	return &Item{Observed: event.Observed{ChangeKey: "key-" + strconv.Itoa(i), FolderID: "inbox",
		Message: event.Message{Subject: strings.Repeat("s", i%50), InternetMessageID: "<" + strconv.Itoa(i) + "@contoso.com>"}}}
}

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func TestOpenRefusesWhatItCannotVouchFor(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir, path string)
		want  error
		says  string // part of the message: what to do about it
	}{
		{"a text file", func(t *testing.T, _, path string) { write(t, path, []byte(strings.Repeat("not a database\n", 5000))) }, ErrDamaged, "restore a backup"},
		{"a short text file", func(t *testing.T, _, path string) { write(t, path, []byte("hello\n")) }, ErrDamaged, "restore a backup"},
		{"zeros", func(t *testing.T, _, path string) { write(t, path, make([]byte, 1<<16)) }, ErrDamaged, "restore a backup"},
		{"cut to nothing", func(t *testing.T, _, path string) { truncate(t, path, 0) }, ErrStateLost, "restore a backup"},
		{"cut to 100 bytes", func(t *testing.T, _, path string) { truncate(t, path, 100) }, ErrDamaged, "restore a backup"},
		{"cut to the meta pages", func(t *testing.T, _, path string) { truncate(t, path, 2*int64(os.Getpagesize())) }, ErrDamaged, "restore a backup"},
		{"cut to half", func(t *testing.T, _, path string) { truncate(t, path, extent(t, path)/2) }, ErrDamaged, "restore a backup"},
		{"cut by one byte", func(t *testing.T, _, path string) { truncate(t, path, extent(t, path)-1) }, ErrDamaged, "cut short"},
		{"both meta pages zeroed", func(t *testing.T, _, path string) { poke(t, path, 0, make([]byte, 2*os.Getpagesize())) }, ErrDamaged, "restore a backup"},
		{"a foreign bbolt file", func(t *testing.T, _, path string) { foreign(t, path, "flow") }, ErrDamaged, "not triggerd's"},
		{"a foreign bbolt file with a bucket of our name", func(t *testing.T, _, path string) { foreign(t, path, "meta") }, ErrDamaged, "makes no sense"},
		{"a newer version", func(t *testing.T, _, path string) { setVersion(t, path, len(migrations)+1) }, ErrNewerVersion, "install the newer triggerd"},
		{"a damaged feed", func(t *testing.T, _, path string) {
			raw(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketFeeds).Put(key32(1), []byte("\x00\x00\x00\x00{}")) })
		}, ErrDamaged, "feeds 00000001"},
		{"a damaged connection", func(t *testing.T, _, path string) {
			raw(t, path, func(tx *bolt.Tx) error {
				return tx.Bucket(bucketConnections).Put([]byte("alice"), []byte("\x00\x00\x00\x00{}"))
			})
		}, ErrDamaged, "connections 616c696365"},
		{"a damaged counter", func(t *testing.T, _, path string) {
			raw(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketCounters).Put([]byte("accepted"), []byte{1}) })
		}, ErrDamaged, "accepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, path := used(t)
			tt.spoil(t, dir, path)
			before := digest(t, path)
			for range 2 { // a refusal must not leave the file locked or changed
				s, err := Open(dir, Options{})
				if err == nil {
					stop(t, s)
				}
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("Open = %v, want %v that names %s and says %q", err, tt.want, path, tt.says)
				}
			}
			if digest(t, path) != before {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenRefusesAGarbagePage(t *testing.T) {
	dir, path := used(t)
	size := int64(os.Getpagesize())
	garbage := bytes.Repeat([]byte("garbage!"), int(size)/8)
	refused := 0
	for at := 2 * size; at < extent(t, path); at += size {
		old := peek(t, path, at, int(size))
		poke(t, path, at, garbage)
		before := digest(t, path)
		s, err := Open(dir, Options{})
		switch {
		case err == nil: // a free page
			checkItems(t, s)
			stop(t, s)
		case errors.Is(err, ErrDamaged):
			refused++
		default:
			t.Fatalf("page at %d: Open = %v, want ErrDamaged", at, err)
		}
		if digest(t, path) != before {
			t.Fatal("the file was changed")
		}
		poke(t, path, at, old)
	}
	if refused < 5 {
		t.Errorf("%d garbage pages were refused, want most", refused)
	}
}

func TestOneLostMetaPageIsSurvived(t *testing.T) {
	for page := range 2 {
		dir, path := used(t)
		poke(t, path, int64(page*os.Getpagesize()), make([]byte, os.Getpagesize()))
		s := start(t, dir, Options{})
		checkItems(t, s)
		law(t, s)
	}
}

// Every bit that flips either makes Open refuse, or is caught by a checksum, or hit nothing that counts: no value other
// than the one stored is ever handed out.
func TestFlippedBitsNeverGiveWrongValues(t *testing.T) {
	dir, path := used(t)
	end := extent(t, path)
	var refused, caught int
	for i := range int64(1000) {
		bit := i * 7919 * 31 % (end * 8)
		flip(t, path, bit)
		s, err := Open(dir, Options{})
		switch {
		case err == nil:
			caught += checkItems(t, s)
			stop(t, s)
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrNewerVersion): // the latter when the version itself is hit
			refused++
		default:
			t.Fatalf("bit %d: Open = %v", bit, err)
		}
		flip(t, path, bit)
	}
	t.Logf("of 1000 flips %d made Open refuse and %d were caught on reading", refused, caught)
	if refused < 20 || caught < 200 {
		t.Errorf("%d refused and %d caught on reading: the flips missed the data", refused, caught)
	}
}

// checkItems reads all items, fails on a wrong one, and says how many are damaged or missing.
func checkItems(t *testing.T, s *Store) (bad int) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		for i := range items {
			it, ok, err := tx.Item(1, itemID(i))
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("Item(%d) = %v, want ErrDamaged", i, err)
			}
			if err != nil || !ok {
				bad++
				continue
			}
			if want := wantItem(i); it.ChangeKey != want.ChangeKey || it.Message.Subject != want.Message.Subject || it.Message.InternetMessageID != want.Message.InternetMessageID {
				t.Fatalf("Item(%d) = %+v: a wrong value was handed out", i, it)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bad
}

func TestEachItemGoesOnPastADamagedOne(t *testing.T) {
	dir, path := used(t)
	raw(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket(bucketItems).Put(itemKey(1, itemID(7)), []byte("\x00\x00\x00\x00{}"))
	})
	s := start(t, dir, Options{})
	var good, bad int
	err := s.View(func(tx *Tx) error {
		return tx.EachItem(1, func(id string, read func() (Item, error)) error {
			_, err := read()
			if err == nil {
				good++
				return nil
			}
			if bad++; id != itemID(7) || !errors.Is(err, ErrDamaged) {
				t.Errorf("item %s: %v, want item 7 as damaged", id, err)
			}
			return nil
		})
	})
	if err != nil || good != items-1 || bad != 1 {
		t.Errorf("%d good, %d bad, %v, want %d, 1, nil", good, bad, err, items-1)
	}
}

func TestOpenRefusesALockedDatabase(t *testing.T) {
	t.Run("by this process", func(t *testing.T) {
		dir, _ := used(t)
		first := start(t, dir, Options{})
		wantLocked(t, dir)
		accept(t, first, Notification{Feed: 1, Item: "after"})
		law(t, first)
	})
	t.Run("by another process", func(t *testing.T) {
		dir, _ := used(t)
		cmd := child(t, "hold", dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range lines(out) {
			break
		}
		wantLocked(t, dir)
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		law(t, start(t, dir, Options{}))
	})
}

func wantLocked(t *testing.T, dir string) {
	t.Helper()
	began := time.Now()
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "TRIGGERD_STATE_DIR") {
		t.Errorf("Open = %v, want ErrLocked that names TRIGGERD_STATE_DIR", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("refused after %v, want about 1 s", took)
	}
}

func TestOpenRefusesWithoutRights(t *testing.T) {
	tests := []struct {
		name string
		take func(t *testing.T, dir, path string)
	}{
		{"a directory that cannot be written", func(t *testing.T, dir, path string) {
			remove(t, path, filepath.Join(dir, incarnationFile))
			chmod(t, dir, 0o500)
		}},
		{"a directory that cannot be entered", func(t *testing.T, dir, _ string) { chmod(t, dir, 0) }},
		{"a file that cannot be read", func(t *testing.T, _, path string) { chmod(t, path, 0) }},
		{"a file that cannot be written", func(t *testing.T, _, path string) { chmod(t, path, 0o400) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, path := used(t)
			chmod(t, filepath.Dir(dir), 0o755) // so that another user gets as far as dir
			if os.Getuid() == 0 {
				for _, p := range []string{dir, path, filepath.Join(dir, incarnationFile)} {
					if err := os.Chown(p, nobody, nobody); err != nil {
						t.Fatal(err)
					}
				}
			}
			tt.take(t, dir, path)
			out, err := child(t, "restrict", dir).CombinedOutput()
			chmod(t, dir, 0o700)
			if err == nil || !strings.Contains(string(out), "permission denied") || !strings.Contains(string(out), "to the user triggerd runs as") {
				t.Errorf("Open said %q (%v), want that permission is denied and what to do", out, err)
			}
		})
	}
}

func TestOpenRefusesADirectoryInPlaceOfTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "triggerd.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "triggerd.db: is not a regular file") {
		t.Errorf("Open = %v, want that it is not a regular file", err)
	}
	if _, err := Open(filepath.Join(dir, "missing"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open in a missing directory = %v, want ErrNotExist", err)
	}
}

func TestErrorsOfTheFileSystemSayWhatToDo(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EROFS, syscall.ENOSPC} {
		err := describe("triggerd.db", &os.PathError{Op: "open", Path: "triggerd.db", Err: errno})
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "needs to write here") {
			t.Errorf("describe(%v) = %v", errno, err)
		}
	}
}

func TestLostStateIsNotAFirstRun(t *testing.T) {
	dir, path := used(t)
	remove(t, path)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrStateLost) || !strings.Contains(err.Error(), incarnationFile) {
		t.Fatalf("Open = %v, want ErrStateLost that names %s", err, incarnationFile)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a database was made all the same: %v", err)
	}
	remove(t, filepath.Join(dir, incarnationFile)) // the operator agrees to start empty
	s := start(t, dir, Options{})
	if len(s.Feeds()) != 0 || s.Pending() != 0 {
		t.Error("the new state is not empty")
	}
}

func TestFirstRun(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	epoch := s.Epoch()
	if len(epoch) != 16 || len(s.Feeds())+len(s.Mailboxes())+len(s.Subscriptions())+s.Pending()+len(s.Counters()) != 0 {
		t.Errorf("a new state has epoch %q, %d feeds, counters %v", epoch, len(s.Feeds()), s.Counters())
	}
	for _, name := range []string{"triggerd.db", incarnationFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, st, err)
		}
	}
	stop(t, s)
	if s = start(t, dir, Options{}); s.Epoch() != epoch {
		t.Errorf("epoch %s became %s by a restart", epoch, s.Epoch())
	}
}

// A process killed between making the database and writing the incarnation file has not published anything: the next
// start begins again.
func TestAFirstRunThatWasCutShortIsBegunAgain(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, dir, Options{}))
	remove(t, filepath.Join(dir, incarnationFile))
	s := start(t, dir, Options{})
	marker, err := os.ReadFile(filepath.Join(dir, incarnationFile))
	if err != nil || strings.TrimSpace(string(marker)) != s.Epoch() {
		t.Errorf("incarnation %q, %v, want %s", marker, err, s.Epoch())
	}
}

func TestMigrationsBringAFileToThisVersion(t *testing.T) {
	dir, path := used(t)
	got := ""
	raw(t, path, func(tx *bolt.Tx) error {
		got = string(tx.Bucket(bucketMeta).Get(keyVersion))
		return nil
	})
	if got != strconv.Itoa(len(migrations)) {
		t.Errorf("a new file has version %s, want %d", got, len(migrations))
	}
	// A file killed before its first migration is an empty bbolt file.
	remove(t, path)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, Options{})
	update(t, s, func(tx *Tx) error {
		for _, name := range buckets {
			if tx.bucket(name) == nil {
				t.Errorf("bucket %s is missing", name)
			}
		}
		return nil
	})
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

func poke(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func peek(t *testing.T, path string, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(t *testing.T, path string, bit int64) {
	t.Helper()
	b := peek(t, path, bit/8, 1)
	b[0] ^= 1 << (bit % 8)
	poke(t, path, bit/8, b)
}

// raw changes the file behind the store's back.
func raw(t *testing.T, path string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func setVersion(t *testing.T, path string, version int) {
	raw(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte(strconv.Itoa(version))) })
}

func foreign(t *testing.T, path, bucket string) {
	remove(t, path)
	raw(t, path, func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte(bucket))
		return err
	})
}

// extent is how many bytes of the file are in use.
func extent(t *testing.T, path string) (size int64) {
	t.Helper()
	raw(t, path, func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	return size
}
