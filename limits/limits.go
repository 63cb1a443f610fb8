// Package limits says how much of everything a node gives to others, in one place. A node is given Limits; what they bound is
// admitted, or refused and counted, where a connection, a channel or a name begins, never for each message.
package limits

import (
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Limits bound what one node holds for others. A field that is zero has the default of Default. The names in a configuration are those of
// the field tags, and the same as in docs/limits.md and in the metrics' label.
type Limits struct {
	// Connections is how many connections of other nodes are open at a time; default half of the descriptors, at most 65,536.
	Connections int `json:"connections,omitempty"`
	// ConnectionsPerAddress is how many of them come from one IPv4 address or one IPv6 /64; default 4,096.
	ConnectionsPerAddress int `json:"connections-per-address,omitempty"`
	// PreambleTimeout is how long a connection may take to say that it speaks the protocol; default 10 s.
	PreambleTimeout Duration `json:"preamble-timeout,omitempty"`
	// FrameTimeout is how long the rest of a message may make no progress, that is bring less than 1 KiB; default 10 s.
	FrameTimeout Duration `json:"frame-timeout,omitempty"`
	// Handshakes is how many handshakes others have under way; default 1,024.
	Handshakes int `json:"handshakes,omitempty"`
	// HandshakesPerSecond is how many of them begin in a second; when they are used up only those who had less than their part get more. Default
	// 5,000.
	HandshakesPerSecond int `json:"handshakes-per-second,omitempty"`
	// Channels is how many secure channels others have open; default 65,536.
	Channels int `json:"channels,omitempty"`
	// ChannelsPerPeer is how many of them one identity has; default 4,096.
	ChannelsPerPeer int `json:"channels-per-peer,omitempty"`
	// PortalConnections is how many portal connections are open; default half of the descriptors, at most 65,536.
	PortalConnections int `json:"portal-connections,omitempty"`
	// OutletConnections is how many of them one outlet has that says nothing else; one peer gets four in five. Default 1,000.
	OutletConnections int `json:"outlet-connections,omitempty"`
	// Names is how many relay names are registered; default 100,000.
	Names int `json:"names,omitempty"`
	// NamesPerOwner is how many of them one identity has, or without an authority one connection; default 10,000.
	NamesPerOwner int `json:"names-per-owner,omitempty"`
	// Lanes is over how many connections on each leg of its path an inlet's streams go, and for an outlet's node under how many names one of its relays
	// is registered for others; 1 for no more than one. Default 2, most 16.
	Lanes int `json:"lanes,omitempty"`
	// Message is the largest message that is read from the network; default and most 16 MiB.
	Message Bytes `json:"message,omitempty"`
	// Route is how many addresses a route of a message has at most, the one to go or the one to come back; default and most 64.
	Route int `json:"route,omitempty"`
	// Memory is what the node may use. It bounds the heap, and what is unfinished, windows and buffers follow it. Default: 90 % of the
	// control group's limit or GOMEMLIMIT, whichever is less; without either there is no limit and the others have their largest values.
	Memory Bytes `json:"memory,omitempty"`
	// Unfinished bounds what others have sent of messages that are not whole yet; default an eighth of Memory, at most 64 MiB.
	Unfinished Bytes `json:"unfinished,omitempty"`
	// Windows bounds the windows of portal connections beyond their first size; default an eighth of Memory, at most 256 MiB.
	Windows Bytes `json:"windows,omitempty"`
	// Kept bounds the memory in which portal connections keep what the other end has not confirmed; default an eighth of Memory, at most 256 MiB.
	Kept Bytes `json:"kept,omitempty"`
	// Backlog bounds what waits at connections that take it slower than it comes, beyond the first MiB of each; default an eighth of Memory, at most
	// 128 MiB.
	Backlog Bytes `json:"backlog,omitempty"`
	// Interceptors bounds what waits in the interceptors of Kafka portals, messages that are collected among it; default an eighth of Memory,
	// at most 256 MiB.
	Interceptors Bytes `json:"interceptors,omitempty"`
	// Descriptors is how many descriptors are kept for the administration interface, status, log and state; default 32, at most a quarter
	// of all.
	Descriptors int `json:"descriptors,omitempty"`
	// LogRate is how many records of one kind are logged a second, after the first 200; default 10.
	LogRate int `json:"log-rate,omitempty"`
}

// MaxMessage is the largest message of the protocol.
const MaxMessage Bytes = 16 << 20

// MaxLanes is the most that Lanes may be.
const MaxLanes = 16

// What Route may be: routes through a relay and three channels need 8.
const (
	minRoute = 8
	maxRoute = 64
)

// machine is what defaults depend on.
type machine struct {
	descriptors int
	memory      Bytes // 0: no limit
}

// WithDefaults completes l with the defaults for this process.
func (l Limits) WithDefaults() Limits {
	return l.complete(machine{descriptors: Descriptors(), memory: systemMemory()})
}

// Small completes l for a machine with little memory, where a node is a few portals and no relay of many: what it gives to others fits in
// MinMemory, unless l says more. What is left zero follows the memory (WithDefaults).
func (l Limits) Small() Limits { return l.small(machine{descriptors: Descriptors()}) }

func (l Limits) small(m machine) Limits {
	usual := Limits{}.complete(m)
	small := Limits{
		Connections: min(usual.Connections, 256), ConnectionsPerAddress: 64, Handshakes: 32, HandshakesPerSecond: 100, Channels: 256, ChannelsPerPeer: 64,
		PortalConnections: min(usual.PortalConnections, 512), OutletConnections: 256, Names: 64, NamesPerOwner: 64, Memory: MinMemory,
	}
	to := reflect.ValueOf(&l).Elem()
	from := reflect.ValueOf(small)
	for i := range to.NumField() {
		if to.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return l
}

func (l Limits) complete(m machine) Limits {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = max(v, 1)
		}
	}
	setBytes := func(p *Bytes, v Bytes) {
		if *p == 0 {
			*p = v
		}
	}
	setTime := func(p *Duration, v time.Duration) {
		if *p == 0 {
			*p = Duration(v)
		}
	}
	set(&l.Descriptors, min(32, m.descriptors/4))
	half := min(max(m.descriptors-l.Descriptors, 2)/2, 1<<16)
	set(&l.Connections, half)
	set(&l.ConnectionsPerAddress, 4096)
	set(&l.Handshakes, 1024)
	set(&l.HandshakesPerSecond, 5000)
	set(&l.Channels, 1<<16)
	set(&l.ChannelsPerPeer, 4096)
	set(&l.PortalConnections, half)
	set(&l.OutletConnections, 1000)
	set(&l.Names, 100_000)
	set(&l.NamesPerOwner, 10_000)
	set(&l.Lanes, 2)
	set(&l.LogRate, 10)
	setTime(&l.PreambleTimeout, 10*time.Second)
	setTime(&l.FrameTimeout, 10*time.Second)
	set(&l.Route, maxRoute)
	setBytes(&l.Message, MaxMessage)
	setBytes(&l.Memory, m.memory)
	share := Bytes(1 << 62)
	if l.Memory > 0 {
		share = l.Memory / 8
	}
	setBytes(&l.Unfinished, min(share, 64<<20))
	setBytes(&l.Windows, min(share, 256<<20))
	setBytes(&l.Kept, min(share, 256<<20))
	setBytes(&l.Backlog, min(share, 128<<20))
	setBytes(&l.Interceptors, min(share, 256<<20))
	return l
}

