// Package webhook takes what Microsoft Graph posts, commits it to the inbox, and only then answers 202.
//
// A notification is a hint from a stranger until its clientState proves otherwise: each one is judged by itself, what
// does not prove itself is counted and dropped, and the answer tells a forger nothing.
package webhook

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/logging"
	"github.com/triggerd/triggerd/internal/store"
)

// Store keeps what is accepted; *store.Store has it. All methods are safe for concurrent use.
type Store interface {
	// Subscription finds a subscription of ours, alive or remembered.
	Subscription(id string) (store.Subscription, bool)
	// Expected finds the feed whose subscription is just being created with that clientState (W-18).
	Expected(stateHash [32]byte) (feed uint32, ok bool)
	// Accept returns nil only once everything it was given is committed.
	Accept(ctx context.Context, notes []store.Notification, cycles []store.Lifecycle) error
}

// Options tune a Handler. Store is required; zero values of the rest have defaults.
type Options struct {
	Store         Store
	Wake          func(feed uint32)   // called after a commit, once for each feed in it; must not block
	WakeLifecycle func()              // called after a commit that holds lifecycle notifications; must not block
	Acked         func(time.Duration) // called after each 202 with how long the caller waited; must not block
	Deadline      time.Duration       // of a commit, after which the answer is 503; default 2 s, Graph gives up after 3 (W-19)
	MaxBody       int64               // bytes of a request body, default 10 MiB
	MaxItems      int                 // notifications in a request, default 10,000
	Log           zerolog.Logger
}

// Limits on what is held at once, whoever sends it.
const (
	maxInFlight = 1024      // requests
	maxBuffered = 128 << 20 // bytes of bodies, over all requests
)

// retryAfter is what a 503 asks for, in seconds; Graph has its own schedule (W-20).
const retryAfter = "5"

func (o Options) withDefaults() Options {
	if o.Wake == nil {
		o.Wake = func(uint32) {}
	}
	if o.WakeLifecycle == nil {
		o.WakeLifecycle = func() {}
	}
	if o.Acked == nil {
		o.Acked = func(time.Duration) {}
	}
	if o.Deadline == 0 {
		o.Deadline = 2 * time.Second
	}
	if o.MaxBody == 0 {
		o.MaxBody = 10 << 20
	}
	if o.MaxItems == 0 {
		o.MaxItems = 10_000
	}
	return o
}

// Handler answers POST /graph/notifications and POST /graph/lifecycle, and 404 to everything else. It is safe for
// concurrent use.
type Handler struct {
	opts     Options
	requests requestPool
	inFlight atomic.Int64
	counts   [len(resultNames)]atomic.Uint64
	dropped  logging.Gate // notifications that proved nothing
	refused  logging.Gate // requests that could not be stored
}

// New makes a Handler.
func New(opts Options) *Handler {
	h := &Handler{opts: opts.withDefaults()}
	h.requests.room.Store(maxBuffered)
	return h
}

// result is what became of a notification or a request.
type result int

const (
	accepted            result = iota // change notifications committed
	lifecycle                         // lifecycle notifications committed
	unknownSubscription               // notifications whose subscription is none of ours
	badClientState                    // notifications without the right clientState
	malformed                         // notifications, and whole bodies, that make no sense
	validation                        // validation requests, answered or refused, and Event Hubs' reachability message
	notStored                         // requests answered 503
	tooLarge                          // requests answered 413
)

var resultNames = [...]string{"accepted", "lifecycle", "unknown_subscription", "bad_client_state", "malformed", "validation", "not_stored", "too_large"}

func (h *Handler) count(r result, n int) { h.counts[r].Add(uint64(n)) }

// Counters returns how often each result happened since the start. accepted, lifecycle, unknown_subscription and
// bad_client_state count notifications; validation, not_stored and too_large count requests; malformed counts
// notifications that make no sense by themselves, and bodies that are no notifications at all.
func (h *Handler) Counters() map[string]uint64 {
	m := make(map[string]uint64, len(resultNames))
	for i, name := range resultNames {
		m[name] = h.counts[i].Load()
	}
	return m
}

// ServeHTTP implements http.Handler. Lifecycle notifications are taken on either URL, since both may be one (W-3).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/graph/notifications" && r.URL.Path != "/graph/lifecycle" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.URL.RawQuery != "" {
		if token, err := validationToken(r.URL.RawQuery); !errors.Is(err, errNoToken) {
			h.handshake(w, token, err)
			return
		}
	}
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	defer h.inFlight.Add(-1)
	if h.inFlight.Add(1) > maxInFlight {
		h.unavailable(w, errBusy)
		return
	}
	h.notifications(w, r)
}

func (h *Handler) notifications(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	req := h.requests.get()
	defer h.requests.put(req)

	body, err := h.read(req, w, r)
	var items []item
	if err == nil {
		items, err = req.parser.decode(body, h.opts.MaxItems)
	}
	switch {
	case err == nil:
	case errors.Is(err, errTooLarge):
		h.count(tooLarge, 1)
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	case errors.Is(err, errBusy):
		h.unavailable(w, err)
		return
	default:
		h.count(malformed, 1)
		http.Error(w, "not a notification collection", http.StatusBadRequest)
		return
	}
	// Nothing in a batch refers to the body any more: a commit may outlast this request.
	if b := h.judge(items, time.Now()); !b.empty() {
		if err := h.accept(b); err != nil {
			h.unavailable(w, err)
			return
		}
	}
	w.WriteHeader(http.StatusAccepted) // Graph will not send it again
	h.opts.Acked(time.Since(began))
}

var errDeadline = errors.New("commit takes too long")

// accept commits a batch and wakes who waits for it. It does not end with the request: when the caller hangs up, what
// has begun to be written is better finished and woken than left lying.
func (h *Handler) accept(b batch) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), h.opts.Deadline, errDeadline)
	defer cancel()
	if err := h.opts.Store.Accept(ctx, b.notes, b.cycles); err != nil {
		return err
	}
	h.count(accepted, len(b.notes))
	h.count(lifecycle, len(b.cycles))
	for _, feed := range b.feeds() {
		h.opts.Wake(feed)
	}
	if len(b.cycles) > 0 {
		h.opts.WakeLifecycle()
	}
	return nil
}

// unavailable answers 503, so that Graph sends everything again (W-20).
func (h *Handler) unavailable(w http.ResponseWriter, err error) {
	h.count(notStored, 1)
	if n, ok := h.refused.Open(time.Now(), 1); ok {
		h.opts.Log.Error().Err(err).Int("requests", n).Msg("notifications not stored; graph will send them again")
	}
	w.Header().Set("Retry-After", retryAfter)
	http.Error(w, "not stored", http.StatusServiceUnavailable)
}

var (
	errTooLarge = errors.New("request is too large")
	errBusy     = errors.New("too many requests at once")
)

// read reads the body into the request's buffer, which grows only as bytes arrive. A body that is cut short or comes
// too slowly is an error as well.
func (h *Handler) read(req *request, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > h.opts.MaxBody {
		return nil, errTooLarge
	}
	src := r.Body
	if r.ContentLength < 0 {
		src = http.MaxBytesReader(w, src, h.opts.MaxBody)
	}
	err := h.requests.fill(req, src, r.ContentLength)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errTooLarge
	}
	return req.body, err
}
