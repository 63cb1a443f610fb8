package node

import (
	"context"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// Bounds of requests to a service.
const (
	maxRequest     = 256 << 10
	maxRequests    = 64   // that are worked on at a time
	maxWaiting     = 4096 // that wait for it
	requestTimeout = 30 * time.Second
)

// textBusy is the answer to a request that could not be worked on in time. Whoever asked may ask again.
const textBusy = "busy: ask again in a moment"

// request is one that waits.
type request struct {
	req  *rpc.Request
	back routing.Route
}

// rpcServer answers requests of one service on goroutines, a bounded number at a time, from their sources in turn. Every request gets an
// answer, if the service has one: when too many wait, the oldest of the source that has most of them hears that the service is busy.
type rpcServer struct {
	n      *Node
	self   routing.Route
	server rpc.Server
	turns  *fair.Turns
	places *fair.Shares[*request]
}

// rpcWorker makes the worker of a service.
func (n *Node) rpcWorker(name string, server rpc.Server) routing.Worker {
	return &rpcServer{
		n: n, self: routing.LocalRoute(name), server: server, turns: fair.NewTurns(maxRequests), places: fair.NewShares[*request](maxWaiting),
	}
}

// HandleMessage implements routing.Worker.
func (r *rpcServer) HandleMessage(s *routing.Shard, m *routing.Message) {
	if len(m.Payload()) > maxRequest || m.Return.Len() == 0 {
		s.Drops.Malformed.Add(1)
		return
	}
	req, err := rpc.DecodeRequest(append([]byte(nil), m.Payload()...))
	if err != nil {
		s.Drops.Malformed.Add(1)
		return
	}
	var caller *identity.Identifier
	if m.Peer != nil {
		id := identity.Identifier(m.Peer.ID)
		caller = &id
	}
	from := fair.OriginOf(s.FirstTerminal(m.Return), m.Return)
	waiting := &request{req: req, back: m.Return.Clone()}
	place, oldest, evicted := r.places.Take(from, waiting)
	if evicted {
		s.Drops.Overflow.Add(1)
		r.busy(oldest)
	}
	due := time.Now().Add(requestTimeout)
	r.turns.Do(from, func() {
		if !r.places.Leave(place) {
			return // it was told that the service is busy
		}
		if time.Now().After(due) {
			r.busy(waiting)
			return
		}
		ctx, cancel := context.WithTimeout(rpc.WithSource(r.n.ctx, from.String()), requestTimeout)
		defer cancel()
		s.Loop().Guard("a service", func() {
			if resp := r.server.Serve(ctx, caller, req); resp != nil {
				r.answer(waiting, resp)
			}
		})
	})
}

func (r *rpcServer) busy(w *request) {
	r.answer(w, rpc.ErrorResponse(w.req, rpc.InternalServerError, textBusy))
}

// answer sends an answer, later if it says so.
func (r *rpcServer) answer(w *request, resp *rpc.Response) {
	if resp.Later != nil {
		resp.Later(func(resp *rpc.Response) { r.answer(w, resp) })
		return
	}
	send := func() {
		if resp.Done != nil {
			resp.Done()
		}
		r.n.router.Inject(w.back, r.self, resp.Encode())
	}
	if resp.Delay == 0 {
		send()
		return
	}
	time.AfterFunc(resp.Delay, send)
}
