package node

import (
	"context"
	"math/rand/v2"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
)

// Times of the loop that renews purpose keys: how often it looks, and how long a primary key may take to sign.
const (
	keysInterval = 30 * time.Second
	keysTimeout  = 20 * time.Second
	// keyAgain is the pause after which a node without a key asks for one again. A keeper that is away is asked as often as its identity.Manager does.
	keyAgain = 250 * time.Millisecond
)

// awaitKey asks for the key that the node opens channels with until there is one. A keeper may have been started together with those that it attests keys for,
// and be a little later; whoever connects meanwhile waits.
func (n *Node) awaitKey(ctx context.Context) {
	for !n.opts.Identities.Ready(n.opts.Self) {
		asking, cancel := context.WithTimeout(ctx, keysTimeout)
		err := n.opts.Identities.CheckKeys(asking, n.opts.Self)
		cancel()
		if err == nil {
			n.log.Info("the identity's primary key attests a key for channels: others can connect here")
			return
		}
		again := time.NewTimer(jitter(keyAgain))
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
		}
	}
}

// keepKeys renews the purpose keys of the node's identities before they end, and wipes those that were replaced.
func (n *Node) keepKeys(ctx context.Context) {
	n.awaitKey(ctx)
	failing := false
	for {
		pause := time.NewTimer(keysInterval + rand.N(keysInterval/3))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		failing = n.renewKeys(ctx, failing)
	}
}

// renewKeys does so once, logs when renewing begins to fail and when it works again, and reports whether it fails.
func (n *Node) renewKeys(ctx context.Context, failing bool) bool {
	managers := map[*identity.Manager]bool{n.opts.Identities: true}
	n.others.Range(func(_, m any) bool {
		managers[m.(*identity.Manager)] = true
		return true
	})
	var failed error
	for m := range managers {
		ctx, cancel := context.WithTimeout(ctx, keysTimeout)
		if err := m.RenewKeys(ctx); err != nil {
			failed = err
		}
		cancel()
	}
	switch {
	case failed != nil && ctx.Err() == nil:
		n.counters.keysFailed.Add(1)
		if !failing {
			until := ""
			if s, ok := n.opts.Identities.KeyState(n.opts.Self); ok {
				until = s.ValidUntil.Format(time.RFC3339)
			}
			n.log.Warn("the identity's primary key does not attest a new key for channels; it is tried again", "goes_on_until", until, "reason", failed.Error())
		}
	case failed == nil && failing:
		n.log.Info("the identity's primary key attests again")
	}
	return failed != nil
}

// keys describes the key for channels of the node's own identity.
func (n *Node) keys() *admin.Keys {
	s, ok := n.opts.Identities.KeyState(n.opts.Self)
	if !ok {
		return nil
	}
	k := &admin.Keys{Home: n.opts.KeysHome, MadeAt: s.MadeAt.Unix(), ValidUntil: s.ValidUntil.Unix(), RenewAt: s.RenewAt.Unix()}
	if s.Err != nil {
		k.Reason, k.Since = s.Err.Error(), s.Since.Unix()
	}
	return k
}

// rereadKeys has the next handshakes use the keys that the node's identities have now.
func (n *Node) rereadKeys() {
	n.opts.Identities.Reread(n.opts.Self)
	n.others.Range(func(id, m any) bool {
		m.(*identity.Manager).Reread(id.(identity.Identifier))
		return true
	})
}
