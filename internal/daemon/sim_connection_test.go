package daemon

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/connections"
	"github.com/triggerd/triggerd/internal/emulator"
	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/status"
	"github.com/triggerd/triggerd/internal/store"
)

const support = "support@contoso.com"

const delegatedYAML = `
clouds:
  lab: {graph: "http://graph.test/v1.0", login: "http://graph.test", like: global}
connections:
  ada: {cloud: lab, auth: delegated, client_id: ` + emulator.DefaultPublicClientID + `}
watches:
  sales:
    connection: ada
    mailboxes: [{address: me, alias: sales}, {address: support@contoso.com, alias: support}]
    mail: {folders: [inbox]}
`

// startDelegated starts triggerd for a user, whose own mailbox is sales@contoso.com, and who may read support@contoso.com.
func startDelegated(t *testing.T, edit ...func(*sim, *emulator.Options)) *sim {
	t.Helper()
	return startSim(t, append([]func(*sim, *emulator.Options){func(s *sim, _ *emulator.Options) {
		s.yaml = delegatedYAML
		s.set.StateKeyFile = filepath.Join(s.dir, "key")
		s.must(os.WriteFile(s.set.StateKeyFile, []byte(seal.NewKey()+"\n"), 0o600))
		s.before = func() {
			s.emu.AddUser(support)
			s.emu.AddUser("mallory@contoso.com")
			s.must(s.emu.Share(support, sales))
		}
	}}, edit...)...)
}

// signIn does what `triggerd login` and the user do.
func (s *sim) signIn(user, answer string) (connections.Outcome, error) {
	s.t.Helper()
	room := s.d.now().connections
	b, err := room.BeginLogin(s.t.Context(), "ada", connections.Browser, "http://localhost:8400")
	if err != nil {
		return connections.Outcome{}, err
	}
	redirected, err := s.emu.SignIn(b.URL, user, answer)
	s.must(err)
	return room.FinishLogin(s.t.Context(), b.ID, redirected)
}

func (s *sim) state() connections.Status { return s.d.now().connections.Status()[0] }

// toldSoFar lists the subjects of events about connections.
func (s *sim) toldSoFar() []string { return s.toldOf(event.AreaConnection) }

// toldOf lists the subjects of triggerd's events about itself in an area.
func (s *sim) toldOf(area string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.told {
		if s.told[i].Area == area {
			out = append(out, s.told[i].NATSSubject("graph"))
		}
	}
	return out
}

// wantMails compares the mail events so far, in any order: two mailboxes have none between them.
func (s *sim) wantMails(want ...string) {
	s.t.Helper()
	slices.Sort(want)
	got := s.names()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.t.Errorf("mail events are %q, want %q", got, want)
	}
}

func (s *sim) send(mailbox, subject string) {
	s.t.Helper()
	_, err := s.emu.Deliver(mailbox, emulator.Mail{Subject: subject})
	s.must(err)
}

func TestAUserSignsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t)
		s.wait(settle)
		if st := s.state(); st.State != connections.ReauthRequired || !st.Paused || !strings.Contains(st.Remedy, "triggerd login ada") {
			t.Errorf("before anybody signed in: %+v", st)
		}
		if n := s.emu.Requests()["folder.list"]; n != 0 {
			t.Errorf("%d requests to Graph without a sign-in", n)
		}
		out, err := s.signIn(sales, "accept")
		if err != nil || out.User != sales || len(out.Missing) != 0 || !slices.Contains(out.Granted, "mail.read.shared") {
			t.Fatalf("sign-in: %+v, %v", out, err)
		}
		s.wait(2 * time.Minute)
		s.send(sales, "own")
		s.send(support, "shared")
		s.wait(2 * time.Minute)
		s.wantMails("received own", "received shared")
		feeds, _ := s.d.now().delta.Status()
		for _, f := range feeds {
			if push := f.Mailbox == "sales"; f.Push != push {
				t.Errorf("mailbox %s: push %v: %s", f.Mailbox, f.Push, f.PushReason)
			}
			if f.Mailbox == "support" && !strings.Contains(f.PushReason, "delegated access has no subscriptions") {
				t.Errorf("why support is polled: %q", f.PushReason)
			}
		}
		if n := len(s.emu.Subscriptions()); n != 1 {
			t.Errorf("%d subscriptions, want one for the own inbox", n)
		}
		if got, want := s.toldSoFar(), []string{"graph._.ada.connection.reauth_required", "graph._.ada.connection.ok"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		for i := range s.events {
			if e := &s.events[i]; !strings.HasPrefix(e.Source, "urn:triggerd:"+emulator.DefaultTenant+":") {
				t.Errorf("source %s is not of the user's tenant", e.Source)
			}
		}
		// A restart needs neither a person nor a refresh.
		before := s.emu.Requests()["token"]
		s.restart()
		s.send(sales, "after the restart")
		s.wait(2 * time.Minute)
		s.wantMails("received own", "received shared", "received after the restart")
		if n := s.emu.Requests()["token"]; n != before {
			t.Errorf("%d token requests after a restart with a living token", n-before)
		}
		s.checkLaw()
	})
}

func TestRevokedInMidRunLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t)
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Minute)
		s.send(sales, "before")
		s.wait(2 * time.Minute)

		s.must(s.emu.Revoke(sales))
		s.send(sales, "one")
		s.send(support, "two")
		s.wait(10 * time.Minute)
		st := s.state()
		if st.State != connections.ReauthRequired || !st.Paused || !strings.Contains(st.Reason, "50173") {
			t.Errorf("after the revocation: %+v", st)
		}
		asked, tokens := requests(s, "folder", "delta", "message", "subscription"), s.emu.Requests()["token"]
		s.wait(6 * time.Hour)
		s.send(sales, "three")
		s.restart() // which must not forget that a person is needed
		s.wait(6 * time.Hour)
		if n := requests(s, "folder", "delta", "message", "subscription") - asked; n != 0 {
			t.Errorf("%d requests to Graph in 12 hours without a sign-in", n)
		}
		if n := s.emu.Requests()["token"] - tokens; n > 2*14 { // at most one probe an hour, with the token before tried too
			t.Errorf("%d token requests in 12 hours", n)
		}
		s.wantMails("received before")

		_, err = s.signIn(sales, "accept")
		s.must(err)
		s.wait(5 * time.Minute)
		s.send(sales, "after")
		s.wait(5 * time.Minute)
		s.wantMails("received before", "received one", "received two", "received three", "received after")
		if n := len(s.emu.Subscriptions()); n != 1 {
			t.Errorf("%d subscriptions after the sign-in", n)
		}
		want := []string{"reauth_required", "ok"}
		if got := s.toldSoFar(); len(got) < 2 || !strings.HasSuffix(got[len(got)-2], want[0]) || !strings.HasSuffix(got[len(got)-1], want[1]) {
			t.Errorf("told %v", got)
		}
		if st := s.state(); st.State != connections.OK || st.Paused {
			t.Errorf("after the sign-in: %+v", st)
		}
		s.checkLaw()
	})
}

func requests(s *sim, ops ...string) (n int) {
	for op, count := range s.emu.Requests() {
		for _, prefix := range ops {
			if strings.HasPrefix(op, prefix) {
				n += count
			}
		}
	}
	return n
}

func TestNotificationsAreAcceptedWhileAPersonIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t, func(_ *sim, o *emulator.Options) { o.TokenLifetime = 10 * time.Minute })
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Minute)
		s.must(s.emu.RequireInteraction(sales)) // the subscription lives on
		s.wait(30 * time.Minute)
		if st := s.state(); st.State != connections.ReauthRequired || !st.Paused {
			t.Fatalf("state %+v", st)
		}
		before := s.d.store.Counters()["accepted"]
		s.send(sales, "while nobody reads")
		s.wait(settle)
		if n := s.d.store.Counters()["accepted"] - before; n == 0 || s.d.store.Pending() == 0 {
			t.Errorf("%d notifications accepted, %d pending", n, s.d.store.Pending())
		}
		_, err = s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Minute)
		s.wantMails("received while nobody reads")
		if n := s.d.store.Pending(); n != 0 {
			t.Errorf("%d notifications are not settled", n)
		}
		s.checkLaw()
	})
}

func TestClaimsChallengeIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t)
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Minute)
		s.must(s.emu.Challenge(sales))
		s.send(sales, "challenged")
		s.wait(5 * time.Minute)
		s.wantMails("received challenged")
		if st := s.state(); st.State != connections.OK {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSignInsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t)
		s.wait(settle)
		if _, err := s.signIn(sales, "decline"); err == nil || !strings.Contains(err.Error(), "declined") {
			t.Errorf("declined: %v", err)
		}
		room := s.d.now().connections
		b, err := room.BeginLogin(t.Context(), "ada", connections.Browser, "http://localhost:8400")
		s.must(err)
		first, err := s.emu.SignIn(b.URL, sales, "accept")
		s.must(err)
		for name, redirected := range map[string]string{
			"another state": strings.Replace(first, "state=", "state=x", 1),
			"no code":       first[:strings.Index(first, "?")] + "?state=" + first[strings.Index(first, "state=")+6:],
		} {
			b2, err := room.BeginLogin(t.Context(), "ada", connections.Browser, "http://localhost:8400")
			s.must(err)
			if _, err := room.FinishLogin(t.Context(), b2.ID, redirected); err == nil || !strings.Contains(err.Error(), "not the answer to the sign-in") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := room.FinishLogin(t.Context(), b.ID, first); err == nil || !strings.Contains(err.Error(), "was not begun here") {
			t.Errorf("a sign-in that a newer one replaced: %v", err)
		}
		_, err = s.signIn(sales, "accept")
		s.must(err)
		if _, err := s.signIn("mallory@contoso.com", "accept"); err == nil || !strings.Contains(err.Error(), "another user signed in") || strings.Contains(err.Error(), "mallory") {
			t.Errorf("another user: %v", err)
		}
		if st := s.state(); st.State != connections.OK || st.User != sales {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestMissingPermissionIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t, func(_ *sim, o *emulator.Options) { o.AdminConsentOnly = true })
		s.wait(settle)
		if _, err := s.signIn(sales, "accept"); err == nil || !strings.Contains(err.Error(), "90094") || !strings.Contains(err.Error(), "administrator") {
			t.Errorf("without an administrator: %v", err)
		}
		s.must(s.emu.Consent(emulator.DefaultPublicClientID, "*", "Mail.Read", "Mail.Read.Shared"))
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Minute)
		// The administrator takes one back: its feed stops, the other goes on, and the state names it.
		s.must(s.emu.WithdrawConsent(emulator.DefaultPublicClientID, "*"))
		s.must(s.emu.Consent(emulator.DefaultPublicClientID, "*", "Mail.Read"))
		s.must(s.emu.WithdrawConsent(emulator.DefaultPublicClientID, sales))
		s.wait(2 * time.Hour)
		s.send(sales, "own")
		s.wait(2 * time.Minute)
		s.wantMails("received own")
		if st := s.state(); st.State != connections.ConsentRequired || st.Paused || !slices.Equal(st.Missing, []string{"Mail.Read.Shared"}) {
			t.Errorf("state %+v", st)
		}
		want := []string{"graph._.ada.connection.reauth_required", "graph._.ada.connection.ok", "graph._.ada.connection.consent_required"}
		if got := s.toldSoFar(); !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		if d := s.lastTold(); !slices.Equal(d.Missing, []string{"Mail.Read.Shared"}) || !strings.Contains(d.AdminConsentURL, emulator.DefaultPublicClientID) {
			t.Errorf("told with %+v", d)
		}
		s.checkTold()
	})
}

// lastTold is what the last event about a connection says.
func (s *sim) lastTold() (d event.ConnectionData) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.told {
		if e := &s.told[i]; e.Area == event.AreaConnection {
			d = event.ConnectionData{}
			s.must(json.Unmarshal(e.Data, &d))
		}
	}
	return d
}

