package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DeviceFlow is a sign-in on another device, by a code that is typed there (RFC 8628).
type DeviceFlow struct {
	UserCode        string
	VerificationURI string
	Message         string // the login endpoint's own words
	ExpiresAt       time.Time

	user     *User
	server   endpoints
	code     string
	interval time.Duration
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// Device begins a sign-in on another device.
func (u *User) Device(ctx context.Context) (*DeviceFlow, error) {
	server, err := u.discovered.all(ctx)
	if err != nil {
		return nil, err
	}
	if server.Device == "" {
		return nil, errors.New("this login endpoint knows no sign-in on another device: use the browser")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tokenTimeout, fmt.Errorf("no answer within %v", tokenTimeout))
	defer cancel()
	form := url.Values{"client_id": {u.opts.ClientID}, "scope": {u.scope()}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.Device, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &Error{Class: Operator, Hint: "the login endpoint has no usable URL"}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, header, body, err := send(ctx, u.client, req)
	switch {
	case err != nil:
		return nil, &Error{Class: Retry, Err: err}
	case status != http.StatusOK:
		return nil, blocked(refusal(status, header, body, time.Now()))
	}
	var a struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		URI        string `json:"verification_uri"`
		Message    string `json:"message"`
		ExpiresIn  number `json:"expires_in"`
		Interval   number `json:"interval"`
	}
	if json.Unmarshal(body, &a) != nil || a.DeviceCode == "" || a.UserCode == "" || a.URI == "" || a.ExpiresIn.seconds <= 0 {
		return nil, &Error{Class: Retry, Err: errors.New("the login endpoint's answer cannot be read")}
	}
	if a.Interval.seconds <= 0 {
		a.Interval.seconds = 5 * time.Second // RFC 8628
	}
	return &DeviceFlow{
		UserCode: a.UserCode, VerificationURI: a.URI, Message: a.Message, ExpiresAt: time.Now().Add(a.ExpiresIn.seconds),
		user: u, server: server, code: a.DeviceCode, interval: a.Interval.seconds,
	}, nil
}

// Wait asks until the user has typed the code, declined, or the time is up. Passing failures are survived. The grant it
// returns is stored, and holds no secrets.
func (f *DeviceFlow) Wait(ctx context.Context) (Grant, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, f.ExpiresAt, fmt.Errorf("%w: begin again", ErrExpired))
	defer cancel()
	interval := f.interval
	for {
		if err := sleep(ctx, interval); err != nil {
			return Grant{}, err
		}
		got, err := exchange(ctx, f.user.client, f.server.Token, url.Values{
			"grant_type": {deviceGrant}, "client_id": {f.user.opts.ClientID}, "device_code": {f.code}, "claims": {capable},
		}, f.user.opts.Credential)
		if err == nil {
			return f.user.accept(context.WithoutCancel(ctx), f.server, got, "")
		}
		e, ok := errors.AsType[*Error](err)
		switch {
		case !ok:
			return Grant{}, err
		case e.Code == "authorization_pending":
		case e.Code == "slow_down":
			interval += 5 * time.Second
		case e.Code == "authorization_declined" || e.Code == "access_denied": // the former is Entra's
			return Grant{}, fmt.Errorf("%w on the other device", ErrDeclined)
		case e.Code == "expired_token" || e.Code == "code_expired":
			return Grant{}, fmt.Errorf("%w: begin again", ErrExpired)
		case e.Class == Retry:
			interval = max(interval, min(e.RetryAfter, time.Minute))
		default:
			return Grant{}, blocked(e)
		}
	}
}

// blocked names the way out where a policy forbids this way, as Microsoft recommends to tenants.
func blocked(e *Error) error {
	switch e.AADSTS {
	case 53003, 53000, 53001, 530032, 50199, 700022:
		e.Hint = "the tenant forbids signing in by a code (Conditional Access): use the browser, or --paste"
	case 7000218:
		e.Hint = "the app registration does not allow this way: switch on \"Allow public client flows\", or use the browser"
	}
	return e
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
