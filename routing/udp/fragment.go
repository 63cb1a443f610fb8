package udp

import (
	"errors"
	"fmt"

	"sallyport/internal/cborhead"
	"sallyport/routing"
)

const (
	// fragmentVersion is written and, as in the reference, not looked at.
	fragmentVersion = 1
	// fragmentRoom is what a fragment's header may take (docs/protocol/01 §3.2).
	fragmentRoom = 15
	// maxFragments is the most that the header's 16 bits count.
	maxFragments = 1<<16 - 1
)

// errFragment reports a datagram that is no fragment.
var errFragment = errors.New("udp: malformed datagram")

// fragment is one datagram taken apart: a part of a routing message (docs/protocol/01 §3.2).
type fragment struct {
	number, offset, total uint16
	start, end            int // of the part, in the datagram
}

// parseFragment reads a datagram. What follows the five items, in the array and behind it, is ignored.
func parseFragment(b []byte) (f fragment, err error) {
	h, i, err := routing.ReadHead(b, 0)
	if err != nil {
		return f, err
	}
	if h.Major != cborhead.Array || !h.Indefinite && h.N < 5 {
		return f, fmt.Errorf("%w: not an array of 5 items", errFragment)
	}
	for k, to := range [...]*uint16{nil, &f.number, &f.offset, &f.total} {
		if h, i, err = routing.ReadHead(b, i); err != nil {
			return f, err
		}
		limit := uint64(maxFragments)
		if k == 0 {
			limit = 0xff
		}
		if h.Major != cborhead.Uint || h.N > limit {
			return f, fmt.Errorf("%w: item %d is not a number up to %d", errFragment, k, limit)
		}
		if to != nil {
			*to = uint16(h.N)
		}
	}
	if h, i, err = routing.ReadHead(b, i); err != nil {
		return f, err
	}
	if h.Major != cborhead.Bytes || h.Indefinite || h.N > uint64(len(b)-i) {
		return f, fmt.Errorf("%w: no whole byte string at its end", errFragment)
	}
	f.start, f.end = i, i+int(h.N)
	switch {
	case f.total == 0 || f.offset >= f.total:
		return f, fmt.Errorf("%w: part %d of %d", errFragment, f.offset, f.total)
	case f.start == f.end && (f.offset != f.total-1 || f.total == 1):
		// The reference sends an empty last part after an exact multiple of the size (docs/protocol/01 §3.2).
		return f, fmt.Errorf("%w: part %d of %d is empty", errFragment, f.offset, f.total)
	}
	return f, nil
}

// appendFragmentHead appends what precedes the size bytes of a part.
func appendFragmentHead(b []byte, number, offset, total uint16, size int) []byte {
	b = append(b, cborhead.Array|5, fragmentVersion)
	b = cborhead.Append(b, cborhead.Uint, uint64(number))
	b = cborhead.Append(b, cborhead.Uint, uint64(offset))
	b = cborhead.Append(b, cborhead.Uint, uint64(total))
	return cborhead.Append(b, cborhead.Bytes, uint64(size))
}
