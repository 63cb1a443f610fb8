package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/servers"
)

// session is a connection through an inlet that stays open.
type session struct {
	net.Conn
	seen int // what it has exchanged
}

// exchange sends bytes and compares what comes back.
func (c *session) exchange(n int) error {
	sent, got := make([]byte, n), make([]byte, n)
	_, _ = rand.Read(sent)
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	go func() { _, _ = c.Write(sent) }()
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("after %d bytes: %w", c.seen, err)
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("after %d bytes others came back", c.seen)
	}
	c.seen += n
	return nil
}

// openSessions opens connections through an inlet's port, each of which has exchanged something.
func openSessions(t *testing.T, port string, n int) (list []*session) {
	t.Helper()
	works(t, "before", port)
	for range n {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		s := &session{Conn: c}
		if err := s.exchange(1000); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// pid returns the process of a node.
func (s *shell) pid(node string) int {
	s.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(s.must("sallyport node show " + node + " --jq .pid")))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// patientEcho is echoServer for connections that live longer.
func patientEcho(t *testing.T) string {
	t.Helper()
	return serveOn(t, listenAt(t, "0"), servers.Echo)
}

// patiently is s for commands that wait for minutes.
func (s *shell) patiently() *shell {
	patient := *s
	patient.program = &program{path: s.path, dir: s.dir, env: s.env, patience: 10 * time.Minute}
	return &patient
}

// upgradable is a node n that is to be upgraded, with an outlet and two inlets to it.
type upgradable struct {
	*shell
	pid       int
	in, plain string // the inlets' ports; what is open through plain cannot be carried
}

func newUpgradable(t *testing.T) *upgradable {
	t.Helper()
	u := &upgradable{shell: newShell(t), in: freePort(t), plain: freePort(t)}
	u.must(`
		sallyport node create n
		sallyport tcp-outlet create db --at n --to ` + patientEcho(t) + `
		sallyport tcp-inlet create --at n --from ` + u.in + ` --to /secure/api/service/db
		sallyport tcp-inlet create --at n --from ` + u.plain + ` --to /secure/api/service/db --hold 0s`)
	u.pid = u.shell.pid("n")
	return u
}

// goesOn expects that the node's process is the same and that connections work.
func (u *upgradable) goesOn(sessions ...*session) {
	u.t.Helper()
	if now := u.shell.pid("n"); now != u.pid {
		u.t.Errorf("process %d is now %d", u.pid, now)
	}
	for i, c := range sessions {
		if err := c.exchange(10_000); err != nil {
			u.t.Fatalf("connection %d: %v", i, err)
		}
	}
}

// drains waits until the node's upgrade waits for connections.
func (u *upgradable) drains() {
	u.t.Helper()
	eventually(u.t, "it waits for connections", func() bool {
		return strings.Contains(u.run("sallyport node upgrade --last n --jq .state").stdout, "draining")
	})
}

// TestNodeUpgrade: every node of a project is upgraded while connections are open that only members may have. They go on, the process stays the
// same, no port refuses anybody, and what a program may not do is asked anew.
func TestNodeUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("upgrades many nodes")
	}
	t.Parallel()
	root := newShell(t)
	in, authorityPort, relayPort := freePort(t), freePort(t), freePort(t)
	at := func(party string) *shell {
		inner := *root
		inner.program = &program{path: root.path, dir: root.dir, env: append(root.env[:len(root.env):len(root.env)], "SALLYPORT_HOME="+filepath.Join(root.dir, party))}
		return &inner
	}
	at("admin").must(`
		sallyport project create partners --authority-port ` + authorityPort + ` --relay-port ` + relayPort + `
		sallyport project ticket --relay postgres > bank.ticket
		sallyport project ticket --attribute company=analysis > analysis.ticket`)
	at("bank").must(`
		sallyport project enroll bank.ticket
		sallyport node create n
		sallyport tcp-outlet create --to ` + patientEcho(t) + ` --allow company=analysis
		sallyport relay create postgres`)
	at("analysis").must(`
		sallyport project enroll analysis.ticket
		sallyport node create n
		sallyport tcp-inlet create --from ` + in + ` --via postgres`)
	sessions := openSessions(t, in, 12)
	check := func(when string) {
		t.Helper()
		for i, c := range sessions {
			if err := c.exchange(50_000); err != nil {
				t.Fatalf("%s: connection %d: %v", when, i, err)
			}
		}
		works(t, when, in)
	}

	// Somebody connects to every port all the time.
	stop, refusals := make(chan struct{}), make(chan []string, 1)
	ended := sync.OnceFunc(func() { close(stop) })
	defer ended()
	go func() {
		var list []string
		for {
			for _, port := range []string{in, authorityPort, relayPort} {
				c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 10*time.Second)
				if err != nil {
					list = append(list, err.Error())
				} else {
					_ = c.Close()
				}
			}
			select {
			case <-stop:
				refusals <- list
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	for _, e := range []struct{ party, node string }{{"analysis", "n"}, {"admin", "relay-partners"}, {"bank", "n"}, {"admin", "authority-partners"}} {
		s, when := at(e.party), "upgrade of "+e.party+"'s "+e.node
		pid := s.pid(e.node)
		said := s.must("sallyport node upgrade " + e.node + " --drain 0s --output json --jq '.state'")
		if !strings.Contains(said, "done") {
			t.Errorf("%s: it ended as %q", when, said)
		}
		if now := s.pid(e.node); now != pid {
			t.Errorf("%s: process %d is now %d", when, pid, now)
		}
		check(when)
	}
	ended()
	if list := <-refusals; len(list) > 0 {
		t.Errorf("%d connections were refused: %s", len(list), list[0])
	}
}

// TestNodeUpgradeRefused: a program that cannot take over changes nothing, and the node says why.
func TestNodeUpgradeRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newUpgradable(t)
	sessions := append(openSessions(t, s.in, 2), openSessions(t, s.plain, 1)...) // the last one cannot be resumed
	script := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(s.dir, "foreign")
	other[18], other[19] = 0x2a, 0x00 // e_machine: SuperH
	if err := os.WriteFile(foreign, other[:4096], 0o700); err != nil {
		t.Fatal(err)
	}
	plainFile := script("plain", "exit 0")
	if err := os.Chmod(plainFile, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ program, why string }{
		{"/bin/true", "does not know the question"},
		{foreign, "exec format error"},
		{plainFile, "permission denied"},
		{s.dir, "is a directory"},
		{script("crashes", "kill -SEGV $$"), "segmentation fault"},
		{script("talks", "while :; do echo garbage; done"), "does not know the question"},
		{filepath.Join(s.dir, "none"), "no such file"},
		{script("complains", "echo its library is missing >&2; exit 3"), "its library is missing"},
		{script("cannot", `echo '{"error": "format 7 is too new"}'`), "format 7 is too new"},
		{script("lies", `echo '{"format": 1, "version": "next"}'; exit 1`), "exit status 1"},
	} {
		out := s.run("sallyport node upgrade n --program " + c.program)
		if out.code == 0 || !strings.Contains(out.stderr, c.why) || !strings.Contains(out.stderr, "goes on as it was") {
			t.Errorf("%s: exit code %d, %s", c.program, out.code, out.stderr)
		}
	}
	// One that says that it can, and then cannot be executed, leaves the old one running too.
	deaf := script("deaf", `echo '{"format": 1, "version": "next"}'; chmod 600 "$0"`)
	out := s.run("sallyport node upgrade n --drain 0s --program " + deaf)
	if out.code == 0 || !strings.Contains(out.stderr, "permission denied") || !strings.Contains(out.stderr, "may the user of the node execute") {
		t.Errorf("a program that cannot be executed: exit code %d, %s", out.code, out.stderr)
	}
	s.goesOn(sessions...)
}

// TestNodeUpgradeAtOnce: while one upgrade is under way another one is refused, by command and by signal, and the first one goes on.
func TestNodeUpgradeAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newUpgradable(t)
	held, waitedFor := openSessions(t, s.in, 2), openSessions(t, s.plain, 1)[0]
	first, patient := make(chan outcome, 1), s.patiently()
	go func() { first <- patient.run("sallyport node upgrade n --drain 10m") }()
	s.drains()
	for range 2 {
		if out := s.run("sallyport node upgrade n"); out.code == 0 || !strings.Contains(out.stderr, "under way") {
			t.Errorf("a second one: exit code %d, %s", out.code, out.stderr)
		}
		if err := syscall.Kill(s.pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		s.goesOn(append(held[:2:2], waitedFor)...)
	}
	if got := s.run("sallyport node upgrade --last n --jq .state").stdout; !strings.Contains(got, "draining") {
		t.Errorf("the first one is now %q", got)
	}
	_ = waitedFor.Close()
	select {
	case out := <-first:
		if out.code != 0 {
			t.Errorf("the first one: exit code %d, %s", out.code, out.stderr)
		}
	case <-time.After(90 * time.Second):
		t.Fatal("the first one does not end")
	}
	s.goesOn(held...)
}

// TestNodeUpgradeSignal: SIGUSR2 has a node go on in the program that is at the path of its own.
func TestNodeUpgradeSignal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newUpgradable(t)
	sessions, last := openSessions(t, s.in, 2), ""
	for range 3 {
		if err := syscall.Kill(s.pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			id := strings.TrimSpace(s.run("tr '\\0' '\\n' < /proc/" + strconv.Itoa(s.pid) + "/cmdline; sallyport node upgrade --last n --jq '.id + .state'").stdout)
			if id != last && strings.Contains(id, "--carried") && strings.Contains(id, "done") {
				last = id
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %d was not upgraded: %q", s.pid, id)
			}
		}
		s.goesOn(sessions...)
	}
}

