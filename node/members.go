package node

import (
	"sallyport/crypto/identity"
	"sallyport/policy"
	"sallyport/routing"
)

// relayMembers is whose messages the node's relays pass on: those of members of its authority, for as long as their credentials last.
// Policies have no say in it: who may register a name, and who may open a portal, they decide. nil without an authority, as in the
// reference: everybody's.
func (n *Node) relayMembers() func(peer [32]byte) routing.Admission {
	authority := n.authority()
	if authority == nil {
		return nil
	}
	g := n.access.guard(policy.ByName(relayMembersName), policy.Relay, authority, false)
	g.members = true
	return func(peer [32]byte) routing.Admission {
		id := identity.Identifier(peer)
		return g.Grant((*[32]byte)(&id))
	}
}

// relayMembersName names the guard; no resource can have the name.
const relayMembersName = "relay members"
