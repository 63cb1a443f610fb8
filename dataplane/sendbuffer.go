package dataplane

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SendBuffer returns the value of TCPOptions.SendBuffer with which as much of want bytes as this process may have can be on the way, or 0
// if the system's own limit (net.ipv4.tcp_wmem) lets more. That one is 4 MiB nearly everywhere, of which packets take about two
// thirds: a line with a round trip of 100 ms then carries 210 Mbit/s in one connection, whatever it could. More is allowed by
// net.core.wmem_max, and to a process with CAP_NET_ADMIN anyway (socket(7): SO_SNDBUF, SO_SNDBUFFORCE).
func SendBuffer(want int) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if setSendBuffer(fd, want) != 0 {
		return 0
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF) // twice of what was set
	if err != nil || got <= systemSendBuffer() {
		return 0
	}
	return min(got/2, want)
}

// setSendBuffer sets the size of a send buffer, as far as this process may.
func setSendBuffer(fd, bytes int) unix.Errno {
	if rawSetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes) == 0 {
		return 0
	}
	return rawSetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
}

// systemSendBuffer is what the system lets a send buffer grow to by itself; 4 MiB if it does not say.
func systemSendBuffer() int {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_wmem")
	if f := strings.Fields(string(b)); len(f) == 3 {
		if n, err := strconv.Atoi(f[2]); err == nil {
			return n
		}
	}
	return 4 << 20
}

// Blocked reports whether the kernel took less than it was offered, and has not asked for more since.
func (c *Conn) Blocked() bool { return c.blocked }

// SetNotSentLowat bounds the bytes that the kernel takes before it has sent them. Where it cannot be set things are slower, not wrong.
func (c *Conn) SetNotSentLowat(bytes int) {
	if !c.closed {
		rawSetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	}
}
