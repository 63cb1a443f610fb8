package udp

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"

	"sallyport/routing"
)

// What a guarded socket sends to addresses that have not proved that they receive: as much as came from them, and beyond that, to all of
// them together, what handshakes with peers that have just come need.
const (
	strangersRate  = 32 << 10 // bytes a second
	strangersBurst = 128 << 10
)

// cookieMark begins the text of a cookie. No random address begins so.
const cookieMark = "ck"

// cookieSize is the length of a cookie's text.
const cookieSize = len(cookieMark) + 32

// guard keeps a socket from sending where nobody asked for it: whoever claims another one's address would have the socket send there. A
// message to an address that has proved nothing has a cookie in front of its return route; whoever got it answers along that route, as
// every node does, the reference's too, and so shows that it receives at its address.
type guard struct {
	secret [32]byte
	left   float64
	at     time.Time
}

// Guard makes b send to addresses that it was heard from only, and much only to those that proved themselves. It is for a socket that strangers
// reach. Not on a shard.
func (b *Bind) Guard(ctx context.Context) error {
	g := &guard{left: strangersBurst, at: time.Now()}
	_, _ = rand.Read(g.secret[:]) // never fails (crypto/rand)
	return b.shard.Do(ctx, func() { b.guard = g })
}

// cookie is the address that proves a peer's.
func (g *guard) cookie(peer netip.AddrPort) string {
	h := hmac.New(sha256.New, g.secret[:])
	h.Write([]byte(peer.String()))
	return cookieMark + hex.EncodeToString(h.Sum(nil)[:16])
}

// spend takes n bytes of what may be sent to a peer that has proved nothing.
func (g *guard) spend(p *peer, n int, now time.Time) bool {
	g.left = min(g.left+strangersRate*now.Sub(g.at).Seconds(), strangersBurst)
	g.at = now
	beyond := n - p.credit
	if float64(beyond) > g.left {
		return false
	}
	p.credit = max(p.credit-n, 0)
	if beyond > 0 {
		g.left -= float64(beyond)
	}
	return true
}

// admits decides about a message of size bytes to an address; ret is the return route that it goes with.
func (b *Bind) admits(to netip.AddrPort, onward, ret routing.Route, size int) (routing.Route, bool) {
	e := b.parts.peers[to]
	if e == nil {
		b.t.Stats.Unheard.Add(1)
		return ret, false
	}
	p := e.Value.(*peer)
	if p.proven {
		return ret, true
	}
	if ret.Len() > 0 {
		ret = routing.LocalRoute(b.guard.cookie(to)).Concat(ret)
	}
	body := routing.HeaderLen(onward, ret, size) + size
	parts := (body + b.partSize() - 1) / b.partSize()
	if !b.guard.spend(p, body+parts*fragmentRoom, b.shard.Loop().Now()) {
		b.t.Stats.Unproven.Add(1)
		return ret, false
	}
	return ret, true
}

// check takes a cookie off the onward route of a message from p. One that is right proves p's address; another one may be that of the address
// which p had before.
func (g *guard) check(p *peer, onward routing.Route) routing.Route {
	v := onward.FirstValue()
	if len(v) != cookieSize || string(v[:len(cookieMark)]) != cookieMark {
		return onward
	}
	if !p.proven {
		p.proven = hmac.Equal(v, []byte(g.cookie(p.addr)))
	}
	return onward.WithoutFirst()
}

// Prove implements routing.Prover.
func (b *Bind) Prove(rest routing.Route) {
	if b.guard == nil || rest.Len() == 0 {
		return
	}
	first := rest.First()
	at, err := netip.ParseAddrPort(first.Value)
	if first.Type != routing.UDP || err != nil {
		return
	}
	if e := b.parts.peers[at]; e != nil {
		e.Value.(*peer).proven = true
	}
}
