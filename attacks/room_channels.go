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
		name: "stolen-key", stage: members, attack: "a thief of the bank's primary key poses as the shop to the bank, with all that the shop says of itself",
		promised: "the bank accepts no channel of the thief's; with the shop's own key the same client has one",
		run:      stolenKey,
	},
	{
		name: "forward-secrecy", attack: "a recorded channel, read with all keys of both sides but the ephemeral ones",
		promised: "not one part of it can be read; with an ephemeral key, which is gone, the same reader reads all",
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

const secretText = "what only the two of them know"

// shake opens a channel with a node over bare TCP, as who has a channel key and says something of itself. There is no answer to message 3: an
// answer to what is sent through the channel shows whether it is one.
func shake(at string, public [32]byte, dh func([32]byte) ([32]byte, error), says []byte) (answered bool, err error) {
	p, err := newRawPeer(at)
	if err != nil {
		return false, err
	}
	defer p.Close()
	me := routing.LocalRoute("me")
	h := channel.NewInitiator(channel.Config{
		Static: public, DH: dh, Payload: func() ([]byte, error) { return says, nil }, VerifyPeer: func([32]byte, []byte) error { return nil },
	})
	m1, err := h.Start()
	if err != nil {
		return false, err
	}
	if err := p.send(routing.LocalRoute("api"), me, m1); err != nil {
		return false, err
	}
	there, m2, err := p.receive(10 * time.Second)
	if err != nil {
		return false, fmt.Errorf("message 2: %w", err)
	}
	m3, _, err := h.Handle(m2)
	if err != nil {
		return false, err
	}
	if err := p.send(there, me, m3); err != nil {
		return false, err
	}
	sealed, opener, err := firstMessage(h.Keys())
	if err != nil {
		return false, err
	}
	if err := p.send(there, me, sealed); err != nil {
		return false, err
	}
	for {
		_, back, err := p.receive(2 * time.Second)
		if err != nil {
			return false, nil
		}
		if b, err := opener.Open(back); err == nil && bytes.Contains(b, []byte(secretText)) {
			return true, nil
		}
	}
}

// firstMessage seals a message to the echo service, and returns what opens the answer.
func firstMessage(keys channel.Keys) (sealed []byte, opener *channel.Opener, err error) {
	var sealer channel.Sealer
	opener = &channel.Opener{}
	sealer.Init(&keys.Send)
	opener.Init(&keys.Receive)
	plain := append([]byte(channel.PayloadPrefix), routing.AppendMessage(nil, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte(secretText))...)
	plain = append(plain, channel.EmptyPadding)
	sealed = make([]byte, len(plain)+channel.Overhead)
	return sealed, opener, sealer.Seal(sealed, plain)
}

func stolenKey(ctx context.Context, s *stage) (string, error) {
	bank, err := stolen(ctx, s.home("bank"))
	if err != nil {
		return "", err
	}
	shop, err := stolen(ctx, s.home("shop"))
	if err != nil {
		return "", err
	}
	with := func(p person) func([32]byte) ([32]byte, error) {
		return func(peer [32]byte) ([32]byte, error) { return p.m.DH(ctx, p.key, peer) }
	}
	// What a member says of itself is no secret: everybody whom it opened a channel to has it.
	for what, try := range map[string]func() (bool, error){
		"the shop's public key and the bank's secret": func() (bool, error) { return shake(s.bank, shop.key.Public, with(bank), shop.says()) },
		"the bank's key and what the shop says":       func() (bool, error) { return shake(s.bank, bank.key.Public, with(bank), shop.says()) },
		"the shop's history and a key that the bank attests": func() (bool, error) {
			mixed := identity.EncodePayload(identity.Payload{History: shop.history, Attestation: bank.key.Attestation})
			return shake(s.bank, bank.key.Public, with(bank), mixed)
		},
	} {
		if answered, err := try(); err != nil || answered {
			return "", fmt.Errorf("with %s: answered %v, %w", what, answered, err)
		}
	}
	if answered, err := shake(s.bank, shop.key.Public, with(shop), shop.says()); err != nil || !answered {
		return "", fmt.Errorf("with the shop's own key the client has no channel: answered %v, %w", answered, err)
	}
	return "three tries came to nothing, the shop's own key works; the key lets a thief pose as the bank, until that is revoked, and as nobody else", nil
}

func forwardSecrecy(ctx context.Context, _ *stage) (string, error) {
	bank, err := newPerson(ctx)
	if err != nil {
		return "", err
	}
	shop, err := newPerson(ctx)
	if err != nil {
		return "", err
	}
	side := func(p person, ephemeral []byte) channel.Config {
		return channel.Config{
			Static: p.key.Public, DH: func(peer [32]byte) ([32]byte, error) { return p.m.DH(ctx, p.key, peer) }, Rand: bytes.NewReader(ephemeral),
			Payload: func() ([]byte, error) { return p.says(), nil }, VerifyPeer: func([32]byte, []byte) error { return nil },
		}
	}
	ei, er := make([]byte, 32), make([]byte, 32)
	_, _ = rand.Read(ei)
	_, _ = rand.Read(er)
	i, r := channel.NewInitiator(side(shop, ei)), channel.NewResponder(side(bank, er))
	var t recorded
	if t.m1, err = i.Start(); err != nil {
		return "", err
	}
	if t.m2, _, err = r.Handle(t.m1); err != nil {
		return "", err
	}
	if t.m3, _, err = i.Handle(t.m2); err != nil {
		return "", err
	}
	if _, done, err := r.Handle(t.m3); err != nil || !done {
		return "", fmt.Errorf("the handshake is not done: %w", err)
	}
	if t.there, _, err = firstMessage(i.Keys()); err != nil {
		return "", err
	}
	secret, err := ecdh.X25519().NewPrivateKey(ei)
	if err != nil {
		return "", err
	}
	public, err := ecdh.X25519().NewPublicKey(t.m2[:32])
	if err != nil {
		return "", err
	}
	ee, err := secret.ECDH(public)
	if err != nil {
		return "", err
	}
	pi, pr := t.m1[:32], t.m2[:32]               // public ephemeral keys
	es, se := bank.dh(ctx, pi), shop.dh(ctx, pr) // which the keys that stay give
	parts, last := t.read(ee, es, se)
	if parts != 5 || !bytes.Contains(last, []byte(secretText)) {
		return "", fmt.Errorf("with the ephemeral key %d of 5 parts were read: the reader is wrong", parts)
	}
	guesses := [][]byte{nil, make([]byte, 32), es, se, bank.dh(ctx, pr), shop.dh(ctx, pi), bank.dh(ctx, shop.key.Public[:]), pi, pr}
	for k, guess := range guesses {
		if parts, last := t.read(guess, es, se); parts > 0 {
			return "", fmt.Errorf("guess %d reads %d parts: %q", k, parts, last)
		}
	}
	return fmt.Sprintf("0 of 5 parts with all other keys and %d guesses, 5 of 5 with the ephemeral key", len(guesses)), nil
}
