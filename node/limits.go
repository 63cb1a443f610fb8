package node

import (
	"time"

	"sallyport/dataplane"
	"sallyport/limits"
	"sallyport/portal"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
)

// portalLimits lets what portals hold follow the node's memory: with little of it a node is slow, not dead.
func portalLimits(p portal.Limits, l limits.Limits) portal.Limits {
	if p.Budget == 0 {
		p.Budget = int64(l.Windows)
	}
	if p.KeepBudget == 0 {
		p.KeepBudget = int64(l.Kept)
	}
	if p.Connections == 0 {
		p.Connections = l.PortalConnections
	}
	if p.OutletConnections == 0 {
		p.OutletConnections = l.OutletConnections
	}
	if l.Memory > 0 {
		// 64 MiB of memory give a window of 64 KiB at first and a high water mark of 128 KiB, 512 MiB the usual values.
		part := func(p *int, of limits.Bytes, least, most int) {
			if *p == 0 {
				*p = int(min(max(l.Memory/of, limits.Bytes(least)), limits.Bytes(most)))
			}
		}
		part(&p.Window, 1024, 32<<10, 512<<10)
		part(&p.HighWater, 512, 64<<10, 1<<20)
		part(&p.LeastWindow, 4096, 8<<10, 32<<10)
		part(&p.MaxWindow, 32, 256<<10, 64<<20)
	}
	return p.WithDefaults()
}

func loopLimits(l limits.Limits) dataplane.Limits {
	return dataplane.Limits{KeepDescriptors: l.Descriptors, Unfinished: int64(l.Unfinished)}
}

func transportOptions(l limits.Limits) tcp.Options {
	highWater := 0
	if l.Memory > 0 {
		highWater = int(min(max(l.Memory/256, 128<<10), 1<<20))
	}
	return tcp.Options{
		HighWater:   highWater,
		Connections: l.Connections, ConnectionsPerAddress: l.ConnectionsPerAddress, MaxMessage: int(l.Message),
		Deadlines: dataplane.Deadlines{Preamble: time.Duration(l.PreambleTimeout), Frame: time.Duration(l.FrameTimeout)},
	}
}

func channelLimits(l limits.Limits) secure.Limits {
	return secure.Limits{Handshakes: l.Handshakes, PerSecond: l.HandshakesPerSecond, Channels: l.Channels, ChannelsPerPeer: l.ChannelsPerPeer}
}
