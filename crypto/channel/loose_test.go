package channel

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"sallyport/crypto/aead"
)

// loosePair seals loose messages at any counters that go up. The plaintext is the counter in decimal.
type loosePair struct {
	s Sealer
	o LooseOpener
}

func newLoosePair() *loosePair {
	p, key := &loosePair{}, [32]byte{9}
	p.s.InitLoose(&key)
	p.o.Init(&key)
	return p
}

// at seals with counter n, as if those before it had been sent.
func (p *loosePair) at(n uint64) []byte {
	seal := func(n uint64) []byte {
		p.s.counter = n
		plain := fmt.Append(nil, n)
		b := make([]byte, len(plain)+Overhead)
		if err := p.s.Seal(b, plain); err != nil {
			panic(err)
		}
		return b
	}
	for next := (p.s.counter + looseInterval - 1) / looseInterval * looseInterval; next > 0 && next < n; next += looseInterval {
		seal(next) // the key is replaced here
	}
	return seal(n)
}

func (p *loosePair) open(t testing.TB, msg []byte, n uint64, want error) {
	t.Helper()
	plain, err := p.o.Open(bytes.Clone(msg))
	if want != nil {
		wantErr(t, fmt.Sprint("counter ", n), err, want)
		return
	}
	if err != nil {
		t.Errorf("counter %d: %v", n, err)
		return
	}
	wantBytes(t, "plaintext", plain, fmt.Append(nil, n))
}

// TestLooseKeys: both sides have the same keys, as HKDF by hand gives them, and they are neither those of the channel nor each other's.
func TestLooseKeys(t *testing.T) {
	k := Keys{Send: [32]byte{1}, Receive: [32]byte{2}, Hash: [32]byte{3}}
	other := Keys{Send: k.Receive, Receive: k.Send, Hash: k.Hash}
	mac := func(key []byte, text ...byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(text)
		return h.Sum(nil)
	}
	ours, theirs := k.Loose(), other.Loose()
	wantBytes(t, "send key", ours.Send[:], mac(mac(k.Hash[:], k.Send[:]...), append([]byte("sallyport loose"), 1)...))
	if ours.Send != theirs.Receive || ours.Receive != theirs.Send || ours.Send == ours.Receive || ours.Send == k.Send {
		t.Errorf("keys %x and %x", ours, theirs)
	}
}

// TestLooseLossReorderRepeat has a network lose, delay, repeat and damage loose messages, many in a row: each is accepted once, if it is not too old.
func TestLooseLossReorderRepeat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newLoosePair()
		sent, accepted := map[uint64][]byte{}, map[uint64]bool{}
		var counters []uint64
		next, highest := uint64(0), uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "messages") {
			next += uint64(rapid.SampledFrom([]int{1, 1, 1, 2, 33, 63, 64, 65, 700, 4095, 4096, 4097, 100_000, looseInterval - 5000}).Draw(t, "lost"))
			sent[next] = p.at(next)
			counters = append(counters, next)
			n := rapid.SampledFrom(counters[max(len(counters)-6, 0):]).Draw(t, "arrives")
			if rapid.IntRange(0, 4).Draw(t, "damaged") == 0 {
				seen, last := p.o.seen, p.o.opener.tracker
				b := bytes.Clone(sent[n])
				b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				if _, err := p.o.Open(b); err == nil || p.o.seen != seen || p.o.opener.tracker != last {
					t.Fatalf("damaged message %d: %v, or the state has changed", n, err)
				}
			}
			want := !accepted[n] && n+looseWindow > highest && n/looseInterval <= highest/looseInterval+1
			plain, err := p.o.Open(bytes.Clone(sent[n]))
			if (err == nil) != want || err != nil && err != ErrCounter {
				t.Fatalf("counter %d after %d: %v, want accepted %v", n, highest, err, want)
			}
			if err == nil {
				if string(plain) != fmt.Sprint(n) {
					t.Fatalf("counter %d: %q", n, plain)
				}
				accepted[n] = true
				highest = max(highest, n)
			}
		}
	})
}

