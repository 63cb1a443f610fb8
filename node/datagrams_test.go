package node

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/udp"

	"log/slog"
)

// datagramEcho answers each datagram with the port that it came from, a colon, and itself.
func datagramEcho(t *testing.T) string {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		for buf := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(fmt.Sprint(from.Port(), ":")), buf[:n]...), from)
		}
	}()
	return c.LocalAddr().String()
}

// asker is a client of an inlet for UDP.
type asker struct {
	t *testing.T
	net.Conn
}

func newAsker(t *testing.T, at string) asker {
	t.Helper()
	c, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return asker{t, c}
}

// heard sends text once, and returns the port that the server sees if it answers in time.
func (a asker) heard(text string, wait time.Duration) (port string, ok bool) {
	a.t.Helper()
	if _, err := a.Write([]byte(text)); err != nil {
		a.t.Fatal(err)
	}
	a.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 1<<16)
	n, err := a.Read(buf)
	port, answer, _ := strings.Cut(string(buf[:n]), ":")
	return port, err == nil && answer == text
}

// ask sends text until it is answered, as clients of UDP do.
func (a asker) ask(text string) (port string) {
	a.t.Helper()
	until(a.t, "an answer to "+text[:min(len(text), 40)], func() (ok bool) {
		port, ok = a.heard(text, 500*time.Millisecond)
		return ok
	})
	return port
}

