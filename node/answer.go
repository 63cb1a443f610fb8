package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"sallyport/node/resource"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// Times of an inlet's questions about its outlet.
const (
	askTimeout = 1500 * time.Millisecond // the reference's nodes do not answer at all
	askAgain   = 10 * time.Second
	askRefused = time.Second // what is not there or not allowed may be in a moment
	// askDoubted is how long a program waits for the answer to its connection before the outlet is asked for, and the least between two such questions.
	askDoubted = time.Second
)

// unanswered is what is said of an outlet whose node does not answer questions.
const unanswered = "the path is up; the node there does not say whether the outlet is (the reference's nodes do not)"

// answer is what an outlet's node has said of the outlet.
type answer struct {
	mu     sync.Mutex
	asked  bool // there is an answer, or it is known that there will be none
	status resource.Status
	first  chan struct{} // closed with the first answer
	doubts chan struct{} // somebody doubts that it holds still
}

func newAnswer() *answer { return &answer{first: make(chan struct{}), doubts: make(chan struct{}, 1)} }

// doubt has the outlet asked for soon. It does not block.
func (a *answer) doubt() {
	select {
	case a.doubts <- struct{}{}:
	default: // it is doubted already
	}
}

func (a *answer) set(s resource.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.Since = time.Now(); a.asked && a.status.State == s.State && a.status.Reason == s.Reason {
		s.Since = a.status.Since
	}
	if a.status = s; !a.asked {
		a.asked = true
		select {
		case <-a.first:
		default:
			close(a.first)
		}
	}
}

// forget is for a path that is gone.
func (a *answer) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = false
}

// get returns what was said, and whether anything was.
func (a *answer) get() (resource.Status, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.asked
}

// outletName is the name of the outlet that an inlet leads to, "" where that cannot be asked for.
func (in *inlet) outletName() string {
	if k := len(in.to) - 1; k >= 0 && in.to[k].Protocol == multiaddr.Service && in.parts.suffix.Len() == 0 && in.influx == nil {
		return in.to[k].Text
	}
	return ""
}

// inquire asks the outlet's node about the outlet for as long as a path is there. While it is a definite no, clients are closed at once.
func (in *inlet) inquire(n *Node, c *connection) {
	name := in.outletName()
	if name == "" || len(c.channels) == 0 {
		in.answer.set(resource.Status{State: resource.Up})
		return
	}
	denied := 0
	f := control.Fields{Name: name, Data: n.portals.Process[:]}
	for {
		ctx, cancel := context.WithTimeout(n.ctx, askTimeout)
		m, err := n.askNode(ctx, c, in.asks, f)
		cancel()
		select {
		case <-c.done():
			return
		default:
		}
		if errors.Is(err, control.ErrNoAnswer) && n.ctx.Err() == nil && f.Data != nil {
			in.answer.set(resource.Status{State: resource.Up, Reason: unanswered})
			return
		}
		if errors.Is(err, control.ErrNoAnswer) && n.ctx.Err() == nil { // it has answered before: this one was lost, or is late
			if !in.untilAsked(n, c, askRefused) {
				return
			}
			continue
		}
		if err != nil {
			return
		}
		f.Data = nil
		if control.Status(m.Code) == control.StatusDenied {
			denied++
		} else {
			denied = 0
		}
		again := askAgain
		if denied == 1 { // this node's credential may be on its way
			again = askRefused
		} else {
			s := outletStatus(name, m)
			if s.Refused {
				again = askRefused
			}
			in.say(s)
		}
		if !in.untilAsked(n, c, again) {
			return
		}
	}
}

// untilAsked waits until the outlet is asked for again: after that time, more or less, or when the last answer is doubted. It reports false when the path or the node ends.
func (in *inlet) untilAsked(n *Node, c *connection, again time.Duration) bool {
	due, least := time.NewTimer(jitter(again)), time.NewTimer(askDoubted)
	defer due.Stop()
	defer least.Stop()
	var doubts chan struct{}
	for {
		select {
		case <-least.C:
			doubts = in.answer.doubts
		case <-doubts:
			return true
		case <-due.C:
			return true
		case <-c.done():
			return false
		case <-n.ctx.Done():
			return false
		}
	}
}

// say notes an answer. Clients of an outlet that is not there, or not for this node, are closed.
func (in *inlet) say(s resource.Status) {
	in.answer.set(s)
	if s.Refused {
		in.port.Refuse(s.Reason)
	} else {
		in.port.Refuse("")
	}
}

// outletStatus is what an answer means for the inlet.
func outletStatus(name string, m control.Message) resource.Status {
	switch control.Status(m.Code) {
	case control.StatusAbsent:
		return resource.Status{State: resource.Down, Refused: true, Reason: "there is no outlet " + name + " at the node that the route leads to"}
	case control.StatusDenied:
		return resource.Status{State: resource.Down, Refused: true, Denied: true, Reason: "the outlet " + name + " is not for this identity: its policy refuses it"}
	case control.StatusOK:
	default:
		return resource.Status{State: resource.Up, Reason: unanswered}
	}
	switch m.State {
	case control.StateDegraded, control.StateDown, control.StateOpening:
		return resource.Status{State: resource.Degraded, Reason: "the outlet " + name + ": " + m.Reason}
	}
	return resource.Status{State: resource.Up}
}
