package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/node/admin"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/interceptor"
	"sallyport/portal/kafka"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// Addresses on an outlet's node (docs/protocol/03 §5.1).
const (
	kafkaInterceptor = "kafka_interceptor"
	kafkaBootstrap   = "kafka_bootstrap"
	kafkaBroker      = "kafka_outlet_" // and the broker's number
)

// Types of the services, as listed.
const (
	kafkaInletType  = "kafka_inlet"
	kafkaOutletType = "kafka_outlet"
)

// maxBrokers bounds what a cluster may make an outlet's node open.
const maxBrokers = 1000

// kafkaStall is how long a client may take nothing. It may be busy with what it has; before others are stopped by that, the
// interceptor cuts it off.
const kafkaStall = 10 * time.Minute

// kafkaPortals is what a node has of Kafka. Its fields are guarded by Node.mu.
type kafkaPortals struct {
	env    *portal.Env // of inlets
	budget interceptor.Budget
	inlets map[string]*kafkaInlet
	outlet *kafkaOutlet // a node has one at most: its addresses are fixed
	// published are the inlets that read a partition, by the name of its relay.
	published map[string]map[*kafkaInlet]bool
	keys      *keyring // nil before the first inlet
}

func (k *kafkaPortals) start(n *Node) {
	limits := n.portals.Limits
	limits.StallTimeout = kafkaStall
	k.env = &portal.Env{Limits: limits, Stats: n.portals.Stats, Log: n.log}
	k.inlets, k.published = map[string]*kafkaInlet{}, map[string]map[*kafkaInlet]bool{}
}

// requests are what to create again at the next start.
func (k *kafkaPortals) requests() (outlets []admin.KafkaOutletRequest, inlets []admin.KafkaInletRequest) {
	if k.outlet != nil {
		outlets = append(outlets, k.outlet.request)
	}
	for _, name := range sortedKeys(k.inlets) {
		inlets = append(inlets, k.inlets[name].request)
	}
	return outlets, inlets
}

// kafkaInlet is an inlet to the bootstrap server, and one to each broker that is known.
type kafkaInlet struct {
	request   admin.KafkaInletRequest
	to        multiaddr.Addr
	host      string // where clients are told to connect
	listener  *interceptor.Listener
	guard     *guard
	consumers *guard // who may get keys
	producers *guard // whose records are read
	brokers   map[int32]*inlet
	sealers   *sealers     // nil without content encryption
	filter    *kafka.Inlet // what its clients send and get goes through it
}

// kafkaOutlet is an outlet to the bootstrap server, and one to each broker that is known.
type kafkaOutlet struct {
	request  admin.KafkaOutletRequest
	listener *interceptor.Listener
	guard    *guard
}

// kafkaGuard is the guard of producers or consumers. Unlike a portal's it lets nobody without an authority or a policy
// (docs/protocol/03 §5.4): keys are not given to just anybody.
func (n *Node) kafkaGuard(ctx context.Context, name string, kind policy.ResourceType, to multiaddr.Addr, allow string) (*guard, error) {
	if err := n.setPolicyOf(name, allow); err != nil {
		return nil, err
	}
	return n.access.guard(name, kind, n.authorityOf(ctx, to), true), nil
}

