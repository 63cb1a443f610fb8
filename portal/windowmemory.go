package portal

import "math"

// firstShare is the part of the budget that connections share equally for their first windows: 64 have 512 KiB each.
const firstShare = 8

// windowMemory bounds what the windows of a node come to. Its methods are for any goroutine.
type windowMemory struct {
	limits *Limits
	stats  *Stats
}

// first returns the first window of a new connection: less the more there are. What all may send at once goes over the same line, and
// whoever comes next waits behind it.
func (m *windowMemory) first() int {
	share := m.limits.Budget / firstShare / (m.stats.Active.Load() + 1)
	return min(m.limits.Window, max(int(share), m.limits.LeastWindow))
}

// most returns how much a window may have now beyond its first size: as much as it likes while memory is not short, else an equal share.
func (m *windowMemory) most() int {
	if m.stats.WindowGranted.Load() < m.limits.Budget/8*7 {
		return math.MaxInt
	}
	return int(m.limits.Budget / (m.stats.WindowsGrown.Load() + 1)) // one more has room to begin
}

// resize changes what one window has beyond its first size from had to want bytes, and returns what it may have: want, or had when
// that would be more than there is.
func (m *windowMemory) resize(had, want int) int {
	if had == want {
		return had
	}
	if all := m.stats.WindowGranted.Add(int64(want - had)); want > had && all > m.limits.Budget {
		m.stats.WindowGranted.Add(int64(had - want))
		m.stats.WindowsRefused.Add(1)
		return had
	}
	if had == 0 {
		m.stats.WindowsGrown.Add(1)
	} else if want == 0 {
		m.stats.WindowsGrown.Add(-1)
	}
	return want
}
