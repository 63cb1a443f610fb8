package udp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/routing"
)

var somebody = netip.MustParseAddrPort("192.0.2.1:5000")

// cut makes the datagrams of a message, of size bytes at most.
func cut(number uint16, size int, message []byte) [][]byte {
	part := size - fragmentRoom
	total := (len(message) + part - 1) / part
	var list [][]byte
	for i := range total {
		body := message[i*part : min((i+1)*part, len(message))]
		list = append(list, append(appendFragmentHead(nil, number, uint16(i), uint16(total), len(body)), body...))
	}
	return list
}

// assembly is a reassembler under test.
type assembly struct {
	*reassembler
	budget atomic.Int64
	stats  Stats
	now    time.Time
}

func newAssembly(window int, budget int64) *assembly {
	a := &assembly{now: time.Unix(1000, 0)}
	a.budget.Store(budget)
	a.reassembler = newReassembler(window, &a.budget, &a.stats)
	return a
}

// failer is a testing.TB or a rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// feed hands a datagram in as a socket does, and returns a copy of the message that it completes, nil if none.
func (a *assembly) feed(t failer, datagram []byte, from netip.AddrPort) []byte {
	t.Helper()
	slot := make([]byte, 2048)
	n := copy(slot, datagram)
	f, err := parseFragment(slot[:n])
	if err != nil {
		return nil
	}
	m, ok := a.add(slot, f, from, a.now)
	if !ok {
		return nil
	}
	if m.peer.addr != from || m.pooled && m.start != routing.HeadRoom {
		t.Fatalf("message of %s, wanted %s", m.peer.addr, from)
	}
	out := slices.Clone(m.buf[m.start:m.end])
	clear(m.buf) // as its handling may
	a.release(m)
	return append([]byte{}, out...)
}

// settled expects that nothing incomplete is left once all is forgotten.
func (a *assembly) settled(t testing.TB, budget int64) {
	t.Helper()
	a.clear()
	if a.budget.Load() != budget || a.held != 0 || len(a.peers) != 0 {
		t.Errorf("%d of %d bytes free, %d messages and %d peers held", a.budget.Load(), budget, a.held, len(a.peers))
	}
}

// TestLargestMessage: a message as long as a transport may carry is put together, and a longer one is dropped.
func TestLargestMessage(t *testing.T) {
	for _, c := range []struct {
		size  int
		whole bool
	}{{routing.MaxFrame - 1, true}, {routing.MaxFrame, true}, {routing.MaxFrame + 1, false}} {
		const budget = 8 * routing.MaxFrame
		a := newAssembly(5, budget)
		message := make([]byte, c.size)
		message[0], message[c.size-1] = 1, 2
		var got []byte
		for _, d := range cut(7, 2000, message) {
			if whole := a.feed(t, d, somebody); whole != nil {
				got = whole
			}
		}
		if (got != nil) != c.whole || got != nil && !bytes.Equal(got, message) {
			t.Errorf("%d bytes: %d of them came", c.size, len(got))
		}
		if (a.stats.NoRoom.Load() == 0) != c.whole {
			t.Errorf("%d bytes: %d times no room", c.size, a.stats.NoRoom.Load())
		}
		a.settled(t, budget)
	}
}

