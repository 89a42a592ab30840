package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"software.sslmate.com/src/go-pkcs12"
)

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func leafFor(t testing.TB, public, private any) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func pemOf(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func TestCertificateFiles(t *testing.T) {
	key, other, small := rsaKey(t, 2048), rsaKey(t, 2048), rsaKey(t, 1024)
	leaf := leafFor(t, key.Public(), key)
	cert, pkcs1 := pemOf("CERTIFICATE", leaf.Raw), pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("PRIVATE KEY", der)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p12, err := pkcs12.Modern2023.Encode(key, leaf, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	open12, err := pkcs12.Legacy.Encode(key, leaf, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		cert, key []byte
		password  string
		want      string // of the error
	}{
		{"one file, PKCS#1", append(cert, pkcs1...), nil, "", ""},
		{"one file, key first, PKCS#8", append(pkcs8(key), cert...), nil, "", ""},
		{"two files", cert, pkcs8(key), "", ""},
		{"PKCS#12", p12, nil, "secret", ""},
		{"PKCS#12 of an older tool, no password", open12, nil, "", ""},
		{"PKCS#12, wrong password", p12, nil, "wrong", "the password is wrong: name the file that holds it in certificate_password_file"},
		{"neither", []byte("hello"), nil, "", "neither PEM nor a PKCS#12 file"},
		{"no certificate", pkcs1, nil, "", "holds no certificate"},
		{"no key", cert, nil, "", "no private key: put it into the same file"},
		{"another key", cert, pkcs8(other), "", "certificate and key do not belong together"},
		{"a short key", append(pemOf("CERTIFICATE", leafFor(t, small.Public(), small).Raw), pkcs8(small)...), nil, "", "Entra takes RSA keys only"},
		{"an elliptic key", append(pemOf("CERTIFICATE", leafFor(t, ec.Public(), ec).Raw), pkcs8(ec)...), nil, "", "Entra takes RSA keys only"},
		{"an encrypted key", cert, pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), "", "the key is encrypted"},
		{"a broken certificate", append(pemOf("CERTIFICATE", []byte("x")), pkcs1...), nil, "", "the certificate cannot be read"},
		{"a broken key", cert, pemOf("PRIVATE KEY", []byte("x")), "", "the private key cannot be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pair, err := parsePair(tt.cert, tt.key, tt.password)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("parsePair = %v, want %q", err, tt.want)
				}
				return
			}
			sum := sha256.Sum256(leaf.Raw)
			if err != nil || pair.x5t != base64.RawURLEncoding.EncodeToString(sum[:]) {
				t.Fatalf("parsePair = %+v, %v", pair, err)
			}
			checkAssertion(t, pair, key)
		})
	}
}

// checkAssertion reads an assertion as Entra does.
func checkAssertion(t *testing.T, pair *keyPair, key *rsa.PrivateKey) {
	t.Helper()
	const endpoint = "https://login.example.com/t/oauth2/v2.0/token"
	now := time.Now()
	ids := map[string]bool{}
	for range 2 {
		text, err := pair.assert("app", endpoint, now)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.PS256})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := signed.Verify(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		head := signed.Signatures[0].Header
		if head.Algorithm != "PS256" || head.ExtraHeaders["x5t#S256"] != pair.x5t || head.ExtraHeaders["typ"] != "JWT" {
			t.Errorf("header %+v", head)
		}
		var c struct {
			Aud, Iss, Sub, Jti string
			Nbf, Iat, Exp      int64
		}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatal(err)
		}
		if c.Aud != endpoint || c.Iss != "app" || c.Sub != "app" || c.Nbf != now.Unix() || c.Iat != c.Nbf || c.Exp-c.Nbf > 600 || c.Exp <= c.Nbf || ids[c.Jti] || c.Jti == "" {
			t.Errorf("claims %+v", c)
		}
		ids[c.Jti] = true
	}
}

