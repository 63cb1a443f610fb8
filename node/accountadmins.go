package node

import (
	"context"
	"sync"
	"time"

	"sallyport/crypto/identity"
)

// projectAttribute is what a credential of an account authority says of an administrator: the project that it administers.
const projectAttribute = "project"

// AccountAdmins are the administrators of a project's authority that presented a credential of another authority, the account's, which says so
// (docs/protocol/02 §5.3). It is made before the authority, which asks it, and the node, which tells it.
type AccountAdmins struct {
	authority identity.Identifier
	project   string

	mu    sync.Mutex
	until map[identity.Identifier]time.Time // when the credential ends
}

// NewAccountAdmins returns nobody yet. The history of the authority must be known to the node's identities.
func NewAccountAdmins(authority identity.Identifier, project string) *AccountAdmins {
	return &AccountAdmins{authority: authority, project: project, until: map[identity.Identifier]time.Time{}}
}

// Is reports whether an identity is an administrator now.
func (a *AccountAdmins) Is(_ context.Context, id identity.Identifier) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.until[id])
}

// learn takes a verified credential of the account authority. The last one counts: one without the attribute takes the role away.
func (a *AccountAdmins) learn(c *identity.Credential) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for id, until := range a.until {
		if now.After(until) {
			delete(a.until, id)
		}
	}
	if c.Attributes[projectAttribute] != a.project {
		delete(a.until, c.Subject)
		return
	}
	a.until[c.Subject] = time.Unix(int64(c.ExpiresAt), 0)
}

// acceptAdmins verifies what peers of an authority present. One that is not of the account authority changes nothing.
func (n *Node) acceptAdmins(a *AccountAdmins) func(context.Context, identity.Identifier, [][]byte) {
	return func(ctx context.Context, peer identity.Identifier, list [][]byte) {
		for _, raw := range list {
			c, err := n.opts.Identities.VerifyCredential(ctx, raw, &peer, []identity.Identifier{a.authority})
			if err != nil {
				n.log.Warn("credential refused", "peer", peer.String(), "reason", err.Error())
				n.counters.credentialsRefused.Add(1)
				continue
			}
			a.learn(c)
		}
	}
}
