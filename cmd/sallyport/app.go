package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sallyport/state"
)

// app is what all commands of one run share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	// Global flags.
	quiet, noColor, noInput, compact bool
	verbose                          int
	output, jq                       string
	outputGiven                      bool // --output was given: plain then means plain, whatever else is asked for

	stdoutTTY, stderrTTY bool
	usage                string // usage line of the command that ran, for errors

	dirOnce    *state.Dir
	isInMemory bool // the state directory is gone when the command ends
	vaults     *openVaults
	onUp       func()    // called when the node that this command runs is up
	foreground bool      // this command runs a node in the foreground
	logTo      io.Writer // where it logs to with --verbose: standard output, while stdout gathers results
	atEnd      []func()

	// collect, if it is set, takes what a command would create in place of the node. name and request may be completed.
	collect func(kind string, name *string, request any) error
	itself  string  // the node of a configuration that is read before the node is there
	base    string  // the directory that relative paths start from; "" is the working directory
	hangup  *hangup // nil where nobody listens
	usr2    chan os.Signal
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{vaults: &openVaults{}, stdin: stdin, stdout: stdout, stderr: stderr, logTo: stdout, stdoutTTY: isTerminal(stdout), stderrTTY: isTerminal(stderr)}
}

// close ends what the command left to its end, the last first.
func (a *app) close() {
	for _, f := range slices.Backward(a.atEnd) {
		f()
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// dir opens the state directory.
func (a *app) dir() (*state.Dir, error) {
	if a.dirOnce != nil {
		return a.dirOnce, nil
	}
	path, err := state.DefaultPath()
	if err != nil {
		return nil, err
	}
	a.dirOnce, err = state.Open(path)
	return a.dirOnce, err
}

// envBool reads a switch from the environment: 1, true, yes and on turn it on; anything else that is not a no is an error.
func envBool(name string) (bool, error) {
	v, set := os.LookupEnv(name)
	if !set || v == "" {
		return false, nil
	}
	switch strings.ToLower(v) {
	case "1", "true", "t", "yes", "y", "on":
		return true, nil
	case "0", "false", "f", "no", "n", "off":
		return false, nil
	}
	return false, usageError("the environment variable %s is %q; it must be true or false", name, v)
}

// prepare does what comes before parsing: --env sets the environment, and a dash beside a slash is replaced by a route read
// from standard input, so that one command pipes into the next (docs/protocol/03 §7).
func (a *app) prepare(args []string) ([]string, error) {
	var out []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		pair, found := strings.CutPrefix(arg, "--env=")
		switch {
		case arg == "--":
			out = append(out, args[i:]...)
			i = len(args)
			continue
		case arg == "-V" || arg == "--version": // wherever it stands, as in the reference
			return []string{"--version"}, nil
		case arg == "--env" && i+1 < len(args):
			i++
			pair, found = args[i], true
		}
		if found {
			key, value, ok := strings.Cut(pair, "=")
			if !ok || key == "" {
				return nil, usageError("--env %q must be KEY=VALUE", pair)
			}
			if err := os.Setenv(key, value); err != nil {
				return nil, usageError("--env %q: %v", pair, err)
			}
			continue
		}
		out = append(out, arg)
	}
	for _, s := range []struct {
		name string
		to   *bool
	}{{"QUIET", &a.quiet}, {"NO_INPUT", &a.noInput}} {
		v, err := envBool(s.name)
		if err != nil {
			return nil, err
		}
		*s.to = v
	}
	if v, set := os.LookupEnv("NO_COLOR"); set && v != "" && v != "false" && v != "0" {
		a.noColor = true // https://no-color.org: any value
	}
	var in *bufio.Reader
	for i, arg := range out {
		at := routeDash(arg)
		if at < 0 {
			continue
		}
		if in == nil {
			in = bufio.NewReader(a.stdin)
		}
		line, err := in.ReadString('\n')
		line = strings.TrimSpace(line)
		if line == "" {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return nil, usageError("%q: a route was to be read from standard input, which is empty (%v)", arg, err)
		}
		out[i] = arg[:at] + line + arg[at+1:]
		out[i] = strings.ReplaceAll(out[i], "//", "/")
	}
	return out, nil
}

// routeDash finds the dash that stands for standard input in `-/service/x`, `/a/-` or `--to=-/service/x`. A path such as /tmp/-x is
// left alone: the dash must be a whole piece.
func routeDash(arg string) int {
	at := 0
	if strings.HasPrefix(arg, "--") {
		flag, value, found := strings.Cut(arg, "=")
		if !found {
			return -1
		}
		at, arg = len(flag)+1, value
	}
	if !strings.Contains(arg, "/") {
		return -1
	}
	for _, piece := range strings.Split(arg, "/") {
		if piece == "-" {
			return at
		}
		at += len(piece) + 1
	}
	return -1
}

// hasPager reports whether the reference would have shown a usage error through its pager: then such errors go to standard
// output and exit with 64, else to standard error with 2 (docs/protocol/03 §7.3). Scripts see the same here.
func hasPager() bool {
	pager := os.Getenv("PAGER")
	if pager == "" {
		pager = "less"
	}
	fields := strings.Fields(pager)
	if len(fields) == 0 {
		return false
	}
	_, err := exec.LookPath(fields[0])
	return err == nil
}

// note writes a line of progress or advice for a person: on standard error, not when quiet.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintln(a.stderr, forTerminal(fmt.Sprintf(format, args...)))
	}
}

// problem says what went wrong beside what went well: on standard error, also when quiet.
func (a *app) problem(format string, args ...any) {
	fmt.Fprintln(a.stderr, a.color("33", "!")+" "+forTerminal(fmt.Sprintf(format, args...)))
}

// done says what was done, with a check mark, to a person at a terminal. Scripts get the result on standard output and nothing else,
// as from the reference.
func (a *app) done(format string, args ...any) {
	if a.stderrTTY {
		a.note(a.color(green, "✔")+" "+format, args...)
	}
}

// warn is note for what scripts see in the result: for a person at a terminal.
func (a *app) warn(format string, args ...any) {
	if a.stderrTTY {
		a.note(format, args...)
	}
}

// hint tells the next command to a person at a terminal.
func (a *app) hint(format string, args ...any) {
	if a.stderrTTY {
		a.note("  "+format, args...)
	}
}

const (
	green = "32"
	red   = "31"
	bold  = "1"
	dim   = "2"
)

// color paints text when standard error is a terminal that wants colour.
func (a *app) color(code, text string) string {
	if a.noColor || !a.stderrTTY {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// plural is "1 node", "2 nodes".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// abs makes a path absolute: from the directory of the configuration that names it, or from the working directory.
func (a *app) abs(path string) (string, error) {
	if a.base != "" && !filepath.IsAbs(path) {
		path = filepath.Join(a.base, path)
	}
	return filepath.Abs(path)
}
