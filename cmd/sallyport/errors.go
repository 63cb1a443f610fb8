package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"sallyport/internal/visible"
	"sallyport/node/admin"
	"sallyport/state"
)

// Exit codes (docs/protocol/03 §7.3).
const (
	exitOK       = 0
	exitUsage    = 64 // 2 when there is no pager, as in the reference
	exitSoftware = 70
)

// misuse is an error in how a command was called.
type misuse struct{ text string }

func (e *misuse) Error() string { return e.text }

func usageError(format string, args ...any) error { return &misuse{text: fmt.Sprintf(format, args...)} }

// atRunTime makes a usage error one of run time, where the reference finds it only then.
func atRunTime(err error) error {
	if m := (*misuse)(nil); errors.As(err, &m) {
		return errors.New(m.text)
	}
	return err
}

// hinted is an error with the command to try.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// withHint adds the command to try to an error.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// exitCode is an error that only sets the exit code: what was to be said has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// report prints an error for a person and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	var m *misuse
	if errors.As(err, &m) {
		w, exit := usageStream(a)
		fmt.Fprintf(w, "error: %s\n", visible.Text(m.text))
		if h := hintOf(err); h != "" {
			fmt.Fprintf(w, "\n  %s\n", h)
		}
		if a.usage != "" {
			fmt.Fprintf(w, "\nUsage: %s\n\nFor more information, try '--help'.\n", a.usage)
		}
		return exit
	}
	var absent *absence
	if errors.As(err, &absent) {
		_, exit := usageStream(a)
		fmt.Fprintf(a.stderr, "%s %s\n", a.color(red, "x"), visible.Text(absent.text))
		return exit
	}
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	fmt.Fprintf(a.stderr, "%s %s\n", a.color(red, "x"), sentence(visible.Text(strings.ReplaceAll(text, "\n", "\n  "))))
	h := hintOf(err)
	if h == "" {
		h = adviceFor(text)
	}
	if h != "" && !a.quiet {
		fmt.Fprintf(a.stderr, "  %s\n", h)
	}
	return exitSoftware
}

// proxyAdvice is what to do where a proxy has not made a connection.
const proxyAdvice = "look at --proxy of the node, SALLYPORT_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY (docs/networks.md), and whether the proxy lets connections to that port through"

// advice is what to try when an error says a text. Errors of nodes and of the system come as text and have no hint of their own.
var advice = []struct{ text, try string }{
	{"bind: address already in use", "another program has this port: choose another one, or 0 for any that is free"},
	{"bind: cannot assign requested address", "this machine does not have that address: try 127.0.0.1, or 0.0.0.0 for all of its addresses"},
	{"bind: permission denied", "ports below 1024 need the privilege to bind them: choose another one"},
	{"proxy http://", proxyAdvice},
	{"proxy https://", proxyAdvice},
	{"proxy socks5://", proxyAdvice},
	{"asking enrollment_token_acceptor: authority: connect", "the ticket's authority does not answer: is it running, and may this machine connect there? Ask who gave you the ticket"},
	{"connection refused", "nobody listens there: sallyport node list shows this user's nodes and their addresses"},
	{"no such host", "is the name spelt right? /ip4/ADDRESS/tcp/PORT does without names"},
	{"no space left on device", "the disk is full: SALLYPORT_HOME may name a directory on another one"},
	{"unsafe directory", "SALLYPORT_HOME may name a directory of your own"},
	{"read-only file system", "SALLYPORT_HOME may name a directory that can be written to"},
	{"permission denied", "are the file and its directory yours? SALLYPORT_HOME may name another directory for the state"},
	{"secure channel: no answer", "is there a listener for secure channels at the end of the route? It is /service/api unless another one was made"},
	{"no answer from", "is there such a service, and is it reached this way? sallyport service list --at NODE shows a node's"},
	{"authorized identifiers", "the identifier is the one that sallyport identity show prints there"},
	{"an outlet or service at the address", "choose another name: sallyport service list shows those that are taken"},
}

// adviceFor returns the first advice that an error's text calls for, or "".
func adviceFor(text string) string {
	text = strings.ToLower(text)
	for _, a := range advice {
		if strings.Contains(text, a.text) {
			return a.try
		}
	}
	return ""
}

// usageStream is where usage errors go, and their exit code.
func usageStream(a *app) (io.Writer, int) {
	if hasPager() {
		return a.stdout, exitUsage
	}
	return a.stderr, 2
}

func hintOf(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// notFound reports whether an error says that something does not exist.
func notFound(err error) bool {
	return errors.Is(err, admin.ErrNotFound) || errors.Is(err, state.ErrNotFound)
}

// ifNotFound returns otherwise for an error that says that something does not exist, and any other error as it is: what cannot be read may exist.
func ifNotFound(err, otherwise error) error {
	if notFound(err) {
		return otherwise
	}
	return err
}

// sentence begins a message with a capital letter, as a person would write it, unless it begins with something that is spelt as it is: a
// file, a path, a flag, a name in quotes, a node's or a host's name.
func sentence(text string) string {
	if first, _, _ := strings.Cut(text, " "); !isWord(first) {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// isWord reports whether text is a word of lower-case letters.
func isWord(text string) bool {
	return text != "" && text[0] >= 'a' && text[0] <= 'z' && !strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && r != ',' && r != '\'' })
}
