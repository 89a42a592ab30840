package publish

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

const (
	connectTimeout = 2 * time.Second
	pingInterval   = 20 * time.Second // two without answer end a half-open connection
	inboxPrefix    = "_INBOX_triggerd"

	reconnectBase = 100 * time.Millisecond
	reconnectMax  = 2 * time.Second
	refusedWait   = 30 * time.Second // after refused credentials, which no haste heals
)

// connectOptions turns the broker's part of o into nats.go's options, and reports what can be seen to be wrong.
func (o Options) connectOptions() ([]nats.Option, error) {
	opts := []nats.Option{nats.Name("triggerd"), nats.CustomInboxPrefix(inboxPrefix), nats.Timeout(connectTimeout),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		// Without the buffer a publish without connection fails at once, instead of being sent much later although its
		// caller saw an error.
		nats.ReconnectBufSize(-1)}
	if o.InProcess != nil {
		return append(opts, nats.InProcessServer(o.InProcess.server)), nil
	}
	var errs []error
	errs = append(errs, checkURL(o.URL))
	if o.CredsFile != "" {
		errs = append(errs, checkCreds(o.CredsFile))
		opts = append(opts, nats.UserCredentials(o.CredsFile))
	}
	if o.NKeyFile != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("NATS nkey file %s: %w", o.NKeyFile, err))
		} else {
			opts = append(opts, opt)
		}
	}
	if o.CredsFile != "" && o.NKeyFile != "" {
		errs = append(errs, errors.New("NATS credentials: give a creds file or an nkey file, not both"))
	}
	if o.TLSCAFile != "" {
		opts = append(opts, nats.RootCAs(o.TLSCAFile))
	}
	switch {
	case (o.TLSCertFile == "") != (o.TLSKeyFile == ""):
		errs = append(errs, errors.New("NATS client certificate: give both the certificate file and the key file"))
	case o.TLSCertFile != "":
		if _, err := tls.LoadX509KeyPair(o.TLSCertFile, o.TLSKeyFile); err != nil {
			errs = append(errs, fmt.Errorf("NATS client certificate: %w", err))
		}
		opts = append(opts, nats.ClientCert(o.TLSCertFile, o.TLSKeyFile))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return opts, tryOptions(opts)
}

// tryOptions applies options the way Connect would, so that a broken file is refused at the start.
func tryOptions(opts []nats.Option) error {
	var trial nats.Options
	for _, opt := range opts {
		if err := opt(&trial); err != nil {
			return fmt.Errorf("NATS options: %s", oneLine(err))
		}
	}
	return nil
}

// checkURL never repeats the URL, which may hold a password.
func checkURL(list string) error {
	if strings.TrimSpace(list) == "" {
		return errors.New("NATS URL is missing")
	}
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return errors.New("NATS URL is not valid: want nats://host:4222, tls://…, ws://… or wss://…, several with commas between")
		}
	}
	return nil
}

func checkCreds(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("NATS creds file: %w", err)
	}
	if _, err := nkeys.ParseDecoratedJWT(raw); err != nil {
		return fmt.Errorf("NATS creds file %s: %w", file, err)
	}
	kp, err := nkeys.ParseDecoratedNKey(raw)
	if err != nil {
		return fmt.Errorf("NATS creds file %s: %w", file, err)
	}
	kp.Wipe()
	return nil
}

// refused reports whether the broker does not want us, as opposed to not being there.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) ||
		errors.Is(err, nats.ErrAccountAuthExpired) || errors.Is(err, nats.ErrPermissionViolation) ||
		err != nil && strings.Contains(strings.ToLower(err.Error()), "authorization violation")
}

// reconnectDelay is how long to wait before the next round over all servers.
func reconnectDelay(nc *atomic.Pointer[nats.Conn]) nats.ReconnectDelayHandler {
	return func(attempts int) time.Duration {
		if c := nc.Load(); c != nil && refused(c.LastError()) {
			return jitter(refusedWait, rand.Float64()) + refusedWait/2
		}
		return backoff(attempts, reconnectBase, reconnectMax, rand.Float64())
	}
}

// backoff is the wait after the n-th failure in a row, n from 1: doubling from base to limit, the upper half of it random
// by r in [0, 1).
func backoff(n int, base, limit time.Duration, r float64) time.Duration {
	d := limit
	if n = max(n, 1); n < 30 {
		d = min(base<<(n-1), limit)
	}
	return jitter(d, r)
}

func jitter(d time.Duration, r float64) time.Duration {
	return d/2 + time.Duration(r*float64(d/2))
}
