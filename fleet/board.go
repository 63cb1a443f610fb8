package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// MaxWait is the longest that a request for the list waits for another one than the asker knows.
const MaxWait = 30 * time.Second

// Bounds of who waits for another list.
const (
	maxWaiting = 16_384
	// tellTogether are told of another list one after the other, then there is a pause of tellPause: 20,000 in a second.
	tellTogether = 200
	tellPause    = 10 * time.Millisecond
	// versionSize is how much of a list's hash names it, in bytes.
	versionSize = 8
)

// versionOf names a list of routes.
func versionOf(routes []string) []byte {
	h := sha256.New()
	for _, r := range routes {
		h.Write(append([]byte(r), 0))
	}
	return h.Sum(nil)[:versionSize]
}

// board has the list of a fleet's routes, and tells those who wait for another one. Any goroutine.
type board struct {
	mu      sync.Mutex
	routes  []string
	version []byte // nil before there is a list
	waiting map[*waiter]struct{}
	places  *fair.Shares[*waiter]
}

// waiter is a request that is answered when there is another list, or later.
type waiter struct {
	req   *rpc.Request
	place *fair.Place[*waiter]
	timer *time.Timer
	send  func(*rpc.Response)
}

// newBoard makes a board before which most can wait.
func newBoard(most int) *board {
	return &board{waiting: map[*waiter]struct{}{}, places: fair.NewShares[*waiter](most)}
}

// list returns the routes, which are not to be changed, and their version; nil before there is a list.
func (b *board) list() (routes []string, version []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.routes, b.version
}

// set has everybody who waits told of another list.
func (b *board) set(routes []string) {
	version := versionOf(routes)
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes.Equal(b.version, version) {
		return
	}
	b.routes, b.version = slices.Clone(routes), version
	told := b.waiting
	b.waiting = map[*waiter]struct{}{}
	for w := range told {
		w.timer.Stop()
		b.places.Leave(w.place)
	}
	go func() {
		n := 0
		for w := range told {
			w.send(reply(w.req, nodesReply{Routes: routes, Version: version}))
			if n++; n%tellTogether == 0 {
				time.Sleep(tellPause)
			}
		}
	}()
}

// ask reads what a request says that the asker knows already, and for how long it waits for something else. An empty body asks for an answer at once.
func ask(req *rpc.Request) (a nodesRequest, ok bool) {
	if len(req.Body) == 0 {
		return a, true
	}
	err := cbor.Unmarshal(req.Body, &a)
	return a, err == nil && len(a.Have) <= versionSize
}

// awaits returns an answer that goes out when there is another list than the asker knows, after its wait, or at once when others need the place; nil where
// the list is another one already, or nothing is waited for.
func (b *board) awaits(ctx context.Context, caller identity.Identifier, req *rpc.Request, a nodesRequest) *rpc.Response {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.Wait <= 0 || !bytes.Equal(a.Have, b.version) {
		return nil
	}
	from := fair.Source{rpc.Source(ctx), string(caller[:])}
	return &rpc.Response{Later: func(send func(*rpc.Response)) { b.wait(from, &waiter{req: req, send: send}, a) }}
}

// wait keeps a waiter.
func (b *board) wait(from fair.Source, w *waiter, a nodesRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !bytes.Equal(a.Have, b.version) { // since a moment ago
		go w.send(reply(w.req, nodesReply{Routes: b.routes, Version: b.version}))
		return
	}
	var oldest *waiter
	var evicted bool
	if w.place, oldest, evicted = b.places.Take(from, w); evicted {
		go b.release(oldest)
	}
	w.timer = time.AfterFunc(time.Duration(min(a.Wait, MaxWait.Milliseconds()))*time.Millisecond, func() { b.release(w) })
	b.waiting[w] = struct{}{}
}

// release answers a waiter that the list is the one that it knows.
func (b *board) release(w *waiter) {
	b.mu.Lock()
	_, waits := b.waiting[w]
	delete(b.waiting, w)
	b.places.Leave(w.place)
	version := b.version
	b.mu.Unlock()
	if waits {
		w.timer.Stop()
		w.send(reply(w.req, nodesReply{Version: version}))
	}
}
