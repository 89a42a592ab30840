package webhook

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep objects and arrays may nest; Graph's bodies have five levels.
const maxDepth = 32

var errMalformed = errors.New("not a notification collection")

// item is one notification or lifecycle notification as it was posted (W-5). The slices hold decoded text, nothing
// where the property was absent, null or empty; they lie in the body or in the parser, valid until its next use.
type item struct {
	subscription []byte
	clientState  []byte
	change       []byte
	lifecycle    []byte
	resource     []byte
	id           []byte // of resourceData
	etag         []byte // of resourceData
	malformed    bool   // one of the above is not what it should be
}

// parser decodes bodies, one at a time.
type parser struct {
	body    []byte
	rd      bytes.Buffer
	dec     jsontext.Decoder
	items   []item
	scratch []byte // text that had escapes
}

// decode reads a notification collection. It returns items or an error, never both: errTooLarge when there are more
// than maxItems, errMalformed when the body is not one JSON object with one "value", an array of objects.
//
// Two oddities are let through, since neither leaves the structure in doubt and one odd item must not fail the others
// (W-4): of a name that an object repeats the last value counts, and broken UTF-8 concerns only the item that has it in
// a property we use.
func (p *parser) decode(body []byte, maxItems int) ([]item, error) {
	p.body, p.rd = body, *bytes.NewBuffer(body)
	p.dec.Reset(&p.rd, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	p.items, p.scratch = p.items[:0], p.scratch[:0]
	seen := false
	err := p.object(func(name []byte) error {
		if string(name) != "value" {
			return p.skip()
		}
		if seen {
			return errMalformed
		}
		seen = true
		return p.collection(maxItems)
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) || !seen {
		return nil, errMalformed
	}
	return p.items, nil
}

func (p *parser) collection(maxItems int) error {
	if err := p.delim('['); err != nil {
		return err
	}
	for p.dec.PeekKind() == '{' {
		if len(p.items) == maxItems {
			return errTooLarge
		}
		p.items = append(p.items, item{})
		if err := p.item(&p.items[len(p.items)-1]); err != nil {
			return err
		}
	}
	return p.delim(']')
}

func (p *parser) item(it *item) error {
	return p.object(func(name []byte) error {
		switch string(name) {
		case "subscriptionId":
			return p.text(&it.subscription, it)
		case "clientState":
			return p.text(&it.clientState, it)
		case "changeType":
			return p.text(&it.change, it)
		case "lifecycleEvent":
			return p.text(&it.lifecycle, it)
		case "resource":
			return p.text(&it.resource, it)
		case "resourceData":
			return p.resourceData(it)
		}
		return p.skip()
	})
}

func (p *parser) resourceData(it *item) error {
	it.id, it.etag = nil, nil
	if kind := p.dec.PeekKind(); kind != '{' {
		it.malformed = it.malformed || kind != 'n'
		return p.skip()
	}
	return p.object(func(name []byte) error {
		switch string(name) {
		case "id":
			return p.text(&it.id, it)
		case "@odata.etag":
			return p.text(&it.etag, it)
		}
		return p.skip()
	})
}

// object reads an object and calls member with each name, which must read or skip the value.
func (p *parser) object(member func(name []byte) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	for p.dec.PeekKind() == '"' {
		raw, err := p.raw()
		if err != nil {
			return err
		}
		name, _ := p.unquote(raw) // what cannot be decoded is none of the names we know
		if err := member(name); err != nil {
			return err
		}
	}
	return p.delim('}')
}

// delim reads the one token that must come next.
func (p *parser) delim(kind jsontext.Kind) error {
	if tok, err := p.dec.ReadToken(); err != nil || tok.Kind() != kind {
		return errMalformed
	}
	return nil
}

// text reads a string into dst; null empties it, and anything else makes the item malformed.
func (p *parser) text(dst *[]byte, it *item) error {
	*dst = nil
	kind := p.dec.PeekKind()
	if kind != '"' {
		it.malformed = it.malformed || kind != 'n'
		return p.skip()
	}
	raw, err := p.raw()
	if err != nil {
		return err
	}
	var ok bool
	if *dst, ok = p.unquote(raw); !ok {
		it.malformed = true
	}
	return nil
}

// raw reads a string with its quotes, as it stands in the body.
func (p *parser) raw() ([]byte, error) {
	v, err := p.dec.ReadValue()
	if err != nil {
		return nil, errMalformed
	}
	end := int(p.dec.InputOffset())
	return p.body[end-len(v) : end], nil
}

// unquote decodes a string; ok is false when it is not text.
func (p *parser) unquote(raw []byte) (text []byte, ok bool) {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, utf8.Valid(inner)
	}
	start := len(p.scratch)
	scratch, err := jsontext.AppendUnquote(p.scratch, raw)
	p.scratch = scratch
	return scratch[start:len(scratch):len(scratch)], err == nil
}

// skip passes over a value of any kind, checking its structure.
func (p *parser) skip() error {
	outer := p.dec.StackDepth()
	for {
		if _, err := p.dec.ReadToken(); err != nil || p.dec.StackDepth() > maxDepth {
			return errMalformed
		}
		if p.dec.StackDepth() <= outer {
			return nil
		}
	}
}
