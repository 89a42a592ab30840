//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package publish

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir takes a lock that ends with the file or the process: nats-server itself would let two servers write the same
// store.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another triggerd (%w): stop it first, or give this one its own TRIGGERD_STATE_DIR", filepath.Dir(path), err)
	}
	return f, nil
}
