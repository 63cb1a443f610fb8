package authority

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/internal/cborhead"
	"sallyport/routing/rpc"
)

// errBody reports a request or response body that is not what the endpoint wants.
var errBody = errors.New("authority: malformed body")

func appendBytes(b []byte, data []byte) []byte {
	return append(cborhead.Append(b, cborhead.Bytes, uint64(len(data))), data...)
}

// appendSpelled appends bytes the way member entries have them: as an array of numbers.
func appendSpelled(b []byte, s string) []byte {
	b = cborhead.Append(b, cborhead.Array, uint64(len(s)))
	for i := range len(s) {
		b = cborhead.Append(b, cborhead.Uint, uint64(s[i]))
	}
	return b
}

// appendAttributes appends a map text -> text in byte order of the keys.
func appendAttributes(b []byte, a Attributes) []byte {
	b = cborhead.Append(b, cborhead.Map, uint64(len(a)))
	for _, key := range slices.Sorted(maps.Keys(a)) {
		for _, s := range [...]string{key, a[key]} {
			b = append(cborhead.Append(b, cborhead.Text, uint64(len(s))), s...)
		}
	}
	return b
}

// identifierFrom checks the length of an identifier that was read.
func identifierFrom(s cbor.ByteString) (id identity.Identifier, err error) {
	if len(s) != len(id) {
		return id, fmt.Errorf("%w: an identifier of %d bytes", errBody, len(s))
	}
	copy(id[:], s)
	return id, nil
}

// POST direct_authenticator: {1: member, 2: attributes}.

func encodeAddMember(id identity.Identifier, a Attributes) []byte {
	b := appendBytes([]byte{cborhead.Map | 2, 1}, id[:])
	return appendAttributes(append(b, 2), a)
}

func decodeAddMember(body []byte) (id identity.Identifier, a Attributes, err error) {
	var w struct {
		Member     cbor.ByteString `cbor:"1,keyasint"`
		Attributes *Attributes     `cbor:"2,keyasint"`
	}
	if err := decodeMap(body, &w); err != nil {
		return id, nil, err
	}
	if w.Attributes == nil {
		return id, nil, fmt.Errorf("%w: no attributes", errBody)
	}
	id, err = identifierFrom(w.Member)
	return id, *w.Attributes, err
}

// POST enrollment_token_issuer: {1: attributes, 2: seconds, 3: uses} -> {1: code}.

func encodeCreateToken(a Attributes, seconds, uses uint64) []byte {
	fields := uint64(1)
	for _, v := range [...]uint64{seconds, uses} {
		if v != 0 {
			fields++
		}
	}
	b := appendAttributes(append(cborhead.Append(nil, cborhead.Map, fields), 1), a)
	if seconds != 0 {
		b = cborhead.Append(append(b, 2), cborhead.Uint, seconds)
	}
	if uses != 0 {
		b = cborhead.Append(append(b, 3), cborhead.Uint, uses)
	}
	return b
}

func decodeCreateToken(body []byte) (a Attributes, ttl time.Duration, uses uint64, err error) {
	var w struct {
		Attributes *Attributes `cbor:"1,keyasint"`
		TTL        *uint64     `cbor:"2,keyasint"`
		Uses       *uint64     `cbor:"3,keyasint"`
	}
	if err := decodeMap(body, &w); err != nil {
		return nil, 0, 0, err
	}
	if w.Attributes == nil {
		return nil, 0, 0, fmt.Errorf("%w: no attributes", errBody)
	}
	ttl, uses = DefaultTokenTTL, DefaultTokenUses
	if w.TTL != nil {
		ttl = time.Duration(min(*w.TTL, uint64(maxTokenTTL/time.Second))) * time.Second
	}
	if w.Uses != nil {
		uses = *w.Uses
	}
	return *w.Attributes, ttl, uses, nil
}

// A code on its own: {1: code}.

func encodeCode(c Code) []byte { return appendBytes([]byte{cborhead.Map | 1, 1}, c[:]) }

func decodeCode(body []byte) (c Code, err error) {
	var w struct {
		Code cbor.ByteString `cbor:"1,keyasint"`
	}
	if err := decodeMap(body, &w); err != nil {
		return c, err
	}
	if len(w.Code) != len(c) {
		return c, fmt.Errorf("%w: a code of %d bytes", errBody, len(w.Code))
	}
	copy(c[:], w.Code)
	return c, nil
}

