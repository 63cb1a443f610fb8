package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/node/admin"
)

// maxAdminBody bounds a request to the administration interface.
const maxAdminBody = 20 << 20

// ServeAdmin answers the administration interface on a Unix socket at path until ctx ends. Only the owner may open it.
// stop is called when a client asks the node to stop.
func (n *Node) ServeAdmin(ctx context.Context, path string, stop func()) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return fmt.Errorf("admin socket: %w", err)
	}
	serve(ctx, ln, n.adminHandler(stop))
	return nil
}

// ServeStatus answers GET /show, HEAD / and GET /metrics on a loopback port until ctx ends, and returns the address. When the
// address is taken and fallback is set, a free port is used (docs/protocol/03 §6.3).
func (n *Node) ServeStatus(ctx context.Context, at string, fallback bool) (string, error) {
	ln, err := net.Listen("tcp", at)
	if err != nil && fallback {
		ln, err = net.Listen("tcp", net.JoinHostPort(loopback.String(), "0"))
	}
	if err != nil {
		return "", fmt.Errorf("status endpoint: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(n.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("HEAD /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /show", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, n.Describe()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	n.mu.Lock()
	n.statusAt = ln.Addr().String()
	n.mu.Unlock()
	serve(ctx, ln, mux)
	return ln.Addr().String(), nil
}

func serve(ctx context.Context, ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, admin.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, admin.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, admin.ErrExists):
		status = http.StatusConflict
	}
	writeJSON(w, status, admin.Error{Message: err.Error()})
}

// answer writes a result or an error.
func answer[T any](w http.ResponseWriter, v T, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// post handles a request with a JSON body.
func post[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
		if err == nil && len(b) > 0 {
			err = json.Unmarshal(b, &in)
		}
		if err != nil {
			writeError(w, fmt.Errorf("%w: request body: %w", admin.ErrInvalid, err))
			return
		}
		out, err := f(r.Context(), in)
		answer(w, out, err)
	}
}

// remove handles the deletion of {name}.
func remove(f func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		answer(w, admin.Deleted{Name: name}, f(r.Context(), name))
	}
}

// list handles a listing.
func list[T any](f func(context.Context) T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, f(r.Context())) }
}

// find handles a request for {name} in a listing.
func find[T any](what string, all func() []T, name func(T) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		wanted := r.PathValue("name")
		for _, v := range all() {
			if name(v) == wanted {
				writeJSON(w, http.StatusOK, v)
				return
			}
		}
		writeError(w, fmt.Errorf("%w: no %s %q", admin.ErrNotFound, what, wanted))
	}
}

