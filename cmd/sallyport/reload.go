package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
)

// reloadOnHangup makes SIGHUP apply the node's configuration again. A node in the foreground of a terminal ends with it, as before.
func (a *app) reloadOnHangup(ctx context.Context, name string, r runOptions, log *slog.Logger) {
	carried := r.state != nil && r.state.Hangup // the program before took the signal, and had it ignored for this one
	terminal := !r.child && isTerminal(os.Stdin)
	if terminal && !carried {
		return
	}
	if a.hangup == nil {
		a.hangup = &hangup{}
	}
	if !terminal {
		a.hangup.reloads(func() { a.reload(ctx, name, log) })
	}
	a.hangup.listen(r.child || carried) // also where the shell that started a background node ignores the signal
}

// reload applies the node's last configuration again. What is wrong with it is in the log, each mistake with its place, and nothing is
// changed then.
func (a *app) reload(ctx context.Context, name string, log *slog.Logger) {
	notifyReloading()
	defer notifySystemd("READY=1")
	inner := newApp(strings.NewReader(""), io.Discard, io.Discard)
	inner.quiet, inner.noInput, inner.dirOnce, inner.isInMemory, inner.vaults = true, true, a.dirOnce, a.isInMemory, a.vaults
	w, err := inner.lastWish(ctx, name)
	var done *applied
	if err == nil {
		done, err = inner.apply(ctx, w, applyOptions{})
	}
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			if line != "" && !strings.ContainsAny(line[:1], " >") { // no excerpts: a record is one line
				log.Error("configuration not applied", "err", line)
			}
		}
		return
	}
	done.log(log)
}
