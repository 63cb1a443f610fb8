package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"sallyport/node"
)

// watchdogSpan returns how often systemd wants to hear of this process (WatchdogSec=), 0 if it does not. After an upgrade the variables may be
// those of the process before.
func watchdogSpan(upgraded bool) time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); !upgraded && pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 48)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// watchdog tells systemd that the node is alive, as long as every event loop answers: a process whose loops hang is started again.
func watchdog(ctx context.Context, n *node.Node, upgraded bool) {
	span := watchdogSpan(upgraded)
	if span <= 0 {
		return
	}
	tick := time.NewTicker(span / 3)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, span/3)
		alive := n.Alive(asking)
		cancel()
		if alive {
			notifySystemd("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
