// Package config reads the process's settings from the environment and what to watch from one strict YAML file. It
// reports every mistake at once, each with its place and a remedy. It is a leaf.
package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"
)

const prefix = "TRIGGERD"

// Settings are the process's settings. Durations are written as Go does: 90s, 15m, 24h.
type Settings struct {
	Config          string `envconfig:"CONFIG" default:"/etc/triggerd/triggerd.yaml" desc:"watch file"`
	StateDir        string `envconfig:"STATE_DIR" desc:"directory of the database and the embedded broker; default $STATE_DIRECTORY, else /var/lib/triggerd"`
	Listen          string `envconfig:"LISTEN" default:":8080" desc:"address of the public listener: webhook routes only"`
	PublicURL       string `envconfig:"PUBLIC_URL" desc:"HTTPS base of the public listener as Graph sees it; empty: no push, polling only"`
	AdminListen     string `envconfig:"ADMIN_LISTEN" default:"127.0.0.1:8081" desc:"address of the status API and health checks; loopback only"`
	NATSURL         string `envconfig:"NATS_URL" desc:"broker; empty: an embedded one"`
	NATSListen      string `envconfig:"NATS_LISTEN" default:"127.0.0.1:4222" desc:"address of the embedded broker"`
	NATSCredsFile   string `envconfig:"NATS_CREDS_FILE" desc:"file with the broker's user credentials (.creds)"`
	NATSNKeyFile    string `envconfig:"NATS_NKEY_FILE" desc:"file with an NKey seed for the broker"`
	NATSTLSCAFile   string `envconfig:"NATS_TLS_CA_FILE" desc:"file with the CA certificates of the broker"`
	NATSTLSCertFile string `envconfig:"NATS_TLS_CERT_FILE" desc:"file with the client certificate for the broker"`
	NATSTLSKeyFile  string `envconfig:"NATS_TLS_KEY_FILE" desc:"file with the client key for the broker"`
	Stream          string `envconfig:"STREAM" default:"GRAPH" desc:"JetStream stream; created when missing, checked when present"`
	SubjectPrefix   string `envconfig:"SUBJECT_PREFIX" default:"graph" desc:"first token or tokens of every subject"`
	EventMode       string `envconfig:"EVENT_MODE" default:"binary" desc:"CloudEvents in NATS headers (binary) or as JSON (structured)"`

	PollInterval         time.Duration `envconfig:"POLL_INTERVAL" default:"1m" desc:"between rounds of a feed without push (duration)"`
	SweepInterval        time.Duration `envconfig:"SWEEP_INTERVAL" default:"15m" desc:"between rounds of a feed with healthy push (duration)"`
	TrueUpInterval       time.Duration `envconfig:"TRUEUP_INTERVAL" default:"24h" desc:"between full comparisons of a feed (duration)"`
	SubscriptionLifetime time.Duration `envconfig:"SUBSCRIPTION_LIFETIME" desc:"life asked for a subscription (duration); default Graph's maximum less a margin"`
	DeltaLag             time.Duration `envconfig:"DELTA_LAG" default:"30s" desc:"how long delta may lag behind a notification before the item is read directly (duration)"`
	AckHold              time.Duration `envconfig:"ACK_HOLD" default:"15m" desc:"how long a published event is held in case the stream goes back (duration)"`

	LogLevel  string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string `envconfig:"LOG_FORMAT" default:"auto" desc:"json, console, or auto: console on a terminal"`
}

// LoadSettings reads the environment. The error joins all mistakes, unknown TRIGGERD_ variables among them.
func LoadSettings() (Settings, error) {
	var s Settings
	problems := unknownVariables(os.Environ())
	if err := loadEach(&s); err != nil {
		problems = append(problems, err)
	}
	if s.StateDir == "" {
		s.StateDir = "/var/lib/triggerd"
		if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" { // systemd's
			s.StateDir = dir
		}
	}
	return s, errors.Join(append(problems, s.check()...)...)
}

// loadEach fills the settings. envconfig stops at the first value it cannot read, so that one is set aside and the rest
// read again until all mistakes are known.
func loadEach(s *Settings) error {
	var problems []error
	spared := map[string]string{}
	defer func() {
		for k, v := range spared {
			os.Setenv(k, v)
		}
	}()
	for {
		err := envconfig.Process(prefix, s)
		pe, ok := errors.AsType[*envconfig.ParseError](err)
		if !ok {
			return errors.Join(append(problems, err)...)
		}
		problems = append(problems, fmt.Errorf("%s: %q is not a %s", pe.KeyName, pe.Value, describeType(pe.TypeName)))
		spared[pe.KeyName] = os.Getenv(pe.KeyName)
		os.Unsetenv(pe.KeyName)
	}
}

