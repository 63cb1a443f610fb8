package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"sallyport/config"
	"sallyport/node"
	"sallyport/node/admin"
)

// launchConfig is what --services holds: the services to start besides those that every node has (docs/protocol/03 §7.6). Of the
// reference's, the listener for secure channels can be had here.
type launchConfig struct {
	Listener *struct {
		Address    string   `json:"address"`
		Authorized []string `json:"authorized_identifiers"`
		Disabled   bool     `json:"disabled"`
		Identity   string   `json:"identity"`
	} `json:"secure_channel_listener"`
	ControlAPI any `json:"control_api"`
}

// servicesText returns the text of --services, which may be a file with it: a node that starts again does not need the file.
func servicesText(ctx context.Context, text string) (string, error) {
	if isInput(text) {
		return readConfiguration(ctx, text)
	}
	return text, nil
}

// hyphenatedKey is a key of JSON with hyphens, as they may be written.
var hyphenatedKey = regexp.MustCompile(`"[a-z]+(-[a-z]+)+"\s*:`)

// readServices reads the value of --services, JSON or YAML. The empty text is nothing to start.
func readServices(text string) (launchConfig, error) {
	if text == "" {
		return launchConfig{}, nil
	}
	refused := func(problem string) error {
		return usageError("invalid value '%s' for '--services': it must be JSON, YAML or a file with it: %s", text, problem)
	}
	raw := []byte(text)
	if !json.Valid(raw) {
		var err error
		if raw, err = yamlServices(text); err != nil {
			return launchConfig{}, refused(err.Error())
		}
	}
	raw = hyphenatedKey.ReplaceAllFunc(raw, func(key []byte) []byte { return bytes.ReplaceAll(key, []byte("-"), []byte("_")) })
	var file struct {
		Services *launchConfig `json:"services"`
		Startup  *launchConfig `json:"startup_services"` // the reference's older form
		launchConfig
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return launchConfig{}, refused(err.Error())
	}
	c := file.launchConfig
	for _, inner := range []*launchConfig{file.Services, file.Startup} {
		if inner != nil {
			c = *inner
		}
	}
	if l := c.Listener; l != nil && !l.Disabled && c.address() == "" && (l.Authorized != nil || l.Identity != "") {
		return c, withHint(errors.New("--services: secure_channel_listener: every node has the listener api, and it is open to every identifier"),
			"give this one an address of its own")
	}
	if c.ControlAPI != nil {
		return c, withHint(errors.New("the control API is not part of Sallyport: leave control_api out of --services"), "`sallyport node show --output json` and the status endpoint show what a node has")
	}
	return c, nil
}

// address is that of the further listener, or "": every node has the listener api.
func (c launchConfig) address() string {
	if l := c.Listener; l != nil && !l.Disabled && plainName(l.Address) != "api" {
		return plainName(l.Address)
	}
	return ""
}

// startServices starts what --services asks for, unless the node has it already from its last run.
func startServices(ctx context.Context, n *node.Node, c launchConfig) error {
	address := c.address()
	if address == "" || slices.ContainsFunc(n.Listeners(), func(l admin.ChannelListener) bool { return string(l.Address) == address }) {
		return nil
	}
	_, err := n.CreateListener(ctx, admin.ListenerRequest{Address: address, Authorized: c.Listener.Authorized, Identity: c.Listener.Identity})
	if err != nil {
		return fmt.Errorf("--services: secure_channel_listener: %w", err)
	}
	return nil
}

// yamlServices turns YAML into JSON. The text is read as that section of a configuration is, within the same bounds.
func yamlServices(text string) ([]byte, error) {
	section := "services:\n  " + strings.ReplaceAll(text, "\n", "\n  ")
	plan, err := config.Load(config.NodeCreate, []byte(section), config.Options{Lookup: os.LookupEnv})
	if err != nil {
		return nil, err
	}
	if i := slices.Index(plan.Node, "--services"); i >= 0 && i+1 < len(plan.Node) {
		return []byte(plan.Node[i+1]), nil
	}
	return nil, errors.New("there is nothing in it")
}
