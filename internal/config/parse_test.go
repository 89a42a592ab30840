package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triggerd/triggerd/internal/event"
)

// good is a file with nothing wrong; tests replace what they are about.
const good = `connections:
  contoso:
    tenant: 84bd8158-6d4d-4958-8b9f-9d6445542f95
    client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111
    client_secret_file: /run/secret
watches:
  sales:
    connection: contoso
    mailboxes: [sales@contoso.com]
    mail: {folders: [inbox]}
`

func TestParse(t *testing.T) {
	f, err := Parse("triggerd.yaml", []byte(`
watches:
  zeta:
    connection: lab
    mailboxes: [ "a@x.example" ]
    mail: {}
  alpha:
    connection: contoso
    mailboxes:
      - sales@contoso.com
      - {address: Support@contoso.com, alias: support}
      - 84bd8158-6d4d-4958-8b9f-9d6445542f95
    mail:
      folders: ["!Inbox/Old", all, 'Projects/A\/B', "!junkemail"]
      events: [sent, received]
    when: |
      hasAttachments
        && !isRead
    content: body
    delivery: push
    start: 7d
    canary: 2h
    rich: false
connections:
  contoso: &anchored
    cloud: usgov-l5
    tenant: contoso.onmicrosoft.us
    client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111
    client_secret_file: /run/secret
    extra_scopes: []
  lab: {cloud: lab, tenant: 84bd8158-6d4d-4958-8b9f-9d6445542f95, client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111, client_secret_file: x, auth: app}
clouds:
  lab: {graph: "http://127.0.0.1:9000/v1.0/", login: "http://localhost:9000", like: china}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Clouds) != 5 || len(f.Connections) != 2 || len(f.Watches) != 2 || len(f.Warnings) != 0 {
		t.Fatalf("%d clouds, %d connections, %d watches, warnings %q", len(f.Clouds), len(f.Connections), len(f.Watches), f.Warnings)
	}
	lab := Cloud{Name: "lab", Graph: "http://127.0.0.1:9000/v1.0", Login: "http://localhost:9000", NoDelta: true, MailMax: 7 * 24 * time.Hour, Custom: true, Portal: "https://portal.azure.cn", Federated: "api://AzureADTokenExchangeChina", Environment: builtin["china"].Environment}
	if got := f.Connections["lab"].Cloud; got != lab || got.Scope() != "http://127.0.0.1:9000/.default" {
		t.Errorf("cloud lab %+v, scope %s", got, got.Scope())
	}
	contoso := Connection{Name: "contoso", Cloud: builtin["usgov-l5"], Tenant: "contoso.onmicrosoft.us", ClientID: "507c3b9a-67b8-463d-88a2-15a8cefb2111", Auth: AuthApp, ClientSecretFiles: []string{"/run/secret"}}
	if got := f.Connections["contoso"]; !reflect.DeepEqual(got, contoso) || got.Cloud.Scope() != "https://dod-graph.microsoft.us/.default" {
		t.Errorf("connection contoso %+v", got)
	}
	when := f.Watches[0].When
	f.Watches[0].When = nil
	want := []Watch{
		{
			Name: "alpha", Connection: "contoso", Content: event.ContentBody, Delivery: DeliveryPush, Start: Start{Back: 7 * 24 * time.Hour}, Canary: 2 * time.Hour,
			Mailboxes: []Mailbox{{"sales@contoso.com", ""}, {"Support@contoso.com", "support"}, {"84bd8158-6d4d-4958-8b9f-9d6445542f95", ""}},
			Mail:      Mail{[]FolderRef{{"all", false}, {`Projects/A\/B`, false}, {"Inbox/Old", true}, {"junkemail", true}}, []string{"sent", "received"}},
		},
		{
			Name: "zeta", Connection: "lab", Content: event.ContentEnvelope, Delivery: DeliveryAuto,
			Mailboxes: []Mailbox{{"a@x.example", ""}}, Mail: Mail{[]FolderRef{{"inbox", false}}, event.MailEvents},
		},
	}
	if !reflect.DeepEqual(f.Watches, want) {
		t.Errorf("watches %+v\nwant %+v", f.Watches, want)
	}
	if when.String() != "hasAttachments\n  && !isRead" {
		t.Errorf("when %q", when)
	}
}

func TestDefaultsOfReference(t *testing.T) {
	f, err := Parse("f", []byte(good+"    content: reference\n"))
	if err != nil || !reflect.DeepEqual(f.Watches[0].Mail.Events, event.NotificationEvents) {
		t.Errorf("events %v, %v, want %v", f.Watches[0].Mail.Events, err, event.NotificationEvents)
	}
}

func TestStart(t *testing.T) {
	for in, want := range map[string]Start{
		"now": {}, "all": {All: true}, "36h": {Back: 36 * time.Hour}, "1.5d": {Back: 36 * time.Hour}, "90m": {Back: 90 * time.Minute},
	} {
		f, err := Parse("f", []byte(good+"    start: "+in+"\n"))
		if err != nil || f.Watches[0].Start != want {
			t.Errorf("start %s = %+v, %v, want %+v", in, f, err, want)
		}
	}
}

func TestMailboxToken(t *testing.T) {
	for _, tt := range []struct {
		m    Mailbox
		want string
	}{
		{Mailbox{"sales@contoso.com", "sales"}, "sales"},
		{Mailbox{"84BD8158-6d4d-4958-8b9f-9d6445542f95", ""}, "84BD8158-6d4d-4958-8b9f-9d6445542f95"},
		{Mailbox{"sales@contoso.com", ""}, "m-kmnbmntb3qlv2p7i"},
		{Mailbox{"Sales@Contoso.COM", ""}, "m-kmnbmntb3qlv2p7i"},
	} {
		if got := tt.m.Token(); got != tt.want {
			t.Errorf("Token(%v) = %s, want %s", tt.m, got, tt.want)
		}
	}
}

// Each mistake is named with its line and a remedy, and nothing else is said.
func TestMistakes(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"unknown field", "mailboxes:", "mailbx:", "9: unknown field \"mailbx\"; did you mean \"mailboxes\"?\n7: watch \"sales\" has no mailboxes: list at least one address"},
		{"unknown field, nothing near", "connection: contoso", "connection: contoso\n    zzzzzz: 1", `9: unknown field "zzzzzz"; a watch has calendar, canary, connection, content, delivery, mail, mailboxes, rich, start, when`},
		{"unknown section", "watches:", "x: 1\nwatches:", `6: unknown field "x"; a file has clouds, connections, watches`},
		{"key twice", "    mail: {folders: [inbox]}", "    mail: {folders: [inbox]}\n    mail: {folders: [inbox]}", `11: "mail" stands in line 10 already: keep one`},
		{"watch twice", "watches:", "watches:\n  sales: {connection: contoso, mailboxes: [a@b.c], mail: {}}", `8: "sales" stands in line 7 already: keep one`},
		{"list instead of text", "connection: contoso", "connection: [contoso]", "8: connection: want text, got a list\n8: unknown connection \"\"; there are contoso"},
		{"text instead of list", "[sales@contoso.com]", "sales@contoso.com", `9: mailboxes: want a list, got text`},
		{"text instead of fields", "mail: {folders: [inbox]}", "mail: inbox", `10: mail: want fields, got text`},
		{"nothing instead of fields", "mail: {folders: [inbox]}", "mail:", `10: mail: want fields, got nothing`},
		{"truth instead of text", "tenant: 84bd8158-6d4d-4958-8b9f-9d6445542f95", "tenant: true", `3: tenant: want text, got true or false`},
		{"alias of YAML", "[sales@contoso.com]", "[*x]", `9: mailboxes: want text, got an alias, which is not supported`},
		{"section of the wrong type", "connections:\n", "connections: []\nx:\n", "1: connections: want fields, got a list\n2: unknown field \"x\"; a file has clouds, connections, watches\n9: unknown connection \"contoso\"; there are "},

		{"watch name", "  sales:", "  Sales:", `7: watch name "Sales": it stands in subjects, use lower-case letters, digits, - and _`},
		{"watch name with a dot", "  sales:", "  a.b:", `7: watch name "a.b": it stands in subjects, use lower-case letters, digits, - and _`},
		{"watch name that means nothing", "  sales:", "  _:", `7: watch name "_": it stands in subjects, use lower-case letters, digits, - and _`},
		{"connection name", "contoso:", "con*toso:", "2: connection name \"con*toso\": use lower-case letters, digits, - and _\n8: unknown connection \"contoso\"; did you mean \"con*toso\"?"},

		{"cloud", "tenant:", "cloud: chine\n    tenant:", `3: unknown cloud "chine"; did you mean "china"?`},
		{"cloud, nothing near", "tenant:", "cloud: xxxxxxxx\n    tenant:", `3: unknown cloud "xxxxxxxx"; there are china, global, usgov-l4, usgov-l5`},
		{"cloud built in", "connections:", "clouds: {global: {graph: a, login: b}}\nconnections:", `1: cloud "global" is built in: choose another name`},
		{"cloud without login", "connections:", "clouds: {lab: {graph: \"http://127.0.0.1/v1.0\"}}\nconnections:", `1: cloud "lab" has no login: give its base URL`},
		{"cloud like nothing", "connections:", "clouds:\n  lab: {graph: \"https://a/v1.0\", login: \"https://a\", like: moon}\nconnections:", `2: unknown cloud "moon"; there are china, global, usgov-l4, usgov-l5`},
		{"cloud URL", "connections:", "clouds:\n  lab: {graph: \"ftp://a/v1.0\", login: \"https://u:p@a\"}\nconnections:", "2: graph: \"ftp://a/v1.0\" is not a base URL (it begins with none of http, https): write http[s]://host[:port][/path]\n2: login: \"https://u:p@a\" is not a base URL (it holds a user name): write http[s]://host[:port][/path]"},

		{"no tenant", "    tenant: 84bd8158-6d4d-4958-8b9f-9d6445542f95\n", "", `2: connection "contoso" has no tenant: give the tenant's id or one of its domains`},
		{"tenant common", "84bd8158-6d4d-4958-8b9f-9d6445542f95", "common", `3: tenant: "common" does not work without a user: give the tenant's id or one of its domains`},
		{"tenant", "84bd8158-6d4d-4958-8b9f-9d6445542f95", "a/../b", `3: tenant: "a/../b" is neither a tenant id nor a domain`},
		{"no client", "    client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111\n", "", `2: connection "contoso" has no client_id: give the app registration's application id`},
		{"client", "507c3b9a-67b8-463d-88a2-15a8cefb2111", "triggerd", `4: client_id: "triggerd" is not an application id: copy the GUID from the app registration's overview`},
		{"auth", "tenant:", "auth: magic\n    tenant:", `3: auth: "magic" is not one of app, delegated`},
		{"scopes", "tenant:", "extra_scopes: [Mail.Read]\n    tenant:", `3: extra_scopes: with auth app the permissions are those of the app registration: leave it out`},
		{"no credential", "    client_secret_file: /run/secret\n", "", `2: connection "contoso" has no credential: give it client_secret_file, certificate_file, federated_token_file, or managed_identity: true`},
		{"two credentials", "tenant:", "certificate_file: /run/cert\n    tenant:", "3: connection \"contoso\" has several credentials (client_secret_file, certificate_file): keep one"},
		{"secret in the file", "client_secret_file: /run/secret", "client_secret: hunter2-not-shown", "2: connection \"contoso\" has no credential: give it client_secret_file, certificate_file, federated_token_file, or managed_identity: true\n5: a secret in this file is not supported by this version: put it into a file of its own, and name that in client_secret_file"},
		{"secret file without a name", "/run/secret", `""`, `5: client_secret_file: names no file`},

		{"no connection", "    connection: contoso\n", "", `7: watch "sales" has no connection: name one of contoso`},
		{"unknown connection", "connection: contoso", "connection: contosso", `8: unknown connection "contosso"; did you mean "contoso"?`},
		{"no mailboxes", "[sales@contoso.com]", "[]", `9: mailboxes: list at least one address`},
		{"me", "[sales@contoso.com]", "[me]", `9: mailbox "me" is the signed-in user, and with auth app there is none: give the address`},
		{"address", "[sales@contoso.com]", "[sales, a@b@c, \"Sales <a@b.c>\", \"@b\"]", "9: mailbox \"sales\" is neither an address nor a Graph user id\n9: mailbox \"a@b@c\" is neither an address nor a Graph user id\n9: mailbox \"Sales <a@b.c>\" is neither an address nor a Graph user id\n9: mailbox \"@b\" is neither an address nor a Graph user id"},
		{"no address", "[sales@contoso.com]", "[{alias: a}]", `9: mailbox without an address`},
		{"mailbox twice", "[sales@contoso.com]", "[sales@contoso.com, Sales@Contoso.com]", `9: mailbox "Sales@Contoso.com" stands in line 9 already: keep one`},
		{"alias", "[sales@contoso.com]", "[{address: a@b.c, alias: A.B}]", `9: alias "A.B": it stands in subjects, use lower-case letters, digits, - and _`},
		{"empty alias", "[sales@contoso.com]", `[{address: a@b.c, alias: ""}]`, `9: alias "": it stands in subjects, use lower-case letters, digits, - and _`},
		{"alias twice", "[sales@contoso.com]", "[{address: a@b.c, alias: x}, {address: d@e.f, alias: x}]", `9: mailboxes "a@b.c" and "d@e.f" would share the name "x" in subjects: give them different aliases`},
		{"alias like a digest", "[sales@contoso.com]", "[sales@contoso.com, {address: d@e.f, alias: m-kmnbmntb3qlv2p7i}]", `9: mailboxes "sales@contoso.com" and "d@e.f" would share the name "m-kmnbmntb3qlv2p7i" in subjects: give them different aliases`},

		{"no mail", "    mail: {folders: [inbox]}\n", "", `7: watch "sales" watches nothing: give it mail or calendar`},
		{"rich", "mail:", "rich: true\n    mail:", `10: rich is not supported by this version: leave it out`},
		{"event", "folders: [inbox]", "events: [arrived]", `10: unknown event "arrived"; there are received, sent, draft, read, unread, flagged, categorized, moved, deleted, updated`},
		{"event twice", "folders: [inbox]", "events: [sent, sent]", `10: event "sent" stands twice: keep one`},
		{"event without a name", "folders: [inbox]", "events: ['']", `10: unknown event ""; there are received, sent, draft, read, unread, flagged, categorized, moved, deleted, updated`},
		{"no events", "folders: [inbox]", "events: []", `10: events: list at least one of received, sent, draft, read, unread, flagged, categorized, moved, deleted, updated`},
		{"event of reference", "mail: {folders: [inbox]}", "mail: {events: [received]}\n    content: reference", `10: unknown event "received"; there are created, updated, deleted`},
		{"folders", "[inbox]", `["", "!", "a//b", "/a", "a/", "!!a"]`, `10: folder "" is empty: write a well-known name, an id, a path such as "Inbox/Invoices", or all
10: folder "!" is empty: write a well-known name, an id, a path such as "Inbox/Invoices", or all
10: folder "a//b" has an empty part: write a well-known name, an id, a path such as "Inbox/Invoices", or all
10: folder "/a" has an empty part: write a well-known name, an id, a path such as "Inbox/Invoices", or all
10: folder "a/" has an empty part: write a well-known name, an id, a path such as "Inbox/Invoices", or all
10: folder "!!a" begins with more than one !: write a well-known name, an id, a path such as "Inbox/Invoices", or all`},
		{"folder twice", "[inbox]", "[inbox, Inbox]", `10: folder "Inbox" stands twice: keep one`},
		{"nothing left", "[inbox]", `["!inbox"]`, `10: folders: nothing is left to watch: list at least one folder, or all`},
		{"no folders", "[inbox]", "[]", `10: folders: nothing is left to watch: list at least one folder, or all`},
		{"bare tag", "[inbox]", "[inbox, !junkemail]", "10: not YAML: found invalid tag character '}'\n10: a name that begins with ! must stand in quotes"},
		{"bare tag in lines", "{folders: [inbox]}", "\n      folders:\n        - inbox\n        - !junkemail", "13: folders: put it in quotes: what begins with a bare ! is a YAML tag"},

		{"content", "mail:", "content: everything\n    mail:", `10: unknown content "everything": want one of reference, ids, envelope, preview, body`},
		{"delivery", "mail:", "delivery: pull\n    mail:", `10: unknown delivery "pull": want one of auto, push, poll`},
		{"start", "mail:", "start: yesterday\n    mail:", `10: start "yesterday": write now, all, or a duration back such as 36h or 7d`},
		{"a canary that is never", "mail:", "canary: never\n    mail:", `10: canary "never": write how often an event of this watch must come at least, such as 15m; not under 1m0s`},
		{"a canary of seconds", "mail:", "canary: 5s\n    mail:", `10: canary "5s": write how often an event of this watch must come at least, such as 15m; not under 1m0s`},
		{"start in the future", "mail:", "start: -1h\n    mail:", `10: start "-1h": write now, all, or a duration back such as 36h or 7d`},
		{"start long ago", "mail:", "start: 99999d\n    mail:", `10: start "99999d": write now, all, or a duration back such as 36h or 7d`},
		{"reference polled", "mail:", "content: reference\n    delivery: poll\n    mail:", `10: content: reference hands on notifications, and delivery poll has none: write content ids, or delivery auto`},
		{"reference filtered", "mail:", "content: reference\n    when: isRead\n    mail:", `11: when: with content reference nothing is read that could be filtered: leave it out, or write content ids`},
		{"filter", "mail:", "when: subjct == 'x'\n    mail:", `10: when: unknown name subjct; did you mean "subject"?`},
		{"filter, further on", "mail:", "when: isRead && subjct == 'x'\n    mail:", `10: when: at column 11: unknown name subjct; did you mean "subject"?`},
		{"filter is no verdict", "mail:", "when: subject\n    mail:", `10: when: expected bool, but got string`},

		{"no watches", "watches:\n  sales:\n    connection: contoso\n    mailboxes: [sales@contoso.com]\n    mail: {folders: [inbox]}\n", "", `1: no watches: without them nothing can be watched`},
		{"empty watches", "watches:\n  sales:\n    connection: contoso\n    mailboxes: [sales@contoso.com]\n    mail: {folders: [inbox]}\n", "watches: {}\n", `6: no watches: without them nothing can be watched`},
		{"two documents", "watches:", "---\nwatches:", `1: want one document with connections and watches`},
		{"tab", "  sales:", "\tsales:", "7: not YAML: found character '\t' that cannot start any token"},
		{"unclosed quote", "/run/secret", `"/run/secret`, `5: not YAML: could not find end character of double-quoted text`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("%q is not in the file", tt.old)
			}
			f, err := Parse("triggerd.yaml", []byte(strings.Replace(good, tt.old, tt.new, 1)))
			if f != nil || err == nil {
				t.Fatalf("Parse = %+v, %v", f, err)
			}
			want := strings.Split(tt.want, "\n")
			for i := range want {
				want[i] = "triggerd.yaml:" + want[i]
			}
			if got := strings.Split(err.Error(), "\n"); !sameLines(got, want) {
				t.Errorf("mistakes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if strings.Contains(err.Error(), "hunter2-not-shown") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
}

// sameLines compares without regard to order.
func sameLines(a, b []string) bool {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestAllMistakesAtOnceInOrder(t *testing.T) {
	_, err := Parse("t.yaml", []byte(`watches:
  Bad:
    connection: nobody
    mailboxes: [x]
    mail: {events: [eaten]}
connections:
  contoso: {tenant: common, client_id: x, client_secret_file: f}
`))
	var lines []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		lines = append(lines, l[:strings.Index(l, ": ")])
	}
	if got := strings.Join(lines, " "); got != "t.yaml:2 t.yaml:3 t.yaml:4 t.yaml:5 t.yaml:7 t.yaml:7" {
		t.Errorf("%s\n%v", got, err)
	}
}

func TestNothingToRead(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "f:1: want one document with connections and watches",
		"# nothing":                    "f:1: want one document with connections and watches",
		"[]":                           "f:1: file: want fields, got a list",
		"hello":                        "f:1: file: want fields, got text",
		"connections: {}":              "f:1: no connections: without them nothing can be watched",
		strings.Repeat("#", maxFile+1): "f:1: larger than 4194304 bytes: split it over several instances",
	} {
		f, err := Parse("f", []byte(in))
		if f != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Parse(%.20q) = %v, %v, want %s", in, f, err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	in := strings.Replace(good, "connections:\n", `clouds:
  lab: {graph: "http://emulator:9000/v1.0", login: "http://[::1]:9000"}
connections:
  spare: {tenant: contoso.com, client_id: 507c3b9a-67b8-463d-88a2-15a8cefb2111, client_secret_file: x}
`, 1)
	f, err := Parse("f", []byte(in))
	want := []string{
		`f:2: graph: tokens and secrets travel unencrypted to emulator:9000`,
		`f:4: connection "spare" is not used by any watch`,
	}
	if err != nil || !reflect.DeepEqual(f.Warnings, want) {
		t.Errorf("warnings %q, %v, want %q", f.Warnings, err, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "triggerd.yaml")
	write := func(name, content string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("triggerd.yaml", strings.Replace(good, "/run/secret", "secret", 1), 0o600)
	load := func() (*File, string) {
		f, err := Load(file)
		if err != nil {
			return nil, strings.ReplaceAll(err.Error(), dir, "DIR")
		}
		return f, ""
	}
	if _, msg := load(); msg != "triggerd.yaml:5: client_secret_file: open DIR/secret: no such file or directory" {
		t.Errorf("without the secret: %s", msg)
	}
	write("secret", " \n", 0o600)
	if _, msg := load(); msg != "triggerd.yaml:5: client_secret_file: DIR/secret: is empty" {
		t.Errorf("with an empty secret: %s", msg)
	}
	write("secret", strings.Repeat("x", maxSecret+1), 0o600)
	if _, msg := load(); msg != "triggerd.yaml:5: client_secret_file: DIR/secret: larger than 65536 bytes: this is no secret" {
		t.Errorf("with a large secret: %s", msg)
	}
	write("secret", "canary\n", 0o644)
	f, msg := load()
	if msg != "" || len(f.Warnings) != 1 || !strings.HasSuffix(f.Warnings[0], "can be read by everybody on this machine: chmod o-r") {
		t.Errorf("with an open secret: %+v, %s", f, msg)
	}
	write("secret", "canary\n", 0o600)
	f, msg = load()
	if msg != "" || len(f.Warnings) != 0 {
		t.Fatalf("with a good secret: %+v, %s", f, msg)
	}
	if s, err := ReadSecret(f.Connections["contoso"].ClientSecretFiles[0]); err != nil || s.Reveal() != "canary" {
		t.Errorf("secret %v, %v", s.Reveal() == "canary", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "write one, or name another in TRIGGERD_CONFIG") {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	for _, name := range []string{"triggerd.yaml", "lab.yaml"} {
		if b, err := os.ReadFile(filepath.Join("..", "..", "configs", name)); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte(meetings))
	f.Add([]byte("a: &x [*x]\n? b\n: !t c\n<<: *x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("f", data)
		if (file == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", file, err)
		}
		if err != nil {
			for l := range strings.SplitSeq(err.Error(), "\n") {
				if strings.HasPrefix(l, "f:") {
					return
				}
			}
			t.Fatalf("no line in %q", err)
		}
		for _, w := range file.Watches {
			mail, calendar := len(w.Mail.Folders) > 0, len(w.Calendar.Calendars) > 0
			if _, ok := file.Connections[w.Connection]; !ok || !isName(w.Name) || len(w.Mailboxes) == 0 || !mail && !calendar ||
				len(w.Mail.Events) > 0 != mail || len(w.Calendar.Events) > 0 != calendar ||
				len(w.Calendar.Starting) > 0 != slices.Contains(w.Calendar.Events, event.Starting) {
				t.Errorf("watch %+v was let through", w)
			}
			for _, m := range w.Mailboxes {
				if !isToken(m.Token()) {
					t.Errorf("mailbox %+v has no token", m)
				}
			}
		}
	})
}

// The watch that the runbook proposes is one.
func TestTheRunbooksWatch(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```yaml\n")
	watch, _, _ := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/operations.md has no watch")
	}
	head, _, _ := strings.Cut(good, "\nwatches:")
	f, err := Parse("f", []byte(head+"\nwatches:\n"+watch))
	if err != nil || len(f.Watches) != 1 || f.Watches[0].Canary != 15*time.Minute {
		t.Errorf("%+v, %v", f, err)
	}
}
