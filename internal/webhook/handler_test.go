package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

func readPayload(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	outlook  = "c6126aa3-0ed8-412f-a988-71e6cee627c4"
	second   = "11111111-2222-3333-4444-555555555555"
	recorded = "ec73a6d8-5535-40ba-8b84-71b6b56788f4"
	groupID  = "AAMkAGViYzY5NTVhLTcxNzUtNDE3YS05N2FhLTNhODU5OWE2MWVlZABGAAAAAABYnoNt8-_-QbEnnjxv3TP-BwAJk-rg5HJKR4HmS51TSiYlAAAAAAENAAAJk-rg5HJKR4HmS51TSiYlAAAecy6lAAA="
	mailID   = "AAMkADJmNWUwNzZlLWMxNWQtNGNkMy1iNmY4LWJiOTBkYjk5YjVlYgBGAAAAAAC6hwbZVh5-T6nLJ1FvBfvIBwBZbQVR_TVZTLodSM-vZvBeAAAAAAEMAABZbQVR_TVZTLodSM-vZvBeAAB3MSDJAAA="
	movedID  = "AAkALgAAAAAAHYQDEapmEc2byACqAC_EWg0A"
	sampleCK = "kNnynYavKEihA0la3Yt5UQABg1FF5w"
)

// payloads says what every sample of Graph's traffic must come to.
var payloads = map[string]struct {
	subs   map[string]string
	status int
	notes  []string
	cycles []string
	counts map[string]uint64
}{
	"notification-basic-message-outlook.json": {
		subs: map[string]string{outlook: "<<--SpecifiedClientState-->>"}, status: 202,
		notes:  []string{"1 created AAMkAGUwNjQ4ZjIxAAA= " + sampleCK},
		counts: map[string]uint64{"accepted": 1},
	},
	"notification-basic-message.json": {
		subs: map[string]string{"{subscription_guid}": "secretClientValue"}, status: 202,
		notes:  []string{"1 created {long_id_string} 5K1hqO26LkypbIE2TK_SsAAAFFkR3w"},
		counts: map[string]uint64{"accepted": 1},
	},
	"notification-rich-message-outlook.json": {
		subs: map[string]string{"dfd11b2f-8222-4189-9545-4205c95d6235": "<<--SpecifiedClientState-->>"}, status: 202,
		notes:  []string{"1 created AAMkAGUwNjQ4ZjIxLTQ3Y2Y8AAA= kNnynYavKEihA0la3Yt5UQABg1EfJw"},
		counts: map[string]uint64{"accepted": 1},
	},
	"notification-rich-chatmessage.json": { // the sample has no clientState
		subs: map[string]string{"76222963-cc7b-42d2-882d-8aaa69cb2ba3": "s"}, status: 202,
		counts: map[string]uint64{"bad_client_state": 1},
	},
	"notification-rich-two-tenants.json": { // nor has this one, and only one subscription is ours
		subs: map[string]string{"76619225-ff6b-4489-96ca-4ef547e78b22": "s"}, status: 202,
		counts: map[string]uint64{"bad_client_state": 1, "unknown_subscription": 1},
	},
	"notification-eventhubs-validation.json":     {status: 202, counts: map[string]uint64{"validation": 1}},
	"notification-rich-decrypted-message.json":   {status: 400, counts: map[string]uint64{"malformed": 1}},
	"recorded-notification-request-headers.json": {status: 400, counts: map[string]uint64{"malformed": 1}},
	"http-validation-handshake.json":             {status: 400, counts: map[string]uint64{"malformed": 1}},
	"legacy-outlookrest-subscriptionremoved.json": { // capitals: not Graph's properties
		status: 202, counts: map[string]uint64{"malformed": 1},
	},
	"lifecycle-generic.json": {
		subs: map[string]string{"<subscription_guid>": "<secretClientState>"}, status: 202,
		cycles: []string{"<subscription_guid> subscriptionRemoved or missed or reauthorizationRequired"},
		counts: map[string]uint64{"lifecycle": 1},
	},
	"lifecycle-missed.json": {
		subs: map[string]string{"<subscription_guid>": "<secretClientState>"}, status: 202,
		cycles: []string{"<subscription_guid> missed"},
		counts: map[string]uint64{"lifecycle": 1},
	},
	"lifecycle-reauthorizationrequired-with-resource.json": {
		subs: map[string]string{"<subscription_guid>": "<secretClientState>"}, status: 202,
		cycles: []string{"<subscription_guid> reauthorizationRequired"},
		counts: map[string]uint64{"lifecycle": 1},
	},
	"lifecycle-reauthorizationrequired.json": {
		subs: map[string]string{"e3898f08-5cd0-4a6a-80fc-6addbfb73b7b": "{secret client state}"}, status: 202,
		cycles: []string{"e3898f08-5cd0-4a6a-80fc-6addbfb73b7b reauthorizationRequired"},
		counts: map[string]uint64{"lifecycle": 1},
	},
	"lifecycle-subscriptionremoved.json": {
		subs: map[string]string{"<subscription_guid>": "<secretClientState>"}, status: 202,
		cycles: []string{"<subscription_guid> subscriptionRemoved"},
		counts: map[string]uint64{"lifecycle": 1},
	},
	"derived-notification-batch-mixed.json": {
		subs: map[string]string{second: "secretClientState", outlook: "secretClientState"}, status: 202,
		notes: []string{
			"1 updated AAMkAGUwNjQ4ZjIxBBB= " + sampleCK,
			"2 created AAMkAGUwNjQ4ZjIxAAA= " + sampleCK,
			"2 created AAMkAGUwNjQ4ZjIxAAA= " + sampleCK, // doubled by Graph; told apart later
		},
		cycles: []string{outlook + " reauthorizationRequired"},
		counts: map[string]uint64{"accepted": 3, "lifecycle": 1},
	},
	"derived-notification-contact-deleted.json": {
		subs: map[string]string{outlook: "secretClientState"}, status: 202,
		notes:  []string{"1 deleted AAMkAGUwNjQ4ZjIxCONT="},
		counts: map[string]uint64{"accepted": 1},
	},
	"derived-notification-event-updated.json": {
		subs: map[string]string{outlook: "secretClientState"}, status: 202,
		notes:  []string{"1 updated AAMkAGUwNjQ4ZjIxEVENT= " + sampleCK},
		counts: map[string]uint64{"accepted": 1},
	},
	"derived-notification-move-with-immutable-id.json": {
		subs: map[string]string{outlook: "secretClientState"}, status: 202,
		notes:  []string{"1 deleted " + movedID, "1 created " + movedID + " " + sampleCK},
		counts: map[string]uint64{"accepted": 2},
	},
	"recorded-notification-event-created.json": {
		subs: map[string]string{recorded: "foo"}, status: 202,
		notes:  []string{"1 created " + groupID + " CZP64ORySkeB5kudU0omJQAAHnMCoA"},
		counts: map[string]uint64{"accepted": 1},
	},
	"recorded-notification-event-updated.json": {
		subs: map[string]string{recorded: "foo"}, status: 202,
		notes:  []string{"1 updated " + groupID + " CZP64ORySkeB5kudU0omJQAAHnMCpQ"},
		counts: map[string]uint64{"accepted": 1},
	},
	"recorded-notification-event-deleted.json": { // the etag of a deletion says nothing (W-9b)
		subs: map[string]string{recorded: "foo"}, status: 202,
		notes:  []string{"1 deleted " + groupID},
		counts: map[string]uint64{"accepted": 1},
	},
	"recorded-notification-message-created.json": {
		subs: map[string]string{"0f02734d-2f84-4c08-b185-692cd5a693a3": "secretToMakeSureNotifsAreLegit"}, status: 202,
		notes:  []string{"1 created " + mailID + " WW0FUfk1WUy6HUjP72bwXgAAdwEGvA"},
		counts: map[string]uint64{"accepted": 1},
	},
}

