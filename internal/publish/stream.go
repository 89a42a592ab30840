package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/store"
)

// streamMaxAge is how long a stream made by us keeps events.
const streamMaxAge = 7 * 24 * time.Hour

// Error codes of JetStream that nats.go has no name for.
// Source: nats-server 2.15.2, server/errors.json.
const (
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeStorageExceeded       jetstream.ErrorCode = 10047
	codeStreamNotMatch        jetstream.ErrorCode = 10060
	codeSubjectOverlap        jetstream.ErrorCode = 10065
	codeStoreFailed           jetstream.ErrorCode = 10077 // discard new and full
)

// openStream finds the stream or makes it. An existing one is checked and never changed; what is wrong with it is
// returned as an error that names the remedy, what is merely surprising as warnings.
func openStream(ctx context.Context, js jetstream.JetStream, o Options) (s jetstream.Stream, created bool, warnings []string, err error) {
	s, err = js.Stream(ctx, o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = js.CreateStream(ctx, o.streamConfig())
		created = err == nil
	}
	if err != nil {
		return nil, false, nil, o.explainStream(err)
	}
	problems, warnings := o.checkStream(&s.CachedInfo().Config)
	if len(problems) > 0 {
		return nil, created, warnings, errors.New(strings.Join(problems, "; "))
	}
	return s, created, warnings, nil
}

func (o Options) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        o.Stream,
		Description: "Events published by triggerd",
		Subjects:    []string{o.SubjectPrefix + ".>"},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew, // a full stream is an error that can be healed, not a loss
		Duplicates:  o.duplicateWindow(),
		MaxAge:      streamMaxAge,
		AllowDirect: true,
	}
}

// checkStream holds a stream against what publishing without loss needs.
func (o Options) checkStream(c *jetstream.StreamConfig) (problems, warnings []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }

	if !coversAll(c.Subjects, o.SubjectPrefix+".*.*.*.*") {
		problem("stream %s does not take the subjects %s.> (it takes %s): add them with `nats stream edit %s --subjects`, or set TRIGGERD_STREAM or TRIGGERD_SUBJECT_PREFIX",
			c.Name, o.SubjectPrefix, strings.Join(c.Subjects, ", "), c.Name)
	}
	if c.Storage != jetstream.FileStorage {
		problem("stream %s keeps its messages in memory: make it anew with file storage", c.Name)
	}
	if c.Duplicates <= o.AckHold {
		problem("stream %s recognizes duplicates for %v, which is not longer than events are held (%v): set `nats stream edit %s --dupe-window=%v`",
			c.Name, c.Duplicates, o.AckHold, c.Name, o.duplicateWindow())
	}
	if c.PersistMode == jetstream.AsyncPersistMode {
		problem("stream %s acknowledges messages before it has written them (persist_mode async): make it anew with the default persist mode", c.Name)
	}
	if c.NoAck {
		problem("stream %s does not acknowledge (no_ack): turn acknowledgement on", c.Name)
	}
	if c.Sealed {
		problem("stream %s is sealed: make another and set TRIGGERD_STREAM", c.Name)
	}
	if c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxMsgsPerSubject > 0) {
		warn("stream %s discards old events silently when it reaches its size limits, read or not: consider `nats stream edit %s --discard=new`", c.Name, c.Name)
	}
	if c.Retention != jetstream.LimitsPolicy {
		warn("stream %s has retention %s: events that no consumer asks for are not kept", c.Name, strings.ToLower(c.Retention.String()))
	}
	if c.SubjectTransform != nil {
		warn("stream %s transforms subjects: consumers see others than documented", c.Name)
	}
	return problems, warnings
}

