package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/project"
	"sallyport/routing/multiaddr"
)

// Bounds of a keeper.
const (
	// DefaultLifetime is for how long a delegate's keys are attested at most unless its ticket says otherwise, MaxLifetime the longest that one may
	// say: what a member of the reference needs, which asks for a credential of 30 days with its channel.
	DefaultLifetime = identity.AttestationTTL
	MaxLifetime     = 31 * 24 * time.Hour
	minLifetime     = time.Minute
	// maxNodes and maxTickets are how many delegates and open tickets a keeper has.
	maxNodes   = 64
	maxTickets = 64
	// maxKeys is how many of the keys attested for a delegate are remembered.
	maxKeys = 64
	// maxRoute is the longest route, in bytes, and maxName the longest name.
	maxRoute = 512
	maxName  = 63
	// maxEvents is how many events a keeper remembers.
	maxEvents = 128
)

// Errors of a Keeper, for errors.Is.
var (
	ErrNoNode  = errors.New("there is no such node")
	ErrFull    = errors.New("there are too many")
	ErrInvalid = errors.New("invalid")
)

// Kind is what a delegate is.
type Kind string

// Kinds of delegates: a relay node has keys for secure channels, an authority node keys that sign credentials besides.
const (
	Relay     Kind = "relay"
	Authority Kind = "authority"
)

// allows reports whether a delegate of a kind may have a key for a purpose.
func (k Kind) allows(p identity.Purpose) bool {
	return p == identity.SecureChannel || p == identity.CredentialSigning && k == Authority
}

// Options make a Keeper. All but Changed, Now and Log are required.
type Options struct {
	// Self is the identity, Kind what its delegates are.
	Self identity.Identifier
	Kind Kind
	// Identities attests with Self's primary key.
	Identities identity.Keeper
	// History returns Self's encoded history, which delegates have to know when it was rotated.
	History func(ctx context.Context) ([]byte, error)
	// Load returns what Save has stored last, nil if nothing. Save is atomic and durable.
	Load func() ([]byte, error)
	Save func([]byte) error
	// Changed is told where the delegates are after that has changed, and at the start. It must not call the Keeper. May be nil.
	Changed func(routes []string)
	Now     func() time.Time
	Log     *slog.Logger
}

// Node is a delegate on a keeper's list.
type Node struct {
	Name string `json:"name"`
	// Box is the node's own identity, by which the keeper knows it; members never see it.
	Box  identity.Identifier `json:"box"`
	Kind Kind                `json:"kind"`
	// Route is where members reach it.
	Route string `json:"route"`
	// Lifetime is for how long its keys are attested at most, in seconds.
	Lifetime int64     `json:"lifetime"`
	Ticket   string    `json:"ticket"`
	AddedAt  time.Time `json:"added_at"`
	// Seen is when the keeper heard from it last, ValidUntil when the last attestation that it has ends. Deleted is when it was taken from the list,
	// zero for one that is on it: it is remembered until ValidUntil.
	Seen       time.Time `json:"seen,omitzero"`
	ValidUntil time.Time `json:"valid_until,omitzero"`
	Deleted    time.Time `json:"deleted,omitzero"`
	// Keys are the public keys that were attested for it and have not ended.
	Keys []attestedKey `json:"keys,omitempty"`
}

type attestedKey struct {
	Public string    `json:"public"` // hex
	Until  time.Time `json:"until"`
}

// ticket is a ticket that was not used up.
type ticket struct {
	Hash      string    `json:"hash"` // SHA-256 of the code, hex
	Reference string    `json:"reference"`
	Lifetime  int64     `json:"lifetime"` // seconds
	Until     time.Time `json:"until"`
	Left      int       `json:"left"` // uses
}

