package logging

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func TestGate(t *testing.T) {
	var g Gate
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	for i, tt := range []struct {
		after time.Duration
		n     int
		total int
		ok    bool
	}{{0, 3, 3, true}, {time.Second, 1, 0, false}, {58 * time.Second, 1, 0, false}, {time.Second, 1, 3, true}, {time.Hour, 2, 2, true}} {
		now = now.Add(tt.after)
		if total, ok := g.Open(now, tt.n); total != tt.total || ok != tt.ok {
			t.Errorf("%d: %d, %v", i, total, ok)
		}
	}
}

// Ten thousand mistakes are one line a minute, and no line holds an address.
func TestStrangersCannotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := HTTP(zerolog.New(&out).Level(zerolog.DebugLevel))
		for i := range 10_000 {
			l.Printf("http: TLS handshake error from 192.0.2.%d:4711: tls: client offered only unsupported versions: [301]", i%256)
			l.Printf("http: panic serving [2001:db8::%x]:4711: runtime error: index out of range", i)
			time.Sleep(12 * time.Millisecond) // two minutes in all
		}
		text := out.String()
		if n := strings.Count(text, "\n"); n != 4 {
			t.Errorf("%d lines:\n%s", n, text)
		}
		if strings.Contains(text, "192.0.2.") || strings.Contains(text, "db8") {
			t.Errorf("an address: %s", text)
		}
		for _, want := range []string{`"text":"http: TLS handshake error: tls: client offered only unsupported versions: [301]"`, `"text":"runtime error: index out of range"`, `"level":"error"`, `"connections":5`} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in %s", want, text)
			}
		}
	})
}

// What net/http really writes when strangers speak something else.
func TestAScannerAtATLSPort(t *testing.T) {
	var out bytes.Buffer
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = HTTP(zerolog.New(&out).Level(zerolog.DebugLevel))
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	for range 200 {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	srv.Close()
	if text := out.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, "127.0.0.1") {
		t.Errorf("the log is %s", text)
	}
}
