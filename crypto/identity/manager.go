package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/crypto/vault"
)

// Lifetimes (docs/protocol/02 §2.5, §3.2) and the tolerance for clocks that run ahead (§3.3).
const (
	DefaultLifetime = 10 * 365 * 24 * time.Hour
	// AttestationTTL is for how long a purpose key is attested; that of one that signs lasts as much longer as what it signs. It is replaced
	// after half of this time, so that for the other half the primary key need not be reached. The reference attests for five years.
	AttestationTTL   = 24 * time.Hour
	futureTolerance  = 60
	attestationSlack = time.Hour // an attestation says to be so much older than it is
)

// Store keeps change histories. Implementations are safe for concurrent use, also by several
// processes if they are on disk, and what a method stored is there for every later call.
type Store interface {
	// Identity returns the known history; ErrNotFound if there is none. It must come from Import, now or when it was stored.
	Identity(ctx context.Context, id Identifier) (*Identity, error)
	// PutIdentity stores a history if it is new or newer than the known one; an equal one changes nothing, an older or
	// conflicting one is ErrConsistency. It is atomic: of two at once, none overwrites the other's newer history.
	PutIdentity(ctx context.Context, i *Identity) error
}

// Options configure a Manager.
type Options struct {
	Vault vault.Vault
	Store Store
	// Keeper attests purpose keys in place of the vault's primary key: the Manager acts as identities whose histories it knows and whose primary
	// keys it has not. It can neither make nor rotate identities then, and needs no Vault.
	Keeper Keeper
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// PurposeLife replaces AttestationTTL; 0 leaves it.
	PurposeLife time.Duration
}

// Manager creates identities and works with their keys: primary keys, which a vault holds, make and attest purpose keys, which are in the
// memory of this process alone and do everything else. It is safe for concurrent use.
type Manager struct {
	vault  vault.Vault
	store  Store
	keeper Keeper // nil: the vault's primary keys attest
	now    func() time.Time
	life   time.Duration // of attestations

	keys    *vault.Software // purpose keys
	keysMu  sync.Mutex
	current map[purposeOf]*heldKey
	retired []retiredKey
	// refusals are the last failures of the keeper.
	refusals map[purposeOf]refusal
	// making holds one value while a purpose key is made.
	making chan struct{}

	proofs Proofs

	ownMu sync.Mutex
	own   map[Identifier]*Own
}

// New makes a Manager. Options must have a Store, and a Vault or a Keeper.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PurposeLife == 0 {
		o.PurposeLife = AttestationTTL
	}
	if o.Vault == nil {
		o.Vault = vault.NewMemory()
	}
	return &Manager{
		vault: o.Vault, store: o.Store, keeper: o.Keeper, now: o.Now, life: o.PurposeLife, making: make(chan struct{}, 1), own: map[Identifier]*Own{},
		keys: vault.NewMemory(), current: map[purposeOf]*heldKey{}, refusals: map[purposeOf]refusal{},
	}
}

func (m *Manager) seconds() Timestamp { return Timestamp(max(m.now().Unix(), 0)) }

// CreateOptions are the properties of a new identity.
type CreateOptions struct {
	Algorithm vault.KeyAlgorithm
	// Lifetime is how long its key may attest, in whole seconds; 0 is DefaultLifetime.
	Lifetime time.Duration
	// Key is a signing key already in the vault, whatever its algorithm; empty makes one.
	Key vault.Handle
	// OnlyAlgorithm refuses a vault that has no keys of Algorithm; else it makes one of P-256, which all have.
	OnlyAlgorithm bool
}

// Create makes an identity with a key in the vault (docs/protocol/02 §2.5).
func (m *Manager) Create(ctx context.Context, o CreateOptions) (*Identity, error) {
	if m.keeper != nil {
		return nil, fmt.Errorf("%w: a delegate makes no identities", ErrWrongSecretKey)
	}
	return m.change(ctx, nil, o, m.vault)
}

// RotateOptions are the properties of a new primary key.
type RotateOptions struct {
	// Algorithm of the new key; nil keeps that of the old one.
	Algorithm *vault.KeyAlgorithm
	// Vault holds the new key; nil is the vault of the old one. The caller works with a Manager of that vault afterwards.
	Vault vault.Vault
	// Lifetime is how long the new key may attest; 0 is DefaultLifetime.
	Lifetime time.Duration
}

// Rotate gives an identity a new primary key, signed by the old one, which is then deleted. Its purpose keys have to be attested anew, which
// happens when they are next used, and peers learn of it in the next handshake. If two rotate at once, one gets ErrConsistency. If only deleting
// the old key failed, the rotated identity is returned together with the error.
func (m *Manager) Rotate(ctx context.Context, id Identifier, o RotateOptions) (*Identity, error) {
	if m.keeper != nil {
		return nil, fmt.Errorf("%w: identity %s is rotated where it is", ErrWrongSecretKey, id)
	}
	known, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	defer m.forgetOwn(id)
	c := CreateOptions{Algorithm: known.Latest().Key.Algorithm, Lifetime: o.Lifetime}
	if o.Algorithm != nil {
		c.Algorithm, c.OnlyAlgorithm = *o.Algorithm, true
	}
	if o.Vault == nil {
		o.Vault = m.vault
	}
	rotated, err := m.change(ctx, known, c, o.Vault)
	if err != nil {
		return nil, err
	}
	// The identity works without the old key; that it could not be deleted is for the caller to log.
	if err := m.vault.DeleteSigningKey(ctx, vault.HandleOf(known.Latest().Key.Bytes)); err != nil {
		return rotated, fmt.Errorf("old key not deleted: %w", err)
	}
	return rotated, nil
}

