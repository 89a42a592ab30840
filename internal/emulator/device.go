package emulator

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// device is a sign-in by a code on another device.
type device struct {
	grant
	userCode         string
	expires, polled  time.Time
	interval         time.Duration
	accepted, denied bool
}

// serveDeviceCode is POST /{tenant}/oauth2/v2.0/devicecode.
func (s *Server) serveDeviceCode(w http.ResponseWriter, r *http.Request, tenant string) {
	s.write(w, r, s.beginDevice(r, tenant))
}

func (s *Server) beginDevice(r *http.Request, tenant string) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, refused := readForm(r)
	if refused == nil {
		refused = s.knownTenant(tenant)
	}
	var scopes []string
	if refused == nil {
		scopes, refused = s.asked(form.Get("scope"))
	}
	client := strings.ToLower(form.Get("client_id"))
	switch {
	case refused != nil:
	case s.opts.BlockDeviceFlow:
		refused = &tokenRefusal{400, "invalid_grant", 53003, "Access has been blocked by Conditional Access policies."}
	case client == strings.ToLower(s.opts.ClientID):
		refused = &tokenRefusal{401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	case client != strings.ToLower(s.opts.PublicClientID):
		refused = &tokenRefusal{400, "unauthorized_client", 700016, "Application with identifier '" + client + "' was not found in the directory."}
	}
	if refused != nil {
		return s.tokenError(*refused)
	}
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	d := &device{grant: grant{client: client, scopes: scopes}, expires: time.Now().Add(deviceLife), interval: devicePoll}
	for range 9 {
		d.userCode += string(letters[s.rng.IntN(len(letters))])
	}
	value := s.random()
	s.signIns.devices[value] = d
	page := s.opts.Root + "/devicelogin"
	return tokenAnswer(http.StatusOK, map[string]any{
		"device_code": value, "user_code": d.userCode, "verification_uri": page, "expires_in": int(deviceLife / time.Second), "interval": int(devicePoll / time.Second),
		"message": "To sign in, use a web browser to open the page " + page + " and enter the code " + d.userCode + " to authenticate.",
	})
}

// serveDeviceLogin is GET and POST /devicelogin.
func (s *Server) serveDeviceLogin(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.render(w, http.StatusOK, "device", page{Title: "Enter the code", Users: s.addresses(), Code: r.URL.Query().Get("code")})
		return
	}
	if err := r.ParseForm(); err != nil {
		s.refusePage(w, &tokenRefusal{400, "invalid_request", 9000410, "Malformed request."})
		return
	}
	if err := s.EnterDeviceCode(r.PostForm.Get("code"), r.PostForm.Get("user"), r.PostForm.Get("answer") == "accept"); err != nil {
		s.refusePage(w, &tokenRefusal{400, "invalid_grant", 70018, "The code is not known, or has expired."})
		return
	}
	s.render(w, http.StatusOK, "message", page{Title: "Done", Text: "You have signed in on your device. This window can be closed."})
}

// EnterDeviceCode does what a user does on the device page.
func (s *Server) EnterDeviceCode(userCode, address string, accept bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byName[strings.ToLower(address)]
	if u == nil {
		return errNoUser
	}
	for _, d := range s.signIns.devices {
		if d.userCode != strings.ToUpper(strings.TrimSpace(userCode)) || !time.Now().Before(d.expires) || d.user != nil {
			continue
		}
		d.user, d.accepted, d.denied = u, accept, !accept
		if accept {
			s.consent(d.client, u.id, d.scopes)
			u.interaction = false
		}
		return nil
	}
	return errNoDevice
}

// byDevice answers a poll. mu is held.
func (s *Server) byDevice(form url.Values) (*device, *tokenRefusal) {
	bad := func(code string, number int, description string) (*device, *tokenRefusal) {
		return nil, &tokenRefusal{400, code, number, description}
	}
	value := form.Get("device_code")
	d := s.signIns.devices[value]
	now := time.Now()
	switch {
	case d == nil || d.client != strings.ToLower(form.Get("client_id")):
		return bad("bad_verification_code", 70018, "The verification code is not known.")
	case !now.Before(d.expires):
		delete(s.signIns.devices, value)
		return bad("expired_token", 70020, "The provided value for the input parameter 'device_code' is not valid. This device code has expired.")
	case d.denied:
		delete(s.signIns.devices, value)
		return bad("authorization_declined", 70017, "The end-user denied the authorization request.")
	case !d.accepted && !d.polled.IsZero() && now.Sub(d.polled) < d.interval-time.Second/2:
		d.polled, d.interval = now, d.interval+devicePoll
		s.violation("RFC 8628 3.5: the device code is polled faster than the interval")
		return bad("slow_down", 70016, "Polling too frequently.")
	case !d.accepted:
		d.polled = now
		return bad("authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	delete(s.signIns.devices, value)
	return d, nil
}
