package emulator

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// told lists notifications as "changeType subject-or-id".
func toldAs(items []item) (out []string) {
	for _, i := range items {
		out = append(out, i.text("changeType")+i.text("lifecycleEvent"))
	}
	return out
}

func TestNotificationsNameTheirFolderOnly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		inbox := w.subscribe("/mailFolders/"+w.FolderID(mailbox, "inbox")+"/messages", "created,updated,deleted").text("id")
		archive := w.subscribe("/mailFolders('archive')/messages", "created").text("id")
		all := w.subscribe("/messages", "deleted").text("id")
		id := w.deliver("x")
		if got := w.received(); len(got) != 1 || got[0].text("subscriptionId") != inbox || got[0].text("changeType") != "created" {
			t.Errorf("new mail: %v", got)
		}
		read := true
		w.do(w.Update(mailbox, id, Patch{IsRead: &read}))
		if got := w.received(); len(got) != 1 || got[0].text("changeType") != "updated" {
			t.Errorf("read: %v", got)
		}
		w.do(w.Move(mailbox, id, "archive"))
		got := map[string]string{}
		for _, i := range w.received() {
			got[i.text("subscriptionId")] += i.text("changeType")
			if i.data("id") != id {
				t.Errorf("a move changed the id: %v", i)
			}
			if i.text("changeType") == "deleted" && i.data("@odata.etag") != `W/"CQAAAA=="` {
				t.Errorf("deletion with etag %s", i.data("@odata.etag"))
			}
		}
		if got[inbox] != "deleted" || got[archive] != "created" || got[all] != "deleted" || len(got) != 3 {
			t.Errorf("move: %v", got)
		}
		w.do(w.Delete(mailbox, id))
		if got := w.received(); len(got) != 1 || got[0].text("subscriptionId") != all {
			t.Errorf("delete: %v", got)
		}
	})
}

func TestNotificationsLookLikeOutlooks(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		var header http.Header
		w.subscribe("/messages", "created")
		w.setHook(func(rw http.ResponseWriter, r *http.Request) { header = r.Header; w.keep(r); rw.WriteHeader(200) })
		var zones []string
		for range 3 {
			id := w.deliver("x")
			got := w.received()
			if len(got) != 1 {
				t.Fatalf("%v", got)
			}
			i := got[0]
			resource := "Users/" + w.user.ID + "/Messages/" + id
			if i["id"] != nil || i.text("resource") != resource || i.data("@odata.id") != resource || i.data("@odata.type") != "#Microsoft.Graph.Message" || i.text("tenantId") != DefaultTenant {
				t.Errorf("%v", i)
			}
			expiry := i.text("subscriptionExpirationDateTime")
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}[+-]\d\d:\d\d$`).MatchString(expiry) {
				t.Errorf("expiry %q", expiry)
			}
			zones = append(zones, expiry[len(expiry)-6:])
		}
		if !slices.Contains(zones, "+05:30") || !slices.Contains(zones, "+00:00") {
			t.Errorf("zones %v (W-12)", zones)
		}
		if header.Get("Content-Type") != "application/json; charset=utf-8" || header.Get("User-Agent") != "" || header.Get("Authorization") != "" {
			t.Errorf("headers %v (W-9c)", header)
		}
	})
}

func TestSubscriptionMadeWithoutTheHeaderHasMutableIDs(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.send("POST", w.root+"/subscriptions", w.subscription("/messages", "created,deleted"), "Authorization", "Bearer "+w.token, "Content-Type", "application/json")
		w.wantViolation("N-20: mutable ids")
		id := w.deliver("x")
		first := w.received()[0].data("id")
		w.do(w.Move(mailbox, id, "archive"))
		after := map[string]string{}
		for _, i := range w.received() {
			after[i.text("changeType")] = i.data("id")
		}
		if first == id || after["deleted"] != first || after["created"] == first {
			t.Errorf("immutable %s, first %s, then %v: want the old one deleted and a new one created", id, first, after)
		}
	})
}

func TestWaitingNotificationsShareAPost(t *testing.T) {
	inBubble(t, Options{DeliverDelay: time.Second}, func(t *testing.T, w *world) {
		w.subscribe("/messages", "created")
		for range 45 {
			w.deliver("x")
		}
		w.SendLifecycle("missed", "")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		posts := slices.Clone(w.posts)
		slices.Sort(posts)
		if got := w.received(); len(got) != 46 || !slices.Equal(posts, []int{1, 5, 20, 20}) {
			t.Errorf("%d items in POSTs of %v, want 46 in 20, 20, 5 and a lifecycle item", len(got), posts)
		}
	})
}

func TestDeliveryIsRetriedWithLongerAndLongerWaits(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-02T00:00:00Z"`)
		var at []time.Duration
		begun := time.Now()
		w.setHook(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if r.URL.Path == "/n" {
				at = append(at, time.Since(begun).Round(time.Second))
			}
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		w.deliver("x")
		time.Sleep(3 * time.Hour)
		if w.Idle() {
			t.Error("idle while a notification waits to be sent again")
		}
		w.setHook(nil)
		time.Sleep(time.Hour)
		if got := w.received(); len(got) != 1 || !w.Idle() {
			t.Errorf("after the outage: %v", got)
		}
		if want := []time.Duration{0, 10 * time.Second, 30 * time.Second, 70 * time.Second}; !slices.Equal(at[:4], want) {
			t.Errorf("attempts at %v, want them to begin with %v", at, want)
		}
		for i := 2; i < len(at); i++ {
			if at[i]-at[i-1] < at[i-1]-at[i-2] || at[i]-at[i-1] > backoffMax+time.Second {
				t.Errorf("attempts at %v: waits do not grow up to %v", at, backoffMax)
			}
		}
	})
}

