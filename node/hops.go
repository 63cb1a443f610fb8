package node

import (
	"context"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
)

func addHops(n *Node) {
	n.hops = table.Add(n.set, table.Kind[resource.Hop, string]{
		Name: resource.KindHop, Noun: "hop service", Path: admin.PathServices + "/hop",
		Key: func(r *resource.Hop) *string { return &r.Address },
		Check: func(_ context.Context, r *resource.Hop, _ func(string) bool) error {
			if r.Address == "" {
				r.Address = routing.HopService
			}
			return nil
		},
		Open: func(ctx context.Context, o *table.Opening[resource.Hop]) (string, error) {
			at := o.Request.Address
			flows := append(n.listenerFlows(), n.api.Flow, n.router.Begun()) // what a hop sent on comes back to it
			return at, existsError(n.router.StartNamed(ctx, at, func(*routing.Shard) routing.Worker { return routing.Hop(at) }, flows...))
		},
		Close: n.stopNamed,
		Describe: func(i table.Item[resource.Hop, string]) any {
			return admin.Service{Address: i.Request.Address, Type: "hop", State: &i.Status}
		},
	})
	n.serviceLists = append(n.serviceLists, func() []admin.Service {
		return each(n.hops.List(), func(i table.Item[resource.Hop, string]) admin.Service {
			return admin.Service{Address: i.Request.Address, Type: "hop", State: &i.Status}
		})
	})
}

// stopNamed stops the service at an address.
func (n *Node) stopNamed(ctx context.Context, address string) error {
	return n.router.StopNamed(ctx, address)
}