func TestReplacedCertificateIsTakenUp(t *testing.T) {
	first, second := rsaKey(t, 2048), rsaKey(t, 2048)
	path := certificateFor(t, first, time.Now().Add(time.Hour))
	next, err := os.ReadFile(certificateFor(t, second, time.Now().Add(48*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	c := Certificate(CertificateFiles{ClientID: "app", Cert: path}).(*certificate)
	before, err := c.version()
	if err != nil || time.Until(c.Expiry()) > 2*time.Hour {
		t.Fatal(err, c.Expiry())
	}
	look := func() string {
		c.mu.Lock()
		c.lookedAt = time.Time{} // the time to look again has come
		c.mu.Unlock()
		v, err := c.version()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := os.WriteFile(path, next[:len(next)/2], 0o600); err != nil { // half written
		t.Fatal(err)
	}
	if look() != before {
		t.Error("a half-written file was taken up")
	}
	if err := os.WriteFile(path, next, 0o600); err != nil {
		t.Fatal(err)
	}
	if look() == before || time.Until(c.Expiry()) < 24*time.Hour {
		t.Error("the new certificate was not taken up")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Certificate(CertificateFiles{Cert: path}).proofs("x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without the file: %v", err)
	}
	if _, err := Certificate(CertificateFiles{Cert: filepath.Dir(path) + "/../.."}).proofs("x"); err == nil {
		t.Error("a folder is no certificate")
	}
}

func TestFederatedToken(t *testing.T) {
	text, problem := "", error(nil)
	c := FederatedToken(func() (string, error) { return text, problem })
	for in, want := range map[string]string{"abc.def.ghi": "", "secret": "holds no JWT", "a.b": "holds no JWT", "a.b.c d": "holds no JWT", "": "holds no JWT"} {
		text = in
		got, err := c.proofs("x")
		if want == "" && (err != nil || got[0].Get("client_assertion") != in || got[0].Get("client_assertion_type") != assertionType) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	problem = errors.New("open token: permission denied")
	if _, err := c.proofs("x"); !errors.Is(err, problem) || !c.Expiry().IsZero() {
		t.Errorf("proofs = %v", err)
	}
}

func TestTwoSecrets(t *testing.T) {
	newer, older := errors.New("newer: no such file"), error(nil)
	c := ClientSecrets(func() (string, error) { return "new", newer }, func() (string, error) { return "old", older })
	if got, err := c.proofs(""); err != nil || len(got) != 1 || got[0].Get("client_secret") != "old" {
		t.Errorf("with one that cannot be read: %v, %v", got, err)
	}
	newer = nil
	v, err := c.version()
	if got, perr := c.proofs(""); err != nil || perr != nil || len(got) != 2 || got[0].Get("client_secret") != "new" || strings.Contains(v, "new") {
		t.Errorf("proofs %v, %v, version %s, %v", got, perr, v, err)
	}
	newer, older = errors.New("newer: gone"), errors.New("older: gone")
	if _, err := c.proofs(""); !errors.Is(err, newer) || !errors.Is(err, older) {
		t.Errorf("with none: %v", err)
	}
	if _, err := ClientSecrets().proofs(""); err == nil {
		t.Error("no secrets at all")
	}
}

func TestManagedIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status, body := 404, "<html>"
		n := 0
		wire := transport(func(r *http.Request) (*http.Response, error) {
			n++
			q := r.URL.Query()
			if r.Header.Get("Metadata") != "true" || r.URL.Host != "169.254.169.254" || q.Get("resource") != "https://graph.microsoft.com" || q.Get("client_id") != "user-assigned" || r.Method != "GET" {
				t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
			}
			w := httptest.NewRecorder()
			w.WriteHeader(status)
			w.WriteString(body)
			return w.Result(), nil
		})
		a := NewManagedIdentity(ManagedOptions{ClientID: "user-assigned", Resource: "https://graph.microsoft.com", Transport: wire, Log: zerolog.Nop()})
		for _, s := range []int{404, 410, 429, 500} { // it is starting, or being updated
			status = s
			_, err := a.Token(t.Context())
			if e, ok := errors.AsType[*Error](err); !ok || e.Class != Retry {
				t.Errorf("%d: %v", s, err)
			}
			time.Sleep(10 * time.Minute)
		}
		status, body = 400, `{"error":"invalid_request","error_description":"Identity not found"}`
		_, err := a.Token(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || e.Class != Operator || !strings.Contains(err.Error(), "the VM has no such identity") {
			t.Errorf("400: %v", err)
		}
		time.Sleep(2 * time.Hour)
		status, body = 200, `{"access_token":"t","expires_in":"3600"}`
		if got, err := a.Token(t.Context()); got != "t" || err != nil || n != 6 || !a.Expiry().IsZero() {
			t.Errorf("Token = %s, %v after %d requests", got, err, n)
		}
	})
}

// A secret, an assertion or a refresh token goes to the login endpoint only, wherever that says to go.
func TestRedirectsAreNotFollowed(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a stranger got %s", r.URL) }))
	defer stranger.Close()
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, stranger.URL, http.StatusTemporaryRedirect)
	}))
	defer login.Close()
	_, err := exchange(t.Context(), loginClient(nil), login.URL, url.Values{"refresh_token": {"canary"}}, nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTemporaryRedirect || strings.Contains(err.Error(), "canary") {
		t.Errorf("exchange = %v", err)
	}
}