// TestDatagrams: datagrams go over the main path and over the direct one, and over the next when one is lost, without the target's seeing another client.
func TestDatagrams(t *testing.T) {
	r, err := StartRendezvous(t.Context(), "127.0.0.1:0", "", udp.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	a, b := udpNode(t, "a", r.Address), udpNode(t, "b", r.Address)
	if _, err := b.udpOutlets.Create(t.Context(), resource.UDPOutlet{Name: "dns", To: datagramEcho(t)}); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.Listening())
	way := "/ip4/127.0.0.1/tcp/" + port + "/secure/api/service/"
	made, err := a.udpInlets.Create(t.Context(), resource.UDPInlet{Name: "in", From: "127.0.0.1:0", To: way + "dns", UDP: true})
	if err != nil {
		t.Fatal(err)
	}
	in := made.Value
	c := newAsker(t, in.portal.Bound().String())
	sees := c.ask("hello")
	same := func(when string) {
		t.Helper()
		for _, text := range []string{when, strings.Repeat("x", 1200), strings.Repeat("y", 20000)} {
			if got := c.ask(text); got != sees {
				t.Errorf("%s: the target sees port %s, before %s", when, got, sees)
			}
		}
	}
	direct := func() *connection {
		up, c, _ := in.path.direct.state()
		if !up {
			return nil
		}
		return c
	}
	until(t, "a puncture", func() bool { return direct() != nil })
	before := a.udp.Stats.MessagesOut.Load()
	same("over the puncture")
	if a.udp.Stats.MessagesOut.Load() < before+3 {
		t.Error("the client did not go over UDP")
	}
	first := direct()
	first.puncture.Close()
	same("when the puncture is lost")
	until(t, "another puncture", func() bool { c := direct(); return c != nil && c != first })
	same("over the next puncture")
	_, main, _ := in.path.session.state()
	main.tcp.Close()
	same("without the main path")
	if s := a.UDPInlets(); len(s) != 1 || s[0].Flows != 1 || s[0].Bind != in.portal.Bound().String() || s[0].Route == "" {
		t.Errorf("%+v", s)
	}
	if s := b.UDPOutlets(); len(s) != 1 || s[0].Flows != 1 {
		t.Errorf("%+v", s)
	}
	if p := a.Stats(t.Context()).Portals; len(p) != 1 || p[0].End != "udp-inlet" || p[0].Name != "in" || p[0].Open != 1 || p[0].BytesIn == 0 || p[0].BytesOut == 0 {
		t.Errorf("what top shows: %+v", p)
	}
	if err := a.udpInlets.Delete(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	until(t, "the outlet hears of the end", func() bool { return b.UDPOutlets()[0].Flows == 0 })
	until(t, "all sockets of punctures closed", func() bool { return len(a.udp.Binds()) == 1 })
}

// TestDatagramsKinds: an inlet says when there is no outlet for UDP where it leads, and an inlet for TCP that there is none for it; names are unique.
func TestDatagramsKinds(t *testing.T) {
	a, b := udpNode(t, "a", ""), udpNode(t, "b", "")
	if _, err := b.udpOutlets.Create(t.Context(), resource.UDPOutlet{Name: "dns", To: datagramEcho(t)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateOutlet(t.Context(), admin.OutletRequest{Name: "web", To: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateOutlet(t.Context(), admin.OutletRequest{Name: "dns", To: "127.0.0.1:1"}); err == nil {
		t.Error("two outlets have one address")
	}
	_, port, _ := net.SplitHostPort(b.Listening())
	way := "/ip4/127.0.0.1/tcp/" + port + "/secure/api/service/"
	for name, to := range map[string]string{"right": "dns", "tcp": "web", "none": "nothing"} {
		if _, err := a.udpInlets.Create(t.Context(), resource.UDPInlet{Name: name, From: "127.0.0.1:0", To: way + to}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.CreateInlet(t.Context(), admin.InletRequest{Alias: "wrong", From: "127.0.0.1:0", To: way + "dns"}); err != nil {
		t.Fatal(err)
	}
	status := func(name string) resource.Status {
		i, _ := a.udpInlets.Get(name)
		return i.Status
	}
	until(t, "the right one is up", func() bool { return status("right").State == resource.Up })
	until(t, "one to an outlet for TCP is down", func() bool { return status("tcp").State == resource.Down && status("tcp").Refused })
	until(t, "one to nothing is down", func() bool { return status("none").State == resource.Down })
	until(t, "one for TCP to an outlet for UDP is down", func() bool {
		i, _ := a.inlets.Get("wrong")
		return i.Status.State == resource.Down && i.Status.Refused
	})
}

// TestDatagramsTargetAway: an outlet for UDP says when nobody listens at its target.
func TestDatagramsTargetAway(t *testing.T) {
	n := udpNode(t, "n", "")
	_, port, _ := net.SplitHostPort(datagramEcho(t))
	target := "127.0.77.1:" + port // the server is at another address
	if _, err := n.udpOutlets.Create(t.Context(), resource.UDPOutlet{Name: "dns", To: target}); err != nil {
		t.Fatal(err)
	}
	in, err := n.udpInlets.Create(t.Context(), resource.UDPInlet{Name: "in", From: "127.0.0.1:0", To: "/service/dns"})
	if err != nil {
		t.Fatal(err)
	}
	if s := n.UDPOutlets()[0].State; s.State != resource.Up {
		t.Errorf("before the first datagram: %+v", s)
	}
	c := newAsker(t, in.Value.portal.Bound().String())
	until(t, "the outlet is degraded", func() bool {
		c.heard("hello", time.Millisecond)
		s := n.UDPOutlets()[0].State
		return s.State == resource.Degraded && strings.Contains(s.Reason, target)
	})
}

// TestDatagramsPolicy: who may use an outlet for UDP is decided by its policy, or that of its type, or that of outlets for TCP; what is taken back ends flows.
func TestDatagramsPolicy(t *testing.T) {
	a, b := udpNode(t, "a", ""), udpNode(t, "b", "")
	who := "subject.identifier"
	admit, other := fmt.Sprintf("(= %s %q)", who, a.opts.Self), fmt.Sprintf("(= %s %q)", who, b.opts.Self)
	o := resource.UDPOutlet{Name: "dns", To: datagramEcho(t), Allow: other}
	if _, err := b.udpOutlets.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.Listening())
	made, err := a.udpInlets.Create(t.Context(), resource.UDPInlet{Name: "in", From: "127.0.0.1:0", To: "/ip4/127.0.0.1/tcp/" + port + "/secure/api/service/dns"})
	if err != nil {
		t.Fatal(err)
	}
	denied := func() {
		t.Helper()
		until(t, "the inlet says that it is denied", func() bool {
			i, _ := a.udpInlets.Get("in")
			return i.Status.Denied
		})
		if n := b.flowsOf("udp-outlet", "dns"); n != 0 {
			t.Errorf("%d flows", n)
		}
	}
	denied()
	c := newAsker(t, made.Value.portal.Bound().String())
	if err := b.SetPolicy(t.Context(), resource.Policy{Resource: "dns", Expression: admit}); err != nil {
		t.Fatal(err)
	}
	c.ask("allowed by name")
	if err := b.SetPolicy(t.Context(), resource.Policy{Resource: "dns", Expression: other}); err != nil {
		t.Fatal(err)
	}
	until(t, "the flow ends", func() bool { return b.flowsOf("udp-outlet", "dns") == 0 })
	denied()
	m := b.datagram.Meters()[0]
	if m.Ended[1].Load() != 1 {
		t.Errorf("%d flows were ended by the policy", m.Ended[1].Load())
	}
}
