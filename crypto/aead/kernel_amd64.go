//go:build amd64 && !purego

package aead

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// schedule is a key as the assembly uses it: round keys and powers of H (layout in _asm/main.go). It needs no alignment.
type schedule [736]byte

// hides says that hide is effective.
const hides = true

// supported reports whether the CPU and the operating system have what kernel k needs.
func supported(k kernel) bool {
	avx2 := cpuid.CPU.Supports(cpuid.AVX2, cpuid.BMI2, cpuid.AESNI, cpuid.CLMUL, cpuid.VAES, cpuid.VPCLMULQDQ)
	switch k {
	case kernelGo:
		return true
	case kernelAVX2:
		return avx2
	case kernelAVX512:
		return avx2 && cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512DQ)
	}
	return false
}

// hide returns p; the compiler does not know that the result is what p points to.
func hide(p unsafe.Pointer) unsafe.Pointer { return unsafe.Pointer(identity((*byte)(p))) }

func (s *schedule) init(key *[KeySize]byte) { expandAVX2(&s[0], &key[0]) }

func (s *schedule) seal(k kernel, dst []byte, nonce *[NonceSize]byte, plaintext, additional []byte) {
	out, in, ad := unsafe.SliceData(dst), unsafe.SliceData(plaintext), unsafe.SliceData(additional)
	if k == kernelAVX512 {
		sealAVX512(&s[0], out, in, len(plaintext), &nonce[0], ad, len(additional))
	} else {
		sealAVX2(&s[0], out, in, len(plaintext), &nonce[0], ad, len(additional))
	}
}

// open is given the ciphertext without its tag; the tag is in memory behind it.
func (s *schedule) open(k kernel, dst []byte, nonce *[NonceSize]byte, ciphertext, additional []byte) bool {
	out, in, ad := unsafe.SliceData(dst), unsafe.SliceData(ciphertext), unsafe.SliceData(additional)
	if k == kernelAVX512 {
		return openAVX512(&s[0], out, in, len(ciphertext), &nonce[0], ad, len(additional))
	}
	return openAVX2(&s[0], out, in, len(ciphertext), &nonce[0], ad, len(additional))
}
