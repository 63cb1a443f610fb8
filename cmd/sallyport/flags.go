package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// hide hides flags from help.
func hide(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.Flags().MarkHidden(name)
	}
}

// aliasesKey is the annotation that lists a command's aliases of flags, for the test that compares them with the reference's.
const aliasesKey = "aliases"

// flagAliases gives flags further names: pairs of an alias and the flag that it means.
func flagAliases(cmd *cobra.Command, pairs ...string) {
	means := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		means[pairs[i]] = pairs[i+1]
	}
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if flag, ok := means[name]; ok {
			name = flag
		}
		return pflag.NormalizedName(name)
	})
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[aliasesKey] = strings.Join(pairs, " ")
}

// noEffect are flags that the reference parses and that change nothing here: what they ask for is so anyhow, or belongs to its hosted
// service. A name that ends in = takes a value. docs/cli-differences.md lists them.
func noEffect(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if value, ok := strings.CutSuffix(name, "="); ok {
			cmd.Flags().String(value, "", "")
			hide(cmd, value)
			continue
		}
		cmd.Flags().Bool(name, false, "")
		hide(cmd, name)
	}
}

// switchFrom is the default of a flag that a variable of the environment turns on. As in the reference, anything but an empty text, 0,
// false, no, n, f and off does.
func switchFrom(name string) bool {
	switch strings.ToLower(os.Getenv(name)) {
	case "", "0", "false", "no", "n", "f", "off":
		return false
	}
	return true
}

// duration is a flag value: a number with d, h, m, s or ms; seconds without (docs/protocol/03 §7.2).
type duration struct{ d *time.Duration }

func (v duration) String() string {
	if v.d == nil {
		return ""
	}
	return v.d.String()
}
func (duration) Type() string { return "DURATION" }
func (v duration) Set(text string) error {
	d, err := parseDuration(text)
	if err == nil {
		*v.d = d
	}
	return err
}

func parseDuration(text string) (time.Duration, error) {
	digits := strings.TrimRight(text, "dhms")
	unit := text[len(digits):]
	n, err := strconv.ParseUint(digits, 10, 32)
	scale, known := map[string]time.Duration{"": time.Second, "s": time.Second, "ms": time.Millisecond, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	if err != nil || !known {
		return 0, fmt.Errorf("%q is not a duration such as 10s, 250ms, 5m, 1h or 2d", text)
	}
	return time.Duration(n) * scale, nil
}

func durationVar(f *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var(duration{d}, name, usage)
}

// durationFrom reads a duration from the environment; zero if the variable is not set.
func durationFrom(name string) (time.Duration, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return 0, usageError("the environment variable %s: %v", name, err)
	}
	return d, nil
}

// retry says how often a command that asks another node is tried (docs/protocol/03 §7.4).
type retry struct {
	tries uint32
	delay time.Duration
	never bool
}

const (
	defaultTries = 3               // with a delay alone
	defaultDelay = 5 * time.Second // with a count alone
	maxJitter    = 5 * time.Second
)

// add adds the flags, which the reference hides.
func (r *retry) add(cmd *cobra.Command, aliases ...string) {
	f := cmd.Flags()
	f.Uint32Var(&r.tries, "retry-count", 0, "")
	durationVar(f, &r.delay, "retry-delay", 0, "")
	f.BoolVar(&r.never, "no-retry", false, "")
	hide(cmd, "retry-count", "retry-delay", "no-retry")
	flagAliases(cmd, append(aliases, "retry", "retry-count")...)
}

// plan returns how often to try and how long to wait between, at least; flags come before the environment.
func (r *retry) plan() (uint32, time.Duration, error) {
	tries, delay := r.tries, r.delay
	if text := os.Getenv("OCKAM_COMMAND_RETRY_COUNT"); tries == 0 && text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, 0, usageError("the environment variable OCKAM_COMMAND_RETRY_COUNT is %q; it must be a number", text)
		}
		tries = uint32(n)
	}
	if delay == 0 {
		var err error
		if delay, err = durationFrom("OCKAM_COMMAND_RETRY_DELAY"); err != nil {
			return 0, 0, err
		}
	}
	switch {
	case r.never || tries == 0 && delay == 0:
		return 1, 0, nil
	case tries == 0:
		tries = defaultTries
	case delay == 0:
		delay = defaultDelay
	}
	return tries, delay, nil
}

// retrying calls f until it succeeds, as often as r says. A mistake in the command line is not tried again.
func (a *app) retrying(ctx context.Context, r retry, f func() error) error {
	tries, delay, err := r.plan()
	if err != nil {
		return err
	}
	for {
		err := f()
		if m := (*misuse)(nil); err == nil || tries <= 1 || ctx.Err() != nil || errors.As(err, &m) {
			return err
		}
		tries--
		pause := delay + rand.N(min(delay/2, maxJitter)+1)
		a.note("%s %v; trying again in %s", a.color("33", "!"), err, pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
