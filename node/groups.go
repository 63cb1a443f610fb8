package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/routing"
	"sallyport/routing/control"
)

// Relay names that several nodes share (docs/protocol/08).

// groupAttribute is the attribute that lets identities share the relay name that is its value.
const groupAttribute = "sallyport-relay-group"

const (
	// maxRelayPriority is the largest --priority.
	maxRelayPriority = 1000
	// groupTick is how often a member looks whether its state is another one than it told the relay, and groupTell how often it tells its connections at most.
	groupTick = 200 * time.Millisecond
	groupTell = time.Second
)

// relayRules are the rules of relay names by the words of --rule.
var relayRules = map[string]routing.Rule{"": routing.RuleNone, "failover": routing.RuleFailover, "spread": routing.RuleSpread}

// checkGroup refuses what no relay name can be shared by.
func checkGroup(r *resource.Relay) error {
	if _, ok := relayRules[r.Rule]; !ok {
		return fmt.Errorf("%w: --rule %q must be failover or spread", admin.ErrInvalid, r.Rule)
	}
	if r.Priority < 0 || r.Priority > maxRelayPriority {
		return fmt.Errorf("%w: --priority %d must be from 0 to %d", admin.ErrInvalid, r.Priority, maxRelayPriority)
	}
	if r.Share == "" {
		return nil
	}
	if len(r.Share) > control.MaxShare {
		return fmt.Errorf("%w: --share has %d characters, at most %d", admin.ErrInvalid, len(r.Share), control.MaxShare)
	}
	if _, err := policy.Parse(r.Share); err != nil {
		return fmt.Errorf("%w: --share: %w", admin.ErrInvalid, err)
	}
	return nil
}

// isGroup reports whether a relay is registered on terms.
func isGroup(r *resource.Relay) bool { return r.Rule != "" || r.Share != "" || r.Priority != 0 }

// memberID returns what tells a node's relay from others of its identity: the same after a restart, so that the relay knows who comes and goes.
func (n *Node) memberID(name string) (id routing.MemberID) {
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(strings.Join([]string{"sallyport relay member", n.opts.Self.String(), host, n.opts.Name, name}, "\x00")))
	copy(id[:], sum[:])
	return id
}

// load is what a member tells of itself.
type load struct {
	down        bool
	connections uint64
}

// load returns how this node's outlets are: down if one of them has found with --check that its target does not answer, or the node hands over.
func (n *Node) load() (l load) {
	l.down = n.leaving.Load()
	for _, i := range n.outlets.List() {
		if i.IsOpen {
			now, _ := i.Value.portal.Connections()
			l.connections += uint64(max(now, 0))
			l.down = l.down || i.Value.target.down()
		}
	}
	return l
}

// errNoGroups reports a relay that registers a name for one identity only.
var errNoGroups = errors.New("the relay does not know how to share names")

// registerMember asks the relay at the end of c for a name on terms, or tells it of others.
func (n *Node) registerMember(ctx context.Context, rel *relay, c *connection, name string, l load) error {
	r := rel.request.Load()
	f := control.Fields{
		Name: name, Data: rel.member[:], Rule: uint64(relayRules[r.Rule]), Share: r.Share, Priority: uint64(r.Priority), State: control.StateUp, Connections: l.connections,
	}
	if l.down {
		f.State = control.StateDown
	}
	if len(c.channels) == 0 {
		return errNoGroups
	}
	asking, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	m, err := n.askNode(asking, c, control.OpRegister, f)
	if ctx.Err() != nil {
		return errRelayRefused
	}
	if err != nil {
		return errNoGroups
	}
	switch control.Status(m.Code) {
	case control.StatusOK:
		return nil
	case control.StatusUnknown:
		return errNoGroups
	case control.StatusDenied:
		return fmt.Errorf("%w: %s", ErrRelayDenied, routing.NoticeDenied)
	case control.StatusHeld:
		return fmt.Errorf("%w: %s, which does not share it with this one", ErrRelayDenied, routing.NoticeHeld)
	case control.StatusFull:
		return fmt.Errorf("%w: %s", ErrRelayDenied, routing.NoticeFull)
	}
	return fmt.Errorf("%w: %s", ErrRelayDenied, control.Status(m.Code))
}

// tellLoad tells the relay when this member's terms or its state have changed, and from time to time how many connections it has, for as long as c is there.
func (n *Node) tellLoad(rel *relay, c *connection, name string, told load) {
	tick := time.NewTicker(groupTick)
	defer tick.Stop()
	terms := rel.request.Load()
	for at := time.Now(); ; {
		select {
		case <-n.ctx.Done():
			return
		case <-c.done():
			return
		case <-tick.C:
		}
		now, wanted := n.load(), rel.request.Load()
		if wanted == terms && now.down == told.down && (now.connections == told.connections || time.Since(at) < groupTell) {
			continue
		}
		if err := n.registerMember(n.ctx, rel, c, name, now); err != nil {
			rel.session.log.Warn("the relay was not told how this member is", "reason", err.Error())
			continue
		}
		at, told, terms = time.Now(), now, wanted
	}
}

