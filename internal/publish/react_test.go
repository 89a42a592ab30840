package publish

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestCheckStream(t *testing.T) {
	o := Options{}.withDefaults()
	for name, c := range map[string]struct {
		change           func(*jetstream.StreamConfig)
		problem, warning string
	}{
		"as made by us":            {func(*jetstream.StreamConfig) {}, "", ""},
		"everything":               {func(c *jetstream.StreamConfig) { c.Subjects = []string{">"} }, "", ""},
		"five tokens":              {func(c *jetstream.StreamConfig) { c.Subjects = []string{"x", "graph.*.*.*.*"} }, "", ""},
		"one watch only":           {func(c *jetstream.StreamConfig) { c.Subjects = []string{"graph.sales.>"} }, "does not take", ""},
		"a mirror":                 {func(c *jetstream.StreamConfig) { c.Subjects = nil }, "does not take", ""},
		"window as long as hold":   {func(c *jetstream.StreamConfig) { c.Duplicates = o.AckHold }, "not longer", ""},
		"window longer than hold":  {func(c *jetstream.StreamConfig) { c.Duplicates = o.AckHold + 1 }, "", ""},
		"sealed":                   {func(c *jetstream.StreamConfig) { c.Sealed = true }, "sealed", ""},
		"discard old, no limit":    {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, "", ""},
		"discard old by bytes":     {func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardOld, 1 }, "", "discards old events silently"},
		"discard old by messages":  {func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 1 }, "", "discards old events silently"},
		"discard old by subject":   {func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgsPerSubject = jetstream.DiscardOld, 1 }, "", "discards old events silently"},
		"discard new with a limit": {func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 }, "", ""},
		"a work queue":             {func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, "", "retention workqueue"},
		"transformed subjects":     {func(c *jetstream.StreamConfig) { c.SubjectTransform = &jetstream.SubjectTransformConfig{} }, "", "transforms"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good(c.change)
			problems, warnings := o.checkStream(&config)
			for kind, x := range map[string]struct {
				got  []string
				want string
			}{"problem": {problems, c.problem}, "warning": {warnings, c.warning}} {
				if x.want == "" && len(x.got) > 0 || x.want != "" && (len(x.got) != 1 || !strings.Contains(x.got[0], x.want)) {
					t.Errorf("%s %q, want %q", kind, x.got, x.want)
				}
			}
		})
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"graph.>", "graph.*.*.*.*", true}, {">", "graph.*.*", true}, {"*.>", "graph.*", true}, {"graph.*.*", "graph.*.*", true},
		{"graph.*", "graph.*.*", false}, {"graph.*.*.*", "graph.*.*", false}, {"graph.a.>", "graph.*.*", false}, {"graph", "graph.*", false},
		{"graph.*", "graph.>", false}, {"graph.>", "graph", false}, {"other.>", "graph.*", false},
	} {
		if got := covers(strings.Split(c.pattern, "."), strings.Split(c.subject, ".")); got != c.want {
			t.Errorf("covers(%s, %s) = %v, want %v", c.pattern, c.subject, got, c.want)
		}
	}
}

func TestReactTo(t *testing.T) {
	api := func(code jetstream.ErrorCode) error {
		return fmt.Errorf("nats: %w", &jetstream.APIError{Code: 503, ErrorCode: code, Description: "d"})
	}
	for _, c := range []struct {
		err  error
		want reaction
	}{
		{api(10077), retry}, {api(10023), retry}, {api(10111), retry}, {jetstream.ErrAsyncPublishTimeout, retry}, {errors.New("?"), retry},
		{api(10054), giveUp}, {nats.ErrMaxPayload, giveUp}, {nats.ErrBadSubject, giveUp}, {fmt.Errorf("%w: x", errUnfit), giveUp},
		{api(10060), recheck}, {api(10059), recheck}, {api(10039), recheck}, {jetstream.ErrNoStreamResponse, recheck},
		{nats.ErrDisconnected, reconnect}, {nats.ErrReconnectBufExceeded, reconnect}, {nats.ErrConnectionClosed, reconnect},
	} {
		if got := reactTo(c.err); got != c.want {
			t.Errorf("reactTo(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestExplainPublish(t *testing.T) {
	o := Options{}.withDefaults()
	for _, c := range []struct {
		err    error
		silent time.Duration
		want   string
	}{
		{&jetstream.APIError{ErrorCode: 10077, Description: "maximum bytes exceeded"}, 0, "stream GRAPH is full (maximum bytes exceeded)"},
		{&jetstream.APIError{ErrorCode: 10023, Description: "insufficient resources"}, 0, "no storage left"},
		{&jetstream.APIError{ErrorCode: 10060}, 0, "go to another stream than GRAPH"},
		{jetstream.ErrAsyncPublishTimeout, 5 * time.Second, "no PubAck within 5s"},
		{jetstream.ErrAsyncPublishTimeout, 31 * time.Second, "no publish was answered for 31s"},
		{jetstream.ErrAsyncPublishTimeout, time.Hour, "then restart nats-server"},
		{fmt.Errorf("%w: Permissions Violation", nats.ErrPermissionViolation), 0, "may not publish to graph.>"},
		{errors.New("nats: something  \n else"), 0, "something else"},
	} {
		if got := o.explainPublish(c.err, c.silent); !strings.Contains(got, c.want) {
			t.Errorf("explainPublish(%v, %v) = %q, want %q in it", c.err, c.silent, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		n        int
		from, to time.Duration
	}{{0, 50, 100}, {1, 50, 100}, {2, 100, 200}, {4, 400, 800}, {8, 500, 1000}, {1000, 500, 1000}} {
		for _, r := range []float64{0, 0.5, 0.999} {
			if got := backoff(c.n, 100, 1000, r); got < c.from || got > c.to {
				t.Errorf("backoff(%d, r=%v) = %d, want %d..%d", c.n, r, got, c.from, c.to)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for err, want := range map[error]bool{
		nats.ErrAuthorization: true, nats.ErrAuthExpired: true, nats.ErrAuthRevoked: true, nats.ErrPermissionViolation: true,
		errors.New("nats: Authorization Violation"): true, nats.ErrTimeout: false, nats.ErrNoServers: false, nil: false,
	} {
		if got := refused(err); got != want {
			t.Errorf("refused(%v) = %v, want %v", err, got, want)
		}
	}
}
