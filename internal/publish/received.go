package publish

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"github.com/triggerd/triggerd/internal/event"
)

// Received is a message read back from the stream.
type Received struct {
	NATSSubject string
	StreamSeq   uint64
	StoredAt    time.Time // when the stream took it

	Event      event.Event
	Attributes map[string]string // all CloudEvents attributes by name, foreign ones too
	Data       []byte            // as received; Event.Data is the same where it is JSON
	Err        error             // why the message is not a CloudEvent that can be read; Event, Attributes are then empty
}

// errNotCloudEvent is the head of every decoding error.
var errNotCloudEvent = errors.New("not a CloudEvent")

// decode reads a message in either mode of the binding.
func decode(header nats.Header, body []byte) (r Received) {
	var err error
	if r.Attributes, r.Data, err = parts(header, body); err == nil {
		r.Event, err = toEvent(r.Attributes, r.Data)
	}
	if err != nil {
		return Received{Data: body, Err: fmt.Errorf("%w: %w", errNotCloudEvent, err)}
	}
	return r
}

func parts(header nats.Header, body []byte) (attrs map[string]string, data []byte, err error) {
	contentType := ""
	attrs = map[string]string{}
	for name, values := range header {
		lower := strings.ToLower(name)
		if lower == headerContentType && len(values) > 0 {
			contentType = strings.ToLower(strings.TrimSpace(values[0]))
		}
		if attr, ok := strings.CutPrefix(lower, headerPrefix); ok && len(values) > 0 {
			if attrs[attr], err = percentDecode(values[0]); err != nil {
				return nil, nil, fmt.Errorf("header %s: %w", lower, err)
			}
		}
	}
	if strings.HasPrefix(contentType, "application/cloudevents") {
		return document(body)
	}
	return attrs, body, nil
}

// document takes a structured message apart.
func document(body []byte) (attrs map[string]string, data []byte, err error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, nil, err
	}
	attrs = map[string]string{}
	for name, v := range members {
		switch {
		case name == "data":
			data = bytes.Clone(v)
		case name == "data_base64":
			if err := json.Unmarshal(v, &data); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
		case v.Kind() == '"':
			var s string
			if err := json.Unmarshal(v, &s); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			attrs[name] = s
		case v.Kind() == 'n': // the same as absent
		case v.Kind() == '{' || v.Kind() == '[':
			return nil, nil, fmt.Errorf("attribute %s is no simple value", name)
		default:
			attrs[name] = string(v)
		}
	}
	return attrs, data, nil
}

// toEvent is the inverse of attributes. Attributes of foreign producers that mean nothing to us are passed over.
func toEvent(attrs map[string]string, data []byte) (e event.Event, err error) {
	if v := attrs["specversion"]; v != "1.0" {
		return e, fmt.Errorf("specversion is %q, want 1.0", v)
	}
	for _, name := range []string{"id", "source", "type"} {
		if attrs[name] == "" {
			return e, fmt.Errorf("attribute %s is missing", name)
		}
	}
	e = event.Event{ID: attrs["id"], Source: attrs["source"], Subject: attrs["subject"], Watch: attrs["watch"],
		Via: event.Via(attrs["via"]), Epoch: attrs["epoch"], ReplayOf: attrs["replayof"]}
	if t, ok := strings.CutPrefix(attrs["type"], "io.triggerd."); ok {
		if t, ok = strings.CutSuffix(t, ".v1"); ok {
			e.Area, e.Name, _ = strings.Cut(t, ".")
		}
	}
	e.Mailbox, _ = strings.CutPrefix(attrs["partitionkey"], e.Watch+".")
	if v := attrs["time"]; v != "" {
		if e.Time, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return event.Event{}, fmt.Errorf("attribute time: %q is no RFC 3339 time", v)
		}
	}
	e.RecordedTime, _ = time.Parse(time.RFC3339Nano, attrs["recordedtime"])
	e.Sequence, _ = strconv.ParseUint(attrs["sequence"], 10, 64)
	if jsontext.Value(data).IsValid() {
		e.Data = data
	}
	return e, nil
}

// percentDecode reads a header value: quoted strings first, for older producers, then one round of percent-decoding.
func percentDecode(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		var b strings.Builder
		for i := 1; i < len(s)-1; i++ {
			if s[i] == '\\' && i < len(s)-2 {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	s, err := url.PathUnescape(s)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(s) {
		return "", errors.New("not UTF-8")
	}
	return s, nil
}
