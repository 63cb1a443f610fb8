//go:build !small

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal/interceptor"
	"sallyport/portal/kafka"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// kafkaInlet is an inlet to the bootstrap server, and one to each broker that is known. They are parts of it in the table of inlets.
type kafkaInlet struct {
	k         *kafkaPortals
	request   resource.KafkaInlet
	to        multiaddr.Addr
	host      string // where clients are told to connect
	bootstrap *inlet
	listener  *interceptor.Listener
	guard     *guard
	consumers *guard       // who may get keys
	producers *guard       // whose records are read
	sealers   *sealers     // nil without content encryption
	filter    *kafka.Inlet // what its clients send and get goes through it

	mu      sync.Mutex // held while an inlet to a broker is opened
	closed  bool
	brokers map[int32]*inlet
}

// Names of the policies of an inlet's consumers and producers begin so.
const (
	consumerPolicy = "kafka-consumer-"
	producerPolicy = "kafka-producer-"
)

// kafkaInletPolicy is what a Kafka inlet asks for under one of its names.
func kafkaInletPolicy(name string) policy.Resource { return policy.Own(resource.KindKafkaInlet, name) }

func (k *kafkaPortals) addInlets() {
	n := k.n
	k.inlets = table.Add(n.set, table.Kind[resource.KafkaInlet, *kafkaInlet]{
		Name: resource.KindKafkaInlet, Noun: "Kafka inlet", Path: admin.PathKafkaIn, Ends: true,
		After:   []string{resource.KindPolicy, resource.KindOutlet, resource.KindRelay, resource.KindInlet, resource.KindKafkaOutlet},
		Key:     func(r *resource.KafkaInlet) *string { return &r.Name },
		Check:   checkKafkaInlet,
		Open:    k.openInlet,
		InPlace: []string{"allow", "allow-consumer", "allow-producer"},
		Update: func(ctx context.Context, in *kafkaInlet, _, to *resource.KafkaInlet) error {
			allow, err := k.allowOf(ctx, in.to, to.Allow)
			if err != nil {
				return err
			}
			n.setPolicyOf(kafkaInletPolicy(to.Name), allow)
			n.setPolicyOf(kafkaInletPolicy(consumerPolicy+to.Name), to.AllowConsumer)
			n.setPolicyOf(kafkaInletPolicy(producerPolicy+to.Name), to.AllowProducer)
			return nil
		},
		Close:  func(ctx context.Context, in *kafkaInlet) error { return in.close(ctx) },
		Status: func(in *kafkaInlet) resource.Status { return in.bootstrap.status() },
		Describe: func(i table.Item[resource.KafkaInlet, *kafkaInlet]) any {
			d := admin.KafkaInlet{Service: kafkaInletOf(i), Bind: i.Request.From}
			if i.IsOpen {
				d.Bind = i.Value.bootstrap.portal.Bound().String()
			}
			return d
		},
	})
	n.serviceLists = append(n.serviceLists, func() []admin.Service { return each(k.inlets.List(), kafkaInletOf) })
	n.policed = append(n.policed, policed(resource.KindKafkaInlet, k.inlets, func(r *resource.KafkaInlet, name string) *string {
		switch name {
		case r.Name:
			return &r.Allow
		case consumerPolicy + r.Name:
			return &r.AllowConsumer
		case producerPolicy + r.Name:
			return &r.AllowProducer
		}
		return nil
	}))
}

func kafkaInletOf(i table.Item[resource.KafkaInlet, *kafkaInlet]) admin.Service {
	return admin.Service{Address: i.Request.Name, Type: kafkaInletType, State: &i.Status}
}

