package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// serveOn gives the connections of a listener to handle until the test ends, and returns the listener's port.
func serveOn(t *testing.T, l net.Listener, handle func(net.Conn)) (port string) {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	servers.Serve(l, handle)
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// briefEcho is an echo for connections that soon end.
func briefEcho(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	servers.Echo(c)
}

// listenAt listens on 127.0.0.1 at a port, "0" for any free one.
func listenAt(t *testing.T, port string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// echoServer answers every connection with what it sends. It listens at a port, "0" for any free one, and returns it.
func echoServer(t *testing.T, port string) string {
	t.Helper()
	return serveOn(t, listenAt(t, port), briefEcho)
}

// exchange sends bytes to a port and compares what comes back.
func exchange(port string) error {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	sent := make([]byte, 50_000)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d of %d bytes came back", len(got), len(sent))
	}
	return err
}

// works waits until bytes pass through a port and back.
func works(t *testing.T, when, port string) {
	t.Helper()
	var err error
	began := time.Now()
	defer func() { t.Logf("%s: %.1f s", when, time.Since(began).Seconds()) }()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = exchange(port); err == nil {
			return
		}
	}
	t.Fatalf("%s: the inlet does not work: %v", when, err)
}

// refused makes sure that nothing passes through a port.
func refused(t *testing.T, when, port string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 10*time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%s: nobody listens at the inlet: %v", when, err)
	}
	if err != nil {
		return // closed at once
	}
	defer c.Close()
	_, _ = c.Write([]byte("hello"))
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := c.Read(make([]byte, 5)); n > 0 || err == nil {
		t.Fatalf("%s: the policy lets %d bytes through", when, n)
	}
}

// kill ends a node's process at once and waits until it has gone.
func (s *shell) kill(node string) {
	s.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(s.must("sallyport node show " + node + " --jq .pid")))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("process %d of node %s does not end", pid, node)
		}
	}
}

