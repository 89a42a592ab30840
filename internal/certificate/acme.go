package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
	"go.uber.org/zap"
)

// tryAgain is how long nothing is tried after certmagic has given up: it has tried for a month, or cannot use its files.
const tryAgain = time.Hour

// ACMEOptions are what a certificate is asked for with. All but CA, Roots and RenewEvery are required.
type ACMEOptions struct {
	Host       string         // for which the certificate is
	Email      string         // of the account; never in a log or an error
	CA         string         // directory of the authority; empty: Let's Encrypt
	Roots      *x509.CertPool // that the directory's own certificate leads to; nil: the system's
	Dir        string         // for the account, the certificate and their keys
	Listen     *net.TCPAddr   // of the listener that serves TLS, where the authority is answered
	RenewEvery time.Duration  // between looks whether a renewal is due; default 10 min
	Log        zerolog.Logger
}

// ACME is a certificate that an authority issues and renews, because whoever holds the host's port 443 answers it
// (TLS-ALPN-01). Safe for concurrent use.
type ACME struct {
	opts    ACMEOptions
	storage *storage
	config  atomic.Pointer[certmagic.Config] // nil before Run
	cache   atomic.Pointer[certmagic.Cache]

	mu  sync.Mutex
	err string // of the last attempt; empty when it went well
}

// NewACME asks for nothing yet.
func NewACME(o ACMEOptions) *ACME {
	return &ACME{opts: o, storage: newStorage(o.Dir)}
}

var errNotYet = errors.New("there is no certificate yet")

// TLS is a server's configuration that also answers the authority. Connections fail while there is no certificate.
func (a *ACME) TLS() *tls.Config {
	return serverConfig(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		config := a.config.Load()
		if config == nil {
			return nil, errNotYet
		}
		return config.GetCertificate(hello)
	}, "acme-tls/1")
}

// Run gets a certificate, unless there is one from before, and has it renewed until ctx is done.
func (a *ACME) Run(ctx context.Context) error {
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.config.Load(), nil },
		RenewCheckInterval: a.opts.RenewEvery,
		Logger:             zap.NewNop(),
	})
	defer a.storage.wait() // for renewals, which certmagic starts and does not wait for
	defer cache.Stop()
	a.cache.Store(cache)
	a.config.Store(a.configure(cache))
	if a.obtain(ctx) {
		_ = cache.RenewManagedCertificates(ctx) // at once, if it is due; failures are events
	}
	<-ctx.Done()
	return nil
}

// configure tells certmagic what is wanted. It logs nothing by itself, since it would log addresses: its events do.
func (a *ACME) configure(cache *certmagic.Cache) *certmagic.Config {
	config := certmagic.New(cache, certmagic.Config{
		Storage: a.storage, OnEvent: a.event, DefaultServerName: a.opts.Host, Logger: zap.NewNop(),
	})
	config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA: a.opts.CA, Email: a.opts.Email, Agreed: true, TrustedRoots: a.opts.Roots, Logger: zap.NewNop(),
		DisableHTTPChallenge: true, DisableDistributedSolvers: true, // one port, one process
		ListenHost: a.opts.Listen.IP.String(), AltTLSALPNPort: a.opts.Listen.Port,
	})}
	return config
}

// obtain loads the certificate, which it gets first where there is none. It is false when ctx was done before.
func (a *ACME) obtain(ctx context.Context) bool {
	for {
		err := a.config.Load().ObtainCertAsync(ctx, a.opts.Host) // nothing where there is one; tries again by itself
		if err == nil {
			if _, err = a.config.Load().CacheManagedCertificate(ctx, a.opts.Host); err == nil {
				return true
			}
			err = fmt.Errorf("the stored certificate cannot be used: %w: remove %s to get another", err, a.opts.Dir)
		}
		if ctx.Err() != nil {
			return false
		}
		a.fail(err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(tryAgain):
		}
	}
}

// event hears what certmagic does. It is never wrong: an error would stop what is being done.
func (a *ACME) event(ctx context.Context, name string, data map[string]any) error {
	switch name {
	case "cert_obtained":
		a.mu.Lock()
		a.err = ""
		a.mu.Unlock()
		a.opts.Log.Info().Str("host", a.opts.Host).Bool("renewal", data["renewal"] == true).Msg("certificate obtained")
	case "cert_failed":
		if err, ok := data["error"].(error); ok && ctx.Err() == nil {
			a.fail(err)
		}
	}
	return nil
}

// fail keeps and logs why an attempt failed.
func (a *ACME) fail(err error) {
	text := err.Error()
	if a.opts.Email != "" {
		text = strings.ReplaceAll(text, a.opts.Email, "[redacted]")
	}
	a.mu.Lock()
	a.err = text
	a.mu.Unlock()
	a.opts.Log.Warn().Str("host", a.opts.Host).Str("error", text).Msg("no certificate was issued; it is asked for again")
}

// Status tells which certificate is in use, and why the last attempt to get one failed if it did.
func (a *ACME) Status() Status {
	a.mu.Lock()
	s := Status{Source: SourceACME, Error: a.err}
	a.mu.Unlock()
	if cache := a.cache.Load(); cache != nil {
		for _, c := range cache.AllMatchingCertificates(a.opts.Host) {
			if c.Leaf != nil && c.Leaf.NotAfter.After(s.NotAfter) {
				s.NotBefore, s.NotAfter = c.Leaf.NotBefore, c.Leaf.NotAfter
			}
		}
	}
	return s
}

// ReadRoots reads the certificates that an authority's own certificate may lead to.
func ReadRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate: write PEM", file)
	}
	return pool, nil
}
