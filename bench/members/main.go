// Command members measures what many members cost: it makes a project of real processes, enrols members through the library, each with an identity, a node, a credential and
// TCP connections of its own, has each register a name at the relay, and prints enrolments and renewals per second, and CPU, memory and disk of authority and relay.
//
//	go run ./bench/members -bin build/sallyport -n 100,1000
//
// Members live in child processes of this one, so that no process needs too many files.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/client"
	"sallyport/crypto/vault"
	"sallyport/member"
	"sallyport/node"
	"sallyport/state"
)

func main() {
	bin := flag.String("bin", "build/sallyport", "the program")
	counts := flag.String("n", "100,1000", "how many members, a row for each")
	share := flag.Int("share", 500, "how many members a child process has")
	width := flag.Int("width", 16, "how many enrol at a time in each child")
	ticket := flag.String("child", "", "of a child: a file with the ticket")
	from := flag.Int("from", 0, "of a child: its first member")
	flag.Parse()
	var err error
	if *ticket != "" {
		err = child(*ticket, *from, *share, *width)
	} else {
		err = run(*bin, *counts, *share, *width)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "members:", err)
		os.Exit(1)
	}
}

func run(bin, counts string, share, width int) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("%d processors, %s\n", runtime.NumCPU(), time.Now().UTC().Format(time.RFC3339))
	fmt.Println("members  enrolled/s  registered/s  renewed/s | authority: CPU ms/enrolment  ms/renewal  RSS MiB  KiB/member  disk KiB/member | relay: CPU ms/member  RSS MiB  KiB/member")
	for _, text := range strings.Split(counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-n %q: a number of members", text)
		}
		if err := row(ctx, bin, n, share, width); err != nil {
			return fmt.Errorf("%d members: %w", n, err)
		}
	}
	return nil
}

// world is a project of two processes.
type world struct {
	bin, dir         string
	authority, relay int // process ids
}