func TestEverySampleOfGraphsTraffic(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) != len(payloads) {
		t.Fatalf("%d files in testdata, %d in the table (%v)", len(files), len(payloads), err)
	}
	for name, want := range payloads {
		for _, url := range []string{notificationsURL, lifecycleURL} { // either URL takes both kinds (W-3)
			t.Run(name+url, func(t *testing.T) {
				f := newFixture(t, want.subs)
				before := f.store.Commits()
				f.post(url, readPayload(t, name), want.status)
				f.counted(want.counts)
				notes, cycles := f.stored()
				if !slices.Equal(notes, want.notes) {
					t.Errorf("inbox = %q, want %q", notes, want.notes)
				}
				if !slices.Equal(cycles, want.cycles) {
					t.Errorf("lifecycles = %q, want %q", cycles, want.cycles)
				}
				commits := uint64(1)
				if len(want.notes)+len(want.cycles) == 0 {
					commits = 0
				}
				if got := f.store.Commits() - before; got != commits {
					t.Errorf("%d commits, want %d", got, commits)
				}
				if n := f.store.Counters()["accepted"]; n != uint64(len(want.notes)) {
					t.Errorf("the law counts %d accepted, want %d", n, len(want.notes))
				}
				feeds, lifecycles := f.woken()
				if want := f.store.PendingFeeds(); !slices.Equal(feeds, want) {
					t.Errorf("woken = %v, want %v", feeds, want)
				}
				if (lifecycles == 1) != (len(want.cycles) > 0) {
					t.Errorf("lifecycles woken %d times for %q", lifecycles, want.cycles)
				}
			})
		}
	}
}

// The request line and headers that were recorded from Graph in 2022: no User-Agent, no Authorization (W-9c).
func TestRecordedRequestHeaders(t *testing.T) {
	var rec struct {
		Method  string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(readPayload(t, "recorded-notification-request-headers.json")), &rec); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, map[string]string{recorded: "foo"})
	r := httptest.NewRequest(rec.Method, notificationsURL, strings.NewReader(readPayload(t, "recorded-notification-event-created.json")))
	for name, value := range rec.Headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	if w.Code != http.StatusAccepted || w.Body.Len() != 0 {
		t.Errorf("answer = %d %q, want 202 and nothing", w.Code, w.Body)
	}
	f.counted(map[string]uint64{"accepted": 1})
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

func TestLogGateOpensOnceAMinuteWithTheSum(t *testing.T) {
	var g logGate
	start := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	var got []int
	for s := range 150 { // one a second
		if n, ok := g.open(start.Add(time.Duration(s)*time.Second), 2); ok {
			got = append(got, n)
		}
	}
	if want := []int{2, 120, 120}; !slices.Equal(got, want) {
		t.Errorf("opened with %v, want %v", got, want)
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
