package identity

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"
)

// Payload is what one side of a handshake says of itself (docs/protocol/01 §7.4). Its parts are raw.
type Payload struct {
	History     []byte
	Attestation []byte
	Credentials [][]byte
}

// maxPayloadCredentials bounds the credentials in one payload; senders put one or none.
const maxPayloadCredentials = 8

// EncodePayload encodes a handshake's identity payload.
func EncodePayload(p Payload) []byte {
	b := append(appendArray(nil, 3), p.History...)
	b = append(b, p.Attestation...)
	return appendList(b, p.Credentials)
}

// DecodePayload takes a handshake's identity payload apart; the parts are slices of raw, and are verified and bounded on their
// own. The error matches ErrEncoding.
func DecodePayload(raw []byte) (Payload, error) {
	var p Payload
	r := &reader{b: raw}
	r.fields(3, func(i int) {
		switch i {
		case 0:
			p.History = r.raw()
		case 1:
			p.Attestation = r.raw()
		case 2:
			p.Credentials = readList(r)
		}
	})
	return p, r.err
}

func readList(r *reader) (list [][]byte) {
	r.array(func(i int) {
		if i >= maxPayloadCredentials {
			r.fail("more than %d credentials", maxPayloadCredentials)
			return
		}
		list = append(list, r.raw())
	})
	return list
}

// EncodeRefresh encodes what a channel's RefreshCredentials carries: [history, [credentials]].
func EncodeRefresh(history []byte, credentials [][]byte) []byte {
	return appendList(append(appendArray(nil, 2), history...), credentials)
}

// DecodeRefresh takes apart what EncodeRefresh made; the parts are slices of raw. The error matches ErrEncoding.
func DecodeRefresh(raw []byte) (history []byte, credentials [][]byte, err error) {
	r := &reader{b: raw}
	r.fields(2, func(i int) {
		if i == 0 {
			history = r.raw()
		} else {
			credentials = readList(r)
		}
	})
	return history, credentials, r.err
}

// ownTTL is for how long what this side shows in handshakes is shown without looking again whether it is still right: a stranger may
// begin as many handshakes as a line carries. Another process that rotates the identity is noticed after it.
const ownTTL = time.Second

// Own is what an identity of this side shows in handshakes: its history, and its key for secure channels, which the history's last change
// attests.
type Own struct {
	// History is encoded; not to be changed.
	History []byte
	Key     *PurposeKey
	read    time.Time
}

// Payload encodes the identity payload of a handshake.
func (o *Own) Payload(credentials [][]byte) []byte {
	return EncodePayload(Payload{History: o.History, Attestation: o.Key.Attestation, Credentials: credentials})
}

// Own returns what an identity shows in handshakes, and makes its key for secure channels if there is none that is valid for a while, as
// SecureChannelKey does. What was read and verified less than a second ago is not read and verified again.
func (m *Manager) Own(ctx context.Context, id Identifier) (*Own, error) {
	now := m.now()
	m.ownMu.Lock()
	own := m.own[id]
	m.ownMu.Unlock()
	if own != nil && !now.Before(own.read) && now.Sub(own.read) < ownTTL {
		return own, nil
	}
	key, err := m.SecureChannelKey(ctx, id)
	if err != nil {
		m.forgetOwn(id)
		return nil, err
	}
	history, err := m.History(ctx, id)
	if err != nil {
		m.forgetOwn(id)
		return nil, err
	}
	own = &Own{History: history, Key: key, read: now}
	m.ownMu.Lock()
	defer m.ownMu.Unlock()
	m.own[id] = own // as many as there are identities with keys here
	return own, nil
}

// Reread has the next handshake show what is stored of an identity now: another process has rotated it.
func (m *Manager) Reread(id Identifier) { m.forgetOwn(id) }

// forgetOwn has what an identity shows read again.
func (m *Manager) forgetOwn(id Identifier) {
	m.ownMu.Lock()
	defer m.ownMu.Unlock()
	delete(m.own, id)
}

// Payload builds this side's identity payload for a handshake, with the key that it attests.
func (m *Manager) Payload(ctx context.Context, id Identifier, credentials [][]byte) ([]byte, *PurposeKey, error) {
	own, err := m.Own(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return own.Payload(credentials), own.Key, nil
}

// Peer is the verified other side of a handshake. Its credentials are raw and not verified.
type Peer struct {
	Identity    *Identity
	Credentials [][]byte
}

// VerifyPeer verifies a peer's identity payload and that it attests the static key used in the handshake
// (docs/protocol/01 §7.8, steps 1 to 3). Whether the peer is trusted is for the caller to decide. payload is not kept. The error
// matches ErrEncoding, ErrVerification, ErrConsistency, ErrAttestation, ErrKeyType or ErrKeyData.
func (m *Manager) VerifyPeer(ctx context.Context, payload []byte, static [32]byte) (*Peer, error) {
	p, err := DecodePayload(payload)
	if err != nil {
		return nil, fmt.Errorf("identity payload: %w", err)
	}
	i, err := m.Import(ctx, p.History, nil)
	if err != nil {
		return nil, err
	}
	a, err := decodeAttestation(p.Attestation)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	if a.Subject != i.id {
		return nil, fmt.Errorf("%w: it is of %s, not of %s", ErrAttestation, a.Subject, i.id)
	}
	// Import made sure that this history is the latest known.
	if err := a.verify(&m.proofs, i, m.seconds()); err != nil {
		return nil, err
	}
	if a.Purpose != SecureChannel {
		return nil, fmt.Errorf("%w: %s", ErrKeyType, a.Purpose)
	}
	if subtle.ConstantTimeCompare(a.X25519[:], static[:]) != 1 {
		return nil, ErrKeyData
	}
	credentials := make([][]byte, len(p.Credentials))
	for k, c := range p.Credentials {
		credentials[k] = append([]byte(nil), c...)
	}
	return &Peer{Identity: i, Credentials: credentials}, nil
}
