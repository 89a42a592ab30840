// Package emulator is a Microsoft Graph for mail and calendars, with the Entra ID token endpoint beside it, that is strict
// about what clients may do and misbehaves on request. It imports nothing of triggerd's, so that a misspelled field cannot agree
// with itself.
//
// Graph is served under /v1.0, Entra ID under /{tenant}: authorize with consent, token (authorization code, refresh, device
// code, client credentials with secrets, certificates and federated tokens), devicecode, adminconsent, metadata and keys;
// the page for device codes is /devicelogin, the metadata service of an Azure VM /metadata/identity. There are two
// registered apps: a confidential one, which also has the application permissions Mail.Read, Calendars.Read and
// MailboxSettings.Read, and a public one for users.
// Everything is in memory and all time is package time's, so that it also runs in a
// testing/synctest bubble, reached through HandlerTransport.
//
// What the contract forbids is refused with the contract's error where there is one, and always noted as a violation.
// Not emulated: contacts, passwords, rich notifications, $filter inside a subscription's resource, $batch, writing through
// Graph, group calendars, listing events without a window, meetings that move from calendar to calendar, and the slow and
// drop states of an endpoint that answers late (W-25, W-26). The ledgers and the logs of folders and calendars only grow.
//
// # Calendars
//
// Every mailbox has the calendar "Calendar" and those of AddCalendar. A series recurs by the clock of its time zone; the
// id of one date of it holds the date, so that a series moved to other dates has other ids. A date that was changed,
// answered or cancelled alone is an exception, which keeps what was changed in it while it follows its series in the rest;
// when the series moves, its exceptions and deleted dates are regular again. A round of calendarView/delta tells a changed
// series as a whole, dates as stubs, and what vanished from it by its absence (D-36d). Each change of a calendar item is
// notified two to four times, sometimes with a change key that Graph saved in between.
//
// # Control API
//
// People who write workflows against the emulator change its world over HTTP, with JSON and without authentication:
//
//	GET    /emulator/users                               users: id, address, number of messages and meetings
//	POST   /emulator/users                               {"address":"sales@contoso.com"}
//	GET    /emulator/users/{user}/messages               what the mailbox holds
//	POST   /emulator/users/{user}/messages               deliver; Content-Type message/rfc822: a MIME mail; else JSON of
//	                                                     a Mail: {"folder":"inbox","subject":"…","from":{"address":"…"},"body":"…"}
//	PATCH  /emulator/users/{user}/messages/{id}          {"isRead":true,"flag":"flagged","categories":["x"],"subject":"…"}
//	POST   /emulator/users/{user}/messages/{id}/move     {"folder":"archive"}
//	DELETE /emulator/users/{user}/messages/{id}          hard delete
//	POST   /emulator/users/{user}/folders                {"parent":"inbox","name":"Invoices"}
//	GET    /emulator/users/{user}/calendars              calendars: id, name
//	POST   /emulator/users/{user}/calendars              {"name":"Projects"}
//	PUT    /emulator/users/{user}/timeZone               {"timeZone":"W. Europe Standard Time"}
//	GET    /emulator/users/{user}/meetings               single meetings and series; with ?from=…&until=… (&calendar=…)
//	                                                     what takes place
//	POST   /emulator/users/{user}/meetings               add; Content-Type text/calendar: an iCalendar file; else JSON of a
//	                                                     Meeting: {"subject":"…","start":"2026-11-23T09:00:00Z",
//	                                                     "timeZone":"Europe/Berlin","recurrence":{"type":"weekly"}}
//	PATCH  /emulator/users/{user}/meetings/{id}          {"start":"2026-11-23T10:00:00Z","subject":"…","location":"…"}
//	POST   /emulator/users/{user}/meetings/{id}/cancel   the organizer cancels it; it stays as cancelled
//	POST   /emulator/users/{user}/meetings/{id}/respond  {"attendee":"ada@contoso.com","response":"accepted"}; no attendee:
//	                                                     the mailbox itself
//	DELETE /emulator/users/{user}/meetings/{id}          gone from the mailbox; the id of one date changes that date
//	                                                     alone, as does the series' with ?originalStart=…
//	PUT    /emulator/users/{user}/access                 {"access":"allowed|denied|unlicensed"}
//	GET    /emulator/subscriptions                       live subscriptions
//	DELETE /emulator/subscriptions/{id}?tell=true        removed at the server; tell sends subscriptionRemoved
//	POST   /emulator/lifecycle                           {"event":"missed","subscription":"…"}; no subscription: all
//	POST   /emulator/revoke                              {"user":"ada@contoso.com"}: her sign-ins end (50173)
//	POST   /emulator/challenge                           {"user":"…"}: Graph wants new claims of her tokens (CAE)
//	POST   /emulator/interaction                         {"user":"…"}: refreshes end in interaction_required (50076)
//	POST   /emulator/shares                              {"mailbox":"support@contoso.com","with":"ada@contoso.com"}
//	GET    /emulator/faults                              the switches as they are
//	POST   /emulator/faults                              sets the switches that are named: {"loseNotifications":0.5,
//	                                                     "notificationDelay":"3s","expireDeltaTokens":true,
//	                                                     "failNext":{"op":"delta","times":2,"status":503,"retryAfter":"5"}}
//	GET    /emulator/violations                          what clients did although the contract forbids it
//	GET    /emulator/requests                            number of requests by operation
//	GET    /emulator/ledger                              every change made to mail; /emulator/ledger/meetings: to meetings
package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// The registered app and its tenant, unless Options say otherwise.
const (
	DefaultTenant       = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
	DefaultClientID     = "507c3b9a-67b8-463d-88a2-15a8cefb2111"
	DefaultClientSecret = "emulator-secret"
)

