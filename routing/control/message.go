package control

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"sallyport/routing/bare"
)

// Address is the service's address on every node of ours.
const Address = "sallyport"

// version is that of the messages' fixed part.
const version = 1

// Op is what a request asks for.
type Op uint64

// Requests. A node answers one that it does not know with StatusUnknown.
const (
	// OpProbe asks for an answer with the same Data.
	OpProbe Op = 1
	// OpOutlet asks for the state of the outlet Name, for the asker: StatusDenied if it may not use it.
	OpOutlet Op = 2
	// OpRelay asks who is registered under the relay name Name. With Wait the answer comes when the registration differs from Have (its ID),
	// or after Wait.
	OpRelay Op = 3
	// OpHeld asks whether there is a registration under Name that came through the channel of the request, be it the one that gets the
	// messages or not.
	OpHeld Op = 4
	// OpLeaving waits for the node to stop, for at most Wait: it is then answered with StatusLeaving.
	OpLeaving Op = 5
	// OpSeen asks from which address datagrams come to the node's UDP socket: without Data for the socket's own address (Name,
	// host:port), with Data for the address (Name) from which a datagram with that token comes within Wait. StatusAbsent if it has no such socket.
	OpSeen Op = 6
	// OpGone waits, for at most Wait, until it is known that the process has ended that Name leads to, an address of the node's workers or a relay's
	// with its prefix: it is then answered with StatusGone.
	OpGone Op = 7
	// OpUDPOutlet is OpOutlet for an outlet for UDP.
	OpUDPOutlet Op = 8
	// OpLane asks for another registration under the relay name Name, through which the request came, over connections of its own: the Have-th. The answer
	// has the name that it is registered under, once it is; StatusAbsent if there is none.
	OpLane Op = 9
	// OpRegister asks for the relay name Name on terms (docs/protocol/08 §1): Data is the member's, with Priority, Rule, Share, State and Connections. The same
	// request through the same channel changes them.
	OpRegister Op = 10
	// OpGroup asks for the members of the relay name Name.
	OpGroup Op = 11
	// OpShare asks the node at the end of a channel that leads through the relay name Name with whom it shares that: Share of the answer.
	OpShare Op = 12
)

// Status says what became of a request.
type Status uint64

// Statuses.
const (
	StatusOK        Status = 0
	StatusUnknown   Status = 1 // no such request here
	StatusDenied    Status = 2 // the asker may not ask
	StatusBusy      Status = 3 // too many requests of this identity, or at all
	StatusMalformed Status = 4 // a field is missing or wrong
	StatusAbsent    Status = 5 // there is nothing of the name
	StatusLeaving   Status = 6 // the node stops
	StatusGone      Status = 7 // the process has ended
	StatusHeld      Status = 8 // another identity has the name
	StatusFull      Status = 9 // too many names, or members of one
)

func (s Status) String() string {
	list := []string{"ok", "unknown request", "denied", "busy", "malformed", "absent", "leaving", "gone", "held by another identity", "too many names"}
	if int(s) < len(list) {
		return list[s]
	}
	return fmt.Sprintf("status %d", uint64(s))
}

// State is how something is (docs/protocol/05 §3).
type State uint64

// States.
const (
	StateUnknown  State = 0
	StateOpening  State = 1
	StateUp       State = 2
	StateDegraded State = 3
	StateDown     State = 4
)

// Limits of fields, in bytes and milliseconds.
const (
	MaxName   = 512
	MaxReason = 256
	MaxData   = 64
	MaxShare  = 1024
	// MaxWait is the longest that a request waits for an event.
	MaxWait = 60 * time.Second
	// maxFieldLen bounds fields that are not known here, too.
	maxFieldLen = 4096
)

// Tags of fields.
const (
	tagName         = 1
	tagHave         = 2
	tagWait         = 3
	tagData         = 4
	tagState        = 16
	tagReason       = 17
	tagRegistration = 18
	tagCount        = 19
	tagRule         = 20
	tagPriority     = 21
	tagShare        = 22
	tagConnections  = 23
	tagMembers      = 24
	tagWay          = 25
)

