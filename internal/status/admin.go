package status

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// ErrToken means that the daemon answered, and wanted a token or another one.
var ErrToken = errors.New("the daemon wants its token: set TRIGGERD_ADMIN_TOKEN_FILE as it has it")

// Guarded is Handler for whoever shows the token: as a bearer or, for browsers, as the password of Basic with any user
// name. /healthz and the bare verdict of /readyz are for everybody. It answers under every name, since a browser sends
// no password to a name that it was not given for. The token is asked for anew each time, so that another one takes
// effect at once; while it cannot be had, nobody gets in.
func Guarded(src Source, more map[string]http.Handler, token func() (string, error)) http.Handler {
	all := notForWebPages(routes(src, more))
	open := http.NewServeMux()
	open.Handle("GET /healthz", all)
	open.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		rep := src.Report()
		verdict, _, _ := strings.Cut(rep.Line(), ":")
		if !rep.Healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, verdict)
	})
	open.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="triggerd", charset="UTF-8"`)
		answer(w, http.StatusUnauthorized, map[string]string{"error": ErrToken.Error()})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token()
		switch {
		case err == nil && shows(r, want):
			all.ServeHTTP(w, r)
		case err != nil && r.URL.Path != "/healthz" && r.URL.Path != "/readyz":
			answer(w, http.StatusServiceUnavailable, map[string]string{"error": "the daemon cannot read its token: mend the file that its TRIGGERD_ADMIN_TOKEN_FILE names"})
		default:
			open.ServeHTTP(w, r)
		}
	})
}

// shows reports whether a request shows the token. It takes the same time for every wrong one.
func shows(r *http.Request, token string) bool {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, shown, _ = r.BasicAuth()
	}
	a, b := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(token))
	return token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// notForWebPages refuses changes that a web page asks for: a browser would send its password along.
func notForWebPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Origin") != "" {
			http.Error(w, "not for web pages", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// WithToken makes the client show a token, and returns it.
func (c *Client) WithToken(token string) *Client {
	c.show = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) } // a closure: it cannot be printed
	return c
}

// reachable is where an address that stands for all of a machine's is asked from that machine.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}
