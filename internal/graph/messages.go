package graph

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// DeltaRequest asks for a page of a folder's message delta.
type DeltaRequest struct {
	Mailbox  string
	Folder   string    // id or well-known name
	Link     string    // cursor or next link, used as it is; the fields below matter only without it (D-3)
	Select   []string  // properties
	Since    time.Time // receivedDateTime from here on; at most 5,000 messages come back then (D-25)
	PageSize int       // a wish, sent with every request (D-19); 0: Graph's own
}

// MessagesDelta reads one page. The page has either a next link or a delta link (D-1).
func (c *Client) MessagesDelta(ctx context.Context, r DeltaRequest) (Page, error) {
	link, err := r.Link, error(nil)
	if link == "" {
		link, err = c.url(address{r.Mailbox, "/mailFolders/{id}/messages/delta", []string{r.Folder},
			[]string{selecting(r.Select), since("receivedDateTime", r.Since)}})
	}
	if err != nil {
		return Page{}, &Error{Op: opDelta, Err: err}
	}
	return c.deltaPage(ctx, call{op: opDelta, url: link, mailbox: r.Mailbox, pageSize: r.PageSize})
}

// deltaPage reads a page of a delta round, which always leads on.
func (c *Client) deltaPage(ctx context.Context, r call) (Page, error) {
	p, err := c.page(ctx, r)
	if err == nil && p.Next == "" && p.Delta == "" {
		return Page{}, &Error{Op: r.op, Err: errNoLink}
	}
	return p, err
}

// maxTop is the largest page that a listing may ask for.
const maxTop = 1000

// ListRequest asks for a page of the messages of a folder, oldest first.
type ListRequest struct {
	Mailbox       string
	Folder        string    // id or well-known name
	Link          string    // next link, used as it is; the fields below matter only without it
	Select        []string  // properties
	Since         time.Time // zero: all
	ModifiedSince bool      // Since is about lastModifiedDateTime, not receivedDateTime
	PageSize      int       // at most 1,000; 0: Graph's own, which is 10
}

// ListMessages reads one page. The last page has no links.
func (c *Client) ListMessages(ctx context.Context, r ListRequest) (Page, error) {
	link, err := r.Link, error(nil)
	if link == "" {
		property := "receivedDateTime"
		if r.ModifiedSince {
			property = "lastModifiedDateTime"
		}
		top := ""
		if r.PageSize > 0 {
			top = "$top=" + strconv.Itoa(min(r.PageSize, maxTop))
		}
		// What is ordered by must be filtered by, too, in the same order.
		link, err = c.url(address{r.Mailbox, "/mailFolders/{id}/messages", []string{r.Folder},
			[]string{selecting(r.Select), since(property, r.Since), "$orderby=" + property, top}})
	}
	if err != nil {
		return Page{}, &Error{Op: opList, Err: err}
	}
	return c.page(ctx, call{op: opList, url: link, mailbox: r.Mailbox, pageSize: r.PageSize})
}

// Message reads one message; ErrNotFound when the mailbox does not have it. sel lists properties; empty: Graph's own.
func (c *Client) Message(ctx context.Context, mailbox, id string, sel []string) (Item, error) {
	return c.one(ctx, opMessage, address{mailbox, "/messages/{id}", []string{id}, []string{selecting(sel)}})
}

// page reads a page and refuses one whose links lead away, before anybody stores them.
func (c *Client) page(ctx context.Context, r call) (Page, error) {
	var p Page
	r.method = http.MethodGet
	r.decode = func(body io.Reader) (err error) {
		p, err = decodePage(body)
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return Page{}, err
	}
	for _, link := range []string{p.Next, p.Delta} {
		if link == "" {
			continue
		}
		if _, err := c.ours(link); err != nil {
			return Page{}, &Error{Op: r.op, Err: err}
		}
	}
	return p, nil
}

// one reads a single item.
func (c *Client) one(ctx context.Context, op string, a address) (Item, error) {
	u, err := c.url(a)
	if err != nil {
		return Item{}, &Error{Op: op, Err: err}
	}
	var it Item
	err = c.do(ctx, call{op: op, method: http.MethodGet, url: u, mailbox: a.mailbox, decode: func(body io.Reader) (err error) {
		it, err = decodeOne(body)
		return err
	}})
	if err != nil {
		return Item{}, err
	}
	return it, nil
}

const maxPages = 10_000 // of a listing that is read to its end (D-22)

// pages reads from link to the end, and notices links that lead in a circle (D-22).
func (c *Client) pages(ctx context.Context, r call, read func(context.Context, call) (Page, error), each func(Item) error) error {
	seen := map[string]bool{}
	for {
		if seen[r.url] || len(seen) >= maxPages {
			return &Error{Op: r.op, Err: errLoop}
		}
		seen[r.url] = true
		p, err := read(ctx, r)
		if err != nil {
			return err
		}
		for _, it := range p.Items {
			if err := each(it); err != nil {
				return &Error{Op: r.op, Err: err}
			}
		}
		if p.Next == "" {
			return nil
		}
		r.url = p.Next
	}
}
