// Package config reads the YAML (hence also JSON) configuration of nodes and turns it into command lines.
//
// Two commands read such files: `node create CONFIG`, which describes one node, and `run`, which describes several. Both share
// a grammar (docs/protocol/02 §8.4, docs/protocol/03 §7.6): resource sections whose entries become `create` commands, every key
// of an entry being one long flag. The package runs nothing: it returns a [Plan], the commands in the order in which the
// reference executes them, and each command remembers the line it came from. Whether a command knows an option is decided by
// the command line, which can point at [Invocation.Line] when it refuses one.
//
// Reading takes three steps: the `variables` section is read from the unexpanded text, $NAME, ${NAME} and ${NAME:-default} are
// replaced in the whole text, and the result is parsed. Errors are positioned in, and quote, the text as written, not the
// expanded one: that is what the author can correct, and it keeps the values of variables, often secrets, out of error texts.
package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MaxText is the largest accepted configuration in bytes, before and after expansion of variables.
const MaxText = 1 << 20

// Mode selects the command whose grammar applies.
type Mode int

// The two grammars.
const (
	NodeCreate Mode = iota // `node create CONFIG`: one node, its keys at the top level
	Run                    // `run`: vaults, identities and nodes in sections
)

// String returns the command's name.
func (m Mode) String() string {
	if m == Run {
		return "run"
	}
	return "node create"
}

// Options are the inputs of [Load] beside the text. The zero value is usable.
type Options struct {
	// Variables are those of the command line (--variable K=V). They win over the environment and over the file.
	Variables map[string]string
	// Lookup reads the environment; nil means an empty one. It wins over the file's variables section.
	Lookup func(string) (string, bool)
	// NodeName is the node to create when the file has no `name`, or in any case if NameGiven is set. Used with NodeCreate only.
	NodeName string
	// NameGiven says that NodeName was given on the command line.
	NameGiven bool
	// Flags returns the flags of a command, such as "tcp-outlet create", by their long names; keys that are none of them are refused.
	// Nil accepts all.
	Flags func(command string) []string
}

// Invocation is one command to execute.
type Invocation struct {
	Args []string // the command line without the program, for example tcp-outlet create db --to 127.0.0.1:5432 --at edge1
	Line int      // line of the entry in the configuration, from 1
	What string   // what it makes, for messages: `tcp-outlet "db"`. Never contains a secret
	Name string   // the name given to it, "" for none

	entry  position
	values map[string]position // by flag, of what was given
}

// Plan is what a configuration asks for.
//
// NodeCreate: enrol with Ticket if it is not empty, create the node with the arguments in Node, then execute Invocations.
// Run: execute Invocations; the enrolment is one of them, at its place in the order.
type Plan struct {
	Variables map[string]string // the variables section and Options.Variables, with the values in effect
	Ticket    string            // enrolment ticket (a secret), "" for none; surrounding blanks removed
	// TicketFile is the path of a file with the ticket, "" for none (NodeCreate only).
	TicketFile string

	// Node holds the arguments of `node create` (NodeCreate only): first NodeName, unless that is empty, then the flags.
	Node     []string
	NodeName string

	Invocations []Invocation
	Warnings    []string // accepted but without effect, each beginning with "line N: "

	src       *source
	nodeFlags map[string]position
}

// FlagLine returns the line that set a flag of [Plan.Node] (its long name without dashes; "name" for the node's name), or 0.
func (p *Plan) FlagLine(flag string) int {
	at, ok := p.nodeFlags[flag]
	if !ok {
		return 0
	}
	return p.src.line(at)
}

// NodeError makes an error about the value of one of the flags of the node; the position is that of the value.
func (p *Plan) NodeError(flag, msg string) *Error {
	at, ok := p.nodeFlags[flag]
	if !ok {
		at = position{1, 1}
	}
	return p.src.errorf(at, "%s", msg)
}

// Error makes an error about an invocation of the plan. Where the message names one of its flags with dashes, the position is that of
// the flag's value, else that of the entry.
func (p *Plan) Error(inv Invocation, msg string) *Error {
	at, longest := inv.entry, 0
	for flag, pos := range inv.values {
		if len(flag) > longest && strings.Contains(msg, "--"+flag) {
			at, longest = pos, len(flag)
		}
	}
	return p.src.errorf(at, "%s: %s", inv.What, msg)
}

// Load reads a configuration. A failure is an [*Error] with a position in text, or [Errors] when there are several.
func Load(mode Mode, text []byte, opt Options) (*Plan, error) {
	src, err := newSource(text)
	if err != nil {
		return nil, err
	}
	vars, err := readVariables(src, opt)
	if err != nil {
		return nil, err
	}
	if err := src.expand(vars.lookup); err != nil {
		return nil, err
	}
	root, err := parse(src)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Variables: vars.effective(), src: src, nodeFlags: map[string]position{}}
	b := builder{mode: mode, src: src, opt: opt, plan: plan}
	b.build(root)
	if err := b.failed(); err != nil {
		return nil, err
	}
	return plan, nil
}

// defaultFiles are the names Find tries, in this order. The last two are the reference's.
var defaultFiles = [...]string{"sallyport.yml", "sallyport.yaml", "ockam.yml", "ockam.yaml"}

// Find returns the path of the file `run` reads when none is given: the first of sallyport.yml, sallyport.yaml, ockam.yml and
// ockam.yaml that is a regular file in dir. Without one the error wraps [fs.ErrNotExist].
func Find(dir string) (string, error) {
	for _, name := range defaultFiles {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case err == nil && info.Mode().IsRegular():
			return path, nil
		case err != nil && !os.IsNotExist(err):
			return "", fmt.Errorf("look for a configuration: %w", err)
		}
	}
	return "", fmt.Errorf("no configuration in %s (looked for %s): %w", dir, strings.Join(defaultFiles[:], ", "), fs.ErrNotExist)
}
