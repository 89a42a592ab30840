package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// serveControl is the control API; the package comment lists it.
func (s *Server) serveControl(w http.ResponseWriter, r *http.Request) {
	body, err := s.control(r)
	status := http.StatusOK
	switch {
	case errors.Is(err, errNoRoute), errors.Is(err, errNoUser), errors.Is(err, errNoMessage), errors.Is(err, errNoFolder), errors.Is(err, errNoSubscription),
		errors.Is(err, errNoMeeting), errors.Is(err, errNoCalendar):
		status = http.StatusNotFound
	case err != nil:
		status = http.StatusBadRequest
	}
	if err != nil {
		body = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		s.opts.Log.Debug().Err(err).Msg("control answer not written")
	}
}

var (
	errNoRoute        = errors.New("no such control; the documentation of package emulator lists them")
	errNoSubscription = errors.New("no such subscription")
)

// done is the answer to what has nothing to say.
type done struct {
	OK bool `json:"ok"`
}

func (s *Server) control(r *http.Request) (any, error) {
	parts := segments(r.URL)[1:] // after "emulator"
	var path []string
	for _, p := range parts {
		path = append(path, p.text)
	}
	if len(path) == 0 {
		return nil, errNoRoute
	}
	switch route := r.Method + " " + path[0]; {
	case path[0] == "users" && len(path) > 2:
		return s.controlMailbox(r, path[1], path[2:])
	case route == "GET users" && len(path) == 1:
		return s.controlUsers(), nil
	case route == "POST users" && len(path) == 1:
		return s.controlAddUser(r)
	case route == "GET subscriptions" && len(path) == 1:
		return orEmpty(s.Subscriptions()), nil
	case route == "DELETE subscriptions" && len(path) == 2:
		return s.controlRemove(path[1], r.URL.Query().Get("tell") == "true")
	case route == "POST challenge", route == "POST revoke", route == "POST interaction":
		return s.controlSignIn(r, path[0])
	case route == "POST shares":
		return s.controlShare(r)
	case route == "POST lifecycle":
		return s.controlLifecycle(r)
	case route == "GET faults":
		return s.controlShowFaults(), nil
	case route == "POST faults":
		return s.controlFaults(r)
	case route == "GET violations":
		return orEmpty(s.Violations()), nil
	case route == "GET requests":
		return s.Requests(), nil
	case route == "GET ledger" && len(path) == 2 && path[1] == "meetings":
		return orEmpty(s.MeetingLedger()), nil
	case route == "GET ledger":
		return orEmpty(s.Ledger()), nil
	}
	return nil, errNoRoute
}

// orEmpty shows an empty list as one.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// decode reads a JSON body strictly.
func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// controlSignIn ends or troubles the sign-ins of a user.
func (s *Server) controlSignIn(r *http.Request, what string) (any, error) {
	var in struct {
		User string `json:"user"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	do := map[string]func(string) error{"revoke": s.Revoke, "challenge": s.Challenge, "interaction": s.RequireInteraction}[what]
	return map[string]string{what: in.User}, do(in.User)
}

// controlShare lets a user read somebody else's mailbox.
func (s *Server) controlShare(r *http.Request) (any, error) {
	var in struct {
		Mailbox string `json:"mailbox"`
		With    string `json:"with"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return in, s.Share(in.Mailbox, in.With)
}

type controlUser struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Messages int    `json:"messages"`
	Meetings int    `json:"meetings"` // single ones and series
}

func (s *Server) controlUsers() []controlUser {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []controlUser{}
	for _, u := range s.users {
		n := 0
		for _, f := range u.folders {
			n += f.total
		}
		meetings := 0
		for _, m := range u.meetings {
			if m.now != nil {
				meetings++
			}
		}
		out = append(out, controlUser{u.id, u.address, n, meetings})
	}
	return out
}

