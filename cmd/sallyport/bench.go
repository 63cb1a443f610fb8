//go:build !small

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
)

func init() { nouns = append(nouns, benchCommand) }

func benchCommand(a *app) *cobra.Command {
	var at string
	var span time.Duration
	var offer offering
	cmd := &cobra.Command{
		Use: "bench INLET [flags]", Short: "Measure latency and throughput of each leg of an inlet's way", GroupID: groupOther, Args: cobra.ExactArgs(1),
		Long: `Measure latency and throughput of each leg of an inlet's way. With --send, requests go through
the inlet to its target instead, at a fixed rate, and each is measured from the time it was due.`,
		Example: `  sallyport bench db-in
  sallyport bench db-in --time 1s --output json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if span <= 0 || span > 30*time.Second {
				return usageError("invalid value '%v' for '--time': it must be from 1ms to 30s", span)
			}
			if offer.kind != "" {
				return a.offer(cmd.Context(), at, args[0], span, offer)
			}
			if cmd.Flags().Changed("rate") || cmd.Flags().Changed("connections") || cmd.Flags().Changed("path") {
				return usageError("--rate, --connections and --path are of requests: say which with --send")
			}
			p, node, err := a.probe(cmd.Context(), at, args[0], func(r *admin.ProbeRequest) { r.Count, r.BulkMS = 20, max(span.Milliseconds(), 1) })
			if err != nil {
				return err
			}
			text := benchText(p)
			if c, _, err := a.nodeClient(node); err == nil {
				if s, err := admin.Get[admin.Stats](cmd.Context(), c, admin.PathCounts); err == nil {
					for _, m := range s.Portals {
						if m.End == "inlet" && m.Name == args[0] && m.Opened > 0 {
							text += fmt.Sprintf("clients of the inlet so far: %d, half of them connected within %.1f ms, 99 %% within %.1f ms, the target among it\n", m.Opened, m.Setup50*1000, m.Setup99*1000)
						}
					}
				}
			}
			return a.printProbe(p, text)
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the `NODE` of the inlet (default: the default node)")
	durationVar(cmd.Flags(), &span, "time", 2*time.Second, "how long data, or requests, are sent")
	cmd.Flags().StringVar(&offer.kind, "send", "", "the `REQUESTS` to send to the target: http, redis or echo")
	cmd.Flags().Float64Var(&offer.rate, "rate", 100, "how many requests a second")
	cmd.Flags().IntVar(&offer.connections, "connections", 10, "over how many connections")
	cmd.Flags().StringVar(&offer.path, "path", "/", "the `PATH` that is fetched with http")
	return cmd
}

// benchText says how each node on the way did, and what that means.
func benchText(p *admin.Probe) string {
	rows := [][]string{}
	before, beforeRate := 0.0, 0.0
	slow, slowest := "", 0.0
	for _, h := range p.Hops {
		if len(h.RoundTripsMS) == 0 {
			continue
		}
		_, mean, most := trips(h.RoundTripsMS)
		leg := max(mean-before, 0)
		rows = append(rows, []string{h.Name, fmt.Sprintf("%.2f ms", mean), fmt.Sprintf("+%.2f ms", leg), fmt.Sprintf("%.2f ms", most), mebibytes(h.BytesPerSecond)})
		if leg > slowest {
			slow, slowest = h.Name, leg
		}
		before, beforeRate = mean, h.BytesPerSecond
	}
	text := table([]string{"TO AND BACK", "MEAN", "THIS LEG", "LONGEST", "THROUGHPUT"}, rows)
	if slow != "" && beforeRate > 0 {
		text += fmt.Sprintf("\nmost of the way's time is the leg to %s; what a client waits for beyond %.1f ms is the target's\n", slow, before)
	}
	return text
}
