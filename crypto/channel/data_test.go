package channel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"sallyport/crypto/aead"
)

// pair is an Opener and the messages that its Sealer made, by counter. The plaintext is the counter in decimal.
type pair struct {
	o    Opener
	msgs [][]byte
}

func newPair(t testing.TB, n int) *pair {
	t.Helper()
	key := [32]byte{7}
	var s Sealer
	s.Init(&key)
	p := &pair{}
	p.o.Init(&key)
	for range n {
		plain := fmt.Append(nil, s.Counter())
		b := make([]byte, len(plain)+Overhead)
		must(t, s.Seal(b, plain))
		p.msgs = append(p.msgs, b)
	}
	return p
}

func (p *pair) open(t testing.TB, n uint64, want error) {
	t.Helper()
	plain, err := p.o.Open(bytes.Clone(p.msgs[n]))
	if want != nil {
		wantErr(t, fmt.Sprint("counter ", n), err, want)
		return
	}
	if err != nil {
		t.Errorf("counter %d: %v", n, err)
		return
	}
	wantBytes(t, "plaintext", plain, fmt.Append(nil, n))
	if p.o.Last() != n {
		t.Errorf("last counter %d, want %d", p.o.Last(), n)
	}
}

// model is the rule for accepting genuine messages, said without windows of bits and keys: the counter is new, within 32 of the
// highest accepted, and of the same 32 as some accepted one, the next or at most those before.
type model struct {
	accepted map[uint64]bool
	highest  uint64
}

func (m *model) accept(n uint64) bool {
	near := n <= m.highest+32 && n+32 >= m.highest
	now, bucket := m.highest/32, n/32
	if m.accepted[n] || !near || bucket > now+1 || bucket+1 < now {
		return false
	}
	m.accepted[n] = true
	m.highest = max(m.highest, n)
	return true
}

// TestLossReorderDuplicate has a network lose, delay, repeat and damage messages.
func TestLossReorderDuplicate(t *testing.T) {
	sent := newPair(t, 400).msgs
	rapid.Check(t, func(t *rapid.T) {
		key := [32]byte{7}
		var o Opener
		o.Init(&key)
		m := model{accepted: map[uint64]bool{}}
		for range rapid.IntRange(1, 150).Draw(t, "messages") {
			// Mostly about where the channel is, so that it goes on.
			n := int64(m.highest) + rapid.Int64Range(-40, 40).Draw(t, "distance")
			if rapid.IntRange(0, 2).Draw(t, "in order") > 0 {
				n = int64(m.highest) + 1
			}
			if n < 0 || n >= int64(len(sent)) {
				continue
			}
			if rapid.IntRange(0, 3).Draw(t, "damaged") == 0 {
				before := o.tracker
				b := bytes.Clone(sent[n])
				b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				if plain, err := o.Open(b); err == nil {
					t.Fatalf("damaged message %d opened: %q", n, plain)
				}
				if o.tracker != before {
					t.Fatalf("damaged message %d changed %+v to %+v", n, before, o.tracker)
				}
			}
			want := m.accept(uint64(n))
			plain, err := o.Open(bytes.Clone(sent[n]))
			if (err == nil) != want || err != nil && err != ErrCounter {
				t.Fatalf("counter %d after %d: %v, want accepted %v", n, m.highest, err, want)
			}
			if err == nil && string(plain) != fmt.Sprint(n) {
				t.Fatalf("counter %d: %q", n, plain)
			}
		}
	})
}

func TestWindowEdges(t *testing.T) {
	p := newPair(t, 200)
	p.open(t, 33, ErrCounter) // the first may be 0 to 32
	p.open(t, 32, nil)
	p.open(t, 0, nil)
	p.open(t, 65, ErrCounter) // 32 lost: deaf, until an earlier one comes
	p.open(t, 64, nil)
	p.open(t, 31, ErrCounter)
	p.open(t, 32, ErrCounter)
	p.open(t, 33, nil)
}

