package emulator

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Faults are switches for misbehaviour that the contract says to expect. The zero value behaves. Numbers between 0 and 1
// are probabilities.
type Faults struct {
	// Notifications.
	LoseNotifications    float64
	DoubleNotifications  float64
	ReorderNotifications float64       // some are held back for up to 2 s, and those of a POST are shuffled (W-15)
	ExtraUpdated         float64       // `updated` beside `created` (W-15)
	LoseNext             int           // lose this many; counts down
	NotificationDelay    time.Duration // added to Options.DeliverDelay
	NoMissed             bool          // no `missed` after notifications were discarded (W-24)
	OneNotice            bool          // a change of a calendar item is notified once; Graph's habit is two to four times

	// Answers.
	Fail    func(op string, r *http.Request) *Fault // nil, or returning nil: behave. Called from several goroutines; ops as in Server.Requests
	Latency time.Duration                           // of every answer

	// Delta and listings.
	HideMovedIn     bool    // what moves in is told to nobody but who starts over (D-30)
	LoopNextLink    bool    // next links lead back to the page they stand on (D-22)
	ForeignNextLink bool    // next and delta links lead to another host (D-2)
	EmptyPages      float64 // pages without items that have a next link (D-4)
	RepeatItems     float64 // items told twice in a page (D-5)
	IgnorePageSize  bool    // odata.maxpagesize is a wish (D-19)
	ResyncRequired  bool    // tokens that are gone get 410 resyncRequired with a Location (D-13) instead of SyncStateNotFound
	CompleteUpdates bool    // changed items come whole; they need only have the changed properties (D-7)
	SplitSeries     bool    // pages of a calendar view's delta end within a series; else one is kept together (D-36d)
	MasterMissing   bool    // later rounds of a calendar view leave out series masters (D-36c)

	// Mailboxes and subscriptions.
	SentGhost       time.Duration // a sent draft is not found for so long (I-8)
	GrantAtMost     time.Duration // subscriptions are granted less than was asked (S-9); 0: all
	AllowDuplicates bool          // no 409 (S-43)
}

// Fault is a spoilt answer. The zero Fault closes the connection without an answer.
type Fault struct {
	Status      int    // 0 with neither Hang nor Truncate: no answer at all
	RetryAfter  string // header; seconds or an HTTP date (H-6)
	Body        string // default: Graph's error for the status
	ContentType string // of Body; default application/json
	Hang        bool   // no answer until the client gives up
	After       bool   // the work is done all the same: what happened is ambiguous to the client
	Truncate    bool   // the true answer, cut in the middle
}

// SetFaults changes the switches. change runs with the server locked and must not call it.
func (s *Server) SetFaults(change func(*Faults)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.faults)
	s.poke()
}

// plan is faults that are to come.
type plan struct {
	op    string
	times int
	fault Fault
}

// FailNext spoils the next n requests of an operation; op empty: of any. Plans are followed in the order they were made.
func (s *Server) FailNext(op string, n int, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = append(s.planned, &plan{op: op, times: n, fault: f})
}

// ExpireDeltaTokens makes the next use of every delta and next link so far end in 410 SyncStateNotFound (D-12).
func (s *Server) ExpireDeltaTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deltaGeneration++
}

// RevokeTokens makes Graph refuse all access tokens given so far.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// faultFor asks for the fault of a request.
func (s *Server) faultFor(op string, r *http.Request) *Fault {
	s.mu.Lock()
	for i, p := range s.planned {
		if p.op != "" && p.op != op {
			continue
		}
		if p.times--; p.times <= 0 {
			s.planned = append(s.planned[:i:i], s.planned[i+1:]...)
		}
		f := p.fault
		s.mu.Unlock()
		return &f
	}
	ask := s.faults.Fail
	s.mu.Unlock()
	if ask == nil {
		return nil
	}
	return ask(op, r)
}

// slow waits as Faults.Latency says.
func (s *Server) slow(r *http.Request) {
	s.mu.Lock()
	d := s.faults.Latency
	s.mu.Unlock()
	if d > 0 {
		wait(r.Context(), d)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// spoil answers with a fault. It panics with http.ErrAbortHandler where there is to be no answer.
func (s *Server) spoil(w http.ResponseWriter, r *http.Request, q *request, f *Fault) {
	if f.Hang {
		<-r.Context().Done()
	}
	if f.Hang || f.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	a := defaultFault(f.Status)
	if f.Body != "" {
		a = answer{status: f.Status, body: []byte(f.Body)}
	}
	if f.ContentType != "" {
		a = a.with("Content-Type", f.ContentType)
	}
	if f.RetryAfter != "" {
		a = a.with("Retry-After", f.RetryAfter)
		if q != nil {
			s.expectWait(q, f.RetryAfter)
		}
	}
	s.write(w, r, a)
}

// defaultFault is Graph's error for a status.
func defaultFault(status int) answer {
	switch status {
	case http.StatusUnauthorized:
		return answerTokenUnknown
	case http.StatusForbidden:
		return answerAccessDenied
	case http.StatusNotFound:
		return answerItemNotFound
	case http.StatusGone:
		return answerSyncState
	case http.StatusTooManyRequests:
		return fail(status, "TooManyRequests", answerThrottledText)
	case http.StatusInternalServerError:
		return fail(status, "InternalServerError", "The server encountered an internal error.")
	case http.StatusServiceUnavailable:
		return fail(status, "ServiceUnavailable", "The service is temporarily unavailable.")
	}
	if status < 300 {
		return answer{status: status}
	}
	return fail(status, "UnknownError", http.StatusText(status))
}

// truncate sends half of an answer, then breaks the connection.
func (s *Server) truncate(w http.ResponseWriter, r *http.Request, a answer) {
	body := s.head(w, r, a)
	w.WriteHeader(a.status)
	w.Write(body[:len(body)/2])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// expectWait remembers until when a client was asked to wait (H-5).
func (s *Server) expectWait(q *request, retryAfter string) {
	var until time.Time
	if n, err := strconv.Atoi(retryAfter); err == nil {
		until = time.Now().Add(time.Duration(n) * time.Second)
	} else if until, err = http.ParseTime(retryAfter); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict.waits[q.lane()] = patience{from: time.Now(), until: until}
}

// patience is a time in which a client should not ask again.
type patience struct{ from, until time.Time }

// patienceSlack leaves room for requests that were under way already and for clocks that are read twice.
const patienceSlack = 100 * time.Millisecond

// checkWait notes a request that comes before the end of a Retry-After (H-5). mu is held.
func (s *Server) checkWait(q *request) {
	p, ok := s.strict.waits[q.lane()]
	if !ok {
		return
	}
	now := time.Now()
	if now.After(p.from.Add(patienceSlack)) && now.Before(p.until.Add(-patienceSlack)) {
		s.violation("H-5: %s before the end of Retry-After", q.op)
	}
	if now.After(p.until) {
		delete(s.strict.waits, q.lane())
	}
}

// lane is what a Retry-After is about.
func (q *request) lane() string { return q.op + " " + q.mailbox }
