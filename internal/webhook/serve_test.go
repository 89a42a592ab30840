package webhook

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// pipes is a listener without sockets, so that time can be a test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// serving runs Serve on l until stop is called, which returns what Serve did.
func serving(t *testing.T, l net.Listener, h http.Handler, conf *tls.Config) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h, conf, zerolog.Nop()) }()
	return func() error { cancel(); return <-done }
}

func TestSlowClientsAreCutOff(t *testing.T) {
	tests := []struct {
		name, sent, answer string
		after              time.Duration
	}{
		{"no request", "", "", 5 * time.Second},
		{"half a header", "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nContent-", "HTTP/1.1 400 Bad Request", 5 * time.Second},
		{"half a body", "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{", "HTTP/1.1 400 Bad Request", 10 * time.Second},
		{"nothing after an answer", "POST /graph/notifications?validationToken=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK", 3 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				l := newPipes()
				stop := serving(t, l, f.h, nil)
				conn := l.dial()
				start := time.Now()
				go io.WriteString(conn, tt.sent)
				answer, err := io.ReadAll(conn) // until they hang up
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(string(answer), tt.answer) || tt.answer == "" && len(answer) > 0 {
					t.Errorf("answer = %q, want %q", answer, tt.answer)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("cut off after %v, want %v", took, tt.after)
				}
				if err := stop(); err != nil {
					t.Errorf("Serve = %v, want nil", err)
				}
			})
		})
	}
}

func TestIdleConnectionIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, map[string]string{"s1": "right"})
		l := newPipes()
		stop := serving(t, l, f.h, nil)
		conn := l.dial()
		answers := bufio.NewReader(conn)
		for range 3 {
			go fmt.Fprintf(conn, "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(genuine), genuine)
			res, err := http.ReadResponse(answers, nil)
			if err != nil || res.StatusCode != http.StatusAccepted {
				t.Fatalf("answer = %v, %v, want 202", res, err)
			}
			time.Sleep(2 * time.Minute)
		}
		conn.Close()
		if err := stop(); err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
}

func TestServeReturnsWhenRequestsUnderWayAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, entered := make(chan struct{}), make(chan struct{})
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(entered)
				<-release
				w.WriteHeader(http.StatusAccepted)
			}), nil, zerolog.Nop())
		}()
		conn := l.dial()
		go io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		<-entered
		cancel()
		<-l.closed // no new ones
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Serve = %v with a request under way", err)
		default:
		}
		close(release)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != http.StatusAccepted {
			t.Errorf("answer = %v, %v, want 202", res, err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
}

func TestServeGivesUpOnOneWhoNeverStopsSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		stuck := make(chan struct{})
		stop := serving(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(stuck)
			<-r.Context().Done() // until the connection is closed
		}), nil)
		conn := l.dial()
		go io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		<-stuck
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) > shutdownTimeout+time.Second {
			t.Errorf("Serve = %v after %v, want nil within %v", err, time.Since(start), shutdownTimeout)
		}
	})
}

func TestServeReportsALostListener(t *testing.T) {
	l := newPipes()
	l.Close()
	err := Serve(t.Context(), l, http.NotFoundHandler(), nil, zerolog.Nop())
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "public listener: ") {
		t.Errorf("Serve = %v, want what happened to the listener", err)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestServeOverTLS(t *testing.T) {
	borrowed := httptest.NewTLSServer(nil) // for its certificate
	defer borrowed.Close()
	roots := borrowed.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	f := newFixture(t, map[string]string{"s1": "right"})
	l := listen(t)
	stop := serving(t, l, f.h, &tls.Config{Certificates: borrowed.TLS.Certificates})
	for _, tt := range []struct {
		version uint16
		http2   bool
		ok      bool
	}{{tls.VersionTLS11, false, false}, {tls.VersionTLS12, false, true}, {tls.VersionTLS13, false, true}, {tls.VersionTLS13, true, true}} {
		tr := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS10, MaxVersion: tt.version},
			ForceAttemptHTTP2: tt.http2,
		}
		client := http.Client{Transport: tr}
		res, err := client.Post("https://"+l.Addr().String()+notificationsURL, "application/json", strings.NewReader(genuine))
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v, want success %v (X-1a)", tls.VersionName(tt.version), err, tt.ok)
		}
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusAccepted || (res.ProtoMajor == 2) != tt.http2 {
				t.Errorf("%s: answer = %s %s", tls.VersionName(tt.version), res.Proto, res.Status)
			}
		}
		tr.CloseIdleConnections()
	}
	if err := stop(); err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

func TestRequestsNetHTTPMeets(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	l := listen(t)
	stop := serving(t, l, f.h, nil)
	huge := strings.Repeat("x", 1<<20)
	tests := []struct{ name, request, status string }{
		{"genuine", fmt.Sprintf("POST /graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(genuine), genuine), "202"},
		{"chunked", fmt.Sprintf("POST /graph/lifecycle HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(genuine), genuine), "202"},
		{"HTTP/1.0", fmt.Sprintf("POST /graph/notifications HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(genuine), genuine), "202"},
		{"100-continue refused by its length", "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", "413"},
		{"header too large", "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nX: " + huge[:24<<10] + "\r\n\r\n", "431"},
		{"query too large", "POST /graph/notifications?validationToken=" + huge[:24<<10] + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
		{"longest token, wholly escaped", "POST /graph/notifications?validationToken=" + strings.Repeat("%41", 4096) + " HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		{"length in two ways", "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx", "400"},
		{"no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400"},
		{"absolute form", fmt.Sprintf("POST http://x/graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(genuine), genuine), "202"},
		{"double slash is not redirected", "POST //graph/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || len(line) < 12 || line[9:12] != tt.status {
				t.Errorf("answer = %q, %v, want %s", line, err, tt.status)
			}
		})
	}
	t.Run("endless chunks", func(t *testing.T) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			io.WriteString(conn, "POST /graph/notifications HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
			for err := error(nil); err == nil; {
				_, err = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(huge), huge)
			}
		}()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "HTTP/1.1 413") {
			t.Errorf("answer = %q, want 413", line)
		}
	})
	if got := f.h.Counters(); got["accepted"] != 4 || got["too_large"] != 2 {
		t.Errorf("counters = %v", got)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}
