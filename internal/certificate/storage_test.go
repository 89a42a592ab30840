package certificate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage(t.TempDir())
		if err := s.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := s.Lock(t.Context(), "b"); err != nil {
			t.Fatalf("another name: %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a name that is taken: %v", err)
		}
		second := make(chan error, 1)
		go func() { second <- s.Lock(t.Context(), "a") }()
		synctest.Wait()
		if err := s.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if err := <-second; err != nil {
			t.Errorf("the one who waited: %v", err)
		}
		if err := s.Unlock(t.Context(), "c"); err == nil {
			t.Error("what nobody holds is given back")
		}

		ended := make(chan struct{})
		go func() { s.wait(); close(ended) }()
		synctest.Wait()
		if err := s.Lock(t.Context(), "d"); !errors.Is(err, errStopped) {
			t.Errorf("after wait: %v", err)
		}
		for _, name := range []string{"a", "b"} {
			select {
			case <-ended:
				t.Fatal("wait does not wait")
			default:
			}
			if err := s.Unlock(t.Context(), name); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		<-ended
	})
}
