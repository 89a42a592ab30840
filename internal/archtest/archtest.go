// Package archtest holds the shape of the house as a test: which room may import which, and which single room each
// technology is used in. It has no code of its own; the table in its test is what ARCHITECTURE.md draws.
package archtest