// Fields are what requests and answers carry. Zero values are left out.
type Fields struct {
	Name         string        // 1: of an outlet or relay, the latter without its prefix
	Have         uint64        // 2: what the asker knows already
	Wait         time.Duration // 3: how long to wait for something else, in whole milliseconds
	Data         []byte        // 4
	State        State         // 16
	Reason       string        // 17: why it is not up, for people
	Registration uint64        // 18: the ID of the relay registration that gets the messages; 0: none
	Count        uint64        // 19: registrations under the name
	Rule         uint64        // 20: as routing.Rule
	Priority     uint64        // 21: the lower is taken first
	Share        string        // 22: a policy expression
	Connections  uint64        // 23: portal connections open
	Members      []GroupMember // 24
	Way          string        // 25: address of the relay's worker that leads to the member that is chosen
	// Extra are fields with other tags, for requests that other packages define; in the order of the message.
	Extra []Field
}

// Field is one field with a tag that this package does not use.
type Field struct {
	Tag   uint64
	Value []byte
}

// GroupMember is a member of a relay name.
type GroupMember struct {
	Way         string
	ID          [16]byte
	Identity    [32]byte
	Priority    uint64
	State       State
	Connections uint64
	Relay       string // where it is registered; empty for the relay asked
}

// appendMembers appends as many as a field holds.
func appendMembers(b []byte, list []GroupMember) []byte {
	for _, m := range list {
		one := bare.AppendString(nil, m.Way)
		one = append(append(one, m.ID[:]...), m.Identity[:]...)
		one = bare.AppendUvarint(bare.AppendUvarint(bare.AppendUvarint(one, m.Priority), uint64(m.State)), m.Connections)
		one = bare.AppendString(one, m.Relay)
		if len(b)+len(one) > maxFieldLen {
			break
		}
		b = append(b, one...)
	}
	return b
}

