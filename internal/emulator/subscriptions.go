package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	subsPerMailbox = 1000 // S-39
	subsPage       = 100
	// apart is how long PATCH and reauthorize of one subscription must keep away from each other.
	apart = 10 * time.Minute
)

// subscription is guarded by Server.mu.
type subscription struct {
	id, resource, changeType         string // as given
	notificationURL, lifecycleURL    string
	clientState, tls, creator        string
	user                             *user
	owner                            *user   // who signed in to make it; nil: the app
	folder                           *folder // nil: all messages of the mailbox
	events                           bool    // all calendar items of the mailbox, no messages (S-26)
	kinds                            []string
	immutable                        bool // fixed at creation (N-20)
	expiresAt, createdAt             time.Time
	patchedAt, reauthorizedAt        time.Time // last PATCH, last reauthorize
	authorizedAt, nextReauth         time.Time // last of create, PATCH, reauthorize; when to ask again
	renewals, reauthorized, notified int
	number                           int
}

// SubscriptionInfo is a live subscription.
type SubscriptionInfo struct {
	ID              string    `json:"id"`
	User            string    `json:"user"` // id
	Resource        string    `json:"resource"`
	ChangeType      string    `json:"changeType"`
	NotificationURL string    `json:"notificationUrl"`
	LifecycleURL    string    `json:"lifecycleNotificationUrl"`
	ClientState     string    `json:"-"`
	CreatedAt       time.Time `json:"createdAt"`
	ExpiresAt       time.Time `json:"expiresAt"`
	Renewals        int       `json:"renewals"`     // PATCHes
	Reauthorized    int       `json:"reauthorized"` // calls of reauthorize
	Notified        int       `json:"notified"`     // items delivered
}

// Subscriptions lists what is live, oldest first.
func (s *Server) Subscriptions() []SubscriptionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []SubscriptionInfo
	for _, sub := range s.live() {
		out = append(out, SubscriptionInfo{
			ID: sub.id, User: sub.user.id, Resource: sub.resource, ChangeType: sub.changeType, NotificationURL: sub.notificationURL,
			LifecycleURL: sub.lifecycleURL, ClientState: sub.clientState, CreatedAt: sub.createdAt.UTC(), ExpiresAt: sub.expiresAt.UTC(),
			Renewals: sub.renewals, Reauthorized: sub.reauthorized, Notified: sub.notified,
		})
	}
	return out
}

// live drops what has expired and lists the rest, oldest first. mu is held.
func (s *Server) live() []*subscription {
	s.expire(time.Now())
	out := make([]*subscription, 0, len(s.subs))
	for _, sub := range s.subs {
		out = append(out, sub)
	}
	slices.SortFunc(out, func(a, b *subscription) int { return a.number - b.number })
	return out
}

// expire drops subscriptions whose time is over; nothing is sent. mu is held.
func (s *Server) expire(now time.Time) {
	if s.nextExpiry.IsZero() || now.Before(s.nextExpiry) {
		return
	}
	s.nextExpiry = time.Time{}
	for _, sub := range s.subs {
		if !now.Before(sub.expiresAt) {
			s.drop(sub)
			continue
		}
		s.expiresSoon(sub)
	}
}

func (s *Server) expiresSoon(sub *subscription) {
	if s.nextExpiry.IsZero() || sub.expiresAt.Before(s.nextExpiry) {
		s.nextExpiry = sub.expiresAt
	}
}

func (s *Server) drop(sub *subscription) {
	delete(s.subs, sub.id)
	delete(sub.user.subs, sub.id)
}