// CreateKafkaInlet opens the bootstrap server's inlet; those of brokers follow when clients hear of them.
func (n *Node) CreateKafkaInlet(ctx context.Context, r admin.KafkaInletRequest) (admin.Inlet, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	in, err := n.checkKafkaInlet(ctx, &r)
	if err != nil {
		return admin.Inlet{}, err
	}
	defer func() {
		if err != nil {
			in.guard.close()
			in.consumers.close()
			in.producers.close()
		}
	}()
	allow := r.Allow
	if p := in.to; allow == "" && len(p) > 0 && p[0].Protocol == multiaddr.Project {
		project, err := n.project(ctx, p[0].Text)
		if err != nil {
			return admin.Inlet{}, err
		}
		allow = fmt.Sprintf(`(or (= subject.identifier "%s") (= subject.has_credential true))`, project.Identifier)
	}
	if in.guard, err = n.guardFor(r.Name, policy.TCPInlet, n.authorityOf(ctx, in.to), allow); err != nil {
		return admin.Inlet{}, err
	}
	if in.consumers, err = n.kafkaGuard(ctx, "kafka-consumer-"+r.Name, policy.KafkaConsumer, in.to, r.AllowConsumer); err != nil {
		return admin.Inlet{}, err
	}
	if in.producers, err = n.kafkaGuard(ctx, "kafka-producer-"+r.Name, policy.KafkaProducer, in.to, r.AllowProducer); err != nil {
		return admin.Inlet{}, err
	}
	if err = n.startKeyring(ctx); err != nil {
		return admin.Inlet{}, err
	}
	options := kafka.InletOptions{
		// What is begun for one client is for all: it goes on when the client leaves.
		Place: func(_ context.Context, broker int32, reached netip.Addr) (kafka.Place, error) {
			return n.kafkaPlace(n.ctx, in, broker, reached)
		},
		Fields: r.Fields, Bind: r.BindValues, MaxMessage: int(r.MaxMessageSize), Budget: &n.kafka.budget, Log: n.log.With("kafka_inlet", r.Name),
	}
	if !r.NoContentEncryption {
		in.sealers = newSealers(n, in)
		options.Cipher = in.sealers
	}
	if r.PublishingRelay != "" && !r.NoContentEncryption { // producers look for consumers to encrypt for them
		options.Publish = func(ctx context.Context, topic string, partition int32) { n.publishConsumer(ctx, in, topic, partition) }
		options.Withdraw = func(topic string, partition int32) { n.withdrawConsumer(in, topic, partition) }
	}
	in.filter = kafka.NewInlet(options)
	if in.listener, err = interceptor.New(ctx, n.portals, n.router, interceptor.Options{Name: r.Name, Filters: in.filter.Filters, Budget: &n.kafka.budget}); err != nil {
		return admin.Inlet{}, existsError(err)
	}
	bootstrap, err := n.openKafkaInlet(ctx, in, r.From, kafkaBootstrap)
	if err != nil {
		err = errors.Join(err, in.listener.Close(ctx))
		return admin.Inlet{}, err
	}
	in.request.From = bootstrap.request.From
	n.kafka.inlets[r.Name] = in
	for _, b := range r.Brokers {
		broker, openErr := n.openKafkaInlet(ctx, in, b.Address, kafkaBroker+strconv.FormatInt(b.ID, 10))
		if openErr != nil {
			n.log.Error("inlet to a Kafka broker not opened again; clients that know it have to ask the bootstrap server", "broker", b.ID, "err", openErr.Error())
			continue
		}
		in.brokers[int32(b.ID)] = broker
	}
	in.noteBrokers()
	n.log.Info("Kafka inlet created", "kafka_inlet", r.Name, "listen", in.request.From, "encrypted", !r.NoContentEncryption)
	return bootstrap.describe(), n.save()
}

