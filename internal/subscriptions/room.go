// Package subscriptions keeps one Graph subscription alive for every feed that wants push: it creates, renews, replaces
// and removes them, adopts what a crash left behind, and answers lifecycle notifications. What was missed while there
// was none is found by the delta rounds that it asks for.
//
// Everything for one resource of a connection is done by one goroutine at a time. The decisions are pure (Policy), the
// deadlines wall-clock times that are looked at on a short tick.
package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/graph"
	"github.com/triggerd/triggerd/internal/store"
)

// Graph is what the room asks of Graph; *graph.Client has it.
type Graph interface {
	// CreateSubscription creates s for a mailbox and returns it as granted.
	CreateSubscription(ctx context.Context, mailbox string, s graph.Subscription) (graph.Subscription, error)
	// RenewSubscription sets the expiry and returns the subscription as granted; it reauthorizes too.
	RenewSubscription(ctx context.Context, id string, expires time.Time) (graph.Subscription, error)
	// DeleteSubscription removes a subscription; graph.ErrNotFound means that it is gone already.
	DeleteSubscription(ctx context.Context, id string) error
	// ListSubscriptions returns all subscriptions that the connection can see.
	ListSubscriptions(ctx context.Context) ([]graph.Subscription, error)
}

// Store keeps the subscriptions; *store.Store has it.
type Store interface {
	Subscription(id string) (store.Subscription, bool)
	Subscriptions() []store.Subscription
	Feeds() []store.Feed
	Expect(stateHash [32]byte, feed uint32) (forget func())
	Update(fn func(*store.Tx) error) error
	View(fn func(*store.Tx) error) error
}

// Want is a feed that should have a subscription.
type Want struct {
	Feed                uint32
	Connection, Mailbox string
	Resource            string // users/{address}/mailFolders/{id}/messages
}

// Options are the room's needs and settings. The callbacks must not block and may be called from several goroutines.
type Options struct {
	Graphs      map[string]Graph                                                                     // by connection
	Wants       func() []Want                                                                        // what should be subscribed right now
	PublicURL   string                                                                               // HTTPS base of the public listener; empty: no push, only what is ours is removed
	Lifetime    func(connection string) time.Duration                                                // asked for; nil or 0: MaxLifetime less an hour
	ChangeTypes string                                                                               // default "created,updated,deleted"
	CatchUp     func(feed uint32, reason string)                                                     // asks for a delta round
	TrueUp      func(feed uint32, reason string)                                                     // asks for a full enumeration, after a gap of unknown extent
	Every       time.Duration                                                                        // between looks at what is due, default 5 s
	Paused      func(connection string) string                                                       // why a connection waits for a person; empty: it does not. nil: none ever does
	Tell        func(feed uint32, name string, at time.Time, d event.SubscriptionData) []event.Event // the events that say what happened; nil: none
	HTTP        *http.Client                                                                         // for the check of the public URL; nil: http.DefaultClient
	Policy      Policy                                                                               // the zero value means DefaultPolicy
	Log         zerolog.Logger
}

// MaxLifetime is the longest a subscription on messages without resource data may live (S-7; older pages say 4,230
// minutes, and Graph was seen to hold to those: S-8).
const MaxLifetime = 10_080 * time.Minute

const (
	olderMaxLifetime = 4_200 * time.Minute // a little under the older maximum
	minLifetime      = 45 * time.Minute    // what Graph raises shorter wishes to (S-6)
	deadline         = time.Minute         // of a request to Graph; a creation waits for two validations of 10 s
	longGap          = 7 * 24 * time.Hour  // without push, after which the cursor alone is not trusted
	workers          = 8
	perConnection    = 5 // workers that one connection may occupy, so that a slow one leaves some to the others
)

// Events of lifecycle notifications (L-3).
const (
	reauthorizationRequired = "reauthorizationRequired"
	subscriptionRemoved     = "subscriptionRemoved"
	missed                  = "missed"
)

func (o Options) withDefaults() Options {
	if o.Wants == nil {
		o.Wants = func() []Want { return nil }
	}
	if o.Lifetime == nil {
		o.Lifetime = func(string) time.Duration { return 0 }
	}
	if o.ChangeTypes == "" {
		o.ChangeTypes = "created,updated,deleted"
	}
	if o.CatchUp == nil {
		o.CatchUp = func(uint32, string) {}
	}
	if o.TrueUp == nil {
		o.TrueUp = o.CatchUp
	}
	if o.Paused == nil {
		o.Paused = func(string) string { return "" }
	}
	if o.Tell == nil {
		o.Tell = func(uint32, string, time.Time, event.SubscriptionData) []event.Event { return nil }
	}
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	if o.Policy == (Policy{}) {
		o.Policy = DefaultPolicy
	}
	return o
}

// Room keeps the subscriptions. All its methods are safe for concurrent use, but only one Run or RunOnce may run at a
// time.
type Room struct {
	st              Store
	opts            Options
	log             zerolog.Logger
	http            *http.Client
	notificationURL string
	lifecycleURL    string
	calendar        *calendar
	public          public
	wake            chan struct{}
	pulse           chan struct{} // from Run, whenever it waits
	forgotAt        time.Time     // owned by scan

	mu          sync.Mutex // guards everything below; never held across a commit or a call of Graph
	units       map[unitKey]*unit
	byFeed      map[uint32]*unit // the wanted ones
	known       map[Want]*unit   // so that resources need not be normalized again and again
	connections map[string]*connection
	queue       []job
	running     map[string]int // jobs by connection
	draining    int            // goroutines that do jobs
	errs        []error        // of the storage, not reported yet
}