// routeSubscription finds who serves a request below /subscriptions.
func (s *Server) routeSubscription(q *request, path []segment) func(*Server, *request) answer {
	op := func(name string, serve func(*Server, *request) answer) func(*Server, *request) answer {
		q.op = "subscription." + name
		return serve
	}
	if len(path) > 0 {
		q.item = path[0]
	}
	switch {
	case len(path) == 0 && q.Method == http.MethodPost:
		return op("create", (*Server).createSubscription)
	case len(path) == 0 && q.Method == http.MethodGet:
		return op("list", (*Server).listSubscriptions)
	case len(path) == 1 && q.Method == http.MethodGet:
		return op("get", (*Server).getSubscription)
	case len(path) == 1 && q.Method == http.MethodPatch:
		return op("renew", (*Server).renewSubscription)
	case len(path) == 1 && q.Method == http.MethodDelete:
		return op("delete", (*Server).deleteSubscription)
	case len(path) == 2 && strings.EqualFold(path[1].text, "reauthorize") && q.Method == http.MethodPost:
		return op("reauthorize", (*Server).reauthorizeSubscription)
	case len(path) > 2 || len(path) == 2 && !strings.EqualFold(path[1].text, "reauthorize"):
		return refuse(noSegment(path[len(path)-1].text))
	}
	return refuse(answerMethod)
}

// subscriptionJSON is the body of POST and PATCH, read strictly, and of the answers.
type subscriptionJSON struct {
	Context                string  `json:"@odata.context,omitempty"`
	ODataType              string  `json:"@odata.type,omitempty"`
	ID                     string  `json:"id,omitempty"`
	Resource               *string `json:"resource"`
	ApplicationID          *string `json:"applicationId"`
	ChangeType             *string `json:"changeType"`
	ClientState            *string `json:"clientState"`
	NotificationURL        *string `json:"notificationUrl"`
	QueryOptions           *string `json:"notificationQueryOptions"`
	ContentType            *string `json:"notificationContentType"`
	LifecycleURL           *string `json:"lifecycleNotificationUrl"`
	Expiration             *string `json:"expirationDateTime"`
	CreatorID              *string `json:"creatorId"`
	IncludeResourceData    *bool   `json:"includeResourceData"`
	TLS                    *string `json:"latestSupportedTlsVersion"`
	EncryptionCertificate  *string `json:"encryptionCertificate"`
	EncryptionCertificateI *string `json:"encryptionCertificateId"`
	URLAppID               *string `json:"notificationUrlAppId"`
}

// json shows a subscription as Graph does, with the fields that are null.
func (s *Server) json(sub *subscription, context string, withState bool) subscriptionJSON {
	orNull := func(v string) *string {
		if v == "" {
			return nil
		}
		return &v
	}
	expires := sub.expiresAt.UTC().Format("2006-01-02T15:04:05.0000000Z")
	j := subscriptionJSON{
		Context: context, ID: sub.id, Resource: &sub.resource, ApplicationID: &s.opts.ClientID, ChangeType: &sub.changeType,
		NotificationURL: &sub.notificationURL, LifecycleURL: orNull(sub.lifecycleURL), Expiration: &expires,
		CreatorID: &sub.creator, TLS: &sub.tls,
	}
	if withState { // S-45
		j.ClientState = orNull(sub.clientState)
	}
	return j
}

func (s *Server) entity(status int, sub *subscription, withState bool) answer {
	b, err := json.Marshal(s.json(sub, s.opts.Root+"/v1.0/$metadata#subscriptions/$entity", withState))
	if err != nil {
		panic(err) // strings
	}
	return answer{status: status, body: b}
}

// readSubscription reads a body; names that Graph does not know make it unreadable.
func readSubscription(r *http.Request) (j subscriptionJSON, refused answer, ok bool) {
	body, err := readBody(r)
	if err != nil {
		return j, fail(http.StatusBadRequest, "BadRequest", "The request body could not be read."), false
	}
	if mediaType(r.Header.Get("Content-Type")) != "application/json" { // N-14
		return j, fail(http.StatusBadRequest, "InvalidRequest", "expirationDateTime is a required property for subscription creation"), false
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return j, answerUnprocessable, false
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return j, answerUnprocessable, false
	}
	return j, answer{}, true
}

