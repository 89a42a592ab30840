package subscriptions

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triggerd/triggerd/internal/store"
)

func TestSelfCheckWantsTheTokenBack(t *testing.T) {
	tests := []struct {
		name  string
		reply func(*http.Request) (*http.Response, error)
		want  string
	}{
		{"echo", func(r *http.Request) (*http.Response, error) {
			return answer(200, r.URL.Query().Get("validationToken")), nil
		}, ""},
		{"the token as it came", func(r *http.Request) (*http.Response, error) { return answer(200, r.URL.RawQuery), nil }, "something else than the token"},
		{"plus left alone", func(r *http.Request) (*http.Response, error) {
			return answer(200, strings.ReplaceAll(r.URL.Query().Get("validationToken"), " ", "+")), nil
		}, "something else than the token"},
		{"a newline more", func(r *http.Request) (*http.Response, error) {
			return answer(200, r.URL.Query().Get("validationToken")+"\n"), nil
		}, "something else than the token"},
		{"a page", func(*http.Request) (*http.Response, error) { return answer(200, strings.Repeat("<html>", 1e6)), nil }, "something else than the token"},
		{"a proxy without us", func(*http.Request) (*http.Response, error) { return answer(502, ""), nil }, "answered 502 Bad Gateway"},
		{"accepted", func(r *http.Request) (*http.Response, error) {
			return answer(202, r.URL.Query().Get("validationToken")), nil
		}, "answered 202 Accepted"},
		{"a redirect", func(*http.Request) (*http.Response, error) {
			resp := answer(301, "")
			resp.Header.Set("Location", "https://else.test/")
			return resp, nil
		}, "answered 301 Moved"},
		{"nobody", func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, "does not answer: connection refused"},
		{"slow", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, "does not answer: no answer in 10s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &listener{broken: tt.reply}
				err := askURL(t.Context(), noRedirects(&http.Client{Transport: l}), hook+"/graph/notifications")
				switch {
				case tt.want == "" && err != nil, tt.want != "" && err == nil:
					t.Fatalf("askURL = %v, want %q", err, tt.want)
				case err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "validationToken")):
					t.Errorf("askURL = %v, want %q, without the URL", err, tt.want)
				}
				if l.asked != 1 {
					t.Errorf("%d requests", l.asked)
				}
			})
		})
	}
	if err := askURL(t.Context(), http.DefaultClient, "https://%zz"); err == nil {
		t.Error("a URL that is none is asked")
	}
}

func TestSelfCheckKeepsTheURLsOwnQuery(t *testing.T) {
	var got string
	l := &listener{broken: func(r *http.Request) (*http.Response, error) {
		got = r.URL.Query().Get("key")
		return answer(200, r.URL.Query().Get("validationToken")), nil
	}}
	if err := askURL(t.Context(), &http.Client{Transport: l}, hook+"/n?key=1"); err != nil || got != "1" {
		t.Errorf("key %q, %v", got, err)
	}
}

func TestPublicURLFailsAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		defer h.run()()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := h.url.times(); n < 55 || n > 61 {
			t.Errorf("asked %d times in an hour, want once a minute", n)
		}
		h.push(1, true, "")
		h.url.breakIt(func(*http.Request) (*http.Response, error) { return answer(502, ""), nil })
		time.Sleep(66 * time.Second)
		synctest.Wait()
		h.push(1, false, "the public URL answered 502 Bad Gateway")
		if ok, reason, at := h.room.Public(); ok || !strings.Contains(reason, "502") || time.Since(at) > time.Minute {
			t.Errorf("Public() = %v, %q, %v ago", ok, reason, time.Since(at))
		}
		time.Sleep(time.Hour)
		before := h.url.times()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := h.url.times() - before; n < 50 || n > 61 {
			t.Errorf("asked %d times in an hour while it fails, want once a minute", n)
		}
		h.url.breakIt(nil)
		time.Sleep(66 * time.Second)
		synctest.Wait()
		h.push(1, true, "")
		if f.count("create") != 1 {
			t.Error("the subscription was made anew although it lived")
		}
	})
}

func TestHealedURLIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.url.breakIt(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		f.fault = func(op, _ string) (bool, error) { return op != "create", cmpErr(op == "create", badURL) }
		defer h.run()()
		synctest.Wait()
		if f.count("create") != 0 {
			t.Error("created before the listener can answer Graph")
		}
		time.Sleep(3 * time.Hour) // waits have become long
		synctest.Wait()
		if f.count("create") < 5 {
			t.Error("a URL that fails its own check may still answer Graph: creation must be tried")
		}
		h.push(1, false, "no subscription: 400 Bad Request (ValidationError)")
		f.setFault(nil)
		h.url.breakIt(nil)
		time.Sleep(66 * time.Second)
		synctest.Wait()
		h.push(1, true, "")
	})
}

func TestStartWaitsForTheListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.url.breakIt(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
		f.fault = func(op, _ string) (bool, error) {
			if err := askURL(context.Background(), &http.Client{Transport: h.url}, hook+"/graph/notifications"); op == "create" && err != nil {
				return false, badURL // as Graph would find
			}
			return true, nil
		}
		defer h.run()()
		time.Sleep(3 * time.Second)
		h.url.breakIt(nil) // the listener is up
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if f.count("create") != 1 || len(f.live()) != 1 {
			t.Errorf("%d attempts, %d subscriptions; want one that succeeds", f.count("create"), len(f.live()))
		}
	})
}

func TestReceivedNotificationsProveTheURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		h := newHouse(t, f, 1, nil)
		h.url.breakIt(func(*http.Request) (*http.Response, error) { return nil, errors.New("hairpin") })
		defer h.run()()
		time.Sleep(time.Minute)
		synctest.Wait()
		h.push(1, false, "the public URL does not answer: hairpin")
		feed := store.Feed{PushAt: time.Now().Round(0).UTC()}
		if err := h.st.Update(func(tx *store.Tx) error { return tx.PutFeed(&feed) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		h.push(1, true, "")
		if ok, _, at := h.room.Public(); !ok || !at.Equal(feed.PushAt) {
			t.Errorf("Public() = %v, %v, want the notification as proof", ok, at)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		h.push(1, false, "hairpin")
	})
}
