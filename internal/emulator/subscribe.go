package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// createSubscription answers POST /subscriptions. It validates the notification URLs while the POST is open (N-2).
func (s *Server) createSubscription(q *request) answer {
	j, refused, ok := readSubscription(q.Request)
	if !ok {
		return refused
	}
	s.mu.Lock()
	if a := s.limited(&s.subWrites, "/subscriptions"); a != nil {
		s.mu.Unlock()
		return *a
	}
	sub, refused, ok := s.wanted(q, j)
	s.mu.Unlock()
	if !ok {
		return refused
	}
	urls := []string{sub.notificationURL}
	if sub.lifecycleURL != "" {
		urls = append(urls, sub.lifecycleURL)
	}
	for _, u := range urls {
		if refused := s.validate(q.Context(), u); refused != nil {
			return *refused
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.taken(sub); refused != nil { // another may have come meanwhile
		return *refused
	}
	if sub.folder != nil && sub.folder.gone {
		return answerItemNotFound
	}
	now := time.Now()
	s.subNumber++
	sub.id, sub.creator, sub.number, sub.createdAt = s.guid(), s.creatorID(), s.subNumber, now
	s.subs[sub.id], sub.user.subs[sub.id] = sub, sub
	s.authorized(sub, now)
	s.expiresSoon(sub)
	return s.entity(http.StatusCreated, sub, true).with("Location", s.opts.Root+"/v1.0/subscriptions('"+sub.id+"')")
}

// creatorID stands for the app's service principal.
func (s *Server) creatorID() string { return "a4c7bd34-4f3b-46b7-a25d-b63c1e2a2842" }

// wanted checks the body of a POST. mu is held.
func (s *Server) wanted(q *request, j subscriptionJSON) (*subscription, answer, bool) {
	required := []struct {
		name  string
		value *string
	}{
		{"changeType", j.ChangeType}, {"notificationUrl", j.NotificationURL}, {"resource", j.Resource}, {"expirationDateTime", j.Expiration},
	}
	for _, f := range required {
		if f.value == nil || *f.value == "" {
			return nil, fail(http.StatusBadRequest, "InvalidRequest", f.name+" is a required property for subscription creation"), false
		}
	}
	sub := &subscription{
		resource: *j.Resource, changeType: *j.ChangeType, notificationURL: *j.NotificationURL, tls: "v1_2",
		immutable: q.prefer.immutable,
	}
	if !q.prefer.immutable {
		s.violation(`N-20: mutable ids: subscription.create without Prefer: IdType="ImmutableId"`)
	}
	if refused := s.extras(sub, j); refused != nil {
		return nil, *refused, false
	}
	var ok bool
	if sub.kinds, ok = parseChangeType(sub.changeType); !ok {
		return nil, fail(http.StatusBadRequest, "InvalidRequest", "changeType '"+sub.changeType+"' is not a list of created, updated, deleted."), false
	}
	for name, u := range map[string]string{"notificationUrl": sub.notificationURL, "lifecycleNotificationUrl": sub.lifecycleURL} {
		if u == "" {
			continue
		}
		if refused := s.refuseURL(name, u); refused != nil {
			return nil, *refused, false
		}
	}
	sub.owner = q.token.user
	if refused := s.target(sub, q.token); refused != nil {
		return nil, *refused, false
	}
	expires, refused, ok := s.granted(*j.Expiration, time.Now())
	if !ok {
		return nil, refused, false
	}
	sub.expiresAt = expires
	if refused := s.taken(sub); refused != nil {
		return nil, *refused, false
	}
	return sub, answer{}, true
}

// extras reads the optional properties. mu is held.
func (s *Server) extras(sub *subscription, j subscriptionJSON) *answer {
	no := func(format string, args ...any) *answer {
		a := fail(http.StatusBadRequest, "InvalidRequest", fmt.Sprintf(format, args...))
		return &a
	}
	if j.LifecycleURL != nil {
		sub.lifecycleURL = *j.LifecycleURL
	}
	if j.ClientState != nil {
		sub.clientState = *j.ClientState
	}
	if j.TLS != nil {
		sub.tls = *j.TLS
	}
	switch {
	case sub.clientState == "":
		s.violation("S-12: subscription without clientState")
	case len(sub.clientState) > 128:
		s.violation("S-12: clientState has more than 128 characters")
		return no("clientState must not be longer than 128 characters.")
	}
	switch {
	case !slices.Contains([]string{"v1_0", "v1_1", "v1_2", "v1_3"}, sub.tls):
		return no("latestSupportedTlsVersion '%s' is not valid.", sub.tls)
	case j.QueryOptions != nil:
		s.violation("S-17: notificationQueryOptions is not for Outlook")
		return no("notificationQueryOptions is not supported for this resource.")
	case j.IncludeResourceData != nil && *j.IncludeResourceData, j.EncryptionCertificate != nil, j.EncryptionCertificateI != nil:
		a := fail(http.StatusNotImplemented, "NotImplemented", "The emulator has no rich notifications.")
		return &a
	case j.ID != "", j.ApplicationID != nil, j.CreatorID != nil:
		return no("id, applicationId and creatorId are read-only.")
	}
	return nil
}

func parseChangeType(text string) (kinds []string, ok bool) {
	for k := range strings.SplitSeq(text, ",") {
		k = strings.ToLower(strings.TrimSpace(k))
		if k != created && k != updated && k != deleted {
			return nil, false
		}
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds), true
}

// refuseURL checks a notification URL: https, or http to a host that cannot be on the internet. mu is held.
func (s *Server) refuseURL(name, text string) *answer {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.User != nil, u.Fragment != "":
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && !s.opts.RequireHTTPS && isPrivateHost(u.Hostname()):
		return nil
	}
	a := fail(http.StatusBadRequest, "InvalidRequest", name+" must be an absolute https URL.") // S-4
	return &a
}

// isPrivateHost tells loopback and private addresses, names without a dot, and names that no public DNS may have.
func isPrivateHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()
	}
	host = strings.ToLower(host)
	if !strings.Contains(host, ".") {
		return true
	}
	for _, suffix := range []string{".test", ".example", ".invalid", ".localhost", ".local", ".internal", ".lan", ".home.arpa"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// target reads the resource and finds what it names (S-22 to S-25). mu is held.
func (s *Server) target(sub *subscription, token *tokenInfo) *answer {
	no := func(a answer) *answer { return &a }
	invalid := func(why string) *answer {
		return no(fail(http.StatusBadRequest, "ExtensionError",
			"Operation: Create; Exception: [Status Code: BadRequest; Reason: The value '"+sub.resource+"' of parameter 'Resource' is invalid."+why+"]"))
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(sub.resource, "/"), "?")
	if query != "" && strings.Contains(strings.ToLower(query), "$filter") {
		return no(fail(http.StatusNotImplemented, "NotImplemented", "The emulator has no filtered subscriptions."))
	}
	u, err := url.Parse("/v1.0/" + path)
	if err != nil || strings.Contains(path, "://") {
		return invalid(" It has no scheme, host or version.") // S-2
	}
	parts := segments(u)
	if strings.EqualFold(parts[0].text, "me") {
		if token.user == nil {
			return no(answerNoMe)
		}
		parts = append([]segment{newSegment("users"), newSegment(token.user.id)}, parts[1:]...)
	}
	if len(parts) < 3 || !strings.EqualFold(parts[0].text, "users") {
		return invalid("")
	}
	kind := strings.ToLower(parts[2].text)
	isFolder := kind == "mailfolders" && len(parts) == 5 && strings.EqualFold(parts[4].text, "messages")
	switch {
	case kind == "messages" && len(parts) == 3, isFolder:
	case kind == "events" && len(parts) == 3:
		sub.events = true
	case kind == "calendars", kind == "calendar", kind == "calendarview":
		s.violation("S-27: a subscription on one calendar: only all events of a mailbox can be subscribed to")
		return invalid("")
	case kind == "contacts", kind == "contactfolders":
		return no(fail(http.StatusNotImplemented, "NotImplemented", "The emulator has no contacts."))
	default:
		return invalid("")
	}
	if sub.user, err = s.find(parts[1].text); err != nil {
		return no(fail(http.StatusNotFound, "ResourceNotFound", "Resource '"+parts[1].text+"' does not exist.")) // N-18
	}
	if refused := s.refuseMailbox(sub.user); refused != nil {
		return refused
	}
	if refused := s.maySubscribe(token, sub); refused != nil {
		return refused
	}
	if !isFolder {
		return nil
	}
	id, ok := parts[3].id()
	if !ok {
		return invalid("") // a display name with a space, say
	}
	if sub.folder, err = sub.user.folder(id); err == nil {
		return nil
	}
	if _, err := idEncoding.DecodeString(id); err == nil && len(id) > 20 || isKnownName(id) {
		return no(answerItemNotFound)
	}
	return invalid("") // S-24: a display name
}

// taken refuses a second subscription for the same (S-41), and more than a mailbox may have (S-39). mu is held.
func (s *Server) taken(sub *subscription) *answer {
	s.expire(time.Now())
	if len(sub.user.subs) >= subsPerMailbox {
		a := fail(http.StatusForbidden, "Forbidden", fmt.Sprintf("The limit of %d active subscriptions per mailbox has been reached.", subsPerMailbox))
		return &a
	}
	if s.faults.AllowDuplicates {
		return nil
	}
	for _, other := range sub.user.subs {
		if slices.Equal(other.kinds, sub.kinds) && sameResource(other.resource, sub.resource) {
			a := fail(http.StatusConflict, "ObjectIdentifierInUse", "Subscription Id "+other.id+" already exists for the requested combination")
			return &a
		}
	}
	return nil
}

// sameResource compares without a leading slash and without regard to the case of segment names, ids exactly.
func sameResource(a, b string) bool {
	return canonicalResource(a) == canonicalResource(b)
}

func canonicalResource(r string) string {
	path, query, _ := strings.Cut(strings.Trim(r, "/"), "?")
	parts := segments(&url.URL{Path: "/v1.0/" + path})
	for i := range parts {
		if i%2 == 0 || i == 1 { // names, and the user
			parts[i].text = strings.ToLower(parts[i].text)
		}
		if i == 3 && isKnownName(parts[i].text) {
			parts[i].text = strings.ToLower(parts[i].text)
		}
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.text + "/")
	}
	return b.String() + "?" + query
}

