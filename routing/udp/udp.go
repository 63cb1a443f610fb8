// Package udp is the UDP transport of routing messages (docs/protocol/01 §3.1-3.5): datagrams that carry parts of a message, the
// rendezvous service that tells a node its public address, and punctures, which are paths between two nodes of which neither can be
// connected to.
//
// # Loss
//
// UDP loses, repeats and reorders what it carries. A message arrives whole or not at all, but nothing sends a lost one again. So this is
// right for messages that somebody repeats, and for channels over which somebody notices: secure channels count, and tell the portals
// over them of a gap (package secure). A puncture between two of ours is a Link: it sends again what was lost and keeps the order, so
// that portals over it are streams like any other.
package udp

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"sallyport/dataplane"
	"sallyport/routing"
)

// Limits of Options.
const (
	defaultPacketSize = 508 // passes every IPv4 network whole (docs/protocol/01 §3.2)
	minPacketSize     = fragmentRoom + 16
	maxPacketSize     = 2048 // what dataplane receives
	defaultPending    = 32
	maxPending        = 64
	defaultWindows    = 128 << 20
)

// Options are the settings of a Transport. The zero value is completed with the defaults named.
type Options struct {
	// PacketSize is the largest datagram sent, in bytes; default 508, which is the reference's. Larger ones, up to 2048, are taken.
	PacketSize int
	// Pending is how many messages of one peer may be incomplete at a time, up to 64; default 32 (the reference's is 5).
	Pending int
	// Budget bounds the bytes of all incomplete messages; default 32 MiB.
	Budget int64
	// HighWater is how many bytes may wait for the kernel before the sources that fill a socket are paused; default 256 KiB.
	HighWater int
	// Windows bounds the bytes by which the windows of all links grow together; default 128 MiB.
	Windows int64

	times times                      // of punctures; tests have less time
	lose  func(datagram []byte) bool // tests: what the network loses; nil loses nothing
}

func (o Options) withDefaults() Options {
	if o.PacketSize == 0 {
		o.PacketSize = defaultPacketSize
	}
	if o.Pending == 0 {
		o.Pending = defaultPending
	}
	o.PacketSize = min(max(o.PacketSize, minPacketSize), maxPacketSize)
	o.Pending = min(max(o.Pending, 1), maxPending)
	if o.Budget == 0 {
		o.Budget = 2 * routing.MaxFrame
	}
	if o.HighWater == 0 {
		o.HighWater = 256 << 10
	}
	if o.Windows == 0 {
		o.Windows = defaultWindows
	}
	if o.times == (times{}) {
		o.times = defaultTimes
	}
	return o
}

// Environment variables of the reference that set Options (docs/protocol/03 §7.4).
const (
	EnvPacketSize = "OCKAM_UDP_MAX_ON_THE_WIRE_PACKET_SIZE"
	EnvPending    = "OCKAM_UDP_PENDING_MESSAGES_PER_PEER"
)

// ParseOptions reads Options from the environment, given as a function such as os.LookupEnv.
func ParseOptions(lookup func(string) (string, bool)) (Options, error) {
	var o Options
	for _, v := range []struct {
		name     string
		to       *int
		min, max int
	}{{EnvPacketSize, &o.PacketSize, minPacketSize, maxPacketSize}, {EnvPending, &o.Pending, 1, maxPending}} {
		text, set := lookup(v.name)
		if !set || text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < v.min || n > v.max {
			return o, fmt.Errorf("the environment variable %s is %q; it must be a number from %d to %d", v.name, text, v.min, v.max)
		}
		*v.to = n
	}
	return o, nil
}

// Stats counts what a transport did, for metrics.
type Stats struct {
	dataplane.UDPStats
	MessagesIn, MessagesOut atomic.Uint64
	// Malformed are datagrams and messages that could not be read, Foreign came from another than the fixed peer.
	Malformed, Foreign atomic.Uint64
	// Duplicates came before, Late are older than the window, Incomplete lacked a part for too long or were overtaken, NoRoom found none
	// or were too large; Restarts are peers that began anew.
	Duplicates, Late, Incomplete, NoRoom, Restarts atomic.Uint64
	// Unroutable messages named no address to send to.
	Unroutable atomic.Uint64
	// Unheard messages were for an address that nothing had come from, Unproven ones for one that might be claimed by another.
	Unheard, Unproven atomic.Uint64
	// Punctures opened, and closed because nothing came any more.
	Opened, Lost atomic.Uint64
	// Resent are packets that a link sent again.
	Resent atomic.Uint64
	// LooseLost are packets of messages beside the stream that were lost, LooseDropped such messages for which there was no room.
	LooseLost, LooseDropped atomic.Uint64
}

// Transport holds the sockets of one node.
type Transport struct {
	router *routing.Router
	opts   Options
	budget atomic.Int64
	grown  grownWindows // of links
	// Stats counts datagrams and messages.
	Stats Stats

	mu     sync.Mutex
	binds  map[*Bind]struct{}
	paused atomic.Bool
}

// New makes a transport for the workers of r.
func New(r *routing.Router, o Options) *Transport {
	t := &Transport{router: r, opts: o.withDefaults(), binds: map[*Bind]struct{}{}}
	t.budget.Store(t.opts.Budget)
	t.grown.most = t.opts.Windows
	return t
}

// Pause has sockets that are opened from now on take nothing before Resume: what came before the workers that it is for would be lost.
func (t *Transport) Pause() { t.paused.Store(true) }

// Resume has all sockets take what comes. Not on a shard, nor while one is opened.
func (t *Transport) Resume(ctx context.Context) error {
	t.paused.Store(false)
	for _, b := range t.Binds() {
		if err := b.shard.Do(ctx, b.sock.Resume); err != nil {
			return err
		}
	}
	return nil
}

// Router returns the router whose workers the transport serves.
func (t *Transport) Router() *routing.Router { return t.router }

// Binds returns the open sockets. Any goroutine.
func (t *Transport) Binds() []*Bind {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Bind, 0, len(t.binds))
	for b := range t.binds {
		list = append(list, b)
	}
	return list
}
