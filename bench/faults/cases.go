package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"sallyport/bench/wire"
)

// fault is a case: what is done, what must show, and what does it. run returns what was seen.
type fault struct {
	name, expected string
	run            func(ctx context.Context, w *world) (string, error)
}

// scale is how much of everything a run has.
type scale struct {
	streams, idle int
	kills         int
	upgrades      int
	drops         []time.Duration
	stop          time.Duration
	shaped        time.Duration
	back          time.Duration // by when all must move again after a fault is over
	soak          time.Duration
	fleet         int // outlets; inlets are five times as many
	fleetKills    int
	fleetUpgrades int
	open, pauses  int           // connections that are open while nodes are upgraded, and how often each is
	pause         time.Duration // how long a node may stand still then
	patience      time.Duration // and how long a client may wait that asks all the time
	paths         int           // times that a path is cut and a relay is killed to see how soon that is noticed and made good
	noticed, up   time.Duration
	bench         time.Duration // how long pgbench goes on after a fault is over, about
}

func cases(short bool, soakFor time.Duration, kills int) []fault {
	s := scale{streams: 8, idle: 200, kills: 50, upgrades: 20, drops: []time.Duration{time.Second, 20 * time.Second, 50 * time.Second}, stop: 30 * time.Second,
		shaped: 30 * time.Second, back: 5 * time.Second, bench: 8 * time.Second, soak: soakFor, fleet: 100, fleetKills: 50, fleetUpgrades: 5,
		open: 1000, pauses: 5, pause: 200 * time.Millisecond, patience: time.Second, paths: 5, noticed: 3 * time.Second, up: time.Second}
	// The short form is for a machine that has other things to do.
	if short {
		s = scale{streams: 4, idle: 60, kills: 3, upgrades: 1, drops: []time.Duration{6 * time.Second}, stop: 6 * time.Second, shaped: 4 * time.Second, back: 10 * time.Second,
			bench: 3 * time.Second, fleet: 6, fleetKills: 2, fleetUpgrades: 1, open: 200, pauses: 1, pause: time.Second, patience: 5 * time.Second, paths: 1, noticed: 6 * time.Second, up: 5 * time.Second}
	}
	if kills > 0 {
		s.kills, s.fleetKills, s.fleetUpgrades = kills, kills, min(kills, s.fleetUpgrades)
	}
	whole := fmt.Sprintf("0 failed, 0 reset, every byte right; all move within %v", s.back)
	list := []fault{{fmt.Sprintf("kill -9 of the relay and start again, %d times", s.kills), whole, func(ctx context.Context, w *world) (string, error) {
		return w.under(ctx, s, time.Duration(s.kills)*s.bench, func(l *load) (slowest time.Duration, err error) {
			for range s.kills {
				if err := w.restart(ctx, w.relay, 200*time.Millisecond); err != nil {
					return slowest, err
				}
				begun := time.Now()
				if err := l.moving(60 * time.Second); err != nil {
					return slowest, err
				}
				slowest = max(slowest, time.Since(begun))
			}
			return slowest, nil
		})
	}}}
	list = append(list, upgrades(s, whole)...)
	list = append(list, fault{fmt.Sprintf("upgrade of each node with %d open connections, %d times", s.open, s.pauses), fmt.Sprintf("stopped for %v at most, who asks waits for %v at most, 0 reset, no connect refused", s.pause, s.patience),
		pauses(s.open, s.pauses, s.pause, s.patience)})
	once := func(name string, during time.Duration, do func(ctx context.Context, w *world) error) {
		list = append(list, fault{name, whole, func(ctx context.Context, w *world) (string, error) {
			return w.under(ctx, s, during+s.bench, func(l *load) (time.Duration, error) {
				if err := do(ctx, w); err != nil {
					return 0, err
				}
				begun := time.Now()
				err := l.moving(60 * time.Second)
				return time.Since(begun), err
			})
		}})
	}
	for _, d := range s.drops {
		once(fmt.Sprintf("packets dropped silently between inlet and relay for %v", d), d, func(_ context.Context, w *world) error { return drop(w.near, d) })
		once(fmt.Sprintf("packets dropped silently between relay and outlet for %v", d), d, func(_ context.Context, w *world) error { return drop(w.far, d) })
	}
	once("the inlet's machine gets another address", 0, moveInlet)
	for _, which := range []string{"inlet", "relay", "outlet"} {
		once(fmt.Sprintf("SIGSTOP of the %s's node for %v", which, s.stop), s.stop, func(ctx context.Context, w *world) error {
			m := map[string]*machine{"inlet": w.inlet, "relay": w.relay, "outlet": w.outlet}[which]
			pid, err := w.pid(ctx, m)
			if err != nil {
				return err
			}
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			time.Sleep(s.stop)
			return syscall.Kill(pid, syscall.SIGCONT)
		})
	}
	for _, o := range []wire.Options{{Loss: 0.01, Delay: 5 * time.Millisecond}, {Loss: 0.05, Delay: 50 * time.Millisecond}, {Delay: 150 * time.Millisecond}, {Reorder: 0.05, Delay: 10 * time.Millisecond},
		{Loss: 0.2, Delay: 5 * time.Millisecond}, {Delay: 300 * time.Millisecond}, {Duplicate: 0.1, Delay: time.Millisecond}, {Corrupt: 0.0005, Delay: time.Millisecond}} {
		if short && (o.Loss == 0.01 || o.Loss == 0.2 || o.Reorder > 0 || o.Delay == 300*time.Millisecond || o.Duplicate > 0) {
			continue
		}
		once(fmt.Sprintf("%v round trip, %g %% loss, %g %% reordered, %g %% twice, %g %% with a wrong bit on one leg", 2*o.Delay, 100*o.Loss, 100*o.Reorder, 100*o.Duplicate, 100*o.Corrupt), s.shaped, func(_ context.Context, w *world) error {
			if err := w.near.Set(o, o); err != nil {
				return err
			}
			time.Sleep(s.shaped)
			return w.near.Set(usual, usual)
		})
	}
	if !short {
		once("MTU of 576 between inlet and relay", s.shaped, func(_ context.Context, w *world) error {
			for _, mtu := range []string{"576", "1500"} {
				for _, m := range []*machine{w.inlet, w.relay} {
					if err := m.Run("ip", "link", "set", "near", "mtu", mtu); err != nil {
						return err
					}
				}
				if mtu == "576" {
					time.Sleep(s.shaped)
				}
			}
			return nil
		})
	}
	late := briefHold + 5*time.Second
	gone := "the other side is reset within 2 s, never ended as if whole"
	list = append(list, fault{"kill -9 of the inlet's node for good", gone, func(ctx context.Context, w *world) (string, error) { return killed(ctx, w, w.inlet, false) }},
		fault{"kill -9 of the outlet's node for good", gone, func(ctx context.Context, w *world) (string, error) { return killed(ctx, w, w.outlet, false) }},
		fault{"kill -9 of the inlet's node, and start again at once", gone + "; new ones work", func(ctx context.Context, w *world) (string, error) { return killed(ctx, w, w.inlet, true) }},
		fault{"kill -9 of the outlet's node, and start again at once", gone + "; new ones work", func(ctx context.Context, w *world) (string, error) { return killed(ctx, w, w.outlet, true) }})
	list = append(list, fault{"a path that is dead without a word, a relay that was killed and is back", fmt.Sprintf("noticed within %v; a new path within %v of the relay", s.noticed, s.up), pathTimes(s)})
	list = append(list, fault{"each side of a half-close at each moment of a loss", "every byte, then the end, both ways", halfCloses},
		fault{"ends that never read, never write, reset, end first", "as over plain TCP", asOverTCP})
	if !short {
		list = append(list, fault{"throughput at 100 ms and 1 % loss", "at least one plain TCP connection's over the same wire", throughput})
		for _, leg := range []string{"inlet", "outlet"} {
			list = append(list, fault{"packets dropped silently beside the " + leg + "'s machine for 90s", "both sides reset, not before the hold is over, within 1m5s",
				func(ctx context.Context, w *world) (string, error) {
					return holdOver(w, "data", time.Minute, map[string]*wire.Wire{"inlet": w.near, "outlet": w.far}[leg])
				}})
		}
	}
	n := 10_000
	if short {
		n = 500
	}
	back := "descriptors, memory and goroutines back to where they were"
	list = append(list, fault{fmt.Sprintf("%d connections opened and dropped", n), back, dropped(n)})
	if !short {
		list = append(list, fault{fmt.Sprintf("%v of load, connections that come and go, and faults", s.soak), "0 failed, 0 reset, every byte right; " + back, soak(s, s.soak)})
	}
	return append(list, fault{"kill of a client, of a target's connection", "the other side is reset within 2 s", resetsPass},
		fault{"packets dropped for longer than the hold, " + briefHold.String(), fmt.Sprintf("both sides reset, not before the hold is over, within %v", late),
			func(_ context.Context, w *world) (string, error) { return holdOver(w, "brief", briefHold, w.near) }},
		fault{fmt.Sprintf("kill -9 of the relay of %d outlets and %d inlets, %d times", s.fleet, 5*s.fleet, s.fleetKills), whole + ", no storm",
			fleetBack(s, s.fleet, 5*s.fleet, s.fleetKills, func(ctx context.Context, w *world) error { return w.restart(ctx, w.relay, 200*time.Millisecond) })},
		fault{fmt.Sprintf("upgrade of the relay of %d outlets and %d inlets, %d times", s.fleet, 5*s.fleet, s.fleetUpgrades), whole + ", no storm",
			fleetBack(s, s.fleet, 5*s.fleet, s.fleetUpgrades, func(ctx context.Context, w *world) error {
				_, err := w.upgrade(ctx, w.relay, w.relay.role)
				return err
			})})
}

