//go:build small

package node

import (
	"context"
	"fmt"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/routing/multiaddr"
)

// errNoInflux refuses portals to InfluxDB, which this program was built without.
func errNoInflux() error {
	return fmt.Errorf("%w: this program was built without InfluxDB", admin.ErrInvalid)
}

func (n *Node) influxOutlet(_ context.Context, r resource.Outlet, _ *portal.OutletOptions) (stop func(context.Context) error, err error) {
	if r.InfluxDB != nil {
		return nil, errNoInflux()
	}
	return func(context.Context) error { return nil }, nil
}

func (n *Node) influxInlet(r *resource.Inlet, _ multiaddr.Addr, _ connectOptions) (*influxInlet, error) {
	if r.InfluxDB != nil {
		return nil, errNoInflux()
	}
	return nil, nil
}
