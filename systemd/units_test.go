package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxExposure is the worst score of the sandbox, times ten: `systemd-analyze security` gives 0 to what can do nothing and 10
// to what can do all. triggerd.service has 1.1; what is left is mostly that it speaks TCP.
const maxExposure = "11"

var units = []string{"triggerd.service", "triggerd.socket"}

// analyze runs systemd-analyze with one of its commands over copies of the units in which /usr/bin/triggerd is a program
// that is there.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing, and these tests need it: apt-get install systemd")
	}
	dir := t.TempDir()
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/bin/triggerd"), []byte("/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, u), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSystemdTakesTheUnits(t *testing.T) {
	out, err := analyze(t, "verify", "./triggerd.service", "./triggerd.socket")
	if err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestTheSandboxIsTight(t *testing.T) {
	out, err := analyze(t, "security", "--offline=true", "--no-pager", "--threshold="+maxExposure, "./triggerd.service")
	if err != nil {
		t.Errorf("the score is above %s: %v\n%s", maxExposure, err, out)
	}
	if !strings.Contains(out, "Overall exposure level for triggerd.service") {
		t.Errorf("no score in what systemd-analyze says:\n%s", out)
	}
}

// withoutReason lists the lines of a unit that have no comment of their own above them.
func withoutReason(unit string) (bare []string) {
	above := ""
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "[") && !strings.HasPrefix(above, "# ") {
			bare = append(bare, line)
		}
		above = line
	}
	return bare
}

func TestEveryLineHasItsReason(t *testing.T) {
	for _, u := range append(units, "credentials.conf") {
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "=") {
			t.Errorf("%s says nothing", u)
		}
		for _, line := range withoutReason(string(text)) {
			t.Errorf("%s: %s has no reason above it", u, line)
		}
	}
	if got := withoutReason("# a file\n\n[Unit]\nA=1\n# why\nB=2\nC=3\n"); strings.Join(got, " ") != "A=1 C=3" {
		t.Errorf("bare lines = %q, want A=1 and C=3", got)
	}
}
