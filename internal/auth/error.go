package auth

import (
	"context"
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
	Code          string // OAuth error, e.g. invalid_client; empty when the answer was not OAuth's
	Status        int    // HTTP status; 0 when there was no answer
	AADSTS        int    // Entra's number, for looking it up
	CorrelationID string // quote it to Microsoft support
	Hint          string // what to do
	RetryAfter    time.Duration
	Err           error // what happened when there was no answer
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
func classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	re, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return &Error{Class: Retry, Err: withoutURL(err)}
	}
	e := &Error{Class: Retry, Code: word(re.ErrorCode)}
	if re.Response != nil {
		e.Status = re.Response.StatusCode
		e.RetryAfter = retryAfter(re.Response.Header.Get("Retry-After"), time.Now())
	}
	var body struct {
		Codes       []int  `json:"error_codes"`
		Correlation string `json:"correlation_id"`
	}
	if json.Unmarshal(re.Body, &body) == nil {
		if len(body.Codes) > 0 {
			e.AADSTS = body.Codes[0]
		}
		e.CorrelationID = word(body.Correlation)
	}
	switch e.Code {
	case "invalid_client", "unauthorized_client", "invalid_request", "invalid_scope", "invalid_resource", "unsupported_grant_type", "invalid_grant":
		if e.Status < 500 && e.Status != http.StatusTooManyRequests {
			e.Class, e.Hint = Operator, e.hint()
		}
	}
	return e
}

// hint says what to change, by Entra's number where it is known.
func (e *Error) hint() string {
	switch e.AADSTS {
	case 7000215, 7000218:
		return "the client secret is wrong: put its value, not its id, into client_secret_file"
	case 7000222:
		return "the client secret has expired: make a new one and put it into client_secret_file"
	case 700016:
		return "the app registration is not in this tenant: compare client_id and tenant"
	case 90002, 90038, 900432, 90051:
		return "the tenant is not known here: compare tenant and cloud"
	case 53003, 53000:
		return "a Conditional Access policy blocks the app: ask the Entra administrator"
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

func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer from the login endpoint")
	}
	if strings.Contains(err.Error(), "oauth2: ") { // may quote the answer
		return errors.New("the login endpoint's answer cannot be read")
	}
	return err
}

// retryAfter reads seconds or a date (H-6); rubbish is 0.
func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, time.Hour)
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return min(t.Sub(now), time.Hour)
	}
	return 0
}