// parseMembers reads what appendMembers wrote.
func parseMembers(b []byte) (list []GroupMember, err error) {
	text := func(to *string) {
		v, n, failed := bare.Bytes(b)
		if failed != nil || len(v) > MaxName || !utf8.Valid(v) {
			err = errText
			return
		}
		*to, b = string(v), b[n:]
	}
	for len(b) > 0 && err == nil {
		var m GroupMember
		if text(&m.Way); err != nil {
			break
		}
		if len(b) < len(m.ID)+len(m.Identity) {
			return nil, bare.ErrMalformed
		}
		copy(m.ID[:], b)
		b = b[len(m.ID):]
		copy(m.Identity[:], b)
		b = b[len(m.Identity):]
		var state uint64
		for _, to := range []*uint64{&m.Priority, &state, &m.Connections} {
			v, n, failed := bare.Uvarint(b)
			if failed != nil {
				return nil, failed
			}
			*to, b = v, b[n:]
		}
		m.State = State(state)
		text(&m.Relay)
		list = append(list, m)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Message is a request or an answer.
type Message struct {
	Answer bool
	// ID is the asker's, random: it ties an answer to its request.
	ID uint64
	// Code is the Op of a request, the Status of an answer.
	Code uint64
	Fields
}

// ErrMessage reports bytes that are no message of this protocol.
var ErrMessage = errors.New("control: malformed message")

var (
	requestMark = []byte{'S', 'P', 'C', version}
	answerMark  = []byte{'S', 'P', 'A', version}
)

// Append appends m's wire form.
func (m *Message) Append(b []byte) []byte {
	mark := requestMark
	if m.Answer {
		mark = answerMark
	}
	b = append(b, mark...)
	b = bare.AppendUvarint(bare.AppendUvarint(b, m.ID), m.Code)
	number := func(tag, v uint64) {
		if v != 0 {
			b = bare.AppendBytes(bare.AppendUvarint(b, tag), bare.AppendUvarint(nil, v))
		}
	}
	text := func(tag uint64, v string) {
		if v != "" {
			b = bare.AppendString(bare.AppendUvarint(b, tag), v)
		}
	}
	text(tagName, m.Name)
	number(tagHave, m.Have)
	number(tagWait, uint64(max(m.Wait, 0)/time.Millisecond))
	text(tagData, string(m.Data))
	number(tagState, uint64(m.State))
	text(tagReason, m.Reason)
	number(tagRegistration, m.Registration)
	number(tagCount, m.Count)
	number(tagRule, m.Rule)
	number(tagPriority, m.Priority)
	text(tagShare, m.Share)
	number(tagConnections, m.Connections)
	text(tagMembers, string(appendMembers(nil, m.Members)))
	text(tagWay, m.Way)
	for _, f := range m.Extra {
		b = bare.AppendBytes(bare.AppendUvarint(b, f.Tag), f.Value)
	}
	return b
}

// Parse reads a message. Errors match ErrMessage. Fields with other tags are kept in Extra, copied.
func Parse(b []byte) (m Message, err error) {
	if len(b) < len(requestMark) || string(b[:2]) != "SP" || b[2] != 'C' && b[2] != 'A' {
		return m, fmt.Errorf("%w: it begins with none of the marks", ErrMessage)
	}
	if b[3] != version {
		return m, fmt.Errorf("%w: version %d, this is %d", ErrMessage, b[3], version)
	}
	m.Answer = b[2] == 'A'
	rest := b[len(requestMark):]
	for _, to := range []*uint64{&m.ID, &m.Code} {
		v, n, err := bare.Uvarint(rest)
		if err != nil {
			return m, fmt.Errorf("%w: fixed part: %w", ErrMessage, err)
		}
		*to, rest = v, rest[n:]
	}
	seen := map[uint64]bool{}
	for len(rest) > 0 {
		tag, n, err := bare.Uvarint(rest)
		if err != nil {
			return m, fmt.Errorf("%w: tag: %w", ErrMessage, err)
		}
		value, k, err := bare.Bytes(rest[n:])
		if err != nil {
			return m, fmt.Errorf("%w: field %d: %w", ErrMessage, tag, err)
		}
		if seen[tag] || len(value) > maxFieldLen {
			return m, fmt.Errorf("%w: field %d is there twice, or has %d bytes", ErrMessage, tag, len(value))
		}
		seen[tag] = true
		if err := m.set(tag, value); err != nil {
			return m, fmt.Errorf("%w: field %d: %w", ErrMessage, tag, err)
		}
		rest = rest[n+k:]
	}
	return m, nil
}

var (
	errLong   = errors.New("too long")
	errText   = errors.New("not UTF-8")
	errNumber = errors.New("not one number")
)

// set takes one field.
func (m *Message) set(tag uint64, value []byte) error {
	text := func(to *string, most int) error {
		if len(value) > most {
			return errLong
		}
		if !utf8.Valid(value) {
			return errText
		}
		*to = string(value)
		return nil
	}
	number := func() (uint64, error) {
		v, n, err := bare.Uvarint(value)
		if err == nil && n != len(value) {
			err = errNumber
		}
		return v, err
	}
	var err error
	var v uint64
	switch tag {
	case tagName:
		err = text(&m.Name, MaxName)
	case tagReason:
		err = text(&m.Reason, MaxReason)
	case tagData:
		if len(value) > MaxData {
			return errLong
		}
		m.Data = append([]byte(nil), value...)
	case tagHave:
		m.Have, err = number()
	case tagWait:
		v, err = number()
		m.Wait = time.Duration(min(v, uint64(MaxWait/time.Millisecond))) * time.Millisecond
	case tagState:
		v, err = number()
		m.State = State(v)
	case tagRegistration:
		m.Registration, err = number()
	case tagCount:
		m.Count, err = number()
	case tagRule:
		m.Rule, err = number()
	case tagPriority:
		m.Priority, err = number()
	case tagShare:
		err = text(&m.Share, MaxShare)
	case tagConnections:
		m.Connections, err = number()
	case tagMembers:
		m.Members, err = parseMembers(value)
	case tagWay:
		err = text(&m.Way, MaxName)
	default:
		m.Extra = append(m.Extra, Field{Tag: tag, Value: append([]byte(nil), value...)})
	}
	return err
}
