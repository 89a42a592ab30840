package graph

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var sentinels = []error{ErrNotFound, ErrMailboxUnavailable, ErrThrottled, ErrResync, ErrDeltaUnsupported, ErrUnauthorized, ErrForbidden,
	ErrConflict, ErrExpiryTooFar, ErrValidation, ErrBadRequest, ErrCorrupt, ErrForeignLink, ErrUnavailable}

// is fails unless err is want and no other sentinel.
func is(t *testing.T, err, want error) {
	t.Helper()
	for _, s := range sentinels {
		if got := errors.Is(err, s); got != (s == want) {
			t.Errorf("errors.Is(%v, %q) = %v, want only %v", err, s, got, want)
		}
	}
}

func TestRecordedErrors(t *testing.T) {
	tests := map[string]struct {
		op   string
		want error
		code string
		wait time.Duration
	}{
		"error-400-delta-not-supported.json":            {opDelta, ErrDeltaUnsupported, "BadRequest", 0},
		"error-400-expiration-missing.json":             {opCreate, ErrBadRequest, "InvalidRequest", 0},
		"error-400-expiration-too-far.json":             {opCreate, ErrExpiryTooFar, "ExtensionError", 0},
		"error-400-folder-name-invalid.json":            {opCreate, ErrBadRequest, "ExtensionError", 0},
		"error-400-id-malformed.json":                   {opDelta, ErrDeltaUnsupported, "ErrorInvalidIdMalformed", 0},
		"error-400-payload-unparsable.json":             {opCreate, ErrBadRequest, "InvalidRequest", 0},
		"error-400-slash-in-id.json":                    {opMessage, ErrBadRequest, "RequestBroker--ParseUri", 0},
		"error-400-validation-forbidden.json":           {opCreate, ErrValidation, "ValidationError", 0},
		"error-400-validation-not-200-headers.json":     {opCreate, ErrValidation, "ValidationError", 0},
		"error-400-validation-not-200.json":             {opCreate, ErrValidation, "ValidationError", 0},
		"error-400-validation-timeout.json":             {opCreate, ErrValidation, "InvalidRequest", 0},
		"error-400-validation-tls.json":                 {opCreate, ErrValidation, "ValidationError", 0},
		"error-401-token-empty.json":                    {opMessage, ErrUnauthorized, "InvalidAuthenticationToken", 0},
		"error-401-token-malformed.json":                {opMessage, ErrUnauthorized, "InvalidAuthenticationToken", 0},
		"error-403-app-access-policy.json":              {opDelta, ErrForbidden, "ErrorAccessDenied", 0},
		"error-403-authorization-requestdenied.json":    {opDelta, ErrForbidden, "Authorization_RequestDenied", 0},
		"error-403-extensionerror-forbidden.json":       {opCreate, ErrForbidden, "ExtensionError", 0},
		"error-404-extensionerror-mailbox.json":         {opCreate, ErrNotFound, "ExtensionError", 0},
		"error-404-itemnotfound.json":                   {opMessage, ErrNotFound, "ErrorItemNotFound", 0},
		"error-404-mailboxnotenabled.json":              {opMessage, ErrMailboxUnavailable, "MailboxNotEnabledForRESTAPI", 0},
		"error-404-subscription-gone.json":              {opRenew, ErrNotFound, "ResourceNotFound", 0},
		"error-409-duplicate-subscription.json":         {opCreate, ErrConflict, "ObjectIdentifierInUse", 0},
		"error-410-resyncrequired.json":                 {opDelta, ErrResync, "resyncRequired", 0},
		"error-410-syncstatenotfound.json":              {opDelta, ErrResync, "SyncStateNotFound", 0},
		"error-429-mailboxconcurrency.json":             {opMessage, ErrThrottled, "ApplicationThrottled", 0},
		"error-429-toomanyrequests.json":                {opMessage, ErrThrottled, "TooManyRequests", 10 * time.Second},
		"error-500-api-quarantined.json":                {opDelta, ErrUnavailable, "ErrorApiQuarantined", 0},
		"error-500-extensionerror-task-canceled.json":   {opCreate, ErrUnavailable, "ExtensionError", 0},
		"error-503-extensionerror-backend-unknown.json": {opCreate, ErrUnavailable, "ExtensionError", 0},
		"error-503-extensionerror-stale.json":           {opCreate, ErrUnavailable, "ExtensionError", 0},
		"error-envelope.json":                           {opMessage, ErrBadRequest, "invalidRange", 0},
	}
	files, err := filepath.Glob("testdata/error-*.json")
	if err != nil || len(files) != len(tests) {
		t.Fatalf("%d payloads, %d cases: %v", len(files), len(tests), err)
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			e := readError(want.op, recordedAnswer(t, name))
			is(t, e, want.want)
			if e.Code != want.code || e.RetryAfter != want.wait {
				t.Errorf("code %q, wait %v, want %q, %v", e.Code, e.RetryAfter, want.code, want.wait)
			}
			if e.Message == "" || strings.Contains(e.Error(), e.Message) {
				t.Errorf("Error() = %q must not hold the text %q", e.Error(), e.Message)
			}
		})
	}
}

