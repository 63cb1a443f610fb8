package node

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// TestNodeLeaves: a node that is to end takes nobody new, and waits for the connections that it has as long as it may: until the last has ended, or no
// longer.
func TestNodeLeaves(t *testing.T) {
	bank, client := newMember(t), newMember(t)
	ctx := within(t)
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	in, err := client.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: bank.route() + "/secure/api/service/db"})
	if err != nil || in.Status != "Up" {
		t.Fatalf("%+v, %v", in, err)
	}
	if err := func() error { c, err := net.Dial("tcp", in.Bind); _ = c.Close(); return err }(); err != nil {
		t.Fatal(err)
	}
	open, err := net.Dial("tcp", in.Bind)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := says(open); err != nil {
		t.Fatal(err)
	}
	settles(t, "one connection", func() bool { return client.portals.Stats.Active.Load() == 1 && bank.portals.Stats.Active.Load() == 1 })

	client.leave(0) // without a time nothing changes
	if c, err := net.Dial("tcp", in.Bind); err != nil {
		t.Errorf("a node that does not leave takes nobody: %v", err)
	} else {
		_ = c.Close()
	}
	settles(t, "one connection again", func() bool { return client.portals.Stats.Active.Load() == 1 })

	left := make(chan struct{})
	go func() {
		defer close(left)
		client.leave(time.Minute)
	}()
	settles(t, "the inlet takes nobody", func() bool {
		c, err := net.Dial("tcp", in.Bind)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	settles(t, "the node takes no nodes", func() bool {
		c, err := net.Dial("tcp", client.Listening())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case <-left:
		t.Error("it has left with an open connection, before its time")
	default:
	}
	if err := says(open); err != nil {
		t.Errorf("what is open ends: %v", err)
	}

	// The other side leaves too, and waits no longer than it may.
	began := time.Now()
	bank.leave(50 * time.Millisecond)
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("left after %v with an open connection", took)
	}
	if bank.portals.Stats.Active.Load() == 0 {
		t.Error("the connection has ended")
	}
	_ = open.Close()
	<-left
	if n := client.portals.Stats.Active.Load(); n != 0 {
		t.Errorf("left with %d connections", n)
	}
}

// TestTimesOfFlags: a time from nothing to the longest is read, everything else is refused with the flag's name.
func TestTimesOfFlags(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 7 * time.Second, "0s": 0, "1h": time.Hour, "90s": 90 * time.Second} {
		if got, err := drainTime(text, 7*time.Second); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"-1ns", "1h1ns", "soon", "10"} {
		if _, err := drainTime(text, 0); !errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), "--drain") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]time.Duration{"": time.Minute, "0s": 0, "24h": 24 * time.Hour} {
		if got, err := holdOf(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := holdOf("24h1s"); !errors.Is(err, admin.ErrInvalid) || !strings.Contains(err.Error(), "--hold") {
		t.Error(err)
	}
}

// TestStopIsAnswered: who asks a node to stop has the whole answer before it does, also where there is nothing to wait for.
func TestStopIsAnswered(t *testing.T) {
	m := newMember(t)
	for _, body := range []string{"", `{"drain": "30s"}`} {
		answer, whole := httptest.NewRecorder(), make(chan bool, 1)
		h := m.adminHandler(func() {
			whole <- answer.Flushed && answer.Header().Get("Content-Length") == strconv.Itoa(answer.Body.Len())
		})
		h.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, admin.PathStop, strings.NewReader(body)))
		if !<-whole {
			t.Errorf("%s: stopped before it has answered: %s", body, answer.Body)
		}
	}
}