// CheckKeys reports whether the vault has an identity's primary key, whole, and makes sure that there is a key for secure channels. The error
// matches ErrNotFound, vault.ErrNotFound or vault.ErrKey if that is the cause. With a Keeper there is only the key for channels to look for.
func (m *Manager) CheckKeys(ctx context.Context, id Identifier) error {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return err
	}
	if m.keeper != nil {
		_, err = m.SecureChannelKey(ctx, id)
		return err
	}
	if _, err := m.vault.VerifyingKey(ctx, vault.HandleOf(i.Latest().Key.Bytes)); err != nil {
		return fmt.Errorf("the primary key of identity %s: %w", id, err)
	}
	_, err = m.SecureChannelKey(ctx, id)
	return err
}

// Delete deletes the secrets of an identity: its primary key from the vault, its purpose keys from memory. Without them it can never act or
// be rotated again. Its history, which is public, stays in the Store.
func (m *Manager) Delete(ctx context.Context, id Identifier) error {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return err
	}
	defer m.forgetOwn(id)
	m.wipeKeys(id)
	if m.keeper != nil {
		return nil
	}
	return m.vault.DeleteSigningKey(ctx, vault.HandleOf(i.Latest().Key.Bytes))
}

// change appends a change to a history, or begins one, and stores it. A key made for it is deleted if that fails, unless the
// history may have been stored all the same: a key too many does no harm, a missing one ends the identity.
func (m *Manager) change(ctx context.Context, known *Identity, o CreateOptions, keys vault.Vault) (i *Identity, err error) {
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	if o.Lifetime < time.Second {
		return nil, fmt.Errorf("identity: a lifetime of %v is less than a second", o.Lifetime)
	}
	c := &Change{ValidFrom: m.seconds()}
	handle, maybeStored := o.Key, false
	if handle == "" {
		handle, c.Key, err = keys.GenerateSigningKey(ctx, o.Algorithm)
		if errors.Is(err, vault.ErrAlgorithm) && o.Algorithm != vault.P256 && !o.OnlyAlgorithm {
			handle, c.Key, err = keys.GenerateSigningKey(ctx, vault.P256)
		}
		defer func() {
			if i == nil && handle != "" && !maybeStored {
				_ = keys.DeleteSigningKey(context.WithoutCancel(ctx), handle)
			}
		}()
	} else {
		c.Key, err = keys.VerifyingKey(ctx, handle)
	}
	if err != nil {
		return nil, err
	}
	var previous *[32]byte
	if known != nil {
		previous = &known.Latest().Hash
		c.ValidFrom = max(c.ValidFrom, known.Latest().ValidFrom) // should the clock have been set back
	}
	c.ValidUntil = c.ValidFrom + Timestamp(o.Lifetime/time.Second)
	data := encodeChange(previous, c)
	digest := sha256.Sum256(data)
	sig, err := keys.Sign(ctx, handle, digest[:])
	if err != nil {
		return nil, err
	}
	var previousSig *vault.Signature
	if known != nil {
		s, err := m.signPrimary(ctx, known.id, known.Latest(), digest[:])
		if err != nil {
			return nil, err
		}
		previousSig = &s
	}
	made, err := Import(appendChange(known, data, sig, previousSig), nil)
	if err != nil {
		return nil, err
	}
	if err := m.store.PutIdentity(ctx, made); err != nil {
		maybeStored = !errors.Is(err, ErrConsistency)
		return nil, err
	}
	return made, nil
}

// Import verifies a history and stores it strictly: an older or conflicting one is ErrConsistency.
func (m *Manager) Import(ctx context.Context, raw []byte, expected *Identifier) (*Identity, error) {
	i, err := m.proofs.Import(raw, expected)
	if err != nil {
		return nil, err
	}
	if err := m.store.PutIdentity(ctx, i); err != nil {
		return nil, err
	}
	return i, nil
}

// ImportIgnoreOlder is Import that returns the known history, and no error, when the one given is older.
func (m *Manager) ImportIgnoreOlder(ctx context.Context, raw []byte) (*Identity, error) {
	i, err := m.proofs.Import(raw, nil)
	if err != nil {
		return nil, err
	}
	err = m.store.PutIdentity(ctx, i)
	if errors.Is(err, ErrConsistency) {
		if known, _ := m.store.Identity(ctx, i.id); known != nil && Compare(known, i) == Older {
			return known, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Identity returns a known identity.
func (m *Manager) Identity(ctx context.Context, id Identifier) (*Identity, error) {
	return m.store.Identity(ctx, id)
}

// History returns the encoded history of a known identity; it is not to be changed.
func (m *Manager) History(ctx context.Context, id Identifier) ([]byte, error) {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	return i.raw, nil
}