// answerRegister registers who asks under a relay name of this node.
func (n *Node) answerRegister(c *control.Call) {
	ch := n.channels.Find(c.Way())
	if ch == nil || n.relaySvc == nil {
		c.Answer(control.StatusAbsent, control.Fields{})
		return
	}
	f := &c.Request.Fields
	terms := routing.Terms{
		Priority: uint32(min(f.Priority, maxRelayPriority)), Rule: routing.Rule(min(f.Rule, 255)), Share: f.Share, Down: f.State == control.StateDown, Connections: f.Connections,
	}
	if f.Share != "" {
		if _, err := policy.Parse(f.Share); err != nil {
			c.Answer(control.StatusMalformed, control.Fields{Reason: "share is no policy expression"})
			return
		}
	}
	copy(terms.Member[:], f.Data)
	err := n.relaySvc.Register(ch.Shard(), c.Way(), c.Peer, f.Name, terms, func(st routing.RelayState, refused routing.NoticeKind) {
		status := map[routing.NoticeKind]control.Status{
			routing.NoticeAbsent: control.StatusAbsent, routing.NoticeDenied: control.StatusDenied, routing.NoticeHeld: control.StatusHeld, routing.NoticeFull: control.StatusFull,
		}[refused]
		if refused != 0 {
			c.Answer(status, control.Fields{})
			return
		}
		c.Answer(control.StatusOK, relayFields(st))
	})
	if err != nil {
		c.Answer(control.StatusMalformed, control.Fields{})
	}
}

// relayFields are what is told of a relay name.
func relayFields(st routing.RelayState) control.Fields {
	return control.Fields{Registration: st.ID, Count: uint64(st.Registrations), Rule: uint64(st.Rule), Way: st.Way}
}

// memberState is what is told of a member's state.
func memberState(m routing.MemberState) control.State {
	switch {
	case !m.Up:
		return control.StateUnknown
	case m.Down:
		return control.StateDown
	}
	return control.StateUp
}

// memberWord is a member's state in a word.
func memberWord(s control.State) string {
	switch s {
	case control.StateUp:
		return "up"
	case control.StateDown:
		return "target down"
	}
	return "away"
}

// answerGroup says who the members of a relay name are.
func (n *Node) answerGroup(c *control.Call) {
	list := n.relaySvc.Members(c.Request.Name)
	if len(list) == 0 {
		c.Answer(control.StatusAbsent, control.Fields{})
		return
	}
	st := n.relaySvc.State(c.Request.Name)
	f := control.Fields{Count: uint64(len(list)), Rule: uint64(st.Rule), Way: st.Way}
	for _, m := range list {
		f.Members = append(f.Members, control.GroupMember{
			Way: m.Way, ID: m.Member, Identity: m.Identity, Priority: uint64(m.Priority), State: memberState(m), Connections: m.Connections, Relay: m.Relay,
		})
	}
	c.Answer(control.StatusOK, f)
}

// answerShare says with whom this node shares a relay name, to who came through it.
func (n *Node) answerShare(c *control.Call) {
	for _, i := range n.relays.List() {
		if relayNameOf(&i.Request) == c.Request.Name {
			f := control.Fields{Share: i.Request.Share, Count: 1}
			if f.Share == "" && isGroup(&i.Request) {
				f.Share = shareOf(c.Request.Name) // else nobody: who attests attributes does not decide alone
			}
			c.Answer(control.StatusOK, f)
			return
		}
	}
	c.Answer(control.StatusAbsent, control.Fields{})
}

// shareOf is the expression that goes without one: the attribute.
func shareOf(name string) string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
	return `(= subject.` + groupAttribute + ` "` + quoted + `")`
}

// relayShares decides whether the owner of a relay name shares it with another identity. Without an expression both need the attribute.
func (n *Node) relayShares(name string, owner [32]byte, share string, joiner [32]byte) bool {
	if share != "" {
		return n.admits(share, joiner)
	}
	return n.hasGroup(name, owner) && n.hasGroup(name, joiner)
}

// hasGroup reports whether an authority attests that an identity may share a relay name.
func (n *Node) hasGroup(name string, id [32]byte) bool {
	authority := n.authority()
	if authority == nil || name == "" {
		return false
	}
	attributes, ok := n.access.attributes(identity.Identifier(id), *authority)
	return ok && attributes[groupAttribute] == name
}

// admits evaluates an expression over what is attested of an identity. It denies when it cannot tell.
func (n *Node) admits(expression string, id [32]byte) bool {
	expr, err := policy.Parse(expression)
	if err != nil || n.access.isRevoked(identity.Identifier(id)) {
		return false
	}
	env := policy.NewEnv(routing.RelayService, policy.HandleMessage.String())
	var attributes map[string]string
	has := false
	authority := n.authority()
	if authority != nil {
		attributes, has = n.access.attributes(identity.Identifier(id), *authority)
	}
	env.SetSubject(identity.Identifier(id).String(), authority != nil, has, attributes)
	return expr.Allows(env)
}

// sharers asks the relay who shares a name with this node.
func (n *Node) sharers(ctx context.Context, rel *relay, name string) (list []admin.RelayMember) {
	up, c, _ := rel.session.state()
	if !up || len(c.channels) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := n.askNode(ctx, c, control.OpGroup, control.Fields{Name: name})
	if err != nil || m.Code != uint64(control.StatusOK) {
		return nil
	}
	for _, one := range m.Members {
		list = append(list, admin.RelayMember{
			Identifier: identity.Identifier(one.Identity).String(), Self: one.ID == rel.member, Priority: one.Priority, State: memberWord(one.State), Connections: one.Connections, Relay: one.Relay,
			Chosen: m.Way != "" && one.Way == m.Way,
		})
	}
	return list
}

// askShare asks who is expected at the end of c, an inlet's path, whom it shares its relay name with.
func (n *Node) askShare(c *connection, p *pin, peer identity.Identifier) {
	ctx, cancel := context.WithTimeout(n.ctx, 3*askTimeout)
	defer cancel()
	m, err := n.askNode(ctx, c, control.OpShare, control.Fields{Name: c.name})
	if err != nil || m.Code != uint64(control.StatusOK) {
		return // it does not say: what it said before counts
	}
	if m.Share != "" {
		if _, err := policy.Parse(m.Share); err != nil {
			return
		}
	}
	p.shared(peer, m.Share)
}
