// Command faults runs the story's three nodes in network namespaces joined by wires, breaks one thing after the other under real traffic, and
// prints what was seen: nothing may be lost, doubled, reordered or reset as long as connections are held.
//
//	go run ./bench/faults --sallyport bin/sallyport [--short] [--only WORD] [--soak TIME] [--kills N]
//
// It needs root, /dev/net/tun, redis-server and PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var errFailed = errors.New("cases failed")

// ending are the signals that end a run.
var ending = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), ending...)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("faults", flag.ContinueOnError)
	program := f.String("sallyport", "bin/sallyport", "the program to try")
	short := f.Bool("short", false, "fewer and shorter faults, less than five minutes")
	only := f.String("only", "", "only cases whose name has this `WORD`")
	soakFor := f.Duration("soak", 15*time.Minute, "how long the soak of the long form takes")
	kills := f.Int("kills", 0, "how often a relay is killed in one row, instead of 50 times, or 3 in the short form")
	if err := f.Parse(args); err != nil {
		return err
	}
	path, err := filepath.Abs(*program)
	if err != nil {
		return err
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		fmt.Println("faults: left out: root and /dev/net/tun are needed for network namespaces joined by wires")
		return nil
	}
	if !isFirst() {
		code, err := enclose()
		if err == nil && code != 0 {
			os.Exit(code) // it has said why
		}
		return err
	}
	if err := ownProc(); err != nil {
		return err
	}
	w, err := newWorld(ctx, path)
	if err != nil {
		return err
	}
	defer w.close()
	fmt.Println("| case | expected | seen | |\n|---|---|---|---|")
	failed := 0
	for _, c := range cases(*short, *soakFor, *kills) {
		if !strings.Contains(c.name, *only) {
			continue
		}
		begun := time.Now()
		seen, err := c.run(ctx, w)
		verdict := "ok"
		if err != nil {
			failed++
			verdict = "FAILED"
			seen = strings.TrimPrefix(seen+"; "+err.Error(), "; ")
		}
		fmt.Printf("| %s | %s | %s (%.0f s) | %s |\n", c.name, c.expected, strings.ReplaceAll(seen, "\n", " "), time.Since(begun).Seconds(), verdict)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed > 0 {
		w.logs()
		return fmt.Errorf("%w: %d", errFailed, failed)
	}
	return nil
}

// logs shows the ends of the nodes' logs.
func (w *world) logs() {
	for _, m := range []*machine{w.inlet, w.relay, w.outlet} {
		var b []byte
		found, _ := filepath.Glob(filepath.Join(m.home, "nodes", m.role, "*.log"))
		for _, f := range found {
			text, _ := os.ReadFile(f)
			b = append(b, text...)
		}
		list := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Printf("\n%s:\n%s\n", m.role, strings.Join(list[max(0, len(list)-30):], "\n"))
		for i, line := range list {
			if strings.HasPrefix(line, "SIG") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "unexpected fault ") {
				fmt.Printf("\n%s ended with a fault:\n%s\n", m.role, strings.Join(list[i:min(len(list), i+80)], "\n"))
				break
			}
		}
	}
}
