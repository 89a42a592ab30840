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
)

// Class says who can mend a failed sign-in.
type Class string

// The classes. They follow `error` and the HTTP status, never AADSTS numbers, which change.
const (
	Retry    Class = "retry"    // it mends itself
	Reauth   Class = "reauth"   // a person must sign in again
	Operator Class = "operator" // the configuration or the app registration must change
)

// Error is a failed sign-in. It holds neither secret nor the answer's text.
type Error struct {
	Class         Class
	Code          string        // OAuth error, for example invalid_client; "credential" when ours cannot be read; empty when the answer was not OAuth's
	Suberror      string        // Entra's finer word, for example bad_token
	Status        int           // HTTP status; 0 when there was no answer
	AADSTS        int           // Entra's number, for looking it up
	CorrelationID string        // quote it to Microsoft support
	Hint          string        // what to do
	RetryAfter    time.Duration // how long the endpoint wants to be left alone; 0: it did not say
	Claims        string        // that the next authorization must answer (JSON); empty: none
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

// loopCode is Entra's number for a client that asks the same again and again. It comes as invalid_grant, so a throttle
// can look like a dead sign-in.
const loopCode = 50196

// refusal turns an answer of the login endpoint that is not 200 into an Error, as a user's sign-in sees it: see forApp.
func refusal(status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Class: Retry, Status: status, RetryAfter: retryAfter(header.Get("Retry-After"), now)}
	e.readBody(body)
	switch {
	case e.AADSTS == loopCode:
		e.RetryAfter, e.Hint = max(e.RetryAfter, 5*time.Minute), "Entra takes the app for a client in a loop: does something else use the same app registration?"
	case status == http.StatusTooManyRequests:
		if e.RetryAfter == 0 {
			e.RetryAfter = time.Minute
		}
	case status >= 500:
	case e.Code == "temporarily_unavailable" || e.Code == "server_error":
	case reauthCodes[e.Code]:
		e.Class = Reauth
		e.Hint = e.hint()
	case e.Code == "":
		e.Hint = "the answer is not Entra's: compare the cloud's login URL, and look at proxies in between"
	default:
		e.Class = Operator
		e.Hint = e.hint()
	}
	return e
}

// forApp judges what a user would have to mend where there is no user: the app itself is refused.
func (e *Error) forApp() *Error {
	if e.Class == Reauth {
		e.Class = Operator
		e.Hint = e.hint()
	}
	return e
}

// Throttled reports whether the login endpoint asks for patience.
func (e *Error) Throttled() bool {
	return e.Class == Retry && (e.Status == http.StatusTooManyRequests || e.AADSTS == loopCode)
}

// NeedsConsent reports whether a permission has to be granted first.
func (e *Error) NeedsConsent() bool {
	return e.Class != Retry && (e.Code == "consent_required" || e.Suberror == "consent_required" || consentNumbers[e.AADSTS])
}

// Entra's errors, by who can mend them (RFC 6749, OpenID Connect Core). Numbers choose hints only, for they change.
var (
	reauthCodes = map[string]bool{"invalid_grant": true, "interaction_required": true, "consent_required": true, "login_required": true}

	operatorCodes = map[string]bool{
		"invalid_client": true, "unauthorized_client": true, "invalid_request": true, "invalid_scope": true, "invalid_resource": true,
		"unsupported_grant_type": true,
	}

	consentNumbers = map[int]bool{65001: true, 65004: true, 90094: true, 90095: true}
)

// readBody takes from Entra's answer what helps support and the choice of a hint; never its text, which names people.
func (e *Error) readBody(raw []byte) {
	var body struct {
		Error       string `json:"error"`
		Suberror    string `json:"suberror"`
		Codes       []int  `json:"error_codes"`
		Correlation string `json:"correlation_id"`
		Claims      string `json:"claims"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return
	}
	e.Code, e.Suberror, e.CorrelationID = word(body.Error), word(body.Suberror), word(body.Correlation)
	if len(body.Codes) > 0 {
		e.AADSTS = body.Codes[0]
	}
	if json.Valid([]byte(body.Claims)) && len(body.Claims) <= maxClaims {
		e.Claims = body.Claims
	}
}

// hints say what to do and who must do it, by Entra's number where it is known. Numbers change, so nothing else hangs on
// them.
var hints = map[string][]int{
	"the client secret is wrong: put its value, not its id, into client_secret_file":                                     {7000215, 7000218},
	"the client secret has expired: make a new one and put it into client_secret_file":                                   {7000222},
	"the app registration is for public clients: take the credential out of the connection, or register a web app":       {700025},
	"the app registration is not in this tenant: compare client_id and tenant":                                           {700016, 700011, 70001},
	"the app is disabled in this tenant: ask the Entra administrator":                                                    {7000112},
	"Entra does not know the certificate, or the key does not fit: upload this certificate to the app registration":      {700027, 700030},
	"Entra refuses the time in the assertion: is this machine's clock right?":                                            {50013, 500133},
	"the federated credential is not known yet: a new one takes some minutes; else compare issuer, subject and audience": {70021},
	"the tenant is not known here: compare tenant and cloud":                                                             {90002, 90038, 900382, 900432, 90051},
	"the app needs a tenant of its own: write its id into tenant":                                                        {50194, 9001023},
	"Graph is not known to this tenant under that name: compare cloud and tenant":                                        {500011, 70011, 28002, 650057},
	"the redirect URI is not registered for the app: add it, or name a registered one with --redirect-uri":               {50011},
	"an administrator must consent to the app's permissions":                                                             {90094},
	"the request for consent waits for an administrator":                                                                 {90095},
	"nobody has consented to the app's permissions yet":                                                                  {65001},
	"consent was declined": {65004},
	"the sign-in has ended or was not used for too long: sign in again":                                                       {70000, 70008, 700082},
	"a sign-in frequency policy ended the sign-in: ask the Entra administrator to exclude the account, else it happens again": {70043},
	"the sign-in was revoked, or the password was changed: sign in again":                                                     {50173, 50132, 50133},
	"a second factor is asked for: sign in again":                                                                             {50076, 50079, 50072, 50074, 50078},
	"a Conditional Access policy blocks the sign-in: ask the Entra administrator, quoting the correlation id":                 {53000, 53001, 53003, 530032, 50005, 50131},
	"the password has expired: the user changes it, and signs in again":                                                       {50055},
	"the account is disabled or locked: ask the Entra administrator":                                                          {50057, 50053},
	"the account is not in this tenant: sign in with another, or compare tenant":                                              {50034, 50020, 51004},
	"the account is not assigned to the app: ask the Entra administrator to assign it":                                        {50105},
	"there is no session to sign in with silently: sign in again":                                                             {50058},
	"the code was used already: begin the sign-in again, and look whether somebody else has seen it":                          {54005},
	"the sign-in was not finished by who began it: begin again, and look whether somebody else has seen the code":             {501481},
}

var hintByNumber = func() map[int]string {
	out := map[int]string{}
	for text, numbers := range hints {
		for _, n := range numbers {
			out[n] = text
		}
	}
	return out
}()

func (e *Error) hint() string {
	switch text := hintByNumber[e.AADSTS]; {
	case text != "":
		return text
	case e.Code == "interaction_required" || e.Code == "login_required":
		return "the user must be there: sign in again"
	case e.Class == Reauth && e.Code == "consent_required":
		return "a permission has to be consented to"
	case e.Class == Reauth:
		return "the sign-in is not good any more: sign in again"
	}
	return "the login endpoint refuses the app registration: compare cloud, tenant, client_id and credential"
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
