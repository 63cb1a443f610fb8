package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"sallyport/routing"
)

var (
	udpRelay = stageOptions{relay: []string{"--udp", "--udp-listener-address", "127.0.0.1:0"}}
	members  = stageOptions{project: true}
)

// relayRows are what strangers and members want of a relay that it must not do.
var relayRows = []row{
	{
		name: "members-only", number: 2, stage: members,
		attack:   "a stranger's handshakes and messages for forward_to_db, over bare TCP and through a channel of its own, at a relay with an authority",
		promised: "nothing reaches the bank, each is counted; what a member sends passes",
		run:      membersOnly,
	},
	{
		name: "empty-route", number: 12, attack: "registrations with no return route, with workers of the relay as their owner, and 2,000 names of one connection that ends",
		promised: "no name leads to a worker of the relay; names end with their connection",
		run:      emptyRoute,
	},
	{
		name: "udp", number: 13, stage: udpRelay, attack: "registrations and messages that lead a relay with --udp to an address that it never heard, 100,000 in all",
		promised: "not one datagram goes there",
		run:      unheard,
	},
	{
		name: "registers-again", number: 20, stage: members, attack: "a member that registers its name as fast as it goes, 5 s",
		promised: "the relay's log grows by at most 100 kB a second",
		run:      registersAgain,
	},
	{
		name: "late-registration", number: 21, pause: -1, alone: true,
		attack:   "a second node of the bank's identity registers the bank's name late, and is killed",
		promised: "the name goes back to the bank's first node, and clients are served within 15 s",
		run:      lateRegistration,
	},
	{
		name: "member-flood", stage: members, pause: 5 * time.Second,
		attack:   "a member that sends requests to services of the relay and the bank, pings to an outlet, and controls, as fast as they go, 5 s",
		promised: "the neighbour goes on, both nodes answer",
		run:      memberFlood,
	},
}

