// Package certificate keeps the certificate of the public listener: from files that somebody else renews, or from a
// certificate authority that is asked by ACME. A new one is used from the next connection on; what cannot be used never
// replaces what can.
package certificate

import (
	"crypto/tls"
	"time"
)

// Sources of a certificate.
const (
	SourceFiles = "files"
	SourceACME  = "acme"
)

// Status is what is known of the certificate in use.
type Status struct {
	Source    string
	NotBefore time.Time // both zero while there is none
	NotAfter  time.Time
	Error     string // why there is none, or no newer one; empty when all is well
}

// serverConfig is what the public listener speaks. TLS 1.3 alone would lock Graph out (X-1a).
func serverConfig(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: protocols}
}
