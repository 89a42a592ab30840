package status

import (
	"fmt"
	"strings"
	"time"
)

const (
	grace     = time.Minute     // after a start, and for what mends itself
	outboxOld = 5 * time.Minute // an event should not wait longer

	renewalTries = 5 // failures in a row that may pass: some twenty minutes, an hour and more where Graph refuses

	certificateEnds = 14 * 24 * time.Hour // others should have renewed the public listener's files by then
	acmeEnds        = 7 * 24 * time.Hour  // and we ourselves by then

	credentialEnds = 14 * 24 * time.Hour // a credential that ends sooner should have been replaced
)

// Judge fills Healthy and Problems from the facts.
func (r *Report) Judge() {
	r.Problems = []Problem{}
	j := judge{r, r.At.Sub(r.StartedAt) < grace}
	j.connections()
	j.configuration()
	j.public()
	j.certificate()
	j.mailboxes()
	j.subscriptions()
	j.feeds()
	j.canaries()
	j.nats()
	j.storage()
	j.books()
	r.Healthy = len(r.Problems) == 0
}

// judge collects what is wrong with a report.
type judge struct {
	*Report
	young bool // the process has just started
}

// bad notes a problem, in one line. The key names what it is about.
func (j *judge) bad(key, remedy, format string, args ...any) {
	j.Problems = append(j.Problems, Problem{key, Plain(fmt.Sprintf(format, args...)), Plain(remedy)})
}

func (j *judge) connections() {
	for i := range j.Connections {
		c := &j.Connections[i]
		if c.Reason != "" && (!c.passing() || j.At.Sub(c.Since) > grace) {
			j.bad("connection:"+c.Name+":"+c.State, c.Remedy, "connection %s: %s: %s", c.Name, words(c.State), c.Reason)
		}
		if left := c.CredentialExpiresAt.Sub(j.At); !c.CredentialExpiresAt.IsZero() && left < credentialEnds {
			j.bad("credential:"+c.Name, "add a new one to the app registration and replace the file; triggerd takes it up by itself",
				"connection %s: its credential expires %s", c.Name, ahead(left))
		}
	}
}

func (j *judge) configuration() {
	if c := &j.Configuration; c.Error != "" {
		j.bad("configuration", "mend the file and run `triggerd check`, then `triggerd reload`; the one loaded "+short(j.At.Sub(c.LoadedAt))+" ago stays in force",
			"watch file %s: refused: %s", c.File, firstMistake(c.Error))
	}
}

func (j *judge) public() {
	if p := &j.Public; p.URL != "" && !p.OK && !j.young {
		j.bad("public", "check DNS, the reverse proxy and its certificate; feeds are polled meanwhile", "public URL %s: %s", p.URL, p.Reason)
	}
}

// certificate wants one to be replaced in time: so long before its end, or a sixth of its life where that is less. By then
// every renewal that others make at a third has failed for long.
func (j *judge) certificate() {
	c := &j.Certificate
	early, remedy := certificateEnds, "write a newer certificate and its key into the files; they are read again by themselves"
	if c.Source == "acme" {
		early, remedy = acmeEnds, "see that port 443 of the public URL's host leads to the public listener, and that the authority can be reached; it is asked again by itself"
	}
	left, life := c.NotAfter.Sub(j.At), c.NotAfter.Sub(c.NotBefore)
	switch {
	case c.Source == "":
	case c.NotAfter.IsZero() && (c.Error != "" || !j.young):
		j.bad("certificate", remedy, "there is no certificate for the public listener: %s", first(c.Error, "none was issued yet"))
	case c.NotAfter.IsZero():
	case left < min(early, life/6):
		j.bad("certificate", remedy, "the public listener's certificate ends %s%s", ahead(left), because(c.Error))
	case c.Error != "" && c.Source == "files":
		j.bad("certificate", remedy, "the public listener's certificate files cannot be used: %s", c.Error)
	}
}

// because adds a reason, if there is one.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func (j *judge) mailboxes() {
	for _, m := range j.Mailboxes {
		j.bad("mailbox:"+m.Connection+"/"+m.Mailbox, "compare the address, the folders, the calendars and the permissions; it is looked for again by itself", "mailbox %s: %s", m.Mailbox, m.Error)
	}
}

