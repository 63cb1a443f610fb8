package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

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
		fmt.Fprintf(w, "error: %s\n", m.text)
		if h := hintOf(err); h != "" {
			fmt.Fprintf(w, "\n  %s\n", h)
		}
		if a.usage != "" {
			fmt.Fprintf(w, "\nUsage: %s\n\nFor more information, try '--help'.\n", a.usage)
		}
		return exit
	}
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	fmt.Fprintf(a.stderr, "%s %s\n", a.color(red, "x"), sentence(strings.ReplaceAll(text, "\n", "\n  ")))
	if h := hintOf(err); h != "" && !a.quiet {
		fmt.Fprintf(a.stderr, "  %s\n", h)
	}
	return exitSoftware
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

// sentence begins a message with a capital letter, as a person would write it.
func sentence(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}
