//go:build !unix

package store

// lock does nothing here: an open database cannot be renamed.
func lock(string) (unlock func(), err error) { return func() {}, nil }
