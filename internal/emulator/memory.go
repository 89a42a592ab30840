package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// newDelivery is a transport with limits on every phase, which follows no proxy: what is notified is near.
func newDelivery() http.RoundTripper {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: validationTimeout,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   postsPerURL,
	}
}

// HandlerTransport serves requests by handlers in memory, host → handler, without sockets, so that clients and servers
// can meet in a testing/synctest bubble. The handler runs in a goroutine of its own with the request's context; its answer
// is handed over when it returns or flushes, as one piece. A handler that panics with http.ErrAbortHandler breaks
// the connection. The map is not to be changed any more.
func HandlerTransport(handlers map[string]http.Handler) http.RoundTripper {
	return handlerTransport(handlers)
}

type handlerTransport map[string]http.Handler

// RoundTrip serves one request.
func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := readAllOf(req)
	if err != nil {
		return nil, err
	}
	h := t[req.URL.Host]
	if h == nil {
		return nil, fmt.Errorf("dial %s: no such host in memory", req.URL.Host)
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	served := req.Clone(req.Context())
	served.Body, served.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	served.GetBody, served.Close, served.Response = nil, false, nil
	served.RequestURI, served.RemoteAddr = req.URL.RequestURI(), "192.0.2.1:1234"
	served.Proto, served.ProtoMajor, served.ProtoMinor = "HTTP/1.1", 1, 1
	if served.Host == "" {
		served.Host = req.URL.Host
	}
	served.URL.Scheme, served.URL.Host, served.URL.User = "", "", nil
	if ua, set := served.Header["User-Agent"]; set && len(ua) > 0 && ua[0] == "" {
		delete(served.Header, "User-Agent")
	}
	w := &memoryWriter{header: http.Header{}}
	done := make(chan error, 1) // the goroutine never waits for who has left
	go func() { done <- w.serve(h, served) }()
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return w.response(req), nil
	}
}

func readAllOf(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer req.Body.Close()
	return io.ReadAll(req.Body)
}

// memoryWriter is a response kept in memory. It belongs to the handler's goroutine until serve returns.
type memoryWriter struct {
	header, sent http.Header // sent: as it was when the header was written
	status       int
	body         bytes.Buffer
	aborted      bool
}

var errAborted = errors.New("EOF: the server closed the connection without an answer")

// serve runs the handler. A panic other than http.ErrAbortHandler is a bug and goes on.
func (w *memoryWriter) serve(h http.Handler, r *http.Request) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if perr, ok := v.(error); !ok || !errors.Is(perr, http.ErrAbortHandler) {
			panic(v)
		}
		if w.status == 0 {
			err = errAborted
			return
		}
		w.aborted = true
	}()
	h.ServeHTTP(w, r)
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// Header returns the headers to be sent.
func (w *memoryWriter) Header() http.Header { return w.header }

// WriteHeader fixes status and headers; informational ones are dropped.
func (w *memoryWriter) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status, w.sent = status, w.header.Clone()
}

// Write adds to the body.
func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		if w.header.Get("Content-Type") == "" {
			w.header.Set("Content-Type", http.DetectContentType(p))
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.status == http.StatusNoContent || w.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(p)
}

// Flush does nothing: the answer is handed over in one piece.
func (w *memoryWriter) Flush() {}

// SetReadDeadline, SetWriteDeadline and EnableFullDuplex are what http.ResponseController asks for; in memory nothing
// is slow.
func (w *memoryWriter) SetReadDeadline(time.Time) error  { return nil }
func (w *memoryWriter) SetWriteDeadline(time.Time) error { return nil }
func (w *memoryWriter) EnableFullDuplex() error          { return nil }

func (w *memoryWriter) response(req *http.Request) *http.Response {
	var body io.Reader = bytes.NewReader(w.body.Bytes())
	length := int64(w.body.Len())
	if w.aborted {
		body, length = io.MultiReader(body, brokenReader{}), -1
	}
	if req.Method == http.MethodHead {
		body = strings.NewReader("")
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: io.NopCloser(body), ContentLength: length, Request: req,
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
