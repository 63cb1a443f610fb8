//go:build !small

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/internal/freeport"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/state"
)

func (m *member) kafkaInlet(r admin.KafkaInletRequest) *kafkaInlet {
	m.t.Helper()
	host := r.From
	if host == "" {
		host = "127.0.0.1"
	}
	r.From = net.JoinHostPort(host, freeport.For(m.t))
	r.FirstPort, r.LastPort = 30000, 32000
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if _, err := m.kafkaInlets().Create(ctx, r); err != nil {
		m.t.Fatal(err)
	}
	return m.openKafkaInlet()
}

func (m *member) kafkaInlets() *table.Table[resource.KafkaInlet, *kafkaInlet] {
	return table.Find[resource.KafkaInlet, *kafkaInlet](m.set, resource.KindKafkaInlet)
}

func (m *member) kafkaOutlets() *table.Table[resource.KafkaOutlet, *kafkaOutlet] {
	return table.Find[resource.KafkaOutlet, *kafkaOutlet](m.set, resource.KindKafkaOutlet)
}

// openKafkaInlet returns the inlet kafka_inlet, nil if it is not open.
func (m *member) openKafkaInlet() *kafkaInlet {
	i, _ := m.kafkaInlets().Get("kafka_inlet")
	return i.Value
}

// TestKafkaKeys: a producer agrees on keys with its consumer through a relay; the consumer reads what was written, after a restart
// too; policies decide on both sides.
func TestKafkaKeys(t *testing.T) {
	ctx := within(t)
	relay, producer, consumer := newMember(t), newMember(t), newMember(t)
	at := relay.route() + "/secure/api"
	writer := producer.kafkaInlet(admin.KafkaInletRequest{To: at, ConsumerRelay: at, AllowConsumer: only(consumer)})
	reader := consumer.kafkaInlet(admin.KafkaInletRequest{To: at, ConsumerRelay: at, PublishingRelay: at, AllowProducer: only(producer)})

	if _, err := writer.sealers.Sealer(shortly(t), "orders", 3); err == nil {
		t.Error("a key for a partition that nobody reads")
	}
	reader.k.publish(ctx, reader, "orders", 3)
	reader.k.publish(ctx, reader, "orders", 3) // again changes nothing
	var address string
	var sealed []byte
	eventually(t, func() error {
		seal, err := writer.sealers.Sealer(ctx, "orders", 3)
		if err == nil {
			address, sealed, err = seal([]byte("value"), nil)
		}
		return err
	})
	open := func(in *kafkaInlet) error {
		plain, err := in.sealers.Open(ctx, address, append([]byte(nil), sealed...), nil)
		if err == nil && string(plain) != "value" {
			err = fmt.Errorf("opened %q", plain)
		}
		return err
	}
	eventually(t, func() error { return open(reader) })
	if got := consumer.Relays(); len(got) != 1 || got[0].Name != "consumer_orders_3" {
		t.Errorf("relays %+v", got)
	}
	if err := open(writer); err == nil {
		t.Error("the producer can read")
	}
	again, err := writer.sealers.Sealer(ctx, "orders", 3)
	if err != nil {
		t.Fatal(err)
	}
	if other, next, err := again([]byte("value"), nil); err != nil || other != address || binary.BigEndian.Uint64(next) != 1 {
		t.Errorf("another key, or its counter repeated: %s and %s, %x, %v", address, other, next, err)
	}
	sealed[len(sealed)-1]++
	if err := open(reader); err == nil {
		t.Error("an altered record was read")
	}
	sealed[len(sealed)-1]--

	// Bound to its place, a value opens there only.
	address, sealed, err = again([]byte("value"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]bool{"place": true, "other": false, "": false} {
		if _, err := reader.sealers.Open(ctx, address, append([]byte(nil), sealed...), []byte(data)); (err == nil) != want {
			t.Errorf("a bound value, opened as %q: %v", data, err)
		}
	}
	if address, sealed, err = again([]byte("value"), nil); err != nil {
		t.Fatal(err)
	}

	consumer.restart()
	if reader = consumer.openKafkaInlet(); reader == nil {
		t.Fatal("the Kafka inlet did not come back")
	}
	if err := open(reader); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := consumer.SetPolicy(ctx, admin.PolicyRequest{Resource: "kafka-producer-kafka_inlet", Expression: only(relay)}); err != nil {
		t.Fatal(err)
	}
	if err := open(reader); err == nil || !strings.Contains(err.Error(), "policy") {
		t.Errorf("a producer that is no longer allowed: %v", err)
	}
	if err := producer.SetPolicy(ctx, admin.PolicyRequest{Resource: "kafka-consumer-kafka_inlet", Expression: only(relay)}); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.sealers.Sealer(shortly(t), "orders", 3); err == nil {
		t.Error("a key for a consumer that is no longer allowed")
	}
	if err := producer.kafkaInlets().Delete(ctx, "kafka_inlet"); err != nil {
		t.Fatal(err)
	}
	if len(producer.Inlets()) != 0 {
		t.Errorf("inlets left: %+v", producer.Inlets())
	}
	if _, _, err := again([]byte("value"), nil); err == nil {
		t.Error("a deleted inlet encrypts")
	}
}

// TestKafkaDirect: with --consumer there is one key for all partitions. A producer that the consumer does not allow leaves nothing there.
func TestKafkaDirect(t *testing.T) {
	ctx := within(t)
	producer, stranger, consumer := newMember(t), newMember(t), newMember(t)
	reader := consumer.kafkaInlet(admin.KafkaInletRequest{To: consumer.route(), ConsumerRelay: consumer.route(), AllowProducer: only(producer)})
	to := consumer.route() + "/secure/api"
	writer := producer.kafkaInlet(admin.KafkaInletRequest{To: to, Consumer: to, AllowConsumer: only(consumer)})
	other := stranger.kafkaInlet(admin.KafkaInletRequest{To: to, Consumer: to, AllowConsumer: only(consumer)})
	var first string
	for _, topic := range []string{"a", "b"} {
		seal, err := writer.sealers.Sealer(ctx, topic, 1)
		if err != nil {
			t.Fatal(err)
		}
		address, sealed, err := seal([]byte("value"), nil)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := reader.sealers.Open(ctx, address, append([]byte(nil), sealed...), nil)
			return err
		})
		if first == "" {
			first = address
		} else if first != address {
			t.Errorf("two keys, %s and %s", first, address)
		}
	}
	seal, err := other.sealers.Sealer(ctx, "a", 1) // it cannot know
	if err != nil {
		t.Fatal(err)
	}
	address, sealed, err := seal([]byte("value"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.sealers.Open(ctx, address, sealed, nil); err == nil {
		t.Error("a stranger's record was read")
	}
	if _, err := consumer.dir.KafkaKey("n", address); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a stranger's key is kept: %v", err)
	}
}

