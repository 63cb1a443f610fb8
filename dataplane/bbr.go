package dataplane

import (
	"time"

	"golang.org/x/sys/unix"
)

// BBR is how far the kernel's congestion control of that name is with the search for a connection's rate. At first it doubles the rate in each round trip; once three
// have not brought a quarter more, it tries a quarter more in one of eight (draft-cardwell-iccrg-bbr-congestion-control-00, 4.3).
type BBR struct {
	Rate   uint64 // bytes a second, the highest lately
	Begins bool   // it doubles still, or lets drain what came of that
	// RTT is the smoothed round trip, Least the shortest lately.
	RTT, Least time.Duration
}

const (
	bbrName = "bbr"
	bbrUnit = 256 // of gains (BBR_UNIT)
)

// BBR returns how far the search is; false for a connection with another congestion control.
func (c *Conn) BBR() (b BBR, ok bool) {
	if c.closed || !c.hasBBR() {
		return b, false
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return b, false
	}
	cc, err := unix.GetsockoptTCPCCBBRInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO)
	if err != nil {
		return b, false
	}
	return BBR{
		Rate:   uint64(cc.Bw_hi)<<32 | uint64(cc.Bw_lo),
		Begins: cc.Pacing_gain > bbrUnit*3/2 || cc.Pacing_gain < bbrUnit/2,
		RTT:    time.Duration(info.Rtt) * time.Microsecond, Least: time.Duration(info.Min_rtt) * time.Microsecond,
	}, true
}

func (c *Conn) hasBBR() bool {
	name, err := unix.GetsockoptString(c.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	return err == nil && name == bbrName
}

// SearchAgain lets BBR begin its search anew, as on a connection that is opened: the kernel does so when another congestion control was set in between. It reports false,
// and nothing has changed, where the connection has another one or this process may not choose.
func (c *Conn) SearchAgain() bool {
	if c.closed || !c.hasBBR() || !maySetBBR() {
		return false
	}
	return setBBRAgain(c.fd)
}

// setBBRAgain sets BBR after another congestion control.
func setBBRAgain(fd int) bool {
	for _, name := range []string{plainControl, bbrName} {
		if rawSetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) != 0 {
			return false
		}
	}
	return true
}

// maySetBBR tries it on a socket of its own: a connection that could not get it back would go on with the other.
func maySetBBR() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return setBBRAgain(fd)
}
