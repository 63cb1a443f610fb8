package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/multiaddr"
)

// Why an outlet's node is refused: it is another one than before, or none of those that the member's ticket named.
var (
	errPinned   = errors.New("the outlet's node is not the one that it was")
	errExpected = errors.New("the outlet's node is not the one that this member's ticket says")
)

// sharePrefix stands before what pins.shares has, where it is written down; no name of an inlet begins so.
const sharePrefix = "share \x00"

// pinStore is a Store that keeps pins from one start to the next.
type pinStore interface {
	PutPins(data []byte) error
	Pins() ([]byte, error)
}

// pins are who was at the end of inlets' routes through a project when they first carried something. Whoever runs the project's relay and its
// authority could put somebody else there, with a credential and the relay's name; so who was seen first is expected from then on, as SSH
// does with host keys, unless the member's ticket said who is to be there. An inlet with --authorized needs none, and a route without a project has nobody in the middle who hands out credentials.
type pins struct {
	node *Node

	mu      sync.Mutex
	loaded  bool
	known   map[string]identity.Identifier // by inlet and route
	refused map[string]identity.Identifier // who was there instead, last
	shares  map[string]string              // whom the one who was seen first shares its relay name with, a policy expression
	named   map[string]identity.Identifier // whom the ticket named, where somebody else was refused last
}

// pin is one inlet's, or that of commands for one route.
type pin struct {
	pins        *pins
	inlet, name string
	accept      string // how another one is accepted
	instead     string // what else to do where the ticket names somebody
}

// pinOf returns the pin of an inlet, nil if it has none.
func (n *Node) pinOf(r *resource.Inlet, to multiaddr.Addr) *pin {
	if r.Authorized != "" || len(to) == 0 || to[0].Protocol != multiaddr.Project {
		return nil
	}
	return &pin{
		pins: &n.pins, inlet: r.Alias, name: r.Alias + " " + to.String(), accept: "sallyport tcp-inlet accept " + r.Alias,
		instead: "create the inlet with --authorized",
	}
}

// pinOfCommands returns the pin that commands have for who is behind a route through a project, nil if it has none.
func (n *Node) pinOfCommands(to multiaddr.Addr) *pin {
	secured := slices.ContainsFunc(to, func(v multiaddr.Value) bool { return v.Protocol == multiaddr.Secure })
	if len(to) == 0 || to[0].Protocol != multiaddr.Project || !secured {
		return nil
	}
	const accept = "give it as --expects"
	return &pin{pins: &n.pins, name: to.String(), accept: accept, instead: accept}
}

// load reads what was kept. p.mu is held.
func (p *pins) load() {
	if p.loaded {
		return
	}
	p.loaded = true
	p.known, p.refused, p.named = map[string]identity.Identifier{}, map[string]identity.Identifier{}, map[string]identity.Identifier{}
	p.shares = map[string]string{}
	store, ok := p.node.opts.Store.(pinStore)
	if !ok {
		return
	}
	raw, err := store.Pins()
	var kept map[string]string
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &kept)
	}
	for name, text := range kept {
		if of, ok := strings.CutPrefix(name, sharePrefix); ok {
			p.shares[of] = text
			continue
		}
		id, parseErr := identity.ParseIdentifier(text)
		if parseErr != nil {
			err = errors.Join(err, parseErr)
			continue
		}
		p.known[name] = id
	}
	if err != nil {
		p.node.log.Error("who the outlets were cannot be read; who answers next is believed", "err", err.Error())
	}
}

// save keeps the pins. p.mu is held.
func (p *pins) save() error {
	store, ok := p.node.opts.Store.(pinStore)
	if !ok {
		return nil
	}
	kept := map[string]string{}
	for name, id := range p.known {
		kept[name] = id.String()
	}
	for name, expression := range p.shares {
		kept[sharePrefix+name] = expression
	}
	raw, err := json.MarshalIndent(kept, "", "  ")
	if err == nil {
		err = store.PutPins(raw)
	}
	return err
}

