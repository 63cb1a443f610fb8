package portal

import "sallyport/dataplane"

// rates are the limits of a portal in bytes a second: of what its sockets send, and of what is given to them.
type rates struct{ in, out *dataplane.Rate }

func newRates(g *dataplane.Group, bytes int64) *rates {
	return &rates{dataplane.NewRate(g, bytes), dataplane.NewRate(g, bytes)}
}

func (r *rates) set(bytes int64) {
	r.in.Set(bytes)
	r.out.Set(bytes)
}

// SetRate limits the inlet to so many bytes a second in each direction from now on, 0 for no limit. One that had none limits only connections that begin
// afterwards. Any goroutine.
func (in *Inlet) SetRate(bytes int64) { in.rates.set(bytes) }

// SetRate limits the outlet to so many bytes a second in each direction from now on, 0 for no limit; members get equal shares. One that had none limits only
// connections that begin afterwards. Any goroutine.
func (o *Outlet) SetRate(bytes int64) { o.rates.set(bytes) }

// limit has the socket take its turns at the portal's limit, if it has one.
func (c *conn) limit() {
	if c.rates != nil && c.rates.in.Limited() && c.sock != nil {
		c.sock.Limit(c.rates.in, c.rates.out, dataplane.Member(c.peer))
	}
}
