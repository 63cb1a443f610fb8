package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/freeport"
)

// story sets up portals with a program that has the reference's command line:
// the reference itself or ours. Each role has a state directory of its own, as if
// it were a machine of its own.
type story struct {
	program   string
	portal    []string // further flags of inlets and outlets
	node      []string // further flags of their nodes
	authority []string // further flags of the authority
	env       []string // further environment of all nodes
	// layer is what members speak with the relay: ws, tls or wss; empty is TCP.
	layer string
}

// storyEnv keeps the reference from reporting home and from writing log files
// while it is measured.
var storyEnv = []string{
	"OCKAM_OPENTELEMETRY_EXPORT=false",
	"OCKAM_TELEMETRY_EXPORT=false",
	"OCKAM_DISABLE_UPGRADE_CHECK=true",
	"OCKAM_LOGGING=false",
	"NO_INPUT=true",
	"QUIET=true",
}

const projectID = "1d0c1a9f-7a51-4a2b-9b1a-3f0a6d2f0001"

// certFile is the relay's certificate with its key, where a layer has TLS.
const certFile = "cert.pem"

// Names of the outlet's and the inlet's node.
const (
	outletNode = "blue"
	inletNode  = "green"
)

func (st story) command(i *instance, role string, args ...string) *command {
	home := filepath.Join(i.dir, "home-"+role)
	env := append([]string{"OCKAM_HOME=" + home, "SALLYPORT_HOME=" + home}, storyEnv...)
	if st.layer != "" {
		env = append(env, "SALLYPORT_TLS_CA="+filepath.Join(i.dir, certFile))
	}
	env = append(env, st.env...)
	return &command{env: i.env(role, env...), name: st.program, args: args}
}

// script runs commands one after the other and keeps the first error, so that a
// set-up reads like the shell script it stands for.
type script struct {
	story
	ctx context.Context
	i   *instance
	err error
}

func (s *script) do(role string, args ...string) string {
	if s.err != nil {
		return ""
	}
	c := s.command(s.i, role, args...)
	out, err := run(s.ctx, s.i.dir, c.env, c.name, c.args...)
	s.err = err
	return strings.TrimSpace(out)
}

// port returns the loopback address of a free port, as text, and its number.
func (s *script) port() (address, number string) {
	if s.err != nil {
		return "", ""
	}
	n, err := freeport.Get()
	s.err = err
	address = loopback(n)
	_, number, _ = net.SplitHostPort(address)
	return address, number
}

func (s *script) outlets() {
	for _, svc := range services {
		s.do(roleOutlet, append([]string{"tcp-outlet", "create", "--at", outletNode, "--from", svc, "--to", loopback(s.i.back[svc])}, s.portal...)...)
	}
}

// inlets creates one inlet for each service; to returns the flags that say where it leads.
func (s *script) inlets(to func(service string) []string) {
	for _, svc := range services {
		args := []string{"tcp-inlet", "create", "--at", inletNode, "--from", loopback(s.i.front[svc])}
		s.do(roleInlet, append(append(args, to(svc)...), s.portal...)...)
	}
	s.i.listInlets = s.command(s.i, roleInlet, "tcp-inlet", "list", "--at", inletNode)
	s.i.showNode = s.command(s.i, roleInlet, "node", "show", inletNode)
}

// start is the whole story: an authority, a relay that trusts it, two enrolled
// members, the default policies (docs/protocol/03 §11).
func (st story) start(ctx context.Context, i *instance) error {
	s := &script{story: st, ctx: ctx, i: i}
	if st.layer != "" { // before the first node, which reads it
		cert, err := selfSigned()
		if err == nil {
			_, err = i.file(certFile, cert)
		}
		if err != nil {
			return err
		}
	}
	admin := s.do(roleAdmin, "identity", "create", "admin")
	authAddr, authPort := s.port()
	relayAddr, relayPort := s.port()

	s.do(roleAuthority, "identity", "create", "authority")
	authHex := s.do(roleAuthority, "identity", "show", "authority", "--full", "--encoding", "hex")
	trusted, err := json.Marshal(map[string]map[string]string{admin: {"ockam-role": "enroller"}})
	if err != nil {
		return err
	}
	s.do(roleAuthority, append([]string{"authority", "create", "--identity", "authority", "--project-identifier", projectID,
		"--tcp-listener-address", authAddr, "--trusted-identities", string(trusted)}, s.authority...)...)

	s.do(roleRelay, "identity", "create", "project")
	projHex := s.do(roleRelay, "identity", "show", "project", "--full", "--encoding", "hex")
	projID := s.do(roleRelay, "identity", "show", "project")
	create, way := []string{"node", "create", "relay", "--identity", "project", "--authority-identity", authHex, "--tcp-listener-address", relayAddr}, ""
	if st.layer != "" {
		listener, flags, err := s.listener()
		if err != nil {
			return err
		}
		create, relayPort, way = append(create, flags...), listener, "/"+st.layer
	}
	s.do(roleRelay, create...)

	project, err := json.Marshal(map[string]any{
		"id": projectID, "name": "partners", "space_name": "self", "space_id": "s1",
		"access_route": "/dnsaddr/127.0.0.1/tcp/" + relayPort + way + "/service/api",
		"users":        []string{}, "user_roles": []string{},
		"identity": projID, "project_change_history": projHex,
		"authority_access_route": "/dnsaddr/127.0.0.1/tcp/" + authPort + "/service/api",
		"authority_identity":     authHex,
	})
	if err != nil {
		return err
	}
	// Command-line arguments that hold "/-" or "-/" are special to these programs,
	// so the file is named relative to the working directory.
	if _, err := i.file("project.json", string(project)); err != nil {
		return err
	}
	s.do(roleAdmin, "project", "import", "--project-file", "project.json")
	t1 := s.do(roleAdmin, "project", "ticket", "--identity", "admin", "--relay", outletNode,
		"--attribute", "company=acme", "--expires-in", "1h")
	t2 := s.do(roleAdmin, "project", "ticket", "--identity", "admin", "--attribute", "company=beta", "--expires-in", "1h")

	s.do(roleOutlet, "project", "enroll", t1)
	s.do(roleOutlet, append([]string{"node", "create", outletNode}, s.node...)...)
	s.outlets()
	s.do(roleOutlet, "relay", "create", outletNode, "--to", outletNode)

	s.do(roleInlet, "project", "enroll", t2)
	s.do(roleInlet, append([]string{"node", "create", inletNode}, s.node...)...)
	s.inlets(func(svc string) []string { return []string{"--to", svc, "--via", outletNode} })
	return s.err
}