// checkKafkaInlet checks a request and completes it.
func (n *Node) checkKafkaInlet(_ context.Context, r *admin.KafkaInletRequest) (*kafkaInlet, error) {
	if r.Name == "" {
		r.Name = kafkaInletType
	}
	if n.kafka.inlets[r.Name] != nil || n.router.HasNamed(r.Name) {
		return nil, fmt.Errorf("%w: a service at the address %q", admin.ErrExists, r.Name)
	}
	for flag, route := range map[string]string{"--to": r.To, "--consumer": r.Consumer, "--consumer-relay": r.ConsumerRelay, "--publishing-relay": r.PublishingRelay} {
		if _, err := multiaddr.Parse(route); route != "" && err != nil {
			return nil, fmt.Errorf("%w: %s: %w", admin.ErrInvalid, flag, err)
		}
	}
	to, err := multiaddr.Parse(r.To)
	if err != nil || len(to) == 0 {
		return nil, fmt.Errorf("%w: --to %q must be a route to the node of the Kafka outlet", admin.ErrInvalid, r.To)
	}
	host, port, err := net.SplitHostPort(r.From)
	if err != nil {
		return nil, fmt.Errorf("%w: --from %q must be host:port", admin.ErrInvalid, r.From)
	}
	if at, _ := strconv.ParseInt(port, 10, 64); r.FirstPort < 1 || r.LastPort > 65535 || r.FirstPort > r.LastPort || at >= r.FirstPort && at <= r.LastPort {
		return nil, fmt.Errorf("%w: the brokers' ports %d-%d must be a range without the bootstrap port %s", admin.ErrInvalid, r.FirstPort, r.LastPort, port)
	}
	if err := checkAdvertised(r.Advertise); err != nil {
		return nil, err
	}
	if r.MaxMessageSize < 0 || r.MaxMessageSize > maxKafkaMessage {
		return nil, fmt.Errorf("%w: --max-message-size %d must be from 1 to %d bytes", admin.ErrInvalid, r.MaxMessageSize, maxKafkaMessage)
	}
	if r.BindValues && r.NoContentEncryption {
		return nil, fmt.Errorf("%w: --bind-values binds encrypted values, and --no-content-encryption leaves them in clear", admin.ErrInvalid)
	}
	if !r.NoContentEncryption && r.Consumer == "" && r.ConsumerRelay == "" {
		return nil, fmt.Errorf("%w: content encryption needs to know where consumers are: --consumer or --consumer-relay", admin.ErrInvalid)
	}
	return &kafkaInlet{request: *r, to: to, host: host, brokers: map[int32]*inlet{}}, nil
}

// openKafkaInlet opens an inlet that leads through both interceptors to one of the outlets. n.mu is held.
func (n *Node) openKafkaInlet(ctx context.Context, in *kafkaInlet, from, outlet string) (*inlet, error) {
	r := &admin.InletRequest{Alias: "kafka-inlet-" + routing.NewFlow().ID()[:8], From: from, To: in.request.To, NoConnectionWait: true}
	return n.openInlet(ctx, r, inletParts{
		owner: in.request.Name, env: n.kafka.env, guard: in.guard,
		prefix: routing.LocalRoute(in.request.Name), suffix: routing.LocalRoute(kafkaInterceptor, outlet),
	})
}

// noteBrokers writes the brokers' inlets into the request, so that they come back where clients know them.
func (in *kafkaInlet) noteBrokers() {
	in.request.Brokers = nil
	for id, broker := range in.brokers {
		in.request.Brokers = append(in.request.Brokers, admin.KafkaBroker{ID: int64(id), Address: broker.request.From})
	}
	slices.SortFunc(in.request.Brokers, func(a, b admin.KafkaBroker) int { return int(a.ID - b.ID) })
}

// kafkaPlace returns where a client that reached the inlet at an address reaches a broker, and opens an inlet for it on the next free port if
// there is none.
func (n *Node) kafkaPlace(ctx context.Context, in *kafkaInlet, id int32, reached netip.Addr) (kafka.Place, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kafka.inlets[in.request.Name] != in {
		return kafka.Place{}, errors.New("the Kafka inlet was deleted")
	}
	broker := in.brokers[id]
	if broker == nil || n.inlets[broker.request.Alias] != broker {
		var err error
		if broker, err = n.openBroker(ctx, in, id); err != nil {
			return kafka.Place{}, err
		}
	}
	return kafka.Place{Host: in.announced(reached), Port: broker.portal.Bound().Port()}, nil
}