// TestLooseWindow: what is remembered are the last 4096 counters, whatever the way there was.
func TestLooseWindow(t *testing.T) {
	p := newLoosePair()
	var msgs [][]byte
	const all = 3 * looseWindow
	for n := range uint64(all) {
		msgs = append(msgs, p.at(n))
	}
	p.open(t, msgs[40], 40, nil) // none has to come first
	p.open(t, msgs[5000], 5000, nil)
	p.open(t, msgs[5000-looseWindow], 0, ErrCounter)
	for n := uint64(5000 - looseWindow + 1); n < 5000; n++ {
		p.open(t, msgs[n], n, nil)
		p.open(t, msgs[n], n, ErrCounter)
	}
	p.open(t, msgs[all-1], all-1, nil)
	for n := uint64(0); n <= all-1-looseWindow; n++ {
		p.open(t, msgs[n], n, ErrCounter)
	}
	for n := uint64(all - looseWindow); n < all-1; n++ {
		p.open(t, msgs[n], n, nil)
	}
}

// TestSeenIsAsASet: what is remembered of counters is what a set of them says, also of those that were jumped over, wherever in the ring they are.
func TestSeenIsAsASet(t *testing.T) {
	r := rand.New(seeded(11))
	for _, jump := range []uint64{1, 2, 63, 64, 65, 130, looseWindow - 1, looseWindow, 2 * looseWindow} {
		var s seen
		accepted := map[uint64]bool{}
		for range 20000 {
			n := s.next + r.Uint64N(jump)
			switch r.IntN(5) {
			case 0:
				n = s.next // in order
			case 1:
				n = (s.next + 63) / 64 * 64 // the first of a word
			case 2:
				n = s.next - min(s.next, 1+r.Uint64N(looseWindow+2))
			case 3:
				n = s.next - min(s.next, 1+r.Uint64N(70))
			}
			fresh := n >= s.next || !accepted[n] && s.next-n <= looseWindow
			if s.fresh(n) != fresh {
				t.Fatalf("jumps of %d: %d is fresh: %v; the next in order is %d", jump, n, !fresh, s.next)
			}
			if fresh {
				s.add(n)
				accepted[n] = true
			}
		}
	}
	// One that begins anew has seen nothing.
	p := newLoosePair()
	first := p.at(3)
	p.open(t, first, 3, nil)
	p.o.Init(&[32]byte{9})
	p.open(t, first, 3, nil)
	empty := make([]byte, Overhead)
	must(t, p.s.Seal(empty, nil))
	plain, err := p.o.Open(empty)
	must(t, err)
	wantBytes(t, "empty plaintext", plain, nil)
}

// TestLooseRekeys: the key before and the next one are there, and no other.
func TestLooseRekeys(t *testing.T) {
	p := newLoosePair()
	before, late := p.at(looseInterval-3), p.at(looseInterval-2)
	p.open(t, before, looseInterval-3, nil)
	p.open(t, p.at(looseInterval+5), looseInterval+5, nil)
	p.open(t, late, looseInterval-2, nil) // overtaken
	tooFar := p.at(3 * looseInterval)
	p.open(t, tooFar, 0, ErrCounter)
	forged := bytes.Clone(tooFar)
	forged[7]++ // of what was sealed
	p.open(t, forged, 0, ErrCounter)
}

// TestLooseApart: neither of the two kinds opens the other's messages, a wiped one opens nothing, and nothing is allocated.
func TestLooseApart(t *testing.T) {
	k := Keys{Send: [32]byte{4}, Hash: [32]byte{5}}
	loose := k.Loose()
	var s, ls Sealer
	s.Init(&k.Send)
	ls.InitLoose(&loose.Send)
	var o Opener
	o.Init(&k.Send)
	var lo LooseOpener
	lo.Init(&loose.Send)
	a, b := make([]byte, 5+Overhead), make([]byte, 5+Overhead)
	must(t, s.Seal(a, []byte("hello")))
	must(t, ls.Seal(b, []byte("hello")))
	_, err := lo.Open(bytes.Clone(a))
	wantErr(t, "the channel's as a loose one", err, aead.ErrOpen)
	_, err = o.Open(bytes.Clone(b))
	wantErr(t, "a loose one as the channel's", err, aead.ErrOpen)
	_, err = lo.Open(b[:Overhead-1])
	wantErr(t, "short", err, ErrShort)
	buf, plain := make([]byte, 5+Overhead), []byte("hello")
	if n := testing.AllocsPerRun(100, func() {
		must(t, ls.Seal(buf, plain))
		if _, err := lo.Open(buf); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	lo.Wipe()
	_, err = lo.Open(bytes.Clone(b))
	wantErr(t, "wiped", err, ErrCounter)
}
