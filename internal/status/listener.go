package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/logging"
)

// Source is asked for the facts; *daemon.Daemon is one. Safe for concurrent use.
type Source interface {
	Report() Report
	// Resync asks for a full comparison of a watch with its mailboxes and says how many feeds that is.
	Resync(watch string) (feeds int, err error)
}

// Handler serves the admin listener: the API of the commands, health checks, and profiles. Only requests that name this
// machine as their host are answered, so that no web page can reach it under a name of its own. More are handlers of
// other rooms, by pattern.
func Handler(src Source, more map[string]http.Handler) http.Handler {
	return localOnly(notForWebPages(routes(src, more)))
}

// routes is what Handler and Guarded serve to whom they let in.
func routes(src Source, more map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range more {
		mux.Handle(pattern, h)
	}
	servePage(mux, src)
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, src.Report())
	})
	mux.HandleFunc("POST /api/v1/resync", func(w http.ResponseWriter, r *http.Request) {
		n, err := src.Resync(r.URL.Query().Get("watch"))
		if err != nil {
			answer(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusAccepted, map[string]int{"feeds": n})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		rep := src.Report()
		if !rep.Healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = rep.Ready(w) // the client went away
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

// localOnly refuses names other than this machine's (DNS rebinding).
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "ask by 127.0.0.1 or localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves until ctx is done, and returns when all requests have ended.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log zerolog.Logger) error {
	srv := &http.Server{Handler: h, ErrorLog: logging.HTTP(log), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin listener: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) { // a profile that is still being made
		err = srv.Close()
	}
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// Client asks a running daemon.
type Client struct {
	base string
	http *http.Client
	show func(*http.Request) // adds the token; nil: there is none
}

// NewClient makes a client for the daemon whose admin listener has an address.
func NewClient(addr string) *Client {
	return &Client{base: "http://" + reachable(addr), http: &http.Client{}}
}

// Status fetches the report.
func (c *Client) Status(ctx context.Context) (r Report, err error) {
	return r, c.Call(ctx, http.MethodGet, "/api/v1/status", nil, &r)
}

// Resync asks for a full comparison of a watch with its mailboxes.
func (c *Client) Resync(ctx context.Context, watch string) (feeds int, err error) {
	var out struct{ Feeds int }
	return out.Feeds, c.Call(ctx, http.MethodPost, "/api/v1/resync?watch="+url.QueryEscape(watch), nil, &out)
}

// ErrNoDaemon means that nothing listens where the daemon's admin listener should be.
var ErrNoDaemon = errors.New("is it running, and with this TRIGGERD_ADMIN_LISTEN?")

// quick bounds a call whose context has no deadline.
const quick = 10 * time.Second

// Call asks the daemon: in is sent as JSON unless it is nil, and the answer's JSON is read into out. A refusal is the
// daemon's own text. Without a deadline in ctx it waits ten seconds.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, quick)
		defer cancel()
	}
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s answers something else: is that triggerd? %w", c.base, err)
	}
	return nil
}

// Stream asks the daemon for something long. The caller closes it; size is -1 where it is not known. It ends with ctx.
func (c *Client) Stream(ctx context.Context, path string) (r io.ReadCloser, size int64, err error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// send makes a request. The caller closes the body of the answer, which is no refusal.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var sent io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, sent)
	if err != nil {
		return nil, err
	}
	if c.show != nil {
		c.show(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("triggerd at %s: %w", c.base, context.Cause(ctx))
		}
		return nil, fmt.Errorf("no triggerd answers at %s: %w: %w", c.base, err, ErrNoDaemon)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		return nil, ErrToken
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var e struct{ Error string }
	if json.Unmarshal(body, &e) == nil && e.Error != "" {
		return nil, errors.New(e.Error)
	}
	return nil, fmt.Errorf("%s answers %s: is that triggerd?", c.base, resp.Status)
}
