package datagram

import (
	"context"
	"strings"
	"sync"
	"testing"

	"sallyport/records"
)

// book keeps records.
type book struct {
	mu   sync.Mutex
	list []*records.Record
}

func (b *book) Record(r *records.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, r)
}

func (b *book) Attributes(peer *[32]byte) map[string]string {
	return map[string]string{"peer": string(peer[:1])}
}

func (b *book) all() []*records.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*records.Record(nil), b.list...)
}

// TestRecordsOfFlows: when a flow ends both ends record it, with who it was and what was carried, under one number; who ended it is told by both alike.
func TestRecordsOfFlows(t *testing.T) {
	s, target := newSite(t, 1), echoServer(t)
	b := &book{}
	s.env.Records = b
	out := s.outlet(OutletOptions{Target: target.String()})
	in := s.inlet(InletOptions{})
	in.SetPath(s.line(0, 1, 2).to("out"))
	first, second := in.newClient(t), in.newClient(t)
	for range 3 {
		first.ask("hello") // two bytes more come back
	}
	second.ask("")
	if n := len(b.all()); n != 0 {
		t.Fatalf("%d records of flows that go on", n)
	}
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ends have recorded both", func() bool { return len(b.all()) == 4 })
	ends := map[[16]byte][]*records.Record{}
	for _, r := range b.all() {
		ends[r.ID] = append(ends[r.ID], r)
	}
	if len(ends) != 2 {
		t.Errorf("%d numbers for two flows", len(ends))
	}
	for _, pair := range ends {
		if len(pair) != 2 || pair[0].End == pair[1].End {
			t.Fatalf("%d records of one flow", len(pair))
		}
		for _, r := range pair {
			size, least := uint64(5), uint64(3) // more where an answer was slow
			if r.ToTarget == 0 {
				size, least = 0, 1
			}
			if !r.Datagrams || r.DatagramsToTarget < least || r.DatagramsToClient < least || r.ToTarget != size*r.DatagramsToTarget || r.ToClient != (size+2)*r.DatagramsToClient {
				t.Errorf("%+v", r)
			}
			if r.Outcome != "closed" || r.By != "inlet" || r.Began.IsZero() || r.Ended.Before(r.Began) || !r.HasPeer || r.Attributes["peer"] != string(r.Peer[:1]) {
				t.Errorf("%+v", r)
			}
			switch r.End {
			case "inlet":
				if r.Portal != "in" || r.Peer != [32]byte{2} || !strings.HasPrefix(r.Client, "127.0.0.1:") {
					t.Errorf("%+v", r)
				}
			case "outlet":
				if r.Portal != "out" || r.Peer != [32]byte{1} || r.Target != target.String() {
					t.Errorf("%+v", r)
				}
			}
			line := string(r.AppendJSON(nil, "n"))
			for _, want := range []string{`"protocol":"udp"`, `"datagrams_to_target":`, `"datagrams_to_client":`} {
				if !strings.Contains(line, want) {
					t.Errorf("%s lacks %s", line, want)
				}
			}
		}
	}
	if err := out.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestRateDrops: what is beyond an inlet's or an outlet's rate is dropped there and counted, and without a rate everything goes again.
func TestRateDrops(t *testing.T) {
	s, target := newSite(t, 1), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String()})
	in := s.inlet(InletOptions{})
	in.SetPath(s.line(0, 1, 2).to("out"))
	c := in.newClient(t)
	c.ask("before")
	large := strings.Repeat("x", 60_000) // one goes, and leaves nothing for a long time
	for _, end := range []struct {
		what string
		set  func(int64)
		m    *Meter
	}{{"inlet", in.SetRate, in.meter}, {"outlet", out.SetRate, out.meter}} {
		end.set(1)
		eventually(t, end.what+" drops", func() bool {
			if _, err := c.Write([]byte(large)); err != nil {
				t.Fatal(err)
			}
			return end.m.Dropped[DropRate].Load() > 5
		})
		end.set(0)
		c.ask("after " + end.what)
	}
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