func (s *Server) controlAddUser(r *http.Request) (any, error) {
	var in struct {
		Address string `json:"address"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Address == "" {
		return nil, errors.New("address is missing")
	}
	u := s.AddUser(in.Address)
	return controlUser{ID: u.ID, Address: u.Address}, nil
}

// idAnswer names what was made.
type idAnswer struct {
	ID string `json:"id"`
}

// controlMailbox serves what stands below /emulator/users/{user}.
func (s *Server) controlMailbox(r *http.Request, user string, path []string) (any, error) {
	s.mu.Lock()
	_, err := s.find(user)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	route := r.Method + " " + path[0]
	switch {
	case route == "GET messages" && len(path) == 1:
		return orEmpty(s.Messages(user)), nil
	case route == "POST messages" && len(path) == 1:
		return s.controlDeliver(r, user)
	case route == "PATCH messages" && len(path) == 2:
		var p Patch
		if err := decode(r, &p); err != nil {
			return nil, err
		}
		return done{true}, s.Update(user, path[1], p)
	case route == "POST messages" && len(path) == 3 && path[2] == "move":
		var in struct {
			Folder string `json:"folder"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		if in.Folder == "" {
			return nil, errors.New("folder is missing")
		}
		return done{true}, s.Move(user, path[1], in.Folder)
	case route == "DELETE messages" && len(path) == 2:
		return done{true}, s.Delete(user, path[1])
	case route == "POST folders" && len(path) == 1:
		var in struct {
			Parent string `json:"parent"`
			Name   string `json:"name"`
		}
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		id, err := s.AddFolder(user, in.Parent, in.Name)
		return idAnswer{id}, err
	case route == "PUT access" && len(path) == 1:
		return s.controlAccess(r, user)
	}
	return s.controlCalendarArea(r, user, path)
}

func (s *Server) controlDeliver(r *http.Request, user string) (any, error) {
	if mediaType(r.Header.Get("Content-Type")) == "message/rfc822" {
		id, err := s.DeliverMIME(user, r.Body)
		return idAnswer{id}, err
	}
	var m Mail
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	id, err := s.Deliver(user, m)
	return idAnswer{id}, err
}

func (s *Server) controlAccess(r *http.Request, user string) (any, error) {
	var in struct {
		Access string `json:"access"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	access, ok := map[string]Access{"allowed": Allowed, "denied": Denied, "unlicensed": Unlicensed}[in.Access]
	if !ok {
		return nil, fmt.Errorf("access %q is not allowed, denied or unlicensed", in.Access)
	}
	return done{true}, s.SetAccess(user, access)
}

func (s *Server) hasSubscription(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	return s.subs[id] != nil
}

func (s *Server) controlRemove(id string, tell bool) (any, error) {
	if !s.hasSubscription(id) {
		return nil, errNoSubscription
	}
	s.RemoveSubscription(id, tell)
	return done{true}, nil
}

func (s *Server) controlLifecycle(r *http.Request) (any, error) {
	var in struct {
		Event        string `json:"event"`
		Subscription string `json:"subscription"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	switch {
	case in.Event == "":
		return nil, errors.New("event is missing")
	case in.Subscription != "" && !s.hasSubscription(in.Subscription):
		return nil, errNoSubscription
	}
	s.SendLifecycle(in.Event, in.Subscription)
	return done{true}, nil
}

// faultsJSON are the switches as the control API shows and takes them; absent ones stay.
type faultsJSON struct {
	LoseNotifications    *float64 `json:"loseNotifications"`
	DoubleNotifications  *float64 `json:"doubleNotifications"`
	ReorderNotifications *float64 `json:"reorderNotifications"`
	ExtraUpdated         *float64 `json:"extraUpdated"`
	LoseNext             *int     `json:"loseNext"`
	NotificationDelay    *span    `json:"notificationDelay"`
	NoMissed             *bool    `json:"noMissed"`
	OneNotice            *bool    `json:"oneNotice"`
	Latency              *span    `json:"latency"`
	HideMovedIn          *bool    `json:"hideMovedIn"`
	LoopNextLink         *bool    `json:"loopNextLink"`
	ForeignNextLink      *bool    `json:"foreignNextLink"`
	EmptyPages           *float64 `json:"emptyPages"`
	RepeatItems          *float64 `json:"repeatItems"`
	IgnorePageSize       *bool    `json:"ignorePageSize"`
	ResyncRequired       *bool    `json:"resyncRequired"`
	CompleteUpdates      *bool    `json:"completeUpdates"`
	SplitSeries          *bool    `json:"splitSeries"`
	MasterMissing        *bool    `json:"masterMissing"`
	SentGhost            *span    `json:"sentGhost"`
	GrantAtMost          *span    `json:"grantAtMost"`
	AllowDuplicates      *bool    `json:"allowDuplicates"`
}

// span is a duration written as "3s".
type span time.Duration

// MarshalText writes a duration.
func (d span) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration.
func (d *span) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = span(v)
	return err
}

