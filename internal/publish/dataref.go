package publish

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/triggerd/triggerd/internal/event"
)

const (
	maxInlineData = 64 << 10 // bytes of data above which a message body is kept in the object store
	chunkSize     = 128 << 10
	putTimeout    = 30 * time.Second
)

// errUnfit means that a row cannot be made into a message that the broker takes.
var errUnfit = errors.New("cannot be published")

// limits is what the broker takes, in bytes of headers and data.
type limits struct{ message int }

// prepare makes the message of an event and, where its data is too large for one, the complete data that has to be in
// the object store before: the message then lacks the body and carries a dataref instead.
func (o Options) prepare(e *event.Event, lim limits) (msg *nats.Msg, body []byte, err error) {
	if msg, err = o.encode(e, e.Data, ""); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUnfit, err)
	}
	if len(e.Data) <= maxInlineData && size(msg) <= lim.message {
		return msg, nil, nil
	}
	rest, cut, err := withoutMember(e.Data, "message", "body")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: event data is not JSON: %w", errUnfit, err)
	}
	if cut {
		body = e.Data
		if msg, err = o.encode(e, rest, dataref(o.Stream, e.ID)); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errUnfit, err)
		}
	}
	if n := size(msg); n > lim.message {
		return nil, nil, fmt.Errorf("%w: message of %d bytes is larger than the broker takes (%d): raise max_payload of nats-server or max_msg_size of the stream",
			errUnfit, n, lim.message)
	}
	return msg, body, nil
}

// dataref is where the complete data of an event lies.
func dataref(bucket, id string) string { return "nats-object://" + bucket + "/" + id }

// withoutMember copies JSON without the member at a path of names, and reports whether it was there.
func withoutMember(src jsontext.Value, path ...string) (out jsontext.Value, cut bool, err error) {
	if !src.IsValid() {
		return nil, false, errors.New("syntax error")
	}
	var buf bytes.Buffer
	enc := jsontext.NewEncoder(&buf)
	if cut, err = copyWithout(enc, src, path); err != nil {
		return nil, false, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), cut, nil
}

// copyWithout needs src to be valid.
func copyWithout(enc *jsontext.Encoder, src jsontext.Value, path []string) (cut bool, err error) {
	if src.Kind() != '{' {
		return false, enc.WriteValue(src)
	}
	dec := jsontext.NewDecoder(bytes.NewReader(src))
	if _, err := dec.ReadToken(); err != nil {
		return false, err
	}
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return false, err
	}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return false, err
		}
		name := token.String()
		v, err := dec.ReadValue()
		if err != nil {
			return false, err
		}
		if name == path[0] && len(path) == 1 {
			cut = true
			continue
		}
		if err := enc.WriteToken(jsontext.String(name)); err != nil {
			return false, err
		}
		if name != path[0] {
			err = enc.WriteValue(v)
		} else {
			var inside bool
			inside, err = copyWithout(enc, v, path[1:])
			cut = cut || inside
		}
		if err != nil {
			return false, err
		}
	}
	return cut, enc.WriteToken(jsontext.EndObject)
}

// putBody stores data under an event's id, unless it is there already, in a bucket named after the stream. The bucket
// is made when missing, and its objects live as long as the stream's messages.
func putBody(ctx context.Context, js jetstream.JetStream, stream jetstream.StreamConfig, id string, data []byte, lim limits) error {
	ctx, cancel := context.WithTimeoutCause(ctx, putTimeout, errors.New("storing a body took too long"))
	defer cancel()
	bucket, err := openBucket(ctx, js, stream)
	if err == nil && !holds(ctx, bucket, id, data) {
		meta := jetstream.ObjectMeta{Name: id, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(min(chunkSize, lim.message/2))}}
		_, err = bucket.Put(ctx, meta, bytes.NewReader(data))
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("object store %s: %w", stream.Name, cmp.Or(context.Cause(ctx), err))
}

func openBucket(ctx context.Context, js jetstream.JetStream, stream jetstream.StreamConfig) (jetstream.ObjectStore, error) {
	bucket, err := js.ObjectStore(ctx, stream.Name)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return bucket, err
	}
	bucket, err = js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: stream.Name, Description: "Bodies of events published by triggerd", TTL: stream.MaxAge,
		Storage: jetstream.FileStorage, Replicas: stream.Replicas,
	})
	if errors.Is(err, jetstream.ErrBucketExists) { // four of us may have tried
		return js.ObjectStore(ctx, stream.Name)
	}
	return bucket, err
}

// holds reports whether an object is there with the same content, so that nobody's reading is disturbed for nothing.
func holds(ctx context.Context, bucket jetstream.ObjectStore, id string, data []byte) bool {
	info, err := bucket.GetInfo(ctx, id)
	sum := sha256.Sum256(data)
	return err == nil && info.Digest == "SHA-256="+base64.URLEncoding.EncodeToString(sum[:])
}
