package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// hangup is what SIGHUP does: it ends a command, as a terminal that is gone wants it, and makes a node read its configuration again.
type hangup struct {
	listens bool

	mu     sync.Mutex
	reload func() // nil: SIGHUP ends the program
}

// listen begins to take the signal, unless it does already. end ends the program. What is ignored when the program starts stays ignored,
// unless always is set.
func (h *hangup) listen(end func(), always bool) {
	if h.listens || signal.Ignored(syscall.SIGHUP) && !always {
		return
	}
	h.listens = true
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			h.mu.Lock()
			reload := h.reload
			h.mu.Unlock()
			if reload == nil {
				end()
			} else {
				reload()
			}
		}
	}()
}

// reloads has reload called in place of ending the program. It runs on one goroutine: signals that come meanwhile are one more call.
func (h *hangup) reloads(reload func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reload = reload
}
