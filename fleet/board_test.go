package fleet

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// waits is a member whose channel carries answers that come later.
func waits(server rpc.Server, n int, source string) *Client {
	id := identity.Identifier{byte(n), byte(n >> 8), 1}
	return &Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		resp := server.Serve(rpc.WithSource(ctx, source), &id, req)
		if resp.Later != nil {
			answers := make(chan *rpc.Response, 1)
			resp.Later(func(r *rpc.Response) { answers <- r })
			select {
			case resp = <-answers:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if resp.Re != req.ID {
			return nil, fmt.Errorf("an answer to %d, asked was %d", resp.Re, req.ID)
		}
		return resp, resp.Err()
	}}
}

// TestOthers: who knows where the nodes are hears of another one as soon as it has come, from the keeper and from a delegate, and else after a while that there is none.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		p := newPlace(t, Relay)
		box := p.box(1)
		d := NewDelegate(box, p.id, func(context.Context, []byte) error { return nil })
		_, err := box.Redeem(ctx, p.ticket(t), "one", route)
		must(t, err)
		must(t, d.Look(ctx))
		for name, server := range map[string]rpc.Server{"keeper": p.Keeper, "delegate": d} {
			began := time.Now()
			n, same, err := waits(server, 1, "a").Others(ctx, nil)
			if err != nil || same || len(n.Version) == 0 || len(n.Routes) != 1 || time.Since(began) > 0 {
				t.Errorf("%s: at first: %+v, %v, %v, after %v", name, n, same, err, time.Since(began))
			}
			_, same, err = waits(server, 1, "a").Others(ctx, n.Version)
			if took := time.Since(began); err != nil || !same || took != MaxWait {
				t.Errorf("%s: nothing happens: %v, %v, after %v", name, same, err, took)
			}
			began = time.Now()
			if n, same, err = waits(server, 1, "a").Others(ctx, []byte("another")); err != nil || same || len(n.Routes) != 1 || time.Since(began) > 0 {
				t.Errorf("%s: another list: %+v, %v, %v, after %v", name, n, same, err, time.Since(began))
			}
		}
		first, _, err := waits(d, 1, "a").Others(ctx, nil)
		must(t, err)
		const members = 3 * tellTogether
		heard := make(chan error, 2*members)
		for i := range members {
			for _, server := range []rpc.Server{p.Keeper, d} {
				go func() {
					n, same, err := waits(server, i, fmt.Sprint("source ", i%7)).Others(ctx, first.Version)
					if err == nil && (same || len(n.Routes) != 2) {
						err = fmt.Errorf("told %+v, %v", n, same)
					}
					heard <- err
				}()
			}
		}
		synctest.Wait()
		began := time.Now()
		_, err = p.box(2).Redeem(ctx, p.ticket(t), "two", strings.ReplaceAll(route, "relay", "other"))
		must(t, err)
		must(t, d.Look(ctx))
		for range 2 * members {
			must(t, <-heard)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("all heard after %v", took)
		}
		if k, d := len(p.board.waiting)+p.board.places.Held(), len(d.board.waiting)+d.board.places.Held(); k+d != 0 {
			t.Errorf("%d wait at the keeper still, %d at the delegate", k, d)
		}
		time.Sleep(2 * MaxWait) // no timer answers a second time
	})
}

// TestWaitingBounds: of more who wait than there is room for the oldest of the source that has most are told that nothing has changed, and go; what cannot be read is refused, and nobody
// waits for longer than the bound.
func TestWaitingBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		p := newPlace(t, Relay)
		const places = 20
		p.board = newBoard(places)
		p.board.set(nil)
		have := versionOf(nil)
		type told struct {
			greedy, same bool
			after        time.Duration
			err          error
		}
		answers := make(chan told, places+10)
		began := time.Now()
		wait := func(i int, source string) {
			go func() {
				_, same, err := waits(p.Keeper, i, source).Others(ctx, have)
				answers <- told{source == "greedy", same, time.Since(began), err}
			}()
			synctest.Wait()
		}
		wait(0, "modest")
		for i := range places + 4 {
			wait(i, "greedy")
		}
		for range 5 {
			if a := <-answers; a.err != nil || !a.same || !a.greedy || a.after != 0 {
				t.Fatalf("told %+v", a)
			}
		}
		p.board.mu.Lock() // those that are left are released at any moment, as far as the race detector knows
		held, waiting := p.board.places.Held(), len(p.board.waiting)
		p.board.mu.Unlock()
		if held != places || waiting != places {
			t.Errorf("%d places are held, %d wait", held, waiting)
		}
		for range places {
			if a := <-answers; a.err != nil || !a.same || a.after != MaxWait {
				t.Fatalf("told %+v", a)
			}
		}

		id := identity.Identifier{1}
		for name, body := range map[string][]byte{
			"no CBOR": {0xff}, "a long version": must2(cbor.Marshal(nodesRequest{Have: make([]byte, versionSize+1), Wait: 1})), "a wait that is text": must2(cbor.Marshal(map[int]string{2: "long"})),
		} {
			if resp := p.Serve(ctx, &id, rpc.NewRequest(rpc.Get, pathNodes, body)); resp.Status != rpc.BadRequest {
				t.Errorf("%s: %+v", name, resp)
			}
		}
		for _, ms := range []int64{1 << 62, -1 << 62, 1 << 40} {
			began := time.Now()
			resp := p.Serve(ctx, &id, rpc.NewRequest(rpc.Get, pathNodes, must2(cbor.Marshal(nodesRequest{Have: have, Wait: ms}))))
			if resp.Later == nil && ms > 0 {
				t.Fatalf("a wait of %d ms is answered at once", ms)
			} else if resp.Later != nil {
				sent := make(chan struct{})
				resp.Later(func(*rpc.Response) { close(sent) })
				<-sent
			}
			if took := time.Since(began); took > MaxWait {
				t.Errorf("a wait of %d ms took %v", ms, took)
			}
		}
	})
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
