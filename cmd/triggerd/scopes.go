package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
)

// Ids that are the same in every tenant and cloud.
const graphApp = "00000003-0000-0000-c000-000000000000"

var (
	scopeIDs = map[string]string{
		"openid": "37f7f235-527c-4136-accd-4a02d197296e", "profile": "14dad69e-099b-42c9-810b-d002981feec1", "offline_access": "7427e0e9-2fba-42fe-b0c0-848c9e6a8182",
		"Mail.Read": "570282fd-fa5c-430d-a7fd-fc8dc98a9dca", "Mail.Read.Shared": "7b9103a5-4610-446b-9670-80643382c1fa",
		"Calendars.Read": "465a38f9-76ea-45b9-9f34-9e8b0d4b0b42", "Calendars.Read.Shared": "2b9c4092-424d-4249-948d-b43879977640",
		"MailboxSettings.Read": "87f447af-9fa4-4c32-9dfa-4a57a73d18ce",
	}
	roleIDs = map[string]string{
		"Mail.Read": "810c84a8-4a9e-49e6-bf7d-12d183f40d01", "Calendars.Read": "798ee544-9d2d-430c-a058-570e29e34338",
		"MailboxSettings.Read": "40f97065-369a-49f4-947c-6a255697ae91",
	}
)

// permissions are what a connection needs, and how it is got.
type permissions struct {
	Connection string              `json:"connection"`
	Cloud      string              `json:"cloud"`
	Kind       string              `json:"kind"` // application or delegated
	Scopes     []string            `json:"scopes"`
	Because    map[string][]string `json:"because"` // permission → watch/mailbox
	ConsentURL string              `json:"consent_url,omitempty"`
	Redirects  []string            `json:"redirect_uris,omitempty"`

	conf      config.Connection
	mailboxes []string
	mail      map[string]bool // mailboxes whose mail is read; of the others only calendars are
}

var forms = map[string]func(permissions) string{"az": azureCLI, "powershell": graphPowerShell, "terraform": terraform, "exchange": exchange}

func scopesCommand() *cobra.Command {
	var (
		asJSON bool
		form   string
	)
	known := strings.Join(slices.Sorted(maps.Keys(forms)), ", ")
	cmd := &cobra.Command{
		Use:   "scopes [CONNECTION]",
		Short: "The least permissions for this configuration, where to consent, and commands that register the app",
		Long: "Prints what each connection must be allowed to read, computed from the watches over it, and why; never a write permission.\n" +
			"With --for it prints the commands that set this up: " + known + ".",
		Example: "  triggerd scopes\n  triggerd scopes contoso --for exchange\n  triggerd scopes contoso --for az > register.sh",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := config.LoadSettings()
			if err != nil {
				return usage(err)
			}
			file, err := config.Load(set.Config)
			if err != nil {
				return usage(err)
			}
			all, err := permissionsOf(file, args)
			if err != nil {
				return usage(err)
			}
			return printScopes(cmd.OutOrStdout(), all, form, asJSON)
		},
	}
	cmd.Flags().StringVar(&form, "for", "", "print commands for: "+known)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printScopes(w io.Writer, all []permissions, form string, asJSON bool) error {
	if asJSON {
		return printJSON(w, all)
	}
	write, ok := forms[form]
	if form != "" && !ok {
		return usage(fmt.Errorf("--for %s: want one of %s", form, strings.Join(slices.Sorted(maps.Keys(forms)), ", ")))
	}
	if form == "" {
		write = explainScopes
	}
	var parts []string
	for _, p := range all {
		parts = append(parts, write(p))
	}
	_, err := io.WriteString(w, strings.Join(parts, "\n"))
	return err
}

// permissionsOf computes them for one connection or all.
func permissionsOf(file *config.File, args []string) (out []permissions, err error) {
	names := slices.Sorted(maps.Keys(file.Connections))
	if len(args) > 0 {
		if _, ok := file.Connections[args[0]]; !ok {
			return nil, fmt.Errorf("no connection is called %q; there are: %s", args[0], strings.Join(names, ", "))
		}
		names = args
	}
	for _, name := range names {
		out = append(out, permissionsFor(file, file.Connections[name]))
	}
	return out, nil
}

