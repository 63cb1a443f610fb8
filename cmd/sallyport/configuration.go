package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// removeGlob removes the files of a directory that match a pattern.
func removeGlob(dir, pattern string) error {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	for _, p := range paths {
		err = errors.Join(err, os.Remove(p))
	}
	return err
}

// isConfiguration reports whether an argument of `node create` is a configuration rather than a name: an existing file, or text
// with structure (docs/protocol/03 §7.6).
func isConfiguration(arg string) bool {
	if arg == "" {
		return false
	}
	if strings.ContainsAny(arg, ":\n{") {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && info.Mode().IsRegular()
}

// flagsGiven returns the flags that were given on the command line, as arguments.
func flagsGiven(cmd *cobra.Command) []string {
	var args []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

func (a *app) createFromConfiguration(ctx context.Context, arg, inline, ticket string, variables, flags []string) error {
	return errors.New("node configurations: not built yet")
}
