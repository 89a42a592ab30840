package store

import "time"

// Watch is what was last told of how fresh a watch over a mailbox is.
type Watch struct {
	Name  string    `json:"name"`
	Token string    `json:"token"` // the mailbox in subjects
	State string    `json:"state"`
	Since time.Time `json:"since"`

	BaselinedAt time.Time `json:"baselined_at,omitzero"` // when it was told that it was read for the first time
}

func watchKey(name, token string) string { return name + "\x00" + token }

// PutWatch stores what was told of a watch over a mailbox.
func (tx *Tx) PutWatch(w *Watch) error {
	kept, key := *w, watchKey(w.Name, w.Token)
	tx.onCommit(func() { tx.s.watches[key] = &kept })
	return tx.put(bucketWatches, []byte(key), w)
}

// DeleteWatch forgets what was told of a watch over a mailbox.
func (tx *Tx) DeleteWatch(name, token string) error {
	key := watchKey(name, token)
	tx.onCommit(func() { delete(tx.s.watches, key) })
	return tx.bucket(bucketWatches).Delete([]byte(key))
}

// Watches returns copies of what was told of all watches.
func (s *Store) Watches() []Watch { return all(s, s.watches) }
