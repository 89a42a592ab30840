package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What went wrong, one for each way to react. An Error is exactly one of them, or none when the caller's context ended.
var (
	ErrNotFound           = errors.New("not found")                          // gone: the item, the folder, the subscription
	ErrMailboxUnavailable = errors.New("mailbox unavailable")                // unlicensed, soft-deleted, on-premises, unknown: look again after long
	ErrThrottled          = errors.New("throttled")                          // wait Error.RetryAfter, or back off
	ErrResync             = errors.New("delta token expired")                // drop the cursor and start over
	ErrDeltaUnsupported   = errors.New("delta is not supported here")        // list and filter instead
	ErrUnauthorized       = errors.New("unauthorized")                       // a new token was refused as well, or there is none
	ErrForbidden          = errors.New("forbidden")                          // permission, policy or quota: long back-off, alarm
	ErrConflict           = errors.New("conflict")                           // the subscription exists already
	ErrExpiryTooFar       = errors.New("expiry too far in the future")       // ask for less
	ErrValidation         = errors.New("notification URL was not validated") // Graph could not reach us: back off, try again
	ErrBadRequest         = errors.New("bad request")                        // ours to mend; trying again does not help
	ErrCorrupt            = errors.New("item is corrupt in the mailbox")     // skip the item
	ErrForeignLink        = errors.New("link leads away from Graph")         // nothing was sent there
	ErrUnavailable        = errors.New("unavailable")                        // network, 5xx, unreadable answer: back off, smaller pages
)

// errNotGraph marks an error answer whose body is not Graph's: a gateway or proxy spoke (F-4).
var errNotGraph = errors.New("the answer is not Graph's")

// Operations, as Error.Op and Observe name them.
const (
	opDelta        = "messages delta"
	opList         = "list messages"
	opMessage      = "get message"
	opFolder       = "get folder"
	opFoldersDelta = "folders delta"
	opFoldersList  = "list folders"
	opCalendarView = "calendar view delta"
	opEvent        = "get event"
	opCalendars    = "list calendars"
	opCalendar     = "get calendar"
	opTimeZone     = "get time zone"
	opCreate       = "create subscription"
	opRenew        = "renew subscription"
	opReauthorize  = "reauthorize subscription"
	opDelete       = "delete subscription"
	opListSubs     = "list subscriptions"
)

// Error is why a call to Graph did not succeed: an answer with a status of 300 or above, an answer that cannot be read
// (Status 0 with Err), or none.
type Error struct {
	Op         string        // what we were doing, for example "renew subscription"
	Status     int           // HTTP status; 0 when there was no usable answer
	Code       string        // innermost code of the body (F-2); empty when the body was not Graph's
	OuterCode  string        // error.code of the body
	Message    string        // Graph's text; may hold addresses and URLs, so it is never logged and not part of Error()
	RequestID  string        // request-id header; quote it to Microsoft support
	RetryAfter time.Duration // Retry-After header, at most maxRetryAfter; 0 if absent or unreadable
	Location   string        // Location header; only for looking at
	Err        error         // what went wrong below; may be nil

	claims  string // of a claims challenge; not a secret, but of no use to readers
	stopped bool   // the caller's context ended
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("graph: ")
	b.WriteString(e.Op)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " %s", e.Code)
	}
	if e.OuterCode != "" && e.OuterCode != e.Code {
		fmt.Fprintf(&b, " (%s)", e.OuterCode)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, ", wait %v", e.RetryAfter)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " [request-id %s]", e.RequestID)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the one sentinel that tells how to react.
func (e *Error) Is(target error) bool { return target == e.kind() }

// kind judges by status first, then by code without case (F-3).
func (e *Error) kind() error {
	code := strings.ToLower(e.Code)
	switch {
	case e.stopped:
		return nil
	case errors.Is(e.Err, ErrForeignLink), errors.Is(e.Err, ErrBadRequest):
		return nil // Unwrap finds it
	case e.Status == 0:
		return e.withoutStatus()
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0:
		return ErrThrottled
	case e.Status == http.StatusUnauthorized:
		return ErrUnauthorized
	case e.Status == http.StatusGone:
		return ErrResync
	case code == "errorcorruptdata":
		return ErrCorrupt
	case e.Status < 400 || e.Status > 499, errors.Is(e.Err, errNotGraph):
		return ErrUnavailable
	case isMailboxCode(code):
		return ErrMailboxUnavailable
	case e.isDelta() && (isSyncCode(code) || e.says("parameter 'deltatoken' not supported")):
		return ErrResync
	case e.isMailDelta() && code == "errorinvalididmalformed", e.isDelta() && e.says("change tracking is not supported"): // C-12, D-24
		return ErrDeltaUnsupported
	case e.Status == http.StatusNotFound, isItemCode(code):
		return ErrNotFound
	case e.Status == http.StatusForbidden:
		return ErrForbidden
	case e.Status == http.StatusConflict:
		return ErrConflict
	case e.Status == http.StatusRequestTimeout, e.Status == http.StatusLocked, e.Status == http.StatusFailedDependency:
		return ErrUnavailable
	case (e.Op == opCreate || e.Op == opRenew) && (code == "validationerror" || e.says("validation request")):
		return ErrValidation
	case (e.Op == opCreate || e.Op == opRenew) && e.says("expiration") && !e.says("required"):
		return ErrExpiryTooFar
	}
	return ErrBadRequest
}

