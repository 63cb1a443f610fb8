package aead

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// casesEnv is an environment variable: how many random cases TestDifferential does per kernel instead of 20000.
// With it set, every length up to maxLength is done too, and one message that takes the counter past 2^24 blocks.
const casesEnv = "SALLYPORT_AEAD_CASES"

const (
	maxLength     = 70000
	maxAdditional = 700
	margin        = 128 // bytes on either side of an output that must stay as they were
)

// differ compares the selected kernel with the standard library. Its buffers are used again for every case.
type differ struct {
	t          testing.TB
	r          *rand.Rand
	pool       []byte // random bytes, from which messages are cut
	key        [KeySize]byte
	k          Key
	std        cipher.AEAD
	want       []byte
	in, out    []byte // arenas; messages are put into them at all alignments
	additional []byte
	cases      int
}

func newDiffer(t testing.TB, seed uint64, longest int) *differ {
	d := &differ{t: t, r: rand.New(rand.NewPCG(seed, 2)), pool: make([]byte, 2*longest+4096)}
	fill(d.r, d.pool)
	room := longest + Overhead + 2*margin + 64
	d.in, d.out, d.want = make([]byte, room), make([]byte, room), make([]byte, room)
	d.additional = make([]byte, maxAdditional+64)
	d.rekey()
	return d
}

func (d *differ) rekey() {
	fill(d.r, d.key[:])
	d.k.Init(&d.key)
	d.std = oracle(d.t, &d.key)
}

// cut puts n random bytes at a random alignment into arena.
func (d *differ) cut(arena []byte, n int) []byte {
	at := margin + d.r.IntN(64)
	b := arena[at : at+n]
	copy(b, d.pool[d.r.IntN(len(d.pool)-n+1):])
	return b
}

// place returns n bytes at a random alignment of the output arena or, in place, those that in begins with, and a check that
// the bytes around them are as before.
func (d *differ) place(in []byte, n int, inPlace bool) (out []byte, intact func() bool) {
	arena, at := d.out, margin+d.r.IntN(64)
	if inPlace {
		arena, at = d.in, margin
		for &d.in[at] != &in[:1][0] {
			at++
		}
	}
	before := bytes.Clone(arena[at-margin : at])
	after := bytes.Clone(arena[at+n : at+n+margin])
	return arena[at : at+n : at+n], func() bool {
		return bytes.Equal(arena[at-margin:at], before) && bytes.Equal(arena[at+n:at+n+margin], after)
	}
}

// one does a message of n bytes with a bytes of additional data: it seals it, opens it, and opens a forgery of it, each in
// place or not.
func (d *differ) one(n, a int) {
	d.cases++
	var nonce [NonceSize]byte
	fill(d.r, nonce[:])
	additional := d.additional[d.r.IntN(64):][:a]
	copy(additional, d.pool[d.r.IntN(len(d.pool)-a):])
	plaintext := d.cut(d.in, n)
	want := d.std.Seal(d.want[:0], nonce[:], plaintext, additional)
	choice := d.r.Uint32()

	sealed, intact := d.place(plaintext, n+Overhead, choice&1 == 0)
	d.k.Seal(sealed, &nonce, plaintext, additional)
	if !bytes.Equal(sealed, want) {
		i := 0
		for sealed[i] == want[i] {
			i++
		}
		d.t.Fatalf("case %d, %d bytes, %d additional, choice %b: Seal differs from byte %d on", d.cases, n, a, choice&1, i)
	}
	if !intact() {
		d.t.Fatalf("case %d, %d bytes, %d additional: Seal wrote outside its output", d.cases, n, a)
	}

	in := d.cut(d.in, n+Overhead)
	copy(in, want)
	opened, intact := d.place(in, n, choice&2 == 0)
	if err := d.k.Open(opened, &nonce, in, additional); err != nil {
		d.t.Fatalf("case %d, %d bytes, %d additional: Open: %v", d.cases, n, a, err)
	}
	// The plaintext is got from the library again because sealing in place has overwritten it.
	plain, err := d.std.Open(d.want[:0], nonce[:], want, additional)
	if err != nil || !bytes.Equal(opened, plain) {
		d.t.Fatalf("case %d, %d bytes, %d additional, choice %b: Open gave another plaintext", d.cases, n, a, choice&2)
	}
	if !intact() {
		d.t.Fatalf("case %d, %d bytes, %d additional: Open wrote outside its output", d.cases, n, a)
	}
	if choice&0xc == 0 {
		d.forge(&nonce, plain, additional, choice&16 == 0)
	}
}

