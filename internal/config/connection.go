package config

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func (p *parse) connection(name string, k, v ast.Node) {
	if !isName(name) {
		p.bad(k, "connection name %q: %s", name, nameRule)
	}
	c, cloud, auth := Connection{Name: name}, "global", string(AuthApp)
	file := func(what string, to *string) func(ast.Node) { return func(n ast.Node) { *to = p.text(n, what) } }
	at := p.fields(v, "connection", map[string]func(ast.Node){
		"cloud":                     file("cloud", &cloud),
		"tenant":                    file("tenant", &c.Tenant),
		"client_id":                 file("client_id", &c.ClientID),
		"auth":                      file("auth", &auth),
		"client_secret":             p.later("a secret in this file", "put it into a file of its own, and name that in client_secret_file"),
		"client_secret_file":        func(n ast.Node) { c.ClientSecretFiles = p.oneOrMore(n, "client_secret_file") },
		"certificate_file":          file("certificate_file", &c.CertificateFile),
		"certificate_key_file":      file("certificate_key_file", &c.CertificateKeyFile),
		"certificate_password_file": file("certificate_password_file", &c.CertificatePasswordFile),
		"federated_token_file":      file("federated_token_file", &c.FederatedTokenFile),
		"managed_identity":          func(n ast.Node) { c.ManagedIdentity = p.flag(n, "managed_identity") },
		"extra_scopes":              func(n ast.Node) { c.ExtraScopes = p.oneOrMore(n, "extra_scopes") },
		"unreachable":               func(n ast.Node) { c.Unreachable = p.oneOrMore(n, "unreachable") },
	})
	var ok bool
	if c.Cloud, ok = p.file.Clouds[cloud]; !ok {
		p.bad(at["cloud"].value, "unknown cloud %q%s", cloud, cmp.Or(didYouMean(cloud, names(p.file.Clouds)), "; there are "+strings.Join(names(p.file.Clouds), ", ")))
	}
	if c.Auth = Auth(auth); c.Auth != AuthApp && c.Auth != AuthDelegated {
		p.bad(at["auth"].value, "auth: %q is not one of app, delegated", auth)
	}
	p.registration(&c, at, k)
	p.credential(&c, at, k)
	p.extraScopes(&c, at)
	for _, address := range c.Unreachable {
		if m := (Mailbox{Address: address}); !m.IsID() && !isAddress(address) {
			p.bad(at["unreachable"].value, "unreachable: %q is neither an address nor a Graph user id", address)
		}
	}
	p.file.Connections[name] = c
}

// oneOrMore reads a text or a list of texts.
func (p *parse) oneOrMore(n ast.Node, what string) (out []string) {
	if _, ok := resolve(n).(*ast.SequenceNode); !ok {
		return []string{p.text(n, what)}
	}
	p.list(n, what, func(v ast.Node) { out = append(out, p.text(v, what)) })
	return out
}

// flag reads true or false.
func (p *parse) flag(n ast.Node, what string) bool {
	b, ok := resolve(n).(*ast.BoolNode)
	if !ok {
		p.bad(n, "%s: want true or false", what)
		return false
	}
	return b.Value
}

var domain = regexp.MustCompile(`^([A-Za-z0-9-]+\.)+[A-Za-z0-9-]+$`)

