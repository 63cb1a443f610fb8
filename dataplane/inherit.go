package dataplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Inherited is a socket that one program leaves to the next in the same process: it listens, or takes datagrams, all the time.
type Inherited struct {
	Network string `cbor:"1,keyasint"` // tcp, udp or unix
	Address string `cbor:"2,keyasint"` // that it is bound to
	FD      int    `cbor:"3,keyasint"`
}

// Inheritance is the sockets that the program before has left, until somebody wants to listen where one of them does. Its methods are for any
// goroutine; a nil Inheritance has none.
type Inheritance struct {
	mu    sync.Mutex
	socks map[string]int
	kept  []Inherited // those of a service manager: whoever takes one gets a copy
}

// NewInheritance owns the descriptors of list and kept from now on. What is kept is there again each time that somebody wants to listen there: a service
// manager has it too, so nobody could listen there anew.
func NewInheritance(list []Inherited, kept ...Inherited) *Inheritance {
	in := &Inheritance{socks: map[string]int{}, kept: kept}
	for _, s := range append(slices.Clone(list), kept...) {
		unix.CloseOnExec(s.FD)
		key := s.Network + " " + s.Address
		if before, ok := in.socks[key]; ok {
			_ = unix.Close(before) // the copy of what is kept
		}
		in.socks[key] = s.FD
	}
	return in
}

// Kept returns what is there again and again.
func (in *Inheritance) Kept() []Inherited {
	if in == nil {
		return nil
	}
	return in.kept
}

// Take returns the socket that is bound to an address, which is the caller's then.
func (in *Inheritance) Take(network, address string) (fd int, ok bool) {
	if in == nil {
		return -1, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.kept {
		if s.Network == network && s.Address == address {
			fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
			return fd, err == nil
		}
	}
	key := network + " " + address
	if fd, ok = in.socks[key]; ok {
		delete(in.socks, key)
	}
	return fd, ok
}

// Close closes what nobody wanted, except what is kept, and returns where it listened.
func (in *Inheritance) Close() (left []string) {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.kept {
		delete(in.socks, s.Network+" "+s.Address)
	}
	for at, fd := range in.socks {
		_ = unix.Close(fd)
		left = append(left, at)
	}
	clear(in.socks)
	return left
}

// Listen is net.Listen, for a socket that was inherited too.
func (in *Inheritance) Listen(network, address string) (net.Listener, error) {
	fd, ok := in.Take(network, address)
	if !ok {
		return net.Listen(network, address)
	}
	return FileListener(fd, address)
}

// FileListener makes a listener of package net of a socket that was inherited.
func FileListener(fd int, address string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), address)
	defer f.Close() // the listener has a descriptor of its own
	return net.FileListener(f)
}

// CloseOnExec keeps a descriptor from other programs.
func CloseOnExec(fd int) { unix.CloseOnExec(fd) }

// ListenTCP is ListenTCP for what the loops of the group will accept: a socket at the same address that was inherited is taken.
func (g *Group) ListenTCP(at netip.AddrPort) (fd int, bound netip.AddrPort, err error) {
	if fd, ok := g.Inherited.Take("tcp", at.String()); ok {
		return fd, at, nil
	}
	return ListenTCP(at)
}

// ListenUDP is ListenUDP with the same difference.
func (g *Group) ListenUDP(at netip.AddrPort) (fd int, bound netip.AddrPort, err error) {
	if fd, ok := g.Inherited.Take("udp", at.String()); ok {
		return fd, at, nil
	}
	return ListenUDP(at)
}

// Halt stops all loops of the group at the end of what they are doing, until release is called: what lives on them does not change, and may be
// looked at. On error, when ctx ends before all have stopped or one has ended, they go on.
func (g *Group) Halt(ctx context.Context) (release func(), err error) {
	going := make(chan struct{})
	release = sync.OnceFunc(func() { close(going) })
	arrived := make(chan struct{}, len(g.loops))
	for _, l := range g.loops {
		if !l.Post(TaskFunc(func() {
			arrived <- struct{}{}
			<-going
		})) {
			release()
			return nil, ErrLoopClosed
		}
	}
	for range g.loops {
		select {
		case <-arrived:
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}

// Sockets returns the listening and datagram sockets of the loops, which are halted.
func (g *Group) Sockets() (list []Inherited) {
	for _, l := range g.loops {
		for _, p := range l.fds {
			switch s := p.(type) {
			case *Listener:
				if s.unix != "" {
					list = append(list, Inherited{"unix", s.unix, s.fd})
				} else {
					list = append(list, Inherited{"tcp", s.addr.String(), s.fd})
				}
			case *UDPSocket:
				list = append(list, Inherited{"udp", s.local.String(), s.fd})
			}
		}
	}
	return list
}

// Conns returns the connections of the loops, which are halted, with a handler that f wants.
func (g *Group) Conns(f func(Handler) bool) (list []*Conn) {
	for _, l := range g.loops {
		for _, p := range l.fds {
			if c, ok := p.(*Conn); ok && !c.closed && f(c.handler) {
				list = append(list, c)
			}
		}
	}
	return list
}

// EachConn calls f with the handlers of the loop's open connections until f returns false. On the loop.
func (l *Loop) EachConn(f func(Handler) bool) {
	for _, p := range l.fds {
		if c, ok := p.(*Conn); ok && !c.closed && !f(c.handler) {
			return
		}
	}
}

// InheritedListener describes a listener of package net, which stays open.
func InheritedListener(ln net.Listener) (Inherited, error) {
	in := Inherited{Network: ln.Addr().Network(), Address: ln.Addr().String(), FD: -1}
	if strings.HasPrefix(in.Network, "tcp") {
		in.Network = "tcp"
	}
	conn, ok := ln.(syscall.Conn)
	if !ok {
		return in, fmt.Errorf("%T has no descriptor", ln)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { in.FD = int(fd) })
	}
	return in, err
}
