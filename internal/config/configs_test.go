package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func example(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "configs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// unsupported are fields that are refused, so that the example does not show them.
var unsupported = map[string]bool{"connection.client_secret": true, "watch.rich": true}

func TestExampleWatchFile(t *testing.T) {
	text := example(t, "triggerd.yaml")
	f, err := Parse("triggerd.yaml", []byte(text))
	if err != nil || len(f.Warnings) != 0 || len(f.Watches) != 1 || f.Watches[0].When == nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if w := f.Watches[0]; len(w.Mail.Folders) == 0 || len(w.Calendar.Calendars) == 0 || len(w.Calendar.Starting) == 0 || w.Calendar.TimeZone == "" {
		t.Errorf("it shows no mail or no calendar: %+v", w)
	}
	// Every field stands in it, those in comments too.
	commented := regexp.MustCompile(`(?m)^# ( *[a-z]+:)`).ReplaceAllString(text, "$1")
	p := &parse{reader: reader{known: map[string]bool{}}, file: &File{Clouds: builtin, Connections: map[string]Connection{}}}
	p.file.Clouds = map[string]Cloud{"global": builtin["global"]}
	p.root(p.document([]byte(commented)))
	if err := p.err(); err != nil {
		t.Fatalf("with its comments taken away: %v", err)
	}
	for field := range p.known {
		_, name, _ := strings.Cut(field, ".")
		if shown := regexp.MustCompile(`\b` + name + `\b`).MatchString(commented); shown == unsupported[field] {
			t.Errorf("field %s: shown %v", field, shown)
		}
	}
	for field := range unsupported {
		if !p.known[field] {
			t.Errorf("field %s does not exist", field)
		}
	}
	for _, name := range factNames {
		if !regexp.MustCompile(`(?m)^    #.*\b` + name + `\b`).MatchString(text) {
			t.Errorf("name %s of expressions is not explained", name)
		}
	}
}

func TestFactNames(t *testing.T) {
	typ := reflect.TypeFor[facts]()
	for i := range typ.NumField() {
		if got := typ.Field(i).Tag.Get("expr"); i >= len(factNames) && got != "" || !strings.Contains(" "+strings.Join(factNames, " ")+" ", " "+got+" ") {
			t.Errorf("name %q is not in factNames", got)
		}
	}
	if typ.NumField() != len(factNames) {
		t.Errorf("%d facts, %d names", typ.NumField(), len(factNames))
	}
}

func TestLabWatchFile(t *testing.T) {
	f, err := Load(filepath.Join("..", "..", "configs", "lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c := f.Connections["lab"]
	s, err := ReadSecret(c.ClientSecretFiles[0])
	if err != nil || s.Reveal() != "emulator-secret" || c.Cloud.Graph != "http://127.0.0.1:9000/v1.0" || !c.Cloud.Custom {
		t.Errorf("connection %+v, %v", c, err)
	}
	if err := Check(Settings{PublicURL: "http://127.0.0.1:8080"}, f); err != nil {
		t.Error(err)
	}
}

func TestExampleEnvironment(t *testing.T) {
	text := example(t, "triggerd.env")
	typ := reflect.TypeFor[Settings]()
	var want []string
	for i := range typ.NumField() {
		tag := typ.Field(i).Tag
		want = append(want, "# "+tag.Get("desc")+"\n#"+tag.Get("envconfig")+"="+tag.Get("default")+"\n")
	}
	if got := strings.Join(want, "\n"); !strings.HasSuffix(text, "\n\n"+got) {
		t.Errorf("configs/triggerd.env must end with:\n%s", got)
	}
}