func describeType(name string) string {
	if name == "time.Duration" {
		return "duration: write 90s, 15m or 24h"
	}
	return name
}

func variables() []string {
	t := reflect.TypeFor[Settings]()
	var out []string
	for i := range t.NumField() {
		out = append(out, prefix+"_"+t.Field(i).Tag.Get("envconfig"))
	}
	return out
}

// unknownVariables finds TRIGGERD_ variables that mean nothing: a misspelled one would be ignored in silence.
func unknownVariables(environ []string) (problems []error) {
	known := variables()
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, prefix+"_") && !slices.Contains(known, name) {
			problems = append(problems, fmt.Errorf("%s: unknown variable%s", name, didYouMean(name, known)))
		}
	}
	return problems
}

func (s *Settings) check() (problems []error) {
	bad := func(name, format string, args ...any) {
		problems = append(problems, fmt.Errorf(prefix+"_"+name+": "+format, args...))
	}
	for name, addr := range map[string]string{"LISTEN": s.Listen, "ADMIN_LISTEN": s.AdminListen, "NATS_LISTEN": s.NATSListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad(name, "%q is not an address: write host:port", addr)
		}
	}
	if host, _, err := net.SplitHostPort(s.AdminListen); err == nil && !isLoopback(host) {
		bad("ADMIN_LISTEN", "%q is reachable from outside, and the status API has no password: use 127.0.0.1", s.AdminListen)
	}
	if s.PublicURL != "" {
		if u, err := url.Parse(s.PublicURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			bad("PUBLIC_URL", "%q is not a base URL: write https://host[:port][/path]", s.PublicURL)
		}
	}
	for name, d := range map[string]time.Duration{"POLL_INTERVAL": s.PollInterval, "SWEEP_INTERVAL": s.SweepInterval, "TRUEUP_INTERVAL": s.TrueUpInterval, "DELTA_LAG": s.DeltaLag, "ACK_HOLD": s.AckHold} {
		if d < 100*time.Millisecond {
			bad(name, "%v is too short: at least 100ms", d)
		}
	}
	if s.SubscriptionLifetime < 0 || s.SubscriptionLifetime > mailMax {
		bad("SUBSCRIPTION_LIFETIME", "%v is outside what Graph grants: at most %v", s.SubscriptionLifetime, mailMax)
	}
	for name, v := range map[string]struct {
		value   string
		allowed []string
	}{
		"LOG_LEVEL":  {s.LogLevel, []string{"debug", "info", "warn", "error"}},
		"LOG_FORMAT": {s.LogFormat, []string{"auto", "json", "console"}},
		"EVENT_MODE": {s.EventMode, []string{"binary", "structured"}},
	} {
		if !slices.Contains(v.allowed, v.value) {
			bad(name, "%q is not one of %s", v.value, strings.Join(v.allowed, ", "))
		}
	}
	for _, token := range strings.Split(s.SubjectPrefix, ".") {
		if !isToken(token) {
			bad("SUBJECT_PREFIX", "%q is not a subject: tokens of letters, digits, - and _, joined by dots", s.SubjectPrefix)
			break
		}
	}
	if !isToken(s.Stream) {
		bad("STREAM", "%q is not a stream name: use letters, digits, - and _", s.Stream)
	}
	if (s.NATSTLSCertFile == "") != (s.NATSTLSKeyFile == "") {
		bad("NATS_TLS_CERT_FILE", "a certificate and %s_NATS_TLS_KEY_FILE go together", prefix)
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
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
		fmt.Fprintf(tw, "%s_%s\t%s\t%s\n", prefix, tag.Get("envconfig"), def, tag.Get("desc"))
	}
	return tw.Flush()
}

// Check compares the settings with the watch file, where each is right by itself.
func Check(s Settings, f *File) error {
	if u, err := url.Parse(s.PublicURL); err == nil && u.Scheme == "http" {
		for _, name := range slices.Sorted(maps.Keys(f.Connections)) {
			if c := f.Connections[name]; !c.Cloud.Custom {
				return fmt.Errorf("%s_PUBLIC_URL: connection %s is in cloud %s, which delivers over https only: put TLS in front and write https://", prefix, name, c.Cloud.Name)
			}
		}
	}
	if s.PublicURL == "" {
		for _, w := range f.Watches {
			if w.Content.String() == "reference" || w.Delivery == DeliveryPush {
				return fmt.Errorf("watch %s needs push, and %s_PUBLIC_URL is not set: set it, or choose another content or delivery", w.Name, prefix)
			}
		}
	}
	return nil
}