// TestForgedNextKey sends forgeries that make the next key be derived ahead.
func TestForgedNextKey(t *testing.T) {
	p := newPair(t, 100)
	for n := range uint64(20) {
		p.open(t, n, nil)
	}
	forged := bytes.Clone(p.msgs[40])
	forged[len(forged)-1] ^= 1
	for range 3 {
		_, err := p.o.Open(bytes.Clone(forged))
		wantErr(t, "forgery", err, aead.ErrOpen)
		if !p.o.hasFollowing {
			t.Error("each forgery has the next key derived anew")
		}
	}
	for n := uint64(20); n < 100; n++ {
		p.open(t, n, nil)
	}
}

func TestSealPlaces(t *testing.T) {
	key := [32]byte{1}
	var a, b Sealer
	var o, to Opener
	a.Init(&key)
	b.Init(&key)
	o.Init(&key)
	to.Init(&key)
	var rekeys atomic.Uint64
	a.Rekeys = &rekeys
	r := seeded(7)
	for n := range 100 {
		plain := random(r, n*7)
		apart := make([]byte, len(plain)+Overhead+3)
		must(t, a.Seal(apart, plain))
		wantBytes(t, "bytes after the message", apart[len(plain)+Overhead:], []byte{0, 0, 0})
		apart = apart[:len(plain)+Overhead]
		inPlace := make([]byte, len(plain)+Overhead)
		copy(inPlace[CounterSize:], plain)
		must(t, b.Seal(inPlace, inPlace[CounterSize:CounterSize+len(plain)]))
		wantBytes(t, "in place", inPlace, apart)

		keep := bytes.Clone(apart)
		dst := make([]byte, len(plain)+n%3)
		got, err := to.OpenTo(dst, apart)
		must(t, err)
		wantBytes(t, "OpenTo", got, plain)
		wantBytes(t, "message after OpenTo", apart, keep)
		got, err = o.Open(apart)
		must(t, err)
		wantBytes(t, "Open", got, plain)
	}
	for n := range Overhead {
		_, err := o.Open(make([]byte, n))
		wantErr(t, "short message", err, ErrShort)
		_, err = to.OpenTo(nil, make([]byte, n))
		wantErr(t, "short message", err, ErrShort)
	}
	room := make([]byte, 100)
	wantPanic(t, "Seal without room", func() { a.Seal(room[:Overhead+4:100], make([]byte, 5)) })
	wantPanic(t, "OpenTo without room", func() { to.OpenTo(make([]byte, 4, 100), room[:Overhead+5]) })
	if a.Counter() != 100 || rekeys.Load() != 3 {
		t.Errorf("counter %d, %d keys replaced", a.Counter(), rekeys.Load())
	}
}

func TestCounterLimit(t *testing.T) {
	key := [32]byte{1}
	var s Sealer
	s.Init(&key)
	s.counter = lastCounter - 1
	b := make([]byte, Overhead)
	must(t, s.Seal(b, nil))
	if n := binary.BigEndian.Uint64(b); n != lastCounter-1 {
		t.Errorf("counter %d", n)
	}
	for range 2 {
		wantErr(t, "Seal at the limit", s.Seal(b, nil), ErrExhausted)
	}
	// The nonce of rekeying is not for messages, however the window stands.
	var o Opener
	o.Init(&key)
	o.highest, o.rekeys = lastCounter-1, lastCounter/interval-1
	_, err := o.Open(bytes.Repeat([]byte{0xff}, 64))
	wantErr(t, "counter of rekeying", err, ErrCounter)
	o.InitKeyExchangeOnly(&key)
	_, err = o.Open(bytes.Repeat([]byte{0xff}, 64))
	wantErr(t, "counter of rekeying, without window", err, ErrCounter)
	// Near the end choose must not go round.
	for _, n := range []uint64{0, 31, 63, lastCounter - 1} {
		w := tracker{every: interval, rekeys: lastCounter / interval}
		if w.choose(n) != noKey {
			t.Errorf("a key for counter %d after the last rekeying", n)
		}
	}
	w := tracker{every: interval, rekeys: lastCounter/interval - 1}
	if w.choose(lastCounter-31) != nextKey || w.choose(lastCounter-32) != currentKey || w.choose(0) != noKey {
		t.Error("wrong keys before the last rekeying")
	}
}