// validationTimeout is how long an endpoint has for the handshake (N-4).
const validationTimeout = 10 * time.Second

// validate shakes hands with an endpoint: POST with a token that it must answer with (N-3, N-4). The token has what
// clients get wrong: spaces, `+`, `:` and `%` (N-5).
func (s *Server) validate(ctx context.Context, endpoint string) *answer {
	no := func(code, message string) *answer {
		a := fail(http.StatusBadRequest, code, message)
		return &a
	}
	s.mu.Lock()
	token := "Validation: Testing client application reachability for subscription Request-Id: " + s.guid() + " a+b 100% 50%2B;ü"
	spaces := "+"
	if s.rng.IntN(2) == 0 {
		spaces = "%20"
	}
	s.mu.Unlock()
	sep := "?"
	if strings.Contains(endpoint, "?") {
		sep = "&"
	}
	target := endpoint + sep + "validationToken=" + strings.ReplaceAll(url.QueryEscape(token), "+", spaces)
	ctx, cancel := context.WithTimeoutCause(ctx, validationTimeout, errors.New("validation timed out"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, http.NoBody)
	if err != nil {
		return no("ValidationError", "The notification URL is not valid.")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("User-Agent", "") // none is sent (W-9c)
	resp, err := s.opts.Delivery.RoundTrip(req)
	if err != nil {
		return failedValidation(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch {
	case err != nil:
		return failedValidation(ctx, err)
	case resp.StatusCode != http.StatusOK:
		text := strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
		return no("ValidationError", "Subscription validation request failed. HTTP status code is '"+text+"'. Notification endpoint must respond with 200 OK to validation request.")
	case mediaType(resp.Header.Get("Content-Type")) != "text/plain":
		s.mu.Lock()
		s.violation("N-4: a validation was answered with another Content-Type than text/plain")
		s.mu.Unlock()
	case !bytes.Equal(body, []byte(token)):
		s.mu.Lock()
		s.violation("N-4: a validation was answered with something else than the token, decoded once")
		s.mu.Unlock()
	default:
		return nil
	}
	return no("ValidationError", "Subscription validation request failed. Notification endpoint must respond with 200 OK to validation request.")
}

func failedValidation(ctx context.Context, err error) *answer {
	a := fail(http.StatusBadRequest, "ValidationError", "HttpRequestException: An error occurred while sending the request. "+clean(err.Error()))
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		a = fail(http.StatusBadRequest, "InvalidRequest", "Subscription validation request timed out.")
	}
	return &a
}