// openBroker opens an inlet for a broker. n.mu is held.
func (n *Node) openBroker(ctx context.Context, in *kafkaInlet, id int32) (*inlet, error) {
	taken := map[int64]bool{}
	for _, other := range in.brokers {
		taken[int64(other.portal.Bound().Port())] = true
	}
	var last error
	for port := in.request.FirstPort; port <= in.request.LastPort; port++ {
		if taken[port] {
			continue
		}
		broker, err := n.openKafkaInlet(ctx, in, net.JoinHostPort(in.host, strconv.FormatInt(port, 10)), kafkaBroker+strconv.FormatInt(int64(id), 10))
		if err != nil {
			last = err // perhaps another program's; there are more
			continue
		}
		in.brokers[id] = broker
		in.noteBrokers()
		n.log.Info("inlet to a Kafka broker opened", "kafka_inlet", in.request.Name, "broker", id, "listen", broker.request.From)
		return broker, n.save()
	}
	return nil, fmt.Errorf("no port for broker %d is left from %d to %d (--brokers-port-range): %w", id, in.request.FirstPort, in.request.LastPort, last)
}

// DeleteKafkaInlet closes a Kafka inlet with all its inlets, and gives up the relays of its consumers.
func (n *Node) DeleteKafkaInlet(ctx context.Context, name string) error {
	n.mu.Lock()
	in := n.kafka.inlets[name]
	if in == nil {
		defer n.mu.Unlock()
		if n.lost.forgetKafkaInlet(name) {
			return n.save()
		}
		return fmt.Errorf("%w: no Kafka inlet %q", admin.ErrNotFound, name)
	}
	delete(n.kafka.inlets, name)
	var inlets []*inlet
	for alias, part := range n.inlets {
		if part.owner == name {
			inlets = append(inlets, part)
			delete(n.inlets, alias)
		}
	}
	in.filter.Close()
	relays := n.withdrawConsumers(in)
	err := n.save()
	n.mu.Unlock()
	for _, part := range inlets {
		err = errors.Join(err, part.portal.Close(ctx))
		part.session.stop()
	}
	for _, part := range relays {
		part.session.stop()
	}
	err = errors.Join(err, in.listener.Close(ctx))
	in.guard.close()
	in.consumers.close()
	in.producers.close()
	if in.sealers != nil {
		in.sealers.close()
	}
	return err
}

// KafkaInlets lists the Kafka inlets by name.
func (n *Node) KafkaInlets() []admin.Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []admin.Service{}
	for _, name := range sortedKeys(n.kafka.inlets) {
		list = append(list, admin.Service{Address: name, Type: kafkaInletType})
	}
	return list
}

// CreateKafkaOutlet starts the outlet to a cluster.
func (n *Node) CreateKafkaOutlet(ctx context.Context, r admin.KafkaOutletRequest) (_ admin.Outlet, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.Name == "" {
		r.Name = kafkaOutletType
	}
	if n.kafka.outlet != nil {
		return admin.Outlet{}, fmt.Errorf("%w: a Kafka outlet, %q; a node can have one", admin.ErrExists, n.kafka.outlet.request.Name)
	}
	if _, _, err := net.SplitHostPort(r.Bootstrap); err != nil {
		return admin.Outlet{}, fmt.Errorf("%w: --bootstrap-server %q must be host:port", admin.ErrInvalid, r.Bootstrap)
	}
	out := &kafkaOutlet{request: r}
	if out.guard, err = n.guardFor(r.Name, policy.TCPOutlet, n.authority(), r.Allow); err != nil {
		return admin.Outlet{}, err
	}
	found := func(_ context.Context, broker int32, at kafka.Place) error { return n.kafkaFound(n.ctx, broker, at) }
	o := interceptor.Options{
		Name: kafkaInterceptor, Filters: (&kafka.Outlet{Found: found}).Filters, Budget: &n.kafka.budget, Outlet: true,
		Next: isKafkaOutlet, Flows: []*routing.Flow{n.api.Flow},
	}
	if out.guard != nil {
		o.Guard = out.guard
	}
	if n.authority() == nil {
		o.Flows = append(o.Flows, n.listenerFlows()...)
	}
	if out.listener, err = interceptor.New(ctx, n.portals, n.router, o); err != nil {
		out.guard.close()
		return admin.Outlet{}, existsError(err)
	}
	n.kafka.outlet = out
	bootstrap, err := n.openKafkaOutlet(ctx, kafkaBootstrap, r.Bootstrap)
	if err != nil {
		n.kafka.outlet = nil
		out.guard.close()
		return admin.Outlet{}, errors.Join(existsError(err), out.listener.Close(ctx))
	}
	for _, b := range r.Brokers {
		if _, err := n.openKafkaOutlet(ctx, kafkaBroker+strconv.FormatInt(b.ID, 10), b.Address); err != nil {
			n.log.Error("outlet to a Kafka broker not opened again", "broker", b.ID, "err", err.Error())
		}
	}
	n.log.Info("Kafka outlet created", "kafka_outlet", r.Name, "bootstrap", r.Bootstrap)
	return bootstrap.describe(), n.save()
}

