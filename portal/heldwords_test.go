package portal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/portal/httpheader"
	"sallyport/routing"
)

// TestWhoIsOwedAWord: of the connections of a shard that owe their other end a word each is told once, also when another has left meanwhile; who said so
// with something else is not told again.
func TestWhoIsOwedAWord(t *testing.T) {
	alone(t, func(n *node, c *conn, sent func() [][]byte) {
		k := n.env.keeper(c.shard)
		list := make([]*conn, 4)
		for i := range list {
			o := n.env.newConn(c.shard, n.env.meters.take(EndInlet, "test"))
			o.self, o.route, o.state, o.extended, o.version = c.shard.Start(o), c.route, open, true, resumeVersion
			o.newLine(time.Minute)
			o.window.received = uint64(i + 1)
			o.line.owing = true
			k.owe(o)
			if i == 0 && (!k.ticking || k.timer == nil) {
				t.Error("nobody will look")
			}
			list[i] = o
		}
		timer := k.timer
		k.leave(list[1]) // from the middle
		if list[1].line.owing {
			t.Error("who has left is owed something here")
		}
		k.leave(list[1])
		if len(k.owing) != 3 {
			t.Errorf("%d are owed a word", len(k.owing))
		}
		list[3].line.told = list[3].got()
		k.tick()
		told := map[uint64]int{}
		for _, b := range sent() {
			m, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			told[m.confirmed]++
		}
		if len(told) != 2 || told[1] != 1 || told[3] != 1 {
			t.Errorf("told %v", told)
		}
		for i, o := range list {
			if o.line.owing {
				t.Errorf("%d is owed a word still", i)
			}
		}
		if k.ticking || len(k.owing) != 0 {
			t.Error("it goes on")
		}
		k.owe(list[0])
		if !k.ticking || k.timer != timer || len(k.owing) != 1 {
			t.Error("the next one is not looked at, or with another timer")
		}
		list[0].line.owing = true
		k.leave(list[0])
		if len(k.owing) != 0 {
			t.Error("the only one has left and is there")
		}
	})
}

// TestBehindIsSentFirst: what is sent again goes before anything that is read; who has nothing to send again reads.
func TestBehindIsSentFirst(t *testing.T) {
	alone(t, func(_ *node, c *conn, _ func() [][]byte) {
		c.newLine(time.Minute)
		c.line.add([]byte("hello"))
		if c.resume(); c.line.posted {
			t.Error("something is sent again that was not lost")
		}
		c.state = away
		if !c.line.rewind(2) || c.line.posted {
			t.Error("posted")
		}
		if c.resume(); c.line.posted {
			t.Error("something is sent again while there is no path")
		}
		c.state = open
		if c.resume(); !c.line.posted {
			t.Error("what the other end has not got is not sent")
		}
	})
}

// TestResumeUnderAPolicy: who is still allowed goes on over the next path, with the bytes counted at both ends, and is reset when the grant is taken back
// afterwards.
func TestResumeUnderAPolicy(t *testing.T) {
	target, ch := served(t)
	grants := make(chan *Grant, 100)
	guard := guardFunc(func(*[32]byte) *Grant {
		g := NewGrant(true)
		grants <- g
		return g
	})
	s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target, Guard: guard})
	s.connect(t)
	client, server := s.pair(t, ch)
	first := <-grants
	s.cut()
	s.connect(t)
	talk(t, client, server)
	eventually(t, "resumed at both ends", func() bool { return s.out.env.Stats.Resumed.Load() == 1 && s.in.env.Stats.Resumed.Load() == 1 })
	for name, n := range map[string]*simNode{"inlet": s.in, "outlet": s.out} {
		eventually(t, name+": 10 bytes read and 10 written", func() bool { return n.env.bytesIn() == 10 && n.env.bytesOut() == 10 })
	}
	if n := s.out.env.Stats.Denied.Load(); n != 0 {
		t.Errorf("%d denied", n)
	}
	first.Set(false) // of the path before: nobody holds it
	talk(t, client, server)
	(<-grants).Set(false)
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	s.idle(t)
}

