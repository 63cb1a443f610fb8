package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/limits"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/proxy"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// States of a finding.
const (
	healthy = "ok"
	warned  = "warn"
	failed  = "fail"
)

// finding is what doctor says of one thing.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warn, fail
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// doctor collects findings.
type doctor struct {
	a    *app
	list []finding
}

func (d *doctor) say(check, state, mend, format string, args ...any) {
	if state == healthy {
		mend = ""
	}
	d.list = append(d.list, finding{check, state, fmt.Sprintf(format, args...), mend})
}

// check is ok or not, with what to do.
func (d *doctor) check(check string, ok bool, bad, mend, format string, args ...any) {
	s := healthy
	if !ok {
		s = bad
	}
	d.say(check, s, mend, format, args...)
}

func doctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with this machine, and say how to mend it", GroupID: groupOther, Args: cobra.NoArgs,
		Example: `  sallyport doctor
  sallyport doctor --jq '.[] | select(.state != "ok")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.dir()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			d := &doctor{a: a, list: []finding{}}
			d.files(dir)
			d.records(dir)
			d.kernel()
			d.projects(ctx, dir)
			if err := d.nodes(ctx, dir); err != nil {
				return err
			}
			var text strings.Builder
			bad := 0
			for _, f := range d.list {
				mark := a.color(green, "ok  ")
				switch f.State {
				case warned:
					mark = a.color("33", "warn")
				case failed:
					mark = a.color(red, "FAIL")
					bad++
				}
				fmt.Fprintf(&text, "%s  %s: %s\n", mark, f.Check, f.Detail)
				if f.Mend != "" {
					fmt.Fprintf(&text, "      to mend it: %s\n", f.Mend)
				}
			}
			if err := a.print(result{human: text.String(), machine: strings.TrimSpace(text.String()), json: d.list}); err != nil {
				return err
			}
			if bad > 0 {
				return exitCode(exitDiffers)
			}
			return nil
		},
	}
}

// maxLooked bounds how many files are looked at.
const maxLooked = 20_000

// files looks at the state directory: who may read it, and whether there is room.
func (d *doctor) files(dir *state.Dir) {
	open, looked := "", 0
	err := filepath.WalkDir(dir.Path(), func(path string, e fs.DirEntry, err error) error {
		if looked++; err != nil || looked > maxLooked || open != "" {
			return fs.SkipAll
		}
		info, err := e.Info()
		if err == nil && e.Type()&(fs.ModeSymlink|fs.ModeSocket) == 0 && info.Mode().Perm()&0o077 != 0 {
			open = path
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		d.say("state directory", failed, "make it readable for this user", "%s: %v", dir.Path(), err)
	case open != "":
		d.say("state directory", failed, "chmod -R go= "+dir.Path(), "others may use %s, which may be a key", open)
	default:
		d.say("state directory", healthy, "", "%s is for this user alone", dir.Path())
	}
	var s unix.Statfs_t
	if unix.Statfs(dir.Path(), &s) == nil {
		free := int64(s.Bavail) * int64(s.Bsize)
		bad := warned
		if free < 16<<20 {
			bad = failed
		}
		d.check("disk", free >= 256<<20, bad, "free some of it: nodes go on, and do not remember what changes", "%d MiB free at %s", free>>20, dir.Path())
	}
}

// records looks whether the files of the state can be read.
func (d *doctor) records(dir *state.Dir) {
	record := func(check string, n int, err error) {
		if err != nil {
			d.say(check, failed, "repair the file, or put back a backup (docs/backup.md)", "%v", err)
			return
		}
		d.say(check, healthy, "", "%d in the state directory", n)
	}
	ids, err := dir.Identities()
	record("identities", len(ids), err)
	vaults, err := dir.Vaults()
	record("vaults", len(vaults), err)
	projects, err := dir.Projects()
	record("projects", len(projects), err)
	credentials, err := dir.Credentials()
	record("credentials", len(credentials), err)
	if _, err := dir.Node(""); errors.Is(err, state.ErrBroken) || errors.Is(err, state.ErrNewer) {
		d.say("default node", failed, "sallyport node default NODE", "%v", err)
	}
}

// kernel looks at limits and settings of the system.
func (d *doctor) kernel() {
	n := limits.Descriptors()
	d.check("descriptors", n >= 4096, warned, "raise `ulimit -n` (systemd: LimitNOFILE=); each portal connection takes one at each end", "a process may have %d open", n)
	for _, k := range []struct {
		path  string
		least int
		mend  string
	}{
		{"net/core/somaxconn", 1024, "sysctl -w net.core.somaxconn=4096: bursts of clients are refused beyond it"},
		{"net/core/wmem_max", 4 << 20, "sysctl -w net.core.wmem_max=67108864: long lines carry what the send buffer holds in each round trip"},
		{"net/core/rmem_max", 4 << 20, "sysctl -w net.core.rmem_max=8388608: direct paths over UDP lose bursts beyond it"},
	} {
		b, err := os.ReadFile("/proc/sys/" + k.path)
		if err != nil {
			continue
		}
		v, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil {
			d.check(strings.ReplaceAll(k.path, "/", "."), v >= k.least, warned, k.mend, "%d", v)
		}
	}
}

// projects looks whether each project's relay and authority can be reached.
func (d *doctor) projects(ctx context.Context, dir *state.Dir) {
	list, _ := dir.Projects() // records and nodes say what is wrong with them
	nodes, _ := dir.Nodes()
	for _, p := range list {
		ways := waysOf(nodes, func(n state.Node) bool {
			of, err := dir.Project(n.Options.Project)
			return err == nil && of.Project.ID == p.Project.ID
		})
		for what, route := range map[string]string{"relay": p.Project.AccessRoute, "authority": p.Project.AuthorityAccessRoute} {
			if route == "" {
				continue
			}
			for _, w := range ways {
				from := ""
				if len(ways) > 1 {
					from = ", from " + w.name()
				}
				d.reach(ctx, what+" of project "+p.Project.Name+from, route, w.proxies)
			}
		}
	}
}

// way is how nodes reach others.
type way struct {
	nodes   []string // that go this way; none where no node does
	proxies []string // rules
}

func (w *way) name() string {
	if more := len(w.nodes) - 1; more > 0 {
		return fmt.Sprintf("node %s and %d more", w.nodes[0], more)
	}
	return "node " + w.nodes[0]
}

// waysOf returns the ways of those nodes that use something; that of a command if there are none. An authority connects to nobody.
func waysOf(nodes []state.Node, use func(state.Node) bool) (list []way) {
	for _, n := range nodes {
		if n.IsAuthority || !use(n) {
			continue
		}
		proxies := proxiesOf(n.Options)
		i := slices.IndexFunc(list, func(w way) bool { return slices.Equal(w.proxies, proxies) })
		if i < 0 {
			i, list = len(list), append(list, way{proxies: proxies})
		}
		list[i].nodes = append(list[i].nodes, n.Name)
	}
	if len(list) == 0 {
		list = []way{{proxies: proxiesOf(state.NodeOptions{})}}
	}
	return list
}

// reachTimeout is how long a name or a connection is waited for.
const reachTimeout = 3 * time.Second

// reach looks whether the first hop of a route answers, through what rules for proxies and the environment say.
func (d *doctor) reach(ctx context.Context, what, route string, proxies []string) {
	to, err := multiaddr.Parse(route)
	if err != nil {
		d.say(what, failed, "import the project again", "%v", err)
		return
	}
	network, hostport, _, ok := to.HostPort()
	if !ok || network != "tcp" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if through, err := proxyTo(hostport, proxies); err != nil || through != nil {
		d.reachThrough(ctx, what, hostport, through, err)
		return
	}
	host, port, _ := net.SplitHostPort(hostport)
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		d.say(what, failed, "look at DNS (/etc/resolv.conf), or at the name in the ticket", "the name %s is not known here: %v", host, err)
		return
	}
	var answered, silent []string
	began := time.Now()
	for _, address := range addresses {
		c, err := (&net.Dialer{Timeout: reachTimeout / time.Duration(len(addresses))}).DialContext(ctx, "tcp", net.JoinHostPort(address, port))
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", address, errors.Unwrap(err)))
			continue
		}
		_ = c.Close()
		answered = append(answered, address)
	}
	switch {
	case len(answered) == 0:
		d.say(what, failed, "is it running, and may this machine connect to port "+port+" there? Look at firewalls", "nothing answers at %s (%s)", hostport, strings.Join(silent, "; "))
	case len(silent) > 0:
		d.say(what, warned, "take addresses out of DNS at which nobody listens: they are tried, too", "%s answers at %s, not at %s", hostport, strings.Join(answered, ", "), strings.Join(silent, "; "))
	default:
		d.say(what, healthy, "", "%s answers within %d ms", hostport, time.Since(began).Milliseconds())
	}
}

// proxyTo returns the proxy that rules, else the environment name for a destination; nil for none.
func proxyTo(hostport string, proxies []string) (*proxy.Proxy, error) {
	rules, err := proxy.Parse(proxies, os.Getenv)
	if err != nil {
		return nil, err
	}
	return rules.For(hostport)
}

// reachThrough is reach through a proxy, which resolves the name.
func (d *doctor) reachThrough(ctx context.Context, what, hostport string, through *proxy.Proxy, err error) {
	began := time.Now()
	if err == nil {
		var c net.Conn
		if c, _, err = through.Dial(ctx, hostport); err == nil {
			_ = c.Close()
		}
	}
	if err != nil {
		d.say(what, failed, proxyAdvice, "%v", err)
		return
	}
	d.say(what, healthy, "", "%s answers through the proxy %s within %d ms", hostport, through, time.Since(began).Milliseconds())
}

// registry looks at what makes a relay one of several.
func (d *doctor) registry(name string, r *admin.Registry) {
	d.check(name+", registry", r.Store.Reason == "", failed, "see to the database: until it answers nobody can register a relay name that is new, and what others register is not known here",
		"%s is %s since %s%s", r.Store.Name, r.Store.State, r.Store.Since.Local().Format(time.DateTime), withColon(r.Store.Reason))
	d.check(name+", other relays", r.Linked == r.Relays, failed, "may this machine connect to each of them? Look at firewalls, and at what `sallyport project relay-node list` says of them",
		"%d are alive, and there is a way to %d; %s here, %d at others alone", r.Relays, r.Linked, plural(r.Here, "relay name"), r.Elsewhere)
}

// nodes looks at each node.
func (d *doctor) nodes(ctx context.Context, dir *state.Dir) error {
	names, err := dir.NodeNames()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		d.say("nodes", warned, "sallyport node create", "there are none")
	}
	for _, name := range names {
		n, err := dir.Node(name)
		if err != nil {
			d.say("node "+name, failed, "sallyport node delete "+name+", or repair its record", "%v", err)
			continue
		}
		name := "node " + name
		if n.Status() != state.Running {
			d.stopped(name, n)
			continue
		}
		c := admin.NewClient(n.AdminSocket)
		s, err := admin.Get[admin.Stats](ctx, c, admin.PathCounts)
		if err != nil {
			d.say(name, failed, "sallyport node stop "+n.Name+" --force, then start it; an older program does not know the question: sallyport node upgrade "+n.Name, "it runs and does not answer: %v", err)
			continue
		}
		d.say(name, healthy, "", "runs since %s", s.At.Add(-time.Duration(s.Uptime*float64(time.Second))).Local().Format(time.DateTime))
		d.stats(name, &s)
		described, err := admin.Get[admin.Node](ctx, c, admin.PathNode)
		if err == nil && described.Store != nil {
			v := described.Store
			d.check(name+", store", v.Reason == "", failed, "see to the database: until it answers nobody is enrolled, and no credential is renewed",
				"%s is %s since %s%s", v.Name, v.State, v.Since.Local().Format(time.DateTime), withColon(v.Reason))
		}
		if err == nil && described.Registry != nil {
			d.registry(name, described.Registry)
		}
		if err == nil && described.Authority != nil {
			v := described.Authority
			bad := warned
			if v.Late {
				bad = failed
			}
			d.check(name+", authority", v.State != "unreachable" && !v.Late, bad, "sallyport doctor shows above whether its address answers; until it does, revocations are not heard and credentials not renewed",
				"%s, last heard of %v ago", v.State, (time.Duration(v.Silence) * time.Second).String())
		}
		resources, err := admin.Get[[]admin.Resource](ctx, c, admin.PathResources)
		if err != nil {
			continue
		}
		up := 0
		for _, r := range resources {
			switch r.State {
			case resource.Up:
				up++
			case resource.Degraded:
				d.say(fmt.Sprintf("%s, %s %s", name, r.Kind, r.Name), warned, resourceHint(r, n.Name), "%s: %s", r.State, r.Reason)
			default:
				d.say(fmt.Sprintf("%s, %s %s", name, r.Kind, r.Name), failed, resourceHint(r, n.Name), "%s: %s", r.State, r.Reason)
			}
		}
		d.say(name+", resources", healthy, "", "%d of %d are up", up, len(resources))
	}
	return nil
}

// withColon puts a colon before a reason, if there is one.
func withColon(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// resourceHint says what to look at.
func resourceHint(r admin.Resource, node string) string {
	switch {
	case strings.Contains(r.Reason, "address already in use"):
		return "another program has the port: `ss -ltnp` says which"
	case r.Kind == resource.KindInlet:
		return fmt.Sprintf("sallyport trace %s --at %s", r.Name, node)
	case r.Kind == resource.KindOutlet, r.Kind == resource.KindUDPOutlet:
		return "is the server running, and does it listen where the outlet looks?"
	}
	return "sallyport events --at " + node + " --level warn"
}

// stopped says whether a node that does not run could.
func (d *doctor) stopped(name string, n state.Node) {
	mend := "sallyport node start " + n.Name
	if at := n.TCPListener; at != "" {
		l, err := net.Listen("tcp", at)
		if errors.Is(err, unix.EADDRINUSE) {
			d.say(name, failed, "another program has the port: `ss -ltnp` says which", "it does not run, and its address %s is taken", at)
			return
		}
		if err == nil {
			_ = l.Close()
		}
	}
	d.say(name, warned, mend, "it does not run")
}

// stats judges what a node counts.
func (d *doctor) stats(name string, s *admin.Stats) {
	if v := s.CredentialSeconds; v != nil {
		left := time.Duration(*v * float64(time.Second)).Round(time.Second)
		d.check(name+", credential", left > time.Minute, failed, "enroll with a ticket, or let the node reach its authority", "valid for %v", left)
	}
	ahead := s.CredentialAheadSeconds
	switch {
	case ahead > 60 || ahead < -60:
		d.say(name+", clock", failed, "set the clock (timedatectl set-ntp true): credentials are refused when clocks differ by more than a minute", "the authority's is %.0f s ahead", ahead)
	case ahead > 5 || ahead < -5:
		d.say(name+", clock", warned, "set the clock (timedatectl set-ntp true)", "the authority's is %.0f s ahead", ahead)
	case s.CredentialSeconds != nil:
		d.say(name+", clock", healthy, "", "as the authority's, to a few seconds")
	}
	for _, what := range slices.Sorted(maps.Keys(s.Left)) {
		left := s.Left[what]
		bad := warned
		if left < 0.05 {
			bad = failed
		}
		if left < 0.2 {
			d.say(name+", "+what, bad, "docs/limits.md: raise what is nearest, or spread the load", "%.0f %% left", 100*left)
		}
	}
	for i, l := range s.Loops {
		if l.Lag > 0.2 || l.Longest > 0.5 {
			d.say(fmt.Sprintf("%s, loop %d", name, i), warned, "the processor is too busy, or the machine stood still", "something new waits %.0f ms, the longest turn took %.0f ms", 1000*l.Lag, 1000*l.Longest)
		}
	}
	if r := s.Records; r != nil && r.Dropped > 0 {
		d.say(name+", records", warned, "is the disk full, or too slow?", "%d were not written", r.Dropped)
	}
	if s.LogDropped > 0 {
		d.say(name+", log", warned, "is the disk full, or too slow?", "%d records were not written", s.LogDropped)
	}
}
