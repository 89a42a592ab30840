package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestTheManualHasAPageForEachCommand(t *testing.T) {
	dir, root := t.TempDir(), rootCommand()
	if err := writeManual(root, dir); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		page, err := os.ReadFile(filepath.Join(dir, manName(c)+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		pages++
		for _, want := range []string{".SH NAME\n" + roff(manName(c)) + ` \- ` + roff(c.Short), ".SH EXAMPLES\n", ".SH EXIT STATUS\n"} {
			if !strings.Contains(string(page), want) && (c.Example != "" || want != ".SH EXAMPLES\n") {
				t.Errorf("%s has no %q", manName(c), want)
			}
		}
		for _, sub := range documented(c) {
			look(sub)
		}
	}
	look(root)
	if files, err := os.ReadDir(dir); err != nil || len(files) != pages || pages < 10 {
		t.Errorf("%d files for %d commands: %v", len(files), pages, err)
	}
}

func TestTheManualKeepsTables(t *testing.T) {
	run, _, err := rootCommand().Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	page := manPage(run)
	if !strings.Contains(page, "\n.nf\nVARIABLE ") || !strings.Contains(page, "\nTRIGGERD_POLL_INTERVAL ") {
		t.Errorf("the table of settings is not line by line:\n%s", page)
	}
}

func TestRoffTakesNothingForItsOwn(t *testing.T) {
	for in, want := range map[string]string{
		".TH is text":    `\&.TH is text`,
		`a\b`:            `a\eb`,
		"--since '5m'":   `\-\-since \(aq5m\(aq`,
		"one\n.two\n`x`": "one\n\\&.two\n\\(gax\\(ga",
	} {
		if got := roff(in); got != want {
			t.Errorf("roff(%q) = %q, want %q", in, got, want)
		}
	}
}
