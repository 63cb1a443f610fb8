package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagsPath holds the flags of every command of the reference, hidden ones and aliases too, as its own completions for bash list them: a
// command, a colon, and its flags; one that takes a value ends in =. The first line has those of all commands.
const flagsPath = "testdata/flags.txt"

var (
	caseLabel  = regexp.MustCompile(`^        (ockam(?:__[a-z_]+)*)\)$`)
	optsLine   = regexp.MustCompile(`^            opts="(.*)"$`)
	valueLabel = regexp.MustCompile(`^                (--?[A-Za-z_-]+)\)$`)
)

// completionFlags reads the flags of each command from completions for bash.
func completionFlags(t *testing.T, completions string) map[string][]string {
	t.Helper()
	flags := map[string][]string{}
	command := ""
	for line := range strings.Lines(completions) {
		line = strings.TrimRight(line, "\n")
		if m := caseLabel.FindStringSubmatch(line); m != nil {
			// The parts of a path are joined by __, and what was a dash in a name is one too: the names of commands are needed to tell.
			command = strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(m[1], "ockam"), "__"), "__", " ")
			continue
		}
		if m := optsLine.FindStringSubmatch(line); m != nil {
			for _, word := range strings.Fields(m[1]) {
				if strings.HasPrefix(word, "-") {
					flags[command] = append(flags[command], word)
				}
			}
			if flags[command] == nil {
				flags[command] = []string{}
			}
		}
		if m := valueLabel.FindStringSubmatch(line); m != nil {
			if i := slices.Index(flags[command], m[1]); i >= 0 {
				flags[command][i] += "="
			}
		}
	}
	if len(flags) < 100 {
		t.Fatalf("only %d commands in the completions", len(flags))
	}
	for command := range flags {
		if command == "" {
			continue
		}
		if words := strings.Fields(command); slices.Contains(words, "help") { // explains other commands
			delete(flags, command)
			continue
		}
		flags[command] = slices.DeleteFunc(flags[command], func(flag string) bool { return slices.Contains(flags[""], flag) })
	}
	return flags
}

func readFlags(t *testing.T) map[string][]string {
	t.Helper()
	f, err := os.Open(flagsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags := map[string][]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		command, list, _ := strings.Cut(in.Text(), ":")
		flags[command] = strings.Fields(list)
	}
	return flags
}

func flagsText(flags map[string][]string) string {
	var b strings.Builder
	for _, command := range sortedNames(flags) {
		list := slices.Clone(flags[command])
		slices.Sort(list)
		fmt.Fprintf(&b, "%s: %s\n", command, strings.Join(list, " "))
	}
	return b.String()
}

// find returns the command of a path, or nil. Dashes and blanks are not told apart: the reference's completions do not.
func find(root *cobra.Command, path string) *cobra.Command {
	var found *cobra.Command
	walk(root, func(c *cobra.Command) {
		_, own, _ := strings.Cut(c.CommandPath(), " ")
		if strings.ReplaceAll(own, "-", " ") == strings.ReplaceAll(path, "-", " ") {
			found = c
		}
	})
	return found
}

// onlyHere are the flags that the reference does not have, a line each; docs/cli-differences.md names them.
const onlyHere = "testdata/flags_only_here.txt"

