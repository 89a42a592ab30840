package emulator

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// answer is what a request gets, before it may be spoilt by a fault.
type answer struct {
	status        int
	code, message string // of an error
	body          []byte // of a success; nil: none
	header        map[string]string
}

func ok(body []byte) answer { return answer{status: http.StatusOK, body: body} }

func fail(status int, code, message string) answer {
	return answer{status: status, code: code, message: message}
}

// with adds a header.
func (a answer) with(name, value string) answer {
	h := map[string]string{name: value}
	for k, v := range a.header {
		h[k] = v
	}
	a.header = h
	return a
}

// Refusals in Graph's words.
var (
	answerItemNotFound  = fail(http.StatusNotFound, "ErrorItemNotFound", "The specified object was not found in the store.")
	answerIDMalformed   = fail(http.StatusBadRequest, "ErrorInvalidIdMalformed", "Id is malformed.")
	answerSubNotFound   = fail(http.StatusNotFound, "ResourceNotFound", "The object was not found.")
	answerAccessDenied  = fail(http.StatusForbidden, "ErrorAccessDenied", "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.")
	answerNoMailbox     = fail(http.StatusNotFound, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
	answerConcurrency   = fail(http.StatusTooManyRequests, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
	answerDenied        = fail(http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	answerSyncState     = fail(http.StatusGone, "SyncStateNotFound", "The sync state generation is not found; generation=149;[highest=157][157][155][156].")
	answerNoMailDelta   = fail(http.StatusBadRequest, "BadRequest", "Unsupported request: Change tracking is not supported against 'microsoft.graph.message'.")
	answerNoMe          = fail(http.StatusBadRequest, "BadRequest", "/me request is only valid with delegated authentication flow.")
	answerTooComplex    = fail(http.StatusBadRequest, "InefficientFilter", "The restriction or sort order is too complex for this operation.")
	answerMethod        = fail(http.StatusMethodNotAllowed, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
	answerReadOnly      = fail(http.StatusForbidden, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
	answerThrottledText = "Please retry again later."
)

func noSegment(name string) answer {
	return fail(http.StatusBadRequest, "RequestBroker--ParseUri", "Resource not found for the segment '"+name+"'.")
}

func throttled(wait time.Duration) answer {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return fail(http.StatusTooManyRequests, "TooManyRequests", answerThrottledText).with("Retry-After", strconv.FormatInt(max(seconds, 1), 10))
}

// render gives the body as it is sent; ids are the request's.
func (a answer) render(requestID, clientID string) []byte {
	if a.code == "" {
		return a.body
	}
	type inner struct {
		Date      string `json:"date"`
		RequestID string `json:"request-id"`
		ClientID  string `json:"client-request-id"`
	}
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   *inner `json:"innerError,omitempty"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = a.code, a.message
	if a.code != answerConcurrency.code { // H-8: no innerError
		body.Error.Inner = &inner{time.Now().UTC().Format("2006-01-02T15:04:05"), requestID, clientID}
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // three strings
	}
	return b
}

// write sends an answer. It returns the body, for who wants to cut it.
func (s *Server) write(w http.ResponseWriter, r *http.Request, a answer) {
	body := s.head(w, r, a)
	w.WriteHeader(a.status)
	if len(body) > 0 {
		w.Write(body)
	}
}

// head sets the headers of an answer and returns its body.
func (s *Server) head(w http.ResponseWriter, r *http.Request, a answer) []byte {
	s.mu.Lock()
	requestID := s.guid()
	s.mu.Unlock()
	clientID := cmp.Or(r.Header.Get("client-request-id"), requestID)
	body := a.render(requestID, clientID)
	h := w.Header()
	h.Set("request-id", requestID)
	h.Set("client-request-id", clientID)
	h.Set("Cache-Control", "no-cache")
	h.Set("x-ms-ags-diagnostic", `{"ServerInfo":{"DataCenter":"Emulator","Slice":"E","Ring":"1","ScaleUnit":"001","RoleInstance":"EMU"}}`)
	if len(body) > 0 {
		h.Set("Content-Type", "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	for k, v := range a.header {
		h.Set(k, v)
	}
	return body
}
