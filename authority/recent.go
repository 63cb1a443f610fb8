package authority

import (
	"maps"
	"sync"
	"time"

	"sallyport/crypto/identity"
)

// recentFor is how long a member that asks again gets the credential that it has.
const recentFor = 10 * time.Second

// maxRecent bounds the credentials that are remembered.
const maxRecent = 10_000

// recent remembers the credentials of the last seconds. The zero value is ready.
type recent struct {
	mu   sync.Mutex
	list map[identity.Identifier]issued
	// order has who was remembered when, the oldest first, so that nobody looks through all to find who can be forgotten. Some have been remembered anew since, or forgotten.
	order []remembered
}

type remembered struct {
	id identity.Identifier
	at time.Time
}

type issued struct {
	at         time.Time
	ttl        time.Duration
	attributes Attributes
	key        [32]byte // names the authority's primary key that vouches for it
	raw        []byte
}

// get returns the credential that a member got a moment ago, if it would get the same now and has not used up half of it.
func (r *recent) get(id identity.Identifier, a Attributes, ttl time.Duration, key [32]byte, now time.Time) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.list[id]
	if age := now.Sub(i.at); !ok || age < 0 || age > min(recentFor, ttl/2) || i.ttl != ttl || i.key != key || !maps.Equal(i.attributes, a) {
		return nil
	}
	return i.raw
}

func (r *recent) put(id identity.Identifier, a Attributes, ttl time.Duration, key [32]byte, now time.Time, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		r.list = map[identity.Identifier]issued{}
	}
	for len(r.order) > 0 {
		oldest := r.order[0]
		if age := now.Sub(oldest.at); age >= 0 && age <= recentFor {
			break
		}
		r.order = r.order[1:]
		if i, ok := r.list[oldest.id]; ok && i.at.Equal(oldest.at) {
			delete(r.list, oldest.id)
		}
	}
	if len(r.order) < maxRecent {
		r.list[id] = issued{now, ttl, maps.Clone(a), key, raw}
		r.order = append(r.order, remembered{id, now})
	}
}

// clear has all members get new credentials when they ask next.
func (r *recent) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.list)
	r.order = nil
}

// forget has a member get a new credential when it asks next.
func (r *recent) forget(id identity.Identifier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.list, id)
}
