//go:build !small

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal/interceptor"
	"sallyport/portal/kafka"
)

// kafkaOutlet is an outlet to the bootstrap server, and one to each broker that is known. They are parts of it in the table of
// outlets.
type kafkaOutlet struct {
	k        *kafkaPortals
	request  resource.KafkaOutlet
	listener *interceptor.Listener
	guard    *guard

	mu      sync.Mutex // held while an outlet to a broker is started or moved
	closed  bool
	brokers []resource.KafkaBroker
}

func (k *kafkaPortals) addOutlets() {
	n := k.n
	k.outlets = table.Add(n.set, table.Kind[resource.KafkaOutlet, *kafkaOutlet]{
		Name: resource.KindKafkaOutlet, Noun: "Kafka outlet", Path: admin.PathKafkaOut,
		After:   []string{resource.KindPolicy, resource.KindOutlet},
		Key:     func(r *resource.KafkaOutlet) *string { return &r.Name },
		Check:   k.checkOutlet,
		Open:    k.openOutlet,
		InPlace: []string{"allow"},
		Update: func(_ context.Context, _ *kafkaOutlet, _, to *resource.KafkaOutlet) error {
			n.setPolicyOf(policy.Own(resource.KindKafkaOutlet, to.Name), to.Allow)
			return nil
		},
		Close:    func(ctx context.Context, out *kafkaOutlet) error { return out.close(ctx) },
		Describe: func(i table.Item[resource.KafkaOutlet, *kafkaOutlet]) any { return kafkaOutletOf(i) },
	})
	n.serviceLists = append(n.serviceLists, func() []admin.Service { return each(k.outlets.List(), kafkaOutletOf) })
	n.policed = append(n.policed, policed(resource.KindKafkaOutlet, k.outlets, func(r *resource.KafkaOutlet, name string) *string {
		if name == r.Name {
			return &r.Allow
		}
		return nil
	}))
}

func kafkaOutletOf(i table.Item[resource.KafkaOutlet, *kafkaOutlet]) admin.Service {
	return admin.Service{Address: i.Request.Name, Type: kafkaOutletType, State: &i.Status}
}

// checkOutlet refuses what can never be a Kafka outlet, and completes the rest.
func (k *kafkaPortals) checkOutlet(_ context.Context, r *resource.KafkaOutlet, _ func(string) bool) error {
	if r.Name == "" {
		r.Name = kafkaOutletType
	}
	for _, server := range strings.Split(r.Bootstrap, ",") {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return fmt.Errorf("%w: --bootstrap-server %q must be host:port, or several with commas between", admin.ErrInvalid, r.Bootstrap)
		}
	}
	if err := checkPlaces(r.MaxConnections, r.MaxConnectionsPerMember); err != nil {
		return err
	}
	return checkAllow(r.Allow)
}

// openOutlet starts the outlet to a cluster.
func (k *kafkaPortals) openOutlet(ctx context.Context, o *table.Opening[resource.KafkaOutlet]) (_ *kafkaOutlet, err error) {
	r, n := o.Request, k.n
	// The addresses of a Kafka outlet are fixed.
	for _, other := range k.outlets.List() {
		if other.IsOpen && other.Request.Name != r.Name {
			return nil, fmt.Errorf("%w: a Kafka outlet, %q; a node can have one", admin.ErrExists, other.Request.Name)
		}
	}
	out := &kafkaOutlet{k: k, request: r, brokers: r.Brokers}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.close(ctx))
		}
	}()
	if out.guard, err = n.portalGuard(policy.Own(resource.KindKafkaOutlet, r.Name), policy.TCPOutlet, n.authority(), r.Allow); err != nil {
		return nil, err
	}
	found := func(_ context.Context, broker int32, at kafka.Place) error { return out.found(n.ctx, broker, at) }
	listening := k.interception(kafkaInterceptor, (&kafka.Outlet{Found: found}).Filters)
	listening.Outlet, listening.Flows, listening.Guard = true, n.outletFlows(), out.guard
	// A broker that this outlet has not heard of is refused at once: its client asks another one then.
	listening.Next = func(name string) bool { return isKafkaOutlet(name) && n.router.HasNamed(name) }
	if out.listener, err = interceptor.New(ctx, n.portals, n.router, listening); err != nil {
		return nil, existsError(err)
	}
	first, _, _ := strings.Cut(r.Bootstrap, ",") // the others are among servers
	if err := out.startPart(ctx, kafkaBootstrap, first); err != nil {
		return nil, err
	}
	for _, b := range r.Brokers {
		if err := out.startPart(ctx, kafkaBroker+strconv.FormatInt(b.ID, 10), b.Address); err != nil {
			n.log.Error("outlet to a Kafka broker not opened again", "broker", b.ID, "err", err.Error())
		}
	}
	n.log.Info("Kafka outlet created", "kafka_outlet", r.Name, "bootstrap", r.Bootstrap)
	return out, nil
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