func TestHints(t *testing.T) {
	// Every number of the table has a hint, and the class goes by the error, never by the number.
	numbers := []int{65001, 65004, 90094, 90095, 70000, 70008, 700082, 70043, 50173, 50132, 50133, 50076, 50079, 50072, 50074, 50078, 53003, 53000, 53001, 530032,
		50005, 50131, 50055, 50057, 50053, 50034, 50020, 50105, 51004, 50058, 7000215, 7000222, 7000218, 700016, 700011, 70001, 7000112, 700025, 90002, 90038,
		900382, 900432, 50194, 9001023, 500011, 50011, 70011, 28002, 650057, 54005, 501481, 70021}
	for _, n := range numbers {
		if hintByNumber[n] == "" {
			t.Errorf("AADSTS%d has no hint", n)
		}
	}
	for code, want := range map[string]Class{
		"invalid_grant": Reauth, "interaction_required": Reauth, "consent_required": Reauth, "login_required": Reauth,
		"invalid_client": Operator, "unauthorized_client": Operator, "invalid_request": Operator, "invalid_scope": Operator, "invalid_resource": Operator,
		"unsupported_grant_type": Operator, "temporarily_unavailable": Retry, "server_error": Retry, "something_new": Operator,
	} {
		for _, n := range []int{0, 50173, 7000215} {
			body, _ := json.Marshal(map[string]any{"error": code, "error_codes": []int{n}})
			if e := refusal(400, http.Header{}, body, time.Now()); e.Class != want {
				t.Errorf("%s with %d is %s, want %s", code, n, e.Class, want)
			}
		}
	}
}

func TestWithCapability(t *testing.T) {
	for in, want := range map[string]string{
		"":     capable,
		"{":    capable,
		"null": capable,
		`{"access_token":{"nbf":{"essential":true,"value":"1"}}}`: `{"access_token":{"nbf":{"essential":true,"value":"1"},"xms_cc":{"values":["cp1"]}}}`,
		`{"id_token":{"auth_time":{"essential":true}}}`:           `{"access_token":{"xms_cc":{"values":["cp1"]}},"id_token":{"auth_time":{"essential":true}}}`,
		`{"access_token":{"xms_cc":{"values":["x"]}}}`:            capable,
		strings.Repeat(" ", maxClaims) + "{}":                     capable,
	} {
		if got := withCapability(in); got != want {
			t.Errorf("withCapability(%.60q) = %s, want %s", in, got, want)
		}
	}
}

func TestScopes(t *testing.T) {
	if got := strings.Join(scopeList("https://graph.microsoft.us", []string{"Mail.Read", "Mail.Read", "https://x/Y.Read", "openid"}), " "); got != "openid profile offline_access https://graph.microsoft.us/Mail.Read https://x/Y.Read" {
		t.Errorf("scopeList = %s", got)
	}
	granted := shortScopes("openid https://graph.microsoft.us/Mail.Read  Calendars.ReadWrite mail.read")
	if got := strings.Join(granted, " "); got != "calendars.readwrite mail.read openid" {
		t.Errorf("shortScopes = %s", got)
	}
	if got := missingScopes([]string{"Mail.Read", "Mail.Read.Shared", "Calendars.Read", "offline_access"}, granted); len(got) != 1 || got[0] != "Mail.Read.Shared" {
		t.Errorf("missingScopes = %v", got)
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add(400, []byte(`{"error":"invalid_grant","error_codes":[50173],"suberror":"x","claims":"{}","correlation_id":"c"}`))
	f.Add(502, []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := refusal(status, http.Header{}, body, time.Now())
		if e.Class == "" || len(e.Claims) > maxClaims || len(e.Code) > 64 || strings.ContainsAny(e.Error(), "\n\x00") {
			t.Errorf("%+v", e)
		}
	})
}

func FuzzParsePair(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"), []byte("-----BEGIN PRIVATE KEY-----"))
	f.Add([]byte{0x30, 0x80}, []byte(nil))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		if pair, err := parsePair(cert, key, ""); err == nil && pair.key == nil {
			t.Error("a pair without a key")
		}
	})
}

func FuzzRedirect(f *testing.F) {
	f.Add("code=x&state=y")
	f.Add("error=access_denied&error_description=AADSTS65004%3A+x&state=y")
	u := NewUser(UserOptions{Vault: &memory{}})
	f.Fuzz(func(t *testing.T, query string) {
		flow := &CodeFlow{user: u, state: "unguessable", ends: time.Now().Add(time.Hour)}
		q, _ := url.ParseQuery(query)
		if _, err := flow.Finish(context.Background(), q); !errors.Is(err, ErrState) {
			t.Errorf("Finish(%q) = %v", query, err)
		}
	})
}
