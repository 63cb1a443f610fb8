package portal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/internal/histogram"
	"sallyport/internal/logtext"
	"sallyport/records"
)

// bytesIn and bytesOut are what all portals of a node have carried.
func (e *Env) bytesIn() (n uint64) {
	for _, m := range e.Meters() {
		n += m.BytesIn.Load()
	}
	return n
}

func (e *Env) bytesOut() (n uint64) {
	for _, m := range e.Meters() {
		n += m.BytesOut.Load()
	}
	return n
}

// recorder keeps records.
type recorder struct {
	mu   sync.Mutex
	list []*records.Record
}

func (r *recorder) Record(rec *records.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, rec)
}

func (r *recorder) Attributes(peer *[32]byte) map[string]string {
	return map[string]string{"first": fmt.Sprint(peer[0])}
}

func (r *recorder) take(t testing.TB) *records.Record {
	t.Helper()
	eventually(t, "a record", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.list) > 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) > 1 {
		t.Errorf("%d records of one connection", len(r.list))
	}
	rec := r.list[0]
	r.list = nil
	return rec
}

// record has a node's records kept from now on.
func (m *member) record(t testing.TB, r *recorder) {
	t.Helper()
	for _, s := range m.router.Shards() {
		if err := s.Do(limited(t), func() { m.env.Records = r }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecords: both ends leave a record of each connection with the same number and the same bytes, which say how it ended and by whom.
func TestRecords(t *testing.T) {
	target, servers := served(t)
	c := newChain(t, 1, 1, false, Limits{}, OutletOptions{Target: target})
	near, far := &recorder{}, &recorder{}
	c.inlets[0].record(t, near)
	c.outlet.record(t, far)
	for _, k := range []struct {
		name, outcome, by string
		run               func(client, server *net.TCPConn)
	}{
		{"client ends first", "closed", "client", func(client, server *net.TCPConn) {
			client.CloseWrite()
			io.Copy(io.Discard, server)
			server.Close()
		}},
		{"target ends first", "closed", "target", func(client, server *net.TCPConn) {
			server.CloseWrite()
			io.Copy(io.Discard, client)
			client.Close()
		}},
		{"client resets", "reset", "client", func(client, _ *net.TCPConn) {
			client.SetLinger(0)
			client.Close()
		}},
		{"target resets", "reset", "target", func(_, server *net.TCPConn) {
			server.SetLinger(0)
			server.Close()
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			began := time.Now()
			client := dial(t, c.in[0])
			server := next(t, servers)
			client.Write(bytes.Repeat([]byte("q"), 1000))
			io.ReadFull(server, make([]byte, 1000))
			server.Write(bytes.Repeat([]byte("a"), 3000))
			io.ReadFull(client, make([]byte, 3000))
			k.run(client, server)
			a, b := near.take(t), far.take(t)
			if a.ID == ([16]byte{}) || a.ID != b.ID || a.End != EndInlet || b.End != EndOutlet || a.Portal != "in" || b.Portal != "outlet" {
				t.Errorf("%+v\n%+v", a, b)
			}
			for _, r := range []*records.Record{a, b} {
				if r.ToTarget != 1000 || r.ToClient != 3000 || r.Outcome != k.outcome || r.By != k.by || !r.HasPeer || r.Attributes["first"] != fmt.Sprint(r.Peer[0]) {
					t.Errorf("%+v", r)
				}
				if r.Setup <= 0 || r.FirstByte < r.Setup || r.Began.Before(began.Add(-time.Second)) || r.Ended.Sub(r.Began) < r.FirstByte {
					t.Errorf("times: %+v", r)
				}
			}
			if a.Client != client.LocalAddr().String() || a.Target != "" || b.Client != "" || b.Target != target || b.Address != target {
				t.Errorf("addresses: %+v\n%+v", a, b)
			}
		})
	}
	if traffic := c.relays.Traffic(limited(t)); len(traffic) != 1 || traffic[chainRelay].BytesOut < 4000 || traffic[chainRelay].BytesIn < 12000 || traffic[chainRelay].MessagesIn < 12 {
		t.Errorf("through the relay: %+v", traffic)
	}
	in, out := meterOf(t, c.inlets[0].env, EndInlet), meterOf(t, c.outlet.env, EndOutlet)
	for _, m := range []*Meter{in, out} {
		if m.Opened.Load() != 4 || m.Open.Load() != 0 || m.Ended[ReasonNone].Load() != 2 || m.Ended[ReasonReset].Load() != 2 || m.Refused[ReasonReset].Load() != 0 {
			t.Errorf("%s: %d begun, %d open", m.End(), m.Opened.Load(), m.Open.Load())
		}
		if n, sum, buckets := m.Setup.Counts(); n != 4 || sum <= 0 || buckets[20] != 4 {
			t.Errorf("%s: set up %d in %v: %v", m.End(), n, sum, buckets)
		}
		if n, _, _ := m.Life.Counts(); n != 4 {
			t.Errorf("%s: %d lives", m.End(), n)
		}
		if e := m.Setup.Exemplar(); e == nil || len(e.ID) != 32 {
			t.Errorf("%s: exemplar %+v", m.End(), e)
		}
	}
	if n, _, _ := out.Dial.Counts(); n != 4 || in.BytesIn.Load() != 4000 || in.BytesOut.Load() != 12000 || out.BytesIn.Load() != 12000 || out.BytesOut.Load() != 4000 {
		t.Errorf("%d dials, %d %d %d %d bytes", n, in.BytesIn.Load(), in.BytesOut.Load(), out.BytesIn.Load(), out.BytesOut.Load())
	}
}

func meterOf(t testing.TB, e *Env, end string) *Meter {
	t.Helper()
	for _, m := range e.Meters() {
		if m.End() == end {
			return m
		}
	}
	t.Fatalf("no meter of an %s", end)
	return nil
}

// TestRecordsOfRefusals: who gets no connection has a record too, at both ends, with who said no.
func TestRecordsOfRefusals(t *testing.T) {
	target, _ := served(t)
	for _, k := range []struct {
		name, outcome, by string
		o                 OutletOptions
	}{
		{"target refuses", "target_refused", "target", OutletOptions{Target: "127.0.0.1:" + freeport.For(t)}},
		{"policy", "policy", "outlet", OutletOptions{Target: target, Guard: guardFunc(func(*[32]byte) *Grant { return NewGrant(false) })}},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := newChain(t, 1, 1, false, Limits{}, k.o)
			near, far := &recorder{}, &recorder{}
			c.inlets[0].record(t, near)
			c.outlet.record(t, far)
			if client, err := net.Dial("tcp", c.in[0].Bound().String()); err == nil {
				defer client.Close()
				_ = client.SetReadDeadline(time.Now().Add(90 * time.Second))
				if n, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read %d bytes, %v", n, err)
				}
			} else if !errors.Is(err, syscall.ECONNRESET) { // it may come before Dial has looked
				t.Fatal(err)
			}
			a, b := near.take(t), far.take(t)
			for _, r := range []*records.Record{a, b} {
				if r.Outcome != k.outcome || r.By != k.by || r.ID != a.ID || r.Setup >= 0 || r.FirstByte >= 0 {
					t.Errorf("%+v", r)
				}
			}
			for _, m := range []*Meter{meterOf(t, c.inlets[0].env, EndInlet), meterOf(t, c.outlet.env, EndOutlet)} {
				refused := uint64(0)
				for i := range m.Refused {
					refused += m.Refused[i].Load()
				}
				if refused != 1 || m.Open.Load() != 0 {
					t.Errorf("%s: %d refused, %d open", m.End(), refused, m.Open.Load())
				}
			}
		})
	}
}