// checkKafkaInlet refuses what can never be a Kafka inlet, and completes the rest.
func checkKafkaInlet(_ context.Context, r *resource.KafkaInlet, _ func(string) bool) error {
	if r.Name == "" {
		r.Name = kafkaInletType
	}
	for flag, route := range map[string]string{
		"--to": r.To, "--consumer": r.Consumer, "--consumer-relay": r.ConsumerRelay, "--publishing-relay": r.PublishingRelay,
	} {
		if _, err := multiaddr.Parse(route); route != "" && err != nil {
			return fmt.Errorf("%w: %s: %w", admin.ErrInvalid, flag, err)
		}
	}
	if to, err := multiaddr.Parse(r.To); err != nil || len(to) == 0 {
		return fmt.Errorf("%w: --to %q must be a route to the node of the Kafka outlet", admin.ErrInvalid, r.To)
	}
	_, port, err := net.SplitHostPort(r.From)
	if err != nil {
		return fmt.Errorf("%w: --from %q must be host:port", admin.ErrInvalid, r.From)
	}
	at, _ := strconv.ParseInt(port, 10, 64)
	if r.FirstPort < 1 || r.LastPort > 65535 || r.FirstPort > r.LastPort || at >= r.FirstPort && at <= r.LastPort {
		return fmt.Errorf("%w: the brokers' ports %d-%d must be a range without the bootstrap port %s",
			admin.ErrInvalid, r.FirstPort, r.LastPort, port)
	}
	if err := checkAdvertised(r.Advertise); err != nil {
		return err
	}
	if err := checkKafkaTLS(r); err != nil {
		return err
	}
	if r.MaxMessageSize < 0 || r.MaxMessageSize > maxKafkaMessage {
		return fmt.Errorf("%w: --max-message-size %d must be from 1 to %d bytes", admin.ErrInvalid, r.MaxMessageSize, maxKafkaMessage)
	}
	if r.BindValues && r.NoContentEncryption {
		return fmt.Errorf("%w: --bind-values binds encrypted values, and --no-content-encryption leaves them in clear", admin.ErrInvalid)
	}
	if !r.NoContentEncryption && r.Consumer == "" && r.ConsumerRelay == "" {
		return fmt.Errorf("%w: content encryption needs to know where consumers are: --consumer or --consumer-relay", admin.ErrInvalid)
	}
	for _, allow := range []string{r.Allow, r.AllowConsumer, r.AllowProducer} {
		if err := checkAllow(allow); err != nil {
			return err
		}
	}
	return nil
}

// allowOf is the policy of an inlet: what was given, or for a project's route that its node and members may be used.
func (k *kafkaPortals) allowOf(ctx context.Context, to multiaddr.Addr, given string) (string, error) {
	if given != "" || len(to) == 0 || to[0].Protocol != multiaddr.Project {
		return given, nil
	}
	project, err := k.n.project(ctx, to[0].Text)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`(or (= subject.identifier "%s") (= subject.has_credential true))`, project.Identifier), nil
}

// openInlet opens the bootstrap server's inlet; those of brokers follow when clients hear of them.
func (k *kafkaPortals) openInlet(ctx context.Context, o *table.Opening[resource.KafkaInlet]) (_ *kafkaInlet, err error) {
	r, n := &o.Request, k.n
	in := &kafkaInlet{k: k, request: *r, brokers: map[int32]*inlet{}}
	if in.to, err = multiaddr.Parse(r.To); err != nil {
		return nil, fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	if in.host, _, err = net.SplitHostPort(r.From); err != nil {
		return nil, fmt.Errorf("%w: --from %q must be host:port", admin.ErrInvalid, r.From)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close(ctx))
		}
	}()
	allow, err := k.allowOf(ctx, in.to, r.Allow)
	if err != nil {
		return nil, err
	}
	if in.guard, err = n.portalGuard(kafkaInletPolicy(r.Name), policy.TCPInlet, n.authorityOf(ctx, in.to), allow); err != nil {
		return nil, err
	}
	if in.consumers, err = k.guard(ctx, kafkaInletPolicy(consumerPolicy+r.Name), policy.KafkaConsumer, in.to, r.AllowConsumer); err != nil {
		return nil, err
	}
	if in.producers, err = k.guard(ctx, kafkaInletPolicy(producerPolicy+r.Name), policy.KafkaProducer, in.to, r.AllowProducer); err != nil {
		return nil, err
	}
	keys, err := k.keyring(ctx)
	if err != nil {
		return nil, err
	}
	options := kafka.InletOptions{
		// What is begun for one client is for all: it goes on when the client leaves.
		Place: func(_ context.Context, broker int32, reached netip.Addr) (kafka.Place, error) {
			return in.place(n.ctx, broker, reached)
		},
		Fields: r.Fields, Bind: r.BindValues, MaxMessage: int(r.MaxMessageSize), Budget: &k.n.intercepted, Log: n.log.With("kafka_inlet", r.Name),
	}
	if !r.NoContentEncryption {
		in.sealers = newSealers(n, in, keys)
		options.Cipher = in.sealers
	}
	if r.PublishingRelay != "" && !r.NoContentEncryption { // producers look for consumers to encrypt for them
		options.Publish = func(ctx context.Context, topic string, partition int32) { k.publish(ctx, in, topic, partition) }
		options.Withdraw = func(topic string, partition int32) { k.withdraw(in, topic, partition) }
	}
	in.filter = kafka.NewInlet(options)
	if in.listener, err = interceptor.New(ctx, n.portals, n.router, k.interception(r.Name, in.filter.Filters)); err != nil {
		return nil, existsError(err)
	}
	if in.bootstrap, err = in.openPart(ctx, r.From, &r.Bound, kafkaBootstrap); err != nil {
		return nil, err
	}
	in.mu.Lock() // clients may have reached the bootstrap inlet by now
	defer in.mu.Unlock()
	for _, b := range r.Brokers {
		broker, openErr := in.openPart(ctx, b.Address, nil, kafkaBroker+strconv.FormatInt(b.ID, 10))
		if openErr != nil {
			n.log.Error("inlet to a Kafka broker not opened again; clients that know it have to ask the bootstrap server",
				"broker", b.ID, "err", openErr.Error())
			continue
		}
		in.brokers[int32(b.ID)] = broker
	}
	r.Brokers = in.known()
	n.log.Info("Kafka inlet created", "kafka_inlet", r.Name, "listen", in.bootstrap.portal.Bound().String(), "encrypted", !r.NoContentEncryption)
	return in, nil
}

