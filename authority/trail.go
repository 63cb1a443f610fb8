package authority

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
)

// What happened, in the audit trail.
const (
	EventTicketMade       = "ticket_made"
	EventTicketUsed       = "ticket_used"
	EventTicketRefused    = "ticket_refused"
	EventTicketRevoked    = "ticket_revoked"
	EventMemberAdded      = "member_added"
	EventMemberChanged    = "member_changed"
	EventMemberDeleted    = "member_deleted"
	EventMemberBlocked    = "member_blocked"
	EventMemberUnblocked  = "member_unblocked"
	EventCredential       = "credential_issued"
	EventCredentialDenied = "credential_refused"
	EventRoleDenied       = "role_refused" // somebody asked for what only an enroller or admin may
	EventRoleUsed         = "role_used"    // an enroller or admin looked at what others may not
	EventSignedIn         = "signed_in"    // with a provider of OpenID Connect
	EventSignInRefused    = "sign_in_refused"
	EventStarted          = "authority_started"
	EventRestored         = "authority_restored" // from a backup
)

// AuditEntry is one thing that happened. What does not apply is zero.
type AuditEntry struct {
	Seq     uint64
	Time    time.Time // to the millisecond
	Event   string    // one of the Event constants
	Actor   identity.Identifier
	Subject identity.Identifier // about whom
	Ticket  string              // its reference
	Reason  string              // of a refusal: one of the Reason constants
	Source  string              // the address that the actor came from
	// Count is how many like it happened since the last entry like it, which are not entries of their own; 0 counts as 1.
	Count      uint64
	Attributes Attributes
	// Previous is the Hash of the entry before, and Hash that of this one: SHA-256 of Previous and the entry as it is stored.
	Previous, Hash [32]byte

	content []byte // as it is stored
}

// AuditEntries is how many entries are kept. Only what an enroller or a member does makes an entry each time it happens, what a stranger
// does is counted.
const AuditEntries = 250_000

// ErrTrail reports an audit trail that was changed, or of which a part is missing.
var ErrTrail = errors.New("authority: the audit trail is not what was written")

// trailEntry is an entry as it is stored and hashed.
type trailEntry struct {
	Time       int64      `cbor:"1,keyasint"` // Unix milliseconds
	Event      string     `cbor:"2,keyasint"`
	Actor      []byte     `cbor:"3,keyasint,omitempty"`
	Subject    []byte     `cbor:"4,keyasint,omitempty"`
	Ticket     string     `cbor:"5,keyasint,omitempty"`
	Reason     string     `cbor:"6,keyasint,omitempty"`
	Source     string     `cbor:"7,keyasint,omitempty"`
	Count      uint64     `cbor:"8,keyasint,omitempty"`
	Attributes Attributes `cbor:"9,keyasint,omitempty"`
	Seq        uint64     `cbor:"10,keyasint"`
}

// trailRecord is what the store has under a sequence number.
type trailRecord struct {
	Previous []byte `cbor:"1,keyasint"`
	Content  []byte `cbor:"2,keyasint"` // a trailEntry
}

// trailHash chains an entry to the one before it.
func trailHash(previous, content []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("sallyport audit 1"))
	h.Write(previous)
	h.Write(content)
	return [32]byte(h.Sum(nil))
}

func identifierBytes(id identity.Identifier) []byte {
	if id == (identity.Identifier{}) {
		return nil
	}
	return id[:]
}

// Chained returns the entry as the one with a number, after one with a hash.
func (e AuditEntry) Chained(seq uint64, previous [32]byte) (AuditEntry, error) {
	content, err := cbor.Marshal(trailEntry{
		Time: e.Time.UnixMilli(), Event: e.Event, Actor: identifierBytes(e.Actor), Subject: identifierBytes(e.Subject), Ticket: e.Ticket,
		Reason: e.Reason, Source: e.Source, Count: e.Count, Attributes: e.Attributes, Seq: seq,
	})
	if err != nil {
		return e, err
	}
	e.Seq, e.Previous, e.content, e.Hash = seq, previous, content, trailHash(previous[:], content)
	return e, nil
}

// record appends an entry to the trail, and removes the oldest beyond the bound.
func record(tx Tx, e AuditEntry) error {
	last, hash, err := tx.LastEntry()
	if err != nil {
		return err
	}
	if e, err = e.Chained(last+1, hash); err != nil {
		return err
	}
	if err := tx.PutEntry(e); err != nil || e.Seq <= AuditEntries {
		return err
	}
	return tx.DeleteEntries(e.Seq - AuditEntries)
}

// readTrail reads a stored entry.
func readTrail(key, data []byte) (e AuditEntry, err error) {
	var r trailRecord
	var t trailEntry
	if err := errors.Join(cbor.Unmarshal(data, &r), cbor.Unmarshal(r.Content, &t)); err != nil || len(r.Previous) != sha256.Size || len(key) != 8 {
		return e, fmt.Errorf("%w: entry %x cannot be read: %w", ErrTrail, key, err)
	}
	if t.Seq != binary.BigEndian.Uint64(key) {
		return e, fmt.Errorf("%w: entry %d stands at %d", ErrTrail, t.Seq, binary.BigEndian.Uint64(key))
	}
	e = AuditEntry{
		Seq: t.Seq, Time: time.UnixMilli(t.Time), Event: t.Event, Ticket: t.Ticket, Reason: t.Reason, Source: t.Source, Count: t.Count,
		Attributes: t.Attributes, Previous: [32]byte(r.Previous), Hash: trailHash(r.Previous, r.Content),
		content: r.Content,
	}
	copy(e.Actor[:], t.Actor)
	copy(e.Subject[:], t.Subject)
	return e, nil
}

func (s *store) Record(ctx context.Context, e AuditEntry) error {
	return s.batch(ctx, func(tx Tx) error { return record(tx, e) })
}

func (s *store) Audit(ctx context.Context, after uint64, limit int) (entries []AuditEntry, err error) {
	err = s.view(ctx, func(tx Tx) error {
		entries, err = tx.Entries(after, limit)
		return err
	})
	return entries, err
}

// Chain verifies a trail, entry by entry. The zero Chain begins with any entry.
type Chain struct {
	Entries uint64
	First   uint64 // the sequence number that it began with
	Last    uint64
	Head    [32]byte // the Hash of the last entry
}

// Next checks one more entry. The error matches ErrTrail.
func (c *Chain) Next(e AuditEntry) error {
	switch {
	case c.Entries == 0:
		c.First = e.Seq
		if e.Seq == 1 && e.Previous != ([32]byte{}) {
			return fmt.Errorf("%w: the first entry follows another one", ErrTrail)
		}
	case e.Seq != c.Last+1:
		return fmt.Errorf("%w: after entry %d comes %d", ErrTrail, c.Last, e.Seq)
	case e.Previous != c.Head:
		return fmt.Errorf("%w: entry %d does not follow %d: one of both was changed", ErrTrail, e.Seq, c.Last)
	}
	c.Entries++
	c.Last, c.Head = e.Seq, e.Hash
	return nil
}

// Content returns the entry as it is stored and hashed; it is not to be changed.
func (e *AuditEntry) Content() []byte { return e.content }

// ReadAuditEntry reads an entry that was exported: its sequence number, the hash of the entry before, and its content.
func ReadAuditEntry(seq uint64, previous, content []byte) (AuditEntry, error) {
	data, err := cbor.Marshal(trailRecord{Previous: previous, Content: content})
	if err != nil {
		return AuditEntry{}, err
	}
	return readTrail(binary.BigEndian.AppendUint64(nil, seq), data)
}
