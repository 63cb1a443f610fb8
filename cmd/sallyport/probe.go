package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
)

func init() {
	nouns = append(nouns, topCommand, eventsCommand, pingCommand, traceCommand, doctorCommand)
}

// probeRequest says what is to be probed: a route, or else an inlet of the node.
func (a *app) probeRequest(text string) (r admin.ProbeRequest, err error) {
	if !strings.HasPrefix(text, "/") {
		return admin.ProbeRequest{Inlet: text}, nil
	}
	to, err := a.route("<INLET_OR_ROUTE>", text)
	return admin.ProbeRequest{To: to.String()}, err
}

// probe asks a node to go a way.
func (a *app) probe(ctx context.Context, at, text string, change func(*admin.ProbeRequest)) (*admin.Probe, string, error) {
	r, err := a.probeRequest(text)
	if err != nil {
		return nil, "", err
	}
	change(&r)
	c, node, err := a.nodeClient(at)
	if err != nil {
		return nil, "", err
	}
	p, err := admin.Post[admin.Probe](ctx, c, admin.PathProbing, r)
	if err != nil && r.Inlet != "" && strings.Contains(err.Error(), "not found") {
		err = withHint(fmt.Errorf("the node %s has no inlet %s", node, r.Inlet), "sallyport tcp-inlet list --at %s shows those there are; a route begins with /", node)
	}
	return &p, node, err
}

func traceCommand(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use: "trace INLET_OR_ROUTE [flags]", Short: "Go a way hop by hop: how long each takes, and which fails", GroupID: groupOther, Args: cobra.ExactArgs(1),
		Example: `  sallyport trace db-in
  sallyport trace /node/n1/secure/api/service/db --at n2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _, err := a.probe(cmd.Context(), at, args[0], func(*admin.ProbeRequest) {})
			if err != nil {
				return err
			}
			return a.printProbe(p, hopTable(p))
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the `NODE` that goes (default: the default node)")
	return cmd
}

// printProbe prints a probe; one that failed is an error that names the hop.
func (a *app) printProbe(p *admin.Probe, text string) error {
	if err := a.print(result{human: text, machine: strings.TrimSpace(text), json: p}); err != nil {
		return err
	}
	for i, h := range p.Hops {
		if h.Error != "" {
			return withHint(fmt.Errorf("hop %d, %s %s: %s", i+1, h.Kind, h.Name, h.Error), "%s", hopHint(h))
		}
	}
	return nil
}

// hopHint says what to do about a hop that failed.
func hopHint(h admin.Hop) string {
	switch {
	case strings.Contains(h.Error, "proxy http") || strings.Contains(h.Error, "proxy socks5:"):
		return proxyAdvice
	case strings.Contains(h.Error, "connection refused"):
		return "nobody listens there: is the node running, and is the port right?"
	case strings.Contains(h.Error, "no such host") || strings.Contains(h.Error, "lookup"):
		return "the name is not known here: look at DNS"
	case (h.Kind == "tcp" || h.Kind == "udp") && (strings.Contains(h.Error, "deadline") || strings.Contains(h.Error, "timed out")):
		return "nothing answers: look at the address and at firewalls between here and there"
	case h.Kind == "relay":
		return "at the outlet's machine: sallyport relay list shows whether its name is registered"
	case h.Kind == "outlet":
		return "at the outlet's machine: sallyport tcp-outlet list, and doctor"
	case h.Kind == "channel" && (strings.Contains(h.Error, "deadline") || strings.Contains(h.Error, "in time") || strings.Contains(h.Error, "has ended")):
		return "the connection is there, and what answers does not speak the protocol: is it another program's port?"
	case h.Kind == "channel":
		return "sallyport doctor looks at the clock, the credential and who is expected"
	}
	return "sallyport doctor looks at this machine"
}

// trips are the shortest, mean and longest of round trips, in milliseconds.
func trips(list []float64) (least, mean, most float64) {
	if len(list) == 0 {
		return 0, 0, 0
	}
	for _, v := range list {
		mean += v
	}
	return slices.Min(list), mean / float64(len(list)), slices.Max(list)
}

func hopTable(p *admin.Probe) string {
	rows := [][]string{}
	for i, h := range p.Hops {
		trip := "-"
		if len(h.RoundTripsMS) > 0 {
			least, mean, most := trips(h.RoundTripsMS)
			trip = fmt.Sprintf("%.1f / %.1f / %.1f ms", least, mean, most)
		}
		state := h.State
		if h.Error != "" {
			state = "FAILS: " + h.Error
		} else if state == "" {
			state = "ok"
		}
		rows = append(rows, []string{fmt.Sprint(i + 1), h.Kind, h.Name, fmt.Sprintf("%.1f ms", h.TookMS), trip, state})
	}
	return table([]string{"HOP", "KIND", "TO", "OPENED IN", "ROUND TRIP (MIN / MEAN / MAX)", ""}, rows)
}

func pingCommand(a *app) *cobra.Command {
	var at string
	var count int
	cmd := &cobra.Command{
		Use: "ping INLET_OR_ROUTE [flags]", Short: "Measure round trips to the node at the end of a way", GroupID: groupOther, Args: cobra.ExactArgs(1),
		Example: `  sallyport ping db-in
  sallyport ping /node/n1/secure/api --at n2 --count 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 || count > 1000 {
				return usageError("invalid value '%d' for '--count': it must be from 1 to 1000", count)
			}
			p, _, err := a.probe(cmd.Context(), at, args[0], func(r *admin.ProbeRequest) { r.Count = count })
			if err != nil {
				return err
			}
			for i := len(p.Hops) - 1; i >= 0; i-- {
				if h := p.Hops[i]; len(h.RoundTripsMS)+h.Lost > 0 {
					least, mean, most := trips(h.RoundTripsMS)
					text := fmt.Sprintf("%s: %d sent, %d answered, round trip %.2f / %.2f / %.2f ms (min / mean / max)\n", h.Name, len(h.RoundTripsMS)+h.Lost, len(h.RoundTripsMS), least, mean, most)
					return a.printProbe(p, text)
				}
			}
			return a.printProbe(p, hopTable(p))
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the `NODE` that asks (default: the default node)")
	cmd.Flags().IntVar(&count, "count", 5, "how many round trips")
	return cmd
}

