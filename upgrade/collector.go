package upgrade

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// collectorAway bounds how long the collector stays away.
	collectorAway = 2 * time.Second
	// maxUncollected is how much may be carried, in bytes, when it does: what is left uncollected is a few times that.
	maxUncollected = 32 << 20
)

// HoldCollector keeps the garbage collector from taking processor time from a program that has stopped for an upgrade which carries so many bytes, until goOn is
// called, or for two seconds: what such a program allocates is small, and begins nothing but what it needs. A program that has set GOGC meanwhile keeps
// that. It does nothing where much is carried.
func HoldCollector(carried int64) (goOn func()) {
	if carried > maxUncollected {
		return func() {}
	}
	before := debug.SetGCPercent(-1)
	goOn = sync.OnceFunc(func() {
		if now := debug.SetGCPercent(before); now != -1 {
			debug.SetGCPercent(now)
		}
	})
	time.AfterFunc(collectorAway, goOn)
	return goOn
}
