package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"sallyport/internal/await"
	"sallyport/internal/testproject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var within = await.Context

func newProject(t *testing.T) *testproject.Project {
	t.Helper()
	p, err := testproject.Start(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// join opens a member whose identity is in memory.
func join(t *testing.T, p *testproject.Project, attributes map[string]string) *Client {
	t.Helper()
	ticket, err := p.Ticket(within(t), attributes, 1)
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, Options{InMemory: true, Ticket: ticket})
}

func opened(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Open(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var server = map[string]string{"ockam-relay": "*"}

func listen(t *testing.T, c *Client, name string, o ListenOptions) *Listener {
	t.Helper()
	l, err := c.ListenWith(within(t), name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accepted(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialled(t *testing.T, c *Client, name string) net.Conn {
	t.Helper()
	conn, err := c.Dial(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestConn: what a net.Conn has to be, over a relay.
func TestConn(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, err = from.Dial(within(t), "api")
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = l.Accept()
		return c1, c2, func() { c1.Close(); c2.Close() }, err
	})
}

func TestHTTP(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, map[string]string{"role": "reader"}), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	type key struct{}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			peer, _ := PeerOf(c)
			return context.WithValue(ctx, key{}, peer)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer := r.Context().Value(key{}).(Peer)
			io.WriteString(w, peer.Attributes["role"]+" "+peer.Identifier)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	transport := &http.Transport{DialContext: from.DialContext}
	res, err := (&http.Client{Transport: transport}).Get("http://api:80/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if want := "reader " + from.Identifier(); string(body) != want {
		t.Errorf("%q, want %q", body, want)
	}
	transport.CloseIdleConnections()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
}

// TestHalfClose: the answer comes after the whole question.
func TestHalfClose(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "sum/upper", ListenOptions{})
	c := dialled(t, from, "sum/upper")
	s := accepted(t, l)
	question := bytes.Repeat([]byte("question "), 100_000)
	go func() {
		all, _ := io.ReadAll(s)
		s.Write(bytes.ToUpper(all))
		s.Close()
	}()
	if _, err := c.Write(question); err != nil {
		t.Fatal(err)
	}
	if err := c.(*Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, bytes.ToUpper(question)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestPeers(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, map[string]string{"role": "writer"}), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{Allow: `(= subject.role "writer")`})
	c := dialled(t, from, "api").(*Conn)
	s := accepted(t, l).(*Conn)
	if got := c.Peer(); got.Identifier != to.Identifier() || got.Attributes["ockam-relay"] != "*" {
		t.Errorf("%+v", got)
	}
	if got := s.Peer(); got.Identifier != from.Identifier() || got.Attributes["role"] != "writer" {
		t.Errorf("%+v", got)
	}
	if c.RemoteAddr().String() != "api@"+to.Identifier() || s.LocalAddr().String() != "api@"+to.Identifier() || s.RemoteAddr().String() != from.Identifier() {
		t.Error(c.RemoteAddr(), s.LocalAddr(), s.RemoteAddr())
	}
}

// TestRefusals: who may not, and what is not there, is an error that a program can tell.
func TestRefusals(t *testing.T) {
	p := newProject(t)
	reader, writer, to := join(t, p, map[string]string{"role": "reader"}), join(t, p, map[string]string{"role": "writer"}), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{Allow: `(= subject.role "writer")`})
	if _, err := reader.Dial(within(t), "api"); !errors.Is(err, ErrDenied) {
		t.Errorf("not a writer: %v", err)
	}
	if _, err := writer.Dial(within(t), "api/other"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no such outlet: %v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := writer.Dial(short, "nobody"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no such relay: %v", err)
	}
	for _, name := range []string{"", "a/b/c", "a b", "/nonsense"} {
		if _, err := writer.Dial(within(t), name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := to.Listen(within(t), "other"); !errors.Is(err, ErrExists) {
		t.Errorf("the default outlet twice: %v", err)
	}
	if _, err := reader.Listen(within(t), "api"); !errors.Is(err, ErrDenied) {
		t.Errorf("a name without the attribute: %v", err)
	}
	dialled(t, writer, "api").Close()
	accepted(t, l).Close()
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	writer.Close()
	if _, err := writer.Dial(within(t), "api"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestBrokenOff: a node that ends in the middle is no end of a stream for the other.
func TestBrokenOff(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	c := dialled(t, from, "api")
	s := accepted(t, l)
	if _, err := s.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	if _, err := io.ReadFull(c, half); err != nil {
		t.Fatal(err)
	}
	to.Close()
	if n, err := c.Read(half); n != 0 || !errors.Is(err, ErrBroken) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.Read(half); n != 0 || !errors.Is(err, ErrBroken) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestRevoked(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	c := dialled(t, from, "api")
	accepted(t, l)
	if err := p.Remove(within(t), from.Identifier()); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrDenied) && !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
}

func TestMessages(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, map[string]string{"role": "sensor"}), join(t, p, server)
	total := 0
	w, err := to.Worker(within(t), "readings/sum", WorkerOptions{Allow: `(= subject.role "sensor")`}, func(_ context.Context, m *Message) {
		total += len(m.Payload)
		if m.Peer.Identifier != from.Identifier() || m.Peer.Attributes["role"] != "sensor" {
			t.Errorf("%+v", m.Peer)
		}
		m.Answer([]byte{byte(total)})
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := from.Route(within(t), "readings/sum")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m, err := r.Request(within(t), []byte("abc"))
		if err != nil || m.Payload[0] != byte(3*(i+1)) || m.Peer.Identifier != to.Identifier() {
			t.Fatal(m, err)
		}
	}
	if err := r.Send(make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := r.Send([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Receive(within(t)); err != nil || m.Payload[0] != 18 {
		t.Fatal(m, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if total != 18 {
		t.Error(total)
	}
	r.Close()
	<-r.Done()
	if err := r.Send(nil); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
}

// TestDirectory: a directory is enrolled once, and what it has is there at the next start, without a ticket too.
func TestDirectory(t *testing.T) {
	p := newProject(t)
	ticket, err := p.Ticket(within(t), server, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var who string
	for i, o := range []Options{{Ticket: ticket}, {Ticket: ticket}, {}} {
		o.Directory = dir
		c, err := Open(within(t), o)
		if err != nil {
			t.Fatal(i, err)
		}
		if who == "" {
			who = c.Identifier()
		}
		l, err := c.Listen(within(t), "api")
		if err != nil {
			t.Fatal(i, err)
		}
		l.Close()
		if err := c.Close(); err != nil || c.Identifier() != who {
			t.Error(i, err, c.Identifier())
		}
	}
	if _, err := Open(within(t), Options{InMemory: true, Ticket: ticket}); !errors.Is(err, ErrTicket) {
		t.Errorf("a ticket that was used up: %v", err)
	}
	if _, err := Open(within(t), Options{InMemory: true, Ticket: "no ticket"}); !errors.Is(err, ErrTicket) {
		t.Error(err)
	}
	if _, err := Open(within(t), Options{Directory: t.TempDir()}); !errors.Is(err, ErrNotMember) {
		t.Error(err)
	}
}

// TestWithoutProject: two programs that know each other's identifier need nobody else.
func TestWithoutProject(t *testing.T) {
	to := opened(t, Options{InMemory: true, NoProject: true, ListenAddress: "127.0.0.1:0"})
	from := opened(t, Options{InMemory: true, NoProject: true})
	l := listen(t, to, "web", ListenOptions{Allow: `(= subject.identifier "` + from.Identifier() + `")`})
	_, port, _ := net.SplitHostPort(to.ListenAddress())
	d, err := from.Dialer(within(t), "/ip4/127.0.0.1/tcp/"+port+"/secure/api/service/web", DialOptions{Identifier: to.Identifier()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := PeerOf(accepted(t, l)); got.Identifier != from.Identifier() {
		t.Errorf("%+v", got)
	}
	c.Close()
	stranger := opened(t, Options{InMemory: true, NoProject: true})
	if _, err := stranger.Dial(within(t), "/ip4/127.0.0.1/tcp/"+port+"/secure/api/service/web"); !errors.Is(err, ErrDenied) {
		t.Errorf("a stranger: %v", err)
	}
}

// TestCloseEndsAll: what waits in a Client ends with it.
func TestCloseEndsAll(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	accepting := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepting <- err
	}()
	dialling := make(chan error, 1)
	go func() {
		_, err := from.Dial(context.Background(), "nobody")
		dialling <- err
	}()
	handling := make(chan struct{})
	if _, err := to.Worker(within(t), "api/worker", WorkerOptions{}, func(ctx context.Context, _ *Message) {
		close(handling)
		<-ctx.Done()
	}); err != nil {
		t.Fatal(err)
	}
	r, err := from.Route(within(t), "api/worker")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(nil); err != nil {
		t.Fatal(err)
	}
	<-handling
	to.Close()
	from.Close()
	if err := <-accepting; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := <-dialling; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	<-r.Done()
}
