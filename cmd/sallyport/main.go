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
	leaveQuit()
	ctx, stop := signal.NotifyContext(context.Background(), endingSignals()...)
	ctx = context.WithValue(ctx, ownProcess{}, true)
	ctx, end := context.WithCancel(ctx)
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	a.hangup = &hangup{end: end}
	a.hangup.listen(false)
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// endingSignals are those that end a command, beside SIGHUP. What is ignored when the program starts stays ignored: shells do so with
// SIGINT for what they run in the background. Of SIGTERM that cannot be known: Go's runtime takes it before, and says that it is not ignored.
func endingSignals() []os.Signal {
	list := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGINT) {
		list = append(list, syscall.SIGINT)
	}
	return list
}

// leaveQuit leaves SIGQUIT ignored where a shell has had it ignored. Go's runtime takes that signal whatever was said, and does not tell; but what ignores it for
// a job in the background ignores SIGINT as well (POSIX, Shell and Utilities, 2.11), so that Ctrl-C and Ctrl-\ at the terminal end what is in front.
func leaveQuit() {
	if signal.Ignored(syscall.SIGINT) {
		signal.Ignore(syscall.SIGQUIT)
	}
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return newApp(stdin, stdout, stderr).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	defer a.close()
	args, err := a.prepare(args)
	if err != nil {
		return a.report(err)
	}
	root := newRoot(a)
	root.SetArgs(args)
	return a.report(root.ExecuteContext(ctx))
}
