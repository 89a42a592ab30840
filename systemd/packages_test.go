package systemd

import (
	"os"
	"strings"
	"testing"
)

// contents are the lines below "contents:" of a packer's configuration, without indentation.
func contents(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "contents:\n")
	if !ok {
		t.Fatalf("%s has no contents", path)
	}
	for line := range strings.Lines(text) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// Both ways to make a package put the same into it; goreleaser adds the binary by itself.
func TestBothPackersPackTheSame(t *testing.T) {
	nfpm, goreleaser := strings.Join(contents(t, "../packaging/nfpm.yaml"), "\n"), strings.Join(contents(t, "../.goreleaser.yaml"), "\n")
	const binary = "- src: bin/stage/${GOARCH}/triggerd\ndst: /usr/bin/triggerd\nexpand: true\n"
	if !strings.Contains(nfpm, binary) {
		t.Error("packaging/nfpm.yaml lacks the binary")
	}
	if got := strings.Replace(nfpm, binary, "", 1); got != goreleaser {
		t.Errorf("packaging/nfpm.yaml has\n%s\n.goreleaser.yaml has\n%s", got, goreleaser)
	}
}
