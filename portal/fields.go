package portal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sallyport/routing/bare"
)

// Tags of the fields at the end of version 2's messages (docs/protocol/04).
const (
	tagID = 1 + iota
	tagSecret
	tagHold
	tagClient
	tagAsks
	tagAgain
	tagProcess
	tagSent
)

// maxClient is the most bytes of the client's address in a Ping.
const maxClient = 64

// token is an id or a secret of a connection: 16 random bytes, or none.
type token [16]byte

// fields are what messages of version 2 carry behind their fixed part. The zero value carries nothing.
type fields struct {
	id     token  // of the connection, chosen by the inlet
	secret token  // chosen by the outlet
	hold   uint64 // milliseconds that the sender keeps the connection without a path
	client string // whom the inlet serves
	asks   bool   // the sender waits for a confirmation
	again  uint64 // how often the inlet has offered the client before
	sent   uint64 // how much the sender of a Resume or Resumed has sent, and one more: 0 is not known
	// process is the inlet's node and its process.
	process [32]byte
}

var (
	errRepeated  = errors.New("repeated")
	errFieldSize = errors.New("of a wrong length")
	errFieldText = errors.New("not a printable address")
)

// parseFields reads fields up to the end of b. Tags that are not known are skipped. Errors match ErrMessage.
func parseFields(b []byte) (f fields, err error) {
	var seen uint16
	for len(b) > 0 {
		tag, n, err := bare.Uvarint(b)
		if err != nil {
			return f, fmt.Errorf("%w: tag of a field: %w", ErrMessage, err)
		}
		b = b[n:]
		value, n, err := bare.Bytes(b)
		if err != nil {
			return f, fmt.Errorf("%w: field %d: %w", ErrMessage, tag, err)
		}
		b = b[n:]
		if tag >= tagID && tag <= tagSent {
			if seen&(1<<tag) != 0 {
				return f, fmt.Errorf("%w: field %d: %w", ErrMessage, tag, errRepeated)
			}
			seen |= 1 << tag
		}
		if err := f.set(tag, value); err != nil {
			return f, fmt.Errorf("%w: field %d: %w", ErrMessage, tag, err)
		}
	}
	return f, nil
}

// set takes one field.
func (f *fields) set(tag uint64, value []byte) error {
	switch tag {
	case tagID:
		return f.id.set(value)
	case tagSecret:
		return f.secret.set(value)
	case tagHold:
		return setNumber(&f.hold, value)
	case tagClient:
		if len(value) > maxClient {
			return errFieldSize
		}
		for _, b := range value {
			if b <= ' ' || b > '~' {
				return errFieldText
			}
		}
		f.client = string(value)
	case tagAsks:
		if len(value) > 0 {
			return errFieldSize
		}
		f.asks = true
	case tagAgain:
		return setNumber(&f.again, value)
	case tagSent:
		return setNumber(&f.sent, value)
	case tagProcess:
		if len(value) != len(f.process) {
			return errFieldSize
		}
		copy(f.process[:], value)
	}
	return nil
}

func setNumber(to *uint64, value []byte) error {
	v, n, err := bare.Uvarint(value)
	if err == nil && n != len(value) {
		err = errFieldSize
	}
	*to = v
	return err
}

func (t *token) set(value []byte) error {
	if len(value) != len(t) {
		return errFieldSize
	}
	copy(t[:], value)
	return nil
}

// append appends the fields that are set.
func (f *fields) append(b []byte) []byte {
	if f.id != (token{}) {
		b = bare.AppendBytes(append(b, tagID), f.id[:])
	}
	if f.secret != (token{}) {
		b = bare.AppendBytes(append(b, tagSecret), f.secret[:])
	}
	if f.hold > 0 {
		b = appendNumber(b, tagHold, f.hold)
	}
	if f.client != "" {
		b = bare.AppendString(append(b, tagClient), f.client)
	}
	if f.asks {
		b = append(b, tagAsks, 0)
	}
	if f.again > 0 {
		b = appendNumber(b, tagAgain, f.again)
	}
	if f.sent > 0 {
		b = appendNumber(b, tagSent, f.sent)
	}
	if f.process != ([32]byte{}) {
		b = bare.AppendBytes(append(b, tagProcess), f.process[:])
	}
	return b
}

func appendNumber(b []byte, tag byte, v uint64) []byte {
	return bare.AppendUvarint(append(b, tag, byte(bare.UvarintSize(v))), v)
}

// appendOffer appends a Ping or Pong of version 2; window is above 0.
func appendOffer(b []byte, kind byte, window int, f *fields) []byte {
	b = append(b, kind, 'S', 'P', resumeVersion)
	return f.append(bare.AppendUvarint(b, uint64(window)))
}

// appendConfirmingCredit appends a Credit of version 2: amount more bytes may be sent, and confirmed have come.
func appendConfirmingCredit(b []byte, amount, confirmed uint64, asks bool) []byte {
	b = bare.AppendUvarint(appendCredit(b, amount), confirmed)
	if asks {
		b = append(b, tagAsks, 0)
	}
	return b
}

// appendFinish appends a Finish; confirmed is left out of version 1.
func appendFinish(b []byte, counter uint16, version uint8, confirmed uint64) []byte {
	b = append(b, kindFinish, byte(counter), byte(counter>>8))
	if version >= resumeVersion {
		b = append(b, byte(confirmed), byte(confirmed>>8), byte(confirmed>>16), byte(confirmed>>24))
	}
	return b
}

// putCounter writes what follows a numbered payload into b and returns its length; confirmed is left out of version 1.
func putCounter(b []byte, counter uint16, version uint8, confirmed uint64) int {
	b[0], b[1], b[2] = 1, byte(counter), byte(counter>>8)
	if version < resumeVersion {
		return counterSize
	}
	binary.LittleEndian.PutUint32(b[counterSize:], uint32(confirmed))
	return counterSize + confirmedSize
}
