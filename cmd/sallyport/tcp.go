package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/multiaddr"
)

func init() {
	nouns = append(nouns, tcpListenerNoun, tcpConnectionNoun, serviceNoun, workerNoun, flowNoun)
}

// transportLines is how the reference lists transports: for people only.
func transportLines(list []admin.Transport) string {
	var lines []string
	for _, t := range list {
		mode := t.Mode
		if mode == "Listen" {
			mode = "Listening"
		}
		lines = append(lines, "  │ "+strings.ToUpper(t.Type)+", "+mode+" at "+t.Socket)
	}
	return strings.Join(lines, "\n\n")
}

// nodeAddress reads where a node is or is to be: host:port, a port, or a URL.
func nodeAddress(flag, text string) (string, error) {
	if strings.Contains(text, "://") {
		s, err := multiaddr.ParseStream(text)
		if err != nil {
			return "", usageError("invalid value for '%s': %v", flag, err)
		}
		return s.String(), nil
	}
	address, err := hostPort(flag, text)
	if err != nil {
		return "", atRunTime(err)
	}
	return address, nil
}

func transportList(a *app, short, example, path, none string) *cobra.Command {
	return listCommand(a, short, example, func(ctx context.Context, c *admin.Client, _ string) (result, error) {
		list, err := admin.Get[[]admin.Transport](ctx, c, path)
		text := transportLines(list)
		if text == "" {
			text = none
		}
		return result{human: text}, err
	})
}

// findTransport finds a transport by its socket or worker address.
func findTransport(list []admin.Transport, name string) (admin.Transport, bool) {
	for _, t := range list {
		if t.Socket == name || strings.TrimPrefix(t.Worker, "0#") == name || strings.TrimPrefix(t.Processor, "0#") == name {
			return t, true
		}
	}
	return admin.Transport{}, false
}

func transportShow(a *app, short, example, what, path string) *cobra.Command {
	return showCommand(a, short, example, what, func(ctx context.Context, c *admin.Client, _, name string) (result, error) {
		list, err := admin.Get[[]admin.Transport](ctx, c, path)
		if err != nil {
			return result{}, err
		}
		t, ok := findTransport(list, name)
		if !ok {
			return result{}, admin.ErrNotFound
		}
		return result{human: fields("Mode", t.Mode, "Socket", t.Socket, "Worker", t.Worker, "Processor", t.Processor, "Flow control", t.Flow), json: t}, nil
	})
}

