package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const client = "507c3b9a-67b8-463d-88a2-15a8cefb2111"

// connected is a watch file with a connection's fields, and a watch's.
func connected(connection, watch string) string {
	indent := func(s string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n" }
	return "connections:\n  c:\n" + indent(connection) + "watches:\n  w:\n    connection: c\n    mail: {}\n" + indent(watch)
}

func TestConnections(t *testing.T) {
	global := builtin["global"]
	tests := []struct {
		name, connection string
		want             Connection
	}{
		{"two secrets", "tenant: contoso.com\nclient_id: " + client + "\nclient_secret_file: [/new, /old]",
			Connection{Cloud: global, Tenant: "contoso.com", ClientID: client, Auth: AuthApp, ClientSecretFiles: []string{"/new", "/old"}}},
		{"a certificate", "tenant: contoso.com\nclient_id: " + client + "\ncertificate_file: /c\ncertificate_key_file: /k\nunreachable: ceo@contoso.com",
			Connection{Cloud: global, Tenant: "contoso.com", ClientID: client, Auth: AuthApp, CertificateFile: "/c", CertificateKeyFile: "/k", Unreachable: []string{"ceo@contoso.com"}}},
		{"a federated token", "cloud: china\ntenant: contoso.com\nclient_id: " + client + "\nfederated_token_file: /t",
			Connection{Cloud: builtin["china"], Tenant: "contoso.com", ClientID: client, Auth: AuthApp, FederatedTokenFile: "/t"}},
		{"a managed identity", "managed_identity: true", Connection{Cloud: global, Auth: AuthApp, ManagedIdentity: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("x.yaml", []byte(connected(tt.connection, "mailboxes: [a@contoso.com]")))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name = "c"
			if got := f.Connections["c"]; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("connection %+v\nwant %+v", got, tt.want)
			}
			if n := f.Needs("c"); !slices.Equal(n.Roles(), []string{"Mail.Read"}) {
				t.Errorf("roles %v", n.Roles())
			}
		})
	}
}

func TestDelegatedConnections(t *testing.T) {
	tests := []struct {
		name, connection, mailboxes, tenant string
		scopes, extra                       []string
	}{
		{"by default", "", "[me]", "common", []string{"Mail.Read"}, nil},
		{"with a shared mailbox", "tenant: Organizations", "[ME, support@contoso.com]", "organizations", []string{"Mail.Read", "Mail.Read.Shared"}, nil},
		{"shared only", "tenant: contoso.com", "[support@contoso.com]", "contoso.com", []string{"Mail.Read.Shared"}, nil},
		{"personal accounts", "tenant: consumers", "[me]", "consumers", []string{"Mail.Read"}, nil},
		{"more scopes", "extra_scopes: [User.Read, https://graph.microsoft.com/Calendars.Read, email, User.ReadBasic.All]", "[me]", "common", []string{"Mail.Read"},
			[]string{"User.Read", "Calendars.Read", "email", "User.ReadBasic.All"}},
		{"with a secret", "client_secret_file: /s", "[me]", "common", []string{"Mail.Read"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("x.yaml", []byte(connected("auth: delegated\nclient_id: "+client+"\n"+tt.connection, "mailboxes: "+tt.mailboxes)))
			if err != nil {
				t.Fatal(err)
			}
			c := f.Connections["c"]
			if got := f.Needs("c").Scopes(); c.Tenant != tt.tenant || !slices.Equal(got, tt.scopes) || !slices.Equal(c.ExtraScopes, tt.extra) {
				t.Errorf("tenant %s, scopes %v, extra %v", c.Tenant, got, c.ExtraScopes)
			}
			if m := f.Watches[0].Mailboxes[0]; m.IsMe() && m.Token() != "me" {
				t.Errorf("the user's own mailbox is %s in subjects", m.Token())
			}
		})
	}
}