// A login endpoint that asks for patience gets it; that is told when it begins and when it is over, and pauses nothing.
func TestAThrottledSignInIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t)
		s.wait(settle)
		s.emu.FailNext("token", 3, emulator.Fault{Status: 429, RetryAfter: "300"})
		s.emu.RevokeTokens()
		s.deliver("patience")
		s.wait(5 * time.Minute)
		if st := s.state(); st.State != connections.Throttled || st.Paused || !strings.HasPrefix(st.Remedy, "nothing: ") {
			t.Errorf("state %+v", st)
		}
		if got, want := s.toldSoFar(), []string{"graph._.contoso.connection.throttled"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		if d := s.lastTold(); d.State != "throttled" || d.Since.IsZero() || !strings.Contains(d.Reason, "429") {
			t.Errorf("told with %+v", d)
		}
		s.want()
		s.restart() // which is no news
		s.wait(time.Hour)
		if got, want := s.toldSoFar(), []string{"graph._.contoso.connection.throttled", "graph._.contoso.connection.ok"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		if st := s.state(); st.State != connections.OK {
			t.Errorf("afterwards: %+v", st)
		}
		s.want("received patience")
		s.checkTold()
		s.checkLaw()
	})
}

func TestSignInByDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t)
		room := s.d.now().connections
		b, err := room.BeginLogin(t.Context(), "ada", connections.Device, "")
		s.must(err)
		done := make(chan error, 1)
		go func() {
			_, err := room.FinishLogin(t.Context(), b.ID, "")
			done <- err
		}()
		s.wait(time.Minute)
		s.must(s.emu.EnterDeviceCode(b.UserCode, sales, true))
		s.must(<-done)
		s.wait(2 * time.Minute)
		if st := s.state(); st.State != connections.OK || st.User != sales {
			t.Errorf("state %+v", st)
		}
		b, err = room.BeginLogin(t.Context(), "ada", connections.Device, "")
		s.must(err)
		s.must(s.emu.EnterDeviceCode(b.UserCode, sales, false))
		if _, err := room.FinishLogin(t.Context(), b.ID, ""); err == nil || !strings.Contains(err.Error(), "declined on the other device") {
			t.Errorf("declined: %v", err)
		}
		b, err = room.BeginLogin(t.Context(), "ada", connections.Device, "")
		s.must(err)
		if _, err := room.FinishLogin(t.Context(), b.ID, ""); err == nil || !strings.Contains(err.Error(), "took too long") {
			t.Errorf("nobody came: %v", err)
		}
	})
}

// An idle connection is refreshed daily, so that ninety days of silence do not end it.
func TestAnIdleSignInLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startDelegated(t, func(s *sim, _ *emulator.Options) { s.set.PollInterval = 12 * time.Hour })
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(3 * 24 * time.Hour)
		rec, _ := s.d.store.Connection("ada")
		if age := time.Since(rec.RefreshedAt); age > 24*time.Hour {
			t.Errorf("last refreshed %v ago", age)
		}
	})
}

// What a sign-in leaves in the database cannot be read without the key, and a record cannot stand in for another.
func TestSignInsAreSealedAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &written{}
		s := startDelegated(t, func(s *sim, _ *emulator.Options) { s.log = zerolog.New(log).Level(zerolog.DebugLevel) })
		_, err := s.signIn(sales, "accept")
		s.must(err)
		s.wait(2 * time.Hour)
		secrets := s.emu.Secrets()
		if len(secrets) < 3 {
			t.Fatalf("%d secrets were given out", len(secrets))
		}
		shown, err := json.Marshal(s.d.now().connections.Status())
		s.must(err)
		page := httptest.NewRecorder()
		status.NewMetrics(reporter{s.d}, false).ServeHTTP(page, httptest.NewRequest("GET", "http://localhost/metrics", nil))
		s.kill()
		db, err := os.ReadFile(filepath.Join(s.dir, "triggerd.db"))
		s.must(err)
		for _, secret := range secrets {
			if strings.Contains(string(db), secret) {
				t.Error("a token lies in the database in the clear")
			}
			for where, text := range map[string]string{"the log": log.String(), "the status": string(shown), "the metrics": page.Body.String()} {
				if strings.Contains(text, secret) {
					t.Errorf("a token stands in %s", where)
				}
			}
		}
		if strings.Contains(log.String(), sales) || strings.Contains(page.Body.String(), sales) {
			t.Error("an address was logged, or stands in the metrics")
		}
		if !strings.Contains(page.Body.String(), `triggerd_connection_state{connection="ada",state="ok"} 1`) {
			t.Error("the metrics do not tell the state")
		}
		// Another key: refused with a remedy, and nothing is overwritten.
		key, err := os.ReadFile(s.set.StateKeyFile)
		s.must(err)
		s.must(os.WriteFile(s.set.StateKeyFile, []byte(seal.NewKey()), 0o600))
		s.start()
		s.wait(settle)
		if st := s.state(); st.State != connections.CredentialFailed || !strings.Contains(st.Reason, "no key of the key file has sealed this record") {
			t.Errorf("with another key: %+v", st)
		}
		s.must(os.WriteFile(s.set.StateKeyFile, key, 0o600))
		s.restart()
		s.wait(settle)
		if st := s.state(); st.State != connections.OK {
			t.Errorf("with the key again: %+v", st)
		}
		s.tamper()
	})
}

