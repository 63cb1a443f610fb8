// Package aead seals and opens AES-256-GCM records in place, without allocating, with the fastest kernel the CPU has.
//
// GCM is NIST SP 800-38D with a 96-bit nonce and a 128-bit tag. There are three kernels, see [Kernels]: two in assembly for
// CPUs that do AES and GHASH on several blocks per instruction, and the standard library for all others. All give the
// same bytes. A [Key] keeps the kernel that was selected when it was initialised.
//
// The assembly kernels take a time that depends on lengths only, not on keys, data or whether a tag is right (a failed Open
// then clears its output). They clear the vector registers they used, and copy no key to memory outside the Key.
package aead

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"unsafe"
)

const (
	// KeySize is the length of an AES-256 key in bytes.
	KeySize = 32
	// NonceSize is the length of a GCM nonce in bytes.
	NonceSize = 12
	// Overhead is how many bytes Seal adds: the length of the tag.
	Overhead = 16

	// maxPlaintext is how many bytes one nonce can encrypt before the 32-bit block counter comes round.
	maxPlaintext = 1<<36 - 32
)

// ErrOpen reports that a ciphertext, its tag, nonce or additional data are not what was sealed.
var ErrOpen = errors.New("aead: message authentication failed")

// Key is an expanded AES-256-GCM key. The zero Key must be given a key with Init before use. Seal and Open may be called from
// several goroutines at once; Init and Wipe may not be called together with anything else. A copy of a Key is a second key,
// which must be wiped too.
type Key struct {
	std      cipher.AEAD // of the kernel "go" only
	kernel   kernel
	schedule schedule // of the other kernels
}

// Init expands key for the selected kernel, replacing and wiping what k held before. It keeps no reference to key. It does
// not allocate, except with the kernel "go".
func (k *Key) Init(key *[KeySize]byte) {
	was := k.kernel
	k.kernel = kernel(selected.Load())
	if k.kernel != kernelGo {
		k.std = nil
		k.schedule.init(key)
		return
	}
	if was != kernelGo {
		clear(k.schedule[:])
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only possible for a wrong key size
	}
	if k.std, err = cipher.NewGCM(block); err != nil {
		panic(err) // only possible for a wrong block size
	}
}

// Seal encrypts plaintext into dst, which must hold len(plaintext)+Overhead bytes and either begin exactly at
// plaintext's first byte or not overlap it at all. The additional data must not overlap dst. Seal does not allocate and
// keeps no reference to its arguments. It panics if k has no key, if dst is too short or overlaps plaintext otherwise, and
// for more than 2^36-32 bytes.
func (k *Key) Seal(dst []byte, nonce *[NonceSize]byte, plaintext, additional []byte) {
	n := len(plaintext)
	if len(dst) < n+Overhead {
		panic("aead: output of Seal too short")
	}
	if uint64(n) > maxPlaintext {
		panic("aead: plaintext too long")
	}
	if misplaced(dst[:n+Overhead], plaintext) {
		panic("aead: invalid overlap of plaintext and output")
	}
	if k.kernel > kernelGo {
		k.schedule.seal(k.kernel, dst, nonce, plaintext, additional)
		return
	}
	if k.std == nil {
		panic("aead: Seal without a key")
	}
	k.stdSeal(call{dst, nonce[:], plaintext, additional})
}

// Open verifies and decrypts ciphertext (with its tag) into dst, which must hold len(ciphertext)-Overhead bytes and either
// begin exactly at ciphertext's first byte or not overlap it. On ErrOpen no plaintext is released: dst is zeroed or untouched.
// Open does not allocate and keeps no reference to its arguments. It panics if k has no key and if dst is too short or
// overlaps ciphertext otherwise.
func (k *Key) Open(dst []byte, nonce *[NonceSize]byte, ciphertext, additional []byte) error {
	n := len(ciphertext) - Overhead
	if n < 0 || uint64(n) > maxPlaintext {
		return ErrOpen
	}
	if len(dst) < n {
		panic("aead: output of Open too short")
	}
	if misplaced(dst[:n], ciphertext) {
		panic("aead: invalid overlap of ciphertext and output")
	}
	if k.kernel > kernelGo {
		if !k.schedule.open(k.kernel, dst, nonce, ciphertext[:n], additional) {
			clear(dst[:n])
			return ErrOpen
		}
		return nil
	}
	if k.std == nil {
		panic("aead: Open without a key")
	}
	if err := k.stdOpen(call{dst, nonce[:], ciphertext, additional}); err != nil {
		return ErrOpen
	}
	return nil
}

// Wipe erases the key material; k needs Init before it can be used again. With the kernel "go" the memory belongs to the
// standard library, and Wipe can only drop it.
func (k *Key) Wipe() {
	clear(k.schedule[:])
	k.std = nil
	k.kernel = kernelNone
}

// misplaced reports whether out and in share memory but do not begin at the same byte.
func misplaced(out, in []byte) bool {
	a, b := uintptr(unsafe.Pointer(unsafe.SliceData(out))), uintptr(unsafe.Pointer(unsafe.SliceData(in)))
	return a != b && len(out) > 0 && len(in) > 0 && a < b+uintptr(len(in)) && b < a+uintptr(len(out))
}

// call holds the arguments of a call of the standard library.
//
// The library keeps none of them, but a call through an interface hides that from the compiler, which would make every
// caller's nonce escape to the heap whatever the kernel. So they pass through hide, which the compiler cannot look into.
type call struct{ dst, nonce, text, additional []byte }

func (k *Key) stdSeal(c call) {
	h := (*call)(hide(unsafe.Pointer(&c)))
	k.std.Seal(h.dst[:0], h.nonce, h.text, h.additional)
}

func (k *Key) stdOpen(c call) error {
	h := (*call)(hide(unsafe.Pointer(&c)))
	_, err := k.std.Open(h.dst[:0], h.nonce, h.text, h.additional)
	return err
}
