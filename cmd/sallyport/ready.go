package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/state"
)

// readyTimeout bounds how long a node may take to answer a probe; what watches containers waits no longer by itself.
const readyTimeout = 5 * time.Second

// nodeReady is for what watches a node without HTTP of its own: the health check of an image without a shell, probes of Kubernetes.
func nodeReady(a *app) *cobra.Command {
	var alive bool
	type answer struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}
	cmd := &cobra.Command{Use: "ready [NODE]", Short: "Whether a node works: the exit code is 1 while something does not", Example: `  sallyport node ready
  sallyport node ready n1 --alive`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			n, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			if err := a.askReady(cmd.Context(), n, alive); err != nil {
				return err
			}
			return a.print(result{human: "the node " + n.Name + " is ready", machine: n.Name, json: answer{n.Name, true}})
		}}
	cmd.Flags().BoolVar(&alive, "alive", false, "only whether it answers, whatever its portals do")
	return cmd
}

// askReady asks a node's status endpoint; an error says what is not ready.
func (a *app) askReady(ctx context.Context, n state.Node, alive bool) error {
	switch {
	case n.Status() != state.Running:
		return withHint(fmt.Errorf("the node %s is not running", n.Name), "start it: sallyport node start %s", n.Name)
	case n.StatusEndpoint == "":
		return fmt.Errorf("the node %s has no status endpoint, so it cannot be asked", n.Name)
	}
	path := "/readyz"
	if alive {
		path = "/healthz"
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.StatusEndpoint+path, nil)
	if err != nil {
		return fmt.Errorf("the status endpoint of node %s: %w", n.Name, err)
	}
	direct := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy that the environment names
	r, err := direct.Do(q)
	if err != nil {
		return fmt.Errorf("the node %s does not answer: %w", n.Name, err)
	}
	defer r.Body.Close()
	const longest = 64 << 10
	text, err := io.ReadAll(io.LimitReader(r.Body, longest))
	if err != nil {
		return fmt.Errorf("the node %s does not answer: %w", n.Name, err)
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the node %s is not ready: %s", n.Name, strings.Join(strings.Split(strings.TrimSpace(string(text)), "\n"), "; "))
	}
	return nil
}