// forge seals plain, changes one bit of the result or of the nonce or the additional data, and has it refused.
func (d *differ) forge(nonce *[NonceSize]byte, plain, additional []byte, inPlace bool) {
	n := len(plain)
	in := d.in[margin : margin+n+Overhead]
	d.k.Seal(in, nonce, plain, additional)
	changed := in
	switch x := d.r.IntN(8); {
	case x < 3:
		changed = in[n:]
	case x == 3:
		changed = nonce[:]
	case x == 4 && len(additional) > 0:
		changed = additional
	}
	changed[d.r.IntN(len(changed))] ^= 1 << d.r.IntN(8)
	opened, intact := d.place(in, n, inPlace)
	before := bytes.Clone(opened)
	if err := d.k.Open(opened, nonce, in, additional); !errors.Is(err, ErrOpen) {
		d.t.Fatalf("case %d, %d bytes: a forgery was opened: %v", d.cases, n, err)
	}
	if bytes.Count(opened, []byte{0}) != n && !bytes.Equal(opened, before) {
		d.t.Fatalf("case %d, %d bytes: a failed Open left something in its output", d.cases, n)
	}
	if !intact() {
		d.t.Fatalf("case %d, %d bytes: a failed Open wrote outside its output", d.cases, n)
	}
}

// random does a case of random lengths, mostly short.
func (d *differ) random() {
	if d.r.IntN(16) == 0 {
		d.rekey()
	}
	var n, a int
	switch x := d.r.IntN(100); {
	case x < 60:
		n = d.r.IntN(130)
	case x < 85:
		n = d.r.IntN(1100)
	case x < 96:
		n = d.r.IntN(5000)
	case x < 99:
		n = d.r.IntN(20000)
	default:
		n = d.r.IntN(maxLength + 1)
	}
	switch x := d.r.IntN(20); {
	case x < 8:
		a = 0
	case x < 18:
		a = d.r.IntN(70)
	default:
		a = d.r.IntN(maxAdditional + 1)
	}
	d.one(n, a)
}

func TestDifferential(t *testing.T) {
	cases, lengths, long := 20000, 1100, false
	if s := os.Getenv(casesEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		cases, lengths, long = n, maxLength, true
	}
	eachKernel(t, func(t *testing.T) {
		d := newDiffer(t, 3, maxLength)
		for n := 0; n <= lengths; n++ {
			d.one(n, n%5*n%67)
		}
		for a := range maxAdditional {
			d.one(a%50, a)
		}
		// The last byte of the counter comes round every 4096 bytes, the one before it every 2^20.
		for _, around := range []int{4096, 8192, 65536} {
			for n := around - 300; n < around+300; n += 13 {
				d.one(min(n, maxLength), 0)
			}
		}
		for range cases {
			d.random()
		}
		if long {
			t.Logf("%d cases", d.cases)
		}
	})
}

// TestCounter does messages long enough to carry into the third byte of the counter and, if asked for much, the fourth.
func TestCounter(t *testing.T) {
	n := 1<<20 + 1<<12 + 77
	if os.Getenv(casesEnv) != "" {
		n = 1<<28 + 1<<12 + 77
	}
	eachKernel(t, func(t *testing.T) {
		d := newDiffer(t, 4, 4096)
		plaintext := make([]byte, n, n+Overhead)
		fill(d.r, plaintext[n-9000:])
		var nonce [NonceSize]byte
		want := d.std.Seal(nil, nonce[:], plaintext, nil)
		sealed := plaintext[:n+Overhead]
		d.k.Seal(sealed, &nonce, plaintext, nil)
		if !bytes.Equal(sealed, want) {
			t.Fatal("Seal differs")
		}
		if err := d.k.Open(plaintext, &nonce, sealed, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.std.Open(want[:0], nonce[:], want, nil); err != nil || !bytes.Equal(plaintext, want[:n]) {
			t.Fatal("Open differs")
		}
	})
}

func FuzzSealOpen(f *testing.F) {
	f.Add([]byte{}, []byte{}, []byte{}, uint16(0))
	f.Add([]byte("key"), []byte("message"), []byte("additional"), uint16(77))
	f.Add(make([]byte, 40), make([]byte, 600), make([]byte, 70), uint16(0x4321))
	f.Fuzz(func(t *testing.T, secret, message, additional []byte, where uint16) {
		var key [KeySize]byte
		var nonce [NonceSize]byte
		copy(key[:], secret)
		copy(nonce[:], secret[min(len(secret), KeySize):])
		want := oracle(t, &key).Seal(nil, nonce[:], message, additional)
		at := int(where % 64)
		for k := kernelGo; k < kernelCount; k++ {
			if !supported(k) {
				continue
			}
			selectKernel(t, kernelNames[k])
			var key2 Key
			key2.Init(&key)
			buf := make([]byte, at+len(want))[at:]
			copy(buf, message)
			key2.Seal(buf, &nonce, buf[:len(message)], additional)
			if !bytes.Equal(buf, want) {
				t.Fatalf("%s: Seal gave %x, want %x", kernelNames[k], buf, want)
			}
			if err := key2.Open(buf[:len(message)], &nonce, buf, additional); err != nil {
				t.Fatalf("%s: %v", kernelNames[k], err)
			}
			if !bytes.Equal(buf[:len(message)], message) {
				t.Fatalf("%s: Open gave %x, want %x", kernelNames[k], buf[:len(message)], message)
			}
			copy(buf, want)
			buf[int(where/64)%len(buf)] ^= 1 << (where % 8)
			if err := key2.Open(buf[:len(message)], &nonce, buf, additional); err == nil {
				t.Fatalf("%s: a forgery was opened", kernelNames[k])
			}
		}
	})
}
