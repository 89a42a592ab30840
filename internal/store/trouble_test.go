package store

import (
	"bytes"
	"testing"
	"time"
)

// A disk that is full is told as long as it is, and heals without opening anew.
func TestAFullDiskIsToldAndHeals(t *testing.T) {
	s := start(t, t.TempDir(), Options{MaxSize: 1 << 20})
	if tr := s.Trouble(); tr != (Trouble{}) {
		t.Errorf("at first: %+v", tr)
	}
	fill := func() error {
		return s.Update(func(tx *Tx) error { return tx.bucket(bucketMeta).Put([]byte("filler"), bytes.Repeat([]byte{1}, 2<<20)) })
	}
	if err := fill(); err == nil {
		t.Fatal("two megabytes fit into one")
	}
	first := s.Trouble()
	if first.Reason == "" || time.Since(first.Since) > time.Minute {
		t.Errorf("told: %+v", first)
	}
	if err := fill(); err == nil || !s.Trouble().Since.Equal(first.Since) {
		t.Errorf("a second time: %v, %+v", err, s.Trouble())
	}
	update(t, s, func(tx *Tx) error { return tx.PutConnection(&Connection{Name: "c"}) })
	if tr := s.Trouble(); tr != (Trouble{}) {
		t.Errorf("healed: %+v", tr)
	}
	law(t, s)
}
