// Package connections keeps every configured connection signed in: it owns the token sources, seals and stores what a
// delegated sign-in must not lose, leads people through a sign-in, and tells what state each connection is in. A
// connection that needs a person is a state, not a loop: nothing is asked of Graph over it until somebody has acted.
package connections

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/triggerd/triggerd/internal/auth"
	"github.com/triggerd/triggerd/internal/config"
	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/store"
)

// Source gives access tokens for one connection; *auth.App and *auth.User are the two kinds. It is safe for concurrent
// use.
type Source interface {
	Token(ctx context.Context) (string, error)
	Refused(token, claims string)
	State() error
	Expiry() time.Time
}

// Options are the room's needs and settings.
type Options struct {
	File      *config.File
	Keys      *seal.Keys        // nil: delegated connections cannot be used
	KeyFile   string            // where Keys came from; read again by Rekey
	Transport http.RoundTripper // to the login endpoint; nil: the network
	Every     time.Duration     // between looks at each connection, default 30 s
	Resumed   func(name string) // a connection that waited for a person is usable again; never blocks; nil is fine
	Log       zerolog.Logger
}

// Room keeps the connections. All its methods are safe for concurrent use.
type Room struct {
	st      *store.Store
	opts    Options
	keys    atomic.Pointer[seal.Keys]
	keepers map[string]*keeper
	flows   flows

	// records is held while a connection's record is read, changed and committed, so that a refresh, a change of state
	// and a change of keys do not undo each other. It is never held across a request.
	records sync.Mutex
}

// New makes the token sources of all connections. Nothing is requested yet.
func New(st *store.Store, o Options) (*Room, error) {
	if o.Every == 0 {
		o.Every = 30 * time.Second
	}
	if o.Resumed == nil {
		o.Resumed = func(string) {}
	}
	r := &Room{st: st, opts: o, keepers: map[string]*keeper{}}
	r.keys.Store(o.Keys)
	for name, c := range o.File.Connections {
		k, err := r.keeper(c)
		if err != nil {
			return nil, fmt.Errorf("connection %s: %w", name, err)
		}
		r.keepers[name] = k
	}
	return r, nil
}

// Run looks after all connections until ctx is done.
func (r *Room) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, k := range r.keepers {
		g.Go(func() error { return k.run(ctx) })
	}
	return g.Wait()
}

// Source is the token source of a connection; nil when there is none of that name.
func (r *Room) Source(name string) Source {
	if k := r.keepers[name]; k != nil {
		return k.source
	}
	return nil
}

// Paused says why a connection cannot be used until a person has acted; empty when it can. It does not block.
func (r *Room) Paused(name string) string {
	if k := r.keepers[name]; k != nil {
		return *k.paused.Load()
	}
	return "it is not configured"
}

// Identity is the tenant of a connection, and for a delegated one the id of the user who signed in; empty while nobody
// has.
func (r *Room) Identity(name string) (tenant, userID string) {
	k := r.keepers[name]
	if k == nil {
		return "", ""
	}
	if k.user == nil {
		return k.conf.Tenant, ""
	}
	rec, _ := r.st.Connection(name)
	return rec.TenantID, rec.UserID
}

// Status tells how every connection is, by name.
func (r *Room) Status() []Status {
	out := make([]Status, 0, len(r.keepers))
	for _, k := range r.keepers {
		out = append(out, k.status())
	}
	slices.SortFunc(out, func(a, b Status) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Rekey reads the key file again and seals every record with its first key. It returns how many records were sealed
// anew, and the key's id.
func (r *Room) Rekey() (records int, key string, err error) {
	if r.opts.KeyFile == "" {
		return 0, "", errors.New("no key file: set TRIGGERD_STATE_KEY_FILE")
	}
	keys, err := seal.ReadKeys(r.opts.KeyFile)
	if err != nil {
		return 0, "", err
	}
	r.records.Lock()
	defer r.records.Unlock()
	n, err := Reseal(r.st, keys)
	if err != nil {
		return n, "", err
	}
	r.keys.Store(keys)
	return n, keys.IDs()[0], nil
}

// keeper makes what looks after one connection.
func (r *Room) keeper(c config.Connection) (*keeper, error) {
	k := &keeper{room: r, conf: c, needs: r.opts.File.Needs(c.Name), wake: make(chan struct{}, 1), log: r.opts.Log.With().Str("connection", c.Name).Logger()}
	none := ""
	k.paused.Store(&none)
	if c.Auth != config.AuthDelegated {
		app := r.app(k)
		k.source = app
		return k, nil
	}
	if r.opts.Keys == nil {
		return nil, errors.New("delegated sign-in keeps refresh tokens, which are sealed with a key: make one with `triggerd key new FILE` and name it in TRIGGERD_STATE_KEY_FILE")
	}
	k.user = r.delegated(k)
	k.source = k.user
	if rec, ok := r.st.Connection(c.Name); !ok || len(rec.Sealed) == 0 {
		waits := notSignedIn
		k.paused.Store(&waits)
	}
	return k, nil
}

// app makes the source of a connection that signs in as itself.
func (r *Room) app(k *keeper) *auth.App {
	c := &k.conf
	if c.ManagedIdentity {
		return auth.NewManagedIdentity(auth.ManagedOptions{
			ClientID: c.ClientID, Resource: c.Cloud.Resource(), Transport: r.opts.Transport, Log: k.log,
		})
	}
	return auth.NewApp(auth.AppOptions{
		Login: c.Cloud.Login, Tenant: c.Tenant, ClientID: c.ClientID, Scope: c.Cloud.Scope(), Credential: credential(c),
		Transport: r.opts.Transport, Log: k.log,
	})
}

// delegated makes the source of a connection that reads for a user.
func (r *Room) delegated(k *keeper) *auth.User {
	c := &k.conf
	return auth.NewUser(auth.UserOptions{
		Login: c.Cloud.Login, Tenant: c.Tenant, ClientID: c.ClientID, Credential: credential(c), Graph: c.Cloud.Resource(),
		Scopes: append(k.needs.Scopes(), c.ExtraScopes...), Vault: &vault{r, c.Name}, Transport: r.opts.Transport,
		Changed: k.poke, Log: k.log,
	})
}

// credential is what proves who the app is; nil for a public client.
func credential(c *config.Connection) auth.Credential {
	read := func(path string) func() (string, error) {
		return func() (string, error) {
			s, err := config.ReadSecret(path)
			return s.Reveal(), err
		}
	}
	switch {
	case c.CertificateFile != "":
		files := auth.CertificateFiles{ClientID: c.ClientID, Cert: c.CertificateFile, Key: c.CertificateKeyFile}
		if c.CertificatePasswordFile != "" {
			files.Password = read(c.CertificatePasswordFile)
		}
		return auth.Certificate(files)
	case c.FederatedTokenFile != "":
		return auth.FederatedToken(read(c.FederatedTokenFile))
	case len(c.ClientSecretFiles) > 0:
		var secrets []func() (string, error)
		for _, path := range c.ClientSecretFiles {
			secrets = append(secrets, read(path))
		}
		return auth.ClientSecrets(secrets...)
	}
	return nil
}
