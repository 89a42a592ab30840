//go:build !unix

package main

import "os"

// onHangup does nothing here: `triggerd reload` asks for a reload.
func onHangup(chan<- os.Signal) {}
