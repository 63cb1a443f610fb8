package routing

import (
	"testing"
	"time"
)

// TestNameThatNobodyHasAnyMore: a name whose last registration has gone, and whose workers are still there, is anybody's; one that is held is its owner's.
func TestNameThatNobodyHasAnyMore(t *testing.T) {
	rs := newRelays(t, newRouter(t, 1), RelayOptions{})
	before, next := [32]byte{1}, [32]byte{2}
	for name, regs := range map[string][]*registration{"free": nil, "held": {{holder: "x"}}} {
		rs.mu.Lock()
		rs.named[name] = &relayName{name: name, owner: &before, regs: regs}
		rs.mu.Unlock()
		reg := &registration{holder: "y"}
		n, fresh, refused := rs.grant(&request{name: name, owner: &next, reg: reg})
		if name == "held" {
			if refused != NoticeHeld || n != nil {
				t.Errorf("another's: %v", refused)
			}
			continue
		}
		if refused != 0 || fresh || n.owner != &next || len(n.regs) != 1 || !reg.away || n.current.Load() != nil {
			t.Errorf("nobody's: %v, fresh %v, %+v", refused, fresh, n)
		}
	}
	if _, fresh, refused := rs.grant(&request{name: "new", reg: &registration{holder: "z"}}); !fresh || refused != 0 || rs.held["z"] != 1 || rs.held["y"] != 1 {
		t.Errorf("a new one: fresh %v, %v, %v", fresh, refused, rs.held)
	}
	// The newest of those that can be reached gets the messages.
	regs := []*registration{{id: 1}, {id: 2}, {id: 3, away: true}}
	n := &relayName{regs: regs}
	m := n.join(memberKey{})
	m.regs = regs
	changes := func() bool { changed, _ := n.choose(time.Now()); return changed }
	if !changes() || n.current.Load().id != 2 || changes() {
		t.Error("not the newest, or chosen again")
	}
	regs[1].away, regs[0].away = true, true
	if !changes() || n.current.Load() != nil || changes() {
		t.Error("one that cannot be reached")
	}
}
