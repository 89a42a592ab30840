//go:build unix

package main

import "syscall"

// noCoreDumps keeps what is in memory, tokens among it, out of files.
func noCoreDumps() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) } // lowering a limit is always allowed
