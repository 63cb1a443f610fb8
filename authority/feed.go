package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// Revocations is the address of the worker that tells nodes what was revoked. The reference has none, and drops what is sent there.
const Revocations = "sallyport_revocations"

// Signer signs statements in the authority's name: what it needs of an identity manager beside Issuer to tell of revocations.
type Signer interface {
	SignStatement(ctx context.Context, issuer identity.Identifier, content []byte, until time.Time) ([]byte, error)
	History(ctx context.Context, id identity.Identifier) ([]byte, error)
}

var _ Signer = (*identity.Manager)(nil)

// maxNews bounds the revocations in one answer; who asks again gets the next.
const maxNews = 200

// News is what an authority tells a node.
type News struct {
	// List is the random name of the authority's list. Another one than before is a new list, whose numbers begin anew.
	List []byte `cbor:"1,keyasint"`
	// Head is the number of the last revocation there is.
	Head uint64 `cbor:"2,keyasint"`
	// Statements are signed revocations, in order; VerifyRevocation reads them.
	Statements [][]byte `cbor:"3,keyasint"`
	// From is the number after which Statements begin: those before it that are missing have ended.
	From uint64 `cbor:"4,keyasint"`
	// Beat is how long it takes at most, in milliseconds, until the authority says something again, if only that there is nothing new; 0 from one that does
	// so when it is asked alone.
	Beat uint64 `cbor:"5,keyasint,omitempty"`
	// Key is the KeyName of the authority, so that a node notices a new primary key; empty from an older authority.
	Key []byte `cbor:"6,keyasint,omitempty"`
}

// KeyName names the primary key that an identity has, by its history.
func KeyName(history []byte) [32]byte { return sha256.Sum256(history) }

// keyName is that of the authority, zero if it signs no statements.
func (a *Authority) keyName(ctx context.Context) (name [32]byte, err error) {
	signer, ok := a.o.Identities.(Signer)
	if !ok {
		return name, nil
	}
	history, err := signer.History(ctx, a.o.Self)
	if err != nil {
		return name, err
	}
	return KeyName(history), nil
}

// Query asks for news.
type Query struct {
	List  []byte `cbor:"1,keyasint"`
	Since uint64 `cbor:"2,keyasint"` // the number of the last revocation that is known
	// Beats asks for a word from time to time, also when there is nothing new.
	Beats bool `cbor:"3,keyasint,omitempty"`
}

// statement is what is signed of a revocation.
type statement struct {
	List     []byte `cbor:"1,keyasint"`
	Seq      uint64 `cbor:"2,keyasint"`
	Subject  []byte `cbor:"3,keyasint"`
	Time     int64  `cbor:"4,keyasint"`
	Restored bool   `cbor:"5,keyasint,omitempty"`
	Until    int64  `cbor:"6,keyasint"`
}

// VerifyRevocation reads a signed revocation of an authority, whose history must be known, and of the list with a name.
func VerifyRevocation(ctx context.Context, m *identity.Manager, raw []byte, authority identity.Identifier, list []byte) (r Revocation, err error) {
	content, err := m.VerifyStatement(ctx, raw, []identity.Identifier{authority})
	if err != nil {
		return r, err
	}
	var s statement
	if err := cbor.Unmarshal(content, &s); err != nil {
		return r, fmt.Errorf("authority: a revocation that cannot be read: %w", err)
	}
	if string(s.List) != string(list) || len(s.Subject) != len(r.Subject) {
		return r, errors.New("authority: a revocation of another list")
	}
	copy(r.Subject[:], s.Subject)
	r.Seq, r.Time, r.Restored, r.Until = s.Seq, time.Unix(s.Time, 0), s.Restored, time.Unix(s.Until, 0)
	return r, nil
}

