package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sallyport/internal/freeport"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
)

// restartWith starts a member's node again with other resources on disk.
func (m *member) restartWith(list ...resource.Stored) {
	m.t.Helper()
	at := m.Listening()
	m.Stop()
	if err := m.dir.SaveResources(m.t.Context(), "n", list); err != nil {
		m.t.Fatal(err)
	}
	m.start(at)
}

func stored(t *testing.T, kind, name string, request any) resource.Stored {
	t.Helper()
	raw, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return resource.Stored{Kind: kind, Name: name, Request: raw}
}

// state returns the state of a resource, "" if it is not in the list.
func (m *member) state(kind, name string) resource.State {
	for _, r := range m.set.Resources() {
		if r.Kind == kind && r.Name == name {
			return r.State
		}
	}
	return ""
}

func (m *member) until(kind, name string, want resource.State) {
	m.t.Helper()
	eventually(m.t, func() error {
		if got := m.state(kind, name); got != want {
			return errors.New(kind + " " + name + " is " + string(got) + ", not " + string(want))
		}
		return nil
	})
}

// An inlet whose port is taken at a start is in the list with its reason, is still written down, and opens when the port is free.
func TestInletPortTaken(t *testing.T) {
	m := newMember(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := resource.Inlet{Alias: "in", From: taken.Addr().String(), To: m.route() + "/secure/api/service/outlet"}
	m.restartWith(stored(t, resource.KindInlet, "in", r))
	list := m.Inlets()
	if len(list) != 1 || list[0].State.State != resource.Down || !strings.Contains(list[0].Reason, "in use") || list[0].NextTry.IsZero() {
		t.Fatalf("%+v", list)
	}
	if kept, err := m.dir.Resources("n"); err != nil || len(kept) != 1 {
		t.Errorf("written down: %v, %v", kept, err)
	}
	// A command that asks for it is refused, and leaves nothing behind.
	if _, err := m.CreateInlet(t.Context(), resource.Inlet{Alias: "other", From: r.From, To: r.To}); err == nil || len(m.Inlets()) != 1 {
		t.Errorf("created on a port that is taken: %v, %+v", err, m.Inlets())
	}
	_ = taken.Close()
	eventually(t, func() error {
		if i, _ := m.inlets.Get("in"); !i.IsOpen {
			return errors.New(i.Status.Reason)
		}
		return nil
	})
}

// A port that was left to the node is the same after a restart, unless somebody has it by then.
func TestInletChosenPort(t *testing.T) {
	m := newMember(t)
	r := resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/outlet", NoConnectionWait: true}
	in, err := m.CreateInlet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	m.restart()
	if now := m.Inlets(); now[0].Bind != in.Bind {
		t.Errorf("at %s before, at %s now", in.Bind, now[0].Bind)
	}
	at := m.Listening()
	m.Stop()
	taken, err := net.Listen("tcp", in.Bind)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m.start(at)
	now := m.Inlets()
	if i, _ := m.inlets.Get("in"); !i.IsOpen || now[0].Bind == in.Bind || i.Request.From != "127.0.0.1:0" {
		t.Errorf("%+v %+v", i, now)
	}
}

// Everything that was asked for comes back, whatever kind it is.
func TestEveryKindComesBack(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	for _, err := range []error{
		m.SetPolicy(ctx, resource.Policy{Resource: "db", Expression: `(= subject.x "y")`}),
		second(m.CreateOutlet(ctx, resource.Outlet{Name: "db", To: "127.0.0.1:1"})),
		second(m.CreateRelay(ctx, resource.Relay{Name: "blue", At: m.route() + "/secure/api"})),
		second(m.CreateListener(ctx, resource.Listener{Address: "front"})),
		second(m.CreateTCPListener(ctx, resource.TCPListener{Address: "127.0.0.1:0"})),
		second(m.hops.Create(ctx, resource.Hop{})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := len(m.set.Resources())
	m.restart()
	for _, r := range m.set.Resources() {
		m.until(r.Kind, r.Name, resource.Up)
	}
	if now := len(m.set.Resources()); now != before || now != 6 {
		t.Errorf("%d before, %d now: %+v", before, now, m.set.Resources())
	}
}

func second[T any](_ T, err error) error { return err }

// An outlet whose policy is not in effect stays closed, whichever policy that is; it opens when the policy does.
func TestOutletWithoutItsPolicy(t *testing.T) {
	for name, list := range map[string][]resource.Stored{
		"its own":     {stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: "127.0.0.1:1", Allow: "(= subject.x"})},
		"of its name": {stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: "127.0.0.1:1"}), stored(t, resource.KindPolicy, "db", resource.Policy{Resource: "db", Expression: "("})},
		"of its type": {stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: "127.0.0.1:1"}), stored(t, resource.KindPolicy, "tcp-outlet", resource.Policy{ResourceType: "tcp-outlet", Expression: "("})},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t)
			m.restartWith(list...)
			m.until(resource.KindOutlet, "db", resource.Down)
			if m.router.HasNamed("db") {
				t.Error("the outlet is there without its policy")
			}
			if kept, err := m.dir.Resources("n"); err != nil || len(kept) != len(list) {
				t.Errorf("written down: %v, %v", kept, err)
			}
			if name == "its own" {
				return
			}
			ctx := within(t)
			i := list[1]
			var p resource.Policy
			if err := json.Unmarshal(i.Request, &p); err != nil {
				t.Fatal(err)
			}
			p.Expression = `(= subject.x "y")`
			if err := m.SetPolicy(ctx, p); err != nil {
				t.Fatal(err)
			}
			m.until(resource.KindOutlet, "db", resource.Up)
		})
	}
}

