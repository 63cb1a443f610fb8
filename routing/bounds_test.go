package routing

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestAddressCutOff: an address that is cut off anywhere, in each of its forms, is none, and nothing behind it is read.
func TestAddressCutOff(t *testing.T) {
	for _, transport := range []byte{0, 23, 24, 200} {
		for _, size := range []int{0, 1, 23, 24, 255, 256, maxAddressLen} {
			b := []byte{0x82}
			if transport < 24 {
				b = append(b, transport)
			} else {
				b = append(b, 24, transport)
			}
			switch {
			case size < 24:
				b = append(b, 0x40+byte(size))
			case size < 256:
				b = append(b, 0x58, byte(size))
			default:
				b = append(b, 0x59, byte(size>>8), byte(size))
			}
			b = append(b, strings.Repeat("a", size)...)
			if end := canonicalAddress(b, 0); end != len(b) {
				t.Fatalf("transport %d, %d bytes: ends at %d of %d", transport, size, end, len(b))
			}
			if end := canonicalAddress(append(bytes.Clone(b), 0xff), 0); end != len(b) {
				t.Errorf("transport %d, %d bytes with one behind: ends at %d of %d", transport, size, end, len(b))
			}
			for cut := range b {
				if end := canonicalAddress(b[:cut:cut], 0); end != -1 {
					t.Errorf("transport %d, %d bytes, cut off after %d: ends at %d", transport, size, cut, end)
				}
			}
		}
	}
}

// TestNarrowLeavesRoom: what a payload had behind its new end may be overwritten, also after it was narrowed again.
func TestNarrowLeavesRoom(t *testing.T) {
	var m Message
	buf := []byte("headpayloadtail")
	m.SetPayload(buf, 0, 4, 11, 11)
	m.Narrow(0, 5)
	m.Narrow(1, 3)
	if string(m.Payload()) != "ay" || m.high != 11 {
		t.Errorf("%q, %d bytes may be used", m.Payload(), m.high)
	}
}

// TestGroupsLeaveLanesOut: shared names are told of; names that one node has alone, and those of lanes, are not.
func TestGroupsLeaveLanesOut(t *testing.T) {
	rs := &Relays{named: map[string]*relayName{}}
	lane := "db" + string(laneMark) + strings.Repeat("0a", 16)
	for name, grouped := range map[string]bool{"db": true, "alone": false, lane: true} {
		n := &relayName{name: name}
		n.grouped.Store(grouped)
		rs.named[name] = n
	}
	if list := rs.Groups(); len(list) != 1 || list["db"] != (GroupUse{}) {
		t.Errorf("groups %v", list)
	}
}

// TestWhatMakesAGroup: a name is one of a group when a member tells its terms, or when there are two that have registrations; one that has gone does not count.
func TestWhatMakesAGroup(t *testing.T) {
	for _, c := range []struct {
		living, gone int
		terms        *Terms
		grouped      bool
	}{
		{living: 1}, {living: 1, gone: 2}, {gone: 2}, {living: 2, grouped: true}, {living: 2, gone: 1, grouped: true}, {living: 1, terms: &Terms{}, grouped: true},
	} {
		n := &relayName{}
		for i := range c.living + c.gone {
			m := &member{}
			if i < c.living {
				m.regs = []*registration{{}}
			}
			n.members = append(n.members, m)
		}
		if n.take(n.members[0], &request{terms: c.terms}); n.grouped.Load() != c.grouped || n.living() != c.living {
			t.Errorf("%+v: a group %v, %d are there", c, n.grouped.Load(), n.living())
		}
	}
}

// TestStoppedDecision: a decision that was put off is not made when it was called off, and there need not be one.
func TestStoppedDecision(t *testing.T) {
	x := after(time.Hour, func() { t.Error("made") })
	if x.stop(); x.Stop() {
		t.Error("it was still to be made")
	}
	(*timer)(nil).stop()
}

// TestClaimGoesBeforeMemory: whose a name is, and who may share it, is what the registry says, whatever this relay remembers of it.
func TestClaimGoesBeforeMemory(t *testing.T) {
	first, second := [32]byte{1}, [32]byte{2}
	for _, tc := range []struct {
		name     string
		of       [32]byte // whose the registry says the name is
		remember bool
		refused  NoticeKind
	}{
		{"the asker's, new here", second, false, 0},
		{"the asker's, remembered as another's", second, true, 0},
		{"another's, new here", first, false, NoticeHeld},
		{"another's, remembered as the asker's", first, true, NoticeHeld},
	} {
		r := newRouter(t, 1)
		rs := newRelays(t, r, RelayOptions{})
		remembered := first
		if tc.of == first {
			remembered = second
		}
		q := &request{reg: &registration{relays: rs, holder: "h"}, name: "db", owner: &second, claimed: &Ownership{Owner: tc.of, Rule: RuleSpread, Share: "x"}}
		rs.mu.Lock()
		if tc.remember {
			old := &registration{relays: rs, holder: "old"}
			n := &relayName{name: "db", owner: &remembered, group: group{rule: RuleFailover}, share: "y", regs: []*registration{old}}
			old.name, old.member = n, n.join(memberKey{isIdentity: true, identity: remembered})
			old.member.regs = []*registration{old}
			rs.named["db"] = n
		}
		rs.mu.Unlock()
		n, _, refused := rs.grant(q)
		if refused != tc.refused || (refused == 0) != (n != nil) {
			t.Errorf("%s: refused %v, not %v", tc.name, refused, tc.refused)
			continue
		}
		if n = rs.named["db"]; n != nil && (*n.owner != tc.of || n.rule != RuleSpread || n.share != "x") {
			t.Errorf("%s: owner %x, rule %v, share %q", tc.name, n.owner[0], n.rule, n.share)
		}
		rs.mu.Lock()
		clear(rs.named) // what was made up above has no shard that could end it
		rs.mu.Unlock()
	}
}
