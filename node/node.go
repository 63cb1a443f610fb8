package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/crypto/identity"
	"sallyport/dataplane"
	"sallyport/limits"
	"sallyport/node/admin"
	"sallyport/node/page"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/datagram"
	"sallyport/portal/interceptor"
	"sallyport/proxy"
	"sallyport/records"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
	"sallyport/routing/udp"
)

// Project is what a node needs to know of a project.
type Project struct {
	// Route leads to the project's node and ends in its secure channel listener.
	Route multiaddr.Addr
	// Routes lead to further nodes that act as it.
	Routes []multiaddr.Addr
	// Identifier is who must answer there.
	Identifier identity.Identifier
	// Authority issues the project's credentials; nil if the project has none.
	Authority *identity.Identifier
	// Expects are the nodes that inlets may send to through the project; empty for whoever was there first.
	Expects []identity.Identifier
}

// Trust says whose credentials a node believes, and how it gets its own (docs/protocol/02 §5.7).
type Trust struct {
	// Authority issues the credentials that are believed; nil believes none.
	Authority *identity.Identifier
	// Route leads to the authority and ends in its secure channel listener; empty fetches no credential.
	Route multiaddr.Addr
	// Routes lead to further authorities that act as it.
	Routes []multiaddr.Addr
	// Project is the name of the project whose authority it is, for what is learned of further ones; empty if it was named by itself.
	Project string
	// Scope names the node's own credential in the store; empty presents none.
	Scope string
	// Grace is how long the authority may be out of reach before the node says so in its state and opens no channel with a member any more,
	// since it cannot know whom the authority has revoked. 0: it says so when the credentials that it last heard of have expired, and goes on
	// believing those that have not.
	Grace time.Duration
	// Present is shown to the authority: what an account authority says of an administrator; nil shows nothing.
	Present []byte
}

// Store is what a node keeps from one start to the next.
type Store interface {
	// Project returns a project by name; an error matching admin.ErrNotFound if there is none.
	Project(ctx context.Context, name string) (*Project, error)
	// Identity returns the identifier of a named identity.
	Identity(ctx context.Context, name string) (identity.Identifier, error)
	// Credential returns the stored credential, nil if there is none.
	Credential(ctx context.Context, subject, issuer identity.Identifier, scope string) ([]byte, error)
	// PutCredential replaces it.
	PutCredential(ctx context.Context, subject, issuer identity.Identifier, scope string, raw []byte, expires time.Time) error
	table.Store
	// PutExchangedKey keeps a key that decrypts what a Kafka producer wrote. Nobody but the node's owner may read it.
	PutExchangedKey(ctx context.Context, k ExchangedKey) error
	// ExchangedKey returns the key with an address, nil if there is none.
	ExchangedKey(ctx context.Context, address string) (*ExchangedKey, error)
}

// ExchangedKey decrypts what one Kafka producer wrote for this node (docs/protocol/03 §5.3).
type ExchangedKey struct {
	// Address names the key in what was written.
	Address    string
	Self, Peer identity.Identifier
	Key        [32]byte
	// What an authority attested of the producer, and until when; nil if nothing.
	Attributes map[string]string
	AttestedBy *identity.Identifier
	Expires    time.Time
}

