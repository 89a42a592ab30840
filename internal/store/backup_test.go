package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/triggerd/triggerd/internal/event"
)

// backup makes one in memory.
func backup(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	var told int64
	if err := s.Backup(&b, func(n int64) { told = n }); err != nil {
		t.Fatal(err)
	}
	if told != int64(b.Len()) {
		t.Errorf("%d bytes were told of, %d came", told, b.Len())
	}
	return b.Bytes()
}

func restore(t testing.TB, dir string, b []byte, force bool) Restored {
	t.Helper()
	r, err := Restore(dir, bytes.NewReader(b), force)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// filled is a store with something of everything.
func filled(t testing.TB, dir string) *Store {
	t.Helper()
	s := start(t, dir, Options{})
	update(t, s, func(tx *Tx) error {
		mb := Mailbox{Connection: "c", Address: "a"}
		f := Feed{FolderID: "inbox", Cursor: "https://graph/delta", BaselinedAt: time.Unix(1, 0), RoundAt: time.Unix(2, 0)}
		err := tx.PutMailbox(&mb)
		f.Mailbox = mb.Num
		return errors.Join(err, tx.PutFeed(&f), tx.PutSubscription(&Subscription{ID: "sub", Feed: 1}),
			tx.PutConnection(&Connection{Name: "c", Sealed: []byte("sealed")}), tx.PutWatch(&Watch{Name: "w", Token: "m", State: "fresh"}))
	})
	putMeeting(t, s, 2, MeetingKey{Series: "series"}, "Planning")
	putAlarms(t, s, alarmAt(nine, "told"), alarmAt(nine.Add(time.Hour), "waits"))
	told := takeAlarms(t, s, nine, 1)
	update(t, s, func(tx *Tx) error { return tx.AlarmTold(&told[0], nine) })
	accept(t, s, Notification{Feed: 1, Item: "one", Change: event.Created, At: time.Now()}, Notification{Feed: 1, Item: "two", Change: event.Created, At: time.Now()})
	update(t, s, func(tx *Tx) error {
		return tx.AppendEvent(&event.Event{ID: "e1", Area: event.AreaMail, Name: event.Received, Watch: "w", Mailbox: "m", Data: []byte("{}")})
	})
	return s
}

// A restored state has everything of the backup, in a new epoch, and its feeds will be compared.
func TestBackupAndRestore(t *testing.T) {
	s := filled(t, t.TempDir())
	update(t, s, func(tx *Tx) error {
		return tx.AppendEvent(&event.Event{ID: "e0", Area: event.AreaMail, Name: event.Received, Watch: "w", Mailbox: "m", Data: []byte("{}")})
	})
	if err := s.Acknowledge([]Ack{{Seq: 2, ID: "e0", StreamSeq: 1, At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	b, epoch := backup(t, s), s.Epoch()
	at, err := CheckBackup(bytes.NewReader(b))
	if err != nil || time.Since(at) > time.Minute {
		t.Errorf("check: %v, %v", at, err)
	}
	dir := t.TempDir()
	out := restore(t, dir, b, false)
	if out.Feeds != 1 || out.Aside != "" || out.Epoch == epoch || !out.At.Equal(at) {
		t.Errorf("restored %+v", out)
	}
	r := start(t, dir, Options{})
	law(t, r)
	f, _ := r.Feed(1)
	rows, err := r.Outbox(0, 1<<20)
	if err != nil || r.Pending() != 2 || len(rows) != 2 || rows[0].Event.ID != "e1" || f.Cursor != "" || f.RoundAt.IsZero() {
		t.Errorf("restored: %d pending, outbox %v %v, feed %+v", r.Pending(), rows, err, f)
	}
	if c, ok := r.Connection("c"); !ok || string(c.Sealed) != "sealed" || len(r.Subscriptions()) != 1 || len(r.Watches()) != 1 {
		t.Errorf("restored: %+v, %v, %v", c, r.Subscriptions(), r.Watches())
	}
	wantMeetings(t, r, 2, "", "series: Planning")
	putAlarms(t, r, alarmAt(nine, "told"))
	wantNext(t, r, nine.Add(45*time.Minute))
	e := event.Event{ID: "e2", Area: event.AreaMail, Name: event.Received, Watch: "w", Mailbox: "m", Data: []byte("{}")}
	update(t, r, func(tx *Tx) error { return tx.AppendEvent(&e) })
	if st := r.OutboxStats(); st.Entries != 3 || st.Held != 0 {
		t.Errorf("outbox %+v: what was held is to be published again", st)
	}
	if e.Sequence != 1 || e.Epoch != out.Epoch || r.Epoch() != out.Epoch {
		t.Errorf("the first event of the new epoch is %d of %s", e.Sequence, e.Epoch)
	}
}

// What was acknowledged before a backup began is in it, whatever goes on meanwhile, and the law holds in it.
func TestBackupUnderLoad(t *testing.T) {
	s := filled(t, t.TempDir())
	var stop atomic.Bool
	var wg sync.WaitGroup
	var acknowledged atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if err := s.Accept(t.Context(), []Notification{{Feed: 1, Item: fmt.Sprint(g, "-", i), Change: event.Created, At: time.Now()}}, nil); err != nil {
					t.Error(err)
					return
				}
				acknowledged.Add(1)
				if err := s.Update(settleSome); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		for n := acknowledged.Load(); acknowledged.Load() < n+50; {
			time.Sleep(time.Millisecond)
		}
		before := acknowledged.Load()
		dir := t.TempDir()
		restore(t, dir, backup(t, s), false)
		r := start(t, dir, Options{})
		law(t, r)
		if got := r.Counters()[counterAccepted]; got < uint64(before) {
			t.Errorf("%d accepted, %d were acknowledged before", got, before)
		}
	}
	stop.Store(true)
	wg.Wait()
}

// What is no whole backup of triggerd is refused, and nothing in the directory changes.
func TestRestoreRefuses(t *testing.T) {
	s := filled(t, t.TempDir())
	good := backup(t, s)
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		return b
	}
	foreign := func() []byte {
		path := filepath.Join(t.TempDir(), "other.db")
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		other := &Store{db: db}
		var b bytes.Buffer
		if err := errors.Join(err, other.Backup(&b, func(int64) {}), db.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	damaged := func() []byte {
		dir := t.TempDir()
		other := filled(t, dir)
		stop(t, other)
		raw(t, other.Path(), func(tx *bolt.Tx) error { return tx.Bucket(bucketMailboxes).Put(key32(7), []byte("torn")) })
		db, err := bolt.Open(other.Path(), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := errors.Join((&Store{db: db}).Backup(&b, func(int64) {}), db.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	newer := func() []byte {
		update(t, s, func(tx *Tx) error { return tx.bucket(bucketMeta).Put(keyVersion, []byte("99")) })
		return backup(t, s)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                {nil, ErrNoBackup},
		"something else":         {[]byte("hello\n"), ErrNoBackup},
		"a copy of the database": {good[:len(good)-int(trailerSize)], ErrNoBackup},
		"cut short":              {good[:len(good)/2], ErrNoBackup},
		"one byte short":         {good[:len(good)-1], ErrNoBackup},
		"one byte long":          {append(bytes.Clone(good), '\n'), ErrNoBackup},
		"cut in the middle":      {append(bytes.Clone(good[:len(good)/2]), good[len(good)-int(trailerSize):]...), ErrNoBackup},
		"a bit flipped":          {flip(len(good) / 2), ErrNoBackup},
		"a bit of the line":      {flip(len(good) - 10), ErrNoBackup},
		"another bbolt file":     {foreign(), ErrDamaged},
		"of a newer triggerd":    {newer(), ErrNewerVersion},
		"a damaged row inside":   {damaged(), ErrDamaged},
		"an empty snapshot":      {fmt.Appendf(nil, trailerFormat, "2026-11-24T09:00:00Z", 0, []byte{}), ErrNoBackup},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := filled(t, dir)
			epoch := old.Epoch()
			stop(t, old)
			before := listing(t, dir)
			if _, err := Restore(dir, bytes.NewReader(tt.b), true); !errors.Is(err, tt.want) {
				t.Errorf("restore: %v, want %v", err, tt.want)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the directory holds\n%s\nit held\n%s", after, before)
			}
			if again := start(t, dir, Options{}); again.Epoch() != epoch {
				t.Error("the old state is another")
			}
		})
	}
}

// listing is what a directory holds: names and sizes.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, e.Name(), info.Size(), info.Mode())
	}
	return out.String()
}

func TestRestoreOverAState(t *testing.T) {
	s := filled(t, t.TempDir())
	b := backup(t, s)
	dir := t.TempDir()
	old := filled(t, dir)
	if _, err := Restore(dir, bytes.NewReader(b), true); !errors.Is(err, ErrLocked) {
		t.Errorf("while a daemon has it: %v", err)
	}
	epoch := old.Epoch()
	stop(t, old)
	if _, err := Restore(dir, bytes.NewReader(b), false); !errors.Is(err, ErrStateExists) {
		t.Errorf("over a state: %v", err)
	}
	out := restore(t, dir, b, true)
	if out.Aside == "" {
		t.Fatal("the old database is not put aside")
	}
	kept := t.TempDir()
	if err := errors.Join(os.Rename(out.Aside, filepath.Join(kept, "triggerd.db")), os.WriteFile(filepath.Join(kept, incarnationFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if back := start(t, kept, Options{}); back.Epoch() != epoch {
		t.Error("what was put aside is not the old database")
	}
	// A damaged database is in nobody's way.
	path := filepath.Join(dir, "triggerd.db")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 1<<15), 0o600); err != nil {
		t.Fatal(err)
	}
	restore(t, dir, b, true)
	// Nor is a lost one.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	restore(t, dir, b, false)
	law(t, start(t, dir, Options{}))
}

// A reader that fails is an error of its own, not a bad backup.
func TestRestoreFromAReaderThatFails(t *testing.T) {
	broken := errors.New("the tape is torn")
	_, err := Restore(t.TempDir(), io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<16)), &failing{broken}), false)
	if !errors.Is(err, broken) || errors.Is(err, ErrNoBackup) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// childRestore restores the backup that stands beside the directory until it is killed.
func childRestore(dir string) error {
	for {
		f, err := os.Open(dir + ".backup")
		if err != nil {
			return err
		}
		out, err := Restore(dir, f, true)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.Remove(out.Aside); err != nil { // many of them fill the disk
			return err
		}
		fmt.Println(out.Epoch)
	}
}

// A restore that is killed leaves the old state or the new one, and the next one works.
func TestKilledInTheMiddleOfARestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := filled(t, dir)
	b := backup(t, s)
	stop(t, s)
	if err := os.WriteFile(dir+".backup", b, 0o600); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 15 {
		c := child(t, "restore", dir)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for range lines(out) {
			break // the first one is through
		}
		time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // killed
		r := start(t, dir, Options{})
		law(t, r)
		if r.Pending() != 2 || len(r.Feeds()) != 1 {
			t.Errorf("%d pending, %d feeds", r.Pending(), len(r.Feeds()))
		}
		stop(t, r)
	}
}

func FuzzCheckBackup(f *testing.F) {
	s := filled(f, f.TempDir())
	good := backup(f, s)
	f.Add(good[len(good)-int(trailerSize):])
	f.Add([]byte("\ntriggerd backup v1 of 2026-11-24T09:00:00Z, 1 bytes, sha256 x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := CheckBackup(bytes.NewReader(b)); err != nil {
			if !errors.Is(err, ErrNoBackup) {
				t.Errorf("another error: %v", err)
			}
			return
		}
		body := b[:len(b)-int(trailerSize)]
		if len(body) > 0 {
			body[0]++
			if _, err := CheckBackup(bytes.NewReader(b)); err == nil {
				t.Error("another content passes under the same checksum")
			}
		}
	})
}
