package graph

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "graph.microsoft.com", "ftp://x/v1.0", "https:///v1.0", "https://u:p@x/v1.0", "https://x/v1.0?a", "https://x/#a", "http://[::1"} {
		if _, err := New(Options{Root: bad, Tokens: &tokens{}}); err == nil {
			t.Errorf("New with root %q succeeded", bad)
		}
	}
	if _, err := New(Options{Root: root}); err == nil {
		t.Error("New without tokens succeeded")
	}
	c, err := New(Options{Root: root + "/", Tokens: &tokens{}})
	if err != nil || c.root.String() != root {
		t.Errorf("New with a slash at the end: %v, %v", c.root, err)
	}
}

func TestNewTokenAfter401(t *testing.T) {
	const refused = `{"error":{"code":"InvalidAuthenticationToken"}}`
	tests := []struct {
		name     string
		tokens   *tokens
		accept   string // the token that Graph takes
		requests int32
		want     error
	}{
		{"token is good", &tokens{}, "Bearer token-1", 1, nil},
		{"the second is good", &tokens{}, "Bearer token-2", 2, nil},
		{"the second is refused, too", &tokens{}, "Bearer token-3", 2, ErrUnauthorized},
		{"there is no other", &tokens{stuck: true}, "Bearer token-2", 1, ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int32
			c := newClient(t, func(r *http.Request) (*http.Response, error) {
				requests.Add(1)
				if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), "expirationDateTime") {
					t.Errorf("body %q", body)
				}
				if r.Header.Get("Authorization") != tt.accept {
					return answer(401, refused), nil
				}
				return answer(200, `{"id":"1","expirationDateTime":"2026-12-01T00:00:00Z"}`), nil
			}, func(o *Options) { o.Tokens = tt.tokens })
			_, err := c.RenewSubscription(t.Context(), "1", time.Now())
			if is(t, err, tt.want); (err == nil) != (tt.want == nil) || requests.Load() != tt.requests {
				t.Errorf("%d requests, %v, want %d, %v", requests.Load(), err, tt.requests, tt.want)
			}
		})
	}
}

func TestNoToken(t *testing.T) {
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		t.Error("a request without a token")
		return answer(200, empty), nil
	}, func(o *Options) { o.Tokens = &tokens{err: errors.New("wrong secret")} })
	_, err := c.Message(t.Context(), "m", "1", nil)
	if is(t, err, ErrUnauthorized); err.Error() != "graph: get message: token: wrong secret" {
		t.Errorf("Message = %v", err)
	}
}

// A link to a stranger, by any trick, must not carry the token there.
func TestForeignLinks(t *testing.T) {
	var reached atomic.Int32
	canary := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		t.Errorf("stranger got %s with %q", r.URL, r.Header.Get("Authorization"))
	}))
	defer canary.Close()
	host := strings.TrimPrefix(canary.URL, "http://")
	graph := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.0/redirect":
			http.Redirect(w, r, canary.URL+"/redirected", http.StatusTemporaryRedirect)
		case "/v1.0/here":
			http.Redirect(w, r, "/v1.0/there", http.StatusFound)
		case "/v1.0/there":
			t.Error("redirect was followed")
		default:
			io.WriteString(w, `{"value":[],"@odata.nextLink":"`+canary.URL+`/next"}`)
		}
	}))
	defer graph.Close()
	c := newClient(t, nil, func(o *Options) { o.Root, o.Transport = graph.URL+"/v1.0", nil })
	own := strings.TrimPrefix(graph.URL, "http://")
	for _, link := range []string{
		canary.URL + "/v1.0/x", "https://" + own + "/v1.0/x", "http://" + own + "@" + host + "/x", "http://user@" + own + "/v1.0/x",
		"//" + host + "/x", "/v1.0/x", "x", "http://" + own + ".evil.example/x", "file:///etc/passwd", "http://%zz/", "://",
	} {
		_, err := c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Folder: "inbox", Link: link})
		if is(t, err, ErrForeignLink); strings.Contains(err.Error(), "http") {
			t.Errorf("%v names the link", err)
		}
	}
	_, err := c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Folder: "inbox"})
	is(t, err, ErrForeignLink) // told in an answer: refused before it can be stored
	_, err = c.Folders(t.Context(), "m")
	is(t, err, ErrForeignLink)
	for _, path := range []string{"/redirect", "/here"} {
		_, err = c.ListMessages(t.Context(), ListRequest{Mailbox: "m", Link: graph.URL + "/v1.0" + path})
		is(t, err, ErrUnavailable)
	}
	if reached.Load() != 0 {
		t.Errorf("the stranger was reached %d times", reached.Load())
	}
}

