package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"sallyport/crypto/vault"
)

// proofsKept is how many signatures Proofs remembers at least, if there were so many; it is at most twice as many, about 50 bytes each.
const proofsKept = 8192

// Proofs remembers signatures that were good, each together with the key and what was signed: those who come back with what they have shown before, as all do
// when a relay has been restarted, cost no public-key work for it. Whether a signature is good never changes. Times, order, revocations and whose a key is
// are not part of that, and looked at each time. Its methods are for any goroutine; a nil Proofs remembers nothing.
type Proofs struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
}

// verify is vault.Verify.
func (p *Proofs) verify(key vault.VerifyingKey, data []byte, sig vault.Signature) error {
	if p == nil {
		return vault.Verify(key, data, sig)
	}
	proof := proofOf(key, data, sig)
	if p.has(proof) {
		return nil
	}
	err := vault.Verify(key, data, sig)
	if err == nil {
		p.add(proof)
	}
	return err
}

// proofOf is what a signature is remembered by: nothing else has the same.
func proofOf(key vault.VerifyingKey, data []byte, sig vault.Signature) [sha256.Size]byte {
	b := make([]byte, 0, 256)
	b = append(b, byte(key.Algorithm), byte(sig.Algorithm))
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(key.Bytes))), key.Bytes...)
	b = append(append(b, sig.Bytes[:]...), data...)
	return sha256.Sum256(b)
}

func (p *Proofs) has(proof [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.young[proof]; ok {
		return true
	}
	_, ok := p.old[proof]
	if ok {
		p.put(proof) // it is in use
	}
	return ok
}

func (p *Proofs) add(proof [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(proof)
}

// put adds to the young ones; when there are enough, they are the old ones, and those are forgotten. p.mu is held.
func (p *Proofs) put(proof [sha256.Size]byte) {
	if p.young == nil || len(p.young) >= proofsKept {
		p.young, p.old = map[[sha256.Size]byte]struct{}{}, p.young
	}
	p.young[proof] = struct{}{}
}

// Import is the function Import.
func (p *Proofs) Import(raw []byte, expected *Identifier) (*Identity, error) {
	return importWith(p, raw, expected)
}