// registration checks tenant and client_id.
func (p *parse) registration(c *Connection, at map[string]entry, k ast.Node) {
	tenant, given := at["tenant"]
	lower := strings.ToLower(c.Tenant)
	several := lower == "common" || lower == "organizations" || lower == "consumers"
	switch {
	case c.ManagedIdentity && !given:
	case several && c.Auth == AuthApp:
		p.bad(tenant.value, "tenant: %q does not work without a user: give the tenant's id or one of its domains", c.Tenant)
	case lower == "consumers" && !c.Cloud.Personal:
		p.bad(tenant.value, "tenant: cloud %s has no personal accounts: give the tenant's id or one of its domains", c.Cloud.Name)
	case several:
		c.Tenant = lower
	case c.Tenant == "" && c.Auth == AuthDelegated:
		c.Tenant = "common"
	case c.Tenant == "" && !given:
		p.bad(k, "connection %q has no tenant: give the tenant's id or one of its domains", c.Name)
	case c.Tenant == "":
	case !guid.MatchString(c.Tenant) && !domain.MatchString(c.Tenant):
		p.bad(tenant.value, "tenant: %q is neither a tenant id nor a domain", c.Tenant)
	}
	id, given := at["client_id"]
	switch {
	case !given && c.ManagedIdentity:
	case !given:
		p.bad(k, "connection %q has no client_id: give the app registration's application id", c.Name)
	case !guid.MatchString(c.ClientID):
		p.bad(id.value, "client_id: %q is not an application id: copy the GUID from the app registration's overview", c.ClientID)
	}
}

// credential wants exactly one kind for an app, and one at most for a user; with a directory known it looks whether the
// files can be read.
func (p *parse) credential(c *Connection, at map[string]entry, k ast.Node) {
	var given []string
	for _, name := range []string{"client_secret_file", "certificate_file", "federated_token_file", "managed_identity"} {
		if _, ok := at[name]; ok && (name != "managed_identity" || c.ManagedIdentity) {
			given = append(given, name)
		}
	}
	switch {
	case len(given) == 0 && c.Auth == AuthApp:
		p.bad(k, "connection %q has no credential: give it client_secret_file, certificate_file, federated_token_file, or managed_identity: true", c.Name)
	case len(given) > 1:
		p.bad(at[given[1]].key, "connection %q has several credentials (%s): keep one", c.Name, strings.Join(given, ", "))
	case c.ManagedIdentity && c.Auth == AuthDelegated:
		p.bad(at["managed_identity"].key, "managed_identity signs in as the machine, not for a user: write auth: app, or take it out")
	}
	for _, name := range []string{"certificate_key_file", "certificate_password_file"} {
		if e, ok := at[name]; ok && c.CertificateFile == "" {
			p.bad(e.key, "%s goes with certificate_file: name the certificate too", name)
		}
	}
	for i := range c.ClientSecretFiles {
		p.secretFile(at["client_secret_file"].value, "client_secret_file", &c.ClientSecretFiles[i], maxSecret)
	}
	p.secretFile(at["certificate_file"].value, "certificate_file", &c.CertificateFile, maxFile)
	p.secretFile(at["certificate_key_file"].value, "certificate_key_file", &c.CertificateKeyFile, maxFile)
	p.secretFile(at["certificate_password_file"].value, "certificate_password_file", &c.CertificatePasswordFile, maxSecret)
	p.secretFile(at["federated_token_file"].value, "federated_token_file", &c.FederatedTokenFile, maxSecret)
}

// secretFile makes a name absolute, and looks whether the file is there and is for us only.
func (p *parse) secretFile(n ast.Node, what string, path *string, limit int64) {
	if n == nil {
		return
	}
	if *path == "" {
		p.bad(n, "%s: names no file", what)
		return
	}
	if p.dir == "" {
		return
	}
	if !filepath.IsAbs(*path) {
		*path = filepath.Join(p.dir, *path)
	}
	if limit == maxSecret {
		if _, err := ReadSecret(*path); err != nil {
			p.bad(n, "%s: %v", what, err)
			return
		}
	}
	fi, err := os.Stat(*path)
	switch {
	case err != nil:
		p.bad(n, "%s: %v", what, err)
	case fi.Size() > limit || fi.IsDir():
		p.bad(n, "%s: %s is not such a file", what, *path)
	case fi.Mode().Perm()&0o004 != 0:
		p.warn(n, "%s: %s can be read by everybody on this machine: chmod o-r", what, *path)
	}
}

var scopeName = regexp.MustCompile(`^[A-Za-z]+(\.[A-Za-z]+)+$`)