// Options are what a Server is made of. The zero value is a well-behaved Graph at http://graph.test.
type Options struct {
	Tenant                 string            // tenant id; default DefaultTenant
	ClientID, ClientSecret string            // the registered confidential app; default DefaultClientID, DefaultClientSecret
	SecondSecret           string            // also good, as while one replaces the other
	ExpiredSecret          string            // refused with 7000222
	PublicClientID         string            // the registered public app; default DefaultPublicClientID
	RedirectURIs           []string          // beside http://localhost with any port and Root/common/oauth2/nativeclient
	StrictRotation         bool              // a refresh token that was replaced revokes all that came from it; Entra lets it live
	WithheldPermissions    []string          // application permissions that the app was not given, for example Calendars.Read
	AdminConsentOnly       bool              // users may not consent (90094)
	BlockDeviceFlow        bool              // Conditional Access blocks the device code flow (53003)
	OtherCloud             bool              // the login endpoint belongs to another cloud than every tenant (900432)
	Root                   string            // base URL the emulator is reached at, for example "http://127.0.0.1:9000": Graph is Root+"/v1.0", login is Root; default "http://graph.test"
	Delivery               http.RoundTripper // sends notifications and validation handshakes; nil: the network
	MaxLifetime            time.Duration     // longest subscription; beyond it 400 (S-7, S-10); default 10,080 minutes
	MinLifetime            time.Duration     // shorter ones are raised to it (S-6); default 45 minutes
	TokenLifetime          time.Duration     // of access tokens; default 1 hour
	PageSize               int               // of delta when no odata.maxpagesize is asked; default 10
	DeliverDelay           time.Duration     // from a change to its notification
	DeltaLag               time.Duration     // how long delta lags behind a change (T-3)
	DeltaTokenAge          time.Duration     // delta and skip tokens older than this are gone (D-11, D-15); 0: they live on
	NoDelta                bool              // a cloud without delta for mail: 400 ErrorInvalidIdMalformed (C-12)
	RequireHTTPS           bool              // refuse http for notification URLs on private and reserved hosts, too
	NoLimits               bool              // no request limits over time (H-2, H-4); four at a time per mailbox stays
	Seed                   int64             // of ids and of every chance
	Log                    zerolog.Logger
}