// MinMemory is the least that a node can work in.
const MinMemory Bytes = 32 << 20

// Validate returns every fault of l, each with the name of its field, or nil. Zero is no fault.
func (l Limits) Validate() error {
	var faults []error
	for _, f := range l.list() {
		if f.Value < 0 {
			faults = append(faults, fmt.Errorf("limits: %s is %d; it must be 1 or more, or left out", f.Name, f.Value))
		}
	}
	if l.Message > MaxMessage {
		faults = append(faults, fmt.Errorf("limits: message is %s; the protocol's largest is %s", l.Message, MaxMessage))
	}
	if l.Message > 0 && l.Message < 256<<10 {
		faults = append(faults, fmt.Errorf("limits: message is %s; it must be at least 256KiB, which portals send", l.Message))
	}
	if l.Route != 0 && (l.Route < minRoute || l.Route > maxRoute) {
		faults = append(faults, fmt.Errorf("limits: route is %d; it must be from %d to %d addresses", l.Route, minRoute, maxRoute))
	}
	if l.Lanes > MaxLanes {
		faults = append(faults, fmt.Errorf("limits: lanes is %d; it must be from 1 to %d", l.Lanes, MaxLanes))
	}
	if l.Memory > 0 && l.Memory < MinMemory {
		faults = append(faults, fmt.Errorf("limits: memory is %s; it must be at least %s", l.Memory, MinMemory))
	}
	return errors.Join(faults...)
}

// Named is one limit by its name.
type Named struct {
	Name  string
	Value int64 // a number, bytes or nanoseconds; 0 where there is no limit
	// IsTime tells that Value is a time span.
	IsTime bool
}

// List returns all limits, for lists and metrics.
func (l Limits) List() []Named { return l.list() }

func (l Limits) list() []Named {
	number := func(name string, v int) Named { return Named{Name: name, Value: int64(v)} }
	size := func(name string, v Bytes) Named { return Named{Name: name, Value: int64(v)} }
	span := func(name string, v Duration) Named { return Named{Name: name, Value: int64(v), IsTime: true} }
	return []Named{
		number("connections", l.Connections), number("connections-per-address", l.ConnectionsPerAddress),
		span("preamble-timeout", l.PreambleTimeout), span("frame-timeout", l.FrameTimeout),
		number("handshakes", l.Handshakes), number("handshakes-per-second", l.HandshakesPerSecond), number("channels", l.Channels), number("channels-per-peer", l.ChannelsPerPeer),
		number("portal-connections", l.PortalConnections), number("outlet-connections", l.OutletConnections),
		number("names", l.Names), number("names-per-owner", l.NamesPerOwner), number("lanes", l.Lanes), size("message", l.Message), number("route", l.Route),
		size("memory", l.Memory), size("unfinished", l.Unfinished), size("windows", l.Windows), size("kept", l.Kept), size("backlog", l.Backlog),
		size("interceptors", l.Interceptors),
		number("descriptors", l.Descriptors), number("log-rate", l.LogRate),
	}
}