// subscriptions wants one renewed long before it lapses: most are at half of their life, all at two thirds. A few failures
// may pass by themselves. What waits for its connection, or for the public URL, is that one problem and not many.
func (j *judge) subscriptions() {
	for i := range j.Subscriptions {
		s := &j.Subscriptions[i]
		if left := s.ExpiresAt.Sub(j.At); left < 0 || s.Failures > renewalTries || s.Failures > 0 && left < s.life()/4 {
			j.bad("subscription:"+s.ID, "mend what the error names; triggerd tries again by itself, and what it announces is polled when it lapses",
				"subscription of %s %s expires %s: %s", s.Mailbox, s.Folder, ahead(left), s.LastError)
		}
	}
	if j.young || j.Public.URL != "" && !j.Public.OK {
		return
	}
	paused := j.paused()
	for i := range j.Missing {
		if m := &j.Missing[i]; !paused[m.Connection] {
			j.bad(fmt.Sprint("missing:", m.Feed), "mend what the reason names: `triggerd check --online` says more; it is made by itself as soon as Graph takes it, and polled meanwhile",
				"%s %s has had no subscription for %s: %s", m.Mailbox, m.Folder, short(j.At.Sub(m.Since)), m.Reason)
		}
	}
}

// life is how long it lives since it was last renewed.
func (s *Subscription) life() time.Duration {
	if s.RenewedAt.After(s.CreatedAt) {
		return s.ExpiresAt.Sub(s.RenewedAt)
	}
	return s.ExpiresAt.Sub(s.CreatedAt)
}

// paused are the connections that wait for somebody.
func (j *judge) paused() map[string]bool {
	out := map[string]bool{}
	for i := range j.Connections {
		out[j.Connections[i].Name] = j.Connections[i].Paused
	}
	return out
}

func (j *judge) feeds() {
	paused := j.paused()
	for i := range j.Feeds {
		f := &j.Feeds[i]
		key := fmt.Sprint("feed:", f.Feed)
		switch {
		case paused[f.Connection]: // what waits for its connection is one problem, not many
		case f.Error != "" && f.Tries > 2:
			j.bad(key, "mend what the error names; triggerd tries again by itself", "feed %s %s: %s (attempt %d)", f.Mailbox, f.Name(), f.Error, f.Tries)
		case f.BaselinedAt.IsZero():
		case j.At.Sub(f.RoundAt) > 2*f.Interval+grace && j.At.Sub(j.StartedAt) > 2*f.Interval:
			j.bad(key, "see the log of room delta", "feed %s %s is stale: last complete %s ago", f.Mailbox, f.Name(), short(j.At.Sub(f.RoundAt)))
		}
	}
}

func (j *judge) canaries() {
	for i := range j.Watches {
		if w := &j.Watches[i]; w.Silent {
			j.bad("canary:"+w.Name, "see whether the mail is still sent; then look at the feeds, the outbox and NATS", "watch %s: %s", w.Name, w.Reason)
		}
	}
}

func (j *judge) nats() {
	if n := &j.NATS; (!n.Connected || n.Stream != "ok" && n.Stream != "" || n.Blocked != "") && !j.young {
		j.bad("nats", "start or mend NATS; events wait in the outbox and are published in order",
			"NATS %s: %s", n.URL, first(n.Blocked, n.LastError, n.Stream, "not connected"))
	}
	if o := &j.Outbox; !o.OldestAt.IsZero() && j.At.Sub(o.OldestAt) > outboxOld {
		j.bad("outbox", "see NATS", "%d events wait, the oldest for %s", o.Entries, short(j.At.Sub(o.OldestAt)))
	}
}

func (j *judge) storage() {
	if s := &j.Storage; s.Error != "" {
		j.bad("storage", "free space, or mend the disk; Graph is answered 503 and sends again, and nothing that was accepted is lost",
			"%s cannot be written for %s: %s", s.Path, short(j.At.Sub(s.Since)), s.Error)
	}
	if j.Clock != "" {
		j.bad("clock", "they are told as soon as that is mended, with how late it is", "meetings that start cannot be told: %s", j.Clock)
	}
}

func (j *judge) books() {
	if j.Quarantine > 0 {
		j.bad("quarantine", "`triggerd quarantine list` says what and why; mend that, then `triggerd quarantine retry --all`",
			"%d items could not be processed and are parked", j.Quarantine)
	}
	if n := &j.Notifications; n.Accepted != n.Pending+n.settled() {
		j.bad("law", "this is a defect: please report it", "accepted notifications do not add up: %d accepted, %d settled, %d pending", n.Accepted, n.settled(), n.Pending)
	}
}

// firstMistake is the first line of an error, and how many more there are.
func firstMistake(text string) string {
	line, rest, more := strings.Cut(text, "\n")
	if more {
		line += fmt.Sprintf(" (and %d more mistakes)", 1+strings.Count(rest, "\n"))
	}
	return line
}
