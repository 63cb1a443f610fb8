package routing

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	r := newRouter(t, 1)
	named(t, r, EchoService, Echo(nil, nil))
	named(t, r, "private", Echo(func(m *Message) bool { return m.Peer != nil && m.Peer.ID == [32]byte{1} }, nil))
	m, err := r.Request(limited(t), LocalRoute(EchoService, "ignored"), []byte{1, 2, 0xff})
	if err != nil || string(m.Payload) != "\x01\x02\xff" || !m.Return.Equal(LocalRoute(EchoService)) {
		t.Fatalf("%+v, %v", m, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Request(ctx, LocalRoute("private"), nil); err == nil {
		t.Error("a stranger got an answer")
	}
	peer := &Peer{ID: [32]byte{1}}
	answered := false
	on(t, r.shards[0], func() {
		s := r.shards[0]
		back := s.Start(WorkerFunc(func(_ *Shard, m *Message) { answered = m.Peer == nil }))
		m := s.NewMessage()
		m.Onward, m.Return, m.Peer = LocalRoute("private"), RouteOf(back), peer
		s.Deliver(m)
		s.Free(m)
	})
	if !answered || !peer.Pinged {
		t.Errorf("answered %v, pinged %v", answered, peer.Pinged)
	}
}

func TestUppercase(t *testing.T) {
	r := newRouter(t, 1)
	named(t, r, UppercaseService, Uppercase())
	for in, want := range map[string]string{"hello": "HELLO", "héé": "HÉÉ", "": ""} {
		m, err := r.Request(limited(t), LocalRoute(UppercaseService), append([]byte{byte(len(in))}, in...))
		if err != nil || string(m.Payload[1:]) != want {
			t.Errorf("%q: %q, %v", in, m.Payload, err)
		}
	}
}

// TestEchoTellsOfPings: what came without a secure channel is told of with the way back to who sent it; what a peer sent is not, and neither is what got no
// answer.
func TestEchoTellsOfPings(t *testing.T) {
	r := newRouter(t, 1)
	var told []string
	pinged := func(_ *Shard, ret Route) { told = append(told, ret.String()) }
	named(t, r, EchoService, Echo(nil, pinged))
	named(t, r, "private", Echo(func(*Message) bool { return false }, pinged))
	s := r.shards[0]
	on(t, s, func() {
		back := s.Start(WorkerFunc(func(*Shard, *Message) {}))
		for _, c := range []struct {
			to   string
			peer *Peer
			told bool
		}{{EchoService, nil, true}, {EchoService, &Peer{ID: [32]byte{1}}, false}, {"private", nil, false}, {"private", &Peer{}, false}} {
			told = nil
			m := s.NewMessage()
			m.Onward, m.Return, m.Peer = LocalRoute(c.to), RouteOf(back), c.peer
			s.Deliver(m)
			s.Free(m)
			if (len(told) == 1) != c.told || c.told && told[0] != RouteOf(back).String() {
				t.Errorf("%s, from a peer %v: told of %q", c.to, c.peer != nil, told)
			}
		}
	})
}

// TestNarrow: a part of a payload becomes the payload, whatever was before and behind it, also when it is all of it or nothing.
func TestNarrow(t *testing.T) {
	const all = "headpayloadtail"
	for _, c := range []struct {
		from, to int
		want     string
	}{{4, 11, "payload"}, {0, 4, "head"}, {11, 15, "tail"}, {0, 15, all}, {7, 7, ""}} {
		buf := []byte("room" + all + "room")
		m := new(Message)
		m.Reset()
		m.SetPayload(buf, 0, 4, 4+len(all), len(buf))
		m.Narrow(c.from, c.to)
		if string(m.Payload()) != c.want {
			t.Errorf("%d to %d: %q", c.from, c.to, m.Payload())
		}
		if c.to > c.from+1 {
			if m.Narrow(1, c.to-c.from); string(m.Payload()) != c.want[1:] {
				t.Errorf("%d to %d, and one less: %q", c.from, c.to, m.Payload())
			}
		}
	}
}

// TestAddressesAreSorted: all addresses of a node are listed once and in order.
func TestAddressesAreSorted(t *testing.T) {
	r := newRouter(t, 2)
	want := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range []string{"e", "b", "h", "a", "g", "c", "f", "d"} {
		named(t, r, name, WorkerFunc(func(*Shard, *Message) {}))
	}
	list, err := r.Addresses(limited(t))
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%q, %v", list, err)
	}
}
