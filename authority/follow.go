package authority

import (
	"context"
	"time"
)

// Follow looks from time to time whether other authorities on the same store have revoked somebody or taken somebody back, and has Changed tell of it. Credentials
// that were kept for who asks again are forgotten then. It returns when ctx ends. A store that is away is asked again.
func (a *Authority) Follow(ctx context.Context, every time.Duration) {
	last, err := a.o.Store.Revocations(ctx, 0, 0)
	known := err == nil
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := a.o.Store.Revocations(ctx, 0, 0)
		if err != nil {
			continue
		}
		if !known || list.Head != last.Head || string(list.Name) != string(last.Name) {
			last, known = list, true
			a.recent.clear()
			a.announce()
		}
	}
}
