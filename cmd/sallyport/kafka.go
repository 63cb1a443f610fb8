//go:build !small

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/limits"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/portal/kafka"
)

func init() {
	nouns = append(nouns, kafkaInletCommand, kafkaOutletCommand, kafkaOldCommands[0], kafkaOldCommands[1])
}

// Defaults of the reference (docs/protocol/03 §7.2).
const (
	kafkaInletName    = "kafka_inlet"
	kafkaOutletName   = "kafka_outlet"
	kafkaInletFrom    = "127.0.0.1:4000"
	kafkaProducerFrom = "127.0.0.1:5000"
	kafkaServer       = "127.0.0.1:9092"
	kafkaBrokerPorts  = 100
)

// portRange is a flag value A-B, both included.
type portRange struct{ first, last int64 }

func (r *portRange) String() string {
	if r.first == 0 {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}
func (*portRange) Type() string { return "A-B" }
func (r *portRange) Set(text string) error {
	a, b, found := strings.Cut(text, "-")
	first, errA := strconv.ParseUint(a, 10, 16)
	last, errB := strconv.ParseUint(b, 10, 16)
	if !found || errA != nil || errB != nil || first == 0 || first > last {
		return fmt.Errorf("%q is not a range of ports such as 4001-4100", text)
	}
	r.first, r.last = int64(first), int64(last)
	return nil
}

// kafkaPorts is the range behind a bootstrap port that brokers get when none is given.
func kafkaPorts(bootstrap string) (r portRange, err error) {
	_, text, _ := net.SplitHostPort(bootstrap)
	port, _ := strconv.ParseInt(text, 10, 32)
	if port < 1 || port > 65534 {
		return r, usageError("there is no port behind %s for brokers: give --brokers-port-range", bootstrap)
	}
	return portRange{first: port + 1, last: min(port+kafkaBrokerPorts, 65535)}, nil
}

// kafkaRoute reads a route; "self" is this node, through a channel to itself.
func (a *app) kafkaRoute(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if text == "self" {
		text = "/secure/api"
	}
	addr, err := a.route(flag, text)
	if err != nil {
		return "", err
	}
	return addr.String(), nil
}

func kafkaInletCommand(a *app) *cobra.Command {
	return noun(groupStory, "kafka-inlet", "Kafka portals' ends beside clients", nil, kafkaInletCreate(a),
		kafkaList(a, "Kafka inlet", admin.PathKafkaIn, "kafka-inlet"), kafkaShow(a, "Kafka inlet", admin.PathKafkaIn, kafkaInletName, "kafka-inlet"),
		kafkaDelete(a, "Kafka inlet", "Delete a Kafka inlet with the inlets of its brokers", admin.PathKafkaIn, "kafka-inlet", kafkaInletName, "n2"))
}

func kafkaOutletCommand(a *app) *cobra.Command {
	return noun(groupStory, "kafka-outlet", "Kafka portals' ends beside brokers", nil, kafkaOutletCreate(a),
		kafkaList(a, "Kafka outlet", admin.PathKafkaOut, "kafka-outlet"), kafkaShow(a, "Kafka outlet", admin.PathKafkaOut, kafkaOutletName, "kafka-outlet"),
		kafkaDelete(a, "Kafka outlet", "Delete a Kafka outlet; its open connections stay", admin.PathKafkaOut, "kafka-outlet", kafkaOutletName, "n1"))
}

func kafkaList(a *app, what, path, command string) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "list [flags]", Short: "List a node's " + what + "s", Args: cobra.NoArgs,
		Example: "  sallyport " + command + " list\n  sallyport " + command + " list --at n1 --jq '.[].addr'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			list, err := admin.Get[[]admin.Service](cmd.Context(), c, path)
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, s := range list {
				rows = append(rows, []string{s.Address, s.Type})
			}
			return a.print(result{human: tableOr("no "+what+"s at "+node, []string{"ADDRESS", "TYPE"}, rows), json: list})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	return cmd
}

