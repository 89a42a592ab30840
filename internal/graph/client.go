// Package graph is the only HTTP client to Microsoft Graph. It knows how requests are spelled, which limits a mailbox
// has, and what each refusal means; it never decides to try again, because callers know what they can wait for.
package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	// requestTimeout is for one request and the reading of its answer, not for waiting until the mailbox may be asked.
	requestTimeout = 60 * time.Second

	defaultMaxBody    = 32 << 20
	defaultPerMailbox = 3 // of the 4 that Outlook allows (H-2, H-9)
)

// TokenSource gives access tokens. It is safe for concurrent use; *auth.App has it.
type TokenSource interface {
	// Token returns a token that should be good for some minutes. An error with the method
	// Retryable() (wait time.Duration, ok bool) counts as passing when ok; any other as ErrUnauthorized.
	Token(ctx context.Context) (string, error)
	// Refused tells that Graph answered 401 to this token: another one must be fetched next time, with the claims that
	// Graph challenged for (JSON; empty: none).
	Refused(token, claims string)
}

// Options are what a Client needs. Root and Tokens are required.
type Options struct {
	Root       string            // with the version, for example "https://graph.microsoft.com/v1.0"; only this scheme and host get requests (D-2)
	Tokens     TokenSource       //
	Transport  http.RoundTripper // nil: one with timeouts
	UserAgent  string            // default "triggerd"
	MaxBody    int64             // bytes of an answer, decompressed; default 32 MiB
	PerMailbox int               // requests to one mailbox at a time; default 3
	NoDelta    bool              // the cloud has no delta of mail folders (C-12)
	Log        zerolog.Logger    // one debug line a request

	// Observe is called after every exchange, from several goroutines; nil is fine. Status is 0 when there was no answer.
	Observe func(op string, status int, d time.Duration)
}

