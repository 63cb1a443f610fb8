package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Roles of the processes of a path. Only the first three carry data; their CPU
// and memory are what is counted.
const (
	roleInlet     = "inlet"
	roleRelay     = "relay"
	roleOutlet    = "outlet"
	roleAuthority = "authority"
	roleAdmin     = "admin"
)

// tool is a program that a path or a measurement needs, and the distribution's
// package that holds it.
type tool struct{ program, pkg string }

// maker starts the nodes of one path so that a connection to front[s] reaches
// back[s], for every service s.
type maker struct {
	name  string
	needs []tool
	start func(ctx context.Context, i *instance) error
}

// instance is one running set-up of a path.
type instance struct {
	name        string
	dir         string
	back, front map[string]int
	procs       []*proc
	address     string   // of the outlet's node, if the path has no relay
	roles       []string // of the data path, those that have processes
	started     time.Time
	// showNode and listInlets are the command lines whose latency is measured, if the
	// path has such commands.
	showNode, listInlets *command
}

// command is a prepared command line.
type command struct {
	env  []string
	name string
	args []string
}

var errNoEnd = errors.New("the path does not reach its server")

// startPath makes a fresh instance of a path and proves that it reaches the
// server. On error everything is stopped again.
func startPath(ctx context.Context, m maker, dir string, back map[string]int) (i *instance, err error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	made := &instance{name: m.name, dir: dir, back: back}
	i = made
	defer func() {
		if err != nil {
			made.stop()
		}
	}()
	if i.front, err = serviceMap(); err != nil {
		return nil, err
	}
	if err = m.start(ctx, i); err != nil {
		return nil, err
	}
	if err = i.waitThrough(ctx); err != nil {
		return nil, err
	}
	i.started = time.Now()
	i.roles = slices.Sorted(maps.Keys(i.nodesByRole()))
	return i, nil
}

// waitThrough waits until every front port listens and one connection gets through.
func (i *instance) waitThrough(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, s := range services {
		if i.name == pathDirect {
			break // iperf3 listens only while it is measured
		}
		if err := waitListening(ctx, i.procs, i.front[s]); err != nil {
			return err
		}
	}
	for {
		c, err := dialUtil(ctx, i.front[svcUtil], cmdIdle, 0)
		if err == nil {
			return c.Close()
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("%w: %w", errNoEnd, err)
		}
	}
}

// stop ends the processes of the path and removes its directory.
func (i *instance) stop() {
	endAll(i.dir, i.procs)
	if err := os.RemoveAll(i.dir); err != nil {
		logf("%s: %v", i.name, err)
	}
}

// env is the environment of a process in the given role.
func (i *instance) env(role string, extra ...string) []string {
	return childEnv(i.dir, append(extra, tagVar+"="+i.dir+"/"+role)...)
}

// spawn starts a long-lived process of the path.
func (i *instance) spawn(role, program string, args ...string) error {
	path, err := lookTool(program)
	if err != nil {
		return err
	}
	p, err := spawn(role, filepath.Join(i.dir, role+"-"+filepath.Base(program)+".log"), i.env(role), path, args...)
	if err == nil {
		i.procs = append(i.procs, p)
	}
	return err
}

// file writes a private file into the directory of the path.
func (i *instance) file(name, text string) (string, error) {
	p := filepath.Join(i.dir, name)
	return p, os.WriteFile(p, []byte(text), 0o600)
}

// nodes are the processes that carry the path's data.
func (i *instance) nodes() []int {
	var all []int
	for _, pids := range i.nodesByRole() {
		all = append(all, pids...)
	}
	slices.Sort(all)
	return all
}

func (i *instance) nodesByRole() map[string][]int {
	m := processes(i.dir, i.procs)
	maps.DeleteFunc(m, func(role string, _ []int) bool {
		return role != roleInlet && role != roleRelay && role != roleOutlet
	})
	return m
}

// alive returns an error if a node has ended. Its figures would be wrong in its favour
// (no memory, no processor time).
func (i *instance) alive() error {
	now := i.nodesByRole()
	for _, role := range i.roles {
		if len(now[role]) == 0 {
			return fmt.Errorf("the %s has ended", role)
		}
	}
	for _, p := range i.procs {
		if p.exited() {
			return fmt.Errorf("%s, the %s, has ended: %v", filepath.Base(p.cmd.Path), p.role, p.cmd.ProcessState)
		}
	}
	return nil
}

// makers returns all the paths; reference, ours and before, another build of ours, are the programs for
// the story.
func makers(reference, ours, before string) []maker {
	mine := func(st story) story { return ownStory(ours, st) }
	haproxy := tool{"haproxy", "haproxy"}
	return []maker{
		{pathDirect, nil, startDirect},
		{pathPlain, []tool{haproxy}, startPlain},
		{pathTLS, []tool{{"stunnel", "stunnel4"}, haproxy}, startTLS},
		{pathSSH, []tool{{"ssh", "openssh-client"}, {"sshd", "openssh-server"}}, startSSH},
		{pathSpiped, []tool{{"spiped", "spiped"}}, startSpiped},
		{pathRathole, []tool{{"rathole", "rathole (cargo install rathole)"}}, startRathole},
		{pathRef, nil, story{program: reference}.start},
		{pathRefOpen, nil, story{program: reference}.startOpen},
		{pathOurs, nil, mine(story{}).start},
		{pathOursOpen, nil, mine(story{}).startOpen},
		{pathOurs1ch, nil, mine(story{}).startOneChannel},
		{pathNoHold, nil, mine(story{portal: []string{"--hold", "0s"}}).start},
		{pathNoRecords, nil, mine(story{node: []string{"--records", "off"}}).start},
		{pathOursWS, nil, mine(story{layer: "ws"}).start},
		{pathOursOTLS, nil, mine(story{layer: "tls"}).start},
		{pathOursWSS, nil, mine(story{layer: "wss"}).start},
		{pathBefore, nil, ownStory(before, story{}).start},
	}
}

// ownStory is a story with our program. Outlets of ours refuse the 1001st connection unless they are told otherwise, and nodes more than 2,000
// handshakes a second from one address, where all of a measurement come from.
func ownStory(program string, st story) story {
	const handshakes = `"handshakes-per-second": 1000000`
	st.program = program
	st.authority = append(st.authority, "--limits", "{"+handshakes+"}")
	st.node = append(st.node, "--limits", fmt.Sprintf(`{"outlet-connections": %[1]d, "portal-connections": %[1]d, %[2]s}`, wantedFiles/2, handshakes))
	return st
}

// ours is the story with our program.
func (b *bench) ours() story { return ownStory(b.program, story{}) }

// startDirect has nothing to start: clients talk to the servers.
func startDirect(_ context.Context, i *instance) error {
	i.front = i.back
	return nil
}
