package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/triggerd/triggerd/"

// rooms says which other rooms a room may import. Data goes one way; the siblings subscriptions, webhook, delta and
// publish never import each other, daemon introduces them; emulator imports nothing of ours, so that a misspelled field
// cannot agree with itself.
var rooms = map[string][]string{
	"event":         {},
	"config":        {"event"},
	"store":         {"event"},
	"graph":         {},
	"auth":          {},
	"seal":          {},
	"certificate":   {},
	"connections":   {"event", "config", "store", "auth", "seal"},
	"probe":         {"config", "connections", "graph"},
	"changes":       {"event", "store", "config"}, // config for the type of the filter
	"logging":       {},
	"webhook":       {"event", "logging", "store"},
	"subscriptions": {"event", "graph", "store"},
	"delta":         {"event", "graph", "store", "changes", "config"},
	"clock":         {"changes", "event", "store"},
	"freshness":     {"event", "store"},
	"publish":       {"event", "store"},
	"status":        {"event", "logging", "store"},
	"service":       {},
	"daemon":        {"event", "config", "store", "graph", "auth", "changes", "webhook", "subscriptions", "delta", "publish", "status", "connections", "probe", "seal", "freshness", "clock", "certificate"},
	"emulator":      {},
	"archtest":      {},
	"cmd/triggerd":  {"event", "config", "store", "graph", "auth", "changes", "webhook", "subscriptions", "delta", "publish", "status", "connections", "probe", "seal", "daemon", "emulator", "service", "certificate"},
	"systemd":       {},
}

// forTests are the rooms that the tests of every room may import beside those of its code.
var forTests = []string{"emulator", "graph", "store", "event", "config"}

// door says where a technology may be used.
type door struct {
	path  string   // import path, and all below it
	rooms []string // whose code and tests may import it
	tests []string // whose tests may import it too
	why   string
}

var (
	nobody    []string
	everybody = slices.Collect(maps.Keys(rooms))
)

var doors = []door{
	{"go.etcd.io/bbolt", []string{"store"}, []string{"webhook"}, "what must be true together is written in one place; webhook measures itself against it"},
	{"github.com/nats-io", []string{"publish"}, everybody, "delivery has one set of rules; tests read what was delivered"},
	{"github.com/kelseyhightower/envconfig", []string{"config"}, nobody, "settings are read once"},
	{"github.com/goccy/go-yaml", []string{"config"}, nobody, "settings are read once"},
	{"github.com/expr-lang/expr", []string{"config"}, nobody, "a filter is compiled when it is read, and only matched later"},
	{"golang.org/x/oauth2", []string{"auth"}, nobody, "tokens are got, kept and refreshed in one place"},
	{"github.com/go-jose", []string{"auth", "emulator"}, everybody, "signatures are made and checked where sign-in is"},
	{"github.com/coreos/go-oidc", []string{"auth"}, nobody, "signatures are made and checked where sign-in is"},
	{"software.sslmate.com/src/go-pkcs12", []string{"auth"}, nobody, "keys are read where they are used"},
	{"golang.org/x/crypto", []string{"seal"}, nobody, "what is sealed is sealed in one place"},
	{"github.com/coreos/go-systemd", []string{"service"}, nobody, "who runs us is asked and told in one place"},
	{"github.com/caddyserver/certmagic", []string{"certificate"}, nobody, "keys are read where they are used"},
	{"go.uber.org/zap", []string{"certificate"}, nobody, "what certmagic would log with; there is one log"},
	{"filippo.io/age", []string{"cmd/triggerd"}, nobody, "a backup is encrypted on its way to its file"},
	{"github.com/prometheus", []string{"status"}, nobody, "metrics are the report in another form"},
	{"github.com/spf13/cobra", []string{"cmd/triggerd"}, nobody, "rooms know nothing of a command line"},
	{"github.com/spf13/pflag", []string{"cmd/triggerd"}, nobody, "rooms know nothing of a command line"},
	{"github.com/jhillyerd/enmime", []string{"emulator"}, nobody, "the daemon never parses mail"},
	{"github.com/emersion/go-mbox", []string{"emulator"}, nobody, "the daemon never parses mail"},
	{"github.com/yaegashi/wtz.go", []string{"event", "emulator"}, nobody, "zones have two names, and one room translates them"},
	{"github.com/teambition/rrule-go", []string{"emulator"}, nobody, "the daemon never expands a series: Graph does"},
	{"github.com/arran4/golang-ical", []string{"emulator"}, nobody, "the daemon never parses calendar files"},
	{"github.com/chromedp", nobody, []string{"status"}, "the page is looked at in a browser"},
	{"github.com/cloudevents", nobody, everybody, "an independent reader, for tests"},
	{"github.com/santhosh-tekuri/jsonschema", nobody, everybody, "an independent reader, for tests"},
	{"github.com/rogpeppe/go-internal", nobody, everybody, "scripts, for tests"},
	{"net/http", []string{"graph", "auth", "connections", "webhook", "status", "subscriptions", "emulator", "daemon", "cmd/triggerd"}, everybody, "only graph calls Graph, and only listeners listen; subscriptions checks the public URL from outside"},
}