// TestFlags compares the flags of every command with the reference's: their names, short forms and aliases, and whether they take a value.
func TestFlags(t *testing.T) {
	var theirs map[string][]string
	if !*update {
		theirs = readFlags(t)
	}
	if path := reference(); path != "" {
		completion := exec.Command(path, "completion", "--shell", "bash")
		completion.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")} // NO_COLOR=1 would be an error
		out, err := completion.Output()
		if err != nil {
			t.Fatal(err)
		}
		now := completionFlags(t, string(out))
		if *update {
			if err := os.WriteFile(flagsPath, []byte(flagsText(now)), 0o644); err != nil {
				t.Fatal(err)
			}
			theirs = now
		} else if flagsText(now) != flagsText(theirs) {
			t.Errorf("the reference has other flags than those recorded: go test -run TestFlags -update")
		}
	}
	root := testRoot()
	seen := map[string]bool{}
	for command, flags := range theirs {
		c := find(root, command)
		if c == nil {
			t.Errorf("there is no command %q", command)
			continue
		}
		all := c.Flags()
		all.AddFlagSet(c.InheritedFlags())
		for _, flag := range flags {
			name, value := strings.CutSuffix(flag, "=")
			seen[c.CommandPath()+" "+name] = true
			var f *pflag.Flag
			if long, ok := strings.CutPrefix(name, "--"); ok {
				f = all.Lookup(long)
			} else {
				f = all.ShorthandLookup(name[1:])
			}
			switch {
			case name == "--help" || name == "-h" || name == "--version" || name == "-V":
			case f == nil:
				t.Errorf("%s has no %s", command, name)
			case value != (f.NoOptDefVal == ""):
				t.Errorf("%s: %s takes a value in one program only (in the reference: %v)", command, name, value)
			}
			if f != nil {
				seen[c.CommandPath()+" --"+f.Name] = true
			}
		}
	}
	var only []string
	walk(root, func(c *cobra.Command) {
		_, path, _ := strings.Cut(c.CommandPath(), " ")
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if flag := path + " --" + f.Name; f.Name != "help" && f.Name != "version" && path != "" && path != "version" && !seen[c.CommandPath()+" --"+f.Name] {
				only = append(only, flag)
			}
		})
	})
	slices.Sort(only)
	now := strings.Join(only, "\n") + "\n"
	if *update {
		if err := os.WriteFile(onlyHere, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := os.ReadFile(onlyHere)
	if err != nil {
		t.Fatal(err)
	}
	if now != string(listed) {
		for _, flag := range only {
			if !strings.Contains("\n"+string(listed), "\n"+flag+"\n") {
				t.Errorf("%s is not in %s", flag, onlyHere)
			}
		}
		t.Errorf("the flags that only this program has are not those in %s: go test -run TestFlags -update, and say in docs/cli-differences.md what they are for", onlyHere)
	}
}

func TestRetry(t *testing.T) {
	a := newApp(strings.NewReader(""), new(strings.Builder), new(strings.Builder))
	count := func(r retry, env ...string) int {
		t.Helper()
		for i := 0; i+1 < len(env); i += 2 {
			t.Setenv(env[i], env[i+1])
		}
		calls := 0
		err := a.retrying(t.Context(), r, func() error { calls++; return fmt.Errorf("failure %d", calls) })
		if err == nil || err.Error() != fmt.Sprintf("failure %d", calls) {
			t.Errorf("%+v: %v after %d calls", r, err, calls)
		}
		return calls
	}
	for _, c := range []struct {
		r    retry
		want int
	}{
		{retry{}, 1}, {retry{delay: 1}, 3}, {retry{tries: 4, delay: 1}, 4}, {retry{tries: 4, delay: 1, never: true}, 1}, {retry{tries: 1}, 1},
	} {
		if got := count(c.r); got != c.want {
			t.Errorf("%+v: %d calls, want %d", c.r, got, c.want)
		}
	}
	if got := count(retry{}, "OCKAM_COMMAND_RETRY_COUNT", "2", "OCKAM_COMMAND_RETRY_DELAY", "1ms"); got != 2 {
		t.Errorf("from the environment: %d calls", got)
	}
	if tries, delay, err := (&retry{tries: 7}).plan(); tries != 7 || delay != time.Millisecond || err != nil {
		t.Errorf("a flag and the environment: %d, %v, %v", tries, delay, err)
	}
	calls := 0
	if err := a.retrying(t.Context(), retry{tries: 5, delay: 1}, func() error { calls++; return usageError("x") }); calls != 1 || err == nil {
		t.Errorf("a usage error was tried %d times", calls)
	}
	if err := a.retrying(t.Context(), retry{tries: 5, delay: 1}, func() error {
		if calls++; calls < 4 {
			return fmt.Errorf("not yet")
		}
		return nil
	}); err != nil || calls != 4 {
		t.Errorf("in the end it worked: %v after %d calls", err, calls)
	}
}