func (o Options) withDefaults() Options {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&o.Tenant, DefaultTenant)
	set(&o.ClientID, DefaultClientID)
	set(&o.ClientSecret, DefaultClientSecret)
	set(&o.PublicClientID, DefaultPublicClientID)
	set(&o.Root, "http://graph.test")
	o.Root = strings.TrimRight(o.Root, "/")
	if o.Delivery == nil {
		o.Delivery = newDelivery()
	}
	positive := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	positive(&o.MaxLifetime, 10_080*time.Minute)
	positive(&o.MinLifetime, 45*time.Minute)
	positive(&o.TokenLifetime, time.Hour)
	o.MinLifetime = min(o.MinLifetime, o.MaxLifetime)
	if o.PageSize <= 0 {
		o.PageSize = 10
	}
	return o
}

// Server is the emulator. All methods are safe for concurrent use. Nothing is delivered unless Run runs.
type Server struct {
	opts Options
	wake chan struct{} // Run looks again

	mu     sync.Mutex // guards all below and what hangs on it; never held while waiting for anything
	rng    *rand.Rand
	seal   cipher.AEAD // of delta tokens
	users  []*user
	byName map[string]*user // by id and by address, lower case
	faults Faults
	tokens map[string]*tokenInfo // by access token
	subs   map[string]*subscription

	signIns signIns
	queue   outgoing
	strict  strictness
	ledger  []change

	meetingLedger []MeetingChange

	subWrites, subLists window
	nextExpiry          time.Time // no subscription expires before; zero: there is none
	reauthEvery         time.Duration
	deltaGeneration     int
	planned             []*plan // FailNext
	subNumber           int
}

// New makes a server. It starts nothing.
func New(o Options) *Server {
	o = o.withDefaults()
	s := &Server{
		opts: o, wake: make(chan struct{}, 1),
		rng:    rand.New(rand.NewPCG(uint64(o.Seed), 0x7472696767657264)),
		byName: map[string]*user{}, tokens: map[string]*tokenInfo{}, signIns: newSignIns(), subs: map[string]*subscription{},
		queue:  newOutgoing(),
		strict: newStrictness(),
		// Per app and tenant (H-4).
		subWrites: window{length: 20 * time.Second, limit: 500},
		subLists:  window{length: 20 * time.Second, limit: 25},
	}
	key := make([]byte, 32)
	s.fill(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	if s.seal, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	return s
}

// Credentials returns the tenant and the registered app.
func (s *Server) Credentials() (tenant, clientID, clientSecret string) {
	return s.opts.Tenant, s.opts.ClientID, s.opts.ClientSecret
}

// ServeHTTP serves Graph, Entra ID and the control API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/v1.0" || strings.HasPrefix(path, "/v1.0/"):
		s.serveGraph(w, r)
	case strings.HasPrefix(path, "/beta/"):
		s.write(w, r, fail(http.StatusBadRequest, "BadRequest", "The emulator has v1.0 only."))
	case strings.HasSuffix(path, "/oauth2/v2.0/token"):
		s.serveToken(w, r)
	case path == "/metadata/identity/oauth2/token":
		s.serveManagedIdentity(w, r)
	case path == "/devicelogin":
		s.serveDeviceLogin(w, r)
	case path == "/common/oauth2/nativeclient":
		s.render(w, http.StatusOK, "message", page{Title: "Signed in", Text: "Copy the address of this page."})
	case s.serveTenant(w, r):
	case strings.HasPrefix(path, "/emulator/"):
		s.serveControl(w, r)
	default:
		s.write(w, r, fail(http.StatusNotFound, "NotFound", "The emulator serves /v1.0, /{tenant}/oauth2/v2.0/token and /emulator."))
	}
}

// serveTenant serves what every tenant has beside its token endpoint, and reports whether it was that.
func (s *Server) serveTenant(w http.ResponseWriter, r *http.Request) bool {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch rest {
	case "oauth2/v2.0/authorize":
		s.serveAuthorize(w, r, tenant)
	case "oauth2/v2.0/devicecode":
		s.serveDeviceCode(w, r, tenant)
	case "v2.0/adminconsent":
		s.serveAdminConsent(w, r, tenant)
	case "v2.0/.well-known/openid-configuration":
		s.serveMetadata(w, r, tenant)
	case "discovery/v2.0/keys":
		s.serveKeys(w, r)
	default:
		return false
	}
	return true
}

// chance is true with probability p. mu is held.
func (s *Server) chance(p float64) bool { return p > 0 && (p >= 1 || s.rng.Float64() < p) }

func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