// TestKeyExchangeOnly: one key, any counter, any number of times; up to counter 31 both kinds of channels are the same.
func TestKeyExchangeOnly(t *testing.T) {
	key := [32]byte{9}
	var s, normal Sealer
	var o Opener
	s.InitKeyExchangeOnly(&key)
	normal.Init(&key)
	o.InitKeyExchangeOnly(&key)
	var msgs [][]byte
	for n := range 200 {
		plain := fmt.Append(nil, n)
		b, other := make([]byte, len(plain)+Overhead), make([]byte, len(plain)+Overhead)
		must(t, s.Seal(b, plain))
		must(t, normal.Seal(other, plain))
		if same := bytes.Equal(b, other); same != (n < interval) {
			t.Errorf("counter %d: same as in a normal channel: %v", n, same)
		}
		msgs = append(msgs, b)
	}
	for _, n := range []int{199, 0, 100, 100, 32, 199} {
		got, err := o.Open(bytes.Clone(msgs[n]))
		must(t, err)
		wantBytes(t, "plaintext", got, fmt.Append(nil, n))
		if o.Last() != uint64(n) {
			t.Errorf("last %d, want %d", o.Last(), n)
		}
	}
	damaged := bytes.Clone(msgs[3])
	damaged[10] ^= 1
	_, err := o.Open(damaged)
	wantErr(t, "damaged", err, aead.ErrOpen)
	// Init ends the mode.
	s.Init(&key)
	o.Init(&key)
	_, err = o.Open(bytes.Clone(msgs[100]))
	wantErr(t, "counter 100 in a normal channel", err, ErrCounter)
	if s.fixed || s.Counter() != 0 {
		t.Error("Init left the mode")
	}
}

func TestWiped(t *testing.T) {
	key := [32]byte{1}
	p := newPair(t, 100)
	for n := range uint64(70) {
		p.open(t, n, nil)
	}
	var s Sealer
	s.Init(&key)
	s.Wipe()
	wantErr(t, "Seal after Wipe", s.Seal(make([]byte, Overhead), nil), ErrExhausted)
	p.o.Wipe()
	if p.o != (Opener{}) || s.key != (aead.Key{}) {
		t.Error("keys are left")
	}
	var zero Opener
	for _, o := range []*Opener{&p.o, &zero} {
		for _, n := range []uint64{0, 1, 31, 32, 33, 63, 64, 70, 1 << 63, lastCounter - 1, lastCounter} {
			b := make([]byte, 40)
			binary.BigEndian.PutUint64(b, n)
			_, err := o.Open(b)
			wantErr(t, fmt.Sprint("counter ", n, " without a key"), err, ErrCounter)
		}
	}
}

// TestAllocations seals and opens over several rekeyings. The kernel "go" allocates at a rekeying, so it is measured within one key.
func TestAllocations(t *testing.T) {
	was := aead.Kernel()
	t.Cleanup(func() { must(t, aead.Select(was)) })
	for _, kernel := range aead.Kernels() {
		must(t, aead.Select(kernel))
		runs := 300
		if kernel == "go" {
			runs = interval - 2 // one more runs before the measurement
		}
		key := [32]byte{1}
		s, o := new(Sealer), new(Opener)
		s.Init(&key)
		o.Init(&key)
		b := make([]byte, 1000+Overhead)
		copy(b[CounterSize:], PayloadPrefix)
		if n := testing.AllocsPerRun(runs, func() {
			must(t, s.Seal(b, b[CounterSize:CounterSize+1000]))
			plain, err := o.Open(b)
			must(t, err)
			_, _, err = ParsePlaintext(plain)
			must(t, err)
		}); n != 0 {
			t.Errorf("%s: %v allocations a message", kernel, n)
		}
		if n := testing.AllocsPerRun(10, func() {
			if _, err := o.Open(b); err == nil {
				t.Error("opened twice")
			}
			if _, err := o.Open(b[:10]); err == nil {
				t.Error("opened a short message")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a refused message", kernel, n)
		}
		if want := uint64(runs + 1); s.Counter() != want {
			t.Errorf("%s: counter %d, want %d", kernel, s.Counter(), want)
		}
	}
}
