package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/triggerd/triggerd/internal/graph"
)

// refused reports whether an error will stand until somebody does something about it, so that asking again every
// minute is of no use.
func refused(err error) bool {
	return errors.Is(err, graph.ErrForbidden) || errors.Is(err, graph.ErrMailboxUnavailable) ||
		errors.Is(err, graph.ErrNotFound) || errors.Is(err, graph.ErrConflict) || errors.Is(err, graph.ErrExpiryTooFar)
}

// definite reports whether an error means that Graph has done nothing. Everything else is ambiguous: the answer may
// have been lost on its way, and a 500 may hide a creation that went through (N-12).
func definite(err error) bool {
	if ge, ok := errors.AsType[*graph.Error](err); ok && ge.Status != 0 {
		return ge.Status >= 400 && ge.Status < 500 && ge.Status != http.StatusRequestTimeout
	}
	return errors.Is(err, graph.ErrUnauthorized) || errors.Is(err, graph.ErrThrottled)
}

func retryAfter(err error) time.Duration {
	if ge, ok := errors.AsType[*graph.Error](err); ok {
		return ge.RetryAfter
	}
	return 0
}

// words says what went wrong for the status page: status and code, never Graph's prose, which may name a mailbox.
func words(err error) string {
	hint := ""
	switch {
	case errors.Is(err, graph.ErrMailboxUnavailable):
		hint = "Graph does not serve this mailbox: unlicensed, deleted or on-premises"
	case errors.Is(err, graph.ErrForbidden):
		hint = "permission Mail.Read or Calendars.Read is missing, an access policy leaves the mailbox out, or a limit is reached"
	case errors.Is(err, graph.ErrConflict):
		hint = "a subscription of this app exists that is not of this triggerd, with another notification URL"
	case errors.Is(err, graph.ErrExpiryTooFar):
		hint = "Graph grants no lifetime that was asked for"
	case errors.Is(err, graph.ErrValidation):
		hint = "Graph did not get the answer it wanted from the public URL"
	case errors.Is(err, graph.ErrBadRequest):
		hint = "Graph does not take the request"
	case errors.Is(err, graph.ErrUnauthorized):
		hint = "no token, or one that Graph does not take"
	case errors.Is(err, graph.ErrNotFound):
		hint = "Graph knows no such mailbox or folder"
	case errors.Is(err, graph.ErrThrottled):
		hint = "too many requests"
	case errors.Is(err, graph.ErrUnavailable):
		hint = "Graph is not available"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "no answer in time"
	}
	ge, ok := errors.AsType[*graph.Error](err)
	if !ok || ge.Status == 0 {
		if hint == "" {
			return "Graph does not answer"
		}
		return hint
	}
	text := fmt.Sprintf("%d %s", ge.Status, http.StatusText(ge.Status))
	if ge.Code != "" {
		text += " (" + ge.Code + ")"
	}
	if hint != "" {
		text += ": " + hint
	}
	return text
}
