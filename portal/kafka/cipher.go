package kafka

import (
	"context"
	"encoding/json"
	"fmt"
)

// Seal encrypts one value. It returns the address that names the key to its reader, and nonce, ciphertext and tag
// (docs/protocol/03 §5.3). data is authenticated with the ciphertext and not part of it; without any it is nil. Both are borrowed.
type Seal func(value, data []byte) (address string, ciphertext []byte, err error)

// Cipher encrypts values for the consumers of a partition, and decrypts what was encrypted for this node.
type Cipher interface {
	// Sealer returns what encrypts for the consumer of a partition. It may have to find the consumer first, and goes on to do so when ctx
	// has ended; one that is known is returned whatever ctx is.
	Sealer(ctx context.Context, topic string, partition int32) (Seal, error)
	// Open decrypts. It may change ciphertext. data is what Seal was given.
	Open(ctx context.Context, address string, ciphertext, data []byte) ([]byte, error)
}

// sealRecords encrypts the values of a partition's records. The consumer is asked for when there is a value.
func (in *Inlet) sealRecords(ctx context.Context, topic string, partition int32, records []byte) ([]byte, error) {
	o := in.opts
	var seal Seal
	return rewriteRecords(records, true, o.MaxMessage, func(r record) (_ []byte, err error) {
		if seal == nil {
			if seal, err = o.Cipher.Sealer(ctx, topic, partition); err != nil {
				return nil, fmt.Errorf("encrypt for the consumer of %s, partition %d: %w", topic, partition, err)
			}
		}
		one := func(plain []byte, field string) ([]byte, error) {
			if !o.Bind {
				address, ciphertext, err := seal(plain, nil)
				if err == nil && envelopeSize(address, ciphertext) > o.MaxMessage {
					err = tooLarge(o.MaxMessage) // before it takes the memory
				}
				if err != nil {
					return nil, err
				}
				return appendEnvelope(nil, address, ciphertext), nil
			}
			address, ciphertext, err := seal(plain, binding{topic, partition, r.key, field}.data())
			if err != nil {
				return nil, err
			}
			return appendBoundEnvelope(nil, address, ciphertext), nil
		}
		if len(o.Fields) == 0 {
			return one(r.value, "")
		}
		return rewriteFields(r.value, o.Fields, func(name string, f json.RawMessage) (json.RawMessage, error) {
			return encryptField(func(plain []byte) ([]byte, error) { return one(plain, name) }, f)
		})
	})
}

// openRecords decrypts the values of a partition's records. On an error it returns the batches before the one at fault.
func (in *Inlet) openRecords(ctx context.Context, topic topicRef, partition int32, records []byte) ([]byte, error) {
	o := in.opts
	name := in.nameOf(topic)
	return rewriteRecords(records, false, o.MaxMessage, func(r record) ([]byte, error) {
		one := func(sealed []byte, field string) ([]byte, error) {
			e, err := parseEnvelope(sealed)
			switch {
			case err != nil:
				return nil, err
			case !e.bound && o.Bind:
				return nil, fmt.Errorf("%w: a value that is not bound to its place (--bind-values)", ErrRefused)
			case !e.bound:
				return o.Cipher.Open(ctx, e.address, e.ciphertext, nil)
			case name == "":
				return nil, fmt.Errorf("%w: a bound value of a topic whose name no client has asked for, id %s", ErrRefused, topic.id)
			}
			return o.Cipher.Open(ctx, e.address, e.ciphertext, binding{name, partition, r.key, field}.data())
		}
		if len(o.Fields) == 0 {
			return one(r.value, "")
		}
		return rewriteFields(r.value, o.Fields, func(name string, f json.RawMessage) (json.RawMessage, error) {
			return decryptField(func(sealed []byte) ([]byte, error) { return one(sealed, name) }, f)
		})
	})
}
