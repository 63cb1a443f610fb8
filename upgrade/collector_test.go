package upgrade

import (
	"runtime/debug"
	"testing"
)

// TestHoldCollector: the collector is away until it is called back, and what was set meanwhile stays; where much is carried it is not.
func TestHoldCollector(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now
	}
	before := percent()
	defer debug.SetGCPercent(before)
	debug.SetGCPercent(73)
	HoldCollector(maxUncollected + 1)()
	goOn := HoldCollector(maxUncollected + 1)
	if percent() != 73 {
		t.Error("it is away although much is carried")
	}
	goOn()
	goOn = HoldCollector(maxUncollected)
	if percent() != -1 {
		t.Error("it is not away")
	}
	goOn()
	debug.SetGCPercent(74)
	goOn()
	if percent() != 74 {
		t.Errorf("%d after it was called back twice", percent())
	}
	goOn = HoldCollector(0)
	debug.SetGCPercent(25)
	goOn()
	if percent() != 25 {
		t.Errorf("%d, not what was set meanwhile", percent())
	}
}