func permissionsFor(file *config.File, c config.Connection) permissions {
	p := permissions{Connection: c.Name, Cloud: c.Cloud.Name, Kind: "application", Because: map[string][]string{}, conf: c, mail: map[string]bool{}}
	if !c.ManagedIdentity {
		p.Redirects = []string{c.Cloud.Login + "/common/oauth2/nativeclient"} // where Entra shows that consent was given
	}
	needs := file.Needs(c.Name)
	p.Scopes = needs.Roles()
	if c.Auth == config.AuthDelegated {
		p.Kind = "delegated"
		p.Scopes = slices.Concat([]string{"openid", "profile", "offline_access"}, needs.Scopes())
		for _, s := range c.ExtraScopes {
			if !slices.Contains(p.Scopes, s) {
				p.Scopes = append(p.Scopes, s)
				p.Because[s] = []string{"extra_scopes"}
			}
		}
		p.Redirects = append(p.Redirects, "http://localhost")
		p.Because["openid"], p.Because["profile"] = []string{"who signed in"}, []string{"who signed in"}
		p.Because["offline_access"] = []string{"going on without the user"}
	}
	for i := range file.Watches {
		w := &file.Watches[i]
		if w.Connection != c.Name {
			continue
		}
		for _, m := range w.Mailboxes {
			for _, scope := range w.Needs(c.Auth, m).Scopes() {
				p.Because[scope] = append(p.Because[scope], w.Name+"/"+m.Address)
			}
			p.mail[m.Address] = p.mail[m.Address] || len(w.Mail.Folders) > 0
			if !slices.Contains(p.mailboxes, m.Address) {
				p.mailboxes = append(p.mailboxes, m.Address)
			}
		}
	}
	p.ConsentURL = p.consentURL()
	return p
}

// consentURL is where an administrator consents: for an app everything that its registration asks for.
func (p permissions) consentURL() string {
	if p.conf.ManagedIdentity {
		return ""
	}
	tenant := p.conf.Tenant
	scope := p.conf.Cloud.Scope()
	if p.Kind == "delegated" {
		var full []string
		for _, s := range p.Scopes {
			if strings.Contains(s, ".") {
				s = p.conf.Cloud.Resource() + "/" + s
			}
			full = append(full, s)
		}
		scope = strings.Join(full, " ")
		if tenant == "common" || tenant == "consumers" {
			tenant = "organizations"
		}
	}
	q := url.Values{"client_id": {p.conf.ClientID}, "scope": {scope}, "redirect_uri": {p.Redirects[0]}}
	return p.conf.Cloud.Login + "/" + tenant + "/v2.0/adminconsent?" + q.Encode()
}

func explainScopes(p permissions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "connection %s: %s permissions of Microsoft Graph, in cloud %s\n", p.Connection, p.Kind, p.Cloud)
	for _, s := range p.Scopes {
		fmt.Fprintf(&b, "  %-21s %s\n", s, strings.Join(p.Because[s], ", "))
	}
	if slices.Contains(p.Scopes, "MailboxSettings.Read") && !slices.Contains(p.Because["MailboxSettings.Read"], "extra_scopes") {
		fmt.Fprintf(&b, "\nMailboxSettings.Read tells in which time zone all-day meetings start; with calendar.time_zone in these watches it is not needed.\n")
	}
	switch {
	case p.conf.ManagedIdentity:
		fmt.Fprintf(&b, "\nA managed identity has no registration of its own: give its service principal the role (--for powershell), or better the role\nfor these mailboxes only (--for exchange).\n")
		return b.String()
	case p.Kind == "application":
		fmt.Fprintf(&b, "\nGranted in Entra this is good for every mailbox of the tenant. To limit it to the %d watched, grant nothing in Entra and use RBAC\nfor Applications in Exchange Online instead (--for exchange); granted in both places, the wider one counts.\n", len(p.mailboxes))
		fmt.Fprintf(&b, "\nAn administrator consents for the whole tenant (register the redirect URI %s) at\n  %s\n", p.Redirects[0], p.ConsentURL)
	default:
		fmt.Fprintf(&b, "\nRegister as platform \"Mobile and desktop applications\" the redirect URIs\n  %s\nand for --device switch on \"Allow public client flows\".\n", strings.Join(p.Redirects, "\n  "))
		fmt.Fprintf(&b, "\nThe user consents at sign-in (triggerd login %s); where that is not allowed, an administrator at\n  %s\n", p.Connection, p.ConsentURL)
	}
	fmt.Fprintf(&b, "\nPortal: %s. Commands that do it: triggerd scopes %s --for az | powershell | terraform | exchange\n", p.conf.Cloud.Portal, p.Connection)
	return b.String()
}

