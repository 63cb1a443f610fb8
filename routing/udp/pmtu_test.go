package udp

import (
	"bytes"
	"testing"
	"time"
)

// searching makes a network whose links search for the largest packet that passes.
func searching(seed uint64, carries int) *network {
	n := newNetwork(seed)
	n.carries = carries - 1 - tokenSize
	for _, a := range n.sides {
		a.search(linkMinPacketSize-1-tokenSize, maxPacketSize-1-tokenSize)
	}
	return n
}

// TestPMTU: a link finds the largest size that passes, over a path that loses too, and sends data in no larger packets meanwhile.
func TestPMTU(t *testing.T) {
	for _, lose := range []float64{0, 0.02} {
		for carries, want := range map[int]int{508: linkMinPacketSize, 576 - 28: linkMinPacketSize, 1200: 1200, 1280 - 28: 1252, 1400 - 28: 1372, 1500 - 28: 1472, 9000 - 28: maxPacketSize} {
			if carries == 508 {
				carries = linkMinPacketSize
			}
			n := searching(5, carries)
			n.lose = lose
			stream := random(n.rnd, 3_000_000)
			got := n.run([2][]byte{stream, nil}, 50_000)
			if !bytes.Equal(got[0], stream) {
				t.Fatalf("%d pass, %v lost: %d of %d bytes", carries, lose, len(got[0]), len(stream))
			}
			if size := n.sides[0].size + 1 + tokenSize; size != want {
				t.Errorf("%d pass, %v lost: packets of %d bytes, want %d", carries, lose, size, want)
			}
		}
	}
}

// TestPMTUOff: a link that knows of a network which carries less does not try.
func TestPMTUOff(t *testing.T) {
	n := newNetwork(6)
	stream := random(n.rnd, 1_000_000)
	n.run([2][]byte{stream, nil}, 50_000)
	if n.sides[0].size != 1191 || n.largest > 1191 {
		t.Errorf("packets of %d bytes were sent, of %d are", n.largest, n.sides[0].size)
	}
}

// TestPMTUBlackHole: when a path no longer carries what it did, and nobody says so, the link goes back to what passes, also where small packets pass
// all the time; and later tries larger ones again.
func TestPMTUBlackHole(t *testing.T) {
	for _, chatter := range []bool{false, true} {
		for carries, most := range map[int]time.Duration{1300: 2200 * time.Millisecond, 600: 4500 * time.Millisecond} {
			n := searching(7, 1472)
			first := random(n.rnd, 2_000_000)
			n.run([2][]byte{first, nil}, 50_000)
			if n.sides[0].size != 1472-1-tokenSize {
				t.Fatalf("packets of %d bytes", n.sides[0].size)
			}
			n.carries = carries - 1 - tokenSize
			var back []byte
			if chatter {
				back = random(n.rnd, 200_000)
			}
			second, began := random(n.rnd, 1_000_000), n.now
			got := n.run([2][]byte{second, back}, 5000)
			if !bytes.Equal(got[0], second) || !bytes.Equal(got[1], back) {
				t.Fatalf("%d pass: %d of %d bytes", carries, len(got[0]), len(second))
			}
			took := n.now.Sub(began)
			t.Logf("%d pass, small ones meanwhile %v: %v", carries, chatter, took)
			if took > most {
				t.Errorf("%d pass: it took %v", carries, took)
			}
			n.carries = 1472
			n.now = n.now.Add(pmtuAgain)
			third := random(n.rnd, 2_000_000)
			n.run([2][]byte{third, nil}, 50_000)
			if size := n.sides[0].size; size != 1472-1-tokenSize {
				t.Errorf("packets of %d bytes after the path has become as before", size)
			}
		}
	}
}

// TestPMTUOldPeer: an older version of ours takes a packet that tries for one without anything, and acknowledges it with the next data.
func TestPMTUOldPeer(t *testing.T) {
	a := newARQ(1191)
	if err := a.receive(linkPacket(0, arqTry, nil, "padding"), arqNow); err != nil || !a.due || len(a.ready()) != 0 || len(a.seen) != 1 {
		t.Errorf("%v, an acknowledgement is due: %v", err, a.due)
	}
}
