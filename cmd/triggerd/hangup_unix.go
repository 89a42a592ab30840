//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// onHangup has the signal sent that asks for a reload.
func onHangup(c chan<- os.Signal) { signal.Notify(c, syscall.SIGHUP) }