func mebibytes(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "-"
	case perSecond < 1<<20:
		return fmt.Sprintf("%.1f KiB/s", perSecond/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB/s", perSecond/(1<<20))
}

func eventsCommand(a *app) *cobra.Command {
	var at, level string
	cmd := &cobra.Command{
		Use: "events [flags]", Short: "Show what happened lately at a node", GroupID: groupOther, Args: cobra.NoArgs,
		Example: `  sallyport events
  sallyport events --at n1 --level warn --jq '.[].text'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			least := map[string]int{"info": 0, "warn": 1, "error": 2}
			from, ok := least[level]
			if !ok {
				return usageError("invalid value '%s' for '--level': it must be info, warn or error", level)
			}
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			list, err := admin.Get[[]admin.Event](cmd.Context(), c, admin.PathHappened)
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(e admin.Event) bool { return least[strings.ToLower(e.Level)] < from })
			rows := [][]string{}
			for _, e := range list {
				rows = append(rows, []string{e.Time.Local().Format(time.DateTime), e.Level, eventText(e)})
			}
			return a.print(result{human: tableOr("nothing happened at "+node, []string{"TIME", "LEVEL", "EVENT"}, rows), machine: strings.TrimSpace(tableOr("", []string{"TIME", "LEVEL", "EVENT"}, rows)), json: list})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the `NODE` (default: the default node)")
	cmd.Flags().StringVar(&level, "level", "info", "the least that is shown: info, warn or error")
	return cmd
}

// eventText is an event on one line.
func eventText(e admin.Event) string {
	text := e.Text
	for _, key := range slices.Sorted(maps.Keys(e.With)) {
		text += " " + key + "=" + e.With[key]
	}
	if e.Times > 1 {
		text += fmt.Sprintf(" (%d times)", e.Times)
	}
	return text
}

var errStopped = errors.New("the node does not answer")
