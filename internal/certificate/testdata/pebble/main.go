// Command pebble serves Let's Encrypt's ACME server for tests, on loopback only. It prints its port, and ends with its
// standard input.
//
//	pebble DIR TLS-PORT VALIDITY
//
// It takes every name for 127.0.0.1, validates at TLS-PORT, issues certificates that live VALIDITY, and writes two files into DIR: api.pem, the
// certificate of its own listener, and root.pem, to which the certificates lead that it issues.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

func main() {
	if err := serve(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(dir, tlsPort, validity string) error {
	port, err := strconv.Atoi(tlsPort)
	if err != nil {
		return err
	}
	life, err := time.ParseDuration(validity)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	own, err := selfSigned(filepath.Join(dir, "api.pem"))
	if err != nil {
		return err
	}
	resolver, err := resolve()
	if err != nil {
		return err
	}
	logger, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	// One second more: pebble counts both ends.
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(life/time.Second) + 1}})
	front := wfe.New(logger, store, va.New(logger, 0, port, false, resolver, store), authority, nil, false, false, 0, 0)
	root := authority.GetRootCert(0)
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), root.PEM(), 0o600); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	handler := front.Handler()
	return http.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{own}}), handler)
}

// selfSigned makes the certificate of the listener and writes it to a file.
func selfSigned(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(file, text, 0o600)
}

// resolve serves names over TCP and returns its address.
func resolve() (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		answer := new(dns.Msg).SetReply(asked)
		if q := asked.Question[0]; q.Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(answer)
	})}
	go func() { _ = server.ActivateAndServe() }()
	return listener.Addr().String(), nil
}
