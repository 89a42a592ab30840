package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// setEnv sets variables for a test, and takes away those that the machine may have.
func setEnv(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, prefix) || name == "STATE_DIRECTORY" {
			t.Setenv(name, "") // so that it comes back
			os.Unsetenv(name)
		}
	}
	for k, v := range vars {
		t.Setenv(k, v)
	}
}

func TestLoadSettings(t *testing.T) {
	setEnv(t, map[string]string{"STREAM": "OTHER", "LOG_LEVEL": "loud", "CONFIG": "/else"}) // somebody else's
	s, err := LoadSettings()
	want := Settings{
		Config: "/etc/triggerd/triggerd.yaml", StateDir: "/var/lib/triggerd", Listen: ":8080", AdminListen: "127.0.0.1:8081",
		NATSListen: "127.0.0.1:4222", Stream: "GRAPH", SubjectPrefix: "graph", EventMode: "binary",
		PollInterval: time.Minute, SweepInterval: 15 * time.Minute, TrueUpInterval: 24 * time.Hour,
		DeltaLag: 30 * time.Second, AckHold: 15 * time.Minute, Metrics: "feed", LogLevel: "info", LogFormat: "auto",
		ACMECA: "https://acme-v02.api.letsencrypt.org/directory",
	}
	if err != nil || s != want {
		t.Errorf("defaults %+v, %v\nwant %+v", s, err, want)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	setEnv(t, map[string]string{
		"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "TRIGGERD_PUBLIC_URL": "https://hook.example.com:8443/base/", "TRIGGERD_ADMIN_LISTEN": "[::1]:0",
		"TRIGGERD_NATS_URL": "tls://n1:4222, nats://n2:4222", "TRIGGERD_NATS_CREDS_FILE": file, "TRIGGERD_NATS_TLS_CA_FILE": file,
		"TRIGGERD_SUBJECT_PREFIX": "corp.graph", "TRIGGERD_SUBSCRIPTION_LIFETIME": "50m", "TRIGGERD_TRUEUP_INTERVAL": "1h30m",
	})
	s, err = LoadSettings()
	if err != nil || s.StateDir != "/var/lib/a" || s.PublicURL != "https://hook.example.com:8443/base" || s.SubscriptionLifetime != 50*time.Minute ||
		s.TrueUpInterval != 90*time.Minute || s.NATSCredsFile != file {
		t.Errorf("settings %+v, %v", s, err)
	}
}

func TestSettingMistakes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name, value, want string
	}{
		{"TRIGGERD_POLL_INTERVALL", "1m", `TRIGGERD_POLL_INTERVALL: unknown variable; did you mean "TRIGGERD_POLL_INTERVAL"?`},
		{"TRIGGERD_XYZZY_PLUGH_ABRACADABRA", "1", `TRIGGERD_XYZZY_PLUGH_ABRACADABRA: unknown variable`},
		{"TRIGGERD_ACME_EMAIL", "a@b.c", `TRIGGERD_ACME_EMAIL: needs a name to get a certificate for: set TRIGGERD_PUBLIC_URL to https://host`},
		{"TRIGGERD_ACME_CA_ROOT_FILE", "/roots.pem", `TRIGGERD_ACME_CA_ROOT_FILE: has no effect without TRIGGERD_ACME_EMAIL: set it, or leave this out`},
		{"TRIGGERD_TLS_CERT_FILE", "/tls.crt", `TRIGGERD_TLS_CERT_FILE: and TRIGGERD_TLS_KEY_FILE go together: set both`},
		{"TRIGGERD_TLS_KEY_FILE", "/tls.key", `TRIGGERD_TLS_CERT_FILE: and TRIGGERD_TLS_KEY_FILE go together: set both`},
		{"TRIGGERD_POLL_INTERVAL", "fast", `TRIGGERD_POLL_INTERVAL: "fast" is not a duration: write 90s, 15m or 24h`},
		{"TRIGGERD_POLL_INTERVAL", "60", `TRIGGERD_POLL_INTERVAL: "60" is not a duration: write 90s, 15m or 24h`},
		{"TRIGGERD_POLL_INTERVAL", "1ms", `TRIGGERD_POLL_INTERVAL: 1ms is too short: at least 100ms`},
		{"TRIGGERD_POLL_INTERVAL", "20m", `TRIGGERD_SWEEP_INTERVAL: 15m0s is too short: at least 20m0s`},
		{"TRIGGERD_TRUEUP_INTERVAL", "1s", `TRIGGERD_TRUEUP_INTERVAL: 1s is too short: at least 1m0s`},
		{"TRIGGERD_SUBSCRIPTION_LIFETIME", "-1h", `TRIGGERD_SUBSCRIPTION_LIFETIME: -1h0m0s is too short: at least 0s`},
		{"TRIGGERD_DELTA_LAG", "0", `TRIGGERD_DELTA_LAG: 0s is too short: at least 100ms`},
		{"TRIGGERD_ACK_HOLD", "-1s", `TRIGGERD_ACK_HOLD: -1s is too short: at least 100ms`},
		{"TRIGGERD_CONFIG", "", `TRIGGERD_CONFIG: is empty: name the watch file, or leave the variable out`},
		{"TRIGGERD_LISTEN", "8080", `TRIGGERD_LISTEN: "8080" is not an address: write host:port`},
		{"TRIGGERD_LISTEN", ":http", `TRIGGERD_LISTEN: ":http" is not an address: write host:port`},
		{"TRIGGERD_LISTEN", ":99999", `TRIGGERD_LISTEN: ":99999" is not an address: write host:port`},
		{"TRIGGERD_NATS_LISTEN", "", `TRIGGERD_NATS_LISTEN: "" is not an address: write host:port`},
		{"TRIGGERD_ADMIN_LISTEN", ":8081", `TRIGGERD_ADMIN_LISTEN: ":8081" can be reached from outside: write 127.0.0.1:port, or set TRIGGERD_ADMIN_TOKEN_FILE`},
		{"TRIGGERD_ADMIN_LISTEN", "192.0.2.1:8081", `TRIGGERD_ADMIN_LISTEN: "192.0.2.1:8081" can be reached from outside: write 127.0.0.1:port, or set TRIGGERD_ADMIN_TOKEN_FILE`},
		{"TRIGGERD_PUBLIC_URL", "hook.example.com", `TRIGGERD_PUBLIC_URL: "hook.example.com" is not a base URL (it begins with none of http, https): write https://host[:port][/path]`},
		{"TRIGGERD_PUBLIC_URL", "https://", `TRIGGERD_PUBLIC_URL: "https:" is not a base URL (it has no usable host): write https://host[:port][/path]`},
		{"TRIGGERD_PUBLIC_URL", "https://a@b.example", `TRIGGERD_PUBLIC_URL: "https://a@b.example" is not a base URL (it holds a user name): write https://host[:port][/path]`},
		{"TRIGGERD_PUBLIC_URL", "https://b.example?x", `TRIGGERD_PUBLIC_URL: "https://b.example?x" is not a base URL (it has a query or fragment): write https://host[:port][/path]`},
		{"TRIGGERD_PUBLIC_URL", "https://b.example:0x1", `TRIGGERD_PUBLIC_URL: "https://b.example:0x1" is not a base URL (it cannot be read): write https://host[:port][/path]`},
		{"TRIGGERD_NATS_URL", "nats://u:canary@n1:4222", `TRIGGERD_NATS_URL: "nats://[redacted]@n1:4222" is not a broker's URL (it holds a user name): write nats://host:port, and put credentials into TRIGGERD_NATS_CREDS_FILE`},
		{"TRIGGERD_NATS_URL", "http://n1", `TRIGGERD_NATS_URL: "http://n1" is not a broker's URL (it begins with none of nats, tls, ws, wss): write nats://host:port, and put credentials into TRIGGERD_NATS_CREDS_FILE`},
		{"TRIGGERD_NATS_NKEY_FILE", missing, "TRIGGERD_NATS_NKEY_FILE: has no effect on the embedded broker: set TRIGGERD_NATS_URL, or leave it out\nTRIGGERD_NATS_NKEY_FILE: open " + missing + ": no such file or directory"},
		{"TRIGGERD_STREAM", "a.b", `TRIGGERD_STREAM: "a.b" is not a stream name: use letters, digits, - and _`},
		{"TRIGGERD_SUBJECT_PREFIX", "a..b", `TRIGGERD_SUBJECT_PREFIX: "a..b" is not a subject: write tokens of letters, digits, - and _, joined by dots`},
		{"TRIGGERD_SUBJECT_PREFIX", "a.>", `TRIGGERD_SUBJECT_PREFIX: "a.>" is not a subject: write tokens of letters, digits, - and _, joined by dots`},
		{"TRIGGERD_EVENT_MODE", "json", `TRIGGERD_EVENT_MODE: "json" is not one of binary, structured`},
		{"TRIGGERD_LOG_LEVEL", "loud", `TRIGGERD_LOG_LEVEL: "loud" is not one of debug, info, warn, error`},
		{"TRIGGERD_LOG_FORMAT", "xml", `TRIGGERD_LOG_FORMAT: "xml" is not one of auto, json, console`},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			setEnv(t, map[string]string{tt.name: tt.value})
			if _, err := LoadSettings(); err == nil || err.Error() != tt.want {
				t.Errorf("LoadSettings = %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestSettingsThatGoTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	setEnv(t, map[string]string{
		"TRIGGERD_NATS_URL": "nats://n1", "TRIGGERD_NATS_CREDS_FILE": file, "TRIGGERD_NATS_NKEY_FILE": file, "TRIGGERD_NATS_TLS_KEY_FILE": file,
	})
	_, err := LoadSettings()
	want := "TRIGGERD_NATS_NKEY_FILE: and TRIGGERD_NATS_CREDS_FILE exclude each other: keep one\n" +
		"TRIGGERD_NATS_TLS_CERT_FILE: and TRIGGERD_NATS_TLS_KEY_FILE go together: set both"
	if err == nil || err.Error() != want {
		t.Errorf("LoadSettings = %v\nwant %s", err, want)
	}
}

