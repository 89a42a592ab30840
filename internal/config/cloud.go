package config

import (
	"net/url"
	"strings"
	"time"
)

// Cloud is where one of Microsoft's clouds lives, and its quirks.
type Cloud struct {
	Name    string
	Graph   string        // root with version, for example https://graph.microsoft.com/v1.0
	Login   string        // authority, for example https://login.microsoftonline.com
	NoDelta bool          // has no delta for messages and mail folders (C-12)
	MailMax time.Duration // the longest life of a mail subscription (S-7)
	Custom  bool          // from the watch file: a lab or the emulator

	Portal      string // where administrators of the cloud go
	Federated   string // audience of federated tokens
	Environment Names  // what the cloud is called by the tools that administrators use
	Personal    bool   // has personal Microsoft accounts (C-6)
}

// Names are what tools call a cloud.
type Names struct {
	AzureCLI  string // az cloud set --name
	Graph     string // Connect-MgGraph -Environment
	Exchange  string // Connect-ExchangeOnline -ExchangeEnvironmentName
	Terraform string // environment of the azuread provider
}

// Resource is Graph's name in scopes: its root without the version.
func (c Cloud) Resource() string { return strings.TrimSuffix(c.Scope(), "/.default") }

// Scope is what an app-only token is asked for (C-3).
func (c Cloud) Scope() string {
	u, err := url.Parse(c.Graph)
	if err != nil {
		return c.Graph + "/.default"
	}
	return u.Scheme + "://" + u.Host + "/.default"
}

const mailMax = 10_080 * time.Minute // S-7

// builtin are the clouds of the documentation (C-1), by the names of the watch file.
var builtin = map[string]Cloud{
	"global": {
		Name: "global", Graph: "https://graph.microsoft.com/v1.0", Login: "https://login.microsoftonline.com", MailMax: mailMax, Personal: true,
		Portal: "https://entra.microsoft.com", Federated: "api://AzureADTokenExchange",
		Environment: Names{"AzureCloud", "Global", "O365Default", "global"},
	},
	"usgov-l4": {
		Name: "usgov-l4", Graph: "https://graph.microsoft.us/v1.0", Login: "https://login.microsoftonline.us", MailMax: mailMax,
		Portal: "https://portal.azure.us", Federated: "api://AzureADTokenExchangeUSGov",
		Environment: Names{"AzureUSGovernment", "USGov", "O365USGovGCCHigh", "usgovernmentl4"},
	},
	"usgov-l5": {
		Name: "usgov-l5", Graph: "https://dod-graph.microsoft.us/v1.0", Login: "https://login.microsoftonline.us", MailMax: mailMax,
		Portal: "https://portal.azure.us", Federated: "api://AzureADTokenExchangeUSGov",
		Environment: Names{"AzureUSGovernment", "USGovDoD", "O365USGovDoD", "usgovernmentl5"},
	},
	// The documents disagree on China's authority; this is the newer one (C-2).
	"china": {
		Name: "china", Graph: "https://microsoftgraph.chinacloudapi.cn/v1.0", Login: "https://login.partner.microsoftonline.cn", NoDelta: true, MailMax: mailMax,
		Portal: "https://portal.azure.cn", Federated: "api://AzureADTokenExchangeChina",
		Environment: Names{"AzureChinaCloud", "China", "O365China", "china"},
	},
}
