//go:build unix

package main

import (
	"os"
	"syscall"
)

// noCoreDumps keeps what is in memory, tokens among it, out of files.
func noCoreDumps() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) } // lowering a limit is always allowed

// likeOwner gives a file the owner of another, where that may be done.
func likeOwner(f *os.File, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