// Options configure a node. Fields without a default are required unless they say otherwise.
type Options struct {
	Name         string
	IdentityName string
	Self         identity.Identifier
	Identities   *identity.Manager
	// KeysHome tells where Self's primary key is if that may be away, such as "vault hsm (pkcs11)"; it is for people.
	KeysHome string
	// IdentitiesOf returns what works with the keys of another named identity, which may be in another vault; it must share the Store of
	// Identities. Nil: Identities has the keys of all.
	IdentitiesOf func(ctx context.Context, name string) (*identity.Manager, error)
	Store        Store
	Trust        Trust
	// Sockets are those that a service manager has opened: what listens at their addresses uses copies of them. They stay
	// open until the process ends.
	Sockets []dataplane.Inherited
	// NoListener leaves the node without a TCP listener: others reach it through relays alone.
	NoListener bool
	// Listen is the TCP listener's address, host:port. Where its port is 0, ListenBefore is tried first: what the node chose last time.
	Listen, ListenBefore string
	// Listeners are where other nodes connect besides, as at Listen; none with NoListener.
	Listeners []resource.TCPListener
	// Issuer gets certificates for listeners that have no files with one (package acme); nil: none.
	Issuer Issuer
	// AcceptProxyProtocol and TrustedProxies are those of the listener at Listen if there are no Listeners (resource.TCPListener).
	AcceptProxyProtocol, TrustedProxies []string
	// Proxies say through which proxies the node connects to others; nil: none.
	Proxies *proxy.Rules
	// TLS says which servers are believed over TLS.
	TLS tcp.Trust
	// UDP are the options of the UDP transport.
	UDP UDPOptions
	// Fleet is for nodes elsewhere that act as Self too; nil: there are none.
	Fleet *FleetOptions
	// Authority runs the authority's services in place of those of an ordinary node; nil runs an ordinary node.
	Authority *AuthorityOptions
	// Shards is how many event loops run; default one per core.
	Shards int
	// Limits bound what the node holds for others; what is zero has its default.
	Limits limits.Limits
	// Portals bound what portals hold; what is zero follows Limits, or has its default.
	Portals portal.Limits
	// ChannelTimeout bounds one handshake; default 10 s.
	ChannelTimeout time.Duration
	Log            *slog.Logger
	// LogLevel is the log's level, which a configuration may change; nil: it may not.
	LogLevel *slog.LevelVar
	// RelayRegistry makes the node's relay service one of several; nil: it is the only one.
	RelayRegistry *RelayRegistry
	// Records says where records of portal connections go; nil keeps none.
	Records *RecordOptions
	// StatusToken is what who asks the status address must show; none: anybody there may ask, and the page is for loopback addresses alone.
	StatusToken page.Token
	// Upgrade says how another program takes over; zero: none can.
	Upgrade UpgradeOptions
}

// RecordOptions say where records of portal connections go, and whether the node signs them.
type RecordOptions struct {
	// Sink is the node's from Start on, also if that fails.
	Sink     records.Sink
	Receipts *records.Receipts
}

// Node is a running node.
type Node struct {
	opts     Options
	log      *slog.Logger
	group    *dataplane.Group
	router   *routing.Router
	tcp      *tcp.Transport
	udp      *udp.Transport
	channels *secure.Channels
	api      *secure.Listener
	relaySvc *routing.Relays
	control  *control.Service
	dialing  chan struct{} // handshakes that this node begins
	portals  *portal.Env
	datagram *datagram.Env
	// intercepted is what waits in the interceptors of Kafka portals.
	intercepted interceptor.Budget
	policies    *policy.Set
	access      *access
	creds       *credentials // nil: the node presents none
	revoked     *revocations // nil: there is no authority, or no route to it
	pins        pins
	counters    counters
	closing     closing
	busy        busyShare
	records     *records.Log // nil: none are kept
	events      *events
	history     history
	closeOnce   sync.Once
	started     time.Time

	others sync.Map // *identity.Manager by identity.Identifier, of identities that have their keys elsewhere

	routes routesLearned

	projectNodes sync.Map // struct{} by identity.Identifier, of those that projects name as their node

	ctx    context.Context // ends with the node
	cancel context.CancelFunc

	set *table.Set // all resources, in tables
	kinds
	ownWorkers   sync.Mutex               // held while a worker of the program gets or gives up its name and policy
	serviceLists []func() []admin.Service // of kinds whose entries are services
	policed      []asking                 // kinds that ask for policies

	main        *tcp.Listener
	mainUDP     *udp.Bind // nil without --udp, as is what follows
	negotiation *udp.Listener
	seers       seers

	mu       sync.Mutex
	dialed   map[string]*connection // secure channels opened by request, by encryptor address
	services []admin.Service        // that every node has
	statusAt string
	carried  *Carried // what the program before has left and nobody has taken up

	upgrades upgrades
	// writers are what keeps something in the Store by itself.
	writers sync.WaitGroup
	// leaving: others are to take over what the node shares with them.
	leaving atomic.Bool
}

