package webhook

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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
