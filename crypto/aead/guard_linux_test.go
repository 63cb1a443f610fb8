package aead

import (
	"bytes"
	"errors"
	"math/bits"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fenced returns pages*pagesize bytes with an inaccessible page on either side.
func fenced(t *testing.T, pages int) []byte {
	size := os.Getpagesize()
	all, err := unix.Mmap(-1, 0, (pages+2)*size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	inside := all[size : (pages+1)*size]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return inside
}

// TestGuardPages puts every buffer against an inaccessible page, at its end and then at its beginning, so that reading or
// writing one byte too many kills the test.
func TestGuardPages(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		const pages, longest = 2, 1200
		src, dst, ads, nonces, keys := fenced(t, pages), fenced(t, pages), fenced(t, 1), fenced(t, 1), fenced(t, 1)
		d := newDiffer(t, 5, longest)
		for n := 0; n <= longest; n++ {
			for _, atEnd := range []bool{true, false} {
				edge := func(b []byte, n int) []byte {
					if atEnd {
						return b[len(b)-n:]
					}
					return b[:n:n]
				}
				key := (*[KeySize]byte)(edge(keys, KeySize))
				fill(d.r, key[:])
				d.k.Init(key)
				nonce := (*[NonceSize]byte)(edge(nonces, NonceSize))
				additional := edge(ads, n*7%200)
				copy(additional, d.pool[n:])
				plaintext := edge(src, n)
				copy(plaintext, d.pool)
				want := oracle(t, key).Seal(nil, nonce[:], plaintext, additional)

				sealed := edge(dst, n+Overhead)
				d.k.Seal(sealed, nonce, plaintext, additional)
				if !bytes.Equal(sealed, want) {
					t.Fatalf("%d bytes, at the end %v: Seal differs", n, atEnd)
				}
				clear(plaintext)
				if err := d.k.Open(plaintext, nonce, sealed, additional); err != nil || !bytes.Equal(plaintext, d.pool[:n]) {
					t.Fatalf("%d bytes, at the end %v: Open: %v", n, atEnd, err)
				}
				if err := d.k.Open(sealed[:n], nonce, sealed, additional); err != nil || !bytes.Equal(sealed[:n], d.pool[:n]) {
					t.Fatalf("%d bytes, at the end %v: Open in place: %v", n, atEnd, err)
				}
				d.k.Seal(sealed, nonce, sealed[:n], additional)
				if !bytes.Equal(sealed, want) {
					t.Fatalf("%d bytes, at the end %v: Seal in place differs", n, atEnd)
				}
			}
		}
	})
}

// TestGuardSchedule does the same with the schedule, whose size the assembly and this package must agree on.
func TestGuardSchedule(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		k := kernel(selected.Load())
		if k == kernelGo {
			t.Skip("no schedule")
		}
		const longest = 1200
		page := fenced(t, 1)
		d := newDiffer(t, 6, longest)
		var nonce [NonceSize]byte
		for _, s := range []*schedule{(*schedule)(page), (*schedule)(page[len(page)-len(schedule{}):])} {
			s.init(&d.key)
			for n := 0; n <= longest; n++ {
				sealed := make([]byte, n+Overhead)
				s.seal(k, sealed, &nonce, d.pool[:n], d.pool[:n%100])
				if want := d.std.Seal(nil, nonce[:], d.pool[:n], d.pool[:n%100]); !bytes.Equal(sealed, want) {
					t.Fatalf("%d bytes: Seal differs", n)
				}
				if !s.open(k, sealed[:n], &nonce, sealed[:n], d.pool[:n%100]) {
					t.Fatalf("%d bytes: Open failed", n)
				}
			}
		}
	})
}

// TestTooLong: more bytes than the block counter can count are refused before any of them is looked at.
func TestTooLong(t *testing.T) {
	if bits.UintSize < 64 {
		t.Skip("no address space for it")
	}
	length := uint64(maxPlaintext)
	all, err := unix.Mmap(-1, 0, int(length)+1+Overhead, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		t.Skipf("no address space for it: %v", err)
	}
	defer func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	}()
	eachKernel(t, func(t *testing.T) {
		var k Key
		var nonce [NonceSize]byte
		k.Init(new([KeySize]byte))
		defer func() {
			if reason := recover(); reason != "aead: plaintext too long" {
				t.Errorf("Seal of a byte too many: %v", reason)
			}
		}()
		if err := k.Open(all, &nonce, all, nil); !errors.Is(err, ErrOpen) {
			t.Errorf("Open of a byte too many: %v", err)
		}
		k.Seal(all, &nonce, all[:length+1], nil)
	})
}