func membersOnly(ctx context.Context, s *stage) (string, error) {
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer v.close()
	dropped, err := s.metric("relay", "sallyport_messages_dropped_total", `"not_member"`)
	if err != nil {
		return "", err
	}
	conn, err := v.tcp.Connect(ctx, s.relay)
	if err != nil {
		return "", err
	}
	c, err := v.channel(ctx, s.relay)
	if err != nil {
		return "", fmt.Errorf("a stranger gets no channel with the relay itself: %w", err)
	}
	tries := 0
	for how, first := range map[string]routing.Route{"bare TCP": routing.RouteOf(conn.Sender), "a stranger's channel": routing.RouteOf(c.Encryptor)} {
		for _, hops := range [][]string{{"forward_to_db", "echo"}, {"forward_to_db", "uppercase"}, {"hop", "forward_to_db", "echo"}, {"forward_to_db", "api", "echo"}} {
			short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			reply, err := v.router.Request(short, first.Concat(routing.LocalRoute(hops...)), []byte("\x03abc"))
			cancel()
			if err == nil {
				return "", fmt.Errorf("an answer to %s over %s: %q", hops, how, reply.Payload)
			}
			if hops[0] != "hop" { // which strangers do not reach either
				tries++
			}
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		inner, err := v.channels.Dial(short, first.Concat(routing.LocalRoute("forward_to_db", "api")), v.options)
		cancel()
		if err == nil {
			return "", fmt.Errorf("a channel with the bank over %s: %s", how, inner.Identity.Identifier())
		}
		tries++
	}
	now, err := s.metric("relay", "sallyport_messages_dropped_total", `"not_member"`)
	if err != nil {
		return "", err
	}
	if now-dropped < float64(tries) {
		return "", fmt.Errorf("%.0f messages were counted as not a member's, of %d", now-dropped, tries)
	}
	// The same client, once it is a member.
	m, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer m.close()
	if _, err := m.enroll(ctx, s); err != nil {
		return "", err
	}
	if c, err = m.channel(ctx, s.relay); err != nil {
		return "", err
	}
	if err := s.await(ctx, "a member reaches the bank", func() error {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := m.channels.Dial(short, through(c, "forward_to_db", "api"), m.options)
		return err
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d tries refused and counted; a member passes", tries), nil
}

func emptyRoute(ctx context.Context, s *stage) (string, error) {
	names := func() (float64, error) { return s.metric("relay", "sallyport_relay_names") }
	before, err := names()
	if err != nil {
		return "", err
	}
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer c.Close()
	register := func(name string, back routing.Route) []byte {
		return message(routing.LocalRoute("forwarding_service"), back, append([]byte{byte(len(name))}, name...))
	}
	// A route that begins at the relay would stay there. What a connection brings has the connection in front of it, so these are all wrong.
	for i, back := range []routing.Route{routing.LocalRoute(), routing.LocalRoute(""), routing.NewRoute(routing.Address{Type: routing.TCP, Value: s.bank})} {
		if _, err := c.Write(register(fmt.Sprint("wrong", i), back)); err != nil {
			return "", err
		}
	}
	wrong := s.await(ctx, "the connection or the registrations have come to nothing", func() error {
		v, err := newVisitor(ctx)
		if err != nil {
			return err
		}
		defer v.close()
		conn, err := v.tcp.Connect(ctx, s.relay)
		if err != nil {
			return err
		}
		for i := range 3 {
			for _, worker := range []string{"echo", "uppercase", "forwarding_service"} {
				short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				reply, err := v.router.Request(short, routing.RouteOf(conn.Sender).Concat(routing.LocalRoute(fmt.Sprint("forward_to_wrong", i), worker)), []byte("\x03abc"))
				cancel()
				if _, notice := routing.ParseNotice(reply.Payload); err == nil && !notice {
					return fmt.Errorf("%s answers through a name of a stranger's", worker)
				}
			}
		}
		return nil
	})
	if wrong != nil {
		return "", wrong
	}
	// Names of a connection end with it.
	many, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer many.Close()
	var all []byte
	for i := range 2000 {
		all = append(all, register(fmt.Sprint("n", i), routing.LocalRoute("x"))...)
	}
	if _, err := many.Write(all); err != nil {
		return "", err
	}
	most := 0.0
	if err := s.await(ctx, "names are registered", func() error {
		now, err := names()
		if most = max(most, now); err == nil && most < before+2000 {
			err = fmt.Errorf("%.0f", most)
		}
		return err
	}); err != nil {
		return "", err
	}
	many.Close()
	c.Close()
	if err := s.await(ctx, "names end with their connection", func() error {
		now, err := names()
		if err == nil && now > before {
			err = fmt.Errorf("%.0f names, %.0f before", now, before)
		}
		return err
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("no name leads into the relay; %.0f names, then %.0f again", most, before), nil
}

func unheard(ctx context.Context, s *stage) (string, error) {
	victim, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	defer victim.Close()
	there := routing.Address{Type: routing.UDP, Value: victim.LocalAddr().String()}
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var batch []byte
	payload := make([]byte, 32) // the first message of a handshake
	batch = append(batch, message(routing.LocalRoute("forwarding_service"), routing.NewRoute(there, routing.LocalAddress("x")), []byte("\x06victim"))...)
	batch = append(batch, message(routing.LocalRoute("forward_to_victim"), routing.LocalRoute("y"), payload)...)
	batch = append(batch, message(routing.NewRoute(there, routing.LocalAddress("api")), routing.LocalRoute("y"), payload)...)
	batch = append(batch, message(routing.LocalRoute("api"), routing.NewRoute(there, routing.LocalAddress("z")), payload)...)
	batch = append(batch, message(routing.LocalRoute("echo"), routing.NewRoute(there, routing.LocalAddress("z")), payload)...)
	sent := 0
	for began := time.Now(); sent < 100_000 && time.Since(began) < 5*time.Second; sent += 5 {
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(batch); err != nil {
			return "", err
		}
	}
	_ = victim.SetReadDeadline(time.Now().Add(2 * time.Second))
	if n, from, err := victim.ReadFromUDP(make([]byte, 2048)); err == nil {
		return "", fmt.Errorf("a datagram of %d bytes came from %v", n, from)
	}
	// The victim is reached by those whom it has asked: the socket works.
	return fmt.Sprintf("%d messages, no datagram", sent), nil
}

func registersAgain(ctx context.Context, s *stage) (string, error) {
	m, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer m.close()
	if _, err := m.enroll(ctx, s, "--relay", "again"); err != nil {
		return "", err
	}
	c, err := m.channel(ctx, s.relay)
	if err != nil {
		return "", err
	}
	box, err := m.router.OpenMailbox(ctx, through(c, "forwarding_service"))
	if err != nil {
		return "", err
	}
	defer box.Close()
	before, began, sent := s.logSize("relay"), time.Now(), 0
	for time.Since(began) < 5*time.Second && ctx.Err() == nil {
		for range 50 {
			box.Send(through(c, "forwarding_service"), []byte("\x05again"))
			sent++
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, _ = box.Receive(short)
		cancel()
	}
	grown := s.logSize("relay") - before
	rate := float64(grown) / time.Since(began).Seconds()
	seen := fmt.Sprintf("%d registrations, %.0f kB logged a second", sent, rate/1000)
	if rate > 100_000 {
		return seen, fmt.Errorf("too much")
	}
	_, err = s.answers(ctx, "relay")
	return seen, err
}

func lateRegistration(ctx context.Context, s *stage) (string, error) {
	if err := s.newNode(ctx, "bank2"); err != nil {
		return "", err
	}
	if _, err := s.cli(ctx, "bank2", "tcp-outlet", "create", "--at", "bank2", "--to", s.target.addr(), "--from", "db"); err != nil {
		return "", err
	}
	if err := s.newRelayName(ctx, "bank2"); err != nil {
		return "", err
	}
	if err := s.await(ctx, "served while there are two", func() error { return once(s.inlet) }); err != nil {
		return "", err
	}
	if err := syscall.Kill(s.pid("bank2"), syscall.SIGKILL); err != nil {
		return "", err
	}
	began := time.Now()
	if err := s.await(ctx, "the first node has its name again", func() error { return once(s.inlet) }); err != nil {
		return "", err
	}
	took := time.Since(began)
	if took > 15*time.Second {
		return "", fmt.Errorf("%w: it took %v", errSlow, took)
	}
	// A new path goes there too, and the bank says that it has the name.
	at, err := s.newInlet(ctx, "shop", "db")
	if err != nil {
		return "", err
	}
	if err := s.await(ctx, "a new inlet", func() error { return once(at) }); err != nil {
		return "", err
	}
	shown, err := s.cli(ctx, "bank", "relay", "list", "--to", "bank", "--output", "json")
	if err != nil || !strings.Contains(strings.ToLower(shown), "up") {
		return "", fmt.Errorf("relay list: %s: %w", shown, err)
	}
	return fmt.Sprintf("served again after %v", took.Round(time.Millisecond)), nil
}

func memberFlood(ctx context.Context, s *stage) (string, error) {
	m, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer m.close()
	if _, err := m.enroll(ctx, s); err != nil {
		return "", err
	}
	c, err := m.channel(ctx, s.relay)
	if err != nil {
		return "", err
	}
	inner, err := m.channels.Dial(ctx, through(c, "forward_to_db", "api"), m.options)
	if err != nil {
		return "", err
	}
	routes := []routing.Route{
		through(c, "uppercase"), through(c, "echo"), through(c, "sallyport"), through(c, "forward_to_nobody"), through(c, "forward_to_db", "uppercase"),
		through(inner, "db"), through(inner, "sallyport"), through(inner, "nobody"), through(inner, "api"),
	}
	box, err := m.router.OpenMailbox(ctx, routes[0])
	if err != nil {
		return "", err
	}
	defer box.Close()
	payload := make([]byte, 1000)
	sent, pings, before := 0, 0, s.cpu()
	for began := time.Now(); time.Since(began) < 5*time.Second && ctx.Err() == nil; {
		for range 20 {
			for _, r := range routes {
				if r.Last().Value == "db" { // a Ping
					if pings++; pings <= 1000 { // the server is this process
						box.Send(r, []byte{0})
					}
				} else {
					box.Send(r, payload)
				}
				sent++
			}
		}
		if m.channels.Find(c.Encryptor.Text()) == nil { // it was thrown out: that is all it gets
			return fmt.Sprintf("%d messages, then the relay ended its channel", sent), nil
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond) // a reader, though a slow one
		_, _ = box.Receive(short)
		cancel()
	}
	for _, node := range []string{"relay", "bank"} {
		if _, err := s.answers(ctx, node); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d messages sent%s; both nodes answer", sent, s.cost(before, sent, "relay", "bank")), nil
}
