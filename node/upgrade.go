package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/portal"
	"sallyport/upgrade"
)

// StateFormat is the format of a Carried that this program writes, and StateFormatOldest the oldest that it reads: its own and the one before.
const (
	StateFormat       = 1
	StateFormatOldest = 1
)

const (
	// drainDefault is how long connections that cannot be carried may take to end by themselves.
	drainDefault = 10 * time.Second
	// haltTimeout is how long the loops may take to come to the end of what they do.
	haltTimeout = 5 * time.Second
	// moveTries is how often connections that are moving between shards are waited for, a millisecond each.
	moveTries = 500
	// unclaimed is how long sockets that listen stay open for parts of resources that open late.
	unclaimed = time.Minute
	// watchBack is how long it is watched until the connections have a path again.
	watchBack = 2 * time.Minute
	// quietBack is how long no connection has come back when the rest has no other end any more, as far as can be seen.
	quietBack = time.Second
)

// UpgradeOptions say how a node is put into the hands of another program; without Command it is not possible.
type UpgradeOptions struct {
	// Version is this program's.
	Version string
	// Program is the path that is executed when a request names none.
	Program string
	// Command is the command line with which a program goes on from the state at a descriptor, and Check the one with which it says whether it could.
	Command func(program string, state int) []string
	Check   []string
	// Leaving, if set, is called just before the program is executed, and what it returns when that was not possible.
	Leaving func() (stay func())
	// Hangup, if set, reports whether this program takes SIGHUP.
	Hangup func() bool
	// Secrets, if set, returns what a person has opened vaults with, by vault: the next program cannot ask. They stay the caller's.
	Secrets func() map[string][]byte
	// Impossible is why this node cannot be upgraded; empty if it can.
	Impossible string
	// Carried is what the program before has left; nil at an ordinary start.
	Carried *Carried
}

// Carried is what one program leaves to the next. Its fields have numbers: what a program does not know it skips, and what is missing is zero.
type Carried struct {
	Format  int                   `cbor:"1,keyasint"`
	Report  admin.Upgrade         `cbor:"2,keyasint"`
	Sockets []dataplane.Inherited `cbor:"3,keyasint"`
	Portals portal.Carried        `cbor:"4,keyasint"`
	// Stopped is when the loops stopped (upgrade.Now).
	Stopped time.Duration `cbor:"5,keyasint"`
	// Data tells that the connections' secrets and bytes are there; they are not when a program is asked whether it could go on.
	Data bool `cbor:"6,keyasint"`
	// Secrets open vaults, by name. The release before shows empty ones to a program that it asks.
	Secrets map[string][]byte `cbor:"7,keyasint,omitempty"`
	// Process is what the node is known by to those that hold its connections, who would end those of another process.
	Process []byte `cbor:"8,keyasint,omitempty"`
	// Hangup tells that the program before took SIGHUP. The next one begins with the signal ignored, so that none ends it before it listens.
	Hangup bool `cbor:"9,keyasint,omitempty"`
	// Kept is the sockets that a service manager has handed over; Sockets has copies of those in use.
	Kept []dataplane.Inherited `cbor:"10,keyasint,omitempty"`
}

// Check refuses what this program cannot go on with.
func (c *Carried) Check() error {
	if c.Format < StateFormatOldest || c.Format > StateFormat {
		return fmt.Errorf("the state has format %d; this program reads %d to %d", c.Format, StateFormatOldest, StateFormat)
	}
	return c.Portals.Check(c.Data)
}

// descriptors are all that stay open.
func (c *Carried) descriptors() (list []int) {
	for _, s := range slices.Concat(c.Sockets, c.Kept) {
		list = append(list, s.FD)
	}
	c.Portals.Each(func(fd int) { list = append(list, fd) })
	return list
}

// upgrades is what a node knows of its upgrades.
type upgrades struct {
	running sync.Mutex // one at a time
	mu      sync.Mutex
	last    admin.Upgrade
	serving []net.Listener // of the administration interface and the status endpoint
	ending  chan struct{}  // closed when the node is about to end
}

