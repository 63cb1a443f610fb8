//go:build !small

package node

import (
	"context"
	"sync"
	"time"

	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal/interceptor"
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

// kafkaStall is how long a client or a broker may take nothing while others wait behind it. A client may be busy with what it has, a broker with its
// disk; what a portal allows a reader would cut them off.
const kafkaStall = 10 * time.Minute

// kafkaPortals is what a node has of Kafka.
type kafkaPortals struct {
	n       *Node
	inlets  *table.Table[resource.KafkaInlet, *kafkaInlet]
	outlets *table.Table[resource.KafkaOutlet, *kafkaOutlet]

	mu   sync.Mutex
	keys *keyring // nil before the first inlet

	publishing sync.Mutex
	// published are the inlets that read a partition, by the name of its relay.
	published map[string]map[*kafkaInlet]bool
}

func addKafka(n *Node) {
	k := &kafkaPortals{n: n, published: map[string]map[*kafkaInlet]bool{}}
	n.intercepted.Size = int64(n.opts.Limits.Interceptors)
	k.addInlets()
	k.addOutlets()
}

// interception is how the interceptors of either end are.
func (k *kafkaPortals) interception(name string, filters func(interceptor.Conn) (up, down interceptor.Filter)) interceptor.Options {
	return interceptor.Options{Name: name, Filters: filters, Budget: &k.n.intercepted, Patience: kafkaStall}
}

// guard is the guard of producers or consumers. Unlike a portal's it lets nobody without an authority or a policy
// (docs/protocol/03 §5.4): keys are not given to just anybody.
func (k *kafkaPortals) guard(
	ctx context.Context, own policy.Resource, kind policy.ResourceType, to multiaddr.Addr, allow string,
) (*guard, error) {
	if err := k.n.policyReady(own, kind, allow); err != nil {
		return nil, err
	}
	k.n.setPolicyOf(own, allow)
	return k.n.access.guard(own, kind, k.n.authorityOf(ctx, to), true), nil
}
