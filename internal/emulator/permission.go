package emulator

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"
)

// authorize checks the access token and tells what it is good for.
func (s *Server) authorize(r *http.Request) (*tokenInfo, answer, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); token == "" || !strings.EqualFold(scheme, "Bearer") {
		return nil, answerTokenEmpty, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.tokens[token]
	switch {
	case info == nil:
		return nil, answerTokenUnknown, false
	case !time.Now().Before(info.expires):
		return nil, answerTokenExpired, false
	case info.user != nil && info.user.challenge != "" && !info.answered:
		return nil, challenge(info.user.challenge), false
	}
	return info, answer{}, true
}

// challenge demands claims (continuous access evaluation).
func challenge(claims string) answer {
	return fail(http.StatusUnauthorized, "InvalidAuthenticationToken", "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp").
		with("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", errorDescription="Continuous access evaluation", error="insufficient_claims", claims="`+base64.StdEncoding.EncodeToString([]byte(claims))+`"`)
}

// area is what a permission opens; permissions are named after it.
type area string

const (
	mailArea     area = "Mail"
	calendarArea area = "Calendars"
	settingsArea area = "MailboxSettings"
)

// own reports whether the token may read what is the signed-in user's own.
func (t *tokenInfo) own(a area) bool {
	name := strings.ToLower(string(a))
	return t.scopes[name+".read"] || t.scopes[name+".readwrite"]
}

// shared reports whether the token may also read what was shared with the user.
func (t *tokenInfo) shared(a area) bool { return t.scopes[strings.ToLower(string(a))+".read.shared"] }

// withheld reports whether the app was not given a permission.
func (s *Server) withheld(a area) bool {
	return slices.ContainsFunc(s.opts.WithheldPermissions, func(p string) bool { return strings.EqualFold(p, string(a)+".Read") })
}

// mayRead checks what a token allows in a mailbox: an app everything that is not denied, a user the own mailbox with
// Mail.Read or Calendars.Read, and somebody else's with Mail.Read.Shared or Calendars.Read.Shared if it was shared (P-10).
// mu is held.
func (s *Server) mayRead(q *request, u *user) (answer, bool) {
	t, a := q.token, q.area
	if a == "" {
		a = mailArea
	}
	switch {
	case t.app && s.withheld(a):
		return answerReadOnly, false
	case t.app:
		return answer{}, true
	case u == t.user && (t.own(a) || t.shared(a)):
		return answer{}, true
	case u == t.user:
		return answerAccessDenied, false
	case !t.shared(a) || !u.sharedWith[t.user]:
		return answerAccessDenied, false
	}
	return answer{}, true
}

// maySubscribe checks who may subscribe to a mailbox: a user to the own one only (P-6), with a permission that is not a
// shared one (P-7). mu is held.
func (s *Server) maySubscribe(t *tokenInfo, sub *subscription) *answer {
	a := mailArea
	if sub.events {
		a = calendarArea
	}
	switch {
	case t.app && !s.withheld(a):
		return nil
	case !t.app && sub.user == t.user && t.own(a):
		return nil
	case !t.app:
		s.violation("P-6, P-7: a subscription for a user on somebody else's mailbox, or with a shared permission")
	}
	no := fail(http.StatusForbidden, "ExtensionError", "Operation: Create; Exception: [Status Code: Forbidden; Reason: Access is denied. Check credentials and try again.]")
	return &no
}

// visible reports whether a token can see a subscription: an app those of the app, a user the own ones. mu is
// held.
func (t *tokenInfo) visible(sub *subscription) bool {
	return t.app && sub.owner == nil || !t.app && sub.owner == t.user
}
