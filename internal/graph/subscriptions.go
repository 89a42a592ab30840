package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Subscription is Graph's, without resource data.
type Subscription struct {
	ID              string // made by Graph
	Resource        string // without scheme, host and version, for example "users/{id}/mailFolders/inbox/messages"
	ChangeType      string // "created,updated,deleted"
	NotificationURL string
	LifecycleURL    string    // can only be set at creation (S-5)
	ClientState     string    // our secret, at most 128 characters (S-12); never in what ListSubscriptions returns (S-45)
	ExpiresAt       time.Time // as granted, which may be earlier or later than asked (S-6, S-9); UTC
	ApplicationID   string    // read-only
}

// String leaves out the clientState and the addresses.
func (s Subscription) String() string {
	return fmt.Sprintf("subscription %s until %s", s.ID, s.ExpiresAt.UTC().Format(time.RFC3339))
}

// GoString is String, so that %#v does not show the clientState either.
func (s Subscription) GoString() string { return s.String() }

type subscriptionJSON struct {
	ID              string `json:"id,omitempty"`
	Resource        string `json:"resource,omitempty"`
	ChangeType      string `json:"changeType,omitempty"`
	NotificationURL string `json:"notificationUrl,omitempty"`
	LifecycleURL    string `json:"lifecycleNotificationUrl,omitempty"`
	ClientState     string `json:"clientState,omitempty"`
	ExpiresAt       string `json:"expirationDateTime,omitempty"`
	ApplicationID   string `json:"applicationId,omitempty"`
	TLS             string `json:"latestSupportedTlsVersion,omitempty"`
}

var (
	errNotSubscription = errors.New("answer is not a subscription")
	errNoMailbox       = fmt.Errorf("%w: subscription without a mailbox", ErrBadRequest)
)

func (j subscriptionJSON) subscription() (Subscription, error) {
	at, err := time.Parse(time.RFC3339Nano, j.ExpiresAt)
	if err != nil || j.ID == "" {
		return Subscription{}, errNotSubscription
	}
	return Subscription{
		ID: j.ID, Resource: j.Resource, ChangeType: j.ChangeType, NotificationURL: j.NotificationURL, LifecycleURL: j.LifecycleURL,
		ClientState: j.ClientState, ExpiresAt: at.UTC(), ApplicationID: j.ApplicationID,
	}, nil
}

// expiry is written in UTC with Z, without which the body is refused (S-11).
func expiry(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// CreateSubscription asks for a subscription on something in a mailbox. Graph validates the URLs before it answers, so
// the webhook must be listening (N-2); notifications may arrive before this returns (W-18). An ErrUnavailable leaves
// open whether the subscription exists.
//
// Sent is what every cloud knows (C-10), with immutable ids asked for (N-20). TLS 1.2 is named because it is what Graph
// speaks to us at least (S-13, X-1a).
func (c *Client) CreateSubscription(ctx context.Context, mailbox string, s Subscription) (Subscription, error) {
	if mailbox == "" {
		return Subscription{}, &Error{Op: opCreate, Err: errNoMailbox}
	}
	return c.subscription(ctx, call{op: opCreate, method: http.MethodPost, mailbox: mailbox}, "", "", subscriptionJSON{
		Resource: s.Resource, ChangeType: s.ChangeType, NotificationURL: s.NotificationURL, LifecycleURL: s.LifecycleURL,
		ClientState: s.ClientState, ExpiresAt: expiry(s.ExpiresAt), TLS: "v1_2",
	})
}

// RenewSubscription asks for a later expiry, and binds the subscription to a fresh token as reauthorizing does: not
// both within ten minutes. ErrNotFound: it is gone for good.
func (c *Client) RenewSubscription(ctx context.Context, id string, expires time.Time) (Subscription, error) {
	return c.subscription(ctx, call{op: opRenew, method: http.MethodPatch}, id, "",
		subscriptionJSON{ExpiresAt: expiry(expires)})
}

// ReauthorizeSubscription binds the subscription to a fresh token without changing its expiry.
func (c *Client) ReauthorizeSubscription(ctx context.Context, id string) error {
	return c.manage(ctx, call{op: opReauthorize, method: http.MethodPost}, id, "/reauthorize")
}

// DeleteSubscription ends a subscription; one that is gone already is fine.
func (c *Client) DeleteSubscription(ctx context.Context, id string) error {
	err := c.manage(ctx, call{op: opDelete, method: http.MethodDelete}, id, "")
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// ListSubscriptions reads all subscriptions of this app in the tenant.
func (c *Client) ListSubscriptions(ctx context.Context) ([]Subscription, error) {
	var all []Subscription
	u := c.root.String() + "/subscriptions"
	err := c.pages(ctx, call{op: opListSubs, url: u, limit: c.subLists}, c.page, func(it Item) error {
		var j subscriptionJSON
		if err := json.Unmarshal(it.Raw, &j); err != nil {
			return errNotSubscription
		}
		s, err := j.subscription()
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// subscription sends a subscription and reads the one that Graph answers with.
func (c *Client) subscription(ctx context.Context, r call, id, action string, send subscriptionJSON) (Subscription, error) {
	body, err := json.Marshal(send)
	if err != nil {
		return Subscription{}, &Error{Op: r.op, Err: err}
	}
	var got Subscription
	r.body = body
	r.decode = func(body io.Reader) error {
		var j subscriptionJSON
		if err := json.NewDecoder(body).Decode(&j); err != nil {
			return orCut(err, errNotSubscription)
		}
		got, err = j.subscription()
		return err
	}
	if err := c.manage(ctx, r, id, action); err != nil {
		return Subscription{}, err
	}
	return got, nil
}

// manage sends a request about the subscription id, or about all when the operation is to create one.
func (c *Client) manage(ctx context.Context, r call, id, action string) error {
	r.url, r.limit = c.root.String()+"/subscriptions", c.subWrites
	if r.op != opCreate {
		s, err := segment(id)
		if err != nil {
			return &Error{Op: r.op, Err: err}
		}
		r.url += "/" + s + action
	}
	return c.do(ctx, r)
}

// orCut tells an answer that was cut off or could not be read from one that is something else.
func orCut(err, other error) error {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return other
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return other // whose text could quote the answer
	}
	return err
}
