package routing

import (
	"context"
	"errors"
	"time"
)

// Rule says which member of a group gets a new flow (docs/protocol/08 §3).
type Rule uint8

// Rules of a relay name.
const (
	// RuleNone is what nobody asked for; it acts as RuleFailover.
	RuleNone Rule = 0
	// RuleFailover: the member with the lowest priority that is up.
	RuleFailover Rule = 1
	// RuleSpread: the member with the fewest open connections.
	RuleSpread Rule = 2
)

func (r Rule) String() string {
	switch r {
	case RuleFailover:
		return "failover"
	case RuleSpread:
		return "spread"
	}
	return "none"
}

// MemberID is what a node chose for one of its relays; zero for a node that has none, such as the reference's.
type MemberID [16]byte

// Ownership says whose a relay name is.
type Ownership struct {
	Name  string
	Owner [32]byte // identifier of the identity
	Rule  Rule
	// Share admits other identities: a policy expression, empty for the attribute of docs/protocol/08 §2.
	Share string
}

// RemoteMember is a member of a name's group at another relay.
type RemoteMember struct {
	Name        string
	Relay       string // ID of the relay that it is registered at
	Member      MemberID
	Identity    [32]byte
	Priority    uint32
	Down        bool // its target does not answer
	Connections uint64
	Reports     bool      // it tells its connections
	Since       time.Time // when it registered
}

// RelayNode is a relay of the fleet.
type RelayNode struct {
	ID      string // as RemoteMember.Relay; another one for each process
	Address string // multiaddr of its listener, without /secure or /service
}

// ErrRegistryAway reports that the registry's store cannot be reached.
var ErrRegistryAway = errors.New("routing: the registry of relay names cannot be reached")

// Registry is what the relays of a fleet know together. An implementation has a copy of all of it in memory and keeps that up to date; relays that have not
// been heard of for a while, and their members, are left out of it. Methods can be called on any goroutine that is not a loop's.
type Registry interface {
	// Claim makes o.Owner the owner of o.Name unless another identity is, that has a member or shares it now, and returns whose it is. The owner's claim replaces Rule and Share. It asks the store,
	// and returns what is remembered together with ErrRegistryAway where that is away; the zero Ownership if nothing is.
	Claim(ctx context.Context, o Ownership) (Ownership, error)
	// Put replaces the members that this relay has under a name; an empty list removes them. Relay is filled in. While the store is away it is
	// remembered and done later: Put does not wait for it.
	Put(name string, members []RemoteMember)
	// Told calls then once, when what was Put of a name has been written, or cannot be now. then may be called on any goroutine and must not block.
	Told(name string, then func())
	// Look asks the store for names and brings the copy up to date with it. It does nothing while the store is away.
	Look(ctx context.Context, names []string)
	// Members returns the members of a name at other relays, from memory.
	Members(name string) []RemoteMember
	// Names returns the names that have members at other relays, from memory.
	Names() []string
	// Owner returns whose a name is, from memory.
	Owner(name string) (Ownership, bool)
	// Relays returns the other relays, from memory.
	Relays() []RelayNode
	// Watch calls changed for every name whose members at other relays or whose ownership changed, and with "" where anything may have and when Relays did, until ctx
	// ends. changed must not block.
	Watch(ctx context.Context, changed func(name string))
}
