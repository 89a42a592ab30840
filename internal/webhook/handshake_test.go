package webhook

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestHandshakeEchoesTheTokenDecodedOnce(t *testing.T) {
	tests := []struct{ name, query, want string }{
		{"plus is a space", "validationToken=Validation%3A+Testing+client+application+reachability+for+subscription+Request-Id%3A+522a8e7e", "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e"},
		{"%20 is a space", "validationToken=Validation%3a%20Testing", "Validation: Testing"},
		{"raw colon", "validationToken=a:b", "a:b"},
		{"%2B is a plus", "validationToken=a%2Bb+c", "a+b c"},
		{"decoded once, not twice", "validationToken=a%252Bb%2520c", "a%2Bb%20c"},
		{"equals signs belong to it", "validationToken=YWJj%3D%3D=", "YWJj==="},
		{"ampersand and quote", "validationToken=a%26b%22c%27", `a&b"c'`},
		{"behind a query of ours", "tenant=x&validationToken=abc", "abc"},
		{"before another parameter", "validationToken=abc&y=%zz", "abc"},
		{"beyond ASCII", "validationToken=%C3%A9%E2%82%AC", "é€"},
		{"name escaped", "validation%54oken=abc", "abc"},
		{"longest", "validationToken=" + strings.Repeat("x", 4096), strings.Repeat("x", 4096)},
	}
	for _, tt := range tests {
		for _, method := range []string{"POST", "GET"} {
			for _, path := range []string{notificationsURL, lifecycleURL} {
				t.Run(tt.name+" "+method+" "+path, func(t *testing.T) {
					f := newFixture(t, nil)
					res := f.do(method, path+"?"+tt.query, "")
					body, err := io.ReadAll(res.Body)
					if err != nil || res.StatusCode != http.StatusOK || string(body) != tt.want {
						t.Errorf("answer = %d %q, want 200 %q", res.StatusCode, body, tt.want)
					}
					for name, want := range map[string]string{
						"Content-Type":            "text/plain; charset=utf-8",
						"X-Content-Type-Options":  "nosniff",
						"Content-Security-Policy": "default-src 'none'",
					} {
						if got := res.Header.Get(name); got != want {
							t.Errorf("%s = %q, want %q", name, got, want)
						}
					}
					f.counted(map[string]uint64{"validation": 1})
				})
			}
		}
	}
}

func TestHostileTokensAreRefused(t *testing.T) {
	for _, query := range []string{
		"validationToken=",
		"validationToken",
		"validationToken=%3Cscript%3E",
		"validationToken=a>b",
		"validationToken=a%0D%0ASet-Cookie%3A+x",
		"validationToken=a%00b",
		"validationToken=a%7Fb",
		"validationToken=a%C2%85b", // a control character beyond ASCII
		"validationToken=%FF%FE",   // not UTF-8
		"validationToken=%zz",
		"validationToken=%",
		"validationToken=" + strings.Repeat("x", 4097),
		"validationToken=" + strings.Repeat("%78", 4097),
		"validationToken=a&validationToken=a",
		"validationToken=a&x=y&validation%54oken=b",
	} {
		f := newFixture(t, map[string]string{"s1": "right"})
		res := f.do("POST", notificationsURL+"?"+query, collectionOf(note("s1", "right", ``)))
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusBadRequest || string(body) != "validation token refused\n" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%.60q = %d %q, want 400 and no echo", query, res.StatusCode, body)
		}
		f.counted(map[string]uint64{"validation": 1})
		if notes, _ := f.stored(); notes != nil {
			t.Errorf("%.60q stored %q: a handshake carries no notifications", query, notes)
		}
		if f.log.Len() > 0 {
			t.Errorf("%.60q logged %s", query, f.log)
		}
	}
}

func FuzzValidationToken(f *testing.F) {
	for _, q := range []string{"", "validationToken=a+b", "a=b&validationToken=%2B", "validationToken=%3C", "validationToken=1&validationToken=2", "validation%54oken=;"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		token, err := validationToken(query)
		if (token == "") != (err != nil) {
			t.Fatalf("validationToken(%q) = %q, %v: want a token or an error", query, token, err)
		}
		if err == nil {
			if len(token) > maxToken || !utf8.ValidString(token) || strings.ContainsAny(token, "<>") || strings.ContainsFunc(token, unicode.IsControl) {
				t.Errorf("token %q was let through", token)
			}
			if !strings.Contains(query, ";") { // net/url refuses those
				values, _ := url.ParseQuery(query)
				if got := values["validationToken"]; len(got) != 1 || got[0] != token {
					t.Errorf("validationToken(%q) = %q, net/url says %q", query, token, got)
				}
			}
		}
		// Any text that is harmless comes back as it was sent.
		back, err := validationToken("x=y&validationToken=" + url.QueryEscape(query))
		if harmless(query) != (err == nil) || err == nil && back != query {
			t.Errorf("sent %q, got %q, %v", query, back, err)
		}
	})
}
