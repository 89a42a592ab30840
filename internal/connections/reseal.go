package connections

import (
	"fmt"

	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/store"
)

const sealPurpose = "connection grants v1"

// recordName binds a sealed sign-in to its place.
func recordName(connection string) []byte { return []byte("connections\x00" + connection) }

// Reseal seals every sign-in with the first of the keys, all in one transaction, and says how many were changed. One
// that no key opens is an error, and then nothing is changed.
func Reseal(st *store.Store, keys *seal.Keys) (n int, err error) {
	first := keys.IDs()[0]
	var changed []store.Connection
	for _, c := range st.Connections() {
		if len(c.Sealed) == 0 || seal.KeyID(c.Sealed) == first {
			continue
		}
		plain, err := keys.Open(sealPurpose, recordName(c.Name), c.Sealed)
		if err != nil {
			return 0, fmt.Errorf("connection %s: %w", c.Name, err)
		}
		c.Sealed = keys.Seal(sealPurpose, recordName(c.Name), plain)
		clear(plain)
		changed = append(changed, c)
	}
	if len(changed) == 0 {
		return 0, nil
	}
	return len(changed), st.Update(func(tx *store.Tx) error {
		for i := range changed {
			if err := tx.PutConnection(&changed[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// SealedBy counts the sign-ins that each key has sealed, by the key's id.
func SealedBy(st *store.Store) map[string]int {
	out := map[string]int{}
	for _, c := range st.Connections() {
		if id := seal.KeyID(c.Sealed); id != "" {
			out[id]++
		}
	}
	return out
}
