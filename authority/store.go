package authority

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"sallyport/crypto/identity"
)

// Attributes are what the authority says about a member. Keys and values are UTF-8 text on the way in, bytes on the way out.
type Attributes = identity.Attributes

// Well-known attributes (docs/protocol/02 §5.5).
const (
	RoleAttribute         = "ockam-role"
	RoleEnroller          = "enroller"
	RelayAttribute        = "ockam-relay"
	TLSAttribute          = "ockam-tls-certificate"
	TrustContextAttribute = "trust_context_id"
)

// givesEnroller reports whether attributes make an enroller.
func givesEnroller(a Attributes) bool { return a[RoleAttribute] == RoleEnroller }

// Member is one row of the member list.
type Member struct {
	ID         identity.Identifier
	Attributes Attributes
	AddedBy    identity.Identifier // the enroller; the authority itself for pre-trusted members
	AddedAt    time.Time           // to the second
	PreTrusted bool

	// What follows is the store's to write, but Blocked by Block alone.
	Blocked           bool
	Ticket            string    // the reference of the ticket that the member came with, if any
	LastSeen          time.Time // when it last fetched a credential; zero if it never did
	CredentialExpires time.Time // the end of its last credential; zero if it has none
}

// CodeHash is the SHA-256 of a one-time code, by which the store knows it.
type CodeHash [sha256.Size]byte

// Token is an enrollment ticket as it is stored.
type Token struct {
	Hash       CodeHash
	Reference  string // names the ticket in logs; not secret
	Attributes Attributes
	IssuedBy   identity.Identifier
	ExpiresAt  time.Time
	Uses       uint64 // how many identities it still admits; 0 counts as 1
	Used       uint64 // how many it has admitted
	IssuedAt   time.Time
}

// Outcome is what became of an attempt to redeem a code.
type Outcome string

// The outcomes of a redemption.
const (
	Redeemed      Outcome = "ok"
	AlreadyMember Outcome = "already_member" // nothing was spent
	CodeUsed      Outcome = "used"
	CodeExpired   Outcome = "expired"
	CodeUnknown   Outcome = "unknown"
	CodeRevoked   Outcome = "revoked"
)

// Redemption is the result of an attempt.
type Redemption struct {
	Outcome   Outcome
	Reference string // of the ticket, empty if the code is unknown
	Left      uint64 // uses left after this one
}

// SpentRetention is how long a used or expired code can be told from an unknown one.
const SpentRetention = 30 * 24 * time.Hour

// ErrStoreBusy reports a store that another process has open.
var ErrStoreBusy = errors.New("authority: the store is in use by another process")

// ErrStoreBroken reports a store's file that cannot be read.
var ErrStoreBroken = errors.New("authority: the store is broken")

// ErrStoreAway reports a store whose database does not answer at present: nothing was changed, unless the error says that this is not known.
var ErrStoreAway = errors.New("authority: the store is away")

// Store keeps members, codes and the audit trail. Every method is one transaction: when it returns without error its effect is
// durable, and when it fails it had none. Methods may be called from several goroutines at once. Who does it and when they take from
// WithOrigin.
type Store interface {
	// Member returns one member; ok is false if there is none.
	Member(ctx context.Context, id identity.Identifier) (m Member, ok bool, err error)
	// Members returns all members in the order of their identifiers.
	Members(ctx context.Context) ([]Member, error)
	// PutMember adds a member or replaces its row. allow sees the row that is there, nil if none, inside the transaction; its
	// error is returned as it is and nothing is written. A nil allow allows everything. The pre-trusted mark of a row stays.
	PutMember(ctx context.Context, m Member, allow func(old *Member) error) error
	// DeleteMembers removes the members among ids, all if ids is nil, for which allow returns nil. It returns the first error of
	// allow; the others are removed nevertheless. Unknown ids are skipped. Those removed are revoked.
	DeleteMembers(ctx context.Context, ids []identity.Identifier, allow func(old *Member) error) error
	// ReplacePreTrusted removes all pre-trusted rows and puts members in their place, over other rows if need be.
	ReplacePreTrusted(ctx context.Context, members []Member) error
	// AddToken stores a new ticket.
	AddToken(ctx context.Context, t Token, now time.Time) error
	// Tokens returns the tickets that can still be used.
	Tokens(ctx context.Context, now time.Time) ([]Token, error)
	// RevokeToken spends all uses of the ticket with a reference; ErrNoTicket if there is none.
	RevokeToken(ctx context.Context, reference string) error
	// Redeem spends one use of a code and makes who a member with the ticket's attributes. Every attempt goes into the audit trail, but
	// that of a member, and one with an unknown code.
	Redeem(ctx context.Context, hash CodeHash, who identity.Identifier, now time.Time) (Redemption, error)
	// Issued notes that a member got a credential.
	Issued(ctx context.Context, id identity.Identifier, attributes Attributes, expires time.Time) error
	// Block changes whether a member is blocked, and revokes or restores it; ErrNoMember if it is none. allow is as for PutMember.
	Block(ctx context.Context, id identity.Identifier, blocked bool, allow func(old *Member) error) error
	// Revocations returns the list of revocations with at most limit of those after a number that are kept, in order.
	Revocations(ctx context.Context, after uint64, limit int) (RevocationList, error)
	// RevocationOf returns the last revocation about an identity that is kept.
	RevocationOf(ctx context.Context, id identity.Identifier) (r Revocation, ok bool, err error)
	// CredentialTTL returns what SetCredentialTTL stored, 0 if nothing.
	CredentialTTL(ctx context.Context) (time.Duration, error)
	// SetCredentialTTL stores how long credentials are valid.
	SetCredentialTTL(ctx context.Context, ttl time.Duration) error
	// Record appends an entry to the audit trail, which the store numbers and chains.
	Record(ctx context.Context, e AuditEntry) error
	// Audit returns entries after a sequence number, oldest first, at most limit.
	Audit(ctx context.Context, after uint64, limit int) ([]AuditEntry, error)
	// Copy writes the store as it is at one moment to w, as the file of an embedded store. While w is slow, changes may have to wait.
	Copy(ctx context.Context, w io.Writer) error
	// Close releases the store.
	Close() error
}
