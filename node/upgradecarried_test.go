package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
)

// answering is a program that answers the question whether it could go on.
func answering(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+answer+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeRefused: what cannot take over is refused, with the reason, and the node goes on as it was: it can be asked again.
func TestUpgradeRefused(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	good := answering(t, `{"version":"2","format":1}`)
	refuse := func(what, program, drain, want string, kind error) {
		t.Helper()
		for range 2 { // nothing is left locked
			u, begin, err := m.Upgrade(ctx, admin.UpgradeRequest{Program: program, Drain: drain})
			if err == nil || begin != nil || !strings.Contains(err.Error(), want) || kind != nil && !errors.Is(err, kind) {
				t.Errorf("%s: %+v, %v", what, u, err)
			}
		}
	}
	refuse("a node that does not know how", good, "", "cannot be upgraded", admin.ErrInvalid)
	m.opts.Upgrade = UpgradeOptions{Version: "1", Command: func(program string, _ int) []string { return []string{program} }, Impossible: "it is in a jar"}
	refuse("a node that cannot", good, "", "it is in a jar", admin.ErrInvalid)
	m.opts.Upgrade.Impossible = ""
	refuse("no time", good, "soon", "--drain", admin.ErrInvalid)
	refuse("a relative path", "program", "", "absolute path", admin.ErrInvalid)
	refuse("no path", "", "", "absolute path", admin.ErrInvalid)
	if _, err := m.LastUpgrade(); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("refused before anybody was asked, and noted: %v", err)
	}
	refuse("no such program", filepath.Join(t.TempDir(), "none"), "", "none", nil)
	refuse("one that says no", answering(t, `{"error":"I do not like it"}`), "", "I do not like it", nil)
	refuse("one that does not know the question", answering(t, "what?"), "", "does not know the question", nil)
	if u, err := m.LastUpgrade(); err != nil || u.State != admin.UpgradeFailed || u.Error == "" || u.ID == "" || u.From != "1" || u.Program == "" {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestUpgradeOfAProgramThatChanged: between the question and the replacement the program must stay the same; else the node goes on, with all that it has.
// What cannot be carried has its time before.
func TestUpgradeOfAProgramThatChanged(t *testing.T) {
	bank, client := newMember(t), newMember(t)
	ctx := within(t)
	bank.opts.Upgrade = UpgradeOptions{
		Version: "1", Command: func(program string, _ int) []string { t.Error("executed"); return []string{program} },
		Secrets: func() map[string][]byte { return map[string][]byte{"vault": []byte("secret")} },
		Leaving: func() func() { t.Error("it leaves"); return func() {} },
	}
	for _, r := range []resource.Outlet{{Name: "db", To: echoServer(t)}, {Name: "short", To: echoServer(t), Hold: "0s"}} {
		if _, err := bank.CreateOutlet(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	open := func(name string) net.Conn {
		t.Helper()
		in, err := client.CreateInlet(ctx, resource.Inlet{Alias: name, From: "127.0.0.1:0", To: bank.route() + "/secure/api/service/" + name})
		if err != nil || in.Status != "Up" {
			t.Fatalf("%+v, %v", in, err)
		}
		c, err := net.Dial("tcp", in.Bind)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			err = says(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	kept, short := open("db"), open("short")

	c, release, err := bank.writeDown(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if string(c.Secrets["vault"]) != "secret" || c.Data || c.Check() != nil || len(c.Portals.Outlets) == 0 || len(c.Portals.Left) != 1 || len(c.descriptors()) <= len(c.Sockets) {
		t.Errorf("who is asked is given %+v", c)
	}
	for format := StateFormatOldest - 1; format <= StateFormat+1; format++ {
		c.Format = format
		if err := c.Check(); (err == nil) != (format >= StateFormatOldest && format <= StateFormat) {
			t.Errorf("format %d: %v", format, err)
		}
	}
	whole, release, err := bank.writeDown(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	if string(whole.Secrets["vault"]) != "secret" || !whole.Data || whole.Check() != nil || whole.Stopped == 0 {
		t.Errorf("who goes on is given %+v", whole)
	}
	whole.Portals.Wipe()
	release()

	program := answering(t, `{"version":"2","format":1}`)
	for name, change := range map[string]func() error{
		"longer": func() error {
			return os.WriteFile(program, []byte("#!/bin/sh\nexit 0\n# and more of it than there was before\n"), 0o700)
		},
		"newer": func() error { return os.Chtimes(program, time.Time{}, time.Now().Add(time.Minute)) },
		"gone":  func() error { return os.Remove(program) },
	} {
		program = answering(t, `{"version":"2","format":1}`)
		u, begin, err := bank.Upgrade(ctx, admin.UpgradeRequest{Program: program, Drain: "0s"})
		if err != nil || u.State != admin.UpgradeChecked || u.To != "2" || u.Connections != 1 || u.Sockets == 0 {
			t.Fatalf("%s: %+v, %v", name, u, err)
		}
		if _, _, err := bank.Upgrade(ctx, admin.UpgradeRequest{Program: program}); !errors.Is(err, admin.ErrExists) {
			t.Errorf("%s: two at once: %v", name, err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		begin()
		settles(t, name+": it goes on", func() bool { u, err := bank.LastUpgrade(); return err == nil && u.State == admin.UpgradeFailed })
		settles(t, name+": it can be asked again", func() bool {
			free := bank.upgrades.running.TryLock()
			if free {
				bank.upgrades.running.Unlock()
			}
			return free
		})
		if err := says(kept); err != nil {
			t.Fatalf("%s: what was open ends: %v", name, err)
		}
	}

	// What cannot be carried has the time that it is given, and not more than it needs.
	again := open2(t, client, "short")
	began := time.Now()
	if left := bank.drain(300 * time.Millisecond); len(left) == 0 || time.Since(began) < 300*time.Millisecond {
		t.Errorf("left %v after %v", left, time.Since(began))
	}
	if u, _ := bank.LastUpgrade(); u.State != admin.UpgradeDraining || len(u.Left) == 0 {
		t.Errorf("%+v", u)
	}
	drained := make(chan map[string]int)
	go func() { drained <- bank.drain(time.Minute) }()
	_ = again.Close()
	_ = short.Close()
	if left := <-drained; len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// open2 is a new connection through an inlet that is there, since its path came back.
func open2(t *testing.T, m *member, inlet string) net.Conn {
	t.Helper()
	var c net.Conn
	settles(t, "a new connection", func() bool {
		i, _ := m.inlets.Get(inlet)
		var err error
		if c, err = net.Dial("tcp", i.Value.portal.Bound().String()); err != nil {
			return false
		}
		if says(c) != nil {
			_ = c.Close()
			return false
		}
		return true
	})
	return c
}

// TestNextProgramGoesOn: a node that is started with what another left has its sockets and its connections: a client notices nothing, and what has no portal
// any more is reset and counted.
func TestNextProgramGoesOn(t *testing.T) {
	bank, client := newMember(t), newMember(t)
	ctx := within(t)
	var dialled atomic.Int64
	target := counting(t, &dialled)
	for _, name := range []string{"db", "brief", "gone"} {
		if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: name, To: target, Hold: map[string]string{"gone": "1s"}[name]}); err != nil {
			t.Fatal(err)
		}
	}
	f := newFreezer(t, bank.Listening())
	open := func(name string) net.Conn {
		t.Helper()
		in, err := client.CreateInlet(ctx, resource.Inlet{Alias: name, From: "127.0.0.1:0", To: f.route() + "/secure/api/service/" + name})
		if err != nil || in.Status != "Up" {
			t.Fatalf("%+v, %v", in, err)
		}
		c, err := net.Dial("tcp", in.Bind)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			err = says(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	kept, brief, lost := open("db"), open("brief"), open("gone")
	at, err := bank.ServeStatus(ctx, "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}

	f.frozen.Store(true) // nobody hears of the end of the program before
	c, release, err := bank.writeDown(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	taken := func(fd *int, replace bool) {
		t.Helper()
		before := *fd
		if *fd, err = unix.FcntlInt(uintptr(before), unix.F_DUPFD_CLOEXEC, 0); err == nil && replace {
			err = unix.Dup3(dead[0], before, unix.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	served := map[string]bool{}
	for i := range c.Sockets {
		taken(&c.Sockets[i].FD, false)
		served[c.Sockets[i].Address] = true
	}
	if !served[bank.Listening()] || !served[at] {
		t.Errorf("the sockets that listen are %v", served)
	}
	for _, p := range c.Portals.Outlets {
		for i := range p.Conns {
			taken(&p.Conns[i].Socket.FD, true)
			if p.Name == "brief" {
				p.Conns[i].HoldMS = 1 // before there can be a path
			}
		}
	}
	c.Report = admin.Upgrade{ID: "one", From: "1", State: admin.UpgradeChecked, Connections: 3}
	c.Portals.Left = map[string]int{"a reason": 3}
	release()
	listen := bank.Listening()
	bank.Stop()
	_, _ = unix.Close(dead[0]), unix.Close(dead[1])
	if err := bank.dir.SaveResources(ctx, "n", []resource.Stored{
		stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: target}), stored(t, resource.KindOutlet, "brief", resource.Outlet{Name: "brief", To: target})}); err != nil {
		t.Fatal(err)
	}

	next, err := Start(ctx, Options{
		Name: "n", Self: bank.self, Identities: bank.ids, Store: NewHome(bank.dir, "n", true), Listen: listen, Shards: 2, Log: testLog,
		Upgrade: UpgradeOptions{Version: "2", Carried: c},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Stop)
	if next.Listening() != listen {
		t.Errorf("at %s, not %s", next.Listening(), listen)
	}
	if u, err := next.LastUpgrade(); err != nil || u.ID != "one" || u.PauseMS <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
	next.putBack(nil)
	next.putBack(&portal.CarriedPortal{Name: "in"})
	if p := next.carriedInlet("in"); p == nil || next.carriedInlet("in") != nil || next.carriedInlet("other") != nil {
		t.Errorf("what an inlet left is taken up as %+v", p)
	}
	if p := next.carriedOutlet("db"); p != nil {
		t.Errorf("taken up twice: %+v", p)
	}
	next.Upgraded(ctx)
	if u, _ := next.LastUpgrade(); u.To != "2" || u.Lost != 1 || u.State != admin.UpgradeServing && u.State != admin.UpgradeDone {
		t.Errorf("%+v", u)
	}
	settles(t, "one is held for too long", func() bool { return next.portals.Stats.Ended[portal.ReasonHold].Load() == 1 })
	next.Upgraded(ctx) // there is nothing more
	if next.carriedInlet("in") != nil {
		t.Error("what was left can still be taken up")
	}
	next.putBack(&portal.CarriedPortal{Name: "in"})
	if next.carried != nil {
		t.Error("put back when the node is up")
	}

	f.mu.Lock()
	for _, one := range f.open {
		_ = one.Close()
	}
	f.open = nil
	f.mu.Unlock()
	f.frozen.Store(false)
	if err := says(kept); err != nil {
		t.Errorf("the connection does not go on: %v", err)
	}
	if n := dialled.Load(); n != 3 {
		t.Errorf("%d targets: it is another connection", n)
	}
	for what, c := range map[string]net.Conn{"whose outlet has gone": lost, "that was held for too long": brief} {
		_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection %s: %v", what, err)
		}
	}
	settles(t, "it is noted when the last has a path", func() bool {
		u, _ := next.LastUpgrade()
		return u.State == admin.UpgradeDone && u.BackMS > 0 && u.Away == 0
	})
	if u, _ := next.LastUpgrade(); u.Connections != 2 || len(u.Reset) != 1 || u.Reset["held for too long"] != 1 {
		t.Errorf("one of three has ended meanwhile, and it is said %+v", u)
	}
}

// counting is echoServer with a count of its connections.
func counting(t *testing.T, n *atomic.Int64) string {
	t.Helper()
	to := echoServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			go func() {
				defer near.Close()
				far, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					_, _ = far.(*net.TCPConn).ReadFrom(near)
					_ = far.(*net.TCPConn).CloseWrite()
				}()
				_, _ = near.(*net.TCPConn).ReadFrom(far)
			}()
		}
	}()
	return l.Addr().String()
}

// TestNodeWithoutAnUpgrade is none that was upgraded.
func TestNodeWithoutAnUpgrade(t *testing.T) {
	m := newMember(t)
	m.Upgraded(context.Background())
	if m.carriedInlet("in") != nil || m.carriedOutlet("out") != nil {
		t.Error("something is taken up from nobody")
	}
	m.putBack(&portal.CarriedPortal{Name: "in"})
	m.served()
	if _, err := m.LastUpgrade(); !errors.Is(err, admin.ErrNotFound) {
		t.Error(err)
	}
	if m.carried != nil {
		t.Error("something is left")
	}
}
