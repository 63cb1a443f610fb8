package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sallyport/internal/freeport"
)

// plainNode starts a node that knows no authority, in its own state directory.
func (r *rowRun) plainNode(ctx context.Context, dir, name string, p program, env ...string) (*box, int, error) {
	b, err := newBox(r.procs, dir, name, p, env...)
	if err != nil {
		return nil, 0, err
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, 0, err
	}
	_, err = b.cli(ctx, "node", "create", name, "--tcp-listener-address", local(port))
	return b, port, err
}

// send sends a text message and compares the answer.
func send(ctx context.Context, from *box, route, message, want string) error {
	out, err := from.cli(ctx, "message", "send", "--timeout", "8s", "--to", route, message)
	if err != nil {
		return err
	}
	if out != want {
		return fmt.Errorf("sent %q to %s, got %q, want %q", message, route, out, want)
	}
	return nil
}

// messageRows sends from a program over nodes of the other one and of itself:
//
//	1 hop   a -> x(b)
//	2 hops  a -> x(b) -> y(a), y being registered at x
//	3 hops  a -> y(a) -> x(b) -> z(b), z being registered at y through x
//
// A multiaddr has at most one transport hop, so longer ways need relays.
func messageRows(ctx context.Context, r *rowRun) {
	st, err := newStory(r.procs, r.root, seats{r.a, r.a, r.a, r.a, r.a}, storyOptions{}) // for its directory
	if err != nil {
		r.check("setup", func() (string, error) { return "", err })
		return
	}
	defer st.close(r.keep)
	var x, y, z, sender *box
	var xPort, yPort int
	ok := r.check("setup", func() (string, error) {
		if sender, err = newBox(r.procs, st.dir, "sender", r.a); err != nil {
			return "", err
		}
		if x, xPort, err = r.plainNode(ctx, st.dir, "x", r.b); err != nil {
			return "", err
		}
		if y, yPort, err = r.plainNode(ctx, st.dir, "y", r.a); err != nil {
			return "", err
		}
		if z, _, err = r.plainNode(ctx, st.dir, "z", r.b); err != nil {
			return "", err
		}
		atX := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", xPort)
		if err := makeRelay(ctx, y, "y", atX+"/secure/api"); err != nil {
			return "", err
		}
		return "", makeRelay(ctx, z, "z", atX+"/service/forward_to_y/secure/api")
	})
	if !ok {
		return
	}
	atX, atY := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", xPort), fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", yPort)
	const text = "Grüezi über Knoten"
	for _, way := range []struct{ name, route string }{
		{"1 hop", atX},
		{"1 hop, channel", atX + "/secure/api"},
		{"2 hops", atX + "/service/forward_to_y"},
		{"2 hops, channel", atX + "/service/forward_to_y/secure/api"},
		{"3 hops", atY + "/service/forward_to_z"},
		{"3 hops, channel", atY + "/service/forward_to_z/secure/api"},
	} {
		r.check("echo, "+way.name, func() (string, error) {
			return "", send(ctx, sender, way.route+"/service/echo", text, text)
		})
		r.check("uppercase, "+way.name, func() (string, error) {
			return "", send(ctx, sender, way.route+"/service/uppercase", text, strings.ToUpper(text))
		})
	}
	r.check("uppercase, special casing", func() (string, error) {
		// One letter becomes two: the reference follows Unicode's special casing.
		return "", send(ctx, sender, atX+"/service/uppercase", "Straße", "STRASSE")
	})
	r.check("hop worker, 2 hops", func() (string, error) {
		if _, err := x.cli(ctx, "service", "start", "hop", "--at", "x"); err != nil {
			return "", err
		}
		return "", send(ctx, sender, atX+"/service/hop/service/forward_to_y/service/uppercase", text, strings.ToUpper(text))
	})
	r.check("unknown service: no answer", func() (string, error) {
		out, err := sender.cli(ctx, "message", "send", "--timeout", "2s", "--to", atX+"/service/nobody", text)
		if err == nil {
			return "", fmt.Errorf("got an answer: %q", out)
		}
		return "", nil
	})
	r.check("still there afterwards", func() (string, error) {
		return "", send(ctx, sender, atX+"/secure/api/service/echo", text, text)
	})
}