// coversAll reports whether one of the patterns matches every subject that subject, with wildcards, stands for.
func coversAll(patterns []string, subject string) bool {
	for _, p := range patterns {
		if covers(strings.Split(p, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return false
}

func covers(pattern, subject []string) bool {
	for i, p := range pattern {
		switch {
		case i >= len(subject):
			return false
		case p == ">":
			return true
		case p == "*":
			if subject[i] == ">" {
				return false
			}
		case p != subject[i]:
			return false
		}
	}
	return len(pattern) == len(subject)
}

// explainStream says what an error of the stream's API means and what to do about it.
func (o Options) explainStream(err error) error {
	api, _ := errors.AsType[*jetstream.APIError](err)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%s: start nats-server with JetStream (`jetstream {}` in its configuration) and enable it for this account", oneLine(err))
	case api != nil && api.ErrorCode == codeSubjectOverlap:
		return fmt.Errorf("stream %s cannot be made, because another stream takes subjects under %s.>: name that one in TRIGGERD_STREAM, or set TRIGGERD_SUBJECT_PREFIX",
			o.Stream, o.SubjectPrefix)
	case api != nil && (api.ErrorCode == codeInsufficientResources || api.ErrorCode == codeStorageExceeded):
		return fmt.Errorf("stream %s cannot be made (%s): give the account more storage", o.Stream, oneLine(err))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer about stream %s: look whether JetStream works and this user may publish to $JS.API.>", o.Stream)
	}
	return fmt.Errorf("stream %s: %s", o.Stream, oneLine(err))
}

// lost compares a stream with the last ack that is held, and says above which stream sequence nothing of what was
// acknowledged is there any more. created is when the stream was made as seen before in this run, zero at first.
func lost(ctx context.Context, s jetstream.Stream, last store.Ack, created time.Time) (after uint64, gone bool, reason string, err error) {
	info := s.CachedInfo()
	switch {
	case !created.IsZero() && !info.Created.Equal(created), info.Created.After(last.At):
		return 0, true, "stream was made anew", nil
	case info.State.LastSeq < last.StreamSeq:
		return info.State.LastSeq, true, "stream has gone back", nil
	case last.StreamSeq < info.State.FirstSeq:
		return 0, false, "", nil // read and removed, or too old
	}
	msg, err := s.GetMsg(ctx, last.StreamSeq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, false, "", nil // removed one by one, as a work queue does
	case err != nil:
		return 0, false, "", fmt.Errorf("the last event acknowledged cannot be looked at (%s): this user needs $JS.API.DIRECT.GET.> or $JS.API.STREAM.MSG.GET.>", oneLine(err))
	case msg.Header.Get(nats.MsgIdHdr) != last.ID:
		return 0, true, "stream holds another message where the last event was", nil
	}
	return 0, false, "", nil
}

// reaction is what a failed publish asks for. Whatever it is, the event may have been stored.
type reaction int

const (
	retry     reaction = iota // the same again after a pause
	reconnect                 // the connection is gone: again, once there is one and the stream was compared
	recheck                   // the stream is not what it was: look at it first
	giveUp                    // the broker will never take this one: quarantine it, let the others pass
)

func reactTo(err error) reaction {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamMessageExceedsMaximum:
			return giveUp
		case codeStreamNotMatch, jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return recheck
		}
		return retry
	}
	switch {
	case errors.Is(err, errUnfit), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return giveUp
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrInvalidJSAck):
		return recheck
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionReconnecting):
		return reconnect
	}
	return retry
}

// wedgedAfter is how long a connected broker may leave every publish without answer before we say what that means.
const wedgedAfter = 30 * time.Second

// explainPublish says what a failed publish means for an operator. silent is how long nothing was answered.
func (o Options) explainPublish(err error, silent time.Duration) string {
	api, _ := errors.AsType[*jetstream.APIError](err)
	switch {
	case api != nil && api.ErrorCode == codeStoreFailed:
		return fmt.Sprintf("stream %s is full (%s): raise its limits or purge it; events wait in the outbox", o.Stream, api.Description)
	case api != nil && api.ErrorCode == codeInsufficientResources:
		return fmt.Sprintf("JetStream has no storage left for this account (%s): free some or raise the limit; events wait in the outbox", api.Description)
	case api != nil && api.ErrorCode == codeStreamNotMatch:
		return fmt.Sprintf("subjects under %s.> go to another stream than %s", o.SubjectPrefix, o.Stream)
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Sprintf("this NATS user may not publish to %s.>: %s", o.SubjectPrefix, oneLine(err))
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout) && silent >= wedgedAfter:
		return fmt.Sprintf("connected, but no publish was answered for %v: a JetStream whose disk was full stays like that until its restart; free disk space, then restart nats-server",
			silent.Round(time.Second))
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return fmt.Sprintf("no PubAck within %v", o.PublishTimeout)
	}
	return oneLine(err)
}