// TestNodeUpgradeHangup: SIGHUP, which has a node read its configuration again, does not end one that is being upgraded, at no moment, and does afterwards what
// it did before.
func TestNodeUpgradeHangup(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	// A node that starts with SIGHUP ignored leaves it so, and the tests may run under nohup: a signal that is taken here is not ignored in what is started.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(signals) })
	for _, foreground := range []bool{false, true} {
		t.Run(fmt.Sprintf("foreground=%v", foreground), func(t *testing.T) {
			t.Parallel()
			p := ours(t)
			p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}}\n")
			if foreground {
				cmd := p.startForeground(t, "", "node", "create", "f.yaml", "--foreground")
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				defer func() {
					_ = cmd.Process.Signal(syscall.SIGTERM)
					<-ended
				}()
				p.untilRunning(t, "x")
				p.untilPrinted(t, "x")
			} else {
				p.must(t, "node", "create", "f.yaml")
			}
			pid, err := strconv.Atoi(p.must(t, "node", "show", "x", "--jq", ".pid"))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
							_ = syscall.Kill(pid, syscall.SIGHUP)
						}
					}
				}()
				end := sync.OnceFunc(func() { close(stop); <-stopped })
				defer end()
				out := p.runWith(t, "", nil, "node", "upgrade", "x", "--drain", "0s")
				end()
				if out.code != 0 {
					t.Fatalf("exit code %d: %s", out.code, out.stderr)
				}
				if now := p.must(t, "node", "show", "x", "--jq", ".pid"); now != strconv.Itoa(pid) {
					t.Fatalf("process %d is now %s", pid, now)
				}
			}
			p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}, b: {to: 2}}\n")
			for deadline := time.Now().Add(90 * time.Second); p.outlets(t, "x") != "/service/a /service/b"; time.Sleep(50 * time.Millisecond) {
				if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
				if time.Now().After(deadline) {
					t.Fatalf("the configuration is not read again: %s", p.outlets(t, "x"))
				}
			}
		})
	}
}

