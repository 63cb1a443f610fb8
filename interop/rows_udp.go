package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/freeport"
)

// startRendezvous runs a box's program as a rendezvous server until its processes are killed.
func (b *box) startRendezvous(ctx context.Context) (address string, err error) {
	port, err := freeport.Get()
	if err != nil {
		return "", err
	}
	health, err := freeport.Get()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(b.program.path, "rendezvous", "create", "--udp", local(port), "--healthcheck", local(health))
	cmd.Env, cmd.Dir = b.environment(), b.home
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.procs.start(cmd); err != nil {
		return "", err
	}
	go func() { _ = b.procs.wait(cmd) }()
	_, err = eventually(ctx, 10*time.Second, func() error {
		answer, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + local(health))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("healthcheck: %s", answer.Status)
		}
		return nil
	})
	return local(port), err
}

// udpRows sends messages over UDP, asks each program's rendezvous server, and makes portals through punctures: a's inlet, b's outlet, and
// the rendezvous server of one and of the other. `--no-tcp-fallback` proves that clients go over UDP.
func udpRows(ctx context.Context, r *rowRun) {
	st, err := newStory(r.procs, r.root, seats{r.a, r.a, r.a, r.a, r.a}, storyOptions{}) // for its directory
	if err != nil {
		r.check("setup", func() (string, error) { return "", err })
		return
	}
	defer st.close(r.keep)
	var rendezvous string
	server := map[string]program{"a's rendezvous": r.a, "b's rendezvous": r.b}
	for _, name := range []string{"a's rendezvous", "b's rendezvous"} {
		r.check(name, func() (string, error) {
			b, err := newBox(r.procs, st.dir, strings.ReplaceAll(name, "'s ", ""), server[name])
			if err != nil {
				return "", err
			}
			if rendezvous, err = b.startRendezvous(ctx); err != nil {
				return "", err
			}
			other := r.b
			if server[name] == r.b {
				other = r.a
			}
			asks, err := newBox(r.procs, st.dir, "asks "+b.program.name, other)
			if err != nil {
				return "", err
			}
			return asks.cli(ctx, "rendezvous", "get-my-address", rendezvous)
		})
		if rendezvous == "" {
			return
		}
	}
	env := "OCKAM_RENDEZVOUS_SERVER=" + rendezvous
	var x, y *box
	var xPort, xUDP int
	ok := r.check("setup", func() (string, error) {
		if x, err = newBox(r.procs, st.dir, "x", r.b, env); err != nil {
			return "", err
		}
		if y, err = newBox(r.procs, st.dir, "y", r.a, env); err != nil {
			return "", err
		}
		if xPort, err = freeport.Get(); err != nil {
			return "", err
		}
		if xUDP, err = freeport.Get(); err != nil {
			return "", err
		}
		if _, err = x.cli(ctx, "node", "create", "x", "--tcp-listener-address", local(xPort), "--udp", "--udp-listener-address", local(xUDP)); err != nil {
			return "", err
		}
		if _, err = y.cli(ctx, "node", "create", "y", "--udp"); err != nil {
			return "", err
		}
		_, err = x.cli(ctx, "tcp-outlet", "create", "xfer", "--at", "x", "--to", r.xfer.address())
		return "", err
	})
	if !ok {
		return
	}
	over := fmt.Sprintf("/ip4/127.0.0.1/udp/%d", xUDP)
	long := strings.Repeat("0123456789abcdef", 250)
	for _, c := range []struct{ name, route, message, want string }{
		{"uppercase", over + "/service/uppercase", "Grüezi", "GRÜEZI"},
		{"echo, many datagrams", over + "/service/echo", long, long},
		{"uppercase, channel", over + "/secure/api/service/uppercase", "Grüezi", "GRÜEZI"},
		{"echo, channel, many datagrams", over + "/secure/api/service/echo", long, long},
	} {
		r.check(c.name, func() (string, error) {
			// From a node: the reference has no UDP in the one that it makes for a command.
			out, err := y.cli(ctx, "message", "send", "--from", "y", "--timeout", "8s", "--to", c.route, c.message)
			if err == nil && out != c.want {
				err = fmt.Errorf("sent %d bytes to %s, got %d others: %.40q", len(c.message), c.route, len(out), out)
			}
			return "", err
		})
	}
	r.check("portal through a puncture", func() (string, error) {
		port, err := freeport.Get()
		if err != nil {
			return "", err
		}
		if _, err := y.cli(ctx, "tcp-inlet", "create", "direct", "--at", "y", "--from", local(port), "--udp", "--no-tcp-fallback",
			"--to", fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/secure/api/service/xfer", xPort)); err != nil {
			return "", err
		}
		took, err := eventually(ctx, 30*time.Second, func() error { return portalWorks(ctx, port, 5*time.Second) })
		if err != nil {
			return "", err
		}
		for range 50 {
			if err := portalWorks(ctx, port, 5*time.Second); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("open after %.1f s", took.Seconds()), nil
	})
}
