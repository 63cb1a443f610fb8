//go:build cgo && linux

// Sallyport-pkcs11 does what sallyport asks of a PKCS#11 token. It is a program of its own because a token's module is foreign code, in C, that must
// not run beside channels and their keys. Sallyport starts it and speaks with it on its standard input and output (package crypto/vault/pkcs11); it is
// of no use by hand.
//
// For each request it starts itself again, with its privileges dropped: that process loads the module, does the one thing, and ends. A module that
// hangs is killed, one that crashes takes nothing along, and a token that was unplugged and is back is found again.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/crypto/vault/pkcs11"
	"sallyport/crypto/vault/program"
)

// worker is the argument of the process that loads the module.
const worker = "--worker"

func main() {
	// What is dropped is dropped for this thread and what it starts; the worker is started from here.
	runtime.LockOSThread()
	if err := program.Drop(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-pkcs11:", err)
		os.Exit(1)
	}
	var err error
	if len(os.Args) == 2 && os.Args[1] == worker {
		err = once()
	} else {
		err = serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sallyport-pkcs11:", err)
		os.Exit(1)
	}
}

// serve answers requests until its input ends.
func serve() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for {
		var req pkcs11.Request
		if err := program.ReadMessage(os.Stdin, &req); err != nil {
			return err
		}
		resp := run(self, req)
		clear(req.PIN)
		if err := program.WriteMessage(os.Stdout, resp); err != nil {
			return err
		}
	}
}

// run has a worker do what is asked.
func run(self string, req pkcs11.Request) pkcs11.Response {
	cmd := exec.Command(self, worker)
	var in, out, errs bytes.Buffer
	if err := program.WriteMessage(&in, req); err != nil {
		return pkcs11.Response{Code: pkcs11.CodeFailed, Text: err.Error()}
	}
	defer clear(in.Bytes()) // it has the PIN
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &limited{w: &errs, left: 4 << 10}
	if err := cmd.Start(); err != nil {
		return pkcs11.Response{Code: pkcs11.CodeFailed, Text: err.Error()}
	}
	kill := time.AfterFunc(pkcs11.Timeout, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !kill.Stop() {
		return pkcs11.Response{Code: pkcs11.CodeModule, Text: fmt.Sprintf("it did not answer for %v", pkcs11.Timeout)}
	}
	var resp pkcs11.Response
	if readErr := program.ReadMessage(&out, &resp); readErr != nil {
		return pkcs11.Response{Code: pkcs11.CodeModule, Text: fmt.Sprintf("it crashed: %v %s", err, firstLine(errs.String()))}
	}
	return resp
}

func firstLine(text string) string {
	for i, c := range text {
		if c == '\n' {
			return text[:i]
		}
	}
	return text
}

// limited drops what is too much.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	_, err := l.w.Write(b[:n])
	return len(b), err
}

// once does what one request on standard input asks.
func once() error {
	var req pkcs11.Request
	if err := program.ReadMessage(os.Stdin, &req); err != nil {
		return err
	}
	// A module may write to standard output; the answer has a descriptor of its own.
	answer, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if err := unix.Dup2(2, 1); err != nil {
		return err
	}
	resp := do(req)
	clear(req.PIN)
	return program.WriteMessage(os.NewFile(uintptr(answer), "answer"), resp)
}
