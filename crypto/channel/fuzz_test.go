package channel

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzHandle gives a message to a handshake that waits for message 1, 2 or 3. What is refused must leave it able to go on with the
// genuine message; message 2 and 3 cannot be forged without keys that the fuzzer does not have.
func FuzzHandle(f *testing.F) {
	v := readVectors(f)
	keys := v.Reference[0]
	for _, h := range v.Handshakes {
		f.Add(byte(0), []byte(h.M1))
		f.Add(byte(1), []byte(h.M2))
		f.Add(byte(2), []byte(h.M3))
		f.Add(byte(2), []byte(h.M2))
	}
	for _, k := range smallOrder {
		b := unhex(f, k)
		f.Add(byte(0), b)
		f.Add(byte(1), append(b, make([]byte, 64)...))
	}
	genuine := v.Handshakes[1]
	f.Fuzz(func(t *testing.T, at byte, msg []byte) {
		var heard []byte
		cr := side(t, keys.RS, nil, genuine.P2, &heard)
		cr.Rand = bytes.NewReader(bytes.Repeat(keys.RE, 3)) // a message 1 that is dropped may take a key
		i, r := NewInitiator(side(t, keys.IS, keys.IE, genuine.P3, &heard)), NewResponder(cr)
		m1, err := i.Start()
		must(t, err)
		switch at % 3 {
		case 0:
			m2, done, err := r.Handle(msg)
			if done || r.Failed() || (err == nil) != (len(m2) >= minMessage2) {
				t.Fatalf("done %v, reply %x, %v", done, m2, err)
			}
			if err != nil {
				run(t, NewInitiator(side(t, keys.IS, keys.IE, nil, nil)), r)
			}
		case 1:
			m3, done, err := i.Handle(msg)
			known := bytes.Equal(msg, genuine.M2) || bytes.Equal(msg, v.Handshakes[0].M2) // of the same responder
			if done != (err == nil) || done != known || i.Failed() {
				t.Fatalf("done %v, reply %x, %v", done, m3, err)
			}
			if done {
				return
			}
			if m3, done, err = i.Handle(genuine.M2); !done || !bytes.Equal(m3, genuine.M3) {
				t.Fatalf("genuine message 2: %v", err)
			}
		case 2:
			_, _, err := r.Handle(m1)
			must(t, err)
			_, done, err := r.Handle(msg)
			if done != (err == nil) || done != bytes.Equal(msg, genuine.M3) || r.Failed() {
				t.Fatalf("done %v, %v", done, err)
			}
			if !done {
				_, done, err = r.Handle(genuine.M3)
			}
			if !done || r.Keys().Send != genuine.K1.key() {
				t.Fatalf("genuine message 3: %v", err)
			}
		}
	})
}

// FuzzOpen gives bytes to an Opener in the middle of a channel: only what was sent opens, once, and the rest changes nothing.
func FuzzOpen(f *testing.F) {
	sent := newPair(f, 100).msgs
	for _, n := range []int{0, 20, 35, 70} {
		f.Add(sent[n])
		f.Add(sent[n][:len(sent[n])-1])
	}
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		p := newPair(t, 60)
		for n := range uint64(41) {
			if n != 20 && n != 35 {
				p.open(t, n, nil)
			}
		}
		before := p.o.tracker
		plain, err := p.o.Open(bytes.Clone(msg))
		if err != nil {
			if p.o.tracker != before {
				t.Fatalf("a refused message changed %+v to %+v", before, p.o.tracker)
			}
			p.open(t, 20, nil)
			p.open(t, 35, nil)
			p.open(t, 41, nil)
			return
		}
		n := binary.BigEndian.Uint64(msg)
		if n >= uint64(len(sent)) || !bytes.Equal(msg, sent[n]) || len(plain) != len(msg)-Overhead {
			t.Fatalf("%x opened as %x", msg, plain)
		}
		if _, err := p.o.Open(bytes.Clone(msg)); err != ErrCounter {
			t.Fatalf("a repetition: %v", err)
		}
	})
}

func FuzzParsePlaintext(f *testing.F) {
	for _, p := range readVectors(f).Plaintexts {
		f.Add([]byte(p.Hex))
	}
	for _, c := range readCaptures(f).Handshakes {
		f.Add([]byte(c.Data[0].Plaintext))
	}
	f.Add(unhex(f, "82820081ff")) // both ways must leave the body unread
	f.Add(unhex(f, "9f82009f9f808040ffff40ff"))
	f.Add(unhex(f, "9b00000000000000029a000000021b000000000000000099000183808040"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := ParsePlaintext(b)
		kind2, body2, err2 := parsePlaintext(b)
		if kind != kind2 || !bytes.Equal(body, body2) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d %x %v and %d %x %v", kind, body, err, kind2, body2, err2)
		}
		if err == nil && (kind > KindClose || (len(body) == 0) != (kind == KindClose) || !bytes.HasSuffix(b, body)) {
			t.Fatalf("kind %d, body %x", kind, body)
		}
		if err != nil && body != nil {
			t.Fatalf("body %x with %v", body, err)
		}
	})
}