// view points at the switches of f.
func (f *Faults) view() faultsJSON {
	return faultsJSON{
		LoseNotifications: &f.LoseNotifications, DoubleNotifications: &f.DoubleNotifications,
		ReorderNotifications: &f.ReorderNotifications, ExtraUpdated: &f.ExtraUpdated, LoseNext: &f.LoseNext,
		NotificationDelay: (*span)(&f.NotificationDelay), NoMissed: &f.NoMissed, OneNotice: &f.OneNotice, Latency: (*span)(&f.Latency),
		HideMovedIn: &f.HideMovedIn, LoopNextLink: &f.LoopNextLink, ForeignNextLink: &f.ForeignNextLink,
		EmptyPages: &f.EmptyPages, RepeatItems: &f.RepeatItems, IgnorePageSize: &f.IgnorePageSize,
		ResyncRequired: &f.ResyncRequired, CompleteUpdates: &f.CompleteUpdates, SentGhost: (*span)(&f.SentGhost), GrantAtMost: (*span)(&f.GrantAtMost),
		AllowDuplicates: &f.AllowDuplicates, SplitSeries: &f.SplitSeries, MasterMissing: &f.MasterMissing,
	}
}

func (s *Server) controlShowFaults() any {
	s.mu.Lock()
	f := s.faults
	s.mu.Unlock()
	return f.view()
}

// controlFaults sets the switches that the body names. encoding/json fills what the pointers point at.
func (s *Server) controlFaults(r *http.Request) (any, error) {
	s.mu.Lock()
	f := s.faults
	s.mu.Unlock()
	var in struct {
		faultsJSON
		ExpireDeltaTokens bool `json:"expireDeltaTokens"`
		RevokeTokens      bool `json:"revokeTokens"`
		FailNext          *struct {
			Op          string `json:"op"`
			Times       int    `json:"times"`
			Status      int    `json:"status"`
			RetryAfter  string `json:"retryAfter"`
			Body        string `json:"body"`
			ContentType string `json:"contentType"`
			Hang        bool   `json:"hang"`
			After       bool   `json:"after"`
			Truncate    bool   `json:"truncate"`
		} `json:"failNext"`
	}
	in.faultsJSON = f.view()
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	for name, p := range map[string]float64{
		"loseNotifications": f.LoseNotifications, "doubleNotifications": f.DoubleNotifications,
		"reorderNotifications": f.ReorderNotifications, "extraUpdated": f.ExtraUpdated, "repeatItems": f.RepeatItems,
	} {
		if p < 0 || p > 1 {
			return nil, fmt.Errorf("%s is a probability, between 0 and 1", name)
		}
	}
	if f.EmptyPages < 0 || f.EmptyPages >= 1 {
		return nil, errors.New("emptyPages is a probability, at least 0 and below 1")
	}
	s.SetFaults(func(now *Faults) { f.Fail = now.Fail; *now = f })
	if n := in.FailNext; n != nil {
		if !strings.Contains(n.Op, ".") && !slices.Contains([]string{"", "token", "delta", "calendarview", "mailboxsettings"}, n.Op) {
			return nil, fmt.Errorf("there is no operation %q; GET /emulator/requests shows some", n.Op)
		}
		s.FailNext(n.Op, max(n.Times, 1), Fault{
			Status: n.Status, RetryAfter: n.RetryAfter, Body: n.Body, ContentType: n.ContentType,
			Hang: n.Hang, After: n.After, Truncate: n.Truncate,
		})
	}
	if in.ExpireDeltaTokens {
		s.ExpireDeltaTokens()
	}
	if in.RevokeTokens {
		s.RevokeTokens()
	}
	return s.controlShowFaults(), nil
}
