package node

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/routing"
)

// TestProgramConnections: a program's dialer and another one's listener have a stream of bytes in both directions, each knows who the other is, and why it
// ended.
func TestProgramConnections(t *testing.T) {
	a, b := newMember(t), newMember(t)
	ctx := within(t)
	l, err := b.OpenListener(ctx, resource.Outlet{Name: "app", To: "203.0.113.1:1", Allow: only(a)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.OpenDialer(ctx, resource.Inlet{Alias: "to-app", From: "203.0.113.1:1", To: b.route() + "/secure/api/service/app"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Conn.Close()
	defer got.Conn.Close()
	if s.Peer == nil || *s.Peer != b.self || got.Peer == nil || *got.Peer != a.self || got.Client.IsValid() {
		t.Errorf("the dialer sees %v, the listener %v of %v", s.Peer, got.Peer, got.Client)
	}
	if d.Status().State != resource.Up {
		t.Errorf("%+v", d.Status())
	}
	if o := b.Outlets(); len(o) != 1 || o[0].To != program {
		t.Errorf("%+v", o)
	}
	for _, way := range [][2]*Stream{{s, got}, {got, s}} {
		if _, err := way[0].Conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		heard := make([]byte, 5)
		if _, err := io.ReadFull(way[1].Conn, heard); err != nil || string(heard) != "hello" {
			t.Errorf("%q, %v", heard, err)
		}
	}
	for _, one := range []*Stream{s, got} {
		if reason, over := one.Ended(); over {
			t.Errorf("ended already: %v", reason)
		}
	}
	if err := s.Conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(got.Conn); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	_ = got.Conn.Close()
	if rest, err := io.ReadAll(s.Conn); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	for _, one := range []*Stream{s, got} {
		settles(t, "it has ended", func() bool { reason, over := one.Ended(); return over && reason == portal.ReasonNone })
	}

	// What is taken back ends what is open; the reason is told.
	if s, err = d.Dial(ctx); err != nil {
		t.Fatal(err)
	}
	defer s.Conn.Close()
	setPolicy(t, b.policies, policy.ByName("app"), `(= subject.identifier "nobody")`)
	settles(t, "it is ended by the policy", func() bool { reason, over := s.Ended(); return over && reason == portal.ReasonPolicy })
	if err := d.Close(ctx); err != nil || len(a.Inlets()) != 0 {
		t.Errorf("%v, %+v", err, a.Inlets())
	}
}

// TestProgramListenerEnds: who waits for a connection is told when the listener ends, its own patience or the node; what was not accepted is closed, and
// what comes late is refused.
func TestProgramListenerEnds(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	l, err := m.OpenListener(ctx, resource.Outlet{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenListener(ctx, resource.Outlet{Name: "app"}); err == nil {
		t.Error("two listeners have one name")
	}
	for name, bad := range map[string]resource.Outlet{"hold": {Name: "x", Hold: "no time"}, "policy": {Name: "x", Allow: "(no policy"}} {
		if _, err := m.OpenListener(ctx, bad); err == nil {
			t.Errorf("a bad %s is taken", name)
		}
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Accept(over); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody has come: %v", err)
	}
	peer := [32]byte(numbered(5))
	for range maxAccepting {
		p, err := l.take(ctx, portal.Origin{Peer: &peer})
		if err != nil || p.FD < 0 {
			t.Fatal(err)
		}
		defer unix.Close(p.FD)
	}
	if _, err := l.take(over, portal.Origin{}); !errors.Is(err, context.Canceled) {
		t.Errorf("one more than may wait: %v", err)
	}
	first, err := l.Accept(ctx)
	if err != nil || first.Peer == nil || *first.Peer != numbered(5) {
		t.Fatalf("%+v, %v", first, err)
	}
	_ = first.Conn.Close()
	waits := <-l.queue
	l.queue <- waits
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(ctx); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if len(l.queue) != 0 {
		t.Errorf("%d are left waiting", len(l.queue))
	}
	if _, err := waits.Conn.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("what was not accepted is open: %v", err)
	}
	if _, err := l.Accept(ctx); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := l.take(ctx, portal.Origin{}); !errors.Is(err, errNoListener) || len(l.queue) != 0 {
		t.Errorf("taken after the end: %v", err)
	}
	if len(m.Outlets()) != 0 {
		t.Errorf("%+v", m.Outlets())
	}
	again, err := m.OpenListener(ctx, resource.Outlet{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := again.Accept(ctx); ended <- err }()
	m.Stop()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the node has stopped: %v", err)
	}
}

// TestProgramDialsInVain: why no connection comes: no outlet, a policy, no path, a node that stops, the program's own patience.
func TestProgramDialsInVain(t *testing.T) {
	a, b := newMember(t), newMember(t)
	ctx := within(t)
	if _, err := b.OpenListener(ctx, resource.Outlet{Name: "closed", Allow: `(= subject.identifier "nobody")`}); err != nil {
		t.Fatal(err)
	}
	a.portals.Limits.HoldTimeout = 300 * time.Millisecond
	dialer := func(alias, to string) *Dialer {
		t.Helper()
		d, err := a.OpenDialer(ctx, resource.Inlet{Alias: alias, To: to, NoConnectionWait: true})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	away := dialer("away", "/ip4/127.0.0.1/tcp/1/secure/api/service/app")
	for _, c := range []struct {
		d      *Dialer
		reason portal.Reason
		says   string
	}{
		{dialer("none", b.route()+"/secure/api/service/none"), portal.ReasonRefused, "there is no outlet none"},
		{dialer("closed", b.route()+"/secure/api/service/closed"), portal.ReasonPolicy, "policy"},
		{away, portal.ReasonPath, "connection refused"},
	} {
		settles(t, "dialled in vain: "+c.says, func() bool {
			s, err := c.d.Dial(ctx)
			if s != nil {
				t.Fatal("it was dialled")
			}
			var e *StreamError
			return errors.As(err, &e) && e.Reason == c.reason && strings.Contains(err.Error(), c.says)
		})
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := away.Dial(over); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the program's patience: %v", err)
	}
	if e := (&StreamError{Reason: portal.ReasonTimeout}); e.Error() != portal.ReasonTimeout.String() {
		t.Errorf("without a detail it is %q", e.Error())
	}
	if _, err := a.OpenDialer(ctx, resource.Inlet{Alias: "away", To: "/ip4/127.0.0.1/tcp/1/secure/api/service/app"}); err == nil {
		t.Error("two dialers have one name")
	}
	a.Stop()
	var e *StreamError
	if _, err := away.Dial(ctx); !errors.As(err, &e) || e.Reason != portal.ReasonShutdown {
		t.Errorf("the node has stopped: %v", err)
	}
}

// TestProgramRegisters: a program waits for its name at a relay, and hears why it does not get it.
func TestProgramRegisters(t *testing.T) {
	p := newProject(t, 0)
	relay, m, stranger := p.join(nil, ""), p.join(map[string]string{"ockam-relay": "app"}, "p"), newMember(t)
	ctx := within(t)
	r, err := m.Register(ctx, resource.Relay{Name: "app", At: relay.route() + "/secure/api"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(ctx); err != nil || metricsOf(t, relay.Node)["relay_names"] != 1 {
		t.Errorf("%v, %v names", err, metricsOf(t, relay.Node)["relay_names"])
	}
	if _, err := m.Register(ctx, resource.Relay{Name: "app", At: relay.route() + "/secure/api"}); err == nil {
		t.Error("one name registered twice")
	}
	if err := r.Close(ctx); err != nil || len(m.Relays()) != 0 {
		t.Errorf("%v, %+v", err, m.Relays())
	}
	if r, err = stranger.Register(ctx, resource.Relay{Name: "app", At: relay.route() + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(ctx); !errors.Is(err, ErrRelayDenied) {
		t.Errorf("a stranger: %v", err)
	}
	if r, err = stranger.Register(ctx, resource.Relay{Name: "other", At: "/ip4/127.0.0.1/tcp/1/secure/api"}); err != nil {
		t.Fatal(err)
	}
	settles(t, "it fails once", func() bool { _, _, failure := r.rel.session.state(); return failure != nil })
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.Wait(over); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody is there: %v", err)
	}
}

// heardMail is a worker that keeps the messages of its program until it may go on.
type heardMail struct {
	*ProgramWorker
	come  chan Mail
	goOn  chan struct{}
	ended chan struct{}
}

func startMail(t *testing.T, n *Node, name, allow string) *heardMail {
	t.Helper()
	h := &heardMail{come: make(chan Mail, 4*maxMail), goOn: make(chan struct{}), ended: make(chan struct{})}
	var once sync.Once
	var err error
	h.ProgramWorker, err = n.StartWorker(within(t), name, allow, func(ctx context.Context, w *ProgramWorker, m Mail) {
		h.come <- m
		w.Answer(m, append([]byte("re "), m.Payload[:min(len(m.Payload), 8)]...))
		select {
		case <-h.goOn:
		case <-ctx.Done():
			once.Do(func() { close(h.ended) })
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestProgramMessages: a program's worker hears whom its policy admits, knows who it is, and can answer; the way there ends with the node.
func TestProgramMessages(t *testing.T) {
	a, b, other := newMember(t), newMember(t), newMember(t)
	ctx := within(t)
	w := startMail(t, b.Node, "mail", only(a))
	close(w.goOn)
	// Whoever cannot have a name leaves the policy of whoever has it.
	if _, err := b.StartWorker(ctx, "mail", "", nil); !errors.Is(err, admin.ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err := b.StartWorker(ctx, "mail2", "(no policy", nil); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a policy that is none: %v", err)
	}
	path := func(m *member, to, authorized string) (*Path, *routing.Mailbox) {
		t.Helper()
		p, err := m.OpenPath(ctx, mustRoute(t, to), "", authorized)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		box, err := p.Mailbox(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(box.Close)
		return p, box
	}
	to := routing.LocalRoute("mail")
	p, box := path(a, b.route()+"/secure/api", b.self.String())
	if p.Peer() == nil || *p.Peer() != b.self {
		t.Errorf("at the end of the path is %v", p.Peer())
	}
	if plain, _ := path(a, b.route(), ""); plain.Peer() != nil {
		t.Errorf("without a channel %v is at the end", plain.Peer())
	}
	if _, err := a.OpenPath(ctx, mustRoute(t, b.route()+"/secure/api"), "", a.self.String()); err == nil {
		t.Error("somebody else is at the end of the path")
	}
	if _, err := a.OpenPath(ctx, mustRoute(t, b.route()+"/secure/api"), "", "nobody"); err == nil {
		t.Error("what is no identifier is authorized")
	}
	denied := b.portals.Stats.Denied.Load()
	foreign, foreignBox := path(other, b.route()+"/secure/api", "")
	foreignBox.Send(foreign.Route().Concat(to), []byte("foreign"))
	settles(t, "a stranger is refused", func() bool { return b.portals.Stats.Denied.Load() == denied+1 })
	box.Send(p.Route().Concat(to), []byte("hello"))
	m := <-w.come
	if string(m.Payload) != "hello" || m.Peer == nil || *m.Peer != a.self {
		t.Errorf("%q of %v", m.Payload, m.Peer)
	}
	if reply, err := box.Receive(ctx); err != nil || string(reply.Payload) != "re hello" {
		t.Errorf("%q, %v", reply.Payload, err)
	}
	w.Answer(Mail{Payload: []byte("nobody's")}, nil) // goes nowhere
	select {
	case <-p.Done():
		t.Error("the path is over")
	default:
	}
	b.Stop()
	<-p.Done()
}

// TestProgramWorkerBounds: what a worker's program does not take waits, up to a number and a size; what is more is dropped and counted. When it
// closes, its handler is told, and the name and its policy are free.
func TestProgramWorkerBounds(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	overflow := func() (n uint64) {
		for _, s := range m.router.Shards() {
			n += s.Drops.Overflow.Load()
		}
		return n
	}
	take := func(w *heardMail, size int) {
		t.Helper()
		s, mail := m.router.Shards()[0], &routing.Message{}
		mail.SetPayloadBytes(make([]byte, size))
		if err := s.Do(ctx, func() { w.take(s, mail) }); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ size, fit int }{"many": {1, maxMail}, "large": {maxMailBytes / 8, 8}, "one": {maxMailBytes + 1, 0}} {
		w := startMail(t, m.Node, name, "")
		before := overflow()
		if c.fit > 0 {
			take(w, c.size)
			<-w.come // the handler has it
		}
		for range c.fit {
			take(w, c.size)
		}
		if n := overflow() - before; n != 0 {
			t.Errorf("%s: %d of those that fit are dropped", name, n)
		}
		take(w, c.size)
		take(w, c.size)
		if n := overflow() - before; n != 2 {
			t.Errorf("%s: %d of two too many are dropped", name, n)
		}
		if c.fit > 0 {
			w.goOn <- struct{}{}
			<-w.come
			take(w, c.size)
			take(w, c.size)
			if n := overflow() - before; n != 3 {
				t.Errorf("%s: with room for one again %d of two are dropped", name, n-2)
			}
		}
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := w.Close(ctx); err != nil {
			t.Errorf("closed twice: %v", err)
		}
		if c.fit > 0 {
			<-w.ended
		}
		if m.router.HasNamed(name) || m.policies.Get(policy.Own(ownWorker, name)) != nil {
			t.Errorf("the name %s is kept, or its policy", name)
		}
		again := startMail(t, m.Node, name, `(= subject.identifier "nobody")`)
		denied := m.portals.Stats.Denied.Load()
		if take(again, 1); m.portals.Stats.Denied.Load() != denied+1 || m.policies.Get(again.guard.own) == nil {
			t.Error("its policy is not asked")
		}
		if err := again.Close(ctx); err != nil {
			t.Error(err)
		}
		if m.policies.Get(again.guard.own) != nil {
			t.Error("its policy is kept")
		}
		third := startMail(t, m.Node, name, "")
		take(third, 1)
		<-third.come
		if err := third.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestProgramDialsWhileListenerCloses: a connection that is asked for when the listener has just closed is refused as soon as its node knows, and not only the next one.
func TestProgramDialsWhileListenerCloses(t *testing.T) {
	a, b := newMember(t), newMember(t)
	ctx := within(t)
	l, err := b.OpenListener(ctx, resource.Outlet{Name: "app", Allow: only(a)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.OpenDialer(ctx, resource.Inlet{Alias: "to-app", To: b.route() + "/secure/api/service/app"})
	if err != nil {
		t.Fatal(err)
	}
	a.portals.Limits.OpenTimeout = time.Hour
	s, err := d.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Conn.Close()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	s, err = d.Dial(ctx)
	var e *StreamError
	if s != nil || !errors.As(err, &e) || e.Reason != portal.ReasonRefused || !strings.Contains(err.Error(), "there is no outlet app") {
		t.Errorf("%v, %v", s, err)
	}
}
