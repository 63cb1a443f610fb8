package authority

import (
	"context"
	"io"
	"time"

	"sallyport/crypto/identity"
)

// Database keeps the rows of a store: in a file (OpenDatabase), or in PostgreSQL (authority/postgres). NewStore makes a Store of one, so
// that what a store does is written once.
type Database interface {
	// View runs f to read. Each method of tx sees the rows at one moment, different ones perhaps at different moments.
	View(ctx context.Context, f func(tx Tx) error) error
	// Snapshot is View with all rows as they are at one moment.
	Snapshot(ctx context.Context, f func(tx Tx) error) error
	// Update runs f in a transaction, with no other writer beside it. When it returns nil, what f wrote is durable; an error of f is returned
	// as it is, and nothing was written. f may be run more than once.
	Update(ctx context.Context, f func(tx Tx) error) error
	// Batch is Update that waits a moment for others, to be one transaction with them.
	Batch(ctx context.Context, f func(tx Tx) error) error
	// Load is Update for many rows: however long it takes.
	Load(ctx context.Context, f func(tx Tx) error) error
	// Copy writes all rows to w, as the file of an embedded database.
	Copy(ctx context.Context, w io.Writer) error
	// Close releases the database.
	Close() error
}

// Tx is a transaction of a Database. An f that got an error from it returns one. Slices and maps of rows are the caller's.
type Tx interface {
	Member(id identity.Identifier) (m MemberRow, ok bool, err error)
	// Members calls f for all rows in the order of their identifiers.
	Members(f func(MemberRow) error) error
	PutMember(MemberRow) error
	DeleteMember(id identity.Identifier) error

	Token(hash CodeHash) (t Token, ok bool, err error)
	// TokenNamed returns the ticket with a reference.
	TokenNamed(reference string) (t Token, ok bool, err error)
	Tokens(f func(Token) error) error
	// ExpiredTokens returns at most limit that expire at a time or before.
	ExpiredTokens(now time.Time, limit int) ([]Token, error)
	PutToken(Token) error
	DeleteToken(Token) error

	SpentCode(hash CodeHash) (c SpentCode, ok bool, err error)
	SpentCodes(f func(SpentCode) error) error
	PutSpentCode(SpentCode) error
	// ForgetSpentCodes removes at most limit of those whose Until has come.
	ForgetSpentCodes(now time.Time, limit int) error

	// Revocations returns at most limit after a number, in order.
	Revocations(after uint64, limit int) (RevocationList, error)
	// RevocationOf returns the last one about an identity that is kept.
	RevocationOf(id identity.Identifier) (r Revocation, ok bool, err error)
	// PutRevocation appends one, whose number is the list's head from then on.
	PutRevocation(Revocation) error
	// DeleteRevocations removes those with numbers up to last.
	DeleteRevocations(last uint64) error
	// SetRevocationList changes the list's name and its head.
	SetRevocationList(name []byte, head uint64) error

	// Entries returns at most limit entries of the trail after a number, in order.
	Entries(after uint64, limit int) ([]AuditEntry, error)
	// LastEntry returns the number of the last entry, 0 if there was none, and its hash, zero if it is not there.
	LastEntry() (seq uint64, hash [32]byte, err error)
	// PutEntry appends one that AuditEntry.Chained returned.
	PutEntry(AuditEntry) error
	// DeleteEntries removes those with numbers up to last.
	DeleteEntries(last uint64) error

	// CredentialTTL returns 0 if none was set.
	CredentialTTL() (time.Duration, error)
	SetCredentialTTL(time.Duration) error
}

// MemberRow is a member as it is kept.
type MemberRow struct {
	Member
	AuditedAt time.Time // when the trail last had an entry about its credentials, to the millisecond; zero if never
	Issued    uint64    // credentials since
}

// SpentCode is a code that was used up, has expired or was revoked.
type SpentCode struct {
	Hash      CodeHash
	Reference string
	Outcome   Outcome   // of who tries it
	Until     time.Time // when it is forgotten, to the millisecond
}
