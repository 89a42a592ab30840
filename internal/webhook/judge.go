package webhook

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/triggerd/triggerd/internal/event"
	"github.com/triggerd/triggerd/internal/store"
)

// Limits on the text that is stored, in bytes. Graph's ids have some 150, its change keys 40.
const (
	maxSubscription = 256
	maxEvent        = 64 // a changeType or lifecycleEvent
	maxItem         = 2048
	maxEtag         = 512
)

// batch is what of one request is to be stored. It shares no memory with the request.
type batch struct {
	notes  []store.Notification
	cycles []store.Lifecycle
}

func (b *batch) empty() bool { return len(b.notes) == 0 && len(b.cycles) == 0 }

// feeds lists the feeds that have notifications in the batch, each once.
func (b *batch) feeds() []uint32 {
	feeds := make([]uint32, 0, 8)
	for i := range b.notes {
		if n := len(feeds); n == 0 || feeds[n-1] != b.notes[i].Feed {
			feeds = append(feeds, b.notes[i].Feed)
		}
	}
	slices.Sort(feeds)
	return slices.Compact(feeds)
}

// judge keeps what is genuine and makes sense, each item by itself (W-4), and counts the rest.
func (h *Handler) judge(items []item, now time.Time) (b batch) {
	var tally [len(resultNames)]int
	var last *item // the last genuine one, and
	var feed uint32
	for i := range items {
		it := &items[i]
		verdict := it.check()
		if verdict == accepted && (last == nil || !it.sameSender(last)) {
			var f uint32
			if f, verdict = h.verify(it); verdict == accepted {
				last, feed = it, f
			}
		}
		switch {
		case verdict != accepted:
			tally[verdict]++
		case len(it.lifecycle) > 0:
			b.cycles = append(b.cycles, store.Lifecycle{Subscription: string(it.subscription), Event: string(it.lifecycle), At: now})
		default:
			if b.notes == nil {
				b.notes = make([]store.Notification, 0, len(items)-i)
			}
			b.notes = append(b.notes, it.notification(feed, now))
		}
	}
	h.drop(tally, now)
	return b
}

// check says whether an item makes sense by itself: accepted, malformed, or validation for the message by which Graph
// tests an Event Hub and which means nothing here.
func (it *item) check() result {
	switch {
	case string(it.subscription) == "NA":
		return validation
	case it.malformed, len(it.subscription) == 0,
		len(it.subscription) > maxSubscription, len(it.change) > maxEvent, len(it.lifecycle) > maxEvent,
		len(it.itemID()) > maxItem, len(it.etag) > maxEtag:
		return malformed
	}
	return accepted
}

// sameSender reports whether two items claim the same subscription with the same clientState. It compares what was
// received with what was received, so that its timing tells nothing.
func (it *item) sameSender(other *item) bool {
	return bytes.Equal(it.subscription, other.subscription) && bytes.Equal(it.clientState, other.clientState)
}

// verify finds the feed of an item whose clientState is the one that was given to its subscription (W-17). Subscriptions
// that are gone count too: late notices of theirs are genuine (W-23, L-14).
func (h *Handler) verify(it *item) (feed uint32, verdict result) {
	id := string(it.subscription)
	hash := sha256.Sum256(it.clientState)
	stated := len(it.clientState) > 0
	sub, known := h.opts.Store.Subscription(id)
	if !known && stated {
		if feed, ok := h.opts.Store.Expected(hash); ok {
			return feed, accepted
		}
		sub, known = h.opts.Store.Subscription(id) // it may have become one of ours between the two looks
	}
	switch {
	case !known:
		return 0, unknownSubscription
	case !stated || subtle.ConstantTimeCompare(hash[:], sub.StateHash[:]) != 1:
		return 0, badClientState
	}
	return sub.Feed, accepted
}

func (it *item) notification(feed uint32, now time.Time) store.Notification {
	return store.Notification{
		Feed:      feed,
		Item:      string(it.itemID()),
		Change:    changeName(it.change),
		ChangeKey: event.ChangeKey(string(it.etag)),
		At:        now,
	}
}

// changeName lower-cases a changeType (W-6).
func changeName(b []byte) string {
	switch string(b) {
	case "created":
		return "created"
	case "updated":
		return "updated"
	case "deleted":
		return "deleted"
	}
	return strings.ToLower(string(b))
}

// itemID is the id of the changed item (W-8), empty when the notification names none: it still says that something
// changed.
func (it *item) itemID() []byte {
	if len(it.id) > 0 {
		return it.id
	}
	return resourceID(it.resource)
}

// resourceID takes the item's id from a resource in any spelling of W-7, empty when it names no item of a collection we
// know, such as "users/x/messages" or "users/x".
func resourceID(resource []byte) []byte {
	resource, _, _ = bytes.Cut(resource, []byte("?"))
	if path, ok := bytes.CutSuffix(resource, []byte("')")); ok { // messages('id')
		i := bytes.LastIndex(path, []byte("('"))
		if i < 0 || !collection(path[:i]) {
			return nil
		}
		return bytes.ReplaceAll(path[i+2:], []byte("''"), []byte("'"))
	}
	i := bytes.LastIndexByte(resource, '/')
	if i < 0 || !collection(resource[:i]) {
		return nil
	}
	return resource[i+1:]
}

// collection reports whether a path ends in the name of a collection of items.
func collection(path []byte) bool {
	name := string(path[bytes.LastIndexByte(path, '/')+1:])
	return strings.EqualFold(name, "messages") || strings.EqualFold(name, "events") || strings.EqualFold(name, "contacts")
}

// drop counts what was not kept, and logs it now and then, without a word of what it held.
func (h *Handler) drop(tally [len(resultNames)]int, now time.Time) {
	for r, n := range tally {
		if n > 0 {
			h.count(result(r), n)
		}
	}
	dropped := tally[unknownSubscription] + tally[badClientState] + tally[malformed]
	if dropped == 0 {
		return
	}
	if n, ok := h.dropped.Open(now, dropped); ok {
		h.opts.Log.Warn().Int("notifications", n).
			Uint64("unknown_subscription", h.counts[unknownSubscription].Load()).
			Uint64("bad_client_state", h.counts[badClientState].Load()).
			Uint64("malformed", h.counts[malformed].Load()).
			Msg("notifications dropped; totals by reason since the start")
	}
}
