package main

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/limits"
	"sallyport/node"
	"sallyport/state"
)

// limitsValue is the flag --limits: an object as JSON, or the name of a file with one.
type limitsValue struct{ to *limits.Limits }

func (v limitsValue) String() string { return "" }
func (v limitsValue) Type() string   { return "JSON" }

// Set reads the limits over those that are set.
func (v limitsValue) Set(text string) error {
	if err := readObject(text, v.to); err != nil {
		return err
	}
	return v.to.Validate()
}

// readObject decodes the value of a flag that is an object as JSON, or the name of a file with one, over what is set. An unknown field is an error.
func readObject(text string, into any) error {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		b, err := os.ReadFile(text)
		if err != nil {
			return err
		}
		text = string(b)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// memoryValue is the flag --memory-limit, one of the limits.
type memoryValue struct{ to *limits.Limits }

func (v memoryValue) String() string { return "" }
func (v memoryValue) Type() string   { return "SIZE" }

// Set reads a size.
func (v memoryValue) Set(text string) error {
	size, err := limits.ParseBytes(text)
	if err != nil {
		return err
	}
	if size < limits.MinMemory {
		return errors.New("a node needs at least " + limits.MinMemory.String())
	}
	v.to.Memory = size
	return nil
}

// limitFlags adds the flags of docs/limits.md.
func limitFlags(cmd *cobra.Command, o *state.NodeOptions) {
	f := cmd.Flags()
	f.Var(memoryValue{&o.Limits}, "memory-limit", "what the node may use, like 512MiB")
	f.BoolVar(&o.NoSandbox, "no-sandbox", false, "let the process write outside its state directory")
	f.Var(limitsValue{&o.Limits}, "limits", "other limits, `JSON` or a file with it (docs/limits.md)")
}

// limitArgs is the command line that limitFlags reads as o.
func limitArgs(o state.NodeOptions) []string {
	var args []string
	if o.NoSandbox {
		args = append(args, "--no-sandbox")
	}
	if o.Limits == (limits.Limits{}) {
		return args
	}
	b, err := json.Marshal(o.Limits)
	if err != nil {
		panic(err) // numbers and texts only
	}
	return append(args, "--limits", string(b))
}

// smallGC is how much the heap of a small node grows between collections, in percent of what is in use (GOGC), unless the environment says
// otherwise. The data path allocates next to nothing, so it costs little.
const smallGC = 25

// applyLimits completes a node's limits, and sets those of the process.
func applyLimits(options *node.Options, l limits.Limits, small bool) {
	if small {
		l = l.Small()
		options.Shards = 1
		// One for the loop, one for what blocks or computes long: each has caches of memory of its own.
		runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), 2))
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(smallGC)
		}
	}
	options.Limits = l.WithDefaults()
	if m := options.Limits.Memory; m > 0 {
		debug.SetMemoryLimit(int64(m))
	}
}
