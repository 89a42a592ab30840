package auth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"
)

// ManagedOptions describe the identity of the Azure VM that triggerd runs on.
type ManagedOptions struct {
	Endpoint  string            // of the metadata service; empty: http://169.254.169.254
	ClientID  string            // of a user-assigned identity; empty: the system-assigned one
	Resource  string            // Graph's root without version
	Transport http.RoundTripper // nil: the network, never through a proxy
	Log       zerolog.Logger
}

// NewManagedIdentity makes a source of app-only tokens that the VM's metadata service gives out. There is no credential
// to keep or to lose.
func NewManagedIdentity(o ManagedOptions) *App {
	if o.Endpoint == "" {
		o.Endpoint = "http://169.254.169.254"
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{Proxy: nil, ResponseHeaderTimeout: tokenTimeout}
	}
	query := url.Values{"api-version": {"2018-02-01"}, "resource": {o.Resource}}
	if o.ClientID != "" {
		query.Set("client_id", o.ClientID)
	}
	client, address := loginClient(o.Transport), o.Endpoint+"/metadata/identity/oauth2/token?"+query.Encode()
	a := newApp(noCredential{}, o.Log)
	a.fetch = func(ctx context.Context) (*reply, error) { return askMetadata(ctx, client, address) }
	return a
}

// askMetadata asks the metadata service. 404, 410, 429 and 5xx mend themselves: it is starting or being updated, for
// 70 s and more.
func askMetadata(parent context.Context, client *http.Client, address string) (*reply, error) {
	ctx, cancel := context.WithTimeout(parent, tokenTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, &Error{Class: Operator, Hint: "the metadata service has no usable URL"}
	}
	req.Header.Set("Metadata", "true")
	status, header, body, err := send(ctx, client, req)
	switch {
	case err != nil && parent.Err() != nil:
		return nil, context.Cause(parent)
	case err != nil:
		return nil, &Error{Class: Retry, Err: err, Hint: "managed_identity works on an Azure VM only: is this one, and has it an identity?"}
	case status == http.StatusOK:
		return readReply(body)
	}
	e := refusal(status, header, body, time.Now())
	switch {
	case status == http.StatusNotFound, status == http.StatusGone, status == http.StatusTooManyRequests, status >= 500:
		e.Class = Retry
	case status == http.StatusBadRequest:
		e.Class, e.Hint = Operator, "the VM has no such identity: assign one to it, or compare client_id"
	}
	return nil, e
}

// noCredential is for identities that somebody else proves.
type noCredential struct{}

func (noCredential) proofs(string) ([]url.Values, error) { return []url.Values{nil}, nil }
func (noCredential) version() (string, error)            { return "", nil }
func (noCredential) Expiry() time.Time                   { return time.Time{} }