func (e *Error) withoutStatus() error {
	te, ok := errors.AsType[*tokenError](e.Err)
	if !ok {
		if e.RetryAfter > 0 {
			return ErrThrottled // the mailbox is paused
		}
		return ErrUnavailable
	}
	if _, ok := te.retryable(); ok {
		return ErrUnavailable
	}
	return ErrUnauthorized
}

func (e *Error) isDelta() bool { return e.isMailDelta() || e.Op == opCalendarView }

// isMailDelta: some clouds have no delta for mail; all have it for calendar views (C-11), where a malformed id is one.
func (e *Error) isMailDelta() bool { return e.Op == opDelta || e.Op == opFoldersDelta }

// says looks for words in Graph's text. Texts may change at any time, so this is the last resort, for refusals whose
// code is shared with others that want another reaction: an expiry too far comes as ExtensionError (S-8), a validation
// that timed out as InvalidRequest (N-11), a delta token not understood and a resource without delta as BadRequest
// (D-14, D-24). When the words change, the error becomes ErrBadRequest, which is reported.
func (e *Error) says(words string) bool {
	return e.Status == http.StatusBadRequest && strings.Contains(strings.ToLower(e.Message), words)
}

func isMailboxCode(code string) bool {
	// The last one is the directory's: no such user. It must not look like a deleted message.
	return code == "mailboxnotenabledforrestapi" || code == "errorinvaliduser" || code == "request_resourcenotfound"
}

func isItemCode(code string) bool {
	return code == "erroritemnotfound" || code == "itemnotfound" || code == "errorsyncfoldernotfound"
}

func isSyncCode(code string) bool { // D-14
	switch code {
	case "syncstatenotfound", "syncstateinvalid", "resyncrequired", "invalidsyncstatedata":
		return true
	}
	return false
}

// Retryable reports whether the same call may succeed later by itself, and how long Graph wants us to wait at least
// (0: it did not say, back off).
func Retryable(err error) (wait time.Duration, ok bool) {
	switch {
	case errors.Is(err, ErrThrottled), errors.Is(err, ErrUnavailable), errors.Is(err, ErrValidation):
	default:
		return 0, false
	}
	if te, ok := errors.AsType[*tokenError](err); ok {
		return te.retryable()
	}
	if e, ok := errors.AsType[*Error](err); ok {
		wait = e.RetryAfter
	}
	return wait, true
}

// tokenError is why there was no token.
type tokenError struct{ err error }

func (t *tokenError) Error() string { return "token: " + t.err.Error() }
func (t *tokenError) Unwrap() error { return t.err }

func (t *tokenError) retryable() (time.Duration, bool) {
	var r interface {
		Retryable() (time.Duration, bool)
	}
	if errors.As(t.err, &r) {
		return r.Retryable()
	}
	return 0, false
}

func throttled(op string, wait time.Duration) *Error {
	return &Error{Op: op, RetryAfter: wait, Err: errors.New("Graph asked for patience")}
}

// noAnswer is for a request that brought no answer, or one that could not be read to its end.
func noAnswer(ctx, parent context.Context, op string, err error) *Error {
	e := &Error{Op: op, Err: withoutURL(err)}
	switch {
	case parent.Err() != nil:
		e.Err, e.stopped = context.Cause(parent), true
	case ctx.Err() != nil:
		e.Err = context.Cause(ctx)
	}
	return e
}

const maxErrorBody = 64 << 10

// readError makes an Error of an answer that is not 2xx.
func readError(op string, resp *http.Response) *Error {
	e := &Error{
		Op:         op,
		Status:     resp.StatusCode,
		RequestID:  word(resp.Header.Get("request-id")),
		Location:   resp.Header.Get("Location"),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	if e.Status == http.StatusUnauthorized {
		e.claims = claimsChallenge(resp.Header)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		e.Err = errNotGraph
		return e
	}
	e.readBody(body)
	return e
}

// readBody takes code and message from an error body. An empty body says nothing; one that is not Graph's shape says
// that somebody else answered.
func (e *Error) readBody(body []byte) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return
	}
	var envelope struct {
		Error *errorBody `json:"error"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil || envelope.Error == nil {
		e.Err = errNotGraph
		return
	}
	e.OuterCode, e.Code, e.Message = envelope.Error.Code, envelope.Error.Code, envelope.Error.Message
	for in := envelope.Error; in != nil; in = in.InnerError { // encoding/json matches innererror as well (F-2)
		if in.Code != "" && !isDigits(in.Code) { // throttling repeats the status as an inner code
			e.Code = in.Code
		}
		if e.RequestID == "" {
			e.RequestID = word(in.RequestID)
		}
	}
	e.Code, e.OuterCode = word(e.Code), word(e.OuterCode)
}

type errorBody struct {
	Code       string     `json:"code"`
	Message    string     `json:"message"`
	RequestID  string     `json:"request-id"`
	InnerError *errorBody `json:"innerError"`
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// word keeps a code or id fit for a log line: nobody's text is put there by way of a code.
func word(s string) string {
	if len(s) > 80 {
		s = s[:80]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_.", r):
			return r
		}
		return -1
	}, s)
}

// maxRetryAfter is the longest wait that is taken from Graph: a clock or a gateway gone wrong must not silence a mailbox
// for days.
const maxRetryAfter = time.Hour

// parseRetryAfter reads both forms of the header, seconds and a date (H-6). What cannot be read, or lies in the past,
// is 0.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	var d time.Duration
	if isDigits(s) && s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
