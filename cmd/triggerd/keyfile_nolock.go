//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

// lockDirectory does nothing: this system has no lock that ends with the process.
func lockDirectory(string) (unlock func(), err error) { return func() {}, nil }