// notifications is what a node tells a service manager.
type notifications struct {
	t  *testing.T
	ln *net.UnixConn
}

// next returns the next message, by its variables.
func (n notifications) next() map[string]string {
	n.t.Helper()
	buf := make([]byte, 4096)
	_ = n.ln.SetReadDeadline(time.Now().Add(90 * time.Second))
	k, err := n.ln.Read(buf)
	if err != nil {
		n.t.Fatal(err)
	}
	said := map[string]string{}
	for _, line := range strings.Split(string(buf[:k]), "\n") {
		name, value, _ := strings.Cut(line, "=")
		said[name] = value
	}
	return said
}

// monotonic is the time that a service manager compares with.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano() / 1000
}

// TestNodeUpgradeNotify: a service manager is told when an upgrade begins and when the node is ready again, as a unit of the type notify-reload asks for, also
// when nothing has changed.
func TestNodeUpgradeNotify(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newShell(t)
	at := filepath.Join(s.dir, "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	manager := notifications{t, ln}
	in := freePort(t)
	s.must(`
		cp "$(command -v sallyport)" ./program
		NOTIFY_SOCKET=` + at + ` ./program node create n
		sallyport tcp-outlet create db --at n --to ` + patientEcho(t) + `
		sallyport tcp-inlet create --at n --from ` + in + ` --to /secure/api/service/db`)
	pid := s.pid("n")
	ready := func() {
		t.Helper()
		if said := manager.next(); said["READY"] != "1" || said["MAINPID"] != "" && said["MAINPID"] != strconv.Itoa(pid) {
			t.Errorf("told %v, want that process %d is ready", said, pid)
		}
	}
	reloading := func(after int64) {
		t.Helper()
		said := manager.next()
		if usec, err := strconv.ParseInt(said["MONOTONIC_USEC"], 10, 64); said["RELOADING"] != "1" || err != nil || usec < after || usec > monotonic() {
			t.Errorf("told %v, want that it reloads since %d at the earliest", said, after)
		}
	}
	ready()
	sessions := openSessions(t, in, 1)
	for range 2 {
		begun := monotonic()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		reloading(begun) // the signal was taken
		reloading(begun) // the program is executed
		ready()
		if err := sessions[0].exchange(10_000); err != nil {
			t.Fatal(err)
		}
	}
	s.must("cp program sound; printf '#!/bin/sh\\nexit 1\\n' > broken; chmod +x broken; mv broken program")
	begun := monotonic()
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	reloading(begun)
	ready()
	if err := sessions[0].exchange(10_000); err != nil {
		t.Fatal(err)
	}
	begun = monotonic()
	s.must("mv sound program; sallyport node upgrade n --program $PWD/program") // as systemctl reload does
	reloading(begun)
	ready()
	if err := sessions[0].exchange(10_000); err != nil {
		t.Fatal(err)
	}
	if now := s.pid("n"); now != pid {
		t.Errorf("process %d is now %d", pid, now)
	}
}

// TestNodeStopDrain: a node that drains takes nobody new, serves those who are there until they end, and then stops.
func TestNodeStopDrain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newShell(t)
	in := freePort(t)
	s.must(`
		sallyport node create back
		sallyport node create front
		sallyport tcp-outlet create db --at back --to ` + patientEcho(t) + `
		sallyport tcp-inlet create --at front --from ` + in + ` --to /node/back/secure/api/service/db`)
	for _, node := range []string{"back", "front"} {
		open := openSessions(t, in, 1)[0]
		stopped := make(chan outcome, 1)
		go func() { stopped <- s.patiently().run("sallyport node stop " + node + " --drain 10m") }()
		for deadline := time.Now().Add(90 * time.Second); exchange(in) == nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s takes new clients while it drains", node)
			}
		}
		if err := open.exchange(10_000); err != nil {
			t.Errorf("%s: an open connection while it drains: %v", node, err)
		}
		select {
		case out := <-stopped:
			t.Errorf("%s stopped with an open connection: %+v", node, out)
		default:
		}
		_ = open.Close()
		if out := <-stopped; out.code != 0 {
			t.Errorf("%s: %+v", node, out)
		}
		s.must("sallyport node start " + node)
	}
}

