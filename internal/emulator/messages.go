package emulator

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Deliver puts new mail into a folder, by default the inbox, and returns its immutable id.
func (s *Server) Deliver(user string, m Mail) (id string, err error) {
	return s.add(user, m, "inbox", false)
}

// SaveDraft puts a draft into Drafts (or Mail.Folder).
func (s *Server) SaveDraft(user string, m Mail) (id string, err error) {
	m.IsRead = true
	return s.add(user, m, "drafts", true)
}

// Send puts mail into Sent Items (or Mail.Folder), as it is when another program sends without keeping a draft.
func (s *Server) Send(user string, m Mail) (id string, err error) {
	m.IsRead = true
	return s.add(user, m, "sentitems", false)
}

func (s *Server) add(name string, m Mail, into string, draft bool) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(name)
	if err != nil {
		return "", err
	}
	if m.Folder != "" {
		into = m.Folder
	}
	f, err := u.folder(into)
	if err != nil {
		return "", err
	}
	msg, err := newMessage(u, m)
	if err != nil {
		return "", err
	}
	msg.isDraft = draft
	if (m.From == Address{}) && (draft || f.wellKnown == "sentitems") {
		msg.from = Address{Name: u.address, Address: u.address}
	}
	u.messages = append(u.messages, msg)
	s.touch(msg)
	msg.arrive(f, present)
	s.happened(msg, created, nil)
	return msg.id(true), nil
}

// newMessage makes a message from a mail; it is nowhere yet.
func newMessage(u *user, m Mail) (*message, error) {
	importance, ok := indexOf(importances, m.Importance)
	if !ok {
		return nil, fmt.Errorf("importance %q is not one of %v", m.Importance, importances)
	}
	flag, ok := indexOf(flags, m.Flag)
	if !ok {
		return nil, fmt.Errorf("flag %q is not one of %v", m.Flag, flags)
	}
	now := time.Now()
	if m.ReceivedAt.IsZero() {
		m.ReceivedAt = now
	}
	if m.SentAt.IsZero() {
		m.SentAt = m.ReceivedAt
	}
	msg := &message{
		user: u, n: len(u.messages), subject: clean(m.Subject), body: clean(m.Body), html: m.HTML, preview: clean(m.Preview),
		from: cleanAddress(m.From), to: cleanAddresses(m.To), categories: cleanAll(m.Categories),
		received: m.ReceivedAt.Unix(), sent: m.SentAt.Unix(), created: now.Unix(),
		importance: importance, flag: flag, isRead: m.IsRead, hasAttachments: m.HasAttachments,
	}
	if msg.preview == "" {
		msg.preview = previewOf(msg.body, msg.html)
	}
	more := rarely{
		sender: cleanAddress(m.Sender), cc: cleanAddresses(m.Cc), bcc: cleanAddresses(m.Bcc), replyTo: cleanAddresses(m.ReplyTo),
		messageID: clean(m.InternetMessageID), conversation: clean(m.ConversationID), headers: m.Headers,
	}
	if more.sender != (Address{}) || more.messageID != "" || more.conversation != "" ||
		len(more.cc)+len(more.bcc)+len(more.replyTo)+len(more.headers) > 0 {
		msg.more = &more
	}
	return msg, nil
}

func cleanAll(list []string) []string {
	out := slices.Clone(list)
	for i := range out {
		out[i] = clean(out[i])
	}
	return out
}

// touch gives a message a new change key (M-2). mu is held.
func (s *Server) touch(m *message) {
	m.user.version++
	m.version, m.modified = m.user.version, time.Now().Unix()
}

// arrive puts m into f, which has not got it.
func (m *message) arrive(f *folder, kind entryKind) {
	m.folder, m.changed = f, nil
	delete(f.removed, m)
	m.place = f.append(m, kind)
	m.told = m.place
	if kind == unspoken {
		m.told = 0
	}
	f.total++
	if !m.isRead {
		f.unread++
	}
}

// leave takes m out of its folder.
func (m *message) leave() {
	f := m.folder
	f.removed[m] = f.append(m, left)
	f.total--
	if !m.isRead {
		f.unread--
	}
	m.folder, m.changed = nil, nil
}

