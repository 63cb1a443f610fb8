package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/resource"
)

func (m *member) targetOf(outlet string) *target {
	m.t.Helper()
	i, ok := m.outlets.Get(outlet)
	if !ok || !i.IsOpen {
		m.t.Fatalf("no outlet %s", outlet)
	}
	return i.Value.target
}

// waits sets for how long clients wait for a target that was found down.
func (t *target) waits(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wait = d
}

// TestRefusedClientIsALook: where an outlet looks at its target, a client that is refused tells as much: clients wait for a while, and the target is looked at
// soon, however seldom that is else.
func TestRefusedClientIsALook(t *testing.T) {
	refused := os.NewSyscallError("connect", unix.ECONNREFUSED)
	for _, c := range []struct {
		what       string
		err        error
		waits      time.Duration
		down, wait bool
		within     time.Duration
	}{
		{"refused", refused, time.Hour, true, true, targetSoon},
		{"refused, and nobody waits", refused, 0, true, false, targetRetry},
		{"no answer", errors.New("time-out"), time.Hour, false, false, targetRetry},
	} {
		at := newTarget(t.Context(), &resource.Outlet{To: probed(t, ""), Check: "tcp", CheckInterval: "1h"}, nil, nil)
		at.waits(c.waits)
		settles(t, "it has looked, and will in an hour", func() bool {
			at.mu.Lock()
			defer at.mu.Unlock()
			return at.planned != nil && !at.since.IsZero() && time.Until(at.next) > targetRetry
		})
		at.tried(c.err)
		if down, wait := at.unreachable(); down != c.down || wait != c.wait {
			t.Errorf("%s: down %v, clients wait %v", c.what, down, wait)
		}
		at.mu.Lock()
		if d := time.Until(at.next); d > c.within {
			t.Errorf("%s: the next look is in %v", c.what, d)
		}
		at.mu.Unlock()
	}
	unchecked := newTarget(t.Context(), &resource.Outlet{To: "127.0.0.1:1"}, nil, nil)
	unchecked.tried(refused)
	if down, wait := unchecked.unreachable(); down || wait {
		t.Error("without --check who comes next asks the target")
	}
}

// TestWhoFindsATargetDown: with --check a look of its own that fails, or a client that is refused, finds a target down, since then and not anew each time; whatever
// succeeds finds it up. What else a client meets with says nothing, nor does anything without --check.
func TestWhoFindsATargetDown(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // no looks but those of the test
	refused, silent := os.NewSyscallError("connect", unix.ECONNREFUSED), errors.New("time-out")
	for _, check := range []string{"", "tcp"} {
		for _, was := range []bool{false, true} {
			for _, looked := range []bool{false, true} {
				for err, down := range map[error]bool{nil: false, refused: true, silent: was || looked} {
					at := newTarget(ended, &resource.Outlet{To: "127.0.0.1:1", Check: check}, nil, nil)
					if down = down && check != ""; was {
						at.note(refused, true)
					}
					before := at.failedAt
					at.note(err, looked)
					what := fmt.Sprintf("check %q, down %v, a look %v, %v", check, was, looked, err)
					if at.down() != down {
						t.Errorf("%s: down %v", what, !down)
					}
					if state := at.status().State; (state == resource.Up) != (err == nil) {
						t.Errorf("%s: %v", what, state)
					}
					if was && at.failedAt != before {
						t.Errorf("%s: down anew", what)
					}
				}
			}
		}
	}
	if (*target)(nil).down() {
		t.Error("what is no target is down")
	}
}

// TestLookGoesWhereClientsGo: a look at a target that is a name tries the addresses that connections of clients try, the other loopback address of localhost among them.
func TestLookGoesWhereClientsGo(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	at := newTarget(t.Context(), &resource.Outlet{To: "localhost:" + port, Check: "tcp"}, nil, nil)
	settles(t, "it has looked", func() bool {
		at.mu.Lock()
		defer at.mu.Unlock()
		return !at.since.IsZero()
	})
	if s := at.status(); s.State != resource.Up {
		t.Errorf("%s: %s", s.State, s.Reason)
	}
}
