package main

import (
	"bufio"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
)

// usage writes a command's usage. It is no template: text/template calls methods by names that are in data, and a program in which
// anything does so keeps every exported method of every type, here a third of all its code.
func usage(cmd *cobra.Command) error {
	w := bufio.NewWriter(cmd.OutOrStderr())
	fmt.Fprintf(w, "Usage:\n  %s", cmd.UseLine())
	if cmd.HasAvailableSubCommands() && !cmd.Runnable() {
		fmt.Fprint(w, " COMMAND")
	}
	fmt.Fprintln(w)
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	list := func(title string, in func(*cobra.Command) bool) {
		fmt.Fprintf(w, "\n%s\n", title)
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && in(sub) {
				fmt.Fprintf(w, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
	if cmd.HasAvailableSubCommands() {
		for _, group := range cmd.Groups() {
			list(group.Title, func(sub *cobra.Command) bool { return sub.GroupID == group.ID })
		}
		if len(cmd.Groups()) == 0 {
			list("Commands:", func(*cobra.Command) bool { return true })
		}
	}
	if cmd.HasAvailableLocalFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s\n", strings.TrimRightFunc(cmd.LocalFlags().FlagUsages(), unicode.IsSpace))
	}
	if cmd.HasParent() && cmd.HasAvailableInheritedFlags() {
		fmt.Fprint(w, "\nGlobal flags: --quiet --output json --jq QUERY --compact-output --no-color --no-input --env K=V -v\n")
	}
	return w.Flush()
}
