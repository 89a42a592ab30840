package emulator

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	firstTimeout = 3 * time.Second  // a 2xx within this counts (W-19)
	retryTimeout = 10 * time.Second // of retries (W-20)
	giveUpAfter  = 4 * time.Hour    // from the first attempt (W-20, W-24)
	backoffBase  = 10 * time.Second
	backoffMax   = 30 * time.Minute
	perPost      = 20 // items
	postsPerURL  = 4  // at a time
	pausedRetry  = time.Minute
	pausedFactor = 3 // delivery pauses after so many unanswered reauthEvery (L-10)
)

// notice is one item to be told to a subscriber.
type notice struct {
	sub       *subscription
	lifecycle string // event; empty: a change
	kind      string // changeType
	data      resourceDataJSON
	due, made time.Time
	attempts  int
	seq       int
}

func (n *notice) url() string {
	if n.lifecycle != "" {
		return n.sub.lifecycleURL
	}
	return n.sub.notificationURL
}

// outgoing is what waits to be delivered: a heap by time, and what is due by URL. Guarded by Server.mu.
type outgoing struct {
	later    noticeHeap
	due      map[string][]*notice
	inFlight map[string]int // POSTs by URL
	flying   int            // POSTs
	seq      int
}

func newOutgoing() outgoing {
	return outgoing{due: map[string][]*notice{}, inFlight: map[string]int{}}
}

type noticeHeap []*notice

func (h noticeHeap) Len() int      { return len(h) }
func (h noticeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h noticeHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h *noticeHeap) Push(x any) { *h = append(*h, x.(*notice)) }
func (h *noticeHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}

// announce queues what subscribers are told of a change in a folder. mu is held.
func (s *Server) announce(m *message, kind string, f *folder) {
	now := time.Now()
	s.expire(now)
	for _, sub := range sorted(m.user.subs) {
		if sub.events || sub.folder != nil && sub.folder != f || !slices.Contains(sub.kinds, kind) {
			continue
		}
		id := m.user.immutableID(m.n)
		if !sub.immutable {
			moves := m.moves
			if kind == deleted && m.folder != f && m.folder != nil {
				moves-- // the id it had there
			}
			id = m.user.mutableID(m.n, moves)
		}
		n := notice{sub: sub, kind: kind, made: now, data: resourceDataJSON{
			Type: "#Microsoft.Graph.Message", ID: "Users/" + m.user.id + "/Messages/" + id, Item: id, ETag: etag(m.changeKey()),
		}}
		if kind == deleted {
			n.data.ETag = deletedETag
		}
		s.enqueue(n)
		if kind == created && s.chance(s.faults.ExtraUpdated) && slices.Contains(sub.kinds, updated) {
			n.kind = updated
			s.enqueue(n)
		}
	}
}

// noticeApart is between the notifications of one change of a calendar item, as recorded (W-9c).
const noticeApart = 24 * time.Millisecond

// announceMeeting queues what subscribers are told of a change of a calendar item, whatever calendar it is in. mu is held.
func (s *Server) announceMeeting(i instance, kind string, keys [2]uint64, h habit) {
	u, now := i.m.calendar.user, time.Now()
	s.expire(now)
	for _, sub := range sorted(u.subs) {
		if !sub.events {
			continue
		}
		id := i.id(sub.immutable)
		for at, save := range h.notices {
			n := notice{sub: sub, kind: kind, made: now.Add(time.Duration(at) * noticeApart), data: resourceDataJSON{
				Type: "#Microsoft.Graph.Event", ID: "Users/" + u.id + "/Events/" + id, Item: id, ETag: etag(u.taggedKey(eventKey, keys[save])),
			}}
			switch {
			case kind == created && at > 0, kind == deleted && save == 0:
				n.kind = updated
			case kind == deleted:
				n.data.ETag = deletedETag
			}
			if !slices.Contains(sub.kinds, n.kind) {
				continue
			}
			s.enqueue(n)
			if n.kind == created && s.chance(s.faults.ExtraUpdated) && slices.Contains(sub.kinds, updated) {
				n.kind = updated
				s.enqueue(n)
			}
		}
	}
}

func sorted(subs map[string]*subscription) []*subscription {
	if len(subs) == 0 {
		return nil
	}
	out := make([]*subscription, 0, len(subs))
	for _, sub := range subs {
		out = append(out, sub)
	}
	slices.SortFunc(out, func(a, b *subscription) int { return a.number - b.number })
	return out
}

