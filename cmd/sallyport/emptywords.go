package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mayBeEmpty are flags for which an empty text means something, or whose own message is better.
var mayBeEmpty = []string{"allow", "allow-consumer", "allow-producer", "configuration", "inline", "jq"}

// checkEmptyWords refuses empty words. They come from a script's variable that is not set, and would stand for the default: `node delete "$NODE"` must not
// delete the default node.
func checkEmptyWords(cmd *cobra.Command, args []string) error {
	if name := cmd.Name(); name == cobra.ShellCompRequestCmd || name == cobra.ShellCompNoDescRequestCmd { // what is to be completed may be nothing yet
		return nil
	}
	if at := slices.Index(args, ""); at >= 0 && cmd.CommandPath() != "sallyport message send" {
		what := "the argument"
		if fields := strings.Fields(cmd.Use); len(fields) > at+1 && strings.ToUpper(fields[at+1]) == fields[at+1] {
			what = strings.Trim(fields[at+1], "[]")
		}
		return withHint(fmt.Errorf("%s is empty", what), "is a variable of a script not set?")
	}
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && f.Value.Type() == "string" && f.Value.String() == "" && !slices.Contains(mayBeEmpty, f.Name) {
			err = usageError("invalid value '' for '--%s': it is empty", f.Name)
		}
	})
	return err
}
