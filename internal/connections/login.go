package connections

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/triggerd/triggerd/internal/auth"
)

// Ways to sign in.
const (
	Browser = "browser" // a browser that reaches the redirect URI: on this machine, or through a tunnel
	Paste   = "paste"   // a browser anywhere; the operator copies the address it ended at
	Device  = "device"  // a code typed on another device
)

// Beginning is a sign-in that was begun: what the person needs to go on.
type Beginning struct {
	ID        string    `json:"id"` // for FinishLogin
	Way       string    `json:"way"`
	URL       string    `json:"url"`                 // to be opened in a browser
	UserCode  string    `json:"user_code,omitempty"` // to be typed there
	Message   string    `json:"message,omitempty"`   // Entra's own words
	ExpiresAt time.Time `json:"expires_at"`
}

// Outcome is a sign-in that went well.
type Outcome struct {
	Connection string   `json:"connection"`
	User       string   `json:"user"` // for the operator's eyes
	TenantID   string   `json:"tenant_id"`
	Granted    []string `json:"granted"`
	Missing    []string `json:"missing,omitempty"` // needed and not granted: an administrator must act
	ConsentURL string   `json:"consent_url,omitempty"`
}

// flows are the sign-ins that were begun, one for each connection at most.
type flows struct {
	mu   sync.Mutex
	byID map[string]*flow
}

type flow struct {
	keeper *keeper
	code   *auth.CodeFlow
	device *auth.DeviceFlow
	ends   time.Time
}

// BeginLogin begins to sign a delegated connection in. One that was begun before and not finished is forgotten.
func (r *Room) BeginLogin(ctx context.Context, name, way, redirectURI string) (b Beginning, err error) {
	k := r.keepers[name]
	switch {
	case k == nil:
		return b, fmt.Errorf("no connection is called %q", name)
	case k.user == nil:
		return b, fmt.Errorf("connection %s signs in as the app by itself: `triggerd check --online` tells whether that works", name)
	}
	f := &flow{keeper: k}
	switch way {
	case Device:
		if f.device, err = k.user.Device(ctx); err != nil {
			return b, err
		}
		b = Beginning{URL: f.device.VerificationURI, UserCode: f.device.UserCode, Message: f.device.Message, ExpiresAt: f.device.ExpiresAt}
	case Browser, Paste:
		if f.code, err = k.user.AuthCode(ctx, redirectURI); err != nil {
			return b, err
		}
		b = Beginning{URL: f.code.URL(), ExpiresAt: f.code.ExpiresAt()}
	default:
		return b, fmt.Errorf("unknown way to sign in %q: want %s, %s or %s", way, Browser, Paste, Device)
	}
	f.ends = b.ExpiresAt
	b.ID, b.Way = rand.Text(), way
	r.flows.put(b.ID, f)
	return b, nil
}

// FinishLogin ends a sign-in. Redirected is the address at which the browser ended; a device sign-in needs none, and
// waits until the person has done or the time is up.
func (r *Room) FinishLogin(ctx context.Context, id, redirected string) (out Outcome, err error) {
	f := r.flows.take(id)
	if f == nil {
		return out, errors.New("that sign-in was not begun here, was finished, or took too long: begin again")
	}
	k := f.keeper
	var g auth.Grant
	if f.device != nil {
		g, err = f.device.Wait(ctx)
	} else {
		u, perr := url.Parse(redirected)
		if perr != nil {
			r.flows.put(id, f)
			return out, errors.New("that is not the address of the page the browser ended at: copy the whole address, beginning with http")
		}
		g, err = f.code.Finish(ctx, u.Query())
	}
	if err != nil {
		return out, err
	}
	if err := k.settle(ctx); err != nil {
		return out, err
	}
	out = Outcome{Connection: k.conf.Name, User: g.Username, TenantID: g.TenantID, Granted: g.Scopes, Missing: k.user.Missing()}
	if len(out.Missing) > 0 {
		out.ConsentURL = r.AdminConsentURL(k.conf.Name)
	}
	return out, nil
}

// AdminConsentURL is what an administrator opens to grant a connection what it needs.
func (r *Room) AdminConsentURL(name string) string {
	if k := r.keepers[name]; k != nil && k.user != nil {
		return k.user.AdminConsentURL()
	}
	return ""
}

func (x *flows) put(id string, f *flow) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byID == nil {
		x.byID = map[string]*flow{}
	}
	now := time.Now()
	for other, o := range x.byID {
		if o.keeper == f.keeper || now.After(o.ends) {
			delete(x.byID, other)
		}
	}
	x.byID[id] = f
}

// take returns a flow once.
func (x *flows) take(id string) *flow {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.byID[id]
	delete(x.byID, id)
	return f
}