func transportDelete(a *app, short, example, what, path string) *cobra.Command {
	var at string
	var yes bool
	cmd := &cobra.Command{Use: "delete ADDRESS [flags]", Short: short, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			name := plainName(args[0])
			if err := a.confirm(yes, "Delete the "+what+" "+name); err != nil {
				return err
			}
			if err := c.Delete(cmd.Context(), path, name); err != nil {
				return err
			}
			return a.print(result{human: "  ✔ " + what + " " + name + " of node " + node + " was deleted", machine: name, json: map[string]string{"address": name, "node": node}})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func tcpListenerNoun(a *app) *cobra.Command {
	var at string
	var r resource.TCPListener
	create := &cobra.Command{Use: "create ADDRESS [flags]", Short: "Listen for other nodes at a further address",
		Long: "Listen for other nodes at a further address: HOST:PORT, or a URL such as ws://HOST:PORT/PATH,\nwss://HOST:PORT/PATH or tls://HOST:PORT.",
		Example: `  sallyport tcp-listener create 127.0.0.1:0
  sallyport tcp-listener create 4500 --at n1
  sallyport tcp-listener create wss://0.0.0.0:8443/portal \
    --tls-certificate fullchain.pem --tls-key privkey.pem`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.Address, err = nodeAddress("<ADDRESS>", args[0]); err != nil {
				return err
			}
			if err := checkProxied(r.AcceptProxyProtocol, r.TrustedProxies); err != nil {
				return err
			}
			for _, path := range []*string{&r.Certificate, &r.Key} {
				if *path != "" {
					if *path, err = a.abs(*path); err != nil {
						return err
					}
				}
			}
			if a.collect != nil {
				return a.collect(resource.KindTCPListener, &r.Address, &r)
			}
			c, _, err := a.firstClient(cmd.Context(), at)
			if err != nil {
				return err
			}
			t, err := admin.Post[admin.Transport](cmd.Context(), c, admin.PathTCPListener, r)
			if err != nil {
				return err
			}
			route := "/dnsaddr/localhost/tcp/" + t.Socket[strings.LastIndexByte(t.Socket, ':')+1:]
			if s, err := multiaddr.ParseStream(r.Address); err == nil {
				s.HostPort = "localhost:" + t.Socket[strings.LastIndexByte(t.Socket, ':')+1:]
				to, err := s.Addr()
				if err != nil {
					return err
				}
				route = to.String()
			}
			a.hint("nothing is reachable through it yet: sallyport flow-control add-consumer %s SERVICE", t.Flow)
			return a.print(result{human: "  ✔ Tcp listener created! You can send messages to it via this route:\n    " + route, json: nil})
		}}
	create.Flags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	create.Flags().StringVar(&r.Certificate, "tls-certificate", "", "the certificate for wss and tls, a PEM `FILE`")
	create.Flags().StringVar(&r.Key, "tls-key", "", "its private key, a PEM `FILE`")
	proxiedFlags(create.Flags(), &r.AcceptProxyProtocol, &r.TrustedProxies)
	return noun(groupObjects, "tcp-listener", "Where other nodes connect", nil, create,
		transportList(a, "List a node's TCP listeners", `  sallyport tcp-listener list
  sallyport tcp-listener list --at n1`, admin.PathTCPListener, "no TCP listeners"),
		transportShow(a, "Show a TCP listener", `  sallyport tcp-listener show 127.0.0.1:4500
  sallyport tcp-listener show 127.0.0.1:4500 --at n1 --jq .flow_control_id`, "tcp listener", admin.PathTCPListener),
		transportDelete(a, "Close a TCP listener", `  sallyport tcp-listener delete 127.0.0.1:4500 --yes`, "TCP listener", admin.PathTCPListener))
}

func tcpConnectionNoun(a *app) *cobra.Command {
	var from, to string
	create := &cobra.Command{Use: "create --from NODE --to HOST:PORT", Short: "Connect a node to another one", Example: `  sallyport tcp-connection create --to 4000
  sallyport tcp-connection create --from n1 --to 127.0.0.1:4000`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usageError("the following required arguments were not provided: --to <HOST:PORT>")
			}
			c, node, err := a.firstClient(cmd.Context(), from)
			if err != nil {
				return err
			}
			address, err := nodeAddress("--to", to)
			if err != nil {
				return err
			}
			t, err := admin.Post[admin.Transport](cmd.Context(), c, admin.PathTCPConns, admin.TransportRequest{Address: address})
			if err != nil {
				return err
			}
			worker := "/worker/" + strings.TrimPrefix(t.Worker, "0#")
			return a.print(result{human: worker, machine: worker, json: map[string]string{"address": worker, "from": node, "to": address}})
		}}
	create.Flags().StringVar(&from, "from", "", "`NODE` that connects (default: the default node)")
	create.Flags().StringVarP(&to, "to", "t", "", "the other node, `HOST:PORT` or a URL")
	return noun(groupObjects, "tcp-connection", "Connections to other nodes", nil, create,
		transportList(a, "List a node's TCP connections", `  sallyport tcp-connection list
  sallyport tcp-connection list --at n1`, admin.PathTCPConns, "no TCP connections"),
		transportShow(a, "Show a TCP connection", `  sallyport tcp-connection show 127.0.0.1:4000
  sallyport tcp-connection show 127.0.0.1:4000 --at n1 --jq .flow_control_id`, "tcp connection", admin.PathTCPConns),
		transportDelete(a, "Close a TCP connection", `  sallyport tcp-connection delete "$CONNECTION" --yes`, "TCP connection", admin.PathTCPConns))
}

