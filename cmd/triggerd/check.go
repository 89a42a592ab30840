package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/probe"
)

func checkCommand() *cobra.Command {
	var asJSON, online bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Every mistake in the configuration with its line, or what run would do",
		Long: "Loads the configuration, reports every mistake with its line, and says what run would do. With --online it also asks NATS, the\n" +
			"login endpoints and Graph, and says for each connection and mailbox what can be read, with the remedy and who must act.",
		Example: "  TRIGGERD_CONFIG=./triggerd.yaml triggerd check\n  triggerd check --online",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, file, err := loadConfiguration()
			if err == nil {
				err = writable(set.StateDir)
			}
			if err != nil {
				return usage(err)
			}
			f := describe(set, file)
			if online {
				if f.Online, err = checkOnline(cmd.Context(), set, file); err != nil {
					return err
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), f); err != nil {
					return err
				}
				return verdict(f.Online)
			}
			if err := explain(cmd.OutOrStdout(), f); err != nil || !online {
				return err
			}
			return explainOnline(cmd.OutOrStdout(), f.Online)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&online, "online", false, "also ask NATS, the login endpoints and Graph")
	return cmd
}

// writable tries the state directory, or where it would be made.
func writable(dir string) error {
	at := dir
	for {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("TRIGGERD_STATE_DIR: %s is not a directory", at)
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(at)
		if parent == at {
			return fmt.Errorf("TRIGGERD_STATE_DIR: %w", err)
		}
		at = parent
	}
	f, err := os.CreateTemp(at, ".triggerd-check-*")
	if err != nil {
		return fmt.Errorf("TRIGGERD_STATE_DIR: %w: give the directory to the user triggerd runs as", err)
	}
	f.Close()
	return os.Remove(f.Name())
}

// facts are what run would do.
type facts struct {
	Config      string           `json:"config"`
	StateDir    string           `json:"state_dir"`
	NATS        string           `json:"nats"`
	Stream      string           `json:"stream"`
	Listen      string           `json:"listen"`
	TLS         string           `json:"tls,omitempty"`
	PublicURL   string           `json:"public_url,omitempty"`
	Connections []connectionFact `json:"connections"`
	Watches     []watchFact      `json:"watches"`
	Warnings    []string         `json:"warnings,omitempty"`
	Online      []probe.Finding  `json:"online,omitempty"`
}

type connectionFact struct {
	Name   string `json:"name"`
	Cloud  string `json:"cloud"`
	Tenant string `json:"tenant"`
	SignIn string `json:"sign_in"`
}

type watchFact struct {
	Name       string        `json:"name"`
	Connection string        `json:"connection"`
	Folders    []string      `json:"folders,omitempty"` // of mail; none: no mail
	Events     []string      `json:"events,omitempty"`
	Calendar   *calendarFact `json:"calendar,omitempty"`
	Content    string        `json:"content"`
	When       string        `json:"when,omitempty"`
	By         string        `json:"by"`
	Start      string        `json:"start"`
	Canary     string        `json:"canary,omitempty"` // how often an event must come
	Mailboxes  []mailboxFact `json:"mailboxes"`
}

type calendarFact struct {
	Calendars []string `json:"calendars"`
	Past      string   `json:"past"` // the window
	Future    string   `json:"future"`
	Events    []string `json:"events"`
	Starting  []string `json:"starting,omitempty"`  // lead times
	TimeZone  string   `json:"time_zone,omitempty"` // in which all-day meetings start
}

type mailboxFact struct {
	Address string `json:"address"`
	By      string `json:"by,omitempty"` // where it differs from the watch's
	Subject string `json:"subject"`
}

func describe(set config.Settings, file *config.File) facts {
	f := facts{
		Config: set.Config, StateDir: set.StateDir, NATS: set.NATSURL, Stream: set.Stream, Listen: set.Listen,
		PublicURL: set.PublicURL, Warnings: file.Warnings,
	}
	if f.NATS == "" {
		f.NATS = "embedded, on " + set.NATSListen
	}
	switch {
	case set.TLSCertFile != "":
		f.TLS = "TLS with the certificate in " + set.TLSCertFile
	case set.ACMEEmail != "":
		f.TLS = "TLS with a certificate from " + set.ACMECA
	}
	used := map[string]bool{}
	for i := range file.Watches {
		w := &file.Watches[i]
		if c := file.Connections[w.Connection]; !used[w.Connection] {
			used[w.Connection] = true
			f.Connections = append(f.Connections, connectionFact{w.Connection, c.Cloud.Name, c.Tenant, signsIn(&c)})
		}
		f.Watches = append(f.Watches, describeWatch(set, w, file.Connections[w.Connection].Auth))
	}
	return f
}

// signsIn says how a connection proves who it is.
func signsIn(c *config.Connection) string {
	with := ""
	switch {
	case len(c.ClientSecretFiles) > 0:
		with = "with a client secret"
	case c.CertificateFile != "":
		with = "with a certificate"
	case c.FederatedTokenFile != "":
		with = "with a token of another issuer"
	case c.ManagedIdentity:
		return "as the managed identity of this machine"
	}
	switch {
	case c.Auth == config.AuthDelegated && with == "":
		return "for a user, as a public client (triggerd login " + c.Name + ")"
	case c.Auth == config.AuthDelegated:
		return "for a user (triggerd login " + c.Name + "), " + with
	}
	return "as the app, " + with
}

