package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/triggerd/triggerd/internal/emulator"
)

// importAll puts mail and meetings from files into a mailbox. What could not be imported is reported, and the rest is there.
func importAll(out io.Writer, emu *emulator.Server, user string, paths []string) error {
	var problems []error
	for _, p := range paths {
		calendars, err := calendarFiles(p)
		problems = append(problems, err)
		if len(calendars) != 1 || calendars[0] != p {
			n, err := emu.Import(user, p)
			fmt.Fprintf(out, "%d mails imported from %s\n", n, p)
			problems = append(problems, err)
		}
		for _, file := range calendars {
			n, err := importCalendar(emu, user, file)
			fmt.Fprintf(out, "%d meetings imported from %s\n", n, file)
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// calendarFiles are the iCalendar files that a path names: itself, or those of a folder to its depths.
func calendarFiles(path string) (files []string, err error) {
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.EqualFold(filepath.Ext(name), ".ics") {
			files = append(files, name)
		}
		return nil // what cannot be read is told where mail is looked for
	})
	return files, err
}

func importCalendar(emu *emulator.Server, user, file string) (n int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if n, err = emu.ImportICS(user, f); err != nil {
		return n, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}