// reporter reports of connections alone: the simulation has no broker and no listeners.
type reporter struct{ d *Daemon }

func (r reporter) Report() (out status.Report) { r.d.now().reportConnections(&out); return out }

func (reporter) Resync(string) (int, error) { return 0, nil }

// In another cloud, or a tenant that is not there, nobody signs in: a state, with what to compare.
func TestAnotherCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(_ *sim, o *emulator.Options) { o.OtherCloud = true })
		s.wait(time.Hour)
		st := s.state()
		if st.State != connections.CredentialFailed || !st.Paused || !strings.Contains(st.Reason, "compare tenant and cloud") {
			t.Errorf("state %+v", st)
		}
		if n := s.emu.Requests()["token"]; n > 4 {
			t.Errorf("%d token requests in an hour: that is a loop", n)
		}
		if got, want := s.toldSoFar(), []string{"graph._.contoso.connection.credential_failed"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// An app whose secret has ended goes on as soon as the file holds a new one.
func TestAReplacedSecretIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSim(t, func(_ *sim, o *emulator.Options) { o.ClientSecret, o.ExpiredSecret = "new", "old" })
		s.wait(settle)
		secret := filepath.Join(s.dir, "secret")
		s.must(os.WriteFile(secret, []byte("old"), 0o600))
		s.emu.RevokeTokens()
		s.wait(20 * time.Minute)
		if st := s.state(); st.State != connections.CredentialFailed || !st.Paused || !strings.Contains(st.Reason, "has expired") {
			t.Fatalf("state %+v", st)
		}
		s.deliver("meanwhile")
		s.must(os.WriteFile(secret, []byte("new"), 0o600))
		s.wait(2 * time.Minute)
		if st := s.state(); st.State != connections.OK {
			t.Errorf("state %+v", st)
		}
		s.want("received meanwhile")
		s.checkLaw()
	})
}

// tamper flips a byte of the sealed record, and puts it in another's place.
func (s *sim) tamper() {
	s.t.Helper()
	rec, _ := s.d.store.Connection("ada")
	good := slices.Clone(rec.Sealed)
	spoilt := slices.Clone(good)
	spoilt[len(spoilt)/2] ^= 1
	for name, c := range map[string]store.Connection{"flipped": {Name: "ada", Sealed: spoilt}, "swapped": {Name: "bob", Sealed: good}} {
		s.must(s.d.store.Update(func(tx *store.Tx) error { return tx.PutConnection(&c) }))
		more := seal.WithFirst(seal.NewKey(), mustRead(s.t, s.set.StateKeyFile))
		newer, err := seal.ParseKeys(more)
		s.must(err)
		if _, err := connections.Reseal(s.d.store, newer); err == nil || !strings.Contains(err.Error(), "was changed, or belongs elsewhere") {
			s.t.Errorf("%s: %v", name, err)
		}
		back := store.Connection{Name: c.Name}
		if c.Name == "ada" {
			back = rec
		}
		s.must(s.d.store.Update(func(tx *store.Tx) error { return tx.PutConnection(&back) }))
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