// listener returns the port of a listener with the story's layer, and the flags of its node.
func (s *script) listener() (port string, flags []string, err error) {
	address, port := s.port()
	if s.err != nil {
		return "", nil, s.err
	}
	file := filepath.Join(s.i.dir, certFile)
	flags = []string{"--listener", s.layer + "://" + address}
	if s.layer != "ws" {
		flags = append(flags, "--tls-certificate", file, "--tls-key", file)
	}
	return port, flags, nil
}

// startOpen is three plain nodes without an authority: the relay is reached
// without a channel, which leaves the one from end to end.
func (st story) startOpen(ctx context.Context, i *instance) error {
	s := &script{story: st, ctx: ctx, i: i}
	relayAddr, relayPort := s.port()
	relay := "/ip4/127.0.0.1/tcp/" + relayPort
	s.do(roleRelay, "node", "create", "relay", "--tcp-listener-address", relayAddr)
	s.do(roleOutlet, append([]string{"node", "create", outletNode}, s.node...)...)
	s.outlets()
	s.do(roleOutlet, "relay", "create", outletNode, "--at", relay+"/secure/api", "--to", outletNode)
	s.do(roleInlet, append([]string{"node", "create", inletNode}, s.node...)...)
	s.inlets(func(svc string) []string {
		return []string{"--to", relay + "/service/forward_to_" + outletNode + "/secure/api/service/" + svc}
	})
	return s.err
}

// startOneChannel has no relay: the inlet's node connects to the outlet's node.
func (st story) startOneChannel(ctx context.Context, i *instance) error {
	s := &script{story: st, ctx: ctx, i: i}
	addr, port := s.port()
	i.address = "/ip4/127.0.0.1/tcp/" + port
	s.do(roleOutlet, append([]string{"node", "create", outletNode, "--tcp-listener-address", addr}, s.node...)...)
	s.outlets()
	s.do(roleInlet, append([]string{"node", "create", inletNode}, s.node...)...)
	s.inlets(func(svc string) []string {
		return []string{"--to", fmt.Sprintf("/ip4/127.0.0.1/tcp/%s/secure/api/service/%s", port, svc)}
	})
	return s.err
}

// startHops has relays in a row: each is registered at the one before, so that a connection goes through a channel to the first, in that through one to the second,
// and so on to the outlet's node.
func (st story) startHops(relays int) func(context.Context, *instance) error {
	return func(ctx context.Context, i *instance) error {
		s := &script{story: st, ctx: ctx, i: i}
		way, at := "", ""
		for n := range relays {
			address, port := s.port()
			name := fmt.Sprintf("relay%d", n)
			s.do(roleRelay, "node", "create", name, "--tcp-listener-address", address)
			if n == 0 {
				way = "/ip4/127.0.0.1/tcp/" + port + "/secure/api"
			} else {
				s.do(roleRelay, "relay", "create", name, "--at", at, "--to", name)
				way += "/service/forward_to_" + name + "/secure/api"
			}
			at = "/ip4/127.0.0.1/tcp/" + port + "/secure/api"
		}
		create := append([]string{"node", "create", outletNode}, s.node...)
		if relays == 0 {
			address, port := s.port()
			create, way = append(create, "--tcp-listener-address", address), "/ip4/127.0.0.1/tcp/"+port+"/secure/api"
		}
		s.do(roleOutlet, create...)
		s.outlets()
		if relays > 0 {
			s.do(roleOutlet, "relay", "create", outletNode, "--at", at, "--to", outletNode)
			way += "/service/forward_to_" + outletNode + "/secure/api"
		}
		s.do(roleInlet, append([]string{"node", "create", inletNode}, s.node...)...)
		s.inlets(func(svc string) []string { return []string{"--to", way + "/service/" + svc} })
		return s.err
	}
}

// checkProgram says why a program cannot be used, or nil.
func checkProgram(path string) error {
	if path == "" {
		return fmt.Errorf("no program given")
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", path)
	}
	return nil
}