// Beat returns news without statements: the number of the last revocation, and the authority's key. Who does not know that revocation asks.
func (a *Authority) Beat(ctx context.Context) (n News, err error) {
	list, err := a.o.Store.Revocations(ctx, 0, 0)
	if err != nil {
		return n, err
	}
	key, err := a.keyName(ctx)
	return News{List: list.Name, Head: list.Head, From: list.Head, Statements: [][]byte{}, Key: key[:]}, err
}

// feed keeps signed revocations, and tells whoever listens of new ones.
type feed struct {
	mu      sync.Mutex
	signed  map[uint64]signedStatement
	history []byte        // of the authority when it signed them
	changed chan struct{} // closed when there is news
}

// signedStatement is a statement with its signature, as it is sent. A number may come again with another content where a database went back.
type signedStatement struct{ content, raw []byte }

// Changed returns a channel that is closed when something was revoked or restored.
func (a *Authority) Changed() <-chan struct{} {
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	if a.feed.changed == nil {
		a.feed.changed = make(chan struct{})
	}
	return a.feed.changed
}

// announce wakes who waits for Changed.
func (a *Authority) announce() {
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	if a.feed.changed != nil {
		close(a.feed.changed)
		a.feed.changed = nil
	}
}

// News answers a query.
func (a *Authority) News(ctx context.Context, q Query) (n News, err error) {
	signer, ok := a.o.Identities.(Signer)
	if !ok {
		return n, errors.New("authority: no signer of statements")
	}
	list, err := a.o.Store.Revocations(ctx, q.Since, maxNews)
	if err == nil && q.Since > 0 && (string(q.List) != string(list.Name) || q.Since > list.Head) {
		q.Since = 0
		list, err = a.o.Store.Revocations(ctx, 0, maxNews)
	}
	if err != nil {
		return n, err
	}
	n = News{List: list.Name, Head: list.Head, From: q.Since, Statements: [][]byte{}}
	a.feed.mu.Lock()
	defer a.feed.mu.Unlock()
	history, err := signer.History(ctx, a.o.Self)
	if err != nil {
		return n, err
	}
	key := KeyName(history)
	n.Key = key[:]
	if a.feed.signed == nil || !bytes.Equal(a.feed.history, history) { // what a replaced primary key vouched for is refused
		a.feed.signed, a.feed.history = map[uint64]signedStatement{}, history
	}
	for _, r := range list.Entries {
		content, err := cbor.Marshal(statement{list.Name, r.Seq, r.Subject[:], r.Time.Unix(), r.Restored, r.Until.Unix()})
		if err != nil {
			return n, err
		}
		s := a.feed.signed[r.Seq]
		if !bytes.Equal(s.content, content) {
			raw, err := signer.SignStatement(ctx, a.o.Self, content, r.Until)
			if err != nil {
				return n, err
			}
			s = signedStatement{content, raw}
			a.feed.signed[r.Seq] = s
		}
		n.Statements = append(n.Statements, s.raw)
	}
	a.feed.trim(list)
	return n, nil
}

// trim forgets signatures of what the store has forgotten.
func (f *feed) trim(list RevocationList) {
	if list.First != 0 && uint64(len(f.signed)) <= list.Head-list.First+1 {
		return
	}
	for seq := range f.signed {
		if list.First == 0 || seq < list.First {
			delete(f.signed, seq)
		}
	}
}

// DecodeQuery reads the body of a request for news.
func DecodeQuery(req *rpc.Request) (q Query, err error) {
	if len(req.Body) == 0 {
		return q, nil
	}
	return q, decodeMap(req.Body, &q)
}

// Encode returns the body of a request for news.
func (q Query) Encode() []byte {
	b, _ := cbor.Marshal(q) // such a structure always encodes
	return b
}

// Encode returns the body of an answer.
func (n News) Encode() []byte {
	b, _ := cbor.Marshal(n) // such a structure always encodes
	return b
}

// DecodeNews reads the body of an answer.
func DecodeNews(body []byte) (n News, err error) { return n, decodeMap(body, &n) }
