package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"sallyport/internal/freeport"
)

// projectID is what the authority puts into credentials as trust_context_id.
const projectID = "1d0c1a9f-7a51-4a2b-9b1a-3f0a6d2f0001"

const projectName = "partners"

// storyOptions change the story for the rows that need it.
type storyOptions struct {
	authorityEnv []string // environment of the authority, such as CREDENTIAL_TTL_SECS
	boxEnv       []string // environment of the relay, outlet and inlet boxes
	// relayRoute is where the members look for the relay instead of its own
	// port, when a proxy stands in between.
	relayProxy func(relayPort int) (proxyPort int, err error)
	pgPort     int
	xferTarget string
}

// story is one running set-up: docs/protocol/03 §11 with one state directory per seat.
type story struct {
	seats   seats
	options storyOptions
	dir     string
	procs   *processes

	authority, relay, outlet, inlet, admin *box
	inletAdmin                             *box // makes the inlet's ticket; nil: admin does

	authorityPort, relayPort int
	pgInlet, xferInlet       int
	trusted                  string // value of --trusted-identities
	authorityHistory         string // hex
	projectFile              string
}

var storyCount atomic.Int64

// newStory makes the state directories. Nothing runs yet.
func newStory(procs *processes, root string, s seats, o storyOptions) (*story, error) {
	dir := filepath.Join(root, fmt.Sprintf("s%d", storyCount.Add(1)))
	st := &story{seats: s, options: o, dir: dir, procs: procs}
	for _, seat := range []struct {
		box  **box
		name string
		p    program
		env  []string
	}{
		{&st.authority, "authority", s.authority, o.authorityEnv},
		{&st.relay, "relay", s.relay, o.boxEnv},
		{&st.outlet, "outlet", s.outlet, o.boxEnv},
		{&st.inlet, "inlet", s.inlet, o.boxEnv},
		{&st.admin, "admin", s.admin, nil},
	} {
		b, err := newBox(procs, dir, seat.name, seat.p, seat.env...)
		if err != nil {
			return nil, err
		}
		*seat.box = b
	}
	for _, port := range []*int{&st.authorityPort, &st.relayPort, &st.pgInlet, &st.xferInlet} {
		var err error
		if *port, err = freeport.Get(); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// close kills all nodes of the story. keep leaves the state directories.
func (s *story) close(keep bool) {
	s.procs.killUnder(s.dir)
	if !keep {
		os.RemoveAll(s.dir)
	}
}

// startOperator starts the authority and the relay node, and gives the admin the project.
func (s *story) startOperator(ctx context.Context, trusted map[string]map[string]string) error {
	if err := s.startTrust(ctx, trusted); err != nil {
		return err
	}
	project, history, err := s.startRelay(ctx)
	if err != nil {
		return err
	}
	seen := s.relayPort
	if s.options.relayProxy != nil {
		if seen, err = s.options.relayProxy(s.relayPort); err != nil {
			return err
		}
	}
	s.projectFile, err = s.writeProject("project.json", project, history, relayRoute(seen))
	if err != nil {
		return err
	}
	_, err = s.admin.cli(ctx, "project", "import", "--project-file", s.projectFile)
	return err
}

// startTrust makes the admin and starts the authority, which knows the admin and those in trusted.
func (s *story) startTrust(ctx context.Context, trusted map[string]map[string]string) error {
	admin, err := s.admin.cli(ctx, "identity", "create", "admin")
	if err != nil {
		return err
	}
	if _, err := s.authority.cli(ctx, "identity", "create", "authority"); err != nil {
		return err
	}
	if s.authorityHistory, err = s.authority.cli(ctx, "identity", "show", "authority", "--full", "--encoding", "hex"); err != nil {
		return err
	}
	all := map[string]map[string]string{admin: {"ockam-role": "enroller"}}
	for id, attributes := range trusted {
		all[id] = attributes
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	s.trusted = string(text)
	return s.startAuthority(ctx)
}

// startRelay starts the relay node, and returns the project's identifier and history.
func (s *story) startRelay(ctx context.Context, options ...string) (project, history string, err error) {
	if project, err = s.relay.cli(ctx, "identity", "create", "project"); err != nil {
		return "", "", err
	}
	if history, err = s.relay.cli(ctx, "identity", "show", "project", "--full", "--encoding", "hex"); err != nil {
		return "", "", err
	}
	_, err = s.relay.cli(ctx, append([]string{"node", "create", "relay", "--identity", "project",
		"--authority-identity", s.authorityHistory, "--tcp-listener-address", local(s.relayPort)}, options...)...)
	return project, history, err
}

// startAuthority starts the authority, or brings it back.
func (s *story) startAuthority(ctx context.Context) error {
	_, err := s.authority.cli(ctx, "authority", "create", "--identity", "authority", "--project-identifier", projectID,
		"--tcp-listener-address", local(s.authorityPort), "--trusted-identities", s.trusted)
	return err
}

// authorityNode is the name that "authority create" gives to its node.
const authorityNode = "authority-" + projectID

// relayRoute is how members reach a relay node.
func relayRoute(port int) string { return fmt.Sprintf("/dnsaddr/127.0.0.1/tcp/%d/service/api", port) }

// writeProject writes a project whose relays are along routes, of which the reference knows the first alone, and returns the file's name.
func (s *story) writeProject(name, identifier, history string, routes ...string) (string, error) {
	p := map[string]any{
		"id": projectID, "name": projectName, "space_name": "self", "space_id": "s1",
		"access_route": routes[0],
		"users":        []string{}, "user_roles": []string{},
		"identity": identifier, "project_change_history": history,
		"authority_access_route": relayRoute(s.authorityPort),
		"authority_identity":     s.authorityHistory,
	}
	if len(routes) > 1 {
		p["access_routes"] = routes[1:]
	}
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir, name)
	return file, os.WriteFile(file, text, 0o600)
}

// ticket has the admin make a ticket.
func (s *story) ticket(ctx context.Context, args ...string) (string, error) {
	return ticketFrom(ctx, s.admin, args...)
}

// ticketFrom has an admin make a ticket.
func ticketFrom(ctx context.Context, admin *box, args ...string) (string, error) {
	args = append([]string{"project", "ticket", "--identity", "admin", "--expires-in", "1h"}, args...)
	out, err := admin.cli(ctx, args...)
	if err == nil && out == "" {
		err = fmt.Errorf("project ticket printed nothing")
	}
	return out, err
}

// startOutlet enrols the outlet box and starts its node, outlets and relay.
func (s *story) startOutlet(ctx context.Context) error {
	t, err := s.ticket(ctx, "--relay", "blue", "--attribute", "company=acme")
	if err != nil {
		return err
	}
	if _, err := s.outlet.cli(ctx, "project", "enroll", t); err != nil {
		return err
	}
	if _, err := s.outlet.cli(ctx, "node", "create", "blue"); err != nil {
		return err
	}
	return s.startPortals(ctx)
}

// startPortals makes what a restarted node of the reference forgets: outlets and
// relay. What is there already stays.
func (s *story) startPortals(ctx context.Context) error {
	targets := map[string]string{"db": local(s.options.pgPort), "xfer": s.options.xferTarget}
	for _, name := range []string{"db", "xfer"} {
		if s.options.pgPort == 0 && name == "db" || s.outlet.outletExists(ctx, "blue", name) {
			continue
		}
		// No --allow: the default policy, "any credential of this authority", is in force.
		if _, err := s.outlet.cli(ctx, "tcp-outlet", "create", "--at", "blue", "--from", name, "--to", targets[name]); err != nil {
			return err
		}
	}
	if s.outlet.relayExists(ctx, "blue", "blue") {
		return nil
	}
	out, err := s.outlet.cli(ctx, "relay", "create", "blue", "--to", "blue")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "forward_to_blue") || strings.Contains(out, `"Down"`) {
		return fmt.Errorf("relay create: %s", firstLine([]byte(out)))
	}
	return nil
}

// startInlet enrols the inlet box and starts its node and inlets.
func (s *story) startInlet(ctx context.Context) error {
	t, err := ticketFrom(ctx, cmp.Or(s.inletAdmin, s.admin), "--attribute", "company=beta", "--usage-count", "3")
	if err != nil {
		return err
	}
	if _, err := s.inlet.cli(ctx, "project", "enroll", t); err != nil {
		return err
	}
	if _, err := s.inlet.cli(ctx, "node", "create", "green"); err != nil {
		return err
	}
	return s.startInlets(ctx)
}

// startInlets makes the inlets of the inlet box that are not there yet.
func (s *story) startInlets(ctx context.Context) error {
	ports := map[string]int{"db": s.pgInlet, "xfer": s.xferInlet}
	existing, err := s.inlet.cli(ctx, "tcp-inlet", "list", "--at", "green", "--output", "json")
	if err != nil {
		return err
	}
	for _, name := range []string{"db", "xfer"} {
		if s.options.pgPort == 0 && name == "db" || strings.Contains(existing, local(ports[name])) {
			continue
		}
		if _, err := s.inlet.cli(ctx, "tcp-inlet", "create", "to-"+name, "--at", "green",
			"--from", local(ports[name]), "--to", name, "--via", "blue"); err != nil {
			return err
		}
	}
	return nil
}

// start runs the whole story.
func (s *story) start(ctx context.Context) error {
	if err := s.startOperator(ctx, nil); err != nil {
		return err
	}
	if err := s.startOutlet(ctx); err != nil {
		return err
	}
	return s.startInlet(ctx)
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
