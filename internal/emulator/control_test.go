package emulator

import (
	"encoding/json"
	"strings"
	"testing"
)

func jsonValid(b []byte) bool { return json.Valid(b) }

func TestControl(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		send := func(method, path, body string, headers ...string) reply {
			t.Helper()
			r := w.send(method, w.opts.Root+"/emulator"+path, body, headers...)
			if r.status != 200 {
				t.Errorf("%s %s: %d %s", method, path, r.status, r.raw)
			}
			return r
		}
		list := func(path string) (out []item) {
			t.Helper()
			if err := json.Unmarshal([]byte(send("GET", path, "").raw), &out); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			return out
		}
		if r := send("POST", "/users", `{"address":"new@contoso.com"}`); r.text("id") == "" {
			t.Errorf("new user %s", r.raw)
		}
		base := "/users/" + mailbox
		id := send("POST", base+"/messages", `{"subject":"x","from":{"address":"a@b.c"},"to":[{"name":"B"}]}`).text("id")
		second := send("POST", base+"/messages", simple, "Content-Type", "message/rfc822").text("id")
		folder := send("POST", base+"/folders", `{"parent":"inbox","name":"Invoices"}`).text("id")
		send("POST", base+"/messages/"+id+"/move", `{"folder":"`+folder+`"}`)
		send("PATCH", base+"/messages/"+id, `{"isRead":true,"flag":"flagged","categories":["red"]}`)
		send("DELETE", base+"/messages/"+second, "")
		got := list(base + "/messages")
		if len(got) != 1 || got[0].text("id") != id || got[0]["isRead"] != true || got[0].text("folder") != folder || got[0].text("flag") != "flagged" {
			t.Errorf("messages %v", got)
		}
		if users := list("/users"); len(users) != 2 || users[0]["messages"] != 1.0 {
			t.Errorf("users %v", users)
		}
		if ledger := list("/ledger"); len(ledger) != 5 {
			t.Errorf("ledger %v", ledger)
		}
		sub := w.subscribe("/messages", "created").text("id")
		if subs := list("/subscriptions"); len(subs) != 1 || subs[0].text("id") != sub || strings.Contains(send("GET", "/subscriptions", "").raw, "secret") {
			t.Errorf("subscriptions %v", subs)
		}
		send("POST", "/lifecycle", `{"event":"missed"}`)
		send("POST", "/lifecycle", `{"event":"missed","subscription":"`+sub+`"}`)
		send("DELETE", "/subscriptions/"+sub+"?tell=true", "")
		if items := w.received(); len(items) != 3 {
			t.Errorf("lifecycle items %v", items)
		}
		if v := send("GET", "/violations", "").raw; strings.TrimSpace(v) != "[]" {
			t.Errorf("violations %s", v)
		}
		if n := send("GET", "/requests", "").body["subscription.create"]; n != 1.0 {
			t.Errorf("requests %v", n)
		}
		send("PUT", base+"/access", `{"access":"denied"}`)
		wantError(t, "denied", w.get(w.inbox()), 403, "ErrorAccessDenied")
	})
}

func TestControlOfFaults(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		faults := func(body string) reply { return w.send("POST", w.opts.Root+"/emulator/faults", body) }
		w.SetFaults(func(f *Faults) { f.LoseNext = 3 })
		r := faults(`{"loseNotifications":0.5,"notificationDelay":"3s","hideMovedIn":true}`)
		if r.status != 200 || r.body["loseNotifications"] != 0.5 || r.body["notificationDelay"] != "3s" || r.body["loseNext"] != 3.0 {
			t.Errorf("%d %s", r.status, r.raw)
		}
		if r = w.send("GET", w.opts.Root+"/emulator/faults", ""); r.body["hideMovedIn"] != true || r.body["loseNext"] != 3.0 {
			t.Errorf("switches %s", r.raw)
		}
		_, link, _ := w.round(w.inbox() + deltaSelect)
		faults(`{"expireDeltaTokens":true}`)
		wantError(t, "expired", w.get(link), 410, "SyncStateNotFound")
		faults(`{"failNext":{"op":"delta","times":2,"status":503,"retryAfter":"0"}}`)
		for _, want := range []int{503, 503, 200} {
			if r := w.get(w.inbox() + deltaSelect); r.status != want {
				t.Errorf("delta %d, want %d", r.status, want)
			}
		}
		faults(`{"revokeTokens":true}`)
		wantError(t, "revoked", w.get(w.inbox()), 401, "InvalidAuthenticationToken")
		for _, bad := range []string{
			`{"loseNotifications":2}`, `{"emptyPages":1}`, `{"notificationDelay":"soon"}`, `{"losenothing":1}`, `{`, `{"failNext":{"op":"nonsense"}}`,
		} {
			if r := faults(bad); r.status != 400 || r.text("error") == "" {
				t.Errorf("%s: %d %s", bad, r.status, r.raw)
			}
		}
	})
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		base := "/users/" + mailbox
		for _, c := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/", "", 404},
			{"GET", "/nonsense", "", 404},
			{"POST", "/users", `{}`, 400},
			{"GET", "/users/nobody@x.y/messages", "", 404},
			{"GET", base + "/nonsense", "", 404},
			{"POST", base + "/messages", `{"subjct":"x"}`, 400},
			{"POST", base + "/messages", `{"folder":"nowhere"}`, 404},
			{"PATCH", base + "/messages/x", `{}`, 404},
			{"PATCH", base + "/messages/x", `{"read":true}`, 400},
			{"POST", base + "/messages/x/move", `{"folder":"archive"}`, 404},
			{"POST", base + "/messages/x/move", `{}`, 400},
			{"POST", base + "/messages/x/move", `nonsense`, 400},
			{"DELETE", base + "/messages/x", "", 404},
			{"POST", base + "/folders", `{"parent":"nowhere","name":"x"}`, 404},
			{"POST", base + "/folders", `5`, 400},
			{"PUT", base + "/access", `{"access":"maybe"}`, 400},
			{"PUT", base + "/access", ``, 400},
			{"DELETE", "/subscriptions/x", "", 404},
			{"POST", "/lifecycle", `{}`, 400},
			{"POST", "/lifecycle", `[]`, 400},
			{"POST", "/lifecycle", `{"event":"missed","subscription":"x"}`, 404},
		} {
			if r := w.send(c.method, w.opts.Root+"/emulator"+c.path, c.body); r.status != c.status || r.text("error") == "" {
				t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, r.status, r.raw, c.status)
			}
		}
	})
}