// isKafkaOutlet tells the addresses that may be behind the interceptor.
func isKafkaOutlet(name string) bool {
	if name == kafkaBootstrap {
		return true
	}
	number, found := strings.CutPrefix(name, kafkaBroker)
	_, err := strconv.ParseInt(number, 10, 32)
	return found && err == nil
}

// openKafkaOutlet starts an outlet that only the interceptor reaches. n.mu is held.
func (n *Node) openKafkaOutlet(ctx context.Context, name, to string) (*outlet, error) {
	out := n.kafka.outlet
	return n.openOutlet(ctx, admin.OutletRequest{Name: name, To: to, TLS: out.request.TLS}, out.request.Name, out.guard)
}

// kafkaFound starts an outlet to a broker, or moves it to where the broker is now.
func (n *Node) kafkaFound(ctx context.Context, id int32, at kafka.Place) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.kafka.outlet
	if out == nil {
		return errors.New("the Kafka outlet was deleted")
	}
	to := net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))
	name := kafkaBroker + strconv.FormatInt(int64(id), 10)
	old := n.outlets[name]
	if old != nil && old.request.To == to {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(out.request.Brokers), func(b admin.KafkaBroker) bool { return b.ID == int64(id) })
	if len(list) >= maxBrokers {
		return fmt.Errorf("the cluster names more than %d brokers", maxBrokers)
	}
	if old != nil {
		if old.owner != out.request.Name {
			return fmt.Errorf("the address %s is another outlet's", name)
		}
		delete(n.outlets, name)
		if err := old.portal.Close(ctx); err != nil {
			return err
		}
	}
	if _, err := n.openKafkaOutlet(ctx, name, to); err != nil {
		return err
	}
	out.request.Brokers = append(list, admin.KafkaBroker{ID: int64(id), Address: to})
	n.log.Info("outlet to a Kafka broker started", "broker", id, "target", to)
	return n.save()
}

// DeleteKafkaOutlet stops a Kafka outlet with all its outlets; open connections stay.
func (n *Node) DeleteKafkaOutlet(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.kafka.outlet
	if out == nil || out.request.Name != name {
		if n.lost.forgetKafkaOutlet(name) {
			return n.save()
		}
		return fmt.Errorf("%w: no Kafka outlet %q", admin.ErrNotFound, name)
	}
	n.kafka.outlet = nil
	err := out.listener.Close(ctx)
	for key, part := range n.outlets {
		if part.owner == name {
			delete(n.outlets, key)
			err = errors.Join(err, part.portal.Close(ctx))
		}
	}
	out.guard.close()
	return errors.Join(err, n.save())
}

// KafkaOutlets lists the Kafka outlet.
func (n *Node) KafkaOutlets() []admin.Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []admin.Service{}
	if n.kafka.outlet != nil {
		list = append(list, admin.Service{Address: n.kafka.outlet.request.Name, Type: kafkaOutletType})
	}
	return list
}
