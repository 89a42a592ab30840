//go:build unix

package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	bolterrors "go.etcd.io/bbolt/errors"
)

// lock takes the lock that bbolt takes on an open database, damaged or not, until unlock is called. Where there is no file
// there is nothing to lock.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, bolterrors.ErrTimeout
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}
