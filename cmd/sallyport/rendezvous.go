package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"sallyport/node"
	"sallyport/routing/udp"
)

func init() { nouns = append(nouns, rendezvousNoun) }

func rendezvousNoun(a *app) *cobra.Command {
	return noun(groupObjects, "rendezvous", "Servers that tell nodes their public UDP address", nil, rendezvousCreate(a), rendezvousAddress(a))
}

// udpOptions reads the options of the UDP transport, which are the environment's.
func udpOptions() (node.UDPOptions, error) {
	transport, err := udp.ParseOptions(os.LookupEnv)
	if err != nil {
		return node.UDPOptions{}, usageError("%v", err)
	}
	return node.UDPOptions{Rendezvous: os.Getenv(node.EnvRendezvous), Transport: transport}, nil
}

func rendezvousCreate(a *app) *cobra.Command {
	var at, health string
	var foreground, child, exitOnEOF bool
	cmd := &cobra.Command{Use: "create [flags]", Short: "Run a rendezvous server here until it is interrupted",
		Example: `  sallyport rendezvous create
  sallyport rendezvous create --udp 127.0.0.1:4002 --healthcheck 127.0.0.1:4003`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			listen, err := hostPort("--udp", at)
			if err != nil {
				return atRunTime(err) // as in the reference
			}
			check, err := hostPort("--healthcheck", health)
			if err != nil {
				return atRunTime(err)
			}
			if exitOnEOF && !foreground {
				return usageError("the following required arguments were not provided: --foreground")
			}
			o, err := udpOptions()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			log, _ := a.logger("", "", 0)
			r, err := node.StartRendezvous(ctx, listen, check, o.Transport, log)
			if err != nil {
				return err
			}
			defer r.Stop()
			a.done("The rendezvous server answers at %s, its health is at http://%s; Ctrl-C ends it", r.Address, r.Health)
			a.hint("next: %s=HOST:PORT sallyport node create --udp", node.EnvRendezvous)
			notifySystemd("READY=1\nSTATUS=rendezvous server at " + r.Address)
			if exitOnEOF {
				go func() {
					_, _ = io.Copy(io.Discard, a.stdin)
					cancel()
				}()
			}
			<-ctx.Done()
			notifySystemd("STOPPING=1")
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&at, "udp", "0.0.0.0:4000", "where nodes ask, `HOST:PORT`")
	f.StringVar(&health, "healthcheck", "0.0.0.0:4001", "where HTTP tells its health, `HOST:PORT`")
	f.BoolVarP(&foreground, "foreground", "f", false, "no effect: it always runs here, as in the reference")
	f.BoolVarP(&exitOnEOF, "exit-on-eof", "e", false, "end when standard input ends (needs --foreground)")
	f.BoolVar(&child, "child-process", false, "")
	hide(cmd, "child-process")
	return cmd
}

func rendezvousAddress(a *app) *cobra.Command {
	return &cobra.Command{Use: "get-my-address [HOST:PORT]", Short: "Print the address that this machine's datagrams come from",
		Long: fmt.Sprintf("Ask a rendezvous server, by default that of the environment variable %s, from\nwhich address the datagrams of this machine come to it.", node.EnvRendezvous),
		Example: `  sallyport rendezvous get-my-address 127.0.0.1:4002
  ` + node.EnvRendezvous + `=127.0.0.1:4002 sallyport rendezvous get-my-address`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := udpOptions()
			if err != nil {
				return err
			}
			server := o.Rendezvous
			if len(args) == 1 {
				server = args[0]
			}
			if server == "" {
				return withHint(node.ErrNoRendezvous, "or name it: sallyport rendezvous get-my-address HOST:PORT")
			}
			log := slog.New(slog.DiscardHandler)
			if a.verbose > 0 {
				log, _ = a.logger("", "", 0)
			}
			address, err := node.PublicAddress(cmd.Context(), server, o.Transport, log)
			if err != nil {
				return err
			}
			return a.print(result{human: address, machine: address, json: map[string]string{"address": address}})
		}}
}
