package webhook

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/triggerd/triggerd/internal/store"
)

const (
	notificationsURL = "/graph/notifications"
	lifecycleURL     = "/graph/lifecycle"
)

// fixture is a handler on a real store, and what it woke.
type fixture struct {
	t      testing.TB
	store  *store.Store
	h      *Handler
	wakes  chan uint32
	cycles chan struct{}
	log    *bytes.Buffer
}

func openStore(t testing.TB, dir string, opts store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// newFixture has one feed for each subscription in subs, which maps ids to clientStates; feeds are numbered from 1 in
// the order of ids.
func newFixture(t testing.TB, subs map[string]string) *fixture {
	st := openStore(t, t.TempDir(), store.Options{})
	t.Cleanup(func() { st.Close() })
	f := &fixture{t: t, store: st, wakes: make(chan uint32, 1000), cycles: make(chan struct{}, 1000), log: new(bytes.Buffer)}
	f.subscribe(subs)
	f.h = New(Options{
		Store:         st,
		Wake:          func(feed uint32) { f.wakes <- feed },
		WakeLifecycle: func() { f.cycles <- struct{}{} },
		Log:           zerolog.New(f.log),
	})
	return f
}

func (f *fixture) subscribe(subs map[string]string) {
	f.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(subs)) {
		f.put(store.Subscription{ID: id, StateHash: sha256.Sum256([]byte(subs[id]))})
	}
}

