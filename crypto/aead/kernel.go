package aead

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

//go:generate sh _asm/generate.sh gcm_amd64.s asm_amd64.go

// Env is the environment variable that names the kernel to use instead of the fastest one, for tests and diagnosis. It is
// read when the program starts. If it cannot be obeyed the fastest kernel is used and [SelectionError] says why.
const Env = "SALLYPORT_AEAD"

var (
	// ErrUnknownKernel reports a name that no kernel has.
	ErrUnknownKernel = errors.New("aead: no such kernel")
	// ErrUnsupportedKernel reports a kernel that this CPU cannot run.
	ErrUnsupportedKernel = errors.New("aead: kernel not supported by this CPU")
)

// kernel is an implementation of GCM. Those after kernelGo are in assembly and keep their key in a schedule.
type kernel uint32

const (
	kernelNone kernel = iota // of a Key without a key
	kernelGo
	kernelAVX2
	kernelAVX512
	kernelCount
)

var kernelNames = [kernelCount]string{kernelGo: "go", kernelAVX2: "vaes-avx2", kernelAVX512: "vaes-avx512"}

// selected is the kernel of the keys initialised from now on. Only Select writes it.
var selected atomic.Uint32

// selectionErr is written before main starts and not after.
var selectionErr error

func init() {
	selected.Store(uint32(fastest()))
	if name := os.Getenv(Env); name != "" {
		if err := Select(name); err != nil {
			selectionErr = fmt.Errorf("%s: %w", Env, err)
		}
	}
}

func fastest() kernel {
	for k := kernelCount - 1; k > kernelGo; k-- {
		if supported(k) {
			return k
		}
	}
	return kernelGo
}

// Kernel returns the name of the selected kernel: "vaes-avx512", "vaes-avx2" or "go".
func Kernel() string { return kernelNames[selected.Load()] }

// Kernels returns the names of the kernels this CPU can run, the fastest first. The last is always "go".
func Kernels() []string {
	var names []string
	for k := kernelCount - 1; k > kernelGo; k-- {
		if supported(k) {
			names = append(names, kernelNames[k])
		}
	}
	return append(names, kernelNames[kernelGo])
}

// Select makes the named kernel that of all keys initialised from now on, in the whole program; keys that exist keep theirs.
// It may be called at any time from any goroutine but is meant for the start of a program, and for tests. On an error
// (ErrUnknownKernel or ErrUnsupportedKernel, with the name and the possible ones) the selection is as before.
func Select(name string) error {
	for k := kernelGo; k < kernelCount; k++ {
		if kernelNames[k] != name {
			continue
		}
		if !supported(k) {
			return fmt.Errorf("%w: %q (choose from %s)", ErrUnsupportedKernel, name, strings.Join(Kernels(), ", "))
		}
		selected.Store(uint32(k))
		return nil
	}
	return fmt.Errorf("%w: %q (choose from %s)", ErrUnknownKernel, name, strings.Join(Kernels(), ", "))
}

// SelectionError returns why the kernel named by the environment variable [Env] was not selected, or nil. A program that
// lets its user set the variable should check it once at its start.
func SelectionError() error { return selectionErr }