func serviceNoun(a *app) *cobra.Command {
	var at, addr string
	hop := &cobra.Command{Use: "hop [flags]", Short: "Start a hop service: it passes messages on", Example: `  sallyport service start hop
  sallyport service start hop --addr h2`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := resource.Hop{Address: plainName(addr)}
			if a.collect != nil {
				return a.collect(resource.KindHop, &r.Address, &r)
			}
			c, _, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			s, err := admin.Post[admin.Service](cmd.Context(), c, admin.PathServices+"/hop", r)
			if err != nil {
				return err
			}
			a.note("%s Started the hop service at /service/%s; whoever reaches it can reach every worker of the node through it", a.color(green, "✔"), s.Address)
			return nil
		}}
	hop.Flags().StringVar(&addr, "addr", "hop", "the service's `NAME`")
	start := noun("", "start", "Start a service", nil, hop, certificateStart(a))
	start.PersistentFlags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	return noun(groupObjects, "service", "Services of a node", nil, start,
		listCommand(a, "List a node's services", `  sallyport service list
  sallyport service list --at n1 --jq '.[].addr'`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.Service](ctx, c, admin.PathServices)
			rows := [][]string{}
			for _, s := range list {
				rows = append(rows, []string{"/service/" + s.Address, s.Type})
			}
			return result{human: tableOr("no services at "+node, []string{"SERVICE", "TYPE"}, rows), json: list}, err
		}))
}

func certificateStart(a *app) *cobra.Command {
	var at string
	var r admin.CertificateRequest
	cmd := &cobra.Command{Use: node.CertificateService + " --certificate FILE --key FILE [flags]", Aliases: []string{"tls-certificate-provider"},
		Short: "Start a service that gives a certificate to TLS inlets",
		Long: `Start a service that gives the certificate and the private key of two files to TLS inlets:
to those of the same node, and to those of members whose ticket was made with --tls.
The files are read anew for each request.`,
		Example: `  sallyport service start tls_certificate_provider --certificate fullchain.pem --key privkey.pem
  sallyport service start tls_certificate_provider --certificate fullchain.pem \
    --key privkey.pem --addr web_certificate --at n1`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for flag, path := range map[string]*string{"--certificate": &r.Certificate, "--key": &r.Key} {
				if *path == "" {
					return usageError("the following required arguments were not provided: %s <FILE>", flag)
				}
				whole, err := a.abs(*path)
				if err != nil {
					return err
				}
				*path = whole
			}
			r.Address = plainName(r.Address)
			if a.collect != nil {
				return a.collect(resource.KindCertificate, &r.Address, &r)
			}
			c, _, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			s, err := admin.Post[admin.Service](cmd.Context(), c, admin.PathServices+"/"+node.CertificateService, r)
			if err != nil {
				return err
			}
			a.done("Started a certificate provider at /service/%s", s.Address)
			a.hint("next: sallyport tcp-inlet create --from tls://HOST:PORT --tls-certificate-provider /service/%s", s.Address)
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&r.Certificate, "certificate", "", "the certificate and those that lead to its root, a PEM `FILE`")
	f.StringVar(&r.Key, "key", "", "the private key, a PEM `FILE`")
	f.StringVar(&r.Address, "addr", node.CertificateService, "the service's `NAME`")
	f.StringVar(&at, "at", "", "`NODE` (default: the default node)")
	return cmd
}

func workerNoun(a *app) *cobra.Command {
	return noun(groupObjects, "worker", "Workers of a node", nil,
		listCommand(a, "List the addresses of a node's workers", `  sallyport worker list
  sallyport worker list --at n1 --output json`, func(ctx context.Context, c *admin.Client, _ string) (result, error) {
			list, err := admin.Get[[]string](ctx, c, admin.PathWorkers)
			var lines []string
			for _, w := range list {
				lines = append(lines, "  │ Worker "+w)
			}
			return result{human: strings.Join(lines, "\n\n")}, err
		}))
}

func flowNoun(a *app) *cobra.Command {
	var at string
	add := &cobra.Command{Use: "add-consumer FLOW_CONTROL_ID ADDRESS [flags]", Short: "Let what comes in on a flow reach a worker", Example: `  sallyport flow-control add-consumer "$FLOW" /service/echo
  sallyport flow-control add-consumer "$FLOW" /service/db --at n1`, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[1], "/") {
				return usageError("invalid value '%s' for '<ADDRESS>': it must be a route such as /service/%s", args[1], args[1])
			}
			if strings.Count(args[1], "/") != 2 || args[1] == plainName(args[1]) {
				return fmt.Errorf("invalid value '%s' for '<ADDRESS>': it must be the route of one worker of the node", args[1])
			}
			c, _, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			_, err = admin.Post[struct{}](cmd.Context(), c, admin.PathConsumers, admin.ConsumerRequest{Flow: args[0], Address: plainName(args[1])})
			return err
		}}
	add.Flags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	return noun(groupObjects, "flow-control", "What may reach what inside a node", nil, add)
}