func TestUndeliveredIsDiscardedAndMissed(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		r := w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-02T00:00:00Z"`)
		last := time.Time{}
		w.setHook(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/l" {
				w.keep(r)
				return
			}
			last = time.Now()
			rw.WriteHeader(http.StatusInternalServerError)
		})
		begun := time.Now()
		w.deliver("x")
		w.deliver("y")
		time.Sleep(5 * time.Hour)
		got := w.received()
		if !slices.Equal(toldAs(got), []string{"missed"}) || got[0].text("subscriptionId") != r.text("id") || got[0]["resource"] != nil {
			t.Errorf("lifecycle items %v, want one missed", got)
		}
		if d := last.Sub(begun); d > giveUpAfter || d < giveUpAfter-backoffMax {
			t.Errorf("the last attempt was after %v, want up to 4 hours", d)
		}
		w.SetFaults(func(f *Faults) { f.NoMissed = true })
		w.deliver("z")
		time.Sleep(5 * time.Hour)
		if got := w.received(); len(got) != 0 || !w.Idle() {
			t.Errorf("with NoMissed: %v", got)
		}
	})
}

func TestAnswersMustComeInTime(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.subscribe("/messages", "created")
		takes := []time.Duration{2900 * time.Millisecond, 3100 * time.Millisecond, 9900 * time.Millisecond}
		n := 0
		w.setHook(func(rw http.ResponseWriter, r *http.Request) {
			w.keep(r)
			w.mu.Lock()
			d := takes[min(n, len(takes)-1)]
			n++
			w.mu.Unlock()
			time.Sleep(d)
			rw.WriteHeader(http.StatusAccepted)
		})
		w.deliver("in time")
		time.Sleep(time.Minute)
		if got := w.received(); len(got) != 1 {
			t.Errorf("2.9 s: %d deliveries, want 1 (W-19)", len(got))
		}
		w.deliver("too late at first, in time when tried again")
		time.Sleep(time.Minute)
		if got := w.received(); len(got) != 2 || !w.Idle() {
			t.Errorf("3.1 s, then 9.9 s: %d deliveries, want 2 (W-20)", len(got))
		}
	})
}

func TestLifecycle(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		first := w.subscribe("/messages", "created").text("id")
		other := w.subscribe("/messages", "updated").text("id")
		w.subscribe("/messages", "deleted", "lifecycleNotificationUrl", "")
		w.SendLifecycle("somethingNew", first)
		got := w.received()
		if !slices.Equal(toldAs(got), []string{"somethingNew"}) || got[0]["changeType"] != nil || got[0].text("clientState") != "secret" {
			t.Errorf("one: %v", got)
		}
		w.SendLifecycle("missed", "")
		if got := w.received(); len(got) != 2 {
			t.Errorf("all: %v, want the two that have a URL", got)
		}
		w.RemoveSubscription(first, true)
		if got := w.received(); !slices.Equal(toldAs(got), []string{"subscriptionRemoved"}) || got[0].text("subscriptionId") != first {
			t.Errorf("removed: %v", got)
		}
		w.RemoveSubscription(other, false)
		w.RemoveSubscription("nothing", true)
		w.deliver("x")
		if got := w.received(); len(got) != 0 || len(w.Subscriptions()) != 1 {
			t.Errorf("removed in silence: %v", got)
		}
	})
}