// startPart starts an outlet that only the interceptor reaches.
func (out *kafkaOutlet) startPart(ctx context.Context, name, to string) error {
	var targets func() []string
	if name == kafkaBootstrap {
		targets = out.servers
	}
	_, err := out.k.n.outlets.CreatePart(ctx, out.request.Name, resource.Outlet{Name: name, To: to, TLS: out.request.TLS, MaxConnections: out.request.MaxConnections,
		MaxConnectionsPerMember: out.request.MaxConnectionsPerMember},
		func(ctx context.Context, o *table.Opening[resource.Outlet]) (*outlet, error) {
			part, err := out.k.n.startOutletTo(ctx, o.Request, targets, out.guard)
			if err == nil {
				part.guard = nil // that of all parts
			}
			return part, err
		})
	return err
}

// servers are where a client can ask for the cluster: at the bootstrap servers, and when none of them answers, at any broker that is known.
func (out *kafkaOutlet) servers() []string {
	list := strings.Split(out.request.Bootstrap, ",")
	out.mu.Lock()
	defer out.mu.Unlock()
	for _, b := range out.brokers {
		if !slices.Contains(list, b.Address) {
			list = append(list, b.Address)
		}
	}
	return list
}

// found starts an outlet to a broker, or moves it to where the broker is now.
func (out *kafkaOutlet) found(ctx context.Context, id int32, at kafka.Place) error {
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.closed {
		return errors.New("the Kafka outlet was deleted")
	}
	n := out.k.n
	to := net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))
	name := kafkaBroker + strconv.FormatInt(int64(id), 10)
	old, there := n.outlets.Get(name)
	if there && old.Request.To == to {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(out.brokers), func(b resource.KafkaBroker) bool { return b.ID == int64(id) })
	if len(list) >= maxBrokers {
		return fmt.Errorf("the cluster names more than %d brokers", maxBrokers)
	}
	if there {
		if old.Owner != out.request.Name {
			return fmt.Errorf("the address %s is another outlet's", name)
		}
		if err := n.outlets.DeletePart(ctx, name); err != nil {
			return err
		}
	}
	if err := out.startPart(ctx, name, to); err != nil {
		return err
	}
	out.brokers = append(list, resource.KafkaBroker{ID: int64(id), Address: to})
	known := out.brokers
	n.log.Info("outlet to a Kafka broker started", "broker", id, "target", to)
	return out.k.outlets.Note(ctx, out.request.Name, func(r *resource.KafkaOutlet) { r.Brokers = known })
}

// close stops a Kafka outlet with all its outlets; open connections stay. It closes what is there of one that did not open.
func (out *kafkaOutlet) close(ctx context.Context) error {
	out.mu.Lock()
	out.closed = true
	out.mu.Unlock()
	var err error
	if out.listener != nil {
		err = out.listener.Close(ctx)
	}
	n := out.k.n
	err = errors.Join(err, n.outlets.DeleteParts(ctx, out.request.Name))
	if out.guard != nil {
		out.guard.close()
		n.dropPolicyOf(out.guard.own)
	}
	return err
}
