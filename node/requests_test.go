package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// serverFunc is a Server of one function.
type serverFunc func(ctx context.Context, req *rpc.Request) *rpc.Response

func (f serverFunc) Serve(ctx context.Context, _ *identity.Identifier, req *rpc.Request) *rpc.Response {
	return f(ctx, req)
}

// TestEveryRequestIsAnswered sends more requests at once than are worked on, and more than may wait.
func TestEveryRequestIsAnswered(t *testing.T) {
	m := newMember(t)
	let := make(chan struct{})
	var serving atomic.Int64
	slow := serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response {
		serving.Add(1)
		<-let
		return rpc.NewResponse(req, rpc.OK, []byte("done"))
	})
	const waiting, all = 100, 500
	worker := m.rpcWorker("slow", slow).(*rpcServer)
	worker.places = fair.NewShares[*request](waiting)
	if err := m.router.StartNamed(within(t), "slow", func(*routing.Shard) routing.Worker { return worker }); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	count := map[string]int{}
	var asked sync.WaitGroup
	for i := range all {
		if i == maxRequests { // the others find all turns taken
			settles(t, "as many as may be are worked on", func() bool { return serving.Load() == maxRequests })
		}
		asked.Go(func() {
			reply, err := m.router.Request(within(t), routing.LocalRoute("slow"), rpc.NewRequest(rpc.Get, "/", nil).Encode())
			outcome := "unanswered"
			if err == nil {
				resp, err := rpc.DecodeResponse(reply.Payload)
				switch {
				case err != nil:
					outcome = err.Error()
				case resp.Status == rpc.OK:
					outcome = "done"
				default:
					outcome = rpc.DecodeError(resp.Body).Message
				}
			}
			mu.Lock()
			defer mu.Unlock()
			count[outcome]++
		})
	}
	settles(t, "those too many are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count[textBusy] == all-waiting-maxRequests
	})
	close(let)
	asked.Wait()
	if count["done"] != waiting+maxRequests || count[textBusy] != all-waiting-maxRequests {
		t.Errorf("%v", count)
	}
}

// TestLaterAnswer: an answer that is given later goes to who asked, and takes nothing from others until then.
func TestLaterAnswer(t *testing.T) {
	m := newMember(t)
	held := make(chan func(*rpc.Response), 2*maxRequests)
	server := serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response {
		if req.Path == "/later" {
			return &rpc.Response{Later: func(send func(*rpc.Response)) {
				held <- func(resp *rpc.Response) { resp.Re = req.ID; send(resp) }
			}}
		}
		return rpc.NewResponse(req, rpc.OK, nil)
	})
	if err := m.router.StartNamed(within(t), "s", func(*routing.Shard) routing.Worker { return m.rpcWorker("s", server) }); err != nil {
		t.Fatal(err)
	}
	ask := func(path, body string) error {
		req := rpc.NewRequest(rpc.Get, path, nil)
		reply, err := m.router.Request(within(t), routing.LocalRoute("s"), req.Encode())
		if err != nil {
			return err
		}
		resp, err := rpc.DecodeResponse(reply.Payload)
		if err == nil && (resp.Re != req.ID || string(resp.Body) != body) {
			err = fmt.Errorf("%s is answered %+v", path, resp)
		}
		return err
	}
	answered := make(chan error, 2*maxRequests)
	for range 2 * maxRequests { // more than are worked on at a time
		go func() { answered <- ask("/later", "at last") }()
	}
	var sends []func(*rpc.Response)
	for range 2 * maxRequests {
		sends = append(sends, <-held)
	}
	if err := ask("/now", ""); err != nil {
		t.Error(err)
	}
	for _, send := range sends {
		send(rpc.NewResponse(nil, rpc.OK, []byte("at last")))
	}
	for range sends {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
}

// TestDelayedAnswer: an answer that says so comes later, and takes nothing from others meanwhile.
func TestDelayedAnswer(t *testing.T) {
	m := newMember(t)
	done := make(chan struct{})
	server := serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response {
		resp := rpc.NewResponse(req, rpc.OK, []byte(req.Path))
		if req.Path == "/late" {
			resp.Delay, resp.Done = 300*time.Millisecond, func() { close(done) }
		}
		return resp
	})
	if err := m.router.StartNamed(within(t), "s", func(*routing.Shard) routing.Worker { return m.rpcWorker("s", server) }); err != nil {
		t.Fatal(err)
	}
	ask := func(path string) {
		if _, err := m.router.Request(within(t), routing.LocalRoute("s"), rpc.NewRequest(rpc.Get, path, nil).Encode()); err != nil {
			t.Error(err)
		}
	}
	start := time.Now()
	ask("/late")
	if time.Since(start) < 300*time.Millisecond {
		t.Error("it did not wait")
	}
	select {
	case <-done:
	default:
		t.Error("Done was not called")
	}
	ask("/now")
}
