package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/triggerd/triggerd/internal/seal"
)

// byHand is how keys change where the file is not ours to write.
const byHand = "Do it by hand: put a new key (`triggerd key new`) before the old one in it, restart triggerd, run `triggerd key rotate --reseal`,\n" +
	"and then take the old key out"

// keyFile is a key file that is being changed. No other rotation changes it until close.
type keyFile struct {
	path  string // of the file itself where the name is a link
	data  []byte
	keys  *seal.Keys
	close func()
}

// openKeyFile reads a key file that may be changed. The error is one of usage where the file cannot be used at all.
func openKeyFile(name string) (f *keyFile, err error) {
	if _, err := seal.ReadKeys(name); err != nil {
		return nil, usage(err)
	}
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	if isCredential(path) {
		return nil, fmt.Errorf("%s is a systemd credential: what is written there is gone when the service stops.\n%s", name, byHand)
	}
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	keys, err := seal.ParseKeys(data) // of what will be changed
	if err != nil {
		return nil, usage(fmt.Errorf("key file %s: %w", name, err))
	}
	return &keyFile{path, data, keys, unlock}, nil
}

// isCredential reports whether systemd made a file for the life of a service.
func isCredential(path string) bool {
	dirs := []string{"/run/credentials"}
	if dir, err := filepath.EvalSymlinks(os.Getenv("CREDENTIALS_DIRECTORY")); err == nil && filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	path, err := filepath.Abs(path)
	for _, dir := range dirs {
		if err == nil && strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// addKey puts a new key before the others. It is durable when nil is returned.
func (f *keyFile) addKey() error { return f.replace(seal.WithFirst(seal.NewKey(), f.data)) }

// dropOld takes all keys out but the first.
func (f *keyFile) dropOld() error { return f.replace(seal.FirstOnly(f.data)) }

// replace writes the file anew, at once and durably, with the mode and owner that it has.
func (f *keyFile) replace(data []byte) error {
	keys, err := seal.ParseKeys(data)
	if err != nil {
		return fmt.Errorf("key file %s, left as it is: with the change it %w", f.path, err)
	}
	if now, err := os.ReadFile(filepath.Clean(f.path)); err != nil || !bytes.Equal(now, f.data) {
		return errors.Join(fmt.Errorf("key file %s, left as it is: somebody else has changed it meanwhile", f.path), err)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	next := f.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a rotation that was killed
		return fmt.Errorf("the key file cannot be written: %w\n%s", err, byHand)
	}
	if err := createFile(next, data, info); err != nil {
		return fmt.Errorf("the key file cannot be written: %w\n%s", err, byHand)
	}
	if err := os.Rename(next, f.path); err != nil {
		return errors.Join(fmt.Errorf("the key file cannot be written: %w\n%s", err, byHand), os.Remove(next))
	}
	f.data, f.keys = data, keys
	return syncDirectory(filepath.Dir(f.path))
}

// createFile makes a file, durable but for its name, that only its owner may read, or whoever may read another file. An
// existing one is left as it is.
func createFile(path string, data []byte, like os.FileInfo) (err error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	_, err = f.Write(data)
	if like != nil {
		err = errors.Join(err, likeOwner(f, like), f.Chmod(like.Mode().Perm()))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
