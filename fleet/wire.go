package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"sallyport/project"
)

// Service is the address of the keeper's service, behind the secure channel listener.
const Service = "attestation_issuer"

// Paths of the service.
const (
	pathRedeem = "/redeem"
	pathAttest = "/attest"
	pathNodes  = "/nodes"
	pathLook   = "/look"
)

// redeemRequest asks to be put on the list.
type redeemRequest struct {
	Code  []byte `cbor:"1,keyasint"`
	Name  string `cbor:"2,keyasint"`
	Route string `cbor:"3,keyasint"`
}

// redeemed answers it.
type redeemed struct {
	Lifetime int64 `cbor:"1,keyasint"` // seconds
}

// attestRequest asks for an attestation. The key is of X25519 for secure channels.
type attestRequest struct {
	Purpose   uint8  `cbor:"1,keyasint"`
	Algorithm uint8  `cbor:"2,keyasint"` // of a key that signs
	Key       []byte `cbor:"3,keyasint"`
	Lifetime  int64  `cbor:"4,keyasint"` // seconds
}

// attested answers it.
type attested struct {
	Attestation []byte `cbor:"1,keyasint"`
	History     []byte `cbor:"2,keyasint"`
}

// nodesRequest asks where the nodes of a fleet are. With Wait the answer comes when the list is another one than the asker has, or after that.
type nodesRequest struct {
	Have []byte `cbor:"1,keyasint,omitempty"`
	Wait int64  `cbor:"2,keyasint,omitempty"` // milliseconds
}

// nodesReply says where the nodes of a fleet are, with the keeper's history for those that are on its list.
type nodesReply struct {
	Routes  []string `cbor:"1,keyasint"`
	Listed  bool     `cbor:"2,keyasint"`
	History []byte   `cbor:"3,keyasint,omitempty"`
	// Keeper says that the list is the keeper's own: what a delegate answers is what the keeper said a while ago.
	Keeper bool `cbor:"4,keyasint"`
	// Version names the list. Where it is what the asker has Routes may be left out.
	Version []byte `cbor:"5,keyasint,omitempty"`
}

func hashOf(code project.Code) string {
	sum := sha256.Sum256(code[:])
	return hex.EncodeToString(sum[:])
}

func encodeList(l *list) ([]byte, error) { return json.Marshal(l) }

func decodeList(raw []byte) (*list, error) {
	l := &list{}
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, err
	}
	if l.Version != 1 {
		return nil, fmt.Errorf("version %d, this program reads version 1", l.Version)
	}
	return l, nil
}

// buckets limit how often something happens, for each of those who do it. most and refill are set once.
type buckets struct {
	most   float64
	refill time.Duration // until one more is free

	mu    sync.Mutex
	of    map[string]*bucket
	swept time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

// maxBuckets bounds how many are told apart; beyond that those that are full again go first, and then the others share one.
const maxBuckets = 1000

// take reports whether it may happen once more.
func (b *buckets) take(who string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.get(who, now)
	if k.left < 1 {
		return false
	}
	k.left--
	return true
}

// empty reports whether nothing may happen now.
func (b *buckets) empty(who string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get(who, now).left < 1
}

func (b *buckets) get(who string, now time.Time) *bucket {
	if b.of == nil {
		b.of = map[string]*bucket{}
	}
	if b.of[who] == nil && len(b.of) >= maxBuckets {
		if now.Sub(b.swept) >= time.Second {
			b.swept = now
			for name, k := range b.of {
				if k.fill(b, now); k.left >= b.most {
					delete(b.of, name)
				}
			}
		}
		if len(b.of) >= maxBuckets {
			who = "others"
		}
	}
	k := b.of[who]
	if k == nil {
		k = &bucket{left: b.most, at: now}
		b.of[who] = k
	}
	k.fill(b, now)
	return k
}

func (k *bucket) fill(b *buckets, now time.Time) {
	if now.After(k.at) {
		k.left = min(k.left+float64(now.Sub(k.at))/float64(b.refill), b.most)
		k.at = now
	}
}