var errEnding = errors.New("it is being stopped")

// isEnding reports whether the node is about to end.
func (u *upgrades) isEnding() bool {
	select {
	case <-u.ending:
		return true
	default:
		return false
	}
}

// Ending tells that the node is about to end, so that no other program takes over any more, which would not know of it.
func (n *Node) Ending() {
	n.upgrades.mu.Lock()
	defer n.upgrades.mu.Unlock()
	if !n.upgrades.isEnding() {
		close(n.upgrades.ending)
	}
}

func (u *upgrades) note(change func(*admin.Upgrade)) admin.Upgrade {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(&u.last)
	return u.last
}

// serves notes a listener that goes on.
func (u *upgrades) serves(ln net.Listener) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.serving = append(u.serving, ln)
}

// LastUpgrade says how the last upgrade went, or how the one under way goes. An error matches admin.ErrNotFound if there was none.
func (n *Node) LastUpgrade() (admin.Upgrade, error) {
	u := n.upgrades.note(func(*admin.Upgrade) {})
	if u.ID == "" {
		return u, fmt.Errorf("%w: this node was not upgraded since it was started", admin.ErrNotFound)
	}
	return u, nil
}

// Upgrade asks another program whether it can take over. If it can, begin has it do so, once what cannot be carried has had its time; it returns at
// once, and this program may end before anything else is done. On error nothing has changed, and begin is nil.
func (n *Node) Upgrade(ctx context.Context, r admin.UpgradeRequest) (u admin.Upgrade, begin func(), err error) {
	o := &n.opts.Upgrade
	if o.Command == nil || o.Impossible != "" {
		return u, nil, fmt.Errorf("%w: the node cannot be upgraded: %s", admin.ErrInvalid, o.Impossible)
	}
	drain, err := drainTime(r.Drain, drainDefault)
	if err != nil {
		return u, nil, err
	}
	program := r.Program
	if program == "" {
		program = o.Program
	}
	if !filepath.IsAbs(program) {
		return u, nil, fmt.Errorf("%w: --program %q must be an absolute path", admin.ErrInvalid, program)
	}
	if n.upgrades.isEnding() {
		return u, nil, fmt.Errorf("%w: %w", admin.ErrInvalid, errEnding)
	}
	if !n.upgrades.running.TryLock() {
		return u, nil, fmt.Errorf("%w: an upgrade that is under way", admin.ErrExists)
	}
	u, next, err := n.checkUpgrade(ctx, program)
	if err != nil {
		n.log.Error("the node was not upgraded, it goes on as it was", "program", program, "err", err.Error())
		n.upgrades.note(func(last *admin.Upgrade) {
			u.State, u.Error = admin.UpgradeFailed, err.Error()
			*last = u
		})
		n.upgrades.running.Unlock()
		return u, nil, err
	}
	n.log.Info("upgrade begins", "program", program, "version", u.To, "connections", u.Connections, "not_carried", len(u.Left))
	return u, func() {
		go func() {
			defer n.upgrades.running.Unlock()
			if err := n.replace(next, drain); err != nil { // else this program has ended
				n.log.Error("the node was not upgraded, it goes on as it was", "program", program, "err", err.Error())
				n.upgrades.note(func(u *admin.Upgrade) { u.State, u.Error = admin.UpgradeFailed, err.Error() })
			}
		}()
	}, nil
}

// successor is a program that can take over.
type successor struct {
	program string
	file    os.FileInfo // as it was when it was asked
}

// same reports an error unless the program is as it was when it was asked, and can be executed.
func (s *successor) same() error {
	now, err := os.Stat(s.program)
	switch {
	case err != nil:
		return err
	case !os.SameFile(now, s.file) || now.Size() != s.file.Size() || !now.ModTime().Equal(s.file.ModTime()):
		return errors.New("the program has changed since it was asked")
	}
	if err := unix.Access(s.program, unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w", s.program, err)
	}
	return nil
}

