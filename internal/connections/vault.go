package connections

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/triggerd/triggerd/internal/auth"
	"github.com/triggerd/triggerd/internal/store"
)

// vault keeps the grant of one delegated connection sealed in the store. It is the connection's auth.Vault.
type vault struct {
	room *Room
	name string
}

// Load opens the grant; the zero Grant when nobody has signed in yet.
func (v *vault) Load() (g auth.Grant, err error) {
	rec, _ := v.room.st.Connection(v.name)
	if len(rec.Sealed) == 0 {
		return auth.Grant{}, nil
	}
	plain, err := v.room.keys.Load().Open(sealPurpose, recordName(v.name), rec.Sealed)
	if err != nil {
		return g, fmt.Errorf("the stored sign-in cannot be opened: %w: name the key that sealed it in TRIGGERD_STATE_KEY_FILE, or sign in again", err)
	}
	if json.Unmarshal(plain, &g) != nil { // its text would quote the grant
		return auth.Grant{}, errors.New("the stored sign-in cannot be read: sign in again")
	}
	return g, nil
}

// Save seals the grant and has committed it when it returns nil.
func (v *vault) Save(g auth.Grant) error {
	plain, err := json.Marshal(g)
	if err != nil {
		return err
	}
	sealed := v.room.keys.Load().Seal(sealPurpose, recordName(v.name), plain)
	return v.room.update(v.name, func(c *store.Connection) {
		c.TenantID, c.UserID, c.Username, c.Scopes = g.TenantID, g.ObjectID, g.Username, g.Scopes
		c.SignedInAt, c.RefreshedAt, c.Sealed = g.SignedInAt, g.RefreshedAt, sealed
	})
}

// update changes a connection's record; what else must be true with it is written by also.
func (r *Room) update(name string, change func(*store.Connection), also ...func(*store.Tx) error) error {
	r.records.Lock()
	defer r.records.Unlock()
	rec, _ := r.st.Connection(name)
	rec.Name = name
	change(&rec)
	return r.st.Update(func(tx *store.Tx) error {
		for _, fn := range also {
			if err := fn(tx); err != nil {
				return err
			}
		}
		return tx.PutConnection(&rec)
	})
}
