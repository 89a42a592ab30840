package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureNamesRealTests holds ARCHITECTURE.md to its word: each test that it says holds an invariant exists.
func TestArchitectureNamesRealTests(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z]+)\\.(Test[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 10 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, m := range named {
		files, err := filepath.Glob(filepath.Join(root, "internal", m[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			code, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(code), "func "+m[2]+"(")
		}
		if !found {
			t.Errorf("ARCHITECTURE.md names %s.%s, which does not exist", m[1], m[2])
		}
	}
}

// TestDocumentsLinkToWhatExists follows the relative links of the documents at the top and in docs.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	root := filepath.Join("..", "..")
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", filepath.Base(f), m[1])
			}
		}
	}
}

// Every block of commands in the runbook is one that make test-system runs: it has a name.
func TestTheRunbookIsTested(t *testing.T) {
	runbook, script := read(t, "../../docs/operations.md"), read(t, "../../systemd/test-inside")
	lines := strings.Split(runbook, "\n")
	for i, line := range lines {
		if line == "```sh" && !strings.HasPrefix(lines[i-1], "<!-- tested: ") {
			t.Errorf("docs/operations.md:%d: commands that no test runs: put <!-- tested: NAME --> above them, and runbook NAME into systemd/test-inside", i+1)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^<!-- tested: (.*) -->$`).FindAllStringSubmatch(runbook, -1) {
		if !regexp.MustCompile(`\brunbook ` + m[1] + `\n`).MatchString(script) {
			t.Errorf("systemd/test-inside does not run %s", m[1])
		}
	}
}

// Commands amid the runbook's text are run too: in the container, or by a script of cmd/triggerd.
func TestTheRunbooksInlineCommandsAreTested(t *testing.T) {
	scripts, err := filepath.Glob("../../cmd/triggerd/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range append(scripts, "../../systemd/test-inside") {
		tests.WriteString(read(t, name))
	}
	runbook := read(t, "../../docs/operations.md")
	if got := untested("`triggerd fly` `triggerd status` `triggerd stat` `triggerd show ENTRY`", "exec triggerd status\nexec triggerd show 7\n"); strings.Join(got, ", ") != "triggerd fly, triggerd stat" {
		t.Errorf("untested = %q, want fly and stat", got)
	}
	for _, command := range untested(runbook, tests.String()) {
		t.Errorf("docs/operations.md names `%s`, which neither systemd/test-inside nor cmd/triggerd/testdata/script runs", command)
	}
}

// untested lists the inline commands of a document that its tests do not run. What is in capitals stands for some word.
func untested(document, tests string) (out []string) {
	placeholder := regexp.MustCompile(`\b[A-Z]+\b`)
	for _, m := range regexp.MustCompile("`((?:journalctl|systemctl|triggerd) [^`\n]+)`").FindAllStringSubmatch(document, -1) {
		run := placeholder.ReplaceAllLiteralString(regexp.QuoteMeta(m[1]), `\S+`)
		if !regexp.MustCompile(`(?m)(^|\s)` + run + `(\s|$)`).MatchString(tests) {
			out = append(out, m[1])
		}
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