func TestOwnLinksInOtherSpellings(t *testing.T) {
	c := newClient(t, replay(200, empty))
	for _, link := range []string{"HTTPS://Graph.Example.COM/v1.0/d", "https://graph.example.com:443/v1.0/d", "https://graph.example.com/beta/d#x"} {
		if _, err := c.MessagesDelta(t.Context(), DeltaRequest{Mailbox: "m", Link: link}); err != nil {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	var zipped bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	io.WriteString(gz, `{"value":[{"id":"1","x":"`)
	io.WriteString(gz, strings.Repeat("a", 4<<20))
	io.WriteString(gz, `"}]}`)
	gz.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.0/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(zipped.Bytes())
		case "/v1.0/spaces":
			io.WriteString(w, `{"value":[]`+strings.Repeat(" ", 2<<20)+`}`)
		case "/v1.0/short":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"value":[]}`)
		case "/v1.0/html":
			io.WriteString(w, "<!DOCTYPE html><html>Sign in</html>")
		case "/v1.0/fits":
			io.WriteString(w, `{"value":[]`+strings.Repeat(" ", 1<<20-12)+`}`)
		}
	}))
	defer srv.Close()
	c := newClient(t, nil, func(o *Options) { o.Root, o.Transport, o.MaxBody = srv.URL+"/v1.0", nil, 1<<20 })
	for path, want := range map[string]error{"/bomb": errBodyTooLarge, "/spaces": errBodyTooLarge, "/short": io.ErrUnexpectedEOF, "/html": nil} {
		_, err := c.ListMessages(t.Context(), ListRequest{Mailbox: "m", Link: srv.URL + "/v1.0" + path})
		if is(t, err, ErrUnavailable); want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := c.ListMessages(t.Context(), ListRequest{Mailbox: "m", Link: srv.URL + "/v1.0/fits"}); err != nil {
		t.Errorf("an answer of exactly the limit: %v", err)
	}
}

func TestNetworkErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	var status atomic.Int32
	status.Store(-1)
	c := newClient(t, nil, func(o *Options) {
		o.Root, o.Transport = "http://"+addr+"/v1.0", nil
		o.Observe = func(_ string, s int, _ time.Duration) { status.Store(int32(s)) }
	})
	_, err = c.Message(t.Context(), "canary@contoso.com", "canary-id", nil)
	if is(t, err, ErrUnavailable); strings.Contains(err.Error(), "canary") || status.Load() != 0 {
		t.Errorf("Message = %v, status %d", err, status.Load())
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := wire(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		c := newClient(t, hang)
		begun := time.Now()
		_, err := c.Message(t.Context(), "m", "1", nil)
		is(t, err, ErrUnavailable)
		if time.Since(begun) != requestTimeout || err.Error() != "graph: get message: no answer within 1m0s" {
			t.Errorf("Message = %v after %v", err, time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Message(ctx, "m", "1", nil)
		if is(t, err, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Message with a deadline = %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		_, err = c.Message(ctx, "m", "1", nil)
		if is(t, err, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Message after the end = %v", err)
		}
	})
}

func TestNothingPrivateIsLogged(t *testing.T) {
	var log bytes.Buffer
	var observed []string
	c := newClient(t, replay(400, `{"error":{"code":"x","message":"canary@contoso.com"}}`, "request-id: r1"), func(o *Options) {
		o.Log = zerolog.New(&log)
		o.Observe = func(op string, status int, _ time.Duration) { observed = append(observed, op) }
	})
	_, err := c.Message(t.Context(), "canary@contoso.com", "canary-id", nil)
	_, err2 := c.CreateSubscription(t.Context(), "canary@contoso.com", Subscription{ClientState: "canary", Resource: "canary"})
	if all := log.String() + err.Error() + err2.Error(); strings.Contains(all, "canary") || strings.Contains(all, "token-1") {
		t.Errorf("private: %s", all)
	}
	if !strings.Contains(log.String(), `"op":"get message","status":400`) || !strings.Contains(log.String(), `"request_id":"r1"`) {
		t.Errorf("log %s", log.String())
	}
	if len(observed) != 2 || observed[0] != "get message" || observed[1] != "create subscription" {
		t.Errorf("observed %q", observed)
	}
}

func TestServiceUnavailableClosesIdleConnections(t *testing.T) {
	closer := &idleCloser{wire: replay(503, "")}
	c := newClient(t, nil, func(o *Options) { o.Transport = closer })
	_, err := c.Message(t.Context(), "m", "1", nil)
	if is(t, err, ErrUnavailable); closer.closed != 1 {
		t.Errorf("idle connections closed %d times", closer.closed)
	}
}

type idleCloser struct {
	wire
	closed int
}

func (c *idleCloser) CloseIdleConnections() { c.closed++ }