// TestNextProgramAsksThePolicy: the inlet of the next program asks its own policy when somebody has shown who is at the other end.
func TestNextProgramAsksThePolicy(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		target, ch := served(t)
		s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
		s.connect(t)
		client, server := s.pair(t, ch)
		next := leave(t, s.in, s.near, s.far, s.inlet.writtenDown)
		s.in = newSimNode(t, 2, Limits{})
		grant := NewGrant(allowed)
		var err error
		s.inlet, err = NewInlet(context.Background(), s.in.env, s.in.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: time.Minute,
			Carried: Take(&next.Inlets, "in"), Guard: gate{grant}})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.in.env.Stats.Away.Load(); n != 1 {
			t.Errorf("%d connections wait for a path", n)
		}
		s.connect(t)
		if !allowed {
			expectReset(t, "client", client)
			if n := s.in.env.Stats.Denied.Load(); n != 1 || s.in.env.Stats.Ended[ReasonPolicy].Load() != 1 {
				t.Errorf("%d denied", n)
			}
			continue
		}
		talk(t, client, server)
		grant.Set(false)
		expectReset(t, "client", client)
	}
}

// TestTargetThatMoved: a target of one address that refuses is asked for by name the next time; one that answers is not.
func TestTargetThatMoved(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, func(c net.Conn) {
		defer c.Close()
		io.Copy(c, c)
	}))
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), target.Port())
	var asked atomic.Int32
	var now atomic.Pointer[netip.AddrPort]
	l := newLink(t, "", false, Limits{}, Limits{})
	if _, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: "db.example:5", Flows: []*routing.Flow{l.b.ln.Flow},
		Resolve: func(context.Context, string) ([]netip.AddrPort, error) {
			asked.Add(1)
			return []netip.AddrPort{*now.Load()}, nil
		}}); err != nil {
		t.Fatal(err)
	}
	refused := func(n uint64) {
		t.Helper()
		if c, err := net.Dial("tcp", l.in.Bound().String()); err == nil {
			_, _ = io.ReadAll(c)
			c.Close()
		}
		eventually(t, "refused", func() bool { return l.a.env.Stats.Ended[ReasonRefused].Load() == n })
	}
	answers := func() {
		t.Helper()
		c := dial(t, l.in)
		c.Write([]byte("hello"))
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	now.Store(&dead)
	refused(1)
	refused(2)
	now.Store(&target)
	answers()
	answers()
	if n := asked.Load(); n != 3 {
		t.Errorf("asked for %d times, not after each refusal only", n)
	}
}