// extraScopes belong to delegated sign-in, are of this cloud's Graph, and never allow to write.
func (p *parse) extraScopes(c *Connection, at map[string]entry) {
	n := at["extra_scopes"].value
	if n == nil || len(c.ExtraScopes) == 0 {
		return
	}
	if c.Auth == AuthApp {
		p.bad(n, "extra_scopes: with auth app the permissions are those of the app registration: leave it out")
		return
	}
	for i, scope := range c.ExtraScopes {
		name := strings.TrimPrefix(scope, c.Cloud.Resource()+"/")
		lower := strings.ToLower(name)
		switch {
		case strings.Contains(name, "://"):
			p.bad(n, "extra_scopes: %q is not of this cloud's Graph: write the name alone, such as User.Read", scope)
		case slices.Contains([]string{"openid", "profile", "email", "offline_access"}, lower):
		case strings.HasSuffix(lower, ".default"):
			p.bad(n, "extra_scopes: %q asks for all that the app was ever given: name what is needed", scope)
		case !scopeName.MatchString(name):
			p.bad(n, "extra_scopes: %q is not a permission of Graph", scope)
		case !readsOnly(lower):
			p.bad(n, "extra_scopes: %q allows more than reading, which triggerd never asks for: leave it out", scope)
		}
		c.ExtraScopes[i] = name
	}
}

// readsOnly knows the forms of Graph's read permissions; whatever is none of them may write.
func readsOnly(scope string) bool {
	for part := range strings.SplitSeq(scope, ".") {
		if part == "read" || part == "readbasic" {
			return true
		}
	}
	return false
}

// Needs are what watches have to read. What others share with the signed-in user is a permission of its own.
type Needs struct {
	Mail           bool // the signed-in user's own mail; for an app any mail
	MailShared     bool
	Calendar       bool // the signed-in user's own calendars; for an app any calendar
	CalendarShared bool
	Settings       bool // mailbox settings, for the time zone that all-day meetings start in
}

// Needs tells what a connection must be allowed to read.
func (f *File) Needs(connection string) (n Needs) {
	auth := f.Connections[connection].Auth
	for i := range f.Watches {
		if w := &f.Watches[i]; w.Connection == connection {
			for _, m := range w.Mailboxes {
				n = n.And(w.Needs(auth, m))
			}
		}
	}
	return n
}

// Needs tells what the watch has to read in one of its mailboxes.
func (w *Watch) Needs(auth Auth, m Mailbox) Needs {
	mail, calendar := len(w.Mail.Folders) > 0, len(w.Calendar.Calendars) > 0
	if auth == AuthDelegated && !m.IsMe() {
		return Needs{MailShared: mail, CalendarShared: calendar} // nobody may read the settings of others
	}
	return Needs{Mail: mail, Calendar: calendar, Settings: len(w.Calendar.Starting) > 0 && w.Calendar.TimeZone == ""}
}

// And is what both have to read.
func (n Needs) And(o Needs) Needs {
	return Needs{n.Mail || o.Mail, n.MailShared || o.MailShared, n.Calendar || o.Calendar, n.CalendarShared || o.CalendarShared, n.Settings || o.Settings}
}

// Scopes are the delegated permissions to ask for, all of them read-only.
func (n Needs) Scopes() (out []string) {
	for _, p := range []struct {
		needed bool
		name   string
	}{
		{n.Mail, "Mail.Read"},
		{n.MailShared, "Mail.Read.Shared"},
		{n.Calendar, "Calendars.Read"}, // P-4
		{n.CalendarShared, "Calendars.Read.Shared"},
		{n.Settings, "MailboxSettings.Read"},
	} {
		if p.needed {
			out = append(out, p.name)
		}
	}
	return out
}

// Roles are the application permissions to ask for, all of them read-only (P-2, P-4). They have the same names.
func (n Needs) Roles() []string {
	n.MailShared, n.CalendarShared = false, false // an app is not shared with
	return n.Scopes()
}
