package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/bench/report"
	"sallyport/client"
	"sallyport/crypto/vault"
	"sallyport/member"
	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/state"
)

// atOnce is how many are under way at a time in the sweeps of handshakes and credentials.
var atOnce = []int{1, 8, 50}

// measureHandshakes opens secure channels to the outlet's node over one TCP connection and closes them: nothing but handshakes.
func measureHandshakes(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "handshakes", Title: "Handshakes", X: report.Axis{Title: "at a time", Log: true},
		Note: "Secure channels between two nodes over one TCP connection, each opened, and closed once it is there: three messages, no credentials. The one that opens them is part of the measuring program.",
		Y: []report.Metric{{Key: "rate", Title: "handshakes", Unit: "1/s", Higher: true}, {Key: "cpu_answers", Title: "CPU of the node that answers, for each", Unit: "ms"},
			{Key: "cpu_asks", Title: "CPU of the one that asks, for each", Unit: "ms"}}})
	n, _, err := b.ownNode(ctx, filepath.Join(i.dir, "handshakes"), "")
	if err != nil {
		return nil, err
	}
	defer n.Stop()
	_, address, _ := strings.Cut(i.address, "/tcp/")
	to, err := n.CreateTCPConnection(ctx, admin.TransportRequest{Address: "127.0.0.1:" + address})
	if err != nil {
		return nil, err
	}
	listener := "/service/" + strings.TrimPrefix(to.Worker, "0#") + "/secure/api"
	return sample{}, b.ratesAtOnce(ctx, section, i.name, i.nodesByRole()[roleOutlet], func(ctx context.Context) error {
		ch, err := n.CreateChannel(ctx, admin.ChannelRequest{To: listener})
		if err != nil {
			return err
		}
		return n.DeleteChannel(ctx, strings.TrimPrefix(ch.Address, "/service/"))
	})
}

// measureCredentials has a member ask for its credential again and again, as nodes do that renew theirs.
func measureCredentials(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "credentials", Title: "Credentials issued", X: report.Axis{Title: "at a time", Log: true},
		Note: "A member asks the authority for its credential, each time over a TCP connection and a secure channel of its own, as nodes do. The member is part of the measuring program.",
		Y: []report.Metric{{Key: "rate", Title: "credentials", Unit: "1/s", Higher: true}, {Key: "cpu_answers", Title: "CPU of the authority, for each", Unit: "ms"},
			{Key: "cpu_asks", Title: "CPU of the one that asks, for each", Unit: "ms"}}})
	ticket, err := b.ticket(ctx, i)
	if err != nil {
		return nil, err
	}
	n, self, err := b.ownNode(ctx, filepath.Join(i.dir, "credentials"), ticket)
	if err != nil {
		return nil, err
	}
	defer n.Stop()
	ask := member.Ask(n, self.ID)
	return sample{}, b.ratesAtOnce(ctx, section, i.name, processes(i.dir, i.procs)[roleAuthority], func(ctx context.Context) error {
		_, err := ask.RenewingCredential(ctx)
		return err
	})
}

// ratesAtOnce does something for a while, so many at a time, and adds how often it was done and what it cost at either end.
func (b *bench) ratesAtOnce(ctx context.Context, section *report.Section, path string, answers []int, do func(context.Context) error) error {
	for _, width := range atOnce {
		var done atomic.Int64
		cpu, own, start := cpuSeconds(answers), ownCPU(), time.Now()
		err := parallel(width, 1<<30, func(int) error {
			if time.Since(start) > b.d.load {
				return errEnough
			}
			if err := do(ctx); err != nil {
				return err
			}
			done.Add(1)
			return nil
		})
		took, n := time.Since(start).Seconds(), float64(done.Load())
		if err := withoutEnough(err); err != nil {
			return fmt.Errorf("%d at a time: %w", width, err)
		}
		section.Add(path, float64(width), map[string]float64{"rate": n / took, "cpu_answers": (cpuSeconds(answers) - cpu) / n * 1000, "cpu_asks": (ownCPU() - own) / n * 1000})
	}
	return nil
}

// ownCPU is the processor time in seconds that this process has used.
func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// ownNode starts a node in this process, as a member of the ticket's project if there is one; its state is below dir.
func (b *bench) ownNode(ctx context.Context, dir, ticket string) (*node.Node, member.Identity, error) {
	fail := func(err error) (*node.Node, member.Identity, error) { return nil, member.Identity{}, err }
	if ticket != "" {
		c, err := client.Open(ctx, client.Options{Directory: dir, Ticket: ticket})
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			return fail(err)
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	home, err := state.Open(dir)
	if err != nil {
		return fail(err)
	}
	h := &member.Home{Dir: home, Vault: func(v state.Vault) (vault.Vault, error) { return vault.OpenFile(v.Path) }}
	self, err := h.EnsureIdentity(ctx, "")
	if err != nil {
		return fail(err)
	}
	var trust node.Trust
	if ticket != "" {
		known, err := h.Trust(ctx, self.Manager, "")
		if err != nil {
			return fail(err)
		}
		trust.Authority, trust.Route = known.Authority, known.Route
	}
	n, err := node.Start(ctx, node.Options{Name: "bench", IdentityName: self.Named.Name, Self: self.ID, Identities: self.Manager, Store: node.CommandHome(home), NoListener: true, Trust: trust,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fail(err)
	}
	return n, self, nil
}

// ticket is one of the path's project that may be used any number of times.
func (b *bench) ticket(ctx context.Context, i *instance) (string, error) {
	c := b.ours().command(i, roleAdmin, "project", "ticket", "--identity", "admin", "--attribute", "company=beta", "--expires-in", "1h", "--usage-count", "100000")
	out, err := run(ctx, i.dir, c.env, c.name, c.args...)
	return strings.TrimSpace(out), err
}

// errEnough ends parallel.
var errEnough = errors.New("enough")

// withoutEnough is what else is in err.
func withoutEnough(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, errEnough) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}