// TestClientIsTold: an outlet learns the client's address where the inlet is told to say it, also without a hold.
func TestClientIsTold(t *testing.T) {
	target, servers := served(t)
	c := newChain(t, 1, 1, false, Limits{}, OutletOptions{Target: target})
	c.in[0].opts.TellClient, c.in[0].opts.Hold = true, 0
	far := &recorder{}
	c.outlet.record(t, far)
	c.reconnect(t, 0)
	client := dial(t, c.in[0])
	next(t, servers).Close()
	io.Copy(io.Discard, client)
	client.Close()
	if r := far.take(t); r.Client != client.LocalAddr().String() || r.ID == ([16]byte{}) {
		t.Errorf("%+v", r)
	}
}

// TestMetersAreBounded: portals beyond the limit are counted together, and nothing that was counted is lost when one makes room.
func TestMetersAreBounded(t *testing.T) {
	e := &Env{}
	var list []*Meter
	for i := range maxMeters + 5 {
		m := e.meters.take(EndInlet, fmt.Sprint("p", i))
		m.Opened.Add(1)
		list = append(list, m)
	}
	total := func() (n uint64) {
		for _, m := range e.Meters() {
			n += m.Opened.Load()
		}
		return n
	}
	if n := len(e.Meters()); n != maxMeters+1 || list[maxMeters].Name() != otherPortal || total() != maxMeters+5 {
		t.Errorf("%d meters, the last %s, %d counted", n, list[maxMeters].Name(), total())
	}
	if e.meters.take(EndInlet, "p3") != list[3] {
		t.Error("another meter of the same portal")
	}
	list[7].Open.Add(1)
	e.meters.give(list[7]) // its connection goes on
	e.meters.give(list[8])
	m := e.meters.take(EndOutlet, "new")
	if m.Name() != "new" || total() != maxMeters+5 {
		t.Errorf("%s, %d counted", m.Name(), total())
	}
	for _, m := range e.Meters() {
		if m.name == "p8" {
			t.Error("the meter of a portal that has ended did not make room")
		}
	}
	if m := e.meters.take(EndOutlet, "another"); m.Name() != otherPortal || m.End() != EndOutlet {
		t.Errorf("%s of %s", m.Name(), m.End())
	}
}

