package main

import (
	"github.com/spf13/cobra"

	"sallyport/node/admin"
)

// acceptCommand makes the command of a noun that lets an inlet go on with another node at the end of its route.
func acceptCommand(a *app, noun, example, path string) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "accept NAME [flags]", Short: "Let an inlet go on with another node at the end of its route", Example: "  sallyport " + noun + " accept " + example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			got, err := admin.Post[admin.Accepted](cmd.Context(), c, admin.Item(path, args[0])+"/accept", struct{}{})
			if err != nil {
				return err
			}
			now := got.Now
			if now == "" {
				now = "whoever answers next"
			}
			return a.print(result{human: fields("Inlet", got.Name, "Expected until now", got.Before, "Expected from now on", now), json: got})
		}}
	cmd.Flags().StringVar(&at, "at", "", "the `NODE` (default: the default node)")
	return cmd
}