var answerUnprocessable = fail(http.StatusBadRequest, "InvalidRequest",
	"Could not process subscription creation payload. Are all property names spelled and camelCased properly? Also are the datetimes in correct format.")

func mediaType(contentType string) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	return t
}

// readBody reads a request's body, at most 4 MB.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 4<<20+1))
	if err == nil && len(b) > 4<<20 {
		err = errors.New("the body is too large")
	}
	return b, err
}

// limited counts a request to the subscription service and refuses it when there were too many (H-4). mu is held.
func (s *Server) limited(w *window, what string) *answer {
	if wait, full := w.full(time.Now()); full && !s.opts.NoLimits {
		s.violation("H-4: more than %d requests in %v to %s", w.limit, w.length, what)
		a := throttled(wait)
		return &a
	}
	return nil
}

// findSub looks up the subscription in the path. mu is held.
func (s *Server) findSub(q *request) *subscription {
	s.expire(time.Now())
	sub := s.subs[strings.ToLower(q.item.text)]
	if sub == nil || !q.token.visible(sub) {
		return nil
	}
	return sub
}

// listSubscriptions answers GET /subscriptions, without any OData option, clientState never shown (S-45).
func (s *Server) listSubscriptions(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.limited(&s.subLists, "GET /subscriptions"); a != nil {
		return *a
	}
	if bad := s.checkQuery(q, "$skiptoken"); bad != nil {
		return *bad
	}
	after := 0
	if text, given := option(q.query, "$skiptoken"); given {
		n, err := strconv.Atoi(strings.TrimPrefix(text, "sub-"))
		if err != nil {
			s.violation("D-2: the next link of GET /subscriptions was changed")
			return fail(http.StatusBadRequest, "BadRequest", "Badly formed token.")
		}
		after = n
	}
	page := struct {
		Context string             `json:"@odata.context"`
		Value   []subscriptionJSON `json:"value"`
		Next    string             `json:"@odata.nextLink,omitempty"`
	}{Context: s.opts.Root + "/v1.0/$metadata#subscriptions", Value: []subscriptionJSON{}}
	last := 0
	for _, sub := range s.live() {
		if !q.token.visible(sub) {
			continue
		}
		if sub.number <= after {
			continue
		}
		if len(page.Value) == subsPage {
			page.Next = fmt.Sprintf("%s/v1.0/subscriptions?$skiptoken=sub-%d", s.nextRoot(), last)
			break
		}
		page.Value, last = append(page.Value, s.json(sub, "", false)), sub.number
	}
	b, err := json.Marshal(page)
	if err != nil {
		panic(err) // strings
	}
	return ok(b)
}

func (s *Server) getSubscription(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.findSub(q)
	if sub == nil {
		return answerSubNotFound
	}
	return s.entity(http.StatusOK, sub, false)
}

func (s *Server) deleteSubscription(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.limited(&s.subWrites, "/subscriptions"); a != nil {
		return *a
	}
	sub := s.findSub(q)
	if sub == nil {
		return answerSubNotFound
	}
	s.drop(sub)
	return answer{status: http.StatusNoContent}
}

// reauthorizeSubscription answers POST /subscriptions/{id}/reauthorize.
func (s *Server) reauthorizeSubscription(q *request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.findSub(q)
	if sub == nil {
		return answerSubNotFound
	}
	now := time.Now()
	if !sub.patchedAt.IsZero() && now.Sub(sub.patchedAt) < apart {
		s.violation("R-8: PATCH and reauthorize of %s within 10 minutes", sub.id)
	}
	if refused := s.refuseMailbox(sub.user); refused != nil { // L-11
		return *refused
	}
	sub.reauthorizedAt = now
	sub.reauthorized++
	s.authorized(sub, now)
	return answer{status: http.StatusNoContent}
}

