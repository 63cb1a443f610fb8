package node

import (
	"context"
	"strings"

	"sallyport/crypto/identity"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/control"
)

// startControl starts the service by which nodes of ours ask each other (docs/protocol/05). Where there is an authority members may ask, and other relays of the
// node's fleet, which have its identity and need no credential.
func (n *Node) startControl(ctx context.Context) (err error) {
	o := control.Options{Flows: []*routing.Flow{n.api.Flow, n.router.Begun()}, Log: n.log}
	if authority := n.authority(); authority != nil {
		o.Allow = func(peer [32]byte) bool {
			if n.opts.RelayRegistry != nil && peer == [32]byte(n.opts.Self) {
				return true
			}
			_, ok := n.access.attributes(identity.Identifier(peer), *authority)
			return ok
		}
	}
	if n.control, err = control.New(ctx, n.router, o); err != nil {
		return err
	}
	n.control.Handle(control.OpOutlet, n.answerOutlet)
	n.control.Handle(control.OpUDPOutlet, n.answerUDPOutlet)
	n.control.Handle(control.OpRelay, n.answerRelay)
	n.control.Handle(control.OpSeen, n.answerSeen)
	n.control.Handle(control.OpGone, n.answerGone)
	n.control.Handle(control.OpLane, n.answerLane)
	n.control.Handle(control.OpRegister, n.answerRegister)
	n.control.Handle(control.OpGroup, n.answerGroup)
	n.control.Handle(control.OpShare, n.answerShare)
	n.control.Handle(control.OpHeld, func(c *control.Call) {
		if !n.relaySvc.Held(c.Request.Name, c.Peer, c.Way()) {
			c.Answer(control.StatusAbsent, control.Fields{})
			return
		}
		c.Answer(control.StatusOK, control.Fields{})
	})
	return nil
}

// controlStates are the states of resources on the wire.
var controlStates = map[resource.State]control.State{
	resource.Opening: control.StateOpening, resource.Up: control.StateUp, resource.Degraded: control.StateDegraded, resource.Down: control.StateDown,
}

// answerOutlet says how an outlet is, to those who may use it. What is at an address and no outlet by itself, such as a part of a Kafka
// outlet, has an unknown state.
func (n *Node) answerOutlet(c *control.Call) {
	n.portals.Ended(&c.Peer, c.Request.Data)
	i, ok := n.outlets.Get(c.Request.Name)
	_, forUDP := n.udpOutlets.Get(c.Request.Name)
	switch {
	case !ok && !forUDP && n.router.HasNamed(c.Request.Name):
		c.Answer(control.StatusOK, control.Fields{})
	case !ok:
		c.Answer(control.StatusAbsent, control.Fields{})
	case i.IsOpen && i.Value.guard != nil && !i.Value.guard.Grant(&c.Peer).Allowed():
		c.Answer(control.StatusDenied, control.Fields{})
	default:
		answerStatus(c, i.Status)
	}
}

// answerStatus says how something is.
func answerStatus(c *control.Call, s resource.Status) {
	c.Answer(control.StatusOK, control.Fields{State: controlStates[s.State], Reason: saidReason(s.Reason)})
}

// saidReason is a reason as the other node reads it, which refuses an answer whose reason is too long or no UTF-8. An error may quote any bytes.
func saidReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "?")
	if len(reason) > control.MaxReason {
		reason = strings.ToValidUTF8(reason[:control.MaxReason-3], "") + "..."
	}
	return reason
}

// answerUDPOutlet is answerOutlet for outlets for UDP.
func (n *Node) answerUDPOutlet(c *control.Call) {
	i, ok := n.udpOutlets.Get(c.Request.Name)
	switch {
	case !ok:
		c.Answer(control.StatusAbsent, control.Fields{})
	case i.IsOpen && !i.Value.guard.Grant(&c.Peer).Allowed():
		c.Answer(control.StatusDenied, control.Fields{})
	default:
		answerStatus(c, i.Status)
	}
}

// answerRelay says who is registered under a name, at once or when that has changed.
func (n *Node) answerRelay(c *control.Call) {
	answer := func(st routing.RelayState) {
		f := relayFields(st)
		f.State = control.StateDown
		status := control.StatusAbsent
		if st.ID != 0 {
			f.State, status = control.StateUp, control.StatusOK
		}
		c.Answer(status, f)
	}
	if c.Request.Wait == 0 {
		n.relaySvc.Find(c.Request.Name, c.Peer, answer)
		return
	}
	cancel := n.relaySvc.Await(c.Request.Name, c.Request.Have, answer)
	c.Await(control.Fields{Registration: c.Request.Have, State: control.StateUnknown}, cancel)
}

// askNode asks the control service of the node behind a connection. A node of the reference does not answer: control.ErrNoAnswer when ctx ends.
func (n *Node) askNode(ctx context.Context, c *connection, op control.Op, f control.Fields) (control.Message, error) {
	return control.Ask(ctx, n.router, c.pingRoute(), op, f)
}