// unknown are permissions whose id is not known here.
func (p permissions) unknown() (out []string) {
	for _, s := range p.Scopes {
		if p.id(s) == "" {
			out = append(out, s)
		}
	}
	return out
}

func (p permissions) id(scope string) string {
	if p.Kind == "application" {
		return roleIDs[scope]
	}
	return scopeIDs[scope]
}

// kind is how Entra marks a permission in a registration.
func (p permissions) kind() string {
	if p.Kind == "application" {
		return "Role"
	}
	return "Scope"
}

func (p permissions) note(comment string) string {
	if extra := p.unknown(); len(extra) > 0 {
		return comment + " Add these by hand, their ids are not known here: " + strings.Join(extra, ", ") + "\n"
	}
	return ""
}

// sh quotes for a POSIX shell, ps for PowerShell, tf for Terraform.
func sh(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
func ps(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func tf(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s)
	return `"` + s + `"`
}

func (p permissions) display() string { return "triggerd " + p.Connection }

func azureCLI(p permissions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# connection %s: registers an app, and prints its client_id\n%s", p.Connection, p.note("#"))
	fmt.Fprintf(&b, "az cloud set --name %s\naz login --allow-no-subscriptions%s\n", sh(p.conf.Cloud.Environment.AzureCLI), azTenant(p))
	var access []string
	for _, s := range p.Scopes {
		if id := p.id(s); id != "" {
			access = append(access, fmt.Sprintf(`{"id":"%s","type":"%s"}`, id, p.kind()))
		}
	}
	resource := fmt.Sprintf(`[{"resourceAppId":"%s","resourceAccess":[%s]}]`, graphApp, strings.Join(access, ","))
	fmt.Fprintf(&b, "APP=$(az ad app create --display-name %s --sign-in-audience %s \\\n  --required-resource-accesses %s", sh(p.display()), audience(p), sh(resource))
	fmt.Fprintf(&b, " \\\n  --public-client-redirect-uris %s", strings.Join(each(p.Redirects, sh), " "))
	if p.Kind == "delegated" {
		fmt.Fprint(&b, " --is-fallback-public-client true")
	}
	fmt.Fprint(&b, " \\\n  --query appId --output tsv)\naz ad sp create --id \"$APP\"\n")
	if p.Kind == "application" {
		fmt.Fprintf(&b, "az ad app credential reset --id \"$APP\" --append --display-name triggerd --years 1 --query password --output tsv > client-secret\nchmod 600 client-secret\n")
	}
	fmt.Fprintf(&b, "echo \"client_id: $APP\"\n# An administrator consents, unless RBAC for Applications is used instead (--for exchange):\n# az ad app permission admin-consent --id \"$APP\"\n")
	return b.String()
}

func azTenant(p permissions) string {
	if strings.Contains("common organizations consumers", p.conf.Tenant) {
		return ""
	}
	return " --tenant " + sh(p.conf.Tenant)
}

// audience is whose accounts an app is for.
func audience(p permissions) string {
	switch {
	case p.Kind == "delegated" && p.conf.Tenant == "common" && p.conf.Cloud.Personal:
		return "AzureADandPersonalMicrosoftAccount"
	case p.Kind == "delegated" && p.conf.Tenant == "consumers":
		return "PersonalMicrosoftAccount"
	case p.Kind == "delegated" && (p.conf.Tenant == "common" || p.conf.Tenant == "organizations"):
		return "AzureADMultipleOrgs"
	}
	return "AzureADMyOrg"
}

func each(in []string, fn func(string) string) (out []string) {
	for _, s := range in {
		out = append(out, fn(s))
	}
	return out
}

func graphPowerShell(p permissions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# connection %s\n%s", p.Connection, p.note("#"))
	fmt.Fprintf(&b, "Connect-MgGraph -Environment %s -Scopes Application.ReadWrite.All,AppRoleAssignment.ReadWrite.All\n", p.conf.Cloud.Environment.Graph)
	if p.conf.ManagedIdentity {
		fmt.Fprintf(&b, "$sp = Get-MgServicePrincipal -Filter \"displayName eq 'NAME OF THE VM OR IDENTITY'\"\n%s", assignRole(p))
		return b.String()
	}
	var access []string
	for _, s := range p.Scopes {
		if id := p.id(s); id != "" {
			access = append(access, fmt.Sprintf("@{ Id = %s; Type = '%s' }", ps(id), p.kind()))
		}
	}
	fmt.Fprintf(&b, "$app = New-MgApplication -DisplayName %s -SignInAudience %s `\n  -RequiredResourceAccess @{ ResourceAppId = %s; ResourceAccess = @(%s) }", ps(p.display()), audience(p), ps(graphApp), strings.Join(access, ", "))
	fmt.Fprintf(&b, " `\n  -PublicClient @{ RedirectUris = @(%s) }", strings.Join(each(p.Redirects, ps), ", "))
	if p.Kind == "delegated" {
		fmt.Fprint(&b, " -IsFallbackPublicClient")
	}
	fmt.Fprint(&b, "\n$sp = New-MgServicePrincipal -AppId $app.AppId\n")
	if p.Kind == "application" {
		fmt.Fprintf(&b, "(Add-MgApplicationPassword -ApplicationId $app.Id -PasswordCredential @{ DisplayName = 'triggerd' }).SecretText | Set-Content -NoNewline client-secret\n")
		fmt.Fprintf(&b, "# For every mailbox of the tenant; leave it out where RBAC for Applications is used (--for exchange):\n%s", assignRole(p))
	}
	fmt.Fprint(&b, "\"client_id: $($app.AppId)\"\n")
	return b.String()
}

func assignRole(p permissions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$graph = Get-MgServicePrincipal -Filter \"appId eq '%s'\"\n", graphApp)
	for _, s := range p.Scopes {
		fmt.Fprintf(&b, "New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $sp.Id -PrincipalId $sp.Id -ResourceId $graph.Id -AppRoleId %s\n", ps(roleIDs[s]))
	}
	return b.String()
}

