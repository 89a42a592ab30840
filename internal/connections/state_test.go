package connections

import (
	"errors"
	"strings"
	"testing"

	"github.com/triggerd/triggerd/internal/auth"
)

func TestJudge(t *testing.T) {
	revoked := &auth.Error{Class: auth.Reauth, Code: "invalid_grant", Status: 400, AADSTS: 50173}
	tests := []struct {
		name                string
		delegated, signedIn bool
		err                 error
		missing             []string
		want                State
		remedy              string // a part of it
		person              bool
	}{
		{"an app signs in", false, false, nil, nil, OK, "", false},
		{"a user's token is refreshed", true, true, nil, nil, OK, "", false},
		{"nobody has signed in yet", true, false, &auth.Error{Class: auth.Reauth}, nil, ReauthRequired, "triggerd login c", true},
		{"revoked", true, true, revoked, nil, ReauthRequired, "triggerd login c", true},
		{"a scope is missing", true, true, nil, []string{"Mail.Read.Shared"}, ConsentRequired, "triggerd login c", true},
		{"no consent", true, true, &auth.Error{Class: auth.Reauth, Code: "invalid_grant", AADSTS: 65001}, nil, ConsentRequired, "administrator", true},
		{"the app has no consent", false, false, &auth.Error{Class: auth.Operator, Code: "invalid_grant", AADSTS: 65001}, nil, ConsentRequired, "administrator", true},
		{"consent_required", true, true, &auth.Error{Class: auth.Reauth, Code: "consent_required"}, nil, ConsentRequired, "administrator", true},
		{"wrong secret", false, false, &auth.Error{Class: auth.Operator, Code: "invalid_client", AADSTS: 7000215}, nil, CredentialFailed, "mend", true},
		{"429", false, false, &auth.Error{Class: auth.Retry, Status: 429}, nil, Throttled, "nothing", false},
		{"a loop that looks like a dead token", true, true, &auth.Error{Class: auth.Retry, Code: "invalid_grant", Status: 400, AADSTS: 50196}, nil, Throttled, "nothing", false},
		{"500", false, false, &auth.Error{Class: auth.Retry, Status: 500}, nil, Unreachable, "DNS", false},
		{"the login endpoint is away before anybody signed in", true, false, &auth.Error{Class: auth.Retry}, nil, Unreachable, "DNS", false},
		{"the state cannot be written", true, true, errors.New("disk full"), nil, Unreachable, "again", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := judge("c", tt.delegated, tt.signedIn, tt.err, tt.missing)
			if v.state != tt.want || v.person() != tt.person || !strings.Contains(v.remedy, tt.remedy) {
				t.Errorf("judge = %+v (a person: %v), want %s, %v, %q", v, v.person(), tt.want, tt.person, tt.remedy)
			}
			if (v.reason == "") != (v.state == OK) {
				t.Errorf("reason %q of state %s", v.reason, v.state)
			}
		})
	}
}