// checkUpgrade asks a program whether it can take over.
func (n *Node) checkUpgrade(ctx context.Context, program string) (u admin.Upgrade, next successor, err error) {
	u = admin.Upgrade{ID: fmt.Sprintf("%016x", randomNumber()), State: admin.UpgradeChecked, Program: program, From: n.opts.Upgrade.Version}
	if program, err = exec.LookPath(program); err != nil {
		return u, next, err
	}
	next.program = program
	if next.file, err = os.Stat(program); err != nil {
		return u, next, err
	}
	trial, release, err := n.writeDown(ctx, false)
	if err != nil {
		return u, next, err
	}
	release()
	count(&u, trial)
	trial.Report = u
	file, err := upgrade.Write(trial)
	if err != nil {
		return u, next, err
	}
	defer func() { err = errors.Join(err, upgrade.Wipe(file), file.Close()) }() // who did not answer may not have read it
	answer, err := upgrade.Check(ctx, program, n.opts.Upgrade.Check, file)
	if err != nil {
		return u, next, err
	}
	u.To = answer.Version
	n.upgrades.note(func(last *admin.Upgrade) { *last = u })
	return u, next, nil
}

// count completes u with what c has.
func count(u *admin.Upgrade, c *Carried) {
	u.Sockets, u.Connections, u.Clients, u.Left = len(c.Sockets), 0, 0, c.Portals.Left
	for _, p := range c.Portals.Portals() {
		for _, k := range p.Conns {
			if k.Gone == 0 { // else there is only something to tell
				u.Connections++
			}
		}
		u.Clients += len(p.Waiting)
	}
}

// writeDown halts the loops and writes down what they hold, with secrets and bytes if data is set. The loops go on with release.
func (n *Node) writeDown(ctx context.Context, data bool) (c *Carried, release func(), err error) {
	inlets, outlets := n.inlets.List(), n.outlets.List()
	for try := 0; ; try++ {
		halt, done := context.WithTimeout(ctx, haltTimeout)
		goOn, err := n.group.Halt(halt)
		done()
		if err != nil {
			return nil, nil, fmt.Errorf("stop the event loops: %w", err)
		}
		var held []func()
		release = func() {
			for _, letGo := range held {
				letGo()
			}
			goOn()
		}
		c = &Carried{Format: StateFormat, Data: data, Stopped: upgrade.Now(), Process: n.portals.Process[:]}
		for i := 0; i < len(inlets) && err == nil; i++ {
			if inlets[i].IsOpen {
				var letGo func()
				if letGo, err = inlets[i].Value.portal.Carry(&c.Portals, data); err == nil {
					held = append(held, letGo)
				}
			}
		}
		for i := 0; i < len(outlets) && err == nil; i++ {
			if outlets[i].IsOpen {
				err = outlets[i].Value.portal.Carry(&c.Portals, data)
			}
		}
		if err == nil {
			break
		}
		c.Portals.Wipe()
		release()
		if !errors.Is(err, portal.ErrMoving) || try == moveTries {
			return nil, nil, err
		}
		time.Sleep(time.Millisecond)
	}
	if n.opts.Upgrade.Hangup != nil {
		c.Hangup = n.opts.Upgrade.Hangup()
	}
	if n.opts.Upgrade.Secrets != nil {
		c.Secrets = n.opts.Upgrade.Secrets()
	}
	n.portals.CarrySockets(n.group, &c.Portals, data)
	for _, s := range n.group.Sockets() {
		if s.Network != "udp" || s.Address == n.ListeningUDP() {
			c.Sockets = append(c.Sockets, s)
		}
	}
	c.Kept = n.group.Inherited.Kept()
	n.upgrades.mu.Lock()
	defer n.upgrades.mu.Unlock()
	for _, ln := range n.upgrades.serving {
		s, err := dataplane.InheritedListener(ln)
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("pass %s on: %w", ln.Addr(), err)
		}
		c.Sockets = append(c.Sockets, s)
	}
	return c, release, nil
}

