package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/freeport"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/bare"
)

// administered serves a node's administration interface on a socket of its own. stopped is closed when a client asked the node to stop.
func administered(t *testing.T, n *Node) (c *admin.Client, stopped chan struct{}) {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path, ctx := filepath.Join(dir, "a.sock"), within(t)
	stopped = make(chan struct{})
	if err := os.WriteFile(path, nil, 0o600); err != nil { // as a node that was killed leaves it
		t.Fatal(err)
	}
	if err := n.ServeAdmin(ctx, path, func() { close(stopped) }); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may open the socket", info.Mode(), err)
	}
	return admin.NewClient(path), stopped
}

// statusOf is the HTTP status of an answer; 0 is success.
func statusOf(err error) int {
	if refused := (*admin.StatusError)(nil); errors.As(err, &refused) {
		return refused.Status
	}
	if err != nil {
		return -1
	}
	return 0
}

// text is the payload of a message to the uppercase service.
func text(s string) []byte { return bare.AppendString(nil, s) }

// TestAdminSocketThatCannotBe: a node says so when its administration socket cannot be made.
func TestAdminSocketThatCannotBe(t *testing.T) {
	m := newMember(t)
	dir := t.TempDir()
	for name, path := range map[string]string{"no directory": filepath.Join(dir, "no", "a.sock"), "a directory": dir} {
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.ServeAdmin(within(t), path, func() {}); err == nil || !strings.Contains(err.Error(), "admin socket") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChannelsByRequest: a channel is opened to whom it is meant for, is listed and shown, carries messages, and is gone when it is deleted; what
// is wrong in a request is told apart from what cannot be reached.
func TestChannelsByRequest(t *testing.T) {
	there, here := newMember(t), newMember(t)
	c, _ := administered(t, here.Node)
	ctx := within(t)
	open := func(r admin.ChannelRequest) (admin.Channel, error) {
		r.TimeoutMS = 20_000
		return admin.Post[admin.Channel](ctx, c, admin.PathChannels, r)
	}
	for name, r := range map[string]admin.ChannelRequest{
		"no multiaddress":     {To: "nonsense"},
		"an empty route":      {To: ""},
		"no listener at last": {To: there.route()},
		"no such identity":    {To: there.route() + "/service/api", Identity: "nobody"},
		"no identifier":       {To: there.route() + "/service/api", Authorized: []string{"x"}},
		"no hex":              {To: there.route() + "/service/api", Credential: "xyz"},
	} {
		if _, err := open(r); statusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := open(admin.ChannelRequest{To: there.route() + "/service/api", Authorized: []string{here.self.String()}}); err == nil {
		t.Error("a channel to somebody else than was authorized")
	}
	if _, err := admin.Post[admin.Channel](ctx, c, admin.PathChannels, admin.ChannelRequest{To: there.route() + "/service/nobody", TimeoutMS: 50}); err == nil {
		t.Error("a channel to nobody")
	}
	if list, err := admin.Get[[]admin.Channel](ctx, c, admin.PathChannels); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	settles(t, "what was opened on the way is closed", func() bool { return len(here.TCPConnections()) == 0 })
	here.mu.Lock()
	left := len(here.dialed)
	here.mu.Unlock()
	if left != 0 {
		t.Errorf("%d channels are kept that were never opened", left)
	}

	for _, to := range []string{"/service/api", "/secure/api"} {
		ch, err := open(admin.ChannelRequest{To: there.route() + to, Authorized: []string{here.self.String(), there.self.String()}, Credential: "00"})
		if err != nil {
			t.Fatal(err)
		}
		history, err := there.ids.History(ctx, there.self)
		if err != nil {
			t.Fatal(err)
		}
		if ch.Their != there.self.String() || !slices.Equal(ch.Authorized, []string{here.self.String(), there.self.String()}) || ch.Flow == "" ||
			ch.TheirHistory == nil || *ch.TheirHistory != identityHex(t, history) || !strings.HasSuffix(ch.Route, "/service/api") && !strings.HasPrefix(ch.Route, "/service/") {
			t.Errorf("%+v", ch)
		}
		list, err := admin.Get[[]admin.Channel](ctx, c, admin.PathChannels)
		if err != nil || len(list) != 1 || list[0].Address != ch.Address || list[0].Route != ch.Route {
			t.Errorf("listed: %+v, %v, not %+v", list, err, ch)
		}
		worker := strings.TrimPrefix(ch.Address, "/service/")
		if one, err := admin.Get[admin.Channel](ctx, c, admin.Item(admin.PathChannels, worker)); err != nil || one.Address != ch.Address {
			t.Errorf("shown: %+v, %v", one, err)
		}
		// The other side did not open it: it does not list it.
		if list := there.Channels(ctx); len(list) != 0 {
			t.Errorf("listed by who accepted it: %+v", list)
		}
		reply, err := admin.Post[admin.MessageReply](ctx, c, admin.PathMessages, admin.MessageRequest{To: ch.Address + "/service/uppercase", Payload: text("hello")})
		if err != nil || !bytes.Equal(reply.Payload, text("HELLO")) {
			t.Errorf("%q, %v", reply.Payload, err)
		}
		if err := c.Delete(ctx, admin.PathChannels, worker); err != nil {
			t.Error(err)
		}
		until(t, "the channel is gone", func() bool {
			here.mu.Lock()
			defer here.mu.Unlock()
			return len(here.dialed) == 0 && here.channels.Find(worker) == nil
		})
		settles(t, "and what it ran over", func() bool { return len(here.TCPConnections()) == 0 })
		if _, err := admin.Get[admin.Channel](ctx, c, admin.Item(admin.PathChannels, worker)); statusOf(err) != http.StatusNotFound {
			t.Errorf("shown after it was deleted: %v", err)
		}
		if err := c.Delete(ctx, admin.PathChannels, worker); statusOf(err) != http.StatusNotFound {
			t.Errorf("deleted twice: %v", err)
		}
	}
}

// identityHex is a history as it is shown.
func identityHex(t *testing.T, raw []byte) string {
	t.Helper()
	i, err := identity.Import(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i.Hex()
}

// TestMessagesByRequest: what is sent along a route is answered, or its sender is told what was wrong.
func TestMessagesByRequest(t *testing.T) {
	there, here := newMember(t), newMember(t)
	c, _ := administered(t, here.Node)
	ctx := within(t)
	send := func(r admin.MessageRequest) (admin.MessageReply, error) {
		return admin.Post[admin.MessageReply](ctx, c, admin.PathMessages, r)
	}
	for _, to := range []string{there.route() + "/secure/api/service/uppercase", there.route() + "/service/uppercase", "/service/uppercase"} {
		if reply, err := send(admin.MessageRequest{To: to, Payload: text("a")}); err != nil || !bytes.Equal(reply.Payload, text("A")) {
			t.Errorf("%s: %q, %v", to, reply.Payload, err)
		}
	}
	for name, r := range map[string]admin.MessageRequest{
		"no multiaddress": {To: "nonsense"}, "no such identity": {To: "/service/echo", Identity: "nobody"},
	} {
		if _, err := send(r); statusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := send(admin.MessageRequest{To: there.route() + "/service/nobody", TimeoutMS: 50}); err == nil || !strings.Contains(err.Error(), "no answer from") {
		t.Errorf("nobody: %v", err)
	}
	if _, err := send(admin.MessageRequest{To: "/ip4/127.0.0.1/tcp/1/service/echo", TimeoutMS: 5000}); err == nil {
		t.Error("a node that is not there answers")
	}
	if got := len(here.TCPConnections()); got != 0 {
		settles(t, "connections of messages are closed", func() bool { return len(here.TCPConnections()) == 0 })
	}
}

// TestListenersByRequest: a secure channel listener accepts whom it authorizes, as the identity it is given, until it is deleted.
func TestListenersByRequest(t *testing.T) {
	there, here, other := newMember(t), newMember(t), newMember(t)
	c, _ := administered(t, there.Node)
	ctx := within(t)
	create := func(r resource.Listener) (admin.ChannelListener, error) {
		return admin.Post[admin.ChannelListener](ctx, c, admin.PathListeners, r)
	}
	for name, e := range map[string]struct {
		r    resource.Listener
		want int
	}{
		"no address":       {resource.Listener{}, http.StatusBadRequest},
		"no identifier":    {resource.Listener{Address: "front", Authorized: []string{"x"}}, http.StatusBadRequest},
		"no such identity": {resource.Listener{Address: "front", Identity: "nobody"}, http.StatusBadRequest},
		"taken":            {resource.Listener{Address: routing.EchoService}, http.StatusConflict},
	} {
		if _, err := create(e.r); statusOf(err) != e.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	made, err := create(resource.Listener{Address: "front", Authorized: []string{here.self.String()}})
	if err != nil || made.Address != "front" || made.Flow == "" || made.State == nil {
		t.Fatalf("%+v, %v", made, err)
	}
	names := func() string {
		list, err := admin.Get[[]admin.ChannelListener](ctx, c, admin.PathListeners)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, l := range list {
			out += string(l.Address)
			if l.State != nil {
				out += "*"
			}
			if l.KeyExchangeOnly {
				out += "k"
			}
			out += " "
		}
		return out
	}
	if got := names(); got != "api front* " {
		t.Errorf("listed: %s", got)
	}
	if one, err := admin.Get[admin.ChannelListener](ctx, c, admin.Item(admin.PathListeners, "front")); err != nil || one.Address != "front" {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := admin.Get[admin.ChannelListener](ctx, c, admin.Item(admin.PathListeners, "back")); statusOf(err) != http.StatusNotFound {
		t.Errorf("one that is not there: %v", err)
	}
	asks := func(m *member, to string) error {
		r, err := m.SendMessage(ctx, admin.MessageRequest{To: to, Payload: text("a"), TimeoutMS: 3000})
		if err == nil && !bytes.Equal(r.Payload, text("A")) {
			t.Errorf("%q", r.Payload)
		}
		return err
	}
	if err := asks(here, there.route()+"/secure/front/service/uppercase"); err != nil {
		t.Errorf("whom it authorizes: %v", err)
	}
	if err := asks(other, there.route()+"/secure/front/service/uppercase"); err == nil {
		t.Error("whom it does not authorize is served")
	}
	for _, name := range []string{"front", "api"} { // one that was asked for, and one that every node has
		if err := c.Delete(ctx, admin.PathListeners, name); err != nil {
			t.Error(err)
		}
		if err := c.Delete(ctx, admin.PathListeners, name); statusOf(err) != http.StatusNotFound {
			t.Errorf("%s deleted twice: %v", name, err)
		}
	}
	if got := names(); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestTCPByRequest: connections and listeners are made, listed and deleted, by socket and by worker; the node's own listener stays.
func TestTCPByRequest(t *testing.T) {
	there, here := newMember(t), newMember(t)
	c, _ := administered(t, here.Node)
	ctx := within(t)
	connect := func() admin.Transport {
		conn, err := admin.Post[admin.Transport](ctx, c, admin.PathTCPConns, admin.TransportRequest{Address: there.Listening()})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	if _, err := admin.Post[admin.Transport](ctx, c, admin.PathTCPConns, admin.TransportRequest{Address: "127.0.0.1:1"}); err == nil {
		t.Error("connected to nobody")
	}
	for _, by := range []func(admin.Transport) string{
		func(conn admin.Transport) string { return conn.Socket },
		func(conn admin.Transport) string { return conn.Worker },
		func(conn admin.Transport) string { return strings.TrimPrefix(conn.Worker, "0#") },
	} {
		conn := connect()
		if conn.Type != "Tcp" || conn.Mode != "Outgoing" || conn.Socket != there.Listening() || conn.Flow == "" {
			t.Errorf("%+v", conn)
		}
		list, err := admin.Get[[]admin.Transport](ctx, c, admin.PathTCPConns)
		if err != nil || len(list) != 1 || list[0] != conn {
			t.Errorf("listed: %+v, %v", list, err)
		}
		settles(t, "the other side has it", func() bool { return len(there.TCPConnections()) == 1 })
		if in := there.TCPConnections(); in[0].Mode != "Incoming" {
			t.Errorf("%+v", in)
		}
		// What this node has is reachable through it: the other node asks it, as one whose connections cannot be accepted does.
		reply, err := there.SendMessage(ctx, admin.MessageRequest{To: "/worker/" + strings.TrimPrefix(there.TCPConnections()[0].Worker, "0#") + "/service/uppercase", Payload: text("b"), TimeoutMS: 5000})
		if err != nil || !bytes.Equal(reply.Payload, text("B")) {
			t.Errorf("asked back: %q, %v", reply.Payload, err)
		}
		if err := c.Delete(ctx, admin.PathTCPConns, by(conn)); err != nil {
			t.Error(err)
		}
		settles(t, "closed on both sides", func() bool { return len(here.TCPConnections()) == 0 && len(there.TCPConnections()) == 0 })
		if err := c.Delete(ctx, admin.PathTCPConns, by(conn)); statusOf(err) != http.StatusNotFound {
			t.Errorf("deleted twice: %v", err)
		}
	}

	listen := func(at string) (admin.Transport, error) {
		return admin.Post[admin.Transport](ctx, c, admin.PathTCPListener, resource.TCPListener{Address: at})
	}
	if _, err := listen("nonsense"); statusOf(err) != http.StatusBadRequest {
		t.Errorf("no address: %v", err)
	}
	if _, err := here.tcpListeners.Create(ctx, resource.TCPListener{Address: "nonsense"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("no address, of a configuration: %v", err)
	}
	for _, address := range []string{here.Listening(), here.main.Address} {
		if err := c.Delete(ctx, admin.PathTCPListener, address); statusOf(err) != http.StatusBadRequest {
			t.Errorf("the node's own listener is deleted: %v", err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := listen(taken.Addr().String()); err == nil {
		t.Error("listens on a port that is taken")
	}
	for name, at := range map[string]string{"chosen": "127.0.0.1:0", "given": "127.0.0.1:" + freeport.For(t)} {
		l, err := listen(at)
		if err != nil || l.Mode != "Listen" || l.Worker != "<none>" || !strings.HasPrefix(l.Processor, "0#") || portOf(l.Socket) == "0" {
			t.Fatalf("%s: %+v, %v", name, l, err)
		}
		list, err := admin.Get[[]admin.Transport](ctx, c, admin.PathTCPListener)
		if err != nil || len(list) != 2 {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
		for _, one := range list {
			if own := one.Socket == here.Listening(); own != (one.State == nil) || one.Processor == "<none>" {
				t.Errorf("%s: %+v", name, one)
			}
		}
		// Reachable is what was named, and nothing else.
		if _, err := there.SendMessage(ctx, admin.MessageRequest{To: "/ip4/127.0.0.1/tcp/" + portOf(l.Socket) + "/service/uppercase", Payload: text("b"), TimeoutMS: 100}); err == nil {
			t.Error("answered through a listener through which nothing can be reached")
		}
		if _, err := admin.Post[struct{}](ctx, c, admin.PathConsumers, admin.ConsumerRequest{Flow: l.Flow, Address: routing.UppercaseService}); err != nil {
			t.Error(err)
		}
		if _, err := there.SendMessage(ctx, admin.MessageRequest{To: "/ip4/127.0.0.1/tcp/" + portOf(l.Socket) + "/service/uppercase", Payload: text("b"), TimeoutMS: 5000}); err != nil {
			t.Error(err)
		}
		address := l.Socket
		if name == "given" {
			address = strings.TrimPrefix(l.Processor, "0#")
		}
		if err := c.Delete(ctx, admin.PathTCPListener, address); err != nil {
			t.Error(err)
		}
		if err := c.Delete(ctx, admin.PathTCPListener, address); statusOf(err) != http.StatusNotFound {
			t.Errorf("%s: deleted twice: %v", name, err)
		}
	}
	if _, err := admin.Post[struct{}](ctx, c, admin.PathConsumers, admin.ConsumerRequest{Flow: "none", Address: "echo"}); statusOf(err) != http.StatusNotFound {
		t.Errorf("a flow that is not there: %v", err)
	}
	if kept := here.tcpListeners.List(); len(kept) != 0 {
		t.Errorf("left: %+v", kept)
	}
}

// TestTCPListenerThatIsDown is in the list with the address that was asked for, and nothing behind it.
func TestTCPListenerThatIsDown(t *testing.T) {
	m := newMember(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m.restartWith(stored(t, resource.KindTCPListener, taken.Addr().String(), resource.TCPListener{Address: taken.Addr().String()}))
	list := slices.DeleteFunc(m.TCPListeners(), func(l admin.Transport) bool { return l.State == nil })
	if len(list) != 1 || list[0].Socket != taken.Addr().String() || list[0].Processor != "<none>" || list[0].State.State != resource.Down {
		t.Errorf("%+v", list)
	}
}

// TestWhatANodeSaysOfItself: services and workers, with those that were asked for; policies in effect, one by one; and that it stops.
func TestWhatANodeSaysOfItself(t *testing.T) {
	m := newMember(t)
	c, stopped := administered(t, m.Node)
	ctx := within(t)
	if _, err := admin.Post[admin.Service](ctx, c, admin.PathServices+"/hop", resource.Hop{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Post[admin.Service](ctx, c, admin.PathServices+"/hop", resource.Hop{}); statusOf(err) != http.StatusConflict {
		t.Errorf("a second hop of the name: %v", err)
	}
	types := map[string]string{}
	list, err := admin.Get[[]admin.Service](ctx, c, admin.PathServices)
	for _, s := range list {
		types[s.Address] = s.Type
		if own := s.Address != "hop"; own != (s.State == nil) {
			t.Errorf("%+v", s)
		}
	}
	if err != nil || len(types) != 3 || types["uppercase"] != "uppercase" || types["echo"] != "echo" || types["hop"] != "hop" {
		t.Errorf("%v, %v", types, err)
	}
	workers, err := admin.Get[[]string](ctx, c, admin.PathWorkers)
	if err != nil || !slices.Contains(workers, "hop") || !slices.Contains(workers, "api") {
		t.Errorf("%v, %v", workers, err)
	}

	const x = `(= subject.x "1")`
	if _, err := admin.Post[struct{}](ctx, c, admin.PathPolicies, resource.Policy{Resource: "db", Expression: x}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]resource.Policy{
		"both": {Resource: "db", ResourceType: "relay", Expression: x}, "neither": {Expression: x},
		"no such type": {ResourceType: "carrot", Expression: x}, "no policy": {Resource: "db", Expression: "("},
	} {
		if _, err := admin.Post[struct{}](ctx, c, admin.PathPolicies, r); statusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := admin.Get[[]admin.Policy](ctx, c, admin.PathPolicies); err != nil || len(all) < 2 || all[0].Resource != "db" || all[0].Expression != x || all[0].Action != "handle_message" {
		t.Errorf("%+v, %v", all, err)
	}
	if p, err := admin.Get[admin.Policy](ctx, c, admin.Item(admin.PathPolicies, "db")); err != nil || p.Expression != x {
		t.Errorf("%+v, %v", p, err)
	}
	if err := c.Delete(ctx, admin.PathPolicies, "db"); err != nil {
		t.Error(err)
	}
	if _, err := admin.Get[admin.Policy](ctx, c, admin.Item(admin.PathPolicies, "db")); statusOf(err) != http.StatusNotFound {
		t.Errorf("shown after it was deleted: %v", err)
	}
	// A type's name is the type, however it is given; its default comes back when it is deleted.
	if err := m.SetPolicy(ctx, resource.Policy{Resource: "tcp-outlet", Expression: x}); err != nil {
		t.Fatal(err)
	}
	if p, err := admin.Get[admin.Policy](ctx, c, admin.Item(admin.PathPolicies, "tcp-outlet")); err != nil || p.Expression != x {
		t.Errorf("%+v, %v", p, err)
	}
	if i, ok := m.policyTable.Get("tcp-outlet"); !ok || i.Request.Resource != "" || i.Request.ResourceType != "tcp-outlet" {
		t.Errorf("%+v", i.Request)
	}

	n, err := admin.Get[admin.Node](ctx, c, admin.PathNode)
	if err != nil || n.Name != "n" || n.Status != "running" || n.PID != os.Getpid() || n.Route.Short != "/node/n" || n.StatusEndpoint != nil || n.Authority != nil ||
		n.Route.Verbose == nil || *n.Route.Verbose != "/dnsaddr/localhost/tcp/"+portOf(m.Listening()) || len(n.Transports) != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	at, err := m.ServeStatus(ctx, "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	if d := m.Describe(); d.StatusEndpoint == nil || *d.StatusEndpoint != at {
		t.Errorf("%+v", d.StatusEndpoint)
	}
	// An address that is taken: another port where that is wanted, else a refusal.
	if _, err := m.ServeStatus(ctx, at, false); err == nil {
		t.Error("two status endpoints at one address")
	}
	if other, err := m.ServeStatus(ctx, at, true); err != nil || other == at || !strings.HasPrefix(other, "127.0.0.1:") {
		t.Errorf("%s, %v", other, err)
	}

	if _, err := admin.Get[admin.Upgrade](ctx, c, admin.PathUpgrade); statusOf(err) != http.StatusNotFound {
		t.Errorf("an upgrade that never was: %v", err)
	}
	if err := c.Do(ctx, http.MethodPost, admin.PathApply, "no object", nil); statusOf(err) != http.StatusBadRequest {
		t.Errorf("no configuration: %v", err)
	}
	if err := c.Do(ctx, http.MethodPost, admin.PathStop, admin.StopRequest{Drain: "soon"}, nil); statusOf(err) != http.StatusBadRequest {
		t.Errorf("no time: %v", err)
	}
	select {
	case <-stopped:
		t.Error("stopped by a request that was refused")
	default:
	}
	if d, err := admin.Post[admin.Deleted](ctx, c, admin.PathStop, admin.StopRequest{}); err != nil || d.Name != "n" {
		t.Errorf("%+v, %v", d, err)
	}
	<-stopped
}

// vaults is a Store that has named identities.
type vaults struct {
	forgetful
	named map[string]identity.Identifier
}

func (v vaults) Identity(_ context.Context, name string) (identity.Identifier, error) {
	if id, ok := v.named[name]; ok {
		return id, nil
	}
	return identity.Identifier{}, admin.ErrInvalid
}

// TestIdentityOfAnotherVault: a listener, a channel and a message of an identity whose keys are in another vault use that one; what cannot be opened
// is told.
func TestIdentityOfAnotherVault(t *testing.T) {
	ctx := within(t)
	store := identity.NewMemoryStore() // one for all vaults
	first, second := identity.New(identity.Options{Vault: vault.NewMemory(), Store: store}), identity.New(identity.Options{Vault: vault.NewMemory(), Store: store})
	self, err := first.Create(ctx, identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := second.Create(ctx, identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	locked := errors.New("the vault is locked")
	n, err := Start(ctx, Options{
		Name: "n", IdentityName: "own", Self: self.Identifier(), Identities: first, Listen: "127.0.0.1:0", Shards: 1, Log: testLog,
		Store: vaults{named: map[string]identity.Identifier{"other": other.Identifier(), "locked": numbered(3), "own": numbered(4)}},
		IdentitiesOf: func(_ context.Context, name string) (*identity.Manager, error) {
			if name == "locked" {
				return nil, locked
			}
			return second, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	peer := newMember(t)
	heard := func(r resource.Listener) {
		t.Helper()
		if _, err := peer.CreateListener(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	heard(resource.Listener{Address: "others", Authorized: []string{other.Identifier().String()}})
	heard(resource.Listener{Address: "own", Authorized: []string{self.Identifier().String()}})
	for listener, name := range map[string]string{"others": "other", "own": "own"} {
		if _, err := n.CreateChannel(ctx, admin.ChannelRequest{To: peer.route() + "/service/" + listener, Identity: name, TimeoutMS: 20_000}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.CreateChannel(ctx, admin.ChannelRequest{To: peer.route() + "/service/others", Identity: "locked"}); !errors.Is(err, locked) {
		t.Errorf("a locked vault: %v", err)
	}
	if _, err := n.CreateListener(ctx, resource.Listener{Address: "locked", Identity: "locked"}); !errors.Is(err, locked) {
		t.Errorf("a listener of a locked vault: %v", err)
	}
	if _, err := n.CreateListener(ctx, resource.Listener{Address: "l", Identity: "other"}); err != nil {
		t.Fatal(err)
	}
	ch, err := peer.CreateChannel(ctx, admin.ChannelRequest{To: "/ip4/127.0.0.1/tcp/" + portOf(n.Listening()) + "/service/l", TimeoutMS: 20_000})
	if err != nil || ch.Their != other.Identifier().String() {
		t.Errorf("the listener answers as %s, %v", ch.Their, err)
	}
}