func (w *world) sallyport(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+filepath.Join(w.dir, "project"))
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("sallyport %s: %w: %s", strings.Join(args, " "), err, failed.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func newWorld(ctx context.Context, bin string) (*world, error) {
	dir, err := os.MkdirTemp("", "members-")
	if err != nil {
		return nil, err
	}
	w := &world{bin: bin, dir: dir}
	a, err := freePort()
	if err != nil {
		return w, err
	}
	r, err := freePort()
	if err != nil {
		return w, err
	}
	if _, err := w.sallyport(ctx, "project", "create", "p", "--authority-port", a, "--relay-port", r); err != nil {
		return w, err
	}
	for name, pid := range map[string]*int{"authority-p": &w.authority, "relay-p": &w.relay} {
		text, err := w.sallyport(ctx, "node", "show", name, "--jq", ".pid")
		if err != nil {
			return w, err
		}
		if *pid, err = strconv.Atoi(text); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = w.sallyport(ctx, "node", "stop", "--all")
	_ = os.RemoveAll(w.dir)
}

// row makes a project with n members and prints what they cost.
func row(ctx context.Context, bin string, n, share, width int) error {
	w, err := newWorld(ctx, bin)
	if w != nil {
		defer w.end()
	}
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "ticket")
	text, err := w.sallyport(ctx, "project", "ticket", "--identity", "admin", "--relay", "*", "--usage-count", fmt.Sprint(n), "--expires-in", "4h")
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		return err
	}
	authority, relay := look(w.authority), look(w.relay)
	disk := size(filepath.Join(w.dir, "project"))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var children []*childProcess
	defer func() {
		for _, c := range children {
			c.end()
		}
	}()
	for first := 0; first < n; first += share {
		c, err := startChild(ctx, self, file, first, min(share, n-first), width)
		if err != nil {
			return err
		}
		children = append(children, c)
	}
	phase := func(name string) (time.Duration, error) {
		began := time.Now()
		var wg sync.WaitGroup
		errs := make([]error, len(children))
		for i, c := range children {
			wg.Go(func() { errs[i] = c.do(name) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	enrolling, err := phase("enrol")
	if err != nil {
		return err
	}
	enrolled := look(w.authority)
	registering, err := phase("register")
	if err != nil {
		return err
	}
	before := look(w.authority)
	renewing, err := phase("renew")
	if err != nil {
		return err
	}
	after, r := look(w.authority), look(w.relay)
	per := func(d time.Duration) float64 { return float64(n) / d.Seconds() }
	ms := func(a, b usage) float64 { return (b.cpu - a.cpu).Seconds() * 1000 / float64(n) }
	kib := func(a, b usage) float64 { return float64(b.rss-a.rss) / 1024 / float64(n) }
	fmt.Printf("%7d  %10.0f  %12.0f  %9.0f | %27.2f  %10.2f  %7.0f  %10.1f  %15.1f | %20.2f  %7.0f  %10.1f\n", n, per(enrolling), per(registering), per(renewing),
		ms(authority, enrolled), ms(before, after), float64(after.rss)/(1<<20), kib(authority, after), float64(size(filepath.Join(w.dir, "project"))-disk)/1024/float64(n),
		ms(relay, r), float64(r.rss)/(1<<20), kib(relay, r))
	return nil
}

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// look reads a process's usage from /proc (proc(5), stat: fields 14, 15 and 24).
func look(pid int) (u usage) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 22 {
		return u
	}
	number := func(s string) int64 { v, _ := strconv.ParseInt(s, 10, 64); return v }
	const ticks = 100 // a second, on every Linux that Go runs on
	u.cpu = time.Duration(number(f[11])+number(f[12])) * time.Second / ticks
	u.rss = number(f[21]) * int64(os.Getpagesize())
	return u
}

// size is how much the files of a directory take, in bytes.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// childProcess has a share of the members.
type childProcess struct {
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func startChild(ctx context.Context, self, ticket string, first, share, width int) (*childProcess, error) {
	cmd := exec.CommandContext(ctx, self, "-child", ticket, "-from", fmt.Sprint(first), "-share", fmt.Sprint(share), "-width", fmt.Sprint(width))
	cmd.Stderr = os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd.Stdin = read
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = write.Close()
		return nil, err
	}
	return &childProcess{cmd: cmd, in: write, out: bufio.NewReader(out)}, nil
}

// do has the child's members do something, and waits for it.
func (c *childProcess) do(what string) error {
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return err
	}
	answer, err := c.out.ReadString('\n')
	if answer = strings.TrimSpace(answer); err != nil || answer != "ok" {
		return fmt.Errorf("%s: a child says %q, %v", what, answer, err)
	}
	return nil
}

// end ends the child: its members end with its input.
func (c *childProcess) end() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// child has members, and does what it reads.
func child(file string, from, share, width int) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	homes, err := os.MkdirTemp("/dev/shm", "members-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(homes)
	home := func(i int) string { return filepath.Join(homes, fmt.Sprint(i)) }
	members := make([]*client.Client, share)
	each := func(f func(ctx context.Context, i int) error) string {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		places, errs := make(chan struct{}, width), make(chan error, share)
		for i := range share {
			places <- struct{}{}
			go func() {
				defer func() { <-places }()
				errs <- f(ctx, i)
			}()
		}
		answer := "ok"
		for range share {
			if err := <-errs; err != nil {
				answer = strings.ReplaceAll(err.Error(), "\n", " ")
			}
		}
		return answer
	}
	defer func() {
		each(func(_ context.Context, i int) error {
			if members[i] != nil {
				return members[i].Close()
			}
			return nil
		})
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		answer := "unknown"
		switch in.Text() {
		case "enrol":
			answer = each(func(ctx context.Context, i int) (err error) {
				members[i], err = client.Open(ctx, client.Options{Directory: home(i), Ticket: string(raw)})
				return err
			})
		case "register":
			answer = each(func(ctx context.Context, i int) error {
				_, err := members[i].ListenWith(ctx, fmt.Sprintf("m%d", from+i), client.ListenOptions{})
				return err
			})
		case "renew":
			answer = each(func(ctx context.Context, i int) error { return renew(ctx, home(i)) })
		}
		fmt.Println(answer)
	}
	return in.Err()
}

// renew fetches a credential once more as the member of a state directory, over a connection and a channel of its own, as its node does.
func renew(ctx context.Context, path string) error {
	dir, err := state.Open(path)
	if err != nil {
		return err
	}
	h := &member.Home{Dir: dir, Vault: func(v state.Vault) (vault.Vault, error) { return vault.OpenFile(v.Path) }}
	self, err := h.Identity(ctx, "")
	if err != nil {
		return err
	}
	trust, err := h.Trust(ctx, self.Manager, "")
	if err != nil {
		return err
	}
	n, err := node.Start(ctx, node.Options{
		Name: "renew", IdentityName: self.Named.Name, Self: self.ID, Identities: self.Manager, Store: node.CommandHome(dir), Shards: 1, NoListener: true,
		Trust: node.Trust{Authority: trust.Authority, Route: trust.Route}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer n.Stop()
	_, err = member.Ask(n, self.ID).RenewingCredential(ctx)
	return err
}
