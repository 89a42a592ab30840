package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Probe connects to the broker once and looks at the stream, changing nothing. It says in words how the stream is; an
// error names what is wrong and the remedy.
func Probe(ctx context.Context, o Options) (string, error) {
	opts, err := o.connectOptions()
	if err != nil {
		return "", err
	}
	nc, err := nats.Connect(o.URL, append(opts, nats.MaxReconnects(0), nats.RetryOnFailedConnect(false))...)
	if err != nil {
		return "", fmt.Errorf("%s: start NATS there, or compare TRIGGERD_NATS_URL and the credentials", oneLine(err))
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return "", err
	}
	s, err := js.Stream(ctx, o.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return "stream " + o.Stream + " is not there yet: `triggerd run` makes it", nil
	case err != nil:
		return "", o.explainStream(err)
	}
	conf := s.CachedInfo().Config
	if problems, _ := o.checkStream(&conf); len(problems) > 0 {
		return "", errors.New(strings.Join(problems, "; "))
	}
	return "stream " + o.Stream + " is as it should be", nil
}
