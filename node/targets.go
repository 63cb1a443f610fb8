package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/names"
	"sallyport/portal"
)

// targetPatience is how long one of several targets has before the next is tried, where that is done one after the other.
const targetPatience = 3 * time.Second

// lookupAll returns the addresses of several targets in their order. Targets that have none in time are left out; it fails when there are none
// at all.
func lookupAll(ctx context.Context, targets []string) (list []netip.AddrPort, err error) {
	ctx, cancel := context.WithTimeout(ctx, targetPatience)
	defer cancel()
	found, failed := make([][]netip.AddrPort, len(targets)), make([]error, len(targets))
	var all sync.WaitGroup
	for i, target := range targets {
		all.Go(func() {
			if found[i], failed[i] = names.Lookup(ctx, target); failed[i] != nil {
				found[i] = nil
			}
		})
	}
	all.Wait()
	if list = slices.Concat(found...); len(list) > 0 {
		return list, nil
	}
	return nil, errors.Join(failed...)
}

// dialFirst connects to the first target that answers.
func dialFirst(ctx context.Context, targets []string, dialer func(target string) func(context.Context) (portal.Piped, error)) (p portal.Piped, err error) {
	for _, target := range targets {
		patient, cancel := context.WithTimeout(ctx, targetPatience)
		var failed error
		p, failed = dialer(target)(patient)
		cancel()
		if failed == nil {
			return p, nil
		}
		if err = errors.Join(err, failed); ctx.Err() != nil {
			break
		}
	}
	return portal.Piped{}, err
}