// put stores a subscription with a feed of its own.
func (f *fixture) put(sub store.Subscription) (feed uint32) {
	f.t.Helper()
	err := f.store.Update(func(tx *store.Tx) error {
		fd := store.Feed{Mailbox: 1, FolderID: sub.ID}
		if err := tx.PutFeed(&fd); err != nil {
			return err
		}
		sub.Feed, feed = fd.Num, fd.Num
		return tx.PutSubscription(&sub)
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return feed
}

func (f *fixture) do(method, url, body string) *http.Response {
	rec := httptest.NewRecorder()
	f.h.ServeHTTP(rec, httptest.NewRequest(method, url, strings.NewReader(body)))
	return rec.Result()
}

// post posts a body and checks the status of the answer.
func (f *fixture) post(url, body string, want int) {
	f.t.Helper()
	if res := f.do("POST", url, body); res.StatusCode != want {
		f.t.Errorf("POST %s = %d, want %d", url, res.StatusCode, want)
	}
}

// stored reads what waits in the inbox as "feed change item changeKey" without what is empty, and lifecycles as "subscription event".
func (f *fixture) stored() (notes, cycles []string) {
	f.t.Helper()
	return readStored(f.t, f.store)
}

func readStored(t testing.TB, st *store.Store) (notes, cycles []string) {
	t.Helper()
	err := st.View(func(tx *store.Tx) error {
		for _, feed := range st.PendingFeeds() {
			entries, err := tx.Pending(feed, 0)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if time.Since(e.At) > time.Minute || e.At.After(time.Now()) {
					t.Errorf("entry accepted at %v", e.At)
				}
				words := []string{strconv.Itoa(int(e.Feed)), e.Change, e.Item, e.ChangeKey}
				notes = append(notes, strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " "))
			}
		}
		lifecycles, err := tx.Lifecycles()
		for _, l := range lifecycles {
			cycles = append(cycles, l.Subscription+" "+l.Event)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return notes, cycles
}

// woken drains what was woken so far, feeds in ascending order.
func (f *fixture) woken() (feeds []uint32, lifecycles int) {
	for {
		select {
		case feed := <-f.wakes:
			feeds = append(feeds, feed)
		case <-f.cycles:
			lifecycles++
		default:
			slices.Sort(feeds)
			return feeds, lifecycles
		}
	}
}

// counted checks the counters that are not zero.
func (f *fixture) counted(want map[string]uint64) {
	f.t.Helper()
	got := f.h.Counters()
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	if !maps.Equal(got, want) {
		f.t.Errorf("counters = %v, want %v", got, want)
	}
}

// note renders a notification; fields are JSON members that follow subscriptionId and clientState.
func note(sub, state, fields string) string {
	s := fmt.Sprintf(`{"subscriptionId":%q,"clientState":%q`, sub, state)
	if fields != "" {
		s += "," + fields
	}
	return s + "}"
}

func collectionOf(items ...string) string { return `{"value":[` + strings.Join(items, ",") + `]}` }

func TestEachNotificationIsJudgedByItself(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	genuine := func(fields string) string { return note("s1", "right", fields) }
	tests := []struct {
		name, item string
		result     string // counter
		stored     string // "change item changeKey" or a lifecycle's event
	}{
		{"plain", genuine(`"changeType":"created","resourceData":{"id":"i"}`), "accepted", "created i"},
		{"change type in capitals", genuine(`"changeType":"Updated","resourceData":{"id":"i"}`), "accepted", "updated i"},
		{"unknown change type", genuine(`"changeType":"unknownFutureValue","resourceData":{"id":"i"}`), "accepted", "unknownfuturevalue i"},
		{"no change type", genuine(`"resourceData":{"id":"i"}`), "accepted", "i"},
		{"nothing but the proof still wakes", genuine(``), "accepted", ""},
		{"null everywhere", genuine(`"changeType":null,"lifecycleEvent":null,"resource":null,"resourceData":null`), "accepted", ""},
		{"id escaped", genuine(`"resourceData":{"id":"\u0041\/\"B"}`), "accepted", `A/"B`},
		{"property name escaped", genuine(`"resource\u0044ata":{"\u0069d":"i"}`), "accepted", "i"},
		{"etag that is no change key", genuine(`"resourceData":{"id":"i","@odata.etag":"W/\"v 2\""}`), "accepted", "i v 2"},
		{"id from users/x@y/messages/id", genuine(`"resource":"users/x@y/messages/AAA="`), "accepted", "AAA="},
		{"id from Users/x/Messages/id", genuine(`"resource":"Users/x/Messages/AAA="`), "accepted", "AAA="},
		{"id from Users('x')/messages('id')", genuine(`"resource":"Users('x')/messages('AAA=')"`), "accepted", "AAA="},
		{"id from Users('x')/Messages('id') with quote and slash", genuine(`"resource":"Users('x')/Messages('A''/B')"`), "accepted", "A'/B"},
		{"id from me/mailFolders('f')/messages/id", genuine(`"resource":"/me/mailFolders('f')/messages/AAA="`), "accepted", "AAA="},
		{"id from Events", genuine(`"resource":"Groups/g/Events/E"`), "accepted", "E"},
		{"id from contacts with a query", genuine(`"resource":"Users/u/Contacts/C?$select=id"`), "accepted", "C"},
		{"resource of a collection names no item", genuine(`"resource":"users/x/messages"`), "accepted", ""},
		{"resource of a folder names no item", genuine(`"resource":"me/mailFolders('Inbox')"`), "accepted", ""},
		{"resource of a user names no item", genuine(`"resource":"users/x"`), "accepted", ""},
		{"resource that is no path", genuine(`"resource":"')"`), "accepted", ""},
		{"resourceData.id before resource", genuine(`"resource":"u/x/messages/R","resourceData":{"id":"D"}`), "accepted", "D"},
		{"empty resourceData.id, id in resource", genuine(`"resource":"u/x/messages/R","resourceData":{"id":""}`), "accepted", "R"},
		{"encrypted content is not looked at", genuine(`"encryptedContent":{"data":[1,{"x":"\ud800"}]},"resourceData":{"id":"i"}`), "accepted", "i"},
		{"longest id", genuine(`"resourceData":{"id":"` + long(2048) + `"}`), "accepted", long(2048)},
		{"last of repeated names", genuine(`"resourceData":{"id":"a","@odata.etag":"e"},"resourceData":{"id":"b"}`), "accepted", "b"},
		{"subscription that is gone", note("gone", "late", `"resourceData":{"id":"i"}`), "accepted", "i"},
		{"subscription just being created", note("new", "coming", `"resourceData":{"id":"i"}`), "accepted", "i"},
		{"broken UTF-8 in what is not used", genuine("\"tenantId\":\"\xff\",\"resourceData\":{\"id\":\"i\"}"), "accepted", "i"},
		{"clientState escaped", `{"subscriptionId":"s1","clientState":"r\u0069ght","resourceData":{"id":"i"}}`, "accepted", "i"},

		{"lifecycle", genuine(`"lifecycleEvent":"missed"`), "lifecycle", "missed"},
		{"lifecycle unheard of", genuine(`"lifecycleEvent":"somethingNew"`), "lifecycle", "somethingNew"},
		{"lifecycle beside a change type", genuine(`"changeType":"updated","lifecycleEvent":"missed"`), "lifecycle", "missed"},
		{"lifecycle of a subscription just being created", note("new", "coming", `"lifecycleEvent":"missed"`), "lifecycle", "missed"},

		{"stranger", note("s9", "right", ``), "unknown_subscription", ""},
		{"stranger without clientState", `{"subscriptionId":"s9"}`, "unknown_subscription", ""},
		{"stranger's lifecycle", note("s9", "right", `"lifecycleEvent":"missed"`), "unknown_subscription", ""},
		{"another case of the id", note("S1", "right", ``), "unknown_subscription", ""},
		{"forged", note("s1", "wrong", ``), "bad_client_state", ""},
		{"forged lifecycle", note("s1", "wrong", `"lifecycleEvent":"missed"`), "bad_client_state", ""},
		{"clientState of another subscription", note("s2", "right", ``), "bad_client_state", ""},
		{"clientState longer by a NUL", `{"subscriptionId":"s1","clientState":"right\u0000"}`, "bad_client_state", ""},
		{"clientState missing", `{"subscriptionId":"s1"}`, "bad_client_state", ""},
		{"clientState null", `{"subscriptionId":"s1","clientState":null}`, "bad_client_state", ""},
		{"clientState empty", `{"subscriptionId":"s1","clientState":""}`, "bad_client_state", ""},
		{"subscription made without clientState", `{"subscriptionId":"s0","clientState":""}`, "bad_client_state", ""},
		{"clientState only in another case", `{"subscriptionId":"s1","ClientState":"right"}`, "bad_client_state", ""},

		{"empty object", `{}`, "malformed", ""},
		{"no subscription", `{"clientState":"right"}`, "malformed", ""},
		{"subscription is a number", `{"subscriptionId":1,"clientState":"right"}`, "malformed", ""},
		{"subscription too long", note(long(257), "right", ``), "malformed", ""},
		{"clientState is a list", `{"subscriptionId":"s1","clientState":["right"]}`, "malformed", ""},
		{"change type is an object", genuine(`"changeType":{"a":1}`), "malformed", ""},
		{"change type too long", genuine(`"changeType":"` + long(65) + `"`), "malformed", ""},
		{"lifecycle is a bool", genuine(`"lifecycleEvent":true`), "malformed", ""},
		{"lifecycle too long", genuine(`"lifecycleEvent":"` + long(65) + `"`), "malformed", ""},
		{"resource is a number", genuine(`"resource":12`), "malformed", ""},
		{"resourceData is text", genuine(`"resourceData":"id"`), "malformed", ""},
		{"resourceData is a list", genuine(`"resourceData":[{"id":"i"}]`), "malformed", ""},
		{"id is a number", genuine(`"resourceData":{"id":5}`), "malformed", ""},
		{"id too long", genuine(`"resourceData":{"id":"` + long(2049) + `"}`), "malformed", ""},
		{"id in resource too long", genuine(`"resource":"u/messages/` + long(2049) + `"`), "malformed", ""},
		{"id with broken UTF-8", genuine("\"resourceData\":{\"id\":\"\xff\"}"), "malformed", ""},
		{"id with half a surrogate", genuine(`"resourceData":{"id":"\ud800"}`), "malformed", ""},
		{"etag is an object", genuine(`"resourceData":{"id":"i","@odata.etag":{}}`), "malformed", ""},
		{"etag too long", genuine(`"resourceData":{"id":"i","@odata.etag":"` + long(513) + `"}`), "malformed", ""},
		{"Event Hubs reachability", note("NA", "NA", `"changeType":"Validation: Testing"`), "validation", ""},
	}
	f := newFixture(t, map[string]string{"s0": "", "s1": "right", "s2": "other"})
	f.put(store.Subscription{ID: "gone", StateHash: sha256.Sum256([]byte("late")), RemovedAt: time.Now()})
	defer f.store.Expect(sha256.Sum256([]byte("coming")), 77)()

	var all, wantNotes, wantCycles []string
	wantCounts := map[string]uint64{}
	for _, tt := range tests {
		all = append(all, tt.item)
		wantCounts[tt.result]++
		switch tt.result {
		case "accepted":
			wantNotes = append(wantNotes, tt.stored)
		case "lifecycle":
			wantCycles = append(wantCycles, tt.stored)
		}
		t.Run(tt.name, func(t *testing.T) { // alone
			f := newFixture(t, map[string]string{"s0": "", "s1": "right", "s2": "other"})
			f.put(store.Subscription{ID: "gone", StateHash: sha256.Sum256([]byte("late")), RemovedAt: time.Now()})
			defer f.store.Expect(sha256.Sum256([]byte("coming")), 77)()
			f.post(notificationsURL, collectionOf(tt.item), http.StatusAccepted)
			f.counted(map[string]uint64{tt.result: 1})
			notes, cycles := f.stored()
			got := strings.Join(slices.Concat(notes, cycles), ";")
			_, got, _ = strings.Cut(got, " ") // the feed, or the subscription
			if got != tt.stored {
				t.Errorf("stored %q, want %q", got, tt.stored)
			}
		})
	}
	// All in one request: none harms another.
	f.post(notificationsURL, collectionOf(all...), http.StatusAccepted)
	f.counted(wantCounts)
	notes, cycles := f.stored()
	var gotNotes, gotCycles []string
	for _, n := range notes {
		_, n, _ = strings.Cut(n, " ")
		gotNotes = append(gotNotes, n)
	}
	for _, c := range cycles {
		_, c, _ = strings.Cut(c, " ")
		gotCycles = append(gotCycles, c)
	}
	slices.Sort(gotNotes)
	slices.Sort(wantNotes)
	if !slices.Equal(gotNotes, wantNotes) || !slices.Equal(gotCycles, wantCycles) {
		t.Errorf("stored %q and %q, want %q and %q", gotNotes, gotCycles, wantNotes, wantCycles)
	}
	feeds, lifecycles := f.woken()
	if want := []uint32{2, 4, 77}; !slices.Equal(feeds, want) || lifecycles != 1 {
		t.Errorf("woken %v and lifecycles %d times, want %v and once", feeds, lifecycles, want)
	}
}

func TestForgedNotificationsAreLoggedSparinglyAndWithoutWhatTheyHold(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	for range 100 {
		f.post(notificationsURL, collectionOf(note("s1", "hostile-state", `"resourceData":{"id":"hostile-id"}`), note("hostile-sub", "x", ``)), http.StatusAccepted)
		f.do("GET", "/graph/elsewhere", "")
	}
	f.counted(map[string]uint64{"bad_client_state": 100, "unknown_subscription": 100})
	if lines := strings.Count(f.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines logged, want 1:\n%s", lines, f.log)
	}
	if strings.Contains(f.log.String(), "hostile") || strings.Contains(f.log.String(), "s1") {
		t.Errorf("log holds what was posted: %s", f.log)
	}
}

func TestEverythingElseIsNotFound(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	body := collectionOf(note("s1", "right", ``))
	for _, req := range [][2]string{
		{"GET", notificationsURL}, {"HEAD", notificationsURL}, {"PUT", notificationsURL}, {"PATCH", lifecycleURL},
		{"DELETE", lifecycleURL}, {"OPTIONS", notificationsURL}, {"TRACE", notificationsURL}, {"CONNECT", notificationsURL},
		{"PUT", notificationsURL + "?validationToken=x"}, {"HEAD", lifecycleURL + "?validationToken=x"},
		{"GET", notificationsURL + "?other=x"},
		{"POST", "/"}, {"POST", "/graph"}, {"POST", "/graph/"}, {"POST", notificationsURL + "/"}, {"POST", "/" + notificationsURL},
		{"POST", "/graph/../graph/notifications"}, {"POST", "/Graph/Notifications"}, {"GET", "/metrics"}, {"GET", "/healthz"},
		{"POST", "/?validationToken=x"},
	} {
		res := f.do(req[0], req[1], body)
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusNotFound || len(b) != 0 || len(res.Header) != 0 {
			t.Errorf("%s %s = %d %q %v, want a bare 404", req[0], req[1], res.StatusCode, b, res.Header)
		}
	}
	f.counted(nil)
	if f.log.Len() > 0 {
		t.Errorf("logged: %s", f.log)
	}
}

func TestBodyInAForeignQueryIsNoHandshake(t *testing.T) {
	f := newFixture(t, map[string]string{"s1": "right"})
	f.post(notificationsURL+"?key=value&%zz", collectionOf(note("s1", "right", ``)), http.StatusAccepted)
	f.counted(map[string]uint64{"accepted": 1})
}

func TestCountersNameEveryResult(t *testing.T) {
	got := slices.Sorted(maps.Keys(New(Options{}).Counters()))
	want := []string{"accepted", "bad_client_state", "lifecycle", "malformed", "not_stored", "too_large", "unknown_subscription", "validation"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("counters = %v, want %v", got, want)
	}
}