// replace waits for what cannot be carried and executes the successor. It returns only when that is not possible: then all is as before.
func (n *Node) replace(next successor, drain time.Duration) (err error) {
	left := n.drain(drain)
	if n.upgrades.isEnding() {
		return errEnding
	}
	if err := n.set.Save(n.ctx); err != nil {
		return err
	}
	defer upgrade.HoldCollector(n.portals.Stats.Kept.Load())()
	if err := n.rehearse(next); err != nil {
		return err // nobody has noticed anything
	}
	n.endLeft()    // from here on connections that can't be carried are gone, also if a step below fails
	n.sayGoodbye() // the other nodes look for new paths at once; those find this program too, if it has to go on
	c, release, err := n.writeDown(n.ctx, true)
	if err != nil {
		return err
	}
	defer release()
	defer c.Portals.Wipe()
	c.Portals.Left = left // with the paths, some of them have ended
	c.Report = n.upgrades.note(func(u *admin.Upgrade) { count(u, c) })
	file, err := upgrade.Write(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upgrade.Wipe(file), file.Close()) }()
	if err := next.same(); err != nil {
		return err
	}
	state := int(file.Fd())
	if n.records != nil {
		n.records.Sync()
	}
	n.upgrades.mu.Lock() // Ending waits: it comes before, or to the next program
	defer n.upgrades.mu.Unlock()
	if n.upgrades.isEnding() {
		return errEnding
	}
	if n.opts.Upgrade.Leaving != nil {
		stay := n.opts.Upgrade.Leaving()
		defer stay()
	}
	return upgrade.Exec(next.program, n.opts.Upgrade.Command(next.program, state), os.Environ(), append(c.descriptors(), state))
}

// endLeft ends what cannot be carried, of which the other ends are told.
func (n *Node) endLeft() {
	ctx, cancel := context.WithTimeout(n.ctx, goodbyeTimeout)
	defer cancel()
	var inlets []*portal.Inlet
	for _, i := range n.inlets.List() {
		if i.IsOpen {
			inlets = append(inlets, i.Value.portal)
		}
	}
	portal.EndLeft(ctx, n.router, inlets)
}

// rehearse does all that replace does and that can fail, except the last step, before the paths are given up.
func (n *Node) rehearse(next successor) error {
	c, release, err := n.writeDown(n.ctx, true)
	if err != nil {
		return err
	}
	release()
	defer c.Portals.Wipe()
	file, err := upgrade.Write(c)
	if err != nil {
		return err
	}
	return errors.Join(next.same(), upgrade.Wipe(file), file.Close())
}

// drain waits until there is nothing that cannot be carried, or for as long as it may. It returns what there is.
func (n *Node) drain(longest time.Duration) (left map[string]int) {
	for until := time.Now().Add(longest); ; {
		c, release, err := n.writeDown(n.ctx, false)
		if err != nil {
			return left // replace will say so
		}
		release()
		if left = c.Portals.Left; len(left) == 0 || !time.Now().Before(until) {
			return left
		}
		n.upgrades.note(func(u *admin.Upgrade) { u.State, u.Left = admin.UpgradeDraining, left })
		select {
		case <-time.After(min(250*time.Millisecond, time.Until(until))):
		case <-n.upgrades.ending:
			return left
		}
	}
}

// goOn takes up what the program before has left, before anything is opened.
func (n *Node) goOn(c *Carried) {
	if c == nil {
		n.group.Inherited = dataplane.NewInheritance(nil, n.opts.Sockets...)
		for _, s := range n.opts.Sockets {
			n.log.Info("the service manager listens already", "network", s.Network, "address", s.Address)
		}
		return
	}
	n.group.Inherited = dataplane.NewInheritance(c.Sockets, c.Kept...)
	c.Portals.Each(dataplane.CloseOnExec)
	c.Portals.WrittenAt(time.Now().Add(c.Stopped - upgrade.Now()))
	n.carried = c
	n.upgrades.last = c.Report
}

// served notes that all sockets are served again.
func (n *Node) served() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.carried; c != nil {
		pause := upgrade.Now() - c.Stopped
		n.upgrades.note(func(u *admin.Upgrade) { u.PauseMS = milliseconds(pause) })
	}
}

