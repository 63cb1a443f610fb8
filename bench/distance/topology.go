package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/bench/wire"
)

// Addresses of the three machines. The relay has one on each wire.
const (
	inletAddr  = "10.77.1.1"
	relayAddr  = "10.77.1.2"
	relayFar   = "10.77.2.2"
	outletAddr = "10.77.2.1"
)

// world is three namespaces in a row, joined by two wires: the inlet's machine, the relay's and the outlet's.
type world struct {
	inlet, relay, outlet *wire.Namespace
	wires                []*wire.Wire
}

// newWorld makes the namespaces and the wires of a scenario, with a congestion control for TCP; empty for the system's.
func newWorld(s scenario, congestion string) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for _, n := range []**wire.Namespace{&w.inlet, &w.relay, &w.outlet} {
		if *n, err = wire.New(); err != nil {
			return nil, err
		}
	}
	join := func(a *wire.Namespace, addrA string, b *wire.Namespace, addrB, device string, o wire.Options) {
		if err != nil {
			return
		}
		end := func(n *wire.Namespace, addr string) wire.End {
			return wire.End{Namespace: n, Device: device, Address: netip.PrefixFrom(netip.MustParseAddr(addr), 24)}
		}
		back := o
		back.Seed += 100
		var made *wire.Wire
		if made, err = wire.Connect(end(a, addrA), end(b, addrB), o, back); err == nil {
			w.wires = append(w.wires, made)
		}
	}
	join(w.inlet, inletAddr, w.relay, relayAddr, "near", s.leg(0))
	join(w.relay, relayFar, w.outlet, outletAddr, "far", s.leg(1))
	if err != nil {
		return nil, err
	}
	// A connection from end to end goes through the relay's machine.
	if err = w.inlet.Run("ip", "route", "add", "default", "via", relayAddr); err != nil {
		return nil, err
	}
	if err = w.outlet.Run("ip", "route", "add", "default", "via", relayFar); err != nil {
		return nil, err
	}
	err = w.relay.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	for _, n := range []*wire.Namespace{w.inlet, w.relay, w.outlet} {
		set := func(name, value string) {
			if err == nil {
				err = n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) })
			}
		}
		set("tcp_no_metrics_save", "1") // what one connection learned about the path must not help the next
		if congestion != "" {
			set("tcp_congestion_control", congestion)
		}
	}
	return w, err
}

func (w *world) close() {
	for _, x := range w.wires {
		x.Close()
	}
	for _, n := range []*wire.Namespace{w.inlet, w.relay, w.outlet} {
		if n != nil {
			_ = n.Close()
		}
	}
}

// retransmitted returns how many TCP segments were sent again so far on all three machines.
func (w *world) retransmitted() (total float64) {
	for _, n := range []*wire.Namespace{w.inlet, w.relay, w.outlet} {
		_ = n.Do(func() error {
			b, err := os.ReadFile("/proc/thread-self/net/snmp")
			if err != nil {
				return err
			}
			total += snmpTCP(string(b), "RetransSegs")
			return nil
		})
	}
	return total
}

// snmpTCP finds a counter in /proc/net/snmp: a line of names and one of values.
func snmpTCP(table, name string) float64 {
	var names []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i, n := range names {
			if n == name && i < len(f) {
				v, _ := strconv.ParseFloat(f[i], 64)
				return v
			}
		}
	}
	return 0
}

// scenario is what the two wires are like.
type scenario struct {
	name  string
	trip  time.Duration // whole round trip
	near  time.Duration // of it, between the inlet and the relay; 0 for half
	rate  float64       // bits a second
	queue time.Duration
	loss  float64 // on each leg
	// jitter is by how much packets come late at most on each leg, in order; reorder is the share that others overtake.
	jitter  time.Duration
	reorder float64
}

// leg returns one direction of a wire: 0 is near, 1 far.
func (s scenario) leg(k int) wire.Options {
	near := s.near
	if near == 0 {
		near = s.trip / 2
	}
	d := near
	if k == 1 {
		d = s.trip - near
	}
	return wire.Options{Delay: d / 2, Rate: s.rate, Queue: s.queue, Loss: s.loss, Jitter: s.jitter, Reorder: s.reorder, Seed: uint64(k)}
}

const gbit = 1e9

// scenarios are the rows of the whole bench.
func scenarios() []scenario {
	ms := time.Millisecond
	list := []scenario{}
	for _, trip := range []time.Duration{ms, 10 * ms, 50 * ms, 100 * ms, 300 * ms} {
		list = append(list, scenario{name: fmt.Sprintf("%d ms", trip/ms), trip: trip, rate: gbit, queue: 100 * ms})
	}
	for _, loss := range []float64{0.001, 0.01, 0.05} {
		list = append(list, scenario{name: fmt.Sprintf("50 ms, %g %% loss", 100*loss), trip: 50 * ms, rate: gbit, queue: 100 * ms, loss: loss})
	}
	list = append(list, scenario{name: "50 ms, jitter 10 ms", trip: 50 * ms, rate: gbit, queue: 100 * ms, jitter: 10 * ms},
		scenario{name: "50 ms, 1 % overtaken", trip: 50 * ms, rate: gbit, queue: 100 * ms, reorder: 0.01})
	for _, rate := range []float64{2, 20, 200} {
		for _, queue := range []time.Duration{10 * ms, 200 * ms} {
			list = append(list, scenario{name: fmt.Sprintf("40 ms, %g Mbit/s, queue %d ms", rate, queue/ms), trip: 40 * ms, rate: rate * 1e6, queue: queue})
		}
	}
	return append(list, scenario{name: "1 ms and 100 ms", trip: 101 * ms, near: ms, rate: gbit, queue: 100 * ms},
		scenario{name: "100 ms and 1 ms", trip: 101 * ms, near: 100 * ms, rate: gbit, queue: 100 * ms})
}