func TestConnectionMistakes(t *testing.T) {
	app, user := "tenant: contoso.com\nclient_id: "+client, "auth: delegated\nclient_id: "+client
	tests := []struct {
		name, connection, watch, want string
	}{
		{"no credential", app, "mailboxes: [a@x.example]", `connection "c" has no credential: give it client_secret_file, certificate_file, federated_token_file, or managed_identity: true`},
		{"two credentials", app + "\nclient_secret_file: /s\nmanaged_identity: true", "mailboxes: [a@x.example]", `has several credentials (client_secret_file, managed_identity): keep one`},
		{"key without certificate", app + "\nclient_secret_file: /s\ncertificate_key_file: /k", "mailboxes: [a@x.example]", `certificate_key_file goes with certificate_file`},
		{"organizations for an app", "tenant: organizations\nclient_secret_file: /s\nclient_id: " + client, "mailboxes: [a@x.example]", `tenant: "organizations" does not work without a user: give the tenant's id`},
		{"managed identity for a user", user + "\nmanaged_identity: true", "mailboxes: [me]", `managed_identity signs in as the machine, not for a user`},
		{"truth that is none", app + "\nclient_secret_file: /s\nmanaged_identity: often", "mailboxes: [a@x.example]", `managed_identity: want true or false`},
		{"personal accounts in China", user + "\ncloud: china\ntenant: consumers", "mailboxes: [me]", `cloud china has no personal accounts`},
		{"me without a user", app + "\nclient_secret_file: /s", "mailboxes: [me]", `mailbox "me" is the signed-in user, and with auth app there is none`},
		{"push on a shared mailbox", user, "mailboxes: [me, support@x.example]\ndelivery: push", `mailbox "support@x.example": delivery push needs notifications, and delegated access has them for`},
		{"reference on a shared mailbox", user, "mailboxes: [support@x.example]\ncontent: reference", `mailbox "support@x.example": content reference needs notifications`},
		{"a write scope", user + "\nextra_scopes: [Mail.ReadWrite]", "mailboxes: [me]", `extra_scopes: "Mail.ReadWrite" allows more than reading, which triggerd never asks for`},
		{"a send scope", user + "\nextra_scopes: [User.Read, Mail.Send]", "mailboxes: [me]", `extra_scopes: "Mail.Send" allows more than reading`},
		{"a full scope", user + "\nextra_scopes: [Sites.FullControl.All]", "mailboxes: [me]", `"Sites.FullControl.All" allows more than reading`},
		{"all scopes", user + "\nextra_scopes: [https://graph.microsoft.com/.default]", "mailboxes: [me]", `".default" asks for all that the app was ever given`},
		{"a scope of another cloud", user + "\nextra_scopes: [https://graph.microsoft.us/User.Read]", "mailboxes: [me]", `is not of this cloud's Graph: write the name alone`},
		{"no scope", user + "\nextra_scopes: ['a b']", "mailboxes: [me]", `"a b" is not a permission of Graph`},
		{"unreachable", app + "\nclient_secret_file: /s\nunreachable: [boss]", "mailboxes: [a@x.example]", `unreachable: "boss" is neither an address nor a Graph user id`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(connected(tt.connection, tt.watch)))
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `\"`, `"`), strings.ReplaceAll(tt.want, `".default"`, `.default"`)) || !strings.HasPrefix(err.Error(), "x.yaml:") {
				t.Errorf("%v\nwant %s", err, tt.want)
			}
			if err != nil && strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("one mistake, told as several:\n%v", err)
			}
		})
	}
}

func TestCredentialFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("x.yaml", connected("tenant: contoso.com\nclient_id: "+client+"\ncertificate_file: cert.pem\ncertificate_key_file: key.pem", "mailboxes: [a@x.example]"), 0o600)
	write("cert.pem", "c", 0o600)
	if _, err := Load(filepath.Join(dir, "x.yaml")); err == nil || !strings.Contains(err.Error(), "certificate_key_file: ") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without the key: %v", err)
	}
	write("key.pem", "k", 0o644)
	f, err := Load(filepath.Join(dir, "x.yaml"))
	if err != nil || len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "can be read by everybody") {
		t.Errorf("with an open key: %v, %v", f, err)
	}
	if f.Connections["c"].CertificateKeyFile != filepath.Join(dir, "key.pem") {
		t.Errorf("key file %s", f.Connections["c"].CertificateKeyFile)
	}
}

func TestSignInsOfUsersNeedAKey(t *testing.T) {
	f, err := Parse("x.yaml", []byte(connected("auth: delegated\nclient_id: "+client, "mailboxes: [me]")))
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(Settings{}, f); err == nil || !strings.Contains(err.Error(), `TRIGGERD_STATE_KEY_FILE: connection "c" keeps sign-ins of users`) {
		t.Errorf("without a key: %v", err)
	}
	if err := Check(Settings{StateKeyFile: "/key"}, f); err != nil {
		t.Errorf("with a key: %v", err)
	}
}

func TestKeyFromASystemdCredential(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if s, err := LoadSettings(); err != nil || s.StateKeyFile != "" {
		t.Errorf("without the credential: %q, %v", s.StateKeyFile, err)
	}
	path := filepath.Join(dir, "state_key")
	if err := os.WriteFile(path, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadSettings(); err != nil || s.StateKeyFile != path {
		t.Errorf("with the credential: %q, %v", s.StateKeyFile, err)
	}
	t.Setenv("TRIGGERD_STATE_KEY_FILE", "/elsewhere")
	if s, err := LoadSettings(); err != nil || s.StateKeyFile != "/elsewhere" {
		t.Errorf("with both: %q, %v", s.StateKeyFile, err)
	}
}