// metadataServer is the part of a broker that answers requests for metadata, in version 9, with one broker at its own address.
func metadataServer(t *testing.T) string {
	t.Helper()
	at, _ := metadataServerOf(t, "")
	return at
}

// metadataServerOf is metadataServer with the broker at another address. stop closes its port.
func metadataServerOf(t *testing.T, broker string) (at string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if broker == "" {
		broker = l.Addr().String()
	}
	host, text, _ := net.SplitHostPort(broker)
	port, _ := strconv.Atoi(text)
	servers.Serve(l, func(c net.Conn) {
		for {
			head := make([]byte, 4)
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			b := make([]byte, binary.BigEndian.Uint32(head))
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			m := kmsg.NewPtrMetadataResponse()
			m.SetVersion(9)
			m.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 7, Host: host, Port: int32(port)}}
			out := m.AppendTo(append(append(make([]byte, 4), b[4:8]...), 0))
			binary.BigEndian.PutUint32(out, uint32(len(out)-4))
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	})
	return l.Addr().String(), l.Close
}

// metadata asks for metadata and returns where the broker is said to be.
func metadata(at string) (host string, port int32, err error) {
	c, err := net.DialTimeout("tcp", at, time.Second)
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	m := kmsg.NewPtrMetadataRequest()
	m.SetVersion(9)
	out := m.AppendTo([]byte{0, 0, 0, 0, 0, 3, 0, 9, 0, 0, 0, 5, 0, 1, 'c', 0})
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	if _, err := c.Write(out); err != nil {
		return "", 0, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return "", 0, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(c, b); err != nil {
		return "", 0, err
	}
	r := kmsg.NewPtrMetadataResponse()
	r.SetVersion(9)
	if err := r.ReadFrom(b[5:]); err != nil {
		return "", 0, err
	}
	if len(r.Brokers) != 1 || r.Brokers[0].NodeID != 7 {
		return "", 0, fmt.Errorf("brokers %+v", r.Brokers)
	}
	return r.Brokers[0].Host, r.Brokers[0].Port, nil
}

// TestKafkaBrokers: clients are led to an inlet for each broker, which leads to that broker, and both come back where they were
// after a restart.
func TestKafkaBrokers(t *testing.T) {
	ctx := within(t)
	outlet, inlet := newMember(t), newMember(t)
	server := metadataServer(t)
	if _, err := outlet.kafkaOutlets().Create(ctx, admin.KafkaOutletRequest{Bootstrap: server, Allow: only(inlet)}); err != nil {
		t.Fatal(err)
	}
	if _, err := outlet.kafkaOutlets().Create(ctx, admin.KafkaOutletRequest{Name: "second", Bootstrap: server}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("a second Kafka outlet: %v", err)
	}
	in := inlet.kafkaInlet(admin.KafkaInletRequest{To: outlet.route() + "/secure/api", NoContentEncryption: true})
	bootstrap := in.request.From
	var port int32
	look := func(at string) {
		t.Helper()
		eventually(t, func() error {
			host, p, err := metadata(at)
			if err == nil && (host != "127.0.0.1" || p < 30000 || p > 32000 || port != 0 && p != port) {
				t.Fatalf("the broker is at %s:%d, was at %d", host, p, port)
			}
			port = p
			return err
		})
	}
	look(bootstrap)
	look(fmt.Sprintf("127.0.0.1:%d", port)) // through the broker's own
	if got := outlet.Outlets(); len(got) != 2 || got[1].Worker != "kafka_outlet_7" || got[1].To != server {
		t.Errorf("outlets %+v", got)
	}
	outlet.restart()
	look(fmt.Sprintf("127.0.0.1:%d", port))
	inlet.restart()
	look(fmt.Sprintf("127.0.0.1:%d", port))
	look(bootstrap)
	if got := inlet.Inlets(); len(got) != 2 {
		t.Errorf("inlets %+v", got)
	}
	if err := outlet.SetPolicy(ctx, admin.PolicyRequest{Resource: "kafka_outlet", Expression: only(outlet)}); err != nil {
		t.Fatal(err)
	}
	_ = inlet // whose connections are closed now, and new ones refused
	if _, _, err := metadata(bootstrap); err == nil {
		t.Error("a policy was not obeyed")
	}
	if err := outlet.kafkaOutlets().Delete(ctx, "kafka_outlet"); err != nil {
		t.Fatal(err)
	}
	if len(outlet.Outlets()) != 0 || len(outlet.kafkaOutlets().List()) != 0 {
		t.Errorf("outlets left: %+v", outlet.Outlets())
	}
}

// TestKafkaSelf: inlet and outlet on one node, through a channel to itself.
func TestKafkaSelf(t *testing.T) {
	m := newMember(t)
	if _, err := m.kafkaOutlets().Create(within(t), admin.KafkaOutletRequest{Bootstrap: metadataServer(t), Allow: only(m)}); err != nil {
		t.Fatal(err)
	}
	in := m.kafkaInlet(admin.KafkaInletRequest{To: "/secure/api", NoContentEncryption: true, Allow: only(m)})
	eventually(t, func() error {
		_, _, err := metadata(in.request.From)
		return err
	})
}

// TestKafkaInletRefused: what cannot work is refused at once. Above all, content encryption is never left out silently.
func TestKafkaInletRefused(t *testing.T) {
	m := newMember(t)
	good := admin.KafkaInletRequest{From: "127.0.0.1:29999", FirstPort: 30000, LastPort: 30100, To: m.route(), ConsumerRelay: m.route()}
	for name, change := range map[string]func(*admin.KafkaInletRequest){
		"no consumers":     func(r *admin.KafkaInletRequest) { r.ConsumerRelay = "" },
		"no outlet":        func(r *admin.KafkaInletRequest) { r.To = "" },
		"route":            func(r *admin.KafkaInletRequest) { r.Consumer = "nowhere" },
		"ports":            func(r *admin.KafkaInletRequest) { r.FirstPort = 0 },
		"ports the other":  func(r *admin.KafkaInletRequest) { r.LastPort = 29999 },
		"bootstrap within": func(r *admin.KafkaInletRequest) { r.From = "127.0.0.1:30050" },
		"policy":           func(r *admin.KafkaInletRequest) { r.AllowProducer = "(" },
		"address":          func(r *admin.KafkaInletRequest) { r.From = "30050" },
		"advertised port":  func(r *admin.KafkaInletRequest) { r.Advertise = "box.example.com:9092" },
		"advertised all":   func(r *admin.KafkaInletRequest) { r.Advertise = "0.0.0.0" },
		"TLS everywhere":   func(r *admin.KafkaInletRequest) { r.From, r.TLSProvider = "0.0.0.0:29999", "/service/tls" },
		"TLS route":        func(r *admin.KafkaInletRequest) { r.TLSProvider = "nowhere" },
		"message size":     func(r *admin.KafkaInletRequest) { r.MaxMessageSize = -1 },
		"bound in clear":   func(r *admin.KafkaInletRequest) { r.BindValues, r.NoContentEncryption = true, true },
	} {
		r := good
		change(&r)
		if _, err := m.kafkaInlets().Create(within(t), r); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := good
	r.Name = "echo"
	if _, err := m.kafkaInlets().Create(within(t), r); !errors.Is(err, admin.ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	if len(m.kafkaInlets().List()) != 0 || len(m.Inlets()) != 0 {
		t.Error("something is left")
	}
}
