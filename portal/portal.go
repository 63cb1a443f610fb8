package portal

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what portals of one node hold. The zero value is completed with the defaults named.
type Limits struct {
	// Window is how many bytes a peer may send at first before they are taken; default 512 KiB. In a path of which nothing is known first windows
	// come to a quarter of it together, in one where something waits to what it brings.
	Window int
	// MaxWindow is what a window grows to when the path holds so much and the reader keeps up; default 64 MiB: a line of 1 Gbit/s
	// with a round trip of 300 ms holds 38 MB.
	MaxWindow int
	// Budget bounds all windows of the node beyond their first size; default 256 MiB. When it is nearly used up, every window that
	// has grown keeps an equal share at most. An eighth of it is what first windows share: beside 63 others a connection begins with
	// Window, beside more with less, and with LeastWindow at least.
	Budget int64
	// KeepBudget bounds the memory in which the node's connections keep what they sent and the other end has not confirmed; default 256 MiB.
	// When it is spent, a connection has LeastWindow under way at most.
	KeepBudget int64
	// LeastWindow is the least first window, of a connection beside very many others, and what one may have under way when memory is spent; default
	// 32 KiB.
	LeastWindow int
	// HighWater is how many bytes wait on a socket before the connection that carries them is paused, with a peer that
	// has no windows; default 1 MiB.
	HighWater int
	// StallTimeout is how long such a socket may take nothing before it is closed; default 5 s.
	StallTimeout time.Duration
	// OpenTimeout is how long the outlet, and the target, may take to answer a new connection; default 20 s.
	OpenTimeout time.Duration
	// FinishTimeout is how long, with a peer that knows no half-close, a direction stays open after the other has ended and
	// while nothing moves; default 5 s.
	FinishTimeout time.Duration
	// HoldClients is how many clients of one inlet wait while its path is being made; default 1024.
	HoldClients int
	// HoldTimeout is how long they wait; default 30 s.
	HoldTimeout time.Duration
	// Connections is how many portal connections a node has at most, of inlets and outlets together, before an outlet refuses further
	// ones; default 65,536.
	Connections int
	// OutletConnections is how many one outlet has at most, unless it says otherwise; default 1000. One peer gets four in five of them.
	OutletConnections int
	// PayloadSize is the most bytes read from a socket into one payload, at most 128 KiB; default 64 KiB, which stays in the
	// processor's cache from the read to the write.
	PayloadSize int
}

// WithDefaults completes l.
func (l Limits) WithDefaults() Limits {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	set(&l.Window, 512<<10)
	set(&l.MaxWindow, 64<<20)
	set(&l.LeastWindow, 32<<10)
	set(&l.HighWater, 1<<20)
	set(&l.HoldClients, 1024)
	set(&l.PayloadSize, 64<<10)
	l.PayloadSize = min(l.PayloadSize, MaxPayload)
	if l.Budget == 0 {
		l.Budget = 256 << 20
	}
	set(&l.Connections, 1<<16)
	set(&l.OutletConnections, 1000)
	if l.KeepBudget == 0 {
		l.KeepBudget = 256 << 20
	}
	setTime(&l.StallTimeout, 5*time.Second)
	setTime(&l.OpenTimeout, 20*time.Second)
	setTime(&l.FinishTimeout, 5*time.Second)
	setTime(&l.HoldTimeout, 30*time.Second)
	return l
}

// Stats counts what portals of one node did, for metrics. Ended and GivenUp count by Reason.
type Stats struct {
	Opened         atomic.Uint64
	Active         atomic.Int64
	Ended          [reasonCount]atomic.Uint64
	GivenUp        [reasonCount]atomic.Uint64 // those of them that waited for another path
	Denied         atomic.Uint64
	Limited        atomic.Uint64 // connections refused because there were too many
	Crowded        atomic.Uint64 // those of them that the node had no place for, whichever outlet they were for
	Malformed      atomic.Uint64
	Held           atomic.Int64
	Away           atomic.Int64  // connections that wait for another path
	Resumed        atomic.Uint64 // times that a connection went on over another path
	ResumeRefused  atomic.Uint64 // attempts to take up a connection that is not there, or not the peer's
	Kept           atomic.Int64  // bytes that were sent and are not confirmed
	KeptMemory     atomic.Int64  // bytes of memory that they take
	KeepShort      atomic.Uint64 // times that a connection waited for want of it
	Resent         atomic.Uint64 // bytes sent again
	WindowGranted  atomic.Int64  // bytes of windows beyond their first size
	WindowsRefused atomic.Uint64 // times a window did not grow because all had too much
	WindowsGrown   atomic.Int64  // windows that are larger than at first
	// Credits sent and received.
	CreditsOut, CreditsIn atomic.Uint64
}

// Reasons returns every reason, for labels.
func Reasons() []Reason {
	list := make([]Reason, reasonCount)
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// Env is what all portals of a node share.
type Env struct {
	Limits Limits
	Stats  *Stats
	Log    *slog.Logger
	// Records takes what there is to say of each connection; nil takes nothing.
	Records Recorder
	meters  meters
	lines   registries
	// arrivals is what an upgrade has carried and is not taken up yet.
	arrivals arrivals
	// Process is the node, in the first half, and its process: an outlet's node ends what it holds of a process that another one of its node has followed.
	Process [32]byte
	pacers  sync.Map // of *routing.Shard: *pacer
	keepers sync.Map // of *routing.Shard: *keeper
	bare    sync.Map // of *routing.Shard: *bareWays
}
