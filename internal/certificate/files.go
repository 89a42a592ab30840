package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// lookEvery is how often the files are read. Contents are compared, not times: links and mounted secrets change what is
// behind a name without touching what it says.
const lookEvery = 10 * time.Second

// Files is a certificate and its key in two PEM files. Safe for concurrent use.
type Files struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu     sync.RWMutex
	cert   *tls.Certificate
	err    error // of the last look
	failed int   // looks in a row that ended with an error
}

// NewFiles reads a pair, which must fit together. One that has ended is taken, since there is no better one.
func NewFiles(certFile, keyFile string, log zerolog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	cert, err := f.read()
	if err != nil {
		return nil, err
	}
	f.cert = cert
	return f, nil
}

func (f *Files) read() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.certFile, f.keyFile, err)
	}
	return &cert, nil
}

// TLS is a server's configuration with the certificate in use.
func (f *Files) TLS() *tls.Config {
	return serverConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		f.mu.RLock()
		defer f.mu.RUnlock()
		return f.cert, nil
	})
}

// Run reads the files again and again until ctx is done.
func (f *Files) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.look(time.Now())
		}
	}
}

// look takes up what the files hold now, if it can be used.
func (f *Files) look(now time.Time) {
	cert, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	same := err == nil && slices.EqualFunc(cert.Certificate, f.cert.Certificate, bytes.Equal)
	if err == nil && !same && valid(f.cert, now) && !valid(cert, now) {
		err = fmt.Errorf("certificate %s is valid from %s until %s, which is not now", f.certFile, date(cert.Leaf.NotBefore), date(cert.Leaf.NotAfter))
	}
	f.note(err)
	if err != nil || same {
		return
	}
	f.cert = cert
	f.log.Info().Time("not_after", cert.Leaf.NotAfter).Msg("certificate files have changed; the new certificate is in use")
}

// note keeps the outcome of a look. The first failure is not news: two files cannot be replaced at once.
func (f *Files) note(err error) {
	f.err = err
	if err == nil {
		f.failed = 0
		return
	}
	if f.failed++; f.failed == 2 {
		f.log.Warn().Err(err).Msg("certificate files cannot be used; the certificate before stays in use")
	}
}

// Status tells which certificate is in use, and what is wrong with the files if anything.
func (f *Files) Status() Status {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := Status{Source: SourceFiles, NotBefore: f.cert.Leaf.NotBefore, NotAfter: f.cert.Leaf.NotAfter}
	if f.failed > 1 {
		s.Error = f.err.Error()
	}
	return s
}

func valid(c *tls.Certificate, now time.Time) bool {
	return !now.Before(c.Leaf.NotBefore) && !now.After(c.Leaf.NotAfter)
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
