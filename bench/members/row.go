package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// errStuck reports members that do not come back.
var errStuck = errors.New("not all members are back")

// comeBack is how long all members may take to be back.
const comeBack = 30 * time.Minute

// crowd is the members of a row, in child processes.
type crowd struct {
	children []*childProcess
	homes    string // of all members
	retries  int
}

// newCrowd starts children for n members.
func newCrowd(ctx context.Context, o options, n int, ticket string) (*crowd, error) {
	homes, err := os.MkdirTemp("/dev/shm", "members-") // what members write is not what is measured
	if err != nil {
		return nil, err
	}
	c := &crowd{homes: homes}
	count := (n + o.share - 1) / o.share
	for k := range count {
		from := k * n / count
		child, err := startChild(ctx, work{
			Ticket: ticket, Homes: homes, From: from, Share: (k+1)*n/count - from, All: n, Width: max(o.width/count, 1), Outlets: o.outletsOf(n), Inlets: o.inlets,
		})
		if err != nil {
			c.end()
			return nil, err
		}
		c.children = append(c.children, child)
	}
	return c, nil
}

func (c *crowd) end() {
	for _, child := range c.children {
		child.end()
	}
	_ = os.RemoveAll(c.homes)
}

// do has all members do something, and returns how long it took; of many are done, it says from time to time.
func (c *crowd) do(name string, many int) (time.Duration, error) {
	began := time.Now()
	errs, retries := make([]error, len(c.children)), make([]int, len(c.children))
	var all sync.WaitGroup
	for i, child := range c.children {
		all.Go(func() { retries[i], errs[i] = child.do(name) })
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	for tick := time.NewTicker(5 * time.Second); ; {
		select {
		case <-ended:
			tick.Stop()
			for _, n := range retries {
				c.retries += n
			}
			return time.Since(began), errors.Join(errs...)
		case <-tick.C:
			done := int64(0)
			for _, child := range c.children {
				done += child.done.Load()
			}
			progress(name, float64(done), many, began)
		}
	}
}

// progress writes a line to the standard error.
func progress(name string, done float64, many int, began time.Time) {
	took := time.Since(began)
	fmt.Fprintf(os.Stderr, "%s  %-8s %6.0f of %d, %.0f s, %.1f/s\n", time.Now().UTC().Format("15:04:05"), name, done, many, took.Seconds(), done/took.Seconds())
}

// row makes a project with n members and returns what they cost, by metric. keep is given what there is after each measurement.
func row(ctx context.Context, o options, n int, keep func(map[string]float64) error) (map[string]float64, error) {
	began := time.Now()
	w, err := newWorld(ctx, o, n)
	defer w.end()
	if err != nil {
		return nil, err
	}
	ticket, err := w.sallyport(ctx, w.authority.home, "project", "ticket", "--identity", "admin", "--relay", "*", "--usage-count", fmt.Sprint(n), "--expires-in", "12h")
	if err != nil {
		return nil, err
	}
	c, err := newCrowd(ctx, o, n, ticket)
	if err != nil {
		return nil, err
	}
	defer c.end()
	values := map[string]float64{}
	each := func(before, after usage) float64 { return (after.cpu - before.cpu).Seconds() * 1000 / float64(n) }
	kib := func(before, after usage) float64 { return float64(after.rss-before.rss) / 1024 / float64(n) }
	home := filepath.Join(w.dir, "project")
	disk, authority, relays := size(home), look(w.authority.pid), look(w.relayPIDs()...)

	took, err := c.do("enrol", n)
	if err != nil {
		return nil, err
	}
	enrolled := look(w.authority.pid)
	values["enrolled"], values["authority_enrol"] = float64(n)/took.Seconds(), each(authority, enrolled)
	if !o.postgres {
		values["authority_disk"] = float64(size(home)-disk) / 1024 / float64(n)
	}
	if err := keep(values); err != nil {
		return nil, err
	}
	outlets := o.outletsOf(n)
	if took, err = c.do("register", outlets); err != nil {
		return nil, err
	}
	values["registered"], values["relay_register"] = float64(outlets)/took.Seconds(), each(relays, look(w.relayPIDs()...))
	if err := keep(values); err != nil {
		return nil, err
	}
	if o.inlets > 0 {
		if _, err = c.do("dial", o.inlets); err != nil {
			return nil, err
		}
	}
	before := look(w.authority.pid)
	if took, err = c.do("renew", n); err != nil {
		return nil, err
	}
	values["renewed"], values["authority_renew"] = float64(n)/took.Seconds(), each(before, look(w.authority.pid))
	if err := keep(values); err != nil {
		return nil, err
	}
	if err := rest(ctx, w, o, n, values); err != nil {
		return nil, err
	}
	values["authority_memory"], values["relay_memory"] = kib(authority, look(w.authority.pid)), kib(relays, look(w.relayPIDs()...))
	if err := keep(values); err != nil {
		return nil, err
	}
	if err := back(ctx, w, o, c, values); err != nil {
		return nil, err
	}
	values[last] = float64(c.retries)
	fmt.Fprintf(os.Stderr, "%s  %d members took %.0f s\n", time.Now().UTC().Format("15:04:05"), n, time.Since(began).Seconds())
	return values, nil
}

// rest measures what members cost that are only there.
func rest(ctx context.Context, w *world, o options, n int, values map[string]float64) error {
	a, r, began := look(w.authority.pid), look(w.relayPIDs()...), time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(o.idle):
	}
	minutes := time.Since(began).Minutes() * float64(n)
	values["authority_idle"] = (look(w.authority.pid).cpu - a.cpu).Seconds() * 1000 / minutes
	values["relay_idle"] = (look(w.relayPIDs()...).cpu - r.cpu).Seconds() * 1000 / minutes
	asked := time.Now()
	_, err := scrape(ctx, w.relays[0].status)
	values["scrape"] = time.Since(asked).Seconds() * 1000
	return err
}

// back kills all relays at once and measures how long it takes from when they are there again until all members are, and how many handshakes the relays had in a second.
func back(ctx context.Context, w *world, o options, c *crowd, values map[string]float64) error {
	const channels, opened = "sallyport_secure_channels", "sallyport_secure_channels_opened_total"
	there, err := w.sum(ctx, channels)
	if err != nil {
		return err
	}
	if err := w.killRelays(ctx); err != nil {
		return err
	}
	began := time.Now()
	answered := make(chan error, 1)
	if o.inlets > 0 {
		go func() {
			took, err := c.do("echo", o.inlets)
			values["inlets_back"] = took.Seconds()
			answered <- err
		}()
	} else {
		answered <- nil
	}
	most, last, at, said := 0.0, 0.0, began, began
	for {
		now, err := w.sum(ctx, channels, opened)
		if err == nil {
			if d := time.Since(at).Seconds(); d > 0.9 || most == 0 && now[0] >= there[0] {
				most, last, at = max(most, (now[1]-last)/d), now[1], time.Now()
			}
			if time.Since(said) > 5*time.Second {
				progress("back", now[0], int(there[0]), began)
				said = time.Now()
			}
			if now[0] >= there[0] {
				break
			}
		}
		if time.Since(began) > comeBack || ctx.Err() != nil {
			return errors.Join(errStuck, err, ctx.Err())
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(began).Seconds()
	if now, err := w.sum(ctx, opened); err == nil { // the last part of a second, too
		most = max(most, now[0]/max(took, 1))
	}
	values["back"], values["handshakes"] = took, most
	return <-answered
}
