package store

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheDocumentationDescribesEveryBucket(t *testing.T) {
	b, err := os.ReadFile("../../docs/storage.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "## Buckets")
	section, _, _ = strings.Cut(section, "\n## ")
	var documented, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	for _, name := range buckets {
		want = append(want, string(name))
	}
	slices.Sort(documented)
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("docs/storage.md describes %v, the file has %v", documented, want)
	}
	for _, o := range Outcomes {
		if !strings.Contains(string(b), "`"+counterSettled+string(o)+"`") {
			t.Errorf("docs/storage.md leaves out the outcome %s", o)
		}
	}
}
