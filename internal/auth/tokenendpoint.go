package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	tokenTimeout = 30 * time.Second // of one request to the login endpoint
	maxAnswer    = 1 << 20          // bytes of its answer
)

// reply is what the token endpoint gave.
type reply struct {
	AccessToken, RefreshToken, IDToken string
	Scope                              string
	ExpiresIn                          time.Duration
}

// loginClient is an HTTP client that sends nothing to anybody but whom it was told: redirects are not followed.
func loginClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// exchange asks the token endpoint with what the form says, and proves the app with c (nil: a public client). While two
// secrets live, the next one is tried when one is refused as invalid_client. The error is an *Error, or the cause of a
// ctx that has ended.
func exchange(ctx context.Context, client *http.Client, tokenURL string, form url.Values, c Credential) (*reply, error) {
	proofs := []url.Values{nil}
	if c != nil {
		var err error
		if proofs, err = c.proofs(tokenURL); err != nil {
			return nil, &Error{Class: Operator, Code: "credential", Hint: err.Error()}
		}
	}
	var refused error
	for _, proof := range proofs {
		body := maps.Clone(form)
		maps.Copy(body, proof)
		got, err := post(ctx, client, tokenURL, body)
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "invalid_client" {
			return got, err
		}
		if refused == nil {
			refused = err // the newest one's is told
		}
	}
	return nil, refused
}

// post sends one request.
func post(parent context.Context, client *http.Client, tokenURL string, form url.Values) (*reply, error) {
	ctx, cancel := context.WithTimeoutCause(parent, tokenTimeout, fmt.Errorf("no answer within %v", tokenTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &Error{Class: Operator, Hint: "the login endpoint has no usable URL"}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	status, header, body, err := send(ctx, client, req)
	switch {
	case err != nil && parent.Err() != nil:
		return nil, context.Cause(parent) // the caller went away: that says nothing of the login endpoint
	case err != nil:
		return nil, &Error{Class: Retry, Err: err}
	case status != http.StatusOK:
		return nil, refusal(status, header, body, time.Now())
	}
	return readReply(body)
}

// send sends a request and reads the whole answer. Its error holds no URL.
func send(ctx context.Context, client *http.Client, req *http.Request) (status int, header http.Header, body []byte, err error) {
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		status, header = resp.StatusCode, resp.Header
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return status, header, body, harmless(err)
}

// readReply reads an answer that says that all is well.
func readReply(body []byte) (*reply, error) {
	var a struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		IDToken      string `json:"id_token"`
		Scope        string `json:"scope"`
		ExpiresIn    number `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.AccessToken == "" || !a.ExpiresIn.set {
		return nil, &Error{Class: Retry, Err: errors.New("the login endpoint's answer cannot be read")}
	}
	return &reply{a.AccessToken, a.RefreshToken, a.IDToken, a.Scope, a.ExpiresIn.seconds}, nil
}

// number is seconds as a number or, from older endpoints, as text.
type number struct {
	seconds time.Duration
	set     bool
}

// UnmarshalJSON is json.Unmarshaler's.
func (n *number) UnmarshalJSON(b []byte) error {
	const most = 365 * 24 * 3600
	v, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil || v != v || v > most || v < -most {
		return errors.New("not a number of seconds")
	}
	n.seconds, n.set = time.Duration(v*float64(time.Second)), true
	return nil
}