func kafkaShow(a *app, what, path, standard, command string) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "show [NAME] [flags]", Short: "Show a " + what, Args: cobra.MaximumNArgs(1),
		Example: "  sallyport " + command + " show\n  sallyport " + command + " show " + standard + " --jq .addr",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := standard
			if len(args) == 1 {
				name = plainName(args[0])
			}
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			s, err := admin.Get[admin.Service](cmd.Context(), c, admin.Item(path, name))
			if notFound(err) {
				return a.unknown(cmd.Context(), at, what, name)
			}
			if err != nil {
				return err
			}
			return a.print(result{human: fields("Address", s.Address, "Type", s.Type, "Node", node), json: s})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	return cmd
}

func kafkaDelete(a *app, what, short, path, command, standard, at string) *cobra.Command {
	return deleteCommand(a, short, "  sallyport "+command+" delete "+standard+" --yes\n  sallyport "+command+" delete --all --at "+at+" --yes", what, path,
		func(ctx context.Context, c *admin.Client) ([]string, error) {
			list, err := admin.Get[[]admin.Service](ctx, c, path)
			var names []string
			for _, s := range list {
				names = append(names, s.Address)
			}
			return names, err
		},
		func(node, name string) result {
			return result{human: "  ✔ " + what + " with address " + name + " on Node " + node + " has been deleted", json: map[string]string{"address": name, "node": node}}
		})
}

// kafkaInletFlags are what creates a Kafka inlet.
type kafkaInletFlags struct {
	at, addr, from, to                        string
	ports                                     portRange
	consumer, consumerRelay, publishing       string
	noPublishing, noEncryption                bool
	fields                                    []string
	bind                                      bool
	advertise, provider                       string
	useTLS                                    bool
	maxMessage                                limits.Bytes
	allow, allowConsumer, allowProducer       string
	toGiven, allowGiven, consGiven, prodGiven bool
}