// makeRelay registers the node called like its box at a route.
func makeRelay(ctx context.Context, b *box, name, at string) error {
	out, err := b.cli(ctx, "relay", "create", name, "--at", at, "--to", name)
	if err != nil {
		return err
	}
	if !strings.Contains(out, "forward_to_"+name) || strings.Contains(out, `"Down"`) {
		return fmt.Errorf("relay create at %s: %s", at, firstLine([]byte(out)))
	}
	return nil
}

// channelRows lets two members reach each other through a relay, and checks
// that an expected peer is really demanded.
func channelRows(ctx context.Context, r *rowRun) {
	o := storyOptions{xferTarget: r.xfer.address()}
	st := r.story(ctx, seats{authority: r.a, relay: r.b, outlet: r.a, inlet: r.b, admin: r.a}, o, func(ctx context.Context, st *story) error {
		if err := st.startOperator(ctx, nil); err != nil {
			return err
		}
		if err := st.startOutlet(ctx); err != nil {
			return err
		}
		t, err := st.ticket(ctx, "--relay", "green")
		if err != nil {
			return err
		}
		if _, err := st.inlet.cli(ctx, "project", "enroll", t); err != nil {
			return err
		}
		if _, err := st.inlet.cli(ctx, "node", "create", "green"); err != nil {
			return err
		}
		_, err = st.inlet.cli(ctx, "relay", "create", "green", "--to", "green")
		return err
	})
	if st == nil {
		return
	}
	defer st.close(r.keep)
	const way = "/project/" + projectName + "/service/forward_to_"
	r.check("b to a through the relay", func() (string, error) {
		return "", send(ctx, st.inlet, way+"blue/secure/api/service/uppercase", "hello", "HELLO")
	})
	r.check("a to b through the relay", func() (string, error) {
		return "", send(ctx, st.outlet, way+"green/secure/api/service/uppercase", "hello", "HELLO")
	})
	r.check("b to a, echo by policy", func() (string, error) {
		return "", send(ctx, st.inlet, way+"blue/secure/api/service/echo", "hello", "hello")
	})
	r.check("a to b, echo by policy", func() (string, error) {
		return "", send(ctx, st.outlet, way+"green/secure/api/service/echo", "hello", "hello")
	})
	r.check("inlet, right peer demanded", func() (string, error) {
		return "", r.authorizedInlet(ctx, st, true)
	})
	r.check("inlet, wrong peer demanded", func() (string, error) {
		return "", r.authorizedInlet(ctx, st, false)
	})
}

// authorizedInlet makes an inlet on b's node to a's outlet with --authorized, and
// says whether data came through when it should and only then. Such a route goes to the
// relay without a channel: the reference's relay passes it on, ours does not where there
// is an authority.
func (r *rowRun) authorizedInlet(ctx context.Context, st *story, right bool) error {
	peer, err := st.outlet.cli(ctx, "identity", "show")
	if err != nil {
		return err
	}
	name := "right"
	if !right {
		name = "wrong"
		if peer, err = st.admin.cli(ctx, "identity", "show", "admin"); err != nil {
			return err
		}
	}
	port, err := freeport.Get()
	if err != nil {
		return err
	}
	at := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/service/forward_to_blue/secure/api/service/xfer", st.relayPort)
	if _, err := st.inlet.cli(ctx, "tcp-inlet", "create", name, "--at", "green", "--from", local(port), "--to", at,
		"--authorized", peer, "--connection-wait", "3s"); err != nil {
		return err
	}
	if right && st.seats.relay.name == "reference" {
		_, err := eventually(ctx, 15*time.Second, func() error { return portalWorks(ctx, port, 5*time.Second) })
		return err
	}
	for range 3 {
		if err := portalWorks(ctx, port, 2*time.Second); err == nil {
			return fmt.Errorf("a portal to %s opened although %s was demanded, or no channel led to the relay", "blue", peer)
		}
		time.Sleep(500 * time.Millisecond)
	}
	return nil
}
