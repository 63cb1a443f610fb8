//go:build !amd64 || purego

package aead

import "unsafe"

// schedule is empty: only the standard library is used here.
type schedule [0]byte

// hides says that hide is effective.
const hides = false

func supported(k kernel) bool { return k == kernelGo }

func (*schedule) init(*[KeySize]byte) { panic("aead: no such kernel") }

func (*schedule) seal(kernel, []byte, *[NonceSize]byte, []byte, []byte) {
	panic("aead: no such kernel")
}

func (*schedule) open(kernel, []byte, *[NonceSize]byte, []byte, []byte) bool {
	panic("aead: no such kernel")
}

// hide returns p. Arguments escape here, which matters to no kernel but the standard library's.
func hide(p unsafe.Pointer) unsafe.Pointer { return p }