// Event is an entry of the keeper's record of what happened.
type Event struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	Node   string    `json:"node,omitempty"`
	Box    string    `json:"box,omitempty"`
	Ticket string    `json:"ticket,omitempty"`
	Source string    `json:"source,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// list is what is stored.
type list struct {
	Version int      `json:"version"`
	Nodes   []Node   `json:"nodes"`
	Tickets []ticket `json:"tickets"`
	Events  []Event  `json:"events"`
}

// clone copies what a change may touch.
func (l *list) clone() *list {
	c := &list{Version: l.Version, Nodes: slices.Clone(l.Nodes), Tickets: slices.Clone(l.Tickets), Events: slices.Clone(l.Events)}
	for i := range c.Nodes {
		c.Nodes[i].Keys = slices.Clone(c.Nodes[i].Keys)
	}
	return c
}

// Keeper keeps the list of an identity's delegates, and attests their keys. Its methods may be called from several goroutines.
type Keeper struct {
	o       Options
	guesses buckets // unknown codes, by source
	asks    buckets // attestations, by delegate
	board   *board  // tells members where the delegates are

	mu   sync.Mutex
	list *list
}

// NewKeeper makes a Keeper with the list that is stored.
func NewKeeper(o Options) (*Keeper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func([]string) {}
	}
	k := &Keeper{o: o, list: &list{Version: 1}, board: newBoard(maxWaiting), guesses: buckets{most: 5, refill: 10 * time.Second}, asks: buckets{most: 10, refill: 10 * time.Second}}
	raw, err := o.Load()
	if err == nil && raw != nil {
		k.list, err = decodeList(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("the list of nodes that act as %s: %w", o.Self, err)
	}
	o.Changed(k.list.routes())
	k.board.set(k.list.routes())
	return k, nil
}

// change stores a changed list: what f has done is in effect when it is on the disk, and not at all if it is not.
func (k *Keeper) change(f func(l *list) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.list.clone()
	k.forget(l)
	if err := f(l); err != nil {
		return err
	}
	raw, err := encodeList(l)
	if err == nil {
		err = k.o.Save(raw)
	}
	if err != nil {
		return fmt.Errorf("the list of nodes is not stored: %w", err)
	}
	before := k.list.routes()
	if k.list = l; !slices.Equal(before, l.routes()) {
		k.o.Changed(l.routes())
		k.board.set(l.routes())
	}
	return nil
}

// routes are where the delegates are, in the order of their names.
func (l *list) routes() (routes []string) {
	for _, n := range slices.SortedFunc(slices.Values(l.Nodes), func(a, b Node) int { return strings.Compare(a.Name, b.Name) }) {
		if n.Deleted.IsZero() {
			routes = append(routes, n.Route)
		}
	}
	return routes
}

// forget drops what has ended.
func (k *Keeper) forget(l *list) {
	now := k.o.Now()
	l.Tickets = slices.DeleteFunc(l.Tickets, func(t ticket) bool { return t.Left <= 0 || now.After(t.Until) })
	l.Nodes = slices.DeleteFunc(l.Nodes, func(n Node) bool { return !n.Deleted.IsZero() && now.After(n.ValidUntil) })
	for i := range l.Nodes {
		l.Nodes[i].Keys = slices.DeleteFunc(l.Nodes[i].Keys, func(a attestedKey) bool { return now.After(a.Until) })
	}
}

// happened adds to the record.
func (l *list) happened(e Event) {
	if len(l.Events) >= maxEvents {
		l.Events = l.Events[len(l.Events)-maxEvents+1:]
	}
	l.Events = append(l.Events, e)
}

// NewTicket makes a ticket's code for a number of nodes that may become delegates within ttl, each with keys attested for at most lifetime; 0 is
// DefaultLifetime. The reference names the ticket and is no secret. Errors match ErrInvalid or ErrFull if that is the cause.
func (k *Keeper) NewTicket(lifetime, ttl time.Duration, uses int) (code project.Code, reference string, err error) {
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	switch {
	case lifetime < minLifetime || lifetime > MaxLifetime:
		return code, "", fmt.Errorf("%w: a lifetime of %v: it must be from %v to %v", ErrInvalid, lifetime, minLifetime, MaxLifetime)
	case ttl <= 0 || ttl > MaxLifetime:
		return code, "", fmt.Errorf("%w: a ticket for %v: it must be good for at most %v", ErrInvalid, ttl, MaxLifetime)
	case uses < 1 || uses > maxNodes:
		return code, "", fmt.Errorf("%w: %d uses: it must be from 1 to %d", ErrInvalid, uses, maxNodes)
	}
	_, _ = rand.Read(code[:]) // never fails: it ends the program instead
	reference = rand.Text()[:10]
	now := k.o.Now()
	err = k.change(func(l *list) error {
		if len(l.Tickets) >= maxTickets {
			return fmt.Errorf("%w: %d tickets are open", ErrFull, len(l.Tickets))
		}
		l.Tickets = append(l.Tickets, ticket{Hash: hashOf(code), Reference: reference, Lifetime: int64(lifetime / time.Second), Until: now.Add(ttl), Left: uses})
		l.happened(Event{Time: now, Event: "ticket_issued", Ticket: reference})
		return nil
	})
	if err != nil {
		clear(code[:])
		return code, "", err
	}
	k.o.Log.Info("a ticket for a node that acts as this identity was made", "ticket", reference, "kind", string(k.o.Kind), "ttl", ttl, "uses", uses, "lifetime", lifetime)
	return code, reference, nil
}

// Nodes lists the delegates by name, and those that were deleted and whose attestations have not ended.
func (k *Keeper) Nodes() []Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.list.clone()
	k.forget(l)
	slices.SortFunc(l.Nodes, func(a, b Node) int { return cmp.Or(strings.Compare(a.Name, b.Name), a.Deleted.Compare(b.Deleted)) })
	return l.Nodes
}

// Events returns what happened, oldest first.
func (k *Keeper) Events() []Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.list.Events)
}

// Delete takes a node from the list: it gets no attestation any more. What it returns says until when those that it has are valid. The error matches
// ErrNoNode if there is no node of that name.
func (k *Keeper) Delete(name string) (n Node, err error) {
	err = k.change(func(l *list) error {
		i := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.Name == name && n.Deleted.IsZero() })
		if i < 0 {
			return fmt.Errorf("%w: %q", ErrNoNode, name)
		}
		l.Nodes[i].Deleted = k.o.Now()
		n = l.Nodes[i]
		l.happened(Event{Time: n.Deleted, Event: "node_deleted", Node: n.Name, Box: n.Box.String()})
		return nil
	})
	if err == nil {
		k.o.Log.Info("a node acts as this identity no longer", "node_name", n.Name, "box", n.Box.String(), "attested_until", n.ValidUntil.UTC().Format(time.RFC3339))
	}
	return n, err
}

// outcome of a redemption that is no error.
type outcome string

const (
	joined        outcome = "joined"
	alreadyThere  outcome = "already_there"
	codeUnknown   outcome = "unknown"
	nameTaken     outcome = "name_taken"
	tooManyNodes  outcome = "full"
	badParameters outcome = "invalid"
)

// redeem puts box on the list for a code. A box that is on it already spends nothing, and may say that it is elsewhere now.
func (k *Keeper) redeem(box identity.Identifier, code project.Code, name, route, source string) (o outcome, n Node, err error) {
	if checkName(name) != nil || checkRoute(route) != nil {
		return badParameters, n, nil
	}
	hash, now := hashOf(code), k.o.Now()
	errStop := errors.New("nothing changes")
	err = k.change(func(l *list) error {
		found := -1
		for i, t := range l.Tickets { // all are compared, so that how long it takes says nothing
			if subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hash)) == 1 {
				found = i
			}
		}
		mine := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.Box == box && n.Deleted.IsZero() })
		if found < 0 {
			o = codeUnknown
			return errStop
		}
		if slices.ContainsFunc(l.Nodes, func(n Node) bool { return n.Name == name && n.Deleted.IsZero() && n.Box != box }) {
			o = nameTaken
			return errStop
		}
		if mine >= 0 {
			l.Nodes[mine].Name, l.Nodes[mine].Route, l.Nodes[mine].Seen = name, route, now
			o, n = alreadyThere, l.Nodes[mine]
			return nil
		}
		if len(l.Nodes) >= maxNodes {
			o = tooManyNodes
			return errStop
		}
		t := &l.Tickets[found]
		t.Left--
		n = Node{Name: name, Box: box, Kind: k.o.Kind, Route: route, Lifetime: t.Lifetime, Ticket: t.Reference, AddedAt: now, Seen: now}
		l.Nodes = append(l.Nodes, n)
		l.happened(Event{Time: now, Event: "ticket_redeemed", Node: name, Box: box.String(), Ticket: t.Reference, Source: source})
		o = joined
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return o, n, err
}

// onList returns the delegate that a box is.
func (k *Keeper) onList(box identity.Identifier) (Node, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.list.Nodes, func(n Node) bool { return n.Box == box && n.Deleted.IsZero() })
	if i < 0 {
		return Node{}, false
	}
	return k.list.Nodes[i], true
}

// errKeyOfAnother refuses to attest a key that somebody else has.
var errKeyOfAnother = errors.New("the key is another node's")

// attest attests a key for a box. The list says until when before the box has the attestation.
func (k *Keeper) attest(ctx context.Context, box identity.Identifier, r identity.AttestationRequest) (attestation, history []byte, err error) {
	n, ok := k.onList(box)
	if !ok {
		return nil, nil, identity.ErrNotDelegate
	}
	if !n.Kind.allows(r.Purpose) {
		return nil, nil, fmt.Errorf("%w: a %s node has no key for %s", ErrInvalid, n.Kind, r.Purpose)
	}
	r.Subject = k.o.Self
	r.Lifetime = min(r.Lifetime, time.Duration(n.Lifetime)*time.Second)
	if r.Lifetime < time.Second {
		return nil, nil, fmt.Errorf("%w: a lifetime of %v", ErrInvalid, r.Lifetime)
	}
	public := hex.EncodeToString(r.X25519[:])
	if r.Purpose == identity.CredentialSigning {
		public = hex.EncodeToString(r.Key.Bytes)
	}
	now := k.o.Now()
	until := now.Add(r.Lifetime)
	err = k.change(func(l *list) error {
		i := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.Box == box && n.Deleted.IsZero() })
		if i < 0 {
			return identity.ErrNotDelegate // deleted a moment ago
		}
		for j, other := range l.Nodes {
			if j != i && slices.ContainsFunc(other.Keys, func(a attestedKey) bool { return a.Public == public }) {
				return errKeyOfAnother
			}
		}
		n := &l.Nodes[i]
		n.Seen = now
		if until.After(n.ValidUntil) {
			n.ValidUntil = until
		}
		n.Keys = append(n.Keys[max(0, len(n.Keys)-maxKeys+1):], attestedKey{public, until})
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return k.o.Identities.Attest(ctx, r)
}

// checkName reports whether a delegate may be called so.
func checkName(name string) error {
	ok := name != "" && len(name) <= maxName && strings.Trim(name, ".-_") == name
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}
	if !ok {
		return fmt.Errorf("%w: the name %.80q must have letters, digits, dots, dashes and underscores, at most %d", ErrInvalid, name, maxName)
	}
	return nil
}

// checkRoute reports whether members can be sent along a route.
func checkRoute(route string) error {
	if len(route) > maxRoute {
		return fmt.Errorf("%w: a route of %d bytes, at most %d are possible", ErrInvalid, len(route), maxRoute)
	}
	a, err := multiaddr.Parse(route)
	if err != nil {
		return fmt.Errorf("%w: the route: %w", ErrInvalid, err)
	}
	last := len(a) - 1
	if _, _, _, ok := a.HostPort(); !ok || last < 0 || a[last].Protocol != multiaddr.Service && a[last].Protocol != multiaddr.Secure {
		return fmt.Errorf("%w: the route %s must name a host and end in /service/api", ErrInvalid, route)
	}
	return nil
}
