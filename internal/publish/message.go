package publish

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"github.com/triggerd/triggerd/internal/event"
)

// Names of the CloudEvents NATS binding: every attribute is a header with a prefix, and Content-Type tells structured
// messages from binary ones.
// Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md (1.0.3-wip; 1.0.2
// knows structured mode only).
const (
	headerPrefix      = "ce-"
	headerContentType = "content-type"
	typeJSON          = "application/json"
	typeStructured    = "application/cloudevents+json"
)

// attributes gives the CloudEvents attributes of an event, without those that are empty, which CloudEvents forbids.
func attributes(e *event.Event, dataref string, yield func(name, value string)) {
	give := func(name, value string) {
		if value != "" {
			yield(name, value)
		}
	}
	give("specversion", "1.0")
	give("id", e.ID)
	give("type", e.Type())
	give("source", e.Source)
	give("subject", e.Subject)
	give("time", timestamp(e.Time))
	give("datacontenttype", typeJSON)
	give("dataschema", e.DataSchema())
	if e.Sequence > 0 {
		give("sequence", fmt.Sprintf("%020d", e.Sequence))
	}
	give("epoch", e.Epoch)
	give("recordedtime", timestamp(e.RecordedTime))
	give("partitionkey", e.PartitionKey())
	give("traceparent", e.TraceParent())
	give("watch", e.Watch)
	give("via", string(e.Via))
	give("replayof", e.ReplayOf)
	give("dataref", dataref)
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// encode makes the message that carries an event with the data given, which may be less than all of the event's.
func (o Options) encode(e *event.Event, data jsontext.Value, dataref string) (*nats.Msg, error) {
	m := &nats.Msg{Subject: e.NATSSubject(o.SubjectPrefix), Header: make(nats.Header, 24)}
	m.Header[nats.MsgIdHdr] = []string{e.ID}
	m.Header[nats.ExpectedStreamHdr] = []string{o.Stream}
	if o.Structured {
		m.Header[headerContentType] = []string{typeStructured}
		var err error
		m.Data, err = structured(e, data, dataref)
		return m, err
	}
	m.Header[headerContentType] = []string{typeJSON}
	values := make([]string, 0, 20) // one array for all, since each header is a slice
	attributes(e, dataref, func(name, value string) {
		values = append(values, percentEncode(value))
		m.Header[headerPrefix+name] = values[len(values)-1 : len(values) : len(values)]
	})
	m.Data = data
	return m, nil
}

func structured(e *event.Event, data jsontext.Value, dataref string) ([]byte, error) {
	var buf bytes.Buffer
	enc := jsontext.NewEncoder(&buf, jsontext.AllowInvalidUTF8(true))
	err := enc.WriteToken(jsontext.BeginObject)
	write := func(t jsontext.Token) {
		if err == nil {
			err = enc.WriteToken(t)
		}
	}
	attributes(e, dataref, func(name, value string) {
		write(jsontext.String(name))
		write(jsontext.String(value))
	})
	if len(data) > 0 && err == nil {
		write(jsontext.String("data"))
		err = enc.WriteValue(data)
	}
	write(jsontext.EndObject)
	if err != nil {
		return nil, fmt.Errorf("event data is not JSON: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// size is what the broker counts against its limits: headers as they are sent, and data.
func size(m *nats.Msg) int {
	n := len("NATS/1.0\r\n\r\n") + len(m.Data)
	for name, values := range m.Header {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}

const upperHex = "0123456789ABCDEF"

func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

// percentEncode writes a header value as the binding wants it: space, double quote, percent and all that is not
// printable ASCII as %XX of its UTF-8 bytes.
func percentEncode(s string) string {
	clean := true
	for i := range len(s) {
		clean = clean && plain(s[i])
	}
	if clean {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return b.String()
}
