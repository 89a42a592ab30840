package graph

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Item is one element of a page.
type Item struct {
	ID      string         // as Graph wrote it
	Removed bool           // "@removed": deleted, or moved away (D-8, D-10)
	Raw     jsontext.Value // the item's JSON; an own copy
}

// Page is one answer of a listing or a delta round. Never both links are set (D-1). In a delta round one of them is; a
// listing ends with a page that has none.
type Page struct {
	Items []Item // may be empty although there is a next page (D-4)
	Next  string // where the round goes on
	Delta string // the round is complete; where the next one begins
}

var (
	errNotPage   = errors.New("answer is not a page of items")
	errNoID      = errors.New("item without an id")
	errNoLink    = errors.New("page has neither a next link nor a delta link")
	errTwoLinks  = errors.New("page has both a next link and a delta link")
	errAfterPage = errors.New("answer goes on after its end")
	errLoop      = errors.New("next links lead in a circle")
)

// lenient accepts what a sloppy sender writes: the same property twice, and bytes that are not UTF-8 in mail subjects.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// decodePage reads a page, holding one item beside those already read.
func decodePage(r io.Reader) (Page, error) {
	var p Page
	dec := jsontext.NewDecoder(r, lenient...)
	if err := begin(dec, '{'); err != nil {
		return Page{}, err
	}
	values := false
	for dec.PeekKind() == '"' {
		name, err := decodeName(dec)
		if err != nil {
			return Page{}, err
		}
		switch string(name) {
		case "value":
			values = true
			p.Items, err = decodeItems(dec, p.Items[:0])
		case "@odata.nextLink":
			p.Next, err = decodeString(dec)
		case "@odata.deltaLink":
			p.Delta, err = decodeString(dec)
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return Page{}, err
		}
	}
	if err := decodeEnd(dec); err != nil {
		return Page{}, err
	}
	switch {
	case !values:
		return Page{}, errNotPage
	case p.Next != "" && p.Delta != "":
		return Page{}, errTwoLinks
	}
	return p, nil
}

// decodeItems reads the array of items.
func decodeItems(dec *jsontext.Decoder, items []Item) ([]Item, error) {
	if err := begin(dec, '['); err != nil {
		return nil, err
	}
	for dec.PeekKind() != ']' {
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		it, err := decodeItem(raw.Clone())
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	_, err := dec.ReadToken()
	return items, err
}

// decodeItem finds an item's id and whether it was removed. It keeps raw.
func decodeItem(raw jsontext.Value) (Item, error) {
	it := Item{Raw: raw}
	if raw.Kind() != '{' {
		return Item{}, errNotPage
	}
	err := members(raw, func(name []byte, dec *jsontext.Decoder) (err error) {
		switch string(name) {
		case "id":
			it.ID, err = decodeString(dec)
		case "@removed":
			it.Removed = dec.PeekKind() != 'n'
			err = dec.SkipValue()
		default:
			err = dec.SkipValue()
		}
		return err
	})
	if err == nil && it.ID == "" {
		err = errNoID
	}
	return it, err
}

// decodeOne reads an answer that is one item.
func decodeOne(r io.Reader) (Item, error) {
	raw, err := decodeAlone(r)
	if err != nil {
		return Item{}, err
	}
	return decodeItem(raw)
}

// decodeAlone reads the one value that an answer consists of.
func decodeAlone(r io.Reader) (jsontext.Value, error) {
	dec := jsontext.NewDecoder(r, lenient...)
	raw, err := dec.ReadValue()
	if err != nil {
		return nil, err
	}
	raw = raw.Clone()
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errAfterPage
	}
	return raw, nil
}

// decodeString reads a string; null is the empty one.
func decodeString(dec *jsontext.Decoder) (string, error) {
	tok, err := dec.ReadToken()
	switch {
	case err != nil:
		return "", err
	case tok.Kind() == '"':
		return tok.String(), nil
	case tok.Kind() == 'n':
		return "", nil
	}
	return "", fmt.Errorf("%w: want a string, got %v", errNotPage, tok.Kind())
}

// decodeEnd reads the closing brace and makes sure that nothing follows.
func decodeEnd(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	switch _, err := dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errAfterPage
}

// begin reads the opening of an object or array.
func begin(dec *jsontext.Decoder, kind jsontext.Kind) error {
	tok, err := dec.ReadToken()
	if err == nil && tok.Kind() != kind {
		err = errNotPage
	}
	return err
}

// decodeName reads a property's name without making a string of it. It is valid until the next read.
func decodeName(dec *jsontext.Decoder) ([]byte, error) {
	raw, err := dec.ReadValue()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		return jsontext.AppendUnquote(nil, raw)
	}
	return raw[1 : len(raw)-1], nil
}

// members calls fn for each property of an object; fn must read the value. The name is valid until then.
func members(raw jsontext.Value, fn func(name []byte, dec *jsontext.Decoder) error) error {
	dec := decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(dec)
	dec.Reset(bytes.NewBuffer(raw), lenient...)
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() == '"' {
		name, err := decodeName(dec)
		if err != nil {
			return err
		}
		if err := fn(name, dec); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}