// TestCaptured puts together what the reference sent, and what was sent to it.
func TestCaptured(t *testing.T) {
	b, err := os.ReadFile("../../docs/protocol/vectors/04-captures.json")
	if err != nil {
		t.Fatal(err)
	}
	var captures struct {
		Datagrams []struct {
			Name           string
			Sent, Received []string
		} `json:"udp_datagrams"`
	}
	if err := json.Unmarshal(b, &captures); err != nil {
		t.Fatal(err)
	}
	if len(captures.Datagrams) < 3 {
		t.Fatalf("%d captures", len(captures.Datagrams))
	}
	for _, c := range captures.Datagrams {
		var payloads []string
		for which, list := range [][]string{c.Sent, c.Received} {
			for _, reversed := range []bool{false, true} {
				a := newAssembly(5, 1<<20)
				var whole []byte
				if reversed {
					list = slices.Clone(list)
					slices.Reverse(list)
				}
				for i, text := range list {
					d, err := hex.DecodeString(text)
					if err != nil {
						t.Fatal(err)
					}
					if whole != nil {
						t.Fatalf("%s: whole before datagram %d", c.Name, i)
					}
					whole = a.feed(t, d, somebody)
				}
				p, err := routing.ParseMessage(whole)
				if err != nil {
					t.Fatalf("%s: %d bytes: %v", c.Name, len(whole), err)
				}
				payloads = append(payloads, string(whole[p.Start:p.End]))
				if to := p.Onward.Last().Value; (which == 0) != (to == "echo") {
					t.Errorf("%s: to %s", c.Name, p.Onward)
				}
				if which == 0 && !reversed { // what we send is what was sent then
					f, _ := parseFragment(must(hex.DecodeString(list[0])))
					for i, d := range cut(f.number, defaultPacketSize, whole) {
						if hex.EncodeToString(d) != list[i] {
							t.Errorf("%s: datagram %d is %x, want %s", c.Name, i, d, list[i])
						}
					}
				}
				a.settled(t, 1<<20)
			}
		}
		for _, p := range payloads[1:] {
			if p != payloads[0] {
				t.Errorf("%s: the echo is not what was sent", c.Name)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestFragmentLimits(t *testing.T) {
	largest := append(appendFragmentHead(nil, 65535, 65534, 65535, 493), make([]byte, 493)...)
	if len(largest) > defaultPacketSize {
		t.Errorf("the largest datagram has %d bytes", len(largest))
	}
	for name, text := range map[string]string{
		"empty": "", "a number": "01", "4 items": "8401010001", "total 0": "85010100004101", "offset not below total": "85010102024101",
		"number above 65535": "85011a0001000000014101", "text": "85010100016161", "cut short": "850101000142aa", "indefinite bytes": "85010100015f4101ff",
		"an empty message": "850101000140", "an empty part in the middle": "850101000240", "negative": "85012000014101", "version 256": "851901000100014101",
	} {
		if f, err := parseFragment(must(hex.DecodeString(text))); err == nil {
			t.Errorf("%s: %+v", name, f)
		} else if !errors.Is(err, errFragment) && !errors.Is(err, routing.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"version 9": "850901000141aa", "indefinite": "9f0101000141aaff", "long numbers": "851801" + "190001" + "190000" + "190001" + "5801aa",
		"more items and bytes": "860101000141aa01ffff", "an empty last part": "850101010240",
	} {
		if _, err := parseFragment(must(hex.DecodeString(text))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReassemblyProperty: over a network that loses, repeats and reorders, every message arrives at most once, and as it was sent. All
// arrive of which no part is lost, as long as no more messages are under way than the window holds.
func TestReassemblyProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.IntRange(1, 64).Draw(t, "window")
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		lossy := rapid.Bool().Draw(t, "lossy")
		number := uint16(rapid.IntRange(0, 65535).Draw(t, "first number"))
		const budget = 1 << 20
		a := newAssembly(window, budget)
		sent, whole, got := map[string]bool{}, map[string]bool{}, map[string]int{}
		var flying [][]byte
		land := func(keep int) {
			for len(flying) > keep {
				k := rnd.IntN(len(flying))
				d := flying[k]
				flying = slices.Delete(flying, k, k+1)
				if m := a.feed(t, d, somebody); m != nil {
					got[string(m)]++
				}
			}
		}
		batch := min(window, 8) // messages under way together
		for i := range rapid.IntRange(1, 60).Draw(t, "messages") {
			body := make([]byte, 1+rnd.IntN(400))
			for k := range body {
				body[k] = byte(rnd.Uint32())
			}
			body = append(body, byte(i), byte(i>>8))
			sent[string(body)] = true
			complete := true
			for _, d := range cut(number, 64, body) {
				switch {
				case lossy && rnd.IntN(20) == 0:
					complete = false
				case rnd.IntN(5) == 0:
					flying = append(flying, d, d)
				default:
					flying = append(flying, d)
				}
			}
			whole[string(body)] = complete
			number++
			if i%batch == batch-1 {
				land(0)
			}
		}
		land(0)
		for m, n := range got {
			if !sent[m] || n != 1 {
				t.Fatalf("a message of %d bytes came %d times, sent %v", len(m), n, sent[m])
			}
		}
		for m, complete := range whole {
			if complete && got[m] == 0 {
				t.Fatalf("a message of %d bytes of which nothing was lost did not come (window %d)", len(m), window)
			}
		}
		a.clear()
		if a.budget.Load() != budget || a.held != 0 {
			t.Fatalf("%d bytes are not given back", budget-a.budget.Load())
		}
	})
}

// TestDuplicateDoesNotDestroy is where the reference loses a message (docs/protocol/01 §3.3).
func TestDuplicateDoesNotDestroy(t *testing.T) {
	a := newAssembly(5, 1<<20)
	message := bytes.Repeat([]byte("message"), 200)
	var got [][]byte
	for _, d := range cut(7, 508, message) {
		for range 2 {
			if m := a.feed(t, d, somebody); m != nil {
				got = append(got, m)
			}
		}
	}
	if len(got) != 1 || !bytes.Equal(got[0], message) {
		t.Errorf("%d messages", len(got))
	}
	// A part of something else under the same number does not destroy it either.
	parts := cut(8, 508, message)
	a.feed(t, parts[0], somebody)
	a.feed(t, cut(8, 508, message[:600])[1], somebody)
	for _, d := range parts[1:] {
		if m := a.feed(t, d, somebody); m != nil && !bytes.Equal(m, message) {
			t.Error("another message")
		} else if m != nil {
			got = append(got, m)
		}
	}
	if len(got) != 2 {
		t.Error("a stray part destroyed a message")
	}
}

// TestRestartedPeer: a peer that began anew is heard, whatever number it begins with; messages of its former life are not.
func TestRestartedPeer(t *testing.T) {
	for _, jump := range []int{1, 2, 40, 1000, 20_000, 32_767, 32_768, 40_000, -1500, -30_000} {
		a := newAssembly(5, 1<<20)
		number := uint16(50_000)
		for range 20 {
			if a.feed(t, cut(number, 508, []byte("first life"))[0], somebody) == nil {
				t.Fatal("not heard")
			}
			number++
		}
		number += uint16(jump)
		if a.feed(t, cut(number, 508, []byte("second life"))[0], somebody) == nil {
			t.Errorf("jump by %d: not heard at once", jump)
		}
	}
	// A little behind: this may be a late message, until nothing newer has come for a while.
	a := newAssembly(5, 1<<20)
	late := cut(100, 508, []byte("late"))[0]
	a.feed(t, cut(130, 508, []byte("newer"))[0], somebody)
	if a.feed(t, late, somebody) != nil {
		t.Error("a message from before the window was taken")
	}
	a.now = a.now.Add(restartQuiet + time.Millisecond)
	if a.feed(t, late, somebody) == nil {
		t.Error("a peer that begins anew a little behind stays muted")
	}
	// Overtaken by the first message ever.
	a = newAssembly(5, 1<<20)
	a.feed(t, cut(10, 508, []byte("overtakes"))[0], somebody)
	if a.feed(t, cut(9, 508, []byte("overtaken"))[0], somebody) == nil {
		t.Error("an overtaken first message is lost")
	}
}

// TestReassemblyBounded: whatever strangers send, memory stays bounded and everything is forgotten again.
func TestReassemblyBounded(t *testing.T) {
	const budget = 256 << 10
	a := newAssembly(64, budget)
	part := make([]byte, 400)
	peers := make([]netip.AddrPort, 50)
	for i := range peers {
		peers[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), 1000)
	}
	for i := range 20_000 {
		d := append(appendFragmentHead(nil, uint16(i/400), uint16(i%400), 60_000, len(part)), part...)
		a.feed(t, d, peers[i%len(peers)])
		if a.budget.Load() < 0 {
			t.Fatalf("%d bytes more than allowed", -a.budget.Load())
		}
	}
	// One message of an honest peer still gets through.
	message := bytes.Repeat([]byte("x"), 100<<10)
	var got []byte
	for _, d := range cut(1, 508, message) {
		got = a.feed(t, d, somebody)
	}
	if !bytes.Equal(got, message) {
		t.Error("nothing gets through any more")
	}
	// A message larger than the budget destroys only itself.
	for _, d := range cut(2, 508, bytes.Repeat([]byte("x"), 2*budget)) {
		a.feed(t, d, somebody)
	}
	for range 3 { // what waits for a part is dropped, then silent peers
		a.now = a.now.Add(partialTimeout + time.Second)
		a.sweep(a.now)
	}
	if a.held != 0 || a.budget.Load() != budget {
		t.Errorf("%d messages and %d bytes are still held", a.held, budget-a.budget.Load())
	}
	a.now = a.now.Add(peerTimeout + time.Second)
	if a.sweep(a.now) || len(a.peers) != 0 {
		t.Errorf("%d silent peers are remembered", len(a.peers))
	}
	for i := range maxPeers + 100 {
		a.feed(t, cut(1, 508, []byte("x"))[0], netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7))
	}
	if len(a.peers) != maxPeers {
		t.Errorf("%d peers are remembered", len(a.peers))
	}
	a.settled(t, budget)
}

func FuzzDatagram(f *testing.F) {
	for _, d := range cut(4660, 508, bytes.Repeat([]byte("message"), 200)) {
		f.Add(d, uint16(3))
	}
	f.Add(must(hex.DecodeString("9f0101000141aaff")), uint16(0))
	f.Add(must(hex.DecodeString("850101010240")), uint16(9))
	f.Fuzz(func(t *testing.T, datagram []byte, shift uint16) {
		if len(datagram) > 2048 {
			return
		}
		const budget = 64 << 10
		a := newAssembly(5, budget)
		a.feed(t, datagram, somebody)
		a.feed(t, cut(shift, 40, []byte("another message of several parts"))[0], somebody)
		a.feed(t, datagram, somebody)
		if m := a.feed(t, cut(shift+1, 508, []byte("whole"))[0], netip.MustParseAddrPort("192.0.2.2:1")); string(m) != "whole" {
			t.Fatalf("another peer's message: %q", m)
		}
		a.settled(t, budget)
	})
}