func describeWatch(set config.Settings, w *config.Watch, auth config.Auth) watchFact {
	out := watchFact{Name: w.Name, Connection: w.Connection, Events: w.Mail.Events, Content: w.Content.String(), Start: "now"}
	out.Folders, out.Calendar = written(w.Mail.Folders), describeCalendar(&w.Calendar)
	if w.Canary > 0 {
		out.Canary = w.Canary.String()
	}
	if w.When != nil {
		out.When = w.When.String()
	}
	switch {
	case w.Delivery == config.DeliveryPoll:
		out.By = fmt.Sprintf("polling every %v: delivery is poll", set.PollInterval)
	case set.PublicURL == "":
		out.By = fmt.Sprintf("polling every %v: TRIGGERD_PUBLIC_URL is not set", set.PollInterval)
	default:
		out.By = fmt.Sprintf("push, with a round every %v all the same, and polling every %v where push does not work", set.SweepInterval, set.PollInterval)
	}
	switch {
	case w.Start.All:
		out.Start = "all that is there"
	case w.Start.Back > 0:
		out.Start = "what arrived in the last " + w.Start.Back.Round(time.Minute).String()
	}
	whose := "mailbox"
	if len(out.Folders) == 0 {
		whose = "calendar"
	}
	for _, m := range w.Mailboxes {
		by := ""
		if auth == config.AuthDelegated && !m.IsMe() { // P-6, P-7
			by = fmt.Sprintf("polling every %v: delegated access has no subscriptions on somebody else's %s", set.PollInterval, whose)
		}
		out.Mailboxes = append(out.Mailboxes, mailboxFact{m.Address, by, fmt.Sprintf("%s.%s.%s.>", set.SubjectPrefix, w.Name, m.Token())})
	}
	return out
}

func describeCalendar(c *config.Calendar) *calendarFact {
	if len(c.Calendars) == 0 {
		return nil
	}
	out := &calendarFact{Calendars: written(c.Calendars), Past: inDays(c.Past), Future: inDays(c.Future), Events: c.Events}
	for _, lead := range c.Starting {
		out.Starting = append(out.Starting, inDays(lead))
	}
	if len(c.Starting) > 0 {
		out.TimeZone = cmp.Or(c.TimeZone, "the mailbox's own time zone")
	}
	return out
}

// written are references as they stand in the watch file.
func written(refs []config.FolderRef) (out []string) {
	for _, ref := range refs {
		name := ref.Name
		if ref.Exclude {
			name = "!" + name
		}
		out = append(out, name)
	}
	return out
}

// inDays writes a duration as it may stand in the watch file.
func inDays(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func explain(w io.Writer, f facts) error {
	var b strings.Builder
	fmt.Fprintf(&b, "configuration %s is right\n\n", f.Config)
	for _, warning := range f.Warnings {
		fmt.Fprintf(&b, "warning: %s\n\n", warning)
	}
	for _, c := range f.Connections {
		fmt.Fprintf(&b, "connection %s: cloud %s, tenant %s, signs in %s\n", c.Name, c.Cloud, c.Tenant, c.SignIn)
	}
	for i := range f.Watches {
		x := &f.Watches[i]
		fmt.Fprintf(&b, "\nwatch %s on %s, by %s\n", x.Name, x.Connection, x.By)
		if len(x.Folders) > 0 {
			fmt.Fprintf(&b, "  folders: %s\n  events:  %s\n", strings.Join(x.Folders, ", "), strings.Join(x.Events, ", "))
		}
		if c := x.Calendar; c != nil {
			fmt.Fprintf(&b, "  calendars: %s, from %s ago to %s ahead\n  events:  %s\n", strings.Join(c.Calendars, ", "), c.Past, c.Future, strings.Join(c.Events, ", "))
			if len(c.Starting) > 0 {
				fmt.Fprintf(&b, "  starting: %s before the start; all-day meetings in %s\n", strings.Join(c.Starting, ", "), c.TimeZone)
			}
		}
		fmt.Fprintf(&b, "  content: %s\n  start:   %s\n", x.Content, x.Start)
		if x.When != "" {
			fmt.Fprintf(&b, "  when:    %s\n", x.When)
		}
		if x.Canary != "" {
			fmt.Fprintf(&b, "  canary:  an event at least every %s\n", x.Canary)
		}
		for _, m := range x.Mailboxes {
			fmt.Fprintf(&b, "  %s → %s\n", m.Address, m.Subject)
			if m.By != "" {
				fmt.Fprintf(&b, "    by %s\n", m.By)
			}
		}
	}
	public := "none: nothing is pushed"
	if f.PublicURL != "" {
		public = f.PublicURL
	}
	listen := f.Listen
	if f.TLS != "" {
		listen += " by " + f.TLS
	}
	fmt.Fprintf(&b, "\nstate: %s\nNATS: %s, stream %s\nlistens on %s, public URL %s\n", f.StateDir, f.NATS, f.Stream, listen, public)
	_, err := io.WriteString(w, b.String())
	return err
}