func kafkaInletCreate(a *app) *cobra.Command {
	v := kafkaInletFlags{maxMessage: kafka.DefaultMaxMessage}
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Create a Kafka inlet: clients connect to it as if it were the cluster",
		Example: `  sallyport kafka-inlet create --from 9092 --consumer-relay /project/partners \
    --to /project/partners/service/forward_to_kafka/secure/api
  sallyport kafka-inlet create plain --from 19092 --to /node/n1/secure/api --no-content-encryption`,
		Long: `Create a Kafka inlet: clients connect to it as if it were the cluster.

Each broker gets an inlet of its own, on a port of the range, when clients hear of it. The values of
records are encrypted for the consumer of their partition, found at a relay or with --consumer:
brokers store what they cannot read. With --bind-values neither can they move a value to another
topic, partition or key; producers and consumers need it then, and the reference does not know it.

Clients are told to connect to the host of --from. If that is for all addresses, such as 0.0.0.0,
each is told the address that it has come to; behind a translated address, give --advertise.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := kafkaInletName
			if len(args) == 1 {
				name = plainName(args[0])
			}
			if cmd.Flags().Changed("addr") {
				name = plainName(v.addr)
			}
			for _, flag := range []struct{ one, other string }{{"consumer", "consumer-relay"}, {"publishing-relay", "no-publishing"}, {"publishing-relay", "avoid-publishing"}} {
				if cmd.Flags().Changed(flag.one) && cmd.Flags().Changed(flag.other) {
					return usageError("the argument '--%s' cannot be used with '--%s'", flag.one, flag.other)
				}
			}
			v.toGiven = cmd.Flags().Changed("to")
			v.allowGiven, v.consGiven, v.prodGiven = cmd.Flags().Changed("allow"), cmd.Flags().Changed("allow-consumer"), cmd.Flags().Changed("allow-producer")
			return a.createKafkaInlet(cmd.Context(), name, v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.from, "from", kafkaInletFrom, "`ADDRESS` or port for clients")
	f.Var(&v.ports, "brokers-port-range", "ports for the brokers (default: "+strconv.Itoa(kafkaBrokerPorts)+" behind --from)")
	f.StringVar(&v.to, "to", "/project/default", "`ROUTE` to the outlet, or self")
	f.StringVar(&v.consumer, "consumer", "", "the `ROUTE` to the only consumer")
	f.StringVar(&v.consumerRelay, "consumer-relay", "", "the `ROUTE` to where consumers are found (default: --to)")
	f.StringVar(&v.publishing, "publishing-relay", "", "`ROUTE` to where they are known (default: --consumer-relay)")
	f.BoolVar(&v.noPublishing, "no-publishing", false, "do not make consumers known")
	f.BoolVar(&v.noPublishing, "avoid-publishing", false, "")
	f.BoolVar(&v.noEncryption, "no-content-encryption", false, "leave values as they are: brokers can read them")
	f.BoolVar(&v.noEncryption, "disable-content-encryption", false, "")
	f.StringArrayVar(&v.fields, "encrypted-field", nil, "encrypt only this `FIELD` of JSON objects (repeatable)")
	f.StringArrayVar(&v.fields, "encrypted-fields", nil, "")
	f.BoolVar(&v.bind, "bind-values", false, "bind values to their places; consumers refuse others")
	f.StringVar(&v.advertise, "advertise", "", "the `HOST` that clients are told to connect to")
	f.BoolVar(&v.useTLS, "tls", false, "clients speak TLS (also --from tls://HOST:PORT)")
	f.StringVar(&v.provider, "tls-certificate-provider", "", "`ROUTE` to who has the certificate (default: the project)")
	f.Var(&v.maxMessage, "max-message-size", "longest message after encryption")
	f.StringVar(&v.allow, "allow", "", "which outlets' nodes may be used, a policy `EXPRESSION`")
	f.StringVar(&v.allowConsumer, "allow-consumer", "", "who may get keys as a consumer, a policy `EXPRESSION`")
	f.StringVar(&v.allowProducer, "allow-producer", "", "whose records are read, a policy `EXPRESSION`")
	kafkaCommonFlags(f, &v)
	hide(cmd, "addr", "avoid-publishing", "disable-content-encryption", "encrypted-fields")
	return cmd
}

func kafkaCommonFlags(f *pflag.FlagSet, v *kafkaInletFlags) {
	f.StringVar(&v.at, "at", "", "`NODE` to create it at (default: the default node)")
	f.StringVar(&v.addr, "addr", kafkaInletName, "the inlet's `NAME`")
}

// createKafkaInlet checks what was given, completes it and asks the node.
func (a *app) createKafkaInlet(ctx context.Context, name string, v kafkaInletFlags) error {
	scheme, listen, err := schemePort("--from", v.from)
	if err != nil {
		return err
	}
	if scheme == "udp" {
		return errors.New("--from udp:// is not supported for Kafka")
	}
	if v.ports.first == 0 {
		if v.ports, err = kafkaPorts(listen); err != nil {
			return err
		}
	}
	_, text, _ := net.SplitHostPort(listen)
	if port, _ := strconv.ParseInt(text, 10, 32); port >= v.ports.first && port <= v.ports.last {
		return fmt.Errorf("the bootstrap port %d can't overlap with the brokers port range %s", port, v.ports.String())
	}
	for flag, expr := range map[string]struct {
		text  string
		given bool
	}{"--allow": {v.allow, v.allowGiven}, "--allow-consumer": {v.allowConsumer, v.consGiven}, "--allow-producer": {v.allowProducer, v.prodGiven}} {
		if expr.given && expr.text == "" {
			return usageError("invalid value '' for '%s <POLICY_EXPRESSION>': the expression is empty", flag)
		}
		if err := checkPolicy(flag, expr.text); err != nil {
			return err
		}
	}
	if p, err := a.defaultProject(); err != nil {
		return err
	} else if !v.toGiven && p != "" {
		v.to = "/project/" + p
	}
	r := admin.KafkaInletRequest{
		Name: name, From: listen, FirstPort: v.ports.first, LastPort: v.ports.last, NoContentEncryption: v.noEncryption, Fields: v.fields,
		Allow: v.allow, AllowConsumer: v.allowConsumer, AllowProducer: v.allowProducer,
		BindValues: v.bind, Advertise: v.advertise, MaxMessageSize: int64(v.maxMessage),
	}
	for _, route := range []struct {
		flag, text string
		to         *string
	}{{"--to", v.to, &r.To}, {"--consumer", v.consumer, &r.Consumer}, {"--consumer-relay", v.consumerRelay, &r.ConsumerRelay}, {"--publishing-relay", v.publishing, &r.PublishingRelay}} {
		if *route.to, err = a.kafkaRoute(route.flag, route.text); err != nil {
			return err
		}
	}
	if r.PublishingRelay == "" && !v.noPublishing {
		if r.PublishingRelay = r.ConsumerRelay; r.PublishingRelay == "" {
			r.PublishingRelay = r.To
		}
	}
	if r.ConsumerRelay == "" && r.Consumer == "" {
		r.ConsumerRelay = r.To
	}
	if r.TLSProvider, err = a.certificateProvider(v.provider, v.useTLS || scheme == "tls"); err != nil {
		return err
	}
	if a.collect != nil {
		return a.collect(resource.KindKafkaInlet, &r.Name, &r)
	}
	c, node, err := a.firstClient(ctx, v.at)
	if err != nil {
		return err
	}
	in, err := admin.Post[admin.Inlet](ctx, c, admin.PathKafkaIn, r)
	if err != nil {
		return fmt.Errorf("failed to start Kafka Inlet: %w", err)
	}
	a.done("Created a Kafka inlet at %s of node %s, brokers at the ports %s, to %s", in.Bind, node, v.ports.String(), r.To)
	if v.noEncryption {
		a.warn("%s values are not encrypted for consumers: brokers can read them", a.color("33", "!"))
	}
	a.hint("next: point your Kafka client to %s", in.Bind)
	return a.print(result{
		human: fields("Kafka inlet", name, "Node", node, "Listens at", in.Bind, "Brokers at", v.ports.String(), "To", r.To),
		json:  map[string]any{"node_name": node, "from": in.Bind, "brokers_port_range": v.ports.String(), "to": r.To},
	})
}

// bootstrapServers reads one server or several, with commas between, and returns their scheme.
func bootstrapServers(text string, r *admin.KafkaOutletRequest) (scheme string, err error) {
	var list []string
	for i, server := range strings.Split(text, ",") {
		s, target, err := schemePort("--bootstrap-server", strings.TrimSpace(server))
		if err != nil {
			return "", err
		}
		if i == 0 {
			scheme = s
		} else if s != scheme {
			return "", usageError("invalid value '%s' for '--bootstrap-server': %s:// and %s:// are mixed", text, scheme, s)
		}
		list = append(list, target)
	}
	r.Bootstrap, r.TLS = strings.Join(list, ","), r.TLS || scheme == "tls"
	return scheme, nil
}

func kafkaOutletCreate(a *app) *cobra.Command {
	var at, from, server string
	var r admin.KafkaOutletRequest
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Create a Kafka outlet: it connects portal connections to the brokers of a cluster",
		Example: `  sallyport kafka-outlet create --bootstrap-server 9092
  sallyport kafka-outlet create --at n3 --bootstrap-server 10.0.0.1:9092,10.0.0.2:9092
  sallyport kafka-outlet create --at n2 --bootstrap-server tls://kafka.example.com:9093`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r.Name = kafkaOutletName
			if len(args) == 1 {
				r.Name = plainName(args[0])
			}
			if cmd.Flags().Changed("from") || cmd.Flags().Changed("addr") {
				r.Name = plainName(from)
			}
			scheme, err := bootstrapServers(server, &r)
			if err != nil {
				return err
			}
			if err := checkAllow(cmd, r.Allow); err != nil {
				return err
			}
			if err := checkPlaces(cmd, portal.MostConnections, map[string]int{"max-connections": r.MaxConnections, "max-connections-per-member": r.MaxConnectionsPerMember}); err != nil {
				return err
			}
			if a.collect != nil {
				return a.collect(resource.KindKafkaOutlet, &r.Name, &r)
			}
			c, node, err := a.firstClient(ctx, at)
			if err != nil {
				return err
			}
			if _, err := admin.Post[admin.Outlet](ctx, c, admin.PathKafkaOut, r); err != nil {
				return fmt.Errorf("failed to start Kafka Outlet: %w", err)
			}
			a.done("Created a Kafka outlet at node %s, to the bootstrap server %s", node, r.Bootstrap)
			a.hint("next: sallyport relay create NAME --to %s", node)
			return a.print(result{human: fields("Kafka outlet", r.Name, "Node", node, "Bootstrap server", r.Bootstrap), json: map[string]string{"node_name": node, "bootstrap_server": scheme + "://" + r.Bootstrap}})
		},
	}
	f := cmd.Flags()
	f.StringVar(&server, "bootstrap-server", kafkaServer, "brokers [tls://]`HOST:PORT`,...")
	f.StringVar(&server, "to", kafkaServer, "")
	f.StringVar(&from, "from", kafkaOutletName, "the outlet's `NAME` (as NAME)")
	f.StringVar(&from, "addr", kafkaOutletName, "")
	f.StringVar(&at, "at", "", "`NODE` to create it at (default: the default node)")
	f.BoolVar(&r.TLS, "tls", false, "connect to brokers with TLS")
	f.StringVar(&r.Allow, "allow", "", "who may use it, a policy `EXPRESSION`")
	f.IntVar(&r.MaxConnections, "max-connections", 0, "`NUMBER` of connections to a broker at most")
	f.IntVar(&r.MaxConnectionsPerMember, "max-connections-per-member", 0, perMemberHelp)
	hide(cmd, "to", "addr")
	return cmd
}

