package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
)

// A page of a bbolt file starts with id (8), flags (2), count (2) and overflow (4), then come the elements: of a branch
// position (4), key size (4) and child (8), of a leaf flags (4), position (4), key size (4) and value size (4). The
// position counts from the element, and numbers are in the machine's byte order. The value of a nested bucket starts
// with its root page (8) and sequence (8); root 0 means that the page itself follows.
const (
	pageHeader  = 16
	pageElement = 16

	branchPage = 0x01
	leafPage   = 0x02
	bucketLeaf = 0x01 // flag of a leaf element
)

// verify reads every page that can be reached and checks all that bbolt relies on. Opening a damaged file for writing
// makes bbolt panic in a goroutine of its own, or touch mapped memory that no file stands behind: neither can be caught.
// It holds a shared lock meanwhile and writes nothing. A missing or empty file is fine: it is made anew.
func verify(path string, opts Options) error {
	if st, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
		return nil
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: opts.LockWait})
	if err != nil {
		return err
	}
	defer db.Close()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return db.View(func(btx *bolt.Tx) error {
		size := int64(db.Info().PageSize)
		if st.Size() < btx.Size() {
			return fmt.Errorf("%w: cut short, %d of %d bytes are left", ErrDamaged, st.Size(), btx.Size())
		}
		pages := uint64(btx.Size() / size)
		v := verifier{file: f, pageSize: size, seen: make([]bool, pages)}
		return v.tree(uint64(btx.Cursor().Bucket().RootPage()), nil, nil)
	})
}

// verifier walks the pages of a file. Recursion ends because no page may be seen twice.
type verifier struct {
	file     io.ReaderAt
	pageSize int64
	seen     []bool // by page
}

// tree checks the page id and all below it. Keys must be at least low and less than high, where these are not nil.
func (v *verifier) tree(id uint64, low, high []byte) error {
	page, err := v.read(id)
	if err != nil {
		return err
	}
	return v.page(id, page, low, high)
}

// read reads a page with its overflow.
func (v *verifier) read(id uint64) ([]byte, error) {
	head := make([]byte, pageHeader)
	if id < 2 || id >= uint64(len(v.seen)) {
		return nil, fmt.Errorf("%w: page %d is out of bounds", ErrDamaged, id)
	}
	if _, err := v.file.ReadAt(head, int64(id)*v.pageSize); err != nil {
		return nil, err
	}
	own, overflow := binary.NativeEndian.Uint64(head), uint64(binary.NativeEndian.Uint32(head[12:]))
	if own != id || id+overflow >= uint64(len(v.seen)) {
		return nil, fmt.Errorf("%w: page %d says it is page %d and %d more", ErrDamaged, id, own, overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if v.seen[i] {
			return nil, fmt.Errorf("%w: page %d is used twice", ErrDamaged, i)
		}
		v.seen[i] = true
	}
	page := make([]byte, v.pageSize*int64(1+overflow))
	_, err := v.file.ReadAt(page, int64(id)*v.pageSize)
	return page, err
}

func (v *verifier) page(id uint64, page, low, high []byte) error {
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage {
		return fmt.Errorf("%w: page %d is neither branch nor leaf", ErrDamaged, id)
	}
	if flags == branchPage && count == 0 {
		return fmt.Errorf("%w: page %d is an empty branch", ErrDamaged, id)
	}
	if len(page) < pageHeader+count*pageElement {
		return fmt.Errorf("%w: page %d has no room for %d elements", ErrDamaged, id, count)
	}
	elements := make([]element, count)
	for i := range elements {
		e, ok := readElement(page[pageHeader+i*pageElement:], flags)
		if !ok {
			return fmt.Errorf("%w: element %d of page %d lies outside of it", ErrDamaged, i, id)
		}
		if i == 0 && bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Compare(e.key, elements[i-1].key) <= 0 ||
			high != nil && bytes.Compare(e.key, high) >= 0 {
			return fmt.Errorf("%w: key %d of page %d is out of order", ErrDamaged, i, id)
		}
		elements[i] = e
	}
	for i, e := range elements {
		next := high
		if i+1 < count {
			next = elements[i+1].key
		}
		if err := v.below(id, flags, e, next); err != nil {
			return err
		}
	}
	return nil
}

// element is one entry of a page.
type element struct {
	key   []byte
	value []byte // of a leaf
	flags uint32 // of a leaf
	child uint64 // of a branch
}

// readElement reads the element at the start of b, which reaches to the end of the page.
func readElement(b []byte, flags uint16) (e element, ok bool) {
	pos, ksize, vsize := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), uint32(0)
	if flags == leafPage {
		e.flags = pos
		pos, ksize, vsize = ksize, binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
	} else {
		e.child = binary.NativeEndian.Uint64(b[8:])
	}
	if uint64(pos)+uint64(ksize)+uint64(vsize) > uint64(len(b)) {
		return e, false
	}
	e.key, e.value = b[pos:pos+ksize], b[pos+ksize:pos+ksize+vsize]
	return e, true
}

// below checks what an element leads to: the child of a branch, or the bucket in a leaf.
func (v *verifier) below(id uint64, flags uint16, e element, high []byte) error {
	if flags == branchPage {
		return v.tree(e.child, e.key, high)
	}
	if e.flags&bucketLeaf == 0 {
		return nil
	}
	if len(e.value) < 16 {
		return fmt.Errorf("%w: bucket %q on page %d is cut short", ErrDamaged, e.key, id)
	}
	if root := binary.NativeEndian.Uint64(e.value); root != 0 {
		return v.tree(root, nil, nil)
	}
	inline := e.value[16:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("%w: bucket %q on page %d has no page", ErrDamaged, e.key, id)
	}
	return v.page(id, inline, nil, nil)
}