func TestTLSSettings(t *testing.T) {
	files := map[string]string{"TRIGGERD_TLS_CERT_FILE": "/tls.crt", "TRIGGERD_TLS_KEY_FILE": "/tls.key"}
	acme := func(more ...string) map[string]string {
		m := map[string]string{"TRIGGERD_ACME_EMAIL": "ops@contoso.com", "TRIGGERD_PUBLIC_URL": "https://hook.contoso.com"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	const nameless = `TRIGGERD_ACME_EMAIL: needs a name to get a certificate for: set TRIGGERD_PUBLIC_URL to https://host`
	tests := []struct {
		name string
		env  map[string]string
		want string
	}{
		{"files", files, ""},
		{"ACME", acme(), ""},
		{"ACME of a private authority", acme("TRIGGERD_ACME_CA", "https://ca.contoso.test:9000/acme/acme/directory", "TRIGGERD_ACME_CA_ROOT_FILE", "/root.pem"), ""},
		{"both", acme("TRIGGERD_TLS_CERT_FILE", "/c", "TRIGGERD_TLS_KEY_FILE", "/k"), `TRIGGERD_ACME_EMAIL: and TRIGGERD_TLS_CERT_FILE exclude each other: keep one`},
		{"an address that is none, and is not repeated", acme("TRIGGERD_ACME_EMAIL", "canary"), `TRIGGERD_ACME_EMAIL: is not an address: write name@example.com`},
		{"an address with a name", acme("TRIGGERD_ACME_EMAIL", "Canary <c@d.e>"), `TRIGGERD_ACME_EMAIL: is not an address: write name@example.com`},
		{"a directory over http", acme("TRIGGERD_ACME_CA", "http://ca.test/dir"), `TRIGGERD_ACME_CA: "http://ca.test/dir" is not a directory URL (it begins with none of https): write https://host[:port]/path`},
		{"a public URL over http", acme("TRIGGERD_PUBLIC_URL", "http://hook.contoso.com"), nameless},
		{"a public URL without a name", acme("TRIGGERD_PUBLIC_URL", "https://192.0.2.1"), nameless},
		{"a public URL without a name, version 6", acme("TRIGGERD_PUBLIC_URL", "https://[2001:db8::1]"), nameless},
		{"an admin listener with a token", map[string]string{"TRIGGERD_ADMIN_LISTEN": ":8081", "TRIGGERD_ADMIN_TOKEN_FILE": "/token"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, tt.env)
			got := ""
			if _, err := LoadSettings(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("LoadSettings = %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAllSettingMistakesAtOnce(t *testing.T) {
	setEnv(t, map[string]string{
		"TRIGGERD_POLL": "1m", "TRIGGERD_DELTA_LAG": "x", "TRIGGERD_ACK_HOLD": "y", "TRIGGERD_STREAM": "", "TRIGGERD_LOG_LEVEL": "z",
	})
	_, err := LoadSettings()
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("LoadSettings = %v, want five mistakes", err)
	}
}

func TestUsage(t *testing.T) {
	var b bytes.Buffer
	if err := Usage(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 1+reflect.TypeFor[Settings]().NumField() {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	typ := reflect.TypeFor[Settings]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, desc := f.Tag.Get("envconfig"), f.Tag.Get("desc")
		if !strings.HasPrefix(lines[i+1], name+" ") || !strings.HasSuffix(lines[i+1], desc) || desc == "" {
			t.Errorf("%s: %q", f.Name, lines[i+1])
		}
		if f.Type == reflect.TypeFor[time.Duration]() && !strings.HasPrefix(desc, "duration ") {
			t.Errorf("%s: the description %q does not say the unit", name, desc)
		}
	}
}

func TestCheck(t *testing.T) {
	file := func(cloud, watch string) *File {
		t.Helper()
		f, err := Parse("f", []byte("clouds:\n  lab: {graph: \"http://127.0.0.1/v1.0\", login: \"http://127.0.0.1\"}\n"+
			strings.Replace(good, "tenant:", "cloud: "+cloud+"\n    tenant:", 1)+watch))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	tests := []struct {
		name string
		s    Settings
		f    *File
		want string
	}{
		{"polling", Settings{}, file("global", ""), ""},
		{"push", Settings{PublicURL: "https://h"}, file("global", "    delivery: push\n"), ""},
		{"http to a lab", Settings{PublicURL: "http://h", SubscriptionLifetime: time.Hour}, file("lab", ""), ""},
		{"http to Microsoft", Settings{PublicURL: "http://h"}, file("china", ""), `TRIGGERD_PUBLIC_URL: connection "contoso" is in cloud china, which delivers over https only: put TLS in front and write https://`},
		{"lifetime", Settings{SubscriptionLifetime: 8 * 24 * time.Hour}, file("global", ""), `TRIGGERD_SUBSCRIPTION_LIFETIME: 192h0m0s is longer than the 168h0m0s that cloud global grants to connection "contoso"`},
		{"push without a URL", Settings{}, file("global", "    delivery: push\n"), `watch "sales": delivery push needs notifications, and TRIGGERD_PUBLIC_URL is not set: set it, or change the watch`},
		{"reference without a URL", Settings{}, file("global", "    content: reference\n"), `watch "sales": content reference needs notifications, and TRIGGERD_PUBLIC_URL is not set: set it, or change the watch`},
	}
	for _, tt := range tests {
		got := ""
		if err := Check(tt.s, tt.f); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: Check = %s\nwant %s", tt.name, got, tt.want)
		}
	}
	both := Check(Settings{PublicURL: "http://h", SubscriptionLifetime: 8 * 24 * time.Hour}, file("global", ""))
	if both == nil || strings.Count(both.Error(), "\n") != 1 {
		t.Errorf("two mistakes: %v", both)
	}
}
