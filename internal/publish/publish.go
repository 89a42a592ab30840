// Package publish carries events from the outbox to a JetStream stream, at least once and in order, and is the only door
// to nats.go and nats-server.
//
// An event leaves the outbox in three steps: published under its id as Nats-Msg-Id, acknowledged (the PubAck is written
// to the outbox), and released once it was held for a while. A PubAck says that the broker has the event in memory and
// page cache, not that it is on disk; so whenever the connection is new, the stream is compared with what is held, and
// what it lost is published again. Every error of a publish is ambiguous: the same message is sent again until the
// broker answers for it, and the stream's duplicate window, longer than the hold, keeps the copies out.
package publish

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Defaults of Options.
const (
	DefaultStream        = "GRAPH"
	DefaultSubjectPrefix = "graph"
	DefaultAckHold       = 15 * time.Minute
	DefaultMaxInFlight   = 256
	DefaultMaxBytes      = 32 << 20
)

const (
	defaultPublishTimeout = 5 * time.Second
	maxAckHold            = 24 * time.Hour
)

// Outbox holds the events to publish; *store.Store has it. Its methods are called from several goroutines.
type Outbox interface {
	// Outbox reads events that are not acknowledged, above after, ascending, about maxBytes of them. A row that cannot be
	// read has Err set.
	Outbox(after uint64, maxBytes int) ([]store.OutboxRow, error)
	// OutboxChanged receives a value after there is more to publish.
	OutboxChanged() <-chan struct{}
	// Acknowledge records PubAcks. It may be called twice for the same row.
	Acknowledge([]store.Ack) error
	// ReleaseHeld forgets up to limit rows acknowledged before a time.
	ReleaseHeld(before time.Time, limit int) (int, error)
	// LastHeld is the held ack with the highest stream sequence.
	LastHeld() (store.Ack, bool, error)
	// Unacknowledge takes back the acks above a stream sequence.
	Unacknowledge(streamSeqAfter uint64) (int, error)
	// QuarantineOutbox parks a row that the broker will never take.
	QuarantineOutbox(seq uint64, reason string, at time.Time) error
}

// Options say where and how to publish. The zero value of each but URL and InProcess means its default.
type Options struct {
	URL         string    // of the broker, or several with commas between
	InProcess   *Embedded // when set, connects to it without a socket and URL is not used
	CredsFile   string    // JWT and seed
	NKeyFile    string    // seed alone
	TLSCAFile   string    // PEM; with it, nothing is ever sent in plain text
	TLSCertFile string    // PEM, together with TLSKeyFile
	TLSKeyFile  string

	Stream        string // DefaultStream
	SubjectPrefix string // DefaultSubjectPrefix
	Structured    bool   // CloudEvents as one JSON document instead of headers and data

	AckHold        time.Duration // from PubAck to release, DefaultAckHold
	MaxInFlight    int           // publishes without answer, DefaultMaxInFlight
	MaxBytes       int           // of outbox rows in memory, DefaultMaxBytes
	PublishTimeout time.Duration // from sending to giving up on the PubAck, 5 s

	// OnPublished is told of every PubAck. It is called from one goroutine, must not block, and must not keep e.
	OnPublished func(e *event.Event, at time.Time)
	Log         zerolog.Logger
}

func (o Options) withDefaults() Options {
	if o.Stream == "" {
		o.Stream = DefaultStream
	}
	if o.SubjectPrefix == "" {
		o.SubjectPrefix = DefaultSubjectPrefix
	}
	if o.AckHold == 0 {
		o.AckHold = DefaultAckHold
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.PublishTimeout == 0 {
		o.PublishTimeout = defaultPublishTimeout
	}
	return o
}

var (
	streamName    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`) // what is also a name of an object store bucket
	subjectTokens = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

// validate reports every mistake that can be seen without a broker.
func (o Options) validate() error {
	var errs []error
	if !streamName.MatchString(o.Stream) {
		errs = append(errs, fmt.Errorf("stream %q: a name consists of letters, digits, - and _", o.Stream))
	}
	if !subjectTokens.MatchString(o.SubjectPrefix) {
		errs = append(errs, fmt.Errorf("subject prefix %q: want letters, digits, - and _, with dots between tokens", o.SubjectPrefix))
	}
	if o.AckHold < 0 || o.AckHold > maxAckHold {
		errs = append(errs, fmt.Errorf("ack hold %v: want more than 0 and at most %v", o.AckHold, maxAckHold))
	}
	if o.MaxInFlight < 0 || o.MaxBytes < 0 || o.PublishTimeout < 0 {
		errs = append(errs, errors.New("limits and time-outs cannot be negative"))
	}
	_, err := o.connectOptions()
	return errors.Join(append(errs, err)...)
}

// duplicateWindow is how long a stream made by us recognizes an event it has.
func (o Options) duplicateWindow() time.Duration {
	return max(o.AckHold+5*time.Minute, 20*time.Minute)
}

// Status is how publishing goes.
type Status struct {
	Connected       bool
	Server          string    // URL of the server we are connected to, without credentials
	Stream          string    // "ok", or what is wrong with the stream and the remedy
	Warnings        []string  // about the stream, where it works but may surprise
	InFlight        int       // published, not answered
	LastPublishedAt time.Time // last PubAck
	LastError       string    // why the last attempt did not work; empty again once one did
	LastErrorAt     time.Time
	Blocked         string // why nothing is being published at the moment; empty while events can flow
}

// Publisher publishes the outbox.
type Publisher struct {
	outbox Outbox
	opts   Options
	conn   []nats.Option
	log    zerolog.Logger

	mu     sync.Mutex // guards status
	status Status
}

// New checks the options; NATS need not be reachable.
func New(outbox Outbox, o Options) (*Publisher, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	conn, err := o.connectOptions()
	if err != nil {
		return nil, err
	}
	return &Publisher{outbox: outbox, opts: o, conn: conn, log: o.Log,
		status: Status{Stream: "not checked yet", Blocked: "not connected to NATS yet"}}, nil
}

// Status tells how publishing goes. It is safe for concurrent use.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Warnings = append([]string(nil), s.Warnings...)
	return s
}

func (p *Publisher) update(fn func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.status)
}

func (p *Publisher) noteError(text string) {
	p.update(func(s *Status) { s.LastError, s.LastErrorAt = text, time.Now().UTC() })
}

// sleep waits, and reports whether it was not cut short by ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// oneLine makes what a broker says fit a status line.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "nats: ")), " ")
}
