package routing

import (
	"context"
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
