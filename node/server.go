package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/node/page"
	"sallyport/node/resource"
)

// ServeAdmin answers the administration interface on a Unix socket at path until ctx ends. Only the owner may open it.
// stop is called when a client asks the node to stop.
func (n *Node) ServeAdmin(ctx context.Context, path string, stop func()) error {
	ln, err := n.listenAdmin(path)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	n.upgrades.serves(ln)
	serve(ctx, ln, n.adminHandler(stop))
	return nil
}

func (n *Node) listenAdmin(path string) (net.Listener, error) {
	if fd, ok := n.group.Inherited.Take("unix", path); ok {
		return dataplane.FileListener(fd, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// serveReady answers 200 when every resource serves and the authority is not late, else 503 with what is not so, one on a line.
// Who does not show the token hears only that something is not.
func (n *Node) serveReady(w http.ResponseWriter, r *http.Request) {
	var waiting strings.Builder
	for _, r := range n.set.Resources() {
		if r.State == resource.Opening || r.State == resource.Down {
			fmt.Fprintf(&waiting, "%s %s: %s: %s\n", r.Kind, r.Name, r.State, r.Reason)
		}
	}
	if s := n.AuthorityState(); s.Late {
		fmt.Fprintf(&waiting, "authority: out of reach for %v, longer than %v\n", s.Silence.Round(time.Second), s.Grace)
	}
	if waiting.Len() > 0 {
		if !n.opts.StatusToken.Shown(r) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		http.Error(w, strings.TrimSuffix(waiting.String(), "\n"), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// ServeStatus answers GET /show, GET /healthz, GET /readyz, HEAD / and GET /metrics until ctx ends, serves a page at /, and returns the address. When
// the address is taken and fallback is set, a free port of the loopback address is used (docs/protocol/03 §6.3).
func (n *Node) ServeStatus(ctx context.Context, at string, fallback bool) (string, error) {
	ln, err := n.group.Inherited.Listen("tcp", at)
	if err != nil && fallback {
		ln, err = net.Listen("tcp", net.JoinHostPort(loopback.String(), "0"))
	}
	if err != nil {
		return "", fmt.Errorf("status endpoint: %w", err)
	}
	n.upgrades.serves(ln)
	mux := http.NewServeMux()
	mux.HandleFunc("HEAD /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", n.serveReady)
	mux.HandleFunc("GET /show", func(w http.ResponseWriter, _ *http.Request) { admin.Write(w, n.Describe()) })
	mux.Handle("GET /metrics", n.metricsHandler())
	page.Mount(mux, func(ctx context.Context) any { return n.view(ctx) }, func(context.Context) any { return n.history.view() })
	n.mu.Lock()
	n.statusAt = ln.Addr().String()
	n.mu.Unlock()
	go n.history.run(ctx, n.portals.Meters)
	serve(ctx, ln, page.Guard(ln.Addr(), n.opts.StatusToken, mux))
	return ln.Addr().String(), nil
}

// answerFirst handles a request after whose answer the program ends, or is replaced: who asked would hear nothing else. f returns what is done then, nil for nothing.
func answerFirst[In, Out any](f func(context.Context, In) (Out, func(), error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var begin func()
		answer := &wholeAnswer{ResponseWriter: w}
		admin.Handle(func(ctx context.Context, q In) (out Out, err error) {
			out, begin, err = f(ctx, q)
			return out, err
		})(answer, r)
		answer.send()
		if begin != nil {
			begin()
		}
	}
}

// wholeAnswer keeps an answer until it is sent as a whole, with its length.
type wholeAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *wholeAnswer) WriteHeader(status int)      { a.status = status }
func (a *wholeAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

func (a *wholeAnswer) send() {
	a.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	a.ResponseWriter.WriteHeader(a.status)
	_, _ = a.ResponseWriter.Write(a.body.Bytes())
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

func serve(ctx context.Context, ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
}

// remove handles the deletion of {name}.
func remove(f func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		admin.Answer(w, admin.Deleted{Name: name}, f(r.Context(), name))
	}
}

// list handles a listing.
func list[T any](f func(context.Context) T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { admin.Write(w, f(r.Context())) }
}

// show handles a request for {name}.
func show[T any](f func(context.Context, string) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r.Context(), r.PathValue("name"))
		admin.Answer(w, v, err)
	}
}

func (n *Node) adminHandler(stop func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathNode, list(func(context.Context) admin.Node { return n.Describe() }))
	mux.HandleFunc("POST "+admin.PathStop, answerFirst(func(_ context.Context, r admin.StopRequest) (admin.Deleted, func(), error) {
		drain, err := drainTime(r.Drain, 0)
		if err != nil {
			return admin.Deleted{}, nil, err
		}
		return admin.Deleted{Name: n.opts.Name}, func() {
			go func() {
				n.leave(drain)
				stop()
			}()
		}, nil
	}))
	mux.HandleFunc("GET "+admin.PathStore, n.serveStore)
	mux.HandleFunc("POST "+admin.PathKeys, func(w http.ResponseWriter, _ *http.Request) {
		n.rereadKeys()
		admin.Write(w, struct{}{})
	})
	mux.HandleFunc("POST "+admin.PathUpgrade, answerFirst(n.Upgrade))
	mux.HandleFunc("GET "+admin.PathUpgrade, func(w http.ResponseWriter, _ *http.Request) {
		u, err := n.LastUpgrade()
		admin.Answer(w, u, err)
	})
	mux.HandleFunc("POST "+admin.PathProbing, admin.Handle(n.Probe))
	mux.HandleFunc("GET "+admin.PathCounts, list(n.Stats))
	mux.HandleFunc("GET "+admin.PathHappened, list(func(context.Context) []admin.Event { return n.Events() }))
	n.set.Mount(mux)
	mux.HandleFunc("POST "+admin.PathApply, admin.Handle(n.Apply))
	n.mountPolicies(mux)
	n.mountFleet(mux)
	mux.HandleFunc("GET "+admin.PathRelayNames, list(func(context.Context) []admin.RelayName { return n.relayNames() }))
	mux.HandleFunc("POST "+admin.PathInlets+"/{name}/accept", func(w http.ResponseWriter, r *http.Request) {
		accepted, err := n.AcceptOutlet(r.Context(), r.PathValue("name"))
		admin.Answer(w, accepted, err)
	})
	mux.HandleFunc("POST "+admin.PathUDPInlets+"/{name}/accept", func(w http.ResponseWriter, r *http.Request) {
		accepted, err := n.AcceptOutlet(r.Context(), udpPins+r.PathValue("name"))
		admin.Answer(w, accepted, err)
	})
	mux.HandleFunc("POST "+admin.PathListeners, admin.Handle(n.CreateListener))
	mux.HandleFunc("GET "+admin.PathListeners, list(func(context.Context) []admin.ChannelListener { return n.Listeners() }))
	mux.HandleFunc("GET "+admin.PathListeners+"/{name}", show(n.Listener))
	mux.HandleFunc("DELETE "+admin.PathListeners+"/{name}", remove(n.DeleteListener))
	mux.HandleFunc("POST "+admin.PathTCPListener, admin.Handle(n.CreateTCPListener))
	mux.HandleFunc("GET "+admin.PathTCPListener, list(func(context.Context) []admin.Transport { return n.TCPListeners() }))
	mux.HandleFunc("DELETE "+admin.PathTCPListener+"/{name}", remove(n.DeleteTCPListener))
	mux.HandleFunc("POST "+admin.PathChannels, admin.Handle(n.CreateChannel))
	mux.HandleFunc("GET "+admin.PathChannels, list(n.Channels))
	mux.HandleFunc("GET "+admin.PathChannels+"/{name}", show(n.Channel))
	mux.HandleFunc("DELETE "+admin.PathChannels+"/{name}", remove(n.DeleteChannel))
	mux.HandleFunc("POST "+admin.PathMessages, admin.Handle(n.SendMessage))
	mux.HandleFunc("POST "+admin.PathTCPConns, admin.Handle(n.CreateTCPConnection))
	mux.HandleFunc("GET "+admin.PathTCPConns, list(func(context.Context) []admin.Transport { return n.TCPConnections() }))
	mux.HandleFunc("DELETE "+admin.PathTCPConns+"/{name}", remove(n.DeleteTCPConnection))
	mux.HandleFunc("GET "+admin.PathServices, list(func(context.Context) []admin.Service { return n.Services() }))
	mux.HandleFunc("GET "+admin.PathWorkers, func(w http.ResponseWriter, r *http.Request) {
		workers, err := n.Workers(r.Context())
		admin.Answer(w, workers, err)
	})
	mux.HandleFunc("POST "+admin.PathConsumers, admin.Handle(func(ctx context.Context, r admin.ConsumerRequest) (struct{}, error) {
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
		Inlets: n.Inlets(), Outlets: n.Outlets(), UDPInlets: n.UDPInlets(), UDPOutlets: n.UDPOutlets(), Services: n.Services(), Keys: n.keys(),
	}
	if n.revoked != nil {
		s := n.AuthorityState()
		d.Authority = &admin.Authority{
			Identifier: n.opts.Trust.Authority.String(), State: s.State, Silence: s.Silence.Seconds(), Grace: s.Grace.Seconds(), Late: s.Late, Revoked: s.Revoked,
		}
		if !s.Heard.IsZero() {
			heard := s.Heard.UTC()
			d.Authority.Heard = &heard
		}
	}
	if a := n.opts.Authority; a != nil && a.Store != nil {
		s := a.Store.describe()
		d.Store = &s
	}
	d.Registry = n.registry()
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

// Apply makes the node have what a configuration describes; see table.Set.Apply.
func (n *Node) Apply(ctx context.Context, r admin.ApplyRequest) (admin.Applied, error) {
	a, err := n.set.Apply(ctx, r)
	if err == nil && len(a.Faults) == 0 && !r.Check && r.LogLevel != "" && n.opts.LogLevel != nil {
		var level slog.Level
		if level.UnmarshalText([]byte(r.LogLevel)) == nil {
			n.opts.LogLevel.Set(level)
		}
	}
	return a, err
}
