package certificate

import (
	"context"
	"errors"
	"sync"

	"github.com/caddyserver/certmagic"
)

var errStopped = errors.New("triggerd is stopping")

// storage is certmagic's directory with locks in memory: the database lets no second process into the state directory,
// and a lock in a file would outlive a process that was killed. All of certmagic's work is done under a lock, so that
// its end can be waited for.
type storage struct {
	certmagic.Storage

	mu      sync.Mutex
	held    map[string]chan struct{} // closed when the lock is free
	stopped bool
	work    sync.WaitGroup // one for each lock that is held
}

func newStorage(dir string) *storage {
	return &storage{Storage: &certmagic.FileStorage{Path: dir}, held: map[string]chan struct{}{}}
}

// Lock waits for a name. It fails when ctx is done or wait was called.
func (s *storage) Lock(ctx context.Context, name string) error {
	for {
		free, err := s.take(name)
		if err != nil || free == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-free:
		}
	}
}

// take takes a lock, or returns what is closed when it is free.
func (s *storage) take(name string) (free chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, errStopped
	}
	if free, taken := s.held[name]; taken {
		return free, nil
	}
	s.held[name] = make(chan struct{})
	s.work.Add(1)
	return nil, nil
}

// Unlock frees a name.
func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, taken := s.held[name]
	if !taken {
		return errors.New("not locked")
	}
	delete(s.held, name)
	close(free)
	s.work.Done()
	return nil
}

// wait gives out no more locks, and returns when all have been given back.
func (s *storage) wait() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.work.Wait()
}