// TestMetersShareAll: when a portal's meter makes room, all that it has counted is in the one that the others share.
func TestMetersShareAll(t *testing.T) {
	var ms meters
	m := ms.take(EndInlet, "gone")
	m.BytesIn.Add(1)
	m.BytesOut.Add(2)
	m.Opened.Add(3)
	for i := range m.Ended {
		m.Ended[i].Add(uint64(10 + i))
		m.Refused[i].Add(uint64(100 + i))
	}
	m.Waited.Add(4)
	for i, h := range []*histogram.Histogram{m.Setup, m.Dial, m.Life} {
		for range i + 1 {
			h.Observe(time.Millisecond, [16]byte{}, time.Now())
		}
	}
	ms.give(m)
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if !ms.makeRoom() || len(ms.list) != 1 {
		t.Fatal("it makes no room")
	}
	o := ms.list[[2]string{EndInlet, otherPortal}]
	if o == nil || o.BytesIn.Load() != 1 || o.BytesOut.Load() != 2 || o.Opened.Load() != 3 || o.Waited.Load() != 4 {
		t.Errorf("%+v", o)
	}
	for i := range o.Ended {
		if o.Ended[i].Load() != uint64(10+i) || o.Refused[i].Load() != uint64(100+i) {
			t.Errorf("reason %d: %d ended, %d refused", i, o.Ended[i].Load(), o.Refused[i].Load())
		}
	}
	for i, h := range []*histogram.Histogram{o.Setup, o.Dial, o.Life} {
		if n, _, _ := h.Counts(); n != uint64(i+1) {
			t.Errorf("histogram %d: %d of %d", i, n, i+1)
		}
	}
}

// TestTransfersAreCounted: the bytes of a transfer are counted whichever way a socket was read, into blocks that are kept or not.
func TestTransfersAreCounted(t *testing.T) {
	for _, hold := range []time.Duration{0, time.Minute} {
		target, ch := served(t)
		s := newSimulated(t, 1, 1, Limits{}, hold, OutletOptions{Target: target})
		s.connect(t)
		client, server := s.pair(t, ch)
		const hello, size = 5, 8 << 20
		go func() { _, _ = client.Write(make([]byte, size)) }()
		if n, err := io.CopyN(io.Discard, server, size); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		in, out := meterOf(t, s.in.env, EndInlet), meterOf(t, s.out.env, EndOutlet)
		if a, b := in.BytesIn.Load(), out.BytesOut.Load(); a != hello+size || b != hello+size {
			t.Errorf("hold %v: %d and %d bytes counted of %d", hold, a, b, hello+size)
		}
	}
}

// TestRefusalsAreLogged: an outlet's log names whom a policy has refused, and is silent where the node only leaves.
func TestRefusalsAreLogged(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		target, _ := served(t)
		o := OutletOptions{Target: target}
		if !leaves {
			o.Guard = gate{NewGrant(false)}
		}
		c := newChain(t, 1, 1, false, Limits{}, o)
		var log logtext.Text
		far := &recorder{}
		c.outlet.record(t, far)
		for _, s := range c.outlet.router.Shards() {
			if err := s.Do(limited(t), func() { c.outlet.env.Log = slog.New(slog.NewTextHandler(&log, nil)) }); err != nil {
				t.Fatal(err)
			}
		}
		if leaves {
			c.out.Leave()
		}
		if client, err := net.Dial("tcp", c.in[0].Bound().String()); err == nil { // else it was closed even sooner
			defer client.Close()
		}
		far.take(t)
		peer := [32]byte(c.inlets[0].options.Self)
		if n := strings.Count(log.String(), "portal connection refused"); leaves && n != 0 || !leaves && (n != 1 || !strings.Contains(log.String(), fmt.Sprintf("I%x", peer[:]))) {
			t.Errorf("leaves %v: the log says\n%s", leaves, log.String())
		}
	}
}
