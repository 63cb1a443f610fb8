// Sallyport-aws-kms does what sallyport asks of AWS KMS. It is a program of its own because AWS's SDK is large and seldom needed. Sallyport starts it and
// speaks with it on its standard input and output (package crypto/vault/awskms); it is of no use by hand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"sallyport/crypto/vault/awskms"
	"sallyport/crypto/vault/program"
)

// worker is the argument of the program once its privileges are dropped.
const worker = "--worker"

func main() {
	if err := run(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sallyport-aws-kms:", err)
		os.Exit(1)
	}
}

func run() error {
	runtime.LockOSThread()
	if err := program.Drop(); err != nil {
		return err
	}
	if len(os.Args) != 2 || os.Args[1] != worker {
		// What is dropped is dropped for this thread. The program that it becomes has no other.
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return syscall.Exec(self, []string{os.Args[0], worker}, os.Environ())
	}
	runtime.UnlockOSThread()
	var k service
	for {
		var req awskms.Request
		if err := program.ReadMessage(os.Stdin, &req); err != nil {
			return err
		}
		if err := program.WriteMessage(os.Stdout, k.do(context.Background(), req)); err != nil {
			return err
		}
	}
}
