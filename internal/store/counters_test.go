package store

import (
	"errors"
	"testing"
)

// What push announced and missed is counted with the feeds, goes on when a feed is forgotten and after a restart, and is not
// counted when the operation refuses.
func TestPushIsCountedForAllFeedsTogether(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, Options{})
	feeds := []Feed{{FolderID: "a"}, {FolderID: "b"}}
	for i := range feeds {
		update(t, s, func(tx *Tx) error { return tx.PutFeed(&feeds[i]) })
	}
	advance := func(num uint32, announced, missed uint64) error {
		return s.Update(func(tx *Tx) error {
			_, err := tx.UpdateFeed(num, func(f *Feed) { f.Announced, f.Missed = f.Announced+announced, f.Missed+missed })
			return err
		})
	}
	if err := errors.Join(advance(feeds[0].Num, 3, 0), advance(feeds[1].Num, 4, 1), advance(feeds[0].Num, 2, 0)); err != nil {
		t.Fatal(err)
	}
	want := func(announced, missed uint64) {
		t.Helper()
		if c := s.Counters(); c["push_announced"] != announced || c["push_missed"] != missed {
			t.Errorf("announced %d and missed %d, want %d and %d", c["push_announced"], c["push_missed"], announced, missed)
		}
	}
	want(9, 1)
	if err := advance(99, 1, 1); err == nil {
		t.Error("a feed that is not stored was updated")
	}
	refused := errors.New("refused")
	err := s.Update(func(tx *Tx) error {
		if _, err := tx.UpdateFeed(feeds[0].Num, func(f *Feed) { f.Announced++ }); err != nil {
			return err
		}
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("update: %v", err)
	}
	want(9, 1)
	update(t, s, func(tx *Tx) error { return tx.DeleteFeed(feeds[0].Num) })
	stop(t, s)
	s = start(t, dir, Options{})
	want(9, 1)
	if err := advance(feeds[1].Num, 1, 1); err != nil {
		t.Fatal(err)
	}
	want(10, 2)
}
