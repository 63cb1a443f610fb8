package node

import (
	"context"
	"fmt"
	"sync"

	"sallyport/crypto/identity"
	"sallyport/policy"
	"sallyport/routing"
)

// Bounds of what waits for one of the program's workers.
const (
	maxMail      = 1024
	maxMailBytes = 16 << 20
)

// Mail is a message for a worker of the program, copied.
type Mail struct {
	Payload []byte
	// Peer is the node that sent it, nil without a channel.
	Peer *identity.Identifier
	back routing.Route
}

// ProgramWorker takes messages for this program, one after the other on one goroutine.
type ProgramWorker struct {
	n     *Node
	name  string
	guard *guard
	queue chan Mail
	done  chan struct{}
	once  sync.Once
	ctx   context.Context
	stop  context.CancelFunc

	mu    sync.Mutex
	bytes int
}

// ownWorker is the kind of a worker's own policy. It has no type of its own on the wire: where it has no policy, that of outlets decides.
const ownWorker = "worker"

// StartWorker starts a worker that nodes reach under a name, through the channels through which they reach outlets. Whoever its policy, allow, refuses is not
// heard. handle is called for one message after the other, on a goroutine that ends with the worker. What comes while 1024 messages or 16 MiB wait is
// dropped and counted.
func (n *Node) StartWorker(ctx context.Context, name, allow string, handle func(context.Context, *ProgramWorker, Mail)) (*ProgramWorker, error) {
	if err := checkAllow(allow); err != nil {
		return nil, err
	}
	n.ownWorkers.Lock()
	defer n.ownWorkers.Unlock()
	if n.router.HasNamed(name) { // before the policy of whoever has the name is replaced
		return nil, existsError(fmt.Errorf("%w: %s", routing.ErrExists, name))
	}
	g, err := n.portalGuard(policy.Own(ownWorker, name), policy.TCPOutlet, n.authority(), allow)
	if err != nil {
		return nil, err
	}
	w := &ProgramWorker{n: n, name: name, guard: g, queue: make(chan Mail, maxMail), done: make(chan struct{})}
	w.ctx, w.stop = context.WithCancel(n.ctx)
	if err := n.router.StartNamed(ctx, name, func(*routing.Shard) routing.Worker { return routing.WorkerFunc(w.take) }, n.outletFlows()...); err != nil {
		w.stop()
		g.close()
		return nil, existsError(err)
	}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.ctx.Done():
				return
			case m := <-w.queue:
				w.mu.Lock()
				w.bytes -= len(m.Payload)
				w.mu.Unlock()
				handle(w.ctx, w, m)
			}
		}
	}()
	return w, nil
}

// take queues a message, on a shard.
func (w *ProgramWorker) take(s *routing.Shard, m *routing.Message) {
	var peer *[32]byte
	if m.Peer != nil {
		peer = &m.Peer.ID
	}
	if !w.guard.Grant(peer).Allowed() {
		w.n.portals.Stats.Denied.Add(1)
		return
	}
	size := len(m.Payload())
	w.mu.Lock()
	full := w.bytes+size > maxMailBytes
	if !full {
		w.bytes += size
	}
	w.mu.Unlock()
	if full {
		s.Drops.Overflow.Add(1)
		return
	}
	mail := Mail{Payload: append([]byte(nil), m.Payload()...), back: m.Return.Clone()}
	if peer != nil {
		id := identity.Identifier(*peer)
		mail.Peer = &id
	}
	select {
	case w.queue <- mail:
	default:
		w.mu.Lock()
		w.bytes -= size
		w.mu.Unlock()
		s.Drops.Overflow.Add(1)
	}
}

// Answer sends a message back to where m came from. Whether it arrives is not known.
func (w *ProgramWorker) Answer(m Mail, payload []byte) {
	if m.back.Len() > 0 {
		w.n.router.Inject(m.back, routing.LocalRoute(w.name), payload)
	}
}

// Close stops the worker and waits for its handler, whose context ends.
func (w *ProgramWorker) Close(ctx context.Context) error {
	var err error
	w.once.Do(func() {
		w.stop()
		w.n.ownWorkers.Lock() // the next worker of the name has its policy afterwards
		defer w.n.ownWorkers.Unlock()
		err = w.n.router.StopNamed(ctx, w.name)
		w.guard.close()
		w.n.dropPolicyOf(w.guard.own)
	})
	select {
	case <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
