// Package aead seals and opens AES-256-GCM records in place, without allocating, with the fastest kernel the CPU has.
package aead

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
)

const (
	// KeySize is the length of an AES-256 key in bytes.
	KeySize = 32
	// NonceSize is the length of a GCM nonce in bytes.
	NonceSize = 12
	// Overhead is how many bytes Seal adds: the length of the tag.
	Overhead = 16
)

// ErrOpen reports that a ciphertext, its tag, nonce or additional data are not what was sealed.
var ErrOpen = errors.New("aead: message authentication failed")

// Key is an expanded AES-256-GCM key. The zero Key must be given a key with Init before use.
type Key struct {
	std cipher.AEAD
}

// Init expands key, replacing and wiping what k held before. It keeps no reference to key.
func (k *Key) Init(key *[KeySize]byte) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only possible for a wrong key size
	}
	k.std, err = cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
}

// Seal encrypts plaintext into dst, which must hold len(plaintext)+Overhead bytes and either begin exactly at
// plaintext's first byte or not overlap it at all.
func (k *Key) Seal(dst []byte, nonce *[NonceSize]byte, plaintext, additional []byte) {
	k.std.Seal(dst[:0], nonce[:], plaintext, additional)
}

// Open verifies and decrypts ciphertext (with its tag) into dst, which must hold len(ciphertext)-Overhead bytes and either
// begin exactly at ciphertext's first byte or not overlap it. On ErrOpen no plaintext is released: dst is zeroed or untouched.
func (k *Key) Open(dst []byte, nonce *[NonceSize]byte, ciphertext, additional []byte) error {
	if _, err := k.std.Open(dst[:0], nonce[:], ciphertext, additional); err != nil {
		return ErrOpen
	}
	return nil
}

// Wipe erases the key material.
func (k *Key) Wipe() { k.std = nil }

// Kernel returns the name of the selected kernel.
func Kernel() string { return "go" }