// vague are names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "types", "models", "helpers", "misc", "base"}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Name, Doc              string
	Imports, TestImports, XTestImports []string
}

// check returns what is wrong with packages, in order.
func check(pkgs []listed) (wrong []string) {
	for _, p := range pkgs {
		room := roomOf(p.ImportPath)
		if _, ok := rooms[room]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: room %q is not in the table", p.ImportPath, room))
			continue
		}
		if p.Doc == "" {
			wrong = append(wrong, p.ImportPath+": has no package comment that says its one job")
		}
		if slices.Contains(vague, path.Base(p.ImportPath)) || slices.Contains(vague, p.Name) {
			wrong = append(wrong, p.ImportPath+": its name says nothing; name it for what it holds")
		}
		for _, imp := range p.Imports {
			wrong = append(wrong, judge(p.ImportPath, room, imp, false)...)
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			wrong = append(wrong, judge(p.ImportPath, room, imp, true)...)
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

// judge says what is wrong with one import, if anything.
func judge(pkg, room, imp string, test bool) []string {
	kind := "imports"
	if test {
		kind = "tests import"
	}
	if strings.HasPrefix(imp, module) {
		to := roomOf(imp)
		if to == room || slices.Contains(rooms[room], to) || test && slices.Contains(forTests, to) {
			return nil
		}
		return []string{fmt.Sprintf("%s: %s %s; %s may import %v", pkg, kind, imp, room, rooms[room])}
	}
	for _, d := range doors {
		if imp != d.path && !strings.HasPrefix(imp, d.path+"/") || slices.Contains(d.rooms, room) || test && slices.Contains(d.tests, room) {
			continue
		}
		return []string{fmt.Sprintf("%s: %s %s, which belongs in %v: %s", pkg, kind, imp, d.rooms, d.why)}
	}
	return nil
}

// roomOf names the room of a package of ours: what lies below a room belongs to it.
func roomOf(importPath string) string {
	rest := strings.TrimPrefix(importPath, module)
	if inside, ok := strings.CutPrefix(rest, "internal/"); ok {
		room, _, _ := strings.Cut(inside, "/")
		return room
	}
	return rest
}

func TestTheHouseHasItsShape(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Doc,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	for _, w := range check(pkgs) {
		t.Error(w)
	}
}

func TestArrowsLeadToRoomsAndNeverBack(t *testing.T) {
	var reach func(from, to string) bool
	reach = func(from, to string) bool {
		return slices.ContainsFunc(rooms[from], func(r string) bool { return r == to || reach(r, to) })
	}
	for room, allowed := range rooms {
		for _, to := range allowed {
			if _, ok := rooms[to]; !ok {
				t.Errorf("%s may import %s, which is no room", room, to)
			}
		}
		if reach(room, room) {
			t.Errorf("%s can be reached from itself", room)
		}
	}
}

func TestCheckFindsWhatIsPlanted(t *testing.T) {
	good := func(room string, imports ...string) listed {
		return listed{ImportPath: module + "internal/" + room, Name: path.Base(room), Doc: "Package.", Imports: imports}
	}
	tested := func(p listed, imports ...string) listed { p.TestImports = imports; return p }
	tests := []struct {
		name string
		pkg  listed
		want string // part of the finding; empty: none
	}{
		{"an allowed arrow", good("delta", module+"internal/graph", module+"internal/store", "context", "github.com/rs/zerolog"), ""},
		{"a room inside a room", good("emulator/mailbox", module+"internal/emulator"), ""},
		{"a door's own room", good("store", "go.etcd.io/bbolt", "go.etcd.io/bbolt/errors"), ""},
		{"a test that reads the stream", tested(good("daemon"), "github.com/nats-io/nats.go/jetstream", module+"internal/emulator"), ""},
		{"a test with a server", tested(good("delta"), "net/http/httptest"), ""},
		{"siblings", good("webhook", module+"internal/delta"), "webhook may import [event logging store]"},
		{"siblings below the room", good("publish", module+"internal/subscriptions/policy"), "imports"},
		{"siblings in tests", tested(good("publish"), module+"internal/delta"), "tests import"},
		{"siblings in outer tests", listed{ImportPath: module + "internal/publish", Name: "publish", Doc: "Package.", XTestImports: []string{module + "internal/delta"}}, "tests import"},
		{"a leaf that looks up", good("event", module+"internal/store"), "event may import []"},
		{"the emulator using our client", good("emulator", module+"internal/graph"), "emulator may import []"},
		{"the daemon using the emulator", good("daemon", module+"internal/emulator"), "daemon may import"},
		{"bbolt outside of store", good("delta", "go.etcd.io/bbolt"), "belongs in [store]"},
		{"bbolt in a test outside of store", tested(good("delta"), "go.etcd.io/bbolt"), "belongs in [store]"},
		{"NATS outside of publish", good("daemon", "github.com/nats-io/nats-server/v2/server"), "belongs in [publish]"},
		{"a second place that reads the environment", good("publish", "github.com/kelseyhightower/envconfig"), "belongs in [config]"},
		{"a second token source", good("graph", "golang.org/x/oauth2/clientcredentials"), "belongs in [auth]"},
		{"a filter compiled late", good("changes", "github.com/expr-lang/expr/vm"), "belongs in [config]"},
		{"a command line in a room", good("status", "github.com/spf13/cobra"), "belongs in [cmd/triggerd]"},
		{"a mail parser in the daemon", good("delta", "github.com/jhillyerd/enmime/v2"), "belongs in [emulator]"},
		{"a second HTTP client", good("delta", "net/http"), "only graph calls Graph"},
		{"a test library in code", good("publish", "github.com/cloudevents/sdk-go/v2/event"), "for tests"},
		{"a room nobody planned", good("queue"), `room "queue" is not in the table`},
		{"a package beside the rooms", listed{ImportPath: module + "pkg/api", Name: "api", Doc: "Package."}, `room "pkg/api" is not in the table`},
		{"no package comment", listed{ImportPath: module + "internal/event", Name: "event"}, "no package comment"},
		{"a vague package", good("store/util"), "its name says nothing"},
		{"a vague name", listed{ImportPath: module + "internal/store/x", Name: "common", Doc: "Package."}, "its name says nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := check([]listed{tt.pkg})
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("check = %q, want one finding with %q", got, tt.want)
			}
		})
	}
}

// machinePaths finds paths of a machine the code happened to be written on.
func machinePaths(text []byte) (found []string) {
	for _, p := range []string{"/wo" + "rk/", "/ro" + "ot/go/"} {
		if bytes.Contains(text, []byte(p)) {
			found = append(found, p)
		}
	}
	return found
}

func TestNoFileNamesAMachine(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", ".state"}, e.Name()) { // as in .gitignore
				return filepath.SkipDir
			}
			return nil
		}
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since it was listed
		}
		if err != nil {
			return err
		}
		files++
		for _, p := range machinePaths(b) {
			t.Errorf("%s names %s", name, p)
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files were read: %v", files, err)
	}
}

func TestMachinePathsAreFound(t *testing.T) {
	if got := machinePaths([]byte("see " + "/wo" + "rk/main/x.go")); len(got) != 1 {
		t.Errorf("found %v, want one", got)
	}
}
