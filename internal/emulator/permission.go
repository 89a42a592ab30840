package emulator

import (
	"encoding/base64"
	"net/http"
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

// mayRead checks what a token allows in a mailbox: an app everything that is not denied, a user the own mailbox with
// Mail.Read, and somebody else's with Mail.Read.Shared if it was shared (P-10). mu is held.
func (q *request) mayRead(u *user) (answer, bool) {
	t := q.token
	switch {
	case t.app:
		return answer{}, true
	case u == t.user && (t.scopes["mail.read"] || t.scopes["mail.readwrite"] || t.scopes["mail.read.shared"]):
		return answer{}, true
	case u == t.user:
		return answerAccessDenied, false
	case !t.scopes["mail.read.shared"] || !u.sharedWith[t.user]:
		return answerAccessDenied, false
	}
	return answer{}, true
}

// maySubscribe checks who may subscribe to a mailbox: a user to the own one only (P-6), with a permission that is not a
// shared one (P-7). mu is held.
func (s *Server) maySubscribe(t *tokenInfo, u *user) *answer {
	if t.app || u == t.user && (t.scopes["mail.read"] || t.scopes["mail.readwrite"]) {
		return nil
	}
	s.violation("P-6, P-7: a subscription for a user on somebody else's mailbox, or with a shared permission")
	a := fail(http.StatusForbidden, "ExtensionError", "Operation: Create; Exception: [Status Code: Forbidden; Reason: Access is denied. Check credentials and try again.]")
	return &a
}

// visible reports whether a token can see a subscription: an app those of the app, a user the own ones. mu is
// held.
func (t *tokenInfo) visible(sub *subscription) bool {
	return t.app && sub.owner == nil || !t.app && sub.owner == t.user
}