// Who may use a portal: a policy of its name decides first, then what the portal asks for, then the policy of its type. Taking one
// away puts the next in its place.
func TestPolicyPrecedence(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	now := func() string {
		return m.policies.LookupOwn(policy.Own(resource.KindOutlet, "db"), policy.TCPOutlet).String()
	}
	const x, y, z = `(= subject.x "1")`, `(= subject.y "1")`, `(= subject.z "1")`
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "db", To: "127.0.0.1:1", Allow: x}); err != nil || now() != x {
		t.Fatal(err, now())
	}
	if err := m.SetPolicy(ctx, resource.Policy{Resource: "db", Expression: y}); err != nil || now() != y {
		t.Error(err, now())
	}
	m.restart()
	if now() != y {
		t.Error("after a restart:", now())
	}
	file := admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: "127.0.0.1:1", Allow: z})}, Prune: true}
	if _, err := m.set.Apply(ctx, file); err != nil || now() != z {
		t.Error("after the policy was pruned:", err, now())
	}
	if err := m.DeletePolicy(ctx, "db"); err != nil || now() != policy.DefaultExpr().String() {
		t.Error("after the deletion:", err, now())
	}
	if err := m.DeletePolicy(ctx, "db"); !errors.Is(err, admin.ErrNotFound) {
		t.Error("deleted twice:", err)
	}
	m.restart()
	if now() != policy.DefaultExpr().String() {
		t.Error("after another restart:", now())
	}
	// What a command asks for with --allow takes the place of a policy of that name.
	if err := m.SetPolicy(ctx, resource.Policy{Resource: "new", Expression: y}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "new", To: "127.0.0.1:1", Allow: x}); err != nil {
		t.Fatal(err)
	}
	if got := m.policies.LookupOwn(policy.Own(resource.KindOutlet, "new"), policy.TCPOutlet).String(); got != x {
		t.Error(got)
	}
}

// Lists are answered while something takes long to open.
func TestListsDoNotWait(t *testing.T) {
	m := newMember(t)
	slow, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	done := make(chan error)
	go func() {
		_, err := m.outlets.CreateAs(t.Context(), resource.Outlet{Name: "slow", To: "127.0.0.1:1"},
			func(context.Context, *table.Opening[resource.Outlet]) (*outlet, error) {
				close(entered)
				<-slow.Done()
				return nil, errors.New("gave up")
			})
		done <- err
	}()
	<-entered
	_ = m.Describe()
	if got := m.state(resource.KindOutlet, "slow"); got != resource.Opening {
		t.Errorf("state %q", got)
	}
	cancel()
	if err := <-done; err == nil || m.state(resource.KindOutlet, "slow") != "" {
		t.Errorf("%v, left: %+v", err, m.Outlets())
	}
}

// /healthz answers while the node runs; /readyz while everything serves, and else says what does not.
func TestReady(t *testing.T) {
	m := newMember(t)
	var at string
	serve := func() {
		var err error
		if at, err = m.ServeStatus(t.Context(), "127.0.0.1:0", false); err != nil {
			t.Fatal(err)
		}
	}
	serve()
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz of an empty node: %d", code)
	}
	m.restartWith(stored(t, resource.KindOutlet, "db", resource.Outlet{Name: "db", To: "127.0.0.1:1", Allow: "("}))
	serve()
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "tcp-outlet db: down: ") {
		t.Errorf("/readyz: %d %s", code, text)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	if _, text := get("/metrics"); !strings.Contains(text, `sallyport_resources{kind="tcp-outlet",state="down"} 1`) {
		t.Error("the metric is missing")
	}
}

// An inlet says of its outlet what the outlet's node says: there, not there, its target dead; clients of one that is not there are closed
// at once, and it is up when the outlet comes.
func TestInletTellsTheTruth(t *testing.T) {
	outlet, m := newMember(t), newMember(t)
	ctx := within(t)
	in, err := m.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: outlet.route() + "/secure/api/service/db"})
	if err != nil {
		t.Fatal(err)
	}
	if in.State.State != resource.Down || !in.Refused || !strings.Contains(in.Reason, "there is no outlet db") {
		t.Errorf("%+v", in)
	}
	closedAtOnce(t, "a client of an outlet that is not there", in.Bind)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outlet.CreateOutlet(ctx, resource.Outlet{Name: "db", To: server.Addr().String(), Check: "tcp"}); err != nil {
		t.Fatal(err)
	}
	m.until(resource.KindInlet, "in", resource.Up)
	// Refused to this node by the outlet's policy.
	if err := outlet.SetPolicy(ctx, resource.Policy{Resource: "db", Expression: only(outlet)}); err != nil {
		t.Fatal(err)
	}
	i, _ := m.inlets.Get("in")
	i.Value.session.current.close() // it asks at once over the next path
	eventually(t, func() error {
		if i, _ := m.inlets.Get("in"); !i.Status.Refused || !strings.Contains(i.Status.Reason, "policy") {
			return errors.New(i.Status.Reason)
		}
		return nil
	})
	_ = server.Close()
}

// An outlet whose target does not answer says so, and that it answers again.
func TestOutletTarget(t *testing.T) {
	m := newMember(t)
	at := "127.0.0.1:" + freeport.For(t)
	if _, err := m.CreateOutlet(within(t), resource.Outlet{Name: "db", To: at, Check: "tcp"}); err != nil {
		t.Fatal(err)
	}
	m.until(resource.KindOutlet, "db", resource.Degraded)
	i, _ := m.outlets.Get("db")
	if !strings.Contains(i.Status.Reason, "does not answer") || i.Status.NextTry.IsZero() {
		t.Errorf("%+v", i.Status)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.until(resource.KindOutlet, "db", resource.Up)
}