func terraform(p permissions) string {
	var b strings.Builder
	name := "triggerd_" + strings.ReplaceAll(p.Connection, "-", "_")
	fmt.Fprintf(&b, "# connection %s\n%sprovider \"azuread\" {\n  environment = %s\n", p.Connection, p.note("#"), tf(p.conf.Cloud.Environment.Terraform))
	if azTenant(p) != "" {
		fmt.Fprintf(&b, "  tenant_id   = %s\n", tf(p.conf.Tenant))
	}
	fmt.Fprintf(&b, "}\n\nresource \"azuread_application\" %s {\n  display_name     = %s\n  sign_in_audience = %s\n", tf(name), tf(p.display()), tf(audience(p)))
	if p.Kind == "delegated" {
		fmt.Fprint(&b, "  fallback_public_client_enabled = true\n")
	}
	fmt.Fprintf(&b, "\n  public_client {\n    redirect_uris = [%s]\n  }\n", strings.Join(each(p.Redirects, tf), ", "))
	fmt.Fprintf(&b, "\n  required_resource_access {\n    resource_app_id = %s\n", tf(graphApp))
	for _, s := range p.Scopes {
		if id := p.id(s); id != "" {
			fmt.Fprintf(&b, "    resource_access {\n      id   = %s # %s\n      type = %s\n    }\n", tf(id), s, tf(p.kind()))
		}
	}
	fmt.Fprintf(&b, "  }\n}\n\nresource \"azuread_service_principal\" %s {\n  client_id = azuread_application.%s.client_id\n}\n", tf(name), name)
	if p.Kind == "application" {
		fmt.Fprintf(&b, "\nresource \"azuread_application_password\" %s {\n  application_id = azuread_application.%s.id\n}\n", tf(name), name)
	}
	fmt.Fprintf(&b, "\noutput \"client_id\" {\n  value = azuread_application.%s.client_id\n}\n", name)
	return b.String()
}

