package connections

import (
	"encoding/json"
	"net/http"
)

// maxRequest bounds what a command sends, in bytes: an address with a code is long.
const maxRequest = 64 << 10

// BeginRequest asks to begin a sign-in.
type BeginRequest struct {
	Connection  string `json:"connection"`
	Way         string `json:"way"`
	RedirectURI string `json:"redirect_uri,omitempty"`
}

// FinishRequest asks to end a sign-in.
type FinishRequest struct {
	ID         string `json:"id"`
	Redirected string `json:"redirected,omitempty"` // holds the code, so it is never logged
}

// Rekeyed answers a change of keys.
type Rekeyed struct {
	Records int    `json:"records"`
	Key     string `json:"key"`
}

// Handlers are what commands use of the room, by pattern, for the admin listener.
func (r *Room) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"POST /api/v1/login": handle(func(req *http.Request, in BeginRequest) (Beginning, error) {
			return r.BeginLogin(req.Context(), in.Connection, in.Way, in.RedirectURI)
		}),
		"POST /api/v1/login/finish": handle(func(req *http.Request, in FinishRequest) (Outcome, error) {
			return r.FinishLogin(req.Context(), in.ID, in.Redirected)
		}),
		"POST /api/v1/rekey": handle(func(*http.Request, struct{}) (Rekeyed, error) {
			n, key, err := r.Rekey()
			return Rekeyed{n, key}, err
		}),
	}
}

// handle serves a function of JSON; its error is the caller's to read.
func handle[In, Out any](fn func(*http.Request, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var in In
		if req.ContentLength != 0 {
			dec := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxRequest))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&in); err != nil {
				answer(w, http.StatusBadRequest, map[string]string{"error": "the request is not what this version of triggerd sends"})
				return
			}
		}
		out, err := fn(req, in)
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, out)
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away
}
