//go:build unix

package main

import (
	"syscall"
	"testing"
)

func TestNoCoreDumps(t *testing.T) {
	noCoreDumps()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &l); err != nil || l.Cur != 0 || l.Max != 0 {
		t.Errorf("core files may have %d (at most %d) bytes, %v", l.Cur, l.Max, err)
	}
}
