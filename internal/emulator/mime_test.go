package emulator

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const simple = "From: Dana <dana@contoso.com>\r\nTo: a@contoso.com, \"B\" <b@contoso.com>\r\nSubject: =?utf-8?q?H=C3=A9llo?=\r\n" +
	"Date: Fri, 31 Dec 1999 22:00:00 +0000\r\nMessage-ID: <one@contoso.com>\r\nImportance: high\r\n\r\nHello\r\nyou\r\n"

func TestMIMEBecomesAMessage(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		id, err := w.DeliverMIME(mailbox, strings.NewReader(simple))
		w.do(err)
		r := w.get("/users/" + mailbox + "/messages/" + id)
		for name, want := range map[string]string{
			"subject": "Héllo", "internetMessageId": "<one@contoso.com>", "sentDateTime": "1999-12-31T22:00:00Z",
			"receivedDateTime": "2000-01-01T00:00:00Z", "importance": "high", "bodyPreview": "Hello you",
		} {
			if r.text(name) != want {
				t.Errorf("%s is %q, want %q", name, r.text(name), want)
			}
		}
		if to, _ := r.body["toRecipients"].([]any); len(to) != 2 {
			t.Errorf("to %v", to)
		}
		html := "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<style>p{}</style><p>Hi&nbsp;you</p>\r\n" +
			"--b\r\nContent-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nx\r\n--b--\r\n"
		id, err = w.DeliverMIME(mailbox, strings.NewReader(html))
		w.do(err)
		r = w.get("/users/" + mailbox + "/messages/" + id)
		body, _ := r.body["body"].(map[string]any)
		if body["contentType"] != "html" || r.body["hasAttachments"] != true || r.text("bodyPreview") != "Hi you" || r.body["from"] != nil {
			t.Errorf("message %s", r.raw)
		}
	})
}

func TestWhatIsNotMIMEIsRefused(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		for name, raw := range map[string]string{"nothing": "", "an Outlook file": "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "zeros": strings.Repeat("\x00", 100)} {
			if id, err := w.DeliverMIME(mailbox, strings.NewReader(raw)); err == nil {
				t.Errorf("%s was delivered as %s", name, id)
			}
		}
		if _, err := w.DeliverMIME("nobody@x.y", strings.NewReader(simple)); err == nil {
			t.Error("delivered to a stranger")
		}
	})
}

func TestImportTakesFilesFoldersAndMboxes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	box := "From a Thu Jan  1 00:00:00 1970\n" + simple + "\nFrom b Thu Jan  1 00:00:00 1970\n" + simple + "\n"
	write("a.eml", simple)
	write("deep/er/B.RAW", simple)
	write("box.mbox", box)
	write("old.msg", "\xD0\xCF\x11\xE0")
	write("empty.eml", "")
	write("readme.txt", "not a mail")
	named := write("named", box)
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		n, err := w.Import(mailbox, dir)
		if n != 4 {
			t.Errorf("%d mails, want 4", n)
		}
		for _, name := range []string{"old.msg", "empty.eml"} {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v does not name %s", err, name)
			}
		}
		if err != nil && strings.Contains(err.Error(), "readme.txt") {
			t.Errorf("readme.txt was taken: %v", err)
		}
		if n, err := w.Import(mailbox, named); n != 2 || err != nil {
			t.Errorf("an mbox that is named: %d, %v", n, err)
		}
		if n, err := w.Import(mailbox, filepath.Join(dir, "nothing")); n != 0 || err == nil {
			t.Errorf("a path that is not there: %d, %v", n, err)
		}
		if got := len(w.Messages(mailbox)); got != 6 {
			t.Errorf("%d messages, want 6", got)
		}
	})
}

// TestImportOfACorpusOfOddMail imports everything that enmime tests its parser with, and reads it back.
func TestImportOfACorpusOfOddMail(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/jhillyerd/enmime/v2").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata")
	files := 0
	err = filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(name, ".raw") {
			files++
		}
		return err
	})
	if err != nil || files < 50 {
		t.Fatalf("%d mails in the corpus, %v", files, err)
	}
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		n, err := w.Import(mailbox, dir)
		refused := 0
		if err != nil {
			refused = len(strings.Split(strings.TrimSpace(err.Error()), "\n"))
		}
		t.Logf("%d of %d imported; %v", n, files, err)
		if n < files*9/10 || n+refused < files {
			t.Errorf("%d of %d mails imported, %d refused", n, files, refused)
		}
		time.Sleep(time.Second)
		items, _, _ := w.round(w.inbox() + "/messages/delta")
		if len(items) != n {
			t.Errorf("delta has %d of %d mails", len(items), n)
		}
		for _, m := range w.Messages(mailbox) {
			r := w.get("/users/" + mailbox + "/messages/" + m.ID + "?$select=subject,from,body,bodyPreview,internetMessageHeaders,internetMessageId")
			if r.status != 200 || r.body == nil || r.text("internetMessageId") == "" || len([]rune(r.text("bodyPreview"))) > 255 {
				t.Errorf("%q: %d %.200s", m.Subject, r.status, r.raw)
			}
		}
	})
}

func FuzzMIME(f *testing.F) {
	f.Add([]byte(simple))
	f.Add([]byte("From: <\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseMIME(strings.NewReader(string(raw)))
		if err != nil {
			return
		}
		s := New(Options{})
		s.AddUser(mailbox)
		if _, err := s.Deliver(mailbox, m); err != nil {
			t.Errorf("parsed, but not delivered: %v", err)
		}
		msg := s.users[0].messages[0]
		if b := appendMessage(nil, msg, ^propertySet(0)>>(64-len(properties)), true, true, ""); !jsonValid(b) {
			t.Errorf("not JSON: %q", b)
		}
	})
}