// renewSubscription answers PATCH /subscriptions/{id}.
func (s *Server) renewSubscription(q *request) answer {
	j, refused, ok := readSubscription(q.Request)
	if !ok {
		return refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.limited(&s.subWrites, "/subscriptions"); a != nil {
		return *a
	}
	sub := s.findSub(q)
	if sub == nil {
		return answerSubNotFound
	}
	switch {
	case j.Resource != nil, j.ChangeType != nil, j.ClientState != nil, j.LifecycleURL != nil, j.IncludeResourceData != nil, j.TLS != nil:
		s.violation("R-4: PATCH of more than expirationDateTime, notificationUrl and the certificate")
		return fail(http.StatusBadRequest, "InvalidRequest", "Only expirationDateTime and notificationUrl can be updated.")
	case j.Expiration == nil && j.NotificationURL == nil:
		s.violation("R-2: PATCH without expirationDateTime or notificationUrl")
		return fail(http.StatusBadRequest, "InvalidRequest", "expirationDateTime or notificationUrl is required for subscription update")
	}
	now := time.Now()
	if !sub.reauthorizedAt.IsZero() && now.Sub(sub.reauthorizedAt) < apart {
		s.violation("R-8: PATCH and reauthorize of %s within 10 minutes", sub.id)
	}
	if refused := s.refuseMailbox(sub.user); refused != nil {
		return *refused
	}
	expires := sub.expiresAt
	if j.Expiration != nil {
		if expires, refused, ok = s.granted(*j.Expiration, now); !ok {
			return refused
		}
	}
	if j.NotificationURL != nil && *j.NotificationURL != sub.notificationURL {
		if refused := s.refuseURL("notificationUrl", *j.NotificationURL); refused != nil {
			return *refused
		}
		s.mu.Unlock()
		refused := s.validate(q.Context(), *j.NotificationURL)
		s.mu.Lock()
		if refused != nil {
			return *refused
		}
		if s.subs[sub.id] != sub {
			return answerSubNotFound
		}
		sub.notificationURL = *j.NotificationURL
	}
	sub.expiresAt, sub.patchedAt = expires, now
	sub.renewals++
	s.authorized(sub, now)
	s.expiresSoon(sub)
	s.poke()
	return s.entity(http.StatusOK, sub, true)
}

// authorized binds a subscription to the token of the request.
func (s *Server) authorized(sub *subscription, now time.Time) {
	sub.authorizedAt, sub.nextReauth = now, time.Time{}
	if s.reauthEvery > 0 {
		sub.nextReauth = now.Add(s.reauthEvery)
	}
	s.poke()
}

// granted reads an expiry and says what becomes of it (S-6 to S-11). mu is held.
func (s *Server) granted(text string, now time.Time) (at time.Time, refused answer, ok bool) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		s.violation("S-11: expirationDateTime is not a time with Z or an offset")
		return at, answerUnprocessable, false
	}
	if at.After(now.Add(s.opts.MaxLifetime)) {
		return at, fail(http.StatusBadRequest, "ExtensionError",
			fmt.Sprintf("Subscription expiration can only be %d minutes in the future.", s.opts.MaxLifetime/time.Minute)), false
	}
	if s.faults.GrantAtMost > 0 {
		at = earlier(at, now.Add(s.faults.GrantAtMost))
	}
	if at.Before(now.Add(s.opts.MinLifetime)) {
		at = now.Add(s.opts.MinLifetime)
	}
	return at, answer{}, true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// refuseMailbox is what a subscription gets when its mailbox may not be read (N-16, N-17). mu is held.
func (s *Server) refuseMailbox(u *user) *answer {
	switch u.access {
	case Denied:
		a := fail(http.StatusForbidden, "ExtensionError", "Operation: Create; Exception: [Status Code: Forbidden; Reason: Forbidden]")
		return &a
	case Unlicensed:
		a := fail(http.StatusNotFound, "ExtensionError", "Operation: Create; Exception: [Status Code: NotFound; Reason: REST API is not yet supported for this mailbox.]")
		return &a
	}
	return nil
}
