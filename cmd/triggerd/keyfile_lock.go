//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDirectory takes a lock that ends with unlock or the process. Two changes of one key file at a time could each take
// out the key that the other has just sealed with.
func lockDirectory(dir string) (unlock func(), err error) {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		d.Close()
		return nil, fmt.Errorf("another `triggerd key rotate` is at work in %s: wait for its end", dir)
	}
	// Any other error: this file system has no such locks (NFS), and goes without.
	return func() { d.Close() }, nil
}
