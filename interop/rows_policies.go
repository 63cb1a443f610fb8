package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// policyRow is one line of the policy table (policy/testdata/agreement.json).
type policyRow struct {
	Name          string            `json:"name"`
	Expression    string            `json:"expression"` // {identifier} stands for the peer
	Attributes    map[string]string `json:"attributes"`
	Authority     *bool             `json:"authority"`      // the node has a project authority; default true
	HasCredential *bool             `json:"has_credential"` // the peer has a credential; default true
	Parses        *bool             `json:"parses"`         // the text is accepted; default true
	Expect        string            `json:"expect"`         // allow or deny
	Reference     string            `json:"reference"`      // when the reference decides otherwise on purpose
}

func loadPolicies(path string) ([]policyRow, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Rows []policyRow `json:"rows"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Rows) < 100 {
		return nil, fmt.Errorf("%s has %d rows, expected at least 100", path, len(file.Rows))
	}
	return file.Rows, nil
}

func isFalse(b *bool) bool { return b != nil && !*b }

// wants is the decision expected of a program, and whether the text must be accepted.
func (p *policyRow) wants(on program) (allow, parses bool) {
	expect := p.Expect
	if p.Reference != "" && on.quirks {
		expect = p.Reference
	}
	return expect == "allow", !isFalse(p.Parses)
}

// peerKey groups rows by the peer they need: one identity per set of attributes.
func (p *policyRow) peerKey() string {
	if isFalse(p.Authority) || isFalse(p.HasCredential) {
		return ""
	}
	keys := slices.Sorted(maps.Keys(p.Attributes))
	var key strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&key, "%q=%q,", k, p.Attributes[k])
	}
	return "{" + key.String() + "}"
}

// policyCase is a row on a real node: an outlet of its own with that policy.
//
// A peer sends the outlet the first message of a portal (a Ping, one zero byte).
// Allowed, the outlet connects to its target, which is a listener of the
// driver's own, and answers with a Pong (one byte, 1). Refused, nothing happens
// at all.
type policyCase struct {
	policyRow
	outlet   string
	target   net.Listener
	accepted atomic.Int64
	node     *box // evaluates
	nodePort int
	from     *box // sends
	identity string
	failure  string
}

// policyRows has a node of program a decide, on messages of members that run
// program b and hold credentials of an authority that runs program b.
func policyRows(ctx context.Context, r *rowRun) {
	rows, err := loadPolicies(r.agreement)
	if err != nil {
		r.check("table", func() (string, error) { return "", err })
		return
	}
	lab := &policyLab{rowRun: r, members: map[string]string{}}
	defer lab.close()
	if !r.check("setup", func() (string, error) {
		err := lab.setup(ctx, rows)
		return fmt.Sprintf("%d peers", len(lab.members)+1), err
	}) {
		return
	}
	r.check("every text accepted or refused", func() (string, error) {
		return fmt.Sprintf("%d rows", len(rows)), lab.createOutlets(ctx)
	})
	r.check("every peer gets through", func() (string, error) { return "", lab.control(ctx) })
	r.check("every decision", func() (string, error) {
		n, err := lab.decide(ctx)
		return fmt.Sprintf("%d decisions", n), err
	})
}

// policyLab is the set-up for the policy rows.
type policyLab struct {
	*rowRun
	st            *story
	members       map[string]string // peer key -> identity name
	cases         []*policyCase
	controls      []*policyCase // an outlet with a policy that is always true
	wg            sync.WaitGroup
	memberBox     *box
	bareBox       *box
	withAuthority *box // both evaluate
	without       *box
	withPort      int
	withoutPort   int
}

func (l *policyLab) setup(ctx context.Context, rows []policyRow) error {
	var err error
	s := seats{authority: l.b, relay: l.a, outlet: l.b, inlet: l.b, admin: l.b}
	if l.st, err = newStory(l.procs, l.root, s, storyOptions{}); err != nil {
		return err
	}
	l.memberBox, l.bareBox = l.st.inlet, l.st.outlet
	// The members are known to the authority from the start, each with the
	// attributes of its rows; tickets would take one more command per member.
	trusted := map[string]map[string]string{}
	identifiers := map[string]string{}
	bare, err := l.bareBox.cli(ctx, "identity", "create", "bare")
	if err != nil {
		return err
	}
	identifiers["bare"] = bare
	for _, row := range rows {
		key := row.peerKey()
		if key == "" || l.members[key] != "" {
			continue
		}
		name := fmt.Sprintf("m%d", len(l.members))
		l.members[key] = name
		id, err := l.memberBox.cli(ctx, "identity", "create", name)
		if err != nil {
			return err
		}
		identifiers[name], trusted[id] = id, maps.Clone(row.Attributes)
		if trusted[id] == nil {
			trusted[id] = map[string]string{}
		}
	}
	if err := l.st.startOperator(ctx, trusted); err != nil {
		return err
	}
	if _, err := l.memberBox.cli(ctx, "project", "import", "--project-file", l.st.projectFile); err != nil {
		return err
	}
	// The relay node of the story is the one with an authority that decides.
	l.withAuthority, l.withPort = l.st.relay, l.st.relayPort
	if l.without, l.withoutPort, err = l.plainNode(ctx, l.st.dir, "without", l.a); err != nil {
		return err
	}
	for i, row := range rows {
		c := &policyCase{policyRow: row, outlet: fmt.Sprintf("r%d", i), node: l.withAuthority, nodePort: l.withPort, from: l.memberBox}
		if c.identity = l.members[row.peerKey()]; c.identity == "" {
			c.from, c.identity = l.bareBox, "bare"
		}
		if isFalse(row.Authority) {
			c.node, c.nodePort = l.without, l.withoutPort
		}
		c.Expression = strings.ReplaceAll(c.Expression, "{identifier}", identifiers[c.identity])
		if strings.Contains(c.Expression, "resource.id") {
			// The table's resource is "db"; here each row has its own.
			c.Expression = strings.ReplaceAll(c.Expression, `"db"`, `"`+c.outlet+`"`)
		}
		l.cases = append(l.cases, c)
	}
	// One control per peer and node: it must get through whatever the rows say.
	seen := map[string]bool{}
	for _, c := range l.cases {
		key := fmt.Sprint(c.identity, c.nodePort)
		if !seen[key] {
			seen[key] = true
			control := &policyCase{policyRow: policyRow{Name: "control", Expression: "(= 1 1)", Expect: "allow"},
				outlet: "control", node: c.node, nodePort: c.nodePort, from: c.from, identity: c.identity}
			l.controls = append(l.controls, control)
		}
	}
	return nil
}

func (l *policyLab) close() {
	if l.st != nil {
		l.st.close(l.keep)
	}
	for _, c := range l.cases {
		if c.target != nil {
			c.target.Close()
		}
	}
	l.wg.Wait()
}

// createOutlets makes the outlets with their policies, a few at a time.
func (l *policyLab) createOutlets(ctx context.Context) error {
	for _, node := range []struct {
		b    *box
		name string
	}{{l.withAuthority, "relay"}, {l.without, "without"}} {
		if _, err := node.b.cli(ctx, "tcp-outlet", "create", "--at", node.name, "--from", "control", "--to", l.xfer.address(), "--allow=(= 1 1)"); err != nil {
			return err
		}
	}
	return l.each(4, l.cases, func(c *policyCase) string {
		target, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err.Error()
		}
		c.target = target
		l.wg.Go(func() {
			for {
				conn, err := target.Accept()
				if err != nil {
					return
				}
				c.accepted.Add(1)
				conn.Close()
			}
		})
		_, parses := c.wants(l.a)
		node := "relay"
		if c.node == l.without {
			node = "without"
		}
		// "--allow=" and not "--allow ": an expression may begin with a dash.
		_, err = c.node.cli(ctx, "tcp-outlet", "create", "--at", node, "--from", c.outlet, "--to", target.Addr().String(), "--allow="+c.Expression)
		switch {
		case parses && err != nil:
			return err.Error()
		case !parses && err == nil:
			return "accepted, must be refused"
		}
		return ""
	})
}

// control shows that every peer reaches the node with its credential, so that
// silence later means a refusal. It also fetches all credentials.
func (l *policyLab) control(ctx context.Context) error {
	return l.each(4, l.controls, func(c *policyCase) string {
		for range 2 {
			if l.ping(ctx, c, "5s") {
				return ""
			}
		}
		return "peer " + c.identity + " gets no answer from an outlet open to all"
	})
}

// decide sends one Ping per row and compares the decisions.
func (l *policyLab) decide(ctx context.Context) (int, error) {
	var decided []*policyCase
	for _, c := range l.cases {
		if _, parses := c.wants(l.a); parses && c.failure == "" {
			decided = append(decided, c)
		}
	}
	err := l.each(16, decided, func(c *policyCase) string {
		allow, _ := c.wants(l.a)
		if !allow {
			if l.ping(ctx, c, "1500ms") {
				return "allowed, must be denied"
			}
			return ""
		}
		if l.ping(ctx, c, "4s") || l.ping(ctx, c, "8s") {
			return ""
		}
		return "denied, must be allowed"
	})
	// A refused Ping that was only slow would have connected by now.
	for _, c := range decided {
		if allow, _ := c.wants(l.a); !allow && c.accepted.Load() > 0 && c.failure == "" {
			err = errors.Join(err, fmt.Errorf("%s: connected to the target, must be denied", c.Name))
		}
	}
	return len(decided), err
}

// ping sends the first message of a portal and says whether the answer came.
func (l *policyLab) ping(ctx context.Context, c *policyCase, timeout string) bool {
	out, err := c.from.cli(ctx, "message", "send", "--identity", c.identity, "--hex", "--timeout", timeout,
		"--to", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/secure/api/service/%s", c.nodePort, c.outlet), "00")
	return err == nil && out == "01"
}

// each runs a test on all cases, some at a time, and sums up what failed.
func (l *policyLab) each(parallel int, cases []*policyCase, test func(*policyCase) string) error {
	work := make(chan *policyCase)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for c := range work {
				if c.failure == "" {
					c.failure = test(c)
				}
			}
		})
	}
	begin := time.Now()
	for _, c := range cases {
		work <- c
	}
	close(work)
	wg.Wait()
	return summarize(cases, time.Since(begin))
}

// summarize makes one error of all failures, naming the first few.
func summarize(cases []*policyCase, took time.Duration) error {
	var failed []string
	for _, c := range cases {
		if c.failure != "" {
			failed = append(failed, fmt.Sprintf("%s %q: %s", c.Name, c.Expression, c.failure))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	shown := failed[:min(len(failed), 12)]
	return fmt.Errorf("%d of %d after %.0fs: %s", len(failed), len(cases), took.Seconds(), strings.Join(shown, "; "))
}
