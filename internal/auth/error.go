package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Class says who can mend a failed sign-in.
type Class string

// The classes. They follow `error` and the HTTP status, never AADSTS numbers, which change.
const (
	Retry    Class = "retry"    // it mends itself
	Operator Class = "operator" // the configuration or the app registration must change
)

// Error is a failed sign-in. It holds neither secret nor the answer's text.
type Error struct {
	Class         Class
	Code          string        // OAuth error, for example invalid_client; "credential" when ours cannot be read; empty when the answer was not OAuth's
	Status        int           // HTTP status; 0 when there was no answer
	AADSTS        int           // Entra's number, for looking it up
	CorrelationID string        // quote it to Microsoft support
	Hint          string        // what to do
	RetryAfter    time.Duration // how long the endpoint wants to be left alone; 0: it did not say
	Err           error         // what happened when there was no answer
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("sign-in")
	if e.Status != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.AADSTS != 0 {
		fmt.Fprintf(&b, " AADSTS%d", e.AADSTS)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	if e.CorrelationID != "" {
		b.WriteString(" (correlation " + e.CorrelationID + ")")
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the failure mends itself, and how long to wait at least.
func (e *Error) Retryable() (time.Duration, bool) { return e.RetryAfter, e.Class == Retry }

// classify turns what x/oauth2 returns, whose text holds the raw answer, into an Error.
func classify(err error, now time.Time) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	re, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return &Error{Class: Retry, Err: harmless(err)}
	}
	e := &Error{Class: Retry, Code: word(re.ErrorCode)}
	if re.Response != nil {
		e.Status = re.Response.StatusCode
		e.RetryAfter = retryAfter(re.Response.Header.Get("Retry-After"), now)
	}
	e.readBody(re.Body)
	switch {
	case e.AADSTS == 50196:
		e.RetryAfter, e.Hint = max(e.RetryAfter, 5*time.Minute), "Entra takes the app for a client in a loop: does something else use the same app registration?"
	case e.Status == http.StatusTooManyRequests:
		if e.RetryAfter == 0 {
			e.RetryAfter = time.Minute
		}
	case e.Status >= 500:
	case operatorCodes[e.Code]:
		e.Class, e.Hint = Operator, e.hint()
	case e.Code == "":
		e.Hint = "the answer is not Entra's: compare the cloud's login URL, and look at proxies in between"
	}
	return e
}

// operatorCodes are the OAuth errors that trying again does not mend. The last four ask for a user, and there is none.
var operatorCodes = map[string]bool{
	"invalid_client": true, "unauthorized_client": true, "invalid_request": true, "invalid_scope": true, "invalid_resource": true,
	"unsupported_grant_type": true,
	"invalid_grant":          true, "interaction_required": true, "consent_required": true, "login_required": true,
}

// readBody takes from Entra's answer what helps support and the choice of a hint.
func (e *Error) readBody(raw []byte) {
	var body struct {
		Codes       []int  `json:"error_codes"`
		Correlation string `json:"correlation_id"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return
	}
	if len(body.Codes) > 0 {
		e.AADSTS = body.Codes[0]
	}
	e.CorrelationID = word(body.Correlation)
}

// hint says what to change, by Entra's number where it is known. Numbers change, so nothing else hangs on them.
func (e *Error) hint() string {
	switch e.AADSTS {
	case 7000215, 7000218:
		return "the client secret is wrong: put its value, not its id, into client_secret_file"
	case 7000222:
		return "the client secret has expired: make a new one and put it into client_secret_file"
	case 700025:
		return "the app registration is for public clients: make one with a client secret"
	case 700016, 700011, 70001:
		return "the app registration is not in this tenant: compare client_id and tenant"
	case 7000112:
		return "the app is disabled in this tenant: ask the Entra administrator"
	case 90002, 90038, 900382, 900432, 90051:
		return "the tenant is not known here: compare tenant and cloud"
	case 50194, 9001023:
		return "the app needs a tenant of its own: write its id into tenant"
	case 500011, 70011, 28002, 650057:
		return "Graph is not known to this tenant under that name: compare cloud and tenant"
	case 65001, 90094, 90095:
		return "an administrator must consent to the app's permissions"
	case 53000, 53001, 53003, 530032:
		return "a Conditional Access policy blocks the app: ask the Entra administrator, quoting the correlation id"
	}
	return "the login endpoint refuses the app registration: compare cloud, tenant, client_id and secret"
}

// word keeps what can be an error code or a GUID, so that no answer writes into a log.
func word(s string) string {
	if len(s) > 64 {
		return ""
	}
	for _, r := range s {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return ""
		}
	}
	return s
}

// harmless is an error without URL and without what the answer said.
func harmless(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	if strings.HasPrefix(err.Error(), "oauth2: ") { // may quote the answer
		return errors.New("the login endpoint's answer cannot be read")
	}
	return err
}

// retryAfter reads seconds or a date (H-6); rubbish is 0.
func retryAfter(v string, now time.Time) time.Duration {
	const most = time.Hour
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, most)
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return min(t.Sub(now), most)
	}
	return 0
}
