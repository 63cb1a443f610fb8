// Command sallyport is the whole system in one binary: the command line, the node, the relay and the authority.
//
// This package parses, calls the library below it, and prints. There is one file per noun.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endingSignals()...)
	ctx = context.WithValue(ctx, ownProcess{}, true)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endingSignals are those that end a command. What is ignored when the program starts stays ignored: nohup does so with SIGHUP, and shells
// with SIGINT for what they run in the background.
func endingSignals() []os.Signal {
	list := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := newApp(stdin, stdout, stderr)
	defer a.close()
	args, err := a.prepare(args)
	if err != nil {
		return a.report(err)
	}
	root := newRoot(a)
	root.SetArgs(args)
	return a.report(root.ExecuteContext(ctx))
}