// enqueue applies the faults of notifications and queues what is left. mu is held.
func (s *Server) enqueue(n notice) {
	if s.faults.LoseNext > 0 {
		s.faults.LoseNext--
		return
	}
	if s.chance(s.faults.LoseNotifications) {
		return
	}
	copies := 1
	if s.chance(s.faults.DoubleNotifications) {
		copies = 2
	}
	for range copies {
		c := n
		c.due = c.made.Add(s.opts.DeliverDelay + s.faults.NotificationDelay)
		if s.chance(s.faults.ReorderNotifications) {
			c.due = c.due.Add(time.Duration(s.rng.Int64N(int64(2 * time.Second))))
		}
		s.push(&c)
	}
}

func (s *Server) push(n *notice) {
	s.queue.seq++
	n.seq = s.queue.seq
	heap.Push(&s.queue.later, n)
	s.poke()
}

// SendLifecycle sends a lifecycle notification to one subscription, or to all with an empty id. The event may be any
// text; unknown ones are to be expected (L-3). Subscriptions without a lifecycle URL get nothing.
func (s *Server) SendLifecycle(event, subscriptionID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.live() {
		if subscriptionID == "" || sub.id == subscriptionID {
			s.lifecycle(event, sub)
		}
	}
}

func (s *Server) lifecycle(event string, sub *subscription) {
	if sub.lifecycleURL != "" {
		s.push(&notice{sub: sub, lifecycle: event, made: time.Now(), due: time.Now()})
	}
}

// RemoveSubscription removes a subscription at the server; tell sends subscriptionRemoved (L-12).
func (s *Server) RemoveSubscription(id string, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subs[id]
	if sub == nil {
		return
	}
	s.drop(sub)
	if tell {
		s.lifecycle("subscriptionRemoved", sub)
	}
}

// SetReauthEvery makes the server send reauthorizationRequired when a subscription was last authorized d ago, and again
// every half of d (L-8, L-9). When nobody answers for three times d, delivery pauses until somebody does (L-10, R-12).
// Zero stops it.
func (s *Server) SetReauthEvery(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reauthEvery = d
	for _, sub := range s.subs {
		sub.nextReauth = time.Time{}
		if d > 0 {
			sub.nextReauth = sub.authorizedAt.Add(d)
		}
	}
	s.poke()
}

// Idle reports whether no notification is waiting, being sent, or to be sent again.
func (s *Server) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue.later) == 0 && len(s.queue.due) == 0 && s.queue.flying == 0
}

// Settle is Idle.
func (s *Server) Settle() bool { return s.Idle() }

