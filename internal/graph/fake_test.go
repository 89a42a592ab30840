package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
)

const root = "https://graph.example.com/v1.0"

// wire answers requests in memory.
type wire func(*http.Request) (*http.Response, error)

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	return w(r)
}

// answer makes a response; headers are "Name: value".
func answer(status int, body string, headers ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// tokens gives token-1 until it is refused, then token-2, and so on.
type tokens struct {
	mu      sync.Mutex
	n       int
	fetched int
	stuck   bool // the same token again and again
	err     error
	claims  []string // of the challenges that came with refusals
}

func (s *tokens) Token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched++
	return fmt.Sprintf("token-%d", s.n+1), s.err
}

func (s *tokens) Refused(token, claims string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = append(s.claims, claims)
	if !s.stuck && token == fmt.Sprintf("token-%d", s.n+1) {
		s.n++
	}
}

func newClient(t testing.TB, w wire, change ...func(*Options)) *Client {
	t.Helper()
	opts := Options{Root: root, Tokens: &tokens{}, Transport: w, Log: zerolog.Nop()}
	for _, f := range change {
		f(&opts)
	}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// replay answers every request with the same.
func replay(status int, body string, headers ...string) wire {
	return func(*http.Request) (*http.Response, error) { return answer(status, body, headers...), nil }
}

// script answers each request by its method and URL below the root, and fails the test for any other.
func script(t testing.TB, answers map[string]string) (w wire, asked func() []string) {
	var mu sync.Mutex
	var log []string
	w = func(r *http.Request) (*http.Response, error) {
		key := r.Method + " " + strings.TrimPrefix(r.URL.String(), root)
		mu.Lock()
		log = append(log, key)
		mu.Unlock()
		body, ok := answers[key]
		if !ok {
			t.Errorf("unexpected request %s", key)
			return answer(500, ""), nil
		}
		return answer(200, body), nil
	}
	return w, func() []string { mu.Lock(); defer mu.Unlock(); return log }
}

func payload(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded is an answer as the error payloads hold it.
type recorded struct {
	HTTP struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
	} `json:"_http"`
	Body json.RawMessage `json:"body"`
}

func recordedAnswer(t testing.TB, name string) *http.Response {
	t.Helper()
	var r recorded
	if err := json.Unmarshal(payload(t, name), &r); err != nil {
		t.Fatal(err)
	}
	resp := answer(r.HTTP.Status, string(r.Body))
	for k, v := range r.HTTP.Headers {
		resp.Header.Set(k, v)
	}
	return resp
}