// remembered is what is written down of a node: its options, its address and what it was asked to create. All of it is written again
// before, so that it is what the node knows, not only what a file has kept.
func (s *shell) remembered(node string) string {
	s.t.Helper()
	s.must("sallyport tcp-outlet create scratch --at " + node + " --to 1; sallyport tcp-outlet delete scratch --at " + node + " --yes")
	dir := filepath.Dir(strings.TrimSpace(s.must("sallyport node logs " + node)))
	var record struct {
		Options     map[string]any `json:"options"`
		TCPListener string         `json:"tcp_listener_address"`
		Identifier  string         `json:"identifier"`
		CreatedAt   string         `json:"created_at"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	resources, err := os.ReadFile(filepath.Join(dir, "resources.json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	delete(record.Options, "tcp_listener_address") // a port that was chosen is kept from then on: it is in the record
	return fmt.Sprintf("%v %s %s %s\n%s", record.Options, record.TCPListener, record.Identifier, record.CreatedAt, resources)
}

// endings are the ways in which nodes end.
var endings = []struct {
	name string
	end  func(s *shell, node string)
	// alone are the nodes of TestCLISurvives that end so while the others run on.
	alone []string
}{
	{"stop", func(s *shell, node string) { s.must("sallyport node stop " + node) }, []string{"relay", "front"}},
	// The others only notice after some seconds that this one, behind the relay, has gone.
	{"kill -9", func(s *shell, node string) { s.kill(node) }, []string{"back"}},
}

// TestCLISurvives: after a stop or a crash, node start brings everything back as it was, and bytes pass again.
func TestCLISurvives(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts many nodes")
	}
	t.Parallel()
	s := newShell(t)
	echo, in, closed, listener, status := echoServer(t, "0"), freePort(t), freePort(t), freePort(t), freePort(t)
	nodes := []string{"relay", "back", "front"}
	s.must(`
		sallyport node create relay --no-status-endpoint
		sallyport node create back --status-endpoint 127.0.0.1:` + status + `
		sallyport identity create other
		sallyport node create front --identity other --tcp-listener-address 127.0.0.1:` + freePort(t) + `
		other=$(sallyport identity show other) default=$(sallyport identity show default)
		sallyport tcp-outlet create db --at back --to ` + echo + ` --allow "(= subject.identifier \"$other\")"
		sallyport tcp-outlet create closed --at back --to ` + echo + ` --allow "(= subject.identifier \"$default\")"
		sallyport policy create --at back --resource-type tcp-outlet --allow 'company=acme'
		sallyport policy create --at front --resource in --allow "(= subject.identifier \"$default\")"
		sallyport relay create back --at /node/relay --to back --relay-address backend
		sallyport secure-channel-listener create lst --at back --authorized "$other"
		sallyport tcp-listener create --at back ` + listener + `
		sallyport service start hop --at back --addr h2
		to=/node/relay/service/forward_to_backend/secure/api/service
		sallyport tcp-inlet create in --at front --from ` + in + ` --to $to/db --authorized "$default" --identity other \
			--allow "(= subject.identifier \"$default\")" --connection-wait 3s
		sallyport tcp-inlet create closed --at front --from ` + closed + ` --to $to/closed --no-connection-wait --enable-nagle`)
	check := func(t *testing.T, when string) {
		t.Helper()
		works(t, when, in)
		refused(t, when, closed)
		s.must(`
			[ "$(sallyport message send hello --to /node/back/service/h2/service/uppercase)" = HELLO ]
			sallyport secure-channel create --from front --to /node/back/service/lst`)
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+listener, 10*time.Second)
		if err != nil {
			t.Errorf("%s: the TCP listener: %v", when, err)
		} else {
			_ = c.Close()
		}
		r, err := http.Get("http://127.0.0.1:" + status + "/metrics")
		if err != nil {
			t.Errorf("%s: the status endpoint: %v", when, err)
		} else {
			_ = r.Body.Close()
		}
	}
	check(t, "before")
	want := map[string]string{}
	for _, node := range nodes {
		want[node] = s.remembered(node)
	}
	same := func(t *testing.T, when string) {
		t.Helper()
		for _, node := range nodes {
			if got := s.remembered(node); got != want[node] {
				t.Errorf("%s, of node %s is remembered:\n%s\nand not:\n%s", when, node, got, want[node])
			}
		}
	}
	for _, ending := range endings {
		for _, node := range ending.alone {
			ending.end(s, node)
			s.must("sallyport node start " + node)
			works(t, ending.name+" "+node, in)
		}
		for _, node := range nodes {
			ending.end(s, node)
		}
		for _, node := range []string{"front", "back", "relay"} { // whoever needs another one starts first
			s.must("sallyport node start " + node)
		}
		check(t, ending.name+" of all nodes")
		same(t, ending.name)
	}

	// A port that is taken at one start: the inlet is there again at the next, whatever was created meanwhile.
	s.must("sallyport node stop front")
	l, err := net.Listen("tcp", "127.0.0.1:"+in)
	if err != nil {
		t.Fatal(err)
	}
	s.must("sallyport node start front")
	same(t, "with its port taken")
	_ = l.Close()
	s.must("sallyport node stop front; sallyport node start front")
	works(t, "with its port free again", in)
}

// TestCLISurvivesProject: the same for a project: its authority, its relay and its members.
func TestCLISurvivesProject(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts many nodes")
	}
	t.Parallel()
	s := newShell(t)
	echo, in := echoServer(t, "0"), freePort(t)
	at := func(party, lines string) string {
		t.Helper()
		return s.must(lines, "SALLYPORT_HOME="+filepath.Join(s.dir, party))
	}
	at("admin", `
		sallyport project create partners --authority-port `+freePort(t)+` --relay-port `+freePort(t)+`
		sallyport project ticket --relay postgres > bank.ticket
		sallyport project ticket --attribute company=analysis > analysis.ticket`)
	at("bank", `
		sallyport project enroll bank.ticket
		sallyport node create n
		sallyport tcp-outlet create --to `+echo+` --allow company=analysis
		sallyport relay create postgres`)
	at("analysis", `
		sallyport project enroll analysis.ticket
		sallyport node create n
		sallyport tcp-inlet create --from `+in+` --via postgres`)
	works(t, "before", in)
	everywhere := []struct{ party, node string }{{"admin", "authority-partners"}, {"admin", "relay-partners"}, {"bank", "n"}, {"analysis", "n"}}
	const list = "sallyport project-member list --jq '[.[] | {identifier, attributes: .attributes.attributes}]'"
	members := at("admin", list)
	for _, ending := range endings {
		for _, e := range everywhere {
			inner := *s
			inner.program = &program{path: s.path, dir: s.dir, env: append(s.env[:len(s.env):len(s.env)], "SALLYPORT_HOME="+filepath.Join(s.dir, e.party))}
			ending.end(&inner, e.node)
		}
		for _, e := range everywhere {
			at(e.party, "sallyport node start "+e.node)
		}
		works(t, ending.name, in)
		if got := at("admin", list); got != members {
			t.Errorf("after %s the members are\n%s\nand not\n%s", ending.name, got, members)
		}
	}
	at("admin", "sallyport project ticket > late.ticket")
	at("late", "sallyport project enroll late.ticket")
}
