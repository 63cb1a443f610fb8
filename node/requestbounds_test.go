package node

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal/datagram"
)

// TestDatagramRequestBounds: what an inlet and an outlet for UDP may be asked for, at the bounds of each field.
func TestDatagramRequestBounds(t *testing.T) {
	n := udpNode(t, "n", "")
	for _, c := range []struct {
		idle, rate, allow string
		flows, each       int    // each: of one member at the outlet
		bad               string // what is said
	}{
		{idle: "1s"}, {idle: "999ms", bad: "--idle"}, {idle: "24h"}, {idle: "24h1s", bad: "--idle"}, {idle: "soon", bad: "--idle"}, {idle: "-1s", bad: "--idle"},
		{flows: 1}, {flows: datagram.MostFlows}, {flows: datagram.MostFlows + 1, bad: "--max-flows"}, {flows: -1, bad: "--max-flows"},
		{each: 1}, {each: datagram.MostFlows}, {each: datagram.MostFlows + 1, bad: "--max-flows-per-member"}, {each: -1, bad: "--max-flows-per-member"},
		{rate: "20mbit"}, {rate: "fast", bad: "--rate"}, {allow: `(= subject.a "b")`}, {allow: "(no policy", bad: "--allow"},
	} {
		what := fmt.Sprintf("%+v", c)
		_, outErr := n.udpOutlets.Create(t.Context(), resource.UDPOutlet{Name: "out", To: "127.0.0.1:1", Idle: c.idle, Rate: c.rate, Allow: c.allow, MaxFlows: c.flows, MaxFlowsPerMember: c.each})
		_, inErr := n.udpInlets.Create(t.Context(), resource.UDPInlet{
			Name: "in", From: "127.0.0.1:0", To: "/ip4/127.0.0.1/tcp/1/secure/api/service/out", Idle: c.idle, Rate: c.rate, Allow: c.allow, MaxFlows: c.flows, NoConnectionWait: true,
		})
		for end, err := range map[string]error{"outlet": outErr, "inlet": inErr} {
			if c.each != 0 && end == "inlet" {
				continue
			}
			if (err == nil) != (c.bad == "") || err != nil && (!errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), c.bad)) {
				t.Errorf("%s %s: %v", end, what, err)
			}
		}
		if outErr == nil {
			_ = n.udpOutlets.Delete(t.Context(), "out")
		}
		if inErr == nil {
			_ = n.udpInlets.Delete(t.Context(), "in")
		}
	}
	if d, err := idleOf(""); err != nil || d != datagram.DefaultIdle {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := n.udpOutlets.Create(t.Context(), resource.UDPOutlet{Name: "out", To: "no port"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a target without a port: %v", err)
	}
	to := "/ip4/127.0.0.1/tcp/1/secure/api/service/out"
	for what, r := range map[string]resource.UDPInlet{
		"route": {From: "127.0.0.1:0", To: "nowhere"}, "port": {From: "127.0.0.1", To: to}, "authorized": {From: "127.0.0.1:0", To: to, Authorized: "nobody"},
		"address": {From: "127.0.0.1:x", To: to}, "identity": {From: "127.0.0.1:0", To: to, Identity: "none"},
	} {
		r.Name, r.NoConnectionWait = "bad", true
		if _, err := n.udpInlets.Create(t.Context(), r); err == nil {
			t.Errorf("an inlet with a bad %s", what)
		}
	}
	if len(n.UDPInlets()) != 0 || len(n.UDPOutlets()) != 0 || len(n.datagram.Meters()) != 0 {
		t.Errorf("left over: %+v, %+v", n.UDPInlets(), n.UDPOutlets())
	}
}

// TestDatagramNames: without a name an outlet for UDP is the default one, unless that is taken, and an inlet gets a name of its own.
func TestDatagramNames(t *testing.T) {
	n := udpNode(t, "n", "")
	first, err := n.udpOutlets.Create(t.Context(), resource.UDPOutlet{To: "127.0.0.1:1"})
	if err != nil || first.Request.Name != "outlet" {
		t.Fatalf("%+v, %v", first.Request, err)
	}
	second, err := n.udpOutlets.Create(t.Context(), resource.UDPOutlet{To: "127.0.0.1:1"})
	if err != nil || second.Request.Name == "outlet" || second.Request.Name == "" {
		t.Errorf("%+v, %v", second.Request, err)
	}
	to, names := "/ip4/127.0.0.1/tcp/1/secure/api/service/out", map[string]bool{}
	for range 2 {
		in, err := n.udpInlets.Create(t.Context(), resource.UDPInlet{From: "127.0.0.1:0", To: to, NoConnectionWait: true})
		if err != nil || in.Request.Name == "" || names[in.Request.Name] {
			t.Errorf("%+v, %v", in.Request, err)
		}
		names[in.Request.Name] = true
	}
	if i, ok := n.udpInlets.Get("none"); ok || n.flowsOf(datagram.EndInlet, "none") != 0 {
		t.Errorf("%+v", i)
	}
}

// TestDatagramsChangedInPlace: a policy, a rate and a number of flows are changed without closing the portal, whose clients stay; a bad one changes nothing.
func TestDatagramsChangedInPlace(t *testing.T) {
	a, b := udpNode(t, "a", ""), udpNode(t, "b", "")
	outlet := resource.UDPOutlet{Name: "dns", To: datagramEcho(t)}
	if _, err := b.udpOutlets.Create(t.Context(), outlet); err != nil {
		t.Fatal(err)
	}
	inlet := resource.UDPInlet{Name: "in", From: "127.0.0.1:0", To: "/ip4/127.0.0.1/tcp/" + portOf(b.Listening()) + "/secure/api/service/dns"}
	made, err := a.udpInlets.Create(t.Context(), inlet)
	if err != nil {
		t.Fatal(err)
	}
	c := newAsker(t, made.Value.portal.Bound().String())
	sees := c.ask("before")

	// What is counted of it is shown under its own name.
	m := a.datagram.Meters()[0]
	step, want := 1e6, map[string]float64{}
	add := func(name string, at interface{ Add(uint64) uint64 }) {
		step += 1e6
		at.Add(uint64(step))
		want["udp_portal_"+name] = step
	}
	add("flows_opened_total in udp-inlet", &m.Opened)
	add("datagrams_total in in udp-inlet", &m.In)
	add("datagrams_total in out udp-inlet", &m.Out)
	add("bytes_total in in udp-inlet", &m.BytesIn)
	add("bytes_total in out udp-inlet", &m.BytesOut)
	add("malformed_total in udp-inlet", &m.Malformed)
	add("dropped_total in udp-inlet unread", &m.Lost)
	add("dropped_total in udp-inlet unsent", &m.Sock.Overflow)
	add("dropped_total in not_sendable udp-inlet", &m.Sock.Failed)
	add("dropped_total in nobody_listens udp-inlet", &m.Sock.Refused)
	for why, name := range datagram.DropNames {
		if label := []string{"in", name, "udp-inlet"}; name > "udp-inlet" {
			t.Errorf("the label %q would come after %q", name, label)
		}
		if name < "in" {
			add("dropped_total "+name+" in udp-inlet", &m.Dropped[why])
		} else {
			add("dropped_total in "+name+" udp-inlet", &m.Dropped[why])
		}
	}
	for r := range m.Ended {
		at := datagram.Reason(r).String()
		if at < "in" {
			add("flows_ended_total "+at+" in udp-inlet", &m.Ended[r])
		} else {
			add("flows_ended_total in "+at+" udp-inlet", &m.Ended[r])
		}
	}
	got := metricsOf(t, a)
	if got["udp_portal_flows in udp-inlet"] != 1 {
		t.Errorf("%v flows", got["udp_portal_flows in udp-inlet"])
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v < value || v >= value+5e5 {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, value)
		}
	}
	for name := range metricsOf(t, b) {
		if strings.HasPrefix(name, "udp_portal_dropped_total") || strings.HasPrefix(name, "udp_portal_flows_ended_total") {
			t.Errorf("%s, of which there was none", name)
		}
	}

	change := func(rate, allow string, flows int) error {
		outlet.Rate, outlet.Allow, outlet.MaxFlows, outlet.MaxFlowsPerMember = rate, allow, flows, flows
		inlet.Rate, inlet.MaxFlows = rate, flows
		var failed error
		for n, r := range map[*Node]resource.Stored{b: stored(t, resource.KindUDPOutlet, "dns", outlet), a: stored(t, resource.KindUDPInlet, "in", inlet)} {
			applied, err := n.set.Apply(t.Context(), admin.ApplyRequest{Resources: []resource.Stored{r}})
			if err == nil && len(applied.Faults) > 0 {
				err = fmt.Errorf("%v", applied.Faults)
			}
			failed = errors.Join(failed, err)
		}
		return failed
	}
	if err := change("800mbit", fmt.Sprintf("(= subject.identifier %q)", a.opts.Self), 1); err != nil {
		t.Fatal(err)
	}
	if again := c.ask("after"); again != sees {
		t.Errorf("the target sees port %s, before %s", again, sees)
	}
	newAsker(t, made.Value.portal.Bound().String()).ask("one more") // which ends the one that was idle for longest
	until(t, "one flow", func() bool { return a.flowsOf(datagram.EndInlet, "in") == 1 })
	if err := change("fast", "", 1); err == nil {
		t.Error("a bad rate is taken")
	}
	if err := change("", `(= subject.identifier "nobody")`, 1); err != nil {
		t.Fatal(err)
	}
	until(t, "the flow is ended by the policy", func() bool { return b.flowsOf(datagram.EndOutlet, "dns") == 0 })
}

