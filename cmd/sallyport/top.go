package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
)

// topRow is what top shows of a portal.
type topRow struct {
	admin.PortalStats
	InPerSecond  float64 `json:"in_per_second"`
	OutPerSecond float64 `json:"out_per_second"`
	NewPerSecond float64 `json:"new_per_second"`
	// RoundTrip is that of an inlet's path, 0 where it is not known.
	RoundTrip float64 `json:"round_trip_seconds,omitempty"`
}

// topRows are the rates between two looks.
func topRows(before, now *admin.Stats) []topRow {
	old := map[[2]string]admin.PortalStats{}
	for _, p := range before.Portals {
		old[[2]string{p.End, p.Name}] = p
	}
	trips := map[string]float64{}
	for _, p := range now.Paths {
		if p.Up && (p.Kind == "inlet" || p.Kind == "inlet_udp" && p.RoundTrip > 0) { // the direct path comes after the other, and is taken where there is one
			trips[p.Name] = p.RoundTrip
		}
	}
	span := max(now.At.Sub(before.At).Seconds(), 1e-3)
	rows := []topRow{}
	for _, p := range now.Portals {
		o, ok := old[[2]string{p.End, p.Name}]
		if !ok || o.BytesIn > p.BytesIn || o.BytesOut > p.BytesOut || o.Opened > p.Opened {
			o = p // it is new, or counts anew
		}
		r := topRow{PortalStats: p, InPerSecond: float64(p.BytesIn-o.BytesIn) / span, OutPerSecond: float64(p.BytesOut-o.BytesOut) / span,
			NewPerSecond: float64(p.Opened-o.Opened) / span}
		if p.End == "inlet" {
			r.RoundTrip = trips[p.Name]
		}
		rows = append(rows, r)
	}
	return rows
}

// topOrder is what rows can be sorted by, the largest first: with which key, and which column that is.
type topOrder struct {
	key    byte
	column string
	of     func(topRow) float64
}

var topOrders = map[string]topOrder{
	"in":      {'i', "IN", func(r topRow) float64 { return r.InPerSecond }},
	"out":     {'o', "OUT", func(r topRow) float64 { return r.OutPerSecond }},
	"open":    {'c', "OPEN", func(r topRow) float64 { return float64(r.Open) }},
	"new":     {'n', "NEW", func(r topRow) float64 { return r.NewPerSecond }},
	"setup":   {'s', "SET UP P50 / P99", func(r topRow) float64 { return r.Setup99 }},
	"trip":    {'t', "ROUND TRIP", func(r topRow) float64 { return r.RoundTrip }},
	"refused": {'r', "REFUSED", func(r topRow) float64 { return float64(r.Refused) }},
}

// topNames are the names of topOrders as they are listed.
var topNames = []string{"in", "out", "open", "new", "setup", "trip", "refused"}

func sortTop(rows []topRow, by string) {
	order := topOrders[by].of
	slices.SortStableFunc(rows, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(order(b), order(a)), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
}

func topCommand(a *app) *cobra.Command {
	var at, by string
	var every time.Duration
	var count int
	cmd := &cobra.Command{
		Use: "top [flags]", Short: "Watch a node's portals: rates, connections, latency", GroupID: groupOther, Args: cobra.NoArgs,
		Example: `  sallyport top --count 3
  sallyport top --at n1 --sort open --count 1 --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, ok := topOrders[by]; !ok {
				return usageError("invalid value '%s' for '--sort': it must be %s or refused", by, strings.Join(topNames[:len(topNames)-1], ", "))
			}
			if every < 100*time.Millisecond {
				return usageError("invalid value '%v' for '--every': it must be at least 100ms", every)
			}
			ctx := cmd.Context()
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			before, err := admin.Get[admin.Stats](ctx, c, admin.PathCounts)
			if err != nil {
				return err
			}
			if a.output != "json" && a.jq == "" && a.stdoutTTY && count == 0 {
				s := newTopScreen(a)
				defer s.close()
				return s.run(ctx, c, node, by, every, &before)
			}
			for i := 0; count == 0 || i < count; i++ {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(every):
				}
				now, err := admin.Get[admin.Stats](ctx, c, admin.PathCounts)
				if err != nil {
					return fmt.Errorf("%w: %w", errStopped, err)
				}
				rows := topRows(&before, &now)
				sortTop(rows, by)
				text := topText(node, by, &before, &now, rows)
				if err := a.print(result{human: text, machine: strings.TrimSpace(text), json: struct {
					At      time.Time          `json:"at"`
					Portals []topRow           `json:"portals"`
					Paths   []admin.PathStats  `json:"paths"`
					Left    map[string]float64 `json:"headroom"`
				}{now.At, rows, now.Paths, now.Left}}); err != nil {
					return err
				}
				fmt.Fprintln(a.stdout)
				before = now
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "the `NODE` (default: the default node)")
	f.StringVar(&by, "sort", "in", "what comes first: "+strings.Join(topNames, ", "))
	durationVar(f, &every, "every", time.Second, "how often")
	f.IntVar(&count, "count", 0, "how many looks; 0: until Ctrl-C")
	return cmd
}

func topText(node, by string, before, now *admin.Stats, rows []topRow) string {
	busy := 0.0
	for i, l := range now.Loops {
		if i < len(before.Loops) {
			busy = max(busy, (l.Busy-before.Loops[i].Busy)/max(now.At.Sub(before.At).Seconds(), 1e-3))
		}
	}
	nearest, left := "", 1.1
	for name, v := range now.Left {
		if v < left || v == left && name < nearest {
			nearest, left = name, v
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  busiest loop %.0f %%  nearest limit: %s, %.0f %% left\n\n", node, now.At.Local().Format(time.TimeOnly), 100*busy, nearest, 100*left)
	list := [][]string{}
	for _, r := range rows {
		trip := "-"
		if r.RoundTrip > 0 {
			trip = fmt.Sprintf("%.1f ms", 1000*r.RoundTrip)
		}
		list = append(list, []string{r.Name, r.End, fmt.Sprint(r.Open), fmt.Sprintf("%.1f/s", r.NewPerSecond), mebibytes(r.InPerSecond), mebibytes(r.OutPerSecond),
			fmt.Sprintf("%.1f / %.1f ms", 1000*r.Setup50, 1000*r.Setup99), trip, fmt.Sprint(r.Refused)})
	}
	header := []string{"PORTAL", "END", "OPEN", "NEW", "IN", "OUT", "SET UP P50 / P99", "ROUND TRIP", "REFUSED"}
	for i, column := range header {
		if column == topOrders[by].column {
			header[i] += " ▼"
		}
	}
	b.WriteString(tableOr("no portals\n", header, list))
	list = nil
	for _, p := range now.Paths {
		state, trip := "DOWN", "-"
		if p.Up {
			state = "up"
		}
		if p.RoundTrip > 0 {
			trip = fmt.Sprintf("%.1f ms", 1000*p.RoundTrip)
		}
		list = append(list, []string{p.Name, p.Kind, state, trip, fmt.Sprint(p.Reconnects)})
	}
	if len(list) > 0 {
		b.WriteString("\n" + table([]string{"PATH", "OF", "STATE", "ROUND TRIP", "LOST"}, list))
	}
	return b.String()
}
