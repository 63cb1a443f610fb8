package portal

import (
	"sallyport/routing"
)

// Refuse closes new clients at once, those that wait for a path, and those that the outlet has not answered, with a reason for the log: it is known that nobody
// will serve them. The empty reason ends that. Open connections stay. Any goroutine.
func (in *Inlet) Refuse(reason string) {
	if reason == "" {
		in.refusal.Store(nil)
		return
	}
	before := in.refusal.Swap(&reason)
	in.mu.Lock()
	list := in.waiting
	in.waiting = nil
	in.env.Stats.Held.Add(-int64(len(list)))
	in.mu.Unlock()
	for _, w := range list {
		in.refuse(w, reason)
	}
	if before != nil {
		return // nobody has been asked since
	}
	in.each(func(c *conn) {
		if c.state == opening {
			in.env.Log.Warn("client refused", "portal", in.opts.Name, "reason", reason)
			c.end(ReasonRefused, false)
		}
	})
}

// absent tells that this node has no worker of a name; of random addresses that is not known. Another node says so itself, or nothing.
func (in *Inlet) absent(a routing.Address) bool {
	return a.Type == routing.Local && in.router.ShardOf(a.Value) == nil && !in.router.HasNamed(a.Value)
}

// room takes one of the inlet's places for a client that comes. There may be none: then the client is closed.
func (in *Inlet) room(fd int, o *offer) bool {
	ok, tell := in.places.take(nil)
	if ok {
		o.places = &in.places
		return true
	}
	if tell {
		in.env.Log.Warn("client refused", "portal", in.opts.Name, "reason", ReasonLimit.String())
	}
	in.env.Stats.Limited.Add(1)
	in.refused(ReasonLimit, *o)
	waiting{fd: fd, offer: *o}.drop(ReasonLimit)
	return false
}

// refuse closes one client.
func (in *Inlet) refuse(w waiting, reason string) {
	in.env.Log.Warn("client refused", "portal", in.opts.Name, "reason", reason)
	in.refused(ReasonRefused, w.offer)
	w.drop(ReasonRefused)
}