func TestErrorNamesWhatSupportNeeds(t *testing.T) {
	e := readError(opRenew, recordedAnswer(t, "error-429-toomanyrequests.json"))
	want := "graph: renew subscription: status 429 TooManyRequests, wait 10s [request-id 94fb3b52-452a-4535-a601-69e0a90e3aa2]"
	if e.Error() != want {
		t.Errorf("Error() = %q, want %q", e.Error(), want)
	}
	e = readError(opDelta, recordedAnswer(t, "error-410-resyncrequired.json"))
	if !strings.HasPrefix(e.Location, "https://graph.microsoft.com/") || strings.Contains(e.Error(), "https") {
		t.Errorf("Location = %q, Error() = %q", e.Location, e.Error())
	}
	e = readError(opMessage, recordedAnswer(t, "error-envelope.json"))
	if e.OuterCode != "badRequest" || e.Error() != "graph: get message: status 400 invalidRange (badRequest) [request-id request-id]" {
		t.Errorf("Error() = %q", e.Error())
	}
}

func TestKinds(t *testing.T) {
	tests := []struct {
		name string
		err  *Error
		want error
	}{
		{"503 without a wait", &Error{Status: 503}, ErrUnavailable},
		{"503 with a wait", &Error{Status: 503, RetryAfter: time.Second}, ErrThrottled},
		{"504", &Error{Status: 504}, ErrUnavailable},
		{"redirect", &Error{Status: 302}, ErrUnavailable},
		{"410 without a body", &Error{Op: opDelta, Status: 410}, ErrResync},
		{"sync state gone told as 400", &Error{Op: opDelta, Status: 400, Code: "SYNCSTATEINVALID"}, ErrResync},
		{"delta token not understood", &Error{Op: opDelta, Status: 400, Code: "BadRequest", Message: "Parameter 'DeltaToken' not supported for this request."}, ErrResync},
		{"the same words elsewhere", &Error{Op: opMessage, Status: 400, Message: "Parameter 'DeltaToken' not supported for this request."}, ErrBadRequest},
		{"malformed id outside delta", &Error{Op: opMessage, Status: 400, Code: "ErrorInvalidIdMalformed"}, ErrBadRequest},
		{"404 without a body", &Error{Op: opMessage, Status: 404}, ErrNotFound},
		{"404 of a gateway is no deletion", &Error{Op: opMessage, Status: 404, Err: errNotGraph}, ErrUnavailable},
		{"no such user is no deletion", &Error{Op: opMessage, Status: 404, Code: "ErrorInvalidUser"}, ErrMailboxUnavailable},
		{"no such user in the directory", &Error{Op: opMessage, Status: 404, Code: "Request_ResourceNotFound"}, ErrMailboxUnavailable},
		{"folder gone", &Error{Op: opDelta, Status: 404, Code: "ErrorSyncFolderNotFound"}, ErrNotFound},
		{"corrupt item", &Error{Op: opMessage, Status: 500, Code: "ErrorCorruptData"}, ErrCorrupt},
		{"expiry on a read", &Error{Op: opMessage, Status: 400, Message: "expiration"}, ErrBadRequest},
		{"expiry on renewal", &Error{Op: opRenew, Status: 400, Message: "Subscription expiration can only be 10080 minutes in the future."}, ErrExpiryTooFar},
		{"locked", &Error{Status: 423}, ErrUnavailable},
		{"too long", &Error{Status: 414}, ErrBadRequest},
		{"network", &Error{Err: errors.New("connection refused")}, ErrUnavailable},
		{"mailbox paused", throttled(opMessage, time.Minute), ErrThrottled},
		{"foreign link", &Error{Err: ErrForeignLink}, ErrForeignLink},
		{"unusable id", &Error{Err: ErrBadRequest}, ErrBadRequest},
		{"no token", &Error{Err: &tokenError{errors.New("wrong secret")}}, ErrUnauthorized},
		{"no token for now", &Error{Err: &tokenError{passing{}}}, ErrUnavailable},
		{"the caller gave up", &Error{Err: context.Canceled, stopped: true}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { is(t, tt.err, tt.want) })
	}
}

type passing struct{}

func (passing) Error() string                    { return "login is down" }
func (passing) Retryable() (time.Duration, bool) { return 7 * time.Second, true }

