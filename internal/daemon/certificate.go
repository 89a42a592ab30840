package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"path/filepath"

	"github.com/triggerd/triggerd/internal/certificate"
	"github.com/triggerd/triggerd/internal/status"
)

// certificates keeps the public listener's certificate; *certificate.Files and *certificate.ACME do.
type certificates interface {
	TLS() *tls.Config
	Run(ctx context.Context) error
	Status() certificate.Status
}

// wireCertificate decides where the public listener's certificate comes from. Without one it speaks http.
func (d *Daemon) wireCertificate() error {
	s := &d.opts.Settings
	switch {
	case s.TLSCertFile != "":
		files, err := certificate.NewFiles(s.TLSCertFile, s.TLSKeyFile, d.room("certificate"))
		if err != nil {
			return fmt.Errorf("TRIGGERD_TLS_CERT_FILE: %w", err)
		}
		d.certificate = files
	case s.ACMEEmail != "":
		return d.wireACME()
	}
	return nil
}

func (d *Daemon) wireACME() error {
	s := &d.opts.Settings
	public, err := url.Parse(s.PublicURL)
	if err != nil {
		return fmt.Errorf("TRIGGERD_PUBLIC_URL: %w", err)
	}
	listen, ok := d.public.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("TRIGGERD_ACME_EMAIL: the public listener is no TCP port but %s, where no authority can ask", d.public.Addr())
	}
	var roots *x509.CertPool
	if s.ACMECARootFile != "" {
		if roots, err = certificate.ReadRoots(s.ACMECARootFile); err != nil {
			return fmt.Errorf("TRIGGERD_ACME_CA_ROOT_FILE: %w", err)
		}
	}
	d.certificate = certificate.NewACME(certificate.ACMEOptions{
		Host: public.Hostname(), Email: s.ACMEEmail, CA: s.ACMECA, Roots: roots, Dir: filepath.Join(s.StateDir, "acme"),
		Listen: listen, Log: d.room("certificate"),
	})
	return nil
}

// publicTLS is what the public listener speaks; nil: http.
func (d *Daemon) publicTLS() *tls.Config {
	if d.certificate == nil {
		return nil
	}
	return d.certificate.TLS()
}

func (d *Daemon) reportCertificate(r *status.Report) {
	if d.certificate != nil {
		r.Certificate = status.Certificate(d.certificate.Status())
	}
}
