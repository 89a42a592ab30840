package webhook

import (
	"io"
	"math"
	"sync"
	"sync/atomic"
)

// Sizes of a body's buffer, in bytes.
const (
	minBuffer  = 4 << 10
	freshLimit = 64 << 10                  // what a Content-Length alone, before any byte of the body, makes us allocate
	poolLimit  = maxBuffered / maxInFlight // a larger one is not kept, so that what lies in the pool can starve nobody
)

// poolItems is how many items a parser may have held and still be kept.
const poolItems = 2048

// request is what the handling of one POST needs and the next one can use again.
type request struct {
	body   []byte
	parser parser
}

// requestPool lends requests and bounds the bytes of all bodies that are held at once.
type requestPool struct {
	pool sync.Pool
	room atomic.Int64 // bytes that may still be lent
}

func (p *requestPool) get() *request {
	req, ok := p.pool.Get().(*request)
	if !ok {
		req = new(request)
	}
	p.room.Add(-int64(cap(req.body)))
	return req
}

func (p *requestPool) put(req *request) {
	p.room.Add(int64(cap(req.body)))
	if cap(req.body) > poolLimit || cap(req.parser.items) > poolItems {
		return
	}
	p.pool.Put(req)
}

// fill reads src to its end; length is what was announced, or -1. errBusy means that too much is held already.
func (p *requestPool) fill(req *request, src io.Reader, length int64) error {
	req.body = req.body[:0]
	full := math.MaxInt
	if length >= 0 {
		full = max(int(length)+1, minBuffer) // one more than announced, to see the end without growing
	}
	if err := p.grow(req, min(full, freshLimit)); err != nil {
		return err
	}
	for {
		if len(req.body) == cap(req.body) {
			if len(req.body) >= full {
				return errMalformed // more than was announced
			}
			if err := p.grow(req, min(full, 2*cap(req.body))); err != nil {
				return err
			}
		}
		n, err := src.Read(req.body[len(req.body):cap(req.body)])
		req.body = req.body[:len(req.body)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grow makes room for size bytes in all.
func (p *requestPool) grow(req *request, size int) error {
	more := int64(size - cap(req.body))
	if more <= 0 {
		return nil
	}
	if p.room.Add(-more) < 0 {
		p.room.Add(more)
		return errBusy
	}
	body := make([]byte, len(req.body), size)
	copy(body, req.body)
	req.body = body
	return nil
}