func (n *Node) adminHandler(stop func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathNode, list(func(context.Context) admin.Node { return n.Describe() }))
	mux.HandleFunc("POST "+admin.PathStop, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, admin.Deleted{Name: n.opts.Name})
		stop()
	})
	mux.HandleFunc("POST "+admin.PathOutlets, post(n.CreateOutlet))
	mux.HandleFunc("GET "+admin.PathOutlets, list(func(context.Context) []admin.Outlet { return n.Outlets() }))
	mux.HandleFunc("GET "+admin.PathOutlets+"/{name}", find("outlet", n.Outlets, func(o admin.Outlet) string { return string(o.Worker) }))
	mux.HandleFunc("DELETE "+admin.PathOutlets+"/{name}", remove(n.DeleteOutlet))
	mux.HandleFunc("POST "+admin.PathInlets, post(n.CreateInlet))
	mux.HandleFunc("GET "+admin.PathInlets, list(func(context.Context) []admin.Inlet { return n.Inlets() }))
	mux.HandleFunc("GET "+admin.PathInlets+"/{name}", find("inlet", n.Inlets, func(i admin.Inlet) string { return i.Alias }))
	mux.HandleFunc("DELETE "+admin.PathInlets+"/{name}", remove(n.DeleteInlet))
	mux.HandleFunc("POST "+admin.PathRelays, post(n.CreateRelay))
	mux.HandleFunc("GET "+admin.PathRelays, list(func(context.Context) []admin.Relay { return n.Relays() }))
	mux.HandleFunc("GET "+admin.PathRelays+"/{name}", find("relay", n.Relays, func(r admin.Relay) string { return r.Name }))
	mux.HandleFunc("DELETE "+admin.PathRelays+"/{name}", remove(n.DeleteRelay))
	mux.HandleFunc("POST "+admin.PathKafkaIn, post(n.CreateKafkaInlet))
	mux.HandleFunc("GET "+admin.PathKafkaIn, list(func(context.Context) []admin.Service { return n.KafkaInlets() }))
	mux.HandleFunc("GET "+admin.PathKafkaIn+"/{name}", find("Kafka inlet", n.KafkaInlets, func(s admin.Service) string { return s.Address }))
	mux.HandleFunc("DELETE "+admin.PathKafkaIn+"/{name}", remove(n.DeleteKafkaInlet))
	mux.HandleFunc("POST "+admin.PathKafkaOut, post(n.CreateKafkaOutlet))
	mux.HandleFunc("GET "+admin.PathKafkaOut, list(func(context.Context) []admin.Service { return n.KafkaOutlets() }))
	mux.HandleFunc("GET "+admin.PathKafkaOut+"/{name}", find("Kafka outlet", n.KafkaOutlets, func(s admin.Service) string { return s.Address }))
	mux.HandleFunc("DELETE "+admin.PathKafkaOut+"/{name}", remove(n.DeleteKafkaOutlet))
	mux.HandleFunc("POST "+admin.PathChannels, post(n.CreateChannel))
	mux.HandleFunc("GET "+admin.PathChannels, list(n.Channels))
	mux.HandleFunc("GET "+admin.PathChannels+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		c, err := n.Channel(r.Context(), r.PathValue("name"))
		answer(w, c, err)
	})
	mux.HandleFunc("DELETE "+admin.PathChannels+"/{name}", remove(n.DeleteChannel))
	mux.HandleFunc("POST "+admin.PathListeners, post(n.CreateListener))
	mux.HandleFunc("GET "+admin.PathListeners, list(func(context.Context) []admin.ChannelListener { return n.Listeners() }))
	mux.HandleFunc("GET "+admin.PathListeners+"/{name}", find("secure channel listener", n.Listeners, func(l admin.ChannelListener) string { return string(l.Address) }))
	mux.HandleFunc("DELETE "+admin.PathListeners+"/{name}", remove(n.DeleteListener))
	mux.HandleFunc("POST "+admin.PathMessages, post(n.SendMessage))
	mux.HandleFunc("POST "+admin.PathPolicies, post(func(ctx context.Context, r admin.PolicyRequest) (struct{}, error) {
		return struct{}{}, n.SetPolicy(ctx, r)
	}))
	mux.HandleFunc("GET "+admin.PathPolicies, list(func(context.Context) []admin.Policy { return n.Policies() }))
	mux.HandleFunc("GET "+admin.PathPolicies+"/{name}", find("policy of", n.Policies, func(p admin.Policy) string { return p.Resource }))
	mux.HandleFunc("DELETE "+admin.PathPolicies+"/{name}", remove(n.DeletePolicy))
	mux.HandleFunc("POST "+admin.PathTCPListener, post(n.CreateTCPListener))
	mux.HandleFunc("GET "+admin.PathTCPListener, list(func(context.Context) []admin.Transport { return n.TCPListeners() }))
	mux.HandleFunc("DELETE "+admin.PathTCPListener+"/{name}", remove(n.DeleteTCPListener))
	mux.HandleFunc("POST "+admin.PathTCPConns, post(n.CreateTCPConnection))
	mux.HandleFunc("GET "+admin.PathTCPConns, list(func(context.Context) []admin.Transport { return n.TCPConnections() }))
	mux.HandleFunc("DELETE "+admin.PathTCPConns+"/{name}", remove(n.DeleteTCPConnection))
	mux.HandleFunc("POST "+admin.PathServices+"/hop", post(n.StartHop))
	mux.HandleFunc("POST "+admin.PathServices+"/"+CertificateService, post(n.StartCertificateProvider))
	mux.HandleFunc("GET "+admin.PathServices, list(func(context.Context) []admin.Service { return n.Services() }))
	mux.HandleFunc("GET "+admin.PathWorkers, func(w http.ResponseWriter, r *http.Request) {
		workers, err := n.Workers(r.Context())
		answer(w, workers, err)
	})
	mux.HandleFunc("POST "+admin.PathConsumers, post(func(ctx context.Context, r admin.ConsumerRequest) (struct{}, error) {
		return struct{}{}, n.AddConsumer(ctx, r)
	}))
	return mux
}

// Describe says what the node has.
func (n *Node) Describe() admin.Node {
	host := "/dnsaddr/localhost/tcp/" + portOf(n.Listening())
	d := admin.Node{
		Name: n.opts.Name, IdentityName: n.opts.IdentityName, Status: "running", PID: os.Getpid(),
		Route:      admin.NodeRoute{Short: "/node/" + n.opts.Name, Verbose: &host},
		Transports: slices.Concat(n.TCPListeners(), n.udpTransports(), n.TCPConnections()), Listeners: n.Listeners(),
		Inlets: n.Inlets(), Outlets: n.Outlets(), Services: n.Services(),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.statusAt != "" {
		at := n.statusAt
		d.StatusEndpoint = &at
	}
	return d
}

func portOf(hostport string) string {
	_, port, _ := net.SplitHostPort(hostport)
	return port
}