// TestUnixSocketRequests: what an inlet's Unix socket may be, at the bounds of each field.
func TestUnixSocketRequests(t *testing.T) {
	long := "/" + strings.Repeat("x", dataplane.MaxUnixPath-1)
	for _, c := range []struct {
		from, mode, owner string
		want              *dataplane.UnixSocket // nil: none
		bad               string
	}{
		{from: "127.0.0.1:0"}, {from: "127.0.0.1:0", mode: "0600", bad: "--socket-mode"}, {from: "127.0.0.1:0", owner: "0", bad: "--socket-owner"},
		{from: "unix:/a", want: &dataplane.UnixSocket{Path: "/a", UID: -1, GID: -1}}, {from: "unix:@a", want: &dataplane.UnixSocket{Path: "@a", UID: -1, GID: -1}},
		{from: "unix:" + long, want: &dataplane.UnixSocket{Path: long, UID: -1, GID: -1}}, {from: "unix:" + long + "x", bad: "at most"},
		{from: "unix:/", bad: "absolute"}, {from: "unix:", bad: "absolute"}, {from: "unix:ab", bad: "absolute"}, {from: "unix:/a\x00b", bad: "absolute"},
		{from: "unix:@a", mode: "0600", bad: "abstract"}, {from: "unix:@a", owner: "0", bad: "abstract"},
		{from: "unix:/a", mode: "0600", want: &dataplane.UnixSocket{Path: "/a", Mode: 0o600, UID: -1, GID: -1}},
		{from: "unix:/a", mode: "777", want: &dataplane.UnixSocket{Path: "/a", Mode: fs.FileMode(0o777), UID: -1, GID: -1}},
		{from: "unix:/a", mode: "1000", bad: "octal"}, {from: "unix:/a", mode: "0", bad: "octal"}, {from: "unix:/a", mode: "rw", bad: "octal"}, {from: "unix:/a", mode: "9", bad: "octal"},
		{from: "unix:/a", owner: "7", want: &dataplane.UnixSocket{Path: "/a", UID: 7, GID: -1}}, {from: "unix:/a", owner: ":8", want: &dataplane.UnixSocket{Path: "/a", UID: -1, GID: 8}},
		{from: "unix:/a", owner: "7:8", want: &dataplane.UnixSocket{Path: "/a", UID: 7, GID: 8}}, {from: "unix:/a", owner: "root:root", want: &dataplane.UnixSocket{Path: "/a"}},
		{from: "unix:/a", owner: "no such user", bad: "--socket-owner"}, {from: "unix:/a", owner: "0:no such group", bad: "--socket-owner"},
	} {
		r := resource.Inlet{From: c.from, SocketMode: c.mode, SocketOwner: c.owner}
		got, err := unixSocket(&r)
		if c.bad != "" {
			if !errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), c.bad) || got != nil {
				t.Errorf("%q %q %q: %+v, %v", c.from, c.mode, c.owner, got, err)
			}
			continue
		}
		if err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%q %q %q: %+v, %v", c.from, c.mode, c.owner, got, err)
		}
	}
}

// TestNewlyMade: only an expiry is explained by clocks, which the error then matches too.
func TestNewlyMade(t *testing.T) {
	old := fmt.Errorf("of somebody: %w", identity.ErrExpired)
	if err := NewlyMade(old); !errors.Is(err, identity.ErrClock) || !errors.Is(err, identity.ErrExpired) || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("%v", err)
	}
	other := errors.New("another")
	if err := NewlyMade(other); err != other {
		t.Errorf("%v", err)
	}
	if NewlyMade(nil) != nil {
		t.Error("no error is one")
	}
}