func TestRetryable(t *testing.T) {
	tests := []struct {
		name string
		err  error
		wait time.Duration
		ok   bool
	}{
		{"throttled", &Error{Status: 429, RetryAfter: 3 * time.Second}, 3 * time.Second, true},
		{"unavailable", &Error{Status: 502}, 0, true},
		{"wrapped", errors.Join(errors.New("x"), &Error{Status: 429, RetryAfter: time.Second}), time.Second, true},
		{"URL not validated", &Error{Op: opCreate, Status: 400, Code: "ValidationError"}, 0, true},
		{"token for later", &Error{Err: &tokenError{passing{}}}, 7 * time.Second, true},
		{"token refused", &Error{Err: &tokenError{errors.New("x")}}, 0, false},
		{"bad request", &Error{Status: 400}, 0, false},
		{"gone", &Error{Status: 404}, 0, false},
		{"the caller gave up", &Error{Err: context.Canceled, stopped: true}, 0, false},
		{"somebody else's", errors.New("x"), 0, false},
		{"none", nil, 0, false},
	}
	for _, tt := range tests {
		if wait, ok := Retryable(tt.err); wait != tt.wait || ok != tt.ok {
			t.Errorf("%s: Retryable = %v, %v, want %v, %v", tt.name, wait, ok, tt.wait, tt.ok)
		}
	}
}

func TestErrorBodies(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       error
		code       string
	}{
		{"deep inner codes in both spellings", `{"error":{"code":"a","innererror":{"code":"b","innerError":{"code":"ErrorItemNotFound"}}}}`, 404, ErrNotFound, "ErrorItemNotFound"},
		{"empty inner code", `{"error":{"code":"itemNotFound","innerError":{"code":""}}}`, 404, ErrNotFound, "itemNotFound"},
		{"empty body", " \n", 404, ErrNotFound, ""},
		{"HTML", "<html>not found</html>", 404, ErrUnavailable, ""},
		{"HTML with 403", "<html>blocked by proxy</html>", 403, ErrUnavailable, ""},
		{"HTML with 429", "<html>", 429, ErrThrottled, ""},
		{"HTML with 401", "<html>", 401, ErrUnauthorized, ""},
		{"truncated", `{"error":{"code":"ErrorItemNotFo`, 404, ErrUnavailable, ""},
		{"another shape", `{"message":"no"}`, 404, ErrUnavailable, ""},
		{"error is a string", `{"error":"invalid"}`, 400, ErrUnavailable, ""},
		{"code with an address in it", `{"error":{"code":"x <sales@contoso.com>\n"}}`, 400, ErrBadRequest, "xsalescontoso.com"},
		{"endless", `{"error":{"code":"` + strings.Repeat("a", 1<<20) + `"}}`, 404, ErrUnavailable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := readError(opMessage, answer(tt.status, tt.body))
			is(t, e, tt.want)
			if e.Code != tt.code {
				t.Errorf("code %q, want %q", e.Code, tt.code)
			}
		})
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	tests := map[string]time.Duration{
		"":                                      0,
		"0":                                     0,
		"1":                                     time.Second,
		" 120 ":                                 2 * time.Minute,
		"-5":                                    0,
		"1.5":                                   0,
		"soon":                                  0,
		"1e9":                                   0,
		"86400":                                 maxRetryAfter,
		"99999999999999999999":                  maxRetryAfter,
		"Tue, 24 Nov 2026 10:00:30 GMT":         30 * time.Second,
		"Tue, 24 Nov 2026 09:59:00 GMT":         0,
		"Fri, 24 Nov 2056 10:00:00 GMT":         maxRetryAfter,
		"Tuesday, 24-Nov-26 10:01:00 GMT":       time.Minute,
		"Tue Nov 24 10:00:05 2026":              5 * time.Second,
		"2026-11-24T10:00:30Z":                  0,
		"٣":                                     0,
		"Tue, 24 Nov 2026 10:00:30 GMT, 10 GMT": 0,
	}
	for in, want := range tests {
		if got := parseRetryAfter(in, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", in, got, want)
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	files, _ := filepath.Glob("testdata/error-*.json")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b, 400)
		}
	}
	f.Add([]byte(`{"error":{"code":"a","innererror":{"code":"b"}}}`), 404)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		e := readError(opDelta, answer(300+abs(status)%300, string(body)))
		n := 0
		for _, s := range sentinels {
			if errors.Is(e, s) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%v is %d kinds of error, want 1", e, n)
		}
		if strings.ContainsAny(e.Code+e.OuterCode+e.RequestID, "@ \n\"<") {
			t.Errorf("%v holds what is no word", e)
		}
	})
}

func abs(n int) int { return max(n, -n-1) }

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "120", "Tue, 24 Nov 2026 10:00:30 GMT", "-1", "9999999999999999999999"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, now); d < 0 || d > maxRetryAfter {
			t.Errorf("parseRetryAfter(%q) = %v", s, d)
		}
	})
}