// TestWhyItIsLeft: what of a connection cannot be carried is told by its reason; one that is on its way is waited for, and one that has ended is nothing.
func TestWhyItIsLeft(t *testing.T) {
	alone(t, func(n *node, c *conn, _ func() [][]byte) {
		whole := func() {
			c.home.Store(c.shard)
			c.state, c.outlet, c.upstream, c.downstream, c.left, c.piped, c.skip, c.hasPeer, c.version = open, false, nil, nil, false, false, false, true, resumeVersion
			c.newLine(time.Minute)
		}
		for name, x := range map[string]struct {
			change  func()
			bridged bool
			left    string
			err     error
			conns   int
		}{
			"open":                      {func() {}, false, "", nil, 1},
			"away":                      {func() { c.state = away }, false, "", nil, 1},
			"ended":                     {func() { c.state = ended }, false, "", nil, 0},
			"moving":                    {func() { c.home.Store(nil) }, false, "", ErrMoving, 0},
			"rewritten":                 {func() { c.upstream = &upstream{} }, false, leftRewriter, nil, 0},
			"TLS":                       {func() {}, true, leftTLS, nil, 0},
			"rewritten with TLS":        {func() { c.upstream = &upstream{} }, true, leftRewriter, nil, 0},
			"of an old version":         {func() { c.line, c.version = nil, 1 }, false, leftVersion, nil, 0},
			"of the reference":          {func() { c.line, c.version = nil, 0 }, false, leftVersion, nil, 0},
			"not held":                  {func() { c.line = nil }, false, leftHold, nil, 0},
			"without a channel":         {func() { c.line, c.hasPeer = nil, false }, false, leftPlain, nil, 0},
			"without a handshake":       {func() { c.line, c.skip, c.version = nil, true, 0 }, false, leftSkip, nil, 0},
			"an outlet that is opening": {func() { c.outlet, c.state = true, opening }, false, leftOpening, nil, 0},
			"an inlet that is opening":  {func() { c.state = opening }, false, leftOther, nil, 0},
		} {
			whole()
			x.change()
			c.piped = x.bridged
			var to Carried
			var p CarriedPortal
			if err := c.writeDown(&to, &p, true); !errors.Is(err, x.err) || err != nil && x.err == nil {
				t.Errorf("%s: %v", name, err)
			}
			if len(p.Conns) != x.conns || len(to.Left) != len(x.left)/max(1, len(x.left)) || to.Left[x.left] != len(to.Left) || c.left != (x.left != "") {
				t.Errorf("%s: %d carried, left %v, marked %v", name, len(p.Conns), to.Left, c.left)
			}
		}
		whole()
	})
	// What a program is asked with has neither secrets nor bytes, what it goes on with has both, all of it.
	good := func() CarriedConn {
		return CarriedConn{Socket: CarriedSocket{FD: -1}, ID: make([]byte, 16), Secret: make([]byte, 16), Peer: make([]byte, 32), Version: resumeVersion,
			Sent: 10, Confirmed: 4, Kept: make([]byte, 6), Received: 3, Allowed: 5}
	}
	for name, x := range map[string]struct {
		change     func(*CarriedConn)
		data, fits bool
	}{
		"asked":                          {func(k *CarriedConn) { k.Secret, k.Kept = nil, nil }, false, true},
		"asked, with a secret":           {func(k *CarriedConn) { k.Kept = nil }, false, false},
		"asked, with bytes":              {func(k *CarriedConn) { k.Secret = nil }, false, false},
		"all is confirmed":               {func(k *CarriedConn) { k.Confirmed, k.Kept = 10, nil }, true, true},
		"its end too":                    {func(k *CarriedConn) { k.Confirmed, k.Kept = 11, nil }, true, true},
		"more is confirmed than is sent": {func(k *CarriedConn) { k.Confirmed, k.Kept = 12, nil }, true, false},
		"all that may come has come":     {func(k *CarriedConn) { k.Received = 5 }, true, true},
		"more has come":                  {func(k *CarriedConn) { k.Received = 6 }, true, false},
		"the last reason":                {func(k *CarriedConn) { k.Gone = byte(reasonCount) - 1 }, true, true},
		"no reason that there is":        {func(k *CarriedConn) { k.Gone = byte(reasonCount) }, true, false},
	} {
		k := good()
		if x.change(&k); k.fits(x.data) != x.fits {
			t.Errorf("%s: fits %v", name, !x.fits)
		}
		c := Carried{Outlets: []CarriedPortal{{Name: "db", Conns: []CarriedConn{k}}}}
		if err := c.Check(x.data); (err == nil) != x.fits || err != nil && !errors.Is(err, errCarried) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWaitingIsCarried: a client that waits for its outlet's answer is carried with what it was offered with, so that it is not opened twice; one that
// cannot be resumed has nothing to be known by.
func TestWaitingIsCarried(t *testing.T) {
	for _, hold := range []time.Duration{time.Minute, 0} {
		dialling, letGo := make(chan struct{}, 10), make(chan struct{})
		t.Cleanup(func() { close(letGo) })
		s := newSimulated(t, 1, 1, Limits{}, hold, OutletOptions{Dial: func(context.Context, Origin) (Piped, error) {
			dialling <- struct{}{}
			<-letGo
			return Piped{}, errors.New("no")
		}})
		s.inlet.handing.Add(1)
		if err := s.inlet.writtenDown(&Carried{}, false); !errors.Is(err, ErrMoving) {
			t.Errorf("while a client is handed over: %v", err)
		}
		s.inlet.handing.Add(-1)
		early := dial(t, s.inlet) // before there is a path
		eventually(t, "one waits for a path", func() bool { return s.in.env.Stats.Held.Load() == 1 })
		for _, wants := range []bool{false, true} {
			if wants {
				s.connect(t)
				<-dialling
			}
			release, err := s.in.router.Group().Halt(limited(t))
			if err != nil {
				t.Fatal(err)
			}
			var c Carried
			err = s.inlet.writtenDown(&c, false)
			release()
			if err != nil || len(c.Inlets) != 1 || len(c.Inlets[0].Waiting) != 1 || len(c.Inlets[0].Conns) != 0 || len(c.Left) != 0 {
				t.Fatalf("%+v, %v", c, err)
			}
			w := c.Inlets[0].Waiting[0]
			if offered := wants && hold > 0; offered != (len(w.ID) == len(token{})) || offered != (w.Again == 1) || w.FD <= 0 {
				t.Errorf("hold %v, offered %v: %+v", hold, wants, w)
			}
			seen := 0
			c.Each(func(fd int) {
				if fd == w.FD {
					seen++
				}
			})
			if seen != 1 {
				t.Errorf("its socket is there %d times", seen)
			}
		}
		early.Close()
	}
}

// TestWaitingStaysAsWrittenDown: what would change or close clients that wait for a path does so when the loops go on: their descriptors are to be those of the
// next program, whatever became of them in the meantime.
func TestWaitingStaysAsWrittenDown(t *testing.T) {
	for name, change := range map[string]func(*simulated){
		"it is looked who has gone": func(s *simulated) { s.inlet.expire() },
		"there is a path":           func(s *simulated) { s.inlet.SetPath(routing.LocalRoute("nobody")) },
		"nobody will serve them":    func(s *simulated) { s.inlet.Refuse("no") },
	} {
		s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{})
		client := dial(t, s.inlet)
		eventually(t, "it waits", func() bool { return s.in.env.Stats.Held.Load() == 1 })
		release, err := s.in.router.Group().Halt(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		var c Carried
		letGo, err := s.inlet.Carry(&c, false)
		if err != nil || len(c.Inlets) != 1 || len(c.Inlets[0].Waiting) != 1 {
			t.Fatalf("%s: %+v, %v", name, c, err)
		}
		client.Close()
		changed := make(chan struct{})
		go func() {
			change(s)
			close(changed)
		}()
		select {
		case <-changed:
			t.Errorf("%s: it was changed behind what is written down", name)
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := unix.FcntlInt(uintptr(c.Inlets[0].Waiting[0].FD), unix.F_GETFD, 0); err != nil {
			t.Errorf("%s: its descriptor: %v", name, err)
		}
		letGo()
		release()
		<-changed
		eventually(t, name, func() bool { return s.in.env.Stats.Held.Load() == 0 })
	}
}

// TestFinishAfterAPause: an end that the other end may not have is sent again over a new path also where that path has no room just when it comes to it.
func TestFinishAfterAPause(t *testing.T) {
	for _, bytes := range []int{0, 10} { // to be sent again before it
		alone(t, func(_ *node, c *conn, sent func() [][]byte) {
			c.extended, c.version, c.readDone = true, resumeVersion, true
			c.newLine(time.Minute)
			c.line.add(make([]byte, bytes))
			c.line.finished = true
			c.PauseSource()
			c.goOn(c.route, 0, 1<<20)
			c.catchUp()
			if got := sent(); len(got) != 0 {
				t.Errorf("%d bytes: %x was sent while there was no room", bytes, got)
			}
			c.line.posted = false // what goOn posted was the call above
			if c.ResumeSource(); !c.line.posted {
				t.Errorf("%d bytes: nobody comes back to it", bytes)
			}
			c.catchUp()
			got := sent()
			if want := 1 + bytes/10; len(got) != want || got[len(got)-1][0] != kindFinish {
				t.Errorf("%d bytes: %x was sent", bytes, got)
			}
			c.ResumeSource()
			c.catchUp() // once more, as over a path that was left
			if got := sent(); len(got) != 0 {
				t.Errorf("%d bytes: %x was sent again", bytes, got)
			}
			c.end(ReasonReset, false)
		})
	}
}

// TestCalledFromWaiting: clients that waited, and are on their way to a path, can't be written down: they are in no list.
func TestCalledFromWaiting(t *testing.T) {
	s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{})
	fd, own := giving(t)
	_ = own.Close()
	said := make(chan error, 1)
	s.inlet.Give(fd, &Watch{Ended: func(Reason) { said <- s.inlet.writtenDown(&Carried{}, false) }})
	s.inlet.SetPath(routing.LocalRoute("nobody"))
	if err := <-said; !errors.Is(err, ErrMoving) {
		t.Errorf("carried on: %v", err)
	}
	if err := s.inlet.writtenDown(&Carried{}, false); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestAsManyHandshakes: of the clients whose taking takes long as many are taken at a time as may wait, and places come back.
func TestAsManyHandshakes(t *testing.T) {
	n := newNode(t, 1, Limits{HoldClients: 2})
	begun, letGo := make(chan int, 10), make(chan struct{})
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Accept: func(_ context.Context, fd int) (Piped, error) {
			begun <- fd
			<-letGo
			closeFD(fd)
			return Piped{}, errors.New("no")
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(context.Background()) })
	for range 2 {
		dial(t, in)
		<-begun
	}
	third, err := net.Dial("tcp", in.Bound().String())
	if err == nil {
		_ = third.SetDeadline(time.Now().Add(90 * time.Second))
		if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one too many: %v", err)
		}
	}
	eventually(t, "counted", func() bool { return n.env.Stats.Ended[ReasonTimeout].Load() == 1 })
	letGo <- struct{}{}
	letGo <- struct{}{}
	eventually(t, "places are free", func() bool { return in.accepting.Load() == 0 })
	dial(t, in)
	<-begun
	close(letGo)
	eventually(t, "the last is gone", func() bool { return in.accepting.Load() == 0 })
	if n := n.env.Stats.Ended[ReasonTimeout].Load(); n != 1 {
		t.Errorf("%d are refused", n)
	}
}

// TestWhatAnInterceptorReads: kinds, data and counters of messages; sizes of headers at every bound.
func TestWhatAnInterceptorReads(t *testing.T) {
	for _, c := range []struct {
		b       []byte
		kind    Kind
		data    string
		counter int
	}{
		{[]byte{KindPayload, 2, 'a', 'b'}, KindPayload, "ab", -1}, {[]byte{KindPayload, 1, 'a', 1, 7, 1}, KindPayload, "a", 263}, {[]byte{KindPing}, KindPing, "", -1},
		{[]byte{KindPong}, KindPong, "", -1}, {[]byte{KindDisconnect}, KindDisconnect, "", -1},
	} {
		if kind, data, counter, err := Read(c.b); err != nil || kind != c.kind || string(data) != c.data || counter != c.counter {
			t.Errorf("%x: %d %q %d, %v", c.b, kind, data, counter, err)
		}
	}
	if _, data, counter, err := Read([]byte{KindPayload, 9}); !errors.Is(err, ErrMessage) || data != nil || counter != -1 {
		t.Errorf("%q %d, %v", data, counter, err)
	}
	for _, size := range []int{0, 1, 127, 128, 16383, 16384, MaxPayload} {
		want := encode(KindPayload, make([]byte, size))
		n := PayloadHeaderSize(size)
		b := make([]byte, n+size)
		PutPayloadHeader(b, n, size)
		if !bytes.HasPrefix(want, b[:n]) || n != len(want)-size && n != len(want)-size-2 {
			t.Errorf("%d bytes have the header %x, want %x", size, b[:n], want[:n])
		}
	}
}

// TestRewrittenIsForgotten: what was sent of a rewritten stream is not kept.
func TestRewrittenIsForgotten(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	t.Cleanup(server.Close)
	l := newHTTPLink(t, server.Listener.Addr().String(), false, httpheader.Field{Name: "A", Value: "b"})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	for range 3 {
		resp, err := client.Post("http://"+l.in.Bound().String(), "text/plain", bytes.NewReader(make([]byte, 10)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	if len(l.in.conns) != 1 {
		t.Fatalf("%d connections", len(l.in.conns))
	}
	for c := range l.in.conns {
		if err := c.shard.Do(limited(t), func() {
			if u := c.upstream; len(u.out) != 0 || u.sent != 0 || len(u.in) != 0 {
				t.Errorf("%d bytes are kept that were sent", len(u.out))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