// Start starts a node and creates again what it was asked to create before.
func Start(ctx context.Context, o Options) (_ *Node, err error) {
	if o.Shards == 0 {
		o.Shards = runtime.GOMAXPROCS(0)
	}
	o.Limits = o.Limits.WithDefaults()
	if o.ChannelTimeout == 0 {
		o.ChannelTimeout = 10 * time.Second
	}
	happened := &events{}
	o.Log = slog.New(&eventHandler{inner: o.Log.Handler(), to: happened})
	n := &Node{opts: o, log: o.Log, events: happened, started: time.Now(), policies: policy.NewSet(), dialed: map[string]*connection{}, dialing: make(chan struct{}, dialings),
		upgrades: upgrades{ending: make(chan struct{})}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.set = table.NewSet(n.ctx, o.Store, o.Log)
	defer func() {
		if err != nil {
			n.Stop()
		}
	}()
	if n.group, err = dataplane.NewLimitedGroup(o.Shards, loopLimits(o.Limits), o.Log); err != nil {
		return nil, err
	}
	n.goOn(o.Upgrade.Carried)
	if n.router, err = routing.NewRouter(n.group, o.Log); err != nil {
		return nil, err
	}
	n.router.MaxRoute = o.Limits.Route
	n.router.Backlogs.SetLimit(int64(o.Limits.Backlog))
	over := transportOptions(o.Limits)
	over.Proxies, over.Trust = o.Proxies, o.TLS
	n.tcp = tcp.New(n.router, over)
	if o.UDP.Transport.Windows == 0 {
		o.UDP.Transport.Windows = int64(o.Limits.Windows) / 2
	}
	n.udp = udp.New(n.router, o.UDP.Transport)
	n.tcp.Pause()
	n.udp.Pause()
	n.channels = secure.New(n.router, o.Shards, channelLimits(o.Limits), o.Log)
	n.portals = &portal.Env{Limits: portalLimits(o.Portals, o.Limits), Stats: &portal.Stats{}, Log: o.Log}
	if n.portals.Process = newProcess(&o); o.Upgrade.Carried != nil && len(o.Upgrade.Carried.Process) == len(n.portals.Process) {
		n.portals.Process = [32]byte(o.Upgrade.Carried.Process)
	}
	n.datagram = &datagram.Env{Log: o.Log}
	n.channels.Opened = n.watchPeer
	n.access = newAccess(n.policies)
	n.access.self, n.pins.node = o.Self, n
	n.startRecords()
	n.addKinds()
	if o.Trust.Authority != nil && o.Trust.Scope != "" {
		n.creds = newCredentials(n)
	}
	if o.Trust.Authority != nil && len(o.Trust.Route) > 0 && o.Authority == nil {
		n.revoked = &revocations{node: n, state: AuthorityUnreachable}
		n.revoked.load(ctx)
	}
	if !o.NoListener {
		if n.main, err = listenAgain(ctx, o.Listen, o.ListenBefore, n.log, n.listenTCP); err != nil {
			return nil, err
		}
	}
	if n.main != nil {
		for _, r := range o.Listeners {
			if err := n.listenToo(ctx, r); err != nil {
				return nil, err
			}
		}
	}
	if o.Authority != nil {
		if err := n.startAuthority(ctx); err != nil {
			return nil, err
		}
	} else if err := n.startUDP(ctx); err != nil {
		return nil, err
	} else if err := n.startServices(ctx); err != nil {
		return nil, err
	}
	// Before resources are opened: those of two nodes may wait for each other.
	if err := errors.Join(n.tcp.Resume(ctx), n.udp.Resume(ctx)); err != nil {
		return nil, err
	}
	if o.Issuer != nil {
		go o.Issuer.Run(n.ctx)
	}
	n.writers.Go(func() { n.keepKeys(n.ctx) })
	if n.creds != nil {
		n.writers.Go(func() { n.creds.run(n.ctx) })
	}
	if n.revoked != nil {
		n.writers.Go(func() { n.revoked.run(n.ctx) })
	}
	if err := n.set.Restore(ctx); err != nil {
		return nil, err
	}
	n.served()
	n.log.Info("node started", "node", o.Name, "identity", o.Self.String(), "listen", n.Listening(), "shards", o.Shards)
	return n, nil
}

// Check reports what would keep Start from opening listeners with these options, as far as that can be read: addresses that are none any more, files of certificates
// that are gone. It opens nothing.
func Check(ctx context.Context, o Options) error {
	if o.NoListener {
		return nil
	}
	n := &Node{opts: o, log: o.Log}
	for _, r := range append([]resource.TCPListener{n.mainListener(o.Listen)}, o.Listeners...) {
		if _, _, err := n.serving(ctx, r); err != nil {
			return err
		}
	}
	if o.UDP.Listen == "" {
		return nil
	}
	_, err := udpAddresses(ctx, o.UDP.Listen)
	return err
}

// listenAgain listens at an address. Where the port is left open, it is the one of before, by which others know the node, unless
// somebody else has it by now.
func listenAgain[L any](
	ctx context.Context, at, before string, log *slog.Logger, listen func(context.Context, string) (L, error),
) (L, error) {
	if portOf(at) == "0" && before != "" && hostOf(before) == hostOf(at) {
		l, err := listen(ctx, before)
		if err == nil {
			return l, nil
		}
		log.Warn("the node gets another address", "before", before, "reason", err.Error())
	}
	return listen(ctx, at)
}

func hostOf(hostport string) string {
	host, _, _ := net.SplitHostPort(hostport)
	return host
}

// startServices starts what every ordinary node has (docs/protocol/01 §5.4).
func (n *Node) startServices(ctx context.Context) (err error) {
	if n.api, err = n.channels.Listen(ctx, routing.ChannelService, n.channelOptions(n.opts.Self, nil), true, n.channelFlows()...); err != nil {
		return err
	}
	both := append(n.listenerFlows(), n.api.Flow)
	if n.authority() == nil {
		both = append(both, n.router.Begun()) // as outlets, whose users ask it whether the way still leads here
	}
	echo := n.access.guard(policy.ByName(routing.EchoService), policy.Echoer, n.authority(), false)
	answer := func(*routing.Shard) routing.Worker { return routing.Echo(echo.admits(), n.portals.Heard) }
	if err := n.router.StartNamed(ctx, routing.EchoService, answer, both...); err != nil {
		return err
	}
	if err := n.router.StartNamed(ctx, routing.UppercaseService, func(*routing.Shard) routing.Worker { return routing.Uppercase() }, both...); err != nil {
		return err
	}
	n.services = []admin.Service{{Address: routing.UppercaseService, Type: "uppercase"}, {Address: routing.EchoService, Type: "echo"}}
	if n.negotiation != nil {
		if err := n.router.StartNamed(ctx, udp.NegotiationService, func(*routing.Shard) routing.Worker { return n.negotiation }, n.api.Flow); err != nil {
			return err
		}
		n.router.RegisterFlow(n.negotiation.Flow)
		n.seers.calls = map[[udp.TokenSize]byte]*control.Call{}
		if err := n.router.StartNamed(ctx, udp.SeenService, func(*routing.Shard) routing.Worker { return udp.Seen(n.seen) }, n.mainUDP.Flow); err != nil {
			return err
		}
	}
	n.relaySvc, err = routing.NewRelays(ctx, n.router, routing.RelayOptions{
		Allow: n.relayAllowed(), Admit: n.relayMembers(), Shares: n.relayShares, Fleet: n.relayFleet(), Flows: both, Names: n.opts.Limits.Names, NamesPerOwner: n.opts.Limits.NamesPerOwner, Log: n.log,
	})
	if err != nil {
		return err
	}
	if err := n.startFleet(ctx); err != nil {
		return err
	}
	return n.startControl(ctx)
}

// admits turns a guard into a service's access control.
func (g *guard) admits() routing.Access {
	if g == nil {
		return nil
	}
	return func(m *routing.Message) bool {
		if m.Peer == nil {
			return false
		}
		return g.Grant(&m.Peer.ID).Allowed()
	}
}

// relayAttribute names the relay that a member may register (docs/protocol/02 §5.5).
const relayAttribute = "ockam-relay"

// relayAllowed is the relay service's access control: with an authority its policy, and the attribute that names the relay.
func (n *Node) relayAllowed() func(*routing.Message, string) bool {
	authority := n.authority()
	if authority == nil {
		return nil
	}
	g := n.access.guard(policy.ByName(routing.RelayService), policy.Relay, authority, false)
	return func(m *routing.Message, name string) bool {
		if m.Peer == nil || !g.Grant(&m.Peer.ID).Allowed() {
			return false
		}
		attributes, ok := n.access.attributes(identity.Identifier(m.Peer.ID), *authority)
		granted := attributes[relayAttribute]
		if of, isLane := routing.LaneOf(name); isLane && granted == of {
			return ok
		}
		return ok && granted != "" && (granted == "*" || granted == name)
	}
}

// authority returns whose credentials the node believes, or nil.
func (n *Node) authority() *identity.Identifier { return n.opts.Trust.Authority }

func (n *Node) project(ctx context.Context, name string) (*Project, error) {
	return n.opts.Store.Project(ctx, name)
}

// channelOptions says who this side of a channel is and whom it accepts; no authorized identities accept everybody.
func (n *Node) channelOptions(self identity.Identifier, authorized []identity.Identifier) secure.Options {
	o := secure.Options{Identities: n.identitiesOf(self), Self: self}
	o.Trust = func(peer identity.Identifier) error {
		if len(authorized) > 0 && !slices.Contains(authorized, peer) {
			return fmt.Errorf("not one of the %d authorized identifiers", len(authorized))
		}
		return n.trusts(peer)
	}
	if n.creds != nil && self == n.opts.Self {
		o.Credential = n.creds.get
	}
	if authority := n.authority(); authority != nil {
		o.Accept = func(ctx context.Context, peer identity.Identifier, list [][]byte) {
			for _, raw := range list {
				n.acceptCredential(ctx, peer, raw)
			}
		}
	}
	return o
}

// acceptCredential takes what the node's authority says of a peer.
func (n *Node) acceptCredential(ctx context.Context, peer identity.Identifier, raw []byte) {
	c, err := n.opts.Identities.VerifyCredential(ctx, raw, &peer, []identity.Identifier{*n.authority()})
	if err == nil && n.access.isTakenBack(peer, time.Unix(int64(c.CreatedAt), 0)) {
		err = errors.New("the authority has revoked it")
	}
	if err == nil {
		n.access.learn(c)
		return
	}
	n.log.Warn("credential refused", "peer", peer.String(), "reason", err.Error())
	n.counters.credentialsRefused.Add(1)
	if n.revoked != nil && errors.Is(err, identity.ErrAttestation) {
		n.revoked.wait(peer, raw)
	}
}

// identitiesOf returns what works with the keys of an identity that connectOptions has named.
func (n *Node) identitiesOf(self identity.Identifier) *identity.Manager {
	if m, ok := n.others.Load(self); ok {
		return m.(*identity.Manager)
	}
	return n.opts.Identities
}

// connectOptions are the options of a request that may name an identity and an authorized peer.
func (n *Node) connectOptions(ctx context.Context, identityName, authorized string) (connectOptions, error) {
	o := connectOptions{self: n.opts.Self}
	if identityName != "" && identityName != n.opts.IdentityName {
		id, err := n.opts.Store.Identity(ctx, identityName)
		if err != nil {
			return o, err
		}
		if n.opts.IdentitiesOf != nil {
			m, err := n.opts.IdentitiesOf(ctx, identityName)
			if err != nil {
				return o, err
			}
			n.others.Store(id, m)
		}
		o.self = id
	}
	var err error
	o.authorized, err = authorizedOf(authorized)
	return o, err
}

// authorizedOf reads --authorized: identifiers with commas in between, none of them for anybody.
func authorizedOf(text string) (list []identity.Identifier, err error) {
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		id, err := identity.ParseIdentifier(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("%w: --authorized: %w", admin.ErrInvalid, err)
		}
		list = append(list, id)
	}
	return list, nil
}

