// Package records keeps what there was of each portal connection: who spoke to whom, when, how much, and how it ended. Event loops hand a Record over
// and go on; a goroutine of the Log writes. A record that finds no room is dropped and counted.
package records

import (
	"encoding/hex"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Record is one end's record of one portal connection, or one flow of datagrams. Byte counts and the ID are the same at both ends of a connection that ended well.
type Record struct {
	// ID is the connection's number, the same at both ends; zero where the other end does not know it.
	ID [16]byte
	// Began is when the client came, or at an outlet when the inlet asked; Ended is when it was over.
	Began, Ended time.Time
	// End is "inlet" or "outlet", Portal the portal's name.
	End, Portal string
	// Client is the client's address as the inlet saw it; empty at an outlet whose inlet does not tell.
	Client string
	// Peer is the identity of the other end's node, if HasPeer. Attributes are what an authority attested of it; not to be changed.
	Peer       [32]byte
	HasPeer    bool
	Attributes map[string]string
	// Target is host:port as the outlet was told; empty at an inlet. Address is which of its addresses was reached.
	Target, Address string
	// ToTarget and ToClient are the bytes carried in each direction.
	ToTarget, ToClient uint64
	// Datagrams says that it is the record of a flow of datagrams, and how many went each way: of those, and of bytes, each end counts its own.
	Datagrams                            bool
	DatagramsToTarget, DatagramsToClient uint64
	// Setup is how long it took until the connection was open, FirstByte until the first byte of the target's; -1 if that did not happen.
	Setup, FirstByte time.Duration
	// Outcome is why it ended, one word of portal.Reason; By is who ended it: client, target, inlet, outlet or network.
	Outcome, By string
	// Resumed is how often it went on over another path.
	Resumed int
	// Refused tells that somebody was turned away before there was a connection. Such records have a rate of their own, since whoever is refused
	// chooses how often.
	Refused bool
}

// maxText is how many bytes of a text are written that others may have chosen.
const maxText = 256

// AppendJSON appends the record as one line of JSON without its end. node is the name of the node.
func (r *Record) AppendJSON(b []byte, node string) []byte {
	b = append(b, `{"time":"`...)
	b = r.Ended.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, '"')
	b = appendText(b, "node", node)
	b = appendText(b, "end", r.End)
	b = appendText(b, "portal", r.Portal)
	if r.ID != ([16]byte{}) {
		b = append(b, `,"id":"`...)
		b = append(hex.AppendEncode(b, r.ID[:]), '"')
	}
	if r.Client != "" {
		b = appendText(b, "client", r.Client)
	}
	if r.HasPeer {
		b = append(b, `,"peer":"I`...)
		b = append(hex.AppendEncode(b, r.Peer[:]), '"')
	}
	if len(r.Attributes) > 0 {
		b = append(b, `,"attributes":{`...)
		var room [8]string
		names := room[:0]
		for name := range r.Attributes {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, name), ':')
			b = appendString(b, r.Attributes[name])
		}
		b = append(b, '}')
	}
	if r.Target != "" {
		b = appendText(b, "target", r.Target)
	}
	if r.Address != "" && r.Address != r.Target {
		b = appendText(b, "address", r.Address)
	}
	b = append(b, `,"began":"`...)
	b = r.Began.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","bytes_to_target":`...)
	b = strconv.AppendUint(b, r.ToTarget, 10)
	b = append(b, `,"bytes_to_client":`...)
	b = strconv.AppendUint(b, r.ToClient, 10)
	if r.Datagrams {
		b = append(b, `,"protocol":"udp","datagrams_to_target":`...)
		b = strconv.AppendUint(b, r.DatagramsToTarget, 10)
		b = append(b, `,"datagrams_to_client":`...)
		b = strconv.AppendUint(b, r.DatagramsToClient, 10)
	}
	b = appendSeconds(b, "setup_seconds", r.Setup)
	b = appendSeconds(b, "first_byte_seconds", r.FirstByte)
	b = appendSeconds(b, "duration_seconds", r.Ended.Sub(r.Began))
	b = appendText(b, "outcome", r.Outcome)
	b = appendText(b, "ended_by", r.By)
	b = append(b, `,"resumed":`...)
	b = strconv.AppendInt(b, int64(r.Resumed), 10)
	return append(b, '}')
}

// appendSeconds appends a time with microseconds; one below 0 is left out.
func appendSeconds(b []byte, key string, d time.Duration) []byte {
	if d < 0 {
		return b
	}
	b = append(append(append(b, `,"`...), key...), `":`...)
	return strconv.AppendFloat(b, float64(d/time.Microsecond)/1e6, 'f', -1, 64)
}

func appendText(b []byte, key, value string) []byte {
	b = append(append(append(b, `,"`...), key...), `":`...)
	return appendString(b, value)
}

// appendString appends a JSON string, cut where it is long. What is not UTF-8 becomes U+FFFD, control characters are escaped.
func appendString(b []byte, s string) []byte {
	if len(s) > maxText {
		s = s[:maxText]
	}
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || c >= 0x7f && c <= 0x9f || c == 0x2028 || c == 0x2029:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', digits[c>>12&15], digits[c>>8&15], digits[c>>4&15], digits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}
