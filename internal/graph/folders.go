package graph

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Folder is a mail folder.
type Folder struct {
	ID       string // constant (I-4)
	ParentID string
	Name     string // as shown to people, in the mailbox's language
	Removed  bool   // told by delta to be gone
}

const (
	folderProperties = "id,displayName,parentFolderId"
	folderPageSize   = 200
)

// Folder reads one folder by its id or well-known name (S-25); ErrNotFound when the mailbox does not have it.
func (c *Client) Folder(ctx context.Context, mailbox, idOrWellKnown string) (Folder, error) {
	it, err := c.one(ctx, opFolder, address{mailbox, "/mailFolders/{id}", []string{idOrWellKnown}, []string{"$select=" + folderProperties}})
	if err != nil {
		return Folder{}, err
	}
	f, _, err := decodeFolder(it)
	if err != nil {
		return Folder{}, &Error{Op: opFolder, Err: err}
	}
	return f, nil
}

// Folders reads all folders of a mailbox but its root, in no particular order: by delta, which sees every level (D-32),
// or level by level where a cloud has no delta (C-12, D-33).
func (c *Client) Folders(ctx context.Context, mailbox string) ([]Folder, error) {
	if c.opts.NoDelta {
		return c.foldersByLevel(ctx, mailbox)
	}
	list, err := c.foldersByDelta(ctx, mailbox)
	if errors.Is(err, ErrDeltaUnsupported) {
		return c.foldersByLevel(ctx, mailbox)
	}
	return list, err
}

func (c *Client) foldersByDelta(ctx context.Context, mailbox string) ([]Folder, error) {
	u, err := c.url(address{mailbox: mailbox, path: "/mailFolders/delta", query: []string{"$select=" + folderProperties}})
	if err != nil {
		return nil, &Error{Op: opFoldersDelta, Err: err}
	}
	var all folderSet
	err = c.pages(ctx, call{op: opFoldersDelta, url: u, mailbox: mailbox, pageSize: folderPageSize}, c.deltaPage, func(it Item) error {
		f, _, err := decodeFolder(it)
		all.add(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all.list, nil
}

func (c *Client) foldersByLevel(ctx context.Context, mailbox string) ([]Folder, error) {
	var all folderSet
	level := func(a address) ([]string, error) {
		a.mailbox, a.query = mailbox, []string{"includeHiddenFolders=true", "$select=" + folderProperties + ",childFolderCount", fmt.Sprintf("$top=%d", folderPageSize)}
		u, err := c.url(a)
		if err != nil {
			return nil, &Error{Op: opFoldersList, Err: err}
		}
		var parents []string
		err = c.pages(ctx, call{op: opFoldersList, url: u, mailbox: mailbox, pageSize: folderPageSize}, c.page, func(it Item) error {
			f, children, err := decodeFolder(it)
			if all.add(f) && children {
				parents = append(parents, f.ID)
			}
			return err
		})
		return parents, err
	}
	parents, err := level(address{path: "/mailFolders"})
	for err == nil && len(parents) > 0 {
		var children []string
		children, err = level(address{path: "/mailFolders/{id}/childFolders", ids: parents[:1]})
		if errors.Is(err, ErrNotFound) {
			err = nil // deleted since its parent was listed
		}
		parents = append(parents[1:], children...)
	}
	if err != nil {
		return nil, err
	}
	return all.list, nil
}

// folderSet keeps each folder once; what is said last counts (D-5).
type folderSet struct {
	list []Folder
	at   map[string]int
}

// add reports whether the folder is new.
func (s *folderSet) add(f Folder) bool {
	if i, ok := s.at[f.ID]; ok {
		s.list[i] = f
		return false
	}
	if s.at == nil {
		s.at = map[string]int{}
	}
	s.at[f.ID] = len(s.list)
	s.list = append(s.list, f)
	return true
}

// decodeFolder also tells whether the folder has children; true when Graph does not say.
func decodeFolder(it Item) (f Folder, children bool, err error) {
	f, children = Folder{ID: it.ID, Removed: it.Removed}, true
	err = members(it.Raw, func(name []byte, dec *jsontext.Decoder) (err error) {
		switch string(name) {
		case "displayName":
			f.Name, err = decodeString(dec)
		case "parentFolderId":
			f.ParentID, err = decodeString(dec)
		case "childFolderCount":
			var v jsontext.Value
			v, err = dec.ReadValue()
			children = string(v) != "0"
		default:
			err = dec.SkipValue()
		}
		return err
	})
	return f, children, err
}