// listenerFlows returns the flows of the TCP listener and the UDP socket, from which services are reachable.
func (n *Node) listenerFlows() []*routing.Flow {
	if n.mainUDP != nil {
		return []*routing.Flow{n.main.Flow, n.mainUDP.Flow}
	}
	if n.main == nil {
		return nil
	}
	return []*routing.Flow{n.main.Flow}
}

// channelFlows returns the flows from which secure channel listeners are reachable, and with them the channels that they accept: a
// channel may be moved onto a puncture.
func (n *Node) channelFlows() []*routing.Flow {
	if n.negotiation != nil {
		return append(n.listenerFlows(), n.negotiation.Flow)
	}
	return n.listenerFlows()
}

// Listening returns the address of the TCP listener, empty without one.
func (n *Node) Listening() string {
	if n.main == nil {
		return ""
	}
	return n.main.Bound.String()
}

// Stop ends the node: connections are closed. It is safe to call it more than once.
func (n *Node) Stop() {
	n.Ending()
	if n.router != nil { // before the paths are gone
		told, done := context.WithTimeout(context.Background(), time.Second)
		portal.Shutdown(told, n.router)
		done()
	}
	if n.control != nil {
		n.control.Close()
	}
	n.sayGoodbye()
	n.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	n.set.Close(ctx)
	if n.relaySvc != nil {
		n.relaySvc.Close()
	}
	if n.channels != nil {
		n.channels.Stop()
	}
	if n.group != nil {
		n.group.Stop()
	}
	written := make(chan struct{})
	go func() {
		n.writers.Wait()
		close(written)
	}()
	select { // nothing is written to the Store once the node has stopped
	case <-written:
	case <-ctx.Done():
	}
	if n.records != nil {
		n.records.Close()
	} else if r := n.opts.Records; r != nil {
		_ = r.Sink.Close()
	}
	if n.opts.Authority != nil && n.opts.Authority.Close != nil {
		n.closeOnce.Do(func() { _ = n.opts.Authority.Close() })
	}
	if r := n.opts.RelayRegistry; r != nil && r.Close != nil {
		n.closeOnce.Do(func() {
			if err := r.Close(); err != nil {
				n.log.Warn("the registry of relay names was not told that this relay ends", "reason", err.Error())
			}
		})
	}
}
