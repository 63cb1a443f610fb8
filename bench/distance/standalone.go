package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strings"

	"sallyport/bench/wire"
)

// standAlone joins two namespaces until it is interrupted.
func standAlone(ctx context.Context, args []string) error {
	var o wire.Options
	var between, addresses, device string
	fs := flag.NewFlagSet("distance wire", flag.ContinueOnError)
	fs.StringVar(&between, "between", "", "two namespaces: names of ip netns, or paths like /proc/PID/ns/net, separated by a comma")
	fs.StringVar(&addresses, "addresses", "10.78.0.1/24,10.78.0.2/24", "the address of each end")
	fs.StringVar(&device, "device", "wire0", "name of the device at each end")
	fs.DurationVar(&o.Delay, "delay", 0, "from one end to the other")
	fs.DurationVar(&o.Jitter, "jitter", 0, "by how much packets take longer at most")
	fs.Float64Var(&o.Rate, "rate", 0, "bits a second; 0 is as fast as it goes")
	fs.DurationVar(&o.Queue, "queue", 0, "how long packets wait for the rate at most (default 100ms)")
	fs.Float64Var(&o.Loss, "loss", 0, "share of segments that are lost, 0 to 1")
	fs.Float64Var(&o.Reorder, "reorder", 0, "share of segments that others overtake, 0 to 1")
	if err := fs.Parse(args); err != nil {
		return err
	}
	names, addrs := strings.Split(between, ","), strings.Split(addresses, ",")
	if len(names) != 2 || len(addrs) != 2 {
		return errors.New("--between and --addresses take two values each, separated by a comma")
	}
	var ends [2]wire.End
	for k, name := range names {
		if !strings.Contains(name, "/") {
			name = "/run/netns/" + name
		}
		n, err := wire.Open(name)
		if err != nil {
			return err
		}
		defer n.Close()
		prefix, err := netip.ParsePrefix(addrs[k])
		if err != nil {
			return err
		}
		ends[k] = wire.End{Namespace: n, Device: device, Address: prefix}
	}
	w, err := wire.Connect(ends[0], ends[1], o, o)
	if err != nil {
		return err
	}
	defer w.Close()
	<-ctx.Done()
	there, back := w.Counts()
	fmt.Printf("there %+v\nback  %+v\n", there, back)
	return nil
}
