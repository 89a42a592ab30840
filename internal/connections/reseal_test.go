package connections

import (
	"errors"
	"testing"

	"github.com/triggerd/triggerd/internal/seal"
	"github.com/triggerd/triggerd/internal/store"
)

func parse(t *testing.T, text []byte) *seal.Keys {
	t.Helper()
	k, err := seal.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A change of keys may be cut anywhere: with what then stands in the file every sign-in can be opened.
func TestChangeOfKeysCutAnywhere(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	put := func(c store.Connection) {
		t.Helper()
		if err := st.Update(func(tx *store.Tx) error { return tx.PutConnection(&c) }); err != nil {
			t.Fatal(err)
		}
	}
	file := []byte(seal.NewKey() + "\n")
	for _, name := range []string{"alice", "bob"} {
		put(store.Connection{Name: name, Sealed: parse(t, file).Seal(sealPurpose, recordName(name), []byte(name))})
	}
	put(store.Connection{Name: "app"}) // has nothing to seal
	readable := func(file []byte) {
		t.Helper()
		keys := parse(t, file)
		for _, name := range []string{"alice", "bob"} {
			c, _ := st.Connection(name)
			if plain, err := keys.Open(sealPurpose, recordName(name), c.Sealed); err != nil || string(plain) != name {
				t.Errorf("%s: %q, %v", name, plain, err)
			}
		}
	}
	for range 3 {
		both := seal.WithFirst(seal.NewKey(), file)
		readable(both) // cut after the new key was written
		n, err := Reseal(st, parse(t, both))
		if err != nil || n != 2 {
			t.Fatalf("%d sealed anew, %v", n, err)
		}
		readable(both) // cut before the old one was taken out
		if n, err := Reseal(st, parse(t, both)); n != 0 || err != nil {
			t.Errorf("once more: %d, %v", n, err)
		}
		file = seal.FirstOnly(both)
		readable(file)
		if by := SealedBy(st); len(by) != 1 || by[parse(t, file).IDs()[0]] != 2 {
			t.Errorf("sealed by %v", by)
		}
	}
	// One that cannot be opened stops it, and nothing is changed.
	before, _ := st.Connection("alice")
	put(store.Connection{Name: "bob", Sealed: parse(t, []byte(seal.NewKey())).Seal(sealPurpose, recordName("bob"), []byte("x"))})
	if n, err := Reseal(st, parse(t, seal.WithFirst(seal.NewKey(), file))); n != 0 || !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("with a stranger's record: %d, %v", n, err)
	}
	if after, _ := st.Connection("alice"); string(after.Sealed) != string(before.Sealed) {
		t.Error("half of the records were changed")
	}
}
