package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"sallyport/crypto/vault"
)

// Import verifies a change history (docs/protocol/02 §2.4). expected, if not nil, is the identifier it must have. raw is copied.
func Import(raw []byte, expected *Identifier) (*Identity, error) {
	return importWith(nil, raw, expected)
}

func importWith(p *Proofs, raw []byte, expected *Identifier) (*Identity, error) {
	if len(raw) > maxHistory {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrVerification, len(raw), maxHistory)
	}
	in := &Identity{}
	r := &reader{b: raw}
	var failed error
	r.array(func(i int) {
		if i >= maxChanges {
			r.fail("more than %d changes", maxChanges)
			return
		}
		if failed == nil {
			failed = in.add(p, r)
		} else {
			r.skip()
		}
	})
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, r.err)
	}
	if failed != nil {
		return nil, failed
	}
	if len(in.changes) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrVerification)
	}
	in.raw = append([]byte(nil), raw[:r.at]...)
	in.id = in.changes[0].Hash
	if expected != nil && *expected != in.id {
		return nil, fmt.Errorf("%w: it is of %s, not of %s", ErrVerification, in.id, *expected)
	}
	return in, nil
}

// add reads and verifies the next change: [data, signature] for the first, [data, signature, previous signature] for later
// ones.
func (i *Identity) add(p *Proofs, r *reader) error {
	var data []byte
	var sig vault.Signature
	var previousSig *vault.Signature
	count := r.array(func(k int) {
		switch k {
		case 0:
			data = r.bytes(-1)
		case 1:
			sig = readSignature(r)
		case 2:
			previousSig = readOptionalSignature(r)
		default:
			r.skip()
		}
	})
	if r.err != nil {
		return fmt.Errorf("%w: %w", ErrVerification, r.err)
	}
	if count < 2 {
		return fmt.Errorf("%w: change %d has no signature", ErrVerification, len(i.changes)+1)
	}
	return i.verify(p, data, sig, previousSig)
}

func readSignature(r *reader) (s vault.Signature) {
	if raw := r.raw(); r.err == nil {
		if err := s.UnmarshalCBOR(raw); err != nil {
			r.fail("%w", err)
		}
	}
	return s
}

// readOptionalSignature takes null and a signature of an unknown algorithm for none (docs/protocol/02 §1).
func readOptionalSignature(r *reader) *vault.Signature {
	if r.null() {
		return nil
	}
	var s vault.Signature
	raw := r.raw()
	if r.err != nil {
		return nil
	}
	if err := s.UnmarshalCBOR(raw); errors.Is(err, vault.ErrAlgorithm) {
		return nil
	} else if err != nil {
		r.fail("%w", err)
	}
	return &s
}

func readKey(r *reader) (k vault.VerifyingKey) {
	if raw := r.raw(); r.err == nil {
		if err := k.UnmarshalCBOR(raw); err != nil {
			r.fail("%w", err)
		}
	}
	return k
}

// versioned reads [version, type, data] and checks the first two.
func versioned(b []byte, want uint64) ([]byte, error) {
	var v, kind uint64
	var data []byte
	r := &reader{b: b}
	r.fields(3, func(i int) {
		switch i {
		case 0:
			v = r.uint(255)
		case 1:
			kind = r.uint(255)
		case 2:
			data = r.bytes(-1)
		}
	})
	switch {
	case r.err != nil:
		return nil, r.err
	case v != version:
		return nil, fmt.Errorf("%w: %d, only %d is known", ErrVersion, v, version)
	case kind != want:
		return nil, fmt.Errorf("%w: %d instead of %d", ErrDataType, kind, want)
	}
	return data, nil
}

func appendVersioned(b []byte, kind uint64, data []byte) []byte {
	b = appendArray(b, 3)
	b = appendUint(appendUint(b, version), kind)
	return appendBytes(b, data)
}

// verify checks a change against those before it and adds it.
func (i *Identity) verify(p *Proofs, data []byte, sig vault.Signature, previousSig *vault.Signature) error {
	content, err := versioned(data, typeChange)
	if err != nil {
		return fmt.Errorf("%w: change %d: %w", ErrVerification, len(i.changes)+1, err)
	}
	c := Change{Hash: sha256.Sum256(data)}
	var previous []byte
	r := &reader{b: content}
	r.fields(5, func(k int) {
		switch k {
		case 0:
			if !r.null() {
				previous = r.bytes(32)
			}
		case 1:
			c.Key = readKey(r)
		case 2:
			c.RevokeAll = r.bool()
		case 3:
			c.ValidFrom = Timestamp(r.uint(1<<64 - 1))
		case 4:
			c.ValidUntil = Timestamp(r.uint(1<<64 - 1))
		}
	})
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: change %d: %w", ErrVerification, len(i.changes)+1, fmt.Errorf(format, args...))
	}
	if r.err != nil {
		return fail("%w", r.err)
	}
	if len(i.changes) == 0 {
		if previous != nil {
			return fail("the first change names one before it")
		}
	} else {
		before := i.Latest()
		switch {
		case previous == nil || [32]byte(previous) != before.Hash:
			return fail("it does not follow the change before it")
		case c.ValidFrom < before.ValidFrom:
			return fail("its validity begins before that of the change before it")
		case previousSig == nil:
			return fail("it is not signed by the key before it")
		}
		if err := p.verify(before.Key, c.Hash[:], *previousSig); err != nil {
			return fail("signature of the key before it: %w", err)
		}
	}
	if err := p.verify(c.Key, c.Hash[:], sig); err != nil {
		return fail("signature: %w", err)
	}
	i.changes = append(i.changes, c)
	return nil
}

// encodeChange encodes what a change's signatures are over. previous is nil for the first change.
func encodeChange(previous *[32]byte, c *Change) []byte {
	b := appendArray(nil, 5)
	if previous == nil {
		b = append(b, 0xf6)
	} else {
		b = appendBytes(b, previous[:])
	}
	b = c.Key.AppendCBOR(b)
	b = appendBool(b, c.RevokeAll)
	b = appendUint(appendUint(b, uint64(c.ValidFrom)), uint64(c.ValidUntil))
	return appendVersioned(nil, typeChange, b)
}

// appendChange encodes a history with one more change. previousSig is nil for the first.
func appendChange(known *Identity, data []byte, sig vault.Signature, previousSig *vault.Signature) []byte {
	var changes [][]byte
	if known != nil {
		r := &reader{b: known.raw}
		r.array(func(int) { changes = append(changes, r.raw()) })
	}
	n := 2
	if previousSig != nil {
		n = 3
	}
	change := sig.AppendCBOR(appendBytes(appendArray(nil, n), data))
	if previousSig != nil {
		change = previousSig.AppendCBOR(change)
	}
	return appendList(nil, append(changes, change))
}
