//go:build !small

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/internal/freeport"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/kafka"
	"sallyport/routing/secure"
)

// TestWhatCanBeNoKafkaPortal: each bound of what is asked for is kept on both sides.
func TestWhatCanBeNoKafkaPortal(t *testing.T) {
	good := resource.KafkaInlet{From: "127.0.0.1:9092", FirstPort: 9100, LastPort: 9200, To: "/service/api", ConsumerRelay: "/service/relay"}
	for name, c := range map[string]struct {
		change func(*resource.KafkaInlet)
		ok     bool
	}{
		"nothing":                         {func(*resource.KafkaInlet) {}, true},
		"a consumer":                      {func(r *resource.KafkaInlet) { r.ConsumerRelay, r.Consumer = "", "/service/c" }, true},
		"no consumer, in clear":           {func(r *resource.KafkaInlet) { r.ConsumerRelay, r.NoContentEncryption = "", true }, true},
		"no consumer":                     {func(r *resource.KafkaInlet) { r.ConsumerRelay = "" }, false},
		"one port":                        {func(r *resource.KafkaInlet) { r.LastPort = r.FirstPort }, true},
		"no port":                         {func(r *resource.KafkaInlet) { r.LastPort = r.FirstPort - 1 }, false},
		"the first port there is":         {func(r *resource.KafkaInlet) { r.FirstPort, r.LastPort = 1, 2 }, true},
		"a port that there is not":        {func(r *resource.KafkaInlet) { r.FirstPort, r.LastPort = 0, 2 }, false},
		"the last port there is":          {func(r *resource.KafkaInlet) { r.LastPort = 65535 }, true},
		"one beyond":                      {func(r *resource.KafkaInlet) { r.LastPort = 65536 }, false},
		"the bootstrap port just before":  {func(r *resource.KafkaInlet) { r.From = "127.0.0.1:9099" }, true},
		"the bootstrap port is the first": {func(r *resource.KafkaInlet) { r.From = "127.0.0.1:9100" }, false},
		"the bootstrap port is the last":  {func(r *resource.KafkaInlet) { r.From = "127.0.0.1:9200" }, false},
		"the bootstrap port just after":   {func(r *resource.KafkaInlet) { r.From = "127.0.0.1:9201" }, true},
		"no address":                      {func(r *resource.KafkaInlet) { r.From = "9092" }, false},
		"the longest messages":            {func(r *resource.KafkaInlet) { r.MaxMessageSize = maxKafkaMessage }, true},
		"longer ones":                     {func(r *resource.KafkaInlet) { r.MaxMessageSize = maxKafkaMessage + 1 }, false},
		"less than none":                  {func(r *resource.KafkaInlet) { r.MaxMessageSize = -1 }, false},
		"bound values":                    {func(r *resource.KafkaInlet) { r.BindValues = true }, true},
		"bound values in clear":           {func(r *resource.KafkaInlet) { r.BindValues, r.NoContentEncryption = true, true }, false},
		"no route":                        {func(r *resource.KafkaInlet) { r.To = "" }, false},
		"a bad route":                     {func(r *resource.KafkaInlet) { r.To = "nonsense" }, false},
		"a bad consumer":                  {func(r *resource.KafkaInlet) { r.Consumer = "nonsense" }, false},
		"a bad relay":                     {func(r *resource.KafkaInlet) { r.ConsumerRelay = "nonsense" }, false},
		"a bad relay to publish at":       {func(r *resource.KafkaInlet) { r.PublishingRelay = "nonsense" }, false},
		"a bad policy":                    {func(r *resource.KafkaInlet) { r.Allow = "(" }, false},
		"a bad policy of consumers":       {func(r *resource.KafkaInlet) { r.AllowConsumer = "(" }, false},
		"a bad policy of producers":       {func(r *resource.KafkaInlet) { r.AllowProducer = "(" }, false},
	} {
		r := changed(good, c.change)
		err := checkKafkaInlet(t.Context(), &r, nil)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && r.Name != "kafka_inlet" {
			t.Errorf("%s: named %q", name, r.Name)
		}
	}
	m := newMember(t)
	for name, c := range map[string]struct {
		r  resource.KafkaOutlet
		ok bool
	}{
		"one server":         {resource.KafkaOutlet{Bootstrap: "a:1"}, true},
		"several":            {resource.KafkaOutlet{Bootstrap: "a:1,b:2"}, true},
		"one without a port": {resource.KafkaOutlet{Bootstrap: "a:1,b"}, false},
		"none":               {resource.KafkaOutlet{}, false},
		"too many":           {resource.KafkaOutlet{Bootstrap: "a:1", MaxConnections: -1}, false},
		"no policy":          {resource.KafkaOutlet{Bootstrap: "a:1", Allow: "("}, false},
	} {
		k := &kafkaPortals{n: m.Node}
		if err := k.checkOutlet(t.Context(), &c.r, nil); (err == nil) != c.ok || c.ok && c.r.Name != "kafka_outlet" {
			t.Errorf("%s: %v, named %q", name, err, c.r.Name)
		}
	}
	for name, want := range map[string]bool{"kafka_bootstrap": true, "kafka_outlet_0": true, "kafka_outlet_-1": true, "kafka_outlet_2147483647": true, "kafka_outlet_2147483648": false, "kafka_outlet_": false, "kafka_outlet": false, "db": false, "5": false} {
		if isKafkaOutlet(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// TestBrokersThatMove: an outlet follows a broker to where it says to be, and takes nothing that is another's; a cluster can name so many.
func TestBrokersThatMove(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	i, err := m.kafkaOutlets().Create(ctx, resource.KafkaOutlet{Bootstrap: "127.0.0.1:1,127.0.0.1:2"})
	if err != nil {
		t.Fatal(err)
	}
	out := i.Value
	at := func(port uint16) kafka.Place { return kafka.Place{Host: "127.0.0.1", Port: port} }
	expect := func(when string, brokers ...string) {
		t.Helper()
		i, _ := m.kafkaOutlets().Get("kafka_outlet")
		var known, targets []string
		for _, b := range i.Request.Brokers {
			known = append(known, fmt.Sprintf("%d %s", b.ID, b.Address))
		}
		for _, o := range m.outlets.List() {
			if o.Owner == "kafka_outlet" && o.Request.Name != kafkaBootstrap {
				targets = append(targets, strings.TrimPrefix(o.Request.Name, kafkaBroker)+" "+o.Request.To)
			}
		}
		if fmt.Sprint(known) != fmt.Sprint(brokers) || fmt.Sprint(targets) != fmt.Sprint(brokers) {
			t.Errorf("%s: known %v, outlets %v, want %v", when, known, targets, brokers)
		}
	}
	expect("at first")
	if err := out.found(ctx, 7, at(17)); err != nil {
		t.Fatal(err)
	}
	expect("found", "7 127.0.0.1:17")
	one, _ := m.outlets.Get("kafka_outlet_7")
	if err := out.found(ctx, 7, at(17)); err != nil {
		t.Error(err)
	}
	if same, _ := m.outlets.Get("kafka_outlet_7"); same.Value != one.Value {
		t.Error("an outlet that is there is opened again")
	}
	if err := out.found(ctx, 7, at(18)); err != nil {
		t.Error(err)
	}
	expect("moved", "7 127.0.0.1:18")
	if got := fmt.Sprint(out.servers()); got != "[127.0.0.1:1 127.0.0.1:2 127.0.0.1:18]" {
		t.Errorf("asked at %s", got)
	}
	if err := out.found(ctx, 8, at(2)); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(out.servers()); got != "[127.0.0.1:1 127.0.0.1:2 127.0.0.1:18]" {
		t.Errorf("asked twice at one: %s", got)
	}
	expect("two", "7 127.0.0.1:18", "8 127.0.0.1:2")
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "kafka_outlet_9", To: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if err := out.found(ctx, 9, at(19)); err == nil || !strings.Contains(err.Error(), "another outlet's") {
		t.Errorf("an outlet that was made by hand: %v", err)
	}
	before := out.brokers
	for len(out.brokers) < maxBrokers {
		out.brokers = append(out.brokers, resource.KafkaBroker{ID: int64(100 + len(out.brokers)), Address: "127.0.0.1:1"})
	}
	if err := out.found(ctx, 10, at(20)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("one too many: %v", err)
	}
	if err := out.found(ctx, 7, at(21)); err != nil {
		t.Errorf("one that is known moves: %v", err)
	}
	out.brokers = before
	if err := m.kafkaOutlets().Delete(ctx, "kafka_outlet"); err != nil {
		t.Fatal(err)
	}
	if err := out.found(ctx, 11, at(22)); err == nil || m.router.HasNamed("kafka_outlet_11") {
		t.Errorf("an outlet that was deleted starts another: %v", err)
	}
}

// TestPortsOfBrokers: each broker has a port of the range, one that is free; when none is left clients are told, and a deleted inlet opens none.
func TestPortsOfBrokers(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	var first, second int64 // neighbours
	for first == 0 || second != first+1 {
		port, err := freeport.Get()
		if err != nil {
			t.Fatal(err)
		}
		first, second = second, int64(port)
	}
	taken, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", first))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	i, err := m.kafkaInlets().Create(ctx, resource.KafkaInlet{From: "127.0.0.1:0", FirstPort: first, LastPort: second, To: m.route(), NoContentEncryption: true})
	if err != nil {
		t.Fatal(err)
	}
	in := i.Value
	one, err := in.place(ctx, 1, loopback)
	if err != nil || int64(one.Port) != second || one.Host != "127.0.0.1" {
		t.Fatalf("not the port that is free: %+v, %v", one, err)
	}
	again, err := in.place(ctx, 1, loopback)
	if err != nil || again != one {
		t.Errorf("another place for the same broker: %+v, %v", again, err)
	}
	if _, err := in.place(ctx, 2, loopback); err == nil || !strings.Contains(err.Error(), "no port for broker 2") {
		t.Errorf("a third port of two: %v", err)
	}
	if i, _ := m.kafkaInlets().Get("kafka_inlet"); len(i.Request.Brokers) != 1 || i.Request.Brokers[0].ID != 1 || portOf(i.Request.Brokers[0].Address) != fmt.Sprint(second) {
		t.Errorf("known: %+v", i.Request.Brokers)
	}
	listed := 0
	for _, s := range m.Services() {
		if s.Type == kafkaInletType {
			listed++
		}
	}
	if listed != 1 {
		t.Errorf("listed %d times", listed)
	}
	if err := m.kafkaInlets().Delete(ctx, "kafka_inlet"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.place(ctx, 1, loopback); !errors.Is(err, errKafkaDeleted) || len(m.Inlets()) != 0 {
		t.Errorf("%v, left: %+v", err, m.Inlets())
	}
}

// TestPoliciesOfAKafkaInlet: each of its three policies is of its own name, is changed in place, and goes with the inlet. Without one, a project's route
// allows its node and its members.
func TestPoliciesOfAKafkaInlet(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	const a, b, c = `(= subject.a "1")`, `(= subject.b "1")`, `(= subject.c "1")`
	r := resource.KafkaInlet{Name: "k", From: "127.0.0.1:0", FirstPort: 40000, LastPort: 40001, To: m.route(), Consumer: m.route(), Allow: a, AllowConsumer: b, AllowProducer: c}
	if _, err := m.kafkaInlets().Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want ...string) {
		t.Helper()
		for i, name := range []string{"k", "kafka-consumer-k", "kafka-producer-k"} {
			got := ""
			for _, e := range m.policies.List() {
				if e.Resource == kafkaInletPolicy(name) {
					got = e.Expr.String()
				}
			}
			if got != want[i] {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want[i])
			}
		}
	}
	expect("at first", a, b, c)
	open := m.openKafkaInletOf("k")
	file := changed(r, func(r *resource.KafkaInlet) { r.Allow, r.AllowConsumer, r.AllowProducer = b, c, a })
	if _, err := m.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindKafkaInlet, "k", file)}}); err != nil {
		t.Fatal(err)
	}
	expect("changed", b, c, a)
	if m.openKafkaInletOf("k") != open {
		t.Error("it was opened again")
	}
	for _, name := range []string{"k", "kafka-consumer-k", "kafka-producer-k"} {
		if err := m.DeletePolicy(ctx, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.DeletePolicy(ctx, "kafka-consumer-other"); !errors.Is(err, admin.ErrNotFound) {
		t.Error(err)
	}
	i, _ := m.kafkaInlets().Get("k")
	if i.Request.Allow+i.Request.AllowConsumer+i.Request.AllowProducer != "" {
		t.Errorf("it still asks for %+v", i.Request)
	}
	if err := m.kafkaInlets().Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	expect("deleted", "", "", "")

	ids, self := newIdentities(t)
	n, err := Start(ctx, Options{Name: "n", Self: self, Identities: ids, Store: projects{list: map[string]*Project{"p": {Identifier: numbered(5)}}}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	k := &kafkaPortals{n: n}
	for _, x := range []struct{ to, given, want string }{
		{"/project/p", "", fmt.Sprintf(`(or (= subject.identifier "%s") (= subject.has_credential true))`, numbered(5))}, {"/project/p", a, a}, {"/service/p", "", ""}, {"/service/p", a, a},
	} {
		if got, err := k.allowOf(ctx, mustRoute(t, x.to), x.given); got != x.want || err != nil {
			t.Errorf("%+v: %s, %v", x, got, err)
		}
	}
	if got, err := k.allowOf(ctx, nil, ""); got != "" || err != nil {
		t.Errorf("no route: %s, %v", got, err)
	}
	if _, err := k.allowOf(ctx, mustRoute(t, "/project/other"), ""); err == nil {
		t.Error("a project that is not known")
	}
	if _, err := policy.Parse(fmt.Sprintf(`(or (= subject.identifier "%s") (= subject.has_credential true))`, numbered(5))); err != nil {
		t.Error(err)
	}
}

// openKafkaInletOf returns an inlet by its name.
func (m *member) openKafkaInletOf(name string) *kafkaInlet {
	i, _ := m.kafkaInlets().Get(name)
	return i.Value
}

// TestKeysOfProducers: a key is kept of who may write, once in memory and once on disk, is found again, and pushes another one out of memory when there are
// too many; a stranger's is not kept.
func TestKeysOfProducers(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	in := m.kafkaInlet(resource.KafkaInlet{To: m.route(), ConsumerRelay: m.route(), AllowProducer: fmt.Sprintf(`(= subject.identifier "%s")`, numbered(7))})
	k := in.k
	keys, err := k.keyring(ctx)
	if err != nil || k.keys != keys {
		t.Fatal(err)
	}
	if again, err := k.keyring(ctx); err != nil || again != keys {
		t.Errorf("another keyring: %v", err)
	}
	for id, want := range map[identity.Identifier]bool{numbered(7): true, numbered(8): false} {
		if k.readsFrom(id) != want {
			t.Errorf("reads of %s: %v", id, !want)
		}
		address := strings.Repeat(map[bool]string{true: "a", false: "b"}[want], 32)
		e := secure.Exchanged{Own: address, Self: m.self, Peer: id, Keys: channel.Keys{Receive: [32]byte{5}}}
		keys.exchanged(e)
		_, inMemory := keys.keys[address]
		onDisk, err := m.opts.Store.ExchangedKey(ctx, address)
		if inMemory != want || (onDisk != nil) != want || err != nil {
			t.Errorf("of %s: in memory %v, on disk %v, %v", id, inMemory, onDisk != nil, err)
		}
		if want && (onDisk.Peer != id || onDisk.Self != m.self || onDisk.Key[0] != 5) {
			t.Errorf("%+v", onDisk)
		}
		clear(keys.keys)
		if _, err := keys.find(ctx, address); (err == nil) != want {
			t.Errorf("of %s, from the disk: %v", id, err)
		}
		if first, err := keys.find(ctx, address); want && (err != nil || first != keys.keys[address]) {
			t.Errorf("of %s, from memory: %v", id, err)
		}
	}
	clear(keys.keys)
	for i := range maxKeys + 3 {
		keys.put(fmt.Sprint(i), numbered(7), &[32]byte{})
		if n := len(keys.keys); n != min(i+1, maxKeys) {
			t.Fatalf("%d keys after %d", n, i+1)
		}
	}
	if keys.keys[fmt.Sprint(maxKeys+2)] == nil {
		t.Error("the last one is not there")
	}

	// A sealer that failed, or whose consumer is not allowed any more, is agreed on anew; a closed one never again.
	s := in.sealers
	ready := make(chan struct{})
	close(ready)
	bad := &sealer{ready: ready, err: errors.New("no consumer")}
	s.list["a_1"] = bad
	if _, err := s.Sealer(ctx, "a", 1); err != bad.err {
		t.Error(err)
	}
	if s.list["a_1"] != nil {
		t.Error("what failed is kept")
	}
	s.list["a_1"] = bad
	s.forget("a_1", &sealer{})
	if s.list["a_1"] != bad {
		t.Error("another's is forgotten")
	}
	delete(s.list, "a_1")
	open, shut := &connection{closed: make(chan struct{})}, &connection{closed: make(chan struct{})}
	shut.close()
	good := &sealer{ready: ready, grant: portal.NewGrant(true), conn: open}
	good.sealer.InitKeyExchangeOnly(&[32]byte{1})
	s.list["a_1"] = good
	if seal, err := s.Sealer(ctx, "a", 1); err != nil || seal == nil || !good.rejoined.IsZero() {
		t.Errorf("one that is good: %v, rejoined %v", err, good.rejoined)
	}
	good.conn = shut
	if s.keepFresh(good); good.rejoined.IsZero() {
		t.Error("a lost channel is not opened again")
	}
	rejoined := good.rejoined
	if s.keepFresh(good); good.rejoined != rejoined {
		t.Error("opened again at once")
	}
	waiting := &sealer{ready: make(chan struct{})}
	s.list["b_1"] = waiting
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Sealer(gone, "b", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("one that is not there yet: %v", err)
	}
	close(waiting.ready)
	waiting.err = bad.err
	s.close()
	if _, err := s.Sealer(ctx, "a", 1); !errors.Is(err, errKafkaDeleted) {
		t.Error(err)
	}
	eventually(t, func() error {
		if _, _, err := good.seal([]byte("x"), nil); err == nil {
			return errors.New("a closed one encrypts")
		}
		return nil
	})
	for route, want := range map[string]string{"/service/a/secure/api": "/service/a", "/service/a/secure/b": "/service/a/secure/b", "/service/a/service/api": "/service/a/service/api", "/secure/api": ""} {
		s.in = &kafkaInlet{request: resource.KafkaInlet{Consumer: route}}
		if got, err := s.consumerRoute("x"); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", route, got, err)
		}
	}
	s.in = &kafkaInlet{request: resource.KafkaInlet{ConsumerRelay: "/service/r"}}
	if got, err := s.consumerRoute("orders_3"); err != nil || got.String() != "/service/r/service/forward_to_consumer_orders_3" {
		t.Errorf("%s, %v", got, err)
	}
	s.in = in
}

// TestConsumerIsReachedAgain: a channel to a consumer that was lost is opened again, by and by, and values are encrypted meanwhile.
func TestConsumerIsReachedAgain(t *testing.T) {
	ctx := within(t)
	producer, consumer := newMember(t), newMember(t)
	consumer.kafkaInlet(resource.KafkaInlet{To: consumer.route(), ConsumerRelay: consumer.route(), AllowProducer: only(producer)})
	to := consumer.route() + "/secure/api"
	writer := producer.kafkaInlet(resource.KafkaInlet{To: to, Consumer: to, AllowConsumer: only(consumer)})
	s := writer.sealers
	seal, err := s.Sealer(ctx, "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	e := s.list[""]
	conn := func() *connection {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.conn
	}
	for _, pause := range []bool{true, false} {
		before := conn()
		before.close()
		<-before.done()
		e.mu.Lock()
		if e.rejoined = time.Now(); !pause {
			e.rejoined = time.Now().Add(-rejoinPause)
		}
		e.mu.Unlock()
		if _, err := s.Sealer(ctx, "b", 2); err != nil {
			t.Fatal(err)
		}
		if _, _, err := seal([]byte("value"), nil); err != nil {
			t.Error(err)
		}
		if pause {
			if conn() != before {
				t.Error("opened again at once")
			}
			continue
		}
		settles(t, "it is opened again", func() bool { return conn() != before })
		select {
		case <-conn().done():
			t.Error("and closed")
		default:
		}
	}
	// A consumer that the policy does not allow is agreed with anew, and refused.
	if err := producer.SetPolicy(ctx, resource.Policy{Resource: "kafka-consumer-kafka_inlet", Expression: only(producer)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sealer(ctx, "a", 1); err == nil || !strings.Contains(err.Error(), "may not read") {
		t.Error(err)
	}
}