// openPart opens an inlet that leads through both interceptors to one of the outlets. bound is where the port that the node chose is
// noted, nil for nowhere.
func (in *kafkaInlet) openPart(ctx context.Context, from string, bound *string, outlet string) (*inlet, error) {
	r := resource.Inlet{Alias: "kafka-inlet-" + routing.NewFlow().ID()[:8], From: from, To: in.request.To, NoConnectionWait: true, TLSProvider: in.request.TLSProvider}
	if bound != nil {
		r.Bound = *bound
	}
	parts := inletParts{
		guard:  in.guard,
		prefix: routing.LocalRoute(in.request.Name), suffix: routing.LocalRoute(kafkaInterceptor, outlet),
	}
	i, err := in.k.n.inlets.CreatePart(ctx, in.request.Name, r,
		func(ctx context.Context, o *table.Opening[resource.Inlet]) (*inlet, error) {
			return in.k.n.openInlet(ctx, o, &parts)
		})
	if err == nil && bound != nil {
		*bound = i.Request.Bound
	}
	return i.Value, err
}

// known are the brokers that have inlets, so that they come back where clients know them. in.mu is held, or in is new.
func (in *kafkaInlet) known() []resource.KafkaBroker {
	var list []resource.KafkaBroker
	for id, broker := range in.brokers {
		list = append(list, resource.KafkaBroker{ID: int64(id), Address: broker.request.From})
	}
	slices.SortFunc(list, func(a, b resource.KafkaBroker) int { return int(a.ID - b.ID) })
	return list
}

// place returns where a client that reached the inlet at an address reaches a broker, and opens an inlet for it on the next free port
// if there is none.
func (in *kafkaInlet) place(ctx context.Context, id int32, reached netip.Addr) (kafka.Place, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return kafka.Place{}, errKafkaDeleted
	}
	broker := in.brokers[id]
	if broker == nil || !in.k.n.has(broker) {
		var err error
		if broker, err = in.openBroker(ctx, id); err != nil {
			return kafka.Place{}, err
		}
	}
	return kafka.Place{Host: in.announced(reached), Port: broker.portal.Bound().Port()}, nil
}

// errKafkaDeleted is what is left to say to clients of an inlet that is gone.
var errKafkaDeleted = errors.New("the Kafka inlet was deleted")

// has tells whether an inlet is still in the table.
func (n *Node) has(in *inlet) bool {
	i, ok := n.inlets.Get(in.request.Alias)
	return ok && i.Value == in
}

// openBroker opens an inlet for a broker. in.mu is held.
func (in *kafkaInlet) openBroker(ctx context.Context, id int32) (*inlet, error) {
	taken := map[int64]bool{}
	for _, other := range in.brokers {
		taken[int64(other.portal.Bound().Port())] = true
	}
	var last error
	for port := in.request.FirstPort; port <= in.request.LastPort; port++ {
		if taken[port] {
			continue
		}
		at := net.JoinHostPort(in.host, strconv.FormatInt(port, 10))
		broker, err := in.openPart(ctx, at, nil, kafkaBroker+strconv.FormatInt(int64(id), 10))
		if err != nil {
			last = err // perhaps another program's; there are more
			continue
		}
		in.brokers[id] = broker
		in.k.n.log.Info("inlet to a Kafka broker opened", "kafka_inlet", in.request.Name, "broker", id, "listen", at)
		known := in.known()
		return broker, in.k.inlets.Note(ctx, in.request.Name, func(r *resource.KafkaInlet) { r.Brokers = known })
	}
	return nil, fmt.Errorf("no port for broker %d is left from %d to %d (--brokers-port-range): %w",
		id, in.request.FirstPort, in.request.LastPort, last)
}

// close closes a Kafka inlet with all its inlets, and gives up the relays of its consumers. It closes what is there of one that did
// not open.
func (in *kafkaInlet) close(ctx context.Context) error {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	n, name := in.k.n, in.request.Name
	if in.filter != nil {
		in.filter.Close()
	}
	in.k.withdrawAll(in)
	err := n.inlets.DeleteParts(ctx, name)
	if in.listener != nil {
		err = errors.Join(err, in.listener.Close(ctx))
	}
	for _, g := range []*guard{in.guard, in.consumers, in.producers} {
		if g != nil {
			g.close()
			n.dropPolicyOf(g.own)
		}
	}
	if in.sealers != nil {
		in.sealers.close()
	}
	return err
}