// decodeMap reads a body that must be a map.
func decodeMap(body []byte, v any) error {
	if len(body) == 0 || body[0]&0xe0 != cborhead.Map {
		return fmt.Errorf("%w: not a map", errBody)
	}
	if err := rpc.DecodeBody(body, v); err != nil {
		return fmt.Errorf("%w: %w", errBody, err)
	}
	return nil
}

// Member entries: {1: attributes with keys and values spelled out, 2: added at, 4: attested by}.

func appendEntry(b []byte, m Member) []byte {
	b = append(b, cborhead.Map|3, 1)
	b = cborhead.Append(b, cborhead.Map, uint64(len(m.Attributes)))
	for _, key := range slices.Sorted(maps.Keys(m.Attributes)) {
		b = appendSpelled(appendSpelled(b, key), m.Attributes[key])
	}
	b = cborhead.Append(append(b, 2), cborhead.Uint, uint64(max(m.AddedAt.Unix(), 0)))
	return appendBytes(append(b, 4), m.AddedBy[:])
}

func encodeMembers(all []Member) []byte {
	b := cborhead.Append(nil, cborhead.Map, uint64(len(all)))
	for _, m := range all {
		b = appendEntry(appendBytes(b, m.ID[:]), m)
	}
	return b
}

func encodeMemberIDs(all []Member) []byte {
	b := cborhead.Append(nil, cborhead.Array, uint64(len(all)))
	for _, m := range all {
		b = appendBytes(b, m.ID[:])
	}
	return b
}

// Entry is what an authority tells about a member.
type Entry struct {
	ID         identity.Identifier
	Attributes Attributes
	AddedAt    time.Time
	ExpiresAt  time.Time           // zero if never, which is always so with the authorities there are
	AddedBy    identity.Identifier // zero if the authority does not say
}

func decodeEntry(id identity.Identifier, body []byte) (Entry, error) {
	var w struct {
		Attributes cbor.RawMessage  `cbor:"1,keyasint"`
		AddedAt    *uint64          `cbor:"2,keyasint"`
		ExpiresAt  *uint64          `cbor:"3,keyasint"`
		AttestedBy *cbor.ByteString `cbor:"4,keyasint"`
	}
	if err := decodeMap(body, &w); err != nil {
		return Entry{}, err
	}
	if w.AddedAt == nil {
		return Entry{}, fmt.Errorf("%w: an entry without its time", errBody)
	}
	e := Entry{ID: id, AddedAt: unix(*w.AddedAt)}
	if w.ExpiresAt != nil {
		e.ExpiresAt = unix(*w.ExpiresAt)
	}
	var err error
	if w.AttestedBy != nil {
		if e.AddedBy, err = identifierFrom(*w.AttestedBy); err != nil {
			return Entry{}, err
		}
	}
	e.Attributes, err = decodeSpelled(w.Attributes)
	return e, err
}

// unix keeps a time that some peer sent within what calendars can print.
func unix(seconds uint64) time.Time {
	const endOf9999 = 253402300799
	return time.Unix(int64(min(seconds, endOf9999)), 0)
}

// decodeSpelled reads the attributes of an entry. Byte strings are accepted as well. raw is one well-formed item.
func decodeSpelled(raw []byte) (Attributes, error) {
	if len(raw) == 0 || raw[0]&0xe0 != cborhead.Map {
		return nil, fmt.Errorf("%w: attributes that are not a map", errBody)
	}
	// The head is cut off by its own length: 0 to 8 bytes after the first, none for a map of indefinite length.
	skip := 1
	if short := raw[0] & 31; short >= 24 && short <= 27 {
		skip += 1 << (short - 24)
	}
	a := Attributes{}
	for rest := raw[skip:]; len(rest) > 0 && rest[0] != 0xff; {
		var key, value []byte
		var err error
		if rest, err = cbor.UnmarshalFirst(rest, &key); err == nil {
			rest, err = cbor.UnmarshalFirst(rest, &value)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		a[string(key)] = string(value)
	}
	return a, nil
}

func decodeMembers(body []byte) ([]Entry, error) {
	var w map[cbor.ByteString]cbor.RawMessage
	if err := decodeMap(body, &w); err != nil {
		return nil, err
	}
	all := make([]Entry, 0, len(w))
	for key, raw := range w {
		id, err := identifierFrom(key)
		if err != nil {
			return nil, err
		}
		e, err := decodeEntry(id, raw)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
	return all, nil
}

func decodeMemberIDs(body []byte) ([]identity.Identifier, error) {
	var w []cbor.ByteString
	if err := rpc.DecodeBody(body, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	ids := make([]identity.Identifier, 0, len(w))
	for _, s := range w {
		id, err := identifierFrom(s)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