// under runs a fault under load and says what became of the load.
func (w *world) under(ctx context.Context, s scale, during time.Duration, do func(l *load) (time.Duration, error)) (string, error) {
	bench := min(during, time.Minute)
	l, err := w.newLoad(ctx, s.streams, s.idle, bench)
	if err != nil {
		l.abandon()
		return "", fmt.Errorf("before the fault: %w", err)
	}
	slowest, err := do(l)
	errs := l.finish()
	seen := fmt.Sprintf("%d of %d connections failed, back within %.1f s", len(errs), len(l.streams)+len(l.idle)+len(l.counts)+2, slowest.Seconds())
	if len(errs) > 0 {
		return seen, errs[0]
	}
	if err == nil && slowest > s.back {
		err = fmt.Errorf("not back within %v: the last were %s", s.back, l.last)
	}
	return seen, err
}

// moveInlet gives the inlet's machine another address: what came from the old one is not answered any more.
func moveInlet(_ context.Context, w *world) error {
	to, from := inletMoved, inletAddr
	if err := w.inlet.Run("ip", "addr", "del", from+"/24", "dev", "near"); err != nil {
		to, from = inletAddr, inletMoved
		if err := w.inlet.Run("ip", "addr", "del", from+"/24", "dev", "near"); err != nil {
			return err
		}
	}
	return w.inlet.Run("ip", "addr", "add", to+"/24", "dev", "near")
}

