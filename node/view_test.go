package node

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/node/resource"
	"sallyport/portal"
)

// TestHistory: rates are in order, an hour and no more, from when a portal begins; a portal that counts anew does not run backwards, and one that has
// gone is forgotten.
func TestHistory(t *testing.T) {
	m := newMember(t)
	if _, err := m.CreateOutlet(within(t), resource.Outlet{Name: "db", To: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	meters := m.portals.Meters()
	if len(meters) != 1 {
		t.Fatalf("%d meters", len(meters))
	}
	db, h, now := meters[0], &history{}, time.Unix(1e9, 0)
	for i := range 2*historyLength + 2 {
		db.BytesIn.Add(uint64(10 * i))
		db.BytesOut.Add(uint64(5))
		h.look(meters, now)
		now = now.Add(5 * time.Second)
		if v := h.view(); i == 2 && (len(v.Portals) != 1 || len(v.Portals[0].In) != 2 || v.Portals[0].In[0] != 2 || v.Portals[0].In[1] != 4 || v.Portals[0].Out[1] != 1) {
			t.Fatalf("%+v", v)
		}
	}
	v := h.view()
	if p := v.Portals[0]; len(p.In) != historyLength || p.In[historyLength-1] != float32(2*(2*historyLength+1)) || p.In[0] != float32(2*(historyLength+2)) {
		t.Errorf("%d of them, from %v to %v", len(p.In), p.In[0], p.In[len(p.In)-1])
	}
	db.BytesIn.Store(7)
	h.look(meters, now)
	if p := h.view().Portals[0]; p.In[historyLength-1] != 0 {
		t.Errorf("%v bytes a second of a portal that counts anew", p.In[historyLength-1])
	}
	h.look(nil, now.Add(5*time.Second))
	if v := h.view(); len(v.Portals) != 0 || len(h.portals) != 0 {
		t.Errorf("a portal that has gone: %+v", v)
	}
}

// legsOf returns the states of the legs of a node's first way, and the reasons for those that are down.
func (m *member) legsOf() (states, reasons string) {
	m.t.Helper()
	v := m.view(within(m.t))
	if len(v.Stories) == 0 {
		return "", ""
	}
	for _, l := range v.Stories[0].Legs {
		states += l.State + " "
		reasons += l.Reason
	}
	return strings.TrimSpace(states), reasons
}

// awaitLegs waits until the legs are as they should be.
func (m *member) awaitLegs(when, want, reason string) {
	m.t.Helper()
	states, reasons := "", ""
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if states, reasons = m.legsOf(); states == want && strings.Contains(reasons, reason) {
			return
		}
	}
	m.t.Errorf("%s: the legs are %q %q, not %q %q", when, states, reasons, want, reason)
}

// TestView: the picture says which leg is down, and why: nobody under the relay's name, no such outlet, a target that refuses. An open connection is
// listed at both ends, with its bytes.
func TestView(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	relay, bank, analysis := newMember(t), newMember(t), newMember(t)
	ctx := within(t)
	in, err := analysis.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: relay.route() + "/secure/api/service/forward_to_bank/secure/api/service/db", NoConnectionWait: true})
	if err != nil {
		t.Fatal(err)
	}
	analysis.awaitLegs("nobody is registered", "up up down unknown", "nobody is registered")
	if _, err := bank.CreateRelay(ctx, resource.Relay{Name: "bank", At: relay.route() + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	analysis.awaitLegs("no outlet", "up up down unknown", "there is no outlet db")
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: target.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	analysis.awaitLegs("all is there", "up up up up", "")
	c, err := net.Dial("tcp", in.Bind)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, at := range analysis.view(ctx).Stories[0].Places {
		places = append(places, at.Kind+" "+at.Name)
	}
	if got := strings.Join(places[1:], ", "); got != "inlet in, relay bank, outlet db, target " {
		t.Errorf("the way is shown as %s", got)
	}
	bank.awaitLegs("the bank", "up up up", "")
	relay.awaitLegs("the relay", "up up", "")
	for _, m := range []*member{analysis, bank} {
		var v view
		for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if v = m.view(ctx); len(v.Connections) == 1 && v.Connections[0].ToTarget == 5 && len(v.Wrong) == 0 {
				break
			}
		}
		if len(v.Connections) != 1 || v.Connections[0].ToTarget != 5 || v.Connections[0].ToClient != 0 || v.Connections[0].Peer == "" || v.Open != 1 {
			t.Errorf("%+v", v.Connections)
		}
		if len(v.Wrong) != 0 {
			t.Errorf("while all is well %q is wrong", v.Wrong)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Error(err)
		}
	}
	_ = target.Close()
	if refused, err := net.Dial("tcp", in.Bind); err == nil { // else the reset was there first
		_, _ = refused.Read(make([]byte, 1))
		_ = refused.Close()
	}
	analysis.awaitLegs("the target refuses", "up up up down", "")
	bank.awaitLegs("the target refuses", "up up down", "refused")
	if wrong := bank.view(ctx).Wrong; len(wrong) != 1 || !strings.Contains(wrong[0], "outlet db is degraded") {
		t.Errorf("%q is wrong, and the outlet's target refuses", wrong)
	}
	if len(portal.List(ctx, bank.router.Shards(), 0)) != 0 {
		t.Error("more than asked for are listed")
	}
}