// TestNodeUpgradeStopped: who stops a node while it waits for connections that cannot be carried ends its upgrade too, and the command that asked for it learns that from
// the node, or by the end of its process. A node that leaves is not upgraded.
func TestNodeUpgradeStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newUpgradable(t)
	patient := s.patiently()
	for _, c := range []struct{ how, why string }{
		{"sallyport node stop n", "it is being stopped"},
		{"sallyport node stop n --force", "has ended while it was upgraded"},
		{"sallyport node stop n --drain 10m", "it is being stopped"},
	} {
		waitedFor := openSessions(t, s.plain, 1)[0]
		upgraded := make(chan outcome, 1)
		go func() { upgraded <- patient.run("sallyport node upgrade n --drain 10m") }()
		s.drains()
		stopped := make(chan outcome, 1)
		go func() { stopped <- patient.run(c.how) }()
		if out := <-upgraded; out.code == 0 || !strings.Contains(out.stderr, c.why) && !strings.Contains(out.stderr, "has ended while it was upgraded") {
			t.Errorf("%s: the upgrade: exit code %d, %s", c.how, out.code, out.stderr)
		}
		if strings.Contains(c.how, "--drain") {
			if out := s.run("sallyport node upgrade n"); out.code == 0 || !strings.Contains(out.stderr, "it is being stopped") {
				t.Errorf("upgrade of a node that leaves: exit code %d, %s", out.code, out.stderr)
			}
		}
		_ = waitedFor.Close()
		if out := <-stopped; out.code != 0 {
			t.Errorf("%s: exit code %d, %s", c.how, out.code, out.stderr)
		}
		s.must("sallyport node start n")
	}
}
