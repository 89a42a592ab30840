package connections

import (
	"errors"
	"strings"

	"github.com/triggerd/triggerd/internal/auth"
)

// State is how a connection is.
type State string

// The states. All but Unknown and Unreachable are also names of connection events.
const (
	Unknown          State = "unknown"           // not tried yet
	OK               State = "ok"                // tokens are to be had
	Unreachable      State = "unreachable"       // the login endpoint does not answer properly; it mends itself
	Throttled        State = "throttled"         // the login endpoint asked for patience; it mends itself
	ReauthRequired   State = "reauth_required"   // the user must sign in (again)
	ConsentRequired  State = "consent_required"  // a permission is missing: an administrator or the user must consent
	CredentialFailed State = "credential_failed" // the app registration or its credential is refused: the operator must act
)

// States lists all states, for metrics.
var States = []State{Unknown, OK, Unreachable, Throttled, ReauthRequired, ConsentRequired, CredentialFailed}

const notSignedIn = "nobody has signed in yet"

// verdict is a state with its reason and what to do.
type verdict struct {
	state          State
	reason, remedy string
}

// judge says what an attempt to get a token means. Missing are permissions that the user did not grant.
func judge(name string, delegated, signedIn bool, err error, missing []string) verdict {
	login := "run `triggerd login " + name + "`"
	e, _ := errors.AsType[*auth.Error](err)
	switch {
	case delegated && !signedIn && (err == nil || e == nil || e.Class == auth.Reauth):
		return verdict{ReauthRequired, notSignedIn, login}
	case err == nil && len(missing) > 0:
		return verdict{ConsentRequired, "not granted: " + strings.Join(missing, ", "), login + "; where users may not consent, an administrator opens the URL that `triggerd scopes " + name + "` prints"}
	case err == nil:
		return verdict{OK, "", ""}
	case e == nil: // not the login endpoint's: the state cannot be read or written
		return verdict{Unreachable, err.Error(), "see the reason; triggerd tries again by itself"}
	case e.Class == auth.Retry && e.Throttled():
		return verdict{Throttled, err.Error(), "nothing: triggerd waits as long as Entra asks; look whether something else uses the same app registration"}
	case e.Class == auth.Retry:
		return verdict{Unreachable, err.Error(), "check DNS, firewall and proxies between here and the login endpoint; triggerd tries again by itself"}
	case e.NeedsConsent():
		return verdict{ConsentRequired, err.Error(), "an administrator opens the URL that `triggerd scopes " + name + "` prints" + then(delegated, login)}
	case e.Class == auth.Reauth:
		return verdict{ReauthRequired, err.Error(), login}
	}
	return verdict{CredentialFailed, err.Error(), "mend what the reason names; triggerd takes up a replaced credential by itself"}
}

func then(delegated bool, login string) string {
	if delegated {
		return ", then " + login
	}
	return ""
}

// person reports whether nothing goes on before a person has acted.
func (v verdict) person() bool {
	return v.state == ReauthRequired || v.state == ConsentRequired || v.state == CredentialFailed
}
