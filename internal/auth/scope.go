package auth

import (
	"net/url"
	"slices"
	"strings"
)

// identityScopes ask for an id token with the user's and the tenant's id (profile), and a refresh token. They need no
// administrator, and carry no prefix in any cloud.
var identityScopes = []string{"openid", "profile", "offline_access"}

// scopeList spells permissions for a cloud: outside the global one a bare name would mean global Graph.
func scopeList(graph string, permissions []string) []string {
	out := slices.Clone(identityScopes)
	for _, p := range permissions {
		if graph != "" && strings.Contains(p, ".") && !strings.Contains(p, "://") { // openid and its like stay bare
			p = graph + "/" + p
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// short is a permission without Graph's name, in lower case.
func short(scope string) string { return strings.ToLower(scope[strings.LastIndexByte(scope, '/')+1:]) }

// shortScopes reads the scope parameter of an answer.
func shortScopes(s string) []string {
	out := []string{}
	for _, scope := range strings.Fields(s) {
		if name := short(scope); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// missingScopes names what is needed and was not granted. A write permission, granted for another reason, holds the read
// permission of the same kind.
func missingScopes(needed, granted []string) (out []string) {
	for _, n := range needed {
		name := short(n)
		write := strings.Replace(name, ".read", ".readwrite", 1)
		if !slices.Contains(granted, name) && !slices.Contains(granted, write) && !slices.Contains(identityScopes, name) {
			out = append(out, n[strings.LastIndexByte(n, '/')+1:])
		}
	}
	return out
}

// adminConsentURL is where an administrator consents. It needs a tenant, or organizations: not common.
func adminConsentURL(o UserOptions) string {
	tenant := o.Tenant
	if tenant == "common" || tenant == "consumers" {
		tenant = "organizations"
	}
	q := url.Values{
		"client_id": {o.ClientID}, "scope": {strings.Join(scopeList(o.Graph, o.Scopes), " ")},
		"redirect_uri": {o.Login + "/common/oauth2/nativeclient"}, // where Entra shows that it is done
	}
	return o.Login + "/" + tenant + "/v2.0/adminconsent?" + q.Encode()
}