// Update changes a message where it is. It gets a new change key even when p changes nothing.
func (s *Server) Update(user, id string, p Patch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.findMessage(user, id)
	if err != nil {
		return err
	}
	importance, flag, err := p.levels()
	if err != nil {
		return err
	}
	s.touch(m)
	m.place = m.folder.append(m, present)
	if m.told == 0 {
		m.told = m.place
	}
	if p.Importance != nil {
		m.importance = importance
		m.mark(facetImportance)
	}
	if p.Flag != nil {
		m.flag = flag
		m.mark(facetFlag)
	}
	if p.IsRead != nil {
		if m.isRead != *p.IsRead {
			m.isRead = *p.IsRead
			m.folder.unread += map[bool]int{true: -1, false: 1}[m.isRead]
		}
		m.mark(facetRead)
	}
	if p.Categories != nil {
		m.categories = cleanAll(*p.Categories)
		m.mark(facetCategories)
	}
	if p.Subject != nil {
		m.subject = clean(*p.Subject)
		m.mark(facetSubject)
	}
	if p.Body != nil {
		m.body = clean(*p.Body)
		m.preview = previewOf(m.body, m.html)
		m.mark(facetBody)
	}
	s.happened(m, updated, nil)
	return nil
}

// levels reads importance and flag; absent ones are the first.
func (p Patch) levels() (importance, flag uint8, err error) {
	var ok bool
	if p.Importance != nil {
		if importance, ok = indexOf(importances, *p.Importance); !ok {
			return 0, 0, fmt.Errorf("importance %q is not one of %v", *p.Importance, importances)
		}
	}
	if p.Flag != nil {
		if flag, ok = indexOf(flags, *p.Flag); !ok {
			return 0, 0, fmt.Errorf("flag %q is not one of %v", *p.Flag, flags)
		}
	}
	return importance, flag, nil
}

// mark notes that a facet changed with the message's last entry.
func (m *message) mark(f facet) {
	if m.changed == nil {
		m.changed = new([numFacets]int)
	}
	m.changed[f] = m.place
}

// Move moves a message to a folder, named by id or well-known name. Where it is already, nothing happens.
func (s *Server) Move(user, id, folder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.findMessage(user, id)
	if err != nil {
		return err
	}
	f, err := m.user.folder(folder)
	if err != nil {
		return err
	}
	if f != m.folder {
		s.move(m, f)
	}
	return nil
}

func (s *Server) move(m *message, f *folder) {
	from := m.folder
	m.leave()
	m.moves++
	s.touch(m)
	kind := present
	if s.faults.HideMovedIn {
		kind = unspoken
	}
	m.arrive(f, kind)
	s.happened(m, moved, from)
}

// SendDraft sends a draft: it goes to Sent Items and keeps its immutable id (I-8).
func (s *Server) SendDraft(user, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.findMessage(user, id)
	switch {
	case err != nil:
		return err
	case !m.isDraft:
		return errors.New("the message is not a draft")
	}
	now := time.Now()
	m.isDraft, m.sent, m.received = false, now.Unix(), now.Unix()
	if s.faults.SentGhost > 0 {
		m.ghostUntil = now.Add(s.faults.SentGhost).UnixNano()
	}
	s.move(m, m.user.wellKnown["sentitems"])
	return nil
}

// Delete deletes a message for good.
func (s *Server) Delete(user, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.findMessage(user, id)
	if err != nil {
		return err
	}
	s.remove(m)
	return nil
}

func (s *Server) remove(m *message) {
	from := m.folder
	m.leave()
	s.happened(m, deleted, from)
	m.subject, m.body, m.preview, m.to, m.more = "", "", "", nil, nil // the tombstone is only a number
}

// Messages lists what is in a mailbox, in the order it came.
func (s *Server) Messages(user string) []MessageInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.find(user)
	if err != nil {
		return nil
	}
	var out []MessageInfo
	for _, m := range u.messages {
		if m.folder != nil {
			out = append(out, m.info())
		}
	}
	return out
}

// findMessage looks a message up. mu is held.
func (s *Server) findMessage(user, id string) (*message, error) {
	u, err := s.find(user)
	if err != nil {
		return nil, err
	}
	m, _ := u.messageByID(id)
	if m == nil {
		return nil, fmt.Errorf("%w: %s", errNoMessage, id)
	}
	return m, nil
}