// wasReset waits for the end of a connection and returns an error unless that is a reset.
func wasReset(c *net.TCPConn, within time.Duration) (time.Duration, error) {
	begun := time.Now()
	_ = c.SetReadDeadline(begun.Add(within))
	for buf := make([]byte, 1<<16); ; {
		if _, err := c.Read(buf); err != nil {
			if errors.Is(err, syscall.ECONNRESET) {
				return time.Since(begun), nil
			}
			return time.Since(begun), fmt.Errorf("ended with %w; a reset is right", err)
		}
	}
}

// resetsPass resets one side's socket and looks at the other's.
func resetsPass(_ context.Context, w *world) (string, error) {
	var slowest time.Duration
	for _, byClient := range []bool{true, false} {
		c, far, _, err := w.open("data", askEcho)
		if err != nil {
			return "", err
		}
		defer c.Close()
		x := c
		if !byClient {
			x = far.conn
		}
		_ = x.SetLinger(0)
		_ = x.Close()
		begun := time.Now()
		if byClient {
			if _, err = far.result(2 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
				return "", fmt.Errorf("the target's connection ended with %w; a reset is right", err)
			}
		} else if _, err = wasReset(c, 2*time.Second); err != nil {
			return "", fmt.Errorf("the client's connection: %w", err)
		}
		slowest = max(slowest, time.Since(begun))
	}
	return fmt.Sprintf("reset within %.2f s", slowest.Seconds()), nil
}

