package aead

import (
	"strconv"
	"testing"
)

var benchSizes = []int{64, 256, 1024, 4096, 16384, 49152, 131072}

// benchKernels runs f for each size and each kernel, the kernels of a size one after the other, so that a change in the load
// of the machine does not favour one of them.
func benchKernels(b *testing.B, f func(b *testing.B, k *Key, n int)) {
	for _, n := range benchSizes {
		for _, name := range Kernels() {
			b.Run(strconv.Itoa(n)+"/"+name, func(b *testing.B) {
				selectKernel(b, name)
				var k Key
				k.Init(new([KeySize]byte))
				b.SetBytes(int64(n))
				b.ReportAllocs()
				f(b, &k, n)
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	benchKernels(b, func(b *testing.B, k *Key, n int) {
		buf := make([]byte, n+Overhead)
		var nonce [NonceSize]byte
		for b.Loop() {
			k.Seal(buf, &nonce, buf[:n], nil)
		}
	})
}

// BenchmarkOpen opens to another buffer, because opening in place needs a new ciphertext each time.
func BenchmarkOpen(b *testing.B) {
	benchKernels(b, func(b *testing.B, k *Key, n int) {
		in, out := make([]byte, n+Overhead), make([]byte, n)
		var nonce [NonceSize]byte
		k.Seal(in, &nonce, in[:n], nil)
		for b.Loop() {
			if err := k.Open(out, &nonce, in, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkInit(b *testing.B) {
	for _, name := range Kernels() {
		b.Run(name, func(b *testing.B) {
			selectKernel(b, name)
			var k Key
			key := new([KeySize]byte)
			b.ReportAllocs()
			for b.Loop() {
				k.Init(key)
			}
		})
	}
}

// BenchmarkRekeyed seals as the secure channel does, with a new key every 32 messages.
func BenchmarkRekeyed(b *testing.B) {
	benchKernels(b, func(b *testing.B, k *Key, n int) {
		buf := make([]byte, n+Overhead)
		var nonce [NonceSize]byte
		key, i := new([KeySize]byte), 0
		for b.Loop() {
			if i%32 == 0 {
				k.Init(key)
			}
			i++
			k.Seal(buf, &nonce, buf[:n], nil)
		}
	})
}
