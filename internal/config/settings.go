// Package config reads the process's settings from the environment and what to watch from one strict YAML file. It
// reports every mistake at once, each with its place and a remedy. It knows nothing of how things run.
package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"
)

const prefix = "TRIGGERD_"

// Settings are the process's settings. Durations are written as Go does: 90s, 15m, 24h.
//
// The tags hold whole names: envconfig would also take a name without its prefix, and STREAM or LOG_LEVEL may be there
// for somebody else.
type Settings struct {
	Config          string `envconfig:"TRIGGERD_CONFIG" default:"/etc/triggerd/triggerd.yaml" desc:"watch file"`
	StateDir        string `envconfig:"TRIGGERD_STATE_DIR" desc:"directory of the database and the embedded broker's store; default $STATE_DIRECTORY, else /var/lib/triggerd"`
	Listen          string `envconfig:"TRIGGERD_LISTEN" default:":8080" desc:"host:port of the public listener, webhook routes only"`
	PublicURL       string `envconfig:"TRIGGERD_PUBLIC_URL" desc:"https base URL of the public listener as Graph sees it; none: no push, polling only"`
	TLSCertFile     string `envconfig:"TRIGGERD_TLS_CERT_FILE" desc:"file with the public listener's certificate and those that lead to its root (PEM); none, and no ACME: http, for a proxy in front"`
	TLSKeyFile      string `envconfig:"TRIGGERD_TLS_KEY_FILE" desc:"file with the key of that certificate (PEM); both are read again when they change"`
	ACMEEmail       string `envconfig:"TRIGGERD_ACME_EMAIL" desc:"address for the account of a certificate authority that is asked for the public listener's certificate; port 443 of the public URL's host must lead to the public listener"`
	ACMECA          string `envconfig:"TRIGGERD_ACME_CA" default:"https://acme-v02.api.letsencrypt.org/directory" desc:"directory URL of that authority"`
	ACMECARootFile  string `envconfig:"TRIGGERD_ACME_CA_ROOT_FILE" desc:"file with the root of a private authority's own listener (PEM); none: the system's"`
	StateKeyFile    string `envconfig:"TRIGGERD_STATE_KEY_FILE" desc:"file with the keys that seal sign-ins of users at rest, see triggerd key; default the systemd credential state_key"`
	AdminListen     string `envconfig:"TRIGGERD_ADMIN_LISTEN" default:"127.0.0.1:8081" desc:"host:port of the status API, metrics and health checks; beyond loopback only with a token"`
	AdminTokenFile  string `envconfig:"TRIGGERD_ADMIN_TOKEN_FILE" desc:"file with a token of at least 32 characters that whoever uses the admin listener must show; read anew for each request"`
	NATSURL         string `envconfig:"TRIGGERD_NATS_URL" desc:"URLs of the broker, comma-separated; none: an embedded one"`
	NATSListen      string `envconfig:"TRIGGERD_NATS_LISTEN" default:"127.0.0.1:4222" desc:"host:port of the embedded broker"`
	NATSCredsFile   string `envconfig:"TRIGGERD_NATS_CREDS_FILE" desc:"file with the broker's user credentials (.creds)"`
	NATSNKeyFile    string `envconfig:"TRIGGERD_NATS_NKEY_FILE" desc:"file with an NKey seed for the broker"`
	NATSTLSCAFile   string `envconfig:"TRIGGERD_NATS_TLS_CA_FILE" desc:"file with the broker's CA certificates (PEM)"`
	NATSTLSCertFile string `envconfig:"TRIGGERD_NATS_TLS_CERT_FILE" desc:"file with the client certificate for the broker (PEM)"`
	NATSTLSKeyFile  string `envconfig:"TRIGGERD_NATS_TLS_KEY_FILE" desc:"file with the client key for the broker (PEM)"`
	Stream          string `envconfig:"TRIGGERD_STREAM" default:"GRAPH" desc:"JetStream stream; created when missing, checked (never changed) when present"`
	SubjectPrefix   string `envconfig:"TRIGGERD_SUBJECT_PREFIX" default:"graph" desc:"first token or tokens of every subject"`
	EventMode       string `envconfig:"TRIGGERD_EVENT_MODE" default:"binary" desc:"CloudEvents as NATS headers (binary) or as JSON (structured)"`

	PollInterval         time.Duration `envconfig:"TRIGGERD_POLL_INTERVAL" default:"1m" desc:"duration between rounds of a feed without push"`
	SweepInterval        time.Duration `envconfig:"TRIGGERD_SWEEP_INTERVAL" default:"15m" desc:"duration between rounds of a feed with healthy push"`
	TrueUpInterval       time.Duration `envconfig:"TRIGGERD_TRUEUP_INTERVAL" default:"24h" desc:"duration between full enumerations of a feed"`
	SubscriptionLifetime time.Duration `envconfig:"TRIGGERD_SUBSCRIPTION_LIFETIME" desc:"duration asked for a subscription; default Graph's maximum less a margin"`
	DeltaLag             time.Duration `envconfig:"TRIGGERD_DELTA_LAG" default:"30s" desc:"duration that delta may lag behind a notification before the item is read directly"`
	AckHold              time.Duration `envconfig:"TRIGGERD_ACK_HOLD" default:"15m" desc:"duration that a published event is held in case the stream goes back"`

	Metrics   string `envconfig:"TRIGGERD_METRICS" default:"feed" desc:"feed, or watch: one series for each watch instead of each feed, for many mailboxes"`
	LogLevel  string `envconfig:"TRIGGERD_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string `envconfig:"TRIGGERD_LOG_FORMAT" default:"auto" desc:"json, console, or auto: console on a terminal"`
}

// LoadSettings reads the environment. The error joins all mistakes, unknown TRIGGERD_ variables among them.
func LoadSettings() (Settings, error) {
	var s Settings
	problems := unknownVariables(os.Environ())
	problems = append(problems, s.load()...)
	if s.StateDir == "" {
		s.StateDir = "/var/lib/triggerd"
		if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" { // systemd's
			s.StateDir = dir
		}
	}
	if s.StateKeyFile == "" {
		s.StateKeyFile = credential("state_key")
	}
	s.PublicURL = strings.TrimRight(s.PublicURL, "/")
	return s, errors.Join(append(problems, s.check()...)...)
}

// credential is the file of a systemd credential; empty when there is none.
func credential(name string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// load fills the settings one by one: envconfig stops at the first value that it cannot read, and all mistakes are
// wanted. A value that cannot be read leaves its default.
func (s *Settings) load() (problems []error) {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
		if err := envconfig.Process("", one.Interface()); err != nil {
			name, def := field.Tag.Get("envconfig"), field.Tag.Get("default")
			problems = append(problems, fmt.Errorf("%s: %q is not a duration: write 90s, 15m or 24h", name, os.Getenv(name)))
			if d, err := time.ParseDuration(def); err == nil {
				v.Field(i).SetInt(int64(d))
			}
			continue
		}
		v.Field(i).Set(one.Elem().Field(0))
	}
	return problems
}

// variables lists the names of the settings.
func variables() []string {
	t := reflect.TypeFor[Settings]()
	var out []string
	for i := range t.NumField() {
		out = append(out, t.Field(i).Tag.Get("envconfig"))
	}
	return out
}

// unknownVariables finds TRIGGERD_ variables that mean nothing: a misspelled one would be ignored in silence.
func unknownVariables(environ []string) (problems []error) {
	known := variables()
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case !strings.HasPrefix(name, prefix) || slices.Contains(known, name):
		default:
			problems = append(problems, fmt.Errorf("%s: unknown variable%s", name, didYouMean(name, known)))
		}
	}
	return problems
}

const minInterval = 100 * time.Millisecond

// check reports what is wrong with the values by themselves, in the order of the fields.
func (s *Settings) check() (problems []error) {
	bad := func(name, format string, args ...any) {
		problems = append(problems, fmt.Errorf(prefix+name+": "+format, args...))
	}
	oneOf := func(name, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(name, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	address := func(name, value string) {
		if _, port, err := net.SplitHostPort(value); err != nil || !isPort(port) {
			bad(name, "%q is not an address: write host:port", value)
		}
	}
	atLeast := func(name string, d, least time.Duration) {
		if d < least {
			bad(name, "%v is too short: at least %v", d, least)
		}
	}
	if s.Config == "" {
		bad("CONFIG", "is empty: name the watch file, or leave the variable out")
	}
	address("LISTEN", s.Listen)
	if err := checkURL(s.PublicURL, "http", "https"); s.PublicURL != "" && err != nil {
		bad("PUBLIC_URL", "%q is not a base URL (%v): write https://host[:port][/path]", s.PublicURL, err)
	}
	s.checkTLS(bad)
	address("ADMIN_LISTEN", s.AdminListen)
	if host, _, err := net.SplitHostPort(s.AdminListen); err == nil && s.AdminTokenFile == "" && !isLoopback(host) {
		bad("ADMIN_LISTEN", "%q can be reached from outside: write 127.0.0.1:port, or set %sADMIN_TOKEN_FILE", s.AdminListen, prefix)
	}
	s.checkNATS(bad)
	address("NATS_LISTEN", s.NATSListen)
	if !isToken(s.Stream) {
		bad("STREAM", "%q is not a stream name: use letters, digits, - and _", s.Stream)
	}
	if slices.ContainsFunc(strings.Split(s.SubjectPrefix, "."), func(t string) bool { return !isToken(t) }) {
		bad("SUBJECT_PREFIX", "%q is not a subject: write tokens of letters, digits, - and _, joined by dots", s.SubjectPrefix)
	}
	oneOf("EVENT_MODE", s.EventMode, "binary", "structured")
	atLeast("POLL_INTERVAL", s.PollInterval, minInterval)
	atLeast("SWEEP_INTERVAL", s.SweepInterval, max(minInterval, s.PollInterval))
	atLeast("TRUEUP_INTERVAL", s.TrueUpInterval, max(minInterval, s.PollInterval))
	atLeast("SUBSCRIPTION_LIFETIME", s.SubscriptionLifetime, 0)
	atLeast("DELTA_LAG", s.DeltaLag, minInterval)
	atLeast("ACK_HOLD", s.AckHold, minInterval)
	oneOf("METRICS", s.Metrics, "feed", "watch")
	oneOf("LOG_LEVEL", s.LogLevel, "debug", "info", "warn", "error")
	oneOf("LOG_FORMAT", s.LogFormat, "auto", "json", "console")
	return problems
}

// checkTLS checks where the public listener's certificate comes from. The files are for the daemon alone to read:
// commands load settings too.
func (s *Settings) checkTLS(bad func(name, format string, args ...any)) {
	if (s.TLSCertFile == "") != (s.TLSKeyFile == "") {
		bad("TLS_CERT_FILE", "and %sTLS_KEY_FILE go together: set both", prefix)
	}
	if s.ACMEEmail == "" {
		if s.ACMECARootFile != "" {
			bad("ACME_CA_ROOT_FILE", "has no effect without %sACME_EMAIL: set it, or leave this out", prefix)
		}
		return
	}
	if a, err := mail.ParseAddress(s.ACMEEmail); err != nil || a.Address != s.ACMEEmail {
		bad("ACME_EMAIL", "is not an address: write name@example.com")
	}
	if s.TLSCertFile != "" {
		bad("ACME_EMAIL", "and %sTLS_CERT_FILE exclude each other: keep one", prefix)
	}
	if err := checkURL(s.ACMECA, "https"); err != nil {
		bad("ACME_CA", "%q is not a directory URL (%v): write https://host[:port]/path", s.ACMECA, err)
	}
	if u, err := url.Parse(s.PublicURL); err != nil || u.Scheme != "https" || u.Hostname() == "" || net.ParseIP(u.Hostname()) != nil {
		bad("ACME_EMAIL", "needs a name to get a certificate for: set %sPUBLIC_URL to https://host", prefix)
	}
}

func (s *Settings) checkNATS(bad func(name, format string, args ...any)) {
	for u := range strings.SplitSeq(s.NATSURL, ",") {
		if err := checkURL(strings.TrimSpace(u), "nats", "tls", "ws", "wss"); s.NATSURL != "" && err != nil {
			bad("NATS_URL", "%q is not a broker's URL (%v): write nats://host:port, and put credentials into %sNATS_CREDS_FILE", withoutUser(u), err, prefix)
		}
	}
	for _, f := range [...]struct{ name, path string }{
		{"NATS_CREDS_FILE", s.NATSCredsFile}, {"NATS_NKEY_FILE", s.NATSNKeyFile}, {"NATS_TLS_CA_FILE", s.NATSTLSCAFile},
		{"NATS_TLS_CERT_FILE", s.NATSTLSCertFile}, {"NATS_TLS_KEY_FILE", s.NATSTLSKeyFile},
	} {
		if f.path == "" {
			continue
		}
		if s.NATSURL == "" {
			bad(f.name, "has no effect on the embedded broker: set %sNATS_URL, or leave it out", prefix)
		}
		if file, err := os.Open(filepath.Clean(f.path)); err != nil {
			bad(f.name, "%v", err)
		} else {
			file.Close()
		}
	}
	if s.NATSCredsFile != "" && s.NATSNKeyFile != "" {
		bad("NATS_NKEY_FILE", "and %sNATS_CREDS_FILE exclude each other: keep one", prefix)
	}
	if (s.NATSTLSCertFile == "") != (s.NATSTLSKeyFile == "") {
		bad("NATS_TLS_CERT_FILE", "and %sNATS_TLS_KEY_FILE go together: set both", prefix)
	}
}

// checkURL says what is wrong with a base URL.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("it cannot be read")
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("it begins with none of %s", strings.Join(schemes, ", "))
	case u.Hostname() == "" || u.Port() != "" && !isPort(u.Port()):
		return errors.New("it has no usable host")
	case u.User != nil:
		return errors.New("it holds a user name")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("it has a query or fragment")
	}
	return nil
}

// withoutUser hides what may be a password from messages.
func withoutUser(s string) string {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			return scheme + "://" + redacted + rest[i:]
		}
	}
	return s
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Usage prints the table of variables.
func Usage(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "VARIABLE\tDEFAULT\tMEANING")
	t := reflect.TypeFor[Settings]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		def := tag.Get("default")
		if def == "" {
			def = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", tag.Get("envconfig"), def, tag.Get("desc"))
	}
	return tw.Flush()
}
