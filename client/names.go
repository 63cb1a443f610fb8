package client

import (
	"fmt"
	"strings"

	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// split takes the name of a service apart. Without an outlet it is the default one.
func split(name string) (relay, outlet string, err error) {
	relay, outlet, found := strings.Cut(name, "/")
	if !found {
		outlet = routing.DefaultOutlet
	}
	for _, part := range []string{relay, outlet} {
		if err := state.CheckName("service", part); err != nil {
			return "", "", fmt.Errorf("%w: %q: %w", ErrName, name, err)
		}
	}
	return relay, outlet, nil
}

// route is where a service is.
func (c *Client) route(name string) (multiaddr.Addr, error) {
	var addr multiaddr.Addr
	var err error
	if strings.HasPrefix(name, "/") {
		addr, err = multiaddr.Parse(name)
	} else {
		relay, outlet, splitErr := split(name)
		if splitErr != nil {
			return nil, splitErr
		}
		addr, err = multiaddr.ExpandInletTo(outlet, relay, c.project)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	return addr.ReplaceNode(func(node string) (multiaddr.Addr, error) {
		return nil, fmt.Errorf("%w: /node/%s: %w", ErrName, node, admin.ErrInvalid)
	})
}