func (o Options) withDefaults() Options {
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.UserAgent == "" {
		o.UserAgent = "triggerd"
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.PerMailbox <= 0 {
		o.PerMailbox = defaultPerMailbox
	}
	if o.Observe == nil {
		o.Observe = func(string, int, time.Duration) {}
	}
	return o
}

// Client speaks to Graph as one connection. It is safe for concurrent use.
type Client struct {
	opts  Options
	root  *url.URL
	http  *http.Client
	lanes *lanes

	subWrites *rate.Limiter // creating, renewing, deleting subscriptions (H-4)
	subLists  *rate.Limiter
}

// New makes a client. It sends nothing.
func New(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	root, err := url.Parse(strings.TrimRight(opts.Root, "/"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("graph root: %w", err)
	case root.Scheme != "https" && root.Scheme != "http" || root.Host == "":
		return nil, fmt.Errorf("graph root %q is not an http or https URL", opts.Root)
	case root.User != nil || root.RawQuery != "" || root.Fragment != "":
		return nil, errors.New("graph root must have no user, query or fragment")
	case opts.Tokens == nil:
		return nil, errors.New("graph client without a token source")
	}
	return &Client{
		opts: opts,
		root: root,
		http: &http.Client{
			Transport:     opts.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		lanes: newLanes(),
		// Per app and tenant 500 writes and 25 lists in 20 seconds (H-4); a little less, since other apps may share them.
		subWrites: rate.NewLimiter(20, 20),
		subLists:  rate.NewLimiter(1, 2),
	}, nil
}

// call is one request to be made.
type call struct {
	op       string
	method   string
	url      string // absolute, of our host
	body     []byte // JSON; nil: none
	mailbox  string // whose lane is used; empty: none
	limit    *rate.Limiter
	pageSize int
	decode   func(io.Reader) error // reads the body of a 2xx answer; nil: the body is not looked at
}

// do makes the request when the mailbox's lane is free, and once more with a new token when Graph answers 401.
func (c *Client) do(ctx context.Context, r call) error {
	leave, err := c.enter(ctx, r)
	if err != nil {
		return err
	}
	defer leave()
	token, err := c.token(ctx, r.op)
	if err != nil {
		return err
	}
	err = c.exchange(ctx, r, token)
	if !errors.Is(err, ErrUnauthorized) {
		return err
	}
	c.opts.Tokens.Refused(token, challenged(err))
	next, terr := c.token(ctx, r.op)
	if terr != nil {
		return terr
	}
	if next == token {
		return err
	}
	return c.exchange(ctx, r, next)
}

// enter waits for the rate limit and the lanes that the call goes through.
func (c *Client) enter(ctx context.Context, r call) (leave func(), err error) {
	fail := func(err error) error {
		return &Error{Op: r.op, Err: err, stopped: ctx.Err() != nil}
	}
	if r.limit != nil {
		for wait := c.lanes.pausedFor(laneSubscriptions); wait > 0; wait = c.lanes.pausedFor(laneSubscriptions) {
			if wait > maxPauseWait {
				return nil, throttled(r.op, wait)
			}
			if err := sleep(ctx, wait); err != nil {
				return nil, fail(err)
			}
		}
		if err := r.limit.Wait(ctx); err != nil {
			return nil, fail(err)
		}
	}
	if r.mailbox == "" {
		return func() {}, nil
	}
	wait, err := c.lanes.enter(ctx, laneOf(r.mailbox), c.opts.PerMailbox)
	switch {
	case err != nil:
		return nil, fail(err)
	case wait > 0:
		return nil, throttled(r.op, wait)
	}
	return func() { c.lanes.leave(laneOf(r.mailbox)) }, nil
}

func (c *Client) token(ctx context.Context, op string) (string, error) {
	token, err := c.opts.Tokens.Token(ctx)
	if err != nil {
		return "", &Error{Op: op, Err: &tokenError{err}, stopped: ctx.Err() != nil}
	}
	return token, nil
}

// exchange sends one request and reads its answer.
func (c *Client) exchange(parent context.Context, r call, token string) (err error) {
	ctx, cancel := context.WithTimeoutCause(parent, requestTimeout, fmt.Errorf("no answer within %v", requestTimeout))
	defer cancel()
	req, err := c.request(ctx, r, token)
	if err != nil {
		return err
	}
	begun := time.Now()
	status, requestID := 0, ""
	defer func() {
		took := time.Since(begun)
		c.opts.Observe(r.op, status, took)
		c.opts.Log.Debug().Str("op", r.op).Int("status", status).Dur("took", took).Str("request_id", requestID).Msg("graph request")
	}()
	resp, err := c.http.Do(req)
	if err != nil {
		return noAnswer(ctx, parent, r.op, err)
	}
	defer resp.Body.Close()
	status, requestID = resp.StatusCode, word(resp.Header.Get("request-id"))
	if status < 200 || status > 299 {
		e := readError(r.op, resp)
		c.pause(r, e)
		return e
	}
	if r.decode == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
		return nil
	}
	if err := r.decode(&limitedReader{r: resp.Body, left: c.opts.MaxBody}); err != nil {
		e := noAnswer(ctx, parent, r.op, err)
		e.RequestID = requestID
		return e
	}
	return nil
}

// pause keeps other requests away after Graph asked for patience (H-5, H-7).
func (c *Client) pause(r call, e *Error) {
	if e.Status == http.StatusServiceUnavailable {
		c.http.CloseIdleConnections() // H-7: try again on a new connection
	}
	if e.RetryAfter <= 0 || !errors.Is(e, ErrThrottled) {
		return
	}
	if r.mailbox != "" {
		c.lanes.pause(laneOf(r.mailbox), e.RetryAfter)
	}
	if r.limit != nil {
		c.lanes.pause(laneSubscriptions, e.RetryAfter)
	}
}

func (c *Client) request(ctx context.Context, r call, token string) (*http.Request, error) {
	u, err := c.ours(r.url)
	if err != nil {
		return nil, &Error{Op: r.op, Err: err}
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, &Error{Op: r.op, Err: withoutURL(err)}
	}
	h := req.Header
	h.Set("Authorization", "Bearer "+token)
	h.Set("Accept", "application/json")
	h.Set("User-Agent", c.opts.UserAgent)
	h.Set("Prefer", prefer(r.pageSize))
	h.Set("client-request-id", uuid.NewString())
	if r.body != nil {
		h.Set("Content-Type", "application/json")
	}
	return req, nil
}

// prefer is sent with every request that may return ids (I-3), all wishes in one header (D-21). On a POST of a
// subscription it decides which ids its notifications carry (N-20).
func prefer(pageSize int) string {
	const immutable = `IdType="ImmutableId"`
	if pageSize <= 0 {
		return immutable
	}
	return immutable + ", odata.maxpagesize=" + strconv.Itoa(pageSize)
}
