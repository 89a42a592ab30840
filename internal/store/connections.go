package store

import "time"

// Connection is what is remembered of a connection. The sign-in itself is sealed by who stores it; the rest may be shown
// to the operator.
type Connection struct {
	Name        string
	TenantID    string // of the user who signed in first
	UserID      string
	Username    string
	Scopes      []string // granted
	State       string   // as last told
	Reason      string
	Since       time.Time // of State
	SignedInAt  time.Time
	RefreshedAt time.Time
	Sealed      []byte // the sign-in; never in the clear
}

// PutConnection stores a connection under its name.
func (tx *Tx) PutConnection(c *Connection) error {
	kept := *c
	tx.onCommit(func() { tx.s.connections[kept.Name] = &kept })
	return tx.put(bucketConnections, []byte(c.Name), c)
}

// Connection returns a copy of a connection's record.
func (s *Store) Connection(name string) (Connection, bool) { return lookup(s, s.connections, name) }

// Connections returns copies of all connections' records.
func (s *Store) Connections() []Connection { return all(s, s.connections) }
