package routing

import (
	"bytes"
	"fmt"
	"time"

	"sallyport/routing/bare"
)

// A Notice tells a sender why what it sent came to nothing (docs/protocol/05 §2). It goes back along the return route, from the address
// that the message was for. No message of the reference begins as it does, in CBOR, in BARE, or as a portal's: its nodes log it, if
// anything, as one that they cannot read.
type Notice struct {
	Kind NoticeKind
	// Name is the relay's, without its prefix.
	Name string
}

// NoticeKind says what a Notice is about.
type NoticeKind uint8

// Kinds of notices.
const (
	// NoticeAbsent: nobody has registered the relay name, or its node is away.
	NoticeAbsent NoticeKind = 1
	// NoticeDenied: the sender may not register the name.
	NoticeDenied NoticeKind = 2
	// NoticeHeld: the name is held by another identity.
	NoticeHeld NoticeKind = 3
	// NoticeFull: there are too many names, of this owner or at all.
	NoticeFull NoticeKind = 4
)

func (k NoticeKind) String() string {
	switch k {
	case NoticeAbsent:
		return "nobody is registered under the name"
	case NoticeDenied:
		return "this identity may not have the name"
	case NoticeHeld:
		return "the name is held by another identity"
	case NoticeFull:
		return "there are too many names"
	}
	return fmt.Sprintf("notice %d", uint8(k))
}

// noticeMark begins a notice; the last byte is its version.
var noticeMark = []byte{0xff, 'S', 'P', 1}

// maxRelayName is the longest relay name, in bytes.
const maxRelayName = 512

// AppendNotice appends n's wire form.
func AppendNotice(b []byte, n Notice) []byte {
	b = append(b, noticeMark...)
	return bare.AppendString(append(b, byte(n.Kind)), n.Name)
}

// ParseNotice reads a notice; ok is false if b is none. Bytes behind it are skipped: a later version may add some.
func ParseNotice(b []byte) (n Notice, ok bool) {
	if len(b) <= len(noticeMark) || !bytes.Equal(b[:len(noticeMark)], noticeMark) {
		return n, false
	}
	name, _, err := bare.Bytes(b[len(noticeMark)+1:])
	if err != nil || len(name) > maxRelayName {
		return n, false
	}
	return Notice{Kind: NoticeKind(b[len(noticeMark)]), Name: string(name)}, true
}

// Notices that one shard sends: so many a second, and at once.
const (
	noticeRate  = 2000
	noticeBurst = 4000
)

// noticeBudget bounds the notices of a shard.
type noticeBudget struct {
	left float64
	at   time.Time
}

func (b *noticeBudget) take(now time.Time) bool {
	if b.left = min(b.left+noticeRate*now.Sub(b.at).Seconds(), noticeBurst); b.at.IsZero() {
		b.left = noticeBurst
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// notify answers m with a notice from address self. A notice is never answered: two nodes would go on for ever. m is used up.
func (s *Shard) notify(m *Message, self WireAddress, n Notice) {
	if m.Return.Len() == 0 || bytes.HasPrefix(m.Payload(), noticeMark) || !s.notices.take(s.loop.Now()) {
		return
	}
	m.SetPayloadBytes(AppendNotice(nil, n))
	m.producer = nil
	m.Reply(s, self)
}
