package authority

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
	bolt "go.etcd.io/bbolt"

	"sallyport/crypto/identity"
)

// boltTx is a transaction on the file.
type boltTx struct{ tx *bolt.Tx }

func put(b *bolt.Bucket, key []byte, v any) error {
	data, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

// get reads a record; ok is false if there is none.
func get(b *bolt.Bucket, key []byte, v any) (ok bool, err error) {
	data := b.Get(key)
	if data == nil {
		return false, nil
	}
	return true, unmarshal(key, data, v)
}

func unmarshal(key, data []byte, v any) error {
	if err := cbor.Unmarshal(data, v); err != nil {
		return fmt.Errorf("authority: damaged record %x: %w", key, err)
	}
	return nil
}

// numbered is the key of a number.
func numbered(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// dueKey is the key of a code in an index.
func dueKey(milliseconds int64, hash []byte) []byte {
	return append(numbered(uint64(milliseconds)), hash...)
}

// milliseconds is 0 for the zero time, as millisecondsTime has it.
func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func millisecondsTime(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

func (t *boltTx) Member(id identity.Identifier) (m MemberRow, ok bool, err error) {
	var r boltMember
	if ok, err = get(t.tx.Bucket(bucketMembers), id[:], &r); !ok || err != nil {
		return MemberRow{}, false, err
	}
	return memberOf(id, r), true, nil
}

func memberOf(id identity.Identifier, r boltMember) MemberRow {
	m := MemberRow{Member: Member{
		ID: id, Attributes: r.Attributes, AddedBy: identity.Identifier(r.AddedBy), AddedAt: time.Unix(r.AddedAt, 0), PreTrusted: r.PreTrusted,
		Blocked: r.Blocked, Ticket: r.Ticket, LastSeen: millisecondsTime(r.LastSeen),
	}, AuditedAt: millisecondsTime(r.AuditedAt), Issued: r.Issued}
	if r.CredentialExpires != 0 {
		m.CredentialExpires = time.Unix(r.CredentialExpires, 0)
	}
	return m
}

func (t *boltTx) Members(f func(MemberRow) error) error {
	return t.tx.Bucket(bucketMembers).ForEach(func(key, data []byte) error {
		var id identity.Identifier
		if copy(id[:], key) != len(id) {
			return fmt.Errorf("authority: damaged key %x", key)
		}
		var r boltMember
		if err := unmarshal(key, data, &r); err != nil {
			return err
		}
		return f(memberOf(id, r))
	})
}

func (t *boltTx) PutMember(m MemberRow) error {
	r := boltMember{
		Attributes: m.Attributes, AddedBy: rawID(m.AddedBy), AddedAt: m.AddedAt.Unix(), PreTrusted: m.PreTrusted, Blocked: m.Blocked, Ticket: m.Ticket,
		LastSeen: milliseconds(m.LastSeen), AuditedAt: milliseconds(m.AuditedAt), Issued: m.Issued,
	}
	if !m.CredentialExpires.IsZero() {
		r.CredentialExpires = m.CredentialExpires.Unix()
	}
	return put(t.tx.Bucket(bucketMembers), m.ID[:], r)
}

func (t *boltTx) DeleteMember(id identity.Identifier) error {
	return t.tx.Bucket(bucketMembers).Delete(id[:])
}

func tokenOf(t boltToken) Token {
	out := Token{
		Reference: t.Reference, Attributes: t.Attributes, IssuedBy: identity.Identifier(t.IssuedBy), ExpiresAt: time.UnixMilli(t.ExpiresAt),
		Uses: t.Uses, Used: t.Used, IssuedAt: millisecondsTime(t.IssuedAt),
	}
	copy(out.Hash[:], t.Hash)
	return out
}

func (t *boltTx) Token(hash CodeHash) (Token, bool, error) {
	var r boltToken
	ok, err := get(t.tx.Bucket(bucketTokens), hash[:], &r)
	if !ok || err != nil {
		return Token{}, false, err
	}
	return tokenOf(r), true, nil
}

// namedKey is the key of a code in the index of references; without a code, what all keys of the reference begin with.
func namedKey(reference string, hash []byte) []byte {
	return append(append([]byte(reference), 0), hash...)
}

func (t *boltTx) TokenNamed(reference string) (Token, bool, error) {
	prefix := namedKey(reference, nil)
	key, _ := t.tx.Bucket(bucketNamed).Cursor().Seek(prefix)
	if !bytes.HasPrefix(key, prefix) || len(key) != len(prefix)+len(CodeHash{}) {
		return Token{}, false, nil
	}
	token, ok, err := t.Token(CodeHash(key[len(prefix):]))
	if err == nil && !ok {
		err = fmt.Errorf("authority: the index names a code that is not there: %x", key)
	}
	return token, ok, err
}

// indexTokens makes the index of references anew where an earlier version, which has none, wrote last.
func (t *boltTx) indexTokens() error {
	index := t.tx.Bucket(bucketNamed)
	count, complete, c := 0, true, index.Cursor()
	if err := t.Tokens(func(token Token) error {
		count++
		want := namedKey(token.Reference, token.Hash[:])
		key, _ := c.Seek(want)
		complete = complete && bytes.Equal(key, want)
		return nil
	}); err != nil {
		return err
	}
	if complete && index.Stats().KeyN == count {
		return nil
	}
	if err := t.tx.DeleteBucket(bucketNamed); err != nil {
		return err
	}
	index, err := t.tx.CreateBucket(bucketNamed)
	if err != nil {
		return err
	}
	return t.Tokens(func(token Token) error { return index.Put(namedKey(token.Reference, token.Hash[:]), nil) })
}

func (t *boltTx) Tokens(f func(Token) error) error {
	return t.tx.Bucket(bucketTokens).ForEach(func(key, data []byte) error {
		var r boltToken
		if err := unmarshal(key, data, &r); err != nil {
			return err
		}
		return f(tokenOf(r))
	})
}

func (t *boltTx) ExpiredTokens(now time.Time, limit int) (list []Token, err error) {
	for _, key := range due(t.tx.Bucket(bucketTokenDue), now.UnixMilli(), limit) {
		token, ok, err := t.Token(CodeHash(key[8:]))
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("authority: the index names a code that is not there: %x", key[8:])
		}
		list = append(list, token)
	}
	return list, nil
}

// due returns up to limit keys of an index whose time has come.
func due(index *bolt.Bucket, milliseconds int64, limit int) (keys [][]byte) {
	c := index.Cursor()
	for key, _ := c.First(); len(key) == 8+len(CodeHash{}) && len(keys) < limit; key, _ = c.Next() {
		if binary.BigEndian.Uint64(key) > uint64(milliseconds) {
			break
		}
		keys = append(keys, append([]byte(nil), key...))
	}
	return keys
}

func (t *boltTx) PutToken(token Token) error {
	r := boltToken{
		Reference: token.Reference, Attributes: token.Attributes, IssuedBy: rawID(token.IssuedBy), ExpiresAt: token.ExpiresAt.UnixMilli(), Uses: token.Uses,
		Hash: token.Hash[:], Used: token.Used, IssuedAt: milliseconds(token.IssuedAt),
	}
	if err := put(t.tx.Bucket(bucketTokens), r.Hash, r); err != nil {
		return err
	}
	if err := t.tx.Bucket(bucketNamed).Put(namedKey(r.Reference, r.Hash), nil); err != nil {
		return err
	}
	return t.tx.Bucket(bucketTokenDue).Put(dueKey(r.ExpiresAt, r.Hash), nil)
}

func (t *boltTx) DeleteToken(token Token) error {
	if err := t.tx.Bucket(bucketTokens).Delete(token.Hash[:]); err != nil {
		return err
	}
	if err := t.tx.Bucket(bucketNamed).Delete(namedKey(token.Reference, token.Hash[:])); err != nil {
		return err
	}
	return t.tx.Bucket(bucketTokenDue).Delete(dueKey(token.ExpiresAt.UnixMilli(), token.Hash[:]))
}

func (t *boltTx) SpentCode(hash CodeHash) (SpentCode, bool, error) {
	var r boltSpent
	ok, err := get(t.tx.Bucket(bucketSpent), hash[:], &r)
	return SpentCode{Hash: hash, Reference: r.Reference, Outcome: r.Outcome}, ok && err == nil, err
}

func (t *boltTx) SpentCodes(f func(SpentCode) error) error {
	return t.tx.Bucket(bucketSpentDue).ForEach(func(key, _ []byte) error {
		if len(key) != 8+len(CodeHash{}) {
			return fmt.Errorf("authority: damaged key %x", key)
		}
		c, ok, err := t.SpentCode(CodeHash(key[8:]))
		if err != nil || !ok {
			return err
		}
		c.Until = time.UnixMilli(int64(binary.BigEndian.Uint64(key)))
		return f(c)
	})
}

func (t *boltTx) PutSpentCode(c SpentCode) error {
	if err := put(t.tx.Bucket(bucketSpent), c.Hash[:], boltSpent{c.Reference, c.Outcome}); err != nil {
		return err
	}
	return t.tx.Bucket(bucketSpentDue).Put(dueKey(c.Until.UnixMilli(), c.Hash[:]), nil)
}

func (t *boltTx) ForgetSpentCodes(now time.Time, limit int) error {
	index := t.tx.Bucket(bucketSpentDue)
	for _, key := range due(index, now.UnixMilli(), limit) {
		if err := t.tx.Bucket(bucketSpent).Delete(key[8:]); err != nil {
			return err
		}
		if err := index.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func revocationOf(key, data []byte) (Revocation, error) {
	var r boltRevocation
	if err := unmarshal(key, data, &r); err != nil {
		return Revocation{}, err
	}
	if len(key) != 8 {
		return Revocation{}, fmt.Errorf("authority: damaged key %x", key)
	}
	return Revocation{
		Seq: binary.BigEndian.Uint64(key), Subject: identity.Identifier(r.Subject), Time: time.Unix(r.Time, 0), Restored: r.Restored, Until: time.Unix(r.Until, 0),
	}, nil
}

func (t *boltTx) Revocations(after uint64, limit int) (list RevocationList, err error) {
	b := t.tx.Bucket(bucketRevoked)
	list = RevocationList{Name: append([]byte(nil), t.tx.Bucket(bucketMeta).Get(keyEpoch)...), Head: b.Sequence()}
	c := b.Cursor()
	if key, _ := c.First(); len(key) == 8 {
		list.First = binary.BigEndian.Uint64(key)
	}
	for key, data := c.Seek(numbered(after + 1)); key != nil && len(list.Entries) < limit; key, data = c.Next() {
		r, err := revocationOf(key, data)
		if err != nil {
			return list, err
		}
		list.Entries = append(list.Entries, r)
	}
	return list, nil
}

func (t *boltTx) RevocationOf(id identity.Identifier) (r Revocation, ok bool, err error) {
	key := t.tx.Bucket(bucketRevokee).Get(id[:])
	if key == nil {
		return r, false, nil
	}
	data := t.tx.Bucket(bucketRevoked).Get(key)
	if data == nil {
		return r, false, fmt.Errorf("authority: the index names a revocation that is not there: %x", key)
	}
	r, err = revocationOf(key, data)
	return r, err == nil, err
}

func (t *boltTx) PutRevocation(r Revocation) error {
	b, key := t.tx.Bucket(bucketRevoked), numbered(r.Seq)
	if err := put(b, key, boltRevocation{rawID(r.Subject), r.Time.Unix(), r.Restored, r.Until.Unix()}); err != nil {
		return err
	}
	if err := t.tx.Bucket(bucketRevokee).Put(r.Subject[:], key); err != nil {
		return err
	}
	return t.setHead(r.Seq)
}

// setHead notes which revocation is the last, and that the index knows it.
func (t *boltTx) setHead(n uint64) error {
	if err := t.tx.Bucket(bucketRevoked).SetSequence(n); err != nil {
		return err
	}
	return t.tx.Bucket(bucketRevokee).SetSequence(n)
}

func (t *boltTx) DeleteRevocations(last uint64) error {
	b, index := t.tx.Bucket(bucketRevoked), t.tx.Bucket(bucketRevokee)
	for {
		key, data := b.Cursor().First()
		if key == nil {
			return nil
		}
		r, err := revocationOf(key, data)
		if err != nil || r.Seq > last {
			return err
		}
		if at := index.Get(r.Subject[:]); at != nil && binary.BigEndian.Uint64(at) == r.Seq {
			if err := index.Delete(r.Subject[:]); err != nil {
				return err
			}
		}
		if err := b.Delete(numbered(r.Seq)); err != nil {
			return err
		}
	}
}

// indexRevocations makes the index of revocations where an earlier version, which has none, wrote last.
func (t *boltTx) indexRevocations() error {
	b := t.tx.Bucket(bucketRevoked)
	if b.Sequence() == t.tx.Bucket(bucketRevokee).Sequence() {
		return nil
	}
	if err := t.tx.DeleteBucket(bucketRevokee); err != nil {
		return err
	}
	index, err := t.tx.CreateBucket(bucketRevokee)
	if err != nil {
		return err
	}
	if err := b.ForEach(func(key, data []byte) error {
		r, err := revocationOf(key, data)
		if err != nil {
			return err
		}
		return index.Put(r.Subject[:], key)
	}); err != nil {
		return err
	}
	return index.SetSequence(b.Sequence())
}

var keyEpoch = []byte("epoch")

func (t *boltTx) SetRevocationList(name []byte, head uint64) error {
	if err := t.setHead(head); err != nil {
		return err
	}
	return t.tx.Bucket(bucketMeta).Put(keyEpoch, name)
}

func (t *boltTx) Entries(after uint64, limit int) (entries []AuditEntry, err error) {
	c := t.tx.Bucket(bucketTrail).Cursor()
	for key, data := c.Seek(numbered(after + 1)); key != nil && len(entries) < limit; key, data = c.Next() {
		e, err := readTrail(key, data)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (t *boltTx) LastEntry() (seq uint64, hash [32]byte, err error) {
	b := t.tx.Bucket(bucketTrail)
	if _, last := b.Cursor().Last(); last != nil {
		var r trailRecord
		if err := cbor.Unmarshal(last, &r); err != nil {
			return 0, hash, fmt.Errorf("%w: its last entry cannot be read: %w", ErrTrail, err)
		}
		hash = trailHash(r.Previous, r.Content)
	}
	return b.Sequence(), hash, nil
}

func (t *boltTx) PutEntry(e AuditEntry) error {
	b := t.tx.Bucket(bucketTrail)
	if err := put(b, numbered(e.Seq), trailRecord{Previous: e.Previous[:], Content: e.content}); err != nil {
		return err
	}
	return b.SetSequence(e.Seq)
}

func (t *boltTx) DeleteEntries(last uint64) error {
	b := t.tx.Bucket(bucketTrail)
	for {
		key, _ := b.Cursor().First()
		if len(key) != 8 || binary.BigEndian.Uint64(key) > last {
			return nil
		}
		if err := b.Delete(append([]byte(nil), key...)); err != nil {
			return err
		}
	}
}

var keyTTL = []byte("credential_ttl")

func (t *boltTx) CredentialTTL() (time.Duration, error) {
	text := t.tx.Bucket(bucketMeta).Get(keyTTL)
	if text == nil {
		return 0, nil
	}
	return time.ParseDuration(string(text))
}

func (t *boltTx) SetCredentialTTL(ttl time.Duration) error {
	return t.tx.Bucket(bucketMeta).Put(keyTTL, []byte(ttl.String()))
}
