package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/routing"
)

// channelRows are about secure channels and what is in them.
var channelRows = []row{
	{
		name: "silent", number: 4, long: true, attack: "300 channels of strangers with the bank, through the relay, 300 pings to its outlet, and then nothing more",
		promised: "the bank has ended all of them, and their connections to the server, 60 s later (75 s here)",
		run:      silentChannels,
	},
	{
		name: "stolen-key", stage: members, attack: "a thief of the bank's channel key poses as the shop to the bank, with all that the shop says of itself",
		promised: "the bank accepts no channel of the thief's; with the shop's own key the same client has one",
		run:      stolenKey,
	},
	{
		name: "forward-secrecy", stage: members, attack: "a recorded channel with the bank, read with all long-term keys of both sides",
		promised: "not one part of it can be read; with the ephemeral key, which is gone, the same reader reads all",
		run:      forwardSecrecy,
	},
}

func silentChannels(ctx context.Context, s *stage) (string, error) {
	count := func() (channels, portals float64, err error) {
		if channels, err = s.metric("bank", "sallyport_secure_channels"); err != nil {
			return 0, 0, err
		}
		portals, err = s.metric("bank", "sallyport_portal_connections")
		return channels, portals, err
	}
	channels, portals, err := count()
	if err != nil {
		return "", err
	}
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	gone := false
	defer func() {
		if !gone {
			v.close()
		}
	}()
	conn, err := v.channel(ctx, s.relay)
	if err != nil {
		return "", err
	}
	for range 300 {
		c, err := v.channels.Dial(ctx, through(conn, "forward_to_db", "api"), v.options)
		if err != nil {
			return "", err
		}
		b, err := v.router.OpenMailbox(ctx, through(c, "db"))
		if err != nil {
			return "", err
		}
		b.Send(through(c, "db"), []byte{0}) // a Ping
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err = b.Receive(one) // the Pong: the outlet has connected
		cancel()
		if err != nil {
			return "", err
		}
	}
	c1, p1, err := count()
	if err != nil {
		return "", err
	}
	if c1 < channels+300 || p1 < portals+300 {
		return "", fmt.Errorf("%.0f channels and %.0f connections of %.0f and %.0f before: the attack did not work", c1, p1, channels, portals)
	}
	// Gone without a word: the process stands still while its connection with the relay stays. It is this one, so its loops are stopped.
	v.group.Stop()
	v.channels.Stop()
	gone = true
	began := time.Now()
	for time.Since(began) < 75*time.Second && ctx.Err() == nil {
		c2, p2, err := count()
		if err != nil {
			return "", err
		}
		if c2 <= channels && p2 <= portals {
			return fmt.Sprintf("%.0f channels and %.0f connections ended within %v", c1-channels, p1-portals, time.Since(began).Round(time.Second)), nil
		}
		time.Sleep(time.Second)
	}
	c2, p2, _ := count()
	return "", fmt.Errorf("%.0f channels and %.0f connections, %.0f and %.0f before", c2, p2, channels, portals)
}

// shake opens a channel with a node over bare TCP, as who has a secret and says something of itself, and returns what went over the line. There
// is no answer to message 3: what is sent through the channel shows whether it is one.
func shake(at string, public [32]byte, secret *ecdh.PrivateKey, payload []byte, ephemeral []byte) (t recorded, answered bool, err error) {
	p, err := newRawPeer(at)
	if err != nil {
		return t, false, err
	}
	defer p.Close()
	me := routing.LocalRoute("me")
	h := channel.NewInitiator(channel.Config{
		Static: public, Rand: bytes.NewReader(ephemeral), Payload: func() ([]byte, error) { return payload, nil },
		VerifyPeer: func([32]byte, []byte) error { return nil },
		DH: func(peer [32]byte) (out [32]byte, err error) {
			key, err := ecdh.X25519().NewPublicKey(peer[:])
			if err != nil {
				return out, err
			}
			b, err := secret.ECDH(key)
			copy(out[:], b)
			return out, err
		},
	})
	if t.m1, err = h.Start(); err != nil {
		return t, false, err
	}
	if err := p.send(routing.LocalRoute("api"), me, t.m1); err != nil {
		return t, false, err
	}
	there, m2, err := p.receive(10 * time.Second)
	if err != nil {
		return t, false, fmt.Errorf("message 2: %w", err)
	}
	t.m2 = m2
	if t.m3, _, err = h.Handle(m2); err != nil {
		return t, false, err
	}
	if err := p.send(there, me, t.m3); err != nil {
		return t, false, err
	}
	var sealer channel.Sealer
	var opener channel.Opener
	keys := h.Keys()
	sealer.Init(&keys.Send)
	opener.Init(&keys.Receive)
	plain := append([]byte(channel.PayloadPrefix), routing.AppendMessage(nil, routing.LocalRoute("echo"), me, []byte(secretText))...)
	plain = append(plain, channel.EmptyPadding)
	t.there = make([]byte, len(plain)+channel.Overhead)
	if err := sealer.Seal(t.there, plain); err != nil {
		return t, false, err
	}
	if err := p.send(there, me, t.there); err != nil {
		return t, false, err
	}
	for {
		_, back, err := p.receive(2 * time.Second)
		if err != nil {
			return t, false, nil
		}
		if b, err := opener.Open(back); err == nil && bytes.Contains(b, []byte(secretText)) {
			return t, true, nil
		}
	}
}

