package portal

import (
	"context"

	"sallyport/routing"
)

// Shutdown ends all portal connections of a node, while their channels can still carry the reason: the other nodes end theirs at once, and
// clients and targets read a reset, since nobody knows whether they had all. Not on a shard.
func Shutdown(ctx context.Context, r *routing.Router) {
	for _, s := range r.Shards() {
		_ = s.Finish(ctx, func() {
			s.Each(func(w routing.Worker) {
				if c, ok := w.(*conn); ok {
					c.end(ReasonShutdown, true)
				}
			})
		})
	}
}