// New prepares the room with what the store remembers.
func New(st Store, opts Options) *Room {
	r := &Room{
		st: st, opts: opts.withDefaults(), log: opts.Log, http: noRedirects(opts.HTTP), calendar: newCalendar(),
		wake: make(chan struct{}, 1), pulse: make(chan struct{}), units: map[unitKey]*unit{}, byFeed: map[uint32]*unit{}, known: map[Want]*unit{},
		connections: map[string]*connection{}, running: map[string]int{},
	}
	base := strings.TrimRight(opts.PublicURL, "/")
	r.notificationURL, r.lifecycleURL = base+"/graph/notifications", base+"/graph/lifecycle"
	for name := range opts.Graphs {
		r.connections[name] = &connection{}
	}
	for _, sub := range st.Subscriptions() {
		u := r.unit(sub.Connection, sub.Resource)
		u.subs = append(u.subs, sub.ID)
		r.calendar.move(nil, &sub)
	}
	return r
}

// clock is the wall clock: without its monotonic part, which stands still while a machine sleeps.
func clock() time.Time { return time.Now().Round(0).UTC() }

// unit finds or makes a unit. Room.mu is held, or nobody else knows the room yet.
func (r *Room) unit(connection, resource string) *unit {
	key := unitKey{connection, normalize(resource)}
	u := r.units[key]
	if u == nil {
		u = &unit{key: key}
		r.units[key] = u
	}
	return u
}

// Wake makes Run look at once: a lifecycle notification was accepted, or the wants have changed. It never blocks.
func (r *Room) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Ping returns nil when Run gets on, else the cause of ctx.
func (r *Room) Ping(ctx context.Context) error {
	select {
	case <-r.pulse:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the scheduler of subscriptions does not get on: %w", context.Cause(ctx))
	}
}

// Resume goes on with a connection that was paused: what had to wait is done now, and every living subscription is
// reauthorized. It never blocks.
func (r *Room) Resume(connection string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := clock()
	if c := r.connections[connection]; c != nil {
		c.notBefore, c.failures, c.refused = time.Time{}, 0, false
	}
	for key, u := range r.units {
		if key.connection == connection {
			u.notBefore, u.failures, u.resumedAt = time.Time{}, 0, now
		}
	}
	r.Wake()
}

// Run looks every opts.Every for what is due and does it, until ctx is done. It does not wait for a slow answer before
// it looks again.
func (r *Room) Run(ctx context.Context) error {
	tick := time.NewTicker(r.opts.Every)
	defer tick.Stop()
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		r.scan(clock())
		r.start(ctx, &wg)
		if err := r.takeErrors(); err != nil {
			r.log.Error().Err(err).Msg("subscription state not stored; the next look tries again")
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-r.wake:
		case r.pulse <- struct{}{}:
		}
	}
	wg.Wait()
	r.dropQueue()
	return nil
}

// RunOnce does what is due now, and what becomes due by that, and returns when it is done. Graph's refusals are logged
// and tried again later; an error is one of the storage.
func (r *Room) RunOnce(ctx context.Context) error {
	for range 6 {
		if n := r.scan(clock()); n == 0 || ctx.Err() != nil {
			break
		}
		var wg sync.WaitGroup
		r.start(ctx, &wg)
		wg.Wait()
	}
	r.dropQueue()
	return r.takeErrors()
}

// PushState tells whether push is believed to work for a feed, and if not, why in words.
func (r *Room) PushState(feed uint32) (ok bool, reason string) {
	if r.opts.PublicURL == "" {
		return false, "no public URL is configured"
	}
	now := clock()
	r.mu.Lock()
	u := r.byFeed[feed]
	if u == nil {
		r.mu.Unlock()
		return false, "no subscription is wanted"
	}
	reason = u.reason
	sub, live := r.living(u, now)
	var open *store.Lifecycle
	for i := range u.notices {
		if n := &u.notices[i]; live && n.Subscription == sub.ID && !answered(&sub, n.At) {
			open = n
		}
	}
	r.mu.Unlock()
	paused := r.opts.Paused(u.key.connection)
	switch {
	case paused != "":
		return false, "the connection waits: " + paused
	case !live && reason == "":
		return false, "no subscription yet"
	case !live:
		return false, "no subscription: " + reason
	case open != nil && open.Event == subscriptionRemoved:
		return false, "Graph says that it removed the subscription"
	case open != nil && open.Event == reauthorizationRequired && sub.Failures > 0:
		return false, "reauthorization is required, and fails: " + sub.LastError
	}
	if ok, reason, _ := r.public.state(now); !ok {
		return false, reason
	}
	return true, ""
}

// living returns the subscription of a unit that is believed to exist at Graph. Room.mu is held.
func (r *Room) living(u *unit, now time.Time) (store.Subscription, bool) {
	for _, id := range u.subs {
		if sub, ok := r.st.Subscription(id); ok && sub.Live(now) {
			return sub, true
		}
	}
	return store.Subscription{}, false
}

// Replace has the subscription of a feed deleted and made anew, because nothing comes from it although it seems alive;
// at most once in 15 minutes for a feed. It never blocks.
func (r *Room) Replace(feed uint32, reason string) {
	now := clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.byFeed[feed]
	if u == nil || within(u.replacedAt, replaceEvery, now) {
		return
	}
	if _, live := r.living(u, now); !live {
		return
	}
	u.replace, u.replacedAt = reason, now
	r.Wake()
}

// within reports whether now is less than d after t; a clock that was set back does not count.
func within(t time.Time, d time.Duration, now time.Time) bool {
	return !t.IsZero() && !now.Before(t) && now.Before(t.Add(d))
}

func (r *Room) takeErrors() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.Join(r.errs...)
	r.errs = nil
	return err
}