// exchange limits an app to the watched mailboxes.
func exchange(p permissions) string {
	var b strings.Builder
	if p.Kind == "delegated" {
		fmt.Fprintf(&b, "# connection %s reads what its user may read: share the mailboxes with that user instead.\n", p.Connection)
		fmt.Fprintf(&b, "Connect-ExchangeOnline -ExchangeEnvironmentName %s\n", p.conf.Cloud.Environment.Exchange)
		for _, m := range p.mailboxes {
			switch {
			case m == config.Me:
			case p.mail[m]:
				fmt.Fprintf(&b, "Add-MailboxPermission -Identity %s -User 'THE SIGNED-IN USER' -AccessRights FullAccess -AutoMapping $false\n", ps(m))
			default:
				fmt.Fprintf(&b, "Add-MailboxFolderPermission -Identity %s -User 'THE SIGNED-IN USER' -AccessRights Reviewer   # the calendar as it is called in that mailbox\n", ps(m+`:\Calendar`))
			}
		}
		return b.String()
	}
	scope := "triggerd " + p.Connection
	fmt.Fprintf(&b, "# connection %s: RBAC for Applications. Do not grant %s in Entra as well: both grants count together.\n", p.Connection, strings.Join(p.Scopes, ", "))
	fmt.Fprintf(&b, "# A new assignment takes 30 minutes to 2 hours.\nConnect-ExchangeOnline -ExchangeEnvironmentName %s\n", p.conf.Cloud.Environment.Exchange)
	fmt.Fprintf(&b, "$app = %s                # client_id\n$object = 'OBJECT ID OF THE SERVICE PRINCIPAL'   # Enterprise applications, not App registrations\n", ps(cmp.Or(p.conf.ClientID, "APPLICATION ID OF THE IDENTITY")))
	fmt.Fprintf(&b, "New-ServicePrincipal -AppId $app -ObjectId $object -DisplayName %s\n", ps(scope))
	fmt.Fprintf(&b, "%s | ForEach-Object { Set-Mailbox -Identity $_ -CustomAttribute15 'triggerd' }\n", strings.Join(each(p.mailboxes, ps), ", "))
	fmt.Fprintf(&b, "New-ManagementScope -Name %s -RecipientRestrictionFilter \"CustomAttribute15 -eq 'triggerd'\"\n", ps(scope))
	for _, s := range p.Scopes {
		fmt.Fprintf(&b, "New-ManagementRoleAssignment -App $object -Role 'Application %s' -CustomResourceScope %s\n", s, ps(scope))
	}
	for _, m := range p.mailboxes {
		fmt.Fprintf(&b, "Test-ServicePrincipalAuthorization -Identity $object -Resource %s   # InScope: True\n", ps(m))
	}
	for _, m := range p.conf.Unreachable {
		fmt.Fprintf(&b, "Test-ServicePrincipalAuthorization -Identity $object -Resource %s   # InScope: False\n", ps(m))
	}
	return b.String()
}
