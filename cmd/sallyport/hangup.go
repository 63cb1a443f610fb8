package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// hangup is what SIGHUP does: it ends a command, as a terminal that is gone wants it, and makes a node read its configuration again.
type hangup struct {
	end func() // ends the program; nil: nothing does

	mu      sync.Mutex
	signals chan os.Signal // nil: nobody takes it
	reload  func()         // nil: SIGHUP ends the program
}

// listen begins to take the signal, unless it does already. What is ignored when the program starts stays ignored, unless always is set.
func (h *hangup) listen(always bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.signals != nil || signal.Ignored(syscall.SIGHUP) && !always {
		return
	}
	signals := make(chan os.Signal, 1)
	h.signals = signals
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			h.mu.Lock()
			do := h.reload
			h.mu.Unlock()
			if do == nil {
				do = h.end
			}
			if do != nil {
				do()
			}
		}
	}()
}

// listens reports whether the signal is taken.
func (h *hangup) listens() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.signals != nil
}

// leave has the signal ignored if it is taken, and by the program that comes next until that one listens: else it would end it. What it returns undoes that.
func (h *hangup) leave() (stay func()) {
	if !h.listens() {
		return func() {}
	}
	signal.Ignore(syscall.SIGHUP)
	return func() { signal.Notify(h.signals, syscall.SIGHUP) }
}

// reloads has reload called in place of ending the program. It runs on one goroutine: signals that come meanwhile are one more call.
func (h *hangup) reloads(reload func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reload = reload
}