// Run delivers notifications, with retries (W-20), asks for reauthorization and drops expired subscriptions, until ctx
// is done. It returns nil when all its goroutines have ended.
func (s *Server) Run(ctx context.Context) error {
	var posts sync.WaitGroup
	defer posts.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batches, next := s.dueBatches(time.Now())
		for _, b := range batches {
			posts.Go(func() { s.post(ctx, b) })
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// dueBatches takes what can be sent now, as one slice for each POST, and says how long there is nothing else to do.
func (s *Server) dueBatches(now time.Time) (batches [][]*notice, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	next = time.Hour
	until := func(at time.Time) { next = min(next, max(at.Sub(now), 0)) }
	if !s.nextExpiry.IsZero() {
		until(s.nextExpiry)
	}
	s.askReauth(now, until)
	q := &s.queue
	for len(q.later) > 0 && !q.later[0].due.After(now) {
		n := heap.Pop(&q.later).(*notice)
		q.due[n.url()] = append(q.due[n.url()], n)
	}
	for url, list := range q.due {
		for len(list) > 0 && q.inFlight[url] < postsPerURL {
			n := min(len(list), perPost)
			if batch := s.deliverable(list[:n], now); len(batch) > 0 {
				batches = append(batches, batch)
				q.inFlight[url]++
				q.flying++
			}
			list = list[n:]
		}
		if q.due[url] = list; len(list) == 0 {
			delete(q.due, url)
		}
	}
	if len(q.later) > 0 {
		until(q.later[0].due)
	}
	return batches, next
}

// askReauth sends reauthorizationRequired where it is time. mu is held.
func (s *Server) askReauth(now time.Time, until func(time.Time)) {
	if s.reauthEvery <= 0 {
		return
	}
	for _, sub := range s.live() {
		if sub.nextReauth.IsZero() {
			continue
		}
		if !now.Before(sub.nextReauth) {
			s.lifecycle("reauthorizationRequired", sub)
			sub.nextReauth = now.Add(max(s.reauthEvery/2, time.Second))
		}
		until(sub.nextReauth)
	}
}

// deliverable leaves out changes for subscriptions that are gone, and puts those of paused ones back. mu is held.
func (s *Server) deliverable(list []*notice, now time.Time) (batch []*notice) {
	for _, n := range list {
		switch {
		case n.lifecycle != "":
		case s.subs[n.sub.id] != n.sub:
			continue
		case s.reauthEvery > 0 && now.Sub(n.sub.authorizedAt) >= pausedFactor*s.reauthEvery:
			if now.Sub(n.made) < giveUpAfter {
				n.due = now.Add(pausedRetry)
				s.push(n)
			}
			continue
		}
		batch = append(batch, n)
	}
	if s.chance(s.faults.ReorderNotifications) {
		s.rng.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
	}
	return batch
}

// noticeJSON is an item as Outlook sends it (W-5).
type noticeJSON struct {
	SubscriptionID string            `json:"subscriptionId"`
	Expiration     string            `json:"subscriptionExpirationDateTime"`
	ChangeType     string            `json:"changeType,omitempty"`
	Resource       string            `json:"resource,omitempty"`
	ResourceData   *resourceDataJSON `json:"resourceData,omitempty"`
	LifecycleEvent string            `json:"lifecycleEvent,omitempty"`
	ClientState    *string           `json:"clientState"`
	TenantID       string            `json:"tenantId"`
}

type resourceDataJSON struct {
	Type string `json:"@odata.type"`
	ID   string `json:"@odata.id"`
	ETag string `json:"@odata.etag"`
	Item string `json:"id"`
}

// expiryZones are in which an expiry may be written (W-12).
var expiryZones = []*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.UTC}

func (s *Server) json1(n *notice) noticeJSON {
	j := noticeJSON{
		SubscriptionID: n.sub.id, ChangeType: n.kind, LifecycleEvent: n.lifecycle, TenantID: s.opts.Tenant,
		Expiration: n.sub.expiresAt.In(expiryZones[n.seq%len(expiryZones)]).Format("2006-01-02T15:04:05.0000000-07:00"),
	}
	if n.sub.clientState != "" {
		j.ClientState = &n.sub.clientState
	}
	if n.lifecycle != "" {
		return j
	}
	j.Resource, j.ResourceData = n.data.ID, &n.data
	return j
}

// post sends one batch and decides what becomes of it.
func (s *Server) post(ctx context.Context, batch []*notice) {
	var body struct {
		Value []noticeJSON `json:"value"`
	}
	s.mu.Lock()
	url, timeout := batch[0].url(), firstTimeout
	for _, n := range batch {
		body.Value = append(body.Value, s.json1(n))
		if n.attempts > 0 {
			timeout = retryTimeout
		}
	}
	s.mu.Unlock()
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings
	}
	delivered := s.send(ctx, url, b, timeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &s.queue
	if q.inFlight[url]--; q.inFlight[url] == 0 {
		delete(q.inFlight, url)
	}
	q.flying--
	now := time.Now()
	for _, n := range batch {
		if delivered {
			n.sub.notified++
			continue
		}
		s.retry(n, now)
	}
	s.poke()
}

// retry queues a notice again with a longer wait each time, until it is discarded. mu is held.
func (s *Server) retry(n *notice, now time.Time) {
	d := backoffMax
	if n.attempts < 8 {
		d = min(backoffBase<<n.attempts, backoffMax)
	}
	n.attempts++
	if now.Add(d).Sub(n.made) <= giveUpAfter {
		n.due = now.Add(d)
		s.push(n)
		return
	}
	if n.lifecycle == "" && !s.faults.NoMissed && s.subs[n.sub.id] == n.sub {
		s.missed(n.sub)
	}
}

// missed tells a subscription, once at a time, that notifications were discarded (W-24). mu is held.
func (s *Server) missed(sub *subscription) {
	for _, n := range s.queue.later {
		if n.sub == sub && n.lifecycle == "missed" {
			return
		}
	}
	s.lifecycle("missed", sub)
}

// send posts a collection and reports whether the answer counts as delivered.
func (s *Server) send(ctx context.Context, url string, body []byte, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "") // none is sent (W-9c)
	resp, err := s.opts.Delivery.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode >= 200 && resp.StatusCode <= 299
}

func itoa(n int) string { return strconv.Itoa(n) }