func TestReauthorizationIsAskedForAndDeliveryPauses(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.SetReauthEvery(20 * time.Minute)
		id := w.subscribe("/messages", "created", "expirationDateTime", `"2000-01-03T00:00:00Z"`).text("id")
		time.Sleep(21 * time.Minute)
		if got := w.received(); !slices.Equal(toldAs(got), []string{"reauthorizationRequired"}) {
			t.Errorf("after 21 minutes: %v", got)
		}
		w.deliver("still delivered")
		if got := w.received(); len(got) != 1 {
			t.Errorf("asked but not paused: %v", got)
		}
		time.Sleep(45 * time.Minute)
		w.received()
		w.deliver("held back")
		time.Sleep(30 * time.Minute)
		if got := w.received(); slices.Contains(toldAs(got), "created") {
			t.Errorf("delivered while paused: %v", got)
		}
		if r := w.call("POST", "/subscriptions/"+id+"/reauthorize", ""); r.status != 204 {
			t.Fatalf("reauthorize: %d", r.status)
		}
		time.Sleep(2 * time.Minute)
		if got := w.received(); !slices.Equal(toldAs(got), []string{"created"}) {
			t.Errorf("after reauthorizing: %v, want what was held back (R-12)", got)
		}
		w.SetReauthEvery(0)
		time.Sleep(2 * time.Hour)
		if got := w.received(); len(got) != 0 {
			t.Errorf("switched off: %v", got)
		}
	})
}

func TestNotificationFaults(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.subscribe("/messages", "created,updated")
		set := func(f Faults) { w.SetFaults(func(p *Faults) { *p = f }) }
		set(Faults{LoseNext: 2})
		for range 3 {
			w.deliver("x")
		}
		if got := w.received(); len(got) != 1 {
			t.Errorf("LoseNext 2 of 3: %d delivered", len(got))
		}
		set(Faults{LoseNotifications: 1})
		w.deliver("x")
		if got := w.received(); len(got) != 0 {
			t.Errorf("all lost: %d delivered", len(got))
		}
		set(Faults{DoubleNotifications: 1})
		id := w.deliver("x")
		if got := w.received(); len(got) != 2 || got[0].data("id") != id || got[1].data("id") != id {
			t.Errorf("doubled: %v", got)
		}
		set(Faults{ExtraUpdated: 1})
		w.deliver("x")
		if got := w.received(); !slices.Contains(toldAs(got), "updated") || len(got) != 2 || got[0].data("@odata.etag") != got[1].data("@odata.etag") {
			t.Errorf("with an extra updated: %v", got)
		}
		set(Faults{NotificationDelay: time.Minute})
		w.deliver("x")
		time.Sleep(55 * time.Second)
		if got := w.received(); len(got) != 0 {
			t.Errorf("58 s into a delay of a minute: %v", got)
		}
		if got := w.received(); len(got) != 1 {
			t.Errorf("after the delay: %v", got)
		}
		set(Faults{ReorderNotifications: 1})
		var sent []string
		for i := range 50 {
			sent = append(sent, w.deliver(fmt.Sprint(i)))
		}
		var got []string
		for _, i := range w.received() {
			got = append(got, i.data("id"))
		}
		same := slices.Equal(got, sent)
		slices.Sort(got)
		slices.Sort(sent)
		if same || !slices.Equal(got, sent) {
			t.Errorf("reordered: in order %v, %d of %d delivered", same, len(got), len(sent))
		}
	})
}

func TestNotificationsGoToTheURLAsGiven(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, w *world) {
		w.subscribe("/messages", "created")
		var uris []string
		w.setHook(func(_ http.ResponseWriter, r *http.Request) { uris = append(uris, r.URL.RequestURI()) })
		w.deliver("x")
		w.received()
		if strings.Join(uris, " ") != "/n?x=1" {
			t.Errorf("notified at %q, want the URL with its query (S-4)", uris)
		}
	})
}
