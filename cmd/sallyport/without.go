//go:build small

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// errSmall says that something was left out of this program.
func errSmall(what string) error {
	return errors.New("this program was built without " + what)
}

func (a *app) filter(any) (string, error) { return "", errSmall("--jq") }

func init() {
	for _, name := range []string{"kafka-inlet", "kafka-outlet"} {
		nouns = append(nouns, func(*app) *cobra.Command {
			return &cobra.Command{Use: name, Short: "Kafka portals, which this program was built without", DisableFlagParsing: true, GroupID: groupObjects,
				RunE: func(*cobra.Command, []string) error { return errSmall("Kafka") }}
		})
	}
}
