package portal

import (
	"errors"
	"time"

	"sallyport/routing"
)

// A client that was refused cannot begin anew. So clients of a target that was found down a moment ago wait, each in a place of the outlet: the target may be
// back soon, and an inlet that hears of another outlet takes them there.

// downLook is how often it is looked whether a client has to wait any longer.
const downLook = 200 * time.Millisecond

// Why a client that has waited is refused.
var (
	errDown    = errors.New("it does not answer")
	errLeaving = errors.New("the outlet ends")
)

// down returns what OutletOptions.Down says.
func (o *Outlet) down() (down, wait bool) {
	if o.opts.Down == nil {
		return false, false
	}
	return o.opts.Down()
}

// waitFor opens the target when it answers again, or refuses the client when the outlet ends or it has waited for long enough. It waits once: a target that
// comes and goes would have it wait for ever.
func (o *Outlet) waitFor(c *conn, back routing.Route) {
	c.delayed = true
	c.timer.Stop()
	c.timer = c.shard.Loop().After(downLook, func() {
		down, wait := o.down()
		switch {
		case c.state != opening:
		case o.leaves.Load() || o.closed.Load():
			c.tally.by = c.here()
			o.notReached(c, back, ReasonShutdown, errLeaving)
		case !down:
			o.connect(c, back)
		case wait:
			o.waitFor(c, back)
		default:
			c.tally.by = byTarget
			o.notReached(c, back, ReasonUnreachable, errDown)
		}
	})
}