// carriedInlet returns what an inlet's connections were in the program before, nil if there were none.
func (n *Node) carriedInlet(name string) *portal.CarriedPortal {
	return n.takeCarried(name, func(c *portal.Carried) *[]portal.CarriedPortal { return &c.Inlets })
}

// carriedOutlet is carriedInlet for an outlet.
func (n *Node) carriedOutlet(name string) *portal.CarriedPortal {
	return n.takeCarried(name, func(c *portal.Carried) *[]portal.CarriedPortal { return &c.Outlets })
}

func (n *Node) takeCarried(name string, list func(*portal.Carried) *[]portal.CarriedPortal) *portal.CarriedPortal {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.carried == nil {
		return nil
	}
	return portal.Take(list(&n.carried.Portals), name)
}

// putBack is for an inlet whose port could not be opened: its clients are reset when the node is up.
func (n *Node) putBack(p *portal.CarriedPortal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p != nil && n.carried != nil {
		n.carried.Portals.Inlets = append(n.carried.Portals.Inlets, *p)
	}
}

// Upgraded ends an upgrade when the node is up: what nobody has taken up is reset, and it is watched how long the connections take to find a path.
func (n *Node) Upgraded(ctx context.Context) {
	n.mu.Lock()
	c := n.carried
	n.carried = nil
	n.mu.Unlock()
	if c == nil {
		return
	}
	n.portals.TakeUpSockets(ctx, n.router, c.Portals.Closing)
	c.Portals.Closing = nil
	left := c.Portals.Left
	lost := n.portals.ResetCarried(&c.Portals)
	u := n.upgrades.note(func(u *admin.Upgrade) {
		u.State, u.Lost = admin.UpgradeServing, lost
		u.To = n.opts.Upgrade.Version
	})
	for why, number := range left {
		n.log.Warn("connections reset by an upgrade", "reason", why, "connections", number)
	}
	if lost > 0 {
		n.log.Warn("connections reset by an upgrade", "reason", "their portal was not opened again", "connections", lost)
	}
	n.log.Info("upgraded", "from", u.From, "to", u.To, "connections", u.Connections, "pause_ms", u.PauseMS)
	time.AfterFunc(unclaimed, func() {
		if left := n.group.Inherited.Close(); len(left) > 0 {
			n.log.Warn("nobody listens any more where the program before did", "addresses", left)
		}
	})
	go n.watchBack(c.Stopped)
}

// watchBack notes when the last connection had a path again: none waits any more, or none has come back for a while of those that can.
func (n *Node) watchBack(stopped time.Duration) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	stats, back, resumed := n.portals.Stats, upgrade.Now(), uint64(0)
	for until := stopped + watchBack; ; {
		away, now := stats.Away.Load(), upgrade.Now()
		if r := stats.Resumed.Load(); r != resumed {
			resumed, back = r, now
		}
		if away == 0 || now > until || resumed > 0 && now-back > quietBack {
			u := n.upgrades.note(func(u *admin.Upgrade) {
				u.State, u.BackMS, u.Away = admin.UpgradeDone, milliseconds(back-stopped), int(away)
				u.Reset = givenUp(stats)
				for _, number := range u.Reset {
					u.Connections -= number
				}
			})
			n.log.Info("connections go on after the upgrade", "after_ms", u.BackMS, "without_path", away)
			return
		}
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// givenUp returns how many connections have ended while they waited for a path, though neither of their sockets had, by reason; nil if none has.
func givenUp(stats *portal.Stats) (by map[string]int) {
	for _, r := range portal.Reasons() {
		if number := int(stats.GivenUp[r].Load()); number > 0 && r != portal.ReasonNone && r != portal.ReasonReset {
			if by == nil {
				by = map[string]int{}
			}
			by[r.String()] = number
		}
	}
	return by
}

func milliseconds(d time.Duration) float64 { return float64(d/time.Microsecond) / 1000 }