// kafkaOldCommands are the names that Kafka inlets had once.
var kafkaOldCommands = [2]func(*app) *cobra.Command{
	func(a *app) *cobra.Command { return kafkaOldCommand(a, "kafka-producer", kafkaProducerFrom) },
	func(a *app) *cobra.Command { return kafkaOldCommand(a, "kafka-consumer", kafkaInletFrom) },
}

func kafkaOldCommand(a *app, use, from string) *cobra.Command {
	deprecated := func(cmd *cobra.Command) {
		a.note("%s %s is deprecated: use kafka-inlet %s", a.color("33", "!"), cmd.CommandPath(), cmd.Name())
	}
	var v kafkaInletFlags
	create := &cobra.Command{Use: "create [flags]", Short: "Create a Kafka inlet (deprecated, use kafka-inlet create)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			deprecated(cmd)
			v.toGiven = cmd.Flags().Changed("project-route")
			return a.createKafkaInlet(cmd.Context(), plainName(v.addr), v)
		}}
	f := create.Flags()
	f.StringVar(&v.from, "bootstrap-server", from, "where clients connect, `ADDRESS` or port")
	f.Var(&v.ports, "brokers-port-range", "ports for the brokers")
	f.StringVar(&v.to, "project-route", "/project/default", "the `ROUTE` to the outlet's node")
	kafkaCommonFlags(f, &v)
	list := kafkaList(a, "Kafka inlet", admin.PathKafkaIn, use)
	remove := &cobra.Command{Use: "delete NAME [flags]", Short: "Delete a Kafka inlet (deprecated, use kafka-inlet delete)", Args: cobra.ExactArgs(1)}
	var at string
	remove.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	remove.RunE = func(cmd *cobra.Command, args []string) error {
		deprecated(cmd)
		c, node, err := a.nodeClient(at)
		if err != nil {
			return err
		}
		name := plainName(args[0])
		if err := c.Delete(cmd.Context(), admin.PathKafkaIn, name); err != nil {
			return err
		}
		return a.print(result{human: "  ✔ Kafka inlet with address " + name + " on Node " + node + " has been deleted", json: map[string]string{"address": name, "node": node}})
	}
	old := list.RunE
	list.RunE = func(cmd *cobra.Command, args []string) error {
		deprecated(cmd)
		return old(cmd, args)
	}
	cmd := noun(groupOther, use, "Kafka inlets under an old name (deprecated)", nil, create, list, remove)
	cmd.Hidden = true
	return cmd
}