// holdOver cuts a leg for longer than the hold of a portal.
func holdOver(w *world, portal string, hold time.Duration, leg *wire.Wire) (string, error) {
	const more = 5 * time.Second // by when both sides know
	c, far, _, err := w.open(portal, askEcho)
	if err != nil {
		return "", err
	}
	defer c.Close()
	lost := wire.Options{Loss: 1}
	if err := leg.Set(lost, lost); err != nil {
		return "", err
	}
	defer func() { _ = leg.Set(usual, usual) }()
	begun := time.Now()
	atTarget := make(chan error, 1)
	var targetAfter time.Duration
	go func() {
		_, err := far.result(hold + 2*more)
		targetAfter = time.Since(begun)
		atTarget <- err
	}()
	_, err = wasReset(c, hold+2*more)
	clientAfter := time.Since(begun)
	targetErr := <-atTarget
	seen := fmt.Sprintf("client reset after %.1f s, target after %.1f s", clientAfter.Seconds(), targetAfter.Seconds())
	switch {
	case err != nil:
		return seen, fmt.Errorf("client: %w", err)
	case !errors.Is(targetErr, syscall.ECONNRESET):
		return seen, fmt.Errorf("the target's connection ended with %w; a reset is right", targetErr)
	case min(clientAfter, targetAfter) < hold:
		return seen, errors.New("the hold is longer")
	case max(clientAfter, targetAfter) > hold+more:
		return seen, fmt.Errorf("later than %v after the hold", more)
	}
	if err := leg.Set(usual, usual); err != nil {
		return seen, err
	}
	again, err := w.comesBack(portal, more)
	if err != nil {
		return seen, err
	}
	return fmt.Sprintf("%s, a new client served %.1f s after the loss", seen, again.Seconds()), nil
}

// comesBack opens connections until one is served, and returns how long that took. A node that was away for longer than the hold has lost its name,
// and clients are refused until the node has it again.
func (w *world) comesBack(portal string, within time.Duration) (time.Duration, error) {
	for begun := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := w.isServed(portal, time.Until(begun.Add(within)))
		if after := time.Since(begun); err == nil || after > within {
			if err != nil {
				err = fmt.Errorf("a new client after %v: %w", within, err)
			}
			return after, err
		}
	}
}

// isServed opens a connection and waits for an answer to its first byte.
func (w *world) isServed(portal string, within time.Duration) error {
	c, err := w.dial(portal)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	return w.answered(c)
}

// answered asks for an echo on a connection, and waits for the one of its first byte.
func (w *world) answered(c *net.TCPConn) error {
	seed := seeds.Add(1)
	defer w.servers.forget(seed)
	if _, err := c.Write(append(binary.LittleEndian.AppendUint64([]byte{askEcho}, seed), 'x')); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != 'x' {
		return fmt.Errorf("answered %q, %w", b, err)
	}
	return nil
}

// killed kills the inlet's or the outlet's node, and starts it again at once or when the other side has seen what it should.
func killed(ctx context.Context, w *world, m *machine, again bool) (string, error) {
	const within = 2 * time.Second
	c, far, _, err := w.open("data", askEcho)
	if err != nil {
		return "", err
	}
	defer c.Close()
	time.Sleep(time.Second) // a connection that has been there for a while
	pid, err := w.pid(ctx, m)
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return "", err
	}
	begun := time.Now()
	start := func() error {
		_, err := w.command(ctx, m, "node", "start", m.role)
		return err
	}
	if again {
		hasEnded(pid)
		if err := start(); err != nil {
			return "", err
		}
	}
	// Seen from both sides: the kernel resets one, the other node the other one.
	if _, err = wasReset(c, within+2*time.Second); err != nil {
		err = fmt.Errorf("client: %w", err)
	} else if _, ended := far.result(within + 2*time.Second); !errors.Is(ended, syscall.ECONNRESET) {
		err = fmt.Errorf("the target's connection ended with %w; a reset is right", ended)
	}
	after := time.Since(begun)
	if !again {
		if err := start(); err != nil {
			return "", err
		}
	}
	seen := fmt.Sprintf("both sides reset within %.1f s", after.Seconds())
	if err == nil && after > within {
		err = fmt.Errorf("that is more than %v", within)
	}
	if err != nil {
		return seen, err
	}
	fresh, _, _, err := w.open("data", askEcho)
	if err != nil {
		return seen, fmt.Errorf("a new client: %w", err)
	}
	return seen, fresh.Close()
}