// check refuses a peer that is none of those that the ticket named, or, where it named nobody, not the one that was seen first.
func (p *pin) check(peer identity.Identifier, expects []identity.Identifier) error {
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	p.pins.load()
	delete(p.pins.named, p.name)
	if len(expects) > 0 {
		if slices.Contains(expects, peer) {
			return nil
		}
		p.pins.named[p.name] = expects[0]
		return fmt.Errorf("%w: expected %s, found %s; if that is right, enroll with a ticket that expects it, or %s",
			errExpected, joinIdentifiers(expects), peer, p.instead)
	}
	known, ok := p.pins.known[p.name]
	if !ok || known == peer {
		return nil
	}
	if share := p.pins.shares[p.name]; share != "" && p.pins.node.admits(share, peer) {
		return nil
	}
	p.pins.refused[p.name] = peer
	return fmt.Errorf("%w: expected %s, found %s; if that is right: %s", errPinned, known, peer, p.accept)
}

// joinIdentifiers lists a few identifiers for an error.
func joinIdentifiers(list []identity.Identifier) string {
	text := ""
	for i, id := range list {
		if i == 3 {
			return fmt.Sprintf("%s or %d others", text, len(list)-i)
		}
		if i > 0 {
			text += " or "
		}
		text += id.String()
	}
	return text
}

// keep notes who is there, if nobody was before.
func (p *pin) keep(peer identity.Identifier) { p.note(peer, false) }

// shared notes whom peer shares its relay name with, if peer is the one who is expected.
func (p *pin) shared(peer identity.Identifier, expression string) {
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	p.pins.load()
	if known, ok := p.pins.known[p.name]; !ok || known != peer || p.pins.shares[p.name] == expression {
		return
	}
	if expression == "" {
		delete(p.pins.shares, p.name)
	} else {
		p.pins.shares[p.name] = expression
	}
	p.pins.node.log.Info("the outlet's node says who may stand for it", "inlet", p.inlet, "identifier", peer.String(), "share", expression)
	if err := p.pins.save(); err != nil {
		p.pins.node.log.Error("who may stand for the outlet's node was not kept", "inlet", p.inlet, "err", err.Error())
	}
}

// note notes who is there; with replace also where somebody else was.
func (p *pin) note(peer identity.Identifier, replace bool) {
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	p.pins.load()
	if known, ok := p.pins.known[p.name]; ok && (!replace || known == peer) {
		return
	}
	p.pins.known[p.name] = peer
	p.pins.node.log.Info("the outlet's node is expected from now on", "inlet", p.inlet, "identifier", peer.String())
	if err := p.pins.save(); err != nil {
		p.pins.node.log.Error("who the outlet's node is was not kept", "inlet", p.inlet, "err", err.Error())
	}
}

// AcceptOutlet lets an inlet go on with whoever was refused at the end of its route last, or, if nobody was, with who answers next.
func (n *Node) AcceptOutlet(_ context.Context, name string) (admin.Accepted, error) {
	p := &n.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load()
	out := admin.Accepted{Name: name}
	for key, id := range p.named {
		if strings.HasPrefix(key, name+" ") {
			return out, fmt.Errorf("%w: this member's ticket says that inlet %q leads to %s: enroll with a ticket that expects another node, or create the inlet with --authorized",
				admin.ErrInvalid, name, id)
		}
	}
	found := false
	for key := range maps.Clone(p.known) {
		if !strings.HasPrefix(key, name+" ") {
			continue
		}
		found = true
		out.Before = p.known[key].String()
		delete(p.known, key)
		delete(p.shares, key)
		if id, ok := p.refused[key]; ok {
			p.known[key], out.Now = id, id.String()
			delete(p.refused, key)
		}
	}
	if !found {
		return out, fmt.Errorf("%w: no inlet %q that expects an outlet's node it has seen", admin.ErrNotFound, name)
	}
	return out, p.save()
}

// PutPins implements pinStore.
func (h *home) PutPins(data []byte) error {
	switch {
	case h.command:
		return h.dir.PutCommandPins(data)
	case !h.trusts:
		return nil
	}
	return h.dir.PutPins(h.node, data)
}

// Pins implements pinStore.
func (h *home) Pins() ([]byte, error) {
	switch {
	case h.command:
		return h.dir.CommandPins()
	case !h.trusts:
		return nil, nil
	}
	return h.dir.Pins(h.node)
}
