package emulator

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

var idEncoding = base64.URLEncoding

// immutableHead begins every immutable id; mutableHead and folderHead begin the others.
var (
	immutableHead = mustDecode("AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A")
	mutableHead   = []byte{0x00, 0x03, 0x24, 0x00}
	folderHead    = []byte{0x01, 0x03, 0x24, 0x00}
)

func mustDecode(s string) []byte {
	b, err := idEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// fill makes random bytes. mu is held.
func (s *Server) fill(b []byte) {
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
}

// guid makes a random version 4 GUID. mu is held.
func (s *Server) guid() string {
	var b [16]byte
	s.fill(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Messages are numbered within their mailbox. The number is scattered over 8 bytes so that ids differ in more than
// their last character; odd times odd inverse is 1 modulo 2^64.
const (
	scatterBy = 0x9E3779B97F4A7C15
	gatherBy  = 0xF1DE83E19937733D
)

func scatter(n int, tag uint64) uint64  { return (uint64(n)+1)*scatterBy ^ tag }
func gather(v uint64, tag uint64) int64 { return int64((v^tag)*gatherBy) - 1 }

const (
	immutableLen = 27 + 8 + 8 + 7
	mutableLen   = 4 + 36 + 7 + 16 + 2 + 8 + 8 + 5
)

// immutableID is the id that stays when the message moves (I-3).
func (u *user) immutableID(n int) string {
	var raw [immutableLen]byte
	return idEncoding.EncodeToString(u.appendImmutable(raw[:0], scatter(n, u.tag)))
}

func (u *user) appendImmutable(b []byte, v uint64) []byte {
	b = append(b, immutableHead...)
	b = binary.BigEndian.AppendUint64(b, u.tag)
	b = binary.BigEndian.AppendUint64(b, v)
	var rest [8]byte
	binary.BigEndian.PutUint64(rest[:], v*scatterBy)
	return append(b, rest[:7]...)
}

// mutableID is the id that changes on every move (I-2).
func (u *user) mutableID(n int, moves uint32) string {
	var raw [mutableLen]byte
	return idEncoding.EncodeToString(u.appendMutable(raw[:0], scatter(n, u.tag), moves))
}

func (u *user) appendMutable(b []byte, v uint64, moves uint32) []byte {
	b = append(b, mutableHead...)
	b = append(b, u.id...)
	b = append(b, 0, 0x46, 0, 0, 0, 0, 0)
	b = append(b, u.replica[:]...)
	b = append(b, 7, 0)
	b = binary.BigEndian.AppendUint64(b, v)
	b = binary.BigEndian.AppendUint64(b, v*scatterBy*uint64(moves+1))
	b = binary.BigEndian.AppendUint32(b, moves)
	return append(b, 0)
}

// messageByID finds a message by either id. Malformed: not an id at all.
func (u *user) messageByID(id string) (m *message, malformed bool) {
	raw, err := idEncoding.DecodeString(id)
	if err != nil || len(raw) < 16 {
		return nil, true
	}
	var v uint64
	switch len(raw) {
	case immutableLen:
		v = binary.BigEndian.Uint64(raw[35:])
	case mutableLen:
		v = binary.BigEndian.Uint64(raw[65:])
	default:
		return nil, false
	}
	n := gather(v, u.tag)
	if n < 0 || n >= int64(len(u.messages)) {
		return nil, false
	}
	m = u.messages[n]
	if m == nil || m.folder == nil || id != m.id(true) && id != m.id(false) {
		return nil, false
	}
	return m, false
}

// folderID makes the constant id of a folder (I-4). mu is held.
func (s *Server) folderID(u *user) string {
	b := append([]byte(nil), folderHead...)
	b = append(b, u.id...)
	b = append(b, 0, 0x2e, 0, 0)
	rest := make([]byte, 22)
	s.fill(rest)
	return idEncoding.EncodeToString(append(b, rest...))
}

// Item tags of change keys (W-9a).
const (
	messageKey = 0x09
	eventKey   = 0x0F
)

// changeKey writes a version with the 8-byte head of messages.
func (u *user) changeKey(version uint64) string { return u.taggedKey(messageKey, version) }

// taggedKey writes a version with an 8-byte head (W-9a), in the alphabet that is not safe in URLs.
func (u *user) taggedKey(tag byte, version uint64) string {
	raw := u.rawKey(version)
	raw[0], raw[4] = tag, 0x16
	return base64.StdEncoding.EncodeToString(raw[:])
}

// bareKey writes a version without a head, as events have it everywhere but in notifications and in delta's stubs (M-4a).
func (u *user) bareKey(version uint64) string {
	raw := u.rawKey(version)
	return base64.StdEncoding.EncodeToString(raw[8:])
}

// rawKey has room for the head.
func (u *user) rawKey(version uint64) (raw [30]byte) {
	copy(raw[8:], u.replica[:])
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], version)
	copy(raw[24:], v[2:])
	return raw
}

// Calendars and meetings are numbered apart from messages.
const (
	meetingTag  = 0x6D656574696E6773
	calendarTag = 0x63616C656E646172
)

// An id of one date of a series has the date between the parts of the series' own id, as ticks of 100 ns since the year 1
// at midnight, and ends in 10: so it is in recordings. A series that moves to other dates has other ids, and an exception
// keeps the id of the date it was made of.
const (
	dateLen          = 14 // of what is in between, with its head
	immutableDateLen = dateLen + immutableLen - 2 + 1
	mutableDateLen   = mutableLen - 1 + 12 + 1
	ticksPerDay      = 24 * 3600 * 1e7
	daysBefore1970   = 719162
)

// id is the id of a calendar item, immutable or not.
func (i instance) id(immutable bool) string {
	var raw [mutableDateLen + dateLen]byte
	u, v := i.m.calendar.user, scatter(i.m.n, i.m.calendar.user.tag^meetingTag)
	whole := u.appendMutable(raw[:0], v, 0)
	if immutable {
		whole = u.appendImmutable(raw[:0], v)
	}
	if !i.isDate() {
		return idEncoding.EncodeToString(whole)
	}
	ticks := (uint64(i.day) + daysBefore1970) * ticksPerDay
	b := make([]byte, 0, len(whole)+dateLen)
	if immutable {
		b = append(b, 0, 9, 0, 0x51, 0, 8)
		b = binary.BigEndian.AppendUint64(b, ticks)
		b = append(b, whole[2:]...)
	} else {
		b = append(b, whole[:40]...)
		b = append(b, 1, 0x51, 0, 8)
		b = binary.BigEndian.AppendUint64(b, ticks)
		b = append(b, whole[41:]...)
	}
	return idEncoding.EncodeToString(append(b, 0x10))
}

// instanceByID finds a calendar item by either id. Malformed: not an id at all.
func (u *user) instanceByID(id string) (i instance, malformed bool) {
	raw, err := idEncoding.DecodeString(id)
	if err != nil || len(raw) < 16 {
		return i, true
	}
	var v, ticks uint64
	switch len(raw) {
	case immutableLen:
		v = binary.BigEndian.Uint64(raw[35:])
	case mutableLen:
		v = binary.BigEndian.Uint64(raw[65:])
	case immutableDateLen:
		v, ticks = binary.BigEndian.Uint64(raw[35+12:]), binary.BigEndian.Uint64(raw[6:])
	case mutableDateLen:
		v, ticks = binary.BigEndian.Uint64(raw[65+11:]), binary.BigEndian.Uint64(raw[44:])
	default:
		return i, false
	}
	n := gather(v, u.tag^meetingTag)
	if n < 0 || n >= int64(len(u.meetings)) || u.meetings[n].now == nil {
		return i, false
	}
	m, ok := u.meetings[n], true
	if i = m.whole(m.now); ticks > 0 {
		i, ok = m.date(m.now, day(ticks/ticksPerDay)-daysBefore1970)
	}
	if !ok || id != i.id(true) && id != i.id(false) {
		return instance{}, false
	}
	return i, false
}

// deletedETag is what notifications of deletions carry: the item tag alone (W-9b).
const deletedETag = `W/"CQAAAA=="`

func etag(changeKey string) string { return `W/"` + changeKey + `"` }

// pathID reads an id as it stands in a path: raw is the segment still escaped, text the same unescaped once.
// The gateway unescapes before it splits, so a slash can come only as %252F or spelled `-` (I-11a); characters that need
// no escape must have none, and nothing is escaped twice (I-11b).
func pathID(raw, text string) (id string, ok bool) {
	for i := 0; i+2 < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		b, err := hex.DecodeString(raw[i+1 : i+3])
		if err != nil || isUnreserved(b[0]) {
			return "", false
		}
	}
	text = strings.NewReplacer("%2F", "-", "%2f", "-").Replace(text)
	if text == "" || strings.ContainsAny(text, "%+ ") {
		return "", false
	}
	return text, true
}

func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}
