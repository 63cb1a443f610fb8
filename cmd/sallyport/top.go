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
}

// topRows are the rates between two looks.
func topRows(before, now *admin.Stats) []topRow {
	old := map[[2]string]admin.PortalStats{}
	for _, p := range before.Portals {
		old[[2]string{p.End, p.Name}] = p
	}
	span := max(now.At.Sub(before.At).Seconds(), 1e-3)
	rows := []topRow{}
	for _, p := range now.Portals {
		o, ok := old[[2]string{p.End, p.Name}]
		if !ok || o.BytesIn > p.BytesIn || o.BytesOut > p.BytesOut || o.Opened > p.Opened {
			o = p // it is new, or counts anew
		}
		rows = append(rows, topRow{p, float64(p.BytesIn-o.BytesIn) / span, float64(p.BytesOut-o.BytesOut) / span, float64(p.Opened-o.Opened) / span})
	}
	return rows
}

// topOrders are what rows can be sorted by, the largest first.
var topOrders = map[string]func(topRow) float64{
	"in":    func(r topRow) float64 { return r.InPerSecond },
	"out":   func(r topRow) float64 { return r.OutPerSecond },
	"open":  func(r topRow) float64 { return float64(r.Open) },
	"new":   func(r topRow) float64 { return r.NewPerSecond },
	"setup": func(r topRow) float64 { return r.Setup99 },
}

func sortTop(rows []topRow, by string) {
	order := topOrders[by]
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
			if topOrders[by] == nil {
				return usageError("invalid value '%s' for '--sort': it must be in, out, open, new or setup", by)
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
			screen := a.output != "json" && a.jq == "" && isTerminal(a.stdout)
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
				text := topText(node, &before, &now, rows)
				if screen {
					fmt.Fprint(a.stdout, "\x1b[H\x1b[2J") // from the top left corner of an empty screen
				}
				if err := a.print(result{human: text, machine: strings.TrimSpace(text), json: struct {
					At      time.Time          `json:"at"`
					Portals []topRow           `json:"portals"`
					Paths   []admin.PathStats  `json:"paths"`
					Left    map[string]float64 `json:"headroom"`
				}{now.At, rows, now.Paths, now.Left}}); err != nil {
					return err
				}
				if !screen {
					fmt.Fprintln(a.stdout)
				}
				before = now
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "the `NODE` (default: the default node)")
	f.StringVar(&by, "sort", "in", "what comes first: in, out, open, new or setup")
	durationVar(f, &every, "every", time.Second, "how often")
	f.IntVar(&count, "count", 0, "how many looks; 0: until Ctrl-C")
	return cmd
}

func topText(node string, before, now *admin.Stats, rows []topRow) string {
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
		list = append(list, []string{r.Name, r.End, fmt.Sprint(r.Open), fmt.Sprintf("%.1f/s", r.NewPerSecond), mebibytes(r.InPerSecond), mebibytes(r.OutPerSecond), fmt.Sprintf("%.1f ms", 1000*r.Setup99), fmt.Sprint(r.Refused)})
	}
	b.WriteString(tableOr("no portals\n", []string{"PORTAL", "END", "OPEN", "NEW", "IN", "OUT", "SET UP P99", "REFUSED"}, list))
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
