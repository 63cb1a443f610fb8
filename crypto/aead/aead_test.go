package aead

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

// eachKernel runs f as a subtest for each kernel of this CPU, with that kernel selected.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	for _, name := range Kernels() {
		t.Run(name, func(t *testing.T) {
			selectKernel(t, name)
			f(t)
		})
	}
}

// selectKernel selects a kernel for the time of a test.
func selectKernel(t testing.TB, name string) {
	was := Kernel()
	if err := Select(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Select(was); err != nil {
			t.Error(err)
		}
	})
}

// oracle is the standard library's AES-256-GCM.
func oracle(t testing.TB, key *[KeySize]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

// fill makes b random.
func fill(r *rand.Rand, b []byte) {
	for len(b) >= 8 {
		v := r.Uint64()
		for i := range 8 {
			b[i] = byte(v >> (8 * i))
		}
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestMisuse(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		var k Key
		var nonce [NonceSize]byte
		buf := make([]byte, 256)
		mustPanic(t, "Seal with the zero Key", func() { k.Seal(buf, &nonce, buf[:100], nil) })
		mustPanic(t, "Open with the zero Key", func() { _ = k.Open(buf, &nonce, buf[:100], nil) })
		k.Init(new([KeySize]byte))
		mustPanic(t, "Seal without room for the tag", func() { k.Seal(buf[:115], &nonce, buf[:100], nil) })
		mustPanic(t, "Seal to overlapping output", func() { k.Seal(buf[1:], &nonce, buf[:100], nil) })
		mustPanic(t, "Seal with the tag over the plaintext", func() { k.Seal(buf[:116], &nonce, buf[115:215], nil) })
		mustPanic(t, "Open to short output", func() { _ = k.Open(buf[:83], &nonce, buf[:100], nil) })
		mustPanic(t, "Open to overlapping output", func() { _ = k.Open(buf[1:], &nonce, buf[:100], nil) })
		for n := range Overhead {
			if err := k.Open(buf, &nonce, buf[:n], nil); !errors.Is(err, ErrOpen) {
				t.Errorf("Open of %d bytes: %v", n, err)
			}
		}
		k.Seal(buf[:116], &nonce, buf[116:216], nil) // neighbours do not overlap
		if err := k.Open(buf[116:216], &nonce, buf[:116], nil); err != nil {
			t.Error(err)
		}
		k.Seal(buf, &nonce, nil, nil)
		if err := k.Open(buf[8:8], &nonce, buf[:Overhead], nil); err != nil {
			t.Errorf("no output, within the ciphertext: %v", err)
		}
		k.Wipe()
		mustPanic(t, "Seal after Wipe", func() { k.Seal(buf, &nonce, buf[:100], nil) })
		mustPanic(t, "Open after Wipe", func() { _ = k.Open(buf, &nonce, buf[:100], nil) })
	})
}

func TestWipe(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		var k Key
		k.Init(&[KeySize]byte{1, 2, 3})
		if name := Kernel(); name != "go" && k.schedule == (schedule{}) {
			t.Fatal("the schedule is not where this test looks for it")
		}
		k.Wipe()
		if k != (Key{}) {
			t.Error("a wiped Key is not the zero Key")
		}
	})
}

// TestReinit changes the key of a Key, also from one kernel to another.
func TestReinit(t *testing.T) {
	var k Key
	r := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		for _, name := range Kernels() {
			selectKernel(t, name)
			for range 3 {
				var key [KeySize]byte
				var nonce [NonceSize]byte
				fill(r, key[:])
				plaintext := []byte("a record of some length")
				k.Init(&key)
				got := make([]byte, len(plaintext)+Overhead)
				k.Seal(got, &nonce, plaintext, nil)
				if want := oracle(t, &key).Seal(nil, nonce[:], plaintext, nil); !bytes.Equal(got, want) {
					t.Fatalf("%s: got %x, want %x", name, got, want)
				}
				if name == "go" && k.schedule != (schedule{}) {
					t.Fatal("the schedule of the previous kernel was not wiped")
				}
				if name != "go" && k.std != nil {
					t.Fatal("the standard library's key was not dropped")
				}
			}
		}
	}
}

// TestConcurrent uses one key from several goroutines; the race detector watches.
func TestConcurrent(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		var k Key
		k.Init(&[KeySize]byte{7})
		var wait sync.WaitGroup
		for g := range 4 {
			wait.Go(func() {
				plaintext := bytes.Repeat([]byte{byte(g)}, 1000+g)
				buf := make([]byte, len(plaintext)+Overhead)
				for i := range 200 {
					nonce := [NonceSize]byte{byte(g), byte(i)}
					copy(buf, plaintext)
					k.Seal(buf, &nonce, buf[:len(plaintext)], nil)
					if err := k.Open(buf[:len(plaintext)], &nonce, buf, nil); err != nil {
						t.Error(err)
						return
					}
					if !bytes.Equal(buf[:len(plaintext)], plaintext) {
						t.Error("another plaintext came back")
						return
					}
				}
			})
		}
		wait.Wait()
	})
}

// TestAllocations asserts that neither the calls nor their arguments on the stack allocate, whatever the kernel; only Init of
// the standard library does. Where there is no assembly to hide them in, the arguments of the standard library escape.
func TestAllocations(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		if !hides {
			t.Skip("arguments escape here")
		}
		var k Key
		k.Init(new([KeySize]byte))
		heap := make([]byte, 3000+Overhead)
		for _, n := range []int{0, 1, 64, 255, 256, 257, 1024, 3000} {
			failed := false
			allocs := testing.AllocsPerRun(100, func() {
				var nonce [NonceSize]byte
				var additional [8]byte
				var stack [64 + Overhead]byte
				nonce[3], additional[2] = 1, byte(n)
				buf := heap
				if n <= 64 {
					buf = stack[:]
				}
				k.Seal(buf, &nonce, buf[:n], additional[:])
				failed = failed || k.Open(buf, &nonce, buf[:n+Overhead], additional[:]) != nil
			})
			if allocs != 0 || failed {
				t.Errorf("%d bytes: %v allocations, failed %v", n, allocs, failed)
			}
		}
		if Kernel() == "go" {
			return
		}
		var key [KeySize]byte
		if allocs := testing.AllocsPerRun(100, func() { k.Init(&key) }); allocs != 0 {
			t.Errorf("Init: %v allocations", allocs)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			var local Key
			local.Init(&key)
			local.Wipe()
		}); allocs != 0 {
			t.Errorf("Init of a local Key: %v allocations", allocs)
		}
	})
}
