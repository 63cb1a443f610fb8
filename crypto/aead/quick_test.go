package aead

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/rand"
	"testing"
	"fmt"
)

func TestQuick(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for i := 0; i < 40000; i++ {
		var key [32]byte
		var nonce [12]byte
		r.Read(key[:])
		r.Read(nonce[:])
		n := i % 2500
		ad := make([]byte, (i/2500)*7)
		r.Read(ad)
		pt := make([]byte, n)
		r.Read(pt)
		b, _ := aes.NewCipher(key[:])
		g, _ := cipher.NewGCM(b)
		want := g.Seal(nil, nonce[:], pt, ad)
		var k Key
		k.Init(&key)
		got := make([]byte, n+16)
		k.Seal(got, &nonce, pt, ad)
		if !bytes.Equal(got, want) {
			d := 0
			for d < n && got[d] == want[d] {
				d++
			}
			t.Fatalf("n=%d ad=%d first diff %d", n, len(ad), d)
		}
		pp := make([]byte, n)
		if err := k.Open(pp, &nonce, got, ad); err != nil || !bytes.Equal(pp, pt) {
			t.Fatalf("open n=%d ad=%d %v %v", n, len(ad), err, bytes.Equal(pp, pt))
		}
	}
}

var sizes = []int{64, 256, 1024, 4096, 16384, 49152, 131072}

func BenchmarkSeal(b *testing.B) { bench(b, func(k *Key, d []byte, n *[12]byte, p []byte) { k.Seal(d, n, p, nil) }) }

func bench(b *testing.B, f func(*Key, []byte, *[12]byte, []byte)) {
	for _, n := range sizes {
		for _, name := range Kernels() {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				if err := Select(name); err != nil {
					b.Fatal(err)
				}
				var k Key
				k.Init(new([32]byte))
				buf := make([]byte, n+16)
				var nonce [12]byte
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for i := 0; i < b.N; i++ {
					f(&k, buf, &nonce, buf[:n])
				}
			})
		}
	}
}
func BenchmarkInit(b *testing.B) {
	for _, name := range Kernels() {
		b.Run(name, func(b *testing.B) {
			Select(name)
			var k Key
			key := new([32]byte)
			for i := 0; i < b.N; i++ {
				k.Init(key)
			}
		})
	}
}
func BenchmarkOpen(b *testing.B) {
	for _, n := range sizes {
		for _, name := range Kernels() {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				Select(name)
				var k Key
				k.Init(new([32]byte))
				buf := make([]byte, n+16)
				out := make([]byte, n+16)
				var nonce [12]byte
				k.Seal(buf, &nonce, buf[:n], nil)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for i := 0; i < b.N; i++ {
					if k.Open(out, &nonce, buf, nil) != nil {
						b.Fatal()
					}
				}
			})
		}
	}
}