const secretText = "what only the two of them know"

func stolenKey(ctx context.Context, s *stage) (string, error) {
	bank, err := stolen(s.home("bank"))
	if err != nil {
		return "", err
	}
	shop, err := stolen(s.home("shop"))
	if err != nil {
		return "", err
	}
	public := [32]byte(shop.secret.PublicKey().Bytes())
	// What a member says of itself is no secret: everybody whom it opened a channel to has it.
	payload := identity.EncodePayload(identity.Payload{History: shop.history, Attestation: shop.attestation})
	ephemeral := func() []byte { b := make([]byte, 32); _, _ = rand.Read(b); return b }
	for what, secret := range map[string]*ecdh.PrivateKey{"the bank's key": bank.secret, "a key of its own": mustKey(ephemeral())} {
		if _, answered, err := shake(s.bank, public, secret, payload, ephemeral()); err != nil || answered {
			return "", fmt.Errorf("as the shop with %s: answered %v, %w", what, answered, err)
		}
	}
	// As itself, under a key that the shop's attestation is not about.
	thief := mustKey(ephemeral())
	if _, answered, err := shake(s.bank, [32]byte(thief.PublicKey().Bytes()), thief, payload, ephemeral()); err != nil || answered {
		return "", fmt.Errorf("with the shop's attestation and another key: answered %v, %w", answered, err)
	}
	if _, answered, err := shake(s.bank, public, shop.secret, payload, ephemeral()); err != nil || !answered {
		return "", fmt.Errorf("with the shop's own key the client has no channel: answered %v, %w", answered, err)
	}
	return "three tries came to nothing, the shop's own key works; the key alone lets a thief pose as the bank, until its identity is revoked", nil
}

func mustKey(b []byte) *ecdh.PrivateKey {
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		panic(err) // 32 bytes are always one
	}
	return k
}

func forwardSecrecy(ctx context.Context, s *stage) (string, error) {
	bank, err := stolen(s.home("bank"))
	if err != nil {
		return "", err
	}
	shop, err := stolen(s.home("shop"))
	if err != nil {
		return "", err
	}
	ephemeral := make([]byte, 32)
	_, _ = rand.Read(ephemeral)
	payload := identity.EncodePayload(identity.Payload{History: shop.history, Attestation: shop.attestation})
	t, answered, err := shake(s.bank, [32]byte(shop.secret.PublicKey().Bytes()), shop.secret, payload, ephemeral)
	if err != nil || !answered {
		return "", fmt.Errorf("no channel to record: answered %v, %w", answered, err)
	}
	dh := func(k *ecdh.PrivateKey, public []byte) []byte {
		p, err := ecdh.X25519().NewPublicKey(public)
		if err != nil {
			return nil
		}
		b, err := k.ECDH(p)
		if err != nil {
			return nil
		}
		return b
	}
	ei, er := t.m1[:32], t.m2[:32]
	es, se := dh(bank.secret, ei), dh(shop.secret, er) // which long-term keys give
	parts, last := t.read(dh(mustKey(ephemeral), er), es, se)
	if parts != 5 || !bytes.Contains(last, []byte(secretText)) {
		return "", fmt.Errorf("with the ephemeral key %d of 5 parts were read: the reader is wrong", parts)
	}
	guesses := [][]byte{nil, make([]byte, 32), es, se, dh(bank.secret, er), dh(shop.secret, ei), dh(bank.secret, shop.secret.PublicKey().Bytes()), ei, er}
	for i, ee := range guesses {
		if parts, last := t.read(ee, es, se); parts > 0 {
			return "", fmt.Errorf("guess %d reads %d parts: %q", i, parts, last)
		}
	}
	return fmt.Sprintf("0 of 5 parts with the long-term keys of both and %d guesses, 5 of 5 with the ephemeral key", len(guesses)), nil
}
